package group

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/lineage"
)

func TestClaimCarriesWhatWasSeen(t *testing.T) {
	s := begin(t, 1)
	item := free(0)
	item.StartAt = s.now.Add(-time.Hour)
	s.read(item, literally(0, "", ""))
	a := s.next()
	require.Equal(t, []Claim{{
		Key: key(0), Shard: shardOf(0), Item: item, Literals: []lease.Item{literally(0, "", "")}, StartAt: item.StartAt,
	}}, a.Claim)
	require.Equal(t, Claiming, s.shard(key(0)).assignment)
	require.Zero(t, s.Held("foo"), "the claim is under way")
	require.Empty(t, s.next().Claim, "one is enough")

	s.Claimed(key(0), "term", "1000", s.now)
	require.Equal(t, 1, s.Held("foo"))
}

// A hand-over, or a claim of which nothing was heard. Rule 4: nobody else will read it.
func TestShardThatIsOursButNotReadIsClaimedAnew(t *testing.T) {
	s := begin(t, 2, anna)
	s.read(owned(0, me), owned(1, anna))
	a := s.next()
	require.Len(t, a.Claim, 1)
	require.Equal(t, owned(0, me), a.Claim[0].Item, "under the owner and term seen")
	require.Empty(t, a.Report.Requests)
}

func TestShardThatIsOursIsClaimedThoughItIsAnothersByThePlan(t *testing.T) {
	s := begin(t, 2, anna)
	s.read(owned(0, me), owned(1, me))
	require.Equal(t, ids(0, 1), s.claims())
}

func TestShardHandedToUsCountsAsOursAndIsClaimed(t *testing.T) {
	s := begin(t, 4, anna)
	s.read(owned(0, anna), owned(1, anna), owned(2, anna), owned(3, anna))
	require.Equal(t, map[string]int{anna: 2}, s.next().Report.Requests)
	s.read(owned(0, me), owned(1, anna), owned(2, anna), owned(3, anna))
	a := s.next()
	require.Len(t, a.Claim, 1)
	require.Equal(t, map[string]int{anna: 1}, a.Report.Requests)
}

func TestRequestsNameOwnersAndHowManyOfEach(t *testing.T) {
	s := begin(t, 6, anna, bob)
	s.read(owned(0, anna), owned(1, anna), owned(2, anna), owned(3, bob), owned(4, bob), owned(5, bob))
	a := s.next()
	require.Equal(t, map[string]int{anna: 1, bob: 1}, a.Report.Requests)
	require.Equal(t, []string{"foo"}, a.Report.Streams)
	require.Equal(t, 250*time.Millisecond, a.Often, "others wait for its heartbeats")
	require.True(t, s.Waiting(s.now))

	s.pass(lp)
	require.False(t, s.Waiting(s.now), "they do not come")
	require.Zero(t, s.next().Often)
}

func TestBalancedGroupIsStill(t *testing.T) {
	s := begin(t, 5, anna)
	s.read(owned(0, me), owned(1, me), owned(2, anna), owned(3, anna), owned(4, anna))
	require.Equal(t, ids(0, 1), s.claims())
	a := s.next()
	require.Empty(t, a.Report.Requests)
	require.Empty(t, a.HandOver)
	require.Empty(t, a.Claim)
}

func TestOwnerGivesWhatIsRequested(t *testing.T) {
	s := reading(t, 4, anna)
	require.Empty(t, s.next().HandOver, "nobody asks")
	s.says(anna, requesting(2))
	s.see(me, anna)
	require.Empty(t, s.next().HandOver, "it was not seen to live since")
	s.pass(time.Second)
	s.see(me, anna)
	a := s.next()
	require.Len(t, a.HandOver, 2)
	require.Equal(t, anna, a.HandOver[0].To)
	require.Equal(t, 4, s.Held("foo"), "until they are handed over")
	require.Empty(t, s.next().HandOver)
}

func TestRequesterThatWasNotSeenToLiveSinceGetsNothing(t *testing.T) {
	s := reading(t, 4, anna)
	s.says(anna, requesting(2))
	s.see(me, anna)
	for range 3 {
		s.pass(time.Second)
		s.see(me)
		s.read(s.held(4)...)
		require.Empty(t, s.next().HandOver)
	}
}

