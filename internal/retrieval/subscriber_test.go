package retrieval_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/retrieval"
)

func TestEventsAreHandedOutInTheirOrder(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.serve = func(_ int, p *push) {
			_ = p.start() && p.send(event{records: []int{1, 2}, continuation: 2, behind: 3 * time.Second}) &&
				p.send(event{continuation: 3}) && p.send(event{records: []int{4}, continuation: 4}) && p.pass(time.Hour)
		}
		s := w.source(retrieval.Position{})
		defer s.Close()
		page := w.next(s)
		require.Equal(t, 3*time.Second, page.Behind)
		require.Equal(t, time.Now().Add(-3*time.Second), page.ReadTo)
		require.Equal(t, []retrieval.Record{
			{Data: []byte("record 1"), SequenceNumber: number(1), PartitionKey: "key"},
			{Data: []byte("record 2"), SequenceNumber: number(2), PartitionKey: "key"},
		}, page.Records)
		require.Empty(t, w.next(s).Records)
		require.Equal(t, number(4), w.next(s).Records[0].SequenceNumber)
		require.Equal(t, types.ShardIteratorTypeTrimHorizon, w.subscriptions[0].from.Type)
		require.Equal(t, []retrieval.Ending{""}, w.afters)
	})
}

func TestSubscriptionBeginsAtThePosition(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	after := number(7)
	for name, test := range map[string]struct {
		from retrieval.Position
		want types.StartingPosition
	}{
		"oldest":         {retrieval.Position{}, types.StartingPosition{Type: types.ShardIteratorTypeTrimHorizon}},
		"after sequence": {retrieval.Position{After: after}, types.StartingPosition{Type: types.ShardIteratorTypeAfterSequenceNumber, SequenceNumber: &after}},
		"at time":        {retrieval.Position{At: at}, types.StartingPosition{Type: types.ShardIteratorTypeAtTimestamp, Timestamp: &at}},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				s := w.source(test.from)
				defer s.Close()
				w.next(s)
				require.Equal(t, test.want, w.subscriptions[0].from)
			})
		})
	}
}

// ways in which a subscription ends, after what time, and what is told of it.
var endings = map[string]struct {
	end   func(p *push)
	after time.Duration
	want  retrieval.Ending
}{
	"in time":      {func(p *push) { p.idle(3) }, 5 * time.Minute, retrieval.EndedByService},
	"early":        {func(p *push) { p.pass(10 * time.Second) }, 10 * time.Second, retrieval.EndedByService},
	"cut":          {func(p *push) { p.pass(10 * time.Second); p.cut() }, 10 * time.Second, retrieval.EndedBroken},
	"within":       {func(p *push) { p.write(p.frame("abc")[:9]) }, 0, retrieval.EndedBroken},
	"corrupt":      {func(p *push) { p.write(make([]byte, 100)); p.pass(time.Hour) }, 0, retrieval.EndedBroken},
	"silent":       {func(p *push) { p.pass(time.Hour) }, 35 * time.Second, retrieval.EndedSilent},
	"taken over":   {func(p *push) { p.fail("ResourceInUseException") }, 0, retrieval.EndedTaken},
	"throttled":    {func(p *push) { p.fail("KMSThrottlingException") }, 0, retrieval.EndedThrottled},
	"failed":       {func(p *push) { p.fail("InternalFailureException") }, 0, retrieval.EndedFailed},
	"key disabled": {func(p *push) { p.fail("KMSDisabledException") }, 0, retrieval.EndedFailed},
	"not found":    {func(p *push) { p.fail("ResourceNotFoundException") }, 0, retrieval.EndedFailed},
	"new failure":  {func(p *push) { p.fail("SomethingNewException") }, 0, retrieval.EndedFailed},
}

func TestSubscriptionGoesOnAfterTheLastRecordRead(t *testing.T) {
	for name, ending := range endings {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.serve = func(n int, p *push) {
					if n == 1 {
						if p.start() && p.send(event{records: []int{1, 2, 3}, continuation: 3}) {
							ending.end(p)
						}
						return
					}
					// Some services repeat what a subscription was to begin after.
					_ = p.start() && p.send(event{records: []int{2, 3, 4}, continuation: 4}) && p.pass(time.Hour)
				}
				s := w.source(retrieval.Position{})
				defer s.Close()
				require.Equal(t, numbers(1, 2, 3, 4), w.collect(s, 4))
				require.Equal(t, number(3), w.subscriptions[1].after())
				require.Equal(t, []retrieval.Ending{"", ending.want}, w.afters)
				require.GreaterOrEqual(t, w.subscriptions[1].at, max(ending.after, 5*time.Second))
				require.LessOrEqual(t, w.subscriptions[1].at, max(ending.after+1050*time.Millisecond, 5*time.Second))
				if ending.want == retrieval.EndedSilent {
					require.Len(t, w.told, 1, "for so long something was wrong")
				} else {
					require.Empty(t, w.told, "one that has worked may break once")
				}
			})
		})
	}
}

