// Package journal is the one limiter for everything that an operator reads in the log.
//
// A process reads many shards, and what goes wrong for one goes wrong for all of them,
// several times a second. The journal says once that a kind of fault began in a stream,
// sums it up once a minute, and says when it ended. Changes that come together, such as
// shards handed over, become one line with a count.
//
// The package reads no clock and starts nothing: each call brings its moment, and the
// owner of the journal calls Tick about once a second. All methods may be called by
// several goroutines at once.
//
// # States of a fault
//
//	          first Fail                 quiet for 3 s            a minute without Fail
//	(none) ───────────────▶ told ─────────────────────────▶ over ──────────────────────▶ (none)
//	   │                    ▲  ▲                            │  ▲
//	   │ of a fourth stream │  │ a minute later:            │  │ a minute later:
//	   ▼                    │  │ it lasts           Fail    ▼  │ it has passed
//	gathering ──────────────┘  └────────────────────────  again┘
//
// # What bounds the lines
//
// A fault has one line a minute beside its end, and after the end none for a minute.
// At most three streams have a fault of their own for each kind at a time. All further
// streams share one, which says how many they are.
//
// # Files
//
// fault.go has the fault and its states, changes.go the changes that are gathered, and
// words.go every sentence.
package journal

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Level is how much a line matters to an operator.
type Level int

// Info is for changes and for the end of a fault, Warning for what somebody should look
// at, and Error for what keeps records from being read or checkpointed.
const (
	Info Level = iota
	Warning
	Error
)

func (l Level) String() string {
	switch l {
	case Info:
		return "info"
	case Warning:
		return "warning"
	case Error:
		return "error"
	}
	return "unknown"
}

// Line is something to log: a text and structured fields.
type Line struct {
	Level         Level
	Text          string
	Stream, Shard string // empty where none or several are meant
}

// Kind is what a fault is about. words.go has the sentences of each.
type Kind int

// The kinds of faults.
const (
	Reads       Kind = iota + 1 // records cannot be read (GetRecords, GetShardIterator)
	Throttling                  // reads are throttled
	Lists                       // the shards of a stream cannot be listed
	TableReads                  // the table cannot be read
	TableWrites                 // leases or checkpoints cannot be written
	Claims                      // shards cannot be claimed
	Joining                     // the member's session cannot be had or kept
	Cleanup                     // items that nobody needs cannot be removed
	Processors                  // batch processors fail
	Stalled                     // nothing of a shard is acknowledged though something is in flight
	Rejections                  // the output rejects messages, which are skipped
	Drops                       // aggregated records are dropped
	Retention                   // the retention of a stream cannot be read
)

const kinds = Retention + 1 // the length of arrays by kind

// ownFaults is how many streams may have a fault of their own at a time, for each kind.
const ownFaults = 3

// Journal gathers what happens and emits it as few lines. New makes it. Its owner calls
// Tick while it is in use, and Flush at the end.
type Journal struct {
	emit func(Line)

	// failing is the number of places that fail now, by kind. It changes under mu, and
	// is read without it by those that have nothing to tell while it is 0.
	failing [kinds]atomic.Int64

	mu       sync.Mutex
	now      time.Time             // the newest moment that any call brought
	faults   []*fault              // in the order in which they began
	byStream map[faultKey]*fault   // each of faults, under each of its streams
	rest     [kinds]*fault         // those of faults that several streams share
	changes  map[changeKey]*change // gathered, and not said yet

	// Lines wait in queue and are emitted without mu by one goroutine at a time, that
	// for which emitting is set. So they keep their order however slow emit is.
	queue    []Line
	emitting bool
	drained  sync.Cond // emitting has become false
}

type faultKey struct {
	kind   Kind
	stream string
}

// New returns a journal without any fault. emit is called for each line, by one
// goroutine at a time and without a lock, from within Fail, Changed, Say, Tick and
// Flush. It may call the journal, except for Flush.
func New(emit func(Line)) *Journal {
	j := &Journal{emit: emit, byStream: map[faultKey]*fault{}, changes: map[changeKey]*change{}}
	j.drained.L = &j.mu
	return j
}

// Fail tells of one failure. Stream and shard may be empty, for the table as a whole.
// The first failure of a stream is said at once, further ones by Tick.
func (j *Journal) Fail(k Kind, stream, shard string, err error, now time.Time) {
	text := errorText(err)
	j.mu.Lock()
	now = j.advance(now)
	p := place{stream, shard}
	f := j.byStream[faultKey{k, stream}]
	if f != nil && f.forgettable(now) {
		j.forget(f)
		f = nil
	}
	if f == nil {
		f = j.begin(k, stream, now)
	}
	if f.fail(p, text, now) {
		j.failing[k].Add(1)
	}
	if f.state == gathering && !f.folded {
		j.queue = append(j.queue, f.told(startLine(f), now))
	}
	j.mu.Unlock()
	j.drain()
}

// Works tells that what a kind is about has succeeded, for the stream and shard with
// which Fail was called. It may be called after every read: while nothing of that kind
// fails, it is one atomic load.
func (j *Journal) Works(k Kind, stream, shard string, now time.Time) {
	j.resolve(k, place{stream, shard}, worked, now)
}

