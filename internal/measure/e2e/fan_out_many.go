package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
	"github.com/benthos-plugins/aws-kinesis/internal/measure/verify"
)

// budgetMiB is the default of max_buffered_bytes, allowedMiB what a process may have beside
// it.
const (
	budgetMiB  = 256
	allowedMiB = 150
)

// namedOutput prints the shard and the sequence number of each record, a batch in one write.
const namedOutput = `pipeline: { threads: 1 }
output:
  stdout: { codec: append }
  processors:
    - mapping: root = "%s %s\n".format(@kinesis_shard, @kinesis_sequence_number)
    - archive: { format: concatenate }
`

// gate hands lines on, or none while it is closed: then the process' output blocks, once
// the pipe and what the reader runs ahead are full. It ends with the process.
type gate struct {
	mu    sync.Mutex
	lines chan string
}

func newGate(ctx context.Context, w watched) *gate {
	g := &gate{lines: make(chan string)}
	go func() {
		defer close(g.lines)
		for line := range w.Lines() {
			g.pass()
			select {
			case g.lines <- line:
			case <-ctx.Done():
				return
			}
		}
	}()
	return g
}

// pass returns when the gate is open.
func (g *gate) pass() {
	g.mu.Lock()
	g.mu.Unlock() //nolint:gocritic,staticcheck // to pass is all
}

// drop takes lines and forgets them, until the process or ctx ends.
func (g *gate) drop() {
	go func() {
		for range g.lines {
			continue
		}
	}()
}

func fanOutMany(ctx context.Context, o options, out io.Writer) error {
	const shards = 1000
	fmt.Fprintf(out, `
## %d shards in one process

Over TLS, limits enforced, everything by default but batches of 500. Idle for %s, then fed a
record of 1 KB a second and shard for %s, then 500 records of 1 KB in each shard and an
output that takes nothing for %s; then another process that finds all of that as a backlog, with
such an output from its start. Memory is resident, MiB now and at most. The goal is
%d MiB, the budget and %d, and 10 %% of a core when idle.

| way | | processor, %% of a core | memory | goroutines | connections | subscriptions | GetRecords a second |
|---|---|---|---|---|---|---|---|
`, shards, o.briefly(time.Minute), o.briefly(20*time.Second), o.briefly(30*time.Second), budgetMiB+allowedMiB, allowedMiB)
	col := column{name: "many", batch: 500}
	for _, c := range ways(o, "") {
		c.debug = true
		if err := servedTLS(shards, func(src source) error {
			if o.only != onlyBacklog {
				if err := c.watch(ctx, col, src, namedOutput, func(w watched) error { return many(ctx, o, c, src, w, out) }); err != nil {
					return err
				}
			}
			if o.only == onlyLive {
				return nil
			}
			// Another process, which has all of it as a backlog.
			if err := backlog(ctx, src); err != nil {
				return err
			}
			src.table = "leases-backlog"
			return c.watch(ctx, col, src, namedOutput, func(w watched) error { return manyBehind(ctx, o, c, src, w, out) })
		}); err != nil {
			return err
		}
	}
	return nil
}

// The parts of it that can be run alone.
const (
	onlyLive    = "live"
	onlyBacklog = "backlog"
)

// manyEach is how many records each shard gets while the output is blocked.
const manyEach = 500