func TestIdleShardGoesOnAfterItsContinuation(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.serve = func(_ int, p *push) {
			_ = p.start() && p.send(event{records: []int{5}, continuation: 6}) && p.send(event{continuation: 9}) && p.pass(10*time.Second)
		}
		s := w.source(retrieval.Position{After: number(4)})
		defer s.Close()
		w.next(s)
		w.next(s)
		w.next(s)
		require.Equal(t, number(4), w.subscriptions[0].after())
		require.Equal(t, number(9), w.subscriptions[1].after())
	})
}

func TestIdleShardIsReadWithoutATrouble(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		s := w.source(retrieval.Position{})
		defer s.Close()
		for w.since() < time.Hour-10*time.Second {
			require.Empty(t, w.next(s).Records)
		}
		require.Len(t, w.subscriptions, 12)
		require.Empty(t, w.told)
	})
}

func TestSilenceCountsOnlyWhileItIsListenedTo(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.serve = func(_ int, p *push) {
			n := 1
			for p.send(event{records: []int{n}, continuation: n}) && p.pass(34*time.Second) {
				n++
			}
		}
		s := w.source(retrieval.Position{})
		defer s.Close()
		w.next(s)
		pass(10 * time.Minute) // the output is slow
		for range 10 {
			w.next(s)
		}
		require.Len(t, w.subscriptions, 1)
		require.Empty(t, w.told)
	})
}

func TestFullBudgetIsNoSilence(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.serve = func(_ int, p *push) {
			_ = p.start() && p.send(event{records: []int{1}, continuation: 1}) && p.send(event{records: []int{2}, continuation: 2}) && p.pass(time.Hour)
		}
		s := w.source(retrieval.Position{})
		defer s.Close()
		w.next(s)
		all, err := w.budget.Reserve(t.Context(), 1<<20, nil)
		require.NoError(t, err)
		time.AfterFunc(10*time.Minute, func() { w.budget.Release(all) })
		require.Equal(t, number(2), w.next(s).Records[0].SequenceNumber)
		require.Equal(t, 10*time.Minute, w.since())
		require.Equal(t, 1, w.waits)
		require.Len(t, w.subscriptions, 1)
	})
}

func TestCallThatHangsIsGivenUpAfterTenSeconds(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.refuse = func(ctx context.Context, n int) error {
			if n > 1 {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}
		w.serve = func(n int, p *push) {
			if n == 2 { // says nothing at all
				p.pass(time.Hour)
			} else if p.start() {
				p.idle(1)
			}
		}
		s := w.source(retrieval.Position{})
		defer s.Close()
		w.next(s)
		at := w.calls()
		require.Len(t, at, 3)
		require.InDelta(t, 10.75, at[1].Seconds(), 0.25)
		require.InDelta(t, 21.5, (at[2] - 0).Seconds(), 1.5)
		require.Len(t, w.told, 2)
		for _, err := range w.told {
			require.ErrorContains(t, err, "was not answered within 10s")
		}
		require.Len(t, w.afters, 1, "what was never open is no subscription")
	})
}

func TestClosedShardEndsWithItsChildren(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.serve = func(_ int, p *push) {
			_ = p.start() && p.send(event{records: []int{1}, children: []string{"low", "high"}})
		}
		s := w.source(retrieval.Position{})
		defer s.Close()
		page := w.next(s)
		require.True(t, page.End)
		require.Len(t, page.Records, 1)
		require.Equal(t, []retrieval.Child{{ID: "low", Parents: []string{shard}}, {ID: "high", Parents: []string{shard}}}, page.Children)
		require.Zero(t, w.fan.Open())
		_, err := s.Next(w.ctx)
		require.ErrorIs(t, err, retrieval.ErrShardGone)
		require.Len(t, w.subscriptions, 1)
	})
}

func TestEndWithoutChildrenHasToComeAgainAndBeListed(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.serve = func(_ int, p *push) { _ = p.start() && p.send(event{}) }
		w.list.close(9, "child")
		s := w.source(retrieval.Position{After: number(9)})
		defer s.Close()
		page := w.next(s)
		require.True(t, page.End)
		require.Equal(t, []retrieval.Child{{ID: "child", Parents: []string{shard}}}, page.Children)
		require.Len(t, w.subscriptions, 4)
		require.Empty(t, w.told)
	})
}

