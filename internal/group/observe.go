package group

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/lineage"
)

// Observer knows of a group what a member of it would, and takes no part: it has no item,
// claims nothing and evicts nobody. Its caller reads the items of the streams first and
// the members after them, both consistently, so that an owner who is not among the members
// is gone.
type Observer struct{ g *Group }

// observer is the id of an Observer, which no member can have.
const observer = "/observer"

// NewObserver returns an observer that has read nothing. Of conf it uses the periods
// alone: LeasePeriod is that of the group as far as it is known.
func NewObserver(conf Config, now time.Time) *Observer {
	conf.Streams = nil
	conf.Random = func() float64 { return 0 } // nothing is spread
	o := &Observer{g: New(conf)}
	o.g.Joined(observer, now)
	return o
}

// Period sets the lease period of the group, where that has become known: the shortest of
// its members, which is the first to take another for dead.
func (o *Observer) Period(shortest time.Duration) {
	o.g.conf.LeasePeriod, o.g.conf.RebalancePeriod, o.g.members.period = shortest, shortest, shortest
}

// Apply takes in what one reading brought: of each stream its items and, where it could be
// listed, its shards, and the members as they were read after all of them.
func (o *Observer) Apply(streams []StreamSnapshot, members MemberSnapshot, now time.Time) {
	g := o.g
	for i := range streams {
		v := &streams[i]
		if g.stream(v.Stream) == nil {
			g.streams = append(g.streams, newStream(StreamConfig{Name: v.Stream}))
		}
		for _, item := range v.Items {
			// The table does not tell the end of a group. Shards that were cut at the last
			// one are done, and those that were cut before it are read on.
			if item.CutAt.After(g.conf.EndAt) {
				g.conf.EndAt = item.CutAt
			}
		}
		g.applyStream(v, now)
	}
	g.applyMembers(&members, now)
	for _, s := range g.streams {
		for _, sh := range s.shards {
			if owner := sh.item.Owner; owner != "" && sh.item.Term != "" && g.members.byID[owner] == nil {
				g.members.nowGone(owner, now)
			}
		}
	}
	for _, s := range g.streams {
		s.lineage = g.graph(s)
	}
	g.pending = Actions{} // nobody carries anything out
}

// Observed is what is known of a shard.
type Observed struct {
	Key    lease.Key
	Listed lineage.Shard // as its stream lists it; of no value where that does not
	InList bool
	// Trimmed shards have left the stream: newer ones are listed.
	Trimmed  bool
	Item     lease.Item
	Literals []lease.Item
	// Owner has a lease that is alive, or is not known to be dead: by the shard's own item,
	// or by a literal one. Empty when nobody has.
	Owner   string
	Literal bool
	// FreeAt is when the item is free by itself if it does not change until then; zero for
	// one whose owner is a member, or that has none.
	FreeAt time.Time
	// Renewed is whether Owner, who is no member, was seen to renew its item.
	Renewed bool
	// Earlier items are of a shard of the same id in a stream that was deleted.
	Earlier bool
	// Named is whether the owner was told to read this very shard.
	Named bool

	// Progress, Ready and the others are those of the lineage.
	Progress                                     lineage.State
	Ready, Finished, Beyond, Undecided, Unproven bool
}

// Shards returns what is known of the shards of a stream, by id.
func (o *Observer) Shards(stream string) []Observed {
	s := o.g.stream(stream)
	if s == nil {
		return nil
	}
	all := make([]Observed, 0, len(s.shards))
	for _, id := range slices.Sorted(maps.Keys(s.shards)) {
		all = append(all, o.observed(s, s.shards[id]))
	}
	return all
}

func (o *Observer) observed(s *stream, sh *shard) Observed {
	id := sh.key.Shard
	progress, _ := o.g.progress(sh)
	literal := o.g.literalOwner(sh)
	v := Observed{
		Key: sh.key, Listed: sh.listed, InList: sh.inList, Trimmed: !sh.inList && id < s.newest,
		Item: sh.item, Owner: cmp.Or(literal, o.g.owner(sh)), Literal: literal != "",
		Earlier: sh.item.Exists && sh.of() == ofEarlierStream, Named: o.g.names(sh.item) || sh.item.Pinned,
		Progress: progress.State, Ready: s.lineage.Ready(id), Finished: s.lineage.Finished(id), Beyond: s.lineage.Beyond(id),
		Undecided: s.lineage.Undecided(id), Unproven: s.lineage.Unproven(id),
	}
	for _, l := range sh.literals {
		v.Literals = append(v.Literals, l.item)
		if v.Literal && l.item.Owner == literal {
			v.FreeAt, v.Renewed = l.seen.due, l.seen.alive()
		}
	}
	if !v.Literal && v.Owner != "" && (sh.item.Foreign() || sh.item.HandedOver()) {
		v.FreeAt, v.Renewed = sh.seen.due, sh.seen.alive()
	}
	return v
}

// ObservedMember is what is known of a member.
type ObservedMember struct {
	lease.Member
	// Still is for how long its token was seen to stand still.
	Still time.Duration
	// Moved is whether its token was seen to change.
	Moved bool
	// Late is whether a heartbeat was due in that time, and Dead whether it may be evicted.
	Late, Dead bool
	// DeadAt is when it may be, if its token does not change until then.
	DeadAt time.Time
}

// Members returns what is known of the members, by id, without those that were evicted.
func (o *Observer) Members() []ObservedMember {
	ms := &o.g.members
	all := make([]ObservedMember, 0, len(ms.byID))
	for _, m := range ms.byID {
		still := m.last.Sub(m.since)
		all = append(all, ObservedMember{
			Member: m.Member, Still: max(still, 0), Moved: m.moved, Dead: ms.dead(m), DeadAt: ms.due(m),
			// The longest time between two heartbeats, and a second to spare.
			Late: still > m.Period*2/5+time.Second,
		})
	}
	slices.SortFunc(all, func(a, b ObservedMember) int { return strings.Compare(a.ID, b.ID) })
	return all
}

// Evicted returns the ids of members that were evicted and whose items are there still.
func (o *Observer) Evicted() []string { return slices.Sorted(maps.Keys(o.g.members.tombs)) }

// Chores returns the items that a member would remove by now. Where nothing is to be found
// of a shard takes two lists, and of a member that was evicted a lease period.
func (o *Observer) Chores(now time.Time) Chores {
	g := o.g
	g.cleaning, g.cleanAt = false, time.Time{}
	g.clean(now)
	var c Chores
	if g.pending.Clean != nil {
		c = *g.pending.Clean
	}
	g.cleaning, g.pending = false, Actions{}
	return c
}
