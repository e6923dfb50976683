package lease_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/lease/leasetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var key = lease.Key{Stream: "orders", Shard: "shardId-000000000000"}

// errNoAnswer is an answer that did not arrive.
var errNoAnswer = errors.New("connection reset")

// table is the table of leases with one item, behind a network with faults.
type table struct {
	*leasetest.Table
	mu sync.Mutex
	// requests are the methods that were asked for, in order.
	requests []string
	// writes is how many writes of the shard's item by its owner took effect, and history
	// has the sequences in the order in which they stored them.
	writes  int
	history []string
	// fault decides what becomes of each request; nil for none.
	fault func(method string) fault
}

// fault is what becomes of a request.
type fault struct {
	unsent  bool          // it never takes effect
	unheard bool          // the answer is lost
	refused bool          // it conflicts
	takes   time.Duration // until the answer, or the error, comes
	late    time.Duration // until it takes effect, where that is not at once
}

var (
	none     = fault{}
	unsent   = fault{unsent: true, unheard: true}
	unheard  = fault{unheard: true}
	unending = fault{unsent: true, takes: 24 * time.Hour}
)

func newTable() *table {
	s := &table{Table: leasetest.New()}
	s.Network = s.carry
	return s
}

// past marks the requests of others, which no fault meets and nothing counts.
type past struct{}

func others(ctx context.Context) context.Context { return context.WithValue(ctx, past{}, true) }

func (s *table) carry(ctx context.Context, method string, serve func() error) error {
	if ctx.Value(past{}) != nil {
		return serve()
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s.mu.Lock()
	s.requests = append(s.requests, method)
	what := none
	if s.fault != nil {
		what = s.fault(method)
	}
	s.mu.Unlock()

	var err error
	switch {
	case what.refused:
		return lease.ErrConflict
	case what.unsent:
	case what.late > 0:
		time.AfterFunc(what.late, func() { _ = s.serve(method, serve) })
	default:
		err = s.serve(method, serve)
	}
	if what.takes > 0 {
		answer := time.NewTimer(what.takes)
		defer answer.Stop()
		select {
		case <-answer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if what.unheard {
		return errNoAnswer
	}
	return err
}

func (s *table) serve(method string, serve func() error) error {
	err := serve()
	if err == nil && slices.Contains([]string{"Renew", "Release", "Finish", "Cut", "HandOver", "Yield"}, method) {
		s.mu.Lock()
		s.writes++
		s.history = append(s.history, s.now().Sequence)
		s.mu.Unlock()
	}
	return err
}

// with has faults decide what becomes of requests from now on.
func (s *table) with(faults func(method string) fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = faults
}

// all is a fault of all requests to the given methods, or to all that there are.
func all(what fault, methods ...string) func(string) fault {
	return func(method string) fault {
		if len(methods) == 0 || slices.Contains(methods, method) {
			return what
		}
		return none
	}
}

// once is a fault of the first request of a method.
func once(what fault, method string) func(string) fault {
	met := false // guarded by table.mu, under which faults are decided
	return func(m string) fault {
		if m != method || met {
			return none
		}
		met = true
		return what
	}
}

// written returns how many writes of the shard's item by its owner took effect.
func (s *table) written() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.writes
}

// asked returns how many requests of a method were made.
func (s *table) asked(method string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := 0
	for _, m := range s.requests {
		if m == method {
			asked++
		}
	}
	return asked
}

// now returns the item as it is.
func (s *table) now() lease.Item { return s.Now(key) }

// me returns the member's item as it is.
func (s *table) me(t *testing.T) lease.Member {
	t.Helper()
	m, ok, err := s.Member(others(t.Context()), "me")
	require.NoError(t, err)
	require.True(t, ok, "the member is not in the table")
	return m
}

// evict removes the member's item as it is.
func (s *table) evict(t *testing.T) {
	t.Helper()
	require.NoError(t, s.Remove(others(t.Context()), s.me(t)))
}

// steal has the built-in input take the shard.
func (s *table) steal() {
	s.Change(key, func(item *lease.Item) { item.Owner, item.Term, item.Token = "built-in", "", "its own" })
}

// pass lets time pass in a bubble of synctest, where it costs none.
func pass(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // virtual time
	synctest.Wait()
}

func options() lease.Options {
	return lease.Options{
		Client: "me", Period: 30 * time.Second, CommitPeriod: 5 * time.Second,
		Rand: func() float64 { return 0 },
	}
}

// beside returns options where a built-in input shares the stream.
func beside() lease.Options {
	opts := options()
	opts.Foreign = func() bool { return true }
	return opts
}

// join makes a session that is kept until the test ends.
func join(t *testing.T, s *table) *lease.Session {
	t.Helper()
	session, err := lease.Join(t.Context(), s, lease.Report{Streams: []string{key.Stream}}, options())
	require.NoError(t, err)
	go func() { _ = session.Keep(t.Context()) }()
	return session
}

func take(t *testing.T, s *table) *lease.Lease {
	t.Helper()
	return takeWith(t, s, join(t, s), options())
}

func takeWith(t *testing.T, s *table, session *lease.Session, opts lease.Options) *lease.Lease {
	t.Helper()
	l, item, err := lease.Take(t.Context(), t.Context(), session, s, s.now(), lease.Origin{}, opts)
	require.NoError(t, err)
	require.Equal(t, "me", item.Owner)
	return l
}

// keep runs Keep until the returned function ends it and returns its error.
func keep(t *testing.T, l *lease.Lease, acked func() string) (end func() error) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Keep(ctx, func() lease.Position { return lease.After(acked()) }) }()
	return func() error {
		cancel()
		return <-done
	}
}

