package consumer

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/benthosdev/benthos/v4/public/service"

	"github.com/benthos-plugins/aws-kinesis/internal/lanes"
	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/retrieval"
	numbers "github.com/benthos-plugins/aws-kinesis/internal/sequence"
)

// keyed is what a consumer has beside its window where the order is by partition key.
//
// Each message enters the window by itself, in the order read, so that the checkpoint
// is what it is otherwise. It then waits in the lane of its key, and goes into the batch
// that is being filled when those before it in the lane are acknowledged. A batch has
// no two messages of one key: outputs send the parts of a batch at once, and one that is
// rejected in part comes again in part, so that the second message of a key could be
// stored before the first.
//
// One that batch processors join into one message is stored or not as a whole, and has
// runs of one key: otherwise a hot key would leave one message at a time, and hold up the
// window. Whether they do so is seen when they have run.
type keyed struct {
	// Owned by the pump.
	records []retrieval.Record // of the page at hand, those that have not entered the window
	open    *openAggregate     // the first of them, where its user records enter one by one
	batch   []*queued          // whose messages the batcher has, or had and could not be sent
	// followed is whether a message waits in the lane of one of the batch.
	followed bool
	// runs is whether the batch may have several messages of one key, and joined are keys
	// in it of which more has come.
	runs   bool
	joined []laneKey
	// wanted is whether the source has waited for the budget since the last page.
	wanted bool
	// sentTo is the number of messages from the first of all to the newest that was sent.
	sentTo uint64
	// dropped are what was dropped when the shard was suspended, oldest first, which have
	// kept their places in the window and are to be read again.
	dropped []*queued

	// Under the consumer's lock.
	lanes    *lanes.Queue[laneKey, *queued]
	underWay int // messages that were sent and are not acknowledged
}

// laneKey is what messages are kept in order by. A record without a partition key is in
// a lane of its own: the service has spread such records over the shards at random, so
// that they have no order.
type laneKey struct {
	partition string
	alone     uint64 // id in the window of a message without a partition key, plus 1
}

// queued is a message in the window.
type queued struct {
	key      laneKey
	id       uint64 // in the window, which counts messages from 0 on
	sequence string
	user     int              // of the user records of an aggregate, which have one sequence
	more     bool             // the batch has the next message of its key as well
	sent     bool             // it left for the output, or is about to
	message  *service.Message // nil when it was sent or dropped
	cost     int64            // of the budget; of the delivery once it was sent
}

func newKeyed(processed bool) *keyed {
	return &keyed{lanes: lanes.New[laneKey, *queued](), runs: processed}
}

// pumpKeyed is pump where the order is by key.
func (c *Consumer) pumpKeyed(ctx context.Context, pages <-chan fetched) ([]retrieval.Child, error) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if c.fill() {
			if err := c.sendBatch(ctx); err != nil {
				return nil, err
			}
			continue
		}
		f, read, err := c.awaitKeyed(ctx, pages, timer)
		switch {
		case err != nil:
			return nil, err
		case !read:
			continue
		case f.err != nil && ctx.Err() != nil:
			return nil, context.Cause(ctx)
		}
		c.keyed.wanted = false
		c.track(f.page)
		c.unfed, c.keyed.records = f.page.Cost, f.page.Records
		if f.err == nil && !f.page.End {
			continue
		}
		c.cut = f.page.Cut
		// Also where the shard is gone: nobody can read again what waits here.
		if err := c.sendAll(ctx); err != nil {
			return nil, err
		}
		c.expire("")
		return f.page.Children, f.err
	}
}

// awaitKeyed returns the next page, or reports that there is none yet, but that the batch
// was sent or something was acknowledged.
func (c *Consumer) awaitKeyed(ctx context.Context, pages <-chan fetched, timer *time.Timer) (f fetched, read bool, err error) {
	k := c.keyed
	var due <-chan time.Time
	switch {
	case len(k.batch) == 0:
	case len(k.records) > 0:
		// The window is full, so that nothing joins the batch until something is
		// acknowledged. That may have to be the batch.
		return fetched{}, false, c.sendBatch(ctx)
	case k.followed || k.wanted:
		// It holds somebody up. A key of which more comes than a message a period would
		// be held back to that.
		select {
		case f := <-pages: // which may fill it
			return f, true, nil
		default:
			return fetched{}, false, c.sendBatch(ctx)
		}
	default:
		if wait, timed := c.filling.batcher.UntilNext(); timed {
			timer.Reset(wait)
			due = timer.C
		}
	}
	if len(k.records) > 0 {
		pages = nil
	}
	select {
	case f := <-pages:
		return f, true, nil
	case <-c.ackMoved:
		return fetched{}, false, nil
	case <-c.conf.BudgetWait:
		k.wanted = true
		return fetched{}, false, nil
	case <-due:
		return fetched{}, false, c.sendBatch(ctx)
	case <-ctx.Done():
		return fetched{}, false, context.Cause(ctx)
	}
}

