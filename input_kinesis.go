// Package awskinesis is an input of Benthos that reads AWS Kinesis Data Streams,
// registered under the name aws_kinesis.
//
// Authoritative are the stream, for which shards there are, and one DynamoDB
// table, for who reads each of them and how far. Processes that share a table, and in
// it a group, share the shards. Each reads a shard under a lease, hands its records on in
// order, and commits a sequence number when everything up to it has been
// acknowledged; see docs/architecture.md for the guarantees and how each is kept.
//
// The input connects when the table is usable and every stream can be listed. It
// then runs until it is closed, or until all shards are finished that the
// configuration names explicitly, or read up to the end that it names. Faults of the services never end it: what can
// be retried is, what cannot be proved is waited for, and what was lost to
// another process is left to that process.
package awskinesis

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/benthosdev/benthos/v4/public/service"

	"github.com/benthos-plugins/aws-kinesis/internal/consumer"
	"github.com/benthos-plugins/aws-kinesis/internal/group"
	"github.com/benthos-plugins/aws-kinesis/internal/journal"
	"github.com/benthos-plugins/aws-kinesis/internal/lineage"
	"github.com/benthos-plugins/aws-kinesis/internal/metric"
	"github.com/benthos-plugins/aws-kinesis/internal/retrieval"
	"github.com/benthos-plugins/aws-kinesis/internal/retrieval/wire"
	"github.com/benthos-plugins/aws-kinesis/internal/session"
)

// Name is what the input is called in configurations.
const Name = "aws_kinesis"

func init() {
	if err := Register(service.GlobalEnvironment()); err != nil {
		panic(err)
	}
}

// Register adds the input to an environment, in place of any other of its name.
// Importing the package does so for the global environment.
func Register(env *service.Environment) error {
	return env.RegisterBatchInput(Name, configSpec(), func(conf *service.ParsedConfig, res *service.Resources) (service.BatchInput, error) {
		return newInput(conf, res)
	})
}

// logger is what the input uses of Benthos' logger.
type logger interface {
	Errorf(template string, args ...any)
	Warnf(template string, args ...any)
	Infof(template string, args ...any)
	Debugf(template string, args ...any)
}

// emit writes a line of the journal to the log, with the client and what the line is about
// as fields. They are called as the labels of metrics are: in streams mode Benthos has a
// field stream of its own.
func (in *input) emit(l journal.Line) {
	var fields []any
	with := func(name, value string) {
		if value != "" {
			fields = append(fields, name, value)
		}
	}
	if id := in.client.Load(); id != nil {
		with(labelClient, *id)
	}
	with(metric.LabelStream, l.Stream)
	with(metric.LabelShard, l.Shard)
	to := in.log(fields...)
	switch l.Level {
	case journal.Info:
		to.Infof("%s", l.Text)
	case journal.Warning:
		to.Warnf("%s", l.Text)
	case journal.Error:
		to.Errorf("%s", l.Text)
	}
}

// input is the component. Benthos calls Connect until it succeeds, then ReadBatch
// until Close.
type input struct {
	conf    config
	res     *service.Resources
	log     func(fields ...any) logger
	client  atomic.Pointer[string] // the id of the member; nil before the first
	signals *signals
	newID   func() string // of a member
	outbox  *consumer.Outbox
	bound   bound // set before running is

	mu      sync.Mutex
	running *balancing // nil until connected
	closed  bool
	// reading is the context of the ReadBatch that is under way, or of the Connect that waits
	// until the input is ready; nil between two.
	reading context.Context //nolint:containedctx // whether it has ended tells whether the host stops
	givenUp []givenUp       // oldest first
	// connected is the delivery for which Connect has returned though the input is not
	// ready; nil mostly.
	connected *consumer.Delivery
}

// bound is where reading ends.
type bound struct {
	end   time.Time // by the service's clock; zero where it does not end
	first bool      // whether this input was the first to say so
}

// balancing is a balancer with its life.
type balancing struct {
	ctx      context.Context //nolint:containedctx // the life
	cancel   context.CancelFunc
	out      <-chan *consumer.Delivery
	finished <-chan struct{}
	done     <-chan struct{} // closed when all has been released
	budget   *retrieval.Budget
}

