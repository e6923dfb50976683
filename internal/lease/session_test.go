package lease_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
)

// joinUnkept makes a session that nobody keeps.
func joinUnkept(t *testing.T, s *table) *lease.Session {
	t.Helper()
	session, err := lease.Join(t.Context(), s, lease.Report{}, options())
	require.NoError(t, err)
	return session
}

// keepSession runs Keep until the returned function ends it and returns its error.
func keepSession(t *testing.T, session *lease.Session) (end func() error) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- session.Keep(ctx) }()
	return func() error {
		cancel()
		return <-done
	}
}

func changes(n int64) lease.Report { return lease.Report{Changes: n} }

func TestCreationWithoutAnAnswerStandsWhenItsTokenIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		s.with(once(fault{takes: 4 * time.Second, unheard: true}, "Join"))
		session := joinUnkept(t, s)
		require.Equal(t, []string{"Join", "Member"}, s.requests)
		require.Equal(t, 23*time.Second, session.TrustedFor(), "from the start of the attempt")
		require.NoError(t, session.Leave(t.Context()), "it knows the token that stands")
		require.Empty(t, s.Members())
	})
}

func TestCreationWithoutAnAnswerIsNotTriedAgainUnderTheSameID(t *testing.T) {
	for name, c := range map[string]struct {
		faults func(string) fault
		before func(*testing.T, *table)
		is     error
	}{
		"it is not in the table": {faults: all(unsent, "Join"), is: errNoAnswer},
		"it arrives late":        {faults: all(fault{late: time.Second, unheard: true}, "Join"), is: errNoAnswer},
		"it cannot be read": {is: errNoAnswer, faults: func(string) fault {
			return unheard
		}},
		"nothing answers": {faults: all(unending), is: context.DeadlineExceeded},
		"another has the id": {faults: all(none), is: lease.ErrConflict, before: func(t *testing.T, s *table) {
			require.NoError(t, s.Join(others(t.Context()), lease.Member{ID: "me", Token: "another's"}))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newTable()
				if c.before != nil {
					c.before(t, s)
				}
				s.with(c.faults)
				_, err := lease.Join(t.Context(), s, lease.Report{}, options())
				require.ErrorIs(t, err, c.is)
				require.ErrorContains(t, err, "joining the group as me: ")
				pass(time.Hour)
				require.Equal(t, []string{"Join", "Member"}, s.requests, "nothing is written under that id any more")
			})
		})
	}
}

func TestHeartbeatIsSentEveryThirdOfThePeriod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		random := rand.New(rand.NewPCG(1, 2))
		opts := options()
		opts.Rand = random.Float64
		session, err := lease.Join(t.Context(), s, lease.Report{}, opts)
		require.NoError(t, err)
		end := keepSession(t, session)
		for range 10 {
			before := s.asked("Beat")
			pass(time.Minute)
			require.Contains(t, []int{5, 6}, s.asked("Beat")-before)
			require.Greater(t, session.TrustedFor(), 15*time.Second-time.Nanosecond)
		}
		require.Zero(t, s.asked("Member"), "nothing is read while all is well")
		require.NoError(t, end())
	})
}

func TestHeartbeatsOftenFollowOneAnotherUntilThatEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		session := joinUnkept(t, s)
		end := keepSession(t, session)
		pass(5 * time.Second)
		session.Often(2 * time.Second)
		synctest.Wait()
		require.Equal(t, 1, s.asked("Beat"), "the last one is five seconds old")
		pass(time.Minute)
		require.Equal(t, 31, s.asked("Beat"))
		session.Often(time.Hour)
		pass(time.Minute)
		require.Equal(t, 37, s.asked("Beat"), "never more rarely than usual")
		session.Often(2 * time.Second)
		session.Often(0)
		pass(time.Minute)
		require.Equal(t, 43, s.asked("Beat"))
		require.NoError(t, end())
	})
}

func TestReportIsToldAtOnceIfItIsNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		session := joinUnkept(t, s)
		end := keepSession(t, session)
		pass(3 * time.Second)
		report := lease.Report{Streams: []string{"orders"}, Requests: map[string]int{"other": 2}, Changes: 7}
		session.Report(report)
		synctest.Wait()
		require.Equal(t, report, s.me(t).Report)
		require.Equal(t, 27*time.Second, session.TrustedFor(), "it is a heartbeat as any")

		pass(time.Second)
		session.Report(lease.Report{Streams: []string{"orders"}, Requests: map[string]int{"other": 2}, Changes: 7})
		synctest.Wait()
		require.Equal(t, 1, s.asked("Beat"), "it is no news")
		session.Report(lease.Report{Streams: []string{"orders"}, Requests: map[string]int{"other": 1}, Changes: 7})
		synctest.Wait()
		require.Equal(t, map[string]int{"other": 1}, s.me(t).Requests)
		session.Report(lease.Report{})
		synctest.Wait()
		require.Equal(t, lease.Report{}, s.me(t).Report)
		session.Report(lease.Report{Streams: []string{}, Requests: map[string]int{}})
		synctest.Wait()
		require.Equal(t, 3, s.asked("Beat"), "to ask nobody is to ask nobody")
		require.NoError(t, end())
	})
}

func TestReportBeforeKeepIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		session := joinUnkept(t, s)
		session.Report(changes(1))
		end := keepSession(t, session)
		synctest.Wait()
		require.EqualValues(t, 1, s.me(t).Changes)
		require.NoError(t, end())
	})
}

func TestReportThatChangesWhileAHeartbeatIsUnderWayIsToldAfterIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		session := joinUnkept(t, s)
		end := keepSession(t, session)
		s.with(all(fault{takes: 2 * time.Second}, "Beat"))
		session.Report(changes(1))
		pass(time.Second)
		session.Report(changes(2))
		pass(500 * time.Millisecond)
		session.Report(changes(3))
		require.EqualValues(t, 1, s.me(t).Changes)
		pass(500 * time.Millisecond)
		require.EqualValues(t, 3, s.me(t).Changes)
		pass(5 * time.Second)
		require.Equal(t, 2, s.asked("Beat"))

		session.Report(changes(4))
		pass(time.Second)
		session.Report(changes(3)) // back to what the table said before
		pass(time.Second)
		require.EqualValues(t, 3, s.me(t).Changes)
		require.NoError(t, end())
	})
}

func TestReportIsToldOnceTheTableAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		session := joinUnkept(t, s)
		end := keepSession(t, session)
		s.with(all(unsent))
		session.Report(changes(1))
		pass(20 * time.Second)
		session.Report(changes(2))
		pass(20 * time.Second)
		require.Zero(t, s.me(t).Changes)
		s.with(nil)
		pass(3 * time.Second)
		require.EqualValues(t, 2, s.me(t).Changes)
		require.True(t, session.Trusted())
		require.NoError(t, end())
	})
}

func TestReportIsToldAgainWhereAnEarlierHeartbeatStands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		session := joinUnkept(t, s)
		end := keepSession(t, session)
		beat, read := once(unheard, "Beat"), once(unsent, "Member")
		s.with(func(method string) fault {
			if method == "Beat" {
				return beat(method)
			}
			return read(method)
		})
		session.Report(changes(1)) // takes effect, without an answer
		synctest.Wait()
		require.EqualValues(t, 1, s.me(t).Changes)
		session.Report(changes(2))
		pass(500 * time.Millisecond) // is refused, which tells of the first
		require.EqualValues(t, 2, s.me(t).Changes)
		require.Equal(t, []string{"Join", "Beat", "Member", "Beat", "Member", "Beat"}, s.requests)
		require.NoError(t, end())
	})
}

