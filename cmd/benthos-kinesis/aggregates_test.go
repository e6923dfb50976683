package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/kpl"
	"github.com/benthos-plugins/aws-kinesis/internal/kpl/kpltest"
)

// What becomes of aggregates shows in the messages, and in the counters.
func TestAggregatesComeApartAndAreCounted(t *testing.T) {
	const first, last = "0", "340282366920938463463374607431768211455" // hash keys of shards 0 and 1
	for foreign, want := range map[string]struct {
		lines  []string
		counts map[string]float64
	}{
		"keep": {
			[]string{"- plain", "- broken", "0 one", "1 two", "0 right", "1 wrong"},
			map[string]float64{"kinesis_user_records": 4, "kinesis_foreign_user_records": 1, "kinesis_dropped_aggregates": 0, "kinesis_broken_aggregates": 1},
		},
		"drop": {
			[]string{"- plain", "- broken", "0 one", "1 two"},
			map[string]float64{"kinesis_user_records": 2, "kinesis_foreign_user_records": 1, "kinesis_dropped_aggregates": 1, "kinesis_broken_aggregates": 1},
		},
	} {
		t.Run(foreign, func(t *testing.T) {
			r := newRig(t)
			require.NoError(t, r.aws.CreateStream("orders", 2))
			aggregate := func(contents ...string) []byte {
				var users []kpl.Record
				for _, content := range contents {
					key := first
					if content == "wrong" {
						key = last
					}
					users = append(users, kpl.Record{Data: []byte(content), PartitionKey: "k", ExplicitHashKey: key})
				}
				return kpltest.Encode(users)
			}
			broken := aggregate("three")
			broken[len(broken)-1]++
			for _, data := range [][]byte{[]byte("plain"), broken, aggregate("one", "two"), aggregate("right", "wrong")} {
				_, err := r.aws.PutTo("orders", "shardId-000000000000", "k", data)
				require.NoError(t, err)
			}
			address := r.address()
			p := r.start("-c", r.write("a.yaml", served(address, "a", "deaggregate: true", "deaggregate_foreign: "+foreign)+`
pipeline:
  processors:
    - mapping: |
        root = meta("kinesis_sub_sequence_number").or("-") + " " + if meta("kinesis_deaggregation_error") != null { "broken" } else { content().string() }
`))
			p.awaitLines("a", want.lines)
			r.await(fmt.Sprint(want.counts), func() bool {
				answer, ok := p.request("GET", "http://"+address+"/metrics", "")
				for name, n := range want.counts {
					ok = ok && sum(t, answer, name) == n
				}
				return ok
			})
			const line = "Stream orders: aggregated records of shard shardId-000000000000 are dropped: user records in the wrong shard: 1. They are lost to this pipeline"
			if foreign == "drop" {
				r.await("a line about it", func() bool { return strings.Contains(p.log.String(), line) })
			} else {
				require.NotContains(t, p.log.String(), "are dropped")
			}
		})
	}
}
