package group

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/lineage"
)

// trimmed has a stream whose shards up to n have left it.
func trimmed(t *testing.T, n int) *stage {
	s := newStage(t)
	s.list("foo", shardOf(n))
	s.join()
	return s
}

func TestMarksOfShardsThatHaveLeftTheStreamAreRemoved(t *testing.T) {
	s := trimmed(t, 3)
	s.read(finished(0), literally(0, "", ""), finished(3), free(3), finished(9))
	c := s.next().Clean
	require.NotNil(t, c)
	require.Equal(t, []lease.Item{finished(0), literally(0, "", "")}, c.Finished)
	require.Empty(t, c.Expired)
	s.read(finished(0), free(3))
	require.Nil(t, s.next().Clean, "a round is under way")
	s.Cleaned(Cleaned{Done: c.Finished}, s.now)
	require.Nil(t, s.next().Clean)
}

func TestMarksOfShardsThatAreListedStay(t *testing.T) {
	s := newStage(t)
	s.list("foo", closed(shardOf(0)), shardOf(1, 0))
	s.join()
	s.read(finished(0))
	require.Nil(t, s.next().Clean)
}

func TestMarkThatIsThereStillIsRemovedAgain(t *testing.T) {
	s := trimmed(t, 3)
	s.read(finished(0), free(3))
	s.Cleaned(Cleaned{Done: s.next().Clean.Finished}, s.now)
	require.Nil(t, s.next().Clean)
	s.read(finished(0), free(3))
	require.NotNil(t, s.next().Clean)
}

func TestRoundOfChoresIsBounded(t *testing.T) {
	s := trimmed(t, 1000)
	var items []lease.Item
	for i := range 300 {
		items = append(items, finished(i))
	}
	s.read(items...)
	for range 150 {
		dead := "dead " + s.now.String()
		s.members[dead] = lease.Member{ID: dead, Token: lease.Evicted}
		s.pass(time.Nanosecond)
	}
	s.see(me)
	s.pass(lp)
	c := s.next().Clean
	require.Len(t, c.Finished, choresAtOnce)
	require.Len(t, c.Evicted, choresAtOnce)
	s.Cleaned(Cleaned{Done: c.Finished}, s.now)
	c = s.next().Clean
	require.Len(t, c.Finished, choresAtOnce, "the next")
	require.Len(t, c.Evicted, 50)
}

func TestRoundThatFailedIsTriedAgainLaterAndLater(t *testing.T) {
	s := trimmed(t, 3)
	s.read(finished(0), free(3))
	require.NotNil(t, s.next().Clean)
	for _, pause := range []time.Duration{20 * time.Second, 40 * time.Second, 80 * time.Second} {
		s.Cleaned(Cleaned{Err: errors.New("not allowed")}, s.now)
		a := s.next()
		require.Nil(t, a.Clean)
		until := s.now.Add(pause)
		for s.now.Before(until) {
			require.Nil(t, a.Clean)
			s.now = a.Wake
			a = s.next()
		}
		require.NotNil(t, a.Clean, pause)
		require.Equal(t, until, s.now)
	}
}

func TestChoresThatWereCutShortAreNoTrouble(t *testing.T) {
	s := trimmed(t, 3)
	s.read(finished(0), free(3))
	s.next()
	s.Cleaned(Cleaned{Err: context.Canceled}, s.now)
	require.Empty(t, s.next().Lines)
}

func TestEvictedMemberIsRemovedByWhoeverEvictedItWhenTheOthersHaveSeenIt(t *testing.T) {
	s := begin(t, 1, anna)
	s.pass(lp)
	s.see(me)
	require.Len(t, s.next().Evict, 1)
	s.Evicted(anna, nil, s.now)
	require.Nil(t, s.next().Clean)
	s.pass(s.showEvicted())
	c := s.next().Clean
	require.NotNil(t, c)
	require.Equal(t, []lease.Member{{ID: anna, Token: lease.Evicted}}, c.Evicted)
}

func TestEvictedMemberIsRemovedByOthersAfterALeasePeriod(t *testing.T) {
	s := begin(t, 1, anna)
	s.says(anna, func(m *lease.Member) { *m = lease.Member{ID: anna, Token: lease.Evicted} })
	s.see(me)
	s.pass(lp - time.Millisecond)
	s.see(me)
	s.read(free(0))
	require.Nil(t, s.next().Clean)
	s.pass(time.Millisecond)
	s.read(free(0))
	require.Equal(t, []lease.Member{s.members[anna]}, s.next().Clean.Evicted)
}

// A round tells nothing of members, and the list lags.
func TestEvictedMemberIsRemovedOnceUntilTheListIsRead(t *testing.T) {
	s := begin(t, 1, anna)
	s.pass(lp)
	s.see(me)
	s.next()
	s.Evicted(anna, nil, s.now)
	s.next()
	s.pass(s.showEvicted())
	require.NotNil(t, s.next().Clean)
	s.Cleaned(Cleaned{}, s.now)
	require.Nil(t, s.next().Clean)

	s.says(anna, func(m *lease.Member) { *m = lease.Member{ID: anna, Token: lease.Evicted} })
	s.see(me) // it is there still
	s.pass(lp)
	s.read(free(0))
	require.NotNil(t, s.next().Clean)
}