func nothing() string { return "" }

func always(sequence string) func() string { return func() string { return sequence } }

func TestIdleItemIsTouchedAtHalfOfItsHorizon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		l := take(t, s)
		end := keep(t, l, nothing)
		for range 10 {
			pass(30 * time.Second)
			require.True(t, l.Trusted())
		}
		pass(time.Second)
		require.NoError(t, end())
		require.Equal(t, 5, s.written(), "once a minute")
	})
}

func TestItemIsRenewedEveryThirdOfThePeriodBesideABuiltInInput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		end := keep(t, takeWith(t, s, join(t, s), beside()), nothing)
		pass(time.Minute + time.Second)
		require.NoError(t, end())
		require.Equal(t, 6, s.written())
	})
}

func TestItemSaysHowLongTheBuiltInInputIsToLeaveItAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		ahead := func() time.Duration {
			until, err := time.Parse(time.RFC3339Nano, s.now().Token)
			require.NoError(t, err)
			return time.Until(until)
		}
		var foreign atomic.Bool
		opts := options()
		opts.Foreign = foreign.Load
		end := keep(t, takeWith(t, s, join(t, s), opts), nothing)
		require.Equal(t, 2*time.Minute, ahead())

		pass(32 * time.Second)
		foreign.Store(true)
		pass(5 * time.Second) // the next look for something to commit
		require.Equal(t, 1, s.written(), "it has stood for longer than a third of the period")
		require.InDelta(t, 30*time.Second, ahead(), float64(3*time.Second))
		pass(time.Minute)
		require.Equal(t, 7, s.written())

		foreign.Store(false)
		pass(11 * time.Second)
		require.Equal(t, 8, s.written())
		require.Greater(t, ahead(), 100*time.Second)
		pass(time.Minute)
		require.Equal(t, 9, s.written())
		require.NoError(t, end())
	})
}

func TestAcknowledgedSequenceIsCommittedWithinTheCommitPeriod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		start := time.Now()
		acked := func() string {
			if time.Since(start) >= 7*time.Second {
				return "100"
			}
			return ""
		}
		end := keep(t, take(t, s), acked)
		pass(9 * time.Second)
		require.Empty(t, s.now().Sequence)
		pass(3 * time.Second)
		require.Equal(t, "100", s.now().Sequence)
		require.NoError(t, end())
	})
}

func TestLostAnswerDoesNotLoseTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		l := take(t, s)
		s.with(once(unheard, "Renew"))
		end := keep(t, l, nothing)
		pass(5 * time.Minute)
		require.True(t, l.Trusted())
		require.NoError(t, end())
	})
}

func TestLostAnswerToAClaimIsResolvedByReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		s.with(all(unheard, "Claim"))
		require.True(t, take(t, s).Trusted())
	})
}

func TestLeaseIsTrustedWhileItsSessionIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		l := take(t, s)
		s.with(all(unending, "Beat", "Member"))
		end := keep(t, l, func() string { return strconv.Itoa(1 + int(time.Now().Unix())) })
		pass(27*time.Second - time.Nanosecond)
		require.True(t, l.Trusted())
		require.Equal(t, 5, s.written(), "its item is fresh")
		pass(time.Nanosecond)
		require.False(t, l.Trusted())
		require.NoError(t, l.Context().Err())
		require.NoError(t, end())
	})
}

