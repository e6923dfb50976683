package leases_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
	"github.com/benthos-plugins/aws-kinesis/internal/leases"
	"github.com/benthos-plugins/aws-kinesis/internal/table"
)

// Whatever a view has of a shard, something is said of it, and a living owner is never
// told to be replaced.
func TestEveryShardIsExplained(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
		lag := leases.Seconds(rapid.Float64Range(0, 1e6).Draw(t, "lag"))
		s := leases.Shard{
			Stream: "orders", Shard: "c", Parents: rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b"}), 0, 2).Draw(t, "parents"),
			State: rapid.SampledFrom([]leases.State{
				leases.Reading, leases.Handed, leases.Orphaned, leases.Free, leases.Waiting, leases.Undecided,
				leases.Finished, leases.Cut, leases.Beyond, leases.Trimmed, leases.Unlisted,
			}).Draw(t, "state"),
			Owner:   rapid.SampledFrom([]string{"m", "n"}).Draw(t, "owner"),
			Life:    rapid.SampledFrom([]leases.Life{leases.Alive, leases.Late, leases.Unproven, leases.Dead, leases.Gone}).Draw(t, "life"),
			HasItem: rapid.Bool().Draw(t, "item"), Foreign: rapid.Bool().Draw(t, "foreign"), LiteralOwner: rapid.Bool().Draw(t, "literal"),
			Unproven: rapid.Bool().Draw(t, "unproven"), EarlierStream: rapid.Bool().Draw(t, "earlier"), Pinned: rapid.Bool().Draw(t, "pinned"),
		}
		if rapid.Bool().Draw(t, "times") {
			s.FreeAt, s.CutAt, s.Lag = &at, &at, &lag
		}
		v := leases.View{Streams: []leases.Stream{{Name: "orders", Shards: []leases.Shard{s, {Stream: "orders", Shard: "a", State: leases.Reading, Owner: "n"}}}}}
		if rapid.Bool().Draw(t, "member") {
			v.Members = []leases.Member{{ID: "m", Streams: rapid.SliceOfN(rapid.SampledFrom([]string{"orders", "returns"}), 0, 2).Draw(t, "streams"), Requests: map[string]int{"n": 1}}}
		}
		e, ok := leases.Explain(v, "orders", "c")
		require.True(t, ok)
		require.NotEmpty(t, e.Reasons)
		for _, r := range e.Reasons {
			require.NotContains(t, r.Text+r.Remedy, "%!")
			require.NotContains(t, r.Text+r.Remedy, "  ")
			if e.Read {
				require.NotContains(t, []leases.Code{leases.CodeDead, leases.CodeGone, leases.CodeUnclaimed, leases.CodeNobody}, r.Code)
			}
		}
		_, ok = leases.Explain(v, "orders", "nonsense")
		require.False(t, ok)
	})
}

func TestChangesBetweenTwoViews(t *testing.T) {
	onStage(t, func(s *stage) {
		r := s.reader("orders")
		told := func(before leases.View) (v leases.View, all []string) {
			v = s.view(r)
			for _, c := range leases.Changes(before, v) {
				all = append(all, c.String())
			}
			return v, all
		}
		v := s.view(r)
		s.join("a", "orders")
		s.claim("a", 0)
		v, changes := told(v)
		require.Equal(s, []string{"client a joined", "orders:shardId-000000000000 has the owner a now", "orders:shardId-000000000000 is reading, and was free"}, changes)

		s.beats("a")
		v, changes = told(v)
		require.Empty(s, changes, "that it lives was to be expected")

		_, _, err := s.aws.Split("orders", key(0).Shard)
		require.NoError(s, err)
		s.finish("a", 0)
		v, changes = told(v)
		require.Equal(s, []string{
			"orders:shardId-000000000000 has no owner any more, which was a", "orders:shardId-000000000000 is finished, and was reading",
			"orders:shardId-000000000002 is new, and is free: it comes out of a split of shardId-000000000000", "orders:shardId-000000000003 is new, and is free: it comes out of a split of shardId-000000000000",
		}, changes)

		time.Sleep(period) //nolint:forbidigo // virtual time
		v, changes = told(v)
		require.Equal(s, []string{"client a is dead, and was alive"}, changes)

		require.NoError(s, s.table.Evict(s.Context(), s.beat["a"]))
		v, changes = told(v)
		require.Equal(s, []string{"client a was evicted"}, changes)
		require.Equal(s, []string{"a"}, v.Evicted)
	})
}

// What the table knows of a shard is in the view, and comes back from its JSON.
func TestViewHasWhatTheItemHas(t *testing.T) {
	onStage(t, func(s *stage) {
		s.put(0, awsfake.Item{
			table.AttrSequence: awsfake.String(s.last(0)), table.AttrOwner: awsfake.String("a"), table.AttrTerm: awsfake.String("a/7"),
			table.AttrToken: awsfake.String("2026-01-02T03:04:05Z"), table.AttrNumber: awsfake.Number(3),
			table.AttrInside: awsfake.String(s.last(0) + "/" + s.last(1) + "/5"), table.AttrPinned: awsfake.String("a"),
			table.AttrUpTo: awsfake.Number(time.Now().Unix() - 7),
		})
		s.join("a", "orders")
		v := s.view(s.reader())
		sh, ok := v.Shard("orders", key(0).Shard)
		require.True(s, ok)
		require.Equal(s, s.last(0), sh.Sequence)
		require.Equal(s, &leases.Inside{Sequence: s.last(1), Records: 5}, sh.Inside)
		require.Equal(s, 7*time.Second, sh.Lag.Duration())
		require.Equal(s, int64(3), sh.TermNumber)
		require.Equal(s, "7", sh.Term)
		require.True(s, sh.Pinned)
		require.Equal(s, 2026, sh.LeaseUntil.Year())
		require.Equal(s, 1, v.Members[0].Shards)

		encoded, err := json.Marshal(v)
		require.NoError(s, err)
		var again leases.View
		require.NoError(s, json.Unmarshal(encoded, &again))
		same, err := json.Marshal(again)
		require.NoError(s, err)
		require.Equal(s, string(encoded), string(same), "what is read back is what was written")
	})
}

// Lineage and positions of the parents are those that a member sees.
func TestViewHasTheLineage(t *testing.T) {
	onStage(t, func(s *stage) {
		low, high, err := s.aws.Split("orders", key(0).Shard)
		require.NoError(s, err)
		v := s.view(s.reader("orders"))
		parent, _ := v.Shard("orders", key(0).Shard)
		require.Equal(s, []string{low, high}, parent.Children)
		require.True(s, parent.Closed)
		require.Equal(s, leases.Free, parent.State)
		child, _ := v.Shard("orders", low)
		require.Equal(s, []string{key(0).Shard}, child.Parents)
		require.Equal(s, leases.Waiting, child.State)

		s.join("a", "orders")
		s.finish("a", 0)
		child, _ = s.view(s.reader("orders")).Shard("orders", low)
		require.Equal(s, leases.Free, child.State)
	})
}
