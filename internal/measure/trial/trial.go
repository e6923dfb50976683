// Package trial runs the distribution against a local AWS: it feeds a stream,
// takes what comes out of a pipeline, stops and starts the process by plan, and
// has package verify judge the whole.
//
// One goroutine, that of Run, owns all state; the process' own goroutines only
// hand it lines.
package trial

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
	"github.com/benthos-plugins/aws-kinesis/internal/measure/child"
	"github.com/benthos-plugins/aws-kinesis/internal/measure/verify"
)

const (
	stream = "trial"
	table  = "trial-checkpoints"
	region = "us-east-1"

	// lastMessages is how many messages on the output are kept.
	lastMessages = 20
)

// Plan says what happens. Every field is required, but for those marked.
type Plan struct {
	// Program and its Args are started with STREAM, TABLE, REGION, ENDPOINT
	// and credentials of the local AWS in the environment.
	Program string
	Args    []string

	// Shards of the stream at first, Keys to put Records under in turn.
	Shards, Keys, Records int
	// Payload makes the data of record n, which has the given key.
	Payload func(n int, key string) []byte
	// Every period a burst of records is put, unless Ahead of them are not
	// out yet.
	Every        time.Duration
	Burst, Ahead int

	// Parse finds a record in a line of the output. A line without one is
	// taken for a message of the program, for a person to read should the
	// trial fail.
	Parse func(line string) (verify.ID, bool)

	// Split is how many records are in when a shard is split. Optional.
	Split int
	// Stops in order of After, well below Records. Optional.
	Stops []Stop
	// Stall is how long the process may take for its next record, or to end
	// once it was told to, before the trial fails.
	Stall time.Duration

	// Observe hears of each event as it happens, on the goroutine of Run.
	Observe func(Event)
}

// Stop ends the process, which is then started again.
type Stop struct {
	After  int // records out, each counted once
	Signal syscall.Signal
}

// Name of the stop in reports.
func (s Stop) Name() string {
	if s.Signal == syscall.SIGKILL {
		return "SIGKILL"
	}
	return "SIGTERM"
}

// Kind of an Event.
type Kind int

// The kinds of events.
const (
	Listening Kind = iota // Text is the address of the local AWS
	Started               // the process was started
	Output                // Text is a line of the output
	Split                 // Text says which shard became which
	Stopping              // Text is the signal's name
	Stopped               // the process has ended as planned
)

// Event is something that happened, with how many records are in and out then.
type Event struct {
	Kind    Kind
	Text    string
	In, Out int
}

// Shard is what became of one shard.
type Shard struct {
	ID      string
	Records int
	// Last is the sequence number of its last record, Stored the one in the
	// table; empty for none.
	Last, Stored string
	// Owner that the table names although the process has ended.
	Owner string
}

// Result of a trial.
type Result struct {
	verify.Report
	// Shards that had records, by id; none when the trial broke off.
	Shards []Shard
	// Took is the time from the first record out to the last; 0 when the trial
	// broke off.
	Took time.Duration
}

// Err says which promises were broken; nil: none.
func (r Result) Err() error {
	errs := []error{r.Report.Err()}
	for _, s := range r.Shards {
		if s.Stored != s.Last {
			errs = append(errs, fmt.Errorf("%s: the stored checkpoint is %q after everything was acknowledged up to %q", s.ID, s.Stored, s.Last))
		}
		if s.Owner != "" {
			errs = append(errs, fmt.Errorf("%s: the table names the owner %s, who has ended", s.ID, s.Owner))
		}
	}
	for _, p := range r.Phases {
		if p.Name == "SIGTERM" && p.Repeats > 0 {
			errs = append(errs, fmt.Errorf("%d repeats after a SIGTERM, which leaves nothing unacknowledged", p.Repeats))
		}
	}
	return errors.Join(errs...)
}

// trial is a Plan on its way. Run makes and ends it.
type trial struct {
	Plan
	aws      *awsfake.Server
	endpoint string
	process  *child.Process
	ledger   *verify.Ledger
	shards   map[string]*Shard
	stall    *time.Timer
	messages []string // the last lines of the output without a record
	// reads is how many calls of GetRecords there were when the process was
	// started.
	reads int
	// stopping is set from a planned signal to the process' end.
	stopping    bool
	first, last time.Time // records out
}

