package awskinesis

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/lineage"
	"github.com/benthos-plugins/aws-kinesis/internal/retrieval"
)

const (
	// One reading of the shards and leases of all streams is bounded by the lease
	// period, between these two: while it lasts nothing is shared.
	leastLookTimeout = 5 * time.Second
	mostLookTimeout  = 30 * time.Second
	// looksAtOnce bounds the streams that a look reads side by side.
	looksAtOnce = 16
	// listPage is the number of shards asked for at once, the most there is.
	listPage = 10_000
	// relistAfter is the number of rebalance periods after which the shards are
	// listed anew without a reason. Reasons are a finished shard, a shard that is
	// gone, an item of a shard that is not in the list, and a list that cannot be true.
	relistAfter = 10
	// settle is the time between a client's announcement and its first look:
	// clients that start together see one another before they claim.
	settle = 250 * time.Millisecond
)

// shardLister is what the input uses of the Kinesis client beside reading.
type shardLister interface {
	DescribeStreamSummary(context.Context, *kinesis.DescribeStreamSummaryInput, ...func(*kinesis.Options)) (*kinesis.DescribeStreamSummaryOutput, error)
	ListShards(context.Context, *kinesis.ListShardsInput, ...func(*kinesis.Options)) (*kinesis.ListShardsOutput, error)
}

// streamView is a stream as the balancer's loop knows it.
type streamView struct {
	stream
	shards []lineage.Shard
	whole  bool                     // as far as that can be told of the list
	items  map[lease.Key]lease.Item // nil until they have been read

	// ended has the consumers that ended lately, by their number. What we know
	// of their shards is newer than looks that were begun before.
	ended map[lease.Key]int
	// unsure are shards that are left alone until a look tells whose they are.
	unsure map[lease.Key]bool

	// listed is when the shards were listed; zero asks for a new list.
	listed     time.Time
	serverTime time.Time // of that list, by the service's clock
	// newest is the highest id of that list. A shard that is not listed has been
	// trimmed if its id is lower, and is yet to be listed if it is higher.
	newest string
	// strange is the newest shard in the table for which the shards have been
	// listed anew. It may belong to an earlier stream of the same name.
	strange string
	// startAt is where shards without an item start; zero for the oldest record.
	startAt time.Time

	// doubted is since when a shard has been open by the list and finished by the
	// table. The list may be the older of the two. A shard for which a later one
	// says the same is reborn: the stream was deleted and made anew, and the mark
	// is of the earlier one.
	doubted map[lease.Key]time.Time
	reborn  map[lease.Key]bool

	// unread is since when nobody has read an open shard, nor one before it.
	unread map[string]time.Time
	warned bool // of one that has been unread for long

	tookAt time.Time // when a shard was last taken from a client that cannot be asked

	trouble string // the error of the last look; empty when it went well
}

// newStreamView returns the view of a stream whose shards have been listed.
func newStreamView(s stream, shards []lineage.Shard, serverTime time.Time) *streamView {
	return &streamView{
		stream: s, shards: shards, whole: lineage.Whole(shards),
		listed: time.Now(), serverTime: serverTime, newest: newest(shards),
		ended: map[lease.Key]int{}, unsure: map[lease.Key]bool{},
		doubted: map[lease.Key]time.Time{}, reborn: map[lease.Key]bool{},
	}
}

// look is what one reading of the service and the table brought.
type look struct {
	changes int
	views   []streamLook

	start, end time.Time
	present    []presence
	err        error // of announcing this client and reading the others
	untidy     error // of removing those that have died
}

type streamLook struct {
	start, end time.Time
	items      []lease.Item
	shards     []lineage.Shard
	listed     time.Time // zero when they were not
	serverTime time.Time
	err        error
}

// task is what a look has to do.
type task struct {
	changes    int
	listShards []bool // by stream
	// announce is stored first, if its client is set, and dead are removed.
	announce presence
	first    bool
	dead     []presence
	gone     []lease.Item
}

func (b *balancer) startLook(ctx context.Context) {
	b.nextAt = time.Now().Add(b.lookEvery())
	if b.looking {
		return
	}
	b.looking = true
	t := task{changes: b.changes, listShards: make([]bool, len(b.streams))}
	for i, s := range b.streams {
		t.listShards[i] = time.Since(s.listed) >= relistAfter*b.conf.rebalancePeriod
		t.gone = append(t.gone, s.gone()...)
	}
	if !b.explicit() {
		b.planPresence(&t)
	}
	go func() { // run and stop receive until it has ended
		b.looked <- b.look(ctx, t)
	}()
}

