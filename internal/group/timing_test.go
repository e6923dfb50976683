package group

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
)

// crowd has n members, this one among them.
func crowd(t *testing.T, n int) *stage {
	s := begin(t, 1)
	for i := range n - 1 {
		id := fmt.Sprint("member ", i)
		s.members[id] = lease.Member{ID: id, Token: "t", Report: lease.Report{Streams: []string{"foo"}}}
	}
	s.see(me)
	return s
}

func TestLargeGroupReadsMoreRarely(t *testing.T) {
	for _, test := range []struct {
		members                 int
		often, list, read, dear time.Duration // read of 100 KB, dear of 1 MB
		gap                     time.Duration // of 1 MB
	}{
		{1, 250 * time.Millisecond, 1500 * time.Millisecond, rp, rp, 256 * time.Millisecond},
		{10, 250 * time.Millisecond, 1500 * time.Millisecond, rp, time.Second * 1280 / 35, 2560 * time.Millisecond},
		{100, 500 * time.Millisecond, 4500 * time.Millisecond, time.Second * 1250 / 35, 4 * lp, 25600 * time.Millisecond},
		{400, 2 * time.Second, 9 * time.Second, time.Second * 5000 / 35, 4 * lp, 102400 * time.Millisecond},
		{10000, 20 * time.Second, 20 * time.Second, 4 * lp, 4 * lp, 2 * lp},
	} {
		t.Run(fmt.Sprint(test.members), func(t *testing.T) {
			s := crowd(t, test.members)
			foo := s.streams[0]
			require.Equal(t, test.often, s.often())
			require.Equal(t, test.list, s.listMembersEvery())
			foo.size = 100_000
			require.InDelta(t, test.read, s.readEvery(foo, s.now), 1000)
			foo.size = 1 << 20
			require.InDelta(t, test.dear, s.readEvery(foo, s.now), 1000)
			require.InDelta(t, test.gap, s.gap(foo, s.now), 1000)
		})
	}
}

func TestItemsAreReadWhenAnotherMemberSaysThatItChangedThem(t *testing.T) {
	s := newStage(t, streamsNamed("foo", "bar"))
	s.list("foo", open(1)...)
	s.list("bar", open(1)...)
	s.join(anna)
	refreshed := func() (names []string) {
		for _, r := range s.next().Refresh {
			names = append(names, r.Stream)
			s.readBetween(r.Stream, s.now, s.now)
		}
		return names
	}
	refreshed()
	s.readBetween("foo", s.now, s.now)
	s.readBetween("bar", s.now, s.now)
	s.pass(time.Second)
	s.see(me, anna)
	require.Empty(t, refreshed(), "it lives, and that is all")

	s.says(anna, func(m *lease.Member) { m.Changes, m.Streams = 1, []string{"bar"} })
	s.see(me, anna)
	require.Equal(t, []string{"bar"}, refreshed())

	s.says(anna, func(m *lease.Member) { m.Changes, m.Streams = 2, nil })
	s.see(me, anna)
	require.Equal(t, []string{"foo", "bar"}, refreshed(), "shards that were named to it may be of any stream")

	s.says(me, func(m *lease.Member) { m.Changes = 7 })
	s.see(me, anna)
	require.Empty(t, refreshed(), "what we changed ourselves we know")
}

// A change calls for no more readings than the table can bear.
func TestReadingsThatChangesCallForAreSpread(t *testing.T) {
	s := begin(t, 1, anna)
	s.Group.conf.Random = func() float64 { return 0.5 }
	s.read()
	s.streams[0].size = 1 << 20
	s.streams[0].reads.began = s.now
	s.says(anna, func(m *lease.Member) { m.Changes = 1 })
	s.see(anna)
	gap := 512 * time.Millisecond
	require.Equal(t, gap, s.gap(s.streams[0], s.now))
	require.Equal(t, s.now.Add(gap+gap/2), s.streams[0].reads.due)
}

