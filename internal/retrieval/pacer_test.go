package retrieval

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func TestIdleShardIsPolledLessAndLess(t *testing.T) {
	var p pacer
	now, last := epoch, time.Duration(0)
	p.afterPage(now, 1, 100, 0, 0)
	for now.Before(epoch.Add(time.Minute)) {
		pause := p.afterPage(now, 0, 0, 0, 0)
		require.GreaterOrEqual(t, pause, last)
		if now.Before(epoch.Add(liveFor)) {
			require.Equal(t, 250*time.Millisecond, pause)
		}
		last = pause
		now = now.Add(pause)
	}
	require.Equal(t, 2*time.Second, last)
	require.Equal(t, 250*time.Millisecond, p.afterPage(now, 1, 100, 0, 0), "a record makes it live at once")
}

func TestSilentShardsAreNotReadTogetherForEver(t *testing.T) {
	quiet := func(random float64) time.Duration {
		var p pacer
		for range 100 {
			p.afterPage(epoch, 0, 0, 0, random)
		}
		return p.afterPage(epoch, 0, 0, 0, random)
	}
	require.Equal(t, 1900*time.Millisecond, quiet(0.5), "and no less and less")
	var p pacer
	require.Equal(t, callSpacing, p.afterPage(epoch, 1, 100, time.Hour, 0.5), "a backlog is read at the limit")
	require.Equal(t, livePoll, p.afterPage(epoch, 1, 100, 0, 0.5))
}

func TestEmptyPageOfABacklogIsFollowedByTheNextAtOnce(t *testing.T) {
	var p pacer
	now := epoch
	for range 100 {
		pause := p.afterPage(now, 0, 0, time.Hour, 0)
		require.Equal(t, callSpacing, pause)
		now = now.Add(pause)
	}
}

func TestPaceStaysWithinBothLimitsOfAShard(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var p pacer
		now, calls, bytes := epoch, 0, 0
		for now.Before(epoch.Add(time.Minute)) {
			n := rapid.IntRange(0, 10<<20).Draw(t, "bytes")
			behind := time.Duration(rapid.IntRange(0, 1).Draw(t, "behind")) * time.Hour
			now = now.Add(p.afterPage(now, min(n, 1), n, behind, 0))
			calls++
			bytes += n
			seconds := now.Sub(epoch).Seconds()
			require.LessOrEqual(t, float64(calls), 5*seconds)
			require.LessOrEqual(t, float64(bytes), 2e6*seconds+1)
		}
	})
}

// However long a call takes to get to the service and back.
func TestNoMoreCallsComeToTheServiceWithinASecondThanItTakes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var p pacer
		now := epoch
		var counted []time.Time
		for range 100 {
			begin := now
			there := time.Duration(rapid.IntRange(0, 300).Draw(t, "milliseconds there")) * time.Millisecond
			back := time.Duration(rapid.IntRange(0, 300).Draw(t, "milliseconds back")) * time.Millisecond
			counted = append(counted, begin.Add(there))
			end := begin.Add(there + back)
			p.called(end)
			now = p.within(begin.Add(p.afterPage(begin, 1, 100, time.Hour, 0)))
			if now.Before(end) {
				now = end
			}
			if n := len(counted); n > callsASecond && counted[n-1].Sub(counted[n-1-callsASecond]) < time.Second {
				t.Fatalf("six calls within %s", counted[n-1].Sub(counted[n-1-callsASecond]))
			}
		}
	})
}

func TestCallsThatAreAnsweredAtOnceKeepTheirPace(t *testing.T) {
	var p pacer
	now := epoch
	for range 100 {
		p.called(now.Add(10 * time.Millisecond))
		next := now.Add(p.afterPage(now, 1, 100, time.Hour, 0))
		require.Equal(t, next, p.within(next))
		now = next
	}
}

func TestLeastTimeBetweenReadsIsKeptForBacklogAndTrickle(t *testing.T) {
	p := pacer{least: time.Second}
	require.Equal(t, time.Second, p.afterPage(epoch, 1, 100, time.Hour, 0))
	require.Equal(t, time.Second, p.afterPage(epoch, 1, 100, 0, 0))
	require.Equal(t, 2*time.Second, p.afterPage(epoch, 1, 4e6, time.Hour, 0), "the shard's own limit is longer")
}

func TestThrottlingBacksOffWithJitterUntilAPageArrives(t *testing.T) {
	var p pacer
	for _, mean := range []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 8 * time.Second} {
		again := p
		require.Equal(t, mean/2, again.afterThrottle(epoch, 0))
		require.Equal(t, mean, p.afterThrottle(epoch, 0.5))
	}
	p.afterPage(epoch, 1, 1, 0, 0)
	require.Equal(t, 500*time.Millisecond, p.afterThrottle(epoch, 0.5))
}

func TestThrottledReaderLeavesOthersAShareForAWhile(t *testing.T) {
	var p pacer
	require.Equal(t, time.Second, p.afterPage(epoch, 1, 2e6, time.Hour, 0))
	p.afterThrottle(epoch, 0.5)
	require.Equal(t, 2*time.Second, p.afterPage(epoch, 1, 2e6, time.Hour, 0), "half of the bytes")
	require.Equal(t, 2*callSpacing, p.afterPage(epoch, 1, 100, 0, 0), "half of the calls")
	p.afterThrottle(epoch, 0.5)
	require.Equal(t, 4*callSpacing, p.afterPage(epoch, 1, 100, 0, 0))
	for range 10 {
		p.afterThrottle(epoch, 0.5)
	}
	require.Equal(t, 8*callSpacing, p.afterPage(epoch, 1, 100, 0, 0), "but never nothing for itself")

	last := 8 * callSpacing
	for now := epoch; now.Before(epoch.Add(reclaimAfter)); {
		pause := p.afterPage(now, 1, 100, time.Hour, 0)
		require.LessOrEqual(t, pause, last)
		now, last = now.Add(pause), pause
	}
	require.Equal(t, callSpacing, last)
}
