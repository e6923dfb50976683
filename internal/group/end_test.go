package group

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
)

var endOfTests = time.Date(2026, 11, 25, 11, 0, 0, 0, time.UTC)

// ending has a group that ends.
func ending(c *Config) { c.EndAt = endOfTests }

// cut is the item of a shard that was read up to a moment.
func cut(n int, at time.Time) lease.Item {
	item := free(n)
	item.CutAt = at
	return item
}

func TestShardThatWasCutIsNotReadOnAndNorAreItsChildren(t *testing.T) {
	s := newStage(t, ending)
	s.list("foo", closed(shardOf(0)), shardOf(1, 0), shardOf(2, 0), shardOf(3))
	s.join()
	s.read(cut(0, endOfTests), free(3))
	require.Equal(t, ids(3), s.claims())
	for range 10 {
		s.pass(lp / 2)
		s.see(me)
		s.read(append(s.held(4)[3:], cut(0, endOfTests))...)
		a := s.next()
		require.Empty(t, a.Claim)
		require.Empty(t, said(a, "Nobody has read"))
		require.Zero(t, s.unread(), "nobody is to read them")
		_, from, _ := s.Unread("foo")
		require.Zero(t, from)
	}
}

func TestChildrenOfAShardThatWasReadToItsEndAreRead(t *testing.T) {
	s := newStage(t, ending)
	s.list("foo", closed(shardOf(0)), shardOf(1, 0), shardOf(2, 0))
	s.join()
	s.read(finished(0), cut(1, endOfTests))
	require.Equal(t, ids(2), s.claims())
}

func TestShardThatWasCutAtAnEarlierMomentIsReadOn(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"a later end": func(c *Config) { c.EndAt = endOfTests.Add(time.Nanosecond) },
		"no end":      func(*Config) {},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, change)
			s.list("foo", closed(shardOf(0)), shardOf(1, 0))
			s.join()
			s.read(cut(0, endOfTests))
			a := s.next()
			require.Len(t, a.Claim, 1)
			require.Equal(t, key(0), a.Claim[0].Key)
			require.Equal(t, "1001", a.Claim[0].Item.Sequence)
			require.False(t, a.Finished)
		})
	}
}

func TestShardThatWasCutAtALaterMomentIsDoneWith(t *testing.T) {
	s := newStage(t, ending)
	s.list("foo", open(1)...)
	s.join()
	s.read(cut(0, endOfTests.Add(time.Hour)))
	a := s.next()
	require.Empty(t, a.Claim)
	require.True(t, a.Finished)
}

func TestShardThatWasCutWithoutASequenceIsDoneWith(t *testing.T) {
	s := newStage(t, ending)
	s.list("foo", open(2)...)
	s.join()
	none := cut(0, endOfTests)
	none.Sequence, none.ShardStart = "", "1000"
	unknown := cut(1, endOfTests) // of which stream it is
	unknown.Sequence = ""
	s.read(none, unknown)
	require.Empty(t, s.claims())
	require.True(t, s.Group.finished(s.stream("foo")))

	none.ShardStart = "900"
	s.read(none, unknown)
	require.Equal(t, ids(0), s.claims(), "it was cut in an earlier stream of the same name")
}

func TestGroupEndsWhenAllShardsAreCutOrFinishedOrBeyondTheEnd(t *testing.T) {
	s := newStage(t, ending)
	shards := append(open(2), closed(shardOf(2)), closed(shardOf(3)), shardOf(4, 3), shardOf(5, 3))
	s.list("foo", shards...)
	s.join(anna)
	done := func(items ...lease.Item) bool {
		s.pass(time.Second)
		s.see(me, anna)
		s.read(items...)
		return s.next().Finished
	}
	require.False(t, done(cut(0, endOfTests), cut(1, endOfTests), finished(2), owned(3, anna)), "another reads yet")
	require.False(t, done(cut(0, endOfTests), cut(1, endOfTests), finished(2), finished(3), owned(4, anna), cut(5, endOfTests)))
	require.False(t, done(cut(0, endOfTests), cut(1, endOfTests), finished(2), cut(3, endOfTests), owned(5, anna)), "it may be read all the same")

	a := func() Actions {
		s.read(cut(0, endOfTests), cut(1, endOfTests), finished(2), cut(3, endOfTests))
		return s.next()
	}()
	require.True(t, a.Finished)
	require.Len(t, said(a, "All shards have been read up to 2026-11-25T11:00:00Z: the input ends"), 1)
	require.Zero(t, s.unread())
}

