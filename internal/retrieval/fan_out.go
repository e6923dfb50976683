package retrieval

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kinesis"
)

// FanOutAPI is what enhanced fan-out uses of the Kinesis client beside subscribing.
type FanOutAPI interface {
	DescribeStreamSummary(context.Context, *kinesis.DescribeStreamSummaryInput, ...func(*kinesis.Options)) (*kinesis.DescribeStreamSummaryOutput, error)
	DescribeStreamConsumer(context.Context, *kinesis.DescribeStreamConsumerInput, ...func(*kinesis.Options)) (*kinesis.DescribeStreamConsumerOutput, error)
	RegisterStreamConsumer(context.Context, *kinesis.RegisterStreamConsumerInput, ...func(*kinesis.Options)) (*kinesis.RegisterStreamConsumerOutput, error)
	ListStreamConsumers(context.Context, *kinesis.ListStreamConsumersInput, ...func(*kinesis.Options)) (*kinesis.ListStreamConsumersOutput, error)
	DeregisterStreamConsumer(context.Context, *kinesis.DeregisterStreamConsumerInput, ...func(*kinesis.Options)) (*kinesis.DeregisterStreamConsumerOutput, error)
}

// SubscribeFunc opens a subscription, and returns the body of the answer once its header
// is there. ctx bounds the body too.
type SubscribeFunc func(ctx context.Context, in *kinesis.SubscribeToShardInput) (io.ReadCloser, error)

// FanOutConfig says as which consumer a stream is read.
type FanOutConfig struct {
	// Stream is a name or an ARN.
	Stream string
	// Name is that of the consumer, which is registered when it is missing. ARN names one
	// that is there, instead.
	Name, ARN string
	// Activation is how long a consumer is waited for that is being registered.
	Activation time.Duration
	// Longest is the longest pause between two attempts to subscribe, a second at least.
	Longest time.Duration
	// OnRegister is called when this process has registered the consumer; nil for no call.
	OnRegister func(name, arn string)
	// OnSearch is called with what came of each search for the consumer, one after the
	// other; nil for no call.
	OnSearch func(err error)
}

// FanOut is the consumer as which a stream is read by enhanced fan-out, with the
// subscriptions that this process has. It finds the consumer when the first shard is to
// be read, and registers it when it is missing; all shards share what comes of that. The
// input makes one for each stream. It is safe for concurrent use.
type FanOut struct {
	api       FanOutAPI
	subscribe SubscribeFunc
	life      context.Context //nolint:containedctx // of the search for the consumer, which is nobody's own
	conf      FanOutConfig

	searches sync.WaitGroup
	// turns has a token for each subscription that is being opened.
	turns chan struct{}

	mu    sync.Mutex
	slots map[string]*slot // by id
	open  int              // subscriptions
	arn   string           // of the consumer; empty until it is found
	// made is the ARN of the consumer that this process has registered last, which may
	// never have become active here; empty when it has registered none.
	made      string
	searching chan struct{} // closed when the search under way has ended; nil when there is none
	// After a search that failed none is made before retry, and all who ask get its error.
	err      error
	failures int
	retry    time.Time
}

// subscribesAtOnce bounds the subscriptions of a stream that are being opened, so that a
// process which starts on a thousand shards does not make as many handshakes at once.
const subscribesAtOnce = 64

// slot is the place of the one subscription that a shard may have in this process.
type slot struct {
	token  chan struct{} // cap 1: is full while a source subscribes, or is subscribed
	pace   resubscriber  // of the source that has the token
	choice chooser       // of the source that reads the shard, one at a time
	since  time.Time     // when the token was last put back
	held   int           // sources that use the slot
}

// NewFanOut returns the consumer of a stream, which is looked for as long as life lasts.
func NewFanOut(life context.Context, api FanOutAPI, subscribe SubscribeFunc, conf FanOutConfig) *FanOut {
	return &FanOut{
		api: api, subscribe: subscribe, life: life, conf: conf,
		turns: make(chan struct{}, subscribesAtOnce), slots: map[string]*slot{},
	}
}

// Wait returns when no search for the consumer is under way, after the end of life.
func (f *FanOut) Wait() { f.searches.Wait() }

// Searching reports whether the consumer is being looked for: whoever has no subscription
// waits for that.
func (f *FanOut) Searching() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.searching != nil
}

// Open returns how many subscriptions are open.
func (f *FanOut) Open() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.open
}

func (f *FanOut) count(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open += n
}

// slotKept is how long the pace of a shard is kept that is not read any more, should it
// come back: longer than any limit of the service looks back.
const slotKept = time.Minute

// join returns the slot of a shard for a source, until it leaves.
func (f *FanOut) join(shard string) *slot {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.slots[shard]
	if s == nil {
		s = &slot{token: make(chan struct{}, 1), pace: resubscriber{longest: f.conf.Longest}}
		f.slots[shard] = s
	}
	s.held++
	return s
}

// leave ends the use of a slot, and forgets those that nobody needs any more.
func (f *FanOut) leave(s *slot) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s.held--
	s.since = time.Now()
	for id, other := range f.slots {
		if other.held == 0 && time.Since(other.since) > slotKept {
			delete(f.slots, id)
		}
	}
}
