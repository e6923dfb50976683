package contract

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/protocol/eventstream"
	"github.com/aws/aws-sdk-go-v2/aws/protocol/eventstream/eventstreamapi"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/schemas"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/smithy-go/transport/http/protocol/awsjson"
	"github.com/stretchr/testify/require"
)

// holdFor is how long after a subscription the shard is refused to another one of
// the same consumer.
const holdFor = 5 * time.Second

func runFanOut(t *testing.T, target Target) {
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	f := fanOut{
		server: server{kinesis.NewFromConfig(Config(target.Kinesis)), target.Deviations},
		direct: subscribing(target.Kinesis, transport),
	}
	f.subscriber = f.direct
	if target.Deviations.NoInitialResponse {
		f.subscriber = subscribing(withInitialResponse(t, target.Kinesis), transport)
	}
	tests := map[string]func(*testing.T, fanOut){
		"ConsumerIsDescribedOnceActive":  consumerIsDescribedOnceActive,
		"ConsumersAreListedInPages":      consumersAreListedInPages,
		"DeregisteredConsumerIsNotFound": deregisteredConsumerIsNotFound,
	}
	subscriptions := map[string]func(*testing.T, fanOut){
		"InitialResponseComesFirst":                 initialResponseComesFirst,
		"SubscriptionBringsWhatPollingBrings":       subscriptionBringsWhatPollingBrings,
		"SubscriptionContinuesAfterItsEvents":       subscriptionContinuesAfterItsEvents,
		"IdleSubscriptionTellsWhereToContinue":      idleSubscriptionTellsWhereToContinue,
		"SubscriptionStartsAtEachKindOfPosition":    subscriptionStartsAtEachKindOfPosition,
		"SubscriptionInUseIsTakenOverAfterAWhile":   subscriptionInUseIsTakenOverAfterAWhile,
		"SubscriptionToWhatIsMissingIsNotFound":     subscriptionToWhatIsMissingIsNotFound,
		"SubscriptionRefusesAForeignSequence":       subscriptionRefusesAForeignSequence,
		"SubscriptionEndsWithItsShard":              subscriptionEndsWithItsShard,
		"SubscriptionToAClosedShardBringsItAndEnds": subscriptionToAClosedShardBringsItAndEnds,
	}
	if target.Deviations.NoSubscriptions {
		subscriptions = map[string]func(*testing.T, fanOut){"ThereAreNoSubscriptions": thereAreNoSubscriptions}
	}
	maps.Copy(tests, subscriptions)
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, f)
		})
	}
}

func subscribing(url string, transport *http.Transport) *kinesis.Client {
	cfg := Config(url)
	cfg.HTTPClient = ownBody{&http.Client{Transport: transport}}
	return kinesis.NewFromConfig(cfg)
}

func consumerIsDescribedOnceActive(t *testing.T, f fanOut) {
	ctx, st := f.stream(t, 1)
	registered, err := f.RegisterStreamConsumer(ctx, &kinesis.RegisterStreamConsumerInput{StreamARN: &st.arn, ConsumerName: aws.String("c")})
	require.NoError(t, err)
	c := registered.Consumer
	require.Equal(t, "c", *c.ConsumerName)
	require.Contains(t, []types.ConsumerStatus{types.ConsumerStatusCreating, types.ConsumerStatusActive}, c.ConsumerStatus)
	if f.deviations.ConsumerARNByName {
		require.Equal(t, st.arn+"/consumer/c", *c.ConsumerARN)
	} else {
		require.Regexp(t, `^`+st.arn+`/consumer/c:\d+$`, *c.ConsumerARN)
	}
	f.await(ctx, t, *c.ConsumerARN)

	for _, by := range []*kinesis.DescribeStreamConsumerInput{
		{ConsumerARN: c.ConsumerARN},
		{StreamARN: &st.arn, ConsumerName: aws.String("c")},
	} {
		out, err := f.DescribeStreamConsumer(ctx, by)
		require.NoError(t, err)
		got := out.ConsumerDescription
		require.Equal(t, types.ConsumerStatusActive, got.ConsumerStatus)
		require.Equal(t, *c.ConsumerARN, *got.ConsumerARN)
		require.Equal(t, "c", *got.ConsumerName)
		require.Equal(t, st.arn, *got.StreamARN)
	}

	_, err = f.RegisterStreamConsumer(ctx, &kinesis.RegisterStreamConsumerInput{StreamARN: &st.arn, ConsumerName: aws.String("c")})
	if f.deviations.ConsumerRegisteredTwice {
		require.NoError(t, err)
	} else {
		refused[*types.ResourceInUseException](t, err)
	}
	_, err = f.DescribeStreamConsumer(ctx, &kinesis.DescribeStreamConsumerInput{StreamARN: &st.arn, ConsumerName: aws.String("other")})
	refused[*types.ResourceNotFoundException](t, err)
	_, err = f.RegisterStreamConsumer(ctx, &kinesis.RegisterStreamConsumerInput{StreamARN: aws.String(st.arn + "-missing"), ConsumerName: aws.String("c")}, once)
	if f.deviations.MissingStreamFailsConsumer {
		refusedOtherwise[*types.ResourceNotFoundException](t, err)
	} else {
		refused[*types.ResourceNotFoundException](t, err)
	}
}

