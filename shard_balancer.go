package awskinesis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/benthosdev/benthos/v4/public/service"

	"github.com/benthos-plugins/aws-kinesis/internal/consumer"
	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/lineage"
	"github.com/benthos-plugins/aws-kinesis/internal/retrieval"
)

const (
	// lookTimeout bounds one reading of the shards and leases of all streams.
	lookTimeout = 30 * time.Second
	// lookSoon is the pause before a look that something has called for.
	lookSoon = 250 * time.Millisecond
	// claimsAtOnce bounds the claims under way, so that a process that starts on
	// a thousand shards does not open a thousand connections.
	claimsAtOnce = 64
	// looksAtOnce bounds the streams that a look reads side by side.
	looksAtOnce = 16
	// listPage is the number of shards asked for at once, the most there is.
	listPage = 10_000
)

// shardLister is what the balancer uses of the Kinesis client.
type shardLister interface {
	ListShards(context.Context, *kinesis.ListShardsInput, ...func(*kinesis.Options)) (*kinesis.ListShardsOutput, error)
}

// balancer decides which shards this process reads. Its loop, the goroutine that
// runs run, owns every field below the first group. Reading the table and the
// list of shards is done beside the loop by one goroutine at a time, and all that
// a shard needs by one goroutine a shard: so the loop never waits for a service.
type balancer struct {
	client   string
	streams  []*streamView
	store    *checkpointer
	lister   shardLister
	reader   retrieval.API
	conf     *config
	newBatch func(context.Context) (consumer.Batcher, []*service.OwnedProcessor, error)
	out      chan<- *consumer.Delivery
	metrics  *inputMetrics
	log      *service.Logger

	// finished is closed when every explicit shard has been read to its end.
	finished chan struct{}

	claims chan struct{} // a token for each claim under way

	consumers map[lease.Key]context.CancelFunc
	ended     chan ended
	watcher   *lease.Watcher

	looking bool
	looked  chan look
	nextAt  time.Time // of the next look

	// changes counts the consumers that have ended. A look knows nothing of
	// those that ended after it was begun.
	changes int
}

// streamView is a stream as the balancer's loop knows it.
type streamView struct {
	stream
	shards []lineage.Shard
	items  map[lease.Key]lease.Item // nil until they have been read

	// ended has the consumers that ended lately, by their number. What we know
	// of their shards is newer than looks that were begun before.
	ended map[lease.Key]int
	// unsure are shards that are left alone until a look tells whose they are.
	unsure map[lease.Key]bool

	// listed is when the shards were listed; zero asks for a new list.
	listed     time.Time
	serverTime time.Time // of that list, by the service's clock
	// startAt is where shards without an item start; zero for the oldest record.
	startAt time.Time

	trouble string // the error of the last look; empty when it went well
}

// newStreamView returns the view of a stream whose shards have been listed.
func newStreamView(s stream, shards []lineage.Shard, serverTime time.Time) *streamView {
	return &streamView{
		stream: s, shards: shards,
		listed: time.Now(), serverTime: serverTime,
		ended: map[lease.Key]int{}, unsure: map[lease.Key]bool{},
	}
}

// ended tells the loop that a consumer has come to its end.
type ended struct {
	key    lease.Key
	result consumer.Result
	err    error // it never began
}

// look is what one reading of the service and the table brought.
type look struct {
	changes int
	views   []streamLook
}

type streamLook struct {
	start, end time.Time
	items      []lease.Item
	shards     []lineage.Shard
	listed     time.Time // zero when they were not
	serverTime time.Time
	err        error
}

// run balances until ctx ends, and returns when everything that it started has.
func (b *balancer) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			b.startLook(ctx)
		case l := <-b.looked:
			b.looking = false
			b.absorb(l)
			b.act(ctx)
		case e := <-b.ended:
			b.bury(e)
			b.act(ctx)
		case <-ctx.Done():
			b.stop()
			return
		}
		timer.Reset(time.Until(b.nextAt))
	}
}

// stop waits for the consumers, whose contexts have ended, to release their
// leases.
func (b *balancer) stop() {
	for len(b.consumers) > 0 || b.looking {
		select {
		case e := <-b.ended:
			b.bury(e)
		case <-b.looked:
			b.looking = false
		}
	}
}

// lookEvery is the time between two looks at the table when nothing calls for
// one sooner: often enough to see a released shard soon, and no more often than
// every third of the lease period unless the configuration wants it.
func (b *balancer) lookEvery() time.Duration {
	return min(b.conf.rebalancePeriod, b.conf.leasePeriod/3)
}

