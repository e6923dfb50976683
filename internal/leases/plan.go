package leases

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/table"
)

// Act is what a step does.
type Act string

// The acts.
const (
	// Keep leaves all as it is.
	Keep Act = "keep"
	// Set writes where a shard stands, and takes an owner that is dead or gone from it.
	Set Act = "set"
	// FreeShard takes the owner from a shard, and leaves where it stands.
	FreeShard Act = "free"
	// EvictMember puts a member that is dead out of the group.
	EvictMember Act = "evict"
	// RemoveItem removes the item of a shard.
	RemoveItem Act = "remove"
	// RemoveMember removes the item of a member that was evicted.
	RemoveMember Act = "remove member"
)

// Step is one write, or the reason why there is none.
type Step struct {
	Act    Act    `json:"act"`
	Stream string `json:"stream,omitempty"`
	Shard  string `json:"shard,omitempty"`
	Member string `json:"member,omitempty"`
	// From and To are where the shard stands, and will.
	From *Standing `json:"from,omitempty"`
	To   *Standing `json:"to,omitempty"`
	Why  string    `json:"why,omitempty"`
	// Refused says why the step is not taken, and what to do.
	Refused string `json:"refused,omitempty"`
	// Again is how much is read once more, and Skipped how much never, by the times at which
	// records arrived; nil where nobody knows.
	Again   *Seconds `json:"read_again_seconds,omitempty"`
	Skipped *Seconds `json:"skipped_seconds,omitempty"`
	// Result is what came of it: empty before it was tried.
	Result Result `json:"result,omitempty"`
	Error  string `json:"error,omitempty"`

	to       table.Standing
	seen     lease.Item
	literals []lease.Item // to be removed with it
	member   lease.Member
	parents  []string // whose steps come before it
	stopped  []string // streams that nobody may share when it is written
	owner    string   // of the shard that is copied
}

// Plan is what a command is to do, in that order.
type Plan struct {
	Steps []Step `json:"steps"`
}

// Join makes one plan of several that were made from one view. A member is evicted once: a
// second time would fail, and keep all that comes after it from being written.
func Join(plans ...Plan) (all Plan) {
	evicted := map[string]bool{}
	for _, p := range plans {
		for _, s := range p.Steps {
			if s.Act == EvictMember && evicted[s.Member] {
				continue
			}
			if s.Act == EvictMember {
				evicted[s.Member] = true
			}
			all.Steps = append(all.Steps, s)
		}
	}
	return all
}

// Writes is how many steps write.
func (p Plan) Writes() (n int) {
	for _, s := range p.Steps {
		if s.writes() {
			n++
		}
	}
	return n
}

// Refusals is how many steps are refused.
func (p Plan) Refusals() (n int) {
	for _, s := range p.Steps {
		if s.Refused != "" {
			n++
		}
	}
	return n
}

func (s Step) writes() bool { return s.Refused == "" && s.Act != Keep }

// Standing is where a shard stands, as it is written in JSON.
type Standing struct {
	Sequence string     `json:"sequence,omitempty"`
	Inside   *Inside    `json:"inside,omitempty"`
	StartAt  *time.Time `json:"start_at,omitempty"`
	UpTo     *time.Time `json:"up_to,omitempty"`
	CutAt    *time.Time `json:"cut_at,omitempty"`
	Finished bool       `json:"finished,omitempty"`
	Pinned   bool       `json:"pinned,omitempty"`
	// ShardStart is the starting sequence number of the shard, while there is no sequence.
	ShardStart string `json:"shard_start,omitempty"`
}

func standingOf(s table.Standing) *Standing {
	v := &Standing{
		Sequence: s.Sequence, StartAt: known(s.StartAt), UpTo: known(s.UpTo), CutAt: known(s.CutAt),
		Finished: s.Finished, Pinned: s.Pinned, ShardStart: s.ShardStart,
	}
	if s.Within != (lease.Within{}) {
		v.Inside = &Inside{s.Within.Sequence, s.Within.Count}
	}
	return v
}