// planPresence has a client announce itself that others cannot see by its leases,
// and the announcements of those removed that have gone without a word.
func (b *balancer) planPresence(t *task) {
	_, announced := b.present[b.client]
	t.first = b.present == nil
	if !announced || !b.visible() {
		b.announced = b.presence()
		t.announce = b.announced
	}
	owning := map[string]bool{}
	for _, s := range b.streams {
		for _, item := range s.items {
			owning[item.Owner] = true
		}
	}
	for client, p := range b.present {
		if client != b.client && !owning[client] && b.watcher.Dead(p.Item) {
			t.dead = append(t.dead, p)
		}
	}
}

// visible reports whether every other client sees by our leases that we are there:
// one that reads none of the streams that we hold shards of sees nothing of them.
func (b *balancer) visible() bool {
	held := map[string]bool{}
	for key, h := range b.consumers {
		if h.claimed {
			held[key.Stream] = true
		}
	}
	for client, p := range b.present {
		if client != b.client && !slices.ContainsFunc(p.streams, func(stream string) bool { return held[stream] }) {
			return false
		}
	}
	return len(held) > 0
}

func (b *balancer) presence() presence {
	p := presence{Item: lease.Item{
		Key:    lease.Key{Stream: presences, Shard: b.client},
		Owner:  b.client,
		Token:  time.Now().UTC().Format(time.RFC3339Nano),
		Period: b.conf.leasePeriod,
	}}
	for _, s := range b.streams {
		p.streams = append(p.streams, s.id)
	}
	return p
}

// look reads the leases of all streams, and the shards of those that ask for it.
// It runs beside the loop and touches nothing that the loop owns.
func (b *balancer) look(ctx context.Context, t task) look {
	ctx, cancel := context.WithTimeout(ctx, min(max(leastLookTimeout, b.conf.leasePeriod), mostLookTimeout))
	defer cancel()
	l := look{changes: t.changes, views: make([]streamLook, len(b.streams))}
	l.err = b.meet(ctx, t)
	for _, p := range t.dead {
		l.untidy = errors.Join(l.untidy, b.store.withdraw(ctx, p))
	}
	for _, mark := range t.gone {
		l.untidy = errors.Join(l.untidy, b.store.forget(ctx, mark))
	}
	l.start = time.Now()
	if l.err == nil && !b.explicit() {
		l.present, l.err = b.store.present(ctx)
	}
	l.end = time.Now()

	slots := make(chan struct{}, looksAtOnce)
	var streams sync.WaitGroup
	for i, s := range b.streams {
		slots <- struct{}{}
		streams.Go(func() {
			defer func() { <-slots }()
			l.views[i] = b.lookAt(ctx, s.id, t.listShards[i])
		})
	}
	streams.Wait()
	return l
}