// lookWithin brings the next look forward.
func (b *balancer) lookWithin(d time.Duration) {
	if at := time.Now().Add(d); at.Before(b.nextAt) {
		b.nextAt = at
	}
}

func (b *balancer) startLook(ctx context.Context) {
	b.nextAt = time.Now().Add(b.lookEvery())
	if b.looking {
		return
	}
	b.looking = true
	listShards := make([]bool, len(b.streams))
	for i, s := range b.streams {
		listShards[i] = time.Since(s.listed) >= b.conf.rebalancePeriod
	}
	changes := b.changes
	go func() { // run and stop receive until it has ended
		b.looked <- b.look(ctx, changes, listShards)
	}()
}

// look reads the leases of all streams, and the shards of those that ask for it.
// It runs beside the loop and touches nothing that the loop owns.
func (b *balancer) look(ctx context.Context, changes int, listShards []bool) look {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	l := look{changes: changes, views: make([]streamLook, len(b.streams))}
	slots := make(chan struct{}, looksAtOnce)
	var streams sync.WaitGroup
	for i, s := range b.streams {
		slots <- struct{}{}
		streams.Go(func() {
			defer func() { <-slots }()
			l.views[i] = b.lookAt(ctx, s.id, listShards[i])
		})
	}
	streams.Wait()
	return l
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
	return shard
}

// absorb takes in what a look has brought.
func (b *balancer) absorb(l look) {
	for i, v := range l.views {
		s := b.streams[i]
		if v.err != nil {
			b.report(s, v.err)
			continue
		}
		s.trouble = ""
		// A list from before a shard's end would undo what its end has told.
		if !v.listed.IsZero() && l.changes == b.changes {
			s.shards, s.listed, s.serverTime = v.shards, v.listed, v.serverTime
		}
		b.absorbItems(s, v, l.changes)
	}
	if due, ok := b.watcher.NextDue(time.Now(), b.client); ok {
		b.lookWithin(time.Until(due))
	}
}

// report logs a failed look once, however often it is repeated.
func (b *balancer) report(s *streamView, err error) {
	if err.Error() != s.trouble && !errors.Is(err, context.Canceled) {
		b.log.Errorf("Balancing goes on with what was known before: %v", err)
	}
	s.trouble = err.Error()
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
	if before == nil && len(v.items) == 0 && !b.conf.startFromOldest {
		s.startAt = s.serverTime
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
}

// act starts what may be started.
func (b *balancer) act(ctx context.Context) {
	for _, s := range b.streams {
		if s.items == nil {
			continue
		}
		graph := s.graph()
		for _, c := range s.candidates() {
			if _, running := b.consumers[c.key]; running || s.unsure[c.key] || !graph.Ready(c.shard) {
				continue
			}
			item, exists := s.items[c.key]
			if !exists {
				item = lease.Item{Key: c.key}
			}
			if item.Free() || item.Owner == b.client || b.watcher.Dead(item) {
				b.start(ctx, s, c, item)
			}
		}
	}
	b.observe()
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
			if item.Finished {
				states[c.shard] = lineage.Finished
			}
		}
	}
	return lineage.NewGraph(slices.DeleteFunc(slices.Clone(s.shards), func(shard lineage.Shard) bool {
		return !explicit[shard.ID]
	}), states)
}

// start claims a shard and reads it, on a goroutine of its own that the loop
// hears of through ended.
func (b *balancer) start(ctx context.Context, s *streamView, c candidate, seen lease.Item) {
	ctx, cancel := context.WithCancel(ctx)
	b.consumers[c.key] = cancel
	startAt := s.startAt
	if !seen.StartAt.IsZero() {
		startAt = seen.StartAt
	}
	go func() {
		result, err := b.consume(ctx, c, seen, startAt)
		b.ended <- ended{key: c.key, result: result, err: err}
	}()
}

