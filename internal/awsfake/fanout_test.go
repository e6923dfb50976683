package awsfake

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/schemas"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/smithy-go/transport/http/protocol/awsjson"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
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

func after(sequence string) *types.StartingPosition {
	return &types.StartingPosition{Type: types.ShardIteratorTypeAfterSequenceNumber, SequenceNumber: &sequence}
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

func TestSubscriptionEndsAfterFiveMinutesOfTheServersClock(t *testing.T) {
	clock := NewManualClock(time.Unix(1_700_000_000, 0))
	onEachTransport(t, Options{Clock: clock}, func(t *testing.T, s *Server, cfg aws.Config) {
		arn := fanout(t, s)
		es := subscribe(t, kinesis.NewFromConfig(cfg), arn, shard0, latest())
		clock.Advance(5 * time.Second)
		require.Empty(t, nextEvent(t, es).Records)
		clock.Advance(5*time.Minute - 5*time.Second)
		require.NoError(t, requireEnd(t, es))
		require.Eventually(t, func() bool { return len(s.Subscriptions("s")) == 0 }, 10*time.Second, time.Millisecond)
	})
}

func TestSubscriptionIsTakenOverAfterFiveSeconds(t *testing.T) {
	clock := NewManualClock(time.Unix(1_700_000_000, 0))
	onEachTransport(t, Options{Clock: clock}, func(t *testing.T, s *Server, cfg aws.Config) {
		arn := fanout(t, s)
		c := kinesis.NewFromConfig(cfg)
		old := subscribe(t, c, arn, shard0, latest())
		clock.Advance(5*time.Second - 1)
		_, err := trySubscribe(t.Context(), c, arn, shard0, latest())
		requireCode(t, CodeResourceInUse, err)
		clock.Advance(1) // the call that was refused does not count

		heir := subscribe(t, c, arn, shard0, latest())
		for range old.Events() {
		}
		requireCode(t, CodeResourceInUse, old.Err())
		_, err = s.PutTo("s", shard0, "k", []byte("a"))
		require.NoError(t, err)
		got, _ := texts(t, heir, 1)
		require.Equal(t, []string{"a"}, got)
	})
}

func TestShardStaysTakenForFiveSecondsThoughItsClientHasGone(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, s *Server, c *kinesis.Client) {
		arn := fanout(t, s)
		require.NoError(t, subscribe(t, c, arn, shard0, latest()).Close())
		synctest.Wait()
		require.Empty(t, s.Subscriptions("s"))
		_, err := trySubscribe(t.Context(), c, arn, shard0, latest())
		requireCode(t, CodeResourceInUse, err)
		pass(t, 5*time.Second)
		subscribe(t, c, arn, shard0, latest())
		require.Equal(t, 1, s.MostSubscriptions("s", shard0))
	})
}

func TestContinuationLosesNothingAndRepeatsNothing(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, s *Server, c *kinesis.Client) {
		arn := fanout(t, s)
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		r := rand.New(rand.NewPCG(seed, 0))
		gaps := make([]time.Duration, 300)
		for i := range gaps {
			gaps[i] = time.Duration(r.IntN(15)) * time.Second // idle events come at whole seconds too
		}
		var writing sync.WaitGroup
		writing.Go(func() {
			for i, gap := range gaps {
				_ = systemClock{}.Wait(t.Context(), gap)
				_, err := s.PutTo("s", shard0, "k", fmt.Append(nil, i))
				if err != nil {
					panic(err)
				}
			}
			_, _, err := s.Split("s", shard0)
			if err != nil {
				panic(err)
			}
		})
		at, read, previous := trimHorizon(), 0, ""
		for ended := false; !ended; {
			es := subscribe(t, c, arn, shard0, at)
			for range 1 + r.IntN(20) {
				got, ok := <-es.Events()
				if !ok {
					break
				}
				ev := got.(*types.SubscribeToShardEventStreamMemberSubscribeToShardEvent).Value
				for _, record := range ev.Records {
					require.Equal(t, fmt.Sprint(read), string(record.Data))
					require.Greater(t, *record.SequenceNumber, previous)
					previous = *record.SequenceNumber
					read++
				}
				if ended = ev.ContinuationSequenceNumber == nil; ended {
					break
				}
				require.GreaterOrEqual(t, *ev.ContinuationSequenceNumber, previous)
				previous = *ev.ContinuationSequenceNumber
				at = after(previous)
			}
			require.NoError(t, es.Close())
			pass(t, 5*time.Second)
		}
		writing.Wait()
		require.Equal(t, len(gaps), read)
	})
}

