package retrieval

import (
	"context"
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
		_, found, err := a.fan.consumerNow()
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