func (s *Standing) standing() (t table.Standing) {
	moment := func(at *time.Time) time.Time {
		if at == nil {
			return time.Time{}
		}
		return *at
	}
	t = table.Standing{
		Position: lease.After(s.Sequence), StartAt: moment(s.StartAt), UpTo: moment(s.UpTo), CutAt: moment(s.CutAt),
		Finished: s.Finished, Pinned: s.Pinned, ShardStart: s.ShardStart,
	}
	if s.Inside != nil {
		t.Within = lease.Within{Sequence: s.Inside.Sequence, Count: s.Inside.Records}
	}
	return t
}

func (s *Standing) String() string {
	if s == nil {
		return "(no item)"
	}
	inside := ""
	if s.Inside != nil {
		inside = fmt.Sprintf(" +%d", s.Inside.Records)
	}
	switch {
	case s.Finished:
		return "finished"
	case s.CutAt != nil:
		return "cut at " + s.CutAt.Format(time.RFC3339)
	case s.Sequence != "":
		return s.Sequence + inside
	case s.StartAt != nil && !s.StartAt.Before(time.Now().Add(-Ages)):
		return "from " + s.StartAt.Format(time.RFC3339) + inside
	}
	return "oldest" + inside
}

// Ages is longer than any stream keeps its records: 365 days.
const Ages = 366 * 24 * time.Hour

// oldest is where a shard starts at its oldest record. It is written as a time, since one
// that has none starts where others of its stream do: at the earliest that their items say.
func (v View) oldest() time.Time { return v.At.Add(-Ages).Truncate(time.Second) }

// same reports whether two standings have readers begin at the same place. What tells of
// lag alone does not count.
func same(a, b table.Standing) bool {
	if a.Sequence != "" || b.Sequence != "" {
		a.StartAt, b.StartAt, a.ShardStart, b.ShardStart = time.Time{}, time.Time{}, "", ""
	}
	return a.Position == b.Position && a.StartAt.Equal(b.StartAt) && a.CutAt.Equal(b.CutAt) && a.Finished == b.Finished && a.Pinned == b.Pinned &&
		(a.ShardStart == b.ShardStart || a.ShardStart == "" || b.ShardStart == "")
}

// from is where a shard stands now; nil where it has no item.
func (s Shard) from() *Standing {
	if !s.HasItem {
		return nil
	}
	return standingOf(table.StandingOf(s.item))
}

// set is the step that has a shard stand somewhere.
func (v View) set(s Shard, to table.Standing, why string) Step {
	if to.Sequence == "" {
		to.ShardStart = cmp.Or(s.listed.FirstSequence, to.ShardStart)
	} else {
		to.ShardStart = ""
	}
	step := Step{Act: Set, Stream: s.Stream, Shard: s.Shard, From: s.from(), To: standingOf(to), Why: why, to: to, seen: s.item, literals: s.literals, parents: s.Parents, stopped: []string{s.Stream}}
	step.Refused = cmp.Or(v.shared(s.Stream), owned(s))
	return step
}

func keep(s Shard, why string) Step {
	return Step{Act: Keep, Stream: s.Stream, Shard: s.Shard, From: s.from(), Why: why}
}

func refuse(s Shard, why string) Step {
	return Step{Act: Set, Stream: s.Stream, Shard: s.Shard, From: s.from(), Refused: why}
}

// shared says who shares a stream and is not known to be dead. A member remembers what it
// has read, finished and lost: where a shard stands is written while none is there.
func (v View) shared(stream string) string {
	for _, m := range v.Members {
		if m.Life != Dead && slices.Contains(m.Streams, stream) {
			return fmt.Sprintf("client %s shares the stream, and %s: stop all pipelines that read it", m.ID, m.Life.is())
		}
	}
	return ""
}

