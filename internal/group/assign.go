package group

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/balance"
	"github.com/benthos-plugins/aws-kinesis/internal/lease"
)

// eligible is a shard that may be read now, by whoever it is that should: it has an
// owner who lives, or its parents are finished.
type eligible struct {
	candidate
	stream *stream
	owner  string // who has a lease on it that is alive; empty when nobody has
	// literal is whether that lease is on a literal item.
	literal bool
	// unproven is whether the shard may have been finished by somebody of whom the table
	// does not tell it.
	unproven bool
}

// unclaimed reports whether nobody reads the shard: it is free, or ours by a hand-over
// or a claim of which nothing was heard, which nobody else will read.
func (e *eligible) unclaimed(self string) bool {
	return e.owner == "" || e.owner == self && e.assignment == Idle
}

// assign claims what may be claimed, requests what others have too much of, and gives
// what is requested.
func (g *Group) assign(now time.Time) {
	if !g.explicit() && !g.acquainted(now) {
		g.planBy(now.Add(g.often() / 2))
		return
	}
	shards := g.eligible(now)
	for i := range shards {
		g.yield(&shards[i])
	}
	if !g.explicit() {
		g.tellMembers(now)
		g.balance(shards, now)
		return
	}
	for i := range shards {
		e := &shards[i]
		switch {
		case e.uncertain:
		case e.unclaimed(g.self):
			g.claim(e, false, now)
		case e.owner != g.self:
			g.confirm(e)
			g.tellWaiting(e)
		}
	}
}

func (g *Group) eligible(now time.Time) []eligible {
	var all []eligible
	for _, s := range g.streams {
		if !s.known || s.missing {
			continue
		}
		for _, c := range s.candidates() {
			e := eligible{candidate: c, stream: s, owner: g.owner(c.shard), unproven: s.lineage.Unproven(c.key.Shard)}
			if owner := g.literalOwner(c.shard); owner != "" {
				e.owner, e.literal = owner, true
			}
			if !e.unclaimed(g.self) || s.lineage.Ready(c.key.Shard) {
				all = append(all, e)
			}
			g.readWhenDue(s, c.shard, now)
		}
	}
	return all
}

// readWhenDue has a stream read when an item may be found to be free that its owner has
// not written for long.
func (g *Group) readWhenDue(s *stream, sh *shard, now time.Time) {
	by := func(seen *sighting) {
		if seen.link.Owner != "" && seen.due.After(now) {
			s.callAt(seen.due)
		}
	}
	if sh.item.Foreign() || sh.item.HandedOver() && sh.item.Owner != g.self {
		by(&sh.seen)
	}
	for i := range sh.literals {
		by(&sh.literals[i].seen)
	}
}

// yield gives a shard up of which a literal item has an owner: a built-in input was
// told to read this very shard, or has begun it again, and it never looks at the item
// that we hold.
func (g *Group) yield(e *eligible) {
	if e.assignment == Idle || e.assignment == Yielding || !e.literal {
		return
	}
	e.shard.yield()
	g.pending.Yield = append(g.pending.Yield, e.key)
	i := slices.IndexFunc(e.literals, func(l literal) bool { return l.item.Owner == e.owner })
	g.tellOf(e.key, Warning,
		fmt.Sprintf("is read by client %s too, which holds it as item %q of the table: it is left to that client until that item is free or has not been renewed for three lease periods", e.owner, e.literals[i].item.Shard),
		fmt.Sprintf("are read by client %s too, which holds them as items with short names: they are left to that client until those are free or have not been renewed for three lease periods", e.owner))
}

// tellWaiting says why a shard that was asked for by its name is not read.
func (g *Group) tellWaiting(e *eligible) {
	if e.owner == "" || e.saidWaiting == e.owner {
		return
	}
	e.saidWaiting = e.owner
	g.say(Info, "Shard %s is read by client %s: it is read here when that client gives it up or dies", e.key, e.owner)
}