func consumersAreListedInPages(t *testing.T, f fanOut) {
	ctx, st := f.stream(t, 1)
	var want, got []string
	for range 3 {
		want = append(want, f.consumer(ctx, t, st))
	}
	in := &kinesis.ListStreamConsumersInput{StreamARN: &st.arn, MaxResults: aws.Int32(2)}
	for {
		page, err := f.ListStreamConsumers(ctx, in)
		require.NoError(t, err)
		require.LessOrEqual(t, len(page.Consumers), 2)
		for _, c := range page.Consumers {
			got = append(got, *c.ConsumerARN)
			require.Equal(t, types.ConsumerStatusActive, c.ConsumerStatus)
		}
		if in.NextToken = page.NextToken; in.NextToken == nil {
			break
		}
	}
	if f.deviations.ConsumersCutOff {
		require.Len(t, got, 2)
		return
	}
	require.ElementsMatch(t, want, got)
}

func deregisteredConsumerIsNotFound(t *testing.T, f fanOut) {
	ctx, st := f.stream(t, 1)
	arn := f.consumer(ctx, t, st)
	_, err := f.DeregisterStreamConsumer(ctx, &kinesis.DeregisterStreamConsumerInput{ConsumerARN: &arn})
	require.NoError(t, err)
	await(ctx, t, "the consumer is gone", func() bool {
		out, err := f.DescribeStreamConsumer(ctx, &kinesis.DescribeStreamConsumerInput{ConsumerARN: &arn})
		if err == nil {
			require.Equal(t, types.ConsumerStatusDeleting, out.ConsumerDescription.ConsumerStatus)
			return false
		}
		refused[*types.ResourceNotFoundException](t, err)
		return true
	})
	if !f.deviations.NoSubscriptions {
		refusedSubscription[*types.ResourceNotFoundException](ctx, t, f, arn, shardID(0), oldest())
	}
}

func thereAreNoSubscriptions(t *testing.T, f fanOut) {
	ctx, st := f.stream(t, 1)
	arn := f.consumer(ctx, t, st)
	_, err := f.direct.SubscribeToShard(ctx, subscribeInput(arn, shardID(0), oldest()), once)
	require.Error(t, err)
}

func initialResponseComesFirst(t *testing.T, f fanOut) {
	ctx, st := f.stream(t, 1)
	arn := f.consumer(ctx, t, st)
	f.put(ctx, t, st, lowestHash, "a")
	var first eventstream.Message
	_, err := f.direct.SubscribeToShard(ctx, subscribeInput(arn, shardID(0), oldest()), func(o *kinesis.Options) {
		o.RetryMaxAttempts = 1
		o.HTTPClient = firstFrame{o.HTTPClient, &first}
	})
	require.ErrorIs(t, err, errSeen)
	want := "initial-response"
	if f.deviations.NoInitialResponse {
		want = "SubscribeToShardEvent"
	}
	require.Equal(t, want, first.Headers.Get(eventstreamapi.EventTypeHeader).String())
}

func subscriptionBringsWhatPollingBrings(t *testing.T, f fanOut) {
	ctx, st := f.stream(t, 1)
	arn := f.consumer(ctx, t, st)
	f.put(ctx, t, st, lowestHash, "a", "b", "", "c\x00d")
	es := f.subscribe(ctx, t, arn, shardID(0), oldest())
	got, _ := f.receive(t, es, 4)
	f.put(ctx, t, st, lowestHash, "e")
	f.put(ctx, t, st, lowestHash, "f", "g")
	later, _ := f.receive(t, es, 3)
	require.Equal(t, f.readToTip(ctx, t, f.oldest(ctx, t, st, shardID(0))), append(got, later...))
}

