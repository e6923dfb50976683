package retrieval

import (
	"errors"
	"fmt"
	"time"
)

// Thresholds of the choice between the two ways. A consumer costs by the hour and by the
// byte, so that a short burst or a start is not worth it.
const (
	// throttledFor and lateFor are how long polling has to be throttled, or to be behind
	// by lateBy and more though nothing held it up, for the shard to be subscribed.
	// throttledUntil is how far apart throttled calls may be for what is between them to
	// count as throttled.
	throttledFor   = 30 * time.Second
	throttledUntil = 20 * time.Second
	lateFor        = time.Minute
	lateBy         = 10 * time.Second
	// calmFor is how long a shard has to be caught up to be polled again. Each time that it
	// has to be subscribed again before it was polled for twice as long, it is subscribed
	// for twice as long, up to mostCalm: who throttles it comes again.
	calmFor  = 10 * time.Minute
	mostCalm = 12 * time.Hour
	// failingFor is how long subscriptions may fail for the shard to be polled, and
	// refusedFor how long none is tried again then. One that brings something within
	// failedUntil of a failure has not shown yet that it lasts.
	failingFor  = 30 * time.Second
	failedUntil = 20 * time.Second
	refusedFor  = 5 * time.Minute
	// heldUp is how long after a wait for the output it is the output that is slow.
	heldUp = 5 * time.Second
)

// chooser says in which way to read a shard. It is pure: the time is an argument. It
// belongs to the source of the shard, and outlives it, so that a shard which is suspended
// goes on as it was read.
type chooser struct {
	way Way // as it is read; empty before it was read at all

	throttled     time.Time // the first call of those that were; zero when none were
	lastThrottled time.Time // the last one
	late          time.Time // since when; zero when it is not
	caughtUp      time.Time // since when; zero when it is not
	failing       time.Time // since when subscriptions fail; zero when they do not
	lastFailed    time.Time // the last time
	lastPushed    time.Time // when one last brought something
	held          time.Time // when the output last held reading up
	slow          time.Time // since when it has, again and again; zero when it does not
	answer        time.Time // when the last page was handed out
	calm          time.Duration
	returned      time.Time // when it last went back to polling
	notBefore     time.Time // no subscription is tried before
}

// asked and answered tell how long the caller took for a page.
func (c *chooser) asked(now time.Time) {
	if !c.answer.IsZero() && now.Sub(c.answer) > time.Second {
		c.blocked(now)
	}
}

func (c *chooser) answered(now time.Time) { c.answer = now }

// blocked notes that the output held reading up. How late the shard is tells nothing then,
// nor that it is not: nobody knows what there is to be read.
func (c *chooser) blocked(now time.Time) {
	if c.slow.IsZero() || now.Sub(c.held) > heldUp {
		c.slow = now
	}
	c.held, c.late, c.caughtUp = now, time.Time{}, time.Time{}
}

// saw takes in an attempt to read.
func (c *chooser) saw(call Call, now time.Time) {
	switch {
	case c.way == WayFanOut && call.Err != nil:
		if c.failing.IsZero() {
			c.failing = now
		}
		c.lastFailed, c.caughtUp = now, time.Time{}
		return
	case call.Err != nil && errors.Is(call.Err, ErrThrottled):
		if c.throttled.IsZero() || now.Sub(c.lastThrottled) > throttledUntil {
			c.throttled = now
		}
		c.lastThrottled = now
		return
	case call.Err != nil:
		return // it fails in whichever way
	}
	c.lastPushed = now
	if now.Sub(c.lastFailed) > failedUntil {
		c.failing = time.Time{}
	}
	if now.Sub(c.lastThrottled) > throttledUntil {
		c.throttled = time.Time{}
	}
	late := call.Behind >= lateBy
	if !late || now.Sub(c.held) < heldUp {
		c.late = time.Time{}
	} else if c.late.IsZero() {
		c.late = now
	}
	switch {
	case late:
		c.caughtUp = time.Time{}
	case call.Behind >= 0 && c.caughtUp.IsZero(): // otherwise the service does not tell
		c.caughtUp = now
	}
}

// next returns the way in which to read on, and why where that is another one.
func (c *chooser) next(now time.Time) (way Way, why string) {
	if c.way == WayFanOut {
		switch {
		case c.fails(now):
			return WayPolling, fmt.Sprintf("no subscription to it could be had, or kept, for %s", failingFor)
		case !c.slow.IsZero() && now.Sub(c.held) <= heldUp && now.Sub(c.slow) >= calmFor:
			return WayPolling, fmt.Sprintf("the output has been slower than either way for %s", calmFor)
		case !c.caughtUp.IsZero() && now.Sub(c.caughtUp) >= c.calm:
			return WayPolling, fmt.Sprintf("it has been caught up for %s", c.calm)
		}
		return WayFanOut, ""
	}
	switch {
	case now.Before(c.notBefore):
	// From call to call: until the next call nobody knows whether it has passed.
	case !c.throttled.IsZero() && c.lastThrottled.Sub(c.throttled) >= throttledFor && now.Sub(c.lastThrottled) <= throttledUntil:
		return WayFanOut, fmt.Sprintf("reads of it have been throttled for %s, by other readers that poll it", throttledFor)
	case !c.late.IsZero() && now.Sub(c.late) >= lateFor:
		return WayFanOut, fmt.Sprintf("it has been more than %s behind for %s", lateBy, lateFor)
	}
	return WayPolling, ""
}

// outlasts reports whether subscribing has failed for as long as it may by the time of the
// next attempt, so that nothing would be read until then.
func (c *chooser) outlasts(next time.Time) bool {
	return !c.failing.IsZero() && next.Sub(c.failing) >= failingFor
}

// fails reports whether subscriptions have failed for long: each attempt, or one after the
// other that had brought something.
func (c *chooser) fails(now time.Time) bool {
	if c.failing.IsZero() {
		return false
	}
	until := c.lastFailed
	if !c.lastPushed.After(until) {
		until = now
	}
	return until.Sub(c.failing) >= failingFor
}

// change notes in which way the shard is read from now on, and reports whether that is
// another one.
func (c *chooser) change(way Way, now time.Time) bool {
	if c.way == way || c.way == "" && way == WayPolling {
		return false // a source before this one has read it so, or it is the first way
	}
	if way == WayFanOut {
		if c.calm == 0 || now.Sub(c.returned) > 2*c.calm {
			c.calm = calmFor
		} else {
			c.calm = min(2*c.calm, mostCalm)
		}
	} else {
		c.returned = now
		if !c.failing.IsZero() {
			c.notBefore = now.Add(refusedFor)
		}
	}
	c.way = way
	c.throttled, c.late, c.caughtUp, c.failing = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	return true
}

// refused notes that there is no consumer to subscribe as.
func (c *chooser) refused(now time.Time) { c.notBefore = now.Add(refusedFor) }
