package retrieval

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestPageSizeFollowsWhatTheLinkCarries(t *testing.T) {
	s := newPageSize()
	require.EqualValues(t, 1, s.limit(), "the first record tells how large they are")
	s.arrived(1, 1<<10, time.Millisecond)
	require.EqualValues(t, 32, s.limit(), "one record proves little")
	for _, want := range []int32{64, 128, 256, 512, 1024, 1024} {
		s.arrived(int(s.limit()), int(s.limit())<<10, time.Millisecond)
		require.Equal(t, want, s.limit())
	}
	s.arrived(10, 10<<10, time.Millisecond)
	require.EqualValues(t, 1024, s.limit(), "a shard without a backlog keeps what it had")
	s.arrived(1024, 1<<20, 50*time.Second)
	require.EqualValues(t, 102, s.limit(), "what comes in five seconds")
	s.arrived(102, 102<<10, 3*time.Second)
	require.EqualValues(t, 102, s.limit(), "well within time, and no reason for more")
	for _, want := range []int32{102, 51, 25, 12, 6, 4, 4, 4} { // the first may be a connection that died
		s.timedOut(s.limit())
		require.Equal(t, want, s.limit())
	}
}

func TestPageSizeGrowsBackStepByStep(t *testing.T) {
	quick := func(s *pageSize) { s.arrived(int(s.limit()), int(s.limit())<<10, time.Second) }
	s := pageSize{bytes: mostBytes, mean: 1 << 10}
	for _, hold := range []int{32, 64, 128, 256, 512, 1024, 1024} {
		s.timedOut(s.limit())
		for range hold {
			require.EqualValues(t, 512, s.limit())
			quick(&s)
		}
		quick(&s)
		require.EqualValues(t, 1024, s.limit(), "it is tried again, more and more rarely")
	}
	quick(&s) // one of that size has come
	for range 2 {
		s.timedOut(s.limit())
	}
	for range 32 {
		require.EqualValues(t, 512, s.limit())
		quick(&s)
	}
	quick(&s)
	require.EqualValues(t, 1024, s.limit())
}

func TestTimeOutsInARowHoldPagesBackOnce(t *testing.T) {
	s := pageSize{bytes: mostBytes, mean: 1 << 10}
	for range 20 {
		s.timedOut(s.limit())
	}
	for range firstHold {
		require.EqualValues(t, 4, s.limit())
		s.arrived(4, 4<<10, time.Second)
	}
	for want := int32(8); want <= 1024; want *= 2 {
		s.arrived(int(s.limit()), int(s.limit())<<10, time.Second)
		require.Equal(t, want, s.limit())
	}
}

// Connections die one by one, and every few pages where half of what stands between does.
func TestTimeOutsOfWhatCameBeforeLeaveThePageSize(t *testing.T) {
	s := pageSize{bytes: mostBytes, mean: 1 << 10}
	for range 100 {
		s.arrived(1000, 1000<<10, time.Second)
		s.timedOut(s.limit())
		require.EqualValues(t, 1024, s.limit())
	}
}

func TestTimeOutShrinksWhatWasAskedFor(t *testing.T) {
	s := pageSize{bytes: mostBytes, mean: 1 << 10}
	s.timedOut(60) // since there was no room for more
	require.EqualValues(t, 30, s.limit())
}

func TestFirstRecordThatCameSlowlyIsFollowedByFew(t *testing.T) {
	s := newPageSize()
	s.arrived(1, 1<<10, time.Second)
	require.EqualValues(t, 5, s.limit())
	s = newPageSize()
	s.arrived(1, 10<<10, time.Minute)
	require.EqualValues(t, 1, s.limit())
}

// The time of a small page is that of the way there, whatever it has.
func TestPagesOfAFewSmallRecordsDoNotShrink(t *testing.T) {
	s := newPageSize()
	s.arrived(1, 100, 3*time.Second)
	require.EqualValues(t, 40, s.limit(), "it waited for a connection, as did a thousand others")
	for range 10 {
		s.timedOut(s.limit())
		require.EqualValues(t, 40, s.limit())
	}
	s.arrived(40, 4000, time.Second)
	require.EqualValues(t, 81, s.limit(), "and nothing holds it back")
}

func TestLargeRecordsComeOneByOne(t *testing.T) {
	s := newPageSize()
	for range 10 {
		s.arrived(1, 10<<20, time.Second)
		require.EqualValues(t, 1, s.limit())
	}
}

func TestTimeOutsBeforeAnyRecordLeaveOne(t *testing.T) {
	s := newPageSize()
	for range 30 {
		s.timedOut(s.limit())
		require.EqualValues(t, 1, s.limit())
	}
	for range 8 {
		s.arrived(int(s.limit()), int(s.limit())*100, 0)
	}
	require.EqualValues(t, maxRecords, s.limit(), "and it finds back")
}

func TestPageHasNoMoreRecordsThanTheServiceGives(t *testing.T) {
	s := newPageSize()
	s.arrived(100, 0, 0)
	require.EqualValues(t, maxRecords, s.limit())
}

// Over a link of any rate pages come to take about as long as they should, and stay so.
func TestPagesOverASteadyLinkSettle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := rapid.Float64Range(500, 10e6).Draw(t, "bytes a second")
		size := rapid.IntRange(1, 1<<20).Draw(t, "bytes of a record")
		latency := time.Duration(rapid.IntRange(0, 500).Draw(t, "milliseconds")) * time.Millisecond
		outs := rapid.IntRange(0, 3).Draw(t, "attempts that time out at first")
		took := func(n int32) time.Duration {
			return latency + time.Duration(float64(n)*float64(size)/rate*float64(time.Second))
		}
		s := newPageSize()
		for range outs {
			s.timedOut(s.limit())
		}
		var last int32
		for i := range 300 {
			n := s.limit()
			if n < 1 || n > maxRecords {
				t.Fatalf("%d records", n)
			}
			if i >= 280 && n != last && last > 0 {
				t.Fatalf("page %d has %d records, the one before it %d", i, n, last)
			}
			if i >= 280 && n > 1 && int(n)*size > leastBytes && took(n) > longPage+time.Second {
				t.Fatalf("%d records take %s", n, took(n))
			}
			if i >= 280 && n < maxRecords && took(n) <= quickPage && float64(n+1)*float64(size) <= mostBytes {
				t.Fatalf("%d records take %s, and could be more", n, took(n))
			}
			if i >= 280 {
				last = n
			}
			s.arrived(int(n), int(n)*size, took(n))
		}
	})
}