// It may have died right after its request, and be in the list for a lease period more.
func TestRequesterThatWasNotSeenToLiveForLongGetsNothing(t *testing.T) {
	s := reading(t, 4, anna)
	s.says(anna, requesting(2))
	s.see(me, anna)
	s.pass(time.Second)
	s.see(me, anna)
	s.pass(3*250*time.Millisecond + 2*1500*time.Millisecond + time.Millisecond)
	s.see(me)
	s.read(s.held(4)...)
	require.Empty(t, s.next().HandOver)
	s.see(anna)
	require.Len(t, s.next().HandOver, 2)
}

func TestOwnerGivesNoMoreThanWasRequested(t *testing.T) {
	s := reading(t, 6, anna)
	s.says(anna, requesting(1))
	s.see(me, anna)
	s.pass(time.Second)
	s.see(me, anna)
	require.Len(t, s.next().HandOver, 1)
	for range 5 {
		s.pass(time.Second)
		s.see(me, anna)
		s.read(s.held(6)...)
		require.Empty(t, s.next().HandOver)
	}
	s.says(anna, func(m *lease.Member) { m.Requests = map[string]int{me: 2}; m.Changes++ })
	s.see(me, anna)
	require.Len(t, s.next().HandOver, 2)
}

func TestOwnerGivesNoMoreThanItHasTooMuch(t *testing.T) {
	s := reading(t, 4, anna)
	s.says(anna, requesting(4))
	s.see(me, anna)
	s.pass(time.Second)
	s.see(me, anna)
	require.Len(t, s.next().HandOver, 2)
}

// The recipient does not hear that a hand-over came to nothing, and requests the same.
func TestShardWhoseHandOverCameToNothingIsGivenAgain(t *testing.T) {
	for _, outcome := range []Outcome{Failed, Released} {
		t.Run(outcome.String(), func(t *testing.T) {
			s := reading(t, 2, anna)
			s.says(anna, requesting(1))
			s.see(me, anna)
			s.pass(time.Second)
			s.see(me, anna)
			given := s.next().HandOver
			require.Len(t, given, 1)
			s.Exited(given[0].Key, Exit{Outcome: outcome, Err: errors.New("throttled")}, s.now)
			s.pass(time.Second)
			s.read(s.held(2)...)
			if outcome == Released {
				item := s.held(2)[slices.Index(ids(0, 1), given[0].Key.Shard)]
				item.Term = "another"
				s.rows[item.Key] = item
				s.readBetween("foo", s.now, s.now)
			}
			require.Equal(t, []string{given[0].Key.Shard}, s.claims())
			s.see(me, anna)
			require.Equal(t, given, s.next().HandOver)
		})
	}
}

func TestHandOverThatComesToNothingLateIsNotTakenOffWhatWasGivenSince(t *testing.T) {
	s := reading(t, 6, anna)
	s.says(anna, requesting(1))
	s.see(me, anna)
	s.pass(time.Second)
	s.see(me, anna)
	first := s.next().HandOver
	require.Len(t, first, 1)
	s.says(anna, func(m *lease.Member) { m.Requests = map[string]int{me: 2}; m.Changes++ })
	s.pass(time.Second)
	s.see(me, anna)
	require.Len(t, s.next().HandOver, 2)

	s.Exited(first[0].Key, Exit{Outcome: Failed, Err: errors.New("throttled")}, s.now)
	s.pass(time.Second)
	s.see(me, anna)
	s.read(s.held(6)...)
	require.Equal(t, []string{first[0].Key.Shard}, s.claims())
	s.see(me, anna)
	require.Empty(t, s.next().HandOver)
}

func TestShardThatWasHandedOverIsTheRecipients(t *testing.T) {
	s := reading(t, 2, anna)
	s.says(anna, requesting(1))
	s.see(me, anna)
	s.pass(time.Second)
	s.see(me, anna)
	given := s.next().HandOver[0]
	s.Exited(given.Key, Exit{Outcome: HandedOver, To: anna}, s.now)
	require.Empty(t, s.next().Claim)
	require.Equal(t, 1, s.Held("foo"))

	s.pass(time.Second)
	s.read(s.held(2)...) // as it was
	require.Empty(t, s.next().Claim)

	s.members[anna] = lease.Member{ID: anna, Token: lease.Evicted}
	s.see(me)
	require.Equal(t, []string{given.Key.Shard}, s.claims())
}