// balance carries out this member's part of a plan for all.
func (g *Group) balance(shards []eligible, now time.Time) {
	// Of a stream of which something is not certain, neither is what we have too much or
	// too little of. That says nothing of the others.
	uncertain := map[string]bool{}
	shards = slices.DeleteFunc(shards, func(e eligible) bool {
		confirming := g.confirm(&e)
		if e.uncertain || confirming {
			uncertain[e.stream.name] = true
		}
		return confirming || g.pinned(&e)
	})
	all := make([]balance.Shard, len(shards))
	for i := range shards {
		all[i] = balance.Shard{Stream: shards[i].stream.name, ID: shards[i].key.Shard, Owner: shards[i].owner}
	}
	plan := balance.New(g.participantsOf(g.owning()), all)
	part := plan.Part(g.self)
	for _, i := range part.Claim {
		g.claim(&shards[i], false, now)
	}
	for i := range shards {
		g.claimOwn(&shards[i], now)
	}
	g.claimLeftovers(plan, shards, now)
	certain := func(indexes []int) []int {
		return slices.DeleteFunc(indexes, func(i int) bool { return uncertain[shards[i].stream.name] })
	}
	for _, i := range certain(part.Give) {
		g.give(&shards[i], plan.Home(i), now)
	}
	wanted := certain(part.Request)
	if !g.stable(now) {
		wanted = nil // nor is what was requested before
	}
	g.request(shards, wanted, now)
}

// pinned reports whether a shard is no part of the balance: its owner was told to read
// this very shard, or holds it by a literal item.
func (g *Group) pinned(e *eligible) bool {
	return e.literal || e.owner != "" && e.assignment == Idle && g.names(e.item)
}

// confirm has an owner looked up that is no built-in input and not in the list, and
// reports whether that is to be awaited. One that is not there either is gone for good.
// The shard's item has been read by then, and the owner's is read after it: the other
// way round it could have joined, claimed and read in between.
func (g *Group) confirm(e *eligible) bool {
	owner := e.owner
	// By the item, which may be a foreign one, or by what we do with the shard ourselves.
	byMember := !e.literal && e.assignment == Idle && !e.item.Foreign()
	if owner == "" || owner == g.self || !byMember || g.members.isGone(owner) || g.members.byID[owner] != nil {
		return false
	}
	if !g.confirming[owner] {
		g.confirming[owner] = true
		g.pending.Confirm = append(g.pending.Confirm, owner)
	}
	return true
}

// claimOwn claims the shards that are ours already, and those that begin here whatever
// the plan says: others would have to read the table first. Whether they stay is for
// later plans.
func (g *Group) claimOwn(e *eligible, now time.Time) {
	atOnce := e.atOnce || e.acked != (lease.Position{}) // others would begin before that
	switch {
	case e.assignment != Idle:
	case e.unclaimed(g.self) && (atOnce || e.owner == g.self):
		g.claim(e, false, now)
	case e.owner != "":
		e.atOnce = false
	}
}

// claimLeftovers claims what another member should have claimed and has not: it may be
// unable to, or its plan may be made from something else. The items are read once more
// before that: in a large group few have been read since the other did claim.
func (g *Group) claimLeftovers(plan *balance.Plan, shards []eligible, now time.Time) {
	patience := g.conf.LeasePeriod/3 + time.Second
	for i := range shards {
		e := &shards[i]
		if e.assignment != Idle || e.owner != "" || plan.Home(i) == g.self {
			e.freeSince = time.Time{}
			continue
		}
		if e.freeSince.IsZero() {
			e.freeSince = now
		}
		switch late := e.freeSince.Add(patience + time.Millisecond); {
		case now.Before(late):
			g.planBy(late)
		case e.stream.itemsAt.Before(late):
			g.othersChanged([]string{e.stream.name}, now)
		default:
			g.claim(e, false, now)
		}
	}
}

// claim claims a shard, unless it is to be left alone for a while. A stolen one has an
// owner who lives.
func (g *Group) claim(e *eligible, stolen bool, now time.Time) {
	if e.uncertain || e.assignment != Idle {
		return
	}
	if until, rests := e.resting(now); rests {
		g.planBy(until)
		return
	}
	if e.failures > 0 && now.Sub(e.restsUntil) > 4*g.every() {
		e.failures = 0
	}
	c := Claim{
		Key: e.key, Written: e.written, Shard: e.listed, Item: e.item,
		StartAt: e.stream.startAt,
		// What a balanced reader has begun stays proof that its parents were finished.
		Pinned:   g.explicit() && (!e.item.Exists || e.item.Pinned || e.of() != ofThisStream),
		Anew:     e.of() == ofEarlierStream,
		Acked:    e.acked,
		Stolen:   stolen || e.stealing && e.owner == g.self,
		Since:    cmp.Or(e.knownDoneBefore(), e.stream.parentsDoneBefore(e.shard)),
		Failures: e.failures,
		Warning:  e.warning(e.unproven),
		// Passed on to us, and not claimed since.
		HandedOver: e.item.HandedOver() && e.item.Owner == g.self,
	}
	if c.HandedOver {
		c.Requested = cmp.Or(g.requested, now)
	}
	e.why = g.reason(e, c.Stolen)
	if !e.item.StartAt.IsZero() {
		c.StartAt = e.item.StartAt
	}
	for _, l := range e.literals {
		c.Literals = append(c.Literals, l.item)
	}
	e.stealing = c.Stolen
	e.shard.claim(now)
	g.pending.Claim = append(g.pending.Claim, c)
}

