package group

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// unread has a shard that an owner has who is not in the group, and of whom nothing can
// be found out.
func unread(t *testing.T) *stage {
	s := newStage(t)
	s.list("foo", open(2)...)
	s.join(anna)
	s.read(owned(0, anna))
	a := s.next()
	if len(a.Claim) != 1 {
		t.Fatal(a.Claim)
	}
	return s
}

func TestShardThatNobodyReadsIsCountedAfterAWhile(t *testing.T) {
	s := unread(t) // the claim of shard 1 does not come to an end
	require.Zero(t, s.unread())
	s.pass(40 * time.Second)
	s.see(me, anna)
	s.read(owned(0, anna))
	s.next()
	require.Zero(t, s.unread())
	s.pass(time.Second)
	s.read(owned(0, anna))
	s.next()
	require.Equal(t, 1, s.unread())

	s.Claimed(key(1), "term", "1000", s.now)
	s.pass(tellEvery)
	s.next()
	require.Zero(t, s.unread())
}

func TestShardThatNobodyReadsForTwoLeasePeriodsIsWarnedOfOnce(t *testing.T) {
	s := unread(t)
	warned := 0
	for range 50 {
		s.pass(5 * time.Second)
		s.see(me, anna)
		s.read(owned(0, anna))
		n := len(said(s.next(), "Nobody has read shard shardId-000000000001 of stream foo for two lease periods, and 1 shards of it are unread"))
		if n > 0 {
			require.Positive(t, s.unread())
		}
		warned += n
	}
	require.Equal(t, 1, warned)
}

func TestShardWhoseParentIsReadIsNotUnread(t *testing.T) {
	s := newStage(t)
	s.list("foo", closed(shardOf(0)), shardOf(1, 0))
	s.join(anna)
	for range 10 {
		s.read(owned(0, anna))
		s.next()
		require.Zero(t, s.unread())
		s.pass(20 * time.Second)
		s.see(me, anna)
	}
}

func TestShardOfABuiltInInputIsNotUnread(t *testing.T) {
	s := begin(t, 1)
	for i := range 10 {
		s.read(foreign(0, "builtin", time.Duration(i).String()))
		s.next()
		require.Zero(t, s.unread())
		s.pass(20 * time.Second)
		s.see(me)
	}
}