func TestLeaseIsTrustedForOneHorizonFromItsLastWrite(t *testing.T) {
	for name, c := range map[string]struct {
		opts    lease.Options
		horizon time.Duration
	}{
		"alone":                    {options(), 4 * options().Period},
		"beside a built-in input":  {beside(), options().Period},
		"by what was written then": {opts: func() lease.Options { o := options(); o.Foreign = onlyFirst(); return o }(), horizon: options().Period},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newTable()
				session := join(t, s)
				s.with(func(method string) fault {
					switch method {
					case "Claim":
						return fault{takes: 2 * time.Second}
					case "Renew", "Get":
						return unending
					}
					return none
				})
				l := takeWith(t, s, session, c.opts)
				end := keep(t, l, nothing)
				pass(c.horizon - options().Period/10 - 2*time.Second - time.Nanosecond)
				require.True(t, l.Trusted())
				pass(time.Nanosecond)
				require.True(t, session.Trusted())
				require.False(t, l.Trusted())
				require.NoError(t, l.Context().Err())
				require.NoError(t, end())
			})
		})
	}
}

// onlyFirst returns an Options.Foreign that a built-in input is there at the claim, and
// not any more afterwards.
func onlyFirst() func() bool {
	first := true
	return func() bool { defer func() { first = false }(); return first }
}

func TestDeliveryWaitsForTrustAndGoesOnWhenNobodyTookTheShard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		l := takeWith(t, s, join(t, s), beside())
		s.with(all(unsent))
		end := keep(t, l, nothing)
		pass(time.Minute)
		require.False(t, l.Trusted())

		waited := make(chan error, 1)
		go func() { waited <- l.Await(t.Context()) }()
		synctest.Wait()
		require.Empty(t, waited)
		s.with(nil)
		start := time.Now()
		require.NoError(t, <-waited)
		require.True(t, l.Trusted())
		require.LessOrEqual(t, time.Since(start), options().Period/10)
		require.NoError(t, end())
	})
}

func TestDeliveryThatWaitsEndsWithItsContextAndWithTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		l := take(t, s)
		s.with(all(unsent))
		end := keep(t, l, nothing)
		pass(time.Minute)

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, l.Await(ctx), context.DeadlineExceeded)
		waited := make(chan error, 1)
		go func() { waited <- l.Await(t.Context()) }()
		s.with(nil)
		s.evict(t)
		err := <-waited
		require.ErrorIs(t, err, lease.ErrLost)
		require.ErrorIs(t, err, lease.ErrEvicted)
		synctest.Wait()
		require.ErrorIs(t, end(), lease.ErrLost)
	})
}

func TestWallClockJumpEndsTrustInALeaseUntilItsItemIsWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		l := take(t, s)
		end := keep(t, l, nothing)
		pass(time.Second)
		l.JumpWall(time.Hour)
		require.False(t, l.Trusted())
		start := time.Now()
		require.NoError(t, l.Await(t.Context()))
		require.Zero(t, time.Since(start), "it is written at once")
		require.Equal(t, 1, s.written())
		require.NoError(t, end())
	})
}

func TestTimeThatAMachineWasSuspendedForEndsTrust(t *testing.T) {
	s := newTable()
	session, err := lease.Join(t.Context(), s, lease.Report{}, options())
	require.NoError(t, err)
	l := takeWith(t, s, session, options())
	require.True(t, l.Trusted())
	l.JumpWall(time.Hour) // on the real clock, the monotonic one stands still
	require.False(t, l.Trusted())
	require.True(t, session.Trusted())
	session.JumpWall(time.Hour)
	require.False(t, session.Trusted())
}

func TestCheckFindsOutAboutATheftAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		l := take(t, s)
		end := keep(t, l, nothing)
		pass(time.Second)
		l.Check()
		synctest.Wait()
		require.Equal(t, 1, s.written())
		s.steal()
		l.Check()
		synctest.Wait()
		require.ErrorIs(t, context.Cause(l.Context()), lease.ErrLost)
		require.ErrorIs(t, end(), lease.ErrLost)
	})
}

func TestStolenLeaseWhoseNewOwnerHasMovedWritesNothingMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		l := take(t, s)
		end := keep(t, l, always("500"))
		pass(time.Second)
		s.steal()
		s.Change(key, func(item *lease.Item) { item.Sequence = "600" })

		<-l.Context().Done()
		require.ErrorIs(t, context.Cause(l.Context()), lease.ErrLost)
		require.ErrorIs(t, end(), lease.ErrLost)
		require.False(t, l.Trusted())
		require.ErrorIs(t, l.Release(t.Context(), lease.After("500")), lease.ErrLost)
		require.Equal(t, "600", s.now().Sequence, "the new owner has moved")
		require.Equal(t, "built-in", s.now().Owner)
		require.Zero(t, s.written())
	})
}