func TestIdleContinuationStandsBelowTheEndOfItsShard(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, s *Server, c *kinesis.Client) {
		arn := fanout(t, s)
		ev := nextEvent(t, subscribe(t, c, arn, shard0, latest()))
		_, _, err := s.Split("s", shard0)
		require.NoError(t, err)
		shards, err := s.Shards("s")
		require.NoError(t, err)
		require.Less(t, *ev.ContinuationSequenceNumber, shards[0].EndSequence)
		require.Greater(t, *ev.ContinuationSequenceNumber, shards[0].StartSequence)
	})
}

func TestEventsAreNoLargerThanEventBytes(t *testing.T) {
	inBubble(t, Options{EventBytes: 10}, func(t *testing.T, s *Server, c *kinesis.Client) {
		arn := fanout(t, s)
		for _, size := range []int{4, 4, 4, 20, 1} {
			_, err := s.PutTo("s", shard0, "k", bytes.Repeat([]byte("x"), size))
			require.NoError(t, err)
		}
		pass(t, time.Second)
		es := subscribe(t, c, arn, shard0, trimHorizon())
		for _, want := range []struct {
			records int
			behind  int64
		}{{2, 1000}, {1, 1000}, {1, 1000}, {1, 0}} {
			ev := nextEvent(t, es)
			require.Len(t, ev.Records, want.records)
			require.Equal(t, want.behind, *ev.MillisBehindLatest)
		}
	})
}

func TestStartingPositions(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, s *Server, c *kinesis.Client) {
		require.NoError(t, s.CreateStream("s", 1))
		var sequences []string
		start := time.Now()
		for i := range 4 {
			seq, err := s.PutTo("s", shard0, "k", fmt.Append(nil, i))
			require.NoError(t, err)
			sequences = append(sequences, seq)
			pass(t, time.Second)
		}
		require.NoError(t, s.Trim("s", start.Add(time.Second)))
		for i, test := range []struct {
			at    *types.StartingPosition
			first string
		}{
			{trimHorizon(), "1"},
			{after(sequences[2]), "3"},
			{after(sequences[0]), "1"}, // trimmed
			{&types.StartingPosition{Type: types.ShardIteratorTypeAtSequenceNumber, SequenceNumber: &sequences[2]}, "2"},
			{&types.StartingPosition{Type: types.ShardIteratorTypeAtTimestamp, Timestamp: aws.Time(start.Add(1500 * time.Millisecond))}, "2"},
		} {
			arn, err := s.RegisterConsumer("s", fmt.Sprint("c", i))
			require.NoError(t, err)
			ev := nextEvent(t, subscribe(t, c, arn, shard0, test.at))
			require.Equal(t, test.first, string(ev.Records[0].Data), "%+v", test.at)
		}
	})
}

func TestSubscriptionsThatAreRefused(t *testing.T) {
	inBubble(t, Options{ConsumerDelay: time.Minute}, func(t *testing.T, s *Server, c *kinesis.Client) {
		require.NoError(t, s.CreateStream("s", 2))
		arn, err := s.RegisterConsumer("s", "c")
		require.NoError(t, err)
		other, err := s.PutTo("s", shardID(1), "k", nil)
		require.NoError(t, err)
		creating, err := c.RegisterStreamConsumer(t.Context(), &kinesis.RegisterStreamConsumerInput{StreamARN: aws.String(s.StreamARN("s")), ConsumerName: aws.String("creating")})
		require.NoError(t, err)
		for _, test := range []struct {
			arn, shard string
			at         *types.StartingPosition
			code       string
		}{
			{arn + "0", shard0, latest(), CodeResourceNotFound},
			{s.StreamARN("none") + "/consumer/c:1", shard0, latest(), CodeResourceNotFound},
			{"no ARN", shard0, latest(), CodeValidation},
			{arn, shardID(2), latest(), CodeResourceNotFound},
			{*creating.Consumer.ConsumerARN, shard0, latest(), CodeResourceInUse},
			{arn, shard0, after(other), CodeInvalidArgument},
			{arn, shard0, after("1"), CodeInvalidArgument},
			{arn, shard0, &types.StartingPosition{Type: types.ShardIteratorTypeAtTimestamp}, CodeInvalidArgument},
			{arn, shard0, &types.StartingPosition{Type: "SIDEWAYS"}, CodeValidation},
		} {
			_, err := trySubscribe(t.Context(), c, test.arn, test.shard, test.at)
			requireCode(t, test.code, err)
		}
		_, err = c.SubscribeToShard(t.Context(), &kinesis.SubscribeToShardInput{ConsumerARN: &arn, ShardId: &shard0, StartingPosition: latest(), DryRun: aws.Bool(true)})
		requireCode(t, "DryRunOperationException", err)
		require.Zero(t, s.MostSubscriptionsOf("s"))
		subscribe(t, c, arn, shard0, latest()) // what was refused does not hold the shard
		pass(t, time.Minute)
		subscribe(t, c, *creating.Consumer.ConsumerARN, shard0, latest())
		require.Equal(t, 2, s.Refused("SubscribeToShard", CodeValidation))
	})
}

