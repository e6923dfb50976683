package retrieval

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/smithy-go"

	"github.com/benthos-plugins/aws-kinesis/internal/retrieval/wire"
	"github.com/benthos-plugins/aws-kinesis/internal/throttle"
)

// API is what a Poller uses of the Kinesis client. The client should leave
// throttled calls to the poller, which knows what the shard can bear.
type API interface {
	Lister
	wire.Client
	GetShardIterator(context.Context, *kinesis.GetShardIteratorInput, ...func(*kinesis.Options)) (*kinesis.GetShardIteratorOutput, error)
}

// Shard names a shard for the service.
type Shard struct {
	// Stream is a name or an ARN.
	Stream string
	// ID is the full id, shardId- and twelve digits.
	ID string
	// FirstSequence tells the shard from one of the same id in a stream of the same
	// name that was made anew; empty when it is not known.
	FirstSequence string
}

// StreamParameters returns the stream as the parameters of a call have it: one
// of name and ARN is nil.
func StreamParameters(stream string) (name, arn *string) {
	if strings.HasPrefix(stream, "arn:") {
		return nil, &stream
	}
	return &stream, nil
}

// Hooks tell of what a source deals with by itself. Each may be nil.
type Hooks struct {
	// OnCall is called for each attempt to read a page. Of a subscription that is each event
	// that came, and each failure that is not one of those that come in the best of
	// circumstances.
	OnCall func(Call)
	// OnBudgetWait is called when a read has to wait for the budget.
	OnBudgetWait func()
	// OnSubscribe is called when a subscription has been opened, with how the one before it
	// ended, and OnUnsubscribe when it has ended.
	OnSubscribe   func(after Ending)
	OnUnsubscribe func()
	// OnExpire is called when the service does not take a sequence number that the shard
	// may have had: what followed it has left the stream in part, and the shard is read on
	// from its oldest record.
	OnExpire func(after string)
	// OnWay is called when a source that polls at first reads the shard in another way, and
	// why. That is empty where the source before it has read the shard so.
	OnWay func(way Way, why string)
}

func (h Hooks) tell(c Call) {
	if h.OnCall != nil {
		h.OnCall(c)
	}
}

// Call is an attempt to read a page, of which each failed one is made again, unless the
// shard is gone.
type Call struct {
	// Start is when it began.
	Start time.Time
	// Records and Bytes are what it brought, in records and in bytes of their data and
	// keys, those included that had been read before.
	Records, Bytes int
	// Behind is how far the page lies behind the tip of the shard by what the service says;
	// less than zero where it does not tell.
	Behind time.Duration
	// Err is why it brought nothing; nil after a page, an empty one too. It may wrap
	// ErrThrottled, ErrIteratorExpired or ErrShardGone.
	Err error
	// Usual is whether the error is one of those that come in the best of circumstances.
	Usual bool
}

// Poller is the source that asks with GetRecords, paced by the limits of a shard
// and by how lately it had records. A consumer makes one and calls Next from one
// goroutine; there is nothing to end.
type Poller struct {
	*cursor
	api   API
	hooks Hooks
	// budget is reserved for each page before it is read.
	budget *Budget

	iterator string // empty when one is to be made
	pace     pacer
	nextCall time.Time
	failures int // calls in a row
	expired  int // iterators in a row
	size     pageSize
	each     int64 // bytes of memory for a record, by those of the last page; 0 before
	room     room  // of the page that is being read

	// untold is when the last attempt began, where that timed out and nobody was told;
	// zero otherwise.
	untold time.Time
	// timedOut is when the last attempt ended that timed out.
	timedOut time.Time
}

// NewPoller returns a poller that begins at from, looks shards up in lists, holds its pages within a budget
// that it may share, and leaves at least the given time between two reads; zero
// leaves that to the shard's limits and its records.
func NewPoller(api API, lists *Lists, shard Shard, from Position, budget *Budget, least time.Duration, hooks Hooks) *Poller {
	return newPoller(api, newCursor(api, lists, shard, from), budget, least, hooks)
}

func newPoller(api API, at *cursor, budget *Budget, least time.Duration, hooks Hooks) *Poller {
	return &Poller{
		cursor: at, api: api, hooks: hooks, budget: budget,
		size: newPageSize(), pace: pacer{least: least},
	}
}

// restart has the poller begin anew where the cursor stands, which something else has
// moved.
func (p *Poller) restart() { p.iterator, p.nextCall = "", time.Time{} }

// Close does nothing: between two reads nothing is open.
func (p *Poller) Close() {}