// Left tells that a shard is read here no more, since it was handed over, finished or
// lost. Faults of any kind do not wait for it any longer. A failure that is told after
// this opens its fault again, so the caller tells its last failure first.
func (j *Journal) Left(stream, shard string, now time.Time) {
	for k := Reads; k < kinds; k++ {
		j.resolve(k, place{stream, shard}, left, now)
	}
}

// resolve ends what fails at a place.
func (j *Journal) resolve(k Kind, p place, how outcome, now time.Time) {
	if j.failing[k].Load() == 0 {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	now = j.advance(now)
	if f := j.byStream[faultKey{k, p.stream}]; f != nil && f.resolve(p, how, now) {
		j.failing[k].Add(-1)
	}
}

// Changed gathers a change of a shard. one is the end of a sentence about one shard
// ("was handed over to client b, which asked for it"), many says the same of several
// ("were handed over to client b, which asked for them"). Changes of the same level,
// stream and many become one line, a second after the first of them.
func (j *Journal) Changed(level Level, stream, shard, one, many string, now time.Time) {
	j.mu.Lock()
	now = j.advance(now)
	key := changeKey{level, stream, many}
	c := j.changes[key]
	if c == nil {
		c = &change{changeKey: key, since: now, number: len(j.changes), shards: map[string]struct{}{}}
		j.changes[key] = c
	}
	c.one = one
	c.shards[shard] = struct{}{}
	j.mu.Unlock()
	j.drain()
}

// Say emits a line at once, such as that of a start, or of what happens once.
func (j *Journal) Say(l Line) {
	j.mu.Lock()
	j.queue = append(j.queue, l)
	j.mu.Unlock()
	j.drain()
}

// Tick emits what is due. The owner calls it about once a second: nothing but the first
// line of a fault is said without it.
func (j *Journal) Tick(now time.Time) {
	j.mu.Lock()
	now = j.advance(now)
	j.queue = append(j.queue, takeChanges(j.changes, now.Add(-gatherChanges))...)
	for _, f := range slices.Clone(j.faults) {
		if f.forgettable(now) {
			j.forget(f)
		} else if l, due := f.due(now); due {
			j.queue = append(j.queue, l)
		}
	}
	j.mu.Unlock()
	j.drain()
}

// Flush emits all that was gathered: changes, and for each fault that was not said to
// have ended how it stands. Then the journal is as if new. Flush returns when all lines
// have been emitted, those of other goroutines included, so it must not be called from
// within emit.
func (j *Journal) Flush(now time.Time) {
	j.mu.Lock()
	now = j.advance(now)
	j.queue = append(j.queue, takeChanges(j.changes, now)...)
	for _, f := range j.faults {
		if f.state != over {
			j.queue = append(j.queue, f.last(now))
		}
	}
	j.faults, j.rest = nil, [kinds]*fault{}
	clear(j.byStream)
	for k := range j.failing {
		j.failing[k].Store(0)
	}
	j.mu.Unlock()

	j.drain()
	j.mu.Lock()
	defer j.mu.Unlock()
	for j.emitting {
		j.drained.Wait()
	}
}

// begin returns the fault that a failure of a stream belongs to, which has none yet. It
// is a new one, or that which the streams beyond the first few share. The table as a
// whole always has its own.
func (j *Journal) begin(k Kind, stream string, now time.Time) *fault {
	own := 0
	for _, f := range j.faults {
		if f.kind == k && !f.folded && f.stream != "" {
			own++
		}
	}
	f := j.rest[k]
	if f != nil && f.forgettable(now) {
		j.forget(f)
		f = nil
	}
	switch {
	case stream == "" || own < ownFaults:
		f = newFault(k, stream, now)
		j.faults = append(j.faults, f)
	case f == nil:
		f = newFault(k, "", now)
		f.folded = true
		j.faults, j.rest[k] = append(j.faults, f), f
	}
	j.byStream[faultKey{k, stream}] = f
	return f
}

// forget drops a fault that is over.
func (j *Journal) forget(f *fault) {
	j.faults = slices.DeleteFunc(j.faults, func(o *fault) bool { return o == f })
	for key, o := range j.byStream {
		if o == f {
			delete(j.byStream, key)
		}
	}
	if j.rest[f.kind] == f {
		j.rest[f.kind] = nil
	}
}

// advance returns the moment of a call. Callers read the clock before they wait for mu,
// so their moments may come in another order: time does not go back for that.
func (j *Journal) advance(now time.Time) time.Time {
	if now.After(j.now) {
		j.now = now
	}
	return j.now
}

// drain emits the lines of the queue, unless another goroutine does so: that one emits
// those of this call too.
func (j *Journal) drain() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.emitting {
		return
	}
	j.emitting = true
	defer func() { // also where emit panics
		j.emitting = false
		j.drained.Broadcast()
	}()
	for len(j.queue) > 0 {
		lines := j.queue
		j.queue = nil
		j.emitAll(lines)
	}
}

// emitAll emits lines without mu, which its caller holds.
func (j *Journal) emitAll(lines []Line) {
	j.mu.Unlock()
	defer j.mu.Lock()
	for _, l := range lines {
		j.emit(l)
	}
}
