package retrieval_test

import (
	"context"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/retrieval"
)

// refusing has the service refuse positions before the oldest record it has.
func (w *world) refusing(oldest int) {
	w.refuse = func(_ context.Context, n int) error {
		from := w.subscriptions[n-1].from
		if from.SequenceNumber != nil && *from.SequenceNumber < number(oldest) {
			return &types.InvalidArgumentException{Message: aws.String("sorry")}
		}
		return nil
	}
}

func TestRefusedContinuationFallsBackToTheLastRecord(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.serve = func(n int, p *push) {
			_ = p.start() && n == 1 && p.send(event{records: []int{1}, continuation: 5}) || n > 1 &&
				p.send(event{records: []int{2}, continuation: 12}) && p.pass(time.Hour)
		}
		w.refuse = func(_ context.Context, n int) error {
			if w.subscriptions[n-1].after() == number(5) {
				return &types.InvalidArgumentException{}
			}
			return nil
		}
		s := w.source(retrieval.Position{})
		defer s.Close()
		require.Equal(t, numbers(1, 2), w.collect(s, 2))
		require.Equal(t, number(1), w.subscriptions[2].after())
		require.Equal(t, 1050*time.Millisecond, w.subscriptions[2].at-w.subscriptions[1].at)
		require.Empty(t, w.told)
		require.Empty(t, w.expired, "nothing is lost")
	})
}

func TestExpiredPositionIsReadOnFromTheOldestRecord(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.serve = func(_ int, p *push) {
			_ = p.start() && p.send(event{continuation: 3, behind: time.Hour}) && p.send(event{records: []int{3, 7}, continuation: 7}) && p.pass(time.Hour)
		}
		w.refusing(6)
		s := w.source(retrieval.Position{After: number(3)})
		defer s.Close()
		require.Equal(t, numbers(7), w.collect(s, 1))
		require.Equal(t, types.ShardIteratorTypeTrimHorizon, w.subscriptions[1].from.Type)
		require.Equal(t, numbers(3), w.expired)
		require.Empty(t, w.told)
	})
}

// The second subscription finds nothing new, so that the place to begin at is still one
// that the service does not take.
func TestExpiredPositionIsToldOnce(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.serve = func(n int, p *push) {
			if n <= 4 {
				_ = p.start() && p.send(event{continuation: 2, behind: time.Hour}) && p.pass(10*time.Second)
				return
			}
			_ = p.start() && p.send(event{records: []int{7}, continuation: 7}) && p.pass(time.Hour)
		}
		w.refusing(6)
		s := w.source(retrieval.Position{After: number(3)})
		defer s.Close()
		require.Equal(t, numbers(7), w.collect(s, 1))
		require.Equal(t, numbers(3), w.expired)
	})
}

func TestRefusedContinuationBeforeTheFirstRecordFallsBackToThePosition(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, from := range map[string]retrieval.Position{"oldest": {}, "at time": {At: at}} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.serve = func(n int, p *push) {
					if n == 1 {
						_ = p.start() && p.send(event{continuation: 5}) && p.pass(10*time.Second)
						return
					}
					_ = p.start() && p.send(event{records: []int{7}, continuation: 7}) && p.pass(time.Hour)
				}
				w.refusing(6)
				s := w.source(from)
				defer s.Close()
				require.Equal(t, numbers(7), w.collect(s, 1))
				require.Less(t, w.since(), time.Minute)
				require.Equal(t, w.subscriptions[0].from, w.subscriptions[2].from)
				require.Empty(t, w.expired)
			})
		})
	}
}

func TestPositionOfAnEarlierStreamIsThatOfAShardThatIsGone(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.refusing(6)
		w.list.shards[0].SequenceNumberRange.StartingSequenceNumber = aws.String(number(5))
		s := w.source(retrieval.Position{After: number(3)})
		defer s.Close()
		_, err := s.Next(w.ctx)
		require.ErrorIs(t, err, retrieval.ErrShardGone)
		require.Empty(t, w.expired)
	})
}

func TestSubscriptionOfTheFormerOwnerIsWaitedOutInSilence(t *testing.T) {
	for name, seconds := range map[string]float64{"usual": 9, "for ever": 21} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.refuse = func(context.Context, int) error {
					if w.since().Seconds() < seconds {
						return &types.ResourceInUseException{}
					}
					return nil
				}
				s := w.source(retrieval.Position{})
				defer s.Close()
				w.next(s)
				at := w.calls()
				for i := 1; i < len(at); i++ {
					pause := (at[i] - at[i-1]).Seconds()
					if at[i-1] < 10*time.Second {
						require.InDelta(t, 1.1, pause, 0.06, "each second")
					} else {
						require.InDelta(t, max(1.05, at[i-1].Seconds()/10), pause, pause/10+0.01, "more and more rarely")
					}
				}
				if name == "usual" {
					require.Empty(t, w.told)
					return
				}
				require.InDelta(t, 8, len(w.told), 2)
				require.ErrorContains(t, w.told[0], "as consumer group again and again: give each group a consumer of its own, in `enhanced_fan_out.consumer_name`")
			})
		})
	}
}

