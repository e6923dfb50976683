package group

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/lineage"
)

func TestFirstReadingIsConsistent(t *testing.T) {
	s := newStage(t)
	s.list("foo", open(1)...)
	s.Begin([]StreamSnapshot{{Stream: "foo", Shards: open(1), Listed: s.now}}, s.now)
	s.Joined(me, s.now)
	require.Equal(t, []Refresh{{Stream: "foo", Consistent: true}}, s.next().Refresh)
	require.Empty(t, s.next().Refresh, "it is under way")
	s.read()
	s.pass(rp)
	require.Equal(t, []Refresh{{Stream: "foo"}}, s.next().Refresh)
}

func TestShardsAreListedAnewAfterTenRebalancePeriods(t *testing.T) {
	s := begin(t, 1)
	s.read()
	s.pass(10*rp - time.Second)
	require.False(t, s.next().Refresh[0].Shards)
	s.readItems()
	s.pass(rp)
	require.True(t, s.next().Refresh[0].Shards)
}

func TestItemOfAShardThatIsNewerThanTheListHasItListedOnce(t *testing.T) {
	s := begin(t, 1)
	s.read(owned(5, anna))
	s.pass(20 * time.Second)
	a := s.next()
	require.Len(t, a.Refresh, 1)
	require.True(t, a.Refresh[0].Shards)
	s.read(owned(5, anna))
	s.pass(rp)
	require.False(t, s.next().Refresh[0].Shards, "it may be of an earlier stream")
}

func TestListThatDoesNotCoverTheKeysIsMadeAnew(t *testing.T) {
	half := lineage.Shard{ID: id(0), FirstKey: "0", LastKey: "99", FirstSequence: "1000"}
	s := newStage(t)
	s.list("foo", half)
	s.join()
	s.read()
	for range 3 {
		s.pass(20 * time.Second)
		a := s.next()
		require.Len(t, a.Refresh, 1)
		require.True(t, a.Refresh[0].Shards)
		s.read()
	}
}

// The service may list shards as they were before a reshard.
func TestFinishedShardThatIsListedOpenIsNotReadUntilTheListSaysSoAgain(t *testing.T) {
	s := newStage(t)
	s.list("foo", lineage.Shard{ID: id(0)})
	s.join()
	mark := lease.Item{Key: key(0), Exists: true, Finished: true}
	s.read(mark)
	require.Empty(t, s.next().Claim)
	s.pass(19 * time.Second)
	s.read(mark)
	require.Empty(t, s.next().Claim, "too soon to be another list")
	s.pass(time.Second)
	a := s.next()
	require.Len(t, a.Refresh, 1)
	require.True(t, a.Refresh[0].Shards)
	s.read(mark)
	a = s.next()
	require.Len(t, a.Claim, 1)
	require.True(t, a.Claim[0].Anew)
	require.Contains(t, a.Claim[0].Warning.One, "was finished in an earlier stream")
}

func TestFinishedShardThatIsListedClosedAfterAllStaysFinished(t *testing.T) {
	s := newStage(t)
	s.list("foo", lineage.Shard{ID: id(0)})
	s.join()
	mark := lease.Item{Key: key(0), Exists: true, Finished: true}
	s.read(mark)
	s.list("foo", lineage.Shard{ID: id(0), Closed: true}, shardOf(1, 0))
	s.pass(20 * time.Second)
	s.read(mark)
	require.Equal(t, ids(1), s.claims())
}

func TestFinishedMarkThatIsKnownToBeOfThisShardHoldsIt(t *testing.T) {
	s := begin(t, 1)
	for range 5 {
		s.read(finished(0))
		require.Empty(t, s.next().Claim)
		s.pass(20 * time.Second)
		s.see(me)
	}
}

func TestFinishedMarkThatIsKnownToBeOfAnEarlierStreamHoldsNothing(t *testing.T) {
	s := begin(t, 1)
	mark := finished(0)
	mark.Sequence = "17"
	s.read(mark)
	a := s.next()
	require.Len(t, a.Claim, 1)
	require.True(t, a.Claim[0].Anew)
}