func TestGroupDoesNotEndByAListThatMayLackShards(t *testing.T) {
	s := newStage(t, ending)
	child := shardOf(1, 0)
	s.list("foo", shardOf(0)) // which was closed since
	s.join()
	s.read(finished(0))
	require.False(t, s.next().Finished, "it is listed as open, and was read to its end")

	s.list("foo", closed(shardOf(0)), child)
	s.pass(time.Second)
	s.read(finished(0))
	require.Equal(t, ids(1), s.claims())
	s.exit(1, Exit{Outcome: Cut})
	require.True(t, s.next().Finished)

	t.Run("an item of one that is not listed", func(t *testing.T) {
		s := newStage(t, ending)
		s.list("foo", open(1)...)
		s.join()
		s.read(cut(0, endOfTests), cut(1, endOfTests))
		require.False(t, s.next().Finished)
		s.pass(time.Second)
		s.read(cut(0, endOfTests), cut(1, endOfTests))
		require.True(t, s.next().Finished, "it is of an earlier stream of the same name")
	})
}

func TestGroupDoesNotEndWhileAShardIsReadThatHasLeftTheStream(t *testing.T) {
	s := newStage(t, ending)
	s.list("foo", shardOf(1))
	s.join(anna)
	read := func(items ...lease.Item) bool {
		s.pass(time.Second)
		s.see(me, anna)
		s.read(items...)
		return s.next().Finished
	}
	require.False(t, read(owned(0, anna), cut(1, endOfTests)))
	require.True(t, read(owned(0, me), cut(1, endOfTests)), "it is not read here, and nobody can")
	require.True(t, read(finished(0), cut(1, endOfTests)))
}

func TestGroupGoesOnWithoutAnEnd(t *testing.T) {
	s := begin(t, 1)
	s.read(cut(0, endOfTests))
	require.Equal(t, ids(0), s.claims())
	require.False(t, s.next().Finished)
}

func TestShardThatWasCutHereIsNotClaimedAgainByWhatWasReadBefore(t *testing.T) {
	s := newStage(t, ending)
	s.list("foo", open(2)...)
	s.join()
	s.read()
	require.Equal(t, ids(0, 1), s.claims())
	began := s.now
	s.pass(time.Second)
	s.exit(0, Exit{Outcome: Cut, Since: s.now})
	require.Len(t, said(s.next(), "has been read up to the end"), 1)
	require.False(t, s.shard(key(0)).uncertain)
	s.readBetween("foo", began, s.now)
	require.Empty(t, s.claims())
	require.True(t, s.Settled(key(0)))
	require.Equal(t, 1, s.Held("foo"))

	s.exit(1, Exit{Outcome: Cut, Since: s.now})
	require.True(t, s.next().Finished)
}

func TestShardThatWasCutAndLeavesTheStreamIsNoLoss(t *testing.T) {
	s := newStage(t, ending)
	s.list("foo", closed(shardOf(0)), closed(shardOf(1, 0)), shardOf(2), shardOf(3, 1))
	s.join()
	s.read(cut(0, endOfTests), free(2))
	require.Equal(t, ids(2), s.claims())
	s.list("foo", shardOf(2), shardOf(3, 1))
	for range 4 {
		s.pass(time.Minute)
		s.see(me)
		s.read(cut(0, endOfTests), owned(2, me))
		a := s.next()
		require.Empty(t, a.Expired)
		require.Empty(t, said(a, "left the stream"))
		require.Nil(t, a.Clean)
		for _, c := range a.Claim {
			require.Equal(t, key(3), c.Key, "of which nobody can tell any more that it came out of one that was cut")
		}
	}
}

