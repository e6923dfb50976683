// Command demo shows the input at work without an AWS account. It starts a
// local AWS and feeds a stream, which two processes of the real distribution
// share with a real configuration. A shard is split, one process is killed and
// the other takes over, a third joins, and one is stopped in order. It ends
// with a summary, record by record: what went in, what came out, what came
// again and why, and which checkpoints are stored. It fails when a record is
// missing, out of order for its key, or came again although it was committed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// namedMissing is how many missing records are named at most.
const namedMissing = 10

func main() {
	var o options
	flag.StringVar(&o.benthos, "benthos", "bin/benthos-kinesis", "the distribution to run")
	flag.StringVar(&o.config, "config", "docs/examples/quickstart.yaml", "the pipeline to run; its output is lines that begin with shard and sequence number")
	flag.Parse()

	// Without this, a reader that goes, as in `make run | head`, would end this
	// process at its next line, and leave behind those that it has started. With it
	// the line fails.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, newScreen(os.Stdout), o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

type options struct {
	benthos, config string
}

// run returns which promise was broken, or why the story came to no end.
func run(ctx context.Context, screen *screen, o options) (err error) {
	s, err := newStage(o, screen)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	fmt.Fprintf(screen.out, "A local AWS listens at %s, with a stream of %d shards that\ngets %d records a second. benthos-kinesis reads it with\n%s, lease_period: %s and commit_period: %s.\n\n",
		s.endpoint, shards, time.Second/period, o.config, leasePeriod, commitPeriod)
	err = s.story(ctx)
	screen.show()
	if errors.Is(err, context.Canceled) {
		return errors.New("interrupted")
	}
	if s.ledger.In() > 0 {
		summary(screen.out, s.result(), s.readerWords)
	}
	if err != nil {
		return s.withMessages(err)
	}
	if err := s.result().Err(); err != nil {
		missing := s.ledger.MissingIDs()
		for _, id := range missing[:min(len(missing), namedMissing)] {
			err = fmt.Errorf("%w\n  missing: %s %s", err, id.Shard, id.Sequence)
		}
		return err
	}
	fmt.Fprintln(screen.out, "\nEvery record came out, in order for its key, and none again that was committed.")
	return nil
}
