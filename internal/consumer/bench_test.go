package consumer

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/benthosdev/benthos/v4/public/service"
	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/kpl"
	"github.com/benthos-plugins/aws-kinesis/internal/kpl/kpltest"
	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/retrieval"
)

// backlog is a source of so many records, a thousand to a page, and then of the
// shard's end.
type backlog struct{ left int }

func (*backlog) Close() {}

func (s *backlog) Next(context.Context) (retrieval.Page, error) {
	records := make([]retrieval.Record, min(s.left, 1000))
	for i := range records {
		records[i] = retrieval.Record{
			Data: payload, PartitionKey: "customer", Arrived: epoch,
			SequenceNumber: strconv.Itoa(1_000_000_000 - s.left + i),
		}
	}
	s.left -= len(records)
	return retrieval.Page{Records: records, End: s.left == 0}, nil
}

var (
	payload = make([]byte, 1000)
	epoch   = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
)

// BenchmarkConsumer takes records from the page to the acknowledgement of their
// batches.
func BenchmarkConsumer(b *testing.B) {
	benchmark(b, nil, 1, func(n int) Source { return &backlog{n} })
}

// BenchmarkAggregates is that of the user records of aggregates, 100 of 1,000 bytes in
// each.
func BenchmarkAggregates(b *testing.B) {
	const each = 100
	users := make([]kpl.Record, each)
	for i := range users {
		users[i] = kpl.Record{Data: payload, PartitionKey: "customer"}
	}
	aggregate := kpltest.Encode(users)
	benchmark(b, lowerHalf(b), each, func(n int) Source { return &aggregates{backlog{n}, aggregate} })
}

// aggregates is a backlog of aggregates.
type aggregates struct {
	backlog
	data []byte
}

func (s *aggregates) Next(ctx context.Context) (retrieval.Page, error) {
	p, err := s.backlog.Next(ctx)
	for i := range p.Records {
		p.Records[i].Data = s.data
	}
	return p, err
}

func benchmark(b *testing.B, deaggregate *Deaggregation, each int, source func(n int) Source) {
	b.Helper()
	for name, newBatcher := range map[string]func() (Batcher, error){
		"unbatched": func() (Batcher, error) { return new(Single), nil },
		"batches of 500": func() (Batcher, error) {
			return service.BatchPolicy{Count: 500}.NewBatcher(service.MockResources())
		},
	} {
		b.Run(name, func(b *testing.B) {
			batcher, err := newBatcher()
			require.NoError(b, err)
			leases, opts := newTable(), lease.Options{Client: "me", Period: leasePeriod, CommitPeriod: commitPeriod}
			session, end := join(b, leases, opts)
			defer end()
			l, _, err := lease.Take(b.Context(), b.Context(), session, leases, lease.Item{Key: key}, lease.Origin{}, opts)
			require.NoError(b, err)
			out, records := make(chan *Delivery), (b.N+each-1)/each
			c := New(Config{
				Lease: l, Open: func(string) Source { return source(records) }, Deaggregate: deaggregate, Batcher: batcher, Limit: 1024,
				Budget: retrieval.NewBudget(1 << 30), DrainTimeout: drainTimeout, Out: out,
			})
			b.ReportAllocs()
			b.ResetTimer()
			result := make(chan Result, 1)
			go func() { result <- c.Run() }()
			for taken := 0; taken < records*each; {
				d := <-out
				messages := len(d.Take())
				taken += messages
				d.Ack(messages, nil)
			}
			require.Equal(b, Finished, (<-result).Outcome)
		})
	}
}