func TestEndWithoutChildrenOfAnOpenShardIsNotBelieved(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.serve = func(n int, p *push) {
			if n <= 4 {
				_ = p.start() && p.send(event{})
				return
			}
			_ = p.start() && p.send(event{records: []int{10}, continuation: 10}) && p.pass(time.Hour)
		}
		s := w.source(retrieval.Position{After: number(9)})
		defer s.Close()
		page := w.next(s)
		require.False(t, page.End)
		require.Len(t, page.Records, 1)
		require.Len(t, w.told, 1)
		require.ErrorContains(t, w.told[0], "lists it as open")
	})
}

func TestSubscriptionThatOnlyClosesIsNoEnd(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.list.close(9, "child")
		w.serve = func(n int, p *push) {
			if n > 6 {
				_ = p.start() && p.send(event{records: []int{10}, continuation: 10}) && p.pass(time.Hour)
			} else if n%2 == 0 {
				p.start()
			}
		}
		s := w.source(retrieval.Position{After: number(9)})
		defer s.Close()
		require.False(t, w.next(s).End)
		require.Len(t, w.told, 6)
		for _, err := range w.told {
			require.ErrorContains(t, err, "ended before anything had come")
		}
		require.Less(t, w.since(), time.Minute)
	})
}

func TestCloseEndsTheSubscriptionBeforeItReturns(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		s := w.source(retrieval.Position{})
		w.next(s)
		require.Equal(t, 1, w.open)
		require.Equal(t, 1, w.fan.Open())
		s.Close()
		require.Zero(t, w.open)
		require.Zero(t, w.fan.Open())
		require.Equal(t, 1, w.finished)
	})
}

func TestEndOfTheContextEndsEachWait(t *testing.T) {
	for name, prepare := range map[string]func(w *world){
		"for the header":   func(w *world) { w.refuse = func(ctx context.Context, _ int) error { <-ctx.Done(); return ctx.Err() } },
		"for a frame":      func(w *world) { w.serve = func(_ int, p *push) { p.pass(time.Hour) } },
		"for an event":     func(w *world) { w.serve = func(_ int, p *push) { p.start(); p.pass(time.Hour) } },
		"for the pause":    func(w *world) { w.refuse = func(context.Context, int) error { return errors.New("no") } },
		"for the consumer": func(w *world) { w.registry.remove("group"); w.registry.took = -1 },
		"for the budget": func(w *world) {
			all, err := w.budget.Reserve(w.Context(), 1<<20, nil)
			require.NoError(w, err)
			time.AfterFunc(time.Minute, func() { w.budget.Release(all) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				prepare(w)
				s := w.source(retrieval.Position{})
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel()
				_, err := s.Next(ctx)
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.Equal(t, 3*time.Second, w.since())
				s.Close()
				require.Zero(t, w.open)
				pass(time.Minute)
			})
		})
	}
}

// A shard that comes back to this process may have two sources for a moment.
func TestTwoSourcesOfAShardHaveOneSubscription(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		first, second := w.source(retrieval.Position{}), w.source(retrieval.Position{})
		w.next(first)
		pass(time.Second)
		done := make(chan time.Duration)
		go func() {
			w.next(second)
			done <- w.since()
		}()
		synctest.Wait()
		pass(time.Second)
		require.Len(t, w.subscriptions, 1)
		first.Close()
		require.Equal(t, 5*time.Second, <-done, "the service would refuse it before")
		second.Close()
	})
}

func TestTwoSourcesOfAShardKeepItsPace(t *testing.T) {
	inWorld(t, func(_ *testing.T, w *world) {
		w.refuse = func(_ context.Context, n int) error {
			if n < 6 {
				return errors.New("no")
			}
			return nil
		}
		done := make(chan bool)
		for range 2 {
			go func() {
				s := w.source(retrieval.Position{})
				w.next(s)
				s.Close()
				done <- true
			}()
		}
		<-done
		<-done
	})
}

func TestRecordsAreFurtherOnThanTheContinuationBeforeThem(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.serve = func(_ int, p *push) {
			_ = p.start() && p.send(event{continuation: 5}) && p.send(event{records: []int{7}}) && p.pass(10*time.Second)
		}
		s := w.source(retrieval.Position{})
		defer s.Close()
		require.Equal(t, numbers(7), w.collect(s, 1))
		require.Empty(t, w.next(s).Records)
		require.Equal(t, number(7), w.subscriptions[1].after())
	})
}
