package lease

import (
	"cmp"

	"github.com/benthos-plugins/aws-kinesis/internal/sequence"
)

// Position is how far a shard is done: up to a record that is done whole, and perhaps
// some way into the one after it. The zero one is before the first record.
type Position struct {
	// Sequence is the sequence number of the last record that is done whole; empty for none.
	Sequence string
	// Within is what is done of the record after it, if that holds several; zero for nothing.
	Within Within
}

// Within is a place inside a record that holds several, such as an aggregate of the
// Kinesis Producer Library.
// Invariant: Count > 0 where there is a Sequence, and 0 where there is none.
type Within struct {
	// Sequence is the sequence number of that record.
	Sequence string
	// Count is how many of those that it holds are done, from the first one on.
	Count int
}

// After returns the position after a whole record; the zero one for no sequence number.
func After(record string) Position { return Position{Sequence: record} }

// Compare orders two positions of one shard: negative where p is the earlier one.
func (p Position) Compare(other Position) int {
	return cmp.Or(
		sequence.Compare(p.Sequence, other.Sequence),
		sequence.Compare(p.Within.Sequence, other.Within.Sequence),
		cmp.Compare(p.Within.Count, other.Within.Count),
	)
}