func newInput(conf *service.ParsedConfig, res *service.Resources) (*input, error) {
	parsed, err := parseConfig(conf)
	if err != nil {
		return nil, err
	}
	return assemble(parsed, res), nil
}

// assemble makes an input of a configuration.
func assemble(conf config, res *service.Resources) *input {
	in := &input{outbox: consumer.NewOutbox(), conf: conf, res: res, newID: clientID}
	in.log = func(fields ...any) logger {
		if len(fields) == 0 {
			return res.Logger()
		}
		return res.Logger().With(fields...)
	}
	metrics := newMetrics(res.Metrics(), conf.shardMetrics)
	if !conf.deaggregate {
		metrics.idle = slices.Clone(ofAggregates)
	}
	if conf.maxRecordAge == 0 {
		metrics.idle = append(metrics.idle, "kinesis_skipped_records")
	}
	in.signals = newSignals(&in.conf, metrics, in.emit)
	return in
}

// clientID returns an id that is used for one session of one instance of the component
// and never again. It tells an operator which machine that is on. 80 random bits are
// enough for all that a table ever sees, and everybody reads them with each item.
func clientID() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return strings.ReplaceAll(host, "/", "-") + "-" + rand.Text()[:16]
}

// Connect checks the table and the streams and starts to balance. It leaves
// nothing behind when it fails. Benthos calls it again and logs the error each
// time, also where no stream or no table is named, which no time can mend.
func (in *input) Connect(ctx context.Context) error {
	in.mu.Lock()
	running, closed := in.running, in.closed
	in.mu.Unlock()
	if closed {
		return service.ErrEndOfInput
	}
	if running != nil {
		return in.awaitReady(ctx, running)
	}
	if in.conf.unnamed != nil {
		return in.conf.unnamed
	}

	kinesisConf, err := in.conf.kinesis.Load(ctx)
	if err != nil {
		return fmt.Errorf("loading the AWS session: %w", err)
	}
	dynamoConf := kinesisConf
	if in.conf.dynamodb != in.conf.kinesis {
		if dynamoConf, err = in.conf.dynamodb.Load(ctx); err != nil {
			return fmt.Errorf("loading the AWS session of `dynamodb`: %w", err)
		}
	}
	in.signals.about = map[string]session.About{
		serviceKinesis: in.conf.kinesis.About(kinesisConf, serviceKinesis),
		serviceTable:   in.conf.dynamodb.About(dynamoConf, serviceTable),
	}
	if err := in.conf.checkARNs(in.signals.about); err != nil {
		session.CloseIdle(kinesisConf)
		session.CloseIdle(dynamoConf)
		return err
	}
	lister := kinesis.NewFromConfig(kinesisConf)
	subscribing := session.Subscribing(kinesisConf)
	return in.connect(ctx, clients{
		lister: lister, fanOut: lister, subscribe: newSubscribe(subscribing),
		// The throttling of one shard must not slow down the reading of others.
		reader: newReader(kinesisConf, in.conf.wireFormat, session.AttemptTimeout, in.signals.detour),
		table:  dynamodb.NewFromConfig(dynamoConf),
		closeIdle: func() {
			session.CloseIdle(kinesisConf)
			session.CloseIdle(subscribing)
			session.CloseIdle(dynamoConf)
		},
	})
}

// newReader returns the client that polls: one that decodes pages by itself, skips
// most of the SDK's stack, and leaves throttled calls to the poller. format is wireJSON
// or wireCBOR, attempt the time-out of one attempt, that of the SDK's clients. onDetour is
// that of wire.NewDirect.
func newReader(conf aws.Config, format string, attempt time.Duration, onDetour func(reason string)) retrieval.API {
	install := wire.Install
	if format == wireCBOR {
		install = wire.InstallCBOR
	}
	return wire.NewDirect(kinesis.NewFromConfig(conf, install, func(o *kinesis.Options) {
		o.Retryer = session.CallerPaced()
	}), attempt, onDetour)
}

// newSubscribe returns what opens subscriptions. Each attempt is a subscriber's own, which
// knows when the service allows the next one.
func newSubscribe(conf aws.Config) retrieval.SubscribeFunc {
	client := kinesis.NewFromConfig(conf, func(o *kinesis.Options) { o.Retryer = aws.NopRetryer{} })
	return func(ctx context.Context, in *kinesis.SubscribeToShardInput) (io.ReadCloser, error) {
		return wire.Subscribe(ctx, client, in)
	}
}

