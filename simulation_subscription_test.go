package awskinesis

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/session"
)

// Enhanced fan-out as one client reaches it, over a network with faults.

// readingWay is how a client is configured to read.
type readingWay int

const (
	polls readingWay = iota
	subscribes
	chooses
)

func seeded(seed uint64, purpose string) *rand.Rand {
	h := fnv.New64a()
	_, _ = h.Write([]byte(purpose))
	return rand.New(rand.NewPCG(seed, h.Sum64()))
}

// drawWay draws how a client reads, and returns its configuration.
func (s *simulation) drawWay(c *simulatedClient) config {
	conf := s.conf
	if !s.fanned {
		return conf
	}
	d := seeded(s.seed, c.name+"/way")
	c.way = readingWay(d.IntN(3))
	if c.way != polls {
		conf.fanOut = fanOutConfig{
			enabled: true, auto: c.way == chooses, name: "fleet" + s.group, activation: 30 * time.Second,
			resubscribe: time.Duration(1+d.IntN(10)) * time.Second, deregister: d.IntN(4) == 0,
		}
	}
	return conf
}

// strikes rolls for a fault that meets some of as many requests as meet one at all.
func (c *simulatedClient) strikes(purpose string, some float64) bool {
	return c.sim.faulty && c.roll(purpose).Float64() < some*c.sim.faultRate
}

// simulatedFanOut is the consumers as one client reaches them.
type simulatedFanOut struct{ *simulatedClient }

func callConsumers[T any](ctx context.Context, c simulatedFanOut, op string, serve func() (*T, error)) (*T, error) {
	ctx, cancel := context.WithTimeout(ctx, session.AttemptTimeout)
	defer cancel()
	if c.emptied(op+" consumer", "") {
		return new(T), nil
	}
	return request(ctx, c.simulatedClient, op+" consumer", serve)
}

func (c simulatedFanOut) DescribeStreamSummary(ctx context.Context, in *kinesis.DescribeStreamSummaryInput, _ ...func(*kinesis.Options)) (*kinesis.DescribeStreamSummaryOutput, error) {
	return callConsumers(ctx, c, "summary", func() (*kinesis.DescribeStreamSummaryOutput, error) {
		s := c.sim
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.streams[*in.StreamName] == nil {
			return nil, unknownConsumer("no such stream")
		}
		return &kinesis.DescribeStreamSummaryOutput{StreamDescriptionSummary: &types.StreamDescriptionSummary{StreamARN: aws.String(streamARNs + *in.StreamName)}}, nil
	})
}

func (c simulatedFanOut) DescribeStreamConsumer(ctx context.Context, in *kinesis.DescribeStreamConsumerInput, _ ...func(*kinesis.Options)) (*kinesis.DescribeStreamConsumerOutput, error) {
	return callConsumers(ctx, c, "describe", func() (*kinesis.DescribeStreamConsumerOutput, error) { return c.sim.describeConsumer(in) })
}

func (c simulatedFanOut) RegisterStreamConsumer(ctx context.Context, in *kinesis.RegisterStreamConsumerInput, _ ...func(*kinesis.Options)) (*kinesis.RegisterStreamConsumerOutput, error) {
	c.sim.mu.Lock()
	delay := time.Duration(c.roll("activation").Float64() * float64(10*time.Second))
	c.sim.mu.Unlock()
	return callConsumers(ctx, c, "register", func() (*kinesis.RegisterStreamConsumerOutput, error) { return c.sim.register(in, delay) })
}

func (c simulatedFanOut) ListStreamConsumers(context.Context, *kinesis.ListStreamConsumersInput, ...func(*kinesis.Options)) (*kinesis.ListStreamConsumersOutput, error) {
	return nil, errRefused
}

func (c simulatedFanOut) DeregisterStreamConsumer(ctx context.Context, in *kinesis.DeregisterStreamConsumerInput, _ ...func(*kinesis.Options)) (*kinesis.DeregisterStreamConsumerOutput, error) {
	return callConsumers(ctx, c, "deregister", func() (*kinesis.DeregisterStreamConsumerOutput, error) {
		return &kinesis.DeregisterStreamConsumerOutput{}, c.sim.deregister(*in.ConsumerARN)
	})
}

