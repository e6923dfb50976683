// Package consumer reads one shard under one lease: records come from a source,
// go through a batcher, enter the window of what is in flight and leave as
// deliveries. What was acknowledged is committed as the lease is renewed.
//
// A consumer runs four goroutines, all ended before Run returns:
//
//   - the fetcher owns the source and hands each page to the pump, over a channel
//     without a buffer: so reading is one page ahead of the output, no more;
//   - the pump, on Run's own goroutine, owns the batcher and sends deliveries;
//   - the keeper owns the lease, so that an output that blocks the pump for
//     however long does not keep the lease from being renewed;
//   - the guard owns nothing, and ends the reading of a shard that is to be handed
//     over, or whose lease cannot be proved, whatever the others wait for.
//
// A shard whose lease cannot be proved is suspended: what has not left for the
// output is dropped, so that it takes no room from shards that are well, and is
// read again when the lease is proved. What has left stays in the window.
//
// Where the order is by partition key, messages enter the window one by one as they are
// read, and wait in the lane of their key; see keyed.go.
//
// The window, and the lanes, are shared by the pump, the keeper and whoever
// acknowledges, under a lock that is never held across a channel or a call.
package consumer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/benthosdev/benthos/v4/public/service"

	"github.com/benthos-plugins/aws-kinesis/internal/inflight"
	"github.com/benthos-plugins/aws-kinesis/internal/lag"
	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/retrieval"
	numbers "github.com/benthos-plugins/aws-kinesis/internal/sequence"
)

// endTimeout bounds the last write of a lease, which is made after the context
// of everything else has ended.
const endTimeout = 5 * time.Second

// Source hands out the pages of the shard; see retrieval.
type Source interface {
	Next(ctx context.Context) (retrieval.Page, error)
	// Close ends what the source has open, and returns when it has ended. It is called once,
	// when Next is not called any more.
	Close()
}

// Batcher is a batching policy without processors.
type Batcher interface {
	Add(*service.Message) (flush bool)
	UntilNext() (wait time.Duration, timed bool)
	Flush(context.Context) (service.MessageBatch, error)
	Close(context.Context) error
}

// Hooks tell of what a consumer deals with by itself. Each may be nil. It is called from
// one of its goroutines, or by whoever acknowledges, and returns at once.
type Hooks struct {
	// OnReject is called when the output has rejected so many messages, which are skipped.
	OnReject func(messages int, err error)
	// OnProcess is called with what came of running the batch processors, where there are
	// any: nil when they have accepted a batch.
	OnProcess func(err error)
	// OnSuspend is called when the shard is suspended, and when its lease is proved again.
	OnSuspend func(suspended bool)
	// OnClose is called when the batching policy could not be closed.
	OnClose func(err error)
	// OnAggregate is called when an aggregate, or what looks like one, has been fed, or a
	// part of it that nothing was told of before.
	OnAggregate func(Aggregate)
	// OnSkip is called with each record that is skipped since it is too old: when it arrived,
	// by the service's clock, and how long ago that is.
	OnSkip func(arrived time.Time, age time.Duration)
}

// orNothing puts what does nothing in the place of hooks that are nil.
func (h Hooks) orNothing() Hooks {
	if h.OnReject == nil {
		h.OnReject = func(int, error) {}
	}
	if h.OnProcess == nil {
		h.OnProcess = func(error) {}
	}
	if h.OnSuspend == nil {
		h.OnSuspend = func(bool) {}
	}
	if h.OnClose == nil {
		h.OnClose = func(error) {}
	}
	if h.OnAggregate == nil {
		h.OnAggregate = func(Aggregate) {}
	}
	if h.OnSkip == nil {
		h.OnSkip = func(time.Time, time.Duration) {}
	}
	return h
}

// State is how far a consumer has got.
type State struct {
	// Since is the moment before which everything that arrived in the shard is acknowledged,
	// by our own clock; zero while that is not known.
	Since time.Time
	// Oldest is when the oldest record arrived that was read and is not acknowledged; zero
	// when there is none.
	Oldest time.Time
	// Acks counts how often the oldest message in flight became another one.
	Acks int
	// InFlight is the number of messages from the oldest one that is not acknowledged on.
	InFlight int
	// Processing is since when a batch has been with the batch processors; zero when none is.
	Processing time.Time
	// Suspended is whether nothing is read, since the lease cannot be proved.
	Suspended bool
}