// Promise 9: uncertainty about one stream stops nothing in another.
func TestUncertaintyAboutOneStreamStopsNothingInAnother(t *testing.T) {
	s := newStage(t, streamsNamed("foo", "bar"))
	s.list("foo", open(2)...)
	s.list("bar", open(4)...)
	s.join(anna)
	in := func(item lease.Item, stream string) lease.Item { item.Stream = stream; return item }
	s.put(owned(0, anna), owned(1, "ghost"))
	for i := range 4 {
		item := in(owned(i, anna), "bar")
		s.rows[item.Key] = item
	}
	s.readBetween("foo", s.now, s.now)
	s.readBetween("bar", s.now, s.now)
	a := s.next()
	require.Equal(t, []string{"ghost"}, a.Confirm)
	require.Equal(t, map[string]int{anna: 2}, a.Report.Requests, "those of bar")
}

func TestNothingIsRequestedOfAStreamOfWhichSomethingIsUncertain(t *testing.T) {
	s := begin(t, 4, anna)
	s.read(owned(0, anna), owned(1, anna), owned(2, anna), owned(3, "ghost"))
	a := s.next()
	require.Equal(t, []string{"ghost"}, a.Confirm)
	require.Empty(t, a.Report.Requests)
	s.Confirmed("ghost", false, nil, s.now)
	a = s.next()
	require.Len(t, a.Claim, 1)
	require.Equal(t, map[string]int{anna: 1}, a.Report.Requests)
}

func TestLeftoverIsClaimedAfterAWhile(t *testing.T) {
	s := begin(t, 2, anna)
	s.read()
	mine := s.claims()
	require.Len(t, mine, 1)
	began := s.now
	s.pass(lp/3 + time.Second) // patience
	s.see(me, anna)
	require.Empty(t, s.claims())
	a := s.next()
	require.False(t, a.Wake.After(s.now.Add(time.Millisecond)), "without being told of anything")
	s.pass(time.Millisecond)
	a = s.next()
	require.Empty(t, a.Claim, "not before it was seen again")
	require.Len(t, a.Refresh, 1)
	s.pass(100 * time.Millisecond)
	s.readItems(free(1 - slices.Index(ids(0, 1), mine[0])))
	require.Len(t, s.claims(), 1, "%v after %v", s.now, began)
}

func TestLeftoverThatWasClaimedUnseenIsNotClaimed(t *testing.T) {
	s := begin(t, 2, anna)
	s.read()
	mine := s.claims()
	require.Len(t, mine, 1)
	s.pass(lp/3 + time.Second + time.Millisecond)
	s.see(me, anna)
	require.Empty(t, s.claims())
	s.readItems(owned(1-slices.Index(ids(0, 1), mine[0]), anna))
	require.Empty(t, s.claims())
}

func TestLeftoverThatWasClaimedMeanwhileIsNone(t *testing.T) {
	s := begin(t, 2, anna)
	s.read()
	mine := s.claims()
	other := 1 - slices.Index(ids(0, 1), mine[0])
	s.pass(15 * time.Second)
	s.see(me, anna)
	s.readItems(owned(other, anna))
	s.next()
	s.pass(time.Second)
	s.readItems(free(other))
	s.next()
	s.pass(15 * time.Second)
	s.see(me, anna)
	require.Empty(t, s.claims(), "its patience begins anew")
}

func TestShardThatCouldNotBeClaimedRestsLongerEachTime(t *testing.T) {
	s := begin(t, 1)
	var pauses []time.Duration
	s.read()
	for failures := range 9 {
		began := s.now
		var c []Claim
		for len(c) == 0 {
			s.see(me)
			a := s.next()
			if c = a.Claim; len(c) == 0 {
				s.pass(max(time.Millisecond, a.Wake.Sub(s.now)))
			}
		}
		pauses = append(pauses, s.now.Sub(began).Round(10*time.Millisecond))
		require.Equal(t, failures, c[0].Failures)
		s.exit(0, Exit{Outcome: NotClaimed, Err: errors.New("throttled")})
		s.pass(time.Nanosecond)
		s.read()
	}
	require.Equal(t, "[0s 250ms 500ms 1s 2s 4s 8s 16s 20s]", fmt.Sprint(pauses))
}

