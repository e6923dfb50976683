package contract

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	kinesistypes "github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/benthosdev/benthos/v4/public/service"
	"github.com/stretchr/testify/require"

	_ "github.com/benthosdev/benthos/v4/public/components/pure" // what joins an input to a function

	_ "github.com/benthos-plugins/aws-kinesis" // the input
)

// stopTimeout bounds the end of a pipeline, which takes a few requests a shard.
const stopTimeout = 20 * time.Second

// Hash keys inside the three shards of a stream of three, the middle one's in
// either half of it.
const (
	hashIn0     = lowestHash
	hashIn1Low  = "170141183460469231731687303715884105727"
	hashIn1High = middleHash
	hashIn2     = nearlyHighestHash
)

// runInput holds the whole input, in a pipeline of Benthos, to what it promises
// of a target.
func runInput(t *testing.T, target Target) {
	w := world{
		server:   server{kinesis.NewFromConfig(Config(target.Kinesis)), target.Deviations},
		database: database{dynamodb.NewFromConfig(Config(target.DynamoDB)), target.Deviations},
		target:   target,
	}
	tests := map[string]func(*testing.T, world){
		"StopUnderLoadIsResumedWithoutRepeats": stopUnderLoadIsResumedWithoutRepeats,
		"SequencesOfTheBuiltInInputAreResumed": sequencesOfTheBuiltInInputAreResumed,
	}
	// Where a closed shard has no end the input waits for it, and reads no child.
	if !target.Deviations.ReshardingClosesNothing {
		tests["EveryRecordComesInOrderAcrossASplit"] = everyRecordComesInOrderAcrossASplit
		tests["EveryRecordComesInCBORToo"] = everyRecordComesInCBORToo
		tests["ClosedParentIsReadBeforeItsChildren"] = closedParentIsReadBeforeItsChildren
		tests["ExplicitShardThatIsClosedEndsPipeline"] = explicitShardThatIsClosedEndsPipeline
	}
	if !target.Deviations.NoSubscriptions {
		tests["FanOutAndPollingGoOnFromEachOther"] = fanOutAndPollingGoOnFromEachOther
		if !target.Deviations.ClosedShardGoesOn {
			tests["FanOutReadsOnAcrossASplit"] = fanOutReadsOnAcrossASplit
		}
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, w)
		})
	}
}

func everyRecordComesInOrderAcrossASplit(t *testing.T, w world) {
	w.readAcrossASplit(t, "")
}

func everyRecordComesInCBORToo(t *testing.T, w world) {
	w.readAcrossASplit(t, "wire_format: cbor")
}

func fanOutReadsOnAcrossASplit(t *testing.T, w world) {
	w.readAcrossASplit(t, byFanOut)
}

// byFanOut are the fields of an input that subscribes.
const byFanOut = "enhanced_fan_out: { enabled: true, consumer_name: input }"

// readAcrossASplit reads a stream of which a shard is split meanwhile, by an input
// with further fields.
func (w world) readAcrossASplit(t *testing.T, fields string) {
	t.Helper()
	ctx, st := w.stream(t, 3)
	table := unique()
	want := w.fill(ctx, t, st, 100, hashIn0, hashIn1Low, hashIn2)

	p := w.run(ctx, t, table, st.arn, fields)
	await(ctx, t, "what was there before has come", func() bool { return p.count() == 300 })

	w.split(ctx, t, st, shardID(1))
	maps.Copy(want, w.fill(ctx, t, st, 50, hashIn1Low, hashIn1High)) // of the children, shards 3 and 4
	for _, late := range []struct{ hash, shard string }{{hashIn0, shardID(0)}, {hashIn2, shardID(2)}} {
		want[late.shard] = append(want[late.shard], w.append(ctx, t, st, late.hash, 50)...)
	}
	await(ctx, t, "what came later has come too", func() bool { return p.count() == 500 })
	require.NoError(t, p.stop())

	require.Equal(t, want, p.bySequence())
	require.Less(t, p.last(shardID(1)), min(p.first(shardID(3)), p.first(shardID(4))))
	for _, m := range p.received {
		require.Equal(t, st.arn, m.stream)
	}
	require.Equal(t, tails(want), w.checkpoints(ctx, t, table, st.arn))
}

