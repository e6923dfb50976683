package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
)

var sizingShards = []int{10, 100, 1000}

// sizing measures what one process takes of the services and of its machine, for streams
// of several sizes: the figures from which docs/operating.md computes money.
func sizing(ctx context.Context, o options, out io.Writer) error {
	fmt.Fprintf(out, `
## One process

Over TLS, limits enforced, everything by default but batches of 500. Idle for %s, a minute
after all shards were claimed; then a record of 1 KB a second and shard for as long. Units are those
of DynamoDB, memory is resident: now and at most. "Came out" is how many of the records that
were put in that time the output had by its end.

| input | shards | | GetRecords a shard-minute | read units a minute | write units a shard-minute | processor, %% of a core | memory, MiB | came out |
|---|---|---|---|---|---|---|---|---|
`, o.briefly(time.Minute))
	for _, c := range candidates(o) {
		for _, shards := range sizingShards {
			if !strings.Contains(fmt.Sprintf("%s %d.", c.name, shards), o.only) {
				continue
			}
			err := servedTLSBy(awsfake.Options{EnforceLimits: true}, shards, func(src source) error {
				src.tableURL = "" // the built-in input has one endpoint for both
				return c.watch(ctx, column{name: "sizing", batch: 500}, src, "output: { drop: {} }\n", func(w watched) error {
					return w.sizingPhases(ctx, o, c, src, shards, out)
				})
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (w watched) sizingPhases(ctx context.Context, o options, c candidate, src source, shards int, out io.Writer) error {
	owned, err := awaitOwners(ctx, src, shards)
	if err != nil {
		return err
	}
	if owned < shards {
		fmt.Fprintf(out, "| %s | %d | had claimed %d after %s | | | | | | |\n", c.name, shards, owned, claimPatience)
		return nil
	}
	if err := rest(ctx, o.briefly(time.Minute)); err != nil {
		return err
	}
	open, err := shardsOf(src)
	if err != nil {
		return err
	}
	lasts := o.briefly(time.Minute)
	f, stop := newFeed(src, 1<<10)
	defer stop()
	if err := w.taken(ctx, c, src, f, shards, "idle", out, func() error { return rest(ctx, lasts) }); err != nil {
		return err
	}
	return w.taken(ctx, c, src, f, shards, "fed", out, func() error { return f.steadily(ctx, open, 1, 1, lasts) })
}

// claimPatience is how long a process may take to claim all shards.
const claimPatience = 5 * time.Minute

// awaitOwners returns how many items of shards have an owner, when all have or patience is
// at its end.
func awaitOwners(ctx context.Context, src source, shards int) (owned int, err error) {
	for end := time.Now().Add(claimPatience); time.Now().Before(end); {
		items, err := src.fake.Items(src.table)
		owned = 0
		for _, item := range items { // none while there is no table
			if item["ClientID"].Text != "" {
				owned++
			}
		}
		if err == nil && owned >= shards {
			break
		}
		if err := rest(ctx, 100*time.Millisecond); err != nil {
			return 0, err
		}
	}
	return owned, nil
}

// taken writes a row of what the process took during something.
func (w watched) taken(ctx context.Context, c candidate, src source, f *feed, shards int, what string, out io.Writer, during func() error) error {
	begin, calls := time.Now(), src.fake.Calls("GetRecords")
	before, err := src.fake.Capacity(src.table)
	if err != nil {
		return err
	}
	used, err := cpu(w.PID())
	if err != nil {
		return err
	}
	if err := during(); err != nil {
		return err
	}
	f.mu.Lock()
	put := len(f.fed)
	f.mu.Unlock()
	sent, sentErr := w.sent(ctx)
	after, err := src.fake.Capacity(src.table)
	now, cpuErr := cpu(w.PID())
	rss, rssErr := memory(w.PID(), "VmRSS")
	most, mostErr := peak(w.PID())
	if err := errors.Join(err, sentErr, cpuErr, rssErr, mostErr, ctx.Err()); err != nil {
		return err
	}
	lasted := time.Since(begin)
	each := func(n float64) float64 { return n / float64(shards) / lasted.Minutes() }
	fmt.Fprintf(out, "| %s | %d | %s | %.1f | %.0f | %.2f | %.1f | %d, %d | %d of %d |\n", c.name, shards, what,
		each(float64(src.fake.Calls("GetRecords")-calls)), (after.ReadUnits-before.ReadUnits)/lasted.Minutes(),
		each(after.WriteUnits-before.WriteUnits), 100*(now-used).Seconds()/lasted.Seconds(), rss>>20, most>>20, sent, put)
	return nil
}
