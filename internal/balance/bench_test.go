package balance

import (
	"fmt"
	"testing"
)

func BenchmarkPlan(b *testing.B) {
	for _, size := range []struct{ shards, members int }{{2_000, 50}, {10_000, 100}} {
		members := clients(size.members)
		free := streams(20, size.shards/20)
		one := streams(20, size.shards/20)
		for i := range one {
			one[i].Owner = "client-00"
		}
		for _, state := range []struct {
			name    string
			members []Member
			shards  []Shard
		}{
			{"free", members, free},
			{"one owner", members, one},
			{"balanced", members, outcome(New(members, free))},
			{"members differ", differing(members), one},
		} {
			b.Run(fmt.Sprintf("%d by %d/%s", size.shards, size.members, state.name), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					New(state.members, state.shards).Part("client-01")
				}
			})
		}
	}
}

// differing returns members of which each reads all but one of 20 streams.
func differing(members []Member) (all []Member) {
	for i, m := range members {
		m.Streams = []string{}
		for s := range 20 {
			if s != i%20 {
				m.Streams = append(m.Streams, fmt.Sprint("stream-", s))
			}
		}
		all = append(all, m)
	}
	return all
}