func TestShardOfALongLeaseRestsForHalfAMinuteAtMost(t *testing.T) {
	s := newStage(t, func(c *Config) { c.LeasePeriod, c.RebalancePeriod = 10*time.Minute, 10*time.Minute })
	s.list("foo", open(1)...)
	s.join()
	for range 12 {
		s.see(me)
		s.read()
		require.Len(t, s.next().Claim, 1)
		s.exit(0, Exit{Outcome: NotClaimed, Err: errors.New("throttled")})
		s.pass(mostRest)
	}
}

func TestFailuresOfLongAgoDoNotCount(t *testing.T) {
	for name, test := range map[string]struct {
		pause    time.Duration
		failures int
	}{"of late": {4 * 20 * time.Second, 1}, "of long ago": {4*20*time.Second + time.Millisecond, 0}} {
		t.Run(name, func(t *testing.T) {
			s := begin(t, 1)
			s.read()
			require.Len(t, s.next().Claim, 1)
			s.exit(0, Exit{Outcome: NotClaimed, Err: errors.New("throttled")})
			s.pass(soon + test.pause)
			s.see(me)
			s.read()
			claims := s.next().Claim
			require.Len(t, claims, 1)
			require.Equal(t, test.failures, claims[0].Failures)
		})
	}
}

func TestBuiltInOwnerIsGivenFourLeasePeriods(t *testing.T) {
	s := begin(t, 1)
	s.read(foreign(0, "builtin", "t"))
	require.Empty(t, s.next().Claim)
	began := s.now
	for s.now.Sub(began) < 4*lp-time.Second {
		s.pass(time.Second)
		s.see(me)
		s.read(foreign(0, "builtin", "t"))
		require.Empty(t, s.next().Claim)
	}
	s.pass(time.Second)
	s.see(me)
	s.readBetween("foo", s.now.Add(-time.Millisecond), s.now)
	require.Empty(t, s.next().Claim, "the reading was begun before that")
	s.read(foreign(0, "builtin", "t"))
	a := s.next()
	require.Len(t, a.Claim, 1)
	require.False(t, a.Claim[0].Stolen, "its owner is dead")
	require.Equal(t, foreign(0, "builtin", "t"), a.Claim[0].Item, "under the owner and time seen")
}

func TestBuiltInOwnerThatRenewsIsNotDead(t *testing.T) {
	s := begin(t, 1)
	for i := range 100 {
		s.pass(lp / 10)
		s.see(me)
		s.read(foreign(0, "builtin", fmt.Sprint(i/10)))
		require.Empty(t, s.next().Claim)
	}
}

func TestStreamIsReadWhenABuiltInOwnerMayBeFoundToBeDead(t *testing.T) {
	s := begin(t, 1)
	s.read(foreign(0, "builtin", "t"))
	began := s.now
	for a := s.next(); s.now.Sub(began) < 4*lp; a = s.next() {
		switch {
		case len(a.Refresh) > 0:
			s.read(foreign(0, "builtin", "t"))
		case a.ReadMembers:
			s.see(me)
		default:
			s.now = a.Wake
		}
	}
	require.Equal(t, 4*lp, s.now.Sub(began))
	require.True(t, s.Group.stream("foo").reads.underWay)
}

func TestLiteralOwnerIsGivenThreeLeasePeriods(t *testing.T) {
	s := begin(t, 1)
	s.read(literally(0, "builtin", "t"))
	require.Empty(t, s.next().Claim)
	s.pass(3*lp - time.Millisecond)
	s.see(me)
	s.read(literally(0, "builtin", "t"))
	require.Empty(t, s.next().Claim)
	s.pass(time.Millisecond)
	s.see(me)
	s.read(literally(0, "builtin", "t"))
	a := s.next()
	require.Len(t, a.Claim, 1)
	require.Equal(t, []lease.Item{literally(0, "builtin", "t")}, a.Claim[0].Literals)
}

