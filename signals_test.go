package awskinesis

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/benthosdev/benthos/v4/public/service"
	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
	"github.com/benthos-plugins/aws-kinesis/internal/consumer"
	"github.com/benthos-plugins/aws-kinesis/internal/journal"
	"github.com/benthos-plugins/aws-kinesis/internal/lease"
)

// gauge returns the value of a gauge, as it was set last.
func (c *process) gauge(name string, labels ...string) int64 {
	c.Helper()
	m := c.input.signals.metrics
	m.mu.Lock()
	defer m.mu.Unlock()
	value, ok := m.last[name+"\x00"+strings.Join(labels, "\x00")]
	require.True(c, ok, "%s %v was never set", name, labels)
	return value
}

// output takes what an input reads, and holds it as long as it is told to.
type output struct {
	*process
	mu      sync.Mutex
	acked   map[string]bool // contents
	takes   func() time.Duration
	records *fed
	stopped chan struct{}
	stop    context.CancelFunc
}

// attach has an output take what an input reads, a batch at a time in each shard.
func attach(in *process, takes func() time.Duration) *output {
	ctx, cancel := context.WithCancel(context.Background())
	o := &output{process: in, acked: map[string]bool{}, takes: takes, stopped: make(chan struct{}), stop: cancel}
	var acks sync.WaitGroup
	go func() {
		defer close(o.stopped)
		defer acks.Wait()
		for {
			messages, ack, err := readAsHost(ctx, in.BatchInput)
			if err != nil {
				return
			}
			acks.Go(func() { o.handle(ctx, received{messages, ack}) })
		}
	}()
	return o
}

func (o *output) handle(ctx context.Context, b received) {
	if takes := o.takes(); wait(ctx, takes) != nil {
		return
	}
	o.mu.Lock()
	for _, content := range b.contents() {
		o.acked[content] = true
	}
	o.mu.Unlock()
	_ = b.ack(ctx, nil)
}

func (o *output) end() {
	o.stop()
	<-o.stopped
}

// fed is records by the time at which they were put, one a shard and half second.
type fed struct {
	at map[string]map[string]time.Time // by shard and content
	n  int
}

func (f *fed) put(r *rig, shards int) {
	for i := range shards {
		content := fmt.Sprint(f.n)
		f.n++
		_, err := r.aws.PutTo("orders", shardName(i), "key", []byte(content))
		if err != nil {
			continue // there is no such stream at the moment
		}
		if f.at[shardName(i)] == nil {
			f.at[shardName(i)] = map[string]time.Time{}
		}
		f.at[shardName(i)][content] = time.Now()
	}
}

// truth returns the age of the oldest record of a shard that is not acknowledged, in
// milliseconds.
func (f *fed) truth(o *output, shard string) (age int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for content, at := range f.at[shard] {
		if o.acked[content] {
			delete(f.at[shard], content)
			continue
		}
		age = max(age, time.Since(at).Milliseconds())
	}
	return age
}

// trouble is a fault as an operator meets it.
type trouble struct {
	name string
	// begin brings it about, and returns what ends it.
	begin func(r *rig, o *output) (end func())
	// ready is whether the input stays ready.
	ready bool
	// says is a part of the first line about it, and ends of that about its end.
	says, ends string
	// most is the number of lines in all, above which they are a flood.
	most int
}

func refused(operation, code string) func(*rig, *output) func() {
	return func(r *rig, _ *output) func() {
		f := awsfake.Fault{Operation: operation, Refuse: awsfake.NewError(code, "not now")}
		if operation == "GetRecords" {
			return r.failReads(f)
		}
		return r.aws.Inject(f)
	}
}

