package lease_test

import (
	"context"
	"errors"
	"sync"
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
	// writes is how many renewals and last writes took effect, and history has the
	// sequences in the order in which they stored them.
	writes  int
	history []string
	// fault decides what becomes of each request; nil for none.
	fault func(method string) fault
}

type fault int

const (
	none     fault = iota
	unsent         // fails without effect
	unheard        // takes effect, the answer is lost
	unending       // neither takes effect nor answers
)

func newTable() *table {
	s := &table{Table: leasetest.New()}
	s.Network = s.carry
	return s
}

func (s *table) carry(ctx context.Context, method string, serve func() error) error {
	what := none
	s.mu.Lock()
	if s.fault != nil {
		what = s.fault(method)
	}
	s.mu.Unlock()
	switch what {
	case unsent:
		return errNoAnswer
	case unending:
		<-ctx.Done()
		return ctx.Err()
	}
	err := serve()
	if err == nil && method != "Get" && method != "Claim" && method != "Leave" {
		s.mu.Lock()
		s.writes++
		s.history = append(s.history, s.now().Sequence)
		s.mu.Unlock()
	}
	if what == unheard {
		return errNoAnswer
	}
	return err
}

// written returns how many renewals took effect.
func (s *table) written() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.writes
}

// now returns the item as it is.
func (s *table) now() lease.Item { return s.Now(key) }

// pass lets time pass in a bubble of synctest, where it costs none.
func pass(d time.Duration) { time.Sleep(d) } //nolint:forbidigo // virtual time

func options() lease.Options {
	return lease.Options{
		Client: "me", Period: 30 * time.Second, CommitPeriod: 5 * time.Second,
		Rand: func() float64 { return 0 },
	}
}

func take(t *testing.T, s *table) *lease.Lease {
	t.Helper()
	return takeWith(t, s, options())
}

func takeWith(t *testing.T, s *table, opts lease.Options) *lease.Lease {
	t.Helper()
	l, item, err := lease.Take(t.Context(), t.Context(), s, lease.Item{Key: key}, lease.Origin{}, opts)
	require.NoError(t, err)
	require.Equal(t, "me", item.Owner)
	return l
}

// keep runs Keep until the returned function ends it and returns its error.
func keep(t *testing.T, l *lease.Lease, acked func() string) (end func() error) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Keep(ctx, acked) }()
	return func() error {
		cancel()
		return <-done
	}
}

func nothing() string { return "" }

func TestIdleLeaseIsRenewedEveryThirdOfItsPeriod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		end := keep(t, take(t, s), nothing)
		pass(time.Minute + time.Second)
		require.NoError(t, end())
		require.Equal(t, 6, s.written())
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
		heard := false // guarded by s.mu, under which faults are decided
		s.fault = func(method string) fault {
			if method == "Renew" && !heard {
				heard = true
				return unheard
			}
			return none
		}
		end := keep(t, l, nothing)
		pass(2 * time.Minute)
		require.True(t, l.Trusted())
		require.NoError(t, end())
	})
}

func TestLostAnswerToAClaimIsResolvedByReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		s.fault = func(method string) fault {
			if method == "Claim" {
				return unheard
			}
			return none
		}
		require.True(t, take(t, s).Trusted())
	})
}

func TestTrustEndsBeforeAWatcherMayClaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		l := take(t, s)
		s.fault = func(string) fault { return unending }
		end := keep(t, l, nothing)

		w := lease.NewWatcher(options().Period)
		now := time.Now()
		w.Observe(key.Stream, []lease.Item{s.now()}, now, now) // at best as early as the claim itself
		for !w.Dead(s.now()) {
			if !l.Trusted() {
				require.NoError(t, end())
				require.Greater(t, time.Since(now), 26*time.Second)
				return
			}
			pass(100 * time.Millisecond)
			w.Observe(key.Stream, []lease.Item{s.now()}, time.Now(), time.Now())
		}
		t.Fatal("the lease was trusted when another client could claim it")
	})
}

func TestDeliveryWaitsForTrustAndGoesOnWhenNobodyTookTheShard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		l := take(t, s)
		away := true // guarded by s.mu
		s.fault = func(string) fault {
			if away {
				return unsent
			}
			return none
		}
		end := keep(t, l, nothing)
		pass(time.Minute)
		require.False(t, l.Trusted())

		waited := make(chan error, 1)
		go func() { waited <- l.Await(t.Context()) }()
		synctest.Wait()
		require.Empty(t, waited)
		s.mu.Lock()
		away = false
		s.mu.Unlock()
		require.NoError(t, <-waited)
		require.True(t, l.Trusted())
		require.NoError(t, end())
	})
}

func TestLeaseTakenByAnotherIsLostAndWritesNothingMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		l := take(t, s)
		end := keep(t, l, func() string { return "500" })
		pass(time.Second)
		s.Change(key, func(item *lease.Item) { item.Owner, item.Term, item.Period, item.Sequence = "other", "", 0, "600" })

		<-l.Context().Done()
		require.ErrorIs(t, context.Cause(l.Context()), lease.ErrLost)
		require.ErrorIs(t, end(), lease.ErrLost)
		require.False(t, l.Trusted())
		require.ErrorIs(t, l.Release(t.Context(), "500"), lease.ErrLost)
		require.Equal(t, "600", s.now().Sequence, "the new owner has moved")
		require.Equal(t, "other", s.now().Owner)
	})
}