func TestShardIsYieldedToTheOwnerOfItsLiteralItem(t *testing.T) {
	s := reading(t, 1)
	other := literally(0, "", "")
	other.Shard = "000"
	s.read(append(s.held(1), other, literally(0, "builtin", "t"))...)
	a := s.next()
	require.Equal(t, []lease.Key{key(0)}, a.Yield)
	require.Len(t, said(a, `read by client builtin too, which holds it as item "0"`), 1)
	require.Empty(t, s.next().Yield, "once")

	s.exit(0, Exit{Outcome: Released})
	s.pass(time.Second)
	s.read(free(0), literally(0, "builtin", "t"))
	require.Empty(t, s.next().Claim, "until that item is free")
	s.read(free(0), literally(0, "", ""))
	require.Len(t, s.next().Claim, 1)
}

func TestClaimUnderWayIsYieldedToo(t *testing.T) {
	s := begin(t, 1)
	s.read()
	require.Len(t, s.next().Claim, 1)
	s.read(literally(0, "builtin", "t"))
	require.Equal(t, []lease.Key{key(0)}, s.next().Yield)
	s.Claimed(key(0), "term", "", s.now)
	require.Empty(t, s.next().Yield)
	s.exit(0, Exit{Outcome: Released})
}

// stealing has a stream of which a built-in input owns all shards but some, and renews
// them.
func stealing(t *testing.T, theirs, ours int) *stage {
	s := begin(t, theirs+ours)
	s.read(renewed(builtins(theirs, ours), "before")...)
	s.pass(time.Second)
	s.read(builtins(theirs, ours)...)
	return s
}

// renewed are items with another token.
func renewed(items []lease.Item, token string) []lease.Item {
	for i := range items {
		items[i].Token = token
	}
	return items
}

func builtins(theirs, ours int) (items []lease.Item) {
	for i := range theirs {
		items = append(items, foreign(i, "builtin", "t"))
	}
	for i := range ours {
		items = append(items, owned(theirs+i, me))
	}
	return items
}

func stolen(a Actions) (n int) {
	for _, c := range a.Claim {
		if c.Stolen {
			n++
		}
	}
	return n
}

func TestShardsAreStolenFromTheBuiltInInputOneAtATime(t *testing.T) {
	s := stealing(t, 4, 0)
	a := s.next()
	require.Equal(t, 1, stolen(a))
	require.Empty(t, a.Report.Requests)
	taken := a.Claim[0]
	s.Claimed(taken.Key, "term", "", s.now)

	items := builtins(4, 0)
	i := slices.IndexFunc(items, func(item lease.Item) bool { return item.Key == taken.Key })
	items[i].Owner, items[i].Term = me, "term"
	s.pass(20*time.Second - time.Millisecond)
	s.read(items...)
	require.Empty(t, s.next().Claim, "one a round")
	s.pass(time.Millisecond)
	require.Equal(t, 1, stolen(s.next()))
}

func TestOneShardOfEachStreamIsStolenAtATime(t *testing.T) {
	s := newStage(t, streamsNamed("foo", "bar"))
	s.list("foo", open(4)...)
	s.list("bar", open(4)...)
	s.join()
	for _, token := range []string{"before", "t"} {
		s.put(renewed(builtins(4, 0), token)...)
		for _, item := range renewed(builtins(4, 0), token) {
			item.Stream = "bar"
			s.rows[item.Key] = item
		}
		s.readBetween("foo", s.now, s.now)
		s.readBetween("bar", s.now, s.now)
		s.pass(time.Second)
	}
	require.Equal(t, 2, stolen(s.next()))
}

// The built-in input would steal it back otherwise. It owns the one shard of each other
// stream too, so that the plan has much of its for us in all cases.
func TestShardIsStolenOnlyFromOneThatHasTwoMore(t *testing.T) {
	others := []string{"bar", "baz", "qux", "quux"}
	for _, test := range []struct{ theirs, ours, stolen int }{{2, 0, 1}, {3, 1, 1}, {4, 2, 1}, {1, 0, 0}, {2, 1, 0}, {3, 2, 0}} {
		t.Run(fmt.Sprint(test.theirs, " to ", test.ours), func(t *testing.T) {
			s := newStage(t, streamsNamed(append(others, "foo")...))
			s.list("foo", open(test.theirs+test.ours)...)
			for _, name := range others {
				s.list(name, open(1)...)
			}
			s.join()
			for _, token := range []string{"t", "renewed"} {
				s.put(renewed(builtins(test.theirs, test.ours), token)...)
				for _, name := range others {
					item := foreign(0, "builtin", token)
					item.Stream = name
					s.rows[item.Key] = item
				}
				for name := range s.shards {
					s.readBetween(name, s.now, s.now)
				}
				s.pass(time.Second)
			}
			a := s.next()
			require.Equal(t, test.stolen, stolen(a))
		})
	}
}