func subscriptionContinuesAfterItsEvents(t *testing.T, f fanOut) {
	ctx, st := f.stream(t, 1)
	reader, other := f.consumer(ctx, t, st), f.consumer(ctx, t, st)
	f.put(ctx, t, st, lowestHash, "a", "b")
	got, last := f.receive(t, f.subscribe(ctx, t, reader, shardID(0), oldest()), 2)
	require.GreaterOrEqual(t, compareSequences(*last.ContinuationSequenceNumber, *got[1].SequenceNumber), 0)
	require.Zero(t, *last.MillisBehindLatest)
	require.Empty(t, last.ChildShards)
	f.put(ctx, t, st, lowestHash, "c", "d")
	got, _ = f.receive(t, f.subscribe(ctx, t, other, shardID(0), after(*last.ContinuationSequenceNumber)), 2)
	require.Equal(t, []string{"c", "d"}, data(got))
}

func idleSubscriptionTellsWhereToContinue(t *testing.T, f fanOut) {
	ctx, st := f.stream(t, 1)
	reader, other := f.consumer(ctx, t, st), f.consumer(ctx, t, st)
	at := f.put(ctx, t, st, lowestHash, "a")[0]
	idle := f.event(t, f.subscribe(ctx, t, reader, shardID(0), types.StartingPosition{Type: types.ShardIteratorTypeLatest}))
	require.Empty(t, idle.Records)
	require.Zero(t, *idle.MillisBehindLatest)
	require.GreaterOrEqual(t, compareSequences(*idle.ContinuationSequenceNumber, at.sequence), 0)
	f.put(ctx, t, st, lowestHash, "b")
	got, _ := f.receive(t, f.subscribe(ctx, t, other, shardID(0), after(*idle.ContinuationSequenceNumber)), 1)
	require.Equal(t, []string{"b"}, data(got))
}

func subscriptionStartsAtEachKindOfPosition(t *testing.T, f fanOut) {
	ctx, st := f.stream(t, 1)
	put := f.put(ctx, t, st, lowestHash, "a")
	arrived := f.readToTip(ctx, t, f.oldest(ctx, t, st, shardID(0)))[0].ApproximateArrivalTimestamp
	await(ctx, t, "a millisecond has passed", func() bool { return time.Since(*arrived) > time.Millisecond })
	put = append(put, f.put(ctx, t, st, lowestHash, "b", "c")...)
	since := arrived.Add(time.Millisecond)
	for _, c := range []struct {
		at   types.StartingPosition
		want []string
	}{
		{oldest(), []string{"a", "b", "c"}},
		{types.StartingPosition{Type: types.ShardIteratorTypeAtSequenceNumber, SequenceNumber: &put[1].sequence}, []string{"b", "c"}},
		{after(put[1].sequence), []string{"c"}},
		{types.StartingPosition{Type: types.ShardIteratorTypeAtTimestamp, Timestamp: &since}, []string{"b", "c"}},
		{types.StartingPosition{Type: types.ShardIteratorTypeAtTimestamp, Timestamp: aws.Time(arrived.Add(-time.Hour))}, []string{"a", "b", "c"}},
	} {
		got, _ := f.receive(t, f.subscribe(ctx, t, f.consumer(ctx, t, st), shardID(0), c.at), len(c.want))
		require.Equal(t, c.want, data(got), "%s", c.at.Type)
	}
	es := f.subscribe(ctx, t, f.consumer(ctx, t, st), shardID(0), types.StartingPosition{Type: types.ShardIteratorTypeLatest})
	f.put(ctx, t, st, lowestHash, "d")
	got, _ := f.receive(t, es, 1)
	require.Equal(t, []string{"d"}, data(got))
}

func subscriptionInUseIsTakenOverAfterAWhile(t *testing.T, f fanOut) {
	ctx, st := f.stream(t, 1)
	arn := f.consumer(ctx, t, st)
	old := f.subscribe(ctx, t, arn, shardID(0), oldest())
	since := time.Now()
	refusedSubscription[*types.ResourceInUseException](ctx, t, f, arn, shardID(0), oldest())
	await(ctx, t, "the shard may be taken over", func() bool { return time.Since(since) > holdFor })
	if f.deviations.NoTakeOver {
		refusedSubscription[*types.ResourceInUseException](ctx, t, f, arn, shardID(0), oldest())
		return
	}
	heir := f.subscribe(ctx, t, arn, shardID(0), oldest())
	refused[*types.ResourceInUseException](t, f.end(t, old))
	f.put(ctx, t, st, lowestHash, "a")
	got, _ := f.receive(t, heir, 1)
	require.Equal(t, []string{"a"}, data(got))
}

