// Package balance decides which client should read which shard.
//
// Every client computes the same plan for the whole fleet from what it last saw,
// and carries out its own part. The package is pure, and its answer depends on
// what it is given alone, not on the order. So clients that saw the same get
// disjoint parts without a word between them. Clients that saw different things
// may reach for the same shard: then the table's conditions let one through, and
// the other plans again. That comes to rest, because asks are part of what
// everybody sees: a shard that was asked for counts for the one who asked, and
// its owner lets go only of what its own plan gives to that one.
//
// # What is reached
//
// Load is the number of shards of a client, over all streams together. A plan
// leaves no chain of moves, each to a client that can read the shard, from one
// client to another that has at least two shards less. No other plan has a
// smaller greatest load, nor, with equal greatest loads, a smaller second one,
// and so on; the sum of squares is the least there is. Where all clients read
// the same streams, any two of them end within one shard of each other.
//
// # What is moved
//
// Free shards fill up the least loaded clients before any shard changes hands.
// Where all clients read the same streams, and nothing has been asked for, no
// balanced plan moves fewer shards. Elsewhere the number is kept small, but may
// be above the least: chains are taken at their shortest, one after the other.
// A balanced fleet without free shards moves nothing.
package balance

import (
	"cmp"
	"slices"
)

// Member is a client that is alive.
type Member struct {
	Client string
	// Streams are those whose shards the client can read. Nil means all of
	// them, and an empty slice none.
	Streams []string
}

// Shard is a shard that may be read now.
type Shard struct {
	Stream, ID string
	// Owner is the client whose live lease is on the shard, empty when there is
	// none. An owner that is not among the members, as are those that do not
	// announce themselves, counts as a member that reads the streams of the
	// shards that it owns.
	Owner string
	// Asker is the client that has asked the owner for the shard, empty when
	// there is none. It has no meaning when there is no owner, and counts for
	// nothing when the asker is no member that can read the shard.
	Asker string
}

// nobody stands for the index of a client where there is none.
const nobody = -1

// Plan says whose each shard should be.
type Plan struct {
	clients []string // sorted
	shards  []Shard
	homes   []int32 // by shard; an index of clients, or nobody
}

// Part is what one client has to do of a plan: indexes of the shards that the
// plan was made from, in their order there.
type Part struct {
	// Claim has the shards without owner to take.
	Claim []int
	// Ask has the shards to ask their owners for, those without that have been
	// asked for already. Another client's ask is to be replaced.
	Ask []int
	// Give has the client's own shards to hand over to their askers.
	Give []int
	// Refuse has the client's own shards that were asked for, and that it keeps.
	Refuse []int
}

// New returns the plan for a fleet. No shard may be given twice. A client that
// is given twice reads the streams of both. The shards are kept, and must not be
// changed as long as the plan is used.
func New(members []Member, shards []Shard) *Plan {
	f := newFleet(members, shards)
	f.fill()
	f.level()
	return &Plan{clients: f.clients, shards: shards, homes: f.place()}
}

// Owner returns the client that should have the shard of this index, empty when
// no member can read it.
func (p *Plan) Owner(shard int) string {
	if home := p.homes[shard]; home != nobody {
		return p.clients[home]
	}
	return ""
}

// Part returns what a client has to do. One that is no member has nothing to do.
func (p *Plan) Part(client string) (part Part) {
	self, ok := slices.BinarySearch(p.clients, client)
	if !ok {
		return part
	}
	for i := range p.shards {
		shard, mine := &p.shards[i], p.homes[i] == int32(self)
		switch {
		case shard.Owner == client && p.asked(shard):
			if mine {
				part.Refuse = append(part.Refuse, i)
			} else if p.Owner(i) == shard.Asker {
				part.Give = append(part.Give, i)
			}
		case !mine || shard.Owner == client:
		case shard.Owner == "":
			part.Claim = append(part.Claim, i)
		case shard.Asker != client:
			part.Ask = append(part.Ask, i)
		}
	}
	return part
}

// asked reports whether a member other than the owner has asked for a shard. An
// asker that we have not heard of is left unanswered: it may have just joined.
func (p *Plan) asked(shard *Shard) bool {
	if shard.Asker == "" || shard.Asker == shard.Owner {
		return false
	}
	_, member := slices.BinarySearch(p.clients, shard.Asker)
	return member
}

// place turns the numbers of shards that each client should have of each group
// into homes. Clients keep what they have as far as the numbers let them.
func (f *fleet) place() []int32 {
	if !slices.ContainsFunc(f.free, func(n int32) bool { return n > 0 }) && slices.Equal(f.had, f.has) {
		return f.holders
	}
	order := f.ordered()
	homes := slices.Clone(f.holders)
	need := make([]int32, len(f.has)) // by cell: how many it still has to get
	for cell := range need {
		need[cell] = max(0, f.has[cell]-f.had[cell])
	}
	f.shed(order, homes)
	f.takeBack(order, homes, need)
	f.hand(order, homes, need)
	return homes
}

