package table

import (
	"context"
	"strings"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
)

// The writes of an operator, who is no member and owns nothing. Each is conditional on the
// item as it was seen, so that whoever claims or commits in between is never overwritten.

// Standing is where a shard stands, whoever owns it.
type Standing struct {
	lease.Position
	// StartAt and the others are those of a lease.Item. ShardStart is written where there is
	// no sequence.
	StartAt, UpTo, CutAt time.Time
	Finished, Pinned     bool
	ShardStart           string
}

// operator stands for the owner of an item that is pinned and that an operator has placed.
const operator = "operator"

// StandingOf is where a shard stands by its item.
func StandingOf(item lease.Item) Standing {
	return Standing{
		Position: item.Position(), StartAt: item.StartAt, UpTo: item.UpTo, CutAt: item.CutAt,
		Finished: item.Finished, Pinned: item.Pinned, ShardStart: item.ShardStart,
	}
}

// Place writes where a shard stands, and takes the owner from its item. The caller knows
// that the owner is dead or gone.
func (t *Table) Place(ctx context.Context, seen lease.Item, to Standing) (lease.Item, error) {
	v := values{":sequence": text(to.Sequence)}
	set := []string{AttrSequence + " = :sequence"}
	remove := []string{AttrOwner, AttrToken, AttrTerm}
	// Marks that are tied to a sequence go with the one that they were tied to.
	put := func(is bool, attribute, placeholder string, value func() string) {
		if !is {
			remove = append(remove, attribute)
			return
		}
		set = append(set, attribute+" = "+placeholder)
		v[placeholder] = text(value())
	}
	moment := func(at time.Time) func() string {
		return func() string { return at.UTC().Format(time.RFC3339Nano) }
	}
	put(to.Within != (lease.Within{}), AttrInside, ":within", func() string { return encodeWithin(to.Position) })
	put(!to.StartAt.IsZero(), AttrStartAt, ":startAt", moment(to.StartAt))
	put(to.Sequence == "" && to.ShardStart != "", AttrShardStart, ":shardStart", func() string { return to.ShardStart })
	put(to.Pinned, AttrPinned, ":pinned", func() string { return operator })
	put(to.Finished, AttrFinished, ":sequence", func() string { return to.Sequence })
	put(!to.CutAt.IsZero(), AttrCut, ":cut", moment(to.CutAt))
	put(!to.CutAt.IsZero(), AttrCutSequence, ":sequence", func() string { return to.Sequence })
	if to.UpTo.IsZero() {
		remove = append(remove, AttrUpTo)
	} else {
		set = append(set, AttrUpTo+" = :upTo")
		v[":upTo"] = number(to.UpTo.Unix())
	}
	condition := asSeen(seen, v)
	if seen.Exists {
		condition += inTerm(seen, v)
	}
	return t.update(ctx, seen.Key, "SET "+strings.Join(set, ", ")+" REMOVE "+strings.Join(remove, ", "), condition, v)
}

// inTerm is the condition that no member has claimed an item since it was seen, beside that
// of asSeen: one that acknowledged a part of a record and gave it back has left the sequence
// as it was.
func inTerm(seen lease.Item, v values) string {
	if seen.Number == 0 {
		v[":zero"] = number(0)
		return " AND (attribute_not_exists(" + AttrNumber + ") OR " + AttrNumber + " <= :zero)"
	}
	v[":seenNumber"] = number(seen.Number)
	return " AND " + AttrNumber + " = :seenNumber"
}

// Free takes the owner from the item of a shard, and leaves how far the shard is read. The
// caller knows that the owner is dead or gone, or has yet to claim what was handed over to
// it. A mark that stands beside an owner is stale, and would count without one.
func (t *Table) Free(ctx context.Context, seen lease.Item) (lease.Item, error) {
	v := values{":empty": text("")}
	condition := asSeen(seen, v)
	return t.update(ctx, seen.Key,
		"SET "+AttrSequence+" = if_not_exists("+AttrSequence+", :empty) REMOVE "+strings.Join([]string{freed, AttrFinished, AttrCut, AttrCutSequence}, ", "),
		condition, v)
}