func TestItemsOfShardsThatLeftUnreadAreRemovedWhenTheListSaysSoAgain(t *testing.T) {
	s := trimmed(t, 3)
	s.read(free(0), owned(3, me))
	require.Nil(t, s.next().Clean)
	s.pass(20 * time.Second)
	a := s.next()
	require.Len(t, a.Refresh, 1)
	require.True(t, a.Refresh[0].Shards)
	s.read(free(0), owned(3, me))
	a = s.next()
	require.Equal(t, []lease.Item{free(0)}, a.Clean.Expired)
	require.Empty(t, a.Expired, "nothing is removed yet")

	s.Cleaned(Cleaned{Done: a.Clean.Expired, Expired: a.Clean.Expired}, s.now)
	a = s.next()
	require.Equal(t, map[string]int{"foo": 1}, a.Expired)
	require.Len(t, said(a, "has left the stream"), 1)
	require.Empty(t, s.next().Expired, "it is told once")
}

func TestItemOfAShardThatIsReadHasNotExpired(t *testing.T) {
	s := trimmed(t, 3)
	s.see(me, anna)
	for range 3 {
		s.see(me, anna)
		s.read(owned(0, anna), owned(3, me))
		require.Nil(t, s.next().Clean)
		s.pass(20 * time.Second)
	}
}

func TestItemThatChangedMeanwhileHasNotExpired(t *testing.T) {
	s := trimmed(t, 3)
	s.read(free(0), owned(3, me))
	s.next()
	s.pass(20 * time.Second)
	s.read(free(0), owned(3, me))
	c := s.next().Clean
	s.Cleaned(Cleaned{Done: c.Expired}, s.now) // not as it was seen
	require.Empty(t, s.next().Expired)
}

func TestShardThatLeftWithoutHavingBeenBegunIsToldOnce(t *testing.T) {
	s := newStage(t)
	s.list("foo", closed(shardOf(0)), shardOf(3))
	s.join()
	s.read(owned(3, me))
	s.list("foo", shardOf(3))
	s.read(owned(3, me))
	a := s.next()
	require.Equal(t, map[string]int{"foo": 1}, a.Expired)
	require.Len(t, said(a, "up to 1999, is lost"), 1)
	s.read(owned(3, me))
	require.Empty(t, s.next().Expired)
}

func TestFinishedShardThatLeavesIsNoLoss(t *testing.T) {
	s := newStage(t)
	s.list("foo", closed(shardOf(0)), shardOf(3, 0))
	s.join()
	s.read(free(3)) // as the built-in input leaves it: without an item of the parent
	s.list("foo", shardOf(3))
	s.read(free(3))
	require.Empty(t, s.next().Expired)
}

// What is removed cannot be brought back, so each of these reasons to keep an item counts.
func TestChoresLeaveAlone(t *testing.T) {
	t.Run("a literal item with an owner", func(t *testing.T) {
		s := trimmed(t, 3)
		s.read(finished(0), literally(0, "builtin", "t"), free(3))
		require.Equal(t, []lease.Item{finished(0)}, s.next().Clean.Finished)
	})
	t.Run("a mark of a shard that is claimed here", func(t *testing.T) {
		s := begin(t, 1)
		s.read()
		require.Len(t, s.next().Claim, 1)
		s.list("foo", shardOf(3))
		s.read(finished(0), free(3))
		require.Nil(t, s.next().Clean)
	})
	t.Run("unread shards that this input does not read", func(t *testing.T) {
		s := newStage(t, shardsNamed("3"))
		s.list("foo", shardOf(3))
		s.join()
		require.Empty(t, expiredIn(s, free(0), free(3)))
	})
	t.Run("unread shards while the list cannot be true", func(t *testing.T) {
		s := trimmed(t, 3)
		s.read(free(0), free(3))
		s.next()
		s.pass(rp)
		half := shardOf(3)
		half.FirstKey, half.LastKey = "0", "170141183460469231731687303715884105727"
		s.Apply(Snapshot{Stream: &StreamSnapshot{Stream: "foo", Listed: s.now, Shards: []lineage.Shard{half}, Err: errors.New("no items")}}, s.now)
		require.Nil(t, s.next().Clean)
		require.Equal(t, []lease.Item{free(0)}, expiredIn(s, free(0), free(3)))
	})
}

// expiredIn returns the items that are removed as expired after some lists.
func expiredIn(s *stage, items ...lease.Item) []lease.Item {
	for range 4 {
		s.read(items...)
		if c := s.next().Clean; c != nil {
			return c.Expired
		}
		s.pass(rp)
		s.see(me)
	}
	return nil
}