func TestQuotasOfSubscriptions(t *testing.T) {
	inBubble(t, Options{EnforceLimits: true}, func(t *testing.T, s *Server, c *kinesis.Client) {
		arn := fanout(t, s)
		for range 3 {
			_, err := s.PutTo("s", shard0, "k", make([]byte, 2<<20))
			require.NoError(t, err)
		}
		start := time.Now()
		es := subscribe(t, c, arn, shard0, trimHorizon())
		_, err := trySubscribe(t.Context(), c, arn, shard0, latest())
		requireCode(t, CodeLimitExceeded, err)
		pass(t, time.Second)
		_, err = trySubscribe(t.Context(), c, arn, shard0, latest())
		requireCode(t, CodeResourceInUse, err)
		texts(t, es, 3)
		require.Greater(t, time.Since(start), time.Second)
		require.Less(t, time.Since(start), 3*time.Second)
	})
}

func TestConsumerOrStreamThatGoesEndsSubscriptions(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, s *Server, c *kinesis.Client) {
		arn := fanout(t, s)
		other, err := s.RegisterConsumer("s", "other")
		require.NoError(t, err)
		first, second := subscribe(t, c, arn, shard0, latest()), subscribe(t, c, other, shard0, latest())
		require.NoError(t, s.DeregisterConsumer("s", "c"))
		requireCode(t, CodeResourceNotFound, requireEnd(t, first))
		require.NoError(t, s.DeleteStream("s"))
		requireCode(t, CodeResourceNotFound, requireEnd(t, second))
	})
}

func TestClientThatDoesNotReadHoldsItsSubscriptionUp(t *testing.T) {
	inBubble(t, Options{EventBytes: 1}, func(t *testing.T, s *Server, c *kinesis.Client) {
		arn := fanout(t, s)
		for i := range 100 {
			_, err := s.PutTo("s", shard0, "k", fmt.Append(nil, i))
			require.NoError(t, err)
		}
		var sent atomic.Int64
		remove := s.OnEvent(func(sub Subscription, at time.Time, records int) {
			require.Equal(t, Subscription{"s", shard0, "c"}, sub)
			require.False(t, at.After(time.Now()))
			sent.Add(int64(records))
		})
		defer remove()
		es := subscribe(t, c, arn, shard0, trimHorizon())
		synctest.Wait()
		ahead := sent.Load()
		require.LessOrEqual(t, ahead, int64(3), "the SDK itself reads a few events ahead")
		pass(t, time.Minute)
		require.Equal(t, ahead, sent.Load())
		got, _ := texts(t, es, 100)
		require.Len(t, got, 100)
	})
}

func TestSocketsHoldASubscriptionUp(t *testing.T) {
	onEachTransport(t, Options{}, func(t *testing.T, s *Server, cfg aws.Config) {
		const records = 20
		arn := fanout(t, s)
		for range records {
			_, err := s.PutTo("s", shard0, "k", make([]byte, 1<<20-1))
			require.NoError(t, err)
		}
		var sent atomic.Int64
		s.OnEvent(func(_ Subscription, _ time.Time, n int) { sent.Add(int64(n)) })
		es := subscribe(t, kinesis.NewFromConfig(cfg), arn, shard0, trimHorizon())
		// The buffers of the sockets fill within milliseconds.
		quiet := time.NewTimer(300 * time.Millisecond)
		<-quiet.C
		require.Less(t, sent.Load(), int64(records))
		got, _ := texts(t, es, records)
		require.Len(t, got, records)
	})
}

func TestCloseEndsSubscriptions(t *testing.T) {
	before := goleak.IgnoreCurrent()
	onEachTransport(t, Options{EventBytes: 1}, func(t *testing.T, s *Server, cfg aws.Config) {
		require.NoError(t, s.CreateStream("s", 2))
		arn, err := s.RegisterConsumer("s", "c")
		require.NoError(t, err)
		for range 10 {
			_, err := s.PutTo("s", shardID(1), "k", []byte("a"))
			require.NoError(t, err)
		}
		c := kinesis.NewFromConfig(cfg)
		idle := subscribe(t, c, arn, shard0, latest())
		subscribe(t, c, arn, shardID(1), trimHorizon()) // nobody reads it
		require.NoError(t, s.Close())
		require.Empty(t, s.Subscriptions("s"))
		_, open := <-idle.Events()
		require.False(t, open)
		require.Equal(t, 2, s.MostSubscriptionsOf("s"))
		require.Equal(t, 1, s.MostSubscriptions("s", shard0))
	})
	goleak.VerifyNone(t, before)
}