func troubles() []trouble {
	return []trouble{
		{name: "reads denied", begin: refused("GetRecords", "AccessDeniedException"), says: "reads of", ends: "work again after", most: 12},
		{name: "reads denied by KMS", begin: refused("GetRecords", "KMSAccessDeniedException"), says: "kms:Decrypt", ends: "work again after", most: 12},
		{name: "reads throttled", begin: refused("GetRecords", awsfake.CodeThroughputExceeded), says: "are throttled", ends: "are not throttled any more after", most: 12},
		{name: "reads failing", begin: refused("GetRecords", awsfake.CodeInternalFailure), says: "reads of", ends: "work again after", most: 12},
		{name: "reads hanging", begin: func(r *rig, _ *output) func() {
			return r.failReads(awsfake.Fault{Delay: time.Hour})
		}, says: "reads of", ends: "work again after", most: 12},
		{name: "UpdateItem denied", begin: refused("UpdateItem", "AccessDeniedException"), says: "cannot be written", ends: "can be written to the table again after", most: 16},
		{name: "UpdateItem throttled", begin: refused("UpdateItem", awsfake.CodeThroughputExceeded), says: "cannot be written", ends: "can be written to the table again after", most: 16},
		{name: "table gone", begin: func(r *rig, _ *output) func() {
			db := r.aws.DynamoDB()
			_, err := db.DeleteTable(r.Context(), deleteTable())
			require.NoError(r, err)
			return r.table
		}, says: "the table", ends: "again after", most: 30},
		{name: "stream gone", begin: func(r *rig, o *output) func() {
			require.NoError(r, r.aws.DeleteStream("orders"))
			o.records.at = map[string]map[string]time.Time{} // lost with the stream
			return func() { r.stream("orders", 2) }
		}, says: "does not exist any more", ends: "is read now", most: 30},
		{name: "output dead", begin: func(_ *rig, o *output) func() {
			return o.hold(time.Hour)
		}, ready: true, says: "do not come", most: 12},
		{name: "output slow", begin: func(_ *rig, o *output) func() {
			return o.hold(5 * time.Second)
		}, ready: true, most: 0},
		// The host marks the messages of a processor that fails, and they go on.
		{name: "processors failing", begin: func(r *rig, _ *output) func() {
			return r.processorsAre(failingProcessors)
		}, ready: true, most: 0},
		{name: "processors hanging", begin: func(r *rig, _ *output) func() {
			return r.processorsAre(hangingProcessors)
		}, ready: true, says: "the batch processors have had a batch", ends: "come again after", most: 12},
	}
}

// hold has each batch that comes from now on wait before it is acknowledged.
func (o *output) hold(d time.Duration) (end func()) {
	o.mu.Lock()
	before := o.takes
	o.takes = func() time.Duration { return d }
	o.mu.Unlock()
	return func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.takes = before
	}
}

var errHang = errors.New("the processor hangs")

// What the processors named hang do that are not well.
const (
	failingProcessors = "fail"
	hangingProcessors = "hang"
)

// processorTroubles is what those of a test do, by its name.
var processorTroubles sync.Map

func (r *rig) processorsAre(what string) (end func()) {
	processorTroubles.Store(r.Name(), what)
	return func() { processorTroubles.Delete(r.Name()) }
}

func init() {
	spec := service.NewConfigSpec().Field(service.NewStringField("test"))
	err := service.RegisterBatchProcessor("hang", spec, func(conf *service.ParsedConfig, _ *service.Resources) (service.BatchProcessor, error) {
		test, err := conf.FieldString("test")
		return hang{test}, err
	})
	if err != nil {
		panic(err)
	}
}

func deleteTable() *dynamodb.DeleteTableInput {
	return &dynamodb.DeleteTableInput{TableName: aws.String(tableName)}
}

// For two minutes each, beside a table of lag, readiness and log lines before, during and
// after. Lag is never below the truth by more than two seconds, and no fault is silent.
func TestSignalsAreTrueInEveryFault(t *testing.T) {
	for _, f := range troubles() {
		t.Run(f.name, func(t *testing.T) {
			bubbleOf(t, awsfake.Options{}, func(r *rig) { f.run(r) })
		})
	}
}

const (
	troubleShards = 2
	troubleLasts  = 2 * time.Minute
)

func (f trouble) run(r *rig) {
	r.table()
	r.stream("orders", troubleShards)
	in := r.open(fmt.Sprintf(`{ streams: [ orders ], batching: { processors: [ { hang: { test: %q } } ] } }`, r.Name()))
	o := attach(in, func() time.Duration { return 10 * time.Millisecond })
	defer o.end()
	records := &fed{at: map[string]map[string]time.Time{}}
	o.records = records
	watch := func(what string, d time.Duration) (notReady time.Duration, most int64) {
		for begin := time.Now(); time.Since(begin) < d; {
			records.put(r, troubleShards)
			pass(500 * time.Millisecond)
			told := in.gauge("kinesis_max_lag_milliseconds", "orders")
			truth := int64(0)
			for i := range troubleShards {
				if !unread(in, shardName(i)) {
					truth = max(truth, records.truth(o, shardName(i)))
				}
				f.check(r, in, o, records, shardName(i))
			}
			if told == unknown { // as of a stream that is not there
				require.True(r, truth <= 2000 || in.gauge("kinesis_ready") == 0, what)
			} else {
				require.GreaterOrEqual(r, told, truth-2000, "%s, after %s", what, time.Since(begin))
			}
			most = max(most, told)
			if in.gauge("kinesis_ready") == 0 {
				notReady += 500 * time.Millisecond
			}
		}
		return notReady, most
	}
	tell := func(what string, notReady time.Duration, most int64, lines []string) {
		r.Logf("%s: not ready for %s, lag up to %d ms, %d lines", what, notReady, most, len(lines))
		for _, line := range lines {
			r.Logf("  %s", line)
		}
	}

	pass(10 * time.Second)
	from := len(r.journal.logged(""))
	notReady, most := watch("before", 20*time.Second)
	require.Less(r, most, r.idleLag()+1500, "well")
	require.Zero(r, notReady)
	tell("before", notReady, most, r.journal.logged("")[from:])

	from = len(r.journal.logged(""))
	end := f.begin(r, o)
	notReady, most = watch("during", troubleLasts)
	during := r.journal.logged("")[from:]
	tell("during", notReady, most, during)
	if f.ready {
		require.Zero(r, notReady)
	} else {
		require.InDelta(r, troubleLasts-30*time.Second, notReady, float64(25*time.Second), "a lease period")
	}

	from = len(r.journal.logged(""))
	end()
	if !f.ready {
		_, _ = watch("at the end", 90*time.Second)
	} else {
		pass(2 * time.Second)
	}
	notReady, most = watch("after", time.Minute)
	after := r.journal.logged("")[from:]
	tell("after", notReady, most, after)
	require.Zero(r, notReady)

	said := func(lines []string, text string) bool {
		return text == "" || slices.ContainsFunc(lines, func(line string) bool { return strings.Contains(line, text) })
	}
	require.True(r, said(during, f.says), f.says)
	require.True(r, said(after, f.ends), f.ends)
	require.LessOrEqual(r, len(during)+len(after), f.most)
}