// Run carries the plan out, and returns when the last record is out and the
// process has ended, or on the first error, then with the Report so far. It
// ends with ctx.
func Run(ctx context.Context, plan Plan) (result Result, err error) {
	t := &trial{
		Plan:   plan,
		aws:    awsfake.New(awsfake.Options{}),
		ledger: verify.New("start"),
		shards: map[string]*Shard{},
	}
	defer func() { err = errors.Join(err, t.aws.Close()) }()
	if t.endpoint, err = t.aws.Listen(); err != nil {
		return Result{}, err
	}
	if err := t.aws.CreateStream(stream, t.Plan.Shards); err != nil {
		return Result{}, err
	}
	t.event(Listening, t.endpoint)

	t.stall = time.NewTimer(t.Stall)
	defer t.stall.Stop()
	if err := t.start(ctx); err != nil {
		return Result{}, err
	}
	// Close before the local AWS: the process still stores its checkpoints.
	defer func() { t.process.Close() }()
	if err := t.loop(ctx); err != nil {
		t.process.Close()
		return Result{Report: t.ledger.Report()}, t.withLog(err)
	}
	return t.result()
}

func (t *trial) start(ctx context.Context) error {
	process, err := child.Start(ctx, t.Program, t.Args, Environment(stream, table, t.endpoint))
	if err != nil {
		return err
	}
	t.process = process
	t.reads = t.aws.Calls("GetRecords")
	t.stall.Reset(t.Stall)
	t.event(Started, "")
	return nil
}

// Environment is what a pipeline of this repository wants beside the process'
// own environment to read a stream of the local AWS at endpoint, whose region
// must be the default one.
func Environment(stream, table, endpoint string) []string {
	return []string{
		"STREAM=" + stream,
		"TABLE=" + table,
		"REGION=" + region,
		"ENDPOINT=" + endpoint,
		"AWS_ACCESS_KEY_ID=local",
		"AWS_SECRET_ACCESS_KEY=local",
		"AWS_SESSION_TOKEN=",
		// Nothing of the user's own AWS set-up has a say here.
		"AWS_PROFILE=",
		"AWS_CONFIG_FILE=" + os.DevNull,
		"AWS_SHARED_CREDENTIALS_FILE=" + os.DevNull,
		"AWS_EC2_METADATA_DISABLED=true",
		"NO_PROXY=127.0.0.1",
		"no_proxy=127.0.0.1",
	}
}

// loop runs until the process has ended for the last time.
func (t *trial) loop(ctx context.Context) error {
	feed := time.NewTicker(t.Every)
	defer feed.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-t.stall.C:
			what := "let no record out"
			if t.stopping {
				what = "did not end"
			}
			return fmt.Errorf("%s %s for %s, with %d of %d records out", t.Program, what, t.Stall, t.ledger.Seen(), t.ledger.In())
		case <-feed.C:
			if err := errors.Join(t.feed(), t.stopWhenDue()); err != nil {
				return err
			}
		case line, open := <-t.process.Lines():
			if !open {
				if again, err := t.ended(ctx); err != nil || !again {
					return err
				}
				continue
			}
			t.see(line)
			if err := t.stopWhenDue(); err != nil {
				return err
			}
		}
	}
}