// clients are the services as an input reaches them.
type clients struct {
	lister    shardLister
	reader    retrieval.API
	fanOut    retrieval.FanOutAPI
	subscribe retrieval.SubscribeFunc
	table     tableAPI
	closeIdle func()
}

func (in *input) connect(ctx context.Context, c clients) error {
	err := in.tryConnect(ctx, c)
	if err != nil {
		c.closeIdle()
	}
	return err
}

func (in *input) tryConnect(ctx context.Context, c clients) error {
	store := newCheckpointer(measured{c.table, in.signals.metrics}, in.conf.table, in.conf.group)
	created, err := store.ensureTable(ctx)
	if err != nil {
		return in.signals.explain(err, serviceTable, "")
	}
	if created {
		in.signals.say(journal.Info, "Table %s did not exist and was created", in.conf.table.name)
	}
	checkForm := func(ctx context.Context, stream string) error { return in.checkForm(ctx, c.lister, store, stream) }
	lists := make([]group.StreamSnapshot, 0, len(in.conf.streams))
	var missing []error
	for _, s := range in.conf.streams {
		begun := time.Now()
		list := firstList(ctx, c.lister, s, checkForm)
		if list.Err != nil {
			missing = append(missing, in.signals.explain(list.Err, serviceKinesis, s.id))
		}
		in.signals.clockIs(list.ServerTime, begun, time.Now())
		lists = append(lists, list)
	}
	if len(missing) == len(lists) {
		return errors.Join(missing...)
	}
	for _, list := range lists {
		if list.Err != nil { // it is looked for while the others are read
			in.signals.outcome(journal.Lists, list.Stream, list.Err, list.Listed)
			in.signals.missing(list.Stream, list.Err, list.Listed)
		}
	}
	if in.bound, err = in.boundOf(ctx, store, lists); err != nil {
		return in.signals.explain(err, serviceTable, "")
	}
	return in.start(c, store, lists, checkForm)
}

// boundOf returns where reading ends. For an input that ends at its first start that is
// the service's own time, agreed upon by the group: the local clock may be wrong, and
// another instance may have been first, or this one in an earlier life.
func (in *input) boundOf(ctx context.Context, store *checkpointer, lists []group.StreamSnapshot) (b bound, err error) {
	b.end = in.conf.endAt
	if in.conf.endNow {
		now := time.Time{}
		for _, list := range lists {
			if list.ServerTime.After(now) {
				// It has whole seconds, and what arrived in this one is to be read.
				now = list.ServerTime.Add(time.Second)
			}
		}
		if now.IsZero() {
			now = time.Now() // the service does not tell
		}
		if b.end, b.first, err = store.AgreeOnEnd(ctx, now); err != nil {
			return bound{}, err
		}
	}
	if !b.end.IsZero() {
		in.signals.say(journal.Info, "Each shard is read up to what arrived at %s, and the input ends when all have been", b.end.UTC().Format(time.RFC3339Nano))
	}
	return b, nil
}

// listStream lists the shards of a stream that is about to be read, and checks what
// the configuration and the table say of it.
func listStream(
	ctx context.Context, lister shardLister, s stream, checkForm func(ctx context.Context, stream string) error,
) ([]lineage.Shard, time.Time, error) {
	shards, serverTime, err := retrieval.ListShards(ctx, lister, s.id)
	if err != nil {
		return nil, time.Time{}, err
	}
	if err := checkShards(s, shards); err != nil {
		return nil, time.Time{}, err
	}
	return shards, serverTime, checkForm(ctx, s.id)
}