// meet announces this client, and waits for others to do the same.
func (b *balancer) meet(ctx context.Context, t task) error {
	if t.announce.Owner != "" {
		if err := b.store.announce(ctx, t.announce); err != nil {
			return err
		}
	}
	if t.first && !b.explicit() {
		pause := time.NewTimer(settle)
		defer pause.Stop()
		select {
		case <-pause.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (b *balancer) lookAt(ctx context.Context, stream string, listShards bool) (v streamLook) {
	// Shards first: an item of a shard that is not listed is then an old one,
	// and one that is listed without an item cannot have been finished before.
	if listShards {
		v.listed = time.Now()
		if v.shards, v.serverTime, v.err = listAllShards(ctx, b.lister, stream); v.err != nil {
			return v
		}
	}
	v.start = time.Now()
	v.items, v.err = b.store.list(ctx, stream)
	v.end = time.Now()
	return v
}

// listAllShards returns every shard of a stream, all pages, and the service's
// own time.
func listAllShards(ctx context.Context, api shardLister, stream string) (shards []lineage.Shard, at time.Time, err error) {
	in := &kinesis.ListShardsInput{MaxResults: new(int32(listPage))}
	in.StreamName, in.StreamARN = retrieval.StreamParameters(stream)
	for {
		out, err := api.ListShards(ctx, in)
		if err != nil {
			return nil, time.Time{}, fmt.Errorf("listing the shards of stream %s: %w", stream, err)
		}
		for _, s := range out.Shards {
			shards = append(shards, shardOf(s))
		}
		if out.NextToken == nil {
			at, _ = awsmiddleware.GetServerTime(out.ResultMetadata)
			return shards, at, nil
		}
		// A next token goes alone.
		in = &kinesis.ListShardsInput{NextToken: out.NextToken, MaxResults: in.MaxResults}
	}
}

func shardOf(s types.Shard) lineage.Shard {
	shard := lineage.Shard{ID: *s.ShardId}
	for _, parent := range []*string{s.ParentShardId, s.AdjacentParentShardId} {
		if parent != nil {
			shard.Parents = append(shard.Parents, *parent)
		}
	}
	shard.Closed = s.SequenceNumberRange != nil && s.SequenceNumberRange.EndingSequenceNumber != nil
	if s.HashKeyRange != nil {
		shard.FirstKey, shard.LastKey = aws.ToString(s.HashKeyRange.StartingHashKey), aws.ToString(s.HashKeyRange.EndingHashKey)
	}
	return shard
}

// absorb takes in what a look has brought.
func (b *balancer) absorb(l look) {
	for i, v := range l.views {
		s := b.streams[i]
		b.report(&s.trouble, v.err)
		if v.err != nil {
			continue
		}
		// A list from before a shard's end would undo what its end has told.
		if !v.listed.IsZero() && l.changes == b.changes {
			s.shards, s.listed, s.serverTime, s.newest = v.shards, v.listed, v.serverTime, newest(v.shards)
			s.whole = lineage.Whole(v.shards)
		}
		b.absorbItems(s, v, l.changes)
	}
	b.absorbPresence(l)
	b.expect()
	if due, ok := b.watcher.NextDue(time.Now(), b.client); ok {
		b.lookWithin(time.Until(due))
	}
}

func (b *balancer) absorbPresence(l look) {
	b.report(&b.untidy, l.untidy)
	b.report(&b.trouble, l.err)
	if l.err != nil {
		return
	}
	before := b.present
	b.present = make(map[string]presence, len(l.present))
	items := make([]lease.Item, 0, len(l.present))
	for _, p := range l.present {
		b.present[p.Owner] = p
		items = append(items, p.Item)
	}
	b.watcher.Observe(presences, items, l.start, l.end)
	if !maps.EqualFunc(before, b.present, func(presence, presence) bool { return true }) {
		if time.Since(b.changed) > calmFor {
			b.restless = time.Now()
		}
		b.changed = time.Now()
	}
}

// report logs what went wrong in a look once, however often it is repeated.
func (b *balancer) report(last *string, err error) {
	said := ""
	if err != nil {
		said = err.Error()
	}
	if said != "" && said != *last && !errors.Is(err, context.Canceled) {
		b.log.Errorf("Balancing goes on with what is known: %v", err)
	}
	*last = said
}

func (b *balancer) absorbItems(s *streamView, v streamLook, changes int) {
	b.watcher.Observe(s.id, v.items, v.start, v.end)
	before := s.items
	s.items = make(map[lease.Key]lease.Item, len(v.items))
	for _, item := range v.items {
		s.items[item.Key] = item
		// Where the first process on this stream began is where late shards
		// begin too: those from before that time that nobody has got to yet,
		// and those from after it, all of whose records are newer.
		if !item.StartAt.IsZero() && (s.startAt.IsZero() || item.StartAt.Before(s.startAt)) {
			s.startAt = item.StartAt
		}
	}
	if before == nil && len(v.items) == 0 {
		s.startAt = b.conf.startFrom
		if !b.conf.startFromOldest {
			s.startAt = s.serverTime
		}
	}
	if id := s.unlisted(); id > s.strange {
		s.strange, s.listed = id, time.Time{}
	}
	for key, number := range s.ended {
		if number > changes {
			delete(s.items, key)
			if item, ok := before[key]; ok {
				s.items[key] = item
			}
			b.lookWithin(lookSoon)
			continue
		}
		delete(s.ended, key)
		delete(s.unsure, key)
	}
	b.doubt(s)
}

// doubt looks for finished shards that are open, and for open ones that leave hash
// keys to nobody: the service may list shards as they were, or not yet list those
// that are new, for a while after a reshard. Such a list is soon made anew.
func (b *balancer) doubt(s *streamView) {
	open := make(map[string]bool, len(s.shards))
	for _, shard := range s.shards {
		open[shard.ID] = !shard.Closed
	}
	doubted, reborn, relist := map[lease.Key]time.Time{}, map[lease.Key]bool{}, !s.whole
	for key, item := range s.items {
		if !item.Finished || !open[s.shardID(key.Shard)] {
			continue
		}
		since, known := s.doubted[key]
		if !known {
			since = time.Now()
		}
		doubted[key] = since
		switch {
		case s.reborn[key]:
			reborn[key] = true
		case s.listed.Sub(since) >= b.lookEvery():
			reborn[key] = true
			b.log.Warnf("Shard %s is open, and was finished in an earlier stream of the same name: it is read from its oldest record", key)
		default:
			relist = true
		}
	}
	s.doubted, s.reborn = doubted, reborn
	if relist {
		s.listed = time.Time{}
	}
}

// newest returns the highest id of shards. Ids are given out in ascending order.
func newest(shards []lineage.Shard) string {
	highest := ""
	for _, shard := range shards {
		highest = max(highest, shard.ID)
	}
	return highest
}

// unlisted returns the highest id of a shard that the table knows and that is
// newer than the list; empty when there is none.
func (s *streamView) unlisted() string {
	highest := ""
	for key := range s.items {
		if id := s.shardID(key.Shard); id > s.newest {
			highest = max(highest, id)
		}
	}
	return highest
}

// gone returns the marks of finished shards that have left the stream.
func (s *streamView) gone() []lease.Item {
	listed := make(map[string]bool, len(s.shards))
	for _, shard := range s.shards {
		listed[shard.ID] = true
	}
	var gone []lease.Item
	for key, item := range s.items {
		if id := s.shardID(key.Shard); item.Finished && !listed[id] && id < s.newest {
			gone = append(gone, item)
		}
	}
	return gone
}

// candidate is a shard that is ours to read, if the lineage and the table let us.
type candidate struct {
	key   lease.Key
	shard string // full id
}

func (s *streamView) candidates() []candidate {
	var cs []candidate
	for _, id := range s.stream.shards {
		cs = append(cs, candidate{key: lease.Key{Stream: s.id, Shard: id}, shard: s.shardID(id)})
	}
	if len(cs) > 0 {
		return cs
	}
	for _, shard := range s.shards {
		cs = append(cs, candidate{key: lease.Key{Stream: s.id, Shard: shard.ID}, shard: shard.ID})
	}
	return cs
}

// graph is the lineage of the candidates. Of explicit shards, those that are not
// listed in the configuration are somebody else's business and hold nobody.
func (s *streamView) graph() *lineage.Graph {
	states := make(map[string]lineage.State, len(s.items))
	explicit := map[string]bool{}
	for _, c := range s.candidates() {
		explicit[c.shard] = true
		if item, ok := s.items[c.key]; ok {
			states[c.shard] = lineage.Begun
			if item.Finished && !s.reborn[c.key] {
				states[c.shard] = lineage.Finished
			}
		}
	}
	return lineage.NewGraph(slices.DeleteFunc(slices.Clone(s.shards), func(shard lineage.Shard) bool {
		return !explicit[shard.ID]
	}), states)
}

// adopt adds the children of a shard that was read to its end to those known, so
// that they begin at once. The next list confirms them, and brings those of which
// another parent has yet to be listed, which would pass for one that was trimmed.
func (s *streamView) adopt(parent string, children []retrieval.Child) {
	s.listed = time.Time{}
	for i := range s.shards {
		if s.shards[i].ID == parent {
			s.shards[i].Closed = true
		}
	}
	known := map[string]bool{}
	for _, shard := range s.shards {
		known[shard.ID] = true
	}
	yetToCome := func(id string) bool { return !known[id] && id > s.newest }
	for _, child := range children {
		if yetToCome(child.ID) && !slices.ContainsFunc(child.Parents, yetToCome) {
			s.shards = append(s.shards, lineage.Shard{ID: child.ID, Parents: child.Parents})
		}
	}
}

// finished reports whether nothing will ever be left to read of a stream, which
// only explicit shards can come to.
func (s *streamView) finished() bool {
	if len(s.stream.shards) == 0 || s.items == nil || len(s.doubted) > len(s.reborn) {
		return false
	}
	graph := s.graph()
	return !slices.ContainsFunc(s.candidates(), func(c candidate) bool { return !graph.Finished(c.shard) })
}
