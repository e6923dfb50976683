package balance

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func clients(n int) (members []Member) {
	for m := range n {
		members = append(members, Member{Client: fmt.Sprintf("client-%02d", m)})
	}
	return members
}

// streams returns n streams of some shards each, all free.
func streams(n, shards int) (all []Shard) {
	for s := range n {
		for i := range shards {
			all = append(all, Shard{Stream: fmt.Sprint("stream-", s), ID: fmt.Sprintf("shardId-%012d", i)})
		}
	}
	return all
}

// outcome is what the shards look like when a plan has been carried out.
func outcome(p *Plan) []Shard {
	after := slices.Clone(p.shards)
	for i := range after {
		after[i].Owner = p.Home(i)
	}
	return after
}

func loads(members []Member, shards []Shard) map[string]int {
	loads := make(map[string]int, len(members))
	for _, m := range members {
		loads[m.Client] = 0
	}
	for _, s := range shards {
		if s.Owner != "" {
			loads[s.Owner]++
		}
	}
	return loads
}

func sortedLoads(members []Member, shards []Shard) []int {
	all := slices.AppendSeq(make([]int, 0, len(members)), maps.Values(loads(members, shards)))
	slices.Sort(all)
	return all
}

func moves(before, after []Shard) (n int) {
	for i := range before {
		if before[i].Owner != "" && before[i].Owner != after[i].Owner {
			n++
		}
	}
	return n
}

func requireEven(t require.TestingT, members []Member, shards []Shard) {
	all := sortedLoads(members, shards)
	require.LessOrEqual(t, all[len(all)-1]-all[0], 1, "loads %v", all)
	for _, s := range shards {
		require.NotEmpty(t, s.Owner)
	}
}

func TestTwentyStreamsOfOneShardAreSharedByFour(t *testing.T) {
	members := clients(4)
	require.Equal(t, []int{5, 5, 5, 5}, sortedLoads(members, outcome(New(members, streams(20, 1)))))

	owned := streams(20, 1)
	for i := range owned {
		owned[i].Owner = "client-00"
	}
	after := outcome(New(members, owned))
	require.Equal(t, []int{5, 5, 5, 5}, sortedLoads(members, after))
	require.Equal(t, 15, moves(owned, after))
}

func TestShardsOfAStreamSpreadOverMembers(t *testing.T) {
	members := clients(7)
	for _, test := range []struct {
		name   string
		shards []Shard
	}{
		{"free", streams(10, 21)},
		{"with one owner", streams(10, 21)},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.name != "free" {
				for i := range test.shards {
					test.shards[i].Owner = "client-03"
				}
			}
			count := map[string]map[string]int{}
			for _, s := range outcome(New(members, test.shards)) {
				if count[s.Stream] == nil {
					count[s.Stream] = map[string]int{}
				}
				count[s.Stream][s.Owner]++
			}
			for stream, by := range count {
				for _, m := range members {
					require.Equal(t, 3, by[m.Client], "%s has %v", stream, by)
				}
			}
		})
	}
}

func TestFreeShardsGoToTheLeastLoadedAndNothingMoves(t *testing.T) {
	members := clients(3)
	shards := streams(1, 14)
	for i := range 5 {
		shards[i].Owner = "client-00"
	}
	shards[5].Owner = "client-02"
	after := outcome(New(members, shards))
	require.Zero(t, moves(shards, after))
	require.Equal(t, map[string]int{"client-00": 5, "client-01": 5, "client-02": 4}, loads(members, after))
}

func TestShardsOfAMemberThatLeftAreSharedByTheOthers(t *testing.T) {
	members := clients(5)
	shards := outcome(New(members, streams(3, 50)))
	for i := range shards {
		if shards[i].Owner == "client-02" {
			shards[i].Owner = ""
		}
	}
	members = slices.Delete(members, 2, 3)
	after := outcome(New(members, shards))
	requireEven(t, members, after)
	require.Zero(t, moves(shards, after))
}

