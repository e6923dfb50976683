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

// Target is where a reset has shards read from.
// Invariant: exactly one is set.
type Target struct {
	Oldest, Latest bool
	// At has everything read that arrived then or later.
	At time.Time
	// After is a sequence number, up to which all counts as acknowledged. It is one of a
	// single shard.
	After string
}

// Probed is what the records of a shard tell; zero times where nothing is known.
type Probed struct {
	// Last is when the record arrived up to which the shard is acknowledged, Oldest when the
	// oldest one did that it holds, and Target the one with the sequence number of a Target.
	Last, Oldest, Target time.Time
}

// PlanReset has a stream, or one shard of it, read from somewhere else. Finished shards
// are read again.
//
// Each shard that is listed gets an item, parents before their children: one without is
// taken for finished as soon as a child of it has one.
func PlanReset(v View, name, shard string, to Target, probed map[string]Probed) Plan {
	stream, _ := v.Stream(name)
	var steps []Step
	for _, s := range stream.Shards {
		switch {
		case shard != "" && s.Shard != shard:
			if step, ok := v.stay(stream, s); ok {
				steps = append(steps, step)
			}
		case stream.Error != "":
			steps = append(steps, refuse(s, "the shards of its stream cannot be listed, so that nobody knows of which stream its item is: "+stream.Error))
		case !s.Listed && shard == "":
			steps = append(steps, keep(s, "the stream does not list it"))
		case !s.Listed:
			steps = append(steps, refuse(s, "the stream does not list it: nothing of it can be read"))
		case to.Latest && s.State == Finished:
			steps = append(steps, keep(s, "it is finished"))
		default:
			steps = append(steps, v.reset(stream, s, to, probed[s.Shard]))
		}
	}
	if i := slices.IndexFunc(steps, func(s Step) bool { return s.Shard == shard && s.Refused != "" }); i >= 0 {
		return Plan{steps[i : i+1]} // the others get items beside that one alone
	}
	return v.withEvictions(steps)
}

func (v View) reset(stream Stream, s Shard, to Target, p Probed) Step {
	standing := table.Standing{Pinned: s.item.Pinned}
	var begins time.Time // the arrival of what is read first
	var why string
	switch now := stream.now(v); {
	case to.Oldest:
		standing.StartAt, begins, why = v.oldest(), p.Oldest, "it is read from its oldest record"
	case to.Latest:
		standing.StartAt, standing.UpTo, begins, why = now, now, now, "what arrived before now is not read"
	case to.After != "":
		standing.Position, standing.StartAt = lease.After(to.After), s.item.StartAt
		standing.UpTo, begins = p.Target, p.Target
		why = "everything up to that record counts as acknowledged"
		if !s.listed.Holds(to.After) || s.listed.LastSequence != "" && sequence.Compare(to.After, s.listed.LastSequence) > 0 {
			return refuse(s, fmt.Sprintf("sequence number %s is not one of this shard, whose are from %s to %s", to.After, cmp.Or(s.listed.FirstSequence, "(unknown)"), cmp.Or(s.listed.LastSequence, "(open)")))
		}
	default:
		standing.StartAt, standing.UpTo, begins, why = to.At, to.At, to.At, "everything is read that arrived then or later"
		if to.At.After(now) {
			return refuse(s, "that time is in the future: write `latest`")
		}
	}
	step := v.set(s, standing, why)
	was := s.item.UpTo
	if p.Last.After(was) {
		was = p.Last // the table may be late
	}
	switch {
	case s.EarlierStream, was.IsZero(), begins.IsZero():
	case begins.Before(was):
		again := SecondsOf(was.Sub(begins))
		step.Again = &again
	default:
		skipped := SecondsOf(begins.Sub(was))
		step.Skipped = &skipped
	}
	return step
}

// stay says where a shard starts of which nothing else does, beside another that is reset:
// it would start where that one does, or count as finished where it is a parent of it.
func (v View) stay(stream Stream, s Shard) (Step, bool) {
	begun := slices.ContainsFunc(s.literals, func(l lease.Item) bool { return l.Sequence != "" && s.listed.Holds(l.Sequence) })
	says := s.HasItem && (!s.item.StartAt.IsZero() || !s.EarlierStream && (s.Sequence != "" || s.State == Cut))
	if !s.Listed || says || begun || s.State == Finished || s.State == Beyond || stream.Error != "" {
		return Step{}, false
	}
	to := table.Standing{StartAt: cmp.Or(v.starts(stream), v.oldest())}
	why := "it has no item, and stays where it would start"
	if s.HasItem && !s.EarlierStream {
		to.Position, to.UpTo, to.Pinned = s.item.Position(), s.item.UpTo, s.item.Pinned
		why = "its item does not say where it starts: it stays where it would"
	}
	return v.set(s, to, why), true
}

// starts is where a shard without an item starts: at the earliest that an item of the
// stream says; zero for its oldest record.
func (v View) starts(stream Stream) (at time.Time) {
	for _, s := range stream.Shards {
		if start := s.item.StartAt; !start.IsZero() && (at.IsZero() || start.Before(at)) {
			at = start
		}
	}
	return at
}

// now is the time by the clock of the service, or by that of this machine.
func (s Stream) now(v View) time.Time { return cmp.Or(s.clock, v.At).Truncate(time.Second) }
