package leases

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/sequence"
	"github.com/benthos-plugins/aws-kinesis/internal/table"
)

// Import is what is known for the import of one stream from a table of the Kinesis Client
// Library.
type Import struct {
	Stream string // as it stands in our table
	Leases []table.KCLLease
	// At is where the application starts that was told to start at a time: its table does
	// not have it. Zero where nobody has said.
	At time.Time
	// Living are the owners whose leases were seen to be renewed.
	Living []string
	// Places are those of the leases whose checkpoint is a sequence number, by shard.
	Places map[string]Place
}

// Place is where reading goes on after a checkpoint of that library.
type Place struct {
	lease.Position
	// First is whether the position lies in the oldest record of the shard.
	First bool
	// UpTo is when the record of the checkpoint arrived, and Note what is to be said.
	UpTo time.Time
	Note string
	// Err is why it is not known.
	Err string
}

// PlanImport has our input go on where an application of the Kinesis Client Library has
// stopped.
//
// Each shard that is listed gets an item, parents before their children. One that is
// closed, and has no lease though a descendant has one, was finished: that library removes
// its lease. One without any is read from its oldest record, as the children of a shard are.
func PlanImport(v View, i Import) Plan {
	stream, _ := v.Stream(i.Stream)
	byShard := map[string]table.KCLLease{}
	for _, l := range i.Leases {
		byShard[l.Shard] = l
	}
	leased := v.descendantsOf(stream, func(id string) bool { _, ok := byShard[id]; return ok })
	var steps []Step
	for _, s := range stream.Shards {
		l, ok := byShard[s.Shard]
		delete(byShard, s.Shard)
		switch {
		case stream.Error != "":
			steps = append(steps, refuse(s, "the shards of its stream cannot be listed: "+stream.Error))
		case len(i.Living) > 0:
			steps = append(steps, refuse(s, fmt.Sprintf("worker %s of the Kinesis Client Library renews its leases: stop its application", cmp.Or(i.Living[0], "(of no name)"))))
		case !s.Listed:
			steps = append(steps, keep(s, "the stream does not list it"))
		case ok:
			steps = append(steps, v.importLease(stream, s, l, i))
		case s.Closed && leased[s.Shard]:
			steps = append(steps, v.importTo(s, finished(s), "it has no lease, and a shard that came out of it has one: it was finished"))
		default:
			steps = append(steps, v.importTo(s, table.Standing{StartAt: v.oldest()}, "it has no lease: it is read from its oldest record"))
		}
	}
	for _, l := range i.Leases {
		if _, left := byShard[l.Shard]; !left {
			continue
		}
		step := Step{Act: Keep, Stream: i.Stream, Shard: l.Shard, Why: "the stream does not list it any more"}
		if newest := newest(stream); l.Shard > newest {
			step.Act, step.Why, step.Refused = Set, "", "the stream does not list it, and its newest shard is "+newest+": is this the stream of that table?"
		}
		steps = append(steps, step)
	}
	return v.withEvictions(steps)
}

func (v View) importLease(stream Stream, s Shard, l table.KCLLease, i Import) Step {
	switch l.Checkpoint {
	case table.KCLShardEnd:
		if !s.Closed {
			return refuse(s, "its lease says that it was finished, and the stream says that it is open: is this the stream of that table?")
		}
		return v.importTo(s, finished(s), "it was finished")
	case table.KCLTrimHorizon:
		return v.importTo(s, table.Standing{StartAt: v.oldest()}, "nothing of it was read: it is read from its oldest record")
	case table.KCLLatest:
		if i := s.item; s.HasItem && !s.EarlierStream && s.Owner == "" && i.Position() == (lease.Position{}) && !i.StartAt.IsZero() && !i.Finished {
			return keep(s, "it was imported, and starts at a time already")
		}
		return v.importTo(s, table.Standing{StartAt: stream.now(v), UpTo: stream.now(v)}, "nothing of it was read: it is read from now on, as its lease says")
	case table.KCLAtTimestamp:
		if i.At.IsZero() {
			return refuse(s, "it starts at a time that stands in the configuration of the application alone: write it as `--at`")
		}
		return v.importTo(s, table.Standing{StartAt: i.At, UpTo: i.At}, "nothing of it was read: it is read from that time on")
	}
	place, ok := i.Places[s.Shard]
	switch {
	case !sequence.Valid(l.Checkpoint):
		return refuse(s, fmt.Sprintf("its checkpoint is %q, which is neither a sequence number nor a word that is known", l.Checkpoint))
	case !s.listed.Holds(l.Checkpoint) || s.listed.LastSequence != "" && sequence.Compare(l.Checkpoint, s.listed.LastSequence) > 0:
		return refuse(s, "its checkpoint "+l.Checkpoint+" is not one of this shard: is this the stream of that table?")
	case !ok, place.Err != "":
		return refuse(s, "where in the record of its checkpoint it is cannot be found out: "+cmp.Or(place.Err, "nobody has looked"))
	}
	to := table.Standing{Position: place.Position, UpTo: place.UpTo}
	if place.First {
		to.StartAt = v.oldest()
	}
	return v.importTo(s, to, cmp.Or(place.Note, "it goes on after its checkpoint"))
}

// importTo is set for a shard that has no item yet, or the same.
func (v View) importTo(s Shard, to table.Standing, why string) Step {
	step := v.set(s, to, why)
	switch now, there := s.stored(); {
	case !there:
	case alike(now, step.to) && s.Owner == "":
		return keep(s, "it stands there already")
	default:
		step.Refused = cmp.Or(step.Refused, "it has an item already, which is elsewhere: `reset` moves it, and what is imported goes to a new table or group otherwise")
	}
	return step
}

// alike is same for places whose start was written at different times.
func alike(a, b table.Standing) bool {
	old := func(at time.Time) bool { return !at.IsZero() && at.Before(time.Now().Add(-Ages+24*time.Hour)) }
	if old(a.StartAt) && old(b.StartAt) {
		a.StartAt, b.StartAt = time.Time{}, time.Time{}
	}
	return same(a, b)
}

// finished is where a shard stands that was read to its end.
func finished(s Shard) table.Standing {
	return table.Standing{Position: lease.After(s.listed.LastSequence), Finished: true}
}

// newest is the highest id of a shard that the stream lists.
func newest(stream Stream) (id string) {
	for _, s := range stream.Shards {
		if s.Listed {
			id = max(id, s.Shard)
		}
	}
	return id
}

// descendantsOf returns the shards of which one that is meant came out, directly or not.
func (v View) descendantsOf(stream Stream, is func(id string) bool) map[string]bool {
	found := map[string]bool{}
	for _, s := range slices.Backward(stream.Shards) { // children have higher ids
		if !is(s.Shard) && !found[s.Shard] {
			continue
		}
		for _, parent := range s.Parents {
			found[parent] = true
		}
	}
	return found
}
