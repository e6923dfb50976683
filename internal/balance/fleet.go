package balance

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

// fleet is the numbers that a plan is computed from. Streams that the same
// clients can read are one group: to the balance their shards are all the same.
// New makes it, and nothing outlives that call but what the plan keeps.
type fleet struct {
	clients []string // sorted
	hashes  []uint64 // by client
	index   map[string]int32
	shards  []Shard
	streams []string // sorted

	streamOf []int32 // by shard
	owners   []int32 // by shard: its owner if that can read it, else nobody
	groupOf  []int32 // by stream
	canRead  []uint64
	words    int       // of canRead for each stream, a bit a client
	readers  [][]int32 // by group, ascending

	// By client and group, see cell. had is what they own now, and has what
	// they should.
	had, has []int32
	load     []int32 // by client. Invariant: load[m] = sum over g of has[m, g]
	free     []int32 // by group: shards that somebody can read, but no owner
}

func newFleet(members []Member, shards []Shard) *fleet {
	f := &fleet{shards: shards}
	f.name(members)
	f.group(members)
	f.count()
	return f
}

func (f *fleet) cell(client, group int32) int { return int(client)*len(f.readers) + int(group) }

// name numbers clients and streams in the order of their names, so that nothing
// depends on the order in which they were given.
func (f *fleet) name(members []Member) {
	f.index = make(map[string]int32, len(members))
	for _, m := range members {
		f.index[m.Client] = 0
	}
	streams := make(map[string]int32)
	for i := range f.shards {
		if owner := f.shards[i].Owner; owner != "" {
			f.index[owner] = 0
		}
		streams[f.shards[i].Stream] = 0
	}
	f.clients, f.streams = number(f.index), number(streams)
	f.hashes = make([]uint64, len(f.clients))
	for m, client := range f.clients {
		f.hashes[m] = hash(offset, client)
	}
	f.streamOf = make([]int32, len(f.shards))
	for i := range f.shards {
		f.streamOf[i] = streams[f.shards[i].Stream]
	}
}

// number gives each name its place among all, and returns them in that order.
func number(index map[string]int32) []string {
	names := make([]string, 0, len(index))
	for name := range index {
		names = append(names, name)
	}
	slices.Sort(names)
	for i, name := range names {
		index[name] = int32(i)
	}
	return names
}

// group finds out who reads what, and groups the streams by that.
func (f *fleet) group(members []Member) {
	f.words = (len(f.clients) + 63) / 64
	f.canRead = make([]uint64, len(f.streams)*f.words)
	f.markReaders(members)

	f.groupOf = make([]int32, len(f.streams))
	groups := make(map[string]int32)
	var key []byte
	for s := range f.streams {
		row := f.canRead[s*f.words:][:f.words]
		key = key[:0]
		for _, word := range row {
			key = binary.LittleEndian.AppendUint64(key, word)
		}
		g, known := groups[string(key)]
		if !known {
			g = int32(len(f.readers))
			groups[string(key)] = g
			f.readers = append(f.readers, ones(row))
		}
		f.groupOf[s] = g
	}
}

func (f *fleet) markReaders(members []Member) {
	mark := func(client int32, stream int) {
		f.canRead[stream*f.words+int(client)/64] |= 1 << (client % 64)
	}
	member := make([]bool, len(f.clients))
	for _, m := range members {
		client := f.index[m.Client]
		member[client] = true
		if m.Streams == nil {
			for s := range f.streams {
				mark(client, s)
			}
		}
		for _, name := range m.Streams {
			if s, ok := slices.BinarySearch(f.streams, name); ok {
				mark(client, s)
			}
		}
	}
	for i := range f.shards {
		if owner := f.shards[i].Owner; owner != "" && !member[f.index[owner]] {
			mark(f.index[owner], int(f.streamOf[i]))
		}
	}
}

// ones returns the places of the bits that are set.
func ones(row []uint64) (places []int32) {
	for i, word := range row {
		for ; word != 0; word &= word - 1 {
			places = append(places, int32(i*64+bits.TrailingZeros64(word)))
		}
	}
	return places
}