// Config is what a consumer is made of. It takes over the lease, the batcher and
// the processors, and ends each of them.
type Config struct {
	Lease *lease.Lease
	// Committed is the position up to which all was acknowledged at the claim.
	Committed lease.Position
	// Since is the moment before which everything that arrived was acknowledged at the
	// claim; zero where nobody knows.
	Since time.Time
	// Skew returns by how much the service's clock is ahead of our own; nil for not at all.
	Skew func() time.Duration
	// ServiceTime returns the service's clock by which records grow old, or a moment before
	// it; nil for our own clock and Skew.
	ServiceTime func() time.Time
	// Shard is what messages call the shard; empty for its id.
	Shard string
	// Open makes a source that begins after a sequence number, or where the shard
	// is to begin when it is empty.
	Open func(after string) Source
	// End is the moment at which the source ends, though the shard may go on; zero where it
	// ends with the shard.
	End     time.Time
	Batcher Batcher
	// Deaggregate says how aggregates come out as their user records; nil where they stay
	// what they are.
	Deaggregate *Deaggregation
	// MaxAge is how old a record may be when its turn comes to be made a message; one that
	// arrived longer ago is skipped for good. 0 for any age.
	MaxAge time.Duration
	// Processors are run on each batch as it is flushed.
	Processors []*service.OwnedProcessor
	// Limit is the greatest number of messages in flight, at least 1.
	Limit int
	// ByKey has a message leave when those before it of its partition key are
	// acknowledged, and no batch have two of one key. Those that wait for their key are in
	// flight.
	ByKey bool
	// Budget is where the cost of pages goes back to.
	Budget *retrieval.Budget
	// BudgetWait receives when the source waits for the budget: what waits here for
	// a batch to fill up is sent, since it may be what holds the budget.
	BudgetWait <-chan struct{}
	// HandOver receives the client that the shard is to be handed over to, once.
	HandOver <-chan string
	// DrainTimeout bounds the wait for acknowledgements before that. What is not
	// acknowledged by then comes again from that client.
	DrainTimeout time.Duration
	// Awaited reports whether that client is still there to read the shard. To one
	// that has gone it is not handed over.
	Awaited func(ctx context.Context, client string) bool
	// Out takes the deliveries.
	Out   chan<- *Delivery
	Hooks Hooks
}

// Outcome says how a consumer came to its end.
type Outcome int

// The outcomes. Zero is none of them.
const (
	// Released: its context ended, or the client that it was to hand the shard over
	// to has gone; the shard is free for others.
	Released Outcome = iota + 1
	// Finished: the shard is closed, read to its end and acknowledged.
	Finished
	// HandedOver: another client owns the shard, by our own will.
	HandedOver
	// Lost: the session is lost, the table names another owner, or the item is gone.
	Lost
	// Gone: the service does not know the shard.
	Gone
	// Failed: the last write has no known outcome. The table may still name this member,
	// which then claims the shard anew.
	Failed
	// Cut: the shard goes on, and was read up to the end of its source and acknowledged.
	Cut
)

func (o Outcome) String() string {
	switch o {
	case Released:
		return "released"
	case Finished:
		return "finished"
	case HandedOver:
		return "handed over"
	case Lost:
		return "lost"
	case Gone:
		return "gone"
	case Failed:
		return "failed"
	case Cut:
		return "cut"
	}
	return fmt.Sprintf("Outcome(%d)", int(o))
}

// Result is what a consumer leaves behind.
type Result struct {
	Outcome Outcome
	// Children of a finished shard.
	Children []retrieval.Child
	// To is the client that a shard was handed over to.
	To string
	// Acked is the position up to which all was acknowledged under a lease that was
	// Lost.
	Acked lease.Position
	// Err explains Lost, Gone and Failed.
	Err error
}

