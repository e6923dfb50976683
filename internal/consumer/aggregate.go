package consumer

import (
	"context"
	"strconv"
	"unsafe"

	"github.com/benthosdev/benthos/v4/public/service"

	"github.com/benthos-plugins/aws-kinesis/internal/arena"
	"github.com/benthos-plugins/aws-kinesis/internal/kpl"
	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/retrieval"
	numbers "github.com/benthos-plugins/aws-kinesis/internal/sequence"
)

// Deaggregation has records that the Kinesis Producer Library has aggregated come out as
// their user records.
type Deaggregation struct {
	// Keys are the hash keys of the shard, and Bounded whether they are known. A user record
	// beyond them is foreign: a reshard has left it here, since the library knew of another
	// shard when it made the aggregate.
	Keys    kpl.Range
	Bounded bool
	// DropForeign has an aggregate dropped whole for one user record that is foreign.
	DropForeign bool
}

// foreign returns how many of some user records are foreign.
func (d *Deaggregation) foreign(users []kpl.Record) (n int) {
	for i := range users {
		if d.Bounded && !d.Keys.Contains(users[i].HashKey()) {
			n++
		}
	}
	return n
}

// Aggregate is what came of a record that is aggregated, or that looks like it, or of a part
// of it. Under one lease each of its user records is told of once.
type Aggregate struct {
	// UserRecords is how many of its user records are delivered: without those that were
	// acknowledged before.
	UserRecords int
	// Foreign is how many are foreign, of those that are delivered or dropped.
	Foreign int
	// Dropped is whether nothing of it is delivered because of them.
	Dropped bool
	// Err is why it is broken, and delivered as it is; nil mostly.
	Err error
}

// userRecordSize is what a user record takes while its aggregate is fed.
const userRecordSize = int64(unsafe.Sizeof(kpl.Record{}))

// openAggregate is a record whose user records are being fed.
type openAggregate struct {
	record *retrieval.Record
	users  []kpl.Record // none where it is broken
	before string       // sequence number of the record before it
	first  int          // the user record before which all were done with at the claim
	next   int          // the user record that is to be fed; those before it are done with
	held   int64        // of the budget, for users
	// copies has the contents and keys of its messages: one that is kept, in a buffer of the
	// host perhaps, would otherwise hold the whole aggregate.
	copies arena.Arena
	// broken is why it is fed as it is; nil mostly.
	broken error
	// foreign is whether nothing of it is fed, since a user record is foreign.
	foreign bool
}

// isAggregate reports whether a record is to be taken apart.
func (c *Consumer) isAggregate(record *retrieval.Record) bool {
	return c.conf.Deaggregate != nil && kpl.Looks(record.Data)
}

// open takes a record apart that comes after a position.
func (c *Consumer) open(record *retrieval.Record, at lease.Position) *openAggregate {
	a := &openAggregate{record: record, before: at.Sequence}
	var err error
	if a.users, err = kpl.Decode(record.Data); err != nil {
		a.broken = err
		return a
	}
	if c.conf.Deaggregate.DropForeign && c.conf.Deaggregate.foreign(a.users) > 0 {
		a.foreign = true
		return a
	}
	// A place that is not in the record is none of it, and what is delivered twice is not lost.
	if in := at.Within; in.Sequence == record.SequenceNumber && in.Count < len(a.users) {
		a.first, a.next = in.Count, in.Count
	}
	a.held = int64(len(a.users)) * userRecordSize
	c.conf.Budget.Release(-a.held)
	c.unfed += a.held
	return a
}