// One that is late is dead, or slow. If many are, it is the table.
func TestMembersAreListedTwiceAsOftenWhileAFewAreLate(t *testing.T) {
	every := 4500 * time.Millisecond
	for _, test := range []struct {
		late  int
		again time.Duration
	}{{0, every}, {1, every / 2}, {11, every / 2}, {12, every}, {99, every}} {
		t.Run(fmt.Sprint(test.late, " of a hundred"), func(t *testing.T) {
			s := crowd(t, 100)
			s.pass(every + time.Second + time.Millisecond)
			var beating []string
			for i := test.late; i < 99; i++ {
				beating = append(beating, fmt.Sprint("member ", i))
			}
			s.see(append(beating, me)...)
			require.Equal(t, test.again, s.listMembersAgain())
		})
	}
}

// Of many changes each would draw anew otherwise, the least would count, and all members
// would read at once.
func TestManyChangesCallForOneReadingAtATimeOfItsOwn(t *testing.T) {
	s := begin(t, 1, anna)
	drawn := []float64{0.75, 0.25, 0.125}
	s.Group.conf.Random = func() float64 {
		next := drawn[0]
		drawn = drawn[1:]
		return next
	}
	s.read()
	foo := s.streams[0]
	foo.size = 1 << 20
	gap := 512 * time.Millisecond
	changes := int64(0)
	due := func() time.Duration {
		foo.reads.began, foo.reads.due = s.now, s.now.Add(rp)
		for range 3 {
			changes++
			s.says(anna, func(m *lease.Member) { m.Changes = changes })
			s.see(anna)
		}
		return foo.reads.due.Sub(s.now)
	}
	require.Equal(t, gap+3*gap/4, due())
	foo.reads.begin(s.now, rp)
	require.Equal(t, gap+gap/4, due(), "the next reading has a time of its own")
	foo.reads.begin(s.now, rp)
	require.Equal(t, gap+gap/8, due())
}

// Shards that were handed over are read by nobody until their recipients have seen it, so
// these do not wait for the pace of all. There may be many of them too.
func TestMembersThatWaitForShardsReadMoreOften(t *testing.T) {
	s := reading(t, 4, anna)
	s.Group.conf.Random = func() float64 { return 0 }
	foo := s.streams[0]
	foo.size = 10 << 20
	idle := s.gap(foo, s.now)
	require.Equal(t, 5120*time.Millisecond, idle, "of two members")

	s.requests, s.requested = map[string]int{anna: 1}, s.now
	require.Equal(t, 512*time.Millisecond, s.gap(foo, s.now), "this one alone waits")
	s.says(anna, requesting(1))
	s.says(me, requesting(1))
	s.see(me, anna)
	require.Equal(t, 1024*time.Millisecond, s.gap(foo, s.now), "both wait")
	s.pass(s.conf.LeasePeriod)
	require.Equal(t, idle, s.gap(foo, s.now), "what did not come for so long will not come soon")
}

func TestUrgeHasAllStreamsReadSoon(t *testing.T) {
	s := begin(t, 1)
	s.read()
	s.next()
	s.read()
	s.Urge(s.now)
	s.pass(soon - time.Millisecond)
	require.Empty(t, s.next().Refresh)
	s.pass(time.Millisecond)
	require.Len(t, s.next().Refresh, 1)
}

func TestMembersAreListedOftenForOneThatAsks(t *testing.T) {
	s := reading(t, 4, anna)
	s.see(me, anna)
	s.next()
	s.see(me, anna)
	require.False(t, s.watching(s.now))
	s.says(anna, requesting(1))
	s.see(me, anna)
	require.True(t, s.watching(s.now))
	require.Equal(t, s.now.Add(250*time.Millisecond), s.next().Wake)
	s.pass(newcomer)
	require.False(t, s.watching(s.now), "it is dead, or slow")
}

func TestReadingsAreSpreadAtRandom(t *testing.T) {
	s := begin(t, 1)
	s.Group.conf.Random = func() float64 { return 0.5 }
	s.see(me)
	s.read()
	s.pass(rp)
	a := s.next()
	require.True(t, a.ReadMembers)
	require.Len(t, a.Refresh, 1)
	require.Equal(t, s.now.Add(rp-rp/20), s.streams[0].reads.due)
	require.Equal(t, s.now.Add(1425*time.Millisecond), s.Group.members.reads.due)
}
