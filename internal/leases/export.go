package leases

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/sequence"
	"github.com/benthos-plugins/aws-kinesis/internal/table"
)

// ExportFormat names the form of an Export.
const ExportFormat = "aws_kinesis leases 1"

// Export is where the shards of a group stand, without who owns them.
type Export struct {
	Format  string           `json:"format"`
	Table   string           `json:"table"`
	Group   string           `json:"group,omitempty"`
	At      time.Time        `json:"at"`
	Streams []ExportedStream `json:"streams"`
}

// ExportedStream is a stream of an Export.
type ExportedStream struct {
	Name   string          `json:"name"`
	Shards []ExportedShard `json:"shards"`
}

// ExportedShard is a shard of an Export.
type ExportedShard struct {
	Shard string `json:"shard"`
	// First is the starting sequence number of the shard, which tells it from that of the
	// same id in a stream that is made anew; empty where the stream did not list it.
	First string `json:"starting_sequence,omitempty"`
	Standing
}

// ExportOf returns where the shards of a group stand. A shard that counts as finished
// without an item, as the built-in input leaves it, is written as finished.
func ExportOf(v View) Export {
	e := Export{Format: ExportFormat, Table: v.Table, Group: v.Group, At: v.At, Streams: []ExportedStream{}}
	for _, stream := range v.Streams {
		x := ExportedStream{Name: stream.Name, Shards: []ExportedShard{}}
		for _, s := range stream.Shards {
			if to, ok := s.stands(); ok {
				if to.Sequence == "" && !to.Finished && to.StartAt.IsZero() {
					to.StartAt = v.starts(stream) // as whoever claims it would
				}
				x.Shards = append(x.Shards, ExportedShard{Shard: s.Shard, First: s.listed.FirstSequence, Standing: *standingOf(to)})
			}
		}
		e.Streams = append(e.Streams, x)
	}
	return e
}

// stands is where a shard stands, by its items or because it counts as finished; ok is
// false where nothing is known, or what is known is of an earlier stream.
func (s Shard) stands() (to table.Standing, ok bool) {
	if to, ok = s.stored(); !ok && s.Listed && s.State == Finished {
		return finished(s), true
	}
	return to, ok
}

// stored is where a shard stands by its item, or by a literal one that is further on, as
// whoever claims it reads on from there.
func (s Shard) stored() (to table.Standing, ok bool) {
	if s.HasItem && !s.EarlierStream {
		to, ok = table.StandingOf(s.item), true
	}
	if to.Finished {
		return to, ok
	}
	for _, l := range s.literals {
		switch {
		case l.Sequence == "" || !s.listed.Holds(l.Sequence):
		case !ok || sequence.Compare(to.Sequence, l.Sequence) < 0:
			to, ok = table.Standing{Position: lease.After(l.Sequence), StartAt: to.StartAt, UpTo: l.UpTo, Pinned: to.Pinned}, true
		}
	}
	return to, ok
}

// Check finds what is wrong with an export that was read from a file.
func (e Export) Check() error {
	if e.Format != ExportFormat {
		return fmt.Errorf("its format is %q, and not %q", e.Format, ExportFormat)
	}
	for _, stream := range e.Streams {
		seen := map[string]bool{}
		for _, s := range stream.Shards {
			switch {
			case s.Shard == "" || seen[s.Shard]:
				return fmt.Errorf("stream %s has the shard %q without an id or twice", stream.Name, s.Shard)
			case s.Inside != nil && (s.Inside.Sequence == "" || s.Inside.Records <= 0):
				return fmt.Errorf("shard %s of stream %s is inside of no record", s.Shard, stream.Name)
			}
			seen[s.Shard] = true
		}
	}
	if len(e.Streams) == 0 {
		return errors.New("it has no streams")
	}
	return nil
}

// PlanRestore has shards stand where an export says. One that is further on than that is
// refused, unless it may go back.
func PlanRestore(v View, e Export, back bool) Plan {
	var steps []Step
	for _, x := range e.Streams {
		stream, _ := v.Stream(x.Name)
		for _, s := range stream.Shards {
			i := slices.IndexFunc(x.Shards, func(x ExportedShard) bool { return x.Shard == s.Shard })
			_, stored := s.stored()
			switch {
			case stream.Error != "":
				steps = append(steps, refuse(s, "the shards of its stream cannot be listed: "+stream.Error))
			case i < 0 && s.Listed && !s.HasItem && !stored && s.State != Finished:
				// A child may get an item, by which it would count as finished.
				steps = append(steps, v.set(s, table.Standing{StartAt: v.oldest()}, "it is not in the file: it is read from its oldest record"))
			case i >= 0:
				steps = append(steps, v.restore(s, x.Shards[i], back))
			}
		}
		steps = v.staying(stream, steps)
		for _, one := range x.Shards {
			if !slices.ContainsFunc(stream.Shards, func(s Shard) bool { return s.Shard == one.Shard }) {
				steps = append(steps, Step{Act: Keep, Stream: x.Name, Shard: one.Shard, Why: "the stream does not list it"})
			}
		}
	}
	return v.withEvictions(steps)
}

// staying has the shards of a stream stay that are kept and say of no place where they
// start, where others are set.
func (v View) staying(stream Stream, steps []Step) []Step {
	if !slices.ContainsFunc(steps, func(s Step) bool { return s.Stream == stream.Name && s.writes() }) {
		return steps
	}
	for _, s := range stream.Shards {
		stay, ok := v.stay(stream, s)
		i := slices.IndexFunc(steps, func(o Step) bool { return o.Stream == s.Stream && o.Shard == s.Shard })
		switch {
		case !ok:
		case i < 0:
			steps = append(steps, stay)
		case steps[i].Act == Keep:
			steps[i] = stay
		}
	}
	return steps
}

func (v View) restore(s Shard, x ExportedShard, back bool) Step {
	to := x.standing()
	now, known := s.stands()
	switch {
	case !s.Listed:
		return keep(s, "the stream does not list it")
	case x.First != "" && s.listed.FirstSequence != "" && x.First != s.listed.FirstSequence:
		return refuse(s, fmt.Sprintf("it starts with sequence number %s, and that in the file with %s: that is another stream", s.listed.FirstSequence, x.First))
	case to.Sequence != "" && !s.listed.Holds(to.Sequence):
		return refuse(s, "sequence number "+to.Sequence+" is of another stream")
	case to.Finished && !s.Closed:
		return refuse(s, "it is open, and finished in the file")
	case known && s.Owner == "" && alike(now, to):
		return keep(s, "it stands there already")
	}
	if to.Sequence == "" && !to.Finished && to.StartAt.IsZero() {
		to.StartAt = v.oldest()
	}
	step := v.set(s, to, "as the file has it")
	if known && !back && ahead(now, to) {
		step.Refused = cmp.Or(step.Refused, "it is further on than in the file: write `--allow-back` to have it read again from there")
	}
	return step
}

// ahead reports whether something of a shard is read again that goes from one standing to
// another. A shard without a sequence that starts at no time starts at its oldest record.
func ahead(now, to table.Standing) bool {
	if now.Finished || to.Finished {
		return now.Finished && !to.Finished
	}
	if now.Position != to.Position {
		return now.Compare(to.Position) > 0
	}
	return now.Sequence == "" && to.StartAt.Before(now.StartAt)
}