// Consumer reads one shard. The balancer makes one for each lease it takes and
// calls Run once.
type Consumer struct {
	conf                Config
	stream, shard, term any // metadata values, boxed once

	// Owned by the pump.
	filling   filling
	unfed     int64          // cost of what the page at hand has beyond it
	sent      lease.Position // after the newest message that is done with or under way
	cut       bool           // what was read ended before the shard did
	arrivedAt time.Time
	arrived   any // metadata value of arrivedAt
	// made is the newest record that was made a message, and passed the newest one after it
	// of which nothing is delivered; empty for none. Both are sequence numbers.
	made, passed string
	// counted is how many user records of which aggregate were told of last, those before
	// them included. What comes again after a suspension is not told of once more.
	counted lease.Within
	// repassed was passed with batches that a suspension has kept from leaving, and is told
	// of no more.
	repassed []passed

	keyed *keyed // nil where the order is that of the shard

	mu         sync.Mutex
	window     *inflight.Window[lease.Position]
	acks       int // batches that were acknowledged in order
	lag        *lag.Tracker
	suspended  bool
	processing time.Time     // since when the batch processors have a batch
	ackMoved   chan struct{} // cap 1: the window has more room than before, or a key is free
}

// New returns a consumer that is yet to run.
func New(conf Config) *Consumer {
	key := conf.Lease.Key()
	conf.Hooks = conf.Hooks.orNothing()
	if conf.Skew == nil {
		conf.Skew = func() time.Duration { return 0 }
	}
	if conf.ServiceTime == nil {
		conf.ServiceTime = func() time.Time { return time.Now().Add(conf.Skew()) }
	}
	c := &Consumer{
		conf:     conf,
		stream:   key.Stream,
		shard:    cmp.Or(conf.Shard, key.Shard),
		term:     strconv.FormatInt(conf.Lease.Number(), 10),
		filling:  filling{batcher: conf.Batcher},
		sent:     conf.Committed,
		window:   inflight.New[lease.Position](conf.Limit),
		lag:      lag.New(conf.Since, conf.Committed.Sequence),
		ackMoved: make(chan struct{}, 1),
	}
	if conf.ByKey {
		c.keyed = newKeyed(len(conf.Processors) > 0)
	}
	return c
}

// requestedError is why a consumer stops that is to hand its shard over.
type requestedError string

func (recipient requestedError) Error() string { return "requested by " + string(recipient) }

// errSuspended is why reading stops while the lease cannot be proved.
var errSuspended = errors.New("the lease cannot be proved")

// Run reads the shard until it is finished or cut, is to be handed over, its lease is
// lost or the context of the lease ends. It returns within a few seconds of that,
// and when it is to be handed over, within the drain time-out more.
func (c *Consumer) Run() Result {
	ctx, stop := context.WithCancel(c.conf.Lease.Context())
	defer stop()

	var keeper sync.WaitGroup
	keeper.Go(func() {
		// A loss ends ctx, and is told from its cause.
		_ = c.conf.Lease.Keep(ctx, c.acked)
	})
	children, err := c.read(ctx)
	for errors.Is(err, errSuspended) {
		if err = c.suspend(ctx); err == nil {
			children, err = c.read(ctx)
		}
	}
	recipient, requested := errors.AsType[requestedError](err)
	if requested {
		c.drainBriefly(ctx)
	}
	stop()
	keeper.Wait()

	result := c.end(children, string(recipient), err)
	if result.Outcome == Lost {
		result.Acked = c.acked()
	}
	c.close()
	return result
}

// read reads on from what was sent last, to the end of the shard if it has one
// and all is acknowledged, and returns the children. It ends with an error when
// the guard says so, with that of the source, and with the cause of ctx.
func (c *Consumer) read(ctx context.Context) ([]retrieval.Child, error) {
	if c.conf.Lease.TrustedFor() <= 0 {
		return nil, errSuspended // a call to subscribe alone would take another's subscription over
	}
	reading, interrupt := context.WithCancelCause(ctx)
	pages := make(chan fetched)
	source := c.conf.Open(c.begin())
	var workers sync.WaitGroup
	workers.Go(func() { c.guard(reading, interrupt) })
	workers.Go(func() { c.fetch(reading, source, pages) })
	pump := c.pump
	if c.keyed != nil {
		pump = c.pumpKeyed
	}
	children, err := pump(reading, pages)
	if err == nil || reading.Err() == nil {
		// Also where the shard is gone: what is under way is older than all records of
		// its children.
		if drained := c.drain(reading); drained != nil {
			err = drained
		}
	}
	interrupt(nil)
	workers.Wait()
	return children, err
}

