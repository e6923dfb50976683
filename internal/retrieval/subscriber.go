package retrieval

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
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
	// share is the memory that records take by the bytes of their frame.
	share float64
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
	return &Subscriber{cursor: at, fan: fan, slot: fan.join(at.shard.ID), hooks: hooks, budget: budget, share: heapFactor}
}

// Close ends the subscription, and returns when it has ended here. The subscriber may not
// be used any more.
func (s *Subscriber) Close() {
	s.unsubscribe()
	s.giveUp()
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

// take takes the token of the slot, when the shard has no other source that is
// subscribed, and waits until a call may be made. The pace is that of the shard: who
// looked at it before the token is there would follow a call that he does not know of.
func (s *Subscriber) take(ctx context.Context) error {
	select {
	case s.slot.taken <- struct{}{}: // free, but where two sources read a shard
		s.holds = true
	case <-ctx.Done():
		return ctx.Err()
	}
	return waitUntil(ctx, s.slot.pace.when())
}

// giveUp gives the token of the slot back.
func (s *Subscriber) giveUp() {
	if s.holds {
		s.holds = false
		<-s.slot.taken
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
			s.giveUp()
		}
	}()
	call := Call{Start: time.Now(), Behind: -1}
	if s.sub == nil {
		if err := s.take(ctx); err != nil {
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
	from := s.from()
	body, err := s.fan.subscribe(sub.ctx, &kinesis.SubscribeToShardInput{ConsumerARN: &s.arn, ShardId: &s.shard.ID, StartingPosition: &from})
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
		if reserved, waited, err = s.reserve(ctx, int64((2+s.share)*float64(length))); err != nil {
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
	continuation := aws.ToString(got.ContinuationSequenceNumber)
	for i := range got.Records {
		call.Bytes += len(got.Records[i].Data) + len(aws.ToString(got.Records[i].PartitionKey))
	}
	call.Records = len(got.Records)
	page, err = s.advance(ctx, read{records: got.Records, behind: got.MillisBehindLatest, leadsOn: continuation != "", children: got.ChildShards})
	if err != nil {
		return false, Page{}, err
	}
	if got.MillisBehindLatest != nil {
		page.ReadTo = call.Start.Add(-age - page.Behind)
		call.Behind = page.Behind + waitingTime(page, age, call.Start)
	}
	if len(page.Records) > 0 {
		s.share = float64(page.Cost) / float64(length)
	}
	if sequence.Valid(continuation) && (s.rereads() || sequence.Compare(continuation, s.position.After) > 0) {
		s.continuation = continuation
	} else if len(page.Records) > 0 {
		s.continuation = "" // these are further on
	}
	if !sub.heard {
		sub.heard = true
		s.slot.pace.event()
	}
	return true, page, nil
}

// rereads reports whether what was read already is read again, since its end was refused as
// a place to begin at. It may take more than one subscription, so that it counts how far
// they come.
func (s *Subscriber) rereads() bool { return s.refused != "" && s.refused == s.position.After }

// waitingTime is how long a page waited to be read since the service said how far it is behind.
// What has records is no older than the last one of these, whatever it may be at most.
func waitingTime(page Page, age time.Duration, now time.Time) time.Duration {
	if n := len(page.Records); n > 0 {
		age = min(age, max(0, now.Sub(page.Records[n-1].Arrived)))
	}
	return age
}

// recover prepares for the next attempt after an error. It returns one that is the end.
func (s *Subscriber) recover(ctx context.Context, call Call, err error) error {
	lost := s.sub
	if lost != nil {
		s.after = endingOf(err)
		s.unsubscribe()
	}
	err = s.judge(ctx, lost != nil, err)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	pace, now, random := &s.slot.pace, time.Now(), rand.Float64() //nolint:gosec // spreads load, guards nothing
	_, inUse := errors.AsType[*types.ResourceInUseException](err)
	usual := false
	switch {
	case errors.Is(err, ErrShardGone):
	case errors.Is(err, errPassedOver):
		pace.ended(now)
		usual = true
	case inUse && lost == nil:
		pace.inUse(now, random)
		if usual = now.Sub(pace.refused) < inUseFor; !usual {
			s.fan.forget(s.arn) // it may be that consumer which is not ready, or not any more
			err = s.shared(err)
		}
	case lost != nil && lost.heard && errors.Is(err, io.EOF):
		pace.ended(now)
		usual = true
	case errors.Is(err, errConsumerGone) && pace.failures == 0:
		pace.failures++
		pace.ended(now) // it may be registered at once, which is told
		usual = true
	case lost != nil && lost.heard && s.after == EndedTaken:
		pace.failed(now, random)
		if usual = !pace.taken(now); !usual {
			err = s.shared(err)
		}
	case lost != nil && lost.heard && !errors.Is(err, errEndUnconfirmed):
		pace.failed(now, random)
		// A subscription that has worked may break once. When it can be opened again
		// there is nothing to tell, but that it had said nothing for long.
		again := pace.broke(now)
		usual = !again && !errors.Is(err, errSilent)
	default:
		pace.failed(now, random)
		// A call may be refused once that comes within a second of the former owner's.
		early := lost == nil && pace.failures == 1 && errors.Is(err, ErrThrottled)
		usual = early || errors.Is(err, errEndUnconfirmed)
	}
	switch {
	case errors.Is(err, io.EOF):
		err = fmt.Errorf("reading shard %s: the subscription ended before anything had come", s.shard.ID)
	case lost != nil && s.after == EndedBroken:
		err = fmt.Errorf("%w: the connection of the subscription broke, or what came of it is no event. Look at the network, and at what stands between", err)
	}
	if s.resumes = s.slot.pace.when(); s.resumes.Sub(now) > takeOverAfter {
		s.giveBack() // others need it meanwhile
	}
	// While it cannot be read the shard waits for nothing, and what it has in a batch that
	// does not fill up may be what others wait for.
	if s.hooks.OnBudgetWait != nil && s.budget.Wanted() {
		s.hooks.OnBudgetWait()
	}
	if !usual {
		call.Err = err
		s.hooks.tell(call)
	}
	if errors.Is(err, ErrShardGone) {
		return err
	}
	return nil
}

// shared says what it means that somebody else subscribes as the same consumer. The service
// has the same error for a consumer that is being registered or removed.
func (s *Subscriber) shared(err error) error {
	if strings.Contains(err.Error(), "not in ACTIVE status") {
		return err
	}
	return fmt.Errorf("%w. Somebody else subscribes as consumer %s again and again: give each group a consumer of its own, in `enhanced_fan_out.consumer_name`", err, s.fan.name())
}

// judge finds out what an error means, of a subscription that was open or was to be.
func (s *Subscriber) judge(ctx context.Context, wasOpen bool, err error) error {
	if _, invalid := errors.AsType[*types.InvalidArgumentException](err); invalid && !wasOpen && s.from().SequenceNumber != nil {
		return s.passOver(ctx, err)
	}
	original := err
	if err = classify(err); !errors.Is(err, ErrShardGone) {
		return err
	}
	err = s.confirmGone(ctx, err)
	s.fan.forget(s.arn) // with its stream, where that is gone
	if errors.Is(err, ErrShardGone) && !s.listed(ctx) {
		return err
	}
	if s.arn == "" {
		return fmt.Errorf("reading shard %s, which the stream lists: %v", s.shard.ID, original) //nolint:errorlint // it is not what it says
	}
	// The stream lists the shard: so it is the consumer that is gone.
	return fmt.Errorf("%w: consumer %s is looked for anew, and registered if need be: %v", errConsumerGone, s.fan.name(), original) //nolint:errorlint // it is not what it says
}

// listed reports whether the stream lists a shard of which no first sequence number is
// known. It may be that of another stream of the same name; then its position shows that,
// as soon as there is a consumer to subscribe as.
func (s *Subscriber) listed(ctx context.Context) bool {
	if s.shard.FirstSequence != "" {
		return false // confirmGone has seen to it
	}
	_, ok, err := s.lists.Find(ctx, s.shard.Stream, s.shard.ID)
	return ok && err == nil
}

// passOver deals with a place to begin at that the service does not take, though the shard
// may have it: what is before the oldest record is not known any more. It comes to no such
// place twice, for where nothing new is read a subscription would begin there again.
func (s *Subscriber) passOver(ctx context.Context, refusal error) error {
	if s.position.After != "" {
		if foreign := s.checkPosition(ctx); foreign != nil {
			return foreign
		}
	}
	if s.continuation != "" {
		s.continuation = ""
	} else {
		s.refused = s.position.After
		if s.hooks.OnExpire != nil {
			s.hooks.OnExpire(s.position.After)
		}
	}
	return fmt.Errorf("%w: %w", errPassedOver, refusal)
}

var (
	errNoAnswer     = fmt.Errorf("the subscription was not answered within %s", subscribeTimeout)
	errSilent       = fmt.Errorf("nothing came of the subscription for %s", silentFor)
	errConsumerGone = errors.New("the consumer does not exist any more")
	// errPassedOver is a place that was refused, where another one is tried next.
	errPassedOver = errors.New("the place to begin at was refused")
)
