package awskinesis

import "github.com/benthos-plugins/aws-kinesis/internal/lease"

// progress is a shard as a group reads it. The first look of the group at the shard makes it.
type progress struct {
	*simulatedShard
	claimed bool
	begin   int // index of the first record that is to be read
	// Records before index seen have been delivered, before acked acknowledged, and before
	// committed stored. Where the order is by partition key, seen stays as it is. Those from
	// before the start of reading are none of anybody's business, and count as all three.
	// Invariant: committed <= acked <= len(records), and acked <= seen by the order of shards
	seen, acked, committed int
	// acks and rejected have the records that were acknowledged, and rejected once, which is
	// enough, by their indexes.
	acks, rejected map[int]bool
	// trail is what happened to the shard, for the report of a broken promise.
	trail []simulatedEvent
	owner string // the last one
	// foreign is whether a built-in input has read it, and deleted whether one has
	// deleted its item.
	foreign, deleted bool
}

// of is a shard as the group reads it; nil for none.
func (s *simulation) of(shard *simulatedShard) *progress {
	sh := s.progress[shard]
	if sh == nil && shard != nil {
		sh = &progress{simulatedShard: shard, acks: map[int]bool{}, rejected: map[int]bool{}}
		s.progress[shard] = sh
		if !s.from.IsZero() { // it is past
			sh.startsAt(sh.arrivedBy(s.from))
		}
	}
	return sh
}

// startsAt notes the index of the first record that is to be read.
func (sh *progress) startsAt(begin int) {
	sh.begin = begin
	sh.seen, sh.acked, sh.committed = max(sh.seen, begin), max(sh.acked, begin), max(sh.committed, begin)
}

func (sh *progress) acknowledge(records []int) {
	for _, index := range records {
		sh.acks[index] = true
	}
	for sh.acks[sh.acked] {
		sh.acked++
	}
}

// done is how many records a position is after.
func (sh *progress) done(p lease.Position) int {
	if p.Sequence == "" {
		return sh.begin + p.Within.Count
	}
	return sh.after(p.Sequence) + p.Within.Count
}

// handled reports whether a record was acknowledged, or stands before the start of reading.
func (sh *progress) handled(index int) bool { return index < sh.acked || sh.acks[index] }