func TestItemDeletedUnderALivingOwnerIsLeftAlone(t *testing.T) {
	s := begin(t, 1, anna)
	s.read(owned(0, anna))
	delete(s.members, anna) // with it, perhaps
	s.see(me)
	s.read()
	until := s.now.Add(lp + rp)
	for ; s.now.Before(until); s.pass(5 * time.Second) {
		s.see(me)
		s.read()
		require.Empty(t, s.next().Claim)
	}
	s.see(me)
	require.Equal(t, ids(0), s.claims())
}

func TestItemThatIsMadeAnewIsLeftAloneNoMore(t *testing.T) {
	s := begin(t, 1, anna)
	s.read(owned(0, anna))
	s.read()
	s.read(free(0))
	require.Zero(t, s.Group.shard(key(0)).vanishedUntil)
}

func TestItemDeletedUnderABuiltInOwnerIsFree(t *testing.T) {
	s := begin(t, 1)
	s.read(foreign(0, "builtin", "t"))
	s.read()
	require.Equal(t, ids(0), s.claims())
}

func TestLeaseWhoseItemIsNotAsItShouldBeIsRenewedAtOnce(t *testing.T) {
	for name, items := range map[string][]lease.Item{
		"deleted": nil, "another's": {owned(0, anna)}, "another term's": {owned(0, me)}, "free": {free(0)},
	} {
		t.Run(name, func(t *testing.T) {
			s := reading(t, 1)
			s.readItems(items...)
			require.Equal(t, []lease.Key{key(0)}, s.next().Check)
			require.Empty(t, s.next().Check)
		})
	}
}

func TestReadingFromBeforeTheClaimChecksNothing(t *testing.T) {
	s := begin(t, 1)
	s.read()
	start := s.now
	require.Equal(t, ids(0), s.claims())
	s.pass(time.Second)
	s.put(free(0))
	s.readBetween("foo", start, s.now)
	require.Empty(t, s.next().Check)
	require.Empty(t, s.next().Claim)
}

func TestForeignModeLastsTenLeasePeriods(t *testing.T) {
	s := begin(t, 1)
	require.False(t, s.Foreign("foo", s.now))
	s.read(foreign(0, "builtin", "t"))
	require.True(t, s.Foreign("foo", s.now))
	s.read(free(0))
	s.pass(10*lp - time.Millisecond)
	require.True(t, s.Foreign("foo", s.now))
	s.pass(time.Millisecond)
	require.False(t, s.Foreign("foo", s.now))
}

func TestLiteralOwnerMakesAStreamForeign(t *testing.T) {
	s := begin(t, 1)
	s.read(literally(0, "", ""))
	require.False(t, s.Foreign("foo", s.now))
	s.read(literally(0, "builtin", "t"))
	require.True(t, s.Foreign("foo", s.now))
}

func TestStreamOfABuiltInInputIsReadAsThatDoes(t *testing.T) {
	s := begin(t, 1)
	s.read(foreign(0, "builtin", "t"))
	require.Equal(t, 20*time.Second, s.readEvery(s.streams[0], s.now))
	s.pass(10 * lp)
	require.Equal(t, rp, s.readEvery(s.streams[0], s.now))
}

func TestShardsOfAStreamWithoutItemsStartWhereTheConfigurationSays(t *testing.T) {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, test := range map[string]struct {
		oldest bool
		from   time.Time
		want   func(served time.Time) time.Time
	}{
		"oldest": {true, time.Time{}, func(time.Time) time.Time { return time.Time{} }},
		"a time": {true, at, func(time.Time) time.Time { return at }},
		"now":    {false, time.Time{}, func(served time.Time) time.Time { return served }},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, func(c *Config) { c.StartFromOldest, c.StartFrom = test.oldest, test.from })
			s.list("foo", open(1)...)
			served := s.now
			s.join()
			s.readItems()
			require.Equal(t, test.want(served), s.next().Claim[0].StartAt)
		})
	}
}

// LATEST is never applied to a shard that was found later.
func TestShardsOfAStreamWithItemsStartAtTheirOldestRecord(t *testing.T) {
	s := newStage(t, func(c *Config) { c.StartFromOldest = false })
	s.list("foo", open(2)...)
	s.join()
	s.readItems(owned(0, me))
	claims := s.next().Claim
	require.Len(t, claims, 2)
	for _, c := range claims {
		require.Zero(t, c.StartAt)
	}
}

