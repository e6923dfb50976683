package awsfake

import (
	"math/rand/v2"
	"slices"
	"sync"
)

// StreamFault is something that goes wrong inside of subscriptions, with the
// frames that it matches: the initial response, events and exceptions. A Fault
// is for the call itself. At most one of the fields from Cut on is set.
//
// It happens when a frame is about to be sent, so that a subscription to an idle
// shard feels it no later than at its next event, five seconds later.
type StreamFault struct {
	// When narrows the subscriptions. It runs without locks and may run
	// concurrently.
	When func(Subscription) bool
	// After so many frames of a subscription that are sent whole; the initial
	// response counts.
	After int
	// Times it happens before it is spent. 0: always.
	Times int
	// Probability with which it happens to a matching frame, drawn from Rand
	// once for each. 0: always.
	Probability float64
	// Rand is required with a Probability, so that a failing test can name its
	// seed.
	Rand *rand.Rand

	// Cut breaks the connection in the middle of the frame. Over HTTP/2 the
	// stream is reset; in process the body ends with io.ErrUnexpectedEOF.
	Cut bool
	// Exception is sent in the frame's place, and the stream ends.
	Exception *Error
	// Silence sends nothing any more and leaves the connection open until the
	// client goes, also past the end of the subscription.
	Silence bool
	// Close ends the stream cleanly in the frame's place.
	Close bool
	// Corrupt makes one byte of the frame wrong, so that its checksum fails.
	Corrupt bool
	// NoContinuation leaves ContinuationSequenceNumber out of an event, though
	// the shard is open. Frames without one do not match.
	NoContinuation bool
}

// InjectStream adds a fault behind those that are there; the first that matches
// a frame happens to it. remove takes it away, and may be called again.
func (s *Server) InjectStream(f StreamFault) (remove func()) {
	if f.Probability > 0 && f.Rand == nil {
		panic("awsfake: a StreamFault with a Probability needs a Rand")
	}
	fs := &s.streamFaults
	fs.mu.Lock()
	defer fs.mu.Unlock()
	stored := &f
	fs.list = append(fs.list, stored)
	return func() {
		fs.mu.Lock()
		defer fs.mu.Unlock()
		fs.list = remaining(fs.list, stored)
	}
}

// streamFaults are what tests injected. As with faults, the slice is replaced
// or appended to, never edited.
type streamFaults struct {
	mu   sync.Mutex
	list []*StreamFault
}

// match returns the first fault that happens to a frame, or nil. sent is the
// number of frames before it.
func (fs *streamFaults) match(sub Subscription, sent int, continues bool) *StreamFault {
	fs.mu.Lock()
	list := fs.list
	fs.mu.Unlock()
	for _, f := range list {
		if sent >= f.After && (continues || !f.NoContinuation) && (f.When == nil || f.When(sub)) && fs.strikes(f) {
			return f
		}
	}
	return nil
}

// strikes draws and counts under the lock, as faults.strikes does.
func (fs *streamFaults) strikes(f *StreamFault) bool {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if !slices.Contains(fs.list, f) || f.Probability > 0 && f.Rand.Float64() >= f.Probability {
		return false
	}
	if f.Times > 0 {
		f.Times--
		if f.Times == 0 {
			fs.list = remaining(fs.list, f)
		}
	}
	return true
}
