package awskinesis

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	dynamotypes "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/benthosdev/benthos/v4/public/service"

	"github.com/benthos-plugins/aws-kinesis/internal/consumer"
	"github.com/benthos-plugins/aws-kinesis/internal/group"
	"github.com/benthos-plugins/aws-kinesis/internal/journal"
	"github.com/benthos-plugins/aws-kinesis/internal/kpl"
	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/lineage"
	"github.com/benthos-plugins/aws-kinesis/internal/retrieval"
	"github.com/benthos-plugins/aws-kinesis/internal/table"
)

const (
	// claimsOfStream and claimsAtOnce bound the claims under way, of one stream and of
	// all, so that a process that starts on a thousand shards does not open a thousand
	// connections. refreshesAtOnce does the same for the streams that are read. What hangs
	// in one stream leaves room for the others.
	claimsOfStream  = 64
	claimsAtOnce    = 256
	refreshesAtOnce = 256
	// callTimeout bounds one small call beside the loop, listTimeout a list of shards, and
	// one reading of the leases of a stream is bounded by the lease period, between the
	// other two.
	callTimeout         = 5 * time.Second
	listTimeout         = 10 * time.Second
	leastRefreshTimeout = 5 * time.Second
	mostRefreshTimeout  = 30 * time.Second
	// leaveTimeout bounds the last calls of a process.
	leaveTimeout = 2 * time.Second
	// stolenTimeout bounds how long a process that stops waits for the input from which
	// it has just stolen a shard.
	stolenTimeout = 10 * time.Second
	// The pause before a session that could not be had is tried again doubles from the
	// first of these to the last.
	firstJoinPause = time.Second
	mostJoinPause  = 30 * time.Second
)

// balancer carries out what the group decides: it reads the table and the lists of
// shards, starts and stops consumers, and keeps the member's session. Its loop, the
// goroutine that runs run, owns every field of the last group. It never waits for a
// service: each call is made by a goroutine beside it, of which it hears by an event.
type balancer struct {
	conf     *config
	store    leaseTable
	lister   shardLister
	lists    *retrieval.Lists
	reader   retrieval.API
	fans     map[string]*retrieval.FanOut // by stream; nil where shards are polled
	newID    func() string
	joined   func(id string)
	newBatch func(context.Context) (consumer.Batcher, []*service.OwnedProcessor, error)
	// checkForm warns of a stream whose items stand under its other form.
	checkForm func(ctx context.Context, stream string) error
	out       chan<- *consumer.Delivery
	budget    *retrieval.Budget
	signals   *signals

	end      time.Time     // at which the group ends; zero where it does not
	finished chan struct{} // closed when nothing will ever be left to read
	events   chan event
	urged    chan struct{}            // cap 1: the items of all streams are to be read soon
	claims   chan struct{}            // a token for each claim under way
	turns    map[string]chan struct{} // the same of one stream
	reading  chan struct{}            // a token for each stream that is read
	foreign  map[string]*atomic.Bool

	group     *group.Group
	session   *lease.Session // nil while there is none
	consumers map[lease.Key]*holding
	working   int // goroutines that will send an event
	// cutShort is whether shards may be ours of which we have not heard.
	cutShort bool
}

// event is what a goroutine beside the loop has to tell. The loop calls it.
type event func(now time.Time)

// leaseTable is the table of leases with what the balancer needs beside it.
type leaseTable interface {
	lease.Store
	lease.Members
	ensureTable(ctx context.Context) (created bool, err error)
	List(ctx context.Context, stream string, consistent bool) (table.ItemList, error)
	ListMembers(ctx context.Context, consistent bool) ([]lease.Member, error)
	RemoveItem(ctx context.Context, seen lease.Item) (removed bool, err error)
	Vacate(ctx context.Context, seen lease.Item) (lease.Item, error)
	Mirror(ctx context.Context, literal lease.Item, sequence string) (lease.Item, error)
}

// shardLister is what the input uses of the Kinesis client beside reading.
type shardLister interface {
	retrieval.Lister
	DescribeStreamSummary(context.Context, *kinesis.DescribeStreamSummaryInput, ...func(*kinesis.Options)) (*kinesis.DescribeStreamSummaryOutput, error)
}

// holding is a shard that this process claims or reads.
type holding struct {
	cancel   context.CancelFunc
	handOver chan string  // cap 1: to whom
	lease    *lease.Lease // nil until it is claimed
	signals  *shardSignals
	asked    time.Time // when it was decided to hand it over
}