func TestExplicitShardsEndWithTheGroup(t *testing.T) {
	s := newStage(t, ending, shardsNamed("0", "2"))
	s.list("foo", closed(shardOf(0)), shardOf(1, 0), shardOf(2))
	s.join()
	s.read(cut(0, endOfTests))
	require.Equal(t, ids(2), s.claims())
	s.exit(2, Exit{Outcome: Cut})
	require.True(t, s.next().Finished)
}

func TestPositionsBeyondTheEndAreWarnedOf(t *testing.T) {
	const text = "Stream foo has been read beyond `end_at_timestamp` by others"
	for name, test := range map[string]struct {
		change func(*Config)
		upTo   time.Time     // by the clock of this process
		skew   time.Duration // by which that of the service is ahead
		cut    bool
		want   int
	}{
		"of a group that goes on":        {ending, endOfTests.Add(time.Hour), 0, false, 1},
		"before the end":                 {ending, endOfTests, 0, false, 0},
		"at the end by another clock":    {ending, endOfTests.Add(10 * time.Second), 0, false, 0},
		"of the group itself":            {ending, endOfTests.Add(time.Hour), 0, true, 0},
		"of one that begins now":         {func(c *Config) { c.EndAt, c.Begun = endOfTests, true }, endOfTests, 0, false, 1},
		"without an end":                 {func(*Config) {}, endOfTests.Add(time.Hour), 0, false, 0},
		"before the end by a fast clock": {ending, endOfTests.Add(time.Hour), -time.Hour, false, 0},
		"beyond the end by a slow clock": {ending, endOfTests, time.Hour, false, 1},
		"of which nothing is known":      {ending, time.Time{}, 1000 * time.Hour, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, test.change)
			s.list("foo", open(2)...)
			s.join()
			item, other := free(0), free(1)
			item.UpTo = test.upTo
			if test.cut {
				other.CutAt = endOfTests
			}
			read := func() {
				s.put(item, other)
				v := s.snapshot("foo", s.now, s.now)
				v.Skew = test.skew
				s.Apply(Snapshot{Stream: v}, s.now)
			}
			read()
			warned := 0
			for range 3 {
				warned += len(said(s.next(), text))
				s.pass(time.Second)
				read()
			}
			require.Equal(t, test.want, warned)
		})
	}
}

// Who goes on would claim such a shard again as soon as it is cut.
func TestShardsThatWereReadBeyondTheEndAreNotRequested(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*Config)
		upTo   time.Time
		skew   time.Duration
		want   int
	}{
		"read beyond the end":                  {ending, endOfTests.Add(time.Second), 0, 0},
		"read up to the end":                   {ending, endOfTests, 0, 2},
		"of which nothing is known":            {ending, time.Time{}, 0, 2},
		"read beyond the end, by a slow clock": {ending, endOfTests.Add(-time.Minute), time.Hour, 0},
		"read up to the end, by a fast clock":  {ending, endOfTests.Add(time.Minute), -time.Hour, 2},
		"for a group without an end":           {func(*Config) {}, endOfTests.Add(time.Hour), 0, 2},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, test.change)
			s.list("foo", open(4)...)
			s.join(anna)
			var requested map[string]int
			for range 12 {
				s.pass(time.Second)
				s.see(me, anna)
				s.put()
				for n := range 4 {
					item := owned(n, anna)
					item.UpTo = test.upTo
					s.rows[item.Key] = item
				}
				v := s.snapshot("foo", s.now, s.now)
				v.Skew = test.skew
				s.Apply(Snapshot{Stream: v}, s.now)
				requested = s.next().Report.Requests
			}
			require.Equal(t, test.want, requested[anna])
		})
	}
}
