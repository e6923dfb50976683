package awskinesis

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"regexp"
	"slices"
	"sync"
	"time"

	dynamotypes "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
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
	// relistAfter is the number of rebalance periods after which the shards are
	// listed anew without a reason. Reasons are a finished shard, a shard that is
	// gone, an item of a shard that is not in the list, and a list that cannot be true.
	relistAfter = 10
	// enoughNotFound is how often in a row a stream must not be found to be missing,
	// and mostMissingPause the longest pause before it is looked for again.
	enoughNotFound   = 3
	mostMissingPause = 80 * time.Second
	// settle is the time between a client's announcement and its first look:
	// clients that start together see one another before they claim.
	settle = 250 * time.Millisecond
)

// shardLister is what the input uses of the Kinesis client beside reading.
type shardLister interface {
	retrieval.Lister
	DescribeStreamSummary(context.Context, *kinesis.DescribeStreamSummaryInput, ...func(*kinesis.Options)) (*kinesis.DescribeStreamSummaryOutput, error)
}

// streamView is a stream as the balancer's loop knows it.
type streamView struct {
	stream
	// missing streams have not been listed yet, or do not exist any more. They are
	// tried again, more and more rarely, and nobody reads them until then.
	missing  bool
	notFound int // answers in a row that say so of one that was there
	attempts int // to find one that is missing
	retryAt  time.Time

	shards []lineage.Shard
	byID   map[string]lineage.Shard // the same
	whole  bool                     // as far as that can be told of the list
	// ends are the last sequence numbers of shards that were closed, also of those
	// that have left the stream since.
	ends  map[string]string
	items map[lease.Key]lease.Item // by full id; nil until they have been read
	// literals are the items under which readers that write a shard as "0" keep it,
	// as Benthos' built-in input does, by the key of the shard.
	literals map[lease.Key][]lease.Item
	// said has what was logged of an item, so that it is said once.
	said map[lease.Key]string
	// waiting has who reads a shard that is to be read here, once it was said.
	waiting map[lease.Key]string
	// vanished is until when a shard is left alone whose item was deleted under its
	// owner, who alone knows how far it has been read.
	vanished map[lease.Key]time.Time
	// unseen is since when a shard with unread records has not been in the list.
	unseen map[lease.Key]time.Time

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
func newStreamView(st stream, shards []lineage.Shard, serverTime time.Time) *streamView {
	s := &streamView{
		stream: st, ends: map[string]string{}, said: map[lease.Key]string{}, waiting: map[lease.Key]string{}, unseen: map[lease.Key]time.Time{}, vanished: map[lease.Key]time.Time{},
		ended: map[lease.Key]int{}, unsure: map[lease.Key]bool{},
		doubted: map[lease.Key]time.Time{}, reborn: map[lease.Key]bool{},
	}
	s.setList(shards, time.Now(), serverTime)
	return s
}

// newMissingView returns the view of a stream that could not be listed.
func newMissingView(st stream) *streamView {
	s := newStreamView(st, nil, time.Time{})
	s.missing = true
	return s
}

// setList takes in a list of the shards that was asked for at a time.
func (s *streamView) setList(shards []lineage.Shard, listed, serverTime time.Time) {
	s.shards, s.listed, s.serverTime = shards, listed, serverTime
	s.newest, s.whole = newest(shards), lineage.Whole(shards)
	s.byID = make(map[string]lineage.Shard, len(shards))
	maps.DeleteFunc(s.ends, func(id, _ string) bool { return !s.items[s.keyOf(id)].Exists })
	for _, shard := range shards {
		s.byID[shard.ID] = shard
		if shard.LastSequence != "" {
			s.ends[shard.ID] = shard.LastSequence
		}
	}
}

// look is what one reading of the service and the table brought.
type look struct {
	changes int
	views   []streamLook

	start, end time.Time
	present    []presence
	err        error // of announcing this client and reading the others
	recreated  bool  // the table was missing, and has been created again
}

type streamLook struct {
	skipped    bool
	start, end time.Time
	items      []lease.Item
	shards     []lineage.Shard
	listed     time.Time // zero when they were not
	serverTime time.Time
	listErr    error // of listing the shards
	err        error // of reading the items
}

// task is what a look has to do.
type task struct {
	changes    int
	listShards []bool // by stream
	missing    []bool // the same
	skip       []bool // the same
	// announce is stored first, if its client is set, and dead are removed.
	announce presence
	first    bool
}

func (b *balancer) startLook(ctx context.Context) {
	b.nextAt = time.Now().Add(b.lookEvery())
	if b.looking {
		return
	}
	b.looking = true
	t := task{changes: b.changes, listShards: make([]bool, len(b.streams)), missing: make([]bool, len(b.streams)), skip: make([]bool, len(b.streams))}
	for i, s := range b.streams {
		t.listShards[i] = time.Since(s.listed) >= relistAfter*b.conf.rebalancePeriod
		t.missing[i], t.skip[i] = s.missing, s.missing && time.Now().Before(s.retryAt)
	}
	if !b.explicit() {
		b.planPresence(&t)
	}
	go func() { // run and stop receive until it has ended
		b.looked <- b.look(ctx, t)
	}()
}

// planPresence has a client announce itself that others cannot see by its leases.
func (b *balancer) planPresence(t *task) {
	self, announced := b.present[b.client]
	t.first = b.present == nil
	if !announced || !b.visible() || !slices.Equal(slices.Sorted(slices.Values(self.streams)), slices.Sorted(slices.Values(b.presence().streams))) {
		b.announced = b.presence()
		t.announce = b.announced
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
		if !s.missing {
			p.streams = append(p.streams, s.id)
		}
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
	l.start = time.Now()
	if l.err == nil && !b.explicit() {
		l.present, l.err = b.store.present(ctx)
	}
	l.end = time.Now()

	slots := make(chan struct{}, looksAtOnce)
	var streams sync.WaitGroup
	for i, s := range b.streams {
		if t.skip[i] {
			l.views[i].skipped = true
			continue
		}
		slots <- struct{}{}
		streams.Go(func() {
			defer func() { <-slots }()
			if t.missing[i] {
				l.views[i] = b.lookFor(ctx, s.stream)
				return
			}
			l.views[i] = b.lookAt(ctx, s.id, t.listShards[i])
		})
	}
	streams.Wait()
	if b.conf.table.create && l.tableMissing() {
		err := b.store.ensureTable(ctx)
		l.recreated, l.err = err == nil, errors.Join(l.err, err)
	}
	return l
}

// tableMissing reports whether a look found no table.
func (l *look) tableMissing() bool {
	missing := func(err error) bool {
		_, missing := errors.AsType[*dynamotypes.ResourceNotFoundException](err)
		return missing
	}
	return missing(l.err) || slices.ContainsFunc(l.views, func(v streamLook) bool { return missing(v.err) })
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

// lookFor looks for a stream that was missing.
func (b *balancer) lookFor(ctx context.Context, s stream) (v streamLook) {
	v.listed = time.Now()
	if v.shards, v.serverTime, v.err = listStream(ctx, b.lister, s, b.checkForm); v.err != nil {
		return v
	}
	items := b.lookAt(ctx, s.id, false)
	v.start, v.end, v.items, v.err = items.start, items.end, items.items, items.err
	return v
}

func (b *balancer) lookAt(ctx context.Context, stream string, listShards bool) (v streamLook) {
	// Shards first: an item of a shard that is not listed is then an old one,
	// and one that is listed without an item cannot have been finished before.
	if listShards {
		v.listed = time.Now()
		if v.shards, v.serverTime, v.listErr = retrieval.ListShards(ctx, b.lister, stream); v.listErr != nil {
			v.listed = time.Time{}
		}
	}
	v.start = time.Now()
	v.items, v.err = b.store.list(ctx, stream)
	v.end = time.Now()
	return v
}

// absorb takes in what a look has brought.
func (b *balancer) absorb(l look) {
	if l.recreated {
		b.log.Warnf("Table %s was deleted while it was in use, and is created again. Each process goes on from what it holds in memory; what no process reads now is read from its start", b.conf.table.name)
		b.lookWithin(lookSoon)
	}
	for i, v := range l.views {
		s := b.streams[i]
		if v.skipped {
			continue
		}
		b.report(&s.trouble, errors.Join(v.listErr, v.err))
		if s.missing {
			if !b.found(s, v) {
				continue
			}
			v.listed = time.Time{} // it is taken in
		}
		if _, deleted := errors.AsType[*types.ResourceNotFoundException](v.listErr); deleted {
			s.listed = time.Time{}
			if s.notFound++; s.notFound < enoughNotFound {
				b.lookWithin(lookSoon)
				continue
			}
			// There is nothing to read until there is a stream of this name again.
			b.log.Warnf("Stream %s does not exist any more: it is looked for again in a while", s.id)
			s.missing, s.attempts = true, 0
			b.postpone(s)
			continue
		}
		s.notFound = 0
		if v.err != nil {
			continue
		}
		// A list from before a shard's end would undo what its end has told.
		if !v.listed.IsZero() && l.changes == b.changes {
			b.tellUnbegun(s, v.shards)
			s.setList(v.shards, v.listed, v.serverTime)
			for key, h := range b.consumers {
				if key.Stream == s.id && h.first == "" {
					h.first = s.byID[key.Shard].FirstSequence
				}
			}
		}
		b.absorbItems(s, v, l.changes)
	}
	maps.DeleteFunc(b.failing, func(_ lease.Key, f failing) bool { return time.Since(f.until) > 4*b.lookEvery() })
	b.absorbPresence(l)
	b.expect()
	if due, ok := b.watcher.NextDue(time.Now(), b.client); ok {
		b.lookWithin(time.Until(due))
	}
}

// postpone has a stream that is missing looked for later, and later each time.
func (b *balancer) postpone(s *streamView) {
	s.retryAt = time.Now().Add(min(b.lookEvery()<<min(s.attempts, 10), mostMissingPause))
	s.attempts++
}

// found reports whether a stream that was missing is there now.
func (b *balancer) found(s *streamView, v streamLook) bool {
	if v.err != nil {
		b.postpone(s)
		return false
	}
	b.log.Infof("Stream %s, which was missing, is read now", s.id)
	s.missing = false
	s.setList(v.shards, v.listed, v.serverTime)
	if !b.began.IsZero() {
		s.serverTime = b.began
	}
	return true
}

func (b *balancer) absorbPresence(l look) {
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
	said := faultText(err)
	if said != "" && said != *last && !errors.Is(err, context.Canceled) {
		b.log.Errorf("Balancing goes on with what is known: %v", err)
	}
	*last = said
}

var requestID = regexp.MustCompile(`RequestID: [^,]*, `)

// faultText is the text of an error without what is of one request, empty for none: a
// fault that goes on is said once.
func faultText(err error) string {
	if err == nil {
		return ""
	}
	return requestID.ReplaceAllString(err.Error(), "")
}

func (b *balancer) absorbItems(s *streamView, v streamLook, changes int) {
	b.noteVanished(s, v.items)
	b.watcher.Observe(s.id, v.items, v.start, v.end)
	before := s.items
	s.items = make(map[lease.Key]lease.Item, len(v.items))
	s.literals = map[lease.Key][]lease.Item{}
	said := make(map[lease.Key]string)
	for _, item := range v.items {
		if item.Malformed != "" {
			if said[item.Key] = item.Malformed; s.said[item.Key] != item.Malformed {
				b.log.Warnf("The item of shard %s in table %s is malformed: %s. It is claimed when it has stood still long enough for its owner to be dead", item.Key, b.conf.table.name, item.Malformed)
			}
		}
		if key := s.keyOf(item.Shard); key == item.Key {
			s.items[key] = item
		} else {
			s.literals[key] = append(s.literals[key], item)
		}
		// Where the first process on this stream began is where late shards
		// begin too: those from before that time that nobody has got to yet,
		// and those from after it, all of whose records are newer.
		if !item.StartAt.IsZero() && (s.startAt.IsZero() || item.StartAt.Before(s.startAt)) {
			s.startAt = item.StartAt
		}
	}
	s.said = said
	if before == nil && len(v.items) == 0 {
		s.startAt = b.conf.startFrom
		if !b.conf.startFromOldest {
			s.startAt = s.serverTime
		}
	}
	if id := s.unlisted(); id > s.strange {
		s.strange, s.listed = id, time.Time{}
	}
	if slices.ContainsFunc(s.stream.shards, func(written string) bool { return s.shardID(written) > s.newest }) {
		s.listed = time.Time{} // a shard that is to be read has yet to come
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

// noteVanished takes note of items that somebody deleted under the hands of another
// process: that process makes them anew when it notices, which takes it less than its
// lease period.
func (b *balancer) noteVanished(s *streamView, items []lease.Item) {
	there := make(map[lease.Key]bool, len(items))
	for _, item := range items {
		there[item.Key] = true
	}
	vanished := map[lease.Key]time.Time{}
	for key, until := range s.vanished {
		if !there[key] {
			vanished[key] = until
		}
	}
	for key, item := range s.items {
		if owner := b.owner(item); !there[key] && owner != "" && owner != b.client {
			vanished[key] = time.Now().Add(b.watcher.Patience(item))
		}
	}
	s.vanished = vanished
}

// doubt looks for finished shards that are open, and for open ones that leave hash
// keys to nobody: the service may list shards as they were, or not yet list those
// that are new, for a while after a reshard. Such a list is soon made anew. When it
// says the same again, the stream was deleted and made anew, and the mark is of the
// earlier one; where the sequence of the mark is known not to be of this shard that
// is certain at once.
func (b *balancer) doubt(s *streamView) {
	doubted, reborn, relist := map[lease.Key]time.Time{}, map[lease.Key]bool{}, !s.whole
	for key, item := range s.items {
		shard, listed := s.byID[key.Shard]
		if !item.Finished || !listed || shard.Closed || s.identity(item) == ofEarlierStream {
			continue
		}
		since, known := s.doubted[key]
		if !known {
			since = time.Now()
		}
		doubted[key] = since
		switch {
		case s.identity(item) == ofUnknownStream && (s.reborn[key] || s.listed.Sub(since) >= b.lookEvery()):
			reborn[key] = true
		default:
			relist = true
		}
	}
	s.doubted, s.reborn = doubted, reborn
	if relist {
		s.listed = time.Time{}
	}
}

// identity says of which stream an item is.
type identity int

const (
	ofUnknownStream identity = iota // it does not tell
	ofThisStream
	ofEarlierStream // of the same name, which was deleted
)

// identity compares an item with the shard that bears its id now. The sequence
// numbers of a shard are higher than all those of streams that were deleted before
// it was made.
func (s *streamView) identity(item lease.Item) identity {
	shard, listed := s.byID[s.shardID(item.Shard)]
	switch {
	case !listed:
		return ofUnknownStream
	case item.Sequence != "" && shard.Holds(item.Sequence):
		return ofThisStream
	case item.Sequence != "":
		return ofEarlierStream
	case item.ShardStart == "" || shard.FirstSequence == "":
		return ofUnknownStream
	case item.ShardStart == shard.FirstSequence:
		return ofThisStream
	}
	return ofEarlierStream
}

// tellUnbegun tells of the shards that have left the stream and that nobody here or
// elsewhere has ever begun.
func (b *balancer) tellUnbegun(s *streamView, next []lineage.Shard) {
	if s.items == nil || b.explicit() {
		return
	}
	graph, last := b.graph(s), newest(next)
	listed := make(map[string]bool, len(next))
	for _, shard := range next {
		listed[shard.ID] = true
	}
	for _, shard := range s.shards {
		if listed[shard.ID] || shard.ID > last {
			continue
		}
		key := s.keyOf(shard.ID)
		_, exists := s.items[key]
		h := b.consumers[key]
		if !exists && (h == nil || !h.claimed) && !graph.Finished(shard.ID) {
			b.tellExpired(s, shard.ID, "")
		}
	}
}

func (b *balancer) tellExpired(s *streamView, shard, after string) {
	b.metrics.expired.Incr(1, s.id)
	b.log.Errorf("Shard %s of stream %s has left the stream, whose retention has passed, before it was known to be read to its end: what it held after sequence number %s, up to %s, is lost. Where that may be anything, raise the retention of the stream",
		shard, s.id, cmp.Or(after, "(its first record)"), cmp.Or(s.ends[shard], "(its last record)"))
	delete(s.ends, shard)
}

// expired returns the items of shards that have left the stream without having been
// read to their end, and that nobody reads now. The list must have said so twice,
// and nothing in it must look as if it were not true.
func (b *balancer) expired(s *streamView) []lease.Item {
	unseen := map[lease.Key]time.Time{}
	var expired []lease.Item
	for key, item := range s.items {
		_, listed := s.byID[key.Shard]
		if listed || item.Finished || key.Shard >= s.newest || b.owner(item) != "" || b.consumers[key] != nil || !s.reads(key.Shard) {
			continue
		}
		since, known := s.unseen[key]
		if !known {
			since = time.Now()
			s.listed = time.Time{}
		}
		unseen[key] = since
		if known && s.whole && s.listed.After(since) {
			expired = append(expired, item)
		}
	}
	s.unseen = unseen
	return expired
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
		if key.Shard > s.newest {
			highest = max(highest, key.Shard)
		}
	}
	return highest
}

// gone returns the items of finished shards that have left the stream.
func (s *streamView) gone() []lease.Item {
	var gone []lease.Item
	for key, item := range s.items {
		if _, listed := s.byID[key.Shard]; item.Finished && !listed && key.Shard < s.newest {
			gone = append(gone, item)
			for _, literal := range s.literals[key] {
				if literal.Owner == "" {
					gone = append(gone, literal)
				}
			}
		}
	}
	return gone
}

// keyOf is the key of a shard, however it is written.
func (s *streamView) keyOf(written string) lease.Key {
	return lease.Key{Stream: s.id, Shard: s.shardID(written)}
}

// reads reports whether a shard is among those that this input reads.
func (s *streamView) reads(id string) bool {
	return len(s.stream.shards) == 0 || slices.ContainsFunc(s.stream.shards, func(written string) bool { return s.shardID(written) == id })
}

// candidate is a shard that is ours to read, if the lineage and the table let us.
type candidate struct {
	key lease.Key
	// written is the shard as the configuration has it; empty when it has none.
	written string
}

func (s *streamView) candidates() []candidate {
	var cs []candidate
	for _, written := range s.stream.shards {
		cs = append(cs, candidate{key: s.keyOf(written), written: written})
	}
	if len(cs) > 0 {
		return cs
	}
	for _, shard := range s.shards {
		cs = append(cs, candidate{key: s.keyOf(shard.ID)})
	}
	return cs
}

// graph is the lineage of the shards that this input reads. Of explicit shards,
// those that are not listed in the configuration are somebody else's business and
// hold nobody.
func (b *balancer) graph(s *streamView) *lineage.Graph {
	known := make(map[string]lineage.Progress, len(s.items))
	for key, item := range s.items {
		if s.reads(key.Shard) {
			known[key.Shard] = b.progress(s, item)
		}
	}
	for key, literals := range s.literals {
		p, reads := known[key.Shard], s.reads(key.Shard)
		for _, literal := range literals {
			switch {
			case !reads:
			case b.owner(literal) != "":
				p.State = lineage.Reading
			case p.State == lineage.Unknown && s.identity(literal) != ofEarlierStream:
				p.State = lineage.Begun
			}
		}
		if reads {
			known[key.Shard] = p
		}
	}
	for key, h := range b.consumers {
		if key.Stream == s.id {
			// One that was begun in an earlier stream is about to find out.
			now := s.byID[key.Shard].FirstSequence
			known[key.Shard] = lineage.Progress{State: lineage.Reading, Balanced: !b.explicit() && (h.first == now || h.first == "" || now == "")}
		}
	}
	return lineage.NewGraph(slices.DeleteFunc(slices.Clone(s.shards), func(shard lineage.Shard) bool {
		return !s.reads(shard.ID)
	}), known)
}

// progress is what an item tells of its shard. One that does not tell of which
// stream it is holds the shard back, to be read from its start. It proves something
// of the parents only if its owner was seen to renew it: one that has not been
// proved dead yet may have died in an earlier stream.
func (b *balancer) progress(s *streamView, item lease.Item) lineage.Progress {
	of, owned := s.identity(item), b.owner(item) != ""
	var p lineage.Progress
	if !item.Pinned && !b.names(item) {
		p.Balanced = of == ofThisStream || of == ofUnknownStream && b.watcher.Alive(item)
		p.Undecided = !p.Balanced && of == ofUnknownStream && owned
	}
	rangeKnown := s.byID[item.Shard].FirstSequence != ""
	switch {
	case owned:
		p.State = lineage.Reading
	case of == ofEarlierStream, s.reborn[item.Key]:
		// Whoever had finished the shard of this stream would have written over it.
		p.State = lineage.Begun
	case item.Finished && (of == ofThisStream || !rangeKnown):
		p.State = lineage.Finished
	default:
		p.State = lineage.Begun
	}
	return p
}

// names reports whether the owner of an item is an instance of this input that names
// its shards: it has a term and has not announced itself.
func (b *balancer) names(item lease.Item) bool {
	_, announced := b.present[item.Owner]
	return item.Owner != "" && item.Owner != b.client && item.Term != "" && !announced
}

// adopt adds the children of a shard that was read to its end to those known, so
// that they begin at once. The next list confirms them, and brings those of which
// another parent has yet to be listed, which would pass for one that was trimmed.
func (s *streamView) adopt(parent string, children []retrieval.Child) {
	s.listed = time.Time{}
	for i := range s.shards {
		if s.shards[i].ID == parent {
			s.shards[i].Closed = true
			s.byID[parent] = s.shards[i]
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
			s.byID[child.ID] = s.shards[len(s.shards)-1]
		}
	}
}

// streamFinished reports whether nothing will ever be left to read of a stream, which
// only explicit shards can come to.
func (b *balancer) streamFinished(s *streamView) bool {
	if len(s.stream.shards) == 0 || s.items == nil || s.missing || len(s.doubted) > len(s.reborn) || len(s.unseen) > 0 {
		return false
	}
	graph := b.graph(s)
	return !slices.ContainsFunc(s.candidates(), func(c candidate) bool {
		// Ids are given out in ascending order: one above all is of a shard to come.
		return c.key.Shard > s.newest || !graph.Finished(c.key.Shard)
	})
}
