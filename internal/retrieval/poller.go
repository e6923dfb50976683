package retrieval

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/smithy-go"

	"github.com/benthos-plugins/aws-kinesis/internal/sequence"
)

// API is what a Poller uses of the Kinesis client. The client should leave
// throttled calls to the poller, which knows what the shard can bear.
type API interface {
	Lister
	GetShardIterator(context.Context, *kinesis.GetShardIteratorInput, ...func(*kinesis.Options)) (*kinesis.GetShardIteratorOutput, error)
	GetRecords(context.Context, *kinesis.GetRecordsInput, ...func(*kinesis.Options)) (*kinesis.GetRecordsOutput, error)
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
	// OnCall is called for each attempt to read a page.
	OnCall func(Call)
	// OnBudgetWait is called when a read has to wait for the budget.
	OnBudgetWait func()
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
	api   API
	lists *Lists
	shard Shard
	hooks Hooks
	// budget is reserved for each page before it is read.
	budget *Budget
	behind bool // the last page was, or there was none yet

	// position is behind the last record handed out, whatever has been
	// acknowledged: an iterator made from it brings no record twice.
	position Position
	iterator string // empty when one is to be made
	ended    bool
	// ends counts, in a row, the empty pages from which nothing leads on and that
	// name no children either.
	ends int

	pace     pacer
	nextCall time.Time
	failures int   // calls in a row
	expired  int   // iterators in a row
	refused  int   // lists in a row
	limit    int32 // records of the next page
	expected int64 // bytes of memory that such a page takes, by those of the last one
}

// A page of 10 MB, the most that the service gives, is followed by five seconds
// without any, and takes 20 times the memory of what the pace needs. So pages are
// asked for by the number of records that come to about pageBytes: two and a half
// times what a shard gives in the time between two calls.
const (
	pageBytes  = 1 << 20
	maxLimit   = 10_000
	firstLimit = 1 // tells how large they are
)

// limitAfter returns how many records to ask for after a page of so many of them,
// and of so many bytes.
func limitAfter(records, bytes int) int32 {
	return int32(min(max(pageBytes*records/max(bytes, 1), 1), maxLimit))
}

// NewPoller returns a poller that begins at from, looks shards up in lists, holds its pages within a budget
// that it may share, and leaves at least the given time between two reads; zero
// leaves that to the shard's limits and its records.
func NewPoller(api API, lists *Lists, shard Shard, from Position, budget *Budget, least time.Duration, hooks Hooks) *Poller {
	return &Poller{
		api: api, lists: lists, shard: shard, hooks: hooks, budget: budget, behind: true,
		position: from, limit: firstLimit, expected: firstPage, pace: pacer{least: least},
	}
}

// Next returns the next page, which may be empty, when the pace allows it. It
// retries what may pass. The errors are ErrShardGone and the context's.
func (p *Poller) Next(ctx context.Context) (Page, error) {
	for {
		if p.ended {
			return Page{}, ErrShardGone
		}
		if err := p.waitTurn(ctx); err != nil {
			return Page{}, err
		}
		call := Call{Start: time.Now(), Behind: -1}
		page, err := p.read(ctx, &call)
		if err == nil {
			p.failures, p.expired = 0, 0
			p.tell(call)
			return page, nil
		}
		if ctx.Err() != nil {
			return Page{}, ctx.Err()
		}
		if errors.Is(err, ErrShardGone) {
			err = p.confirmGone(ctx, err)
		}
		call.Err, call.Usual = err, p.usual(err)
		p.tell(call)
		if errors.Is(err, ErrShardGone) {
			return Page{}, err
		}
		p.nextCall = time.Now().Add(p.recover(err))
	}
}

// usual reports whether an error is no sign of anything wrong: an iterator expires when
// nobody has asked for minutes, and the end of a shard is asked for more than once.
func (p *Poller) usual(err error) bool {
	return errors.Is(err, errEndUnconfirmed) || errors.Is(err, ErrIteratorExpired) && p.expired == 0
}

func (p *Poller) tell(call Call) {
	if p.hooks.OnCall != nil {
		p.hooks.OnCall(call)
	}
}

