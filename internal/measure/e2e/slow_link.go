package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
	"github.com/benthos-plugins/aws-kinesis/internal/awsfake/relay"
)

const (
	linkShards = 20
	linkRate   = 50_000 // bytes a second
	linkRecord = 1000   // bytes
	linkLasts  = time.Minute
	// linkWire is what such a record takes in an answer: base64 and the other members.
	linkWire = linkRecord*4/3 + 165
)

// slowLink reads shards full of backlog over a link that all connections to Kinesis share.
func slowLink(ctx context.Context, c candidate, out io.Writer) error {
	col := column{"a slow link", 0, linkRecord, 1}
	return served(awsfake.Options{EnforceLimits: true}, linkShards, func(src source) error {
		if err := number(src, 2*linkRate*int(linkLasts.Seconds())/linkWire/linkShards); err != nil {
			return err
		}
		link, err := relay.New(ctx, strings.TrimPrefix(src.url, "http://"))
		if err != nil {
			return err
		}
		defer link.Close()
		link.Limit(linkRate)
		src.tableURL, src.url = src.url, "http://"+link.Addr()
		const brief = `pipeline: { threads: 1, processors: [ { mapping: 'root = content().string().slice(0, 12)' } ] }
output: { stdout: {} }
`
		return c.watch(ctx, col, src, brief, func(w watched) error {
			if _, err := w.awaitShards(ctx, src, linkShards, false); err != nil {
				return err
			}
			calls := src.fake.Calls("GetRecords")
			got, err := countNumbers(ctx, w, linkShards, linkLasts)
			if err != nil {
				return err
			}
			rate := float64(got.all) / linkLasts.Seconds()
			fmt.Fprintf(out, "| %s | %.1f | %.0f %% | %d to %d | %d | %d | %d |\n", c.name, rate*linkRecord/1e3,
				100*rate*linkWire/linkRate, got.least, got.most, got.repeated, got.lost, src.fake.Calls("GetRecords")-calls)
			return nil
		})
	})
}

// number puts so many records into each shard that begin with the shard and their number.
func number(src source, records int) error {
	shards, err := src.fake.Shards(src.stream)
	if err != nil {
		return err
	}
	rest := strings.Repeat(".", linkRecord-12)
	for i, shard := range shards {
		for n := range records {
			if _, err := src.fake.PutTo(src.stream, shard.ID, "key", fmt.Appendf(nil, "%04d %07d%s", i, n, rest)); err != nil {
				return err
			}
		}
	}
	return nil
}

// numbered are records that came of numbered shards.
type numbered struct {
	all, least, most int // of the time that was measured, in total and of a shard
	repeated, lost   int // of all
}

// countNumbers counts the records that a process writes, those before the call included
// among the repeated and the lost alone.
func countNumbers(ctx context.Context, w watched, shards int, lasts time.Duration) (got numbered, err error) {
	next, first := make([]int, shards), make([]int, shards)
	take := func(line string) error {
		var shard, n int
		if _, err := fmt.Sscanf(line, "%d %d", &shard, &n); err != nil || shard >= shards {
			return fmt.Errorf("it wrote %q", line)
		}
		switch {
		case n < next[shard]:
			got.repeated++
			return nil
		case n > next[shard]:
			got.lost += n - next[shard]
		}
		next[shard] = n + 1
		return nil
	}
	for early := true; early; {
		select {
		case line, running := <-w.Lines():
			if !running {
				return got, errors.New("it ended")
			}
			if err := take(line); err != nil {
				return got, err
			}
		default:
			early = false
		}
	}
	copy(first, next)
	end := time.NewTimer(lasts)
	defer end.Stop()
	for running := true; running; {
		select {
		case line, open := <-w.Lines():
			if !open {
				return got, errors.New("it ended")
			}
			if err := take(line); err != nil {
				return got, err
			}
		case <-end.C:
			running = false
		case <-ctx.Done():
			return got, ctx.Err()
		}
	}
	got.least = next[0] - first[0]
	for i := range next {
		n := next[i] - first[i]
		got.all, got.least, got.most = got.all+n, min(got.least, n), max(got.most, n)
	}
	return got, nil
}