// tell tells of those user records of an aggregate that were fed, and of a broken or dropped
// one, unless it was told before.
func (c *Consumer) tell(a *openAggregate) {
	from, to := a.first, a.next
	if a.broken != nil || a.foreign {
		from, to = 0, max(1, len(a.users))
	}
	switch order := numbers.Compare(a.record.SequenceNumber, c.counted.Sequence); {
	case order < 0:
		return
	case order == 0:
		from = max(from, c.counted.Count)
	}
	if from >= to {
		return
	}
	c.counted = lease.Within{Sequence: a.record.SequenceNumber, Count: to}
	told := Aggregate{Err: a.broken, Dropped: a.foreign}
	if a.broken == nil && !a.foreign {
		told.UserRecords = to - from
	}
	if a.foreign || a.broken == nil && !c.conf.Deaggregate.DropForeign {
		told.Foreign = c.conf.Deaggregate.foreign(a.users[from:to])
	}
	c.conf.Hooks.OnAggregate(told)
}

// position returns the position after a user record.
func (a *openAggregate) position(user int) lease.Position {
	if user == len(a.users)-1 {
		return lease.After(a.record.SequenceNumber)
	}
	return lease.Position{Sequence: a.before, Within: lease.Within{Sequence: a.record.SequenceNumber, Count: user + 1}}
}

// userMessage makes the message of a user record, and takes from the budget what it costs.
func (c *Consumer) userMessage(a *openAggregate, user int) (m *service.Message, cost int64) {
	u := &a.users[user]
	left := (len(u.Data) + len(u.PartitionKey)) * (len(a.users) - user) // if those that follow are like it
	r := retrieval.Record{
		Data: a.copies.Bytes(u.Data, left), SequenceNumber: a.record.SequenceNumber,
		PartitionKey: a.copies.Text([]byte(u.PartitionKey), left), Arrived: a.record.Arrived,
	}
	m = c.message(&r)
	m.MetaSetMut("kinesis_sub_sequence_number", strconv.Itoa(user))
	if u.ExplicitHashKey != "" {
		m.MetaSetMut("kinesis_explicit_hash_key", a.copies.Text([]byte(u.ExplicitHashKey), left))
	}
	cost = retrieval.Cost(&r)
	c.conf.Budget.Release(-cost)
	return m, cost
}

// brokenMessage makes the message of an aggregate that is fed as it is.
func (c *Consumer) brokenMessage(a *openAggregate) *service.Message {
	m := c.message(a.record)
	m.MetaSetMut("kinesis_deaggregation_error", a.broken.Error())
	return m
}

// feedAggregate feeds the user records of an aggregate, one after the other, so that no
// more of them are messages than a batch holds. Who has acknowledged some of them before
// gets the others.
func (c *Consumer) feedAggregate(ctx context.Context, record *retrieval.Record) error {
	at := c.sent
	if c.filling.messages > 0 {
		at = c.filling.last
	}
	a := c.open(record, at)
	defer c.tell(a)
	switch {
	case a.broken != nil:
		cost := retrieval.Cost(record)
		c.unfed -= cost
		return c.feedMessage(ctx, c.brokenMessage(a), lease.After(record.SequenceNumber), cost)
	case a.foreign:
		c.skip(record)
		c.fed(retrieval.Cost(record))
		return nil
	}
	for ; a.next < len(a.users); a.next++ {
		m, cost := c.userMessage(a, a.next)
		if err := c.feedMessage(ctx, m, a.position(a.next), cost); err != nil {
			return err
		}
	}
	c.fed(retrieval.Cost(record) + a.held)
	return nil
}

// feedMessage puts a message into the batch, and sends that when it is full. While the budget
// is overdrawn as many messages as may be in flight are enough: where the policy has no count,
// an aggregate would become a million of them before the batch leaves.
func (c *Consumer) feedMessage(ctx context.Context, m *service.Message, after lease.Position, cost int64) error {
	full := c.filling.add(m, after, cost)
	if full || c.filling.messages >= c.conf.Limit && c.conf.Budget.Overdrawn() {
		return c.flush(ctx)
	}
	return nil
}

// fed gives back what a record took that has become messages, or none.
func (c *Consumer) fed(cost int64) {
	c.conf.Budget.Release(cost)
	c.unfed -= cost
}
