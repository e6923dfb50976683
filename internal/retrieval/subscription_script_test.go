package retrieval_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/eventstream"
	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/retrieval"
)

// number is the sequence number of the nth record.
func number(n int) string { return fmt.Sprintf("%020d", n) }

// event is one of a subscription, whose records and continuation are by their number.
type event struct {
	records      []int
	continuation int // none when zero
	behind       time.Duration
	children     []string
}

func (e event) payload() string {
	records := []map[string]any{}
	for _, n := range e.records {
		records = append(records, map[string]any{"SequenceNumber": number(n), "PartitionKey": "key", "Data": fmt.Appendf(nil, "record %d", n)})
	}
	body := map[string]any{"Records": records, "MillisBehindLatest": e.behind.Milliseconds()}
	if e.continuation > 0 {
		body["ContinuationSequenceNumber"] = number(e.continuation)
	}
	if e.children != nil {
		children := []map[string]any{}
		for _, id := range e.children {
			children = append(children, map[string]any{"ShardId": id, "ParentShards": []string{shard}})
		}
		body["ChildShards"] = children
	}
	b, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// push is the service's end of a subscription.
type push struct {
	ctx  context.Context //nolint:containedctx // of the call, which bounds the body
	body *io.PipeWriter
	from types.StartingPosition
}

func (p *push) frame(payload string, headers ...string) []byte {
	message := eventstream.Message{Payload: []byte(payload)}
	for i := 0; i < len(headers); i += 2 {
		message.Headers.Set(headers[i], eventstream.StringValue(headers[i+1]))
	}
	var b bytes.Buffer
	if err := eventstream.NewEncoder().Encode(&b, message); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func (p *push) write(b []byte) bool {
	_, err := p.body.Write(b)
	return err == nil
}

func (p *push) start() bool {
	return p.write(p.frame("{}", ":message-type", "event", ":event-type", "initial-response"))
}

func (p *push) send(e event) bool {
	return p.write(p.frame(e.payload(), ":message-type", "event", ":event-type", "SubscribeToShardEvent"))
}

func (p *push) fail(exception string) {
	p.write(p.frame(`{"message":"sorry"}`, ":message-type", "exception", ":exception-type", exception))
}

// cut breaks the connection; to return from a script is to end the subscription cleanly.
func (p *push) cut() { p.body.CloseWithError(io.ErrUnexpectedEOF) }

// pass lets time pass, and is false when the subscription has ended meanwhile.
func (p *push) pass(d time.Duration) bool { return passed(p.ctx, d) }

func passed(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// idle says every five seconds that there is nothing, until a subscription's time is up.
func (p *push) idle(continuation int) {
	for until := time.Now().Add(5 * time.Minute); time.Now().Before(until); {
		if !p.send(event{continuation: continuation}) || !p.pass(5*time.Second) {
			return
		}
	}
}

// subscribed is a call of SubscribeToShard.
type subscribed struct {
	at   time.Duration // since the test began
	from types.StartingPosition
	arn  string
}

// after is the number of the record after which a subscription is to begin.
func (c subscribed) after() string { return aws.ToString(c.from.SequenceNumber) }

// world is a service by script, and what a source of it does.
type world struct {
	*testing.T
	begun time.Time
	// ctx is that of all sources. It ends, so that one which stands still fails its test.
	ctx context.Context //nolint:containedctx // the same in all calls, as Next wants it
	// serve is the nth subscription, from 1. refuse answers the nth call, before it is one;
	// nil for no refusal.
	serve  func(n int, p *push)
	refuse func(ctx context.Context, n int) error
	// crowded has the service not hold that calls come when they may, as where others
	// subscribe too.
	crowded bool

	mu                sync.Mutex
	subscriptions     []subscribed
	lastOpen          time.Time
	open, mostOpen    int
	started, finished int
	afters            []retrieval.Ending
	told              []error
	expired           []string
	waits             int

	registry *registry
	list     *listing
	fan      *retrieval.FanOut
	lists    *retrieval.Lists
	budget   *retrieval.Budget
	serving  sync.WaitGroup
}

// inWorld runs a test, and holds in the end that nothing is left of what it opened.
func inWorld(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		life, end := context.WithCancel(t.Context())
		w := &world{T: t, begun: time.Now(), registry: newRegistry(), list: newListing(), budget: retrieval.NewBudget(1 << 20)}
		w.serve = func(_ int, p *push) {
			if p.start() {
				p.idle(1)
			}
		}
		w.registry.add("group", types.ConsumerStatusActive)
		w.fan = retrieval.NewFanOut(life, w.registry, w.subscribe, retrieval.FanOutConfig{
			Stream: streamARN, Name: "group", Activation: time.Minute, Longest: 8 * time.Second,
		})
		w.lists = retrieval.NewLists(life, w.list)
		defer end()
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		w.ctx = ctx
		test(t, w)
		end()
		w.fan.Wait()
		w.lists.Wait()
		w.serving.Wait()
		require.Zero(t, w.budget.Held(), "bytes of the budget are lost")
		require.Zero(t, w.open, "subscriptions are open")
		require.Zero(t, w.fan.Open(), "subscriptions are counted as open")
		require.LessOrEqual(t, w.mostOpen, 1, "one subscription of a shard")
		require.Equal(t, w.started, w.finished, "hooks have to balance")
	})
}

const streamARN = "arn:aws:kinesis:us-east-1:123456789012:stream/" + stream

func (w *world) since() time.Duration { return time.Since(w.begun) }

// subscribe is the SubscribeFunc.
func (w *world) subscribe(ctx context.Context, in *kinesis.SubscribeToShardInput) (io.ReadCloser, error) {
	w.mu.Lock()
	call := subscribed{at: w.since(), from: *in.StartingPosition, arn: *in.ConsumerARN}
	if n := len(w.subscriptions); n > 0 && !w.crowded {
		if d := call.at - w.subscriptions[n-1].at; d < time.Second {
			w.Errorf("a call %s after one", d)
		}
		if d := time.Since(w.lastOpen); d < 5*time.Second {
			w.Errorf("a call %s after one that succeeded", d)
		}
	}
	w.subscriptions = append(w.subscriptions, call)
	n := len(w.subscriptions)
	w.mu.Unlock()
	if !w.registry.active(call.arn) {
		return nil, &types.ResourceNotFoundException{Message: aws.String("no consumer " + call.arn)}
	}
	if w.refuse != nil {
		if err := w.refuse(ctx, n); err != nil {
			return nil, err
		}
	}
	w.mu.Lock()
	w.lastOpen = time.Now()
	w.open++
	w.mostOpen = max(w.mostOpen, w.open)
	w.mu.Unlock()
	r, body := io.Pipe()
	own, cancel := context.WithCancel(ctx)
	context.AfterFunc(own, func() { body.CloseWithError(own.Err()) })
	w.serving.Go(func() {
		w.serve(n, &push{ctx: own, body: body, from: call.from})
		_ = body.Close()
		<-own.Done()
	})
	return &openBody{PipeReader: r, end: func() {
		cancel()
		w.mu.Lock()
		defer w.mu.Unlock()
		w.open--
	}}, nil
}

type openBody struct {
	*io.PipeReader
	once sync.Once
	end  func()
}

func (b *openBody) Close() error {
	b.once.Do(b.end)
	return b.PipeReader.Close()
}

func (w *world) hooks() retrieval.Hooks {
	return retrieval.Hooks{
		OnCall: func(c retrieval.Call) {
			if c.Err != nil {
				w.told = append(w.told, c.Err)
			}
		},
		OnBudgetWait: func() { w.waits++ },
		OnSubscribe: func(after retrieval.Ending) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.started++
			w.afters = append(w.afters, after)
		},
		OnUnsubscribe: func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.finished++
		},
		OnExpire: func(after string) { w.expired = append(w.expired, after) },
	}
}

