package awsfake

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// From the page of SubscribeToShard, as of 2026. How often an idle shard sends
// an event is not documented; five seconds is what is seen.
const (
	subscriptionLife    = 5 * time.Minute
	subscriptionHold    = 5 * time.Second // after a successful call, before another takes over
	subscribesSecond    = 1               // of one consumer to one shard
	idleEvents          = 5 * time.Second
	consumerBytesSecond = 2 << 20 // of one consumer from one shard
	defaultEventBytes   = 1 << 20
)

// subscription is one successful SubscribeToShard call. kinesisService.subscribe
// makes it, the goroutine of run reads for it, and release ends it: at the end
// of run, or in its place when the call's answer is lost.
type subscription struct {
	Subscription
	server  *Server
	stream  *stream
	shard   *shard
	expires time.Time
	next    int64         // position of the next record; the goroutine of run owns it
	wake    chan struct{} // has room for one; the shard sends when it has changed
	due     atomic.Int64  // Unix nanoseconds at which something has to be done on an idle shard
	budget  bucket        // of bytes, with EnforceLimits; the goroutine of run owns it

	truncated bool // the call's fault breaks the connection in the first frame

	endOnce sync.Once
	cause   *Error        // why it ended before its time; set before ended closes
	ended   chan struct{} // closed by end
}

// end makes a subscription end with an exception. The first cause counts.
func (sub *subscription) end(cause *Error) {
	sub.endOnce.Do(func() {
		sub.cause = cause
		close(sub.ended)
	})
}

type subscribeInput struct {
	ConsumerARN      string
	ShardId          string //nolint:revive // spelled as on the wire
	StartingPosition *startingPosition
	DryRun           bool
}

// subscribe performs a SubscribeToShard call. Its subscription waits for run or
// release.
func (s *Server) subscribe(c *Call) answer {
	sub, err := s.kinesis.subscribe(s, c.body)
	if err != nil {
		return s.refusal(c, asError(err))
	}
	a := newAnswer(c.Service, http.StatusOK)
	a.subscription = sub
	return a
}

func (k *kinesisService) subscribe(s *Server, body []byte) (*subscription, error) {
	in, err := decode[subscribeInput](body)
	if err != nil {
		return nil, err
	}
	if in.ConsumerARN == "" || in.ShardId == "" || in.StartingPosition == nil {
		return nil, invalid("ConsumerARN, ShardId and StartingPosition are required.")
	}
	st, c, err := k.findConsumer(consumerRef{ConsumerARN: in.ConsumerARN}, nil, 0)
	if err != nil {
		return nil, err
	}
	sh, err := st.find(in.ShardId)
	if err != nil {
		return nil, err
	}
	now := k.now()
	k.consumersMu.Lock()
	defer k.consumersMu.Unlock()
	r, err := k.mayRead(st, c, sh, now)
	if err != nil {
		return nil, err
	}
	sub := &subscription{
		Subscription: Subscription{Stream: st.name, Shard: sh.id(), Consumer: c.name},
		server:       s,
		stream:       st,
		shard:        sh,
		expires:      now.Add(subscriptionLife),
		wake:         make(chan struct{}, 1),
		ended:        make(chan struct{}),
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sub.idleFrom(now)
	if sub.next, err = st.locate(sh, *in.StartingPosition, "SubscribeToShard", now); err != nil {
		return nil, err
	}
	if in.DryRun {
		return nil, refuse("DryRunOperationException", "The request would have succeeded, but the DryRun parameter was specified.")
	}
	if !s.beginServing() {
		return nil, refuse(CodeServiceUnavailable, "The server closes.")
	}
	sh.watchers = append(sh.watchers, sub.wake)
	s.subscriptions.add(sub)
	if r.open != nil {
		r.open.end(refuse(CodeResourceInUse, "Another active subscription exists for this consumer: %s:%s:%s:%s", accountID, st.name, sh.id(), c.name))
	}
	r.open, r.last = sub, now
	return sub, nil
}

// mayRead checks a call against the consumer's state and the rules for calls
// that follow on each other; needs consumersMu.
func (k *kinesisService) mayRead(st *stream, c *consumer, sh *shard, now time.Time) (*reading, error) {
	switch status := c.status(now); {
	case st.consumers.gone || status == consumerDeleting:
		return nil, refuse(CodeResourceNotFound, "Consumer %s under stream %s not found for account %s.", c.name, st.name, accountID)
	case status == consumerCreating:
		return nil, refuse(CodeResourceInUse, "Consumer %s with creation timestamp %d under stream: %s, account %s is not in ACTIVE status.", c.name, c.created.Unix(), st.name, accountID)
	}
	r := c.reading(sh.index)
	if k.opts.EnforceLimits && !r.calls.allow(now, subscribesSecond) {
		return nil, refuse(CodeLimitExceeded, "Rate exceeded for consumer %s and shard %s in stream %s under account %s.", c.name, sh.id(), st.name, accountID)
	}
	if !r.last.IsZero() && now.Sub(r.last) < subscriptionHold {
		return nil, refuse(CodeResourceInUse, "Another active subscription exists for this consumer: %s:%s:%s:%s", accountID, st.name, sh.id(), c.name)
	}
	return r, nil
}

// release ends a subscription's account. It is called once.
func (sub *subscription) release() {
	sh := sub.shard
	sh.mu.Lock()
	sh.watchers = slices.DeleteFunc(sh.watchers, func(wake chan struct{}) bool { return wake == sub.wake })
	sh.mu.Unlock()
	sub.server.subscriptions.remove(sub)
	sub.server.serving.Done()
}

// changed wakes those who read the shard; needs sh.mu.
func (sh *shard) changed() {
	for _, wake := range sh.watchers {
		select {
		case wake <- struct{}{}:
		default: // it is awake, or will be, and then sees this change too
		}
	}
}

// run sends the subscription's frames until it ends. Its error means that the
// connection breaks; without one the stream ends cleanly.
func (sub *subscription) run(ctx context.Context, send func(frame []byte) error) error {
	defer sub.release()
	ctx, cancel := context.WithCancel(ctx)
	alarm := make(chan struct{})
	var ringing sync.WaitGroup
	defer ringing.Wait()
	defer cancel()
	ringing.Go(func() { sub.ring(ctx, alarm) })

	err := sub.produce(ctx, newEventWriter(sub, send), alarm)
	switch {
	case errors.Is(err, errSilent):
		<-ctx.Done()
		return ctx.Err()
	case errors.Is(err, errEnded):
		return nil
	}
	return err
}

// produce returns errEnded at the end of the stream.
func (sub *subscription) produce(ctx context.Context, out *eventWriter, alarm <-chan struct{}) error {
	if err := out.initialResponse(); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-sub.ended:
			return out.exception(sub.cause)
		default:
		}
		now := sub.server.clock.Now()
		if !now.Before(sub.expires) {
			return errEnded
		}
		ev := sub.read(now)
		if ev == nil {
			if err := sub.wait(ctx, alarm); err != nil {
				return err
			}
			continue
		}
		if err := out.event(ev); err != nil {
			return err
		}
		if ev.page.ended {
			return errEnded
		}
		sub.idleFrom(now)
		if err := sub.throttle(ctx, ev.page.bytes); err != nil {
			return err
		}
	}
}