// checkForm warns when a stream that begins from nothing has items under its
// other form: by name and by ARN are two keys in the table.
func (in *input) checkForm(ctx context.Context, lister shardLister, store *checkpointer, stream string) error {
	list, err := store.List(ctx, stream, true)
	if err != nil || len(list.Items) > 0 {
		return err
	}
	_, other, isARN := strings.Cut(stream, ":stream/")
	if !isARN {
		out, err := lister.DescribeStreamSummary(ctx, &kinesis.DescribeStreamSummaryInput{StreamName: &stream})
		if err != nil {
			// It may not be permitted, and is worth no more than a warning.
			in.log().Debugf("Whether stream %s has checkpoints under its ARN is not known: %v", stream, err)
			return nil
		}
		if out.StreamDescriptionSummary == nil {
			in.log().Debugf("Whether stream %s has checkpoints under its ARN is not known: the answer describes nothing", stream)
			return nil
		}
		other = aws.ToString(out.StreamDescriptionSummary.StreamARN)
	}
	if list, err = store.List(ctx, other, true); err != nil || len(list.Items) == 0 {
		return err
	}
	in.signals.say(journal.Warning, "Stream %s has no checkpoints and is read from its start. There are %d under %s, the same stream written otherwise: to go on there, stop this pipeline, delete the items of %s from table %s, and write `%s` in `streams`",
		stream, len(list.Items), other, store.HashKey(stream), in.conf.table.name, other)
	return nil
}

// checkShards finds an explicit shard that the stream never had. One that it has
// no more counts as finished instead: ids are given out in ascending order.
func checkShards(s stream, shards []lineage.Shard) error {
	newest := ""
	for _, shard := range shards {
		newest = max(newest, shard.ID)
	}
	for _, written := range s.shards {
		if id := s.shardID(written); id > newest {
			return fmt.Errorf("stream %s has no shard %s, its newest is %s: write one of its shards in `streams`", s.id, written, newest)
		}
	}
	return nil
}

func (in *input) start(c clients, store leaseTable, lists []group.StreamSnapshot, checkForm func(ctx context.Context, stream string) error) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed {
		return service.ErrEndOfInput
	}
	ctx, cancel := context.WithCancel(context.Background()) //nolint:forbidigo // the component's own life, which the context of Connect is not
	out := make(chan *consumer.Delivery)
	done := make(chan struct{})
	b := newBalancer(ctx, in, c, store, lists, checkForm, out)
	telling, told := context.WithCancel(context.WithoutCancel(ctx)) // until the last shard is released
	var tellers sync.WaitGroup
	tellers.Go(func() { in.signals.run(telling, b.budget, b.subscriptions, b.searching) })
	tellers.Go(func() { in.signals.describe(telling, c.lister) })
	go func() {
		defer close(done)
		b.run(ctx)
		in.outbox.Wait() // none is added once the input is closed, which ends run
		told()
		tellers.Wait()
		in.signals.end()
		c.closeIdle()
	}()
	in.running = &balancing{ctx: ctx, cancel: cancel, out: out, finished: b.finished, done: done, budget: b.budget}
	return nil
}

// newBatcher spares a batch of one Benthos' own policy, which costs more than the
// record.
func (in *input) newBatcher() (consumer.Batcher, error) {
	if p := in.conf.batching; p.Count == 1 {
		return new(consumer.Single), nil
	}
	return in.conf.batching.NewBatcher(in.res)
}

func (in *input) newBatch(ctx context.Context) (consumer.Batcher, []*service.OwnedProcessor, error) {
	batcher, err := in.newBatcher()
	if err != nil {
		return nil, nil, err
	}
	processors, err := in.conf.newProcessors()
	if err != nil {
		return nil, nil, errors.Join(err, batcher.Close(ctx))
	}
	return batcher, processors, nil
}

// ReadBatch returns the next batch: one to be replayed before a new one of any
// shard, and none of a shard that another process may have.
func (in *input) ReadBatch(ctx context.Context) (service.MessageBatch, service.AckFunc, error) {
	answered := in.asked(ctx)
	defer answered()
	in.mu.Lock()
	running, givenUp := in.running, len(in.givenUp) > 0
	in.mu.Unlock()
	if running == nil {
		return nil, nil, service.ErrNotConnected
	}
	if givenUp {
		in.judge()
	}
	for {
		o, fresh, err := in.next(ctx, running)
		if err != nil {
			return nil, nil, err
		}
		if !in.outbox.SetAside(running.ctx, o, fresh) {
			batch, ack := in.hand(o)
			return batch, ack, nil
		}
	}
}

// asked notes that the host waits for the input, until what it returns is called.
func (in *input) asked(ctx context.Context) (answered func()) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.reading = ctx
	return func() {
		in.mu.Lock()
		defer in.mu.Unlock()
		in.reading = nil
	}
}