// newBalancer returns a balancer that is yet to run. lists are the first lists of the
// streams, of which some may be missing.
func newBalancer(life context.Context, in *input, c clients, store leaseTable, lists []group.StreamSnapshot, checkForm func(context.Context, string) error, out chan<- *consumer.Delivery) *balancer {
	conf := group.Config{
		LeasePeriod: in.conf.leasePeriod, RebalancePeriod: in.conf.rebalancePeriod,
		StartFromOldest: in.conf.startFromOldest, StartFrom: in.conf.startFrom,
		EndAt: in.bound.end, Begun: in.bound.first,
		Table: in.conf.table.name, Random: rand.Float64,
	}
	foreign, turns := map[string]*atomic.Bool{}, map[string]chan struct{}{}
	for _, s := range in.conf.streams {
		conf.Streams = append(conf.Streams, group.StreamConfig{Name: s.id, Shards: s.shards})
		foreign[s.id] = &atomic.Bool{}
		turns[s.id] = make(chan struct{}, claimsOfStream)
	}
	g := group.New(conf)
	g.Begin(lists, time.Now())
	return &balancer{
		conf: &in.conf, store: store, lister: c.lister, lists: retrieval.NewLists(life, c.lister), reader: c.reader,
		fans:  newFanOuts(life, &in.conf, c, in.signals),
		newID: in.newID, joined: func(id string) { in.client.Store(&id) }, newBatch: in.newBatch, checkForm: checkForm,
		out: out, budget: retrieval.NewBudget(in.conf.maxBufferedBytes), signals: in.signals,
		end:       in.bound.end,
		finished:  make(chan struct{}),
		events:    make(chan event),
		urged:     make(chan struct{}, 1),
		claims:    make(chan struct{}, claimsAtOnce),
		turns:     turns,
		reading:   make(chan struct{}, refreshesAtOnce),
		foreign:   foreign,
		group:     g,
		consumers: map[lease.Key]*holding{},
	}
}

// run balances until ctx ends, and returns when everything that it started has.
func (b *balancer) run(ctx context.Context) {
	// The session outlives ctx: leases stand on it while they are released.
	keeping, leave := context.WithCancel(context.WithoutCancel(ctx))
	defer leave()
	left := make(chan struct{})
	go func() {
		defer close(left)
		b.keepSession(ctx, keeping)
	}()

	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		select {
		case <-timer.C:
		case e := <-b.events:
			b.handle(e)
		case <-b.urged:
			b.group.Urge(time.Now())
		case <-ctx.Done():
			continue
		}
		timer.Reset(time.Until(b.act(ctx)))
	}
	b.finish()
	leave()
	<-left
	if b.session != nil {
		if b.cutShort {
			b.freeLate(ctx, b.session.ID())
		}
		b.deregister(ctx, b.session.ID())
	}
	b.lists.Wait()
	for _, fan := range b.fans {
		fan.Wait()
	}
}

// handle handles an event, and all others that have come by now: of hundreds of shards
// that are handed over together one plan is made, not hundreds.
func (b *balancer) handle(e event) {
	for {
		e(time.Now())
		select {
		case e = <-b.events:
		default:
			return
		}
	}
}

// finish waits for the consumers, whose contexts have ended, to release their leases.
func (b *balancer) finish() {
	b.cutShort = b.cutShort || b.group.Waiting(time.Now())
	for len(b.consumers) > 0 || b.working > 0 {
		(<-b.events)(time.Now())
		b.logLines(b.group.Said())
	}
}

// freeLate frees what a member that has left came to own without having heard of it:
// shards that were handed over to it, and claims that were cut short. Other members
// would find them, but not the built-in input.
func (b *balancer) freeLate(ctx context.Context, id string) {
	var calls sync.WaitGroup
	for _, s := range b.conf.streams {
		calls.Go(func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTimeout)
			defer cancel()
			b.freeLateOf(ctx, s.id, id)
		})
	}
	calls.Wait()
}

