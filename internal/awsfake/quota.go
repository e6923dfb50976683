package awsfake

import "time"

// window allows a number of calls in any second that slides, as AWS counts
// transactions. Its owner's lock guards it.
type window struct {
	calls []time.Time // those allowed within the last second, oldest first
}

// allow reports whether another call fits, and counts it if so.
func (w *window) allow(now time.Time, perSecond int) bool {
	gone := 0
	for gone < len(w.calls) && now.Sub(w.calls[gone]) >= time.Second {
		gone++
	}
	w.calls = append(w.calls[:0], w.calls[gone:]...)
	if len(w.calls) >= perSecond {
		return false
	}
	w.calls = append(w.calls, now)
	return true
}

// bucket is a budget of units that refills at a rate and holds at most one
// second's worth. Its owner's lock guards it.
type bucket struct {
	level float64 // Invariant: level <= rate; below zero it is in debt
	at    time.Time
}

// refill brings the level up to now and returns it.
func (b *bucket) refill(now time.Time, rate float64) float64 {
	if b.at.IsZero() {
		b.level = rate
	} else {
		b.level = min(rate, b.level+now.Sub(b.at).Seconds()*rate)
	}
	b.at = now
	return b.level
}

func (b *bucket) take(units int) { b.level -= float64(units) }