func (b *balancer) consume(ctx context.Context, c candidate, seen lease.Item, startAt time.Time) (consumer.Result, error) {
	held, item, err := b.claim(ctx, seen, startAt)
	if err != nil {
		return consumer.Result{}, err
	}
	batcher, processors, err := b.newBatch(ctx)
	if err != nil {
		err = fmt.Errorf("making the batcher of shard %s: %w", c.key, err)
		return consumer.Result{}, errors.Join(err, held.Release(ctx, item.Sequence))
	}
	log := b.log.With("stream", c.key.Stream, "shard", c.key.Shard)
	log.Debugf("Reading shard %s from sequence number %q", c.key, item.Sequence)

	position := retrieval.Position{After: item.Sequence}
	if item.Sequence == "" {
		position.At = startAt
	}
	return consumer.New(consumer.Config{
		Lease:     held,
		Committed: item.Sequence,
		Source: retrieval.NewPoller(b.reader, retrieval.Shard{Stream: c.key.Stream, ID: c.shard}, position, retrieval.Hooks{
			OnThrottle: func() { b.metrics.throttled.Incr(1, c.key.Stream, c.key.Shard) },
			OnTrouble:  func(err error) { log.Warnf("Going on after: %v", err) },
		}),
		Batcher:    batcher,
		Processors: processors,
		Limit:      b.conf.checkpointLimit,
		Out:        b.out,
		Metrics:    b.metrics.consumer,
		Log:        log,
	}).Run(), nil
}

func (b *balancer) claim(ctx context.Context, seen lease.Item, startAt time.Time) (*lease.Lease, lease.Item, error) {
	select {
	case b.claims <- struct{}{}:
		defer func() { <-b.claims }()
	case <-ctx.Done():
		return nil, lease.Item{}, ctx.Err()
	}
	return lease.Take(ctx, ctx, b.store, seen, startAt, lease.Options{
		Client:       b.client,
		Period:       b.conf.leasePeriod,
		CommitPeriod: b.conf.commitPeriod,
		OnTrouble:    func(err error) { b.log.Warnf("Trying again: %v", err) },
	})
}

// bury takes note of how a consumer ended. It has let go of its lease, or will
// not use it again.
func (b *balancer) bury(e ended) {
	b.consumers[e.key]()
	delete(b.consumers, e.key)
	b.changes++
	s := b.view(e.key.Stream)
	s.ended[e.key] = b.changes
	s.unsure[e.key] = true

	switch {
	case errors.Is(e.err, lease.ErrConflict):
		b.lookWithin(lookSoon) // another process was faster
	case errors.Is(e.err, context.Canceled):
	case e.err != nil:
		b.log.Warnf("Trying again: %v", e.err)
	default:
		b.lookWithin(lookSoon)
		b.conclude(s, e)
	}
}

func (b *balancer) conclude(s *streamView, e ended) {
	switch e.result.Outcome {
	case consumer.Finished:
		b.log.Infof("Shard %s is closed and has been read to its end", e.key)
		s.items[e.key] = lease.Item{Key: e.key, Exists: true, Finished: true}
		s.adopt(s.shardID(e.key.Shard), e.result.Children)
	case consumer.Lost:
		b.metrics.lost.Incr(1, e.key.Stream, e.key.Shard)
		b.log.Warnf("%v", e.result.Err)
	case consumer.Gone:
		b.log.Warnf("Shard %s: %v", e.key, e.result.Err)
		s.listed = time.Time{}
	case consumer.Failed:
		b.log.Warnf("Its lease will run out by itself: %v", e.result.Err)
	case consumer.Released:
	}
}

// adopt adds the children of a shard that was read to its end to those known, so
// that they begin at once. The next list confirms them.
func (s *streamView) adopt(parent string, children []retrieval.Child) {
	s.listed = time.Time{}
	for i := range s.shards {
		if s.shards[i].ID == parent {
			s.shards[i].Closed = true
		}
	}
	for _, child := range children {
		if !slices.ContainsFunc(s.shards, func(known lineage.Shard) bool { return known.ID == child.ID }) {
			s.shards = append(s.shards, lineage.Shard{ID: child.ID, Parents: child.Parents})
		}
	}
}

func (b *balancer) view(stream string) *streamView {
	return b.streams[slices.IndexFunc(b.streams, func(s *streamView) bool { return s.id == stream })]
}

// observe sets the gauges and notices the end of all explicit shards.
func (b *balancer) observe() {
	held := make(map[string]int64, len(b.streams))
	for key := range b.consumers {
		held[key.Stream]++
	}
	finished := len(b.consumers) == 0
	for _, s := range b.streams {
		b.metrics.held.Set(held[s.id], s.id)
		finished = finished && s.finished()
	}
	if finished {
		select {
		case <-b.finished:
		default:
			close(b.finished)
		}
	}
}

// finished reports whether nothing will ever be left to read of a stream, which
// only explicit shards can come to.
func (s *streamView) finished() bool {
	if len(s.stream.shards) == 0 || s.items == nil {
		return false
	}
	graph := s.graph()
	return !slices.ContainsFunc(s.candidates(), func(c candidate) bool { return !graph.Finished(c.shard) })
}