// unread reports whether a shard was claimed a moment ago and nothing of it was read yet,
// so that nobody knows how late it is: in a stream that was made anew its consumer has yet
// to be registered.
func unread(in *process, shard string) bool {
	return modeOf(in) != "" && in.gauge("kinesis_millis_behind_latest", "orders", shard) == unknown && in.gauge("kinesis_last_read_age_milliseconds", "orders", shard) < 5000
}

// idleLag is the lag in milliseconds that a shard may have which is idle and read to its
// end: by polling the longest time between two reads, by fan-out that between two events.
func (r *rig) idleLag() int64 {
	if modeOf(r) == "always" {
		return 5000
	}
	return 2000
}

// check holds what is told of a shard that is read here against the truth.
func (trouble) check(r *rig, in *process, o *output, records *fed, shard string) {
	if in.gauge("kinesis_shard_owned", "orders", shard) == 0 {
		return
	}
	if unread(in, shard) {
		return
	}
	truth, told := records.truth(o, shard), in.gauge("kinesis_lag_milliseconds", "orders", shard)
	require.GreaterOrEqual(r, told, truth-2000, "shard %s", shard)
}

// hang is a batch processor that fails or hangs while its test wants it to.
type hang struct{ test string }

func (h hang) is(what string) bool {
	now, _ := processorTroubles.Load(h.test)
	return now == what
}

func (h hang) ProcessBatch(ctx context.Context, batch service.MessageBatch) ([]service.MessageBatch, error) {
	if h.is(failingProcessors) {
		return nil, errHang
	}
	for h.is(hangingProcessors) {
		if err := wait(ctx, 100*time.Millisecond); err != nil {
			return nil, errHang
		}
	}
	return []service.MessageBatch{batch}, nil
}

func (hang) Close(context.Context) error { return nil }

// An outage of the table in a large process: 1,000 shards, two minutes.
func TestOutageOfTheTableIsToldInFewLines(t *testing.T) {
	const shards, lasts = 1000, 2 * time.Minute
	bubbleOf(t, awsfake.Options{}, func(r *rig) {
		r.table()
		r.stream("orders", shards)
		in := r.open(`{ streams: [ orders ], poll_period: 10s }`)
		o := attach(in, func() time.Duration { return 0 })
		defer o.end()
		r.until(time.Minute, func() bool { return r.heldBy(in) == shards })
		pass(time.Minute)
		put := func() {
			for i := range shards {
				_, err := r.aws.PutTo("orders", shardName(i), "key", []byte("x"))
				require.NoError(r, err)
			}
		}
		table := func(d time.Duration) (calls, lines int) {
			count := func() (n int) {
				for _, operation := range []string{"UpdateItem", "GetItem", "Query", "DeleteItem"} {
					n += r.aws.Calls(operation)
				}
				return n
			}
			before, from := count(), len(r.journal.logged(""))
			for begin := time.Now(); time.Since(begin) < d; {
				put()
				pass(10 * time.Second)
			}
			return count() - before, len(r.journal.logged("")) - from
		}
		remove := r.aws.Inject(awsfake.Fault{Service: "dynamodb", Refuse: awsfake.NewError("AccessDeniedException", "not allowed")})
		calls, lines := table(lasts)
		remove()
		after, more := table(lasts)
		minutes := lasts.Minutes() * shards
		r.Logf("denied: %d lines, %.2f calls a shard-minute; after: %d lines, %.2f calls a shard-minute",
			lines, float64(calls)/minutes, more, float64(after)/minutes)
		for _, line := range r.journal.logged("")[3:] {
			r.Logf("  %s", line)
		}
		require.Less(r, lines+more, 20)
		most := 8.0
		if modeOf(r) != "" {
			most = 10 // all shards get their records just before the outage begins, and try to commit
		}
		require.Less(r, float64(calls)/minutes, most)
		require.Less(r, float64(after)/minutes, 14.0, "a commit every five seconds is twelve")
		require.Equal(r, shards, r.heldBy(in))
	})
}