// guard ends reading when the shard is to be handed over or its lease cannot be
// proved any more.
func (c *Consumer) guard(reading context.Context, interrupt context.CancelCauseFunc) {
	trust := time.NewTimer(c.conf.Lease.TrustedFor())
	defer trust.Stop()
	for {
		select {
		case recipient := <-c.conf.HandOver:
			interrupt(requestedError(recipient))
			return
		case <-trust.C:
			left := c.conf.Lease.TrustedFor()
			if left <= 0 {
				interrupt(errSuspended)
				return
			}
			trust.Reset(left)
		case <-reading.Done():
			return
		}
	}
}

// begin returns the sequence after which the shard is read on.
func (c *Consumer) begin() string {
	if c.keyed != nil {
		return c.beginKeyed()
	}
	return c.sent.Sequence
}

// suspend drops what has not been sent, and waits until the lease is proved. A
// shard that is to be handed over meanwhile is so as soon as it is read again.
func (c *Consumer) suspend(ctx context.Context) error {
	discard := c.discard
	if c.keyed != nil {
		discard = c.discardKeyed
	}
	cost, err := discard(ctx)
	if err != nil {
		return cmp.Or(context.Cause(ctx), fmt.Errorf("emptying the batch of shard %s: %w", c.conf.Lease.Key(), err))
	}
	c.conf.Budget.Release(cost + c.unfed)
	c.unfed = 0
	c.setSuspended(true)
	c.conf.Hooks.OnSuspend(true)
	err = c.conf.Lease.Await(ctx)
	c.setSuspended(false)
	if err != nil {
		return cmp.Or(context.Cause(ctx), err)
	}
	c.conf.Hooks.OnSuspend(false)
	return nil
}

// discard drops the batch that is being filled, and returns what it cost.
func (c *Consumer) discard(ctx context.Context) (cost int64, err error) {
	_, discarded, err := c.filling.flush(ctx)
	c.rereads(discarded)
	return discarded.cost, err
}

// rereads notes that the records of a batch did not leave, and are read again.
func (c *Consumer) rereads(batch entry) {
	c.repassed = append(batch.passed, c.repassed...) // of an earlier one not all is read again yet
}

func (c *Consumer) setSuspended(suspended bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.suspended = suspended
}

func (c *Consumer) setProcessing(since time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.processing = since
}

// State returns how far the consumer has got. It may be called from anywhere.
func (c *Consumer) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	inFlight := c.window.Held()
	if c.keyed != nil && c.keyed.underWay == 0 {
		inFlight = 0 // what waits for its batch to fill up waits for no acknowledgement
	}
	return State{Since: c.lag.Since(), Oldest: c.lag.Oldest(), Acks: c.acks, InFlight: inFlight, Processing: c.processing, Suspended: c.suspended}
}

type fetched struct {
	page retrieval.Page
	err  error
}

// fetch reads until the shard ends or ctx does. It closes the source before it returns, so
// that nothing of it is open when the shard is passed on.
func (c *Consumer) fetch(ctx context.Context, source Source, pages chan<- fetched) {
	defer source.Close()
	for {
		page, err := source.Next(ctx)
		select {
		case pages <- fetched{page, err}:
		case <-ctx.Done():
			c.conf.Budget.Release(page.Cost)
			return
		}
		if err != nil || page.End {
			return
		}
	}
}

