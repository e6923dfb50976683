package group

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
)

func TestFreeShardsAreSharedWithTheMembersThatLive(t *testing.T) {
	s := begin(t, 4, anna)
	s.read()
	require.Len(t, s.claims(), 2)
}

func TestMemberThatWasNotSeenToMoveTakesNoShare(t *testing.T) {
	s := begin(t, 4)
	s.see(me, anna)
	for range 5 {
		s.pass(time.Second)
		s.see(me)
	}
	s.read()
	require.Len(t, s.claims(), 4)
}

func TestMemberThatOwnsSomethingTakesAShareThoughItWasNotSeenToMove(t *testing.T) {
	s := newStage(t, streamsNamed("foo", "bar"))
	s.list("foo", open(1)...)
	s.list("bar", open(3)...)
	s.join()
	s.see(me, anna)
	s.put(owned(0, anna))
	s.readBetween("foo", s.now, s.now)
	s.readBetween("bar", s.now, s.now)
	require.Len(t, s.claims(), 2)
}

func TestMemberThatSharesNoStreamTakesNoShare(t *testing.T) {
	s := begin(t, 4)
	s.see(anna)
	s.says(anna, func(m *lease.Member) { m.Streams = nil })
	for range 3 {
		s.pass(time.Second)
		s.see(me, anna)
	}
	s.read()
	require.Len(t, s.claims(), 4)
}

// It may have lost a stream: what it reads of it is for the others then.
func TestMemberThatSharesOtherStreamsChangesThePlan(t *testing.T) {
	s := newStage(t, streamsNamed("foo", "bar"))
	s.list("foo", open(2)...)
	s.list("bar", open(6)...)
	s.join(anna)
	for stream, shards := range s.shards {
		for i := range shards {
			item := owned(i, anna)
			item.Stream = stream
			s.rows[item.Key] = item
		}
	}
	s.readBetween("foo", s.now, s.now)
	s.readBetween("bar", s.now, s.now)
	require.Equal(t, map[string]int{anna: 4}, s.next().Report.Requests)
	s.says(anna, func(m *lease.Member) { m.Streams = []string{"foo"} })
	s.see(me, anna)
	require.Equal(t, map[string]int{anna: 6}, s.next().Report.Requests)
}

func TestNewcomerClaimsNothingUntilTheListWasRead(t *testing.T) {
	s := newStage(t)
	s.list("foo", open(2)...)
	s.Begin([]StreamSnapshot{{Stream: "foo", Shards: open(2), Listed: s.now}}, s.now)
	s.Joined(me, s.now)
	s.read()
	s.pass(10 * time.Second)
	require.Empty(t, s.next().Claim)
	s.see(me)
	require.Len(t, s.next().Claim, 2)
}

// Who starts together with others must not claim what is theirs: of each newcomer two
// heartbeats are awaited.
func TestNewcomersWaitForEachOther(t *testing.T) {
	s := newStage(t)
	s.list("foo", open(2)...)
	s.Begin([]StreamSnapshot{{Stream: "foo", Shards: open(2), Listed: s.now}}, s.now)
	s.Joined(me, s.now)
	s.see(me, anna)
	s.read()
	s.pass(600 * time.Millisecond)
	s.see(me)
	require.Empty(t, s.next().Claim, "anna may live")

	s.see(me, anna)
	require.Len(t, s.next().Claim, 1, "anna lives")
}

func TestNewcomerDoesNotWaitForAGhostForLong(t *testing.T) {
	s := newStage(t)
	s.list("foo", open(2)...)
	s.Begin([]StreamSnapshot{{Stream: "foo", Shards: open(2), Listed: s.now}}, s.now)
	s.Joined(me, s.now)
	s.see(me, anna)
	s.read()
	s.pass(600 * time.Millisecond)
	s.see(me)
	s.pass(200 * time.Millisecond)
	s.see(me)
	require.Len(t, s.next().Claim, 2, "anna's item has stood still for three frequent heartbeats")
}

func TestNewcomerDoesNotWaitForOthersThatComeForEver(t *testing.T) {
	s := newStage(t)
	s.list("foo", open(2)...)
	s.Begin([]StreamSnapshot{{Stream: "foo", Shards: open(2), Listed: s.now}}, s.now)
	s.Joined(me, s.now)
	s.read()
	for began := s.now; s.now.Sub(began) <= newcomer; s.pass(100 * time.Millisecond) {
		s.see(me, "ghost of "+s.now.String())
		require.Empty(t, s.next().Claim)
	}
	s.pass(100 * time.Millisecond)
	require.Len(t, s.next().Claim, 2)
}