func TestTokenChangesWithEachHeartbeatOfOneInstant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		session := joinUnkept(t, s)
		end := keepSession(t, session)
		tokens := map[string]bool{s.me(t).Token: true}
		for n := range int64(5) {
			session.Report(changes(1 + n))
			synctest.Wait() // takes no time
			tokens[s.me(t).Token] = true
		}
		require.Len(t, tokens, 6)
		for token := range tokens {
			_, err := time.Parse(time.RFC3339Nano, token)
			require.NoError(t, err)
		}
		require.NoError(t, end())
	})
}

func TestHeartbeatThatWasResolvedCountsFromTheAttemptWhoseTokenStands(t *testing.T) {
	for name, first := range map[string]fault{
		"it took effect at once": {takes: 3 * time.Second, unheard: true},
		"it took effect late":    {takes: 3 * time.Second, unheard: true, late: 3400 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newTable()
				session := joinUnkept(t, s)
				end := keepSession(t, session)
				pass(9 * time.Second)
				// Two attempts have no answer: of ten seconds, and of thirteen and a half.
				beats := []fault{first, {takes: time.Second, unsent: true, unheard: true}}
				reads := 0
				s.with(func(method string) fault {
					switch {
					case method == "Beat" && len(beats) > 0:
						next := beats[0]
						beats = beats[1:]
						return next
					case method == "Member" && reads == 0:
						reads++
						return unsent
					}
					return none
				})
				pass(5500 * time.Millisecond)
				require.Equal(t, []string{"Join", "Beat", "Member", "Beat", "Member"}, s.requests)
				require.Equal(t, 22500*time.Millisecond, session.TrustedFor(), "of ten seconds the token stands")
				pass(5500 * time.Millisecond)
				require.Equal(t, 27*time.Second, session.TrustedFor(), "a third of the period after that one began")
				require.Len(t, s.requests, 6)
				require.NoError(t, end())
			})
		})
	}
}

func TestHeartbeatCountsFromItsStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		session := joinUnkept(t, s)
		end := keepSession(t, session)
		s.with(all(fault{takes: 4 * time.Second}, "Beat"))
		pass(14 * time.Second)
		require.Equal(t, 23*time.Second, session.TrustedFor())
		pass(6 * time.Second)
		require.Equal(t, 2, s.asked("Beat"), "and so does what is left until the next")
		require.NoError(t, end())
	})
}

func TestHeartbeatThatTookNoEffectDoesNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		troubles := 0
		opts := options()
		opts.OnWrite = func(err error) {
			if err == nil {
				return
			}
			troubles++
			require.ErrorIs(t, err, errNoAnswer)
			require.ErrorContains(t, err, "renewing the session of member me: ")
		}
		session, err := lease.Join(t.Context(), s, lease.Report{}, opts)
		require.NoError(t, err)
		end := keepSession(t, session)
		s.with(all(unsent, "Beat"))
		pass(27*time.Second - time.Nanosecond)
		require.True(t, session.Trusted())
		pass(time.Nanosecond)
		require.False(t, session.Trusted())
		require.Greater(t, troubles, 3)
		require.NoError(t, session.Context().Err(), "its token stands")
		require.NoError(t, end())
	})
}

func TestTableThatDoesNotAnswerEndsTrustAndNotTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		session := join(t, s)
		l := takeWith(t, s, session, options())
		end := keep(t, l, nothing)
		pass(12 * time.Second) // the last heartbeat that succeeds is of ten seconds
		s.with(all(unending))
		pass(25*time.Second - time.Nanosecond)
		require.True(t, session.Trusted())
		pass(time.Nanosecond)
		require.False(t, session.Trusted())
		require.Zero(t, session.TrustedFor())

		waited := make(chan error, 1)
		go func() { waited <- l.Await(t.Context()) }()
		pass(10 * time.Minute)
		require.Empty(t, waited)
		require.NoError(t, session.Context().Err())
		require.NoError(t, l.Context().Err())
		s.with(nil)
		start := time.Now()
		require.NoError(t, <-waited)
		require.LessOrEqual(t, time.Since(start), 15*time.Second, "what hangs is given up, and a pause")
		require.True(t, session.Trusted())
		require.NoError(t, end())
	})
}

