package leasepage

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/benthos-plugins/aws-kinesis/internal/leases"
)

// lagging is a view in which these shards have a lag.
func lagging(lags map[string]leases.Seconds) leases.View {
	stream := leases.Stream{Name: "orders"}
	for shard, lag := range lags {
		stream.Shards = append(stream.Shards, leases.Shard{Stream: "orders", Shard: shard, State: leases.Reading, Lag: &lag})
	}
	return leases.View{Streams: []leases.Stream{stream}}
}

// The model keeps everything, and looks for the greatest of each slot.
func TestHistoryIsThatOfAModelThatForgetsNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h, at := newHistory(), time.Duration(0)
		type place struct {
			shard string
			slot  int64
		}
		all := map[place]int32{}
		for range rapid.IntRange(1, 30).Draw(t, "readings") {
			at += time.Duration(rapid.OneOf(rapid.Int64Range(0, 30), rapid.Int64Range(0, 5000)).Draw(t, "seconds")) * time.Second
			lags := map[string]leases.Seconds{}
			for _, shard := range rapid.SliceOfDistinct(rapid.SampledFrom([]string{"a", "b", "c"}), rapid.ID).Draw(t, "shards") {
				lag := rapid.Int32Range(0, 100).Draw(t, "lag")
				lags[shard] = leases.Seconds(lag)
				p := place{shard, int64(at / resolution)}
				if was, ok := all[p]; !ok || lag > was {
					all[p] = lag
				}
			}
			h.record(at, lagging(lags))

			newest := int64(at / resolution)
			from := rapid.Int64Range(-1, newest+1).Draw(t, "after")
			got := h.after(from)
			first := max(from+1, newest-slots+1, 0)
			if from > newest {
				first = max(newest-slots+1, 0)
			}
			require.Equal(t, first, got.From)
			require.Equal(t, newest, got.To)
			for _, shard := range []string{"a", "b", "c"} {
				var want []int32
				some := false
				for n := max(newest-slots+1, 0); n <= newest; n++ {
					lag, ok := all[place{shard, n}]
					some = some || ok
					if !ok {
						lag = unknown
					}
					if n >= first {
						want = append(want, lag)
					}
				}
				lag, ok := got.Lag["orders"][shard]
				require.Equal(t, some, ok, shard)
				if some {
					require.Equal(t, want, append([]int32(nil), lag...)) // nil where it is empty
				}
			}
		}
	})
}

// What docs/leases.md says that 1,000 shards take.
func TestHistoryOfAThousandShardsTakesTwoMegabytesAtMost(t *testing.T) {
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	lags := map[string]leases.Seconds{}
	for i := range 1000 {
		lags[fmt.Sprintf("shardId-%012d", i)] = 1
	}
	v := lagging(lags)
	before := heap()
	h := newHistory()
	for n := range 2 * slots {
		h.record(time.Duration(n)*resolution, v)
	}
	took := heap() - before
	t.Logf("%d bytes", took)
	require.Less(t, took, int64(2<<20))
	runtime.KeepAlive(h)
	runtime.KeepAlive(v)
}

func TestLabelsGoOnAfterZ(t *testing.T) {
	for n, want := range map[int]string{0: "A", 25: "Z", 26: "AA", 27: "AB", 51: "AZ", 52: "BA", 701: "ZZ", 702: "AAA"} {
		require.Equal(t, want, labelOf(n))
	}
}
