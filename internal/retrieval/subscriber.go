package retrieval

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"github.com/benthos-plugins/aws-kinesis/internal/retrieval/wire"
	"github.com/benthos-plugins/aws-kinesis/internal/sequence"
)

const (
	// subscribeTimeout bounds the opening of a subscription, up to its first frame.
	subscribeTimeout = 10 * time.Second
	// silentFor is how long a subscription may say nothing while it is listened to. An
	// event comes every 5 s, also of an idle shard.
	silentFor = 35 * time.Second
	// inUseFor is how long it is usual that a subscription is refused for that of the
	// former owner.
	inUseFor = 2 * takeOverAfter
	// smallFrame is how long the first frame of a subscription may be that is read without
	// room for it, in bytes. It hardly has anything.
	smallFrame = 1 << 10
)

// Subscriber is the source to which the service pushes: enhanced fan-out. It opens a
// subscription, hands its events out as pages, and opens another one after the last
// record that was read when that ends, for whatever reason. A consumer makes one, calls
// Next from one goroutine, and closes it.
type Subscriber struct {
	*cursor
	fan    *FanOut
	slot   *slot
	hooks  Hooks
	budget *Budget

	// continuation is a sequence number after which the shard goes on, further on than
	// the last record where the shard is idle; empty when none is known. Without it a
	// subscription would begin a day back after an idle day.
	continuation string
	// refused is the last record read, where the service does not take its sequence number
	// to begin after; see from.
	refused string
	arn     string        // of the consumer, as which it subscribed last
	holds   bool          // the token of the slot, and with it the pace
	sub     *subscription // nil while none is open. Invariant: sub != nil implies holds
	after   Ending        // of the last subscription
	resumes time.Time     // when the attempt that follows a failed one is made
	// perByte is the memory that records take for each byte of their frame.
	perByte float64
	// kept is what was set aside of the budget for an event whose subscription had ended by
	// the time its turn came: it is for that event, of the next one.
	kept int64
}

// subscription is an open one. The subscriber makes it and ends it.
type subscription struct {
	*wire.Stream
	cancel context.CancelCauseFunc
	ctx    context.Context //nolint:containedctx // its cause tells why a read has ended
	begun  bool            // a frame has been read
	heard  bool            // an event has come
	ageing ageing
}

// NewSubscriber returns a source that begins at from, as the consumer of fan, looks shards
// up in lists, and holds what it reads within a budget.
func NewSubscriber(api Lister, fan *FanOut, lists *Lists, shard Shard, from Position, budget *Budget, hooks Hooks) *Subscriber {
	return newSubscriber(fan, newCursor(api, lists, shard, from), budget, hooks)
}

func newSubscriber(fan *FanOut, at *cursor, budget *Budget, hooks Hooks) *Subscriber {
	return &Subscriber{cursor: at, fan: fan, slot: fan.join(at.shard.ID), hooks: hooks, budget: budget, perByte: heapFactor}
}

// Close ends the subscription, and returns when it has ended here. The subscriber may not
// be used any more.
func (s *Subscriber) Close() {
	s.unsubscribe()
	s.release()
	s.giveBack()
	s.fan.leave(s.slot)
}

// giveBack gives back what is kept of the budget.
func (s *Subscriber) giveBack() {
	s.budget.Release(s.kept)
	s.kept = 0
}

// reserve sets aside what an event takes, and reports whether it had to wait for it. What
// is kept is that already, and more is taken where that is too little.
func (s *Subscriber) reserve(ctx context.Context, bytes int64) (reserved int64, waited bool, err error) {
	if s.kept > 0 {
		reserved = max(s.kept, bytes)
		s.budget.Release(s.kept - reserved)
		s.kept = 0
		return reserved, false, nil
	}
	reserved, err = s.budget.Reserve(ctx, bytes, func() {
		waited = true
		if s.hooks.OnBudgetWait != nil {
			s.hooks.OnBudgetWait()
		}
	})
	return reserved, waited, err
}

