// Command demo shows the input at work without an AWS account. It starts a
// local AWS, feeds a stream of several shards, runs the real distribution on it
// with a real configuration, splits a shard and stops and restarts the process
// on the way, and ends with a summary: what went in, what came out, and which
// checkpoints are stored. It fails when a record is missing or out of order.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/measure/trial"
	"github.com/benthos-plugins/aws-kinesis/internal/measure/verify"
)

const (
	shards  = 4
	keys    = 60
	records = 1200

	// One record every 8 ms: the whole takes about ten seconds.
	period = 8 * time.Millisecond
	// A sample of the output is shown once a while.
	sample = 400 * time.Millisecond
	// Longer than a start takes on a busy machine.
	stall = 30 * time.Second
)

func main() {
	benthos := flag.String("benthos", "bin/benthos-kinesis", "the distribution to run")
	config := flag.String("config", "docs/examples/quickstart.yaml", "the pipeline to run; its output is lines that begin with shard and sequence number")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, os.Stdout, *benthos, *config)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, benthos, config string) error {
	n := &narrator{out: out, config: config, start: time.Now()}
	result, err := trial.Run(ctx, trial.Plan{
		Program: benthos,
		Args:    []string{"-c", config},
		Shards:  shards,
		Keys:    keys,
		Records: records,
		Payload: func(n int, key string) []byte {
			return fmt.Appendf(nil, `{"record":%d,"key":%q}`, n+1, key)
		},
		Every:   period,
		Burst:   1,
		Ahead:   records,
		Parse:   parse,
		Split:   records / 3,
		Stops:   []trial.Stop{{After: records * 2 / 3, Signal: syscall.SIGTERM}},
		Stall:   stall,
		Observe: n.observe,
	})
	if errors.Is(err, context.Canceled) {
		return errors.New("interrupted")
	}
	if result.In > 0 {
		summary(out, result)
	}
	if err != nil {
		return err
	}
	if err := result.Err(); err != nil {
		return err
	}
	fmt.Fprintln(out, "\nEvery record came out, in order for its key, and every checkpoint is stored.")
	return nil
}

// parse finds a record's name at the begin of a line of the output.
func parse(line string) (verify.ID, bool) {
	shard, rest, _ := strings.Cut(line, " ")
	sequence, _, _ := strings.Cut(rest, " ")
	return verify.ID{Shard: shard, Sequence: sequence}, strings.HasPrefix(shard, "shardId-") && sequence != ""
}

// narrator tells a person what happens.
type narrator struct {
	out    io.Writer
	config string
	start  time.Time
	shown  time.Time // when a line of the output was last shown
}

func (n *narrator) observe(e trial.Event) {
	switch e.Kind {
	case trial.Listening:
		fmt.Fprintf(n.out, "A local AWS listens at %s. Its stream has %d shards and gets %d records a second.\n", e.Text, shards, time.Second/period)
		fmt.Fprintf(n.out, "benthos-kinesis reads it with %s, here a sample of what it prints:\n\n", n.config)
	case trial.Started:
		n.say("benthos-kinesis starts")
	case trial.Split:
		n.say("%s", strings.Replace(e.Text, " into ", " is split into ", 1))
	case trial.Stopping:
		n.say("benthos-kinesis gets %s; %d records in, %d out", e.Text, e.In, e.Out)
	case trial.Stopped:
		n.say("benthos-kinesis has ended and given its shards back")
	case trial.Output:
		if now := time.Now(); now.Sub(n.shown) >= sample {
			n.shown = now
			n.say("in %4d  out %4d  | %s", e.In, e.Out, e.Text)
		}
	}
}

func (n *narrator) say(format string, args ...any) {
	fmt.Fprintf(n.out, "%5.1fs  %s\n", time.Since(n.start).Seconds(), fmt.Sprintf(format, args...))
}

func summary(out io.Writer, r trial.Result) {
	fmt.Fprintln(out)
	for _, line := range []struct {
		what  string
		count int
	}{
		{"records in", r.In},
		{"records out", r.Out},
		{"missing", r.Missing},
		{"repeated", r.Repeats},
		{"out of order for their key", r.Inversions},
	} {
		fmt.Fprintf(out, "%-28s %6d\n", line.what, line.count)
	}
	if len(r.Shards) == 0 {
		return
	}
	fmt.Fprintf(out, "\n%-22s %8s  %s\n", "shard", "records", "checkpoint stored")
	for _, s := range r.Shards {
		verdict := "at its last record"
		if s.Stored != s.Last {
			verdict = "NOT at its last record, " + s.Last
		}
		fmt.Fprintf(out, "%-22s %8d  %s, %s\n", s.ID, s.Records, cmp.Or(s.Stored, "none"), verdict)
	}
}
