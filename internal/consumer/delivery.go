package consumer

import (
	"errors"
	"sync/atomic"

	"github.com/benthosdev/benthos/v4/public/service"
)

// Delivery is a batch on its way to the output.
type Delivery struct {
	consumer *Consumer
	id       uint64 // in the window; unused where the order is by key
	batch    service.MessageBatch
	cost     atomic.Int64 // of the budget; zero once it was given back

	// Where the order is by key, keyed are the messages that are not acknowledged, under
	// the consumer's lock. They are those of the batch, one by one, if single; otherwise
	// batch processors have made it of them.
	keyed  []*queued
	single bool
}

func newDelivery(c *Consumer, id uint64, batch service.MessageBatch, cost int64) *Delivery {
	d := &Delivery{consumer: c, id: id, batch: batch}
	d.cost.Store(cost)
	return d
}

// Take returns the batch and lets go of it, so that its memory does not outlive
// its way through the pipeline.
func (d *Delivery) Take() service.MessageBatch {
	batch := d.batch
	d.batch = nil
	return batch
}

// Drop ends a delivery that does not reach the output. It moves no checkpoint, so
// that whoever has the shard next reads the records again.
func (d *Delivery) Drop() { d.consumer.conf.Budget.Release(d.cost.Swap(0)) }

// Ack ends the delivery. A batch that was rejected counts as handled too, and is
// logged and counted: whoever wants it back replays it, or drops it.
func (d *Delivery) Ack(messages int, rejection error) {
	if rejection != nil {
		if batch, ok := errors.AsType[*service.BatchError](rejection); ok && batch.IndexedErrors() > 0 {
			messages = batch.IndexedErrors()
		}
		d.consumer.conf.Hooks.OnReject(messages, rejection)
	}
	if d.consumer.keyed != nil {
		d.consumer.ackKeyed(d, func(int) bool { return true })
	} else {
		d.consumer.ack(d.id)
	}
	d.Drop()
}

// ackPart acknowledges those messages of the batch that the output has, by their index,
// where each is acknowledged by itself, so that their keys go on.
func (d *Delivery) ackPart(delivered func(index int) bool) {
	if d.single {
		d.consumer.ackKeyed(d, delivered)
	}
}