func (b *balancer) freeLateOf(ctx context.Context, stream, id string) {
	l, err := b.store.List(ctx, stream, true)
	if err != nil {
		b.signals.say(journal.Warning, "Shards of stream %s that this client leaves could not be marked as free, and others claim them up to a lease period later. Nothing is to be done: %v", stream, err)
		return
	}
	var calls sync.WaitGroup
	for _, item := range l.Items {
		if item.Owner == id {
			calls.Go(func() {
				if _, err := b.store.Vacate(ctx, item); err != nil && !errors.Is(err, lease.ErrConflict) {
					b.signals.journal.Changed(journal.Warning, item.Stream, item.Shard,
						fmt.Sprintf("could not be marked as free, and others claim it up to a lease period later. Nothing is to be done: %v", err),
						"could not be marked as free, and others claim them up to a lease period later. Nothing is to be done", time.Now())
				}
			})
		}
	}
	calls.Wait()
}

// act carries out what the group decides, and returns when to ask it again.
func (b *balancer) act(ctx context.Context) time.Time {
	now := time.Now()
	a := b.group.Next(now, b.session != nil && b.session.Trusted())
	b.tell(a)
	for name, foreign := range b.foreign {
		foreign.Store(b.group.Foreign(name, now))
	}
	if b.session != nil {
		b.session.Report(a.Report)
		b.session.Often(a.Often)
	}
	if a.ReadMembers {
		b.beside(func() event { return b.readMembers(ctx, a.Consistently) })
	}
	for _, r := range a.Refresh {
		b.beside(func() event { return b.refresh(ctx, r) })
	}
	for _, id := range a.Confirm {
		b.beside(func() event { return b.confirm(ctx, id) })
	}
	for _, m := range a.Evict {
		b.beside(func() event { return b.evict(ctx, m) })
	}
	if a.Clean != nil {
		b.beside(func() event { return b.clean(ctx, *a.Clean) })
	}
	for _, c := range a.Claim {
		b.start(ctx, c)
	}
	for _, h := range a.HandOver {
		b.consumers[h.Key].asked = now
		b.consumers[h.Key].handOver <- h.To
	}
	for _, key := range a.Yield {
		b.consumers[key].cancel()
	}
	for _, key := range a.Check {
		if h := b.consumers[key]; h != nil && h.lease != nil {
			h.lease.Check()
		}
	}
	if a.Finished {
		select {
		case <-b.finished:
		default:
			close(b.finished)
		}
	}
	return a.Wake
}

// tell logs and counts what is to be told.
func (b *balancer) tell(a group.Actions) {
	b.logLines(a.Lines)
	for stream, n := range a.Expired {
		b.signals.metrics.add("kinesis_expired_shards", int64(n), stream)
	}
	for _, s := range b.conf.streams {
		shards, from, known := b.group.Unread(s.id)
		if !known {
			shards = unknown
		}
		b.signals.streamIs(s.id, b.group.Held(s.id), shards, from, a.Planned)
	}
	for _, key := range b.signals.unsettled() {
		if b.group.Settled(key) {
			b.signals.claimSettled(key)
		}
	}
}

func (b *balancer) logLines(lines []group.Line) {
	levels := map[group.Level]journal.Level{group.Info: journal.Info, group.Warning: journal.Warning, group.Error: journal.Error}
	for _, line := range lines {
		if line.Many == "" {
			b.signals.say(levels[line.Level], "%s", line.Text)
			continue
		}
		b.signals.journal.Changed(levels[line.Level], line.Key.Stream, line.Key.Shard, line.Text, line.Many, time.Now())
	}
}

// beside makes a call beside the loop, which hears what came of it.
func (b *balancer) beside(call func() event) {
	b.working++
	go func() { // run and finish receive until it has ended
		e := call()
		b.events <- func(now time.Time) {
			b.working--
			e(now)
		}
	}()
}

// keepSession keeps the member in the group until keeping ends, under a new id each
// time that it was taken for dead. It begins no session after ctx has ended.
func (b *balancer) keepSession(ctx, keeping context.Context) {
	failures := 0
	for ctx.Err() == nil {
		opts := b.leaseOptions()
		opts.Client = b.newID()
		// Heartbeats and joins are one thing to an operator: without either no lease stands.
		opts.OnWrite = func(err error) {
			b.signals.outcome(journal.Joining, "", err, time.Now())
			if err == nil {
				b.signals.outcome(journal.TableWrites, "", nil, time.Now())
			}
		}
		s, err := lease.Join(ctx, b.store, lease.Report{Streams: b.sharedAtFirst()}, opts)
		if err != nil {
			if ctx.Err() == nil {
				opts.OnWrite(err)
			}
			b.recreateTable(ctx, err)
			failures++
			b.pause(ctx, min(firstJoinPause<<min(failures-1, 10), mostJoinPause))
			continue
		}
		failures = 0
		opts.OnWrite(nil)
		b.signals.joined(s)
		b.joined(s.ID())
		b.signals.say(journal.Info, "Client %s is in %s, and reads %s", s.ID(), b.conf.groupName(), b.conf.reads())
		b.post(keeping, func(now time.Time) {
			b.session = s
			b.group.Joined(s.ID(), now)
		})
		if err = s.Keep(keeping); err == nil {
			b.leave(s)
			return
		}
		b.signals.joined(nil)
		b.signals.metrics.add("kinesis_sessions_lost", 1)
		b.signals.say(journal.Warning, "All leases of this client are lost: %v. It joins its group anew under another id, and what was in flight comes again", err)
		b.post(keeping, func(now time.Time) {
			b.session = nil
			b.group.SessionLost(now)
		})
	}
}