func subscriptionToWhatIsMissingIsNotFound(t *testing.T, f fanOut) {
	ctx, st := f.stream(t, 1)
	arn := f.consumer(ctx, t, st)
	refusedSubscription[*types.ResourceNotFoundException](ctx, t, f, arn+"0", shardID(0), oldest())
	if f.deviations.MissingShardSubscribed {
		require.Empty(t, f.event(t, f.subscribe(ctx, t, arn, shardID(9), oldest())).Records)
		return
	}
	refusedSubscription[*types.ResourceNotFoundException](ctx, t, f, arn, shardID(9), oldest())
}

func subscriptionRefusesAForeignSequence(t *testing.T, f fanOut) {
	ctx, st := f.stream(t, 2)
	arn := f.consumer(ctx, t, st)
	f.put(ctx, t, st, lowestHash, "a")
	other := f.put(ctx, t, st, nearlyHighestHash, "b")[0].sequence
	if f.deviations.ForeignSequenceSubscribed {
		f.event(t, f.subscribe(ctx, t, arn, shardID(0), after(other)))
		return
	}
	refusedSubscription[*types.InvalidArgumentException](ctx, t, f, arn, shardID(0), after(other))
	refusedSubscription[*types.InvalidArgumentException](ctx, t, f, arn, shardID(0), after("12345"))
}

func subscriptionEndsWithItsShard(t *testing.T, f fanOut) {
	ctx, st := f.stream(t, 1)
	es := f.subscribe(ctx, t, f.consumer(ctx, t, st), shardID(0), oldest())
	f.put(ctx, t, st, lowestHash, "a", "b")
	got, _ := f.receive(t, es, 2)
	require.Equal(t, []string{"a", "b"}, data(got))
	f.split(ctx, t, st, shardID(0))
	f.requireEndOfShard(ctx, t, st, es)
}

func subscriptionToAClosedShardBringsItAndEnds(t *testing.T, f fanOut) {
	ctx, st := f.stream(t, 1)
	f.put(ctx, t, st, lowestHash, "a", "b")
	f.split(ctx, t, st, shardID(0))
	es := f.subscribe(ctx, t, f.consumer(ctx, t, st), shardID(0), oldest())
	got, last := f.receive(t, es, 2)
	require.Equal(t, []string{"a", "b"}, data(got))
	if last.ContinuationSequenceNumber != nil { // the end may come with the records or alone
		f.requireEndOfShard(ctx, t, st, es)
		return
	}
	f.requireChildren(ctx, t, st, last)
	require.NoError(t, f.end(t, es))
}

// fanOut is a server with clients that subscribe.
type fanOut struct {
	server
	direct     *kinesis.Client
	subscriber *kinesis.Client // through a proxy if need be
}

func oldest() types.StartingPosition {
	return types.StartingPosition{Type: types.ShardIteratorTypeTrimHorizon}
}

func after(sequence string) types.StartingPosition {
	return types.StartingPosition{Type: types.ShardIteratorTypeAfterSequenceNumber, SequenceNumber: &sequence}
}

func subscribeInput(arn, shard string, at types.StartingPosition) *kinesis.SubscribeToShardInput {
	return &kinesis.SubscribeToShardInput{ConsumerARN: &arn, ShardId: &shard, StartingPosition: &at}
}

// consumer registers one and waits until it is active.
func (f fanOut) consumer(ctx context.Context, t *testing.T, st stream) (arn string) {
	t.Helper()
	out, err := f.RegisterStreamConsumer(ctx, &kinesis.RegisterStreamConsumerInput{StreamARN: &st.arn, ConsumerName: aws.String(unique())})
	require.NoError(t, err)
	f.await(ctx, t, *out.Consumer.ConsumerARN)
	return *out.Consumer.ConsumerARN
}

func (f fanOut) await(ctx context.Context, t *testing.T, arn string) {
	t.Helper()
	await(ctx, t, "the consumer is active", func() bool {
		out, err := f.DescribeStreamConsumer(ctx, &kinesis.DescribeStreamConsumerInput{ConsumerARN: &arn})
		require.NoError(t, err)
		return out.ConsumerDescription.ConsumerStatus == types.ConsumerStatusActive
	})
}

