package awskinesis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/benthosdev/benthos/v4/public/service"

	"github.com/benthos-plugins/aws-kinesis/internal/balance"
	"github.com/benthos-plugins/aws-kinesis/internal/consumer"
	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/lineage"
	"github.com/benthos-plugins/aws-kinesis/internal/retrieval"
)

const (
	// lookSoon is the pause before a look that something has called for.
	lookSoon = 250 * time.Millisecond
	// askPoll is the time between looks while a shard that was asked for is on
	// its way.
	askPoll = 500 * time.Millisecond
	// calmFor is how long nobody may have come or gone before a client asks for
	// shards: what is asked for while many come would be asked for again by those
	// that come later.
	calmFor = time.Second
	// mostFailingPause bounds the pause before a shard that failed is tried again.
	mostFailingPause = 30 * time.Second
	// callsAtOnce bounds the claims and requests under way, so that a process
	// that starts on a thousand shards does not open a thousand connections.
	callsAtOnce = 64
	// withdrawTimeout bounds the last call of a process.
	withdrawTimeout = 2 * time.Second
)

// balancer decides which shards this process reads. Its loop, the goroutine that
// runs run, owns every field below the first group. Reading the table and the
// list of shards is done beside the loop by one goroutine at a time, and all that
// a shard needs by one goroutine a shard: so the loop never waits for a service.
type balancer struct {
	client   string
	store    leaseTable
	lister   shardLister
	lists    *retrieval.Lists
	reader   retrieval.API
	conf     *config
	newBatch func(context.Context) (consumer.Batcher, []*service.OwnedProcessor, error)
	out      chan<- *consumer.Delivery
	budget   *retrieval.Budget
	metrics  *inputMetrics
	log      logger

	// finished is closed when every explicit shard has been read to its end.
	finished chan struct{}
	// calls has a token for each claim and request under way, requests ends with
	// the last of the latter.
	calls    chan struct{}
	requests sync.WaitGroup

	streams []*streamView
	// began is when the input did, by the service's clock. Streams that were missing
	// then and that are to be read from now on are read from that time on.
	began time.Time
	// checkForm warns of a stream whose items stand under its other form.
	checkForm func(ctx context.Context, stream string) error
	consumers map[lease.Key]*holding
	claimed   chan claimed
	ended     chan ended
	wanted    chan struct{} // cap 1: something calls for a look, as a request for a shard
	watcher   *lease.Watcher

	looking bool
	looked  chan look
	nextAt  time.Time // of the next look

	choring       bool
	chored        chan chored
	choresAt      time.Time // not before
	choreFailures int       // rounds in a row

	// changes counts the consumers that have ended. A look knows nothing of
	// those that ended after it was begun.
	changes int

	// present are the clients that have announced themselves, this one too.
	present map[string]presence
	// announced is how this client announced itself last.
	announced presence
	// changed is when the clients that are there became others, and restless since
	// when that happens again and again.
	changed, restless time.Time
	// Errors of the last look at them and of the last chores, empty when all went
	// well.
	trouble, untidy string
	// free is since when a shard has stood free that others should claim.
	free map[lease.Key]time.Time
	// heirs are the children of shards that were finished here. They begin here
	// too, at once: others would have to look first. Whether they stay is for
	// later plans.
	heirs map[lease.Key]bool
	// asked is when a shard was asked for that has not come yet.
	asked map[lease.Key]time.Time
	// failing has the shards that could not be claimed or read for a reason of their
	// own, which are tried again after growing pauses.
	failing map[lease.Key]failing
	// deleted has the shards whose items were deleted while they were read here, and
	// how far they had been acknowledged.
	deleted map[lease.Key]string
}

// failing is a shard that failed some times in a row.
type failing struct {
	times int
	until time.Time // it is left alone
}

// logger is what the input uses of Benthos' logger. Messages name the shard that
// they are about.
type logger interface {
	consumer.Logger
	Infof(template string, args ...any)
	Debugf(template string, args ...any)
}