func TestMemberWhoseTokenStandsStillForItsLeasePeriodIsDead(t *testing.T) {
	s := begin(t, 1, anna)
	seen := s.now.Add(-time.Second) // begin passes a second after the last list
	s.readMembers(seen.Add(lp-time.Millisecond), seen.Add(lp+time.Second), true)
	s.pass(lp + time.Second)
	require.Empty(t, s.next().Evict, "the list was begun before the period was over")

	s.readMembers(seen.Add(lp), s.now, true)
	require.Equal(t, []lease.Member{s.members[anna]}, s.next().Evict)
	require.Empty(t, s.next().Evict, "one eviction is under way")
}

func TestTokenStandsStillFromTheEndOfTheListThatShowedIt(t *testing.T) {
	s := begin(t, 1, anna)
	s.beats++
	s.says(anna, func(m *lease.Member) { m.Token = "last" })
	start := s.now
	s.pass(3 * time.Second)
	s.readMembers(start, s.now, true) // took three seconds
	s.pass(lp - time.Second)
	s.see(me)
	require.Empty(t, s.next().Evict)
	s.pass(time.Second)
	s.see(me)
	require.Len(t, s.next().Evict, 1)
}

func TestTokenOfANewcomerStandsStillFromTheEndOfTheListToo(t *testing.T) {
	s := begin(t, 1)
	start := s.now
	s.pass(3 * time.Second)
	s.members[anna] = lease.Member{ID: anna, Token: "first", Period: lp}
	s.readMembers(start, s.now, true)
	s.pass(lp - time.Second)
	s.see(me)
	require.Empty(t, s.next().Evict)
	s.pass(time.Second)
	s.see(me)
	require.Len(t, s.next().Evict, 1)
}

func TestLongerLeasePeriodOfAnotherMemberCounts(t *testing.T) {
	s := begin(t, 1, anna)
	s.says(anna, func(m *lease.Member) { m.Period = 3 * lp })
	s.see(me, anna)
	s.pass(3*lp - time.Second)
	s.see(me)
	require.Empty(t, s.next().Evict)
	s.pass(time.Second)
	s.see(me)
	require.Len(t, s.next().Evict, 1)
}

func TestShorterLeasePeriodOfAnotherMemberDoesNotCount(t *testing.T) {
	s := begin(t, 1, anna)
	s.says(anna, func(m *lease.Member) { m.Period = time.Second })
	s.see(me, anna)
	s.pass(lp - time.Second)
	s.see(me)
	require.Empty(t, s.next().Evict)
}

func TestNobodyEvictsItself(t *testing.T) {
	s := begin(t, 1)
	s.pass(2 * lp)
	s.see()
	require.Empty(t, s.next().Evict)
}

func TestNobodyIsDeclaredDeadByAMemberWhoseSessionIsNotSound(t *testing.T) {
	s := begin(t, 1, anna)
	s.pass(lp)
	s.see()
	require.Empty(t, s.nextIf(false).Evict)
	require.Len(t, s.next().Evict, 1)
}

// After an outage of the table everybody's token has stood still: the period counts
// from when one's own session is sound again.
func TestPeriodCountsFromWhenTheOwnSessionWasSound(t *testing.T) {
	s := begin(t, 1, anna)
	s.pass(lp)
	s.readMembers(s.now, s.now, false)
	require.Empty(t, s.next().Evict)
	s.pass(lp - time.Second)
	s.see(me)
	require.Empty(t, s.next().Evict)
	s.pass(time.Second)
	s.see(me)
	require.Len(t, s.next().Evict, 1)
}

func TestDeadMemberIsEvictedBeforeItsShardsAreClaimed(t *testing.T) {
	s := begin(t, 2, anna)
	s.read(owned(0, anna), owned(1, anna))
	s.pass(lp)
	s.see(me)
	a := s.next()
	require.Len(t, a.Evict, 1)
	require.Empty(t, a.Claim)
	require.Empty(t, a.Confirm)

	s.Evicted(anna, nil, s.now)
	require.Equal(t, ids(0, 1), s.claims())
}

func TestMemberThatCouldNotBeEvictedLives(t *testing.T) {
	s := begin(t, 2, anna)
	s.read(owned(0, anna), owned(1, anna))
	s.pass(lp)
	s.see(me)
	s.next()
	s.Evicted(anna, lease.ErrConflict, s.now)
	s.see() // was under way
	a := s.next()
	require.Empty(t, a.Claim)
	require.Empty(t, a.Evict)
	require.True(t, a.ReadMembers, "the next list tells")

	s.pass(lp - time.Second)
	s.see(me)
	require.Empty(t, s.next().Evict)
}