func TestLeaseClaimedByAnotherMemberWritesNothingMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		l := take(t, s)
		end := keep(t, l, always("500"))
		s.Change(key, func(item *lease.Item) { item.Owner, item.Term = "other", "its own" })
		<-l.Context().Done()
		require.ErrorIs(t, end(), lease.ErrLost)
		require.Empty(t, s.now().Sequence, "it reads already")
		require.Zero(t, s.written())
	})
}

func TestLeaseIsLostWithItsItem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		l := take(t, s)
		end := keep(t, l, always("500"))
		deleted, err := s.Delete(others(t.Context()), s.now())
		require.NoError(t, err)
		require.True(t, deleted)
		<-l.Context().Done()
		require.ErrorIs(t, context.Cause(l.Context()), lease.ErrLost)
		require.ErrorIs(t, end(), lease.ErrDeleted)
		require.False(t, s.now().Exists)
	})
}

func TestBuiltInInputThatHasNotMovedGetsTheFinalCheckpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		end := keep(t, take(t, s), always("500"))
		pass(time.Second)
		s.steal()
		pass(5 * time.Second)
		require.ErrorIs(t, end(), lease.ErrLost)
		require.Equal(t, "500", s.now().Sequence)
		require.Equal(t, "built-in", s.now().Owner)
	})
}

func TestEachClaimAndEachHandOverHasAFreshTermAndTheNextNumber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		session := join(t, s)
		l := takeWith(t, s, session, options())
		require.EqualValues(t, 1, l.Number())
		first := s.now()
		require.NoError(t, l.HandOver(t.Context(), lease.After("100"), "other"))
		require.False(t, l.Trusted())
		second := s.now()
		require.Equal(t, lease.Item{
			Exists: true, Key: key, Sequence: "100", Owner: "other", Number: 2, Term: second.Term, Token: second.Token,
		}, second)

		s.Change(key, func(item *lease.Item) { item.Owner, item.Term = "me", "of the other's hand-over"; item.Number++ })
		l = takeWith(t, s, session, options())
		require.EqualValues(t, 4, l.Number())
		third := s.now()
		terms := []string{"", first.Term, second.Term, third.Term}
		slices.Sort(terms)
		require.Len(t, slices.Compact(terms), 4)
	})
}

func TestLateWritesOfAnEarlierOwnershipDoNothing(t *testing.T) {
	for _, method := range []string{"Renew", "Release", "Finish", "HandOver"} {
		t.Run(method, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newTable()
				session := join(t, s)
				l := takeWith(t, s, session, options())
				s.with(once(fault{late: time.Minute, unheard: true}, method))
				end := func() error { return nil }
				ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
				defer cancel()
				switch method { // attempts that are given up
				case "Renew":
					end = keep(t, l, always("90"))
					pass(5 * time.Second)
				case "Release":
					require.Error(t, l.Release(ctx, lease.After("90")))
				case "Finish":
					require.Error(t, l.Finish(ctx, lease.After("90")))
				case "HandOver":
					require.Error(t, l.HandOver(ctx, lease.After("90"), "other"))
				}
				require.NoError(t, end())
				require.Empty(t, s.now().Sequence)
				require.Equal(t, "me", s.now().Owner)

				l = takeWith(t, s, session, options()) // as its own, which it does not read
				end = keep(t, l, always("100"))
				pass(55 * time.Second)
				before := s.now()
				require.Equal(t, "100", before.Sequence)
				pass(8 * time.Second)
				require.Equal(t, before, s.now())
				require.True(t, l.Trusted())
				require.NoError(t, end())
			})
		})
	}
}

func TestLeaseIsNotTrustedWhileItsLastWriteHasNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		l := take(t, s)
		s.with(func(method string) fault {
			if method == "Get" {
				return unending
			}
			return unheard
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		ended := make(chan error, 1)
		go func() { ended <- l.HandOver(ctx, lease.After("100"), "other") }()
		synctest.Wait()
		require.Equal(t, "other", s.now().Owner, "it may read already")
		require.False(t, l.Trusted())
		require.Error(t, <-ended)
		require.ErrorIs(t, context.Cause(l.Context()), lease.ErrLost, "nobody reads on under this term")
	})
}

func TestFinalCheckpointOfTheBuiltInInputIsAwaitedButNotForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		l := takeWith(t, s, join(t, s), beside())
		begin := time.Now()
		time.AfterFunc(3*time.Second, func() { s.Change(key, func(item *lease.Item) { item.Sequence = "100" }) })
		after, err := l.AwaitFinalCheckpoint(t.Context(), 7*time.Second)
		require.NoError(t, err)
		require.Equal(t, lease.After("100"), after)
		require.Less(t, time.Since(begin), 4*time.Second)

		begin = time.Now()
		after, err = l.AwaitFinalCheckpoint(t.Context(), 47*time.Second)
		require.NoError(t, err)
		require.Equal(t, lease.After("100"), after)
		require.Equal(t, 47*time.Second, time.Since(begin))
		require.True(t, l.Trusted(), "it is renewed meanwhile")
	})
}

