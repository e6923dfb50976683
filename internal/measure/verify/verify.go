// Package verify decides whether a run kept what the input promises: it is
// told which records were put on a stream and which came out, in the order of
// either, and reports what is missing, repeated or out of order. It is pure; a
// Ledger belongs to one goroutine.
package verify

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ID names one record of a stream.
type ID struct {
	Shard, Sequence string
	// Sub is the place of a user record in its aggregate, from 0; 0 for a record that is
	// none.
	Sub int
}

// Ledger holds what was put and what was seen. Its zero value is not ready for
// use: New makes it.
type Ledger struct {
	index   map[ID]int
	records []record
	byKey   map[string][]int // indexes of a key's records, in the order they were put
	in, out int
	seen    int // Invariant: 0 <= seen <= len(records)
	unknown int // seen, but not put so far
	phases  []Phase
	stored  map[string]string // checkpoints when the current phase began
}

type record struct {
	shard   string
	put     bool
	first   int  // when it was first seen, as SeeAt was told; 0: not seen
	excused bool // a stop excuses that it comes again, once
}

// Phase is the part of a run between two stops of a reading process.
type Phase struct {
	// Name of the stop that began the phase.
	Name string
	// Out counts sightings, Repeats those of records that were seen before.
	Out, Repeats int
	// Allowed is the most repeats that the stop excuses: the records that had
	// come out above the stored checkpoints when the phase began.
	Allowed int
	// Rewound counts sightings at or below the checkpoint that was stored when
	// the phase began. A reader that resumes at its checkpoints has none.
	Rewound int
	// Unexcused counts repeats of records that no stop so far excuses, or not as
	// often as they came.
	Unexcused int
}

// Report is the state of a Ledger in figures.
type Report struct {
	// In counts records put, Out sightings, repeats included.
	In, Out int
	// Missing counts records that were put and never seen.
	Missing int
	// Repeats counts sightings beyond a record's first.
	Repeats int
	// Unknown counts records that were seen and never put.
	Unknown int
	// Inversions counts records that were first seen before an earlier record
	// of their key.
	Inversions int
	// Phases of the run, in order; the first one begins with New.
	Phases []Phase
}

// New returns an empty ledger whose first phase has the given name.
func New(phase string) *Ledger {
	return &Ledger{
		index:  map[ID]int{},
		byKey:  map[string][]int{},
		phases: []Phase{{Name: phase}},
	}
}

// Put notes that a record of the key was put, after all records of the same
// key that were noted before. It may come after the record's first sighting:
// whoever puts a record learns its name no sooner than its readers.
func (l *Ledger) Put(key string, id ID) {
	i := l.at(id)
	l.in++
	if l.records[i].first > 0 {
		l.unknown--
	}
	l.records[i].put = true
	l.byKey[key] = append(l.byKey[key], i)
}

// See notes that a record came out, after all that were seen before, and reports whether
// it did for the first time.
func (l *Ledger) See(id ID) bool { return l.SeeAt(id, l.out+1) }

// SeeAt is See for a sighting that may have come before some that are noted already, as
// those of several processes may. at is above 0 and orders sightings; that of a record is
// the least that it has.
func (l *Ledger) SeeAt(id ID, at int) bool {
	i := l.at(id)
	p := &l.phases[len(l.phases)-1]
	l.out++
	p.Out++
	if stored := l.stored[id.Shard]; stored != "" && Compare(id.Sequence, stored) <= 0 {
		p.Rewound++
	}
	if r := &l.records[i]; r.first > 0 {
		p.Repeats++
		if !r.excused {
			p.Unexcused++
		}
		r.excused = false
		r.first = min(r.first, at)
		return false
	}
	l.seen++
	l.records[i].first = at
	if !l.records[i].put {
		l.unknown++
	}
	return true
}

// Begin starts the next phase. stored has the sequence number that the table
// holds for each shard now that the reading process is gone; shards without
// one may be left out.
func (l *Ledger) Begin(name string, stored map[string]string) {
	l.begin(name, stored, func(string) bool { return true })
}

// BeginWithout is Begin for one reading process of several. stored has the
// shards that it read, with an empty sequence number where the table holds
// none: what others read may not come again.
func (l *Ledger) BeginWithout(name string, stored map[string]string) {
	l.begin(name, stored, func(shard string) bool { _, read := stored[shard]; return read })
}