func TestDeliveryThatWaitsGoesOnAfterAHeartbeatThatWasResolved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		l := take(t, s)
		s.with(all(unsent))
		pass(30 * time.Second)
		require.False(t, l.Trusted())
		s.with(all(unheard, "Beat"))
		start := time.Now()
		require.NoError(t, l.Await(t.Context()))
		require.LessOrEqual(t, time.Since(start), options().Period/10)
	})
}

func TestWallClockJumpEndsTrustInASessionUntilItsNextHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		session := join(t, s)
		l := takeWith(t, s, session, options())
		pass(time.Second)
		session.JumpWall(time.Hour)
		require.False(t, session.Trusted())
		require.False(t, l.Trusted())
		start := time.Now()
		require.NoError(t, l.Await(t.Context()))
		require.Zero(t, time.Since(start), "whoever waits asks for one")
		require.Equal(t, 1, s.asked("Beat"))
		require.Zero(t, s.written(), "the item is not in doubt")
	})
}

func TestMemberWhoseTokenMovedIsNotEvicted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		session := joinUnkept(t, s)
		end := keepSession(t, session)
		seen := s.me(t)
		pass(11 * time.Second)
		require.ErrorIs(t, s.Remove(others(t.Context()), seen), lease.ErrConflict)
		pass(time.Minute)
		require.True(t, session.Trusted())
		require.NoError(t, end())
	})
}

func TestNextHeartbeatOfAnEvictedMemberEndsAllItsLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		session := joinUnkept(t, s)
		end := keepSession(t, session)
		first := takeWith(t, s, session, options())
		second, _, err := lease.Take(t.Context(), t.Context(), session, s,
			lease.Item{Key: lease.Key{Stream: "orders", Shard: "shardId-000000000001"}}, lease.Origin{}, options())
		require.NoError(t, err)
		s.evict(t)
		pass(9 * time.Second)
		require.NoError(t, first.Context().Err())
		pass(time.Second)
		for _, ctx := range []context.Context{session.Context(), first.Context(), second.Context()} {
			require.Error(t, ctx.Err())
			require.ErrorIs(t, context.Cause(ctx), lease.ErrLost)
			require.ErrorIs(t, context.Cause(ctx), lease.ErrEvicted)
			require.ErrorContains(t, context.Cause(ctx), "member me")
		}
		require.False(t, session.Trusted())
		require.False(t, first.Trusted())
		require.ErrorIs(t, end(), lease.ErrEvicted)
		require.Empty(t, s.Members(), "it does not come back")
		requests := len(s.requests)
		pass(time.Hour)
		require.Len(t, s.requests, requests)
	})
}

func TestMemberThatWasEvictedInAnOutageIsLostAtItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		session := joinUnkept(t, s)
		end := keepSession(t, session)
		s.with(all(fault{late: 2 * time.Minute, takes: time.Hour}))
		pass(time.Minute)
		s.evict(t)
		pass(time.Hour)
		require.Empty(t, s.Members(), "late heartbeats do not bring it back")
		require.NoError(t, session.Context().Err())
		s.with(nil)
		<-session.Context().Done()
		require.ErrorIs(t, end(), lease.ErrEvicted)
	})
}

func TestTokenOfACopiedMachineIsNotItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		session := joinUnkept(t, s)
		end := keepSession(t, session)
		at := s.me(t).Token
		copied := lease.Member{ID: "me", Token: "a copy's", Period: options().Period}
		require.NoError(t, s.Beat(others(t.Context()), copied, at))
		pass(10 * time.Second)
		require.ErrorIs(t, end(), lease.ErrEvicted)
		require.ErrorIs(t, context.Cause(session.Context()), lease.ErrLost)
		require.NoError(t, session.Leave(t.Context()))
		require.Equal(t, "a copy's", s.me(t).Token, "nor is its item")
	})
}

