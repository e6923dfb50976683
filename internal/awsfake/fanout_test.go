package awsfake

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/schemas"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/smithy-go/transport/http/protocol/awsjson"
	"github.com/stretchr/testify/require"
)

// shard0 is the first shard of every stream.
var shard0 = shardID(0)

// fanout is a stream with one shard and a consumer.
func fanout(t *testing.T, s *Server) (arn string) {
	t.Helper()
	require.NoError(t, s.CreateStream("s", 1))
	arn, err := s.RegisterConsumer("s", "c")
	require.NoError(t, err)
	return arn
}

func trimHorizon() *types.StartingPosition {
	return &types.StartingPosition{Type: types.ShardIteratorTypeTrimHorizon}
}

func latest() *types.StartingPosition {
	return &types.StartingPosition{Type: types.ShardIteratorTypeLatest}
}

func trySubscribe(ctx context.Context, c *kinesis.Client, arn, shard string, at *types.StartingPosition) (*kinesis.SubscribeToShardEventStream, error) {
	// The SDK's own protocol is one for all calls of a client, and its decoder has
	// a race between them (aws/smithy-go issue 714).
	own := func(o *kinesis.Options) { o.Protocol = awsjson.New11(schemas.Kinesis_20131202) }
	out, err := c.SubscribeToShard(ctx, &kinesis.SubscribeToShardInput{ConsumerARN: &arn, ShardId: &shard, StartingPosition: at}, own)
	if err != nil {
		return nil, err
	}
	return out.GetStream(), nil
}

// subscribe closes the subscription with the test.
func subscribe(t *testing.T, c *kinesis.Client, arn, shard string, at *types.StartingPosition) *kinesis.SubscribeToShardEventStream {
	t.Helper()
	es, err := trySubscribe(t.Context(), c, arn, shard, at)
	require.NoError(t, err)
	t.Cleanup(func() { _ = es.Close() })
	return es
}

// nextEvent waits for an event.
func nextEvent(t *testing.T, es *kinesis.SubscribeToShardEventStream) types.SubscribeToShardEvent {
	t.Helper()
	got, ok := <-es.Events()
	require.True(t, ok, "an event, not the end: %v", es.Err())
	ev, ok := got.(*types.SubscribeToShardEventStreamMemberSubscribeToShardEvent)
	require.True(t, ok, "%T", got)
	return ev.Value
}

// requireEnd waits for the end of a stream and returns its error.
func requireEnd(t *testing.T, es *kinesis.SubscribeToShardEventStream) error {
	t.Helper()
	got, ok := <-es.Events()
	require.False(t, ok, "the end, not %+v", got)
	return es.Err()
}

// texts reads events until n records have come.
func texts(t *testing.T, es *kinesis.SubscribeToShardEventStream, n int) (data []string, last types.SubscribeToShardEvent) {
	t.Helper()
	for len(data) < n {
		last = nextEvent(t, es)
		for _, r := range last.Records {
			data = append(data, string(r.Data))
		}
	}
	return data, last
}

// inBubble runs a test in virtual time.
func inBubble(t *testing.T, opts Options, test func(t *testing.T, s *Server, c *kinesis.Client)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, opts)
		test(t, s, kinesis.NewFromConfig(once(s.AWSConfig())))
	})
}

func TestSubscriptionReadsThroughASplitByEachTransport(t *testing.T) {
	onEachTransport(t, Options{}, func(t *testing.T, s *Server, cfg aws.Config) {
		arn := fanout(t, s)
		c := kinesis.NewFromConfig(cfg)
		_, err := s.PutTo("s", shard0, "k", []byte("0"))
		require.NoError(t, err)
		es := subscribe(t, c, arn, shard0, trimHorizon())
		var want []string
		for i := range 50 {
			want = append(want, fmt.Sprint(i))
			if i == 0 {
				continue
			}
			_, err := s.PutTo("s", shard0, "k", []byte(want[i]))
			require.NoError(t, err)
		}
		got, last := texts(t, es, 50)
		require.Equal(t, want, got)
		require.Equal(t, *last.Records[len(last.Records)-1].SequenceNumber, *last.ContinuationSequenceNumber)

		low, high, err := s.Split("s", shard0)
		require.NoError(t, err)
		end := nextEvent(t, es)
		require.Empty(t, end.Records)
		require.Nil(t, end.ContinuationSequenceNumber)
		require.Len(t, end.ChildShards, 2)
		require.Equal(t, []string{low, high}, []string{*end.ChildShards[0].ShardId, *end.ChildShards[1].ShardId})
		require.Equal(t, []string{shard0}, end.ChildShards[0].ParentShards)
		require.NoError(t, requireEnd(t, es))

		for _, child := range []string{low, high} {
			_, err := s.PutTo("s", child, "k", []byte(child))
			require.NoError(t, err)
			got, _ := texts(t, subscribe(t, c, arn, child, trimHorizon()), 1)
			require.Equal(t, []string{child}, got)
		}
	})
}

func TestSubscriptionToAClosedShardEndsWithItsLastRecords(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, s *Server, c *kinesis.Client) {
		arn := fanout(t, s)
		_, err := s.PutTo("s", shard0, "k", []byte("a"))
		require.NoError(t, err)
		_, _, err = s.Split("s", shard0)
		require.NoError(t, err)
		es := subscribe(t, c, arn, shard0, trimHorizon())
		ev := nextEvent(t, es)
		require.Len(t, ev.Records, 1)
		require.Len(t, ev.ChildShards, 2)
		require.Nil(t, ev.ContinuationSequenceNumber)
		require.NoError(t, requireEnd(t, es))
	})
}

func TestIdleSubscriptionSendsAnEmptyEventEachFiveSecondsUntilItEnds(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, s *Server, c *kinesis.Client) {
		arn := fanout(t, s)
		start := time.Now()
		es := subscribe(t, c, arn, shard0, latest())
		last := ""
		for i := range 59 {
			ev := nextEvent(t, es)
			require.Equal(t, time.Duration(i+1)*5*time.Second, time.Since(start))
			require.Empty(t, ev.Records)
			require.Zero(t, *ev.MillisBehindLatest)
			require.Greater(t, *ev.ContinuationSequenceNumber, last)
			last = *ev.ContinuationSequenceNumber
		}
		require.NoError(t, requireEnd(t, es))
		require.Equal(t, 5*time.Minute, time.Since(start))
	})
}

func TestClientThatGoesEndsItsSubscription(t *testing.T) {
	onEachTransport(t, Options{}, func(t *testing.T, s *Server, cfg aws.Config) {
		arn := fanout(t, s)
		other, err := s.RegisterConsumer("s", "other")
		require.NoError(t, err)
		c := kinesis.NewFromConfig(cfg)
		es := subscribe(t, c, arn, shard0, latest())
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		abandoned, err := trySubscribe(ctx, c, other, shard0, latest())
		require.NoError(t, err)
		require.Equal(t, []Subscription{{"s", shard0, "c"}, {"s", shard0, "other"}}, s.Subscriptions("s"))

		require.NoError(t, es.Close())
		require.Eventually(t, func() bool { return len(s.Subscriptions("s")) == 1 }, 10*time.Second, time.Millisecond)
		cancel()
		require.Eventually(t, func() bool { return len(s.Subscriptions("s")) == 0 }, 10*time.Second, time.Millisecond)
		require.ErrorIs(t, requireEnd(t, abandoned), context.Canceled)
		require.Equal(t, 2, s.MostSubscriptions("s", shard0))
		require.Equal(t, 2, s.MostSubscriptionsOf("s"))
	})
}