// leaseTable is the lease store with what the balancer needs beside it.
type leaseTable interface {
	lease.Store
	ensureTable(ctx context.Context) error
	list(ctx context.Context, stream string) ([]lease.Item, error)
	announced(ctx context.Context, client string) (bool, error)
	remove(ctx context.Context, seen lease.Item) (removed bool, err error)
	vacate(ctx context.Context, literal lease.Item) (lease.Item, error)
	mirror(ctx context.Context, literal lease.Item, sequence string) (lease.Item, error)
	present(context.Context) ([]presence, error)
	announce(context.Context, presence) error
	withdraw(context.Context, presence) error
}

// holding is a shard that this process claims or reads.
type holding struct {
	cancel  context.CancelFunc
	claimed bool
	give    chan string // cap 1: to whom to hand it over
	given   bool
	yielded bool   // to a reader that keeps its lease elsewhere
	first   string // sequence number of the shard when it was begun; empty when not known
}

// claimed tells the loop that a shard was claimed.
type claimed struct {
	key   lease.Key
	first string // sequence number of the shard
}

// ended tells the loop that a consumer has come to its end.
type ended struct {
	key    lease.Key
	result consumer.Result
	err    error // it never began
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
			b.startChores(ctx)
		case c := <-b.chored:
			b.absorbChores(c)
			b.startChores(ctx)
		case c := <-b.claimed:
			b.consumers[c.key].claimed, b.consumers[c.key].first = true, c.first
			b.observe()
		case e := <-b.ended:
			b.buryAll(e)
			b.act(ctx)
		case <-b.wanted:
			b.lookWithin(lookSoon)
		case <-ctx.Done():
			b.stop(ctx)
			return
		}
		timer.Reset(time.Until(b.nextAt))
	}
}

// stop waits for the consumers, whose contexts have ended, to release their
// leases.
func (b *balancer) stop(ctx context.Context) {
	// Streams of which shards may be ours of which we have not heard.
	late := map[string]bool{}
	for key := range b.asked {
		late[key.Stream] = true
	}
	for len(b.consumers) > 0 || b.looking || b.choring {
		select {
		case <-b.chored:
			b.choring = false
		case <-b.claimed:
		case e := <-b.ended:
			b.bury(e)
			if e.err != nil {
				late[e.key.Stream] = true
			}
		case <-b.looked:
			b.looking = false
		}
	}
	b.requests.Wait()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), withdrawTimeout)
	defer cancel()
	b.withdraw(ctx)
	for stream := range late {
		b.freeLate(ctx, stream)
	}
}

// withdraw takes the announcement of this client back, so that no more shards are
// handed over to it.
func (b *balancer) withdraw(ctx context.Context) {
	// Of two announcements the later may have been cut short, with or without effect.
	for _, self := range []presence{b.present[b.client], b.announced} {
		if self.Owner == "" {
			continue
		}
		if err := b.store.withdraw(ctx, self); err != nil {
			b.log.Warnf("Others will notice in a while that this client has gone: %v", err)
		}
	}
}