// What the plan has for us of all streams together, the built-in input plans for each
// stream alone.
func TestNothingIsStolenInAStreamInWhichTheOthersHaveNoMore(t *testing.T) {
	s := newStage(t, streamsNamed("foo", "bar", "baz"))
	for _, name := range []string{"foo", "bar", "baz"} {
		s.list(name, open(1)...)
	}
	s.join()
	for _, token := range []string{"t", "renewed"} {
		for _, name := range []string{"foo", "bar", "baz"} {
			item := foreign(0, "builtin", token)
			item.Stream = name
			s.rows[item.Key] = item
			s.readBetween(name, s.now, s.now)
		}
		require.Empty(t, s.next().Claim)
		s.pass(time.Second)
	}
}

func TestShardThatRestsDoesNotSpendTheRoundOfSteals(t *testing.T) {
	s := stealing(t, 2, 0)
	for range 8 {
		a := s.next()
		require.Equal(t, 1, stolen(a))
		s.Exited(a.Claim[0].Key, Exit{Outcome: NotClaimed, Err: errors.New("throttled")}, s.now)
		s.pass(20 * time.Second)
		s.read(builtins(2, 0)...)
	}
	a := s.next()
	s.pass(time.Second) // the claim takes its time
	s.Exited(a.Claim[0].Key, Exit{Outcome: NotClaimed, Err: errors.New("throttled")}, s.now)
	s.pass(19 * time.Second)
	s.read(builtins(2, 0)...)
	a = s.next()
	require.Empty(t, a.Claim)
	s.pass(time.Second)
	require.Equal(t, 1, stolen(s.next()), "the round is not spent")
}

// What is claimed after that was handed over, or left, and nobody else reads it.
func TestShardThatAnotherMemberHasHadIsStolenNoMore(t *testing.T) {
	for name, test := range map[string]struct {
		between []string
		stolen  bool
	}{"still ours": {nil, true}, "another's since": {[]string{anna}, false}} {
		t.Run(name, func(t *testing.T) {
			s := stealing(t, 2, 0)
			claims := s.next().Claim
			require.Len(t, claims, 1)
			require.True(t, claims[0].Stolen)
			s.Exited(claims[0].Key, Exit{Outcome: NotClaimed, Err: errors.New("no answer")}, s.now)
			items := builtins(2, 0)
			for _, owner := range append(test.between, me) {
				s.pass(20 * time.Second)
				for i := range items {
					if items[i].Key == claims[0].Key {
						items[i].Owner, items[i].Term = owner, lease.HandOverMark+owner
					}
				}
				s.see(me, anna)
				s.read(items...)
			}
			again := s.next().Claim
			require.Len(t, again, 1)
			require.Equal(t, claims[0].Key, again[0].Key)
			require.Equal(t, test.stolen, again[0].Stolen)
		})
	}
}

func TestExplicitShardsAreClaimedWithoutABalance(t *testing.T) {
	s := newStage(t, shardsNamed("0", id(2)))
	s.list("foo", open(3)...)
	s.join(anna)
	s.read()
	a := s.next()
	require.Len(t, a.Claim, 2)
	require.Equal(t, []string{"0", id(2)}, []string{a.Claim[0].Written, a.Claim[1].Written})
	require.True(t, a.Claim[0].Pinned)
	require.Empty(t, a.Report.Streams)
	require.NotNil(t, a.Report.Streams)
	require.False(t, a.Finished)
}

func TestItemThatABalancedReaderHasBegunStaysProofOfItsParents(t *testing.T) {
	s := newStage(t, shardsNamed("0"))
	s.list("foo", open(1)...)
	s.join()
	s.read(free(0))
	require.False(t, s.next().Claim[0].Pinned)
}

