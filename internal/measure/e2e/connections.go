package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
)

// serviceIdle is after how long the local AWS closes an idle connection here. Kinesis does
// so after some six seconds, by those who met it: its documentation does not say.
const serviceIdle = 6 * time.Second

// farAway is what an answer takes where the service is not in the same region.
const farAway = 100 * time.Millisecond

var connectionShards = []int{8, 100, 1000}

// connections measures how many connections to Kinesis a process keeps, how often it opens
// others, and what goes over them.
func connections(ctx context.Context, o options, out io.Writer) error {
	fmt.Fprintf(out, `
## Connections

Over TLS, limits enforced, everything by default but batches of 500. The service closes what
has been idle for %s. Idle for %s; a record of 1 KB a second and shard for as long; 100
such records at once in each shard; and idle again. In between, fed the same way, each answer to
GetRecords takes %s. Connections to Kinesis, and bytes as
they are on the wire.

| way | shards | | connections | handshakes a minute | resumed | KB a second in | out | processor, %% of a core | GetRecords a second | us a call |
|---|---|---|---|---|---|---|---|---|---|---|
`, serviceIdle, o.briefly(time.Minute), farAway)
	for _, c := range ways(o, "") {
		for _, shards := range connectionShards {
			if !strings.Contains(fmt.Sprintf("%s %d.", c.name, shards), o.only) {
				continue
			}
			err := servedTLSBy(awsfake.Options{EnforceLimits: true, IdleTimeout: serviceIdle}, shards, func(src source) error {
				return c.watch(ctx, column{name: "connections", batch: 500}, src, "output: { drop: {} }\n", func(w watched) error {
					return w.connectionPhases(ctx, o, c, src, out)
				})
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (w watched) connectionPhases(ctx context.Context, o options, c candidate, src source, out io.Writer) error {
	shards, err := shardsOf(src)
	if err != nil {
		return err
	}
	if _, err := w.awaitShards(ctx, src, len(shards), c.name == byFanOut); err != nil {
		return err
	}
	row := func(what string, during func() error) error {
		return w.traffic(ctx, c, src, len(shards), what, out, during)
	}
	lasts := o.briefly(time.Minute)
	idle := func() error { return rest(ctx, lasts) }
	f, stop := newFeed(src, 1<<10)
	defer stop()
	if err := row("start", func() error { return rest(ctx, 15*time.Second) }); err != nil {
		return err
	}
	if err := row("idle", idle); err != nil {
		return err
	}
	if err := row("live", func() error { return f.steadily(ctx, shards, 1, 1, lasts) }); err != nil {
		return err
	}
	far := src.fake.Inject(awsfake.Fault{Operation: "GetRecords", Delay: farAway})
	err = row(fmt.Sprintf("live, answers take %s", farAway), func() error { return f.steadily(ctx, shards, 1, 1, lasts) })
	far()
	if err != nil {
		return err
	}
	if err := row("burst", func() error {
		for _, shard := range shards {
			for range 100 {
				if err := f.put(shard); err != nil {
					return err
				}
			}
		}
		return rest(ctx, 5*time.Second)
	}); err != nil {
		return err
	}
	return row("after it", idle)
}

// traffic writes a row of what went over the connections during something.
func (w watched) traffic(ctx context.Context, c candidate, src source, shards int, what string, out io.Writer, during func() error) error {
	before, calls, begin := src.fake.Traffic(src.url), src.fake.Calls("GetRecords"), time.Now()
	used, err := cpu(w.PID())
	if err != nil {
		return err
	}
	if err := during(); err != nil {
		return err
	}
	after, lasted := src.fake.Traffic(src.url), time.Since(begin).Seconds()
	now, err := cpu(w.PID())
	if err != nil {
		return err
	}
	calls, used = src.fake.Calls("GetRecords")-calls, now-used
	fmt.Fprintf(out, "| %s | %d | %s | %d | %.0f | %d | %.1f | %.1f | %.1f | %.0f | %.0f |\n", c.name, shards, what, after.Open,
		float64(after.Handshakes-before.Handshakes)/lasted*60, after.Resumed-before.Resumed,
		float64(after.Sent-before.Sent)/lasted/1e3, float64(after.Received-before.Received)/lasted/1e3,
		100*used.Seconds()/lasted, float64(calls)/lasted, used.Seconds()*1e6/float64(max(calls, 1)))
	if c.profile == "" || what != "idle" {
		return nil
	}
	col := column{name: fmt.Sprintf("idle %d", shards)}
	if err := w.save(ctx, "profile?seconds=20", c.profile, c.name+" cpu", col); err != nil {
		return err
	}
	return w.save(ctx, "allocs", c.profile, c.name+" allocs", col)
}