// pump returns the children of a shard that it has sent to the last record.
func (c *Consumer) pump(ctx context.Context, pages <-chan fetched) ([]retrieval.Child, error) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		var due <-chan time.Time
		if wait, timed := c.filling.batcher.UntilNext(); timed && c.filling.messages > 0 {
			timer.Reset(wait)
			due = timer.C
		}
		select {
		case f := <-pages:
			if errors.Is(f.err, retrieval.ErrShardGone) {
				// Nobody can read again what waits for its batch to fill up.
				if err := c.flush(ctx); err != nil {
					return nil, err
				}
			}
			if f.err != nil {
				return nil, cmp.Or(context.Cause(ctx), f.err)
			}
			if err := c.feed(ctx, f.page); err != nil {
				return nil, err
			}
			if f.page.End {
				c.cut = f.page.Cut
				return f.page.Children, c.flush(ctx)
			}
		case <-c.conf.BudgetWait:
			if err := c.flush(ctx); err != nil {
				return nil, err
			}
		case <-due:
			if err := c.flush(ctx); err != nil {
				return nil, err
			}
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (c *Consumer) feed(ctx context.Context, page retrieval.Page) error {
	c.track(page)
	c.unfed = page.Cost
	for i := range page.Records {
		record := &page.Records[i]
		if c.skipOld(record, c.skip) {
			*record = retrieval.Record{}
			continue
		}
		if c.isAggregate(record) {
			if err := c.feedAggregate(ctx, record); err != nil {
				return err
			}
			*record = retrieval.Record{}
			continue
		}
		cost := retrieval.Cost(record)
		flush := c.filling.add(c.message(record), lease.After(record.SequenceNumber), cost)
		c.unfed -= cost
		page.Records[i] = retrieval.Record{} // the message has what it needs
		if flush {
			if err := c.flush(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// skipOld skips a record that is older than may be, and reports whether it is. That is
// judged by the service's clock as the record's turn comes: it may have waited here for
// longer than it had in the stream. An aggregate is judged as a whole. One of which nobody
// knows when it arrived is never too old.
func (c *Consumer) skipOld(record *retrieval.Record, skip func(*retrieval.Record)) (skipped bool) {
	if c.conf.MaxAge <= 0 || record.Arrived.IsZero() {
		return false
	}
	age := c.conf.ServiceTime().Sub(record.Arrived)
	if age <= c.conf.MaxAge {
		return false
	}
	skip(record)
	c.fed(retrieval.Cost(record))
	if !c.passedBefore(record.SequenceNumber) {
		c.conf.Hooks.OnSkip(record.Arrived, age)
	}
	return true
}

// passedBefore reports whether a record was passed with a batch that did not leave.
func (c *Consumer) passedBefore(sequence string) bool {
	for len(c.repassed) > 0 && numbers.Compare(c.repassed[0].to, sequence) < 0 {
		c.repassed = c.repassed[1:]
	}
	return len(c.repassed) > 0 && numbers.Compare(c.repassed[0].from, sequence) <= 0
}

// skip moves past a record of which nothing is delivered: with the batch that is being
// filled, or with what was sent.
func (c *Consumer) skip(record *retrieval.Record) {
	if c.filling.messages > 0 {
		c.filling.pass(record.SequenceNumber)
		c.passed = record.SequenceNumber
		return
	}
	c.pass(lease.After(record.SequenceNumber))
}

// pass moves past records of which nothing is delivered, behind all that was sent. They take no room
// in the window, however many they are, and are committed as soon as what was sent is
// acknowledged.
func (c *Consumer) pass(past lease.Position) {
	c.sent, c.passed = past, past.Sequence
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.window.Pass(past) {
		c.lag.Acked(past.Sequence)
	}
}

// joinPassed has the lag remember what was passed since the last message together with that.
// The caller holds the lock.
func (c *Consumer) joinPassed() {
	if c.passed != "" {
		c.lag.Passed(c.made, c.passed)
		c.passed = ""
	}
}

// track notes what has been read, by our own clock.
func (c *Consumer) track(page retrieval.Page) {
	skew, now := c.conf.Skew(), time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	last := time.Time{}
	c.joinPassed()
	c.lag.Read(func(note func(string, time.Time) bool) {
		for i := range page.Records {
			arrived := page.Records[i].Arrived
			if !arrived.IsZero() {
				if arrived = arrived.Add(-skew); arrived.After(now) {
					arrived = now // whatever the clocks say
				}
				last = arrived
			}
			if !note(page.Records[i].SequenceNumber, arrived) {
				return
			}
		}
	})
	// Records come in the order in which they arrived. What arrived after the last one of a
	// shard that has ended is in its children, which begin where this leaves off.
	if page.End || last.After(page.ReadTo) {
		page.ReadTo = last
	}
	c.lag.ReadTo(page.ReadTo)
}

func (c *Consumer) message(r *retrieval.Record) *service.Message {
	c.makes(r.SequenceNumber)
	m := service.NewMessage(r.Data)
	m.MetaSetMut("kinesis_stream", c.stream)
	m.MetaSetMut("kinesis_shard", c.shard)
	m.MetaSetMut("kinesis_sequence_number", r.SequenceNumber)
	m.MetaSetMut("kinesis_lease_term", c.term)
	if r.PartitionKey != "" {
		m.MetaSetMut("kinesis_partition_key", r.PartitionKey)
	}
	if !r.Arrived.IsZero() {
		// Records that were put together came in the same millisecond.
		if c.arrived == nil || !r.Arrived.Equal(c.arrivedAt) {
			c.arrivedAt, c.arrived = r.Arrived, r.Arrived.UTC().Format(time.RFC3339Nano)
		}
		m.MetaSetMut("kinesis_approximate_arrival_timestamp", c.arrived)
	}
	return m
}

// makes notes which record is made a message.
func (c *Consumer) makes(sequence string) {
	if c.passed != "" {
		c.mu.Lock()
		c.joinPassed()
		c.mu.Unlock()
	}
	if numbers.Compare(sequence, c.made) > 0 { // others are read again
		c.made = sequence
	}
}

// flush sends what is in the batcher, once the window has room for it.
func (c *Consumer) flush(ctx context.Context) error {
	if c.filling.messages == 0 {
		return nil
	}
	batch, flushed, err := c.filling.flush(ctx)
	if err != nil {
		return cmp.Or(context.Cause(ctx), fmt.Errorf("flushing a batch of shard %s: %w", c.conf.Lease.Key(), err))
	}
	if err := c.dispatch(ctx, batch, flushed); err != nil {
		c.conf.Budget.Release(flushed.cost)
		c.rereads(flushed)
		return err
	}
	c.sent = flushed.last
	return nil
}

// dispatch has a batch processed, enters it in the window and sends it.
func (c *Consumer) dispatch(ctx context.Context, batch service.MessageBatch, flushed entry) error {
	batch, err := c.process(ctx, batch)
	if err != nil {
		return err
	}
	id, err := c.enter(ctx, flushed.messages, flushed.last)
	if err != nil {
		return err
	}
	if len(batch) == 0 { // everything was filtered, which is a success
		c.ack(id)
		c.conf.Budget.Release(flushed.cost)
		return nil
	}
	select {
	case c.conf.Out <- newDelivery(c, id, batch, flushed.cost):
		return nil
	case <-ctx.Done():
		c.mu.Lock()
		c.window.Withdraw(id)
		c.mu.Unlock()
		return context.Cause(ctx)
	}
}

// process runs the processors on a batch until they accept it. They fail as a
// whole only when something outside of the messages is wrong; what is wrong with
// one message they note on that message.
func (c *Consumer) process(ctx context.Context, batch service.MessageBatch) (service.MessageBatch, error) {
	if len(c.conf.Processors) == 0 {
		return batch, nil
	}
	if ctx.Err() != nil {
		// Where they filter all, nothing else waits until what was read is through, which may
		// be an aggregate of a million user records.
		return nil, context.Cause(ctx)
	}
	c.setProcessing(time.Now())
	defer c.setProcessing(time.Time{})
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		results, err := service.ExecuteProcessors(ctx, c.conf.Processors, batch.Copy())
		if err == nil {
			c.conf.Hooks.OnProcess(nil)
			var joined service.MessageBatch
			for _, result := range results {
				joined = append(joined, result...)
			}
			return joined, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		c.conf.Hooks.OnProcess(err)
		retry := time.NewTimer(pause)
		select {
		case <-retry.C:
		case <-ctx.Done():
			retry.Stop()
			return nil, context.Cause(ctx)
		}
	}
}

// enter adds a batch to the window as soon as it fits.
func (c *Consumer) enter(ctx context.Context, messages int, last lease.Position) (id uint64, err error) {
	for {
		c.mu.Lock()
		fits := c.window.Fits(messages)
		if fits {
			id = c.window.Add(messages, last)
		}
		c.mu.Unlock()
		if fits {
			return id, nil
		}
		if err := c.awaitAck(ctx); err != nil {
			return 0, err
		}
	}
}

// drain returns once everything has been acknowledged. The keeper renews the
// lease and commits meanwhile.
func (c *Consumer) drain(ctx context.Context) error {
	for {
		c.mu.Lock()
		empty := c.window.Empty()
		c.mu.Unlock()
		if empty {
			return nil
		}
		if err := c.awaitAck(ctx); err != nil {
			return err
		}
	}
}

// drainBriefly waits for what is under way, for which it is no failure to be late.
func (c *Consumer) drainBriefly(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, c.conf.DrainTimeout)
	defer cancel()
	drain := c.drain
	if c.keyed != nil {
		drain = c.drainKeyed
	}
	_ = drain(ctx)
}

func (c *Consumer) awaitAck(ctx context.Context) error {
	select {
	case <-c.ackMoved:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// ack notes that a batch is done with. Once the lease has ended nobody looks at
// the window again, so that a late call moves nothing.
func (c *Consumer) ack(id uint64) {
	c.mu.Lock()
	moved := c.ackLocked(id)
	c.mu.Unlock()
	if moved {
		c.tellAck()
	}
}

// ackLocked is ack under the lock, and reports whether the window has moved.
func (c *Consumer) ackLocked(id uint64) (moved bool) {
	moved = c.window.Ack(id)
	if position, ok := c.window.Acked(); moved && ok {
		c.lag.Acked(position.Sequence)
		c.acks++
	}
	return moved
}

// tellAck wakes who waits for an acknowledgement.
func (c *Consumer) tellAck() {
	select {
	case c.ackMoved <- struct{}{}:
	default:
	}
}

// acked returns the position that may be committed.
func (c *Consumer) acked() lease.Position {
	c.mu.Lock()
	position, ok := c.window.Acked()
	c.mu.Unlock()
	if !ok {
		return c.conf.Committed
	}
	return position
}

// end makes the last write and tells the outcome.
func (c *Consumer) end(children []retrieval.Child, recipient string, err error) Result {
	l := c.conf.Lease
	if cause := context.Cause(l.Context()); errors.Is(cause, lease.ErrLost) {
		return Result{Outcome: Lost, Err: cause}
	}
	// The lease's context may have ended, which is why it is given up.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(l.Context()), endTimeout)
	defer cancel()

	last, result := l.Release, Result{Outcome: Released}
	switch {
	case err == nil && c.cut:
		last = func(ctx context.Context, position lease.Position) error { return l.Cut(ctx, position, c.conf.End) }
		result = Result{Outcome: Cut}
	case err == nil:
		last, result = l.Finish, Result{Outcome: Finished, Children: children}
	case l.Context().Err() != nil:
	case recipient != "" && !c.conf.Awaited(ctx, recipient):
	case recipient != "":
		last = func(ctx context.Context, position lease.Position) error {
			return l.HandOver(ctx, position, recipient)
		}
		result = Result{Outcome: HandedOver, To: recipient}
	default:
		result = Result{Outcome: Gone, Err: err}
	}
	if err := last(ctx, c.acked()); errors.Is(err, lease.ErrLost) {
		return Result{Outcome: Lost, Err: err}
	} else if err != nil {
		return Result{Outcome: Failed, Err: err}
	}
	return result
}

func (c *Consumer) close() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.conf.Lease.Context()), endTimeout)
	defer cancel()
	err := c.conf.Batcher.Close(ctx)
	for _, p := range c.conf.Processors {
		err = errors.Join(err, p.Close(ctx))
	}
	if err != nil {
		c.conf.Hooks.OnClose(err)
	}
	cost := c.filling.cost + c.unfed
	if c.keyed != nil {
		cost += c.dropUnsent()
	}
	c.conf.Budget.Release(cost)
}