func TestExplicitShardOfAnotherClientIsAwaited(t *testing.T) {
	s := newStage(t, shardsNamed("0"))
	s.list("foo", open(1)...)
	s.join(anna)
	s.read(owned(0, anna))
	a := s.next()
	require.Empty(t, a.Claim)
	require.Empty(t, a.Report.Requests)
	require.Len(t, said(a, "is read by client anna"), 1)
	s.read(owned(0, anna))
	require.Empty(t, said(s.next(), "is read by client anna"), "it is said once")

	delete(s.members, anna)
	s.see(me)
	require.Equal(t, []string{anna}, s.next().Confirm)
	s.Confirmed(anna, false, nil, s.now)
	require.Equal(t, ids(0), s.claims())
}

func TestShardsOfReadersThatNameThemAreNoPartOfTheBalance(t *testing.T) {
	s := begin(t, 4)
	s.see(anna)
	s.says(anna, func(m *lease.Member) { m.Streams = nil })
	s.see(me, anna)
	s.read(owned(0, anna), owned(1, anna), owned(2, anna), owned(3, anna))
	a := s.next()
	require.Empty(t, a.Report.Requests)
	require.Empty(t, a.Claim)
}

func TestExplicitShardsAreFinishedOnlyWhenAllAre(t *testing.T) {
	s := newStage(t, shardsNamed("0", "1"))
	s.list("foo", closed(shardOf(0)), closed(shardOf(1)))
	s.join()
	s.read(finished(0), owned(1, me))
	require.False(t, s.next().Finished)
	s.Claimed(key(1), "term", "1000", s.now)
	s.exit(1, Exit{Outcome: Finished})
	require.True(t, s.next().Finished)
}

func TestExplicitShardThatIsYetToComeIsNotFinished(t *testing.T) {
	s := newStage(t, shardsNamed("0", "7"))
	s.list("foo", closed(shardOf(0)))
	s.join()
	s.read(finished(0))
	a := s.next()
	require.False(t, a.Finished)
	s.pass(20 * time.Second)
	a = s.next()
	require.Len(t, a.Refresh, 1)
	require.True(t, a.Refresh[0].Shards, "it is looked for")
}

func TestChildIsClaimedOnlyWhenAllItsParentsAreFinished(t *testing.T) {
	s := newStage(t)
	s.list("foo", closed(shardOf(0)), closed(shardOf(1)), shardOf(2, 0, 1))
	s.join()
	s.read(finished(0), owned(1, me))
	require.Equal(t, ids(1), s.claims())
	s.exit(1, Exit{Outcome: Finished, Children: []Child{{ID: id(2), Parents: ids(0, 1)}}})
	require.Equal(t, ids(2), s.claims())
}

func TestChildWaitsForAParentThatHasLeftTheStreamAndIsReadUnderALiteralItem(t *testing.T) {
	s := newStage(t)
	s.list("foo", shardOf(1, 0))
	s.join()
	s.read(literally(0, "builtin", "t"))
	require.Empty(t, s.next().Claim)
	s.read(literally(0, "", ""))
	require.Equal(t, ids(1), s.claims())
}

func TestShardOfAnEarlierStreamIsReadFromItsStart(t *testing.T) {
	s := begin(t, 1)
	item := free(0)
	item.Sequence = "17"
	s.read(item)
	a := s.next()
	require.True(t, a.Claim[0].Anew)
	require.Contains(t, a.Claim[0].Warning.One, "earlier stream of the same name")
}

func TestClosedShardThatMayHaveBeenReadIsReadWithAWarning(t *testing.T) {
	s := newStage(t)
	s.list("foo", closed(lineage.Shard{ID: id(0)}), lineage.Shard{ID: id(1), Parents: ids(0)})
	s.join()
	item := free(1)
	item.Sequence = ""
	s.read(item)
	a := s.next()
	require.Len(t, a.Claim, 1)
	require.Equal(t, id(0), a.Claim[0].Key.Shard)
	require.Contains(t, a.Claim[0].Warning.One, "is closed and has no item")
}