// Next returns the next page, which may be empty, when the pace allows it. It
// retries what may pass. The errors are ErrShardGone and the context's.
func (p *Poller) Next(ctx context.Context) (Page, error) {
	for {
		page, ok, err := p.attempt(ctx)
		if ok || err != nil {
			return page, err
		}
	}
}

// attempt makes one attempt to read a page, when it is time to. ok is false when it is
// to be made again.
func (p *Poller) attempt(ctx context.Context) (page Page, ok bool, err error) {
	if p.ended {
		return Page{}, false, ErrShardGone
	}
	if err := waitUntil(ctx, p.pace.within(p.nextCall)); err != nil {
		return Page{}, false, err
	}
	call := Call{Start: time.Now(), Behind: -1}
	page, err = p.read(ctx, &call)
	p.pace.called(time.Now())
	if err == nil {
		p.failures, p.expired, p.untold = 0, 0, time.Time{}
		p.hooks.tell(call)
		return page, true, nil
	}
	if ctx.Err() != nil {
		return Page{}, false, ctx.Err()
	}
	if errors.Is(err, ErrShardGone) {
		err = p.confirmGone(ctx, err)
	}
	call.Err, call.Usual = err, p.usual(err)
	p.tell(call)
	if errors.Is(err, ErrShardGone) {
		return Page{}, false, err
	}
	if p.hooks.OnBudgetWait != nil && p.budget.Wanted() {
		p.hooks.OnBudgetWait() // as a subscriber does; see Subscriber.recover
	}
	if errors.Is(err, errNoRoom) {
		p.nextCall = call.Start.Add(p.pace.afterGivenUp(p.room.answer))
		return Page{}, false, nil
	}
	p.nextCall = time.Now().Add(p.recover(err))
	return Page{}, false, nil
}

// quietFor is how long there was no time-out before one that is told to nobody.
const quietFor = time.Minute

// tell tells of an attempt that failed, unless what becomes of the next one will tell. The
// first one that times out is made again at once, as the SDK makes others again; where that
// happens more often than once in quietFor, or the next one fails too, it is told, in the
// latter case as what has failed since the first began.
func (p *Poller) tell(failed Call) {
	switch {
	case errors.Is(failed.Err, errNoRoom):
		return
	case isTimeout(failed.Err) && p.failures == 0 && time.Since(p.timedOut) >= quietFor:
		p.untold = failed.Start
		return
	case !p.untold.IsZero():
		failed.Start, p.untold = p.untold, time.Time{}
	}
	p.hooks.tell(failed)
}

func isTimeout(err error) bool {
	_, ok := errors.AsType[*wire.TimeoutError](err)
	return ok
}

// brokeOff reports whether a call may have failed for the size of its answer: it timed
// out, or the connection ended in the middle.
func brokeOff(err error) bool {
	timeout, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err)
	return ok && timeout.Timeout() || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)
}

// usual reports whether an error is no sign of anything wrong: an iterator expires when
// nobody has asked for minutes, and the end of a shard is asked for more than once.
func (p *Poller) usual(err error) bool {
	return errors.Is(err, errEndUnconfirmed) || errors.Is(err, ErrIteratorExpired) && p.expired == 0
}

// waitUntil waits for a moment, which may have passed.
func waitUntil(ctx context.Context, moment time.Time) error {
	timer := time.NewTimer(time.Until(moment))
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *Poller) read(ctx context.Context, call *Call) (Page, error) {
	if p.iterator == "" {
		if err := p.seek(ctx); err != nil {
			return Page{}, err
		}
	}
	var page Page
	if err := p.reserve(ctx); err != nil {
		return Page{}, err
	}
	defer func() { p.budget.Release(p.room.reserved - page.Cost) }()

	start := time.Now()
	call.Start = start
	_, arn := StreamParameters(p.shard.Stream)
	read, err := wire.GetRecords(wire.WithAdmission(ctx, p.admit), p.api,
		&kinesis.GetRecordsInput{ShardIterator: &p.iterator, StreamARN: arn, Limit: &p.room.limit})
	took := time.Since(start)
	if err != nil {
		return Page{}, fmt.Errorf("reading shard %s: %w", p.shard.ID, classify(err))
	}
	p.room.next.bytes = 0
	if read.Records == nil {
		// Every answer lists its records, if there are none too.
		return Page{}, fmt.Errorf("reading shard %s: %w", p.shard.ID, errNoPage)
	}
	bytes := 0
	for i := range read.Records {
		bytes += len(read.Records[i].Data) + len(read.Records[i].PartitionKey)
	}
	call.Records, call.Bytes = len(read.Records), bytes
	if page, err = p.advance(ctx, read); err != nil {
		return Page{}, err
	}
	p.iterator = read.Next
	if n := len(read.Records); n > 0 {
		p.size.arrived(n, bytes, took)
		p.each = p.memoryOfEach(n, bytes)
	}
	if read.Behind != nil {
		page.ReadTo, call.Behind = start.Add(-page.Behind), page.Behind
	}
	p.nextCall = start.Add(p.pace.afterPage(start, len(page.Records), bytes, page.Behind, rand.Float64())) //nolint:gosec // spreads load, guards nothing
	return page, nil
}

