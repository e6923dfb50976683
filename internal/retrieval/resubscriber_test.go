package retrieval

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// rule is that of the service, as its documentation has it: a call a second, and within
// five seconds of one that succeeded none that is not refused.
type rule struct{ called, opened time.Time }

func (r rule) allows(now time.Time) bool {
	return now.Sub(r.called) >= time.Second && now.Sub(r.opened) >= 5*time.Second
}

func TestSubscriberKeepsTheRuleOfTheService(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		longest := rapid.SampledFrom([]time.Duration{time.Second, 8 * time.Second, time.Minute}).Draw(t, "longest")
		own := resubscriber{longest: longest}
		random := rapid.Float64Range(0, 0.9999)
		took := rapid.OneOf(rapid.Int64Range(0, 3000), rapid.Int64Range(0, 400_000))
		var service rule
		now := time.Unix(1e9, 0)
		for range rapid.IntRange(1, 40).Draw(t, "attempts") {
			if at := own.when(); now.Before(at) {
				require.LessOrEqual(t, at.Sub(now), max(longest, 5*time.Second, 1100*time.Millisecond), "no pause is longer")
				now = at
			}
			require.True(t, service.allows(now), "%+v at %s", service, now)
			own.call(now)
			service.called = now
			now = now.Add(time.Duration(took.Draw(t, "answer")) * time.Millisecond)
			outcome := rapid.SampledFrom([]string{"ended", "broke", "failed", "in use", "closed", "passed over"}).Draw(t, "outcome")
			switch outcome {
			case "failed":
				own.failed(now, random.Draw(t, "random"))
			case "in use":
				own.inUse(now, random.Draw(t, "random"))
			case "passed over":
				own.ended(now)
			default:
				own.open(now)
				service.opened = now
				now = now.Add(time.Duration(took.Draw(t, "lasted")) * time.Millisecond)
				if rapid.Bool().Draw(t, "heard") {
					own.worked()
				}
				switch outcome {
				case "ended":
					own.ended(now)
				case "broke":
					own.failed(now, random.Draw(t, "random"))
				}
			}
		}
	})
}

func TestRefusalForAnotherSubscriptionIsRetriedEachSecond(t *testing.T) {
	r := resubscriber{longest: time.Minute}
	now := time.Unix(1e9, 0)
	for range 9 {
		r.call(now)
		r.inUse(now.Add(300*time.Millisecond), 0.5)
		require.Equal(t, subscribeSpacing+subscribeSpacing/20, r.when().Sub(now), "from call to call")
		now = r.when()
	}
	require.Equal(t, time.Unix(1e9, 0).Add(300*time.Millisecond), r.refused, "since the first")
	pause := time.Duration(0)
	for range 100 {
		r.call(now)
		r.inUse(now, 0)
		require.GreaterOrEqual(t, r.when().Sub(now), pause, "later it is asked more rarely")
		pause = r.when().Sub(now)
		now = r.when()
	}
	require.Equal(t, 54*time.Second, pause, "a tenth is left for chance")
}

func TestRefusalsBeforeAFailureDoNotCount(t *testing.T) {
	var r resubscriber
	r.inUse(time.Unix(1e9, 0), 0)
	r.failed(time.Unix(1e9+1, 0), 0)
	r.inUse(time.Unix(1e9+60, 0), 0)
	require.Equal(t, time.Unix(1e9+60, 0), r.refused)
}

func TestPausesDoubleUpToTheLongest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 1000).Draw(t, "n")
		longest := time.Duration(rapid.Int64Range(int64(time.Second), int64(time.Hour)).Draw(t, "longest"))
		want := time.Second
		for i := 1; i < n && want < longest; i++ {
			want *= 2
		}
		want = min(want, longest)
		got := doubled(time.Second, n, longest, rapid.Float64Range(0, 0.9999).Draw(t, "random"))
		require.GreaterOrEqual(t, got, want/2)
		require.LessOrEqual(t, got, want)
	})
}