// subscribe makes one call to subscribe to a shard.
func (c simulatedFanOut) subscribe(ctx context.Context, in *kinesis.SubscribeToShardInput) (io.ReadCloser, error) {
	of, _, _ := strings.Cut(strings.TrimPrefix(*in.ConsumerARN, streamARNs), "/")
	key := lease.Key{Stream: of, Shard: *in.ShardId}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	c.calls(key)
	s := c.sim
	s.tells(key, c.name, "subscribes after "+aws.ToString(in.StartingPosition.SequenceNumber), nil)
	if err := c.passable(ctx, toFanOut); err != nil {
		return nil, err
	}
	c.subscribes(key)
	body, err := c.open(ctx, key, in)
	if err != nil {
		c.unsubscribed(key)
		return nil, err
	}
	c.subscribed(key)
	return body, nil
}

// toFanOut is the gate of a client whose cut from the table is one from Kinesis' streams
// of events, too.
func toFanOut(c *simulatedClient) chan struct{} {
	if c.severed {
		return c.apart
	}
	return nil
}

// open opens a subscription, with the faults that a request meets.
func (c simulatedFanOut) open(ctx context.Context, key lease.Key, in *kinesis.SubscribeToShardInput) (io.ReadCloser, error) {
	s := c.sim
	f := c.fault("subscribe " + key.Shard)
	if f.kind != faultNone {
		s.tally.add("fault: call: " + [...]string{"", "refused", "lost", "answer lost", "late", "endless"}[f.kind])
	}
	switch f.kind {
	case faultRefused:
		s.mu.Lock()
		defer s.mu.Unlock()
		refusals := []error{
			errRefused, &types.LimitExceededException{Message: aws.String("too many calls")},
			&types.ResourceInUseException{Message: aws.String("somebody else")}, &types.ResourceNotFoundException{Message: aws.String("not found for a moment")},
		}
		return nil, refusals[c.roll("refusal "+key.Shard).IntN(len(refusals))]
	case faultEndless:
		<-ctx.Done()
		return nil, ctx.Err()
	case faultLate:
		s.network.Go(func() {
			_ = wait(context.Background(), f.late)
			_, _ = s.subscribe(c.simulatedClient, in)
		})
		<-ctx.Done()
		return nil, ctx.Err()
	case faultNone, faultLost, faultMuted:
	}
	if err := wait(ctx, f.before); err != nil {
		return nil, err
	}
	if f.kind == faultLost {
		return nil, errNoAnswer
	}
	c.arrives(key)
	sub, err := s.subscribe(c.simulatedClient, in)
	if waited := wait(ctx, f.after); waited != nil {
		return nil, waited
	}
	s.tells(key, c.name, "is answered", err)
	switch {
	case err != nil:
		return nil, err
	case f.kind == faultMuted:
		return nil, errNoAnswer
	}
	if err := c.passable(ctx, toFanOut); err != nil {
		return nil, err
	}
	return c.connect(ctx, key, sub), nil
}

// connection is the body of an answer. What the service sends goes through a channel, which
// is what the network holds, and a pipe.
type connection struct {
	client  *simulatedClient
	ctx     context.Context //nolint:containedctx // of the request, which bounds its body
	key     lease.Key
	out     *io.PipeReader
	end     context.CancelFunc
	endOnce sync.Once
	// cut is closed when the connection is lost, of which nobody hears but with reset.
	cut   chan struct{}
	reset bool
}

var errReset = errors.New("connection reset by peer")

// connect has a subscription served. All that it starts ends with ctx, or with Close.
func (c simulatedFanOut) connect(ctx context.Context, key lease.Key, sub *simulatedSubscription) *connection {
	s := c.sim
	life, end := context.WithCancel(ctx)
	out, in := io.Pipe()
	conn := &connection{client: c.simulatedClient, ctx: ctx, key: key, out: out, end: end, cut: make(chan struct{})}
	s.mu.Lock()
	frames := make(chan []byte, c.roll("held "+key.Shard).IntN(5))
	c.connections[key] = conn
	hangs := c.strikes("hang "+key.Shard, 0.5)
	s.mu.Unlock()
	if hangs {
		s.tally.add("fault: hang after the header")
		conn.lose(false)
	}
	s.network.Go(func() { sub.serve(life, frames) })
	s.network.Go(func() {
		defer end()
		_ = in.CloseWithError(conn.carry(life, frames, in))
	})
	context.AfterFunc(life, func() { _ = in.CloseWithError(context.Canceled) })
	return conn
}

// lose cuts the connection. The simulation need not be locked, and may be.
func (conn *connection) lose(reset bool) {
	conn.endOnce.Do(func() {
		conn.reset = reset
		close(conn.cut)
	})
}

