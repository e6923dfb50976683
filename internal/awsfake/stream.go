package awsfake

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Quotas of Kinesis as of 2026, from "Quotas and limits" of its developer guide
// and from the pages of the operations.
const (
	maxPageRecords    = 10_000
	maxPageBytes      = 10 << 20
	maxRecordBytes    = 10 << 20
	maxPutBytes       = 10 << 20
	maxPutRecords     = 500
	maxPartitionKey   = 256 // characters
	pageBytesPenalty  = 5 * time.Second
	readsPerSecond    = 5
	readBytesSecond   = 2 << 20
	iteratorsSecond   = 5
	writesPerSecond   = 1_000
	writeBytesSecond  = 1 << 20
	listShardsSecond  = 1_000
	describesSecond   = 10
	summariesSecond   = 20
	listStreamsSecond = 5
)

// stream is one life of a stream: created again under its name, it is another.
//
// Lock order: kinesisService.mu, kinesisService.consumersMu, stream.mu, shard.mu.
type stream struct {
	name, arn string
	life      uint64
	onDemand  bool
	auto      bool // AUTO distribution: a partition key is optional
	created   time.Time
	counter   atomic.Uint64 // the last sequence count taken
	turn      atomic.Uint64 // whose turn it is among open shards, for records without a key

	mu      sync.RWMutex
	settles time.Time // CREATING or UPDATING before
	shards  []*shard  // by index; those that were trimmed away have left
	open    []*shard  // by hash range. Invariant: they partition the key space
	nextID  int
	lists   window

	consumers consumers // guarded by kinesisService.consumersMu
}

// shard is made by stream.grow, closed once by shut, and leaves its
// stream when all its records were trimmed.
type shard struct {
	index            int
	parent, adjacent string // ids, empty for none
	start, end       hashKey
	startCount       uint64
	created          time.Time

	mu       sync.Mutex
	endCount uint64 // 0 while open
	closed   time.Time
	children []*shard
	first    int64 // position of records[0]
	records  []record
	chunk    *chunk          // where the next record goes
	watchers []chan struct{} // wake those who read by subscription; each has room for one
	// Quotas, counted with EnforceLimits.
	reads, iterators    window
	readBytes           bucket
	blocked             time.Time
	writes, writtenSize bucket
}

// record is a stored record: its JSON stands in a chunk, complete with data in
// base64, so that a page is a few slices of chunks.
type record struct {
	chunk      *chunk
	start, end int // of the object in the chunk, without the comma before it
	count      uint64
	millis     int64 // arrival since 1970
	size       int   // bytes of data and partition key, as quotas count
}

// chunk holds the JSON of successive records, each with a comma before it.
// Bytes are appended within its capacity and never change, so pages alias it
// without a lock.
type chunk struct {
	json []byte
	cbor cborChunk // the same records, as far as somebody asked for them so
}

const (
	minChunk = 4 << 10
	maxChunk = 1 << 20
)

func (sh *shard) id() string { return shardID(sh.index) }

// isOpen needs sh.mu or st.mu, at least for reading.
func (sh *shard) isOpen() bool { return sh.endCount == 0 }

func newStream(name, arn string, life uint64, shards int, now time.Time) *stream {
	st := &stream{name: name, arn: arn, life: life, created: now}
	starts := evenly(shards)
	for i, start := range starts {
		end := maxHashKey
		if i+1 < shards {
			end = starts[i+1].prev()
		}
		st.open = append(st.open, st.grow(start, end, now))
	}
	return st
}

// grow needs st.mu, except while st is made.
func (st *stream) grow(start, end hashKey, now time.Time) *shard {
	sh := &shard{index: st.nextID, start: start, end: end, created: now, startCount: st.counter.Add(1)}
	st.nextID++
	st.shards = append(st.shards, sh)
	return sh
}

// shut closes a shard in one step, so that no reader finds it closed but
// without its children. last was counted before the children took their first
// sequence numbers; needs st.mu.
func (sh *shard) shut(last uint64, now time.Time, children ...*shard) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.endCount, sh.closed, sh.children = last, now, children
	sh.changed()
}

func (st *stream) status(now time.Time) string {
	st.mu.RLock()
	defer st.mu.RUnlock()
	switch {
	case !now.Before(st.settles):
		return "ACTIVE"
	case len(st.shards) == st.nextID && !slices.ContainsFunc(st.shards, func(sh *shard) bool { return !sh.isOpen() }):
		return "CREATING"
	}
	return "UPDATING"
}

// find returns the shard with an id, unless it never was or has left.
func (st *stream) find(id string) (*shard, error) {
	st.mu.RLock()
	defer st.mu.RUnlock()
	return st.findLocked(id)
}