// sendAll sends what was read, each message as soon as those before it of its key are
// acknowledged.
func (c *Consumer) sendAll(ctx context.Context) error {
	for {
		c.fill()
		c.mu.Lock()
		waiting := c.keyed.lanes.Waiting()
		c.mu.Unlock()
		switch {
		case len(c.keyed.batch) > 0:
			if err := c.sendBatch(ctx); err != nil {
				return err
			}
		case len(c.keyed.records) == 0 && waiting == 0:
			return nil
		default:
			if err := c.awaitAck(ctx); err != nil {
				return err
			}
		}
	}
}

// fill takes records in, as far as the window has room, has the batcher add the messages
// whose turn it is, and reports whether the batch is full.
func (c *Consumer) fill() (full bool) {
	k := c.keyed
	for len(k.records) > 0 && c.takeIn(&k.records[0]) {
		k.records[0], k.open = retrieval.Record{}, nil // the message has what it needs
		k.records = k.records[1:]
	}
	for len(k.joined) > 0 && !full {
		full = c.join(k.joined[0])
		k.joined = k.joined[1:]
	}
	for !full {
		c.mu.Lock()
		q, ok := k.lanes.Next()
		k.followed = k.followed || ok && !k.runs && k.lanes.Followed(q.key)
		c.mu.Unlock()
		if !ok {
			break
		}
		k.batch = append(k.batch, q)
		if full = c.filling.batcher.Add(q.message); k.runs && !full {
			full = c.join(q.key)
		}
	}
	return full
}

// join has the batcher add what waits behind the messages of a key that the batch has,
// and reports whether the batch is full.
func (c *Consumer) join(key laneKey) (full bool) {
	k := c.keyed
	for !full {
		c.mu.Lock()
		before, _ := k.lanes.UnderWay(key)
		q, ok := k.lanes.Follow(key)
		if ok {
			before.more = true
		}
		c.mu.Unlock()
		if !ok {
			break
		}
		k.batch = append(k.batch, q)
		full = c.filling.batcher.Add(q.message)
	}
	return full
}

// takeIn enters a record in the window, behind those of its key, and reports whether
// there is room for it. Of records that are read again after a suspension it takes in
// those that were dropped then.
func (c *Consumer) takeIn(record *retrieval.Record) (taken bool) {
	k, cost := c.keyed, retrieval.Cost(record)
	c.expire(record.SequenceNumber)
	if numbers.Compare(record.SequenceNumber, c.sent.Sequence) <= 0 && (len(k.dropped) == 0 || k.dropped[0].sequence != record.SequenceNumber) {
		c.fed(cost)
		return true
	}
	if k.open == nil && c.skipOld(record, c.skipKeyed) {
		return true
	}
	if c.isAggregate(record) {
		return c.takeInAggregate(record)
	}
	q := c.placeWhole(record)
	if q == nil {
		return false
	}
	c.unfed -= cost
	c.wait(q, c.message(record), cost)
	return true
}

// skipKeyed is skip where the order is by key. What was dropped of the record when the shard
// was suspended has places in the window, and is done with.
func (c *Consumer) skipKeyed(record *retrieval.Record) {
	k := c.keyed
	for len(k.dropped) > 0 && k.dropped[0].sequence == record.SequenceNumber {
		c.ack(k.dropped[0].id)
		k.dropped = k.dropped[1:]
	}
	if numbers.Compare(record.SequenceNumber, c.sent.Sequence) > 0 {
		c.pass(lease.After(record.SequenceNumber))
	}
}