// carry carries frames to the client until the connection ends, and returns how: without
// an error where the service has ended it.
func (conn *connection) carry(ctx context.Context, frames <-chan []byte, in io.Writer) error {
	for {
		select { // a cut comes before whatever else is ready
		case <-conn.cut:
			return conn.lost(ctx)
		default:
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-conn.cut:
			return conn.lost(ctx)
		case frame, more := <-frames:
			if !more {
				return nil
			}
			if err := conn.deliver(ctx, frame, in); err != nil {
				return err
			}
		}
	}
}

func (conn *connection) lost(ctx context.Context) error {
	if !conn.reset {
		<-ctx.Done()
	}
	return errReset
}

// deliver carries one frame, or a part of it.
func (conn *connection) deliver(ctx context.Context, frame []byte, in io.Writer) error {
	c := conn.client
	s := c.sim
	s.mu.Lock()
	d := c.roll("frame " + conn.key.Shard)
	delay := time.Duration(d.Int64N(int64(10 * time.Millisecond)))
	kind := -1
	if c.strikes("frame "+conn.key.Shard, 0.2) {
		kind = d.IntN(4)
	}
	where := d.IntN(len(frame))
	long := time.Duration(d.Float64() * float64(20*time.Second))
	s.mu.Unlock()
	if kind >= 0 {
		s.tally.add("fault: frame: " + []string{"cut within", "corrupt", "silence after", "slow"}[kind])
	}
	if kind == 3 {
		delay = long
	}
	if err := wait(ctx, delay); err != nil {
		return err
	}
	switch kind {
	case 0:
		_, _ = in.Write(frame[:where])
		return io.ErrUnexpectedEOF
	case 1:
		frame[where] ^= 1 << (where % 8)
	}
	select {
	case <-conn.cut:
		return conn.lost(ctx)
	default:
	}
	if _, err := in.Write(frame); err != nil {
		return err
	}
	if kind == 2 {
		conn.lose(false)
	}
	return nil
}

// Read reads what has come. A process that stands still gets it when it goes on.
func (conn *connection) Read(p []byte) (int, error) {
	if err := conn.client.passable(conn.ctx, toStream); err != nil {
		return 0, err
	}
	n, err := conn.out.Read(p)
	if halted := conn.client.passable(conn.ctx, toStream); halted != nil {
		return 0, halted
	}
	return n, err
}

func (conn *connection) Close() error {
	conn.end()
	conn.client.disconnected(conn)
	return conn.out.Close()
}

// sever cuts the connections of a client, with some of the cuts from the table. The
// simulation is locked.
func (s *simulation) sever(c *simulatedClient) {
	if !s.fanned {
		return
	}
	d := c.roll("sever")
	if c.severed = d.IntN(2) == 0; !c.severed {
		return
	}
	reset := d.IntN(2) == 0
	for _, conn := range c.connections {
		s.tally.add("fault: connection severed")
		conn.lose(reset)
	}
}

// What the verifier judges of subscriptions: a process has one of a shard at most, begins
// none without the lease, and keeps the service's limits where it was alone to do so.

// calls checks the time of a call, of which the process has the answers to those before.
func (c *simulatedClient) calls(key lease.Key) {
	s := c.sim
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tally.add("calls to subscribe")
	now, before := time.Now(), c.subscribing[key]
	if before == nil {
		before = &subscribing{}
		c.subscribing[key] = before
	}
	sh := s.listedShard(key)
	switch {
	case before.open:
		s.broken(sh, "%s subscribes to shard %s while it has a subscription to it", c.name, key)
	case !before.called.IsZero() && now.Sub(before.called) < subscriptionSpace:
		s.broken(sh, "%s subscribes to shard %s %s after its last call", c.name, key, now.Sub(before.called))
	case !before.opened.IsZero() && now.Sub(before.opened) < subscriptionHolds:
		s.broken(sh, "%s subscribes to shard %s %s after it has subscribed to it, which the service refuses", c.name, key, now.Sub(before.opened))
	}
	before.called = now
}

// subscribing is what a process knows of its subscriptions to a shard.
type subscribing struct {
	open           bool // or to be opened
	called, opened time.Time
}

// subscribes notes that a subscription is being opened.
func (c *simulatedClient) subscribes(key lease.Key) {
	s := c.sim
	s.mu.Lock()
	defer s.mu.Unlock()
	sub := c.subscribing[key]
	if sub.open {
		s.broken(s.listedShard(key), "%s has two subscriptions to shard %s", c.name, key)
	}
	sub.open = true
}