// freeLate releases what a stopping client has come to own without having heard of
// it: shards that were handed over to it, and claims that were cut short.
func (b *balancer) freeLate(ctx context.Context, stream string) {
	items, err := b.store.list(ctx, stream)
	var calls sync.WaitGroup
	for _, item := range items {
		if item.Owner != b.client {
			continue
		}
		calls.Go(func() {
			held, now, err := b.claim(ctx, b.store, item, lease.Origin{ShardStart: item.ShardStart, Pinned: item.Pinned})
			if err == nil {
				err = held.Release(ctx, now.Sequence)
			}
			if err != nil {
				b.log.Warnf("Others will notice in a while that shard %s is free: %v", item.Key, err)
			}
		})
	}
	calls.Wait()
	if err != nil {
		b.log.Warnf("Others will notice in a while which shards this client leaves: %v", err)
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

// offer is a shard that may be read now, by whoever it is that should.
type offer struct {
	candidate
	view  *streamView
	shard lineage.Shard // as it is listed
	item  lease.Item
	of    identity
	// literals are the items of readers that write the shard as "0".
	literals []lease.Item
	// owner has a lease that is alive; empty when there is none.
	owner string
	// literal is whether that owner's lease is on one of the literals.
	literal bool
	// acked is how far the shard was acknowledged here before its item was deleted.
	acked string
	// unproven is whether the shard may have been finished by somebody of whom the
	// table does not tell it.
	unproven bool
	// failures is how often it could not be claimed or read, in a row.
	failures int
	// unsure shards are counted and left alone.
	unsure bool
}

// act claims what may be claimed and asks for what others have too much of.
func (b *balancer) act(ctx context.Context) {
	offers := b.survey()
	for _, o := range offers {
		b.yield(o)
	}
	if b.explicit() {
		for _, o := range offers {
			switch {
			case o.owner == "" && !o.unsure:
				b.start(ctx, o, false)
			case o.owner != b.client:
				b.tellWaiting(o)
			}
		}
	} else {
		b.balance(ctx, offers)
		b.audit()
	}
	b.observe()
}

// explicit reports whether the configuration names the shards. It does so for
// all streams or for none.
func (b *balancer) explicit() bool { return len(b.streams[0].stream.shards) > 0 }

func (b *balancer) survey() []offer {
	var offers []offer
	for _, s := range b.streams {
		if s.items == nil || s.missing {
			continue
		}
		graph := b.graph(s)
		for _, c := range s.candidates() {
			o := b.offer(s, c)
			o.unproven = graph.Unproven(c.key.Shard)
			if o.owner != "" || graph.Ready(c.key.Shard) {
				offers = append(offers, o)
			}
		}
	}
	return offers
}

func (b *balancer) offer(s *streamView, c candidate) offer {
	item, exists := s.items[c.key]
	if !exists {
		item = lease.Item{Key: c.key}
	}
	o := offer{
		candidate: c, view: s, shard: s.byID[c.key.Shard], item: item, of: s.identity(item), literals: s.literals[c.key],
		owner: b.owner(item), unsure: s.unsure[c.key],
		failures: b.failing[c.key].times,
	}
	if !exists {
		o.acked = b.deleted[c.key]
	}
	if s.reborn[c.key] {
		o.of = ofEarlierStream
	}
	for _, literal := range o.literals {
		if owner := b.owner(literal); owner != "" {
			o.owner, o.literal = owner, true
		}
	}
	return o
}

// owner returns the client that has a lease on a shard which is alive. A lease of
// this client without a consumer is not: nobody reads the shard.
func (b *balancer) owner(item lease.Item) string {
	_, running := b.consumers[item.Key]
	switch {
	case running:
		return b.client
	case item.Owner == b.client || b.watcher.Dead(item):
		return ""
	}
	return item.Owner
}

// balance carries out this client's part of a plan for all.
func (b *balancer) balance(ctx context.Context, offers []offer) {
	offers = slices.DeleteFunc(offers, b.pinned)
	shards := make([]balance.Shard, len(offers))
	// Of a stream of which something is not certain, neither is what we have too much
	// or too little of. That says nothing of the others.
	unsure := map[string]bool{}
	for i, o := range offers {
		shards[i] = balance.Shard{Stream: o.key.Stream, ID: o.key.Shard, Owner: o.owner}
		if o.item.Owner == o.owner {
			shards[i].Asker = o.item.Wanted
		}
		if o.unsure {
			unsure[o.key.Stream] = true
		}
	}
	certain := func(indexes []int) []int {
		return slices.DeleteFunc(indexes, func(i int) bool { return unsure[offers[i].key.Stream] })
	}
	plan := balance.New(b.members(offers), shards)
	part := plan.Part(b.client)
	for _, i := range part.Claim {
		if !offers[i].unsure {
			b.start(ctx, offers[i], false)
		}
	}
	b.inherit(ctx, offers)
	b.claimLeftovers(ctx, plan, offers)
	for _, i := range certain(part.Give) {
		b.give(offers[i])
	}
	for _, i := range certain(part.Refuse) {
		b.decline(ctx, offers[i])
	}
	if !b.calm() {
		return
	}
	for _, i := range certain(part.Ask) {
		if _, announced := b.present[offers[i].owner]; announced {
			b.ask(ctx, offers[i].item)
		} else {
			b.take(ctx, offers, offers[i])
		}
	}
}

// pinned reports whether a shard is no part of the balance: its owner is an
// instance of this input and has not announced itself, as one does not that names
// its shards.
func (b *balancer) pinned(o offer) bool {
	return o.literal || o.owner != "" && b.names(o.item)
}

// inherit claims the children of shards that were finished here, unless somebody
// else was first.
func (b *balancer) inherit(ctx context.Context, offers []offer) {
	for _, o := range offers {
		switch {
		case !b.heirs[o.key]:
		case o.owner != "":
			delete(b.heirs, o.key)
		case !o.unsure:
			b.start(ctx, o, false)
		}
	}
}

// members are this client and the others that have announced themselves and are
// alive. Owners that have not count too, by what they own.
func (b *balancer) members(offers []offer) []balance.Member {
	owning := map[string]bool{}
	for _, o := range offers {
		owning[o.owner] = true
	}
	streams := make([]string, len(b.streams))
	for i, s := range b.streams {
		streams[i] = s.id
	}
	members := []balance.Member{{Client: b.client, Streams: streams}}
	for client, p := range b.present {
		if client != b.client && (owning[client] || !b.watcher.Dead(p.Item)) {
			members = append(members, balance.Member{Client: client, Streams: p.streams})
		}
	}
	return members
}

// claimLeftovers claims what another client should have claimed and has not: it
// may be unable to, or its plan may be made from something else.
func (b *balancer) claimLeftovers(ctx context.Context, plan *balance.Plan, offers []offer) {
	free := map[lease.Key]time.Time{}
	for i, o := range offers {
		if _, started := b.consumers[o.key]; started || o.owner != "" || plan.Owner(i) == b.client {
			continue
		}
		since, known := b.free[o.key]
		if !known {
			since = time.Now()
		}
		free[o.key] = since
		if time.Since(since) > b.conf.leasePeriod/3+time.Second && !o.unsure {
			b.start(ctx, o, false)
		}
	}
	b.free = free
}

// calm reports whether it is a time to ask for shards, and looks again when it may
// be.
func (b *balancer) calm() bool {
	wait := min(calmFor, b.lookEvery()/2) - time.Since(b.changed)
	if wait <= 0 || time.Since(b.restless) >= b.lookEvery() {
		return true
	}
	b.lookWithin(wait)
	return false
}

// ask requests a shard from its owner, which hands it over once it has drained.
func (b *balancer) ask(ctx context.Context, item lease.Item) {
	if _, pending := b.asked[item.Key]; pending {
		return
	}
	b.asked[item.Key] = time.Now()
	b.lookWithin(askPoll)
	b.request(ctx, func(ctx context.Context) error { return b.store.Ask(ctx, item, b.client) })
}

// give has a shard handed over to the client that has asked for it.
func (b *balancer) give(o offer) {
	if h := b.consumers[o.key]; h != nil && h.claimed && !h.given {
		h.given = true
		h.give <- o.item.Wanted
	}
}

// decline lets others ask for a shard that was asked for by a client that should
// not have it.
func (b *balancer) decline(ctx context.Context, o offer) {
	declined := o.item
	declined.Wanted = ""
	o.view.items[o.key] = declined // once, unless the next look says otherwise
	b.request(ctx, func(ctx context.Context) error { return b.store.Decline(ctx, o.item) })
}

// request makes a write beside the loop on which nothing depends: what comes of it
// shows at the next look.
func (b *balancer) request(ctx context.Context, write func(context.Context) error) {
	b.requests.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, b.conf.leasePeriod/3)
		defer cancel()
		if b.begin(ctx) != nil {
			return
		}
		defer b.done()
		if err := write(ctx); err != nil && !errors.Is(err, lease.ErrConflict) && ctx.Err() == nil {
			b.log.Debugf("Asking for a shard, or declining to hand one over: %v", err)
		}
	})
}