// owned says who has a shard and is not known to be dead.
func owned(s Shard) string {
	if s.Owner == "" || s.Life == Dead || s.Life == Gone {
		return ""
	}
	text := fmt.Sprintf("client %s has it, and %s: stop it", s.Owner, s.Life.is())
	if s.LiteralOwner {
		text = fmt.Sprintf("client %s has it by item %s, and %s: stop it", s.Owner, quoted(s.Literals), s.Life.is())
	}
	return text + timeOf(", or, if it is dead, watch it for longer. It counts as dead %s", s.FreeAt)
}

// is says what is known of a life.
func (l Life) is() string {
	switch l {
	case Alive:
		return "lives"
	case Late:
		return "is late, and may live"
	case Dead:
		return "is dead"
	case Gone:
		return "is gone"
	case Unproven:
	}
	return "may live"
}

// withEvictions has the dead members evicted first that share a stream in which a plan
// writes, or own a shard there: one that was merely suspended must not write any more.
func (v View) withEvictions(steps []Step) Plan {
	var first []Step
	for _, m := range v.Members {
		if m.Life != Dead {
			continue
		}
		if slices.ContainsFunc(steps, func(s Step) bool {
			return s.writes() && (s.Act == Set || s.Act == FreeShard) && (s.seen.Owner == m.ID || s.owner == m.ID ||
				slices.ContainsFunc(s.stopped, func(stream string) bool { return slices.Contains(m.Streams, stream) }))
		}) {
			first = append(first, evict(m, "it is dead, and must not come back to what is written"))
		}
	}
	return Plan{Steps: append(first, steps...)}
}

func evict(m Member, why string) Step {
	return Step{Act: EvictMember, Member: m.ID, Why: why, member: m.member}
}

// PlanEvict puts a member out of the group that is dead. ok is false for one that nobody
// knows.
func PlanEvict(v View, id string) (p Plan, ok bool) {
	if slices.Contains(v.Evicted, id) {
		return Plan{[]Step{{Act: Keep, Member: id, Why: "it was evicted already"}}}, true
	}
	m, ok := v.Member(id)
	if !ok {
		return Plan{}, false
	}
	step := evict(m, fmt.Sprintf("it has stood still for its lease period of %s, and owns %d shards", m.LeasePeriod.Duration(), m.Shards))
	if m.Life != Dead {
		step.Refused = fmt.Sprintf("it %s: stop it instead%s", m.Life.is(), timeOf(". Unless its item changes it counts as dead %s", m.DeadAt))
	}
	return Plan{[]Step{step}}, true
}

// PlanRelease frees shards whose owners are dead or gone, or have not claimed what was
// handed over to them. which says which shards are meant; all that can be freed where it is
// nil.
func PlanRelease(v View, which func(Shard) bool) Plan {
	var steps []Step
	for _, stream := range v.Streams {
		for _, s := range stream.Shards {
			free := s.Owner != "" && !s.LiteralOwner && s.item.Owner != "" && (s.Life == Dead || s.Life == Gone || s.State == Handed)
			if which == nil && !free || which != nil && !which(s) {
				continue
			}
			step := Step{Act: FreeShard, Stream: s.Stream, Shard: s.Shard, From: s.from(), To: s.from(), Member: s.Owner, seen: s.item}
			switch {
			case s.Owner == "":
				step = keep(s, "nobody has it")
			case !free:
				step.Refused = owned(s)
			case s.State == Handed:
				step.Why = "it was handed over, and not claimed"
			default:
				step.Why = "its owner " + s.Life.is()
			}
			steps = append(steps, step)
		}
	}
	return v.withEvictions(steps)
}

// Describe names a step as an operator would.
func (s Step) Describe() string {
	if s.Shard == "" {
		return "client " + s.Member
	}
	return strings.Join([]string{s.Stream, s.Shard}, ":")
}