// The input reads the target as it is, without a proxy: it needs no initial
// response.
func fanOutAndPollingGoOnFromEachOther(t *testing.T, w world) {
	ctx, st := w.stream(t, 3)
	table := unique()
	want, got := map[string][]string{}, map[string][]string{}
	for i, fields := range []string{byFanOut, "", byFanOut} {
		put := func() {
			for shard, sequences := range w.fill(ctx, t, st, 30, hashIn0, hashIn1Low, hashIn2) {
				want[shard] = append(want[shard], sequences...)
			}
		}
		put()
		p := w.run(ctx, t, table, st.name, fields)
		await(ctx, t, "what was there before has come", func() bool { return count(got)+p.count() >= count(want) })
		put()
		await(ctx, t, "what came later has come too", func() bool { return count(got)+p.count() >= count(want) })
		require.NoError(t, p.stop())
		for shard, sequences := range p.bySequence() {
			got[shard] = append(got[shard], sequences...)
		}
		require.Equal(t, want, got, "run %d", i)
		require.Equal(t, tails(want), w.checkpoints(ctx, t, table, st.name))
	}
	out, err := w.DescribeStreamConsumer(ctx, &kinesis.DescribeStreamConsumerInput{StreamARN: &st.arn, ConsumerName: aws.String("input")})
	require.NoError(t, err)
	require.Equal(t, kinesistypes.ConsumerStatusActive, out.ConsumerDescription.ConsumerStatus)
}

func closedParentIsReadBeforeItsChildren(t *testing.T, w world) {
	ctx, st := w.stream(t, 1)
	table := unique()
	want := w.fill(ctx, t, st, 300, lowestHash)
	w.split(ctx, t, st, shardID(0))
	maps.Copy(want, w.fill(ctx, t, st, 50, lowestHash, nearlyHighestHash))

	p := w.run(ctx, t, table, st.name, "checkpoint_limit: 1")
	await(ctx, t, "everything has come", func() bool { return p.count() >= 400 })
	require.NoError(t, p.stop())
	require.Equal(t, want, p.bySequence())
	require.Less(t, p.last(shardID(0)), min(p.first(shardID(1)), p.first(shardID(2))))
	require.Equal(t, tails(want), w.checkpoints(ctx, t, table, st.name))
}

func stopUnderLoadIsResumedWithoutRepeats(t *testing.T, w world) {
	ctx, st := w.stream(t, 3)
	table := unique()
	want, got := map[string][]string{}, map[string][]string{}
	collect := func(p *pipeline) {
		for shard, sequences := range p.bySequence() {
			got[shard] = append(got[shard], sequences...)
		}
	}
	for range 3 {
		p := w.run(ctx, t, table, st.name, "checkpoint_limit: 20")
		w.stopUnderLoad(ctx, t, st, p, want)
		collect(p)
		require.Equal(t, tails(got), w.checkpoints(ctx, t, table, st.name))
	}

	for shard, sequences := range w.fill(ctx, t, st, 10, hashIn0, hashIn1Low, hashIn2) {
		want[shard] = append(want[shard], sequences...)
	}
	p := w.run(ctx, t, table, st.name, "")
	await(ctx, t, "the rest has come", func() bool { return count(got)+p.count() >= count(want) })
	require.NoError(t, p.stop())
	collect(p)
	require.Equal(t, want, got)
	require.Equal(t, tails(want), w.checkpoints(ctx, t, table, st.name))
}

// stopUnderLoad puts records until a pipeline is stopped, which it begins once a
// hundred have come out, and notes them in put.
func (w world) stopUnderLoad(ctx context.Context, t *testing.T, st stream, p *pipeline, put map[string][]string) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var stopped chan error // nil until it is being stopped
	for {
		for _, hash := range []string{hashIn0, hashIn1Low, hashIn2} {
			record(put, w.server.put(ctx, t, st, hash, bodies(3)...))
		}
		if stopped == nil && p.count() >= 100 {
			stopped = make(chan error, 1)
			go func() { stopped <- p.stop() }() // which has a time-out
		}
		select {
		case <-tick.C:
		case err := <-stopped:
			require.NoError(t, err)
			return
		case <-ctx.Done():
			require.NoError(t, ctx.Err(), "waiting until the pipeline was busy and has stopped")
		}
	}
}