func TestNoShardGoesToAMemberThatCannotReadIt(t *testing.T) {
	shards := slices.Concat(streams(3, 4), []Shard{{Stream: "unread", ID: "0"}})
	members := []Member{
		{Client: "a", Streams: []string{"stream-0", "elsewhere"}},
		{Client: "b", Streams: []string{"stream-1", "stream-2"}},
		{Client: "none", Streams: []string{}},
	}
	p := New(members, shards)
	require.Equal(t, map[string]int{"a": 4, "b": 8, "none": 0}, loads(members, outcome(p)))
	require.Empty(t, p.Home(12), "nobody reads that stream")
	require.Empty(t, p.Part("none"))
}

func TestChainOfMovesBalancesMembersThatShareNoStream(t *testing.T) {
	// a can give to b alone, and only b to c.
	members := []Member{
		{Client: "a", Streams: []string{"stream-0"}},
		{Client: "b", Streams: []string{"stream-0", "stream-1"}},
		{Client: "c", Streams: []string{"stream-1"}},
	}
	shards := streams(2, 4)
	for i := range shards {
		shards[i].Owner = []string{"a", "a", "a", "a", "b", "b", "b", "c"}[i]
	}
	after := outcome(New(members, shards))
	require.Equal(t, map[string]int{"a": 3, "b": 3, "c": 2}, loads(members, after))
	require.Equal(t, 2, moves(shards, after))
}

func TestOwnerThatDoesNotAnnounceItselfIsAMemberOfItsStreams(t *testing.T) {
	shards := streams(2, 6)
	for i := range 6 {
		shards[i].Owner = "silent"
	}
	members := clients(1)
	after := outcome(New(members, shards))
	require.Equal(t, map[string]int{"silent": 6, "client-00": 6}, loads(members, after), "stream-1 is not its own to read")

	after = outcome(New(members, shards[:6]))
	require.Equal(t, map[string]int{"silent": 3, "client-00": 3}, loads(members, after))
}

func TestOwnerThatCannotReadAStreamAnyMoreGivesItsShards(t *testing.T) {
	shards := []Shard{{Stream: "old", ID: "0", Owner: "a"}}
	p := New([]Member{{Client: "a", Streams: []string{"new"}}, {Client: "b"}}, shards)
	require.Equal(t, Part{Request: []int{0}}, p.Part("b"))
	require.Equal(t, Part{Give: []int{0}}, p.Part("a"))
}

func TestPartsSayWhatEachMemberHasToDo(t *testing.T) {
	members := clients(3)
	shards := slices.Concat(streams(1, 7), []Shard{{Stream: "unread", ID: "0"}})
	for i := range 6 {
		shards[i].Owner = members[i/5].Client
	}
	for m := range members {
		members[m].Streams = []string{"stream-0"}
	}
	// Of seven, client-00 has five and client-01 one.
	p := New(members, shards)
	first, second, third := p.Part("client-00"), p.Part("client-01"), p.Part("client-02")
	require.Len(t, first.Give, 2)
	require.Empty(t, slices.Concat(first.Claim, first.Request))
	require.Equal(t, []int{6}, slices.Concat(second.Claim, third.Claim))
	require.ElementsMatch(t, first.Give, slices.Concat(second.Request, third.Request))
	require.Empty(t, slices.Concat(second.Give, third.Give))
	for _, i := range third.Request {
		require.Equal(t, "client-02", p.Home(i))
	}
	require.Empty(t, p.Part("stranger"))
	require.Empty(t, p.Part(""))
}

func TestMostLoadedGivesToTheLeastLoaded(t *testing.T) {
	shards := streams(1, 4)
	for i := range shards {
		shards[i].Owner = []string{"client-00", "client-00", "client-00", "client-01"}[i]
	}
	after := outcome(New(clients(3), shards))
	require.Equal(t, map[string]int{"client-00": 2, "client-01": 1, "client-02": 1}, loads(clients(3), after))
	require.Equal(t, 1, moves(shards, after))
}

