package retrieval

import "time"

// The service's limits of SubscribeToShard; see its page in the Kinesis API reference.
const (
	// subscribeSpacing is the least time between two calls for one shard and consumer, of
	// which the service takes one a second. The rest is for ways that are not equally long.
	subscribeSpacing = 1050 * time.Millisecond
	// takeOverAfter is how long after a call that succeeded another one takes the
	// subscription over. Until then it is refused, also where the first was closed.
	takeOverAfter = 5 * time.Second
)

// resubscriber says when to subscribe to a shard next. It is pure: the time and
// randomness, in [0, 1), are arguments. It belongs to the slot of the shard, and outlives
// the sources.
type resubscriber struct {
	longest     time.Duration // between two attempts after failures, at least a second
	called      time.Time     // the last attempt
	opened      time.Time     // the last that succeeded
	failures    int           // in a row
	refused     time.Time     // when the first attempt was refused for another subscription; zero when the last was not
	takenOverAt time.Time     // when somebody else last took a subscription over
	brokenAt    time.Time     // when one that had brought something last failed
	next        time.Time
}

// call notes an attempt.
func (r *resubscriber) call(now time.Time) { r.called = now }

// open notes that a subscription was opened, as the service sees it: its answer has begun.
func (r *resubscriber) open(now time.Time) { r.opened, r.refused = now, time.Time{} }

// worked notes that a subscription has brought something.
func (r *resubscriber) worked() { r.failures = 0 }

// ended notes that a subscription has come to its end without a failure, as each does after
// five minutes, or that it is to be tried again at once.
func (r *resubscriber) ended(now time.Time) { r.next = r.allowed(now) }

// failed notes that an attempt or a subscription has failed.
func (r *resubscriber) failed(now time.Time, random float64) {
	r.failures++
	r.refused = time.Time{}
	r.next = r.allowed(now.Add(doubled(time.Second, r.failures, r.longest, random)))
}

// gone notes that the consumer was gone, for the first time in a row: it may be registered
// at once.
func (r *resubscriber) gone(now time.Time) {
	r.failures++
	r.ended(now)
}

// inUse notes that an attempt was refused for a subscription that somebody else has opened
// within the last five seconds.
func (r *resubscriber) inUse(now time.Time, random float64) {
	if r.refused.IsZero() {
		r.refused = now
	}
	// Each second, until the former owner's has been waited out. Who is refused for longer has
	// somebody against him that goes on, and asks more and more rarely.
	pause := max(subscribeSpacing, min(now.Sub(r.refused)/10, r.longest*9/10))
	r.next = r.allowed(r.called.Add(pause + time.Duration(random*float64(pause/10))))
}

// when is the moment of the next attempt. A source that was closed has not set next.
func (r *resubscriber) when() time.Time { return r.allowed(r.next) }

// againFor is how long it is remembered that somebody took a subscription over, or that it
// failed. The first happens once where a lease was lost, and again and again where two groups
// share a consumer; the second once where a connection ends, and again and again where
// something is wrong.
const againFor = 5 * time.Minute

// takenOver notes that somebody else has taken a subscription over, and reports whether that
// has happened before.
func (r *resubscriber) takenOver(now time.Time) (again bool) {
	again = !r.takenOverAt.IsZero() && now.Sub(r.takenOverAt) < againFor
	r.takenOverAt = now
	return again
}

// broke notes that a subscription has failed that had brought something, and reports
// whether that has happened before.
func (r *resubscriber) broke(now time.Time) (again bool) {
	again = !r.brokenAt.IsZero() && now.Sub(r.brokenAt) < againFor
	r.brokenAt = now
	return again
}

// allowed is the first moment from at on at which the service allows a call.
func (r *resubscriber) allowed(at time.Time) time.Time {
	for _, earliest := range []time.Time{r.called.Add(subscribeSpacing), r.opened.Add(takeOverAfter)} {
		if at.Before(earliest) {
			at = earliest
		}
	}
	return at
}

// doubled is the pause before the attempt that follows the nth failure in a row, n from 1:
// it doubles from first to longest, and is between half and all of that.
func doubled(first time.Duration, n int, longest time.Duration, random float64) time.Duration {
	pause := min(first<<min(n-1, 16), longest)
	return pause/2 + time.Duration(random*float64(pause/2))
}
