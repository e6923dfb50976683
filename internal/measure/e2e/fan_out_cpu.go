package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// fanOutColumns are of the columns those that cost the most by the call and by the record.
var fanOutColumns = columns[:3]

func fanOutCPU(ctx context.Context, o options, out io.Writer) error {
	fmt.Fprintf(out, `
## Processor time a record

Both ways over TLS, limits enforced, into drop, in turn %d times over; the median counts.
User and system time of the whole process.

A backlog in %d shards, of which each gives 2 MB a second:

`, o.runs, o.shards)
	all := ways(o, "")
	var results []measured
	for _, col := range fanOutColumns {
		if !strings.Contains(col.name, o.only) {
			continue
		}
		m := measured{column: col, runs: map[string][]run{}}
		if o.brief {
			m.column.records /= 4
		}
		if err := servedTLS(o.shards, func(src source) error {
			if err := fill(src, m.column); err != nil {
				return err
			}
			return measureRuns(ctx, out, o, src, all, m)
		}); err != nil {
			return err
		}
		results = append(results, m)
	}
	waysTable(out, all, results)
	return steadyCPU(ctx, o, out, all)
}

// waysTable writes the medians of two candidates and their ratio.
func waysTable(out io.Writer, all []candidate, results []measured) {
	fmt.Fprint(out, "\n| us of processor time a record | polling | fan-out | fan-out / polling |\n|---|---|---|---|\n")
	for _, m := range results {
		a, b := median(m.runs[all[0].name]), median(m.runs[all[1].name])
		fmt.Fprintf(out, "| %s | %s%s | %s%s | %s |\n", m.column.name, figure(a), cutNote(a.cut), figure(b), cutNote(b.cut), ratio(b, a))
	}
}

// steadyLoads are 200 records a second and shard: one by one, and as many at once as come
// together in 70 ms, which is how long AWS says that a record takes by fan-out on average.
var steadyLoads = []struct {
	name  string
	burst int
}{
	{"one record at a time", 1},
	{"14 at once", 14},
}

func steadyCPU(ctx context.Context, o options, out io.Writer, all []candidate) error {
	fmt.Fprintf(out, "\n%d shards, each fed 200 records of 1 KB a second for %s, no batching:\n\n", o.shards, o.briefly(15*time.Second))
	var results []measured
	for _, load := range steadyLoads {
		m := measured{column: column{name: "steady, " + load.name, size: 1 << 10, batch: 1}, runs: map[string][]run{}}
		if !strings.Contains(m.column.name, o.only) {
			continue
		}
		for range o.runs {
			for _, c := range all {
				r, err := steadyRun(ctx, o, c, m.column, load.burst, out)
				if err != nil {
					return err
				}
				m.runs[c.name] = append(m.runs[c.name], r)
			}
		}
		results = append(results, m)
	}
	waysTable(out, all, results)
	return nil
}

func steadyRun(ctx context.Context, o options, c candidate, col column, burst int, out io.Writer) (r run, err error) {
	err = servedTLS(o.shards, func(src source) error {
		return c.watch(ctx, col, src, "output: { drop: {} }\n", func(w watched) error {
			if _, err := w.awaitShards(ctx, src, o.shards, c.name == byFanOut); err != nil {
				return err
			}
			f, stop := newFeed(src, col.size)
			defer stop()
			shards, err := shardsOf(src)
			if err != nil {
				return err
			}
			if err := f.steadily(ctx, shards, 200, burst, 3*time.Second); err != nil {
				return err
			}
			before, err := w.now(ctx)
			if err != nil {
				return err
			}
			if err := f.steadily(ctx, shards, 200, burst, o.briefly(15*time.Second)); err != nil {
				return err
			}
			after, err := w.now(ctx)
			if err != nil {
				return err
			}
			if c.profile != "" {
				if err := w.profileSteady(ctx, f, shards, burst, c, col); err != nil {
					return err
				}
			}
			most, err := peak(w.PID())
			r = run{records: after.sent - before.sent, cpu: after.cpu - before.cpu, wall: after.at.Sub(before.at), peak: most}
			records, frames, _ := f.count()
			fmt.Fprintf(out, "%-32s  %-8s  %8.2f us a record  %8d records in %6.2f s  peak %4d MiB  %s\n",
				col.name, c.name, r.perRecord(), r.records, r.wall.Seconds(), r.peak>>20, framesNote(records, frames))
			return err
		})
	})
	return r, err
}

// profileSteady takes a profile while the load goes on.
func (w watched) profileSteady(ctx context.Context, f *feed, shards []string, burst int, c candidate, col column) error {
	var profiling sync.WaitGroup
	var profileErr error
	profiling.Go(func() { profileErr = w.save(ctx, "profile?seconds=6", c.profile, c.name+" cpu", col) })
	err := f.steadily(ctx, shards, 200, burst, 7*time.Second)
	profiling.Wait()
	return errors.Join(err, profileErr, w.save(ctx, "allocs", c.profile, c.name+" allocs", col))
}

func framesNote(records, frames int) string {
	if frames == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f records a frame", float64(records)/float64(frames))
}

// now takes one sample.
func (w watched) now(ctx context.Context) (s sample, err error) {
	s.at = time.Now()
	if s.sent, err = w.sent(ctx); err != nil {
		return s, err
	}
	s.cpu, err = cpu(w.PID())
	return s, err
}
