package retrieval_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/retrieval"
)

// found is what a search came to.
type found struct {
	*retrieval.FanOut
	*registry
	// registered and searched are what the hooks were told.
	registered []string
	searched   []error
}

// lookingFor runs a test of a consumer in a stream that has none.
func lookingFor(t *testing.T, conf retrieval.FanOutConfig, test func(t *testing.T, f *found)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		life, end := context.WithCancel(t.Context())
		defer end()
		f := &found{registry: newRegistry()}
		if conf.Stream == "" {
			conf.Stream = stream
		}
		if conf.ARN == "" {
			conf.Name = "group"
		}
		conf.Activation, conf.Longest = time.Minute, 8*time.Second
		conf.OnRegister = func(_, arn string) { f.registered = append(f.registered, arn) }
		conf.OnSearch = func(err error) { f.searched = append(f.searched, err) }
		f.FanOut = retrieval.NewFanOut(life, f.registry, nil, conf)
		test(t, f)
		end()
		f.Wait()
	})
}

func arnOf(n int) string { return fmt.Sprintf("%s/consumer/group:%d", streamARN, n) }

func TestMissingConsumerIsRegisteredOnceHoweverManyAsk(t *testing.T) {
	lookingFor(t, retrieval.FanOutConfig{}, func(t *testing.T, f *found) {
		start := time.Now()
		var shards sync.WaitGroup
		for range 100 {
			shards.Go(func() {
				arn, err := f.Consumer(t.Context())
				require.NoError(t, err)
				require.Equal(t, arnOf(1), arn)
			})
		}
		shards.Wait()
		require.Equal(t, 1, f.count("RegisterStreamConsumer"))
		require.Equal(t, 1, f.count("DescribeStreamSummary"))
		require.Equal(t, []string{arnOf(1)}, f.registered)
		require.Equal(t, []error{nil}, f.searched)
		require.GreaterOrEqual(t, time.Since(start), 10*time.Second, "it is active then")
		require.LessOrEqual(t, time.Since(start), 15*time.Second)
	})
}

func TestStreamThatIsNamedByItsARNIsNotDescribed(t *testing.T) {
	lookingFor(t, retrieval.FanOutConfig{Stream: streamARN}, func(t *testing.T, f *found) {
		f.add("group", types.ConsumerStatusActive)
		_, err := f.Consumer(t.Context())
		require.NoError(t, err)
		require.Zero(t, f.count("DescribeStreamSummary"))
		require.Zero(t, f.count("RegisterStreamConsumer"))
		require.Empty(t, f.registered)
	})
}

func TestRegistrationOfAnotherProcessIsAsGood(t *testing.T) {
	lookingFor(t, retrieval.FanOutConfig{}, func(t *testing.T, f *found) {
		f.refuse = func(_ context.Context, operation string, _ int) error {
			if operation == "RegisterStreamConsumer" { // at this moment
				c := f.add("group", types.ConsumerStatusCreating)
				c.until = time.Now().Add(10 * time.Second)
			}
			return nil
		}
		arn, err := f.Consumer(t.Context())
		require.NoError(t, err)
		require.Equal(t, arnOf(1), arn)
		require.Empty(t, f.registered, "it was not this one")
	})
}

func TestRegistrationsOfOthersAreWaitedOut(t *testing.T) {
	lookingFor(t, retrieval.FanOutConfig{}, func(t *testing.T, f *found) {
		for i := range 5 {
			f.add(fmt.Sprintf("other %d", i), types.ConsumerStatusCreating).until = time.Now().Add(20 * time.Second)
		}
		for i := range 14 {
			f.add(fmt.Sprintf("old %d", i), types.ConsumerStatusActive)
		}
		_, err := f.Consumer(t.Context())
		require.NoError(t, err)
		require.Equal(t, []error{nil}, f.searched)
	})
}

func TestStreamWithAsManyConsumersAsThereMayBeIsToldWithThem(t *testing.T) {
	lookingFor(t, retrieval.FanOutConfig{}, func(t *testing.T, f *found) {
		for i := range 20 {
			f.add(fmt.Sprintf("other-%d", i), types.ConsumerStatusActive)
		}
		_, err := f.Consumer(t.Context())
		require.ErrorContains(t, err, "stream orders has 20 consumers, and takes no more")
		require.ErrorContains(t, err, "`enhanced_fan_out.consumer_name`")
		require.ErrorContains(t, err, "other-0, other-1, ")
		require.ErrorContains(t, err, "other-19")
		require.Equal(t, 3, f.count("RegisterStreamConsumer"), "the same error is for a rate")
	})
}

func TestConsumerThatDoesNotBecomeActiveIsGivenUp(t *testing.T) {
	lookingFor(t, retrieval.FanOutConfig{}, func(t *testing.T, f *found) {
		f.took = -1
		start := time.Now()
		_, err := f.Consumer(t.Context())
		require.ErrorContains(t, err, "consumer group of stream orders is not active after 1m0s, which `enhanced_fan_out.consumer_activation_timeout` allows: it is CREATING")
		require.Equal(t, time.Minute, time.Since(start))
	})
}