// feed puts a burst of records, and splits a shard when that is due.
func (t *trial) feed() error {
	for range min(t.Burst, t.Records-t.ledger.In(), t.Ahead-t.ledger.Outstanding()) {
		n := t.ledger.In()
		key := fmt.Sprintf("key-%03d", n%t.Keys)
		shard, sequence, err := t.aws.Put(stream, key, t.Payload(n, key))
		if err != nil {
			return fmt.Errorf("putting record %d: %w", n, err)
		}
		t.ledger.Put(key, verify.ID{Shard: shard, Sequence: sequence})
		s := t.shards[shard]
		if s == nil {
			s = &Shard{ID: shard}
			t.shards[shard] = s
		}
		s.Records++
		s.Last = sequence

		if t.ledger.In() == t.Split {
			if err := t.split(shard); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *trial) split(shard string) error {
	low, high, err := t.aws.Split(stream, shard)
	if err != nil {
		return fmt.Errorf("splitting %s: %w", shard, err)
	}
	t.event(Split, fmt.Sprintf("%s into %s and %s", shard, low, high))
	return nil
}

// see takes a line of the output.
func (t *trial) see(line string) {
	id, ok := t.Parse(line)
	if !ok {
		t.messages = append(t.messages, line)
		t.messages = t.messages[max(0, len(t.messages)-lastMessages):]
		return
	}
	if t.ledger.See(id) {
		t.stall.Reset(t.Stall)
		t.last = time.Now()
		if t.first.IsZero() {
			t.first = t.last
		}
	}
	t.event(Output, line)
}

// stopWhenDue sends the next planned signal, or the last one when everything is
// out. When that was so before the process was started, it is given the time to
// begin reading: one that has only just started cannot handle a signal.
func (t *trial) stopWhenDue() error {
	if t.stopping {
		return nil
	}
	stop := Stop{After: t.Records, Signal: syscall.SIGTERM}
	if len(t.Stops) > 0 {
		stop = t.Stops[0]
	} else if t.ledger.Outstanding() > 0 || t.aws.Calls("GetRecords") == t.reads {
		return nil
	}
	if t.ledger.Seen() < stop.After {
		return nil
	}
	t.stopping = true
	t.stall.Reset(t.Stall)
	t.event(Stopping, stop.Name())
	return t.process.Signal(stop.Signal)
}

// ended takes note of the process' end. It reports whether it was started
// again.
func (t *trial) ended(ctx context.Context) (again bool, err error) {
	err = t.process.Wait()
	switch {
	case ctx.Err() != nil:
		return false, context.Cause(ctx)
	case !t.stopping:
		return false, fmt.Errorf("%s ended by itself, with %d of %d records out: %w", t.Program, t.ledger.Seen(), t.ledger.In(), endOf(err))
	case err != nil && (len(t.Stops) == 0 || t.Stops[0].Signal != syscall.SIGKILL):
		return false, fmt.Errorf("%s did not stop cleanly: %w", t.Program, err)
	}
	t.event(Stopped, "")
	if len(t.Stops) == 0 {
		return false, nil
	}
	items, err := t.items()
	if err != nil {
		return false, err
	}
	stored := make(map[string]string, len(items))
	for shard, item := range items {
		stored[shard] = item["SequenceNumber"].Text
	}
	t.ledger.Begin(t.Stops[0].Name(), stored)
	t.Stops = t.Stops[1:]
	t.stopping = false
	return true, t.start(ctx)
}

func endOf(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

// items reads the table's item of each shard.
func (t *trial) items() (map[string]awsfake.Item, error) {
	all, err := t.aws.Items(table)
	if err != nil {
		return nil, fmt.Errorf("reading the checkpoints: %w", err)
	}
	items := make(map[string]awsfake.Item, len(all))
	for _, item := range all {
		items[item["ShardID"].Text] = item
	}
	return items, nil
}

func (t *trial) result() (Result, error) {
	items, err := t.items()
	r := Result{Report: t.ledger.Report(), Took: t.last.Sub(t.first)}
	for _, id := range slices.Sorted(maps.Keys(t.shards)) {
		s := *t.shards[id]
		s.Stored = items[id]["SequenceNumber"].Text
		s.Owner = items[id]["ClientID"].Text
		r.Shards = append(r.Shards, s)
	}
	return r, err
}

func (t *trial) event(kind Kind, text string) {
	t.Observe(Event{Kind: kind, Text: text, In: t.ledger.In(), Out: t.ledger.Seen()})
}

// withLog adds to an error what the process said last.
func (t *trial) withLog(err error) error {
	for _, line := range append(t.messages, t.process.Log()...) {
		err = fmt.Errorf("%w\n  | %s", err, line)
	}
	return err
}