func TestFreeShardsGoElsewhereBeforeOwnedOnesMove(t *testing.T) {
	// Once a has to take both of stream-2, it has one too many.
	members := []Member{
		{Client: "a", Streams: []string{"stream-0", "stream-1", "stream-2"}},
		{Client: "b", Streams: []string{"stream-0", "stream-1"}},
		{Client: "c", Streams: []string{"stream-0"}},
	}
	shards := []Shard{
		{Stream: "stream-0", ID: "0", Owner: "a"},
		{Stream: "stream-0", ID: "1", Owner: "b"},
		{Stream: "stream-0", ID: "2", Owner: "b"},
		{Stream: "stream-0", ID: "3", Owner: "c"},
		{Stream: "stream-0", ID: "4", Owner: "c"},
		{Stream: "stream-1", ID: "0"},
		{Stream: "stream-2", ID: "0"},
		{Stream: "stream-2", ID: "1"},
	}
	after := outcome(New(members, shards))
	require.Equal(t, map[string]int{"a": 3, "b": 3, "c": 2}, loads(members, after))
	require.Zero(t, moves(shards, after))
}

func TestOneMoreMemberChangesFewOfTheShardsThatOthersGet(t *testing.T) {
	// Clients that disagree on one member reach for the same shard seldom.
	shards := streams(1, 500)
	for i := range shards {
		shards[i].Owner = "client-00"
	}
	nine, ten := New(clients(9), shards), New(clients(10), shards)
	same := 0
	for i := range shards {
		if nine.Home(i) == ten.Home(i) {
			same++
		}
	}
	require.Greater(t, same, 400)
}

// Everything below holds for whatever rapid draws.

func drawMembers(t *rapid.T, most int) []Member {
	members := clients(rapid.IntRange(1, most).Draw(t, "members"))
	if rapid.Bool().Draw(t, "members differ") {
		for m := range members {
			mask := rapid.IntRange(0, 15).Draw(t, "streams read")
			members[m].Streams = []string{}
			for s := range 4 {
				if mask>>s&1 == 1 {
					members[m].Streams = append(members[m].Streams, fmt.Sprint("stream-", s))
				}
			}
		}
	}
	return members
}

// drawShards gives shards owners that can read them, or none.
func drawShards(t *rapid.T, members []Member, most int) (shards []Shard) {
	for i := range rapid.IntRange(0, most).Draw(t, "shards") {
		s := Shard{Stream: fmt.Sprint("stream-", rapid.IntRange(0, 3).Draw(t, "stream")), ID: fmt.Sprint(i)}
		// A few owners have most.
		m := rapid.IntRange(-1, len(members)-1).Draw(t, "owner")
		if m >= 0 && reads(members[m], s.Stream) {
			s.Owner = members[m].Client
		}
		shards = append(shards, s)
	}
	return shards
}

func reads(m Member, stream string) bool {
	return m.Streams == nil || slices.Contains(m.Streams, stream)
}

func TestPlanOfItsOwnOutcomeIsItself(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		members := drawMembers(t, 8)
		shards := drawShards(t, members, 40)
		once := outcome(New(members, shards))
		again := New(members, once)
		require.Equal(t, once, outcome(again))
		for _, m := range members {
			require.Empty(t, again.Part(m.Client))
		}
	})
}

func TestOrderOfWhatIsGivenChangesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		members := drawMembers(t, 8)
		shards := drawShards(t, members, 40)
		want := outcome(New(members, shards))

		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		places := random.Perm(len(shards))
		mixed := make([]Shard, len(shards))
		for i, place := range places {
			mixed[place] = shards[i]
		}
		random.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
		got := outcome(New(members, mixed))
		for i, place := range places {
			require.Equal(t, want[i], got[place])
		}
	})
}

func TestLoadsAreThoseOfTheNaiveModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		members := drawMembers(t, 8)
		shards := drawShards(t, members, 40)
		after := outcome(New(members, shards))
		for _, s := range after {
			m := slices.IndexFunc(members, func(m Member) bool { return m.Client == s.Owner })
			if m >= 0 {
				require.True(t, reads(members[m], s.Stream))
				continue
			}
			require.Empty(t, s.Owner)
			require.False(t, slices.ContainsFunc(members, func(m Member) bool { return reads(m, s.Stream) }))
		}
		require.Equal(t, naiveLoads(members, shards), sortedLoads(members, after))
	})
}