// acquire takes the token of the slot, when the shard has no other source that is
// subscribed, and waits until a call may be made. The pace is that of the shard: who
// looked at it before the token is there would follow a call that he does not know of.
func (s *Subscriber) acquire(ctx context.Context) error {
	select {
	case s.slot.token <- struct{}{}: // free, but where two sources read a shard
		s.holds = true
	case <-ctx.Done():
		return ctx.Err()
	}
	return waitUntil(ctx, s.slot.pace.when())
}

// release gives the token of the slot back.
func (s *Subscriber) release() {
	if s.holds {
		s.holds = false
		<-s.slot.token
	}
}

func (s *Subscriber) unsubscribe() {
	if s.sub == nil {
		return
	}
	s.sub.cancel(context.Canceled)
	_ = s.sub.Close() // nothing is to be had from it any more, whatever it says
	s.sub = nil
	s.fan.count(-1)
	if s.hooks.OnUnsubscribe != nil {
		s.hooks.OnUnsubscribe()
	}
}

// Next returns the page of the next event, which may be empty. It subscribes when it has
// to. ctx has to be the same in all calls: it bounds the subscription too. The errors are
// ErrShardGone and the context's.
func (s *Subscriber) Next(ctx context.Context) (Page, error) {
	for {
		page, ok, err := s.attempt(ctx)
		if ok || err != nil {
			return page, err
		}
	}
}

// attempt makes one attempt to read a page: it subscribes, if need be, when it is time
// to. ok is false when it is to be made again.
func (s *Subscriber) attempt(ctx context.Context) (page Page, ok bool, err error) {
	if s.ended {
		return Page{}, false, ErrShardGone
	}
	defer func() {
		if s.sub == nil {
			s.release()
		}
	}()
	call := Call{Start: time.Now(), Behind: -1}
	if s.sub == nil {
		if err := s.acquire(ctx); err != nil {
			return Page{}, false, err
		}
		call.Start = time.Now()
		if err = s.open(ctx); err != nil {
			s.giveBack()
		}
	}
	if err == nil {
		page, err = s.receive(ctx, &call)
	}
	if err == nil {
		s.hooks.tell(call)
		if page.End {
			s.unsubscribe()
		}
		return page, true, nil
	}
	if ctx.Err() != nil {
		s.unsubscribe()
		return Page{}, false, ctx.Err()
	}
	return Page{}, false, s.recover(ctx, call, err)
}

// open opens a subscription. The source has the token.
func (s *Subscriber) open(ctx context.Context) error {
	if err := s.identify(ctx); err != nil {
		return err
	}
	s.arn = "" // until there is one: what a search fails with is about no subscription
	arn, err := s.fan.Consumer(ctx)
	if err != nil {
		return err
	}
	s.arn = arn
	sub := &subscription{}
	sub.ctx, sub.cancel = context.WithCancelCause(ctx)
	if err := s.openWith(sub); err != nil {
		sub.cancel(err)
		return err
	}
	s.sub = sub
	s.fan.count(1)
	if s.hooks.OnSubscribe != nil {
		s.hooks.OnSubscribe(s.after)
	}
	return nil
}

// openWith opens a subscription, and waits for its first frame.
func (s *Subscriber) openWith(sub *subscription) error {
	select {
	case s.fan.turns <- struct{}{}:
		defer func() { <-s.fan.turns }()
	case <-sub.ctx.Done():
		return sub.ctx.Err()
	}
	s.slot.pace.call(time.Now())
	bound := time.AfterFunc(subscribeTimeout, func() { sub.cancel(errNoAnswer) })
	defer bound.Stop()
	from, arn := s.from(), s.arn // a call that is given up may read them for a while
	body, err := s.fan.subscribe(sub.ctx, &kinesis.SubscribeToShardInput{ConsumerARN: &arn, ShardId: &s.shard.ID, StartingPosition: &from})
	if err != nil {
		if cause := context.Cause(sub.ctx); cause != nil {
			err = cause
		}
		return fmt.Errorf("subscribing to shard %s: %w", s.shard.ID, err)
	}
	s.slot.pace.open(time.Now())
	sub.Stream = wire.NewStream(&listened{ReadCloser: body, silence: time.AfterFunc(silentFor, func() { sub.cancel(errSilent) })})
	if _, err := sub.Await(); err != nil {
		_ = sub.Close() // the error is what tells
		return fmt.Errorf("subscribing to shard %s: %w", s.shard.ID, cmp.Or(context.Cause(sub.ctx), err))
	}
	return nil
}

