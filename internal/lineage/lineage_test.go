package lineage

import (
	"fmt"
	"math/big"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// balanced is the progress of shards that readers have begun who read parents
// first.
func balanced(states map[string]State) map[string]Progress {
	progress := map[string]Progress{}
	for id, state := range states {
		progress[id] = Progress{State: state, Balanced: state != Unknown}
	}
	return progress
}

func ready(g *Graph, ids ...string) []string {
	return slices.DeleteFunc(ids, func(id string) bool { return !g.Ready(id) })
}

func TestChildWaitsForBothMergeParents(t *testing.T) {
	shards := []Shard{{ID: "a", Closed: true}, {ID: "b", Closed: true}, {ID: "ab", Parents: []string{"a", "b"}}}
	for _, test := range []struct {
		a, b State
		want []string
	}{
		{Unknown, Unknown, []string{"a", "b"}},
		{Begun, Begun, []string{"a", "b"}},
		{Finished, Begun, []string{"b"}},
		{Begun, Finished, []string{"a"}},
		{Finished, Finished, []string{"ab"}},
	} {
		t.Run(fmt.Sprintf("%v and %v", test.a, test.b), func(t *testing.T) {
			g := NewGraph(shards, balanced(map[string]State{"a": test.a, "b": test.b}))
			require.Equal(t, test.want, ready(g, "a", "b", "ab"))
		})
	}
}

func TestClosedShardNeverReadIsReadFirst(t *testing.T) {
	g := NewGraph([]Shard{
		{ID: "old", Closed: true},
		{ID: "left", Parents: []string{"old"}},
		{ID: "right", Parents: []string{"old"}},
	}, nil)
	require.Equal(t, []string{"old"}, ready(g, "old", "left", "right"))
}

func TestShardThatTheBuiltInInputFinishedIsNotReadAgain(t *testing.T) {
	g := NewGraph([]Shard{
		{ID: "old", Closed: true},
		{ID: "mid", Parents: []string{"old"}, Closed: true},
		{ID: "new", Parents: []string{"mid"}},
		{ID: "other", Parents: []string{"old"}},
	}, balanced(map[string]State{"new": Begun}))
	require.Equal(t, []string{"new", "other"}, ready(g, "old", "mid", "new", "other"))
}

func TestParentThatIsStillBeingReadHoldsItsBegunChild(t *testing.T) {
	// The built-in input begins children before their parents are finished.
	g := NewGraph([]Shard{
		{ID: "old", Closed: true},
		{ID: "new", Parents: []string{"old"}},
	}, balanced(map[string]State{"old": Begun, "new": Begun}))
	require.Equal(t, []string{"old"}, ready(g, "old", "new"))
}

func TestStatesHaveNames(t *testing.T) {
	require.Equal(t, "cut", Cut.String())
	require.Equal(t, "invalid", (Cut + 1).String())
}

func TestTrimmedParentHoldsNobody(t *testing.T) {
	g := NewGraph([]Shard{{ID: "ab", Parents: []string{"a", "b"}}}, nil)
	require.True(t, g.Ready("ab"))
	require.False(t, g.Ready("a"), "a shard that is not there cannot be read")
}

func TestReaderOfTheChildAloneDoesNotFinishItsParent(t *testing.T) {
	shards := []Shard{{ID: "old", Closed: true}, {ID: "new", Parents: []string{"old"}}}
	for _, state := range []State{Begun, Reading, Finished} {
		g := NewGraph(shards, map[string]Progress{"new": {State: state}})
		require.Equal(t, []string{"old"}, ready(g, "old", "new"), "%v", state)
	}
}

func TestDescendantsOfAShardThatWasPickedOutDoNotFinishItsAncestors(t *testing.T) {
	g := NewGraph([]Shard{
		{ID: "a", Closed: true},
		{ID: "b", Closed: true, Parents: []string{"a"}},
		{ID: "c", Parents: []string{"b"}},
	}, map[string]Progress{"b": {State: Finished}, "c": {State: Begun, Balanced: true}})
	require.Equal(t, []string{"a", "c"}, ready(g, "a", "b", "c"))
}

func TestNothingBeginsWhileItIsNotKnownWhetherAParentWasFinished(t *testing.T) {
	shards := []Shard{{ID: "old", Closed: true}, {ID: "left", Parents: []string{"old"}}, {ID: "right", Parents: []string{"old"}}}
	g := NewGraph(shards, map[string]Progress{"left": {State: Reading, Undecided: true}})
	require.Empty(t, ready(g, "old", "left", "right"))
	require.True(t, g.Undecided("old"))

	g = NewGraph(shards, map[string]Progress{"left": {State: Reading, Undecided: true}, "right": {State: Begun, Balanced: true}})
	require.Equal(t, []string{"left", "right"}, ready(g, "old", "left", "right"), "the other one proves it")

	g = NewGraph(shards, map[string]Progress{"left": {State: Begun}})
	require.Equal(t, []string{"old"}, ready(g, "old", "left", "right"))
	require.True(t, g.Unproven("old"))
}

func TestParentThatHasLeftTheStreamHoldsItsChildWhileItIsRead(t *testing.T) {
	shards := []Shard{{ID: "new", Parents: []string{"old"}}}
	for state, want := range map[State]bool{Unknown: true, Begun: true, Reading: false, Finished: true} {
		g := NewGraph(shards, balanced(map[string]State{"old": state}))
		require.Equal(t, want, g.Ready("new"), "%v", state)
	}
}

func TestNothingComesOutOfAShardThatWasCut(t *testing.T) {
	g := NewGraph([]Shard{
		{ID: "cut", Closed: true},
		{ID: "read", Closed: true},
		{ID: "other", Closed: true},
		{ID: "child", Parents: []string{"cut"}, Closed: true},
		{ID: "merged", Parents: []string{"read", "child"}, Closed: true},
		{ID: "grandchild", Parents: []string{"merged"}},
		{ID: "kept", Parents: []string{"read"}},
		{ID: "late", Parents: []string{"other"}},
		{ID: "taken", Parents: []string{"cut"}},
	}, balanced(map[string]State{"cut": Cut, "read": Finished, "other": Begun, "taken": Reading}))
	var done []string
	all := []string{"cut", "read", "other", "child", "merged", "grandchild", "kept", "late", "taken"}
	for _, id := range all {
		if g.Done(id) {
			done = append(done, id)
		}
	}
	require.Equal(t, []string{"cut", "read", "child", "merged", "grandchild"}, done)
	require.Equal(t, []string{"other", "kept"}, ready(g, all...))
	require.False(t, g.Finished("cut"))
	require.True(t, g.Beyond("cut"))

	g = NewGraph([]Shard{{ID: "a", Parents: []string{"b"}}, {ID: "b", Parents: []string{"a"}}}, balanced(map[string]State{"c": Cut}))
	require.False(t, g.Done("a"), "a cycle, which no stream has")
}

func TestShardHoldsNoSequenceBelowItsFirst(t *testing.T) {
	for number, want := range map[string]bool{"": false, "99": false, "100": true, "1000": true} {
		require.Equal(t, want, Shard{FirstSequence: "100"}.Holds(number), number)
	}
	require.True(t, Shard{}.Holds("1"), "nothing is known")
	require.True(t, Shard{FirstSequence: "null"}.Holds("1"), "nothing is known")
}

func TestShardIsReachedThroughAnyAncestor(t *testing.T) {
	g := NewGraph([]Shard{
		{ID: "a", Closed: true},
		{ID: "b", Closed: true},
		{ID: "ab", Parents: []string{"a", "b"}, Closed: true},
		{ID: "child", Parents: []string{"ab"}},
		{ID: "alone"},
	}, nil)
	only := func(read string) func(string) bool { return func(id string) bool { return id == read } }
	require.True(t, g.Reached("child", only("b")))
	require.True(t, g.Reached("child", only("child")))
	require.False(t, g.Reached("alone", only("b")))
	require.False(t, g.Reached("a", only("child")), "a descendant does not help")
	require.False(t, g.Reached("unknown", only("unknown")))
}

// stream is a naive stream with its readers: shards split, merge, are trimmed
// when finished, are begun and finished as the graph allows.
type stream struct {
	shards []Shard
	states map[string]State
	pinned map[string]bool     // begun by a reader that was told to
	parent map[string][]string // of every shard that ever was
	done   map[string]bool     // read to the end, ever
}

func (s *stream) add(parents ...string) {
	id := fmt.Sprint("s", len(s.parent))
	s.parent[id] = parents
	s.shards = append(s.shards, Shard{ID: id, Parents: parents})
	for i := range s.shards {
		if slices.Contains(parents, s.shards[i].ID) {
			s.shards[i].Closed = true
		}
	}
}

func (s *stream) graph() *Graph {
	progress := balanced(s.states)
	for id := range s.pinned {
		progress[id] = Progress{State: s.states[id]}
	}
	return NewGraph(s.shards, progress)
}

func (s *stream) pick(t *rapid.T, which func(Shard) bool) (string, bool) {
	var ids []string
	for _, shard := range s.shards {
		if which(shard) {
			ids = append(ids, shard.ID)
		}
	}
	if len(ids) == 0 {
		return "", false
	}
	return rapid.SampledFrom(ids).Draw(t, "shard"), true
}

func TestNoChildBeforeItsParentsAndNothingUnreachable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &stream{states: map[string]State{}, pinned: map[string]bool{}, parent: map[string][]string{}, done: map[string]bool{}}
		for range rapid.IntRange(1, 4).Draw(t, "shards") {
			s.add()
		}
		open := func(shard Shard) bool { return !shard.Closed }
		finish := func(id string, builtIn bool) {
			s.done[id], s.states[id] = true, Finished
			// The built-in input deletes the item of a finished shard, having
			// begun its children by then.
			if builtIn {
				delete(s.states, id)
				for _, shard := range s.shards {
					if slices.Contains(shard.Parents, id) && s.states[shard.ID] == Unknown && !s.done[shard.ID] {
						s.states[shard.ID] = Begun
					}
					if slices.Contains(shard.Parents, id) {
						delete(s.pinned, shard.ID)
					}
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"split": func(t *rapid.T) {
				if id, ok := s.pick(t, open); ok {
					s.add(id)
					s.add(id)
				}
			},
			"merge": func(t *rapid.T) {
				a, _ := s.pick(t, open)
				b, ok := s.pick(t, func(shard Shard) bool { return open(shard) && shard.ID != a })
				if ok {
					s.add(a, b)
				}
			},
			"trim": func(t *rapid.T) {
				// Retention removes the oldest records first, so parents go
				// before their children.
				id, ok := s.pick(t, func(shard Shard) bool {
					return shard.Closed && s.done[shard.ID] && !slices.ContainsFunc(s.shards, func(other Shard) bool {
						return slices.Contains(shard.Parents, other.ID)
					})
				})
				if ok {
					s.shards = slices.DeleteFunc(s.shards, func(shard Shard) bool { return shard.ID == id })
					delete(s.states, id)
				}
			},
			"begin": func(t *rapid.T) {
				g := s.graph()
				if id, ok := s.pick(t, func(shard Shard) bool { return g.Ready(shard.ID) }); ok {
					s.states[id] = Begun
				}
			},
			"begin out of turn": func(t *rapid.T) {
				if id, ok := s.pick(t, func(shard Shard) bool { return s.states[shard.ID] == Unknown && !s.done[shard.ID] }); ok {
					s.states[id], s.pinned[id] = Begun, true
				}
			},
			"finish": func(t *rapid.T) {
				g := s.graph()
				id, ok := s.pick(t, func(shard Shard) bool {
					return shard.Closed && s.states[shard.ID] == Begun && g.Ready(shard.ID)
				})
				if !ok {
					return
				}
				// A closed shard that the built-in input skipped, whose child it
				// has begun, looks in the table like one that it finished:
				// nobody could tell, so the model has it skip none.
				skips := slices.ContainsFunc(s.shards, func(child Shard) bool {
					return slices.Contains(child.Parents, id) && slices.ContainsFunc(child.Parents, func(other string) bool {
						return other != id && (s.states[other] == Unknown || s.pinned[other]) && !s.done[other]
					})
				})
				finish(id, !skips && rapid.Bool().Draw(t, "by the built-in input"))
			},
			"": func(t *rapid.T) {
				g := s.graph()
				for _, shard := range s.shards {
					if !g.Ready(shard.ID) {
						continue
					}
					require.False(t, s.done[shard.ID], "%s is read again", shard.ID)
					for _, parent := range s.parent[shard.ID] {
						require.True(t, s.done[parent], "%s is read before its parent %s", shard.ID, parent)
					}
				}
			},
		})

		// Whatever has happened, reading on reaches every record: all closed
		// shards become finished and all open ones are read.
		for progress := true; progress; {
			progress = false
			g := s.graph()
			for _, shard := range s.shards {
				if shard.Closed && g.Ready(shard.ID) {
					finish(shard.ID, false)
					progress = true
				}
			}
		}
		g := s.graph()
		for _, shard := range s.shards {
			require.True(t, s.done[shard.ID] || g.Ready(shard.ID), "%s is unreachable", shard.ID)
		}
	})
}