func TestLateShardsStartWhereTheFirstProcessBegan(t *testing.T) {
	s := begin(t, 2)
	item := owned(0, me)
	item.StartAt = s.now.Add(-time.Hour)
	s.read(item)
	a := s.next()
	require.Len(t, a.Claim, 2)
	require.Equal(t, item.StartAt, a.Claim[0].StartAt)
	require.Equal(t, item.StartAt, a.Claim[1].StartAt)
}

// The built-in input has finished all that had items, and has deleted these.
func TestStreamWithoutItemsThatOthersReadStartsWhereTheyBegan(t *testing.T) {
	at := time.Date(2026, 11, 25, 11, 0, 0, 0, time.UTC)
	for name, test := range map[string]struct {
		told map[string]time.Time
		want func(served time.Time) time.Time
	}{
		"earlier":       {map[string]time.Time{"foo": at}, func(time.Time) time.Time { return at }},
		"oldest record": {map[string]time.Time{"foo": {}}, func(time.Time) time.Time { return time.Time{} }},
		"later":         {map[string]time.Time{"foo": at.Add(2 * time.Hour)}, func(served time.Time) time.Time { return served }},
		"of another":    {map[string]time.Time{"bar": at}, func(served time.Time) time.Time { return served }},
		"not told":      {nil, func(served time.Time) time.Time { return served }},
	} {
		for _, order := range []string{"items first", "members first"} {
			t.Run(name+", "+order, func(t *testing.T) {
				s := newStage(t, func(c *Config) { c.StartFromOldest = false })
				s.list("foo", open(4)...)
				served := s.now
				s.join()
				if order == "items first" {
					s.readItems()
				}
				s.see(anna)
				s.says(anna, func(m *lease.Member) { m.Starts = test.told })
				s.see(anna)
				if order == "members first" {
					s.readItems()
				}
				claims := s.next().Claim
				require.NotEmpty(t, claims)
				for _, c := range claims {
					require.Equal(t, test.want(served), c.StartAt)
				}
			})
		}
	}
}

func TestWhereAStreamBeginsIsToldBesideABuiltInInput(t *testing.T) {
	s := newStage(t, streamsNamed("foo", "bar"), func(c *Config) { c.StartFromOldest = false })
	s.list("foo", open(2)...)
	s.list("bar", open(1)...)
	s.join()
	require.Empty(t, s.next().Report.Starts)
	item := owned(0, me)
	item.StartAt = s.now.Add(-time.Hour)
	s.readItems(item)
	require.Empty(t, s.next().Report.Starts, "nobody deletes items here")
	s.readItems(item, foreign(1, "builtin", "t"))
	require.Equal(t, map[string]time.Time{"foo": item.StartAt}, s.next().Report.Starts)
	s.pass(20 * lp)
	s.readItems(item)
	require.NotEmpty(t, s.next().Report.Starts, "who has gone has deleted what it did")
}

func TestMissingStreamIsLookedForLaterAndLater(t *testing.T) {
	s := newStage(t)
	s.Begin([]StreamSnapshot{{Stream: "foo", Err: errors.New("no such stream")}}, s.now)
	s.Joined(me, s.now)
	require.Empty(t, s.next().Report.Streams, "it has nothing to share")
	var pauses []time.Duration
	last := s.now
	for range 3000 {
		if a := s.next(); len(a.Refresh) > 0 {
			require.Equal(t, []Refresh{{Stream: "foo", Missing: true, Shards: true, Consistent: true}}, a.Refresh)
			pauses = append(pauses, s.now.Sub(last))
			last = s.now
			s.Apply(Snapshot{Stream: &StreamSnapshot{Stream: "foo", Err: errors.New("no such stream")}}, s.now)
		}
		s.pass(100 * time.Millisecond)
	}
	require.Equal(t, []time.Duration{20 * time.Second, 40 * time.Second, mostMissing, mostMissing}, pauses[:4])
}

