package leases

import (
	"cmp"
	"fmt"
	"slices"
)

// PlanCopy has the shards of a stream in one group stand where those of another stream, or
// of one in another group, do: a name and its ARN, or two streams with the same shards. The
// target has no items yet, or the same ones.
func PlanCopy(from View, source string, to View, target string) Plan {
	stream, _ := from.Stream(source)
	into, _ := to.Stream(target)
	var steps []Step
	// Within one group the copy takes the place of what is copied. Another group goes on from
	// a moment, whoever reads on in this one.
	living := ""
	within := from.Table == to.Table && from.Group == to.Group
	if within {
		living = from.shared(source)
		for _, o := range stream.Shards {
			living = cmp.Or(living, owned(o))
		}
	}
	for _, s := range into.Shards {
		i := slices.IndexFunc(stream.Shards, func(o Shard) bool { return o.Shard == s.Shard })
		step := from.copied(stream, i, to, into, s)
		if step.writes() && living != "" {
			step.Refused = "it is to go on where " + source + " has stopped: " + living
		}
		if within {
			step.stopped = append(step.stopped, source)
			if i >= 0 {
				step.owner = stream.Shards[i].Owner
			}
		}
		steps = append(steps, step)
	}
	for _, o := range stream.Shards {
		if _, there := to.Shard(target, o.Shard); !there && o.Listed {
			why := "stream " + target + " has no such shard, and " + source + " has: they are not of the same lineage"
			if into.Error != "" {
				why = "the shards of stream " + target + " cannot be listed: " + into.Error
			}
			steps = append(steps, Step{Act: Set, Stream: target, Shard: o.Shard, Refused: why})
		}
	}
	if slices.ContainsFunc(steps, func(s Step) bool { return s.Refused != "" }) {
		// Half of a copy would be read as if the other half had never been.
		for i := range steps {
			if steps[i].writes() {
				steps[i].Refused = "another shard is refused, and a copy is whole or none"
			}
		}
	}
	return to.withEvictions(steps)
}

func (v View) copied(stream Stream, i int, to View, into Stream, s Shard) Step {
	switch {
	case into.Error != "":
		return refuse(s, "the shards of its stream cannot be listed: "+into.Error)
	case stream.Error != "":
		return refuse(s, "the shards of the stream that is copied cannot be listed: "+stream.Error)
	case !s.Listed:
		return keep(s, "the stream does not list it")
	case i < 0 || !stream.Shards[i].Listed:
		return refuse(s, "stream "+stream.Name+" has no such shard: they are not of the same lineage")
	}
	o := stream.Shards[i]
	if o.listed.FirstSequence != s.listed.FirstSequence || !slices.Equal(o.Parents, s.Parents) {
		return refuse(s, fmt.Sprintf("it starts with sequence number %s, and that of stream %s with %s: they are not of the same lineage", s.listed.FirstSequence, stream.Name, o.listed.FirstSequence))
	}
	standing, known := o.stands()
	why := "as in " + stream.Name
	if standing.Sequence == "" && !standing.Finished && standing.StartAt.IsZero() {
		standing.StartAt = cmp.Or(v.starts(stream), to.oldest())
	}
	switch now, there := s.stands(); {
	case !known && there:
		return refuse(s, "it has an item, and that of stream "+stream.Name+" has none")
	case !known:
		why = "nobody has begun it: it is read from where it would have been"
	case there && s.Owner == "" && alike(now, standing):
		return keep(s, "it stands there already")
	case there:
		step := to.set(s, standing, why)
		if step.Refused == "" {
			step.Refused = "it has an item already, which is elsewhere"
		}
		return step
	}
	return to.set(s, standing, why)
}