// confirmGone returns the error of a call that says that the shard is gone, or one
// that says so no more where the stream still lists the same shard. To take a shard
// for gone has it read anew beside what is under way.
func (p *Poller) confirmGone(ctx context.Context, gone error) error {
	listed, _, err := find(ctx, p.api, p.shard)
	switch {
	case err != nil && !errors.Is(err, ErrShardGone):
		return err
	case err == nil && p.shard.FirstSequence != "" && listed.FirstSequence == p.shard.FirstSequence:
		return fmt.Errorf("reading shard %s: the stream lists it, while: %v", p.shard.ID, gone) //nolint:errorlint // it is not what it says
	}
	return gone
}

func (p *Poller) waitTurn(ctx context.Context) error {
	timer := time.NewTimer(time.Until(p.nextCall))
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
	expected := int64(livePage)
	if p.behind {
		expected = p.expected
	}
	reserved, err := p.budget.Reserve(ctx, expected, p.hooks.OnBudgetWait)
	if err != nil {
		return Page{}, err
	}
	var page Page
	defer func() { p.budget.Release(reserved - page.Cost) }()

	start := time.Now()
	call.Start = start
	_, arn := StreamParameters(p.shard.Stream)
	out, err := p.api.GetRecords(ctx, &kinesis.GetRecordsInput{ShardIterator: &p.iterator, StreamARN: arn, Limit: &p.limit})
	if err != nil {
		return Page{}, fmt.Errorf("reading shard %s: %w", p.shard.ID, classify(err))
	}
	if out.Records == nil {
		// Every answer lists its records, if there are none too.
		return Page{}, fmt.Errorf("reading shard %s: %w", p.shard.ID, errNoPage)
	}
	bytes := 0
	for i := range out.Records {
		bytes += len(out.Records[i].Data) + len(aws.ToString(out.Records[i].PartitionKey))
	}
	call.Records, call.Bytes = len(out.Records), bytes
	if page, err = p.pageOf(ctx, out, bytes); err != nil {
		return Page{}, err
	}
	if behind := out.MillisBehindLatest; behind != nil {
		page.ReadTo, call.Behind = start.Add(-page.Behind), page.Behind
	}
	p.nextCall = start.Add(p.pace.afterPage(start, len(page.Records), bytes, page.Behind, rand.Float64())) //nolint:gosec // spreads load, guards nothing
	return page, nil
}

// pageOf makes a page of an answer with so many bytes of records, and moves the
// position behind it.
func (p *Poller) pageOf(ctx context.Context, out *kinesis.GetRecordsOutput, bytes int) (Page, error) {
	// Some services repeat what an iterator was to begin after.
	fresh := slices.IndexFunc(out.Records, func(r types.Record) bool {
		return sequence.Compare(aws.ToString(r.SequenceNumber), p.position.After) > 0
	})
	if fresh < 0 {
		fresh = len(out.Records)
	}
	page := Page{
		Records: make([]Record, 0, len(out.Records)-fresh),
		Behind:  time.Duration(aws.ToInt64(out.MillisBehindLatest)) * time.Millisecond,
	}
	for _, r := range out.Records[fresh:] {
		page.Records = append(page.Records, Record{
			Data:           r.Data,
			SequenceNumber: aws.ToString(r.SequenceNumber),
			PartitionKey:   aws.ToString(r.PartitionKey),
			Arrived:        aws.ToTime(r.ApproximateArrivalTimestamp),
		})
		page.Cost += page.Records[len(page.Records)-1].Cost()
	}
	if err := p.endOf(ctx, out, &page); err != nil {
		return Page{}, err
	}
	if n := len(page.Records); n > 0 {
		p.position = Position{After: page.Records[n-1].SequenceNumber}
		// Payloads come in base64, and are held until they are decoded.
		p.limit = limitAfter(len(out.Records), bytes)
		each := (page.Cost + heapFactor*int64(bytes)*4/3) / int64(n)
		p.expected = min(max(each*int64(p.limit), livePage), fullPage)
	}
	p.behind = page.Behind > 0
	p.iterator, p.ended = aws.ToString(out.NextShardIterator), page.End
	return page, nil
}

// endsNeeded is how many times in a row a shard must end without children for that
// to be believed. The pauses between them are of a second and more, so that it takes
// more than a bad moment of whatever stands between.
const endsNeeded = 4

