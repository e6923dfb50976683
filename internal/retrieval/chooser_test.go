package retrieval

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// chosen drives a chooser through time, as a source does.
type chosen struct {
	chooser
	now     time.Time
	changes []time.Time
}

// soon is that of calls a second apart, and a second more until the way is chosen.
const soon = 31 * time.Second

func newChosen() *chosen { return &chosen{now: time.Unix(1e9, 0)} }

var (
	good      = Call{}
	behind    = Call{Behind: lateBy}
	unknown   = Call{Behind: -1}
	throttled = Call{Behind: -1, Err: ErrThrottled}
	broken    = Call{Behind: -1, Err: errors.New("no")}
)

// choose does what a source does between two attempts.
func (c *chosen) choose() Way {
	way, why := c.next(c.now)
	if way != c.way && (way == WayFanOut || c.way != "") {
		if why == "" {
			panic("a change without a reason")
		}
		c.change(way, c.now)
		c.changes = append(c.changes, c.now)
	}
	return way
}

// attempts has the same come of each attempt, one a second, for so long, and returns after
// what time the way changed; zero when it did not.
func (c *chosen) attempts(d time.Duration, call Call) time.Duration {
	start, before := c.now, len(c.changes)
	for c.now.Sub(start) < d {
		c.saw(call, c.now)
		c.now = c.now.Add(time.Second)
		if c.choose(); len(c.changes) > before {
			return c.now.Sub(start)
		}
	}
	return 0
}

func TestThrottledShardIsSubscribedAfterHalfAMinute(t *testing.T) {
	c := newChosen()
	require.Equal(t, WayPolling, c.choose())
	require.Equal(t, soon, c.attempts(time.Hour, throttled))
	require.Equal(t, WayFanOut, c.way)
}

func TestThrottlingThatPassesIsPolledThrough(t *testing.T) {
	c := newChosen()
	for range 100 {
		require.Zero(t, c.attempts(25*time.Second, throttled))
		require.Zero(t, c.attempts(21*time.Second, good))
	}
}

func TestThrottlingNowAndThenIsThrottling(t *testing.T) {
	c := newChosen()
	for range 3 {
		require.Zero(t, c.attempts(time.Second, throttled))
		require.Zero(t, c.attempts(10*time.Second, good))
	}
	require.Equal(t, WayPolling, c.choose())
	require.Zero(t, c.attempts(0, throttled))
	require.NotZero(t, c.attempts(2*time.Second, throttled))
}

func TestThrottledCallsFarApartAreNone(t *testing.T) {
	c := newChosen()
	for range 100 {
		require.Zero(t, c.attempts(time.Second, throttled))
		c.now = c.now.Add(35 * time.Second) // the output was slow, or all calls have failed
	}
}

func TestShardThatIsBehindForAMinuteIsSubscribed(t *testing.T) {
	c := newChosen()
	require.Zero(t, c.attempts(50*time.Second, behind))
	require.Zero(t, c.attempts(time.Second, good))
	require.Equal(t, time.Minute, c.attempts(time.Hour, behind))
}

func TestSlowOutputIsNoReasonToSubscribe(t *testing.T) {
	for name, slow := range map[string]func(c *chosen){
		"the budget is full":  func(c *chosen) { c.blocked(c.now) },
		"nobody takes a page": func(c *chosen) { c.answered(c.now.Add(-2 * time.Second)); c.asked(c.now) },
	} {
		c := newChosen()
		for range 100 {
			slow(c)
			require.Zero(t, c.attempts(30*time.Second, behind), name)
		}
		require.NotZero(t, c.attempts(time.Hour, behind), name)
	}
}

func TestFailuresOfAllCallsAreNoReasonToSubscribe(t *testing.T) {
	c := newChosen()
	require.Zero(t, c.attempts(time.Hour, broken))
	require.Zero(t, c.attempts(time.Hour, unknown))
}

func TestShardThatHasCaughtUpIsPolledAgain(t *testing.T) {
	c := newChosen()
	c.attempts(time.Hour, throttled)
	require.Zero(t, c.attempts(20*time.Minute, behind))
	require.Zero(t, c.attempts(9*time.Minute, good))
	require.Zero(t, c.attempts(time.Second, behind))
	require.Equal(t, 10*time.Minute+time.Second-time.Second, c.attempts(time.Hour, good))
	require.Equal(t, WayPolling, c.way)
}

func TestShardThatHasToBeSubscribedAgainStaysSoForTwiceAsLong(t *testing.T) {
	c := newChosen()
	for _, want := range []int{10, 20, 40, 80, 160, 320, 640, 720, 720} {
		require.Equal(t, soon, c.attempts(time.Hour, throttled))
		require.Equal(t, time.Duration(want)*time.Minute, c.attempts(24*time.Hour, good))
	}
	require.Zero(t, c.attempts(25*time.Hour, good))
	require.Equal(t, soon, c.attempts(time.Hour, throttled))
	require.Equal(t, 10*time.Minute, c.attempts(time.Hour, good), "that was long ago")
}

func TestSubscriptionThatFailsIsGivenUpForAWhile(t *testing.T) {
	c := newChosen()
	c.attempts(time.Hour, throttled)
	require.Zero(t, c.attempts(25*time.Second, broken))
	require.Zero(t, c.attempts(22*time.Second, good))
	require.Equal(t, 30*time.Second, c.attempts(time.Hour, broken))
	require.Equal(t, WayPolling, c.way)
	require.Equal(t, 5*time.Minute, c.attempts(time.Hour, throttled))
}

func TestShardWithoutAConsumerIsPolledForAWhile(t *testing.T) {
	c := newChosen()
	c.refused(c.now)
	require.Equal(t, 5*time.Minute, c.attempts(time.Hour, throttled))
}

// Whatever comes, a consumer that costs by the hour is not taken up and let go by the
// minute.
func TestWayNeverFlaps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newChosen()
		calls := rapid.SampledFrom([]Call{good, good, behind, unknown, throttled, broken})
		span := rapid.OneOf(rapid.IntRange(1, 60), rapid.IntRange(1, 1000))
		for range rapid.IntRange(1, 20).Draw(t, "spans") {
			if rapid.IntRange(0, 9).Draw(t, "blocked") == 0 {
				c.blocked(c.now)
			}
			if rapid.IntRange(0, 9).Draw(t, "away") == 0 {
				c.now = c.now.Add(time.Duration(span.Draw(t, "for")) * time.Second)
			}
			c.attempts(time.Duration(span.Draw(t, "seconds"))*time.Second, calls.Draw(t, "call"))
		}
		for i := 1; i < len(c.changes); i++ {
			require.GreaterOrEqual(t, c.changes[i].Sub(c.changes[i-1]), 30*time.Second)
		}
		for i := 2; i < len(c.changes); i += 2 { // each second one is to fan-out
			require.GreaterOrEqual(t, c.changes[i].Sub(c.changes[i-2]), 5*time.Minute, "there and back")
		}
	})
}

// By whichever way it is read, it is the output that is slow then.
func TestShardWhoseOutputIsSlowForLongIsPolled(t *testing.T) {
	c := newChosen()
	c.attempts(time.Hour, throttled)
	require.Equal(t, WayFanOut, c.way)
	for took := time.Duration(0); c.way == WayFanOut; took += time.Second {
		require.Less(t, took, 11*time.Minute)
		c.blocked(c.now)
		c.attempts(time.Second, behind)
	}
	require.GreaterOrEqual(t, c.changes[1].Sub(c.changes[0]), 10*time.Minute)
}
