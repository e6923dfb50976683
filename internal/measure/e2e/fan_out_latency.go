package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

const (
	latencyShards = 8
	latencyRate   = 200.0 // records a second and shard
	latencySize   = 1 << 10
	latencySettle = 5 * time.Second
	// splitWindow is for how long records count as put around a split.
	splitBefore, splitAfter = time.Second, 5 * time.Second
)

func fanOutLatency(ctx context.Context, o options, out io.Writer) error {
	fmt.Fprintf(out, `
## Latency

%d shards, each fed %.0f records of 1 KB a second, over TLS, limits enforced, one record
a message and no batching. Milliseconds: median / 99th percentile / longest. Handed over
is when a frame with the record was ready and its writing began. A shard is split half
way; records put from %s before to %s after count as around the split.

| | way | records | put to handed over | put to output | handed over to output |
|---|---|---|---|---|---|
`, latencyShards, latencyRate, splitBefore, splitAfter)
	for _, c := range ways(o, "") {
		if err := measureLatency(ctx, o, c, out); err != nil {
			return err
		}
	}
	return nil
}

func measureLatency(ctx context.Context, o options, c candidate, out io.Writer) error {
	return servedTLS(latencyShards, func(src source) error {
		return c.watch(ctx, column{name: "latency", batch: 1}, src, stampedOutput, func(w watched) error {
			came := collect(w)
			if _, err := w.awaitShards(ctx, src, latencyShards, c.name == byFanOut); err != nil {
				return err
			}
			f, stop := newFeed(src, latencySize)
			defer stop()
			shards, err := shardsOf(src)
			if err != nil {
				return err
			}
			start, half := time.Now(), o.briefly(time.Minute)/2
			if err := f.steadily(ctx, shards, latencyRate, 1, latencySettle+half); err != nil {
				return err
			}
			split := time.Now()
			if _, _, err := src.fake.Split(src.stream, shards[0]); err != nil {
				return err
			}
			// The children share the load of their parent.
			low, high, err := children(src, shards[0])
			if err != nil {
				return err
			}
			if err := f.feedAfterSplit(ctx, shards[1:], low, high, half); err != nil {
				return err
			}
			records, frames, extra := f.count()
			if err := came.await(ctx, records, 10*time.Second); err != nil {
				return err
			}
			l := latencies{from: start.Add(latencySettle), splitFrom: split.Add(-splitBefore), splitTo: split.Add(splitAfter)}
			for _, a := range came.all() {
				r, known := f.record(a.number)
				if !known {
					return fmt.Errorf("record %d came, which was not put", a.number)
				}
				l.take(r, a.at)
			}
			l.steady.row(out, "steady", c.name)
			l.split.row(out, "around the split", c.name)
			_, again, err := came.distinct()
			if again > 0 || extra > 0 {
				fmt.Fprintf(out, "\n%s: %d records came twice, %d were handed over again\n\n", c.name, again, extra)
			}
			if frames > 0 {
				fmt.Fprintf(out, "| | | | %.2f records a frame | | |\n", float64(records)/float64(frames))
			}
			return err
		})
	})
}

func children(src source, parent string) (low, high string, err error) {
	list, err := src.fake.Shards(src.stream)
	if err != nil {
		return "", "", err
	}
	var found []string
	for _, s := range list {
		if s.Parent == parent {
			found = append(found, s.ID)
		}
	}
	if len(found) != 2 {
		return "", "", errors.New("a split made no two children")
	}
	return found[0], found[1], nil
}

// feedAfterSplit goes on where one shard has become two.
func (f *feed) feedAfterSplit(ctx context.Context, others []string, low, high string, lasts time.Duration) error {
	turns := append(append([]string{low}, others...), append([]string{high}, others...)...)
	return f.steadily(ctx, turns, latencyRate/2, 1, lasts)
}

// latencies are sorted by when a record was put.
type latencies struct {
	from, splitFrom, splitTo time.Time
	steady, split            delays
}

func (l *latencies) take(r fedRecord, out int64) {
	switch put := time.Unix(0, r.put); {
	case put.Before(l.from):
	case put.After(l.splitFrom) && put.Before(l.splitTo):
		l.split.take(r, out)
	default:
		l.steady.take(r, out)
	}
}

// delays are those of some records, the latter two of those that were handed over.
type delays struct{ whole, service, own []time.Duration }

func (d *delays) take(r fedRecord, out int64) {
	d.whole = append(d.whole, time.Duration(out-r.put))
	if r.handed != 0 {
		d.service = append(d.service, time.Duration(r.handed-r.put))
		d.own = append(d.own, time.Duration(out-r.handed))
	}
}

func (d *delays) row(out io.Writer, when, way string) {
	fmt.Fprintf(out, "| %s | %s | %d | %s | %s | %s |\n", when, way, len(d.whole), spread(d.service), spread(d.whole), spread(d.own))
}