// arrives checks that a subscription is begun under the lease, as its call arrives. Where
// reading begins while the lease is not proved, it makes a call which it takes back in the
// same moment. Trust that ends at this very moment may not have been noticed.
func (c *simulatedClient) arrives(key lease.Key) {
	s := c.sim
	s.mu.Lock()
	defer s.mu.Unlock()
	now, t := time.Now(), c.tenures[key]
	if t == nil || now.After(t.until) || c.standing[t.id] == nil || now.After(c.standing[t.id].until) {
		s.broken(s.listedShard(key), "%s subscribes to shard %s without a lease that it may trust: %v", c.name, key, t)
	}
}

func (c *simulatedClient) subscribed(key lease.Key) {
	s := c.sim
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tally.add("subscriptions")
	c.subscribing[key].opened = time.Now()
	if sh := s.listedShard(key); sh != nil {
		s.note(sh, c.name, "subscribes", textStringer(""))
	}
	c.reads(key, subscribes)
}

// tells notes an answer in the trail of a shard.
func (s *simulation) tells(key lease.Key, client, what string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sh := s.listedShard(key); sh != nil {
		s.note(sh, client, what, textStringer(fmt.Sprint(err)))
	}
}

func (c *simulatedClient) unsubscribed(key lease.Key) {
	c.sim.mu.Lock()
	defer c.sim.mu.Unlock()
	c.subscribing[key].open = false
}

func (c *simulatedClient) disconnected(conn *connection) {
	c.sim.mu.Lock()
	defer c.sim.mu.Unlock()
	if c.connections[conn.key] == conn {
		delete(c.connections, conn.key)
		c.subscribing[conn.key].open = false
	}
}

// reads counts the changes of the way in which a client that chooses reads a shard under
// one lease. The simulation is locked.
func (c *simulatedClient) reads(key lease.Key, way readingWay) {
	if c.way != chooses {
		return
	}
	before, known := c.ways[key]
	c.ways[key] = way
	switch {
	case !known || before == way:
	case way == subscribes:
		c.sim.tally.add(toFanOutWay)
	default:
		c.sim.tally.add(toPollingWay)
	}
}

const (
	toFanOutWay  = "changes of way: to fan-out"
	toPollingWay = "changes of way: to polling"
)

func (s *simulation) listedShard(key lease.Key) *progress {
	if st := s.streams[key.Stream]; st != nil && st.byID[key.Shard] != nil {
		return s.of(st.byID[key.Shard])
	}
	return nil
}

type textStringer string

func (t textStringer) String() string { return string(t) }

// tally counts what happened in all fleets of a test.
type tally struct {
	mu sync.Mutex
	of map[string]int
}

func (t *tally) add(what string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.of[what]++
}

// report logs the counts, and fails where many fleets have not changed their ways at all:
// the choice would not be tried any more.
func (t *tally) report(test *testing.T, seeds uint64) {
	test.Helper()
	t.mu.Lock()
	defer t.mu.Unlock()
	var lines []string
	for what, n := range t.of {
		lines = append(lines, fmt.Sprintf("%8d %s", n, what))
	}
	slices.SortFunc(lines, func(a, b string) int { return strings.Compare(a[9:], b[9:]) })
	test.Logf("in %d seeds:\n%s", seeds, strings.Join(lines, "\n"))
	if seeds >= 30 && (t.of[toFanOutWay] == 0 || t.of[toPollingWay] == 0) {
		test.Errorf("no shard has changed the way in which it is read: %d to fan-out, %d to polling", t.of[toFanOutWay], t.of[toPollingWay])
	}
}

// choosing reports whether a client is there that chooses.
func (s *simulation) choosing() bool {
	return slices.ContainsFunc(s.living(), func(c *simulatedClient) bool { return c.way == chooses })
}

// linger has the shards read long enough for a client that chooses to go over to fan-out
// and to come back, while records come in and nothing else goes wrong.
func (s *simulation) linger(t *testing.T) {
	t.Helper()
	if s.failed() || s.seed%2 != 0 || !s.choosing() {
		return
	}
	s.setCrowded(pollsThrottled)
	for range 8 {
		pass(10 * time.Second)
		s.feed()
	}
	s.setCrowded(fair)
	for range 12 {
		pass(time.Minute)
		s.feed()
	}
	s.calm(t)
}

func (s *simulation) setCrowded(w weather) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.crowded = w
}

// patience is how long it takes longer to read all where shards are subscribed: a
// connection that hangs is noticed after 35 s, and some attempts may have failed before.
func (s *simulation) patience() time.Duration {
	if s.fanned {
		return 2 * time.Minute
	}
	return 0
}
