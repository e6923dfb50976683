package group

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
)

// refreshesIn returns how often the items of foo are read within d, where the shards
// cannot be listed if fails is set.
func refreshesIn(s *stage, d time.Duration, size int, fails bool, others ...string) (refreshes, lists int) {
	for end := s.now.Add(d); s.now.Before(end); s.pass(time.Second) {
		for _, r := range s.next().Refresh {
			refreshes++
			v := s.snapshot("foo", s.now, s.now)
			v.Size = size
			if r.Shards {
				lists++
				if fails {
					v.ListErr = errors.New("AccessDeniedException")
				} else {
					v.Listed, v.Shards, v.ServerTime = s.now, s.shards["foo"], s.now
				}
			}
			s.Apply(Snapshot{Stream: v}, s.now)
		}
		s.see(append(others, me)...)
	}
	return refreshes, lists
}

// What a group costs the table must not depend on whether shards can be listed.
func TestItemsAreNotReadMoreOftenBecauseShardsCannotBeListed(t *testing.T) {
	cost := map[bool]int{}
	for _, fails := range []bool{false, true} {
		var others []string
		for i := range 200 {
			others = append(others, "member "+id(i))
		}
		s := begin(t, 4, others...)
		s.read(s.held(4)...)
		refreshesIn(s, 10*time.Minute, 2<<20, false, others...)
		var lists int
		cost[fails], lists = refreshesIn(s, 30*time.Minute, 2<<20, fails, others...)
		t.Log(fails, cost[fails], lists)
	}
	require.LessOrEqual(t, cost[true], 2*cost[false], "readings with lists that fail, and %d without", cost[false])
}

// A list is taken in although a claim of another shard came to nothing meanwhile.
func TestListIsTakenInWhileClaimsFail(t *testing.T) {
	s := begin(t, 2)
	s.read()
	s.list("foo", open(3)...)
	for range 100 {
		for _, c := range s.next().Claim {
			if c.Key == key(0) { // each claim of this one fails
				start := s.now
				s.pass(500 * time.Millisecond)
				s.exit(0, Exit{Outcome: NotClaimed, Err: errors.New("no capacity")})
				s.pass(500 * time.Millisecond)
				s.readBetween("foo", start, s.now)
			} else {
				s.Claimed(c.Key, "term", c.Shard.FirstSequence, s.now)
			}
		}
		s.pass(time.Second)
		s.see(me)
	}
	require.Contains(t, s.stream("foo").shards, id(2))
}

// Who has lost its session to a copy of itself, which lives, leaves it its shards.
func TestTwinThatLivesKeepsItsShards(t *testing.T) {
	s := reading(t, 2)
	items := s.held(2)
	for i := range 2 {
		s.exit(i, Exit{Outcome: Lost, Err: lease.ErrEvicted})
	}
	s.SessionLost(s.now)
	s.Joined("me2", s.now)
	for range 10 {
		s.see(me, "me2") // the heartbeats of me go on
		s.pass(time.Second)
		s.readItems(items...)
	}
	for i := range 20 {
		require.Empty(t, s.next().Claim, "after %d s", i)
		s.pass(time.Second)
		s.see(me, "me2")
	}
}