// expect forgets requests that were granted or have come to nothing, and looks
// often while there are others.
func (b *balancer) expect() {
	for key, at := range b.asked {
		item := b.view(key.Stream).items[key]
		patience := b.lookEvery()
		if item.Wanted == b.client {
			patience = b.conf.leasePeriod
		}
		if _, running := b.consumers[key]; running || item.Owner == b.client || time.Since(at) > patience {
			delete(b.asked, key)
		}
	}
	if len(b.asked) > 0 {
		b.lookWithin(askPoll)
	}
}

// take takes a shard from an owner that knows nothing of requests, as the
// built-in input: one a stream at a time, and only where that input would do the
// same, so that the two do not take it from each other for ever.
func (b *balancer) take(ctx context.Context, offers []offer, o offer) {
	theirs, ours := 0, 0
	for _, other := range offers {
		if other.key.Stream != o.key.Stream {
			continue
		}
		switch other.owner {
		case o.owner:
			theirs++
		case b.client:
			ours++
		}
	}
	if theirs-ours < 2 || time.Since(o.view.tookAt) < b.lookEvery() {
		return
	}
	o.view.tookAt = time.Now()
	b.log.Infof("Taking shard %s from client %s, which has %d shards to our %d", o.key, o.owner, theirs, ours)
	b.start(ctx, o, true)
}