func TestListIsWholeThatSharesOutAllKeys(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		top := new(big.Int).Sub(keys, big.NewInt(1))
		shards := []Shard{{FirstKey: "0", LastKey: top.String()}}
		number := func(s string) *big.Int {
			n, ok := new(big.Int).SetString(s, 10)
			require.True(t, ok)
			return n
		}
		for range rapid.IntRange(0, 20).Draw(t, "splits") {
			i := rapid.IntRange(0, len(shards)-1).Draw(t, "shard")
			parent := &shards[i]
			first, last := number(parent.FirstKey), number(parent.LastKey)
			if parent.Closed || first.Cmp(last) == 0 {
				continue
			}
			middle := new(big.Int).Rsh(new(big.Int).Add(first, last), 1)
			parent.Closed = true
			shards = append(shards,
				Shard{FirstKey: first.String(), LastKey: middle.String()},
				Shard{FirstKey: middle.Add(middle, big.NewInt(1)).String(), LastKey: last.String()})
		}
		shards = rapid.Permutation(shards).Draw(t, "order")
		require.True(t, Covers(shards))

		i := rapid.IntRange(0, len(shards)-1).Draw(t, "other")
		if shards[i].Closed {
			shards[i].Closed = false
			require.False(t, Covers(shards), "parent and children at once")
			return
		}
		require.False(t, Covers(slices.Delete(slices.Clone(shards), i, i+1)), "a child is missing")
		shards[i].LastKey = ""
		require.True(t, Covers(shards), "nothing is known")
	})
}