func TestOwnerThatHasNotMovedGetsTheLastWord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		end := keep(t, take(t, s), func() string { return "500" })
		pass(time.Second)
		s.Change(key, func(item *lease.Item) { item.Owner, item.Term, item.Period = "other", "", 0 }) // as the built-in input takes a shard
		pass(5 * time.Second)
		require.ErrorIs(t, end(), lease.ErrLost)
		require.Equal(t, "500", s.now().Sequence)
		require.Equal(t, "other", s.now().Owner)
	})
}

func TestRequestReachesTheOwnerWithItsNextRenewalAndIsGranted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		news := make(chan struct{}, 10)
		opts := options()
		opts.OnWanted = func() { news <- struct{}{} }
		l := takeWith(t, s, opts)
		require.NoError(t, s.Ask(t.Context(), s.now(), "other"))
		end := keep(t, l, nothing)
		<-news
		pass(options().Period)
		require.Empty(t, news, "it is told once")
		require.NoError(t, end())
		require.NoError(t, l.HandOver(t.Context(), "100", "other"))
		require.False(t, l.Trusted())
		require.Equal(t, lease.Item{Exists: true, Key: key, Sequence: "100", Owner: "other", Token: s.now().Token, Period: options().Period}, s.now())
	})
}

func TestLeaseIsNotTrustedWhileItsLastWriteHasNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		l := take(t, s)
		s.fault = func(method string) fault {
			if method == "Get" {
				return unending
			}
			return unheard
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		ended := make(chan error, 1)
		go func() { ended <- l.HandOver(ctx, "100", "other") }()
		synctest.Wait()
		require.Equal(t, "other", s.now().Owner, "it may read already")
		require.False(t, l.Trusted())
		require.Error(t, <-ended)
	})
}

func TestLastWordOfTheFormerOwnerIsWaitedForButNotForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		l := take(t, s)
		begin := time.Now()
		go func() {
			pass(3 * time.Second)
			s.Change(key, func(item *lease.Item) { item.Sequence = "100" })
		}()
		after, err := l.LastWord(t.Context(), 7*time.Second)
		require.NoError(t, err)
		require.Equal(t, "100", after)
		require.Less(t, time.Since(begin), 4*time.Second)

		begin = time.Now()
		after, err = l.LastWord(t.Context(), 47*time.Second)
		require.NoError(t, err)
		require.Equal(t, "100", after)
		require.Equal(t, 47*time.Second, time.Since(begin))
		require.True(t, l.Trusted(), "it is renewed meanwhile")
	})
}

func TestAttemptThatArrivesLateDoesNotMoveTheCheckpointBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		l := take(t, s)
		late := l.Link() // what an attempt that hangs in the network carries
		acked := "100"
		end := keep(t, l, func() string { return acked })
		pass(6 * time.Second)
		require.Equal(t, "100", s.now().Sequence)

		_, err := s.Renew(t.Context(), key, late, "late", lease.Move{"", "50"})
		require.ErrorIs(t, err, lease.ErrConflict)
		require.Equal(t, "100", s.now().Sequence)
		require.NoError(t, end())
	})
}

func TestEarlierAttemptThatTookEffectIsBuiltUpon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		l := take(t, s)
		// The first attempt is given up, its reading too, and then arrives.
		hung, link := 0, l.Link()
		s.fault = func(string) fault {
			if hung++; hung <= 2 {
				return unending
			}
			return none
		}
		end := keep(t, l, func() string { return "100" })
		pass(5*time.Second + 12*time.Second + 100*time.Millisecond)
		_, err := s.Renew(t.Context(), key, link, "arrived late", lease.Move{"", "90"})
		require.NoError(t, err)

		pass(10 * time.Second)
		require.True(t, l.Trusted())
		require.Equal(t, []string{"90", "100"}, s.history[:2])
		require.NoError(t, end())
	})
}

func TestReleaseAndFinishSurviveALostAnswer(t *testing.T) {
	for _, method := range []string{"Release", "Finish"} {
		t.Run(method, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newTable()
				l := take(t, s)
				s.fault = func(m string) fault {
					if m == method {
						return unheard
					}
					return none
				}
				last := l.Release
				if method == "Finish" {
					last = l.Finish
				}
				require.NoError(t, last(t.Context(), "100"))
				require.Equal(t, "100", s.now().Sequence)
				require.Empty(t, s.now().Owner)
				require.Equal(t, method == "Finish", s.now().Finished)
				require.False(t, l.Trusted())
			})
		})
	}
}

func TestReleaseEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		l := take(t, s)
		s.fault = func(string) fault { return unending }
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		start := time.Now()
		require.ErrorContains(t, l.Release(ctx, "100"), "releasing shard orders:shardId-000000000000")
		require.Equal(t, 5*time.Second, time.Since(start))
	})
}

