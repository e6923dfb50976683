// Package lineage decides which shards may be read, from how splits and merges
// made one out of the other: a child only after all its parents, so that the
// records of a key keep their order.
//
// The package is pure. What it is given may be older than the truth: it then
// answers too little, and never too much, since a shard once finished stays so.
package lineage

import (
	"fmt"
	"math/big"
	"slices"
	"strings"

	"github.com/benthos-plugins/aws-kinesis/internal/sequence"
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
	// FirstSequence and LastSequence bound the sequence numbers of its records;
	// empty when they are not known, as the last one of an open shard.
	FirstSequence, LastSequence string
}

// ShardID returns the id of a shard in Kinesis, shardId-000000000000 for one that is
// written as 0 or in full.
func ShardID(written string) string {
	if strings.HasPrefix(written, "shardId-") {
		return written
	}
	return fmt.Sprintf("shardId-%012s", strings.TrimLeft(written, "0"))
}

// Holds reports whether a sequence number can be one of this shard's. One that is
// below all of them was recorded for a shard of the same id in a stream that was
// deleted and made anew. A bound that is not known excludes none.
func (s Shard) Holds(number string) bool {
	return !sequence.Valid(s.FirstSequence) || sequence.Compare(s.FirstSequence, number) <= 0
}

// keys is the number of hash keys, which go from 0 to 2^128-1: those of MD5.
var keys = new(big.Int).Lsh(big.NewInt(1), 128)

// Covers reports whether the open shards share out all hash keys, each to one of
// them, as those of a stream always do. A list that does not lags behind the
// stream. Nothing can be told of one with keys that are not known, which counts as
// whole.
func Covers(shards []Shard) bool {
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

// State is what is known of the reading of a shard.
type State int

// The states.
const (
	// Unknown shards have no item that is theirs.
	Unknown State = iota
	// Begun shards have an item, and nobody reads them now.
	Begun
	// Reading shards have a reader.
	Reading
	// Finished shards were read to the end, and everything acknowledged.
	Finished
	// Cut shards were read up to a moment at which their reading ends, and everything
	// acknowledged. They were open then, so that their children began after it.
	Cut
)

func (s State) String() string {
	switch s {
	case Unknown:
		return "unknown"
	case Begun:
		return "begun"
	case Reading:
		return "reading"
	case Finished:
		return "finished"
	case Cut:
		return "cut"
	}
	return "invalid"
}

// Progress is what the table tells of a shard.
type Progress struct {
	State State
	// Balanced is whether it was begun by a reader that reads parents first, so
	// that its parents must have been finished by then. One that was told to read
	// this very shard proves nothing of the kind.
	Balanced bool
	// Undecided is whether it is not known yet if it is Balanced. Until it is, nothing
	// is done that would be wrong in one of the two cases.
	Undecided bool
}

// Graph is the lineage of the shards of one stream with what is known of each.
type Graph struct {
	shards   map[string]Shard
	children map[string][]string
	progress map[string]Progress

	descended map[string]descent // memo of descent
	// beyond is a memo of Beyond, nil where no shard is cut.
	beyond map[string]bool
}

// NewGraph returns the graph of the shards that a stream lists. progress may have shards that the stream lists no more: one of them that still
// has a reader holds its children back.
func NewGraph(shards []Shard, progress map[string]Progress) *Graph {
	g := &Graph{
		shards:    make(map[string]Shard, len(shards)),
		children:  make(map[string][]string, len(shards)),
		progress:  progress,
		descended: make(map[string]descent, len(shards)),
	}
	for _, p := range progress {
		if p.State == Cut {
			g.beyond = make(map[string]bool, len(shards))
			break
		}
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
// it has left the stream and nobody reads it any more, or it is closed, has no
// item and a balanced reader has begun a descendant of it. The last is how
// Benthos' built-in input leaves a finished shard: it deletes the item.
func (g *Graph) Finished(id string) bool {
	shard, listed := g.shards[id]
	state := g.progress[id].State
	switch {
	case state == Finished:
		return true
	case state == Cut:
		return false // its children are not to be read
	case state == Reading:
		// Also of a shard that the list has dropped: what its reader has under way
		// is older than all records of its children.
		return false
	case !listed:
		return true
	case state == Begun:
		return false
	}
	return shard.Closed && g.descent(id) == provenDescent
}

// Done reports whether nothing will be left to read of a shard, here or elsewhere: it is
// finished or cut, or comes out of one that was cut.
func (g *Graph) Done(id string) bool { return g.Finished(id) || g.Beyond(id) }

// Beyond reports whether all that is left of a shard lies beyond the moment at which
// reading ends: it was cut there, or a shard was that it comes out of. A shard that
// somebody reads all the same is not done with.
func (g *Graph) Beyond(id string) bool {
	switch {
	case g.beyond == nil, g.progress[id].State == Reading:
		return false
	case g.progress[id].State == Cut:
		return true
	}
	beyond, known := g.beyond[id]
	if known {
		return beyond
	}
	g.beyond[id] = false // a cycle, which no stream has, must not hang us
	g.beyond[id] = slices.ContainsFunc(g.shards[id].Parents, g.Beyond)
	return g.beyond[id]
}

// Undecided reports whether it is not known yet if a shard is finished: it is closed
// and has no item, and all that its descendants tell is Undecided.
func (g *Graph) Undecided(id string) bool {
	shard, listed := g.shards[id]
	return listed && shard.Closed && g.progress[id].State == Unknown && g.descent(id) == undecidedDescent
}

// Unproven reports whether a shard counts as never read though a descendant of it was
// begun, by somebody who proves nothing: it may be read once more than it need be.
func (g *Graph) Unproven(id string) bool {
	shard, listed := g.shards[id]
	return listed && shard.Closed && g.progress[id].State == Unknown && g.descent(id) == unprovenDescent
}

// Ready reports whether a shard may be read: it is listed and not done with, and
// each of its parents is finished.
func (g *Graph) Ready(id string) bool {
	shard, listed := g.shards[id]
	if !listed || g.Done(id) || g.Undecided(id) {
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

// descent is the most that the descendants of a shard tell of it.
type descent int

const (
	noDescent        descent = iota + 1 // none has been begun
	unprovenDescent                     // one has, which proves nothing
	undecidedDescent                    // one has, which may prove that the shard was finished
	provenDescent                       // one has, which does
)

func (g *Graph) descent(id string) descent {
	if known, ok := g.descended[id]; ok {
		return known
	}
	g.descended[id] = noDescent // a cycle, which no stream has, must not hang us
	most := noDescent
	for _, child := range g.children[id] {
		p := g.progress[child]
		switch {
		case p.Balanced:
			most = max(most, provenDescent)
		case p.Undecided:
			most = max(most, undecidedDescent)
		case p.State != Unknown:
			// Its own descendants follow from it, and tell no more of this shard.
			most = max(most, unprovenDescent)
		default:
			most = max(most, g.descent(child))
		}
	}
	g.descended[id] = most
	return most
}
