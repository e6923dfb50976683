package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
)

const (
	burstShards  = 512
	burstRecords = 100 // of 10 KB in each shard
	burstHold    = 5 * time.Second
	burstBudget  = 64 << 20
)

// burst fills many shards at once that had no backlog, before an output that is slow.
func burst(ctx context.Context, c candidate, out io.Writer) error {
	const slowly = `pipeline: { threads: 1, processors: [ { sleep: { duration: 20ms } } ] }
output: { drop: {} }
`
	col := column{"a burst", burstShards * burstRecords, 10_000, 50}
	return served(awsfake.Options{EnforceLimits: true}, burstShards, func(src source) error {
		input := c.input
		c.input = func(col column, src source) string {
			return input(col, src) + fmt.Sprintf("    max_buffered_bytes: %d\n", burstBudget)
		}
		return c.watch(ctx, col, src, slowly, func(w watched) error {
			if _, err := w.awaitShards(ctx, src, burstShards, false); err != nil {
				return err
			}
			for range 2 { // so that the size of a record is known
				if err := fill(src, column{records: burstShards, size: col.size}); err != nil {
					return err
				}
				if err := rest(ctx, 10*time.Second); err != nil {
					return err
				}
			}
			before, err := memory(w.PID(), "VmRSS")
			if err != nil {
				return err
			}
			// Whatever asks while the records are put in gets its answer afterwards.
			release := src.fake.Inject(awsfake.Fault{Operation: "GetRecords", Delay: burstHold})
			err = fill(src, col)
			release()
			if err != nil {
				return err
			}
			most := int64(0)
			for begin := time.Now(); time.Since(begin) < 30*time.Second; {
				held, err := w.metric(ctx, "kinesis_buffered_bytes{") // not that of the limit
				if err != nil {
					return err
				}
				most = max(most, held)
				if err := rest(ctx, sentPoll); err != nil {
					return err
				}
			}
			resident, err := peak(w.PID())
			if err != nil {
				return err
			}
			fmt.Fprintf(out, "| %s | %d | %d | %d | %d |\n", c.name, burstBudget>>20, most>>20, before>>20, resident>>20)
			return nil
		})
	})
}