func TestAwaitingTheFinalCheckpointEndsWithTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		l := take(t, s)
		time.AfterFunc(2*time.Second, s.steal)
		begin := time.Now()
		_, err := l.AwaitFinalCheckpoint(t.Context(), time.Minute)
		require.ErrorIs(t, err, lease.ErrLost)
		require.Equal(t, 3*time.Second, time.Since(begin))
		require.ErrorIs(t, context.Cause(l.Context()), lease.ErrLost)
	})
}

func TestAttemptThatArrivesLateDoesNotMoveTheCheckpointBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		l := take(t, s)
		late := l.Link() // what an attempt that hangs in the network carries
		end := keep(t, l, always("100"))
		pass(6 * time.Second)
		require.Equal(t, "100", s.now().Sequence)

		_, err := s.Renew(others(t.Context()), key, late, "late", lease.Move{To: lease.After("50")})
		require.ErrorIs(t, err, lease.ErrConflict)
		require.Equal(t, "100", s.now().Sequence)
		require.NoError(t, end())
	})
}

func TestEarlierAttemptThatTookEffectIsBuiltUpon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		l := take(t, s)
		// The first attempt is given up after six seconds, its reading too, and then arrives.
		first := fault{late: 12*time.Second + 100*time.Millisecond, takes: time.Hour}
		renewed, read := once(first, "Renew"), once(unending, "Get")
		s.with(func(method string) fault {
			if method == "Renew" {
				return renewed(method)
			}
			return read(method)
		})
		acked := "90"
		end := keep(t, l, func() string { defer func() { acked = "100" }(); return acked })
		pass(27*time.Second + 100*time.Millisecond)
		require.True(t, l.Trusted())
		require.Equal(t, []string{"90", "100"}, s.history)
		require.NoError(t, end())
	})
}

// moment is at which a shard is cut.
var moment = time.Date(2024, 5, 1, 13, 0, 0, 5, time.UTC)

func TestLastWritesSurviveALostAnswer(t *testing.T) {
	for _, method := range []string{"Release", "Finish", "Cut", "HandOver"} {
		t.Run(method, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newTable()
				l := take(t, s)
				s.with(all(unheard, method))
				switch method {
				case "Release":
					require.NoError(t, l.Release(t.Context(), lease.After("100")))
				case "Finish":
					require.NoError(t, l.Finish(t.Context(), lease.After("100")))
				case "Cut":
					require.NoError(t, l.Cut(t.Context(), lease.After("100"), moment))
				case "HandOver":
					require.NoError(t, l.HandOver(t.Context(), lease.After("100"), "other"))
				}
				require.Equal(t, "100", s.now().Sequence)
				require.Equal(t, method == "HandOver", s.now().Owner == "other")
				require.Equal(t, method != "HandOver", s.now().Owner == "")
				require.Equal(t, method == "Finish", s.now().Finished)
				require.Equal(t, method == "Cut", s.now().CutAt.Equal(moment))
				require.Equal(t, 1, s.written())
				require.False(t, l.Trusted())
			})
		})
	}
}

func TestRenewalThatIsUnderWayAtTheEndOfKeepIsNoFault(t *testing.T) {
	for method, end := range map[string]func(l *lease.Lease, ctx context.Context) error{
		"Release": func(l *lease.Lease, ctx context.Context) error { return l.Release(ctx, lease.After("100")) },
		"Finish":  func(l *lease.Lease, ctx context.Context) error { return l.Finish(ctx, lease.After("100")) },
		"Cut":     func(l *lease.Lease, ctx context.Context) error { return l.Cut(ctx, lease.After("100"), moment) },
		"HandOver": func(l *lease.Lease, ctx context.Context) error {
			return l.HandOver(ctx, lease.After("100"), "other")
		},
	} {
		t.Run(method, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newTable()
				opts := options()
				var told []error
				opts.OnWrite = func(err error) { told = append(told, err) }
				l := takeWith(t, s, join(t, s), opts)
				s.with(all(fault{takes: time.Second}, "Renew")) // it takes effect at once
				endKeep := keep(t, l, always("50"))
				pass(opts.CommitPeriod)
				require.NoError(t, endKeep())
				require.Equal(t, "50", s.now().Sequence)

				start := time.Now()
				require.NoError(t, end(l, t.Context()))
				require.Zero(t, time.Since(start), "it waits for nothing")
				require.Equal(t, []error{nil}, told)
				require.Equal(t, []string{"50", "100"}, s.history)
				require.Equal(t, 2, s.asked(method))
			})
		})
	}
}