// next returns the next batch: one that is due again, or one that is fresh from its
// consumer. What there is goes out whether the input is ready or not; it is not connected
// when there is nothing and it is not ready.
func (in *input) next(ctx context.Context, running *balancing) (o *consumer.Outgoing, fresh bool, err error) {
	for {
		if o := in.outbox.Take(); o != nil {
			return o, false, nil
		}
		if d := in.takeConnected(); d != nil {
			return consumer.NewOutgoing(d), true, nil
		}
		ready, turned := in.signals.ready()
		if !ready {
			select {
			case d := <-running.out:
				return consumer.NewOutgoing(d), true, nil
			case <-running.finished:
				return nil, false, service.ErrEndOfInput
			case <-running.done:
				return nil, false, service.ErrEndOfInput
			default:
				return nil, false, service.ErrNotConnected
			}
		}
		select {
		case d := <-running.out:
			return consumer.NewOutgoing(d), true, nil
		case <-in.outbox.Ready():
		case <-turned:
		case <-running.finished:
			return nil, false, service.ErrEndOfInput
		case <-running.done:
			return nil, false, service.ErrEndOfInput
		case <-ctx.Done():
			return nil, false, ctx.Err()
		}
	}
}

// hand returns a batch as the host gets it: as it is, if it goes but once.
func (in *input) hand(o *consumer.Outgoing) (service.MessageBatch, service.AckFunc) {
	if in.conf.autoReplayNacks {
		return o.Batch(), func(_ context.Context, err error) error {
			if err != nil && !o.Delivered(err) {
				key, messages := o.Shard()
				in.signals.metrics.add("kinesis_replayed_messages", int64(messages), key.Stream, key.Shard)
				in.outbox.Reject(o)
				return nil
			}
			o.Ack()
			return nil
		}
	}
	batch := o.Single()
	delivery, messages := o.Delivery(), len(batch)
	return batch, func(_ context.Context, err error) error {
		if errors.Is(err, context.Canceled) || errors.Is(err, service.ErrEndOfInput) {
			in.giveUp(givenUp{delivery: delivery, messages: messages, err: err, at: time.Now()})
			return nil
		}
		delivery.Ack(messages, err)
		return nil
	}
}

// givenUp is a batch that is not to be replayed, and that was rejected with an error
// which may mean that the pipeline is being stopped. If it is, nobody has handled
// the batch, and it is to be read again; if not, it was rejected as any other.
type givenUp struct {
	delivery *consumer.Delivery
	messages int
	err      error
	at       time.Time
}

// judgeAfter is how long after a rejection a pipeline that goes on shows that it was
// not being stopped: by then the contexts of all its parts have ended.
const judgeAfter = time.Second

// giveUp keeps a batch until it can be told whether the pipeline is being stopped.
func (in *input) giveUp(g givenUp) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed {
		g.delivery.Drop()
		return
	}
	in.givenUp = append(in.givenUp, g)
	time.AfterFunc(judgeAfter, in.judge)
}

// judge counts the batches as rejected that were given up while the pipeline goes
// on: a host that stops asks for no more, and ends the context of what it asked for.
func (in *input) judge() {
	in.mu.Lock()
	var rejected []givenUp
	for !in.closed && len(in.givenUp) > 0 && in.reading != nil && in.reading.Err() == nil && time.Since(in.givenUp[0].at) >= judgeAfter {
		rejected = append(rejected, in.givenUp[0])
		in.givenUp = in.givenUp[1:]
	}
	in.mu.Unlock()
	for _, g := range rejected {
		g.delivery.Ack(g.messages, g.err)
	}
}

// Close stops reading, commits what has been acknowledged and releases all
// shards. It may be called at any time and any number of times.
func (in *input) Close(ctx context.Context) error {
	in.mu.Lock()
	in.closed = true
	running := in.running
	unhandled := in.givenUp
	in.givenUp = nil
	connected := in.connected
	in.connected = nil
	in.mu.Unlock()
	in.outbox.Close()
	if connected != nil {
		connected.Drop()
	}
	for _, g := range unhandled {
		g.delivery.Drop()
	}
	if running == nil {
		return nil
	}
	running.cancel()
	select {
	case <-running.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("releasing the shards: %w", ctx.Err())
	}
}
