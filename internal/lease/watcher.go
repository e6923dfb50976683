package lease

import "time"

// Watcher finds the leases whose owners have died, by watching their tokens on
// this process's monotonic clock. A process that has just begun must watch
// first, whatever the items claim about times. The balancer makes one and is the
// only one to use it.
type Watcher struct {
	// period is the least time for which a token must stand still. An owner
	// with a longer one has written it beside its lease.
	period time.Duration
	seen   map[Key]sighting
}

// sighting is an owned item that has not changed between two looks.
type sighting struct {
	link Link
	last time.Time // start of the look that saw it last
	due  time.Time // end of the look that saw it first, and the period
	// moved is whether its owner has been seen to renew it.
	moved bool
}

// NewWatcher returns a watcher that has seen nothing yet.
func NewWatcher(period time.Duration) *Watcher {
	return &Watcher{period: period, seen: map[Key]sighting{}}
}

// Observe takes in all items of a stream as they were read between start and
// end. The bounds matter: an item has stood still at least from the end of one
// look to the start of another.
func (w *Watcher) Observe(stream string, items []Item, start, end time.Time) {
	before := w.seen
	w.seen = make(map[Key]sighting, len(before))
	for key, s := range before {
		if key.Stream != stream {
			w.seen[key] = s
		}
	}
	for _, item := range items {
		if item.Owner == "" {
			continue
		}
		s, known := before[item.Key]
		if !known || s.link != item.Link() {
			s = sighting{
				link: item.Link(), due: end.Add(w.Patience(item)),
				moved: known && s.link.Owner == item.Owner && s.link.Token != item.Token,
			}
		}
		s.last = start
		w.seen[item.Key] = s
	}
}

// foreignPatience is for owners that write no term, which is the built-in input:
// it renews by committing alone, waits for more than a period after it has taken a
// shard, and itself counts a lease as dead after three.
const foreignPatience = 3

// Patience is how long an item must stand still for its owner to be dead.
func (w *Watcher) Patience(item Item) time.Duration {
	if item.foreign() {
		return foreignPatience * w.period
	}
	return max(w.period, item.Period)
}

// Dead reports whether the owner of an item has not renewed it for its period.
// The item is one of the last look.
func (w *Watcher) Dead(item Item) bool {
	s, ok := w.seen[item.Key]
	return ok && s.link == item.Link() && !s.last.Before(s.due)
}

// Alive reports whether the owner of an item was seen to renew it, and is not dead
// since.
func (w *Watcher) Alive(item Item) bool {
	s, ok := w.seen[item.Key]
	return ok && s.link == item.Link() && s.moved && !w.Dead(item)
}

// NextDue returns the first time after now at which a look may find a lease
// dead, unless its owner renews it; false when there is none. Leases of self are
// left out.
func (w *Watcher) NextDue(now time.Time, self string) (time.Time, bool) {
	var next time.Time
	for _, s := range w.seen {
		if s.link.Owner != self && s.due.After(now) && (next.IsZero() || s.due.Before(next)) {
			next = s.due
		}
	}
	return next, !next.IsZero()
}
