package awsfake

import (
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Call is one request as hooks and faults see it. It is valid until the hook
// or predicate returns.
type Call struct {
	Service   string // "kinesis" or "dynamodb"; empty for an unknown target
	Operation string // such as "GetRecords"

	// Format in which it is answered, which is that of the request but for a fault.
	Format Format

	server  *Server
	body    []byte // in JSON, whatever it came in
	params  map[string]any
	refusal *Error // of who sends the request, nil for none
}

// Params is the decoded request; nil when its body is no JSON object.
func (c *Call) Params() map[string]any {
	if c.params == nil && json.Unmarshal(c.body, &c.params) != nil {
		c.params = nil
	}
	return c.params
}

func (c *Call) text(name string) string {
	s, _ := c.Params()[name].(string)
	return s
}

// Stream is the name of the stream that the request is about, however it names
// it: by name, ARN, a consumer's ARN or iterator. Empty when it names none.
func (c *Call) Stream() string {
	if name := c.text("StreamName"); name != "" {
		return name
	}
	if _, name, ok := strings.Cut(c.text("StreamARN"), ":stream/"); ok {
		return name
	}
	if _, name, _, ok := parseConsumerARN(c.text("ConsumerARN")); ok {
		return name
	}
	it, _ := parseIterator(c.text("ShardIterator"))
	return it.stream
}

// Shard is the full id of the shard that the request reads, from ShardId or an
// iterator. Empty when it names none.
func (c *Call) Shard() string {
	if id := c.text("ShardId"); id != "" {
		return id
	}
	it, err := parseIterator(c.text("ShardIterator"))
	if err != nil {
		return ""
	}
	return shardID(it.shard)
}

// Table is the TableName of the request.
func (c *Call) Table() string { return c.text("TableName") }

// Key is the key of the one item that the request is about; nil when there is
// none or it does not fit the table.
func (c *Call) Key() Item {
	in, err := decode[struct{ Key, Item Item }](c.body)
	if err != nil {
		return nil
	}
	if in.Key != nil {
		return in.Key
	}
	t, err := c.server.dynamodb.table(c.Table())
	if err != nil || in.Item == nil {
		return nil
	}
	return t.keyOf(in.Item)
}

// Fault is something that goes wrong with the requests that it matches. What
// it does is done in the order of the fields from Delay on; the zero values do
// nothing.
type Fault struct {
	// Service ("kinesis", "dynamodb") and Operation that it is for; empty: any.
	Service, Operation string
	// When narrows it further. It runs without locks and may run concurrently.
	When func(*Call) bool
	// Times it happens before it is spent. 0: always.
	Times int
	// Probability with which it happens to a matching request, drawn from
	// Rand. 0: always.
	Probability float64
	// Rand is required with a Probability, so that a failing test can name its
	// seed.
	Rand *rand.Rand

	// Format in which the answer is written, whatever the request is in. Empty: that
	// of the request. DynamoDB and subscriptions answer in their own alone.
	Format Format

	// Delay before anything takes effect. It ends early with the request, which
	// then takes no effect, as a request does that never arrived.
	Delay time.Duration
	// Refuse answers with this error; the request takes no effect.
	Refuse *Error
	// Answer is what the request gets with status 200; it takes no effect. Not nil,
	// it may be empty, as the body of an answer may that something on the way has
	// made.
	Answer []byte
	// Reply is what the request gets in place of an answer; it takes no effect.
	Reply *Reply
	// Lose breaks the connection; the request takes no effect.
	Lose bool
	// Late breaks the connection at once, and the request takes effect so much
	// later all the same, as one does that waited in a network queue.
	Late time.Duration
	// DelayAnswer holds the answer back after the request took effect.
	DelayAnswer time.Duration
	// LoseAnswer breaks the connection after the request took effect.
	LoseAnswer bool
	// ReplyAfter is what the request gets in place of its answer after it took effect.
	ReplyAfter *Reply
	// Cut leaves out the second half of the answer's body, and its length and the
	// connection tell nothing of it. A subscription stays as it is.
	Cut bool
	// Truncate breaks the connection in the middle of the answer's body, and of
	// its first frame where the answer is a subscription.
	Truncate bool
}

// Inject adds a fault behind those that are there; the first that matches a
// request happens to it. remove takes it away, and may be called again.
func (s *Server) Inject(f Fault) (remove func()) {
	if f.Probability > 0 && f.Rand == nil {
		panic("awsfake: a Fault with a Probability needs a Rand")
	}
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	stored := &f
	s.faults.list = append(s.faults.list, stored)
	return func() {
		s.faults.mu.Lock()
		defer s.faults.mu.Unlock()
		s.faults.list = remaining(s.faults.list, stored)
	}
}

// OnCall registers a hook that sees each request before anything happens to
// it, on the goroutine that serves it. The hook may block, which delays that
// request alone, and may use the server.
func (s *Server) OnCall(hook func(*Call)) (remove func()) {
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	stored := &hook
	s.faults.hooks = append(s.faults.hooks, stored)
	return func() {
		s.faults.mu.Lock()
		defer s.faults.mu.Unlock()
		s.faults.hooks = remaining(s.faults.hooks, stored)
	}
}

// remaining is a copy: requests walk the old list without the lock.
func remaining[T comparable](list []T, gone T) []T {
	return slices.DeleteFunc(slices.Clone(list), func(e T) bool { return e == gone })
}

// faults are what tests registered. Requests take the slices under mu and walk
// them without it, so the slices are replaced or appended to, never edited.
type faults struct {
	mu    sync.Mutex
	list  []*Fault
	hooks []*func(*Call)
}

// match runs the hooks and returns the first fault that happens to c, or nil.
func (fs *faults) match(c *Call) *Fault {
	fs.mu.Lock()
	list, hooks := fs.list, fs.hooks
	fs.mu.Unlock()
	for _, hook := range hooks {
		(*hook)(c)
	}
	for _, f := range list {
		if f.matches(c) && fs.strikes(f) {
			return f
		}
	}
	return nil
}

func (f *Fault) matches(c *Call) bool {
	return (f.Service == "" || f.Service == c.Service) &&
		(f.Operation == "" || f.Operation == c.Operation) &&
		(f.When == nil || f.When(c))
}

// strikes draws and counts under the lock: of two concurrent requests, one has
// the last of a fault's Times. A fault that a third removed meanwhile is over.
func (fs *faults) strikes(f *Fault) bool {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if !slices.Contains(fs.list, f) || f.Probability > 0 && f.Rand.Float64() >= f.Probability {
		return false
	}
	if f.Times > 0 {
		f.Times--
		if f.Times == 0 {
			fs.list = remaining(fs.list, f)
		}
	}
	return true
}

func (s *Server) performUnder(ctx context.Context, f *Fault, c *Call) (answer, error) {
	if f.Format != "" && c.Service == serviceKinesis {
		c.Format = f.Format
	}
	if err := s.wait(ctx, f.Delay); err != nil {
		return answer{}, err
	}
	switch {
	case f.Refuse != nil:
		return s.refusal(c, f.Refuse), nil //nolint:nilerr // the refusal is the answer
	case f.Answer != nil:
		a := newAnswer(c.Service, http.StatusOK, f.Answer)
		a.format = c.Format
		return a, nil
	case f.Reply != nil:
		return f.Reply.answer(), nil
	case f.Lose:
		return answer{}, io.ErrUnexpectedEOF
	case f.Late > 0:
		s.performLate(f.Late, c)
		return answer{}, io.ErrUnexpectedEOF
	}
	a := s.perform(c)
	if err := s.wait(ctx, f.DelayAnswer); err != nil {
		a.lose()
		return answer{}, err
	}
	if f.LoseAnswer {
		a.lose()
		return answer{}, io.ErrUnexpectedEOF
	}
	if f.ReplyAfter != nil {
		a.lose()
		return f.ReplyAfter.answer(), nil
	}
	if f.Cut && a.subscription == nil {
		a.cut()
	}
	a.truncated = f.Truncate
	if a.subscription != nil {
		a.subscription.truncated = f.Truncate
	}
	return a, nil
}

// wait ends with the request or the server, whichever is first.
func (s *Server) wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(s.ctx, cancel)
	defer stop()
	err := s.clock.Wait(ctx, d)
	if err != nil && s.ctx.Err() != nil {
		return http.ErrServerClosed
	}
	return err
}

// performLate is dropped when the server closes first.
func (s *Server) performLate(d time.Duration, c *Call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.serving.Go(func() {
		if s.clock.Wait(s.ctx, d) == nil {
			a := s.perform(c)
			a.lose()
		}
	})
}

// counts of requests and refusals since the start.
type counts struct {
	mu      sync.Mutex
	calls   map[string]int
	refused map[[2]string]int // by operation and error code
}

func (c *counts) call(operation string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls[operation]++
}

func (c *counts) refuse(operation, code string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refused[[2]string{operation, code}]++
}

// Calls is the number of requests for an operation so far, also of those that
// were refused or lost.
func (s *Server) Calls(operation string) int {
	s.counts.mu.Lock()
	defer s.counts.mu.Unlock()
	return s.counts.calls[operation]
}

// Refused is the number of requests for an operation so far that were answered
// with an error of the given type.
func (s *Server) Refused(operation, code string) int {
	s.counts.mu.Lock()
	defer s.counts.mu.Unlock()
	return s.counts.refused[[2]string{operation, code}]
}