func TestRenewalLeavesALastWordOfTheFormerOwnerAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		l := take(t, s)
		end := keep(t, l, func() string { return "50" })
		pass(6 * time.Second)
		require.Equal(t, "50", s.now().Sequence)
		s.Change(key, func(item *lease.Item) { item.Sequence = "77" }) // unconditionally, as the built-in input yields
		pass(15 * time.Second)
		require.Equal(t, 2, s.written())
		require.Equal(t, "77", s.now().Sequence)
		require.NoError(t, end())
		require.NoError(t, l.Release(t.Context(), "50"))
		require.Equal(t, "77", s.now().Sequence)
	})
}

func TestOlderLookDoesNotCountTowardsDeath(t *testing.T) {
	start := time.Now()
	at := func(s float64) time.Time { return start.Add(time.Duration(s * float64(time.Second))) }
	w := lease.NewWatcher(10 * time.Second)
	item := lease.Item{Key: key, Exists: true, Owner: "other", Term: "1", Token: "a"}

	w.Observe(key.Stream, []lease.Item{item}, at(0), at(2))
	w.Observe(key.Stream, []lease.Item{item}, at(11), at(20))
	require.False(t, w.Dead(item), "eleven seconds from the start of one look to the start of the other, nine that are certain")
	due, ok := w.NextDue(at(11), "me")
	require.True(t, ok)
	require.Equal(t, at(12), due)
	w.Observe(key.Stream, []lease.Item{item}, at(12), at(12))
	require.True(t, w.Dead(item))
}

func TestOneRenewalDefeatsDeath(t *testing.T) {
	start := time.Now()
	w := lease.NewWatcher(10 * time.Second)
	item := lease.Item{Key: key, Exists: true, Owner: "other", Term: "1", Token: "a"}
	w.Observe(key.Stream, []lease.Item{item}, start, start)
	item.Token = "b"
	w.Observe(key.Stream, []lease.Item{item}, start.Add(9*time.Second), start.Add(9*time.Second))
	w.Observe(key.Stream, []lease.Item{item}, start.Add(11*time.Second), start.Add(11*time.Second))
	require.False(t, w.Dead(item))
}

func TestOwnerIsAliveOnceItWasSeenToRenew(t *testing.T) {
	start := time.Now()
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	w := lease.NewWatcher(10 * time.Second)
	item := lease.Item{Key: key, Exists: true, Owner: "other", Term: "1", Token: "a"}
	w.Observe(key.Stream, []lease.Item{item}, at(0), at(0))
	require.False(t, w.Alive(item), "it may have died long ago")
	item.Token = "b"
	w.Observe(key.Stream, []lease.Item{item}, at(5), at(5))
	require.True(t, w.Alive(item))
	w.Observe(key.Stream, []lease.Item{item}, at(15), at(15))
	require.False(t, w.Alive(item))
	item.Owner, item.Token = "third", "c"
	w.Observe(key.Stream, []lease.Item{item}, at(16), at(16))
	require.False(t, w.Alive(item), "a new owner has yet to renew")
}

func TestLongerPeriodOfTheOwnerCounts(t *testing.T) {
	start := time.Now()
	w := lease.NewWatcher(10 * time.Second)
	item := lease.Item{Key: key, Exists: true, Owner: "other", Token: "a", Period: time.Minute}
	w.Observe(key.Stream, []lease.Item{item}, start, start)
	w.Observe(key.Stream, []lease.Item{item}, start.Add(59*time.Second), start.Add(59*time.Second))
	require.False(t, w.Dead(item))
	w.Observe(key.Stream, []lease.Item{item}, start.Add(time.Minute), start.Add(time.Minute))
	require.True(t, w.Dead(item))
}

func TestOwnerWithoutATermIsGivenThreePeriods(t *testing.T) {
	start := time.Now()
	w := lease.NewWatcher(10 * time.Second)
	item := lease.Item{Key: key, Exists: true, Owner: "built-in", Token: "a"}
	w.Observe(key.Stream, []lease.Item{item}, start, start)
	w.Observe(key.Stream, []lease.Item{item}, start.Add(29*time.Second), start.Add(29*time.Second))
	require.False(t, w.Dead(item))
	w.Observe(key.Stream, []lease.Item{item}, start.Add(30*time.Second), start.Add(30*time.Second))
	require.True(t, w.Dead(item))
}

func TestWatcherKeepsStreamsApart(t *testing.T) {
	start := time.Now()
	w := lease.NewWatcher(time.Second)
	item := lease.Item{Key: key, Exists: true, Owner: "other", Term: "1", Token: "a"}
	w.Observe(key.Stream, []lease.Item{item}, start, start)
	w.Observe("another stream", nil, start.Add(time.Second), start.Add(time.Second))
	w.Observe(key.Stream, []lease.Item{item}, start.Add(time.Second), start.Add(time.Second))
	require.True(t, w.Dead(item))
}
