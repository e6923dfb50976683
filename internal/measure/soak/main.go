// Command soak sends many records through the real distribution into drop,
// stops it once by SIGTERM and once by SIGKILL on the way, and accounts for
// each record. It fails when one is missing or out of order for its key, when
// the SIGTERM led to repeats, or when the SIGKILL led to repeats of what a
// stored checkpoint covered.
//
// All records stay in memory: a million of 1 KB take about 2 GB.
package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/measure/trial"
	"github.com/benthos-plugins/aws-kinesis/internal/measure/verify"
)

//go:embed soak.yaml
var config []byte

const (
	// At most 200,000 records a second are put, and no more than these many
	// ahead of the output: always a backlog, never all at once.
	every = 5 * time.Millisecond
	burst = 1000
	ahead = 200_000

	// Longer than the lease of a process that was killed lasts.
	stall = 30 * time.Second
)

type options struct {
	benthos                     string
	records, size, shards, keys int
}

func main() {
	var o options
	flag.StringVar(&o.benthos, "benthos", "bin/benthos-kinesis", "the distribution to run")
	flag.IntVar(&o.records, "records", 1_000_000, "records to send, 10000 or more")
	flag.IntVar(&o.size, "size", 1024, "bytes of a record, 16 to 1048576")
	flag.IntVar(&o.shards, "shards", 4, "shards of the stream")
	flag.IntVar(&o.keys, "keys", 1000, "partition keys, whose order is checked")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, os.Stdout, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, o options) (err error) {
	switch {
	case o.records < 10_000:
		return fmt.Errorf("-records %d: too few for two stops on the way; give 10000 or more", o.records)
	case o.size < 16 || o.size > 1<<20:
		return fmt.Errorf("-size %d: give 16 to 1048576", o.size)
	case o.shards < 1 || o.keys < 1:
		return errors.New("-shards and -keys: give 1 or more")
	}
	dir, err := os.MkdirTemp("", "soak-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	file := filepath.Join(dir, "soak.yaml")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		return err
	}

	start := time.Now()
	body := []byte(strings.Repeat("x", o.size))
	shown := 0
	result, err := trial.Run(ctx, trial.Plan{
		Program: o.benthos,
		Args:    []string{"-c", file},
		Shards:  o.shards,
		Keys:    o.keys,
		Records: o.records,
		Payload: func(n int, _ string) []byte {
			b := slices.Clone(body)
			copy(b, strconv.Itoa(n)+" ")
			return b
		},
		Every: every,
		Burst: burst,
		Ahead: ahead,
		Parse: parse,
		Stops: []trial.Stop{
			{After: o.records / 3, Signal: syscall.SIGTERM},
			{After: o.records * 2 / 3, Signal: syscall.SIGKILL},
		},
		Stall: stall,
		Observe: func(e trial.Event) {
			since := time.Since(start).Seconds()
			switch e.Kind {
			case trial.Listening:
				fmt.Fprintf(out, "%d records of %d bytes over %d shards and %d keys, on %d CPUs\n", o.records, o.size, o.shards, o.keys, runtime.NumCPU())
			case trial.Started:
				fmt.Fprintf(out, "%6.1fs  benthos-kinesis starts\n", since)
			case trial.Stopping:
				fmt.Fprintf(out, "%6.1fs  %s, with %d records in and %d out\n", since, e.Text, e.In, e.Out)
			case trial.Output:
				if e.Out >= shown+o.records/10 {
					shown = e.Out
					fmt.Fprintf(out, "%6.1fs  %d records out\n", since, e.Out)
				}
			case trial.Split, trial.Stopped:
			}
		},
	})
	if errors.Is(err, context.Canceled) {
		return errors.New("interrupted")
	}
	if result.In > 0 {
		report(out, result)
	}
	if err != nil {
		return err
	}
	return result.Err()
}

// parse reads a line that the pipeline's mapping wrote.
func parse(line string) (verify.ID, bool) {
	shard, sequence, ok := strings.Cut(line, " ")
	return verify.ID{Shard: shard, Sequence: sequence}, ok && strings.HasPrefix(shard, "shardId-")
}

func report(out io.Writer, r trial.Result) {
	fmt.Fprintf(out, "\nrecords in                       %9d\n", r.In)
	fmt.Fprintf(out, "records out                      %9d\n", r.Out)
	fmt.Fprintf(out, "missing                          %9d\n", r.Missing)
	fmt.Fprintf(out, "out of order for their key       %9d\n", r.Inversions)
	for _, p := range r.Phases[1:] {
		fmt.Fprintf(out, "repeated after %s           %9d", p.Name, p.Repeats)
		fmt.Fprintf(out, "  (above the stored checkpoints were %d; at or below them came %d)\n", p.Allowed, p.Rewound)
	}
	if r.Took == 0 {
		return
	}
	fmt.Fprintf(out, "from first to last, stops included %6.1fs: %.0f records/s\n", r.Took.Seconds(), float64(r.In)/r.Took.Seconds())
}