// from is where a subscription begins: after what was read last. A place that the service
// does not take is passed over for the one before it, up to the oldest record; what was
// read is known by its sequence number.
func (s *Subscriber) from() types.StartingPosition {
	continuation, after, at := s.continuation, s.position.After, s.position.At
	switch {
	case continuation != "":
		return types.StartingPosition{Type: types.ShardIteratorTypeAfterSequenceNumber, SequenceNumber: &continuation}
	case after != "" && after != s.refused:
		return types.StartingPosition{Type: types.ShardIteratorTypeAfterSequenceNumber, SequenceNumber: &after}
	case after == "" && !at.IsZero():
		return types.StartingPosition{Type: types.ShardIteratorTypeAtTimestamp, Timestamp: &at}
	}
	return types.StartingPosition{Type: types.ShardIteratorTypeTrimHorizon}
}

// listened is the body of a subscription, which is ended when it says nothing for long
// while it is read. While nobody reads it, because there is no room for more, it is not
// silent but waits.
type listened struct {
	io.ReadCloser
	silence *time.Timer
}

func (l *listened) Read(p []byte) (int, error) {
	l.silence.Reset(silentFor)
	defer l.silence.Stop()
	return l.ReadCloser.Read(p)
}

func (l *listened) Close() error {
	l.silence.Stop()
	return l.ReadCloser.Close()
}

// receive makes a page of the next event.
func (s *Subscriber) receive(ctx context.Context, call *Call) (Page, error) {
	for {
		event, page, err := s.next(ctx, call)
		if event || err != nil {
			return page, err
		}
	}
}

// next reads a frame, which may be no event.
func (s *Subscriber) next(ctx context.Context, call *Call) (event bool, page Page, err error) {
	sub := s.sub
	begun := time.Now()
	length, err := sub.Await()
	call.Start = time.Now()
	age := sub.ageing.after(begun, call.Start, length)
	if err != nil {
		call.Start = begun // nothing has come since
		return false, Page{}, fmt.Errorf("reading shard %s: %w", s.shard.ID, cmp.Or(context.Cause(sub.ctx), err))
	}
	// Beside the records there are the frame and its payload while it is decoded.
	// The first frame is the initial response, and is here already: to wait with it would
	// be to wait while what was to come is lost.
	var reserved int64
	waited := false
	if first := !sub.begun; !first || length > smallFrame {
		if reserved, waited, err = s.reserve(ctx, int64((2+s.perByte)*float64(length))); err != nil {
			return false, Page{}, err
		}
	}
	sub.begun = true
	defer func() { s.budget.Release(reserved - page.Cost) }()
	got, err := sub.Next()
	if err != nil && waited {
		// An output may be so slow that the turn always comes when the subscription has
		// ended. Who went to the end of the queue then would never read anything.
		s.kept, reserved = reserved, 0
	}
	if err != nil {
		return false, Page{}, fmt.Errorf("reading shard %s: %w", s.shard.ID, cmp.Or(context.Cause(sub.ctx), err))
	}
	if got == nil { // the initial response, or something that is not known
		return false, Page{}, nil
	}
	continuation := got.Next
	for i := range got.Records {
		call.Bytes += len(got.Records[i].Data) + len(got.Records[i].PartitionKey)
	}
	call.Records = len(got.Records)
	page, err = s.advance(ctx, got)
	if err != nil {
		return false, Page{}, err
	}
	if got.Behind != nil {
		page.ReadTo = call.Start.Add(-age - page.Behind)
		call.Behind = page.Behind + waitingTime(page, age, call.Start)
	}
	if len(page.Records) > 0 {
		s.perByte = float64(page.Cost) / float64(length)
	}
	if sequence.Valid(continuation) && (s.rereads() || sequence.Compare(continuation, s.position.After) > 0) {
		s.continuation = continuation
	} else if len(page.Records) > 0 {
		s.continuation = "" // these are further on
	}
	if !sub.heard {
		sub.heard = true
		s.slot.pace.worked()
	}
	return true, page, nil
}
