package awsfake

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/protocol/eventstream"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/stretchr/testify/require"
)

// rawSubscribe calls SubscribeToShard without the SDK's client, which takes a
// connection that breaks for a clean end.
func rawSubscribe(t *testing.T, cfg aws.Config, arn, shard, position string) io.Reader {
	t.Helper()
	body, err := json.Marshal(map[string]any{"ConsumerARN": arn, "ShardId": shard, "StartingPosition": map[string]string{"Type": position}})
	require.NoError(t, err)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, *cfg.BaseEndpoint, bytes.NewReader(body))
	require.NoError(t, err)
	r.Header.Set("X-Amz-Target", targetKinesis+"SubscribeToShard")
	resp, err := cfg.HTTPClient.Do(r)
	require.NoError(t, err)
	t.Cleanup(func() { _ = resp.Body.Close() })
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.Equal(t, "application/vnd.amazon.eventstream", resp.Header.Get("Content-Type"))
	return resp.Body
}

// frames reads until the end, and returns the types of whole frames and the
// error at the end.
func frames(body io.Reader) (kinds []string, err error) {
	decoder := eventstream.NewDecoder()
	for {
		msg, err := decoder.Decode(body, nil)
		if err != nil {
			return kinds, err
		}
		name := ":event-type"
		if msg.Headers.Get(":message-type").String() == "exception" {
			name = ":exception-type"
		}
		kinds = append(kinds, msg.Headers.Get(name).String())
	}
}

func TestFramesOfASubscription(t *testing.T) {
	onEachTransport(t, Options{}, func(t *testing.T, s *Server, cfg aws.Config) {
		arn := fanout(t, s)
		_, err := s.PutTo("s", shard0, "k", []byte("a"))
		require.NoError(t, err)
		_, _, err = s.Split("s", shard0)
		require.NoError(t, err)
		kinds, err := frames(rawSubscribe(t, cfg, arn, shard0, "TRIM_HORIZON"))
		require.Equal(t, io.EOF, err)
		require.Equal(t, []string{"initial-response", "SubscribeToShardEvent"}, kinds)
	})
}

func TestCutBreaksTheConnectionInTheMiddleOfAFrame(t *testing.T) {
	onEachTransport(t, Options{EventBytes: 1}, func(t *testing.T, s *Server, cfg aws.Config) {
		arn := fanout(t, s)
		for range 3 {
			_, err := s.PutTo("s", shard0, "k", []byte("a"))
			require.NoError(t, err)
		}
		s.InjectStream(StreamFault{After: 3, Cut: true})
		kinds, err := frames(rawSubscribe(t, cfg, arn, shard0, "TRIM_HORIZON"))
		require.Equal(t, []string{"initial-response", "SubscribeToShardEvent", "SubscribeToShardEvent"}, kinds)
		require.Error(t, err)
		require.NotErrorIs(t, err, io.EOF)
		require.Eventually(t, func() bool { return len(s.Subscriptions("s")) == 0 }, 10*time.Second, time.Millisecond)
	})
}

func TestTruncatedAnswerBreaksInTheInitialResponse(t *testing.T) {
	onEachTransport(t, Options{}, func(t *testing.T, s *Server, cfg aws.Config) {
		arn := fanout(t, s)
		s.Inject(Fault{Operation: "SubscribeToShard", Truncate: true})
		kinds, err := frames(rawSubscribe(t, cfg, arn, shard0, "LATEST"))
		require.Empty(t, kinds)
		require.Error(t, err)
		require.NotErrorIs(t, err, io.EOF)
	})
}

func TestExceptionInTheStreamEndsIt(t *testing.T) {
	onEachTransport(t, Options{}, func(t *testing.T, s *Server, cfg aws.Config) {
		arn := fanout(t, s)
		s.InjectStream(StreamFault{After: 1, Exception: NewError(CodeInternalFailure, "injected")})
		_, err := s.PutTo("s", shard0, "k", []byte("a"))
		require.NoError(t, err)
		err = requireEnd(t, subscribe(t, kinesis.NewFromConfig(cfg), arn, shard0, trimHorizon()))
		requireCode(t, CodeInternalFailure, err)
		require.ErrorContains(t, err, "injected")
	})
}

func TestCorruptFrameFailsItsChecksum(t *testing.T) {
	onEachTransport(t, Options{}, func(t *testing.T, s *Server, cfg aws.Config) {
		arn := fanout(t, s)
		s.InjectStream(StreamFault{After: 1, Times: 1, Corrupt: true})
		_, err := s.PutTo("s", shard0, "k", []byte("a"))
		require.NoError(t, err)
		err = requireEnd(t, subscribe(t, kinesis.NewFromConfig(cfg), arn, shard0, trimHorizon()))
		require.ErrorContains(t, err, "checksum")
	})
}