func TestEvictionThatFailedIsTriedAgainLaterAndLater(t *testing.T) {
	s := begin(t, 1, anna)
	s.pass(lp)
	s.see(me)
	require.Len(t, s.next().Evict, 1)
	for _, pause := range []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second} {
		s.Evicted(anna, errors.New("throttled"), s.now)
		s.pass(pause - time.Millisecond)
		require.Empty(t, s.next().Evict)
		s.pass(time.Millisecond)
		require.Len(t, s.next().Evict, 1, pause)
	}
}

func TestEvictionThatSucceededCountsThoughTheListHasForgottenTheMember(t *testing.T) {
	s := begin(t, 1, anna)
	s.pass(lp)
	s.see(me)
	dead := s.next().Evict[0]
	delete(s.members, anna)
	s.see(me)
	s.Evicted(anna, nil, s.now)
	s.members[anna] = dead // as an older list has it
	s.see(me)
	s.read(owned(0, anna))
	require.Equal(t, ids(0), s.claims())
}

func TestMemberThatMovesWhileItIsEvictedLives(t *testing.T) {
	s := begin(t, 1, anna)
	s.pass(lp)
	s.see(me)
	require.Len(t, s.next().Evict, 1)
	s.see(me, anna)
	s.Evicted(anna, lease.ErrConflict, s.now)
	s.pass(lp - time.Second)
	s.see(me)
	require.Empty(t, s.next().Evict)
}

func TestMemberThatAnotherHasEvictedIsGone(t *testing.T) {
	s := begin(t, 2, anna)
	s.read(owned(0, anna), owned(1, anna))
	require.Empty(t, s.next().Claim)
	s.says(anna, func(m *lease.Member) { *m = lease.Member{ID: anna, Token: lease.Evicted} })
	s.see(me)
	require.Equal(t, ids(0, 1), s.claims())
}

func TestOlderListDoesNotBringAMemberBack(t *testing.T) {
	s := begin(t, 2, anna)
	s.read(owned(0, anna), owned(1, anna))
	alive := s.members[anna]
	s.says(anna, func(m *lease.Member) { *m = lease.Member{ID: anna, Token: lease.Evicted} })
	s.see(me)
	s.members[anna] = alive
	s.see(me)
	require.Equal(t, ids(0, 1), s.claims())
}

// Rule 3: the shard's item first, then the owner's, consistently.
func TestOwnerThatIsNotInTheListIsConfirmedBeforeItsShardsAreClaimed(t *testing.T) {
	s := begin(t, 2)
	s.read(owned(0, anna))
	a := s.next()
	require.Equal(t, []string{anna}, a.Confirm)
	require.Len(t, a.Claim, 1)
	require.Equal(t, id(1), a.Claim[0].Key.Shard)

	s.read(owned(0, anna))
	a = s.next()
	require.Empty(t, a.Confirm, "it is being read")
	require.Empty(t, a.Claim)

	s.Confirmed(anna, false, nil, s.now)
	require.Equal(t, ids(0), s.claims())
}

func TestOwnerThatIsThereAfterAllKeepsItsShards(t *testing.T) {
	s := begin(t, 1)
	s.read(owned(0, anna))
	require.Equal(t, []string{anna}, s.next().Confirm)
	s.Confirmed(anna, true, nil, s.now)
	s.see() // was under way
	a := s.next()
	require.True(t, a.ReadMembers, "it has joined since the list was read")
	require.Empty(t, a.Claim)
	s.pass(time.Second)
	s.see(me, anna)
	a = s.next()
	require.Empty(t, a.Claim)
	require.Empty(t, a.Confirm)
}

func TestOwnerThatCouldNotBeConfirmedIsAskedForAgain(t *testing.T) {
	s := begin(t, 1)
	s.read(owned(0, anna))
	require.Equal(t, []string{anna}, s.next().Confirm)
	s.Confirmed(anna, false, errors.New("throttled"), s.now)
	require.Empty(t, s.next().Confirm)
	s.pass(10 * time.Second)
	a := s.next()
	require.Equal(t, []string{anna}, a.Confirm)
	require.Empty(t, a.Claim)
}

func TestMembersThatLeaveAreConfirmedToBeGone(t *testing.T) {
	s := begin(t, 1, anna)
	s.read(owned(0, anna))
	require.Empty(t, s.next().Confirm)
	delete(s.members, anna)
	s.see(me)
	a := s.next()
	require.Equal(t, []string{anna}, a.Confirm)
	require.Len(t, a.Refresh, 1, "what it has left is read again")
	require.Empty(t, a.Claim)
}

func TestBuiltInOwnersAreNeverConfirmed(t *testing.T) {
	s := begin(t, 1)
	s.read(foreign(0, anna, "t"))
	a := s.next()
	require.Empty(t, a.Confirm)
	require.Empty(t, a.Claim)
}

