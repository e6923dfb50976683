package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
)

// A scenario measures candidates in one situation and writes a row for each.
type scenario struct {
	name  string
	title string
	run   func(context.Context, candidate, io.Writer) error
}

var scenarios = []scenario{
	{"slow", `200 shards full of backlog, an output that takes a millisecond a message

| records | input | read in 40 s | peak memory, MiB |
|---|---|---|---|
`, slow},
	{"limit", `One shard with 60 MB of backlog in records of 1 KB, limits enforced

| input | MB a second | of the limit | GetRecords calls | throttled |
|---|---|---|---|---|
`, limit},
	{"trickle", `8 shards with a record a second each for a minute, limits enforced

| input | records | from put to output, median | 99th percentile | longest | throttled |
|---|---|---|---|---|---|
`, trickle},
	{"slow-link", `20 shards full of records of 1 KB, over a link of 50 KB/s that all share, for a minute

| input | KB a second | of the link | records of each shard | repeated | lost | GetRecords calls |
|---|---|---|---|---|---|---|
`, slowLink},
	{"burst", `512 shards without a backlog that get 1 MB each at once, and an output that is slow

| input | max_buffered_bytes, MiB | held at most | memory before, MiB | at most |
|---|---|---|---|---|
`, burst},
	{"keys", `One shard, an output that takes 50 ms a request and has 64 at once, 20 s each

| | order | messages a second | of the first | messages | of a request | requests at once | inverted | overlapping | us of processor time a message |
|---|---|---|---|---|---|---|---|---|---|
`, keys},
}

func runScenario(ctx context.Context, out io.Writer, o options) error {
	if done, err := runFanOut(ctx, out, o); done {
		return err
	}
	i := slices.IndexFunc(scenarios, func(s scenario) bool { return s.name == o.scenario })
	if i < 0 {
		return fmt.Errorf("-scenario %s: give table, slow, limit, trickle, slow-link, burst, keys, dead or connections, or fan-out, for all of %s", o.scenario, strings.Join(fanOutNames(), ", "))
	}
	fmt.Fprint(out, scenarios[i].title)
	for _, c := range candidates(o) {
		if c.isFloor {
			continue
		}
		if err := scenarios[i].run(ctx, c, out); err != nil {
			return err
		}
	}
	return nil
}

// served runs what needs a local AWS with a stream of so many shards.
func served(opts awsfake.Options, shards int, do func(source) error) (err error) {
	return servedBy(opts, shards, func(src *source) (err error) {
		src.url, err = src.fake.Listen()
		return err
	}, do)
}

func servedBy(opts awsfake.Options, shards int, listen func(*source) error, do func(source) error) (err error) {
	src := source{fake: awsfake.New(opts), stream: "orders", table: "leases"}
	defer func() { err = errors.Join(err, src.fake.Close()) }()
	if err := listen(&src); err != nil {
		return err
	}
	if err := src.fake.CreateStream(src.stream, shards); err != nil {
		return err
	}
	return do(src)
}

// slowShards are full of more than any budget holds: 2 GB, or where records are
// small, so many that their messages would take as much.
var slowShards = []column{
	{"100 B, batches of 500", 4_000_000, 100, 500},
	{"1 KB, batches of 500", 2_000_000, 1 << 10, 500},
	{"1 KB, no batching", 2_000_000, 1 << 10, 1},
	{"10 KB, batches of 100", 200_000, 10 << 10, 100},
	{"1 MB, batches of 4", 2000, 1 << 20, 4},
}

