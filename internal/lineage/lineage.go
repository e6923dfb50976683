// Package lineage decides which shards may be read, from how splits and merges
// made one out of the other: a child only after all its parents, so that the
// records of a key keep their order.
//
// The package is pure. What it is given may be older than the truth: it then
// answers too little, and never too much, since a shard once finished stays so.
package lineage

import (
	"math/big"
	"slices"
)

// Shard is a shard as the stream lists it.
type Shard struct {
	ID string
	// Parents are the ids of the shard that was split, or of the two that were
	// merged, into this one. A parent that the stream does not list any more
	// has been trimmed, with all its records.
	Parents []string
	// Closed shards take no records any more. An open one has no children.
	Closed bool
	// FirstKey and LastKey bound its hash keys, both included, as decimal numbers;
	// empty when they are not known.
	FirstKey, LastKey string
}

// keys is the number of hash keys, which go from 0 to 2^128-1: those of MD5.
var keys = new(big.Int).Lsh(big.NewInt(1), 128)

// Whole reports whether the open shards share out all hash keys, each to one of
// them, as those of a stream always do. A list that is not whole lags behind the
// stream. Nothing can be told of one with keys that are not known, which counts as
// whole.
func Whole(shards []Shard) bool {
	type span struct{ first, last *big.Int }
	var open []span
	for _, s := range shards {
		if s.Closed {
			continue
		}
		first, ok := new(big.Int).SetString(s.FirstKey, 10)
		last, lastOK := new(big.Int).SetString(s.LastKey, 10)
		if !ok || !lastOK {
			return true
		}
		open = append(open, span{first, last})
	}
	slices.SortFunc(open, func(a, b span) int { return a.first.Cmp(b.first) })
	next := new(big.Int)
	for _, s := range open {
		if s.first.Cmp(next) != 0 {
			return false
		}
		next.Add(s.last, big.NewInt(1))
	}
	return next.Cmp(keys) == 0
}

// State is what the table tells of a shard.
type State int

// The states.
const (
	// Unknown shards have no item.
	Unknown State = iota
	// Begun shards have an item, with an owner or without.
	Begun
	// Finished shards were read to the end, and everything acknowledged.
	Finished
)

func (s State) String() string {
	switch s {
	case Unknown:
		return "unknown"
	case Begun:
		return "begun"
	case Finished:
		return "finished"
	}
	return "invalid"
}

// Graph is the lineage of the shards of one stream with what is known of each.
type Graph struct {
	shards   map[string]Shard
	children map[string][]string
	states   map[string]State

	descended map[string]bool // memo of hasDescendantItem
}

// NewGraph returns the graph of the shards that a stream lists.
func NewGraph(shards []Shard, states map[string]State) *Graph {
	g := &Graph{
		shards:    make(map[string]Shard, len(shards)),
		children:  make(map[string][]string, len(shards)),
		states:    states,
		descended: make(map[string]bool, len(shards)),
	}
	for _, s := range shards {
		g.shards[s.ID] = s
		for _, parent := range s.Parents {
			g.children[parent] = append(g.children[parent], s.ID)
		}
	}
	return g
}

// Finished reports whether nothing is left to read of a shard: it is marked so,
// it has left the stream, or it is closed, has no item and a descendant of it
// has one. The last is how Benthos' built-in input leaves a finished shard: it
// deletes the item.
func (g *Graph) Finished(id string) bool {
	shard, listed := g.shards[id]
	switch {
	case !listed, g.states[id] == Finished:
		return true
	case g.states[id] == Begun:
		return false
	}
	return shard.Closed && g.hasDescendantItem(id)
}

// Ready reports whether a shard may be read: it is listed and not finished, and
// each of its parents is finished.
func (g *Graph) Ready(id string) bool {
	shard, listed := g.shards[id]
	if !listed || g.Finished(id) {
		return false
	}
	for _, parent := range shard.Parents {
		if !g.Finished(parent) {
			return false
		}
	}
	return true
}

// Reached reports whether the shard or an ancestor of it is being read, so that
// its own turn comes by itself.
func (g *Graph) Reached(id string, read func(id string) bool) bool {
	return g.reached(id, read, map[string]bool{})
}

func (g *Graph) reached(id string, read func(id string) bool, seen map[string]bool) bool {
	shard, listed := g.shards[id]
	if !listed || seen[id] {
		return false
	}
	seen[id] = true
	if read(id) {
		return true
	}
	for _, parent := range shard.Parents {
		if g.reached(parent, read, seen) {
			return true
		}
	}
	return false
}

func (g *Graph) hasDescendantItem(id string) bool {
	if known, ok := g.descended[id]; ok {
		return known
	}
	g.descended[id] = false // a cycle, which no stream has, must not hang us
	for _, child := range g.children[id] {
		if g.states[child] != Unknown || g.hasDescendantItem(child) {
			g.descended[id] = true
			break
		}
	}
	return g.descended[id]
}