// Gauges of a shard that has left say that nobody here knows.
func TestGaugesOfAShardThatHasLeftAreUnknown(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 2)
		first := r.open(brisk)
		pass(10 * time.Second)
		for i := range 2 {
			require.EqualValues(r, 1, first.gauge("kinesis_shard_owned", "orders", shardName(i)))
		}
		r.open(brisk)
		pass(30 * time.Second)
		owned := map[int64][]string{}
		for i := range 2 {
			shard := shardName(i)
			is := first.gauge("kinesis_shard_owned", "orders", shard)
			owned[is] = append(owned[is], shard)
		}
		require.Equal(r, []int64{0, 1}, slices.Sorted(maps.Keys(owned)))
		left, kept := owned[0][0], owned[1][0]
		for _, name := range []string{"kinesis_lag_milliseconds", "kinesis_millis_behind_latest", "kinesis_last_read_age_milliseconds", "kinesis_last_commit_age_milliseconds", "kinesis_oldest_unacknowledged_milliseconds"} {
			require.EqualValues(r, unknown, first.gauge(name, "orders", left), name)
			require.GreaterOrEqual(r, first.gauge(name, "orders", kept), int64(0), name)
		}
		require.EqualValues(r, 1, first.gauge("kinesis_leases_held", "orders"))
		require.EqualValues(r, 24*time.Hour/time.Millisecond, first.gauge("kinesis_retention_left_milliseconds", "orders")+first.gauge("kinesis_max_lag_milliseconds", "orders"))
	})
}

// Loops whose pauses did not grow: what is asked for in a quarter of an hour.
func TestPausesGrowWhateverGoesOn(t *testing.T) {
	byPolling(t)
	said := func(operation, code string) func(*rig) {
		return func(r *rig) {
			r.aws.Inject(awsfake.Fault{Operation: operation, Refuse: awsfake.NewError(code, "no")})
		}
	}
	for name, test := range map[string]struct {
		begin func(*rig)
		says  string
		// writes of the table and reads of the stream a minute, at most
		writes, reads int
	}{
		"a listed shard whose reads say that it is gone":   {said("GetRecords", awsfake.CodeResourceNotFound), "the stream lists it", 10, 14},
		"an iterator that cannot be had of a listed shard": {said("GetShardIterator", awsfake.CodeResourceNotFound), "", 10, 14},
		"an iterator that has expired at once":             {said("GetRecords", awsfake.CodeExpiredIterator), "iterator expired", 10, 14},
		"an item with an empty owner": {func(r *rig) {
			key := awsfake.Item{attrStream: awsfake.String("orders"), attrShard: awsfake.String(shardName(0)), attrOwner: awsfake.String(""), attrSequence: awsfake.String("")}
			require.NoError(r, r.aws.PutItem(tableName, key))
		}, "malformed: ClientID is blank", 10, 400},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.table()
				r.stream("orders", 1)
				test.begin(r)
				in := r.open(`streams: [ orders ]`)
				o := attach(in, func() time.Duration { return 0 })
				defer o.end()
				pass(time.Minute)
				before := r.aws.Calls("UpdateItem")
				reads := r.aws.Calls("GetRecords") + r.aws.Calls("GetShardIterator")
				pass(14 * time.Minute)
				writes := float64(r.aws.Calls("UpdateItem")-before) / 14
				asked := float64(r.aws.Calls("GetRecords")+r.aws.Calls("GetShardIterator")-reads) / 14
				r.Logf("%.1f writes and %.1f reads a minute, %d lines in all", writes, asked, len(r.journal.logged("")))
				require.LessOrEqual(r, writes, float64(test.writes)+6, "and six heartbeats")
				require.LessOrEqual(r, asked, float64(test.reads))
				require.NotEmpty(r, r.journal.logged(test.says))
				require.Less(r, len(r.journal.logged("")), 40)
			})
		})
	}
}

func TestShardThatHasMessagesAtItsFirstTickIsNotStalled(t *testing.T) {
	s := newSignals(&config{leasePeriod: 30 * time.Second, streams: []stream{{id: "orders"}}}, newMetrics(service.MockResources().Metrics(), false), func(l journal.Line) { t.Error(l.Text) })
	now := time.Now()
	shard := s.shard(lease.Key{Stream: "orders", Shard: shardName(0)})
	shard.stall(consumer.State{InFlight: 1, Oldest: now}, now.Add(time.Second))(now)
}