// reason says why a shard is claimed: from whom it comes, and what became of that client.
func (g *Group) reason(e *eligible, stolen bool) Words {
	item := e.item
	both := func(one, many string, client string) Words {
		return Words{fmt.Sprintf(one, client), fmt.Sprintf(many, client)}
	}
	switch {
	case stolen:
		return both("it was taken from client %s, which cannot be asked for it", "they were taken from client %s, which cannot be asked for them", item.Owner)
	case item.HandedOver() && item.Owner == g.self && e.former != "":
		return both("client %s handed it over", "client %s handed them over", e.former)
	case item.HandedOver() && item.Owner == g.self:
		return Words{"it was handed over", "they were handed over"}
	case item.HandedOver() && !g.members.isGone(item.Owner):
		return both("client %s, to which it was handed over, did not claim it", "client %s, to which they were handed over, did not claim them", item.Owner)
	case item.Owner == g.self && item.Owner != "", g.ids[item.Owner]:
		return Words{"it was read here before", "they were read here before"}
	case item.Foreign():
		return both("client %s, of the built-in input, has not renewed it", "client %s, of the built-in input, has not renewed them", item.Owner)
	case item.Owner != "":
		return both("its owner, client %s, is gone", "their owner, client %s, is gone", item.Owner)
	case item.Exists:
		return Words{"nobody had it", "nobody had them"}
	}
	return Words{"nobody has read it yet", "nobody has read them yet"}
}

// give hands a shard over to the member that should have it, if that has requested it
// and was seen to live since: a member that dies right after its request would keep
// the shard from being read for a lease period.
func (g *Group) give(e *eligible, to string, now time.Time) {
	m := g.members.byID[to]
	if e.assignment != Reading || m == nil || !g.livesSince(m, now) {
		return
	}
	// What came to nothing, or was not claimed and taken back, it still requests.
	m.given = slices.DeleteFunc(m.given, func(key lease.Key) bool {
		sh := g.shard(key)
		return sh == nil || g.owner(sh) != to
	})
	if len(m.given) >= m.Requests[g.self] {
		return
	}
	m.given = append(m.given, e.key)
	e.shard.handOver(to, now)
	g.pending.HandOver = append(g.pending.HandOver, HandOver{e.key, to})
}

// livesSince reports whether a member was seen to live since it requested something of
// us, and not long ago.
func (g *Group) livesSince(m *member, now time.Time) bool {
	return m.moved && m.movedAt.After(m.requestedAt) && now.Sub(m.movedAt) <= 3*g.often()+2*g.listMembersEvery()
}

// request asks the owners of shards that should be ours, each for a number of them.
func (g *Group) request(shards []eligible, wanted []int, now time.Time) {
	requests, stolen := map[string]int{}, map[string]bool{}
	for _, i := range wanted {
		switch e := &shards[i]; {
		case g.leftToOwner(e):
		case g.members.byID[e.owner] != nil:
			if e.stream.receives(now) {
				requests[e.owner]++
			}
		case e.assignment == Idle && e.item.Foreign() && !stolen[e.stream.name]:
			stolen[e.stream.name] = g.steal(shards, e, now)
		}
	}
	if !maps.Equal(requests, g.requests) {
		g.requests, g.requested = requests, now
	}
}

// steal takes a shard from an owner that knows nothing of requests, as the built-in
// input: one a stream at a time, and only where that input would do the same, so that
// the two do not steal it from each other for ever. One that it has not been seen to
// commit since it claimed it is left to it: it may have stolen that itself, from a
// member that has not noticed yet, and does not look again before it begins to read.
func (g *Group) steal(shards []eligible, e *eligible, now time.Time) bool {
	if !e.seen.alive() || uncommitted(e.item) {
		return false
	}
	theirs, ours := 0, 0
	for i := range shards {
		switch other := &shards[i]; {
		case other.stream != e.stream:
		case other.owner == e.owner:
			theirs++
		case other.owner == g.self:
			ours++
		}
	}
	if theirs-ours < 2 {
		return false
	}
	if next := e.stream.stoleAt.Add(g.every()); !e.stream.stoleAt.IsZero() && now.Before(next) {
		g.planBy(next)
		return false
	}
	if until, rests := e.resting(now); rests {
		g.planBy(until)
		return false
	}
	e.stream.stoleAt = now
	g.claim(e, true, now)
	return true
}
