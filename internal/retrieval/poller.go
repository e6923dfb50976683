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
)

// API is what a Poller uses of the Kinesis client. The client should leave
// throttled calls to the poller, which knows what the shard can bear.
type API interface {
	GetShardIterator(context.Context, *kinesis.GetShardIteratorInput, ...func(*kinesis.Options)) (*kinesis.GetShardIteratorOutput, error)
	GetRecords(context.Context, *kinesis.GetRecordsInput, ...func(*kinesis.Options)) (*kinesis.GetRecordsOutput, error)
}

// Shard names a shard for the service.
type Shard struct {
	// Stream is a name or an ARN.
	Stream string
	// ID is the full id, shardId- and twelve digits.
	ID string
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
	// OnThrottle is called for each throttled call.
	OnThrottle func()
	// OnTrouble is called for each call that failed otherwise and is retried.
	OnTrouble func(error)
	// OnStarving is called when a read has to wait for the budget.
	OnStarving func()
}

// Poller is the source that asks with GetRecords, paced by the limits of a shard
// and by how lately it had records. A consumer makes one and calls Next from one
// goroutine; there is nothing to end.
type Poller struct {
	api   API
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

	pace     pacer
	nextCall time.Time
	failures int   // calls in a row
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

// NewPoller returns a poller that begins at from, holds its pages within a budget
// that it may share, and leaves at least the given time between two reads; zero
// leaves that to the shard's limits and its records.
func NewPoller(api API, shard Shard, from Position, budget *Budget, least time.Duration, hooks Hooks) *Poller {
	return &Poller{
		api: api, shard: shard, hooks: hooks, budget: budget, behind: true,
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
		page, err := p.read(ctx)
		if err == nil {
			p.failures = 0
			return page, nil
		}
		if ctx.Err() != nil {
			return Page{}, ctx.Err()
		}
		if errors.Is(err, ErrShardGone) {
			return Page{}, err
		}
		p.nextCall = time.Now().Add(p.recover(err))
	}
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

func (p *Poller) read(ctx context.Context) (Page, error) {
	if p.iterator == "" {
		if err := p.seek(ctx); err != nil {
			return Page{}, err
		}
	}
	expected := int64(livePage)
	if p.behind {
		expected = p.expected
	}
	reserved, err := p.budget.Reserve(ctx, expected, p.hooks.OnStarving)
	if err != nil {
		return Page{}, err
	}
	var page Page
	defer func() { p.budget.Release(reserved - page.Cost) }()

	start := time.Now()
	_, arn := StreamParameters(p.shard.Stream)
	out, err := p.api.GetRecords(ctx, &kinesis.GetRecordsInput{ShardIterator: &p.iterator, StreamARN: arn, Limit: &p.limit})
	if err != nil {
		return Page{}, fmt.Errorf("reading shard %s: %w", p.shard.ID, classify(err))
	}

	page = Page{
		Records: make([]Record, 0, len(out.Records)),
		Behind:  time.Duration(aws.ToInt64(out.MillisBehindLatest)) * time.Millisecond,
		End:     out.NextShardIterator == nil,
	}
	bytes := 0
	for _, r := range out.Records {
		page.Records = append(page.Records, Record{
			Data:           r.Data,
			SequenceNumber: aws.ToString(r.SequenceNumber),
			PartitionKey:   aws.ToString(r.PartitionKey),
			Arrived:        aws.ToTime(r.ApproximateArrivalTimestamp),
		})
		page.Cost += page.Records[len(page.Records)-1].Cost()
		bytes += len(r.Data) + len(aws.ToString(r.PartitionKey))
	}
	p.behind = page.Behind > 0
	for _, c := range out.ChildShards {
		page.Children = append(page.Children, Child{ID: aws.ToString(c.ShardId), Parents: slices.Clone(c.ParentShards)})
	}

	if n := len(page.Records); n > 0 {
		p.position = Position{After: page.Records[n-1].SequenceNumber}
		p.limit = limitAfter(n, bytes)
		// Its payloads come in base64, and are held until they are decoded.
		each := (page.Cost + heapFactor*int64(bytes)*4/3) / int64(n)
		p.expected = min(max(each*int64(p.limit), livePage), fullPage)
	}
	p.iterator, p.ended = aws.ToString(out.NextShardIterator), page.End
	p.nextCall = start.Add(p.pace.afterPage(start, len(page.Records), bytes, page.Behind, rand.Float64())) //nolint:gosec // spreads load, guards nothing
	return page, nil
}

// seek makes an iterator at the position.
func (p *Poller) seek(ctx context.Context) error {
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
			return fmt.Errorf("shard %s has no sequence number %s, which was recorded for another stream of the same name; reading begins at the oldest record: %w: %w",
				p.shard.ID, p.position.After, errPositionRejected, err)
		}
		return fmt.Errorf("making an iterator of shard %s: %w", p.shard.ID, classify(err))
	}
	p.iterator = aws.ToString(out.ShardIterator)
	return nil
}

// recover prepares for the next call after one that failed and returns the pause
// before it.
func (p *Poller) recover(err error) time.Duration {
	switch {
	case errors.Is(err, errIteratorExpired):
		p.iterator = ""
		return 0
	case errors.Is(err, errPositionRejected):
		p.position = Position{}
	case errors.Is(err, errThrottled):
		if p.hooks.OnThrottle != nil {
			p.hooks.OnThrottle()
		}
		return p.pace.afterThrottle(time.Now(), rand.Float64()) //nolint:gosec // spreads load, guards nothing
	}
	p.iterator = "" // it may be what the service objects to
	p.failures++
	if p.hooks.OnTrouble != nil {
		p.hooks.OnTrouble(err)
	}
	pause := min(250*time.Millisecond<<min(p.failures-1, 10), 10*time.Second)
	return pause/2 + time.Duration(rand.Float64()*float64(pause)) //nolint:gosec // spreads load, guards nothing
}

var (
	errIteratorExpired  = errors.New("iterator expired")
	errThrottled        = errors.New("throttled")
	errPositionRejected = errors.New("position rejected")
)

// classify wraps an error of the service in what is to be done about it.
func classify(err error) error {
	if _, gone := errors.AsType[*types.ResourceNotFoundException](err); gone {
		return fmt.Errorf("%w: %w", ErrShardGone, err)
	}
	if _, expired := errors.AsType[*types.ExpiredIteratorException](err); expired {
		return errIteratorExpired
	}
	api, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		return err
	}
	switch api.ErrorCode() {
	case "ProvisionedThroughputExceededException", "LimitExceededException",
		"ThrottlingException", "Throttling", "RequestLimitExceeded", "KMSThrottlingException":
		return fmt.Errorf("%w: %w", errThrottled, err)
	}
	return err
}
