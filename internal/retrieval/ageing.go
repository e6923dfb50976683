package retrieval

import "time"

// ageing bounds the age of what is read of a subscription. What comes may have been sent
// at any time at which nobody was listening: it may have waited on its way. So that time
// is counted, until a wait shows that nothing more is on the way. It is pure, and belongs
// to a subscription.
type ageing struct {
	away  time.Duration // in which nobody was listening, since nothing was on the way
	bytes int           // that have come since then
	last  time.Time     // the end of the last wait
}

const (
	// longWait is longer than any way there and back, so that nothing is on the way where
	// nothing has come for so long. A briefWait shows as much where no more has come than
	// the service sends ahead: it was not held up then.
	longWait  = time.Second
	briefWait = 50 * time.Millisecond
	sentAhead = 32 << 10 // the window of a subscription; see session.Subscribing
	// An event comes every 5 s. A wait of heldUpWait was none: the process was stopped, or
	// the network, and what has come is as old as that.
	heldUpWait = 10 * time.Second
)

// after takes in a wait from begun to ended, for a frame of so many bytes, and returns how
// old that is at most.
func (a *ageing) after(begun, ended time.Time, bytes int) time.Duration {
	if !a.last.IsZero() {
		a.away += begun.Sub(a.last)
	}
	a.last = ended
	switch waited := ended.Sub(begun); {
	case waited >= heldUpWait:
		a.away += waited
	case waited >= longWait, waited >= briefWait && a.bytes < sentAhead:
		a.away, a.bytes = 0, 0
	}
	a.bytes += bytes
	return a.away
}
