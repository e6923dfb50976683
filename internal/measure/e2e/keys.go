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
	keysRecords = 60_000 // more than any gets through
	keysSize    = 100    // bytes
)

// orderings are ways to read a shard whose messages must keep some order. The first is
// what the others are compared with.
var orderings = []struct{ name, fields string }{
	{"`checkpoint_limit: 1`", "    checkpoint_limit: 1\n"},
	{"`ordering: partition_key`", "    ordering: partition_key\n"},
	{"`ordering: shard`", ""},
}

// keys measures how fast a shard flows through an output that takes a while, and counts
// in that output which keys were put out of order.
func keys(ctx context.Context, c candidate, out io.Writer) error {
	if c.name != "this input" {
		return nil // the others have one order alone
	}
	return served(awsfake.Options{EnforceLimits: true}, 1, func(src source) error {
		if err := fillKeys(src); err != nil {
			return err
		}
		base := 0.0
		for i, o := range orderings {
			src.table = fmt.Sprint("leases-", i)
			rate, row, err := c.measureKeys(ctx, src, o.fields)
			if err != nil {
				return err
			}
			if base == 0 {
				base = rate
			}
			fmt.Fprintf(out, "| %s | %.1f | %.1f | %s |\n", o.name, rate, rate/base, row)
		}
		return nil
	})
}

// fillKeys puts numbered records into the shard, each of any key.
func fillKeys(src source) error {
	list, err := src.fake.Shards(src.stream)
	if err != nil {
		return err
	}
	dice := rand.New(rand.NewPCG(1, 0))
	for i := range keysRecords {
		data := fmt.Appendf(nil, "%-*d", keysSize, i)
		if _, err := src.fake.PutTo(src.stream, list[0].ID, fmt.Sprint("key-", dice.IntN(keysOf)), data); err != nil {
			return err
		}
	}
	return nil
}

func (c candidate) measureKeys(ctx context.Context, src source, fields string) (rate float64, row string, err error) {
	receiver := &keyReceiver{inside: map[string]int{}, newest: map[string]int{}, first: make(chan struct{})}
	server := httptest.NewServer(receiver)
	defer server.Close()
	c.input = func(_ column, src source) string {
		return fmt.Sprintf(`aws_kinesis:
    streams: [ %s ]
    region: us-east-1
    endpoint: %s
    dynamodb: { table: %s, create: true }
%s`, src.stream, src.url, src.table, fields)
	}
	output := fmt.Sprintf(`output:
  http_client:
    url: %s
    verb: POST
    headers: { X-Key: '${! @kinesis_partition_key }' }
    max_in_flight: %d
`, server.URL, keysFlight)
	err = c.watch(ctx, column{name: fields}, src, output, func(w watched) error {
		select {
		case <-receiver.first:
		case <-time.After(startBound): //nolint:forbidigo // once a run
			return errors.New("no record came")
		case <-ctx.Done():
			return ctx.Err()
		}
		before, done, begin := time.Duration(0), receiver.count().done, time.Now()
		if before, err = cpu(w.PID()); err != nil {
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
		n := now.done - done
		rate = float64(n) / took.Seconds()
		row = fmt.Sprintf("%d | %d | %d | %d | %.0f", now.done, now.most, now.inverted, now.overlapping,
			float64(after-before)/float64(time.Microsecond)/float64(max(n, 1)))
		return nil
	})
	return rate, row, err
}

// keyReceiver is the output's end: it takes each message for a while, and sees which come
// before an earlier one of their key, or while it has another of their key.
type keyReceiver struct {
	mu     sync.Mutex
	inside map[string]int // messages of a key
	newest map[string]int // number of the newest message of a key
	keyCounts
	all   int           // inside
	first chan struct{} // closed when a message has come
}

type keyCounts struct {
	done, inverted, overlapping int
	most                        int // at once
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
	n, err := strconv.Atoi(strings.TrimSpace(string(body)))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	key := r.Header.Get("X-Key")
	k.enter(key, n)
	_ = rest(r.Context(), keysLatency) // a program that was ended waits for nothing
	k.leave(key)
}

func (k *keyReceiver) enter(key string, n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.newest) == 0 {
		close(k.first)
	}
	if newest, known := k.newest[key]; known && n <= newest {
		k.inverted++
	}
	if k.inside[key] > 0 {
		k.overlapping++
	}
	k.newest[key] = max(k.newest[key], n)
	k.inside[key]++
	k.all++
	k.most = max(k.most, k.all)
}

func (k *keyReceiver) leave(key string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.inside[key]--
	k.all--
	k.done++
}