// subscribe subscribes until the end of the test.
func (f fanOut) subscribe(ctx context.Context, t *testing.T, arn, shard string, at types.StartingPosition) *kinesis.SubscribeToShardEventStream {
	t.Helper()
	es, err := f.trySubscribe(ctx, arn, shard, at)
	require.NoError(t, err)
	t.Cleanup(func() { _ = es.Close() }) // what it says is of no use any more
	return es
}

func (f fanOut) trySubscribe(ctx context.Context, arn, shard string, at types.StartingPosition) (*kinesis.SubscribeToShardEventStream, error) {
	// The SDK's own protocol is one for all calls of a client, and its decoder has
	// a race between them (aws/smithy-go issue 714).
	own := func(o *kinesis.Options) { o.Protocol = awsjson.New11(schemas.Kinesis_20131202) }
	out, err := f.subscriber.SubscribeToShard(ctx, subscribeInput(arn, shard, at), own)
	if err != nil {
		return nil, err
	}
	return out.GetStream(), nil
}

// refusedSubscription requires that a subscription is refused by the service's E.
func refusedSubscription[E error](ctx context.Context, t *testing.T, f fanOut, arn, shard string, at types.StartingPosition) {
	t.Helper()
	es, err := f.trySubscribe(ctx, arn, shard, at)
	if f.deviations.RefusalsInStream {
		require.NoError(t, err)
		err = f.end(t, es)
		_ = es.Close() // as it has ended
	}
	refused[E](t, err)
}

// event waits for the next one.
func (f fanOut) event(t *testing.T, es *kinesis.SubscribeToShardEventStream) types.SubscribeToShardEvent {
	t.Helper()
	got, ok := <-es.Events()
	require.True(t, ok, "an event, not the end: %v", es.Err())
	event, ok := got.(*types.SubscribeToShardEventStreamMemberSubscribeToShardEvent)
	require.True(t, ok, "%T", got)
	return event.Value
}

// end waits for the end of a subscription that brings no more records, and returns
// its error.
func (f fanOut) end(t *testing.T, es *kinesis.SubscribeToShardEventStream) error {
	t.Helper()
	for got := range es.Events() {
		event, ok := got.(*types.SubscribeToShardEventStreamMemberSubscribeToShardEvent)
		require.True(t, ok, "%T", got)
		require.Empty(t, event.Value.Records)
	}
	return es.Err()
}

// receive waits for n records.
func (f fanOut) receive(t *testing.T, es *kinesis.SubscribeToShardEventStream, n int) (records []types.Record, last types.SubscribeToShardEvent) {
	t.Helper()
	for len(records) < n {
		last = f.event(t, es)
		records = append(records, last.Records...)
	}
	require.Len(t, records, n)
	return records, last
}

// requireEndOfShard requires that nothing comes but the end of a shard that was
// split.
func (f fanOut) requireEndOfShard(ctx context.Context, t *testing.T, st stream, es *kinesis.SubscribeToShardEventStream) {
	t.Helper()
	// Events of an idle shard may be on their way.
	for range 3 {
		event := f.event(t, es)
		require.Empty(t, event.Records)
		if event.ContinuationSequenceNumber == nil {
			require.False(t, f.deviations.ClosedShardGoesOn)
			f.requireChildren(ctx, t, st, event)
			require.NoError(t, f.end(t, es))
			return
		}
		require.Empty(t, event.ChildShards)
	}
	require.True(t, f.deviations.ClosedShardGoesOn)
}

// requireChildren requires that the last event of the first shard names its
// children.
func (f fanOut) requireChildren(ctx context.Context, t *testing.T, st stream, event types.SubscribeToShardEvent) {
	t.Helper()
	shards := f.shards(ctx, t, st)
	require.Len(t, event.ChildShards, 2)
	for i, child := range event.ChildShards {
		require.Equal(t, *shards[1+i].ShardId, *child.ShardId)
		require.Equal(t, []string{shardID(0)}, child.ParentShards)
		require.Equal(t, shards[1+i].HashKeyRange, child.HashKeyRange)
	}
}

// firstFrame notes the first frame of an answer, and fails then.
type firstFrame struct {
	kinesis.HTTPClient
	frame *eventstream.Message
}

var errSeen = errors.New("the first frame has come")

func (c firstFrame) Do(r *http.Request) (*http.Response, error) {
	response, err := c.HTTPClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if *c.frame, err = eventstream.NewDecoder().Decode(response.Body, nil); err != nil {
		return nil, err
	}
	return nil, errSeen
}