func TestFinalCheckpointThatComesLateIsNoFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		opts := options()
		var told []error
		opts.OnWrite = func(err error) { told = append(told, err) }
		l := takeWith(t, s, join(t, s), opts)
		s.Change(key, func(item *lease.Item) { item.Sequence = "60" })
		end := keep(t, l, always("100"))
		pass(opts.CommitPeriod)
		require.Equal(t, []error{nil}, told)
		require.Equal(t, "100", s.now().Sequence)

		s.Change(key, func(item *lease.Item) { item.Sequence = "160" })
		s.with(once(unsent, "Renew"))
		pass(time.Second)
		l.Check()
		synctest.Wait()
		require.Len(t, told, 2)
		require.ErrorIs(t, told[1], errNoAnswer, "the network failed, whatever else has happened")
		require.NoError(t, end())
	})
}

func TestRefusalThatNothingExplainsIsToldAndTriedMoreAndMoreRarely(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		opts := options()
		var told []error
		opts.OnWrite = func(err error) { told = append(told, err) }
		l := takeWith(t, s, join(t, s), opts)
		s.with(all(fault{refused: true}, "Release"))
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		require.ErrorIs(t, l.Release(ctx, lease.After("100")), lease.ErrConflict)
		require.Len(t, told, s.asked("Release"))
		require.InDelta(t, 8, len(told), 2)
		require.NotContains(t, told, nil)
	})
}

func TestReleaseEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		l := take(t, s)
		s.with(all(unending))
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		start := time.Now()
		require.ErrorContains(t, l.Release(ctx, lease.After("100")), "releasing shard orders:shardId-000000000000")
		require.Equal(t, 5*time.Second, time.Since(start))
	})
}

func TestNoWriteStoresLessThanTheFinalCheckpointOfTheBuiltInInput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		l := take(t, s)
		acked := "50" // owned by Keep between start and end
		end := keep(t, l, func() string { return acked })
		pass(6 * time.Second)
		require.Equal(t, "50", s.now().Sequence)
		s.Change(key, func(item *lease.Item) { item.Sequence = "77" }) // unconditionally, as the built-in input yields
		pass(time.Minute)
		require.Equal(t, 2, s.written(), "the touch")
		require.Equal(t, "77", s.now().Sequence)
		require.NoError(t, end())

		s.Change(key, func(item *lease.Item) { item.Sequence = "88" })
		acked = "80"
		end = keep(t, l, func() string { return acked })
		pass(10 * time.Second)
		require.True(t, l.Trusted())
		require.Equal(t, "88", s.now().Sequence)
		require.NoError(t, end())

		s.Change(key, func(item *lease.Item) { item.Sequence = "99" })
		require.NoError(t, l.Release(t.Context(), lease.After("90")))
		require.Equal(t, []string{"50", "77", "88", "99"}, s.history)
	})
}

func TestLostSessionWritesToNoShardsItem(t *testing.T) {
	for name, last := range map[string]func(ctx context.Context, l *lease.Lease) error{
		"Release":  func(ctx context.Context, l *lease.Lease) error { return l.Release(ctx, lease.After("500")) },
		"Finish":   func(ctx context.Context, l *lease.Lease) error { return l.Finish(ctx, lease.After("500")) },
		"Cut":      func(ctx context.Context, l *lease.Lease) error { return l.Cut(ctx, lease.After("500"), moment) },
		"HandOver": func(ctx context.Context, l *lease.Lease) error { return l.HandOver(ctx, lease.After("500"), "other") },
		"Keep": func(ctx context.Context, l *lease.Lease) error {
			return l.Keep(ctx, func() lease.Position { return lease.After("600") })
		},
		"AwaitFinalCheckpoint": func(ctx context.Context, l *lease.Lease) error {
			_, err := l.AwaitFinalCheckpoint(ctx, time.Hour)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newTable()
				session := join(t, s)
				l := takeWith(t, s, session, beside())
				end := keep(t, l, nothing)
				s.evict(t)
				<-session.Context().Done()
				synctest.Wait()
				require.ErrorIs(t, end(), lease.ErrEvicted)
				before, asked := s.now(), len(s.requests)
				start := time.Now()
				err := last(t.Context(), l)
				require.ErrorIs(t, err, lease.ErrLost)
				require.ErrorIs(t, err, lease.ErrEvicted)
				require.Zero(t, time.Since(start))
				require.ErrorIs(t, context.Cause(l.Context()), lease.ErrLost)
				require.ErrorIs(t, context.Cause(l.Context()), lease.ErrEvicted)
				require.ErrorIs(t, l.Await(t.Context()), lease.ErrEvicted)
				_, _, err = lease.Take(t.Context(), t.Context(), session, s, s.now(), lease.Origin{}, options())
				require.ErrorIs(t, err, lease.ErrEvicted)
				require.Equal(t, before, s.now())
				require.Len(t, s.requests, asked)
			})
		})
	}
}

