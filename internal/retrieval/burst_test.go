package retrieval_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
	"github.com/benthos-plugins/aws-kinesis/internal/retrieval"
	"github.com/benthos-plugins/aws-kinesis/internal/retrieval/wire"
)

// Shards without a backlog have little set aside. When all of them get much at once, they
// hold what the budget allows all the same.
func TestShardsThatBurstAtOnceKeepWithinTheBudget(t *testing.T) {
	const shards, limit = 32, 8 << 20
	for name, burst := range map[string]struct{ records, bytes int }{
		"records like those before":   {1000, 1000},
		"larger records":              {50, 20_000},
		"the largest there are":       {2, 1 << 20},
		"larger than the budget":      {1, 10<<20 - 3}, // with its key
		"more than the budget at all": {100, 64 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				count := shards
				if burst.records*burst.bytes > 2<<20 {
					count = 6 // as much in total
				}
				s := awsfake.New(awsfake.Options{EnforceLimits: true})
				t.Cleanup(func() { require.NoError(t, s.Close()) })
				require.NoError(t, s.CreateStream(stream, count))
				ids, err := s.Shards(stream)
				require.NoError(t, err)
				fill := func(n, bytes int) {
					for _, id := range ids {
						for range n {
							_, err := s.PutTo(stream, id.ID, "key", make([]byte, bytes))
							require.NoError(t, err)
						}
					}
				}
				fill(3, 1000)
				api := wire.NewDirect(kinesis.NewFromConfig(s.AWSConfig(), wire.Install, func(o *kinesis.Options) { o.Retryer = aws.NopRetryer{} }), time.Second, nil)
				ctx, end := context.WithCancel(t.Context())
				defer end()
				budget := retrieval.NewBudget(limit)
				var read, most atomic.Int64
				var reading sync.WaitGroup
				for _, id := range ids {
					p := retrieval.NewPoller(api, retrieval.NewLists(ctx, api), retrieval.Shard{Stream: stream, ID: id.ID}, retrieval.Position{}, budget, 0, retrieval.Hooks{})
					reading.Go(func() {
						last := ""
						for {
							page, err := p.Next(ctx)
							if err != nil {
								return
							}
							for held := budget.Held(); ; {
								before := most.Load()
								if held <= before || most.CompareAndSwap(before, held) {
									break
								}
							}
							for _, r := range page.Records {
								if r.SequenceNumber <= last {
									t.Errorf("%s after %s", r.SequenceNumber, last)
								}
								last = r.SequenceNumber
							}
							read.Add(int64(len(page.Records)))
							if len(page.Records) > 0 {
								pass(100 * time.Millisecond) // an output is busy with them
							}
							budget.Release(page.Cost)
						}
					})
				}
				pass(10 * time.Second)
				require.EqualValues(t, 3*count, read.Load())
				fill(burst.records, burst.bytes)
				for begin := time.Now(); read.Load() < int64((3+burst.records)*count); pass(time.Second) {
					require.Less(t, time.Since(begin), 10*time.Minute, "%d of %d records", read.Load(), (3+burst.records)*count)
				}
				end()
				reading.Wait()
				require.Zero(t, budget.Held())
				held := fmt.Sprintf("%.1f of %d MiB", float64(most.Load())/(1<<20), limit>>20)
				t.Log(held)
				if burst.bytes < limit/4 {
					require.LessOrEqual(t, most.Load(), int64(limit), held)
				} else {
					require.LessOrEqual(t, most.Load(), int64(21<<20), "one record, alone: %s", held)
				}
			})
		})
	}
}

// The service counts what it has sent, whatever became of it.
func TestAnswerThatWasGivenUpIsNotFollowedByThrottling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, awsfake.Options{EnforceLimits: true})
		_, err := s.PutTo(stream, shard, "key", make([]byte, 10<<20-3))
		require.NoError(t, err)
		budget := retrieval.NewBudget(64 << 20)
		others, err := budget.Reserve(t.Context(), 40<<20, nil)
		require.NoError(t, err)
		time.AfterFunc(100*time.Millisecond, func() { budget.Release(others) })
		var told []error
		p := retrieval.NewPoller(wire.NewDirect(client(s), time.Second, nil), lists(s), retrieval.Shard{Stream: stream, ID: shard}, retrieval.Position{}, budget, 0, onTrouble(func(err error) { told = append(told, err) }))
		page, err := p.Next(t.Context())
		require.NoError(t, err)
		require.Len(t, page.Records, 1)
		require.Equal(t, 2, s.Calls("GetRecords"))
		require.Empty(t, told)
		budget.Release(page.Cost)
		require.Zero(t, budget.Held())
	})
}