func TestServiceThatDoesNotAnswerIsGivenUp(t *testing.T) {
	for _, operation := range []string{"DescribeStreamSummary", "DescribeStreamConsumer", "RegisterStreamConsumer"} {
		t.Run(operation, func(t *testing.T) {
			lookingFor(t, retrieval.FanOutConfig{}, func(t *testing.T, f *found) {
				f.refuse = func(ctx context.Context, called string, _ int) error {
					if called == operation {
						<-ctx.Done()
						return ctx.Err()
					}
					return nil
				}
				start := time.Now()
				_, err := f.Consumer(t.Context())
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.Equal(t, time.Minute, time.Since(start))
			})
		})
	}
}

func TestConsumerGivenByItsARNIsNotRegistered(t *testing.T) {
	arn := arnOf(1)
	for name, test := range map[string]struct {
		prepare func(f *found)
		refusal string
	}{
		"active": {func(f *found) { f.add("group", types.ConsumerStatusActive) }, ""},
		"may not be looked at": {func(f *found) {
			f.refuse = func(context.Context, string, int) error { return coded("AccessDeniedException") }
		}, ""},
		"missing": {func(*found) {}, "there is no consumer " + arn},
		"deleting": {func(f *found) {
			f.add("group", types.ConsumerStatusDeleting).until = time.Now().Add(5 * time.Second)
		}, "there is no consumer " + arn},
	} {
		t.Run(name, func(t *testing.T) {
			lookingFor(t, retrieval.FanOutConfig{ARN: arn}, func(t *testing.T, f *found) {
				test.prepare(f)
				got, err := f.Consumer(t.Context())
				require.Zero(t, f.count("RegisterStreamConsumer"))
				if test.refusal != "" {
					require.ErrorContains(t, err, test.refusal)
					return
				}
				require.NoError(t, err)
				require.Equal(t, arn, got)
			})
		})
	}
}

func TestConsumerThatIsBeingDeletedIsWaitedOutAndRegistered(t *testing.T) {
	lookingFor(t, retrieval.FanOutConfig{}, func(t *testing.T, f *found) {
		f.add("group", types.ConsumerStatusDeleting).until = time.Now().Add(20 * time.Second)
		arn, err := f.Consumer(t.Context())
		require.NoError(t, err)
		require.Equal(t, arnOf(2), arn)
		require.Equal(t, 1, f.count("RegisterStreamConsumer"))
	})
}

func TestThrottledSearchGoesOn(t *testing.T) {
	lookingFor(t, retrieval.FanOutConfig{Stream: streamARN}, func(t *testing.T, f *found) {
		f.refuse = func(_ context.Context, _ string, n int) error {
			if n <= 3 {
				return coded("ThrottlingException")
			}
			return nil
		}
		_, err := f.Consumer(t.Context())
		require.NoError(t, err)
	})
}

func TestFailuresOfTheSearchAreSharedAndPaced(t *testing.T) {
	lookingFor(t, retrieval.FanOutConfig{}, func(t *testing.T, f *found) {
		f.refuse = func(context.Context, string, int) error { return errors.New("no network") }
		for start := time.Now(); time.Since(start) < time.Minute; pass(100 * time.Millisecond) {
			for range 3 {
				_, err := f.Consumer(t.Context())
				require.ErrorContains(t, err, "no network")
			}
		}
		calls := f.calls["DescribeStreamSummary"]
		require.Len(t, f.searched, len(calls))
		require.GreaterOrEqual(t, len(calls), 60/8)
		require.LessOrEqual(t, len(calls), 20)
		for i := 1; i < len(calls); i++ {
			d := calls[i].Sub(calls[i-1])
			longest := min(4*time.Second<<(i-1), 8*time.Second) // that of the configuration
			require.GreaterOrEqual(t, d, longest/2)
			require.LessOrEqual(t, d, 100*time.Millisecond+longest)
		}
	})
}

func TestAskersThatLeaveDoNotEndTheSearch(t *testing.T) {
	lookingFor(t, retrieval.FanOutConfig{}, func(t *testing.T, f *found) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := f.Consumer(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		pass(20 * time.Second)
		arn, err := f.Consumer(t.Context())
		require.NoError(t, err)
		require.Equal(t, arnOf(1), arn)
	})
}

func TestConsumerThatWasFoundIsDeregistered(t *testing.T) {
	lookingFor(t, retrieval.FanOutConfig{}, func(t *testing.T, f *found) {
		require.NoError(t, f.Deregister(t.Context()), "there is none")
		require.Zero(t, f.count("DeregisterStreamConsumer"))
		_, err := f.Consumer(t.Context())
		require.NoError(t, err)
		require.NoError(t, f.Deregister(t.Context()))
		require.False(t, f.active(arnOf(1)))
		arn, err := f.Consumer(t.Context())
		require.NoError(t, err)
		require.Equal(t, arnOf(2), arn, "who needs one registers it")
		f.remove("group")
		require.NoError(t, f.Deregister(t.Context()), "another was first")
	})
}

func TestDeregistrationThatFailsCanBeMadeAgain(t *testing.T) {
	lookingFor(t, retrieval.FanOutConfig{}, func(t *testing.T, f *found) {
		_, err := f.Consumer(t.Context())
		require.NoError(t, err)
		f.refuse = func(_ context.Context, _ string, n int) error {
			if n == 1 {
				return coded("LimitExceededException")
			}
			return nil
		}
		f.calls = map[string][]time.Time{}
		require.ErrorContains(t, f.Deregister(t.Context()), "deregistering consumer group of stream orders")
		require.NoError(t, f.Deregister(t.Context()))
		require.Equal(t, 2, f.count("DeregisterStreamConsumer"))
		require.False(t, f.active(arnOf(1)))
	})
}
