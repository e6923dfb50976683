package retrieval

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestWhatWaitedForItsReaderIsNotTakenForFresh(t *testing.T) {
	var a ageing
	now := time.Now()
	read := func(away, wait time.Duration, bytes int) time.Duration {
		now = now.Add(away)
		begun := now
		now = now.Add(wait)
		return a.after(begun, now, bytes)
	}
	require.Zero(t, read(0, 5*time.Second, 300))
	require.Zero(t, read(time.Millisecond, 200*time.Millisecond, 300), "it came while it was awaited")
	require.Equal(t, 2*time.Minute, read(2*time.Minute, 0, 100<<10), "the output was slow: it may have been there all the time")
	require.Equal(t, 2*time.Minute+time.Second, read(time.Second, 0, 100<<10))
	require.Equal(t, 2*time.Minute+time.Second, read(0, 100*time.Millisecond, 100<<10), "on a long way the service, held up till now, needs as long")
	require.Zero(t, read(0, time.Second, 300), "nothing was on the way")
	require.Zero(t, read(30*time.Second, 60*time.Millisecond, 300), "nothing was held up, for little has come")
}

// push is a frame on its way from the service.
type push struct {
	gap   time.Duration // after the one before it was made
	bytes int
	away  time.Duration // of the reader, after it has read the frame
}

// ages returns how old each frame is when it is read and, if it is asked, how old it is at
// most by ageing. The service sends as soon as there is something and the window has room;
// the way there and back takes trip.
func ages(pushes []push, trip time.Duration, a *ageing) (ages, bounds []time.Duration) {
	type room struct {
		at    time.Time
		bytes int
	}
	made, now, window, freed := time.Unix(0, 0), time.Unix(0, 0), sentAhead, []room{}
	for _, p := range pushes {
		made = made.Add(p.gap)
		sent := made
		for window <= 0 && len(freed) > 0 {
			if freed[0].at.After(sent) {
				sent = freed[0].at
			}
			window, freed = window+freed[0].bytes, freed[1:]
		}
		window -= p.bytes
		begun := now
		if arrives := sent.Add(trip / 2); now.Before(arrives) {
			now = arrives
		}
		ages = append(ages, now.Sub(made))
		if a != nil {
			bounds = append(bounds, a.after(begun, now, p.bytes))
		}
		freed = append(freed, room{now.Add(trip / 2), p.bytes})
		now = now.Add(p.away)
	}
	return ages, bounds
}

// What a frame is older by because its reader was away is what is counted, but for a trip.
func TestAgeIsNotBelowTheTimeInWhichNobodyListened(t *testing.T) {
	milliseconds := func(most int) *rapid.Generator[time.Duration] {
		return rapid.Map(rapid.IntRange(0, most), func(n int) time.Duration { return time.Duration(n) * time.Millisecond })
	}
	rapid.Check(t, func(t *rapid.T) {
		trip := milliseconds(400).Draw(t, "there and back")
		pushes := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) push {
			return push{
				milliseconds(3000).Draw(t, "gap"), rapid.SampledFrom([]int{300, 20 << 10, 60 << 10}).Draw(t, "bytes"),
				rapid.SampledFrom([]time.Duration{0, 0, time.Millisecond, 30 * time.Millisecond, time.Second / 2, 5 * time.Second}).Draw(t, "away"),
			}
		}), 1, 100).Draw(t, "frames")
		late, bounds := ages(pushes, trip, &ageing{})
		for i := range pushes {
			pushes[i].away = 0
		}
		swift, _ := ages(pushes, trip, nil)
		for i := range pushes {
			require.GreaterOrEqual(t, bounds[i]+2*trip, late[i]-swift[i], "frame %d", i)
		}
	})
}

// A process that is stopped for a minute while it waits finds what has come meanwhile in its
// sockets: the first frame is as old as the stop may be, and so are those behind it.
func TestWhatCameWhileTheProcessWasStoppedIsNotTakenForFresh(t *testing.T) {
	var a ageing
	now := time.Now()
	require.Zero(t, a.after(now, now.Add(5*time.Second), 300))
	begun := now.Add(5 * time.Second)
	resumed := begun.Add(time.Minute)
	require.GreaterOrEqual(t, a.after(begun, resumed, 300), 50*time.Second, "an event comes each five seconds")
}