// backlog fills the stream up with what many has not put.
func backlog(ctx context.Context, src source) error {
	shards, err := shardsOf(src)
	if err != nil {
		return err
	}
	f, stop := newFeed(src, 1<<10)
	defer stop()
	for _, shard := range shards {
		records, err := src.fake.Records(src.stream, shard)
		if err != nil {
			return err
		}
		for range manyEach - len(records) {
			if err := f.put(shard); err != nil {
				return err
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// manyBehind measures a process whose output is blocked as it starts.
func manyBehind(ctx context.Context, o options, c candidate, src source, w watched, out io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g := newGate(ctx, w)
	g.mu.Lock()
	defer g.mu.Unlock()
	shards, err := shardsOf(src)
	if err != nil {
		return err
	}
	if _, err := w.awaitShards(ctx, src, len(shards), c.name == byFanOut); err != nil {
		return err
	}
	if err := w.phase(ctx, src, out, c.name, "blocked, backlog", func() error { return rest(ctx, o.briefly(30*time.Second)) }); err != nil {
		return err
	}
	return w.heldOfBudget(ctx, c, "backlog", out)
}

// heldOfBudget writes a row with what the process itself counts, and keeps profiles of the
// rest.
func (w watched) heldOfBudget(ctx context.Context, c candidate, part string, out io.Writer) error {
	buffered, err := w.metric(ctx, "kinesis_buffered_bytes{")
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "| %s | held of the budget | | %d of %d | | | | |\n", c.name, buffered>>20, budgetMiB)
	if c.profile == "" {
		return nil
	}
	col := column{name: "many " + part}
	return errors.Join(w.save(ctx, "heap", c.profile, c.name+" heap", col), w.save(ctx, "goroutine", c.profile, c.name+" goroutine", col))
}

func many(ctx context.Context, o options, c candidate, src source, w watched, out io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	shards, err := shardsOf(src)
	if err != nil {
		return err
	}
	g := newGate(ctx, w)
	g.drop()
	took, err := w.awaitShards(ctx, src, len(shards), c.name == byFanOut)
	if err != nil {
		return err
	}
	started, err := cpu(w.PID())
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "| %s | to read all shards: %.1f s | %.1f s in all | | | | | |\n", c.name, took.Seconds(), started.Seconds())
	if err := rest(ctx, o.briefly(15*time.Second)); err != nil { // the table is written less once all is claimed
		return err
	}
	f, stop := newFeed(src, 1<<10)
	defer stop()
	phase := func(what string, lasts time.Duration, during func() error) error {
		return w.phase(ctx, src, out, c.name, what, func() error {
			begin := time.Now()
			if err := during(); err != nil {
				return err
			}
			return rest(ctx, lasts-time.Since(begin))
		})
	}
	idle := func() error { return nil }
	if err := phase("idle", o.briefly(time.Minute), idle); err != nil {
		return err
	}
	fedFor := o.briefly(20 * time.Second)
	if err := phase("fed", fedFor, func() error { return f.steadily(ctx, shards, 1, 1, fedFor) }); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for range manyEach {
		for _, shard := range shards {
			if err := f.put(shard); err != nil {
				return err
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	if err := phase("blocked", o.briefly(30*time.Second), idle); err != nil {
		return err
	}
	return w.heldOfBudget(ctx, c, "live", out)
}

// phase writes a row of what the process used during something.
func (w watched) phase(ctx context.Context, src source, out io.Writer, way, what string, during func() error) error {
	begin, calls := time.Now(), src.fake.Calls("GetRecords")
	before, err := cpu(w.PID())
	if err != nil {
		return err
	}
	if err := during(); err != nil {
		return err
	}
	lasted := time.Since(begin).Seconds()
	after, err := cpu(w.PID())
	if err != nil {
		return err
	}
	calls = src.fake.Calls("GetRecords") - calls
	rss, rssErr := memory(w.PID(), "VmRSS")
	most, mostErr := peak(w.PID())
	connections, connErr := w.connections(src.url)
	goroutines, goErr := w.goroutines(ctx)
	if err := errors.Join(rssErr, mostErr, connErr, goErr); err != nil {
		return err
	}
	fmt.Fprintf(out, "| %s | %s | %.1f | %d, %d | %d | %d | %d | %.0f |\n", way, what, 100*(after-before).Seconds()/lasted,
		rss>>20, most>>20, goroutines, connections, len(src.fake.Subscriptions(src.stream)), float64(calls)/lasted)
	return nil
}

func fanOutBlocked(ctx context.Context, o options, out io.Writer) error {
	const shards, each, lease = 64, 5000, 3 * time.Second
	blocked := o.briefly(10 * lease)
	fmt.Fprintf(out, `
## An output that blocks

%d shards with %d records of 1 KB each, lease_period %s, an output that takes nothing for %s
and then everything. Over TLS, limits enforced, batches of 500.

| way | most subscriptions | memory at most, MiB, of %d | owner changes while blocked, after | lost | twice | out of order | from release to the end |
|---|---|---|---|---|---|---|---|
`, shards, each, lease, blocked, budgetMiB+allowedMiB)
	for _, c := range ways(o, "    lease_period: 3s\n    commit_period: 1s\n    rebalance_period: 2s\n") {
		if err := servedTLS(shards, func(src source) error {
			ledger, err := fillLedger(src, each)
			if err != nil {
				return err
			}
			return c.watch(ctx, column{name: "blocked", batch: 500}, src, namedOutput, func(w watched) error {
				return block(ctx, c, src, w, ledger, blocked, out)
			})
		}); err != nil {
			return err
		}
	}
	return nil
}

// fillLedger puts so many records into each shard, and has a ledger know them.
func fillLedger(src source, each int) (*verify.Ledger, error) {
	shards, err := shardsOf(src)
	if err != nil {
		return nil, err
	}
	ledger, data := verify.New("start"), make([]byte, 1<<10)
	for range each {
		for _, shard := range shards {
			sequence, err := src.fake.PutTo(src.stream, shard, shard, data)
			if err != nil {
				return nil, err
			}
			ledger.Put(shard, verify.ID{Shard: shard, Sequence: sequence})
		}
	}
	return ledger, nil
}

// owners counts, by the writes to the table, how often shards got another owner.
type owners struct {
	mu      sync.Mutex
	changes int
}

func (n *owners) write(w awsfake.Write) {
	if w.Before["ClientID"].Text == w.After["ClientID"].Text || w.Key["ShardID"].Text == "" {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.changes++
}

func (n *owners) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.changes
}

func block(ctx context.Context, c candidate, src source, w watched, ledger *verify.Ledger, blocked time.Duration, out io.Writer) error {
	const patience = 30 * time.Second
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	shards, err := shardsOf(src)
	if err != nil {
		return err
	}
	g := newGate(ctx, w)
	g.mu.Lock()
	_, err = w.awaitShards(ctx, src, len(shards), c.name == byFanOut)
	var owned owners
	forget := src.fake.OnWrite(owned.write)
	defer forget()
	if err == nil {
		err = rest(ctx, blocked)
	}
	g.mu.Unlock()
	if err != nil {
		return err
	}
	whileBlocked, released := owned.count(), time.Now()
	var end time.Time
	see := func(until time.Duration, done func() bool) error {
		late := time.NewTimer(until)
		defer late.Stop()
		for !done() {
			select {
			case line, running := <-g.lines:
				if !running {
					return errors.New("it ended")
				}
				var id verify.ID
				if _, err := fmt.Sscan(line, &id.Shard, &id.Sequence); err != nil {
					return fmt.Errorf("it printed %q: %w", line, err)
				}
				ledger.See(id)
				late.Reset(until)
				end = time.Now()
			case <-late.C:
				return nil // what is missing is told
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	}
	if err := see(patience, func() bool { return ledger.Outstanding() == 0 }); err != nil {
		return err
	}
	last := end
	// What comes again comes now.
	if err := see(3*time.Second, func() bool { return false }); err != nil {
		return err
	}
	most, err := peak(w.PID())
	if err != nil {
		return err
	}
	r := ledger.Report()
	fmt.Fprintf(out, "| %s | %d | %d | %d, %d | %d | %d | %d | %.1f s |\n", c.name, src.fake.MostSubscriptionsOf(src.stream), most>>20,
		whileBlocked, owned.count()-whileBlocked, r.Missing, r.Repeats, r.Inversions, last.Sub(released).Seconds())
	return nil
}