// naiveLoads gives every shard to the first who can read it, and then moves
// single shards along any chain between two clients that differ by two, until
// there is none.
func naiveLoads(members []Member, shards []Shard) []int {
	of := make([]int, len(shards))
	load := make([]int, len(members))
	for i, s := range shards {
		of[i] = slices.IndexFunc(members, func(m Member) bool { return reads(m, s.Stream) })
		if of[i] >= 0 {
			load[of[i]]++
		}
	}
	var walk func(from, to int, seen []bool) bool
	walk = func(from, to int, seen []bool) bool {
		seen[from] = true
		for i, s := range shards {
			if of[i] != from {
				continue
			}
			for next, m := range members {
				if reads(m, s.Stream) && !seen[next] && (next == to || walk(next, to, seen)) {
					of[i] = next
					return true
				}
			}
		}
		return false
	}
	for moved := true; moved; {
		moved = false
		for from := range members {
			for to := range members {
				if load[from]-load[to] >= 2 && walk(from, to, make([]bool, len(members))) {
					load[from]--
					load[to]++
					moved = true
				}
			}
		}
	}
	slices.Sort(load)
	return load
}

// Clients that know of the same members, and have seen different parts of a plan
// done, so still have the same plan, and no shard moves twice.
func TestPlanThatIsCarriedOutInPartStaysThePlan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		members := clients(rapid.IntRange(1, 12).Draw(t, "members"))
		shards := drawShards(t, members, 80)
		want := outcome(New(members, shards))
		for range rapid.IntRange(1, 4).Draw(t, "steps") {
			before := slices.Clone(shards)
			for i := range shards {
				if rapid.Bool().Draw(t, "done") {
					shards[i].Owner = want[i].Owner
				}
			}
			after := outcome(New(members, shards))
			require.Equal(t, want, after)
			require.Equal(t, moves(before, want)-moves(before, shards), moves(shards, after))
		}
	})
}

func TestFewestShardsMoveWhereAllReadTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		members := clients(rapid.IntRange(1, 4).Draw(t, "members"))
		shards := drawShards(t, members, 7)
		after := outcome(New(members, shards))
		requireEven(t, members, after)
		require.Equal(t, fewestMoves(members, slices.Clone(shards), shards, 0, 0), moves(shards, after))
	})
}

// fewestMoves tries every way to share the shards, those from the given one on.
func fewestMoves(members []Member, try, shards []Shard, from, moved int) int {
	if from == len(shards) {
		if all := sortedLoads(members, try); all[len(all)-1]-all[0] > 1 {
			return len(shards) + 1
		}
		return moved
	}
	best := len(shards) + 1
	for _, m := range members {
		try[from].Owner = m.Client
		cost := moved
		if owner := shards[from].Owner; owner != "" && owner != m.Client {
			cost++
		}
		best = min(best, fewestMoves(members, try, shards, from+1, cost))
	}
	return best
}

func TestPartsAreDisjointAndMakeTheWholePlan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		members := drawMembers(t, 8)
		shards := drawShards(t, members, 40)
		p := New(members, shards)
		after := slices.Clone(shards)
		var requested, given []int
		for _, m := range members {
			part := p.Part(m.Client)
			for _, i := range part.Claim {
				require.Empty(t, after[i].Owner, "free, and claimed by nobody else")
				after[i].Owner = m.Client
			}
			for _, i := range part.Request {
				require.Equal(t, shards[i].Owner, after[i].Owner, "requested by nobody else")
				require.NotContains(t, []string{"", m.Client}, shards[i].Owner)
				after[i].Owner = m.Client
			}
			for _, i := range part.Give {
				require.Equal(t, m.Client, shards[i].Owner)
			}
			requested, given = append(requested, part.Request...), append(given, part.Give...)
		}
		require.ElementsMatch(t, requested, given)
		require.Equal(t, outcome(p), after)
	})
}
