package verify_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/benthos-plugins/aws-kinesis/internal/measure/verify"
)

func id(shard, sequence int) verify.ID {
	return verify.ID{Shard: fmt.Sprint(shard), Sequence: fmt.Sprint(sequence)}
}

func TestRunInOrderBreaksNoPromise(t *testing.T) {
	l := verify.New("start")
	for n := range 20 {
		l.Put(fmt.Sprint(n%3), id(n%2, n))
	}
	for n := range 20 {
		require.True(t, l.See(id(n%2, n)))
	}
	r := l.Report()
	require.NoError(t, r.Err())
	require.Equal(t, verify.Report{In: 20, Out: 20, Phases: []verify.Phase{{Name: "start", Out: 20}}}, r)
}

func TestMissingRecordIsReported(t *testing.T) {
	l := verify.New("start")
	l.Put("a", id(0, 1))
	l.Put("a", id(0, 2))
	l.See(id(0, 2))
	require.Equal(t, 1, l.Outstanding())
	require.Equal(t, 1, l.Report().Missing)
	require.ErrorContains(t, l.Report().Err(), "1 records missing")
}

func TestUnknownRecordDoesNotMakeUpForAMissingOne(t *testing.T) {
	l := verify.New("start")
	l.Put("a", id(0, 1))
	l.See(id(1, 1))
	require.Equal(t, 1, l.Outstanding())
	require.ErrorContains(t, l.Report().Err(), "1 records missing")
	require.ErrorContains(t, l.Report().Err(), "1 records came out that were never put")
}

func TestSightingMayComeBeforeItsPut(t *testing.T) {
	l := verify.New("start")
	l.See(id(0, 1))
	l.Put("a", id(0, 1))
	require.Zero(t, l.Outstanding())
	require.NoError(t, l.Report().Err())
}

func TestOrderCountsWithinAKeyOnly(t *testing.T) {
	l := verify.New("start")
	l.Put("a", id(0, 1))
	l.Put("b", id(0, 2))
	l.Put("a", id(0, 3))
	for _, n := range []int{2, 3, 1} {
		l.See(id(0, n))
	}
	require.Equal(t, 1, l.Report().Inversions)
	require.ErrorContains(t, l.Report().Err(), "1 records came out before an earlier record of their key")
}

func TestUserRecordsOfAnAggregateAreRecordsOfTheirOwn(t *testing.T) {
	l := verify.New("start")
	user := func(sub int) verify.ID { return verify.ID{Shard: "0", Sequence: "1", Sub: sub} }
	for sub := range 4 {
		l.Put("a", user(sub))
	}
	require.True(t, l.See(user(2)))
	require.True(t, l.See(user(1)))
	require.False(t, l.See(user(1)))
	require.Equal(t, []verify.ID{user(0), user(3)}, l.MissingIDs())
	require.Equal(t, 1, l.Report().Inversions)
	require.Equal(t, 1, l.SeenOf(func(id verify.ID) bool { return id.Sub > 1 }))
}

func TestOrderAlongShardsLeavesOutThoseBesideOneAnother(t *testing.T) {
	// Shard 0 was split into 1 and 2, which were merged into 3.
	ancestors := map[string][]string{"1": {"0"}, "2": {"0"}, "3": {"1", "2", "0"}}
	for name, test := range map[string]struct {
		put, seen []int // shards
		want      int
	}{
		"beside":                     {[]int{1, 2}, []int{2, 1}, 0},
		"before its parent":          {[]int{0, 1}, []int{1, 0}, 1},
		"before its second parent":   {[]int{1, 2, 3}, []int{1, 3, 2}, 1},
		"before its parent's parent": {[]int{0, 3}, []int{3, 0}, 1},
		"parent put after its child": {[]int{1, 0}, []int{1, 0}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			l := verify.New("start")
			for i, shard := range test.put {
				l.Put("a", verify.ID{Shard: fmt.Sprint(shard), Sequence: fmt.Sprint(i)})
			}
			for _, shard := range test.seen {
				for i, s := range test.put {
					if s == shard {
						l.See(verify.ID{Shard: fmt.Sprint(shard), Sequence: fmt.Sprint(i)})
					}
				}
			}
			require.Equal(t, test.want, l.InversionsAlong(ancestors))
		})
	}
}

func TestOrderIsThatOfTheTimesAndNotOfWhoIsHeardFirst(t *testing.T) {
	l := verify.New("start")
	l.Put("a", id(0, 1))
	l.Put("a", id(0, 2))
	require.True(t, l.SeeAt(id(0, 2), 7))
	require.True(t, l.SeeAt(id(0, 1), 9))
	require.Equal(t, 1, l.Report().Inversions)
	require.False(t, l.SeeAt(id(0, 1), 5))
	require.Zero(t, l.Report().Inversions)
	require.Equal(t, 1, l.Report().Repeats)
}

func TestOrderIsThatOfFirstSightings(t *testing.T) {
	l := verify.New("start")
	l.Put("a", id(0, 1))
	l.Put("a", id(0, 2))
	for _, n := range []int{1, 2, 1} {
		l.See(id(0, n))
	}
	require.Zero(t, l.Report().Inversions)
	require.Equal(t, 1, l.Report().Repeats)
}