// Under the term of a hand-over nobody reads. If its recipient lives and does not claim
// the shard, which it may be unable to, another does.
func TestShardThatItsRecipientDoesNotClaimIsClaimedByAnother(t *testing.T) {
	s := begin(t, 1, anna)
	handed := owned(0, anna)
	handed.Term = lease.HandOverMark + "1"
	passed := time.Duration(0)
	for ; passed < 3*lp; passed += time.Second {
		s.see(me, anna)
		s.readItems(handed)
		if claims := s.next().Claim; len(claims) > 0 {
			require.Equal(t, handed, claims[0].Item, "conditional on what was seen")
			break
		}
		s.pass(time.Second)
	}
	require.GreaterOrEqual(t, passed, lp)
	require.Less(t, passed, 2*lp)
}

// A shard is handed over to nobody who would not hear of it.
func TestMemberThatCannotReadTheItemsRequestsNothing(t *testing.T) {
	s := begin(t, 4, anna)
	items := []lease.Item{owned(0, anna), owned(1, anna), owned(2, anna), owned(3, anna)}
	s.read(items...)
	require.NotEmpty(t, s.next().Report.Requests)
	fail := func() { s.Apply(Snapshot{Stream: &StreamSnapshot{Stream: "foo", Err: errors.New("no")}}, s.now) }
	fail()
	require.NotEmpty(t, s.next().Report.Requests, "once is nothing")
	fail()
	require.Empty(t, s.next().Report.Requests)
	s.readItems(items...)
	require.NotEmpty(t, s.next().Report.Requests)
}

// Nor is one handed over to a member that cannot claim it, for longer each time. A claim
// or two may fail by chance.
func TestMemberThatCannotClaimRequestsNothing(t *testing.T) {
	s := begin(t, 8, anna)
	var items []lease.Item
	for i := range 8 {
		items = append(items, owned(i, anna))
	}
	s.read(items...)
	require.NotEmpty(t, s.next().Report.Requests)
	passed := func() string {
		handed := items[0]
		handed.Owner, handed.Term = me, lease.HandOverMark+"1"
		s.readItems(append([]lease.Item{handed}, items[1:]...)...)
		s.see(me, anna)
		for _, c := range s.next().Claim {
			s.Exited(c.Key, Exit{Outcome: NotClaimed, Err: errors.New("denied")}, s.now)
		}
		s.pass(mostRest)
		s.readItems(items...)
		s.see(me, anna)
		return fmt.Sprint(s.next().Report.Requests)
	}
	require.NotEqual(t, "map[]", passed())
	require.NotEqual(t, "map[]", passed())
	var silent []time.Duration
	for range 3 {
		require.Equal(t, "map[]", passed())
		began := s.now.Add(-mostRest)
		for s.next(); len(s.next().Report.Requests) == 0; s.pass(time.Second) {
			s.readItems(items...)
			s.see(me, anna)
		}
		silent = append(silent, s.now.Sub(began).Round(10*time.Second))
	}
	require.Equal(t, []time.Duration{lp, 2 * lp, 4 * lp}, silent)
}

// A recipient that did not claim what it was given is given it when it can, though it
// has said nothing else meanwhile.
func TestShardThatWasTakenBackIsGivenAgain(t *testing.T) {
	s := reading(t, 2, anna)
	s.says(anna, requesting(1))
	s.see(me, anna)
	s.pass(time.Second)
	s.see(me, anna)
	given := s.next().HandOver
	require.Len(t, given, 1)
	s.Exited(given[0].Key, Exit{Outcome: HandedOver, To: anna}, s.now)
	items := s.held(2)
	n := slices.IndexFunc(items, func(item lease.Item) bool { return item.Key == given[0].Key })
	items[n].Owner, items[n].Term = anna, lease.HandOverMark+"1"
	var claims []string
	for begin := s.now; len(claims) == 0 && s.now.Sub(begin) < 3*lp; {
		s.pass(time.Second)
		s.see(me, anna)
		s.readItems(items...)
		claims = s.claims()
	}
	require.Equal(t, []string{given[0].Key.Shard}, claims)
	s.pass(time.Second)
	s.see(me, anna)
	s.readItems(s.held(2)...)
	require.Len(t, s.next().HandOver, 1)
}
