package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
)

const (
	keysOf      = 1000 // keys of one shard
	keysLatency = 50 * time.Millisecond
	keysFlight  = 64 // messages that the output has at once
	keysLasts   = 20 * time.Second
	keysRecords = 500_000 // more than any gets through
	keysSize    = 100     // bytes
)

// ordering is a way to read a shard whose messages must keep some order.
type ordering struct{ name, fields, pipeline string }

const (
	lockStep  = "    checkpoint_limit: 1\n"
	orderKeys = "    ordering: partition_key\n"
	joined    = "    batching: { count: 100, period: 100ms, processors: [ { archive: { format: lines } } ] }\n"
	apart     = "    batching: { count: 100, period: 100ms }\n"
	joinLater = "pipeline: { processors: [ { archive: { format: lines } } ] }\n"
)

// keyRuns are what is compared, in each with the first way. With hot, a fifth of all
// records is of one key.
var keyRuns = []struct {
	name      string
	hot       bool
	orderings []ordering
}{
	{"1,000 keys", false, []ordering{
		{"`checkpoint_limit: 1`", lockStep, ""},
		{"`ordering: partition_key`", orderKeys, ""},
		{"`ordering: shard`", "", ""},
	}},
	{"the same, batches of 100 as one message", false, batchOrderings},
	{"and a hot key, batches of 100 as one message", true, batchOrderings},
}

var batchOrderings = []ordering{
	{"`checkpoint_limit: 1`", lockStep + joined, ""},
	{"`ordering: partition_key`, joined by `batching.processors`", orderKeys + joined, ""},
	{"`ordering: partition_key`, joined by the pipeline: a key once a batch", orderKeys + apart, joinLater},
	{"`ordering: shard`", joined, ""},
}

// keys measures how fast a shard flows through an output that takes a while, and counts
// in that output which keys were put out of order.
func keys(ctx context.Context, c candidate, out io.Writer) error {
	if c.name != "this input" {
		return nil // the others have one order alone
	}
	for _, run := range keyRuns {
		if !strings.Contains(run.name, c.only) {
			continue
		}
		err := served(awsfake.Options{EnforceLimits: true}, 1, func(src source) error {
			if err := fillKeys(src, run.hot); err != nil {
				return err
			}
			base := 0.0
			for i, o := range run.orderings {
				src.table = fmt.Sprint("leases-", i)
				rate, row, err := c.measureKeys(ctx, src, o)
				if err != nil {
					return err
				}
				if base == 0 {
					base = rate
				}
				fmt.Fprintf(out, "| %s | %s | %.1f | %.1f | %s |\n", run.name, o.name, rate, rate/base, row)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// fillKeys puts numbered records into the shard, each of any key, and with its key.
func fillKeys(src source, hot bool) error {
	list, err := src.fake.Shards(src.stream)
	if err != nil {
		return err
	}
	dice := rand.New(rand.NewPCG(1, 0))
	for i := range keysRecords {
		key := fmt.Sprint("key-", dice.IntN(keysOf))
		if hot && dice.IntN(5) == 0 {
			key = "hot"
		}
		data := fmt.Appendf(nil, "%-*s", keysSize, fmt.Sprint(i, " ", key))
		if _, err := src.fake.PutTo(src.stream, list[0].ID, key, data); err != nil {
			return err
		}
	}
	return nil
}

func (c candidate) measureKeys(ctx context.Context, src source, o ordering) (rate float64, row string, err error) {
	receiver := &keyReceiver{inside: map[string]int{}, newest: map[string]int{}, first: make(chan struct{})}
	server := httptest.NewServer(receiver)
	defer server.Close()
	c.input = func(_ column, src source) string {
		return fmt.Sprintf(`aws_kinesis:
    streams: [ %s ]
    region: us-east-1
    endpoint: %s
    dynamodb: { table: %s, create: true }
%s`, src.stream, src.url, src.table, o.fields)
	}
	output := o.pipeline + fmt.Sprintf(`output:
  http_client:
    url: %s
    verb: POST
    max_in_flight: %d
`, server.URL, keysFlight)
	err = c.watch(ctx, column{name: o.name}, src, output, func(w watched) error {
		select {
		case <-receiver.first:
		case <-time.After(startBound): //nolint:forbidigo // once a run
			return errors.New("no record came")
		case <-ctx.Done():
			return ctx.Err()
		}
		first, begin := receiver.count(), time.Now()
		before, err := cpu(w.PID())
		if err != nil {
			return err
		}
		if err := rest(ctx, keysLasts); err != nil {
			return err
		}
		after, err := cpu(w.PID())
		if err != nil {
			return err
		}
		now, took := receiver.count(), time.Since(begin)
		if now.done == keysRecords {
			return errors.New("it ran out of records")
		}
		n := now.done - first.done
		rate = float64(n) / took.Seconds()
		row = fmt.Sprintf("%d | %d | %d | %d | %d | %.0f", n, n/max(now.requests-first.requests, 1), now.most, now.inverted, now.overlapping,
			float64(after-before)/float64(time.Microsecond)/float64(max(n, 1)))
		return nil
	})
	return rate, row, err
}

// keyReceiver is the output's end: it takes each request for a while, and sees which
// records come after a later one of their key, or while it has another request with some.
type keyReceiver struct {
	mu     sync.Mutex
	inside map[string]int // requests with records of a key
	newest map[string]int // number of the newest record of a key
	keyCounts
	all   int           // requests inside
	first chan struct{} // closed when a request has come
}

type keyCounts struct {
	done, requests        int
	inverted, overlapping int
	most                  int // requests at once
}

func (k *keyReceiver) count() keyCounts {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.keyCounts
}

func (k *keyReceiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	lines := strings.Split(string(body), "\n")
	keys, err := k.enter(lines)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	_ = rest(r.Context(), keysLatency) // a program that was ended waits for nothing
	k.leave(keys, len(lines))
}

// enter returns the keys of the records of a request.
func (k *keyReceiver) enter(lines []string) (keys map[string]bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.all++; len(k.newest) == 0 {
		close(k.first)
	}
	k.most = max(k.most, k.all)
	keys = map[string]bool{}
	for _, line := range lines {
		number, key, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, err := strconv.Atoi(number)
		if err != nil {
			return nil, err
		}
		if newest, known := k.newest[key]; known && n <= newest {
			k.inverted++
		}
		k.newest[key] = max(k.newest[key], n)
		if keys[key] {
			continue
		}
		keys[key] = true
		if k.inside[key] > 0 {
			k.overlapping++
		}
		k.inside[key]++
	}
	return keys, nil
}

func (k *keyReceiver) leave(keys map[string]bool, records int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for key := range keys {
		k.inside[key]--
	}
	k.all--
	k.done += records
	k.requests++
}