// yield gives a shard up of which a literal item has an owner: a built-in input was
// told to read this very shard, or has begun it again, and it never looks at the
// item that we hold.
func (b *balancer) yield(o offer) {
	h := b.consumers[o.key]
	if h == nil || !o.literal || h.yielded {
		return
	}
	h.yielded = true
	b.log.Warnf("Shard %s is read by client %s too, which holds it as item %q of the table: it is left to that client until that item is free or has not been renewed for three lease periods", o.key, o.owner, o.literals[0].Shard)
	h.cancel()
}

// tellWaiting says why a shard that was asked for by its name is not read.
func (b *balancer) tellWaiting(o offer) {
	if o.owner == "" || o.view.waiting[o.key] == o.owner {
		return
	}
	o.view.waiting[o.key] = o.owner
	b.log.Infof("Shard %s is read by client %s: it is read here when that client gives it up or dies", o.key, o.owner)
}

// start claims a shard and reads it, on a goroutine of its own that the loop
// hears of through ended. A shard that was taken from a living client is read
// once that client has had its last word.
func (b *balancer) start(ctx context.Context, o offer, taken bool) {
	if f := b.failing[o.key]; time.Now().Before(f.until) {
		b.lookWithin(time.Until(f.until))
		return
	}
	if until, vanished := o.view.vanished[o.key]; vanished && time.Now().Before(until) {
		b.lookWithin(time.Until(until))
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	give := make(chan string, 1)
	b.consumers[o.key] = &holding{cancel: cancel, give: give, first: o.shard.FirstSequence}
	delete(b.asked, o.key)
	delete(b.heirs, o.key)
	delete(o.view.waiting, o.key)
	startAt := o.view.startAt
	if !o.item.StartAt.IsZero() {
		startAt = o.item.StartAt
	}
	go func() {
		result, err := b.consume(ctx, o, give, startAt, taken)
		b.ended <- ended{key: o.key, result: result, err: err}
	}()
}

func (b *balancer) consume(ctx context.Context, o offer, give <-chan string, startAt time.Time, taken bool) (consumer.Result, error) {
	store, literals, err := b.settleLiterals(ctx, o)
	if err != nil {
		return consumer.Result{}, err
	}
	if o.shard.FirstSequence == "" { // it was made a moment ago, and its parent named it
		if o.shard, err = b.identify(ctx, o); err != nil {
			return consumer.Result{}, err
		}
	}
	held, item, err := b.claim(ctx, store, o.item, lease.Origin{
		StartAt: startAt, ShardStart: o.shard.FirstSequence,
		// What a balanced reader has begun stays proof that its parents were finished.
		Pinned: b.explicit() && (!o.item.Exists || o.item.Pinned || o.of != ofThisStream),
		Anew:   o.of == ofEarlierStream,
	})
	if err != nil {
		return consumer.Result{}, err
	}
	b.claimed <- claimed{o.key, o.shard.FirstSequence}
	if taken {
		if item.Sequence, err = held.LastWord(ctx, b.conf.commitPeriod+b.conf.stealGracePeriod); err != nil {
			return consumer.Result{}, errors.Join(err, b.giveUp(ctx, held, o.item.Sequence))
		}
	}
	after, err := b.position(ctx, o, item, literals)
	if err != nil {
		return consumer.Result{}, errors.Join(err, b.giveUp(ctx, held, item.Sequence))
	}
	batcher, processors, err := b.newBatch(ctx)
	if err != nil {
		err = fmt.Errorf("making the batcher of shard %s: %w", o.key, err)
		return consumer.Result{}, errors.Join(err, b.giveUp(ctx, held, item.Sequence))
	}
	b.log.Debugf("Reading shard %s from sequence number %q", o.key, after)
	starving := make(chan struct{}, 1)
	return consumer.New(consumer.Config{
		Lease:        held,
		Committed:    after, // what another item of the shard tells is stored in this one too
		Shard:        o.written,
		Open:         func(sent string) consumer.Source { return b.open(o, sent, after, startAt, starving) },
		Batcher:      batcher,
		Processors:   processors,
		Limit:        b.conf.checkpointLimit,
		Budget:       b.budget,
		Starving:     starving,
		HandOver:     give,
		DrainTimeout: b.conf.leasePeriod / 3,
		Awaited:      b.awaited,
		Out:          b.out,
		Metrics:      b.metrics.consumer,
		Log:          b.log,
	}).Run(), nil
}

// open makes a source of a shard that begins after what was sent last or, where
// nothing was, after the stored position.
func (b *balancer) open(o offer, sent, after string, startAt time.Time, starving chan<- struct{}) consumer.Source {
	position := retrieval.Position{After: after}
	if sent != "" {
		position.After = sent
	}
	if position.After == "" {
		position.At = startAt
	}
	return retrieval.NewPoller(b.reader, b.lists, retrieval.Shard{Stream: o.key.Stream, ID: o.key.Shard, FirstSequence: o.shard.FirstSequence}, position, b.budget, b.conf.pollPeriod, retrieval.Hooks{
		OnThrottle: func() { b.metrics.throttled.Incr(1, o.key.Stream, o.key.Shard) },
		OnTrouble:  func(err error) { b.log.Warnf("Stream %s: going on after: %v", o.key.Stream, err) },
		OnStarving: func() {
			select {
			case starving <- struct{}{}:
			default:
			}
		},
	})
}

func (b *balancer) claim(ctx context.Context, store lease.Store, seen lease.Item, origin lease.Origin) (*lease.Lease, lease.Item, error) {
	if err := b.begin(ctx); err != nil {
		return nil, lease.Item{}, err
	}
	defer b.done()
	return lease.Take(ctx, ctx, store, seen, origin, lease.Options{
		Client:       b.client,
		Period:       b.conf.leasePeriod,
		CommitPeriod: b.conf.commitPeriod,
		OnWanted:     b.callForLook,
		OnTrouble:    func(err error) { b.log.Warnf("Trying again: %v", err) },
	})
}

// callForLook has the loop look soon. It may be called from anywhere.
func (b *balancer) callForLook() {
	select {
	case b.wanted <- struct{}{}:
	default:
	}
}

// awaited reports whether a client has announced itself and has not gone. It counts
// as there when that cannot be found out.
func (b *balancer) awaited(ctx context.Context, client string) bool {
	ctx, cancel := context.WithTimeout(ctx, withdrawTimeout)
	defer cancel()
	there, err := b.store.announced(ctx, client)
	return there || err != nil
}

// giveUp releases a lease under which nothing was read.
func (b *balancer) giveUp(ctx context.Context, held *lease.Lease, sequence string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), withdrawTimeout)
	defer cancel()
	return held.Release(ctx, sequence)
}