var theShard = retrieval.Shard{Stream: streamARN, ID: shard, FirstSequence: number(0)}

// source returns a subscriber, which is closed with the test.
func (w *world) source(from retrieval.Position) *retrieval.Subscriber {
	return retrieval.NewSubscriber(w.list, w.fan, w.lists, theShard, from, w.budget, w.hooks())
}

// next returns a page, of which it holds nothing.
func (w *world) next(s *retrieval.Subscriber) retrieval.Page {
	page, err := s.Next(w.ctx)
	require.NoError(w, err)
	w.budget.Release(page.Cost)
	return page
}

// collect reads until there are n records, and returns their sequence numbers.
func (w *world) collect(s *retrieval.Subscriber, n int) (got []string) {
	for len(got) < n {
		for _, r := range w.next(s).Records {
			got = append(got, r.SequenceNumber)
		}
	}
	return got
}

func numbers(ns ...int) (all []string) {
	for _, n := range ns {
		all = append(all, number(n))
	}
	return all
}

// calls are the times of the calls of SubscribeToShard.
func (w *world) calls() (at []time.Duration) {
	for _, c := range w.subscriptions {
		at = append(at, c.at)
	}
	return at
}

// listing is a stream as ListShards tells of it.
type listing struct {
	shards []types.Shard
	err    error
	calls  int
}

func newListing() *listing {
	return &listing{shards: []types.Shard{{ShardId: aws.String(shard), SequenceNumberRange: &types.SequenceNumberRange{StartingSequenceNumber: aws.String(number(0))}}}}
}

// close closes the shard for one child.
func (l *listing) close(last int, child string) {
	l.shards[0].SequenceNumberRange.EndingSequenceNumber = aws.String(number(last))
	l.shards = append(l.shards, types.Shard{ShardId: &child, ParentShardId: aws.String(shard)})
}

func (l *listing) ListShards(context.Context, *kinesis.ListShardsInput, ...func(*kinesis.Options)) (*kinesis.ListShardsOutput, error) {
	l.calls++
	if l.err != nil {
		return nil, l.err
	}
	return &kinesis.ListShardsOutput{Shards: l.shards}, nil
}

// coded is an error of the service of which nothing but the code is known.
func coded(code string) error { return &smithy.GenericAPIError{Code: code, Message: "sorry"} }
