package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
)

// feed puts numbered records at a steady pace, and knows of each when it was put and, by
// fan-out, when the local AWS handed it to a connection. One goroutine puts, those of the
// local AWS tell of hand-overs.
type feed struct {
	src  source
	size int // bytes of a record, the number included

	mu     sync.Mutex
	fed    []fedRecord      // by number
	coming map[string][]int // by shard, those that were not handed over so far
	frames int
	extra  int // records that were handed over again
}

// fedRecord is one record. Times are in nanoseconds of Unix, since other processes tell
// them too; handed is 0 until it was handed over.
type fedRecord struct{ put, handed int64 }

// numberDigits begin each record.
const numberDigits = 12

func newFeed(src source, size int) (f *feed, stop func()) {
	f = &feed{src: src, size: size, coming: map[string][]int{}}
	return f, src.fake.OnEvent(f.handed)
}

// handed is a hook of awsfake.Server.OnEvent. A shard's records are handed over in the
// order in which they were put.
func (f *feed) handed(sub awsfake.Subscription, at time.Time, records int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.frames++
	coming := f.coming[sub.Shard]
	n := min(records, len(coming))
	for _, number := range coming[:n] {
		f.fed[number].handed = at.UnixNano()
	}
	f.coming[sub.Shard] = coming[n:]
	f.extra += records - n
}

func (f *feed) put(shard string) error {
	// Counted before it is put, since it may be handed over before that returns.
	f.mu.Lock()
	number := len(f.fed)
	f.fed = append(f.fed, fedRecord{put: time.Now().UnixNano()})
	f.coming[shard] = append(f.coming[shard], number)
	f.mu.Unlock()
	data := fmt.Sprintf("%0*d%s", numberDigits, number, strings.Repeat("x", max(0, f.size-numberDigits)))
	_, err := f.src.fake.PutTo(f.src.stream, shard, "key-"+strconv.Itoa(number%1000), []byte(data))
	return err
}

func (f *feed) record(number int) (fedRecord, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if number < 0 || number >= len(f.fed) {
		return fedRecord{}, false
	}
	return f.fed[number], true
}

func (f *feed) count() (records, frames, extra int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.fed), f.frames, f.extra
}

// steadily puts so many records a second into each shard until the time is up, burst of
// them at once. Shards take turns, so that the load is even.
func (f *feed) steadily(ctx context.Context, shards []string, rate float64, burst int, lasts time.Duration) error {
	between := time.Duration(float64(burst) / rate / float64(len(shards)) * float64(time.Second))
	begin := time.Now()
	for turn := 0; ; turn++ {
		due := time.Duration(turn) * between
		if due >= lasts {
			return nil
		}
		if wait := due - time.Since(begin); wait > 0 {
			if err := rest(ctx, wait); err != nil {
				return err
			}
		} else if err := ctx.Err(); err != nil {
			return err
		}
		for range burst {
			if err := f.put(shards[turn%len(shards)]); err != nil {
				return err
			}
		}
	}
}

// shardsOf returns the ids of the open shards.
func shardsOf(src source) (open []string, err error) {
	list, err := src.fake.Shards(src.stream)
	if err != nil {
		return nil, err
	}
	for _, s := range list {
		if !s.Closed() {
			open = append(open, s.ID)
		}
	}
	return open, nil
}

// stampedOutput prints the number of each record of a feed with the time, in nanoseconds
// of Unix.
const stampedOutput = `pipeline: { threads: 1 }
output:
  stdout: { codec: lines }
  processors:
    - mapping: root = "%s %d".format(content().string().slice(0, 12), timestamp_unix_nano())
`

// arrival is a record that came out.
type arrival struct {
	number int
	at     int64
}

func parseArrival(line string) (a arrival, err error) {
	number, at, found := strings.Cut(line, " ")
	if !found {
		return a, fmt.Errorf("it printed %q, which is no record with a time", line)
	}
	if a.number, err = strconv.Atoi(number); err != nil {
		return a, fmt.Errorf("it printed %q: %w", line, err)
	}
	if a.at, err = strconv.ParseInt(at, 10, 64); err != nil {
		return a, fmt.Errorf("it printed %q: %w", line, err)
	}
	return a, nil
}

// collector takes what a process prints, on a goroutine that ends with the process.
type collector struct {
	mu       sync.Mutex
	arrivals []arrival
	seen     map[int]int
	err      error
	done     chan struct{}
}

func collect(w watched) *collector {
	c := &collector{seen: map[int]int{}, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		for line := range w.Lines() {
			c.take(line)
		}
	}()
	return c
}

func (c *collector) take(line string) {
	a, err := parseArrival(line)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.err = err
		return
	}
	c.seen[a.number]++
	c.arrivals = append(c.arrivals, a)
}

// distinct returns how many records came, each counted once, and how many came again.
func (c *collector) distinct() (records, again int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.seen), len(c.arrivals) - len(c.seen), c.err
}

// all returns what has come so far.
func (c *collector) all() []arrival {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clip(c.arrivals)
}

// await returns when so many records have come, or none has for patience.
func (c *collector) await(ctx context.Context, records int, patience time.Duration) error {
	last, since := 0, time.Now()
	for {
		n, _, err := c.distinct()
		switch {
		case err != nil || n >= records:
			return err
		case n > last:
			last, since = n, time.Now()
		case time.Since(since) > patience:
			return fmt.Errorf("%d of %d records came, and for %s no more", n, records, patience)
		}
		if err := rest(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}
