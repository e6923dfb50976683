package awskinesis

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/benthosdev/benthos/v4/public/service"

	"github.com/benthos-plugins/aws-kinesis/internal/consumer"
)

// outgoing is a batch that the host has, or is to have once more. Its delivery is
// acknowledged when the host has taken all of it.
type outgoing struct {
	delivery *consumer.Delivery
	batch    service.MessageBatch
	rejected int // times
}

func newOutgoing(d *consumer.Delivery) *outgoing {
	o := &outgoing{delivery: d, batch: d.Take()}
	if len(o.batch) > 1 { // one that is alone needs no place
		o.number()
	}
	return o
}

// number gives each message its place.
func (o *outgoing) number() {
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
	of              *outgoing
	index           int
}

type placeKey struct{}

func (p *place) Value(key any) any {
	if key == (placeKey{}) {
		return p
	}
	return p.Context.Value(key)
}

// delivered drops the messages that an error shows as delivered, and reports
// whether that leaves none. One that it does not show stays: processors may have
// dropped it, or made it a part of another one that failed. When what failed does
// not tell where it came from, all stay.
func (o *outgoing) delivered(err error) (all bool) {
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
		o.batch = kept
		o.number()
	}
	return len(kept) == 0
}

const (
	// A batch that was rejected comes again at once, from the third time on
	// after a pause.
	replaysAtOnce    = 2
	firstReplayPause = time.Millisecond
	maxReplayPause   = time.Second
)

// replays are the batches to be handed out once more. Benthos' own wrapper for
// that starts two goroutines a batch, reads one batch ahead, which may outlive its
// lease, and loses messages that a processor has merged into one that failed.
type replays struct {
	mu    sync.Mutex
	due   []*outgoing
	ready chan struct{} // cap 1: there may be something due
}

func newReplays() *replays { return &replays{ready: make(chan struct{}, 1)} }

func (r *replays) push(o ...*outgoing) {
	r.mu.Lock()
	r.due = append(r.due, o...)
	r.mu.Unlock()
	select {
	case r.ready <- struct{}{}:
	default:
	}
}

func (r *replays) take() *outgoing {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.due) == 0 {
		return nil
	}
	o := r.due[0]
	r.due = r.due[1:]
	return o
}

// reject takes back a batch that an output did not take.
func (r *replays) reject(o *outgoing) {
	o.rejected++
	if over := o.rejected - replaysAtOnce; over > 0 {
		time.AfterFunc(min(firstReplayPause<<min(over-1, 10), maxReplayPause), func() { r.push(o) })
		return
	}
	r.push(o)
}