func TestSessionOutlivesTheContextThatItWasMadeWith(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		ctx, cancel := context.WithCancel(t.Context())
		session, err := lease.Join(ctx, s, lease.Report{}, options())
		require.NoError(t, err)
		require.Equal(t, "me", session.ID())
		cancel()
		end := keepSession(t, session)
		pass(time.Minute)
		require.True(t, session.Trusted())
		require.NoError(t, end())
		require.NoError(t, session.Context().Err(), "who keeps it may change")
		end = keepSession(t, session)
		pass(time.Minute)
		require.True(t, session.Trusted())
		require.NoError(t, end())
	})
}

func TestLeaveRemovesTheMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		session := joinUnkept(t, s)
		end := keepSession(t, session)
		pass(time.Minute)
		require.NoError(t, end())
		require.NoError(t, session.Leave(t.Context()))
		require.Empty(t, s.Members())
		require.False(t, session.Trusted())
		require.ErrorIs(t, context.Cause(session.Context()), lease.ErrLost)
		require.ErrorIs(t, context.Cause(session.Context()), lease.ErrLeft)
		require.NoError(t, session.Leave(t.Context()), "twice is once")
	})
}

func TestLeaveAfterAHeartbeatThatWasCutShortRemovesTheMember(t *testing.T) {
	for name, beat := range map[string]fault{
		"with effect":                           {takes: time.Hour},
		"without effect":                        unending,
		"with effect after the member has left": {takes: time.Hour, late: time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newTable()
				session := joinUnkept(t, s)
				s.with(all(beat, "Beat"))
				end := keepSession(t, session)
				pass(11 * time.Second)
				require.NoError(t, end(), "its end is no loss")
				require.NoError(t, session.Leave(t.Context()))
				require.Empty(t, s.Members())
				pass(2 * time.Minute)
				require.Empty(t, s.Members())
			})
		})
	}
}

func TestLeaveWithoutAnAnswerIsResolvedByReading(t *testing.T) {
	for name, remove := range map[string]fault{
		"with effect":    {takes: time.Hour},
		"without effect": unending,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newTable()
				session := joinUnkept(t, s)
				s.with(once(remove, "Remove"))
				start := time.Now()
				require.NoError(t, session.Leave(t.Context()))
				require.Empty(t, s.Members())
				require.Equal(t, 2*time.Second, time.Since(start))
			})
		})
	}
}

func TestLeaveThatFailsSaysSoAndEndsTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		session := joinUnkept(t, s)
		s.with(all(unsent))
		err := session.Leave(t.Context())
		require.ErrorIs(t, err, errNoAnswer)
		require.ErrorContains(t, err, "leaving the group as me: ")
		require.ErrorIs(t, context.Cause(session.Context()), lease.ErrLeft)

		s.with(all(unending))
		start := time.Now()
		require.Error(t, session.Leave(t.Context()), "it is in the table still")
		require.Equal(t, 4*time.Second, time.Since(start), "it does not take all the time that there is")
		s.with(nil)
		require.NoError(t, session.Leave(t.Context()))
		require.Empty(t, s.Members())
	})
}

func TestLeaveAfterAnEvictionIsNoError(t *testing.T) {
	for name, found := range map[string]bool{"that was found": true, "that was not": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newTable()
				session := joinUnkept(t, s)
				end := keepSession(t, session)
				s.evict(t)
				if found {
					<-session.Context().Done()
				}
				if err := end(); found {
					require.ErrorIs(t, err, lease.ErrEvicted)
				}
				require.NoError(t, session.Leave(t.Context()))
				require.Error(t, session.Context().Err())
				require.Equal(t, found, s.asked("Remove") == 0)
			})
		})
	}
}