// endOf finds out whether a page is the last one of its shard. A page from which
// nothing leads on is so when it names the children of the shard. Those of a
// stream that is being deleted do not, and there are services that never do. But
// an answer that broke on its way can look the same, and to believe it would lose
// the rest of the shard. So such a shard has to end several times, each time from
// a fresh iterator, and to be closed in the list of shards.
func (p *Poller) endOf(ctx context.Context, out *kinesis.GetRecordsOutput, page *Page) error {
	for _, c := range out.ChildShards {
		page.Children = append(page.Children, Child{ID: aws.ToString(c.ShardId), Parents: slices.Clone(c.ParentShards)})
	}
	switch {
	case aws.ToString(out.NextShardIterator) != "":
		p.ends, page.Children = 0, nil
		return nil
	case len(page.Children) > 0:
		page.End = true
		return nil
	case len(page.Records) > 0:
		p.ends = 0
		return nil // these are read, and the next iterator begins behind them
	}
	if behind := out.MillisBehindLatest; behind == nil || *behind > 0 {
		return fmt.Errorf("reading shard %s: the service says that it has ended, and that there is more", p.shard.ID)
	}
	if p.ends++; p.ends < endsNeeded {
		return errEndUnconfirmed
	}
	p.ends = 0
	listed, children, err := find(ctx, p.api, p.shard)
	if err != nil {
		return err
	}
	if !listed.Closed {
		return fmt.Errorf("reading shard %s: the service says that it has ended, and lists it as open", p.shard.ID)
	}
	page.End, page.Children = true, children
	return nil
}

// seek makes an iterator at the position. A sequence number tells the shard. Without
// one the shard of the same id in a stream that was made anew would be read, before
// its parents perhaps: so the stream has to list the shard that is meant.
func (p *Poller) seek(ctx context.Context) error {
	if p.position.After == "" {
		if err := p.identify(ctx); err != nil {
			return err
		}
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

// enoughRefusals is after how many refusals of its list a shard is read all the same,
// for those who may not list shards.
const enoughRefusals = 3

func (p *Poller) identify(ctx context.Context) error {
	listed, ok, err := p.lists.Find(ctx, p.shard.Stream, p.shard.ID)
	if err != nil {
		api, answered := errors.AsType[smithy.APIError](err)
		if answered && strings.HasPrefix(api.ErrorCode(), "AccessDenied") {
			if p.refused++; p.refused > enoughRefusals {
				return nil
			}
		}
		return classify(err)
	}
	p.refused = 0
	if ok && p.shard.FirstSequence != "" && listed.FirstSequence != p.shard.FirstSequence {
		return fmt.Errorf("%w any more: its stream was made anew", ErrShardGone)
	}
	return nil
}

// checkPosition finds out whether a position that the service has refused can be
// one of this shard. If it cannot, the stream was deleted and made anew: the shard
// that was to be read is gone, and who reads the one that took its id, and from
// where, is to be decided afresh. A refusal alone proves nothing.
func (p *Poller) checkPosition(ctx context.Context) error {
	listed, _, err := find(ctx, p.api, p.shard)
	if err != nil {
		return err
	}
	if !listed.Holds(p.position.After) {
		return fmt.Errorf("%w any more: sequence number %s is of an earlier stream of the same name", ErrShardGone, p.position.After)
	}
	if listed.LastSequence != "" && sequence.Compare(p.position.After, listed.LastSequence) > 0 {
		return fmt.Errorf("shard %s ends with sequence number %s, and the table has %s for it: remove its item to read the shard from its start",
			p.shard.ID, listed.LastSequence, p.position.After)
	}
	return nil
}

// recover prepares for the next call after one that failed and returns the pause
// before it.
func (p *Poller) recover(err error) time.Duration {
	if errors.Is(err, ErrThrottled) {
		return p.pace.afterThrottle(time.Now(), rand.Float64()) //nolint:gosec // spreads load, guards nothing
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
	api, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		return err
	}
	switch api.ErrorCode() {
	case "ProvisionedThroughputExceededException", "LimitExceededException",
		"ThrottlingException", "Throttling", "RequestLimitExceeded", "KMSThrottlingException":
		return fmt.Errorf("%w: %w", ErrThrottled, err)
	}
	return err
}
