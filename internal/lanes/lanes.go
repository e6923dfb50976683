// Package lanes has a lane for each key: the messages of one key go one after the
// other, each when the one before it is done with, and those of different keys go
// beside each other.
//
// The package is pure: no goroutine, no clock, no lock. Its caller guards it.
package lanes

import (
	"cmp"
	"container/heap"
	"slices"
)

// Queue has the messages that wait, and of each key the one that is under way. A key
// of which there is neither takes no memory.
//
// Of the messages that may go the one that came first is next, not the one whose key
// became free first: the oldest of all is what a checkpoint waits for, and with it
// all that a full window keeps from being read.
type Queue[K comparable, M any] struct {
	// Invariant: each lane has a message that waits or one that is under way.
	lanes map[K]*lane[M]
	// ready are the lanes whose next message may go: those of which none is under way.
	ready   ready[M]
	pushed  uint64 // messages, ever
	waiting int
}

// lane has the messages of one key.
type lane[M any] struct {
	waiting  []entry[M] // oldest first
	underWay M          // if busy
	busy     bool
}

type entry[M any] struct {
	arrival uint64 // 0 for the first message that was pushed, and so on
	message M
}

// ready is a heap of lanes, that of the oldest message first.
type ready[M any] []*lane[M]

func (r ready[M]) Len() int           { return len(r) }
func (r ready[M]) Less(i, j int) bool { return r[i].waiting[0].arrival < r[j].waiting[0].arrival }
func (r ready[M]) Swap(i, j int)      { r[i], r[j] = r[j], r[i] }
func (r *ready[M]) Push(l any)        { *r = append(*r, l.(*lane[M])) }
func (r *ready[M]) Pop() any {
	last := len(*r) - 1
	l := (*r)[last]
	(*r)[last] = nil
	*r = (*r)[:last]
	return l
}

// New returns an empty queue.
func New[K comparable, M any]() *Queue[K, M] { return &Queue[K, M]{lanes: map[K]*lane[M]{}} }

// Push adds a message behind all others of its key.
func (q *Queue[K, M]) Push(key K, message M) {
	l := q.lanes[key]
	if l == nil {
		l = &lane[M]{}
		q.lanes[key] = l
	}
	l.waiting = append(l.waiting, entry[M]{q.pushed, message})
	q.pushed++
	q.waiting++
	if len(l.waiting) == 1 && !l.busy {
		heap.Push(&q.ready, l)
	}
}

// Next takes the message that came first of those whose key has none under way, which
// is under way from now on; ok is false when there is none.
func (q *Queue[K, M]) Next() (message M, ok bool) {
	if len(q.ready) == 0 {
		return message, false
	}
	l := heap.Pop(&q.ready).(*lane[M])
	l.underWay, l.busy = l.waiting[0].message, true
	l.waiting[0] = entry[M]{}
	l.waiting = l.waiting[1:]
	q.waiting--
	return l.underWay, true
}

// Follow takes the message that is next behind the one of a key that is under way, to go
// with it: the two are done with at once. ok is false when none waits. It panics when
// none is under way.
func (q *Queue[K, M]) Follow(key K) (message M, ok bool) {
	l := q.lanes[key]
	if l == nil || !l.busy {
		panic("lanes: no message of the key is under way")
	}
	if len(l.waiting) == 0 {
		return message, false
	}
	l.underWay = l.waiting[0].message
	l.waiting[0] = entry[M]{}
	l.waiting = l.waiting[1:]
	q.waiting--
	return l.underWay, true
}

// Done notes that what was under way of a key is done with, so that the next message
// may go. It panics when none was: two of that key might go at once.
func (q *Queue[K, M]) Done(key K) {
	l := q.lanes[key]
	switch {
	case l == nil || !l.busy:
		panic("lanes: no message of the key is under way")
	case len(l.waiting) == 0:
		delete(q.lanes, key)
	default:
		var none M
		l.underWay, l.busy = none, false
		heap.Push(&q.ready, l)
	}
}

// UnderWay returns the message of a key that is under way, the last one of several; ok is
// false when none is.
func (q *Queue[K, M]) UnderWay(key K) (message M, ok bool) {
	l := q.lanes[key]
	if l == nil || !l.busy {
		return message, false
	}
	return l.underWay, true
}

// Followed reports whether a message of a key waits.
func (q *Queue[K, M]) Followed(key K) bool {
	l := q.lanes[key]
	return l != nil && len(l.waiting) > 0
}

// Waiting returns the number of messages that wait.
func (q *Queue[K, M]) Waiting() int { return q.waiting }

// Withdraw takes out all messages that wait, in the order in which they came. What is
// under way stays so.
func (q *Queue[K, M]) Withdraw() []M {
	entries := make([]entry[M], 0, q.waiting)
	for key, l := range q.lanes {
		entries = append(entries, l.waiting...)
		if l.waiting = nil; !l.busy {
			delete(q.lanes, key)
		}
	}
	q.ready, q.waiting = nil, 0
	slices.SortFunc(entries, func(a, b entry[M]) int { return cmp.Compare(a.arrival, b.arrival) })
	messages := make([]M, len(entries))
	for i, e := range entries {
		messages[i] = e.message
	}
	return messages
}