func sequencesOfTheBuiltInInputAreResumed(t *testing.T, w world) {
	ctx, st := w.stream(t, 3)
	_, table := w.table(t)
	all := w.fill(ctx, t, st, 20, hashIn0, hashIn1Low, hashIn2)
	const theirs = "f47ac10b-58cc-4372-a567-0e02b2c3d479"
	put := func(shard string, namesAndTexts ...string) {
		w.database.put(ctx, t, table, with(item{"StreamID": text(st.name), "ShardID": text(shard)}, namesAndTexts...))
	}
	// One stopped cleanly, one crashed, and one crashed before its first commit,
	// as clocks that are wrong either way would write it.
	put(shardID(0), "SequenceNumber", all[shardID(0)][3])
	put(shardID(1), "SequenceNumber", all[shardID(1)][12], "ClientID", theirs, "LeaseTimeout", "2099-01-02T03:04:05.678901234Z")
	put(shardID(2), "ClientID", theirs, "LeaseTimeout", "2001-01-02T03:04:05Z")

	want := map[string][]string{
		shardID(0): all[shardID(0)][4:],
		shardID(1): all[shardID(1)][13:],
		shardID(2): all[shardID(2)],
	}
	p := w.run(ctx, t, table, st.name, "")
	await(ctx, t, "the rest has come", func() bool { return p.count() >= count(want) })
	require.NoError(t, p.stop())
	require.Equal(t, want, p.bySequence())
	require.Equal(t, tails(all), w.checkpoints(ctx, t, table, st.name))
}

func explicitShardThatIsClosedEndsPipeline(t *testing.T, w world) {
	ctx, st := w.stream(t, 1)
	table := unique()
	want := w.append(ctx, t, st, lowestHash, 30)
	w.split(ctx, t, st, shardID(0))
	w.append(ctx, t, st, nearlyHighestHash, 5) // which nobody asks for

	p := w.run(ctx, t, table, st.name+":0", "")
	select {
	case <-p.ended:
		require.NoError(t, p.err)
	case <-ctx.Done():
		require.NoError(t, ctx.Err(), "waiting until the pipeline has ended")
	}
	require.Equal(t, map[string][]string{"0": want}, p.bySequence(), "named as the configuration does")
	require.Equal(t, map[string]string{shardID(0): want[29], "0": want[29]}, w.checkpoints(ctx, t, table, st.name), "the second for the way back")
}

// world is a target with its clients.
type world struct {
	server
	database
	target Target
}

func shardID(n int) string { return fmt.Sprintf("shardId-%012d", n) }

func bodies(n int) []string { return slices.Repeat([]string{"body"}, n) }

// fill puts n records under each hash key, and returns their sequence numbers by
// shard.
func (w world) fill(ctx context.Context, t *testing.T, st stream, n int, hashes ...string) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	for _, hash := range hashes {
		record(all, w.server.put(ctx, t, st, hash, bodies(n)...))
	}
	require.Len(t, all, len(hashes), "each hash key is of a shard of its own")
	return all
}

// append puts n records under a hash key, and returns their sequence numbers.
func (w world) append(ctx context.Context, t *testing.T, st stream, hash string, n int) (sequences []string) {
	t.Helper()
	for _, at := range w.server.put(ctx, t, st, hash, bodies(n)...) {
		sequences = append(sequences, at.sequence)
	}
	return sequences
}

func record(all map[string][]string, positions []position) {
	for _, at := range positions {
		all[at.shard] = append(all[at.shard], at.sequence)
	}
}

// count returns how many there are of all shards together.
func count(byShard map[string][]string) (n int) {
	for _, sequences := range byShard {
		n += len(sequences)
	}
	return n
}

// tails returns the last of each shard.
func tails(byShard map[string][]string) map[string]string {
	tails := map[string]string{}
	for shard, sequences := range byShard {
		tails[shard] = sequences[len(sequences)-1]
	}
	return tails
}

