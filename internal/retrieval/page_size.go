package retrieval

import "time"

const (
	// mostBytes is what a page of a fast link aims for, in bytes of data and keys: two and
	// a half times what a shard gives in the time between two calls. A page of 10 MB, the
	// most that the service gives, is followed by five seconds without any, and takes
	// ten times the memory.
	mostBytes = 1 << 20
	// firstBytes is what the first page after the first record aims for, or less where
	// that record came slowly. A record tells little of the link, so that it is not more;
	// over a fast one it costs a second of calls that are smaller than they could be.
	firstBytes = 1 << 15
	// leastBytes is what a page may have whatever the time it takes: as much as the
	// certificates of a handshake, without which there is no page at all. The time of
	// less is that of the way to the service and not of the bytes. A first record that came
	// late, since 1,000 shards began at once, made pages of five, which a connection that
	// died made two, and a shard was behind for twenty seconds with 50 records of 100 bytes.
	leastBytes = 1 << 12
	maxRecords = 10_000

	// A page should take longPage at most: what is read in longer ones comes later, and is
	// lost if the connection breaks. One that takes less than quickPage may double.
	// Between the two nothing changes, so that neighbours on one link do not chase each
	// other.
	longPage  = 5 * time.Second
	quickPage = longPage / 2

	// After a time-out so many pages have to come in the smaller size before a larger one
	// is tried, and twice as many each time that fails: a path that lets nothing longer
	// through would otherwise cost an attempt of ten seconds for each few pages. At the
	// pace of a shard it is seven seconds at first, and three and a half minutes at most.
	// Attempts that time out one after the other count once: no larger one was tried in
	// between, and they tell of a network that was away rather than of what it lets through.
	firstHold = 32
	mostHold  = 1024
)

// pageSize says how many records to ask for. It is pure: the time that a page took is an
// argument. It belongs to the poller.
//
// Pages are asked for by the number of records, and aim for a number of bytes. That
// doubles with each page that came quickly and was about as large, and shrinks with what a
// page took too long; without such proof it stays. An attempt that timed out halves it,
// and for some pages it does not grow. Below leastBytes it does not shrink. The first one does not where such a page came just
// before: it tells of a connection that died.
type pageSize struct {
	bytes int     // Invariant: leastBytes <= bytes <= mostBytes
	mean  float64 // bytes of a record of the last page that had some; 0 before

	proven     int // bytes of the largest page since the last attempt that timed out
	failed     int // what an attempt aimed for that timed out; 0 once such a page has come
	hold, held int // pages: how many are to come after it, and how many have. Invariant: 0 <= held <= hold
}

func newPageSize() pageSize { return pageSize{bytes: firstBytes} }

// limit is how many records to ask for: one to learn how large they are.
func (s *pageSize) limit() int32 {
	if s.mean == 0 {
		return 1
	}
	return int32(min(max(float64(s.bytes)/s.mean, 1), maxRecords))
}

// arrived takes in a page of so many records, above zero, and bytes, and how long it took
// to come.
func (s *pageSize) arrived(records, bytes int, took time.Duration) {
	first := s.mean == 0
	s.mean = max(float64(bytes), 1) / float64(records)
	s.proven = max(s.proven, bytes)
	if s.failed > 0 && bytes >= s.failed {
		s.failed, s.hold, s.held = 0, 0, 0
	}
	switch {
	case first || took > longPage:
		s.bytes = int(min(float64(s.bytes), max(leastBytes, float64(bytes)*float64(longPage)/max(float64(took), 1))))
	case took > quickPage || bytes < s.bytes/2:
	case s.held < s.hold:
		s.held++
	default:
		s.bytes = min(2*max(s.bytes, bytes), mostBytes)
	}
}

// timedOut takes in an attempt to read so many records, of which no page came for want of
// time.
func (s *pageSize) timedOut(limit int32) {
	aimed, proven := int(float64(limit)*s.mean), s.proven
	s.proven = 0
	if limit <= 1 || aimed <= leastBytes || aimed*3/4 < proven { // less is not asked for; or as much has come
		return
	}
	if s.held == s.hold { // a larger one was tried
		s.hold = min(max(2*s.hold, firstHold), mostHold)
	}
	s.failed, s.bytes, s.held = aimed, max(aimed/2, leastBytes), 0
}
