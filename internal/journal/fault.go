package journal

import "time"

const (
	// quiet is how long nothing must fail before a fault is said to have ended.
	quiet = 3 * time.Second
	// lineEvery is the least time between two lines of a fault that lasts, and that for
	// which a fault is remembered after its end.
	lineEvery = time.Minute
	// gatherStreams is how long the streams are gathered that share a fault, before the
	// first line about them.
	gatherStreams = 2 * time.Second
)

// state is what the log says of a fault.
type state int

const (
	gathering state = iota // nothing was said yet
	told                   // the newest line says that it lasts
	over                   // the newest line says that it ended, and nothing has failed since
	again                  // it failed after the line that says that it ended
)

func (s state) String() string {
	return [...]string{"gathering", "told", "over", "again"}[s]
}

// place is where something fails: a shard, a whole stream or, with neither, the table.
type place struct{ stream, shard string }

// outcome is what became last of a place that failed.
type outcome int

const (
	fails outcome = iota + 1
	worked
	left // it is read here no more
)

// fault is one kind of failure in one stream, or in all streams beyond the first few. The
// journal makes it at the first failure and forgets it a minute after its end. mu guards it.
type fault struct {
	kind   Kind
	stream string // empty for the table as a whole, and when folded
	folded bool   // several streams share it

	state  state
	began  time.Time // when the journal made it
	lineAt time.Time // when its newest line was made; zero while gathering

	// concerned are the places that have failed since the moment since, with what became
	// of them, and failing is how many of them fail now. When failing is 0, that is so
	// since calmAt.
	since     time.Time
	concerned map[place]outcome
	failing   int
	calmAt    time.Time

	// failures were counted at the places recent since the newest line.
	failures int
	recent   map[place]outcome // each with fails
	newest   string            // error
}

func newFault(k Kind, stream string, now time.Time) *fault {
	return &fault{
		kind: k, stream: stream, began: now, since: now,
		concerned: map[place]outcome{}, recent: map[place]outcome{},
	}
}

// fail takes a failure in, and reports whether the place did not fail before.
func (f *fault) fail(p place, text string, now time.Time) bool {
	if f.state == over || f.state == again && f.calm(now) {
		// It works in between, so what is to be said of its length begins here.
		f.state, f.since = again, now
		clear(f.concerned)
	}
	f.failures++
	f.recent[p] = fails
	f.newest = text
	if f.concerned[p] == fails {
		return false
	}
	f.concerned[p] = fails
	f.failing++
	return true
}

// resolve takes in that a place fails no more, and reports whether it did before.
func (f *fault) resolve(p place, how outcome, now time.Time) bool {
	if f.concerned[p] != fails {
		return false
	}
	f.concerned[p] = how
	f.failing--
	f.calmAt = now
	return true
}

// calm reports whether nothing fails, and has not for a while.
func (f *fault) calm(now time.Time) bool {
	return f.failing == 0 && now.Sub(f.calmAt) >= quiet
}

// forgettable reports whether it ended so long ago that a failure is a new fault.
func (f *fault) forgettable(now time.Time) bool {
	return f.state == over && now.Sub(f.lineAt) >= lineEvery
}

// due returns the line that is to be said now, if any.
func (f *fault) due(now time.Time) (Line, bool) {
	minute := now.Sub(f.lineAt) >= max(lineEvery, kindWords[f.kind].every)
	switch {
	case f.state == gathering && now.Sub(f.began) >= gatherStreams:
		return f.told(startLine(f), now), true
	case f.state == told && f.calm(now):
		return f.ended(endLine(f), now), true
	case f.state == again && minute && f.calm(now):
		return f.ended(passedLine(f), now), true
	case f.state == told && minute && f.failures == 0:
		return Line{}, false // its end is due within a moment, or nothing has been tried
	case (f.state == told || f.state == again) && minute:
		return f.told(lastsLine(f, now), now), true
	}
	return Line{}, false
}

// last returns the line that says how a fault stands when the journal ends. It is not over.
func (f *fault) last(now time.Time) Line {
	switch {
	case f.failing > 0:
		return f.told(standsLine(f, now), now)
	case f.state == told:
		return f.ended(endLine(f), now)
	default:
		return f.ended(passedLine(f), now)
	}
}

// told notes that a line says that the fault lasts.
func (f *fault) told(l Line, now time.Time) Line { return f.said(l, told, now) }

// ended notes that a line says that the fault has ended.
func (f *fault) ended(l Line, now time.Time) Line { return f.said(l, over, now) }

func (f *fault) said(l Line, s state, now time.Time) Line {
	f.state, f.lineAt, f.failures = s, now, 0
	clear(f.recent)
	return l
}