func TestMissingStreamThatIsFoundIsReadFromWhenTheInputBegan(t *testing.T) {
	s := newStage(t, streamsNamed("foo", "bar"), func(c *Config) { c.StartFromOldest = false })
	began := s.now
	s.Begin([]StreamSnapshot{
		{Stream: "foo", Err: errors.New("no such stream")},
		{Stream: "bar", Shards: open(0), Listed: s.now, ServerTime: s.now},
	}, s.now)
	s.Joined(me, s.now)
	for range 5 {
		s.pass(time.Second)
		s.see(me)
	}
	s.pass(time.Minute)
	s.list("foo", open(1)...)
	s.read()
	a := s.next()
	require.Len(t, said(a, "which was missing, is read now"), 1)
	require.Equal(t, began, a.Claim[0].StartAt)
	require.Equal(t, []string{"foo", "bar"}, a.Report.Streams)
}

func TestStreamThatIsNotFoundThreeTimesIsMissing(t *testing.T) {
	s := reading(t, 1)
	answer := func() Actions {
		s.Apply(Snapshot{Stream: &StreamSnapshot{Stream: "foo", NotFound: true, Err: errors.New("no such stream")}}, s.now)
		return s.next()
	}
	for range 2 {
		require.Empty(t, said(answer(), "does not exist any more"))
		s.pass(soon)
		a := s.next()
		require.Len(t, a.Refresh, 1)
		require.True(t, a.Refresh[0].Shards)
	}
	a := answer()
	require.Len(t, said(a, "does not exist any more"), 1)
	require.Empty(t, a.Report.Streams)
	s.Urge(s.now)
	s.pass(time.Second)
	require.Empty(t, s.next().Refresh, "nobody can call for it")
	s.pass(20 * time.Second)
	require.True(t, s.next().Refresh[0].Missing)
}

func TestStreamThatIsNotFoundNowAndThenIsThere(t *testing.T) {
	s := reading(t, 1)
	for range 2 * enoughNotFound {
		s.Apply(Snapshot{Stream: &StreamSnapshot{Stream: "foo", NotFound: true, Err: errors.New("no such stream")}}, s.now)
		require.Empty(t, said(s.next(), "does not exist any more"))
		s.pass(time.Second)
		s.read(s.held(1)...)
	}
}

func TestStreamThatIsMissingHasNothingUnread(t *testing.T) {
	s := unread(t)
	s.pass(time.Minute)
	s.read(owned(0, anna))
	s.next()
	require.Equal(t, 1, s.unread())
	for range enoughNotFound {
		s.Apply(Snapshot{Stream: &StreamSnapshot{Stream: "foo", NotFound: true, Err: errors.New("no such stream")}}, s.now)
	}
	s.next()
	require.Zero(t, s.unread())
}

func TestMalformedItemIsToldOnce(t *testing.T) {
	s := begin(t, 1)
	item := foreign(0, "x", "")
	item.Malformed = "no time"
	s.read(item)
	require.Len(t, said(s.next(), "is malformed: no time"), 1)
	s.read(item)
	require.Empty(t, said(s.next(), "is malformed"))
	s.read(free(0))
	s.read(item)
	require.Len(t, said(s.next(), "is malformed"), 1)
}

func TestFailedReadingIsMadeAgainSoonAndLaterEachTime(t *testing.T) {
	s := begin(t, 1)
	s.read()
	s.claims()
	var pauses []time.Duration
	var last time.Time
	for range 700 {
		if a := s.next(); len(a.Refresh) > 0 {
			if !last.IsZero() {
				pauses = append(pauses, s.now.Sub(last))
			}
			last = s.now
			s.Apply(Snapshot{Stream: &StreamSnapshot{Stream: "foo", Err: errors.New("throttled")}}, s.now)
		}
		s.pass(250 * time.Millisecond)
	}
	require.Equal(t, []time.Duration{250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 20 * time.Second}, pauses[:8])
}

func TestShardsOfWhichNothingIsKnownAreForgotten(t *testing.T) {
	s := begin(t, 3)
	s.read(free(7))
	require.Len(t, s.streams[0].shards, 4)
	s.list("foo", shardOf(2))
	s.read()
	require.Len(t, s.streams[0].shards, 1)
}
