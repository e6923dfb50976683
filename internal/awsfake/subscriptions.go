package awsfake

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// Subscription is one answer to SubscribeToShard.
type Subscription struct {
	Stream   string
	Shard    string // its id
	Consumer string // its name
}

// subscriptions are the books of a Server's subscriptions, and who watches them.
type subscriptions struct {
	mu   sync.Mutex
	open map[*subscription]struct{}
	// By stream, and by stream and shard.
	streams map[string]*tally
	shards  map[[2]string]*tally
	hooks   []*func(Subscription, time.Time, int) // replaced or appended to, never edited
}

// tally counts what is open. Invariant: 0 <= now <= most.
type tally struct{ now, most int }

func (t *tally) add() {
	t.now++
	t.most = max(t.most, t.now)
}

func newSubscriptions() *subscriptions {
	return &subscriptions{open: map[*subscription]struct{}{}, streams: map[string]*tally{}, shards: map[[2]string]*tally{}}
}

func (ss *subscriptions) add(sub *subscription) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.open[sub] = struct{}{}
	tallyOf(ss.streams, sub.Stream).add()
	tallyOf(ss.shards, [2]string{sub.Stream, sub.Shard}).add()
}

func (ss *subscriptions) remove(sub *subscription) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	delete(ss.open, sub)
	ss.streams[sub.Stream].now--
	ss.shards[[2]string{sub.Stream, sub.Shard}].now--
}

func tallyOf[K comparable](tallies map[K]*tally, key K) *tally {
	t := tallies[key]
	if t == nil {
		t = &tally{}
		tallies[key] = t
	}
	return t
}

// handedOver tells the hooks of a frame with records.
func (ss *subscriptions) handedOver(sub Subscription, at time.Time, records int) {
	ss.mu.Lock()
	hooks := ss.hooks
	ss.mu.Unlock()
	for _, hook := range hooks {
		(*hook)(sub, at, records)
	}
}

// Subscriptions returns those of a stream that are open, ordered by shard and
// consumer. One is open from its successful answer until the server has ended
// it or has noticed that its client went.
func (s *Server) Subscriptions(stream string) []Subscription {
	s.subscriptions.mu.Lock()
	defer s.subscriptions.mu.Unlock()
	var list []Subscription
	for sub := range s.subscriptions.open {
		if sub.Stream == stream {
			list = append(list, sub.Subscription)
		}
	}
	slices.SortFunc(list, func(a, b Subscription) int {
		return cmp.Or(cmp.Compare(a.Shard, b.Shard), cmp.Compare(a.Consumer, b.Consumer))
	})
	return list
}

// MostSubscriptions is the most subscriptions to a shard that were open at once,
// of all consumers. One that is taken over from counts until it has ended, so a
// take-over counts two unless the old one's client had left.
func (s *Server) MostSubscriptions(stream, shard string) int {
	s.subscriptions.mu.Lock()
	defer s.subscriptions.mu.Unlock()
	if t := s.subscriptions.shards[[2]string{stream, shard}]; t != nil {
		return t.most
	}
	return 0
}

// MostSubscriptionsOf is the most subscriptions to all shards of a stream that
// were open at once.
func (s *Server) MostSubscriptionsOf(stream string) int {
	s.subscriptions.mu.Lock()
	defer s.subscriptions.mu.Unlock()
	if t := s.subscriptions.streams[stream]; t != nil {
		return t.most
	}
	return 0
}

// OnEvent registers a hook that is called after a frame with records was handed
// to its connection whole; in process that is when the client has read it. at is
// when the frame was ready and the hand-over began, by the server's clock. The
// hook runs on the goroutine that sends, which it delays, and without locks.
func (s *Server) OnEvent(hook func(sub Subscription, at time.Time, records int)) (remove func()) {
	s.subscriptions.mu.Lock()
	defer s.subscriptions.mu.Unlock()
	stored := &hook
	s.subscriptions.hooks = append(s.subscriptions.hooks, stored)
	return func() {
		s.subscriptions.mu.Lock()
		defer s.subscriptions.mu.Unlock()
		s.subscriptions.hooks = remaining(s.subscriptions.hooks, stored)
	}
}