// seek makes an iterator at the position.
func (p *Poller) seek(ctx context.Context) error {
	if err := p.identify(ctx); err != nil {
		return err
	}
	in := &kinesis.GetShardIteratorInput{ShardId: &p.shard.ID}
	in.StreamName, in.StreamARN = StreamParameters(p.shard.Stream)
	switch {
	case p.position.After != "":
		in.ShardIteratorType = types.ShardIteratorTypeAfterSequenceNumber
		in.StartingSequenceNumber = &p.position.After
	case !p.position.At.IsZero():
		in.ShardIteratorType = types.ShardIteratorTypeAtTimestamp
		in.Timestamp = &p.position.At
	default:
		in.ShardIteratorType = types.ShardIteratorTypeTrimHorizon
	}
	out, err := p.api.GetShardIterator(ctx, in)
	if err != nil {
		if _, invalid := errors.AsType[*types.InvalidArgumentException](err); invalid && p.position.After != "" {
			if foreign := p.checkPosition(ctx); foreign != nil {
				return foreign
			}
		}
		return fmt.Errorf("making an iterator of shard %s: %w", p.shard.ID, classify(err))
	}
	if p.iterator = aws.ToString(out.ShardIterator); p.iterator == "" {
		return fmt.Errorf("making an iterator of shard %s: the answer has none", p.shard.ID)
	}
	return nil
}

// recover prepares for the next call after one that failed and returns the pause
// before it.
func (p *Poller) recover(err error) time.Duration {
	if errors.Is(err, ErrThrottled) {
		return p.pace.afterThrottle(time.Now(), rand.Float64()) //nolint:gosec // spreads load, guards nothing
	}
	if brokeOff(err) && p.iterator != "" { // without one it was not the page that failed
		p.size.timedOut(p.room.limit)
	}
	if isTimeout(err) { // the service does not object to the iterator
		p.timedOut = time.Now()
		if p.failures++; p.failures == 1 {
			return 0
		}
		return backoff(p.failures - 1)
	}
	p.iterator = "" // it may be what the service objects to
	switch {
	case errors.Is(err, ErrIteratorExpired):
		if p.expired++; p.expired == 1 {
			return 0
		}
		return backoff(p.expired - 1)
	case errors.Is(err, errEndUnconfirmed):
		return backoff(p.ends + 2)
	}
	p.failures++
	return backoff(p.failures)
}

// backoff is the pause after the nth failure in a row, n from 1: on average it
// doubles from a quarter of a second to ten seconds.
func backoff(n int) time.Duration {
	pause := min(250*time.Millisecond<<min(n-1, 10), 10*time.Second)
	return pause/2 + time.Duration(rand.Float64()*float64(pause)) //nolint:gosec // spreads load, guards nothing
}

// What a call may fail with that tells more than that it failed.
var (
	ErrIteratorExpired = errors.New("iterator expired")
	ErrThrottled       = errors.New("throttled")
)

var (
	// errNoRoom is an answer that was given up, since it was larger than expected and the
	// budget had no room for the rest.
	errNoRoom = errors.New("no room for the answer")
	errNoPage = errors.New("the answer has no list of records")
	// errEndUnconfirmed is a page from which nothing leads on, which has yet to
	// come again.
	errEndUnconfirmed = errors.New("the shard has ended without children")
)

// classify wraps an error of the service in what is to be done about it.
func classify(err error) error {
	if _, gone := errors.AsType[*types.ResourceNotFoundException](err); gone {
		return fmt.Errorf("%w: %w", ErrShardGone, err)
	}
	if _, expired := errors.AsType[*types.ExpiredIteratorException](err); expired {
		return ErrIteratorExpired
	}
	return throttledOr(err)
}

// throttledOr wraps an error of the service that says that there were too many calls, and
// returns others as they are.
func throttledOr(err error) error {
	if throttle.Is(err) {
		return fmt.Errorf("%w: %w", ErrThrottled, err)
	}
	return err
}

// codeOf is the code of an error that is an answer of the service; empty for others.
func codeOf(err error) string {
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		return api.ErrorCode()
	}
	return ""
}

// isDenied reports whether the service has refused a call for want of a permission.
func isDenied(err error) bool { return strings.HasPrefix(codeOf(err), "AccessDenied") }
