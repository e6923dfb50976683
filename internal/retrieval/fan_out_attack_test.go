package retrieval_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/retrieval"
)

// may take more than one subscription.
func TestRefusedPlaceIsComeToAgainHoweverMuchLiesBeforeIt(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		const read, each = 100, 30
		w.refuse = func(_ context.Context, n int) error {
			if n == 1 {
				return &types.InvalidArgumentException{Message: aws.String("a bad moment")}
			}
			return nil
		}
		w.serve = func(_ int, p *push) {
			at := 0
			for p.from.SequenceNumber != nil && number(at) < *p.from.SequenceNumber {
				at++
			}
			if !p.start() {
				return
			}
			for range each {
				if at++; !p.send(event{records: []int{at}, continuation: at}) || !p.pass(10*time.Second) {
					return
				}
			}
		}
		s := w.source(retrieval.Position{After: number(read)})
		defer s.Close()
		for w.since() < time.Hour {
			if page := w.next(s); len(page.Records) > 0 {
				require.Equal(t, number(read+1), page.Records[0].SequenceNumber)
				return
			}
		}
		require.Fail(t, "the shard is not read on", "%d subscriptions in an hour", len(w.subscriptions))
	})
}

// The output of others holds the budget for longer than a subscription lasts, each time.
func TestShardThatWaitsLongForTheBudgetIsReadInTheEnd(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.serve = func(_ int, p *push) {
			if p.start() {
				large := event{continuation: 2000}
				for n := range 1000 {
					large.records = append(large.records, n+1)
				}
				go func() { // the service ends it after five minutes, whatever was read
					if p.pass(5 * time.Minute) {
						p.cut()
					}
				}()
				p.send(large)
				p.pass(5 * time.Minute)
			}
		}
		slow, stop := context.WithCancel(w.ctx)
		others := make(chan struct{})
		go func() { // another shard of a slow output: six minutes for each page
			defer close(others)
			for slow.Err() == nil {
				held, err := w.budget.Reserve(slow, 1<<20, nil)
				if err != nil {
					return
				}
				passed(slow, 6*time.Minute)
				w.budget.Release(held)
			}
		}()
		pass(time.Second)
		ctx, cancel := context.WithTimeout(w.ctx, 3*time.Hour)
		defer cancel()
		s := w.source(retrieval.Position{})
		defer s.Close()
		page, err := s.Next(ctx)
		took := w.since()
		w.budget.Release(page.Cost)
		stop()
		<-others
		require.NoError(t, err, "%d subscriptions, and not one record", len(w.subscriptions))
		require.Len(t, page.Records, 1000)
		require.LessOrEqual(t, took, 10*time.Minute)
	})
}

// attempts may be.
func TestAutoDoesNotSitOutThePausesOfSubscriptionsThatFail(t *testing.T) {
	throttled := func(at time.Duration) bool {
		return at%(10*time.Minute) >= time.Minute && at%(10*time.Minute) < 2*time.Minute
	}
	inBoth(t, 100*time.Minute, throttled, func(b *both) {
		b.refuse = func(context.Context, int) error { return errors.New("no") }
		b.fan = retrieval.NewFanOut(b.ctx, b.registry, b.subscribe, retrieval.FanOutConfig{
			Stream: streamARN, Name: "group", Activation: time.Minute, Longest: 5 * time.Minute,
		})
	}, func(t *testing.T, b *both) {
		require.LessOrEqual(t, b.gap(0, 100*time.Minute), 90*time.Second, "%q", b.ways)
	})
}

// deregisters it too.
func TestConsumerThatIsNotActiveYetIsDeregistered(t *testing.T) {
	for name, lasts := range map[string]time.Duration{"creating": 5 * time.Second, "active": time.Minute} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.registry.remove("group")
				life, end := context.WithCancel(t.Context())
				fan := retrieval.NewFanOut(life, w.registry, w.subscribe, retrieval.FanOutConfig{Stream: streamARN, Name: "group", Activation: time.Minute, Longest: 8 * time.Second})
				ctx, cancel := context.WithTimeout(t.Context(), lasts)
				_, _ = fan.Consumer(ctx)
				cancel()
				end()
				fan.Wait()
				require.Equal(t, 1, w.registry.count("RegisterStreamConsumer"))
				require.NoError(t, fan.Deregister(t.Context()))
				require.Equal(t, 1, w.registry.count("DeregisterStreamConsumer"))
			})
		})
	}
}