// post tells the loop something, unless nobody is there to hear it any more.
func (b *balancer) post(ctx context.Context, e event) {
	select {
	case b.events <- e:
	case <-ctx.Done():
	}
}

func (*balancer) pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// sharedAtFirst are the streams that the member is to share. Which of them are missing
// it tells later.
func (b *balancer) sharedAtFirst() []string {
	var names []string
	for _, s := range b.conf.streams {
		if len(s.shards) == 0 {
			names = append(names, s.id)
		}
	}
	return names
}

// leave takes the member out of the group, so that no more shards are handed to it.
func (b *balancer) leave(s *lease.Session) {
	if err := s.Leave(context.WithoutCancel(s.Context())); err != nil { // it bounds itself
		b.signals.say(journal.Warning, "The others could not be told that this client has left, and notice it up to a lease period later. Nothing is to be done: %v", err)
	}
}

func (b *balancer) leaseOptions() lease.Options {
	return lease.Options{
		Period:       b.conf.leasePeriod,
		CommitPeriod: b.conf.commitPeriod,
	}
}

// readMembers reads who is in the group.
func (b *balancer) readMembers(ctx context.Context, consistent bool) event {
	limited, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	v := &group.MemberSnapshot{Start: time.Now()}
	v.Members, v.Err = b.store.ListMembers(limited, consistent)
	v.End = time.Now()
	b.signals.outcome(journal.TableReads, "", v.Err, v.Start)
	b.recreateTable(ctx, v.Err)
	return func(now time.Time) {
		if b.session != nil {
			v.SoundSince = b.session.SoundSince()
		}
		b.group.Apply(group.Snapshot{Members: v}, now)
	}
}

// recreateTable creates the table again that was found to be missing, if it is ours to
// create.
func (b *balancer) recreateTable(ctx context.Context, err error) {
	if _, missing := errors.AsType[*dynamotypes.ResourceNotFoundException](err); !missing || !b.conf.table.create {
		return
	}
	begun := time.Now()
	if _, err := b.store.ensureTable(ctx); err != nil {
		b.signals.outcome(journal.TableReads, "", fmt.Errorf("the table was deleted while it was in use, and cannot be created again: %w", err), begun)
		return
	}
	b.signals.say(journal.Warning, "Table %s was deleted while it was in use, and is created again. Each process goes on from what it holds in memory; what no process reads now is read from its start", b.conf.table.name)
	b.urge()
}

// refresh reads the shards of a stream, if they are to be read, and its items.
func (b *balancer) refresh(ctx context.Context, r group.Refresh) event {
	v := &group.StreamSnapshot{Stream: r.Stream}
	told := func(now time.Time) { b.group.Apply(group.Snapshot{Stream: v}, now) }
	select {
	case b.reading <- struct{}{}:
		defer func() { <-b.reading }()
	case <-ctx.Done():
		v.Err = ctx.Err()
		return told
	}
	// Shards first: an item of a shard that is not listed is then an old one, and one
	// that is listed without an item cannot have been finished before.
	begun := time.Now()
	switch {
	case r.Missing:
		b.listMissing(ctx, v)
		b.listed(v, v.Err, begun)
		b.signals.missing(v.Stream, v.Err, begun)
		if v.Err != nil {
			return told
		}
	case r.Shards:
		b.listShards(ctx, v)
		b.listed(v, v.ListErr, begun)
	}
	ctx, cancel := context.WithTimeout(ctx, min(max(leastRefreshTimeout, b.conf.leasePeriod), mostRefreshTimeout))
	defer cancel()
	start := time.Now()
	l, err := b.store.List(ctx, r.Stream, r.Consistent)
	b.signals.outcome(journal.TableReads, r.Stream, err, start)
	if err != nil {
		v.Err = err
		return told
	}
	for i := range l.Items {
		l.Items[i].UpTo = b.ours(l.Items[i].UpTo)
	}
	v.Start, v.End, v.Items, v.Size, v.Skew = start, time.Now(), l.Items, l.Size, b.signals.clockSkew()
	return told
}

