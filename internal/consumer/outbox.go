package consumer

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/benthosdev/benthos/v4/public/service"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
)

// Outgoing is a batch that the host has, or is to have once more. Its delivery is
// acknowledged when the host has taken all of it.
type Outgoing struct {
	delivery *Delivery
	batch    service.MessageBatch
	rejected int // times
}

// NewOutgoing returns the batch of a delivery.
func NewOutgoing(d *Delivery) *Outgoing {
	o := &Outgoing{delivery: d, batch: d.Take()}
	if len(o.batch) > 1 { // one that is alone needs no place
		o.number()
	}
	return o
}

// number gives each message its place.
func (o *Outgoing) number() {
	places := make([]place, len(o.batch))
	for i, m := range o.batch {
		before := m.Context()
		if p, ok := before.(*place); ok {
			before = p.Context
		}
		places[i] = place{Context: before, of: o, index: i}
		o.batch[i] = m.WithContext(&places[i])
	}
}

// place is the context of a message, which tells where in which batch it began:
// processors drop and reorder messages before an output rejects some of them.
type place struct {
	context.Context //nolint:containedctx // it is one
	of              *Outgoing
	index           int
}

type placeKey struct{}

func (p *place) Value(key any) any {
	if key == (placeKey{}) {
		return p
	}
	return p.Context.Value(key)
}

// Delivered drops the messages that an error shows as delivered, and reports
// whether that leaves none. One that it does not show stays: processors may have
// dropped it, or made it a part of another one that failed. When what failed does
// not tell where it came from, all stay.
func (o *Outgoing) Delivered(err error) (all bool) {
	batch, ok := errors.AsType[*service.BatchError](err)
	if !ok || batch.IndexedErrors() == 0 {
		return false
	}
	const shown, failed = 1, 2
	seen := make([]uint8, len(o.batch))
	unknown := false
	batch.WalkMessages(func(_ int, m *service.Message, err error) bool { //nolint:staticcheck // deprecated for its index, which is not used
		p, ok := m.Context().Value(placeKey{}).(*place)
		switch {
		case !ok:
			unknown = unknown || err != nil
		case p.of != o: // of a batch that the output merged with this one
		case err != nil:
			seen[p.index] |= failed
		default:
			seen[p.index] |= shown
		}
		return !unknown
	})
	if unknown {
		return false
	}
	var kept service.MessageBatch
	for i, m := range o.batch {
		if seen[i] != shown {
			kept = append(kept, m)
		}
	}
	if len(kept) < len(o.batch) {
		o.delivery.ackPart(func(i int) bool { return seen[i] == shown })
		o.batch = kept
		o.number()
	}
	return len(kept) == 0
}

// Single returns the batch as the host gets it that is to go but once. It lets go of
// it.
func (o *Outgoing) Single() service.MessageBatch {
	batch := o.batch
	o.batch = nil
	return batch
}

// Batch returns the batch as the host gets it, which keeps nothing of what is done to
// its messages.
func (o *Outgoing) Batch() service.MessageBatch { return o.batch.Copy() }

// Ack acknowledges what is left of the batch.
func (o *Outgoing) Ack() { o.delivery.Ack(len(o.batch), nil) }

// Shard returns the shard that the batch is of, and how many messages of it are left.
func (o *Outgoing) Shard() (key lease.Key, messages int) {
	return o.delivery.consumer.conf.Lease.Key(), len(o.batch)
}

// Delivery returns the delivery that the batch came with.
func (o *Outgoing) Delivery() *Delivery { return o.delivery }

const (
	// A batch that was rejected comes again at once, from the third time on
	// after a pause.
	replaysAtOnce    = 2
	firstReplayPause = time.Millisecond
	maxReplayPause   = time.Second
)

// Outbox has the batches that are to go out once more, and those that wait for their
// lease to be proved. Benthos' own wrapper for the first starts two goroutines a
// batch, reads one batch ahead, which may outlive its lease, and loses messages that
// a processor has merged into one that failed.
//
// An input makes one and closes it. It is safe for concurrent use.
type Outbox struct {
	ready   chan struct{}  // cap 1: there may be something due
	proving sync.WaitGroup // of the goroutines that wait for a lease, one each

	mu  sync.Mutex
	due []*Outgoing
	// aside has the batches that wait for a lease to be proved, oldest first. Each of
	// these leases has a goroutine that waits for it.
	aside  map[*lease.Lease][]*Outgoing
	closed bool // no goroutine begins any more
}

// NewOutbox returns an empty outbox.
func NewOutbox() *Outbox {
	return &Outbox{ready: make(chan struct{}, 1), aside: map[*lease.Lease][]*Outgoing{}}
}

// Ready receives when there may be something due.
func (b *Outbox) Ready() <-chan struct{} { return b.ready }

// Due reports whether a batch is due.
func (b *Outbox) Due() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.due) > 0
}

// Take returns the batch that is due first, nil when there is none.
func (b *Outbox) Take() *Outgoing {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.due) == 0 {
		return nil
	}
	o := b.due[0]
	b.due = b.due[1:]
	return o
}

func (b *Outbox) push(o ...*Outgoing) {
	b.mu.Lock()
	b.due = append(b.due, o...)
	b.mu.Unlock()
	select {
	case b.ready <- struct{}{}:
	default:
	}
}

// Reject takes back a batch that an output did not take.
func (b *Outbox) Reject(o *Outgoing) {
	o.rejected++
	if over := o.rejected - replaysAtOnce; over > 0 {
		time.AfterFunc(min(firstReplayPause<<min(over-1, 10), maxReplayPause), func() { b.push(o) })
		return
	}
	b.push(o)
}

// SetAside keeps a batch whose lease cannot be proved from holding up those of
// others, and reports whether it has. Batches of one lease keep their order: while
// some of them are aside, so are those that come after them, and one that is fresh
// from its consumer goes behind those of its lease that are due. They are due when the
// lease is proved, and dropped when it is lost or life ends.
func (b *Outbox) SetAside(life context.Context, o *Outgoing, fresh bool) bool {
	held := o.delivery.consumer.conf.Lease
	b.mu.Lock()
	defer b.mu.Unlock()
	waiting := b.aside[held]
	if len(waiting) == 0 && held.Trusted() {
		if !fresh || !slices.ContainsFunc(b.due, func(due *Outgoing) bool { return due.delivery.consumer.conf.Lease == held }) {
			return false
		}
		b.due = append(b.due, o)
		return true
	}
	if b.closed {
		o.delivery.Drop()
		return true
	}
	b.aside[held] = append(waiting, o)
	if len(waiting) == 0 {
		b.proving.Go(func() { b.prove(life, held) })
	}
	return true
}

// prove waits until a lease is proved, and has its batches handed out. Those of a
// lease that is lost are dropped: the shard's next reader has their messages, and an
// acknowledgement would commit them, if the input is being closed and still has it.
func (b *Outbox) prove(life context.Context, held *lease.Lease) {
	err := held.Await(life)
	b.mu.Lock()
	waiting := b.aside[held]
	delete(b.aside, held)
	if err == nil {
		// Before the lock is let go: what comes after them must not overtake them.
		b.due = append(b.due, waiting...)
	}
	b.mu.Unlock()
	if err == nil {
		b.push()
		return
	}
	for _, o := range waiting {
		o.delivery.Drop()
	}
}

// Close lets no goroutine begin any more. Wait waits for those that have, which end
// with the life that they were given.
func (b *Outbox) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
}

// Wait returns when no goroutine is left. The outbox was closed before.
func (b *Outbox) Wait() { b.proving.Wait() }