// plan is what happens to a member and to the one who watches it.
type plan struct {
	seed    uint64
	joins   bool    // without a fault
	faults  []spell // of the member's other requests, in their order
	looks   []look  // of the watcher, one after the other, again and again
	reports []time.Duration
	often   bool
}

// spell is a fault that some requests in a row meet.
type spell struct {
	fault
	times int
}

// look is one reading of the list of members, eventually consistent.
type look struct {
	pause, takes, stale time.Duration
	removal             fault
}

func drawPlan(t *rapid.T) plan {
	seconds := func(most int) *rapid.Generator[time.Duration] {
		return rapid.Map(rapid.IntRange(0, 1000*most), func(ms int) time.Duration { return time.Duration(ms) * time.Millisecond })
	}
	faulty := rapid.Custom(func(t *rapid.T) fault {
		switch rapid.IntRange(0, 5).Draw(t, "kind") {
		case 0:
			return unsent
		case 1:
			return fault{unheard: true, takes: seconds(8).Draw(t, "takes")}
		case 2:
			return fault{takes: seconds(8).Draw(t, "takes")}
		case 3:
			return fault{unheard: true, takes: seconds(8).Draw(t, "takes"), late: time.Millisecond + seconds(60).Draw(t, "late")}
		case 4:
			return unending
		}
		return none
	})
	spells := rapid.Custom(func(t *rapid.T) spell {
		return spell{faulty.Draw(t, "fault"), rapid.IntRange(1, 40).Draw(t, "times")}
	})
	p := plan{
		seed:    rapid.Uint64().Draw(t, "seed"),
		joins:   rapid.Bool().Draw(t, "joins"),
		faults:  rapid.SliceOfN(spells, 0, 8).Draw(t, "faults"),
		often:   rapid.Bool().Draw(t, "often"),
		reports: rapid.SliceOfN(seconds(60), 0, 5).Draw(t, "reports"),
	}
	p.looks = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) look {
		return look{
			pause: 200*time.Millisecond + seconds(2).Draw(t, "pause"), takes: seconds(1).Draw(t, "takes"),
			stale: seconds(1).Draw(t, "stale"), removal: faulty.Draw(t, "removal"),
		}
	}), 1, 6).Draw(t, "looks")
	return p
}

// trial carries a plan out. Its verdict is in failure.
type trial struct {
	*table
	plan    plan
	session atomic.Pointer[lease.Session]
	evicted atomic.Bool
	ended   atomic.Bool // the member's life

	mu      sync.Mutex
	tokens  []since // of the member, as they stood
	failure string
}

// since is what stood in the table from a time on; empty for nothing.
type since struct {
	at    time.Time
	token string
}

func (r *trial) fail(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failure == "" {
		r.failure = fmt.Sprintf(format, args...)
	}
}

// beaten follows the member's item. It is called under the lock of the table.
func (r *trial) beaten(before, after lease.Member) {
	r.mu.Lock()
	r.tokens = append(r.tokens, since{time.Now(), after.Token})
	r.mu.Unlock()
	if after.ID == "" {
		r.evicted.Store(true)
		r.verify()
	} else if r.evicted.Load() {
		r.fail("a member that was evicted is back")
	}
	if before.Token != "" && before.Token == after.Token {
		r.fail("a heartbeat does not show")
	}
}

// verify holds the promise: no trust after the eviction.
func (r *trial) verify() {
	if s := r.session.Load(); s != nil && r.evicted.Load() && s.Trusted() {
		r.fail("evicted, and trusted for %s", s.TrustedFor())
	}
}

// shows returns the token that an eventually consistent reading shows.
func (r *trial) shows(stale time.Duration) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range slices.Backward(r.tokens) {
		if !s.at.After(time.Now().Add(-stale)) {
			return s.token
		}
	}
	return ""
}