func TestSessionThatIsLostWhileALeaseLooksForSomethingToCommitWritesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		session := join(t, s)
		l := takeWith(t, s, session, options())
		err := l.Keep(t.Context(), func() lease.Position {
			s.evict(t)
			<-session.Context().Done()
			return lease.After("500")
		})
		require.ErrorIs(t, err, lease.ErrEvicted)
		require.Zero(t, s.asked("Renew"))
	})
}

func TestLostSessionYieldsNoFinalCheckpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		session := join(t, s)
		l := takeWith(t, s, session, options())
		s.with(all(unending, "Release"))
		ended := make(chan error, 1)
		go func() { ended <- l.Release(t.Context(), lease.After("500")) }()
		synctest.Wait()
		// The session is lost, and the shard stolen, while the release is under way.
		s.evict(t)
		session.Report(lease.Report{Changes: 1})
		s.steal()
		require.ErrorIs(t, <-ended, lease.ErrLost)
		require.ErrorIs(t, context.Cause(session.Context()), lease.ErrEvicted)
		require.Equal(t, "built-in", s.now().Owner)
		require.Empty(t, s.now().Sequence, "whoever the shard was stolen from may be a successor")
	})
}

func TestLeaseEndsWithItsHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		holder, cancel := context.WithCancelCause(t.Context())
		l, _, err := lease.Take(t.Context(), holder, join(t, s), s, s.now(), lease.Origin{}, options())
		require.NoError(t, err)
		why := errors.New("the input is closed")
		cancel(why)
		<-l.Context().Done()
		require.Equal(t, why, context.Cause(l.Context()))
		require.False(t, l.Trusted())
		require.NoError(t, l.Release(t.Context(), lease.After("100")), "it is still its own")
		require.Equal(t, "100", s.now().Sequence)
	})
}

// holder is a context that counts who waits for its end.
type holder struct {
	context.Context //nolint:containedctx // it is one
	waiting         atomic.Int32
}

func (h *holder) Done() <-chan struct{} { return make(chan struct{}) }
func (h *holder) Value(any) any         { return nil }
func (h *holder) AfterFunc(func()) (stop func() bool) {
	h.waiting.Add(1)
	return func() bool { h.waiting.Add(-1); return true }
}

func TestHolderKeepsNothingOfALeaseThatHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		session, h := join(t, s), &holder{Context: t.Context()}
		take := func() *lease.Lease {
			l, _, err := lease.Take(t.Context(), h, session, s, s.now(), lease.Origin{}, options())
			require.NoError(t, err)
			return l
		}
		l := take()
		require.EqualValues(t, 1, h.waiting.Load())
		require.NoError(t, l.Release(t.Context(), lease.After("100")))
		synctest.Wait()
		require.Zero(t, h.waiting.Load())

		l = take()
		s.evict(t)
		<-l.Context().Done()
		synctest.Wait()
		require.Zero(t, h.waiting.Load())
	})
}

func TestThoseWhoWaitForTrustDoNotHurryTheRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		l := takeWith(t, s, join(t, s), beside())
		s.with(all(unsent))
		end := keep(t, l, nothing)
		pass(30 * time.Second)
		require.False(t, l.Trusted())
		renewed, beaten := s.asked("Renew"), s.asked("Beat")
		for range 100 {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			require.ErrorIs(t, l.Await(ctx), context.DeadlineExceeded)
			cancel()
		}
		require.LessOrEqual(t, s.asked("Renew")-renewed, 10, "ten seconds, at a pause of one and a half at least")
		require.LessOrEqual(t, s.asked("Beat")-beaten, 10)
		require.NoError(t, end())
	})
}

// An outage of the table concerns all items of a process: one request at a time finds out
// whether it is over, the heartbeat.
func TestLeasesAskRarelyWhileTheHeartbeatsFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		l := take(t, s)
		end := keep(t, l, always("5"))
		s.with(all(unsent))
		pass(20 * time.Second)
		before := s.asked("Renew")
		pass(100 * time.Second)
		require.InDelta(t, before+3, s.asked("Renew"), 1, "once in a lease period")
		require.Greater(t, s.asked("Beat"), 20, "at a pace of its own")
		s.with(nil)
		pass(8 * time.Second)
		require.Equal(t, "5", s.now().Sequence, "a pause of the heartbeat and one of the lease")
		require.NoError(t, end())
	})
}