// Excuse lets a record come twice, as from a process that stood still while
// another took over, and prints what it had read before.
func (l *Ledger) Excuse(id ID) { l.records[l.at(id)].excused = true }

func (l *Ledger) begin(name string, stored map[string]string, stopped func(shard string) bool) {
	allowed := 0
	for id, i := range l.index {
		r := &l.records[i]
		if r.first == 0 || !stopped(id.Shard) {
			continue
		}
		r.excused = Compare(id.Sequence, stored[id.Shard]) > 0
		if r.excused {
			allowed++
		}
	}
	l.stored = stored
	l.phases = append(l.phases, Phase{Name: name, Allowed: allowed})
}

// Outstanding counts the records that were put and are not seen yet.
func (l *Ledger) Outstanding() int {
	return l.in - (l.seen - l.unknown)
}

// MissingIDs names the records that were put and are not seen yet, in the order
// of shards, sequence numbers and places in an aggregate.
func (l *Ledger) MissingIDs() []ID {
	var missing []ID
	for id, i := range l.index {
		if l.records[i].put && l.records[i].first == 0 {
			missing = append(missing, id)
		}
	}
	slices.SortFunc(missing, func(a, b ID) int {
		return cmp.Or(strings.Compare(a.Shard, b.Shard), Compare(a.Sequence, b.Sequence), cmp.Compare(a.Sub, b.Sub))
	})
	return missing
}

// SeenOf counts the records seen, each once, of which which is true.
func (l *Ledger) SeenOf(which func(ID) bool) int {
	n := 0
	for id, i := range l.index {
		if l.records[i].first > 0 && which(id) {
			n++
		}
	}
	return n
}

// InversionsAlong counts records that were first seen before an earlier record of their
// key in the same shard or in one that it descends from. That is what holds of a key
// whose records were put into shards that are read beside one another: by a producer, say,
// that has not noticed a split. ancestors has those of each shard, however far back; one
// without any may be left out.
func (l *Ledger) InversionsAlong(ancestors map[string][]string) int {
	inversions := 0
	for _, key := range l.byKey {
		latest := map[string]int{} // first sighting of the key's records so far, by shard
		for _, i := range key {
			r := l.records[i]
			if r.first == 0 {
				continue
			}
			before := latest[r.shard]
			for _, shard := range ancestors[r.shard] {
				before = max(before, latest[shard])
			}
			if r.first < before {
				inversions++
			}
			latest[r.shard] = max(latest[r.shard], r.first)
		}
	}
	return inversions
}

// In counts the records put.
func (l *Ledger) In() int { return l.in }

// Seen counts the records seen, each once.
func (l *Ledger) Seen() int { return l.seen }

// Report sums the ledger up.
func (l *Ledger) Report() Report {
	r := Report{
		In:      l.in,
		Out:     l.out,
		Missing: l.Outstanding(),
		Repeats: l.out - l.seen,
		Unknown: l.unknown,
		Phases:  append([]Phase(nil), l.phases...),
	}
	for _, key := range l.byKey {
		// In the order they were put: a record is out of order when one that
		// was put before it was first seen after it.
		latest := 0
		for _, i := range key {
			first := l.records[i].first
			if first == 0 {
				continue
			}
			if first < latest {
				r.Inversions++
			}
			latest = max(latest, first)
		}
	}
	return r
}

// Err says which promises the run broke; nil: none. Repeats that a stop
// excuses break none.
func (r Report) Err() error {
	var errs []error
	broken := func(n int, what string) {
		if n > 0 {
			errs = append(errs, fmt.Errorf("%d %s", n, what))
		}
	}
	broken(r.Missing, "records missing")
	broken(r.Unknown, "records came out that were never put")
	broken(r.Inversions, "records came out before an earlier record of their key")
	for _, p := range r.Phases {
		broken(p.Rewound, fmt.Sprintf("records came out again after the %s although a checkpoint covered them", p.Name))
		broken(p.Unexcused, fmt.Sprintf("repeats after the %s beyond what was unacknowledged or uncommitted", p.Name))
	}
	return errors.Join(errs...)
}

// Compare orders sequence numbers, decimal numbers without leading zeros. The
// empty one, which stands for none, comes first.
func Compare(a, b string) int {
	return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
}

// at returns the index of a record, which it makes when there is none yet.
func (l *Ledger) at(id ID) int {
	i, ok := l.index[id]
	if !ok {
		i = len(l.records)
		l.index[id] = i
		l.records = append(l.records, record{shard: id.Shard})
	}
	return i
}