// count finds out who has what.
func (f *fleet) count() {
	f.had = make([]int32, len(f.clients)*len(f.readers))
	f.load = make([]int32, len(f.clients))
	f.free = make([]int32, len(f.readers))
	f.owners = make([]int32, len(f.shards))
	for i, stream := range f.streamOf {
		owner := f.reader(f.shards[i].Owner, stream)
		f.owners[i] = owner
		switch group := f.groupOf[stream]; {
		case owner != nobody:
			f.had[f.cell(owner, group)]++
			f.load[owner]++
		case len(f.readers[group]) > 0:
			f.free[group]++
		}
	}
	f.has = slices.Clone(f.had)
}

// reader returns the index of a client, or nobody if it cannot read the stream.
func (f *fleet) reader(client string, stream int32) int32 {
	m, known := f.index[client]
	if !known || f.canRead[int(stream)*f.words+int(m)/64]&(1<<(m%64)) == 0 {
		return nobody
	}
	return m
}

// fill gives every free shard to the least loaded client that can read it.
func (f *fleet) fill() {
	for g, readers := range f.readers {
		for range f.free[g] {
			least := readers[0]
			for _, m := range readers[1:] {
				if f.load[m] < f.load[least] {
					least = m
				}
			}
			f.has[f.cell(least, int32(g))]++
			f.load[least]++
		}
	}
}

// level moves shards along chains, from the most loaded client to the least
// loaded one that a chain reaches, until no chain improves anything.
//
// A client is looked at again only after it has given. Nothing else can open an
// improving chain from it: a chain that others take reaches their least loaded
// client, so all that it can open to a client on its way has at least that load.
func (f *fleet) level() {
	chains := newChains(f)
	settled := make([]bool, len(f.clients))
	for {
		var from int32 = nobody
		for m, load := range f.load {
			if !settled[m] && (from == nobody || load > f.load[from]) {
				from = int32(m)
			}
		}
		if from == nobody {
			return
		}
		if to := chains.search(from); f.load[from]-f.load[to] >= 2 {
			chains.shift(from, to)
		} else {
			settled[from] = true
		}
	}
}

// chains searches for chains of moves, breadth first.
type chains struct {
	*fleet
	queue []int32 // clients reached, in the order of their distance
	via   []int32 // by client: the group of the shard that it gets
	prev  []int32 // by client: who gives it; nobody when it was not reached
	seen  []bool  // by group: its readers have been reached
}

func newChains(f *fleet) *chains {
	return &chains{
		fleet: f,
		queue: make([]int32, 0, len(f.clients)),
		via:   make([]int32, len(f.clients)),
		prev:  make([]int32, len(f.clients)),
		seen:  make([]bool, len(f.readers)),
	}
}

// search returns the least loaded client that a chain from another reaches, and
// of these a nearest one.
func (c *chains) search(from int32) (least int32) {
	for m := range c.prev {
		c.prev[m] = nobody
	}
	clear(c.seen)
	c.queue = append(c.queue[:0], from)
	c.prev[from] = from
	least, floor := from, slices.Min(c.load)
	for i := 0; i < len(c.queue) && c.load[least] > floor; i++ {
		m := c.queue[i]
		// Shards that the client would only get by the plan move at no cost.
		for _, spare := range []bool{true, false} {
			for g := range int32(len(c.readers)) {
				cell := c.cell(m, g)
				if c.seen[g] || c.has[cell] == 0 || spare && c.has[cell] <= c.had[cell] {
					continue
				}
				c.seen[g] = true
				for _, r := range c.readers[g] {
					if c.prev[r] != nobody {
						continue
					}
					c.prev[r], c.via[r] = m, g
					c.queue = append(c.queue, r)
					if c.load[r] < c.load[least] {
						least = r
					}
				}
			}
		}
	}
	return least
}

// shift moves a shard along each link of the chain that the last search found.
func (c *chains) shift(from, to int32) {
	c.load[from]--
	c.load[to]++
	for m := to; m != from; m = c.prev[m] {
		c.has[c.cell(m, c.via[m])]++
		c.has[c.cell(c.prev[m], c.via[m])]--
	}
}