// takeInAggregate is takeIn for the user records of an aggregate, each of which is ordered
// by its own key. Where there is no room for all of them, it goes on at the next call.
func (c *Consumer) takeInAggregate(record *retrieval.Record) (taken bool) {
	k := c.keyed
	if k.open == nil {
		k.open = c.open(record, c.sent)
		switch {
		case len(k.dropped) > 0:
			k.open.next = 0 // they may be among those that entered the window
		case k.open.next == 0 && c.sent.Within.Sequence == record.SequenceNumber:
			c.sent.Within = lease.Within{} // the table has a place that is not in the record
		}
	}
	a := k.open
	switch {
	case a.broken != nil:
		q := c.placeWhole(record)
		if q == nil {
			return false
		}
		cost := retrieval.Cost(record)
		c.unfed -= cost
		c.wait(q, c.brokenMessage(a), cost)
		c.tell(a)
		return true
	case a.foreign:
		c.pass(lease.After(record.SequenceNumber))
		c.fed(retrieval.Cost(record))
		c.tell(a)
		return true
	}
	for ; a.next < len(a.users); a.next++ {
		q, passed := c.place(record.SequenceNumber, a.next, a.users[a.next].PartitionKey, a.position(a.next))
		switch {
		case passed:
		case q == nil:
			return false
		default:
			m, cost := c.userMessage(a, a.next)
			c.wait(q, m, cost)
		}
	}
	c.fed(retrieval.Cost(record) + a.held)
	c.tell(a)
	return true
}

// placeWhole is place for a record that is one message, of which a place inside means nothing:
// the table has one where aggregates were taken apart before, and are not any more.
func (c *Consumer) placeWhole(record *retrieval.Record) *queued {
	if c.sent.Within.Sequence == record.SequenceNumber {
		c.sent.Within = lease.Within{}
	}
	q, _ := c.place(record.SequenceNumber, 0, record.PartitionKey, lease.After(record.SequenceNumber))
	return q
}

// place gives a message a place in the window, or the one that it had when it was dropped.
// It returns nil where there is no room, and passed where it has left already, or was done
// with before.
func (c *Consumer) place(sequence string, user int, key string, after lease.Position) (q *queued, passed bool) {
	k := c.keyed
	if len(k.dropped) > 0 && k.dropped[0].sequence == sequence && k.dropped[0].user == user {
		q, k.dropped = k.dropped[0], k.dropped[1:]
		return q, false
	}
	if numbers.Compare(sequence, c.sent.Sequence) <= 0 || c.sent.Within.Sequence == sequence && user < c.sent.Within.Count {
		return nil, true
	}
	q = &queued{sequence: sequence, user: user}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.window.Fits(1) {
		return nil, false
	}
	q.id = c.window.Add(1, after)
	if q.key.partition = key; key == "" {
		q.key.alone = q.id + 1
	}
	c.sent = after
	return q, false
}

// wait has a message wait for its turn.
func (c *Consumer) wait(q *queued, m *service.Message, cost int64) {
	k := c.keyed
	q.message, q.cost = m, cost
	c.mu.Lock()
	defer c.mu.Unlock()
	if before, ok := k.lanes.UnderWay(q.key); ok && !before.sent {
		if k.runs {
			k.joined = append(k.joined, q.key)
		} else {
			k.followed = true
		}
	}
	k.lanes.Push(q.key, q)
}

// expire gives up what was dropped before a record that is read, all of it where that is
// empty: it has left the stream meanwhile, and would hold back the checkpoint for good.
func (c *Consumer) expire(before string) {
	k := c.keyed
	for len(k.dropped) > 0 && (before == "" || numbers.Compare(k.dropped[0].sequence, before) < 0) {
		c.ack(k.dropped[0].id)
		k.dropped = k.dropped[1:]
	}
}

// sendBatch sends the batch that is being filled, or puts it back if it has runs and must
// not. After an error its messages are in k.batch still.
func (c *Consumer) sendBatch(ctx context.Context) error {
	k := c.keyed
	batch, err := c.filling.batcher.Flush(ctx)
	if err != nil {
		return cmp.Or(context.Cause(ctx), fmt.Errorf("flushing a batch of shard %s: %w", c.conf.Lease.Key(), err))
	}
	if batch, err = c.process(ctx, batch); err != nil {
		return err
	}
	if len(batch) > 1 && slices.ContainsFunc(k.batch, func(q *queued) bool { return q.more }) {
		c.partRuns()
		return nil
	}
	d := newDelivery(c, 0, batch, 0)
	d.keyed, d.single = slices.Clone(k.batch), len(c.conf.Processors) == 0
	before := k.sentTo
	c.leaving(k.batch, true)
	for _, q := range k.batch {
		d.cost.Add(q.cost)
		k.sentTo = max(k.sentTo, q.id+1)
	}
	if len(batch) == 0 { // everything was filtered, which is a success
		c.ackKeyed(d, func(int) bool { return true })
		d.Drop()
	} else {
		select {
		case c.conf.Out <- d:
		case <-ctx.Done():
			c.leaving(k.batch, false)
			k.sentTo = before
			return context.Cause(ctx)
		}
	}
	for _, q := range k.batch {
		q.message, q.cost = nil, 0
	}
	clear(k.batch)
	k.batch, k.followed, k.joined = k.batch[:0], false, nil
	return nil
}

