package leases

import (
	"cmp"
	"slices"

	"github.com/benthos-plugins/aws-kinesis/internal/group"
	"github.com/benthos-plugins/aws-kinesis/internal/lease"
)

// PlanPrune removes the items that nobody needs any more, by the rules of the members:
// those of finished shards that have left the stream, those of shards that left it unread,
// and those of members that were evicted a lease period ago.
func PlanPrune(v View, c group.Chores) Plan {
	var p Plan
	remove := func(items []lease.Item, why string) {
		for _, item := range items {
			step := Step{Act: RemoveItem, Stream: item.Stream, Shard: item.Shard, Why: why, seen: item}
			if s, ok := v.Shard(item.Stream, item.Shard); ok {
				step.From = s.from()
			}
			p.Steps = append(p.Steps, step)
		}
	}
	byKey := func(a, b lease.Item) int { return compareKeys(a.Key, b.Key) }
	slices.SortFunc(c.Finished, byKey)
	slices.SortFunc(c.Expired, byKey)
	remove(c.Finished, "it was finished, and has left the stream")
	remove(c.Expired, "it has left the stream without having been read to its end: what was left of it is lost")
	for _, m := range c.Evicted {
		p.Steps = append(p.Steps, Step{Act: RemoveMember, Member: m.ID, Why: "it was evicted", member: m})
	}
	return p
}

func compareKeys(a, b lease.Key) int {
	return cmp.Or(cmp.Compare(a.Stream, b.Stream), cmp.Compare(a.Shard, b.Shard))
}