// began is when a stream was begun that is read from its latest record on: everything
// before that is done with. Of one that is read from a time on nobody knows what there is.
func (b *balancer) began(c group.Claim) time.Time {
	if !b.conf.startFrom.IsZero() {
		return time.Time{}
	}
	return c.StartAt
}

// ours is a moment of the service's clock by our own. One in the future, as nobody can have
// written but with a clock that was wrong, is none.
func (b *balancer) ours(moment time.Time) time.Time {
	if moment.IsZero() {
		return moment
	}
	if moment = moment.Add(-b.signals.clockSkew()); time.Until(moment) > 5*time.Second {
		return time.Time{}
	}
	return moment
}

// listed takes in what came of a list of shards.
func (b *balancer) listed(v *group.StreamSnapshot, err error, begun time.Time) {
	b.signals.outcome(journal.Lists, v.Stream, err, begun)
	b.signals.clockIs(v.ServerTime, begun, time.Now())
}

func (b *balancer) listShards(ctx context.Context, v *group.StreamSnapshot) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	listed := time.Now()
	shards, serverTime, err := retrieval.ListShards(ctx, b.lister, v.Stream)
	if err == nil {
		v.Shards, v.Listed, v.ServerTime = shards, listed, serverTime
		return
	}
	_, v.NotFound = errors.AsType[*types.ResourceNotFoundException](err)
	v.ListErr = err
}

// listMissing looks for a stream that was missing.
func (b *balancer) listMissing(ctx context.Context, v *group.StreamSnapshot) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	for _, s := range b.conf.streams {
		if s.id == v.Stream {
			*v = firstList(ctx, b.lister, s, b.checkForm)
		}
	}
}

// confirm reads whether an owner is in the group that the list does not have.
func (b *balancer) confirm(ctx context.Context, id string) event {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	begun := time.Now()
	m, there, err := b.store.Member(ctx, id)
	there = there && !m.Gone()
	if err != nil {
		err = fmt.Errorf("reading whether client %s is there: %w", id, err)
	}
	b.signals.outcome(journal.TableReads, "", err, begun)
	return func(now time.Time) { b.group.Confirmed(id, there, err, now) }
}

// evict takes a dead member out of the group, after which its shards are free.
func (b *balancer) evict(ctx context.Context, m lease.Member) event {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	begun := time.Now()
	err := b.store.Evict(ctx, m)
	if err != nil && !errors.Is(err, lease.ErrConflict) {
		err = fmt.Errorf("evicting client %s: %w", m.ID, err)
		b.signals.outcome(journal.TableWrites, "", err, begun)
	}
	return func(now time.Time) { b.group.Evicted(m.ID, err, now) }
}

// urge has the items of all streams read soon. It may be called from anywhere.
func (b *balancer) urge() {
	select {
	case b.urged <- struct{}{}:
	default:
	}
}

// start claims a shard and reads it, on a goroutine of its own.
func (b *balancer) start(life context.Context, c group.Claim) {
	ctx, cancel := context.WithCancel(life)
	h := &holding{cancel: cancel, handOver: make(chan string, 1), signals: b.signals.shard(c.Key)}
	b.consumers[c.Key] = h
	session := b.session
	go func() { // run and finish receive until it has ended
		exit := b.consume(ctx, c, h, session)
		exit.Since = h.signals.end()
		b.events <- func(now time.Time) {
			cancel()
			delete(b.consumers, c.Key)
			b.cutShort = b.cutShort || h.lease == nil && life.Err() != nil
			b.count(c.Key, h, exit, now)
			b.group.Exited(c.Key, exit, now)
		}
	}()
}