func (st *stream) findLocked(id string) (*shard, error) {
	if index, ok := shardIndex(id); ok {
		if i, ok := slices.BinarySearchFunc(st.shards, index, byIndex); ok {
			return st.shards[i], nil
		}
	}
	return nil, refuse(CodeResourceNotFound, "Shard %s in stream %s under account %s does not exist", id, st.name, accountID)
}

func byIndex(sh *shard, index int) int { return cmp.Compare(sh.index, index) }

// owner is the open shard whose range has h; needs st.mu, at least for reading.
func (st *stream) owner(h hashKey) *shard {
	i, found := slices.BinarySearchFunc(st.open, h, func(sh *shard, h hashKey) int { return sh.start.compare(h) })
	if !found {
		i--
	}
	return st.open[i]
}

// split closes a shard for two children, the second of which starts at at.
func (st *stream) split(id string, at hashKey, now time.Time, delay time.Duration) (low, high *shard, err error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	i, err := st.openAt(id, now)
	if err != nil {
		return nil, nil, err
	}
	sh := st.open[i]
	if at.compare(sh.start) <= 0 || at.compare(sh.end) > 0 {
		return nil, nil, refuse(CodeInvalidArgument,
			"NewStartingHashKey %s used in SplitShard() on shard %s in stream %s under account %s is not both greater than one plus the shard's StartingHashKey %s and less than the shard's EndingHashKey %s",
			at, id, st.name, accountID, sh.start, sh.end)
	}
	last := st.counter.Add(1)
	low, high = st.grow(sh.start, at.prev(), now), st.grow(at, sh.end, now)
	low.parent, high.parent = id, id
	sh.shut(last, now, low, high)
	st.open = slices.Replace(st.open, i, i+1, low, high)
	st.settles = now.Add(delay)
	return low, high, nil
}

// merge closes two neighbours for one child.
func (st *stream) merge(id, adjacent string, now time.Time, delay time.Duration) (*shard, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	i, err := st.openAt(id, now)
	if err != nil {
		return nil, err
	}
	j, err := st.openAt(adjacent, now)
	if err != nil {
		return nil, err
	}
	if i-j != 1 && j-i != 1 {
		return nil, refuse(CodeInvalidArgument, "Shards %s and %s in stream %s under account %s are not an adjacent pair of shards eligible for merging",
			id, adjacent, st.name, accountID)
	}
	one, two := st.open[i], st.open[j]
	low := min(i, j)
	last := st.counter.Add(1)
	child := st.grow(st.open[low].start, st.open[low+1].end, now)
	child.parent, child.adjacent = id, adjacent
	one.shut(last, now, child)
	two.shut(last, now, child)
	st.open = slices.Replace(st.open, low, low+2, child)
	st.settles = now.Add(delay)
	return child, nil
}

// openAt is the place of a shard in st.open, for a change of the stream; needs
// st.mu.
func (st *stream) openAt(id string, now time.Time) (int, error) {
	if now.Before(st.settles) {
		return 0, refuse(CodeResourceInUse, "Stream %s under account %s not ACTIVE", st.name, accountID)
	}
	sh, err := st.findLocked(id)
	if err != nil {
		return 0, err
	}
	i := slices.Index(st.open, sh)
	if i < 0 {
		return 0, refuse(CodeInvalidArgument, "Shard %s in stream %s under account %s is not open", id, st.name, accountID)
	}
	return i, nil
}

// entry is a record on its way in.
type entry struct {
	key    string
	hasKey bool
	hash   hashKey
	into   *shard // the shard it must go to, whatever its hash; nil for any
	data   []byte
}

func (e entry) size() int { return len(e.key) + len(e.data) }