func slow(ctx context.Context, c candidate, out io.Writer) error {
	const (
		shards = 200
		lasts  = 40 * time.Second
		slowly = `pipeline: { threads: 1, processors: [ { sleep: { duration: 1ms } } ] }
output: { drop: {} }
`
	)
	for _, col := range slowShards {
		if !strings.Contains(col.name, c.only) {
			continue
		}
		err := served(awsfake.Options{}, shards, func(src source) error {
			if err := fill(src, col); err != nil {
				return err
			}
			return c.watch(ctx, col, src, slowly, func(w watched) error {
				end, err := w.await(ctx, sentPoll, lasts, func(sample) bool { return false }, true)
				if err != nil {
					return err
				}
				most, err := peak(w.PID())
				if err != nil {
					return err
				}
				fmt.Fprintf(out, "| %s | %s | %d | %d |\n", col.name, c.name, end.sent, most>>20)
				return nil
			})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// watch runs a candidate for as long as a function takes.
func (c candidate) watch(ctx context.Context, col column, src source, rest string, do func(watched) error) error {
	w, err := c.launch(ctx, col, src, rest)
	if err != nil {
		return err
	}
	return w.end(do(w))
}

const throughputExceeded = "ProvisionedThroughputExceededException"

func limit(ctx context.Context, c candidate, out io.Writer) error {
	const shardRate = 2e6 // bytes of payload and partition key a second
	col := column{"a backlog at the limit", 60_000, 1000, 500}
	return served(awsfake.Options{EnforceLimits: true}, 1, func(src source) error {
		if err := fill(src, col); err != nil {
			return err
		}
		total := int64(0)
		shards, err := src.fake.Shards(src.stream)
		if err != nil {
			return err
		}
		records, err := src.fake.Records(src.stream, shards[0].ID)
		if err != nil {
			return err
		}
		for _, r := range records {
			total += int64(len(r.Data) + len(*r.PartitionKey))
		}
		r, err := c.measure(ctx, col, src)
		if err != nil {
			return err
		}
		rate := float64(total) * float64(r.records) / float64(col.records) / r.wall.Seconds()
		calls, refused := src.fake.Calls("GetRecords"), src.fake.Refused("GetRecords", throughputExceeded)
		fmt.Fprintf(out, "| %s%s | %.3f | %.1f %% | %d | %d, %.1f %% |\n",
			c.name, cutNote(r.cut), rate/1e6, 100*rate/shardRate, calls, refused, 100*float64(refused)/float64(max(calls, 1)))
		return nil
	})
}

func trickle(ctx context.Context, c candidate, out io.Writer) error {
	const (
		shards  = 8
		seconds = 60
		settled = 5 * time.Second // until the shards have been claimed
		patient = 10 * time.Second
	)
	col := column{"a trickle", shards * seconds, 16, 1}
	return served(awsfake.Options{EnforceLimits: true}, shards, func(src source) error {
		return c.watch(ctx, col, src, "output: { stdout: {} }\n", func(w watched) error {
			if err := rest(ctx, settled); err != nil {
				return err
			}
			putting := make(chan error, 1)
			begin := time.Now()
			go func() { putting <- drip(ctx, src, begin, shards, seconds) }()

			var took []time.Duration
			late := time.NewTimer(seconds*time.Second + patient)
			defer late.Stop()
			for len(took) < shards*seconds {
				select {
				case line, running := <-w.Lines():
					if !running {
						return errors.Join(errors.New("it ended"), <-putting)
					}
					put, err := strconv.ParseInt(line, 10, 64)
					if err != nil {
						return fmt.Errorf("reading its output: %w", err)
					}
					took = append(took, time.Since(begin)-time.Duration(put))
				case <-late.C:
					return errors.Join(fmt.Errorf("%d of %d records came", len(took), shards*seconds), <-putting)
				}
			}
			slices.Sort(took)
			fmt.Fprintf(out, "| %s | %d | %s | %s | %s | %d |\n", c.name, len(took), millis(took[len(took)/2]),
				millis(took[len(took)*99/100]), millis(took[len(took)-1]), src.fake.Refused("GetRecords", throughputExceeded))
			return <-putting
		})
	})
}

func millis(d time.Duration) string { return fmt.Sprintf("%d ms", d.Milliseconds()) }

// drip puts one record a second into each shard, at any moment of it, with the time
// since the beginning as payload.
func drip(ctx context.Context, src source, begin time.Time, shards, seconds int) error {
	list, err := src.fake.Shards(src.stream)
	if err != nil {
		return err
	}
	type drop struct {
		at    time.Duration
		shard string
	}
	var drops []drop
	for second := range seconds {
		for i := range shards {
			at := time.Duration(second)*time.Second + rand.N(time.Second)
			drops = append(drops, drop{at, list[i].ID})
		}
	}
	slices.SortFunc(drops, func(a, b drop) int { return int(a.at - b.at) })
	for _, d := range drops {
		if err := rest(ctx, time.Until(begin.Add(d.at))); err != nil {
			return err
		}
		now := strconv.FormatInt(int64(time.Since(begin)), 10)
		if _, err := src.fake.PutTo(src.stream, d.shard, "key", []byte(now)); err != nil {
			return err
		}
	}
	return nil
}

// rest returns after d, or as ctx ends.
func rest(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
