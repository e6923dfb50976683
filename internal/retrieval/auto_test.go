package retrieval_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
	"github.com/benthos-plugins/aws-kinesis/internal/retrieval"
)

// crowd is a client whose reads others throttle.
type crowd struct {
	*kinesis.Client
	throttled func() bool
	reads     int
}

func (c *crowd) GetRecords(ctx context.Context, in *kinesis.GetRecordsInput, opts ...func(*kinesis.Options)) (*kinesis.GetRecordsOutput, error) {
	c.reads++
	if c.throttled() {
		return nil, &types.ProvisionedThroughputExceededException{}
	}
	return c.Client.GetRecords(ctx, in, opts...)
}

// both is a world with a shard that can be read in both ways.
type both struct {
	*world
	fake  *awsfake.Server
	api   *crowd
	put   int
	log   []awsfake.Record
	got   []string
	pages []time.Duration // when they came
	ways  []string
}

// inBoth puts a record each five seconds for so long, reads with an Auto, and holds that each record
// was read once. others says when others throttle reads.
func inBoth(t *testing.T, lasts time.Duration, others func(at time.Duration) bool, prepare func(b *both), test func(t *testing.T, b *both)) {
	t.Helper()
	inWorld(t, func(t *testing.T, w *world) {
		b := &both{world: w, fake: awsfake.New(awsfake.Options{})}
		defer func() { require.NoError(t, b.fake.Close()) }()
		require.NoError(t, b.fake.CreateStream(stream, 1))
		b.api = &crowd{Client: client(b.fake), throttled: func() bool { return others(w.since()) }}
		w.serve = b.serveAll
		prepare(b)
		hooks := w.hooks()
		hooks.OnWay = func(way retrieval.Way, why string) {
			b.ways = append(b.ways, fmt.Sprintf("%s after %s: %s", way, w.since().Round(10*time.Second), why))
		}
		lists := retrieval.NewLists(t.Context(), b.api)
		source := retrieval.NewAuto(b.api, w.fan, lists, retrieval.Shard{Stream: stream, ID: shard}, retrieval.Position{}, w.budget, 0, hooks)
		ctx, cancel := context.WithCancel(w.ctx)
		defer cancel()
		done := make(chan bool)
		go func() {
			defer close(done)
			defer source.Close()
			for {
				page, err := source.Next(ctx)
				if err != nil {
					return
				}
				w.budget.Release(page.Cost)
				b.pages = append(b.pages, w.since())
				for _, r := range page.Records {
					b.got = append(b.got, string(r.Data))
				}
			}
		}()
		for ; w.since() < lasts; b.put++ {
			data := fmt.Appendf(nil, "record %d", b.put)
			sequence, err := b.fake.PutTo(stream, shard, "key", data)
			require.NoError(t, err)
			b.mu.Lock()
			b.log = append(b.log, awsfake.Record{SequenceNumber: sequence, Data: data})
			b.mu.Unlock()
			pass(5 * time.Second)
		}
		pass(time.Minute)
		cancel()
		<-done
		lists.Wait()
		require.Equal(t, records(0, b.put), b.got)
		test(t, b)
	})
}

// serveAll is a subscription to what the fake has.
func (b *both) serveAll(_ int, p *push) {
	if !p.start() {
		return
	}
	after := aws.ToString(p.from.SequenceNumber)
	last := time.Now()
	for until := last.Add(5 * time.Minute); time.Now().Before(until); {
		b.mu.Lock()
		all := b.log[sort.Search(len(b.log), func(i int) bool { return b.log[i].SequenceNumber > after }):]
		b.mu.Unlock()
		body := map[string]any{"MillisBehindLatest": 0}
		records := []map[string]any{}
		for _, r := range all {
			records = append(records, map[string]any{"SequenceNumber": r.SequenceNumber, "Data": r.Data, "PartitionKey": "key"})
		}
		if len(records) > 0 || time.Since(last) >= 5*time.Second {
			last = time.Now()
			if len(all) > 0 {
				after = all[len(all)-1].SequenceNumber
			}
			body["Records"], body["ContinuationSequenceNumber"] = records, after
			payload, err := json.Marshal(body)
			if err != nil {
				panic(err)
			}
			if !p.write(p.frame(string(payload), ":message-type", "event", ":event-type", "SubscribeToShardEvent")) {
				return
			}
		}
		if !p.pass(time.Second) {
			return
		}
	}
}

// gap is the longest time without a page.
func (b *both) gap(from, to time.Duration) (longest time.Duration) {
	last := from
	for _, at := range b.pages {
		if at > from && at < to {
			longest, last = max(longest, at-last), at
		}
	}
	return max(longest, to-last)
}

func between(from, to time.Duration) func(time.Duration) bool {
	return func(at time.Duration) bool { return at >= from && at < to }
}