// count counts how an assignment came to its end.
func (b *balancer) count(key lease.Key, h *holding, exit group.Exit, now time.Time) {
	m := b.signals.metrics
	switch exit.Outcome {
	case group.Lost:
		m.add("kinesis_leases_lost", 1, key.Stream, key.Shard)
	case group.HandedOver:
		m.time("kinesis_handovers_given", now.Sub(h.asked).Nanoseconds(), key.Stream)
	case group.NotClaimed:
		if !errors.Is(exit.Err, lease.ErrConflict) && !errors.Is(exit.Err, context.Canceled) {
			b.signals.claimFailed(key, exit.Err, h.signals.begun)
		}
	case group.Released, group.Finished, group.Cut, group.Gone, group.Failed:
	}
}

// countClaim counts what a claim has brought from another member.
func (b *balancer) countClaim(c group.Claim, now time.Time) {
	m := b.signals.metrics
	if c.HandedOver {
		m.time("kinesis_handovers_taken", now.Sub(c.Requested).Nanoseconds(), c.Key.Stream)
	}
	if c.HandedOver || c.Stolen {
		m.add("kinesis_shards_stolen_total", 1, c.Key.Stream)
	}
}

func (b *balancer) consume(ctx context.Context, c group.Claim, h *holding, session *lease.Session) group.Exit {
	reader, err := b.claimAndPlace(ctx, c, h, session)
	if err != nil {
		return group.Exit{Outcome: group.NotClaimed, Err: err}
	}
	return exitOf(reader.Run())
}

// claimAndPlace claims a shard and returns the consumer that reads it on from its
// position.
func (b *balancer) claimAndPlace(ctx context.Context, c group.Claim, h *holding, session *lease.Session) (*consumer.Consumer, error) {
	store, literals, err := b.settleLiterals(ctx, c)
	if err != nil {
		return nil, err
	}
	if c.Shard.FirstSequence == "" { // it was made a moment ago, and its parent named it
		if c.Shard, err = b.identify(ctx, c); err != nil {
			return nil, err
		}
	}
	held, item, err := b.claim(ctx, session, store, c, h)
	if err != nil {
		return nil, err
	}
	b.events <- func(now time.Time) {
		h.lease = held
		b.group.Claimed(c.Key, held.Term(), c.Shard.FirstSequence, now)
	}
	if c.Stolen {
		final, err := b.awaitFinalCheckpoint(ctx, held)
		if err != nil {
			return nil, errors.Join(err, b.giveUp(ctx, held, c.Item.Position()))
		}
		item.Sequence, item.Within = final.Sequence, final.Within
	}
	after, err := b.position(ctx, c, item, literals)
	if err != nil {
		return nil, errors.Join(err, b.giveUp(ctx, held, item.Position()))
	}
	if after != item.Position() {
		held.Check() // stores it at once, before anybody else may begin where the item says
	}
	batcher, processors, err := b.newBatch(ctx)
	if err != nil {
		err = fmt.Errorf("making the batcher of shard %s: %w", c.Key, err)
		return nil, errors.Join(err, b.giveUp(ctx, held, item.Position()))
	}
	upTo := item.UpTo
	if c.Anew {
		upTo = time.Time{}
	}
	budgetWait := make(chan struct{}, 1)
	reader := consumer.New(consumer.Config{
		Lease:        held,
		Committed:    after, // what another item of the shard tells is stored in this one too
		Since:        cmp.Or(b.ours(upTo), c.Since, b.signals.withinRetention(c.Key.Stream, b.ours(b.began(c)))),
		Skew:         b.signals.clockSkew,
		ServiceTime:  b.signals.serviceTime,
		Shard:        c.Written,
		Open:         func(after string) consumer.Source { return b.open(c, h, after, budgetWait) },
		End:          b.end,
		Batcher:      batcher,
		Deaggregate:  b.deaggregation(c.Shard),
		MaxAge:       b.conf.maxRecordAge,
		Processors:   processors,
		Limit:        b.conf.checkpointLimit,
		ByKey:        b.conf.orderByKey,
		Budget:       b.budget,
		BudgetWait:   budgetWait,
		HandOver:     h.handOver,
		DrainTimeout: b.conf.leasePeriod / 3,
		Awaited:      b.awaited,
		Out:          b.out,
		Hooks:        h.signals.hooks(),
	})
	h.signals.begin(reader)
	b.events <- func(now time.Time) {
		b.countClaim(c, now)
		b.group.Began(c.Key)
	}
	return reader, nil
}

// deaggregation says how aggregates of a shard come out as their user records; nil where
// they do not.
func (b *balancer) deaggregation(shard lineage.Shard) *consumer.Deaggregation {
	if !b.conf.deaggregate {
		return nil
	}
	keys, known := kpl.ParseRange(shard.FirstKey, shard.LastKey)
	return &consumer.Deaggregation{Keys: keys, Bounded: known, DropForeign: b.conf.dropForeign}
}