// checkpoints returns the sequence numbers that are stored for a stream that
// nobody reads, and requires that the built-in input could go on from them.
func (w world) checkpoints(ctx context.Context, t *testing.T, table, stream string) map[string]string {
	t.Helper()
	items, _ := w.query(ctx, t, &dynamodb.QueryInput{
		TableName: &table, ConsistentRead: aws.Bool(true),
		KeyConditionExpression:    aws.String("StreamID = :stream"),
		ExpressionAttributeValues: item{":stream": text(stream)},
	})
	stored := map[string]string{}
	for _, it := range items {
		shard, sequence := it["ShardID"].(*types.AttributeValueMemberS), it["SequenceNumber"].(*types.AttributeValueMemberS)
		require.NotContains(t, it, "ClientID")
		require.Regexp(t, `^\d*$`, sequence.Value)
		if sequence.Value != "" { // nothing of the shard has come
			stored[shard.Value] = sequence.Value
		}
	}
	return stored
}

// pipeline is a running pipeline of Benthos with what has come out of it. The
// test that runs it stops it; its own end does so at the latest.
type pipeline struct {
	stream *service.Stream
	ended  chan struct{} // closed at its end
	err    error         // valid once ended is closed

	mu       sync.Mutex
	received []message
}

// message is a record as it came out.
type message struct{ stream, shard, sequence string }

// building is held while a pipeline is built: Benthos v4.27 changes a global while
// it does so.
var building sync.Mutex

// run starts a pipeline that reads a stream, with leases in a table that it
// makes when there is none, and with further fields.
func (w world) run(ctx context.Context, t *testing.T, table, source, fields string) *pipeline {
	t.Helper()
	p := &pipeline{ended: make(chan struct{})}
	builder := service.NewStreamBuilder()
	require.NoError(t, builder.SetLoggerYAML(`level: ERROR`))
	require.NoError(t, builder.AddInputYAML(fmt.Sprintf(`
aws_kinesis:
  streams: [ %q ]
  dynamodb:
    table: %s
    create: true
    endpoint: %s
  endpoint: %s
  region: %s
  credentials: { id: contract, secret: contract }
  commit_period: 200ms
  rebalance_period: 1s
  lease_period: 3s
  %s
`, source, table, w.target.DynamoDB, w.target.Kinesis, Region, fields)))
	require.NoError(t, builder.AddBatchConsumerFunc(p.receive))
	building.Lock()
	stream, err := builder.Build()
	building.Unlock()
	require.NoError(t, err)
	p.stream = stream
	go func() {
		defer close(p.ended)
		p.err = p.stream.Run(context.WithoutCancel(ctx)) // until stop, which has a time-out
	}()
	t.Cleanup(func() { require.NoError(t, p.stop()) })
	return p
}

// receive is the output, which acknowledges what it has noted.
func (p *pipeline) receive(_ context.Context, batch service.MessageBatch) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range batch {
		meta := func(name string) string {
			value, _ := m.MetaGet("kinesis_" + name)
			return value
		}
		p.received = append(p.received, message{meta("stream"), meta("shard"), meta("sequence_number")})
	}
	return nil
}

// stop ends the pipeline, unless it has ended.
func (p *pipeline) stop() error {
	select {
	case <-p.ended:
	default:
		if err := p.stream.StopWithin(stopTimeout); err != nil {
			return err
		}
		<-p.ended
	}
	return p.err
}

func (p *pipeline) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.received)
}

// bySequence returns the sequence numbers of what came, by shard, in the order in
// which it came.
func (p *pipeline) bySequence() map[string][]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	got := map[string][]string{}
	for _, m := range p.received {
		got[m.shard] = append(got[m.shard], m.sequence)
	}
	return got
}

// first returns the place of a shard's first record among all that came.
func (p *pipeline) first(shard string) int {
	return slices.IndexFunc(p.received, func(m message) bool { return m.shard == shard })
}

// last returns the place of a shard's last record among all that came.
func (p *pipeline) last(shard string) int {
	for i, m := range slices.Backward(p.received) {
		if m.shard == shard {
			return i
		}
	}
	return -1
}