func TestEachRecordIsReadOnceThroughEachChange(t *testing.T) {
	throttled := func(at time.Duration) bool {
		return at%(20*time.Minute) >= 10*time.Minute && at%(20*time.Minute) < 12*time.Minute
	}
	inBoth(t, 70*time.Minute, throttled, func(*both) {}, func(t *testing.T, b *both) {
		require.Len(t, b.ways, 5, "%q", b.ways)
		require.Contains(t, b.ways[0], "fan_out after 10m")
		require.Contains(t, b.ways[1], ": it has been caught up for 10m")
		require.Contains(t, b.ways[2], "fan_out after 30m")
		require.Contains(t, b.ways[3], "polling after 50m")
		require.Contains(t, b.ways[4], "fan_out after 5")
	})
}

func TestShardIsPolledUntilThereIsAConsumer(t *testing.T) {
	some := 0
	throttled := func(time.Duration) bool { some++; return some%2 == 0 }
	inBoth(t, 5*time.Minute, throttled, func(b *both) {
		b.registry.remove("group")
		b.registry.took = 50 * time.Second
	}, func(t *testing.T, b *both) {
		require.Len(t, b.ways, 1)
		require.Contains(t, b.ways[0], "fan_out after 1m")
		require.LessOrEqual(t, b.gap(0, 5*time.Minute), 20*time.Second)
	})
}

func TestShardIsPolledWhereNoConsumerCanBeHad(t *testing.T) {
	some := 0
	throttled := func(time.Duration) bool { some++; return some%2 == 0 }
	inBoth(t, 30*time.Minute, throttled, func(b *both) {
		b.registry.refuse = func(context.Context, string, int) error { return coded("AccessDeniedException") }
	}, func(t *testing.T, b *both) {
		require.Empty(t, b.ways)
		require.LessOrEqual(t, b.registry.count("DescribeStreamConsumer"), 15, "a few at first, and then one in five minutes")
		require.GreaterOrEqual(t, b.registry.count("DescribeStreamConsumer"), 4)
		require.LessOrEqual(t, b.gap(0, 30*time.Minute), 20*time.Second)
	})
}

func TestShardIsPolledWhereNoSubscriptionCanBeHad(t *testing.T) {
	inBoth(t, 10*time.Minute, between(time.Minute, 2*time.Minute), func(b *both) {
		b.refuse = func(context.Context, int) error { return errors.New("no") }
	}, func(t *testing.T, b *both) {
		require.Len(t, b.ways, 2)
		require.Contains(t, b.ways[0], "fan_out after 1m")
		require.Contains(t, b.ways[1], ": no subscription to it could be had, or kept, for 30s")
	})
}

func TestShardIsPolledWhileItsConsumerIsRegisteredAnew(t *testing.T) {
	inBoth(t, 8*time.Minute, between(time.Minute, 2*time.Minute), func(b *both) {
		b.serve = func(n int, p *push) {
			if n == 1 {
				own, cancel := context.WithTimeout(p.ctx, time.Minute)
				defer cancel()
				b.serveAll(n, &push{ctx: own, body: p.body, from: p.from})
				b.registry.remove("group")
				b.registry.took = 50 * time.Second
				p.fail("ResourceNotFoundException")
				return
			}
			b.serveAll(n, p)
		}
	}, func(t *testing.T, b *both) {
		require.Len(t, b.subscriptions, 3)
		require.LessOrEqual(t, b.gap(2*time.Minute, 8*time.Minute), 10*time.Second)
		require.Len(t, b.ways, 3, "%q", b.ways)
		require.Contains(t, b.ways[1], "there is no consumer to subscribe as")
		require.Contains(t, b.ways[2], "there is a consumer to subscribe as now")
	})
}

func TestSuspendedShardGoesOnAsItWasRead(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		fake := awsfake.New(awsfake.Options{})
		defer func() { require.NoError(t, fake.Close()) }()
		require.NoError(t, fake.CreateStream(stream, 1))
		api := &crowd{Client: client(fake), throttled: func() bool { return true }}
		lists := retrieval.NewLists(t.Context(), api)
		defer lists.Wait()
		auto := func() *retrieval.Auto {
			return retrieval.NewAuto(api, w.fan, lists, retrieval.Shard{Stream: stream, ID: shard}, retrieval.Position{}, w.budget, 0, w.hooks())
		}
		first := auto()
		page, err := first.Next(w.ctx)
		require.NoError(t, err)
		w.budget.Release(page.Cost)
		first.Close()
		reads := api.reads
		pass(10 * time.Second)
		second := auto()
		defer second.Close()
		_, err = second.Next(w.ctx)
		require.NoError(t, err)
		synctest.Wait()
		require.LessOrEqual(t, api.reads, reads+1)
		require.Len(t, w.subscriptions, 2)
	})
}