// ordered returns the shards stream by stream, and by their hashes in each.
func (f *fleet) ordered() []placing {
	seeds := make([]uint64, len(f.streams))
	for s, name := range f.streams {
		seeds[s] = hash(hash(offset, name), "\x00")
	}
	order := make([]placing, 0, len(f.shards))
	for i := range f.shards {
		if s := f.streamOf[i]; len(f.readers[f.groupOf[s]]) > 0 {
			order = append(order, placing{shard: int32(i), stream: s, hash: hash(seeds[s], f.shards[i].ID)})
		}
	}
	slices.SortFunc(order, func(a, b placing) int {
		return cmp.Or(
			cmp.Compare(a.stream, b.stream),
			cmp.Compare(a.hash, b.hash),
			cmp.Compare(f.shards[a.shard].ID, f.shards[b.shard].ID),
		)
	})
	return order
}

// placing is a shard on its way to a client.
type placing struct {
	shard, stream int32
	hash          uint64
}

// stake is a claim of a client to keep a shard.
type stake struct {
	placing
	asked int    // 1 when the client has only asked for it, 0 when it owns it
	rank  int    // among the client's shards of the same stream
	score uint64 // the higher, the more it is the client's
}

// shed takes from clients the shards that are too many: first those that they
// have only asked for, which need not move at all then, then those of the
// streams that they have most shards of. What a client keeps grows or shrinks by
// single shards with the number that it may keep. So plans that differ a little
// in that number differ a little in the shards.
func (f *fleet) shed(order []placing, homes []int32) {
	cells := make(map[int][]stake)
	for _, p := range order {
		holder := homes[p.shard]
		if holder == nobody {
			continue
		}
		if cell := f.cell(holder, f.groupOf[p.stream]); f.has[cell] < f.had[cell] {
			s := stake{placing: p, score: score(f.hashes[holder], p.hash)}
			if f.shards[p.shard].Owner != f.clients[holder] {
				s.asked = 1
			}
			cells[cell] = append(cells[cell], s)
		}
	}
	for cell, stakes := range cells {
		rank(stakes)
		for _, s := range stakes[f.has[cell]:] {
			homes[s.shard] = nobody
		}
	}
}

// rank orders the stakes of one client, those to keep first.
func rank(stakes []stake) {
	slices.SortStableFunc(stakes, func(a, b stake) int {
		return cmp.Or(cmp.Compare(a.stream, b.stream), cmp.Compare(a.asked, b.asked), cmp.Compare(b.score, a.score))
	})
	for i := range stakes[1:] {
		if stakes[i+1].stream == stakes[i].stream {
			stakes[i+1].rank = stakes[i].rank + 1
		}
	}
	slices.SortStableFunc(stakes, func(a, b stake) int {
		return cmp.Or(cmp.Compare(a.asked, b.asked), cmp.Compare(a.rank, b.rank), cmp.Compare(b.score, a.score))
	})
}

// takeBack leaves shards whose asker does not get them with their owners, as far
// as these need any.
func (f *fleet) takeBack(order []placing, homes, need []int32) {
	for _, p := range order {
		if homes[p.shard] != nobody {
			continue
		}
		if owner := f.reader(f.shards[p.shard].Owner, p.stream); owner != nobody {
			if cell := f.cell(owner, f.groupOf[p.stream]); need[cell] > 0 {
				homes[p.shard] = owner
				need[cell]--
			}
		}
	}
}

// hand gives every shard that is left to one of the clients that need any: to
// the one that hashing chooses, which is the same one in most plans of a fleet
// that differs a little. Clients with their share of the stream come last, those
// with the fewest of its shards first.
func (f *fleet) hand(order []placing, homes, need []int32) {
	have := make([]int32, len(f.clients)) // of the stream
	for len(order) > 0 {
		stream := order[0].stream
		run := order
		if end := slices.IndexFunc(order, func(p placing) bool { return p.stream != stream }); end > 0 {
			run = order[:end]
		}
		order = order[len(run):]

		clear(have)
		for _, p := range run {
			if home := homes[p.shard]; home != nobody {
				have[home]++
			}
		}
		group := f.groupOf[stream]
		readers := f.readers[group]
		share := int32((len(run) + len(readers) - 1) / len(readers))
		for _, p := range run {
			if homes[p.shard] != nobody {
				continue
			}
			var best, excess int32 = nobody, 0
			var most uint64
			for _, m := range readers {
				over := max(0, have[m]+1-share)
				if need[f.cell(m, group)] == 0 || best != nobody && over > excess {
					continue
				}
				if s := score(f.hashes[m], p.hash); best == nobody || over < excess || s > most {
					best, excess, most = m, over, s
				}
			}
			homes[p.shard] = best
			have[best]++
			need[f.cell(best, group)]--
		}
	}
}
