// Package lag knows up to which moment a shard has been read and acknowledged.
//
// That moment is what tells an operator how late a shard is: everything that arrived in
// the stream before it is done with. The time that has passed since then is the shard's
// lag. It grows by the clock while nothing moves, whatever stands still: the reads, the
// processors, the output or the lease.
//
// The package is pure: no goroutine, no clock, no lock. Its caller guards it.
package lag

import (
	"iter"
	"slices"
	"sort"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/sequence"
)

// Tracker follows one shard under one lease. A consumer makes one, and tells it of the
// records of each page and of each acknowledgement. All times are of one clock.
type Tracker struct {
	// spans are what was read and is not acknowledged, oldest first. Records that arrived
	// within resolution of each other share one, so that a window of a thousand records is
	// a few of them.
	// Invariant: arrived and last grow from each to the next, arrived by resolution at least.
	spans []span
	// readTo is the moment up to which all that arrived has been read; zero while that is
	// not known.
	readTo time.Time
	// newest is the last record that was read, by whose sequence number one that is read
	// again is known.
	newest string
}

// span is records that follow one another.
type span struct {
	arrived time.Time // the first of them
	last    string    // sequence number of the last of them
}

// resolution is by how much Since may be too early.
const resolution = 100 * time.Millisecond

// New returns the tracker of a shard of which all that arrived before a moment is
// acknowledged, and which is read on after a sequence number. The moment is zero where
// nobody knows it.
func New(done time.Time, after string) *Tracker {
	return &Tracker{readTo: done, newest: after}
}

// Read notes the records of a page: the sequence number of each, which is higher than
// those before it, and when it arrived, which is zero where the service did not tell it.
// Those that were read before, and are read again because they had not been sent, change
// nothing.
func (t *Tracker) Read(page iter.Seq2[string, time.Time]) {
	fresh := false
	for sequenceNumber, arrived := range page {
		// What follows one that is new is new. Its number is not looked at: that of each
		// record is somewhere else in memory, and a page is more than the caches hold.
		if fresh = fresh || sequence.Compare(sequenceNumber, t.newest) > 0; fresh {
			t.add(sequenceNumber, arrived)
		}
	}
}

// add notes a record that is new.
func (t *Tracker) add(sequenceNumber string, arrived time.Time) {
	t.newest = sequenceNumber
	if arrived.IsZero() {
		arrived = t.readTo // what had not been read by then arrived later
	}
	// Records come in the order in which they arrived, up to some milliseconds.
	n := len(t.spans)
	for n > 0 && arrived.Sub(t.spans[n-1].arrived) < resolution {
		if !arrived.Before(t.spans[n-1].arrived) {
			t.spans = t.spans[:n]
			t.spans[n-1].last = sequenceNumber
			return
		}
		n--
	}
	t.spans = append(t.spans[:n], span{arrived, sequenceNumber})
}

// ReadTo notes that all records that arrived before a moment have been read.
func (t *Tracker) ReadTo(moment time.Time) {
	if moment.After(t.readTo) {
		t.readTo = moment
	}
}

// Acked notes that all records up to a sequence number are acknowledged.
func (t *Tracker) Acked(sequenceNumber string) {
	done := 0
	for done < len(t.spans) && sequence.Compare(t.spans[done].last, sequenceNumber) <= 0 {
		done++
	}
	if done == 0 {
		return
	}
	clear(t.spans[:done])
	t.spans = t.spans[done:]
}

// Passed notes that the records that come after one, up to another, are done with as soon as
// that first one is: nothing of them is delivered. They need no span of their own, of which
// there would be as many as there is time behind a record that is not acknowledged.
func (t *Tracker) Passed(after, to string) {
	with := sort.Search(len(t.spans), func(i int) bool { return sequence.Compare(t.spans[i].last, after) >= 0 })
	beyond := sort.Search(len(t.spans), func(i int) bool { return sequence.Compare(t.spans[i].last, to) > 0 })
	if beyond > with+1 {
		t.spans[with].last = t.spans[beyond-1].last
		t.spans = slices.Delete(t.spans, with+1, beyond)
	}
}

// Since returns the moment before which everything that arrived in the shard is
// acknowledged; zero while that is not known. It may be early by resolution.
func (t *Tracker) Since() time.Time {
	if len(t.spans) > 0 {
		return t.spans[0].arrived
	}
	return t.readTo
}

// Oldest returns when the oldest record arrived that was read and is not acknowledged;
// zero when there is none, or when nobody told.
func (t *Tracker) Oldest() time.Time {
	if len(t.spans) == 0 {
		return time.Time{}
	}
	return t.spans[0].arrived
}