func TestClosedStreamEndsWithoutAWord(t *testing.T) {
	onEachTransport(t, Options{}, func(t *testing.T, s *Server, cfg aws.Config) {
		arn := fanout(t, s)
		s.InjectStream(StreamFault{After: 1, Close: true})
		_, err := s.PutTo("s", shard0, "k", []byte("a"))
		require.NoError(t, err)
		kinds, err := frames(rawSubscribe(t, cfg, arn, shard0, "TRIM_HORIZON"))
		require.Equal(t, io.EOF, err)
		require.Equal(t, []string{"initial-response"}, kinds)
	})
}

func TestSilentSubscriptionStaysOpenUntilItsClientGoes(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, s *Server, c *kinesis.Client) {
		arn := fanout(t, s)
		s.InjectStream(StreamFault{After: 2, Silence: true})
		es := subscribe(t, c, arn, shard0, latest())
		nextEvent(t, es)
		pass(t, time.Hour)
		synctest.Wait()
		select {
		case got, ok := <-es.Events():
			t.Fatalf("%+v %v", got, ok)
		default:
		}
		require.Len(t, s.Subscriptions("s"), 1)
		require.NoError(t, es.Close())
		synctest.Wait()
		require.Empty(t, s.Subscriptions("s"))
	})
}

func TestInitialResponseThatNeverComes(t *testing.T) {
	onEachTransport(t, Options{}, func(t *testing.T, s *Server, cfg aws.Config) {
		arn := fanout(t, s)
		remove := s.InjectStream(StreamFault{Silence: true, When: func(sub Subscription) bool { return sub.Consumer == "c" }})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		// By then the headers are there.
		time.AfterFunc(50*time.Millisecond, cancel)
		_, err := trySubscribe(ctx, kinesis.NewFromConfig(cfg), arn, shard0, latest())
		require.ErrorContains(t, err, "initial response")
		require.ErrorIs(t, err, context.Canceled)
		require.Eventually(t, func() bool { return len(s.Subscriptions("s")) == 0 }, 10*time.Second, time.Millisecond)
		remove()
		remove()
		other, err := s.RegisterConsumer("s", "other")
		require.NoError(t, err)
		subscribe(t, kinesis.NewFromConfig(cfg), other, shard0, latest())
	})
}

func TestEventWithoutContinuationThoughTheShardIsOpen(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, s *Server, c *kinesis.Client) {
		arn := fanout(t, s)
		s.InjectStream(StreamFault{Times: 1, NoContinuation: true})
		es := subscribe(t, c, arn, shard0, latest())
		ev := nextEvent(t, es)
		require.Nil(t, ev.ContinuationSequenceNumber)
		require.Empty(t, ev.ChildShards)
		require.NotNil(t, nextEvent(t, es).ContinuationSequenceNumber)
	})
}

func TestStreamFaultsAreDrawnForEachFrame(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, s *Server, c *kinesis.Client) {
		require.Panics(t, func() { s.InjectStream(StreamFault{Probability: 0.5}) })
		arn := fanout(t, s)
		s.InjectStream(StreamFault{Probability: 0.5, Rand: rand.New(rand.NewPCG(1, 2)), NoContinuation: true})
		es := subscribe(t, c, arn, shard0, latest())
		without := 0
		for range 50 {
			if nextEvent(t, es).ContinuationSequenceNumber == nil {
				without++
			}
		}
		require.Greater(t, without, 10)
		require.Less(t, without, 40)
	})
}

func TestFaultsOfTheSubscribeCall(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, s *Server, c *kinesis.Client) {
		arn := fanout(t, s)
		of := func(call *Call) bool { return call.Stream() == "s" && call.Shard() == shard0 }
		s.Inject(Fault{Operation: "SubscribeToShard", When: of, Times: 1, Refuse: NewError(CodeLimitExceeded, "")})
		_, err := trySubscribe(t.Context(), c, arn, shard0, latest())
		requireCode(t, CodeLimitExceeded, err)

		// An answer that is lost has taken the shard all the same.
		for _, f := range []Fault{{LoseAnswer: true}, {Late: time.Second}} {
			f.Operation, f.When, f.Times = "SubscribeToShard", of, 1
			s.Inject(f)
			_, err = trySubscribe(t.Context(), c, arn, shard0, latest())
			require.ErrorIs(t, err, io.ErrUnexpectedEOF)
			pass(t, 2*time.Second)
			require.Empty(t, s.Subscriptions("s"))
			_, err = trySubscribe(t.Context(), c, arn, shard0, latest())
			requireCode(t, CodeResourceInUse, err)
			pass(t, 5*time.Second)
		}

		// One that is held back too long goes with its call.
		s.Inject(Fault{Operation: "SubscribeToShard", Times: 1, DelayAnswer: time.Minute})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = trySubscribe(ctx, c, arn, shard0, latest())
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Empty(t, s.Subscriptions("s"))
		pass(t, 5*time.Second)

		s.Inject(Fault{Operation: "SubscribeToShard", Times: 1, Delay: 3 * time.Second})
		start := time.Now()
		es := subscribe(t, c, arn, shard0, latest())
		require.Equal(t, 3*time.Second, time.Since(start))
		require.Empty(t, nextEvent(t, es).Records)
		require.Equal(t, 8*time.Second, time.Since(start))
	})
}
