package balance

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// world is a table that clients see late and change under its conditions alone.
// In each round every client, in any order, plans from how the table was at the
// start of this round or, unless they are prompt, of the one before, and carries
// out its own part. One that joins sees of those that join with it as many as
// chance wants.
type world struct {
	random *rand.Rand
	prompt bool
	now    snapshot
	before *seen // a round ago; nil in the first
	joined map[string]bool

	claims int
	moves  int // from one live owner to another
}

// seen is a snapshot with the plan that all who see it make of it.
type seen struct {
	snapshot
	plan *Plan
}

func (s snapshot) see() *seen { return &seen{s, New(s.members, s.shards)} }

type snapshot struct {
	members []Member
	shards  []Shard
}

func (s snapshot) clone() snapshot {
	return snapshot{slices.Clone(s.members), slices.Clone(s.shards)}
}

func (s snapshot) has(client string) bool {
	return slices.ContainsFunc(s.members, func(m Member) bool { return m.Client == client })
}

func newWorld(seed uint64, shards []Shard) *world {
	return &world{random: rand.New(rand.NewPCG(seed, 0)), now: snapshot{shards: shards}}
}

// join lets clients join in the next round.
func (w *world) join(members ...Member) {
	if w.joined == nil {
		w.joined = map[string]bool{}
	}
	for _, m := range members {
		w.joined[m.Client] = true
	}
	w.now.members = append(w.now.members, members...)
}

// leave frees the shards of a client. What it asked for stays asked for.
func (w *world) leave(client string) {
	w.now.members = slices.DeleteFunc(w.now.members, func(m Member) bool { return m.Client == client })
	for i := range w.now.shards {
		if w.now.shards[i].Owner == client {
			w.now.shards[i].Owner = ""
		}
	}
}

func (w *world) round() {
	start := w.now.clone().see()
	for _, place := range w.random.Perm(len(start.members)) {
		self, view := start.members[place].Client, start
		switch {
		case w.joined[self]:
			part := start.clone()
			part.members = slices.DeleteFunc(part.members, func(m Member) bool {
				return m.Client != self && w.joined[m.Client] && w.random.IntN(2) == 0
			})
			view = part.see()
		case !w.prompt && w.before != nil && w.before.has(self) && w.random.IntN(2) == 0:
			view = w.before
		}
		w.act(self, view.shards, view.plan.Part(self))
	}
	w.before, w.joined = start, nil
}

func (w *world) act(self string, seen []Shard, part Part) {
	for _, i := range part.Claim {
		if shard := &w.now.shards[i]; shard.Owner == "" {
			shard.Owner, shard.Asker = self, ""
			w.claims++
		}
	}
	for _, i := range part.Ask {
		if shard := &w.now.shards[i]; *shard == seen[i] {
			shard.Asker = self
		}
	}
	for _, i := range part.Give {
		shard := &w.now.shards[i]
		switch {
		case *shard != seen[i]:
		case w.now.has(shard.Asker):
			shard.Owner, shard.Asker = shard.Asker, ""
			w.moves++
		default:
			shard.Owner = "" // whom it was given to has left meanwhile
		}
	}
	for _, i := range part.Refuse {
		if shard := &w.now.shards[i]; *shard == seen[i] {
			shard.Asker = ""
		}
	}
}

// settled reports whether a plan from the newest state leaves nothing to do.
func (w *world) settled() bool {
	p := New(w.now.members, w.now.shards)
	for _, m := range w.now.members {
		part := p.Part(m.Client)
		if len(part.Claim)+len(part.Ask)+len(part.Give)+len(part.Refuse) > 0 {
			return false
		}
	}
	return true
}

func (w *world) requireStill(t require.TestingT, rounds int) {
	moves, shards := w.moves, slices.Clone(w.now.shards)
	for range rounds {
		w.round()
	}
	require.Equal(t, moves, w.moves)
	require.Equal(t, shards, w.now.shards)
}

func TestFiftyThatJoinAtOnceBalanceInThreeRoundsWithFewMoves(t *testing.T) {
	for _, test := range []struct{ streams, owners int }{{1, 0}, {20, 1}, {2000, 5}, {20, 40}} {
		t.Run(fmt.Sprintf("%d streams and %d owners", test.streams, test.owners), func(t *testing.T) {
			w, all, least := fiftyJoin(1, test.streams, test.owners)
			w.prompt = true
			for range 3 {
				w.round()
			}
			requireEven(t, all, w.now.shards)
			require.LessOrEqual(t, w.claims+w.moves, least+least/2)
			w.requireStill(t, 3)
		})
	}
}

func TestFiftyThatJoinAtOnceMoveFewShardsWhenAllSeeLate(t *testing.T) {
	for _, owners := range []int{0, 5} {
		t.Run(fmt.Sprintf("%d owners", owners), func(t *testing.T) {
			w, all, least := fiftyJoin(1, 20, owners)
			for range 15 {
				w.round()
			}
			requireEven(t, all, w.now.shards)
			require.LessOrEqual(t, w.claims+w.moves, least+least/2)
			w.requireStill(t, 3)
		})
	}
}

// fiftyJoin returns a world of 2,000 shards, shared by owners or all free, that
// fifty clients are about to join, and the least number of shards that have to
// get another owner.
func fiftyJoin(seed uint64, streamCount, owners int) (w *world, all []Member, least int) {
	all = clients(owners + 50)
	shards := streams(streamCount, 2000/streamCount)
	if owners > 0 {
		shards = outcome(New(all[:owners], shards))
	}
	w = newWorld(seed, slices.Clone(shards))
	w.join(all[:owners]...)
	w.round()
	w.join(all[owners:]...)
	for i, after := range outcome(New(all, shards)) {
		if after.Owner != shards[i].Owner {
			least++
		}
	}
	return w, all, least
}

func TestViewsThatDifferComeToRest(t *testing.T) {
	const most = 12
	rapid.Check(t, func(t *rapid.T) {
		all := drawMembers(t, 12)
		w := newWorld(rapid.Uint64().Draw(t, "seed"), streams(4, rapid.IntRange(1, 20).Draw(t, "shards")))
		for range rapid.IntRange(1, 8).Draw(t, "rounds of change") {
			for _, m := range all {
				switch {
				case w.random.IntN(3) > 0:
				case w.now.has(m.Client):
					w.leave(m.Client)
				default:
					w.join(m)
				}
			}
			w.round()
		}
		rounds := 0
		for ; !w.settled(); rounds++ {
			require.Less(t, rounds, most, "still moving: %v", w.now.shards)
			w.round()
		}
		require.Equal(t, naiveLoads(w.now.members, w.now.shards), sortedLoads(w.now.members, w.now.shards))
		w.requireStill(t, 5)
	})
}
