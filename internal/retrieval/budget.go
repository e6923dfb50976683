package retrieval

import (
	"context"
	"slices"
	"sync"
	"time"
)

const (
	// recordOverhead is what a record costs beside its bytes on its way through
	// the host: the message, its metadata and its place in batches. Estimated from
	// the size of these types, rounded up.
	recordOverhead = 1 << 10
	// heapFactor is how many bytes the heap takes for each byte that is held: as
	// much garbage again comes together until it is collected, at the default of
	// GOGC.
	heapFactor = 2
	// fullPage is what reading a page may take at worst by memoryOf: a record of 10 MiB, as
	// JSON with its payload in base64, and decoded beside it.
	fullPage = heapFactor * 28 << 20
	// leastRecord is what a record takes at least in an answer: its members, a sequence
	// number of 56 digits, and neither data nor key.
	leastRecord = 130
	// firstPage is set aside for the first record of a shard with a backlog: enough
	// for one of 1 MiB, the largest there is without special leave.
	firstPage = heapFactor * 5 << 19
	// usualPage is what a page of 1 MiB takes in records of 1 KB.
	usualPage = 7 << 20
	// livePage is set aside for a shard that had no backlog a moment ago.
	livePage = 512 << 10
)

// Cost is what a record counts for in a Budget, in bytes of the heap.
func Cost(r *Record) int64 {
	return heapFactor*int64(len(r.Data)+len(r.PartitionKey)+len(r.SequenceNumber)) + recordOverhead
}

// memoryOf is what the page of an answer of so many bytes, with so many records at most,
// may take of the heap until it is decoded: the answer, and beside it the records, of
// which there are as many bytes in CBOR, and three quarters of them in JSON. What they
// cost afterwards is less.
func memoryOf(answer int64, limit int32) int64 {
	return heapFactor*2*answer + min(int64(limit), answer/leastRecord+1)*recordOverhead
}

// Budget bounds the bytes that an input holds, from reading a page to the
// acknowledgement of its records, over all shards. Those that wait for some are
// served in their order, and each shard waits at most once, so that none starves.
// The input makes one; it is safe for concurrent use.
type Budget struct {
	limit int64

	mu sync.Mutex
	// free may be below zero: a page may turn out larger than was set aside for
	// it, and is here already.
	free    int64
	waiting []*waiter // first come, first served
	// since is when somebody began to wait, while there is somebody, and waited the time
	// for which there was before that.
	since  time.Time
	waited time.Duration
}

type waiter struct {
	bytes int64
	ready chan struct{}
}

// NewBudget returns a budget of so many bytes, which must be above zero.
func NewBudget(limit int64) *Budget { return &Budget{limit: limit, free: limit} }

// Held returns the bytes that are set aside or in use, which may be more than the
// limit by what pages turned out larger than expected.
func (b *Budget) Held() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.limit - b.free
}

// Overdrawn reports whether more than the limit is set aside or in use.
func (b *Budget) Overdrawn() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.free < 0
}

// Wanted reports whether somebody waits.
func (b *Budget) Wanted() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.waiting) > 0
}

// Waited returns the time for which somebody has waited up to now, since the budget was
// made. It grows as fast as the clock where somebody always waits, however many they are
// and in whatever turn they are served.
func (b *Budget) Waited() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.waiting) == 0 {
		return b.waited
	}
	return b.waited + time.Since(b.since)
}

// Reserve sets bytes aside, as soon as there are so many, or all of them if that
// is less, and returns how many. onWait is called once when it has to wait.
func (b *Budget) Reserve(ctx context.Context, bytes int64, onWait func()) (int64, error) {
	bytes = min(bytes, b.limit)
	b.mu.Lock()
	if len(b.waiting) == 0 && b.free >= bytes {
		b.free -= bytes
		b.mu.Unlock()
		return bytes, nil
	}
	w := &waiter{bytes: bytes, ready: make(chan struct{})}
	if len(b.waiting) == 0 {
		b.since = time.Now()
	}
	b.waiting = append(b.waiting, w)
	b.mu.Unlock()

	if onWait != nil {
		onWait()
	}
	select {
	case <-w.ready:
		return bytes, nil
	case <-ctx.Done():
		b.leave(w)
		return 0, ctx.Err()
	}
}

// TryReserve sets bytes aside if there are so many and nobody waits for some.
func (b *Budget) TryReserve(bytes int64) (ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.waiting) > 0 || b.free < bytes {
		return false
	}
	b.free -= bytes
	return true
}

// leave takes a waiter out, or gives back what it was served in the same moment.
func (b *Budget) leave(w *waiter) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if i := slices.Index(b.waiting, w); i >= 0 {
		b.dequeue(i)
		b.serve() // it may have held up smaller ones behind it
		return
	}
	b.free += w.bytes
	b.serve()
}

// Release gives bytes back, or takes more if negative, without waiting.
func (b *Budget) Release(bytes int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.free += bytes
	b.serve()
}

func (b *Budget) serve() {
	for len(b.waiting) > 0 && b.free >= b.waiting[0].bytes {
		b.free -= b.waiting[0].bytes
		close(b.waiting[0].ready)
		b.dequeue(0)
	}
}

// dequeue takes a waiter out that has been served or has left.
func (b *Budget) dequeue(i int) {
	b.waiting = slices.Delete(b.waiting, i, i+1)
	if len(b.waiting) == 0 {
		b.waited += time.Since(b.since)
	}
}