func TestRepeatAboveTheCheckpointIsExcused(t *testing.T) {
	l := verify.New("start")
	for n := 8; n <= 11; n++ {
		l.Put("a", id(0, n))
		l.See(id(0, n))
	}
	l.Begin("kill", map[string]string{"0": "9"})
	require.False(t, l.See(id(0, 10)))
	require.False(t, l.See(id(0, 11)))

	r := l.Report()
	require.NoError(t, r.Err())
	require.Equal(t, verify.Phase{Name: "kill", Out: 2, Repeats: 2, Allowed: 2}, r.Phases[1])
}

func TestRepeatOfACommittedRecordIsNotExcused(t *testing.T) {
	l := verify.New("start")
	l.Put("a", id(0, 9))
	l.Put("a", id(0, 10))
	l.See(id(0, 9))
	l.See(id(0, 10))
	l.Begin("kill", map[string]string{"0": "9"})
	l.See(id(0, 9))

	r := l.Report()
	require.Equal(t, 1, r.Phases[1].Rewound)
	require.ErrorContains(t, r.Err(), "after the kill although a checkpoint covered them")
}

func TestRepeatWithoutAStopIsNotExcused(t *testing.T) {
	l := verify.New("start")
	l.Put("a", id(0, 1))
	l.See(id(0, 1))
	l.See(id(0, 1))
	require.ErrorContains(t, l.Report().Err(), "1 repeats after the start beyond")
}

func TestStopExcusesEachRecordOnce(t *testing.T) {
	l := verify.New("start")
	for n := 9; n <= 11; n++ {
		l.Put("a", id(0, n))
		l.See(id(0, n))
	}
	l.Begin("kill", map[string]string{"0": "9"})
	l.See(id(0, 10))
	l.See(id(0, 10))

	r := l.Report()
	require.Equal(t, verify.Phase{Name: "kill", Out: 2, Repeats: 2, Allowed: 2, Unexcused: 1}, r.Phases[1])
	require.ErrorContains(t, r.Err(), "1 repeats after the kill beyond")
}

func TestStopOfOneProcessExcusesNothingOfTheOthers(t *testing.T) {
	l := verify.New("start")
	for shard := range 3 {
		l.Put("a", id(shard, 9))
		l.See(id(shard, 9))
	}
	l.BeginWithout("kill", map[string]string{"0": "8", "1": ""})
	for shard := range 3 {
		l.See(id(shard, 9))
	}

	r := l.Report()
	require.Equal(t, verify.Phase{Name: "kill", Out: 3, Repeats: 3, Allowed: 2, Unexcused: 1}, r.Phases[1])
	require.ErrorContains(t, r.Err(), "1 repeats after the kill beyond")
}

func TestExcuseMayComeBeforeTheRecord(t *testing.T) {
	l := verify.New("start")
	l.Put("a", id(0, 1))
	l.Excuse(id(0, 1))
	l.See(id(0, 1))
	l.See(id(0, 1))
	require.NoError(t, l.Report().Err())
	l.See(id(0, 1))
	require.Error(t, l.Report().Err())
}

func TestSequenceNumbersCompareAsNumbers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.Uint64Min(1).Draw(t, "a"), rapid.Uint64Min(1).Draw(t, "b")
		want := 0
		if a < b {
			want = -1
		} else if a > b {
			want = 1
		}
		require.Equal(t, want, verify.Compare(fmt.Sprint(a), fmt.Sprint(b)))
		require.Equal(t, -1, verify.Compare("", fmt.Sprint(a)))
	})
}

// The model looks at the whole history again for each figure.
func TestReportAgreesWithAModelOfTheWholeHistory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 12).Draw(t, "records")
		keys := rapid.SliceOfN(rapid.IntRange(0, 3), n, n).Draw(t, "keys")
		sightings := rapid.SliceOfN(rapid.IntRange(0, n-1), 0, 30).Draw(t, "sightings")

		l := verify.New("start")
		for i, key := range keys {
			l.Put(fmt.Sprint(key), id(0, i+1))
		}
		var firsts []int // records by first sighting
		position := map[int]int{}
		for _, i := range sightings {
			_, again := position[i]
			require.Equal(t, !again, l.See(id(0, i+1)))
			if !again {
				position[i] = len(firsts)
				firsts = append(firsts, i)
			}
		}
		inversions := 0
		for at, i := range firsts {
			for _, later := range firsts[at+1:] {
				if later < i && keys[later] == keys[i] {
					inversions++
					break
				}
			}
		}
		r := l.Report()
		require.Equal(t, n-len(firsts), r.Missing)
		require.Equal(t, n-len(firsts), l.Outstanding())
		require.Equal(t, len(sightings)-len(firsts), r.Repeats)
		require.Equal(t, inversions, r.Inversions)
		require.Equal(t, inversions, l.InversionsAlong(nil), "of one shard")
	})
}
