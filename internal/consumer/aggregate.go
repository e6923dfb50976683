package consumer

import (
	"context"
	"strconv"
	"unsafe"

	"github.com/benthosdev/benthos/v4/public/service"

	"github.com/benthos-plugins/aws-kinesis/internal/kpl"
	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/retrieval"
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

// Aggregate is what came of a record that is aggregated, or that looks like it.
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

// feedAggregate feeds the user records of an aggregate, one after the other, so that no
// more of them are messages than a batch holds. Who has acknowledged some of them before
// gets the others.
func (c *Consumer) feedAggregate(ctx context.Context, record *retrieval.Record) error {
	users, err := kpl.Decode(record.Data)
	if err != nil {
		c.conf.Hooks.OnAggregate(Aggregate{Err: err})
		m := c.message(record)
		m.MetaSetMut("kinesis_deaggregation_error", err.Error())
		cost := retrieval.Cost(record)
		c.unfed -= cost
		return c.feedMessage(ctx, m, lease.After(record.SequenceNumber), cost)
	}
	if c.conf.Deaggregate.DropForeign {
		if foreign := c.conf.Deaggregate.foreign(users); foreign > 0 {
			c.conf.Hooks.OnAggregate(Aggregate{Foreign: foreign, Dropped: true})
			return c.leaveOut(ctx, record)
		}
	}
	done := 0
	// A place that is not in the record is none of it, and what is delivered twice is not lost.
	if at := c.sent.Within; at.Sequence == record.SequenceNumber && at.Count < len(users) {
		done = at.Count
	}
	fed := Aggregate{UserRecords: len(users) - done}
	if !c.conf.Deaggregate.DropForeign {
		fed.Foreign = c.conf.Deaggregate.foreign(users[done:])
	}
	c.conf.Hooks.OnAggregate(fed)

	held := int64(len(users)) * userRecordSize
	c.conf.Budget.Release(-held)
	c.unfed += held
	before := c.fedTo().Sequence
	for i := done; i < len(users); i++ {
		after := lease.Position{Sequence: before, Within: lease.Within{Sequence: record.SequenceNumber, Count: i + 1}}
		if i == len(users)-1 {
			after = lease.After(record.SequenceNumber)
		}
		user := retrieval.Record{
			Data: users[i].Data, SequenceNumber: record.SequenceNumber, PartitionKey: users[i].PartitionKey, Arrived: record.Arrived,
		}
		m := c.message(&user)
		m.MetaSetMut("kinesis_sub_sequence_number", strconv.Itoa(i))
		if key := users[i].ExplicitHashKey; key != "" {
			m.MetaSetMut("kinesis_explicit_hash_key", key)
		}
		cost := retrieval.Cost(&user)
		c.conf.Budget.Release(-cost)
		if err := c.feedMessage(ctx, m, after, cost); err != nil {
			return err
		}
	}
	c.fed(retrieval.Cost(record) + held)
	return nil
}

// feedMessage puts a message into the batch, and sends that when it is full.
func (c *Consumer) feedMessage(ctx context.Context, m *service.Message, after lease.Position, cost int64) error {
	if c.filling.add(m, after, cost) {
		return c.flush(ctx)
	}
	return nil
}

// leaveOut moves past a record of which nothing is delivered: with the batch that is being
// filled, or as a message that was filtered.
func (c *Consumer) leaveOut(ctx context.Context, record *retrieval.Record) error {
	past := lease.After(record.SequenceNumber)
	if c.filling.messages > 0 {
		c.filling.last = past
	} else {
		id, err := c.enter(ctx, 1, past)
		if err != nil {
			return err
		}
		c.ack(id)
		c.sent = past
	}
	c.fed(retrieval.Cost(record))
	return nil
}

// fed gives back what a record took that has become messages, or none.
func (c *Consumer) fed(cost int64) {
	c.conf.Budget.Release(cost)
	c.unfed -= cost
}

// fedTo returns the position after the newest message.
func (c *Consumer) fedTo() lease.Position {
	if c.filling.messages > 0 {
		return c.filling.last
	}
	return c.sent
}