func TestSubscriptionIsTakenOverAgain(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.serve = func(n int, p *push) {
			if p.start() && p.send(event{records: []int{n}, continuation: n}) && p.pass(7*time.Second) {
				p.fail("ResourceInUseException")
			}
		}
		s := w.source(retrieval.Position{})
		defer s.Close()
		require.Equal(t, numbers(1, 2, 3), w.collect(s, 3))
		require.Equal(t, []retrieval.Ending{"", retrieval.EndedTaken, retrieval.EndedTaken}, w.afters)
	})
}

func TestExceptionBeforeTheFirstEventIsToldAndPaced(t *testing.T) {
	for _, exception := range []string{
		"ResourceInUseException", "KMSThrottlingException", "InternalFailureException", "KMSDisabledException",
		"KMSInvalidStateException", "KMSAccessDeniedException", "KMSNotFoundException", "KMSOptInRequired", "SomethingNewException",
	} {
		t.Run(exception, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.serve = func(n int, p *push) {
					if n < 6 {
						_ = p.start()
						p.fail(exception)
						return
					}
					_ = p.start() && p.send(event{records: []int{1}, continuation: 1}) && p.pass(time.Hour)
				}
				s := w.source(retrieval.Position{})
				defer s.Close()
				require.Equal(t, numbers(1), w.collect(s, 1))
				require.Len(t, w.told, 5)
				require.ErrorContains(t, w.told[0], "reading shard "+shard)
				require.LessOrEqual(t, w.since(), 5*8*time.Second)
			})
		})
	}
}

func TestThrottledCallIsMadeAgain(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.refuse = func(_ context.Context, n int) error {
			if n < 4 {
				return &types.LimitExceededException{}
			}
			return nil
		}
		s := w.source(retrieval.Position{})
		defer s.Close()
		w.next(s)
		require.Len(t, w.told, 2, "the first may be early")
		require.ErrorIs(t, w.told[0], retrieval.ErrThrottled)
		require.LessOrEqual(t, w.since(), 7350*time.Millisecond, "1 + 2 + 4 times the spacing")
	})
}

func TestConsumerThatWasDeregisteredIsRegisteredAnew(t *testing.T) {
	for name, shard := range map[string]retrieval.Shard{
		"first number known":   theShard,
		"first number unknown": {Stream: theShard.Stream, ID: theShard.ID},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.serve = func(n int, p *push) {
					if p.start() && p.send(event{records: []int{n}, continuation: n}) && p.pass(10*time.Second) && n == 1 {
						w.registry.remove("group")
						p.fail("ResourceNotFoundException")
						return
					}
					p.pass(time.Hour)
				}
				s := retrieval.NewSubscriber(w.list, w.fan, w.lists, shard, retrieval.Position{}, w.budget, w.hooks())
				defer s.Close()
				require.Equal(t, numbers(1, 2), w.collect(s, 2))
				require.Equal(t, 1, w.registry.count("RegisterStreamConsumer"))
				require.Equal(t, streamARN+"/consumer/group:1", w.subscriptions[0].arn)
				require.Equal(t, streamARN+"/consumer/group:2", w.subscriptions[1].arn)
			})
		})
	}
}

func TestShardIsGoneOnlyWhereTheStreamDoesNotListIt(t *testing.T) {
	for name, lost := range map[string]func(w *world){
		"not listed":     func(w *world) { w.list.shards[0].ShardId = aws.String("another") },
		"made anew":      func(w *world) { w.list.shards[0].SequenceNumberRange.StartingSequenceNumber = aws.String(number(8)) },
		"stream is gone": func(w *world) { w.list.err = &types.ResourceNotFoundException{} },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.serve = func(n int, p *push) {
					if p.start() && p.send(event{records: []int{n}, continuation: n}) {
						lost(w)
						p.fail("ResourceNotFoundException")
					}
				}
				s := w.source(retrieval.Position{})
				defer s.Close()
				w.next(s)
				_, err := s.Next(w.ctx)
				require.ErrorIs(t, err, retrieval.ErrShardGone)
				require.Len(t, w.subscriptions, 1)
			})
		})
	}
}