func TestRequestsAreWithdrawnWhileMembersComeAndGo(t *testing.T) {
	s := begin(t, 4, anna)
	s.read(owned(0, anna), owned(1, anna), owned(2, anna), owned(3, anna))
	require.Equal(t, map[string]int{anna: 2}, s.next().Report.Requests)

	s.see(me, anna, bob)
	s.pass(time.Second)
	s.see(me, anna, bob) // bob has moved, and counts
	require.Empty(t, s.next().Report.Requests)
	s.pass(999 * time.Millisecond)
	require.Empty(t, s.next().Report.Requests)
	s.pass(time.Millisecond)
	require.Equal(t, map[string]int{anna: 1}, s.next().Report.Requests)
}

func TestRequestsAreMadeAfterAWhileHoweverManyComeAndGo(t *testing.T) {
	s := begin(t, 4, anna)
	s.read(owned(0, anna), owned(1, anna), owned(2, anna), owned(3, anna))
	require.NotEmpty(t, s.next().Report.Requests)
	came := func(ids ...string) bool { // bob has come, or gone
		delete(s.members, bob)
		s.see(ids...)
		s.pass(300 * time.Millisecond)
		s.see(ids...)
		s.pass(300 * time.Millisecond)
		return len(s.next().Report.Requests) > 0
	}
	began := s.now
	for !came(me, anna, bob) && !came(me, anna) {
		require.Less(t, s.now.Sub(began), 30*time.Second)
	}
	require.Greater(t, s.now.Sub(began), 19*time.Second)
	require.Less(t, s.now.Sub(began), 22*time.Second)
}

func TestMembersAreListedOftenUntilTheOthersAreKnown(t *testing.T) {
	s := newStage(t)
	s.Begin(nil, s.now)
	s.Joined(me, s.now)
	lists := func(d time.Duration) (n int) {
		for end := s.now.Add(d); s.now.Before(end); s.pass(50 * time.Millisecond) {
			if s.next().ReadMembers {
				n++
				s.see(me)
			}
		}
		return n
	}
	require.Equal(t, 12, lists(3*time.Second), "one each quarter of a second")
	require.Equal(t, 10, lists(15*time.Second), "one each second and a half")
}

func TestFailedListOfMembersIsReadAgainSoonAndLaterEachTime(t *testing.T) {
	s := begin(t, 1)
	s.see(me)
	var pauses []time.Duration
	last := time.Time{}
	for range 200 {
		if s.next().ReadMembers {
			if !last.IsZero() {
				pauses = append(pauses, s.now.Sub(last))
			}
			last = s.now
			s.Apply(Snapshot{Members: &MemberSnapshot{Start: s.now, End: s.now, Err: errors.New("throttled")}}, s.now)
		}
		s.pass(50 * time.Millisecond)
	}
	require.Equal(t, []time.Duration{250 * time.Millisecond, 500 * time.Millisecond, time.Second, 1500 * time.Millisecond}, pauses[:4])
}

func TestOperatorIsToldWhoCameAndWhoWent(t *testing.T) {
	s := begin(t, 4)
	s.pass(newcomer)
	come := func(all ...string) (lines []string) {
		for range 5 {
			s.see(all...)
			for _, line := range said(s.next(), "The group has") {
				lines = append(lines, line.Text)
			}
			s.pass(time.Second)
		}
		return lines
	}
	come(me)
	require.Equal(t, []string{"Clients: anna joined. The group has 2 now, with this one"}, come(me, anna))
	require.Empty(t, come(me, anna))
	require.Equal(t, []string{"Clients: c, d, e and 1 more joined. The group has 6 now, with this one"}, come(me, anna, "c", "d", "e", "f"))
	delete(s.members, anna)
	require.Equal(t, []string{"Clients: anna left. The group has 5 now, with this one"}, come(me, "c", "d", "e", "f"))
}

func TestOtherMemberOfANewNameIsANewMember(t *testing.T) {
	s := begin(t, 4, anna)
	delete(s.members, anna)
	s.see(me)
	s.see(me, anna)
	s.pass(time.Second)
	s.see(me) // in the list again, and not seen to live
	s.read()
	require.Len(t, s.claims(), 4)
}

// Ids of members that came and went are not remembered for ever.
func TestMembersThatAreLongGoneAreForgotten(t *testing.T) {
	s := begin(t, 2, anna)
	s.read(owned(0, "owner"))
	s.Confirmed("owner", false, nil, s.now)
	for i := range manyGone + 10 {
		s.Confirmed(fmt.Sprint("gone ", i), false, nil, s.now)
	}
	s.see(me, anna)
	require.Len(t, s.Group.members.gone, manyGone+11, "a list may be as old as that")
	s.pass(10 * lp)
	s.see(me, anna)
	require.Len(t, s.Group.members.gone, 1, "it owns something")
}
