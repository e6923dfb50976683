package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
)

// Prices of us-east-1 in provisioned mode, in dollars, from
// https://aws.amazon.com/kinesis/data-streams/pricing/ as of 2026. They change, and differ
// between regions and modes.
const (
	// consumerShardHour is for each shard of the stream as long as a consumer is
	// registered, also while nobody subscribes.
	consumerShardHour = 0.015
	// retrievedGB is for 2^30 bytes that subscriptions bring.
	retrievedGB = 0.013
)

// hourly is what enhanced fan-out costs in an hour, for a consumer of so many shards and so
// many bytes a second. GetRecords costs nothing beside the hours of the shards.
func hourly(shards int, bytesSecond float64) float64 {
	return float64(shards)*consumerShardHour + bytesSecond*3600/(1<<30)*retrievedGB
}

const (
	autoShards  = 4
	autoRate    = 400.0 // records of 1 KB a second and shard: with three other readers 1.6 of 2 MB
	autoReaders = 3
	autoStep    = 15 * time.Second
)

func fanOutAuto(ctx context.Context, o options, out io.Writer) error {
	lasts := 2 * time.Minute
	if o.brief {
		lasts = time.Minute
	}
	fmt.Fprintf(out, `
## Other readers

%d shards, each fed %.0f records of 1 KB a second, and %d other readers that poll each shard
five times a second, over TLS, limits enforced, no batching. For each %s of %s: put to output in
milliseconds, median / 99th percentile / longest, by when records were put, and
kinesis_max_lag_milliseconds at its end.

| way | from second | records put | put to output | max lag | subscriptions | GetRecords of this and the others, a second | of these throttled |
|---|---|---|---|---|---|---|---|
`, autoShards, autoRate, autoReaders, autoStep, lasts)
	var bills []string
	for _, c := range []candidate{way(o, byPolling, ""), way(o, "auto", "    enhanced_fan_out: { enabled: true, mode: auto }\n")} {
		bill, err := contend(ctx, c, lasts, out)
		if err != nil {
			return err
		}
		bills = append(bills, bill)
	}
	fmt.Fprint(out, `
Money by the price list of us-east-1 (`+"https://aws.amazon.com/kinesis/data-streams/pricing/"+`, 2026, provisioned
mode; prices change): $0.015 a consumer-shard-hour, for all shards of the stream from the
registration of a consumer to its removal, subscribed to or not, and $0.013 a GB that
subscriptions bring. GetRecords costs nothing beside the hours of the shards.

| way | dollars an hour |
|---|---|
`)
	for _, bill := range bills {
		fmt.Fprint(out, bill)
	}
	fmt.Fprintf(out, "| fan-out always, the same load | %.4f |\n", hourly(autoShards, autoShards*autoRate*(1<<10)))
	return nil
}

// contend runs a candidate beside other readers.
func contend(ctx context.Context, c candidate, lasts time.Duration, out io.Writer) (bill string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	err = servedTLS(autoShards, func(src source) error {
		return c.watch(ctx, column{name: "other readers", batch: 1}, src, stampedOutput, func(w watched) error {
			came := collect(w)
			if _, err := w.awaitShards(ctx, src, autoShards, false); err != nil {
				return err
			}
			shards, err := shardsOf(src)
			if err != nil {
				return err
			}
			f, stop := newFeed(src, 1<<10)
			defer stop()
			var pushed atomic.Int64
			forget := src.fake.OnEvent(func(_ awsfake.Subscription, _ time.Time, records int) { pushed.Add(int64(records)) })
			defer forget()
			readers, stopReaders := context.WithCancel(ctx)
			var reading sync.WaitGroup
			defer reading.Wait()
			defer stopReaders()
			for range autoReaders {
				for _, shard := range shards {
					reading.Go(func() { read(readers, src, shard) })
				}
			}
			steps, err := sampleSteps(ctx, w, src, f, shards, lasts)
			if err != nil {
				return err
			}
			stopReaders()
			records, _, _ := f.count()
			if err := came.await(ctx, records, 30*time.Second); err != nil {
				return err
			}
			steps.row(out, c.name, f, came)
			registered := c.name != byPolling && src.fake.Calls("RegisterStreamConsumer") > 0
			bill = fmt.Sprintf("| %s, nothing of fan-out used | 0 |\n", c.name)
			if registered {
				rate := float64(pushed.Load()<<10) / lasts.Seconds()
				bill = fmt.Sprintf("| %s, with %.0f %% of the records pushed | %.4f |\n", c.name, 100*float64(pushed.Load())/float64(max(records, 1)), hourly(autoShards, rate))
			}
			return nil
		})
	})
	return bill, err
}

// step is what was seen in a part of the time.
type step struct {
	first           int // number of its first record
	lag             int64
	subscriptions   int
	calls, throttle int
}

type steps []step

// sampleSteps feeds the shards, and samples at the end of each step.
func sampleSteps(ctx context.Context, w watched, src source, f *feed, shards []string, lasts time.Duration) (all steps, err error) {
	for range int(lasts / autoStep) {
		s := step{calls: -src.fake.Calls("GetRecords"), throttle: -src.fake.Refused("GetRecords", throughputExceeded)}
		s.first, _, _ = f.count()
		if err := f.steadily(ctx, shards, autoRate, 1, autoStep); err != nil {
			return nil, err
		}
		if s.lag, err = w.metric(ctx, "kinesis_max_lag_milliseconds"); err != nil {
			return nil, err
		}
		s.subscriptions = len(src.fake.Subscriptions(src.stream))
		s.calls += src.fake.Calls("GetRecords")
		s.throttle += src.fake.Refused("GetRecords", throughputExceeded)
		all = append(all, s)
	}
	return all, nil
}

func (all steps) row(out io.Writer, way string, f *feed, came *collector) {
	took := make([][]time.Duration, len(all))
	for _, a := range came.all() {
		r, known := f.record(a.number)
		i, exact := slices.BinarySearchFunc(all, a.number, func(s step, n int) int { return cmp.Compare(s.first, n) })
		if !exact {
			i--
		}
		if known && i >= 0 {
			took[i] = append(took[i], time.Duration(a.at-r.put))
		}
	}
	for i, s := range all {
		seconds := autoStep.Seconds()
		fmt.Fprintf(out, "| %s | %.0f | %d | %s | %d ms | %d | %.1f | %.0f %% |\n", way, float64(i)*seconds, len(took[i]), spread(took[i]),
			s.lag, s.subscriptions, float64(s.calls)/seconds, 100*float64(s.throttle)/float64(max(s.calls, 1)))
	}
}

// read polls a shard five times a second on average, as fast as the service takes it from
// one reader, with the SDK. What is refused it asks for again at its next turn. The turns
// are uneven, since readers in step with one another would shut out one that is not.
func read(ctx context.Context, src source, shard string) {
	client := src.fake.Kinesis()
	var iterator *string
	once := func(o *kinesis.Options) { o.RetryMaxAttempts = 1 }
	for {
		if rest(ctx, time.Second/10+rand.N(time.Second/5)) != nil {
			return
		}
		if iterator == nil {
			got, err := client.GetShardIterator(ctx, &kinesis.GetShardIteratorInput{StreamName: &src.stream, ShardId: &shard, ShardIteratorType: types.ShardIteratorTypeLatest}, once)
			if err != nil {
				continue
			}
			iterator = got.ShardIterator
		}
		if got, err := client.GetRecords(ctx, &kinesis.GetRecordsInput{ShardIterator: iterator}, once); err == nil {
			iterator = got.NextShardIterator
		}
	}
}