// partRuns puts all that was not sent back into the lanes, for batches that have a key
// once.
func (c *Consumer) partRuns() {
	k := c.keyed
	k.runs = false
	unsent := c.unsent()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, q := range unsent {
		k.lanes.Push(q.key, q)
	}
}

// leaving notes that messages leave for the output, or have not left after all.
func (c *Consumer) leaving(messages []*queued, sent bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, q := range messages {
		q.sent = sent
	}
	if sent {
		c.keyed.underWay += len(messages)
	} else {
		c.keyed.underWay -= len(messages)
	}
}

// ackKeyed acknowledges those messages of a delivery that are done with, by their index,
// and frees their keys. Those that were acknowledged before are no more in it.
func (c *Consumer) ackKeyed(d *Delivery, done func(index int) bool) {
	c.mu.Lock()
	var left []*queued
	for i, q := range d.keyed {
		if !done(i) {
			left = append(left, q)
			continue
		}
		c.ackLocked(q.id)
		if !q.more {
			c.keyed.lanes.Done(q.key)
		}
		c.keyed.underWay--
	}
	d.keyed = left
	c.mu.Unlock()
	c.tellAck()
}

// beginKeyed is begin where the order is by key. What was dropped lies between messages
// that were sent, and is found by reading from the checkpoint on.
func (c *Consumer) beginKeyed() string {
	if len(c.keyed.dropped) == 0 {
		return c.sent.Sequence
	}
	return c.acked().Sequence
}

// unsent takes back what waits and what is in the batch, oldest first.
func (c *Consumer) unsent() []*queued {
	k := c.keyed
	c.mu.Lock()
	defer c.mu.Unlock()
	unsent := k.lanes.Withdraw()
	for _, q := range k.batch {
		if !q.more {
			k.lanes.Done(q.key)
		}
		q.more = false
	}
	unsent = append(unsent, k.batch...)
	slices.SortFunc(unsent, func(a, b *queued) int { return cmp.Compare(a.id, b.id) })
	k.batch, k.followed, k.joined = nil, false, nil
	return unsent
}

// leaveUnread leaves what has not entered the window.
func (c *Consumer) leaveUnread() {
	k := c.keyed
	if k.open != nil && k.open.broken == nil && !k.open.foreign {
		c.tell(k.open)
	}
	k.records, k.open = nil, nil
}

// dropUnsent drops what has not been sent, and returns what it cost. The batcher is
// emptied apart from that.
func (c *Consumer) dropUnsent() (cost int64) {
	k := c.keyed
	c.leaveUnread()
	for _, q := range c.unsent() {
		cost += q.cost
		q.message, q.cost = nil, 0
		k.dropped = append(k.dropped, q)
	}
	// Those of an earlier suspension are not all read again yet.
	slices.SortFunc(k.dropped, func(a, b *queued) int { return cmp.Compare(a.id, b.id) })
	return cost
}

// discardKeyed is discard where the order is by key.
func (c *Consumer) discardKeyed(ctx context.Context) (cost int64, err error) {
	if _, err := c.filling.batcher.Flush(ctx); err != nil {
		return 0, err
	}
	return c.dropUnsent(), nil
}

// drainKeyed returns once all that was sent has been acknowledged, and what lies before
// any of it: the shard's next reader begins at the checkpoint, and has again what was
// acknowledged beyond. What comes after all that was sent is left to that reader.
func (c *Consumer) drainKeyed(ctx context.Context) error {
	k := c.keyed
	if _, err := c.filling.batcher.Flush(ctx); err != nil {
		return err
	}
	cost := int64(0)
	c.leaveUnread()
	unsent := c.unsent() // all of it before what was dropped and is not read again
	c.mu.Lock()
	for _, q := range unsent {
		if q.id < k.sentTo {
			k.lanes.Push(q.key, q)
		} else {
			cost += q.cost
		}
	}
	c.mu.Unlock()
	c.conf.Budget.Release(cost)
	if err := c.sendAll(ctx); err != nil {
		return err
	}
	for {
		c.mu.Lock()
		left := k.underWay
		c.mu.Unlock()
		if left == 0 {
			return nil
		}
		if err := c.awaitAck(ctx); err != nil {
			return err
		}
	}
}