// awaitFinalCheckpoint waits for the input that a shard was stolen from, also while this
// one stops: who claims the shard that is freed then knows nothing of it, and would
// begin while the other still reads.
func (b *balancer) awaitFinalCheckpoint(ctx context.Context, held *lease.Lease) (lease.Position, error) {
	waiting, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	var bound sync.WaitGroup
	defer bound.Wait()
	defer cancel(nil)
	bound.Go(func() {
		select {
		case <-ctx.Done():
		case <-waiting.Done():
			return
		}
		last := time.NewTimer(stolenTimeout)
		defer last.Stop()
		select {
		case <-last.C:
			cancel(context.Cause(ctx))
		case <-waiting.Done():
		}
	})
	return held.AwaitFinalCheckpoint(waiting, b.conf.commitPeriod+b.conf.stealGracePeriod)
}

func (b *balancer) claim(ctx context.Context, session *lease.Session, store lease.Store, c group.Claim, h *holding) (*lease.Lease, lease.Item, error) {
	turn := b.turns[c.Key.Stream]
	select {
	case turn <- struct{}{}:
		defer func() { <-turn }()
	case <-ctx.Done():
		return nil, lease.Item{}, ctx.Err()
	}
	select {
	case b.claims <- struct{}{}:
		defer func() { <-b.claims }()
	case <-ctx.Done():
		return nil, lease.Item{}, ctx.Err()
	}
	opts := b.leaseOptions()
	opts.Foreign = b.foreign[c.Key.Stream].Load
	opts.OnWrite, opts.UpTo = h.signals.wrote, b.upTo(c, h)
	origin := lease.Origin{StartAt: c.StartAt, ShardStart: c.Shard.FirstSequence, Position: ackedHere(c), Pinned: c.Pinned, Anew: c.Anew}
	return lease.Take(ctx, ctx, session, store, c.Item, origin, opts)
}

// upTo returns what tells the table up to when all that arrived in a shard is acknowledged.
// That is not beyond the end of the group: by more than that others are known, who go on.
// What they have written stays.
func (b *balancer) upTo(c group.Claim, h *holding) func() time.Time {
	if b.end.IsZero() {
		return h.signals.upTo
	}
	return func() time.Time {
		upTo, latest := h.signals.upTo(), b.end
		if !c.Item.UpTo.IsZero() {
			if before := c.Item.UpTo.Add(b.signals.clockSkew()); before.After(latest) {
				latest = before
			}
		}
		if upTo.After(latest) {
			return latest
		}
		return upTo
	}
}

// awaited reports whether a member is in the group. It counts as there when that cannot
// be found out.
func (b *balancer) awaited(ctx context.Context, id string) bool {
	ctx, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	m, there, err := b.store.Member(ctx, id)
	return there && !m.Gone() || err != nil
}

// giveUp releases a lease under which nothing was read.
func (b *balancer) giveUp(ctx context.Context, held *lease.Lease, position lease.Position) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTimeout)
	defer cancel()
	return held.Release(ctx, position)
}

// exitOf is what the group has to know of the end of a consumer.
func exitOf(r consumer.Result) group.Exit {
	e := group.Exit{To: r.To, Acked: r.Acked, Err: r.Err}
	switch r.Outcome {
	case consumer.Released:
		e.Outcome = group.Released
	case consumer.Finished:
		e.Outcome = group.Finished
	case consumer.Cut:
		e.Outcome = group.Cut
	case consumer.HandedOver:
		e.Outcome = group.HandedOver
	case consumer.Lost:
		e.Outcome = group.Lost
	case consumer.Gone:
		e.Outcome = group.Gone
	case consumer.Failed:
		e.Outcome = group.Failed
	}
	for _, child := range r.Children {
		e.Children = append(e.Children, group.Child{ID: child.ID, Parents: child.Parents})
	}
	return e
}

// firstList lists the shards of a stream that is about to be read.
func firstList(ctx context.Context, lister shardLister, s stream, checkForm func(context.Context, string) error) group.StreamSnapshot {
	v := group.StreamSnapshot{Stream: s.id, Listed: time.Now()}
	v.Shards, v.ServerTime, v.Err = listStream(ctx, lister, s, checkForm)
	return v
}