// put appends a record to the shard that its hash belongs to, or to the next
// one in turn when it has no key.
func (st *stream) put(e entry, now time.Time, limited bool) (*shard, uint64, error) {
	st.mu.RLock()
	defer st.mu.RUnlock()
	sh := e.into
	switch {
	case sh != nil && !sh.isOpen():
		return nil, 0, refuse(CodeInvalidArgument, "Shard %s in stream %s under account %s is not open", sh.id(), st.name, accountID)
	case sh == nil && e.hasKey:
		sh = st.owner(e.hash)
	case sh == nil:
		sh = st.open[(st.turn.Add(1)-1)%uint64(len(st.open))]
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if limited && !sh.allowWrite(now, e.size()) {
		return nil, 0, refuse(CodeThroughputExceeded, "Rate exceeded for shard %s in stream %s under account %s.", sh.id(), st.name, accountID)
	}
	count := st.counter.Add(1)
	sh.append(st.life, count, e, now.UnixMilli())
	return sh, count, nil
}

func (sh *shard) allowWrite(now time.Time, size int) bool {
	if sh.writes.refill(now, writesPerSecond) < 1 || sh.writtenSize.refill(now, writeBytesSecond) <= 0 {
		return false
	}
	sh.writes.take(1)
	sh.writtenSize.take(size)
	return true
}

// append encodes a record behind the others; needs sh.mu.
func (sh *shard) append(life, count uint64, e entry, millis int64) {
	// Besides data and key, an object takes about 170 bytes; a key that needs
	// escapes takes up to six for each of its own.
	most := base64.StdEncoding.EncodedLen(len(e.data)) + 6*len(e.key) + 256
	if sh.chunk == nil || cap(sh.chunk.json)-len(sh.chunk.json) < most {
		size := minChunk
		if sh.chunk != nil {
			size = min(2*cap(sh.chunk.json), maxChunk)
		}
		sh.chunk = &chunk{json: make([]byte, 0, max(size, most))}
	}
	b := sh.chunk.json
	b = append(b, `,{"Data":"`...)
	b = base64.StdEncoding.AppendEncode(b, e.data)
	b = append(b, '"')
	if e.hasKey {
		b = append(b, `,"PartitionKey":`...)
		b = appendString(b, e.key)
	}
	b = append(b, `,"ApproximateArrivalTimestamp":`...)
	b = appendEpoch(b, millis)
	b = append(b, `,"SequenceNumber":"`...)
	b = appendSequence(b, life, count, sh.index)
	b = append(b, `"}`...)
	start := len(sh.chunk.json) + 1
	sh.chunk.json = b
	sh.records = append(sh.records, record{sh.chunk, start, len(b), count, millis, e.size()})
	sh.changed()
}

// appendString appends a JSON string.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
			quoted, err := json.Marshal(s)
			if err != nil {
				panic(err) // a string always has an encoding
			}
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// page is a part of a shard's records.
type page struct {
	parts  [][]byte // records in order: in JSON with commas between, in CBOR without
	count  int      // of records
	next   int64    // position behind it
	behind int64    // milliseconds from the first record behind it to now
	ended  bool     // the shard is closed and all of it was read
	bytes  int
	full   bool // it would have been larger without the limit of bytes
}

// read collects a page from a position, of at most so many records and, unless
// the first alone has more, bytes; needs sh.mu.
func (sh *shard) read(from int64, limit, maxBytes int, now time.Time, f Format) page {
	from = max(from, sh.first)
	i := int(from - sh.first)
	rest := sh.records[min(i, len(sh.records)):]
	var p page
	n := 0
	for n < min(limit, len(rest)) {
		if n > 0 && p.bytes+rest[n].size > maxBytes {
			p.full = true
			break
		}
		p.bytes += rest[n].size
		n++
	}
	p.full = p.full || p.bytes >= maxBytes
	for run := rest[:n]; len(run) > 0; {
		same := 1
		for same < len(run) && run[same].chunk == run[0].chunk {
			same++
		}
		start, end := run[0].start, run[same-1].end
		switch {
		case f != FormatJSON:
			p.parts = append(p.parts, run[0].chunk.inCBOR(start, end))
		case len(p.parts) > 0:
			start-- // the comma
			fallthrough
		default:
			p.parts = append(p.parts, run[0].chunk.json[start:end])
		}
		run = run[same:]
	}
	p.count = n
	p.next = from + int64(n)
	if n < len(rest) {
		p.behind = max(1, now.UnixMilli()-rest[n].millis)
	}
	p.ended = n == len(rest) && !sh.isOpen()
	return p
}

// position of the first record with at least this sequence count; needs sh.mu.
func (sh *shard) position(count uint64) int64 {
	i, _ := slices.BinarySearchFunc(sh.records, count, func(r record, c uint64) int { return cmp.Compare(r.count, c) })
	return sh.first + int64(i)
}

// trim drops records that arrived before a time, and reports whether the shard
// has nothing left to read and never will have.
func (sh *shard) trim(before time.Time) (spent bool) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	n := 0
	for n < len(sh.records) && sh.records[n].millis < before.UnixMilli() {
		n++
	}
	if n > 0 {
		sh.records = slices.Clone(sh.records[n:]) // cloned, so that chunks are freed
		sh.first += int64(n)
		sh.changed()
	}
	return len(sh.records) == 0 && !sh.isOpen() && !sh.closed.After(before)
}

// trim drops old records of some shards, and those of them that are spent.
func (st *stream) trim(before time.Time, shards ...*shard) {
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, sh := range shards {
		if sh.trim(before) {
			st.shards = slices.DeleteFunc(slices.Clone(st.shards), func(other *shard) bool { return other == sh })
		}
	}
}

// list returns the shards as they are.
func (st *stream) list() []*shard {
	st.mu.RLock()
	defer st.mu.RUnlock()
	return slices.Clone(st.shards)
}