// read returns the next event that is due, or nil.
func (sub *subscription) read(now time.Time) *event {
	// Both locks, in their order, so that a count is taken either before the shard
	// closes or not at all, and stands between the records before and those after.
	sub.stream.mu.RLock()
	defer sub.stream.mu.RUnlock()
	sh := sub.shard
	sh.mu.Lock()
	defer sh.mu.Unlock()
	ev := &event{page: sh.read(sub.next, maxPageRecords, sub.server.opts.EventBytes, now, FormatJSON)}
	if sub.server.opts.ClosedBehind {
		ev.page.closedBehind(sh, now)
	}
	ev.records = int(ev.page.next - max(sub.next, sh.first))
	switch {
	case ev.page.ended:
		ev.children = describeChildren(sh.children)
	case ev.records > 0:
		ev.continuation = sequenceNumber(sub.stream.life, sh.records[ev.page.next-1-sh.first].count, sh.index)
	case now.UnixNano() >= sub.due.Load():
		ev.continuation = sequenceNumber(sub.stream.life, sub.stream.counter.Add(1), sh.index)
	default:
		return nil
	}
	sub.next = ev.page.next
	return ev
}

// wait returns nil when there may be something to do.
func (sub *subscription) wait(ctx context.Context, alarm <-chan struct{}) error {
	select {
	case <-sub.wake:
	case <-alarm:
	case <-sub.ended:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// idleFrom sets the time at which something is due if nothing happens before.
func (sub *subscription) idleFrom(now time.Time) {
	due := now.Add(idleEvents)
	if sub.expires.Before(due) {
		due = sub.expires
	}
	sub.due.Store(due.UnixNano())
}

// ring tells on alarm that something is due. It waits by the server's clock,
// which has no timers to select on, and due only moves on, so it is never late.
func (sub *subscription) ring(ctx context.Context, alarm chan<- struct{}) {
	for {
		if d := time.Unix(0, sub.due.Load()).Sub(sub.server.clock.Now()); d > 0 {
			if sub.server.clock.Wait(ctx, d) != nil {
				return
			}
			continue
		}
		select {
		case alarm <- struct{}{}:
		case <-ctx.Done():
			return
		}
	}
}

// throttle keeps a consumer's rate: a frame may overdraw the bytes of a second,
// and the next one waits for the rest. So does the exception of a take-over.
func (sub *subscription) throttle(ctx context.Context, bytes int) error {
	if !sub.server.opts.EnforceLimits {
		return nil
	}
	left := sub.budget.refill(sub.server.clock.Now(), consumerBytesSecond) - float64(bytes)
	sub.budget.take(bytes)
	if left >= 0 {
		return nil
	}
	return sub.server.clock.Wait(ctx, time.Duration(-left/consumerBytesSecond*float64(time.Second)))
}
