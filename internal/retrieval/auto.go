package retrieval

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Way is a way of reading a shard.
type Way string

// The ways.
const (
	WayPolling Way = "polling"
	WayFanOut  Way = "fan_out"
)

// Auto is the source that polls a shard, subscribes to it while polling does not keep up,
// and goes back when that has passed. Both ways go on at one cursor, so that each record is
// read once. A consumer makes one, calls Next from one goroutine, and closes it.
type Auto struct {
	*cursor
	fan    *FanOut
	slot   *slot
	told   Hooks // of the caller
	hooks  Hooks // of the two ways, which tell the choice too
	budget *Budget

	choice *chooser
	way    Way // as it was told last; empty where a source before this one may have told either
	// without is whether the shard is polled for want of a consumer.
	without bool
	poller  *Poller
	// subscriber is nil while the shard is polled.
	subscriber *Subscriber
}

// NewAuto returns a source that begins by polling, as NewPoller does, or as it read the
// shard last, and subscribes as NewSubscriber does.
func NewAuto(api API, fan *FanOut, lists *Lists, shard Shard, from Position, budget *Budget, least time.Duration, hooks Hooks) *Auto {
	a := &Auto{cursor: newCursor(api, lists, shard, from), fan: fan, slot: fan.join(shard.ID), budget: budget, told: hooks, hooks: hooks, way: WayPolling}
	a.choice = &a.slot.choice
	if a.choice.way == WayFanOut {
		a.way = ""
	}
	a.hooks.OnCall, a.hooks.OnBudgetWait = a.called, a.waits
	a.poller = newPoller(api, a.cursor, budget, least, a.hooks)
	return a
}

// called hears of each attempt, in whichever way.
func (a *Auto) called(c Call) {
	a.choice.saw(c, time.Now())
	a.told.tell(c)
}

// waits hears that reading has to wait for the output.
func (a *Auto) waits() {
	a.choice.blocked(time.Now())
	if a.told.OnBudgetWait != nil {
		a.told.OnBudgetWait()
	}
}

// Close ends the subscription, if there is one, and returns when it has ended here. The
// source may not be used any more.
func (a *Auto) Close() {
	a.unsubscribe()
	a.fan.leave(a.slot)
}

func (a *Auto) unsubscribe() {
	if a.subscriber != nil {
		a.subscriber.Close()
		a.subscriber = nil
	}
}

// Next returns the next page, which may be empty. ctx has to be the same in all calls. The
// errors are ErrShardGone and the context's.
func (a *Auto) Next(ctx context.Context) (Page, error) {
	a.choice.asked(time.Now())
	defer func() { a.choice.answered(time.Now()) }()
	for {
		a.choose()
		attempt := a.poller.attempt
		if a.subscriber != nil {
			attempt = a.subscriber.attempt
		}
		page, ok, err := attempt(ctx)
		if ok || err != nil {
			return page, err
		}
	}
}

// choose changes the way when it is time to.
func (a *Auto) choose() {
	now := time.Now()
	way, why := a.choice.next(now)
	if way == WayFanOut && a.subscriber != nil && !a.subscribed() && a.choice.outlasts(a.subscriber.resumes) {
		way, why = WayPolling, fmt.Sprintf("no subscription to it could be had, or kept, for %s, up to the next attempt", failingFor)
	}
	switch {
	case way == WayFanOut && !a.subscribed():
		// Reading goes on while the consumer is looked for, also for one that was
		// deregistered meanwhile.
		_, found, err := a.fan.look()
		if err != nil {
			a.choice.refused(now)
		}
		if err != nil || found != nil {
			a.poll()
			a.without = true
			a.tellWay("there is no consumer to subscribe as")
			return
		}
		if a.subscriber == nil {
			a.subscriber = newSubscriber(a.fan, a.cursor, a.budget, a.hooks)
		}
	case way == WayPolling:
		a.poll()
	}
	switch changed := a.choice.change(way, now); {
	case changed:
	case a.without:
		why = "there is a consumer to subscribe as now"
	default:
		why = "" // a source before this one has read it so
	}
	a.without = false
	a.tellWay(why)
}

// tellWay tells the way in which the shard is read from now on, where it is another one.
func (a *Auto) tellWay(why string) {
	way := WayPolling
	if a.subscriber != nil {
		way = WayFanOut
	}
	if way == a.way {
		return
	}
	a.way = way
	if a.told.OnWay != nil {
		a.told.OnWay(way, why)
	}
}

// subscribed reports whether a subscription is open.
func (a *Auto) subscribed() bool { return a.subscriber != nil && a.subscriber.sub != nil }

// poll has the shard polled from now on.
func (a *Auto) poll() {
	if a.subscriber != nil {
		a.unsubscribe()
		a.poller.restart()
	}
}

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
