// Package balance decides which client should read which shard.
//
// Every client computes the same plan for the whole fleet from what it last saw,
// and carries out its own part. The package is pure, and its answer depends on
// what it is given alone, not on the order. So clients that saw the same get
// disjoint parts without a word between them.
//
// # Requests
//
// A client claims the free shards of its part at once. Of those that others own it
// publishes how many it requests from each owner, not which: to choose them is
// for the owner. That one hands over, of its own shards, those whose home is the
// requester in its own plan, and at most the number that was requested.
//
// Clients that saw different things may claim the same shard: then the table's
// conditions let one through. If they request more than an owner's plan has for
// them, they get what it has. So a shard changes hands only where two plans agree
// that one has to go from this owner to this requester, and no request needs an
// answer.
//
// Where all clients read the same streams, a plan that has been carried out in
// part, whichever part, is still the plan. Clients that know of the same members
// agree on it, then, however much of it each has seen done: what is requested is
// what is handed over, no shard moves twice, and when the last one has moved
// nothing is left to do. Elsewhere another plan may come out on the way, at about
// the same cost; it comes to rest as soon as all have seen the last move.
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
// Where all clients read the same streams, no balanced plan moves fewer shards.
// Elsewhere the number is kept small, but may be above the least: chains are
// taken at their shortest, one after the other. A balanced fleet without free
// shards moves nothing.
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
	// none. An owner that is not among the members, as one that has no item of its
	// own, counts as a member that reads the streams of the shards that it owns.
	Owner string
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
	// Claim has the free shards whose home is the client.
	Claim []int
	// Request has the shards of other clients whose home is the client.
	Request []int
	// Give has the client's own shards whose home is another client.
	Give []int
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

// Home returns the client that should have the shard of this index, empty when
// no member can read it.
func (p *Plan) Home(shard int) string {
	if home := p.homes[shard]; home != nobody {
		return p.clients[home]
	}
	return ""
}

// Part returns what a client has to do. One that is no member has nothing to do.
func (p *Plan) Part(client string) (part Part) {
	for i := range p.shards {
		switch owner, home := p.shards[i].Owner, p.Home(i); {
		case home == "" || owner == home:
		case owner == "":
			if home == client {
				part.Claim = append(part.Claim, i)
			}
		case home == client:
			part.Request = append(part.Request, i)
		case owner == client:
			part.Give = append(part.Give, i)
		}
	}
	return part
}

// place turns the numbers of shards that each client should have of each group
// into homes. Clients keep what they have as far as the numbers let them.
func (f *fleet) place() []int32 {
	if !slices.ContainsFunc(f.free, func(n int32) bool { return n > 0 }) && slices.Equal(f.had, f.has) {
		return f.owners
	}
	order := f.ordered()
	homes := slices.Clone(f.owners)
	f.shed(order, homes)
	f.hand(order, homes)
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

// stake is a shard that a client may have to give.
type stake struct {
	placing
	rank  int    // among the client's shards of the same stream
	score uint64 // the higher, the more it is the client's
}

// shed takes from clients the shards that are too many, those of the streams that
// they have most shards of first. What a client keeps grows or shrinks by single
// shards with the number that it may keep. So plans that differ a little in that
// number differ a little in the shards.
func (f *fleet) shed(order []placing, homes []int32) {
	cells := make(map[int][]stake)
	for _, p := range order {
		owner := homes[p.shard]
		if owner == nobody {
			continue
		}
		if cell := f.cell(owner, f.groupOf[p.stream]); f.has[cell] < f.had[cell] {
			cells[cell] = append(cells[cell], stake{placing: p, score: score(f.hashes[owner], p.hash)})
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
		return cmp.Or(cmp.Compare(a.stream, b.stream), cmp.Compare(b.score, a.score))
	})
	for i := range stakes[1:] {
		if stakes[i+1].stream == stakes[i].stream {
			stakes[i+1].rank = stakes[i].rank + 1
		}
	}
	slices.SortStableFunc(stakes, func(a, b stake) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(b.score, a.score))
	})
}

// hand gives every shard that is left to one of the clients that still get any of
// its stream: to the one that hashing chooses, which is the same one in most plans
// of a fleet that differs a little.
func (f *fleet) hand(order []placing, homes []int32) {
	all := f.handouts(order, homes)
	f.divide(all)
	for _, h := range all {
		for _, p := range h.shards {
			var best int32 = nobody
			var most uint64
			for _, m := range h.readers {
				if h.quota[m] == 0 {
					continue
				}
				if s := score(f.hashes[m], p.hash); best == nobody || s > most {
					best, most = m, s
				}
			}
			homes[p.shard] = best
			h.quota[best]--
		}
	}
}

// handout is the shards of a stream that are left. Invariant, once they have been
// divided: the sum of quota is len(shards).
type handout struct {
	stream  int32
	shards  []placing
	readers []int32 // in an order of the stream's own
	have    []int32 // by client: how many of the stream it keeps or gets
	quota   []int32 // by client: how many of the shards it gets
}

func (f *fleet) handouts(order []placing, homes []int32) (all []*handout) {
	for len(order) > 0 {
		h := &handout{stream: order[0].stream, have: make([]int32, len(f.clients))}
		for len(order) > 0 && order[0].stream == h.stream {
			if home := homes[order[0].shard]; home != nobody {
				h.have[home]++
			} else {
				h.shards = append(h.shards, order[0])
			}
			order = order[1:]
		}
		if len(h.shards) == 0 {
			continue
		}
		h.quota = make([]int32, len(f.clients))
		h.readers = slices.Clone(f.readers[f.groupOf[h.stream]])
		seed := hash(offset, f.streams[h.stream])
		slices.SortStableFunc(h.readers, func(a, b int32) int {
			return cmp.Compare(score(f.hashes[b], seed), score(f.hashes[a], seed))
		})
		all = append(all, h)
	}
	return all
}

// divide sets the quotas. It goes from stream to stream in rounds. In the n-th, one
// shard goes to every client that has less than n of the stream and needs any, as
// long as some are left.
//
// That is what makes a plan last while it is being carried out: whoever has got
// some of its shards already is passed by in as many rounds, and all others find
// in theirs what they would have found. A choice by who still needs the most, or
// by who has more than a share of the stream, would change on the way.
func (f *fleet) divide(all []*handout) {
	need := make([]int32, len(f.has)) // by cell
	for cell := range need {
		need[cell] = max(0, f.has[cell]-f.had[cell])
	}
	left := make([]int, len(all))
	for i, h := range all {
		left[i] = len(h.shards)
	}
	for n, more := int32(1), true; more; n++ {
		more = false
		for i, h := range all {
			if left[i] == 0 {
				continue
			}
			for _, m := range h.readers {
				cell := f.cell(m, f.groupOf[h.stream])
				if left[i] > 0 && h.have[m] < n && need[cell] > 0 {
					need[cell]--
					left[i]--
					h.have[m]++
					h.quota[m]++
				}
			}
			more = more || left[i] > 0
		}
	}
}
