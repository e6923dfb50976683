package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake/relay"
	"github.com/benthos-plugins/aws-kinesis/internal/session"
)

// deadGoal is an attempt of a call, and what the next one may take.
const deadGoal = session.AttemptTimeout + 2*time.Second

// deadLook is after how long the process is asked what it says of itself: before anything
// can have found out.
const deadLook = 8 * time.Second

// blackout is for how long new connections do not work either.
const blackout = 30 * time.Second

// networkFault is a way in which a network drops packets without a word.
type networkFault struct {
	name string
	// burst is how many records each shard gets just before it.
	burst int
	// begin starts it and returns the number of connections that fell silent.
	begin func(*relay.Relay) int
	// lasts is until it is over for new connections; 0: they are not concerned.
	lasts time.Duration
}

var networkFaults = []networkFault{
	{name: "all connections", begin: (*relay.Relay).Cut},
	{name: "half of them", begin: (*relay.Relay).CutHalf},
	{name: "all, during a burst of reads", burst: 50, begin: (*relay.Relay).Cut},
	{name: "all and new ones, for 30 s", lasts: blackout, begin: func(r *relay.Relay) int {
		r.Block(true)
		return r.Cut()
	}},
}

// dead measures how soon shards flow again when the network has dropped connections.
func dead(ctx context.Context, o options, out io.Writer) error {
	fmt.Fprintf(out, `
## Dead connections

One process, whose connections to Kinesis and DynamoDB go over TLS and through a relay that
drops all packets of those that are open; limits enforced, everything by default. Of 4 shards
each is fed twice a second, of 1,000 every ten seconds. The time of a shard is from the moment
at which the network works again, for new connections at least, to the arrival of a record that
was put then. The goal is %s.

| way | shards | what fell silent | connections, of them to the table | shards that flow | median | slowest | changes of owner | lost | again | lag told after 8 s | ready then |
|---|---|---|---|---|---|---|---|---|---|---|---|
`, deadGoal)
	for _, c := range ways(o, "") {
		for _, shards := range []int{4, 1000} {
			if !strings.Contains(fmt.Sprintf("%s %d.", c.name, shards), o.only) {
				continue
			}
			err := servedTLS(shards, func(src source) error {
				return relayed(ctx, src, func(n networks, src source) error {
					return c.watch(ctx, column{name: "dead", batch: 1}, src, stampedOutput, func(w watched) error {
						return w.fallSilent(ctx, o, c, n, src, out)
					})
				})
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// networks are those to Kinesis and to DynamoDB.
type networks struct{ stream, table *relay.Relay }

// relayed has a source reached through relays.
func relayed(ctx context.Context, src source, do func(networks, source) error) error {
	stream, err := relay.New(ctx, strings.TrimPrefix(src.url, "https://"))
	if err != nil {
		return err
	}
	defer stream.Close()
	table, err := relay.New(ctx, strings.TrimPrefix(src.tableURL, "https://"))
	if err != nil {
		return err
	}
	defer table.Close()
	src.url, src.tableURL = "https://"+stream.Addr(), "https://"+table.Addr()
	return do(networks{stream, table}, src)
}

// steadyFeed is a feed that goes on beside everything, shard by shard in turn.
type steadyFeed struct {
	*feed
	shards []string

	mu sync.Mutex
	of []int // the shard of each record, by its place in shards
}

func (f *steadyFeed) putTo(shard int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.of = append(f.of, shard)
	return f.put(f.shards[shard])
}

// putAll puts a record into each shard.
func (f *steadyFeed) putAll() error {
	for shard := range f.shards {
		if err := f.putTo(shard); err != nil {
			return err
		}
	}
	return nil
}

// run feeds each shard so many times a second until ctx ends.
func (f *steadyFeed) run(ctx context.Context, rate float64) error {
	between := time.Duration(float64(time.Second) / rate / float64(len(f.shards)))
	begin := time.Now()
	for turn := 0; ; turn++ {
		if wait := time.Until(begin.Add(time.Duration(turn) * between)); wait > time.Millisecond && rest(ctx, wait) != nil || ctx.Err() != nil {
			return nil //nolint:nilerr // that is how it ends
		}
		if err := f.putTo(turn % len(f.shards)); err != nil {
			return err
		}
	}
}

func (f *steadyFeed) shardOf(number int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.of[number]
}

func (w watched) fallSilent(ctx context.Context, o options, c candidate, n networks, src source, out io.Writer) error {
	shards, err := shardsOf(src)
	if err != nil {
		return err
	}
	arrived := collect(w)
	if _, err := w.awaitShards(ctx, src, len(shards), c.name == byFanOut); err != nil {
		return err
	}
	f, stop := newFeed(src, 256)
	defer stop()
	feeding, cancel := context.WithCancel(ctx)
	defer cancel()
	steady := &steadyFeed{feed: f, shards: shards}
	fed := make(chan error, 1)
	rate := 2.0
	if len(shards) > 100 {
		rate = 0.1 // more would measure the machine
	}
	go func() { fed <- steady.run(feeding, rate) }()
	err = func() error {
		for _, fault := range networkFaults {
			if o.brief && fault.lasts > 0 {
				continue
			}
			// What the start or the last fault has left behind is over.
			if err := rest(ctx, 12*time.Second); err != nil {
				return err
			}
			if err := w.suffer(ctx, c, fault, n, src, steady, arrived, out); err != nil {
				return err
			}
		}
		return nil
	}()
	cancel()
	if err := errors.Join(err, <-fed); err != nil {
		return err
	}
	put, _, _ := f.count()
	late := arrived.await(ctx, put, 15*time.Second)
	seen, again, err := arrived.distinct()
	fmt.Fprintf(out, "| %s | %d | in the end | | | | | | %d of %d | %d | | |\n", c.name, len(shards), put-seen, put, again)
	return errors.Join(late, err)
}

// suffer measures one fault.
func (w watched) suffer(ctx context.Context, c candidate, fault networkFault, n networks, src source, f *steadyFeed, arrived *collector, out io.Writer) error {
	var owned owners
	forget := src.fake.OnWrite(owned.write)
	defer forget()
	_, again, err := arrived.distinct()
	if err != nil {
		return err
	}
	for range fault.burst {
		if err := f.putAll(); err != nil {
			return err
		}
	}
	toTable := fault.begin(n.table)
	silent := toTable + fault.begin(n.stream)
	cut := time.Now()
	works := cut
	if fault.lasts == 0 {
		if err := f.putAll(); err != nil {
			return err
		}
	}
	if err := rest(ctx, deadLook); err != nil {
		return err
	}
	lag, ready, err := w.tells(ctx)
	if err != nil {
		return err
	}
	if fault.lasts > 0 {
		err := rest(ctx, time.Until(cut.Add(fault.lasts)))
		n.table.Block(false)
		n.stream.Block(false)
		works = time.Now()
		if err := errors.Join(err, f.putAll()); err != nil {
			return err
		}
	}
	first := map[int]time.Duration{}
	for time.Since(works) < 2*deadGoal && len(first) < len(f.shards) {
		if err := rest(ctx, 100*time.Millisecond); err != nil {
			return err
		}
		first = f.firstAfter(works, arrived.all())
	}
	// A lease that could not be renewed would be over by then, and what comes again has come.
	if err := rest(ctx, time.Until(cut.Add(35*time.Second+fault.lasts))); err != nil {
		return err
	}
	put, _, _ := f.count()
	_, since, err := arrived.distinct()
	if err != nil {
		return err
	}
	var times []time.Duration
	for _, d := range first {
		times = append(times, d)
	}
	slices.Sort(times)
	if len(times) == 0 {
		times = []time.Duration{0}
	}
	fmt.Fprintf(out, "| %s | %d | %s | %d, %d | %d | %.1f s | %.1f s | %d | %d | %d | %s | %s |\n", c.name, len(f.shards), fault.name, silent, toTable,
		len(first), percentile(times, 50).Seconds(), times[len(times)-1].Seconds(), owned.count(), f.missing(works, arrived.all(), put), since-again,
		lag, ready)
	return nil
}

// firstAfter returns when, after a moment, the first record that was put since came from
// each shard.
func (f *steadyFeed) firstAfter(moment time.Time, all []arrival) map[int]time.Duration {
	first := map[int]time.Duration{}
	for _, a := range all {
		r, ok := f.record(a.number)
		if !ok || r.put < moment.UnixNano() {
			continue
		}
		shard, took := f.shardOf(a.number), time.Duration(a.at-moment.UnixNano())
		if known, ok := first[shard]; !ok || took < known {
			first[shard] = took
		}
	}
	return first
}

// missing counts the records put before a moment that have not come.
func (f *steadyFeed) missing(moment time.Time, all []arrival, put int) int {
	came := make([]bool, put)
	for _, a := range all {
		if a.number < put {
			came[a.number] = true
		}
	}
	missing := 0
	for number := range put {
		if r, ok := f.record(number); ok && r.put < moment.UnixNano() && !came[number] {
			missing++
		}
	}
	return missing
}

// tells is what the process says of itself while nothing moves.
func (w watched) tells(ctx context.Context) (lag, ready string, err error) {
	least, most, err := w.metricRange(ctx, "kinesis_lag_milliseconds{")
	if err != nil {
		return "", "", err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(w.metrics, "/metrics")+"/ready", nil)
	if err != nil {
		return "", "", err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", "", fmt.Errorf("asking whether it is ready: %w", err)
	}
	return fmt.Sprintf("%.1f to %.1f s", least/1e3, most/1e3), strconv.Itoa(res.StatusCode), res.Body.Close()
}
