// Package inflight keeps the window of what one shard has sent downstream and
// has not yet had acknowledged.
//
// Batches enter in sequence order and are acknowledged in any order. The
// position that may be committed is that of the last batch before the first
// one still missing: everything up to it has been acknowledged, which is what
// at-least-once delivery demands of a checkpoint.
//
// The package is pure: no goroutine, no clock, no lock. Its caller guards it.
package inflight

import "fmt"

// Window is the ordered set of the batches of one shard that lie between the
// committable position and the newest one sent. P is whatever names a position
// in the shard.
//
// A consumer makes one for the time of its lease and drops it with the lease:
// acknowledgements of an older lease must not reach a newer window.
type Window[P any] struct {
	limit int

	// Batches with id first … first+len(batches)-1, oldest first.
	// Invariant: len(batches) == 0 or !batches[0].acked.
	batches []batch[P]
	first   uint64

	// Messages in batches, those acknowledged out of order included.
	// Invariant: held <= max(limit, size of the only batch).
	held int

	acked    P
	hasAcked bool
}

type batch[P any] struct {
	position P
	messages int
	acked    bool
}

// New returns an empty window that holds up to limit messages. It panics when
// limit is below 1, since such a window could never let anything pass.
func New[P any](limit int) *Window[P] {
	if limit < 1 {
		panic(fmt.Sprintf("inflight: limit %d is below 1", limit))
	}
	return &Window[P]{limit: limit}
}

// Fits reports whether a batch of n messages may enter now. A batch larger than
// the limit fits an empty window, so that it goes alone instead of never.
func (w *Window[P]) Fits(n int) bool {
	return len(w.batches) == 0 || w.held+n <= w.limit
}

// Add enters a batch of n messages that ends at position and returns its id for
// Ack. The caller has checked Fits, and calls in the order of positions.
func (w *Window[P]) Add(n int, position P) uint64 {
	w.batches = append(w.batches, batch[P]{position: position, messages: n})
	w.held += n
	return w.first + uint64(len(w.batches)) - 1
}

// Withdraw takes back the batch that was added last, which was not sent after
// all, so that nobody waits for its acknowledgement. It panics for any other.
func (w *Window[P]) Withdraw(id uint64) {
	last := len(w.batches) - 1
	if last < 0 || id != w.first+uint64(last) || w.batches[last].acked {
		panic("inflight: withdrawn batch is not the newest")
	}
	w.held -= w.batches[last].messages
	w.batches = w.batches[:last]
}

// Pass moves past records up to a position of which nothing is sent: with the newest
// batch, or at once where every batch has been acknowledged. They take no room. It reports
// whether the committable position moved. The caller calls in the order of positions, and
// does not withdraw a batch after that.
func (w *Window[P]) Pass(position P) bool {
	if last := len(w.batches) - 1; last >= 0 {
		w.batches[last].position = position
		return false
	}
	w.acked, w.hasAcked = position, true
	return true
}

// Ack notes that a batch is done with and reports whether the committable
// position moved. Acknowledging a batch again changes nothing.
func (w *Window[P]) Ack(id uint64) bool {
	if id < w.first || id >= w.first+uint64(len(w.batches)) {
		return false
	}
	w.batches[id-w.first].acked = true

	done := 0
	for done < len(w.batches) && w.batches[done].acked {
		w.held -= w.batches[done].messages
		w.acked, w.hasAcked = w.batches[done].position, true
		done++
	}
	if done == 0 {
		return false
	}
	w.first += uint64(done)
	// Popping by re-slicing lets append grow into a fresh array now and then,
	// which frees the popped part: the memory stays within a small multiple of
	// the batches that are really there.
	clear(w.batches[:done])
	w.batches = w.batches[done:]
	return true
}

// Acked returns the position up to which everything has been acknowledged; ok
// is false while that is nothing.
func (w *Window[P]) Acked() (position P, ok bool) { return w.acked, w.hasAcked }

// Held returns the number of messages from the oldest unacknowledged batch on.
func (w *Window[P]) Held() int { return w.held }

// Empty reports whether every batch that entered has been acknowledged.
func (w *Window[P]) Empty() bool { return len(w.batches) == 0 }