// watch evicts the member when its token stood still for the period by its own
// readings: from the end of the first that showed it to the start of the last.
func (r *trial) watch(ctx context.Context) {
	var seen string
	var seenAt time.Time
	wait := func(d time.Duration) bool {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
			return true
		case <-ctx.Done():
			return false
		}
	}
	for i := 0; ; i++ {
		l := r.plan.looks[i%len(r.plan.looks)]
		if !wait(l.pause) {
			return
		}
		start := time.Now()
		token := r.shows(l.stale)
		if !wait(l.takes) {
			return
		}
		switch {
		case token == "":
			seen = ""
		case token != seen:
			seen, seenAt = token, time.Now()
		case start.Sub(seenAt) >= options().Period:
			remove := func() error { return r.Remove(others(ctx), lease.Member{ID: "me", Token: token}) }
			switch {
			case l.removal.unsent:
			case l.removal.late > 0:
				time.AfterFunc(l.removal.late, func() { _ = remove() })
			default:
				_ = remove()
			}
		}
	}
}

// live is the member's life.
func (r *trial) live(ctx context.Context) {
	defer r.ended.Store(true)
	opts := options()
	opts.Rand = rand.New(rand.NewPCG(r.plan.seed, 0)).Float64
	session, err := lease.Join(ctx, r, changes(0), opts)
	if err != nil {
		return
	}
	r.session.Store(session)
	r.verify()
	if r.plan.often {
		session.Often(2 * time.Second)
	}
	for i, at := range r.plan.reports {
		time.AfterFunc(at, func() { session.Report(changes(int64(i))) })
	}
	_ = session.Keep(ctx)
}

func (r *trial) run(t *testing.T) {
	r.table = newTable()
	r.Beaten = r.beaten
	faults := slices.Clone(r.plan.faults) // guarded by table.mu, under which faults are decided
	last := time.Now()
	r.with(func(method string) fault {
		if len(faults) == 0 || r.plan.joins && method == "Join" {
			return none
		}
		what := &faults[0]
		last = time.Now()
		if what.times--; what.times == 0 {
			faults = faults[1:]
		}
		return what.fault
	})
	ctx, cancel := context.WithCancel(t.Context())
	var both sync.WaitGroup
	both.Go(func() { r.live(ctx) })
	both.Go(func() { r.watch(ctx) })
	goesOn := func() bool {
		r.table.mu.Lock()
		defer r.table.mu.Unlock()
		return len(faults) > 0 && !r.ended.Load() || time.Since(last) < 2*time.Minute
	}
	for goesOn() {
		pass(time.Second)
		r.verify()
	}
	// All has been well for two minutes.
	switch s := r.session.Load(); {
	case s == nil:
	case !r.evicted.Load() && !s.Trusted():
		r.fail("neither evicted nor trusted")
	case r.evicted.Load() && s.Context().Err() == nil:
		r.fail("it does not find out that it was evicted")
	}
	cancel()
	both.Wait()
}

func TestNobodyIsTrustedWhoWasEvicted(t *testing.T) {
	evictions := 0
	rapid.Check(t, func(rt *rapid.T) {
		r := trial{plan: drawPlan(rt)}
		synctest.Test(t, r.run)
		if r.evicted.Load() {
			evictions++
		}
		if r.failure != "" {
			rt.Fatalf("%s", r.failure)
		}
	})
	t.Logf("evictions: %d", evictions)
}

// Whoever could not write for a while must not take those for dead that could not either.
func TestSoundnessCountsFromTheEndOfAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		joined := time.Now()
		session := joinUnkept(t, s)
		end := keepSession(t, session)
		pass(time.Minute)
		require.Equal(t, joined, session.SoundSince())
		s.with(all(unsent, "Beat"))
		pass(20 * time.Second)
		require.Equal(t, joined, session.SoundSince(), "trust has not run out")
		pass(20 * time.Second)
		require.Zero(t, session.SoundSince())
		s.with(nil)
		back := time.Now()
		pass(20 * time.Second)
		require.WithinRange(t, session.SoundSince(), back, back.Add(3*time.Second))
		require.NoError(t, end())
	})
}