// begin waits for a place among the calls under way, which done gives back.
func (b *balancer) begin(ctx context.Context) error {
	select {
	case b.calls <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *balancer) done() { <-b.calls }

// buryAll buries the consumer that has ended, and all others that have by now: of
// hundreds that are handed over together one plan is made, not hundreds.
func (b *balancer) buryAll(e ended) {
	for {
		b.bury(e)
		select {
		case e = <-b.ended:
		default:
			return
		}
	}
}

// bury takes note of how a consumer ended. It has let go of its lease, or will
// not use it again.
func (b *balancer) bury(e ended) {
	b.consumers[e.key].cancel()
	delete(b.consumers, e.key)
	b.changes++
	s := b.view(e.key.Stream)
	s.ended[e.key] = b.changes
	s.unsure[e.key] = e.result.Outcome != consumer.Finished && e.result.Outcome != consumer.HandedOver

	switch {
	case errors.Is(e.err, lease.ErrConflict):
		b.failed(e.key) // another process was faster
	case errors.Is(e.err, context.Canceled):
	case e.err != nil:
		b.failed(e.key)
		b.log.Warnf("Trying again: %v", e.err)
	default:
		delete(b.deleted, e.key)
		if e.result.Outcome != consumer.Gone {
			delete(b.failing, e.key)
		}
		b.conclude(s, e)
	}
}

// failed lets a shard rest before it is tried again: a quarter of a second first,
// then twice as long each time, up to the time between two looks.
func (b *balancer) failed(key lease.Key) {
	f := b.failing[key]
	f.until = time.Now().Add(min(lookSoon<<min(f.times, 10), max(lookSoon, b.lookEvery()), mostFailingPause))
	f.times++
	b.failing[key] = f
	b.lookWithin(time.Until(f.until))
}

func (b *balancer) conclude(s *streamView, e ended) {
	switch e.result.Outcome {
	case consumer.Released:
	case consumer.HandedOver:
		s.items[e.key] = lease.Item{Key: e.key, Exists: true, Owner: e.result.To}
		return
	case consumer.Finished:
		b.log.Infof("Shard %s is closed and has been read to its end", e.key)
		// Of this stream, as far as progress can tell: it was read just now.
		s.items[e.key] = lease.Item{Key: e.key, Exists: true, Finished: true, ShardStart: s.byID[e.key.Shard].FirstSequence}
		s.adopt(e.key.Shard, e.result.Children)
		for _, child := range e.result.Children {
			b.heirs[lease.Key{Stream: s.id, Shard: child.ID}] = true
		}
	case consumer.Lost:
		b.metrics.lost.Incr(1, e.key.Stream, e.key.Shard)
		if errors.Is(e.result.Err, lease.ErrDeleted) {
			b.log.Warnf("The item of shard %s was deleted from table %s by somebody. It is made anew, and reading goes on after sequence number %q, which is how far this process had got. To have a shard read from its start, stop all processes before its item is deleted",
				e.key, b.conf.table.name, e.result.Acked)
			b.deleted[e.key] = e.result.Acked
			b.heirs[e.key] = true // at once: who else claims it begins at its start
		} else {
			b.log.Warnf("%v", e.result.Err)
		}
	case consumer.Gone:
		b.failed(e.key)
		b.log.Warnf("Shard %s: %v", e.key, e.result.Err)
		s.listed = time.Time{}
	case consumer.Failed:
		b.log.Warnf("Its lease will run out by itself: %v", e.result.Err)
	}
	b.lookWithin(lookSoon)
}

func (b *balancer) view(stream string) *streamView {
	return b.streams[slices.IndexFunc(b.streams, func(s *streamView) bool { return s.id == stream })]
}

// audit counts the open shards whose records nobody reads, nor will when a shard
// before them is finished. It overlooks those that are on their way to an owner,
// which takes a look or two, and warns of one that stays.
func (b *balancer) audit() {
	for _, s := range b.streams {
		if s.items == nil || s.missing {
			continue
		}
		graph := b.graph(s)
		read := func(id string) bool {
			key := lease.Key{Stream: s.id, Shard: id}
			if held, ok := b.consumers[key]; ok {
				return held.claimed
			}
			return b.owner(s.items[key]) != ""
		}
		unread := map[string]time.Time{}
		count, overdue := int64(0), ""
		for _, shard := range s.shards {
			if shard.Closed || graph.Reached(shard.ID, read) {
				continue
			}
			since, known := s.unread[shard.ID]
			if !known {
				since = time.Now()
			}
			unread[shard.ID] = since
			if time.Since(since) > 2*b.lookEvery() {
				count++
			}
			if time.Since(since) > 2*b.conf.leasePeriod {
				overdue = shard.ID
			}
		}
		s.unread = unread
		b.metrics.unread.Set(count, s.id)
		if overdue != "" && !s.warned {
			b.log.Warnf("Nobody has read shard %s of stream %s for two lease periods, one of %d such shards", overdue, s.id, count)
		}
		s.warned = overdue != ""
	}
}

// observe sets the gauges and notices the end of all explicit shards.
func (b *balancer) observe() {
	held := make(map[string]int64, len(b.streams))
	for key, h := range b.consumers {
		if h.claimed {
			held[key.Stream]++
		}
	}
	b.metrics.buffered.Set(b.budget.Held())
	finished := len(b.consumers) == 0
	for _, s := range b.streams {
		b.metrics.held.Set(held[s.id], s.id)
		finished = finished && b.streamFinished(s)
	}
	if finished {
		select {
		case <-b.finished:
		default:
			close(b.finished)
		}
	}
}