func TestItemThatCannotBeWrittenIsTriedMoreAndMoreRarely(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		l := take(t, s)
		end := keep(t, l, always("5"))
		s.with(all(unsent, "Renew"))
		pass(2 * time.Minute)
		require.LessOrEqual(t, s.asked("Renew")+s.asked("Get"), 16, "eight a minute, a write and a read for each attempt")
		require.NoError(t, l.Context().Err())
		s.with(nil)
		pass(30 * time.Second)
		require.Equal(t, "5", s.now().Sequence)
		require.NoError(t, end())
	})
}

func TestLeaseThatWaitsForItsSessionEndsWithIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		l := take(t, s)
		end := keep(t, l, always("5"))
		s.with(all(unsent, "Beat", "Renew", "Get"))
		pass(20 * time.Second)
		s.evict(t)
		s.with(nil)
		pass(5 * time.Second)
		require.ErrorIs(t, context.Cause(l.Context()), lease.ErrEvicted)
		require.ErrorIs(t, end(), lease.ErrLost)
	})
}

func TestEachWriteSaysUpToWhenTheShardIsAcknowledged(t *testing.T) {
	for name, last := range map[string]func(context.Context, *lease.Lease) error{
		"release":   func(ctx context.Context, l *lease.Lease) error { return l.Release(ctx, lease.After("7")) },
		"finish":    func(ctx context.Context, l *lease.Lease) error { return l.Finish(ctx, lease.After("7")) },
		"cut":       func(ctx context.Context, l *lease.Lease) error { return l.Cut(ctx, lease.After("7"), moment) },
		"hand-over": func(ctx context.Context, l *lease.Lease) error { return l.HandOver(ctx, lease.After("7"), "other") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newTable()
				var upTo atomic.Pointer[time.Time]
				opts := options()
				opts.UpTo = func() time.Time { return *upTo.Load() }
				set := func(at time.Time) { upTo.Store(&at) }
				set(time.Time{})
				l := takeWith(t, s, join(t, s), opts)
				end := keep(t, l, nothing)
				pass(61 * time.Second)
				require.Zero(t, s.now().UpTo, "nobody knows")
				began := time.Now()
				set(began)
				pass(61 * time.Second)
				require.Equal(t, began.Unix(), s.now().UpTo.Unix(), "a touch")
				set(began.Add(time.Minute))
				require.NoError(t, end())
				require.NoError(t, last(t.Context(), l))
				require.Equal(t, began.Unix()+60, s.now().UpTo.Unix())
			})
		})
	}
}

func TestWhatBecomesOfEachWriteIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		done, failed := 0, 0
		opts := options()
		opts.OnWrite = func(err error) {
			if err != nil {
				failed++
				return
			}
			done++
		}
		session := join(t, s) // whose heartbeats are told to others
		l := takeWith(t, s, session, opts)
		end := keep(t, l, always("5"))
		pass(6 * time.Second)
		require.Equal(t, 1, done)
		s.with(once(unsent, "Renew"))
		l.Check()
		pass(5 * time.Second)
		require.Equal(t, 1, failed)
		require.Equal(t, 2, done)
		require.NoError(t, end())
		s.with(once(unsent, "Release"))
		require.NoError(t, l.Release(t.Context(), lease.After("6")))
		require.Equal(t, 2, failed)
		require.Equal(t, 3, done)
	})
}

// A thousand leases that waited for the session do not write at the same moment.
func TestRenewalsAfterAnOutageAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		opts := options()
		opts.Rand = func() float64 { return 0.5 }
		l := takeWith(t, s, join(t, s), opts)
		end := keep(t, l, always("5"))
		s.with(all(unsent))
		pass(25 * time.Second)
		beats := s.asked("Beat")
		s.with(nil)
		for s.asked("Beat") == beats {
			pass(10 * time.Millisecond)
		}
		back := time.Now()
		require.Empty(t, s.now().Sequence)
		pass(1500*time.Millisecond - 20*time.Millisecond)
		require.Empty(t, s.now().Sequence, "half of a tenth of the period")
		pass(40 * time.Millisecond)
		require.Equal(t, "5", s.now().Sequence)
		require.WithinDuration(t, back.Add(1500*time.Millisecond), time.Now(), 50*time.Millisecond)
		require.NoError(t, end())
	})
}
