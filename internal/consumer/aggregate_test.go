package consumer

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/benthosdev/benthos/v4/public/service"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/benthos-plugins/aws-kinesis/internal/kpl"
	"github.com/benthos-plugins/aws-kinesis/internal/kpl/kpltest"
	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/retrieval"
)

// aggregate is the nth record of the shard, of user records whose contents are its number
// and theirs.
func aggregate(n, users int) retrieval.Record {
	records := make([]kpl.Record, users)
	for i := range records {
		records[i] = kpl.Record{Data: fmt.Appendf(nil, "%d/%d", n, i), PartitionKey: "customer 1"} // of the lower half
	}
	return retrieval.Record{Data: kpltest.Encode(records), SequenceNumber: sequence(n), PartitionKey: "a"}
}

// broken is an aggregate whose digest is wrong.
func broken(n int) retrieval.Record {
	r := aggregate(n, 3)
	r.Data[len(r.Data)-1]++
	return r
}

// pageOf has records at what they cost.
func pageOf(records ...retrieval.Record) retrieval.Page {
	p := retrieval.Page{Records: records}
	for i := range records {
		p.Cost += retrieval.Cost(&records[i])
	}
	return p
}

// inside is the position after some user records of the nth record, before which is
// another one.
func inside(n, users int) lease.Position {
	return lease.Position{Sequence: sequence(n - 1), Within: lease.Within{Sequence: sequence(n), Count: users}}
}

// deaggregating has a consumer take aggregates apart.
func deaggregating(c *Config) { c.Deaggregate = new(Deaggregation) }

func metadata(tb testing.TB, m *service.Message) map[string]any {
	tb.Helper()
	got := map[string]any{}
	require.NoError(tb, m.MetaWalkMut(func(key string, value any) error {
		got[key] = value
		return nil
	}))
	return got
}

func TestUserRecordsSayWhereTheyComeFrom(t *testing.T) {
	bubble(t, deaggregating, func(r *rig) {
		record := retrieval.Record{
			Data: kpltest.Encode([]kpl.Record{
				{Data: []byte("one"), PartitionKey: "first"}, {Data: []byte("two"), PartitionKey: "second", ExplicitHashKey: "17"},
			}),
			SequenceNumber: "100", PartitionKey: "a", Arrived: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		}
		r.put(pageOf(record, retrieval.Record{Data: []byte("three"), SequenceNumber: "101", PartitionKey: "third"}))
		const arrived = "2026-01-02T03:04:05Z"
		for _, want := range []map[string]any{
			{"": "one", "kinesis_sequence_number": "100", "kinesis_sub_sequence_number": "0", "kinesis_partition_key": "first", "kinesis_approximate_arrival_timestamp": arrived},
			{"": "two", "kinesis_sequence_number": "100", "kinesis_sub_sequence_number": "1", "kinesis_partition_key": "second", "kinesis_explicit_hash_key": "17", "kinesis_approximate_arrival_timestamp": arrived},
			{"": "three", "kinesis_sequence_number": "101", "kinesis_partition_key": "third"},
		} {
			want["kinesis_stream"], want["kinesis_shard"], want["kinesis_lease_term"] = "orders", key.Shard, "1"
			synctest.Wait()
			m := (<-r.out).Take()[0]
			content, err := m.AsBytes()
			require.NoError(r, err)
			got := metadata(r, m)
			got[""] = string(content)
			require.Equal(r, want, got)
		}
	})
}

func TestAggregatesStayAsTheyAreUnlessTheyAreToComeApart(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		record := aggregate(0, 2)
		r.put(pageOf(record))
		_, got := r.next()
		require.Equal(r, []string{string(record.Data)}, got)
	})
}

func TestCheckpointMovesThroughAnAggregate(t *testing.T) {
	bubble(t, deaggregating, func(r *rig) {
		r.put(pageOf(aggregate(1, 3)), page(2, 1))
		var all []*Delivery
		for range 4 {
			d, _ := r.next()
			all = append(all, d)
		}
		for _, step := range []struct {
			ack  int
			want lease.Position
		}{
			{1, lease.Position{}},
			{0, lease.Position{Within: lease.Within{Sequence: sequence(1), Count: 2}}}, // nothing is done whole
			{3, lease.Position{Within: lease.Within{Sequence: sequence(1), Count: 2}}},
			{2, lease.After(sequence(2))},
		} {
			all[step.ack].Ack(1, nil)
			pass(commitPeriod)
			require.Equal(r, step.want, r.table.now().Position())
		}
	})
}

func TestLimitCountsUserRecords(t *testing.T) {
	bubble(t, func(c *Config) {
		deaggregating(c)
		c.Limit = 3
	}, func(r *rig) {
		r.put(pageOf(aggregate(0, 5)))
		first, _ := r.next()
		r.next()
		r.next()
		r.nothing()
		require.Equal(r, 3, r.consumer.State().InFlight)
		first.Ack(1, nil)
		_, got := r.next()
		require.Equal(r, []string{"0/3"}, got)
	})
}

func TestBatchHoldsUserRecordsOfSeveralAggregates(t *testing.T) {
	bubble(t, func(c *Config) {
		deaggregating(c)
		c.Batcher = batcher(t, service.BatchPolicy{Count: 4})
	}, func(r *rig) {
		r.put(pageOf(aggregate(0, 3), aggregate(1, 4), retrieval.Record{Data: []byte("plain"), SequenceNumber: sequence(2)}))
		d, got := r.next()
		require.Equal(r, []string{"0/0", "0/1", "0/2", "1/0"}, got)
		d.Ack(4, nil)
		pass(commitPeriod)
		require.Equal(r, inside(1, 1), r.table.now().Position())
		d, got = r.next()
		require.Equal(r, []string{"1/1", "1/2", "1/3", "plain"}, got)
		d.Ack(4, nil)
		pass(commitPeriod)
		require.Equal(r, lease.After(sequence(2)), r.table.now().Position())
	})
}

func TestReadingGoesOnInsideOfTheAggregate(t *testing.T) {
	for _, test := range []struct {
		committed lease.Position
		want      string // the first message
	}{
		{inside(1, 2), "1/2"},
		{lease.After(sequence(0)), "1/0"},
		{inside(1, 4), "1/0"}, // there is no such place, and nothing may be lost
		{lease.Position{Sequence: sequence(0), Within: lease.Within{Sequence: sequence(2), Count: 1}}, "1/0"}, // of another record
	} {
		bubble(t, func(c *Config) {
			deaggregating(c)
			c.Committed = test.committed
		}, func(r *rig) {
			r.put(pageOf(aggregate(1, 4)))
			_, got := r.next()
			require.Equal(r, []string{test.want}, got, "%v", test.committed)
		})
	}
}

func TestPlaceIsKeptWhereAggregatesStayAsTheyAre(t *testing.T) {
	for _, byKey := range []bool{false, true} {
		bubble(t, func(c *Config) { c.Committed, c.ByKey = inside(1, 2), byKey }, func(r *rig) {
			r.put(pageOf(aggregate(1, 4)))
			d, _ := r.next()
			pass(commitPeriod)
			require.Equal(r, inside(1, 2), r.table.now().Position(), "no write stores less")
			d.Ack(1, nil)
			pass(commitPeriod)
			require.Equal(r, lease.After(sequence(1)), r.table.now().Position())
		})
	}
}

func TestPlaceThatIsNotInTheAggregateSkipsNothing(t *testing.T) {
	for _, byKey := range []bool{false, true} {
		bubble(t, func(c *Config) {
			deaggregating(c)
			c.Committed, c.ByKey, c.Batcher = inside(1, 9), byKey, batcher(t, service.BatchPolicy{Count: 1})
		}, func(r *rig) {
			r.put(pageOf(aggregate(1, 3), broken(2)))
			for _, want := range []string{"1/0", "1/1", "1/2", string(broken(2).Data)} {
				d, got := r.next()
				require.Equal(r, []string{want}, got)
				d.Ack(1, nil)
			}
			pass(commitPeriod)
			require.Equal(r, lease.After(sequence(2)), r.table.now().Position())
		})
	}
}

func TestBrokenAggregateIsDeliveredAsItIs(t *testing.T) {
	var told []Aggregate
	bubble(t, func(c *Config) {
		deaggregating(c)
		c.Hooks.OnAggregate = func(a Aggregate) { told = append(told, a) }
	}, func(r *rig) {
		record := broken(0)
		r.put(pageOf(record, aggregate(1, 2)))
		d := <-r.out
		m := d.Take()[0]
		content, err := m.AsBytes()
		require.NoError(r, err)
		require.Equal(r, record.Data, content)
		require.Equal(r, map[string]any{
			"kinesis_stream": "orders", "kinesis_shard": key.Shard, "kinesis_lease_term": "1", "kinesis_sequence_number": sequence(0), "kinesis_partition_key": "a",
			"kinesis_deaggregation_error": "the digest is not that of the message",
		}, metadata(r, m))
		d.Ack(1, nil)
		pass(commitPeriod)
		require.Equal(r, lease.After(sequence(0)), r.table.now().Position())
		for _, content := range []string{"1/0", "1/1"} {
			_, got := r.next()
			require.Equal(r, []string{content}, got)
		}
		synctest.Wait()
		require.Len(r, told, 2)
		require.Error(r, told[0].Err)
		require.Equal(r, Aggregate{UserRecords: 2}, told[1])
	})
}

// What a suspension drops is read again, from the middle of an aggregate on, and told of once.
func TestUserRecordsAreCountedOnceThoughTheyAreReadAgain(t *testing.T) {
	for _, byKey := range []bool{false, true} {
		var sum Aggregate
		broke := 0
		bubble(t, func(c *Config) {
			c.Deaggregate = lowerHalf(t)
			c.ByKey, c.Limit = byKey, 4
			c.Committed = inside(1, 2)
			c.Hooks.OnAggregate = func(a Aggregate) {
				sum.UserRecords, sum.Foreign = sum.UserRecords+a.UserRecords, sum.Foreign+a.Foreign
				if a.Err != nil {
					broke++
				}
			}
		}, func(r *rig) {
			r.put(pageOf(aggregate(1, 9), broken(2), straying(3)))
			left := 7 + 1 + 3
			suspend := func() {
				r.table.answer(false)
				pass(2 * leasePeriod)
				require.True(r, r.consumer.State().Suspended)
				r.table.answer(true)
				pass(leasePeriod)
			}
			suspend()
			for ; left > 0; left-- {
				d, _ := r.next()
				synctest.Wait()
				suspend()
				d.Ack(1, nil)
			}
			r.nothing()
			pass(commitPeriod)
			require.Equal(r, lease.After(sequence(3)), r.table.now().Position())
			require.Equal(r, 1, broke)
			require.Equal(r, Aggregate{UserRecords: 10, Foreign: 1}, sum)
		})
	}
}

func TestAggregateInsideOfAnotherIsNotTakenApart(t *testing.T) {
	bubble(t, deaggregating, func(r *rig) {
		inner := aggregate(7, 2).Data
		r.put(pageOf(retrieval.Record{Data: kpltest.Encode([]kpl.Record{{Data: inner, PartitionKey: "k"}}), SequenceNumber: sequence(0)}))
		_, got := r.next()
		require.Equal(r, []string{string(inner)}, got)
		r.nothing()
	})
}

// straying is an aggregate with user records in and outside of the lower half of the hash keys.
func straying(n int) retrieval.Record {
	return retrieval.Record{SequenceNumber: sequence(n), Data: kpltest.Encode([]kpl.Record{
		{Data: []byte("in"), ExplicitHashKey: "5"},
		{Data: []byte("out"), ExplicitHashKey: "170141183460469231731687303715884105728"},
		{Data: []byte("in too"), ExplicitHashKey: "170141183460469231731687303715884105727"},
	})}
}

func lowerHalf(t testing.TB) *Deaggregation {
	t.Helper()
	keys, ok := kpl.ParseRange("0", "170141183460469231731687303715884105727")
	require.True(t, ok)
	return &Deaggregation{Keys: keys, Bounded: true}
}

func TestForeignUserRecordsAreDeliveredAndCounted(t *testing.T) {
	for _, bounded := range []bool{true, false} {
		var told []Aggregate
		bubble(t, func(c *Config) {
			c.Deaggregate = lowerHalf(t)
			c.Deaggregate.Bounded, c.Deaggregate.DropForeign = bounded, !bounded // whose keys are not known has none
			c.Hooks.OnAggregate = func(a Aggregate) { told = append(told, a) }
		}, func(r *rig) {
			r.put(pageOf(straying(0)))
			for _, want := range []string{"in", "out", "in too"} {
				_, got := r.next()
				require.Equal(r, []string{want}, got)
			}
			synctest.Wait()
			want := Aggregate{UserRecords: 3}
			if bounded {
				want.Foreign = 1
			}
			require.Equal(r, []Aggregate{want}, told)
		})
	}
}

func TestAggregateWithForeignUserRecordsIsDroppedWhole(t *testing.T) {
	for _, count := range []int{1, 2} {
		var told []Aggregate
		bubble(t, func(c *Config) {
			c.Deaggregate = lowerHalf(t)
			c.Deaggregate.DropForeign = true
			c.Hooks.OnAggregate = func(a Aggregate) { told = append(told, a) }
			c.Batcher = batcher(t, service.BatchPolicy{Count: count})
			c.Limit = 2
		}, func(r *rig) {
			r.put(pageOf(straying(0)))
			pass(commitPeriod)
			require.Equal(r, lease.After(sequence(0)), r.table.now().Position(), "there is nothing to wait for")
			require.Equal(r, []Aggregate{{Foreign: 1, Dropped: true}}, told)

			r.put(pageOf(aggregate(1, 1), straying(2), straying(3), aggregate(4, 1)))
			d, _ := r.next()
			pass(commitPeriod)
			require.Equal(r, lease.After(sequence(0)), r.table.now().Position(), "the one before is not acknowledged")
			d.Ack(1, nil)
			pass(commitPeriod)
			want := sequence(3)
			if count == 2 {
				want = sequence(4)
			}
			require.Equal(r, lease.After(want), r.table.now().Position())
			if count == 1 {
				r.next()
			}
			synctest.Wait()
			require.Len(r, told, 5)
		})
	}
}

func TestDroppedAggregatesTakeNoRoomInTheWindow(t *testing.T) {
	for _, byKey := range []bool{false, true} {
		budget := retrieval.NewBudget(1 << 30)
		bubble(t, func(c *Config) {
			c.Deaggregate = lowerHalf(t)
			c.Deaggregate.DropForeign = true
			c.ByKey, c.Limit, c.Budget = byKey, 2, budget
			open := c.Open
			c.Open = func(after string) Source { return reserving{open(after), budget} }
		}, func(r *rig) {
			stored := func(want lease.Position) {
				r.Helper()
				pass(commitPeriod)
				require.Equal(r, want, r.table.now().Position())
			}
			r.put(page(0, 1))
			first, _ := r.next() // which holds the checkpoint
			for i := range 100 {
				r.put(pageOf(straying(i + 1)))
			}
			r.put(page(101, 1))
			second, got := r.next()
			require.Equal(r, []string{"101"}, got)
			r.put(pageOf(straying(102)))
			stored(lease.Position{})
			require.Equal(r, 2, r.consumer.State().InFlight)
			first.Ack(1, nil)
			stored(lease.After(sequence(100)))
			second.Ack(1, nil)
			stored(lease.After(sequence(102)))
			require.Zero(r, r.consumer.State().InFlight)
			require.Zero(r, budget.Held())
		})
	}
}

func TestMessagesOfAnAggregateAreMadeABatchAtATime(t *testing.T) {
	budget := retrieval.NewBudget(1 << 30)
	bubble(t, func(c *Config) {
		deaggregating(c)
		c.Budget, c.Limit = budget, 10
		c.Batcher = batcher(t, service.BatchPolicy{Count: 10})
	}, func(r *rig) {
		p := pageOf(aggregate(0, 5000))
		_, err := budget.Reserve(r.Context(), p.Cost, nil) // as the source does
		require.NoError(r, err)
		r.put(p)
		synctest.Wait()
		held := budget.Held()
		require.Greater(r, held, p.Cost+5000*userRecordSize+10<<10, "the aggregate, and a batch")
		require.Less(r, held, p.Cost+5000*userRecordSize+12<<10)
		for done := 0; done < 5000; done += 10 {
			d, _ := r.next()
			d.Ack(10, nil)
		}
		synctest.Wait()
		require.Zero(r, budget.Held())
	})
}

func TestBatchWithoutACountEndsAtTheLimitWhileTheBudgetIsOverdrawn(t *testing.T) {
	const users = 20_000
	for _, byKey := range []bool{false, true} {
		budget := retrieval.NewBudget(1 << 20)
		bubble(t, func(c *Config) {
			deaggregating(c)
			c.ByKey, c.Budget, c.Batcher = byKey, budget, batcher(t, service.BatchPolicy{Period: "1m"})
		}, func(r *rig) {
			p := pageOf(aggregate(0, users))
			budget.Release(-p.Cost)
			r.put(p)
			synctest.Wait()
			require.Less(r, budget.Held(), p.Cost+users*userRecordSize+120<<10, "the aggregate, and what may be in flight")
			for done := 0; done < users && !byKey; done += 100 {
				d, got := r.next()
				require.Len(r, got, 100)
				d.Ack(100, nil)
			}
		})
	}
}

func TestPolicyAloneEndsABatchOfAnAggregateThatFitsTheBudget(t *testing.T) {
	bubble(t, func(c *Config) {
		deaggregating(c)
		c.Batcher = batcher(t, service.BatchPolicy{Period: "1m"})
	}, func(r *rig) {
		r.put(pageOf(aggregate(0, 1000)))
		r.nothing()
		pass(time.Minute)
		_, got := r.next()
		require.Len(r, got, 1000)
	})
}

func TestSuspensionInsideOfAnAggregateRepeatsNothing(t *testing.T) {
	budget := retrieval.NewBudget(1 << 30)
	bubble(t, func(c *Config) {
		deaggregating(c)
		c.Budget = budget
	}, func(r *rig) {
		p := pageOf(aggregate(0, 1), aggregate(1, 10), aggregate(2, 2))
		_, err := budget.Reserve(r.Context(), p.Cost, nil)
		require.NoError(r, err)
		r.put(p)
		var sent []*Delivery
		for range 4 {
			d, _ := r.next()
			sent = append(sent, d)
		}
		r.table.answer(false)
		pass(2 * leasePeriod)
		require.True(r, r.consumer.State().Suspended)
		for _, d := range sent {
			d.Ack(1, nil)
		}
		require.Zero(r, budget.Held(), "a suspended shard takes no room")
		r.table.answer(true)
		pass(leasePeriod)
		require.Equal(r, inside(1, 3), r.table.now().Position())
		_, got := r.next()
		require.Equal(r, []string{"1/3"}, got)
	})
}

func TestUserRecordsThatASuspendedShardHasInItsLanesAreReadAgain(t *testing.T) {
	bubble(t, func(c *Config) {
		deaggregating(c)
		c.ByKey, c.Limit = true, 3
	}, func(r *rig) {
		r.put(pageOf(aggregate(0, 5))) // of which two wait for their key, and two for room
		first := r.requireNext("0/0")
		r.suspend()
		first.Ack(1, nil)
		r.resume()
		for _, content := range []string{"0/1", "0/2", "0/3", "0/4"} {
			d := r.requireNext(content)
			r.nothing()
			d.Ack(1, nil)
		}
		pass(commitPeriod)
		require.Equal(r, lease.After(sequence(0)), r.table.now().Position())
	})
}

func TestShardIsHandedOverInsideOfAnAggregate(t *testing.T) {
	bubble(t, deaggregating, func(r *rig) {
		r.put(pageOf(aggregate(0, 1), aggregate(1, 10)))
		var sent []*Delivery
		for range 4 {
			d, _ := r.next()
			sent = append(sent, d)
		}
		r.handOver()
		for _, d := range sent {
			d.Ack(1, nil)
		}
		require.Equal(r, Result{Outcome: HandedOver, To: "other"}, r.result())
		require.Equal(r, "other", r.table.now().Owner)
		require.Equal(r, inside(1, 3), r.table.now().Position())
	})
}

func TestLostShardTellsThePlaceInsideOfAnAggregate(t *testing.T) {
	bubble(t, deaggregating, func(r *rig) {
		r.put(pageOf(aggregate(0, 1), aggregate(1, 10)))
		for range 4 {
			d, _ := r.next()
			d.Ack(1, nil)
		}
		r.table.put(lease.Item{Key: key, Exists: true, Owner: "third", Term: "1", Token: "t"})
		pass(commitPeriod)
		result := r.result()
		require.Equal(r, Lost, result.Outcome)
		require.Equal(r, inside(1, 3), result.Acked)
	})
}

func TestHandOverDoesNotWaitForTheRestOfAnAggregateThatIsFiltered(t *testing.T) {
	for _, byKey := range []bool{false, true} {
		bubble(t, func(c *Config) {
			deaggregating(c)
			c.ByKey = byKey
			slow := unreliable(func() error {
				time.Sleep(time.Millisecond) //nolint:forbidigo // virtual time
				return nil
			})
			c.Processors = append([]*service.OwnedProcessor{slow}, processors(t, `[ { mapping: 'root = deleted()' } ]`)...)
		}, func(r *rig) {
			r.put(pageOf(aggregate(0, 5000)))
			pass(10 * time.Millisecond)
			r.handOver()
			pass(2 * time.Millisecond)
			require.Equal(r, HandedOver, r.result().Outcome)
			require.InDelta(r, 10, r.table.now().Within.Count, 2)
		})
	}
}

// fate is what a shard holds, and how its readers come to their ends.
type fate struct {
	records []int // of each record: user records, or one of the kinds below
	count   int   // of a batch
	limit   int
	filter  int    // of the user records only each so manieth is delivered; 1 for all
	byKey   bool   // all records have one
	seed    uint64 // of what happens

	failure string
	crashes int
	inside  int // of which the checkpoint was inside of an aggregate
}

// The kinds of records that are no aggregates, or none that is delivered.
const (
	plainRecord = -iota - 1
	brokenRecord
	strayingRecord
	oldRecord
	oldAggregate
)

func drawFate(t *rapid.T) *fate {
	record := rapid.OneOf(
		rapid.IntRange(1, 20), rapid.SampledFrom([]int{plainRecord, brokenRecord, strayingRecord, oldRecord, oldAggregate}), rapid.SampledFrom([]int{1, 2, 50, 5000}),
	)
	f := &fate{
		records: rapid.SliceOfN(record, 1, 8).Draw(t, "records"),
		count:   rapid.SampledFrom([]int{1, 2, 7, 100}).Draw(t, "count"),
		limit:   rapid.SampledFrom([]int{1, 10, 1000}).Draw(t, "limit"),
		filter:  rapid.SampledFrom([]int{1, 1, 3, 200}).Draw(t, "filter"),
		byKey:   rapid.Bool().Draw(t, "by key"),
		seed:    rapid.Uint64().Draw(t, "seed"),
	}
	if i := slices.Index(f.records, 5000); i >= 0 { // one will do, since each delivery takes its time
		f.count, f.byKey = max(f.count, 41), false
		for j := range f.records[i+1:] {
			f.records[i+1+j] = min(f.records[i+1+j], 50)
		}
	}
	return f
}

// message is one that the shard holds.
type message struct {
	content  string
	after    lease.Position
	filtered bool
}

// contents returns the pages of the shard, and its messages in order.
func (f *fate) contents() (pages []retrieval.Page, all []message) {
	for n, kind := range f.records {
		r, last := aggregate(n, max(kind, 1)), lease.After(sequence(n))
		switch kind {
		case plainRecord:
			r.Data = fmt.Appendf(nil, "plain %d", n)
			all = append(all, message{content: string(r.Data), after: last})
		case brokenRecord:
			r = broken(n)
			all = append(all, message{content: string(r.Data), after: last})
		case strayingRecord:
			r = straying(n)
			all = append(all, message{after: last, filtered: true})
		case oldRecord, oldAggregate:
			if kind == oldRecord {
				r.Data = fmt.Appendf(nil, "old %d", n)
			}
			r.Arrived = time.Now().Add(-old)
			all = append(all, message{after: last, filtered: true})
		default:
			for i := range kind {
				m := message{content: fmt.Sprintf("%d/%d", n, i), after: inside(n, i+1), filtered: i%f.filter != 0}
				if n == 0 {
					m.after.Sequence = ""
				}
				if i == kind-1 {
					m.after = last
				}
				all = append(all, m)
			}
		}
		if n%3 == 0 {
			pages = append(pages, retrieval.Page{})
		}
		r.PartitionKey = "customer 1" // that of the user records
		p := &pages[len(pages)-1]
		p.Records = append(p.Records, r)
	}
	pages[len(pages)-1].End = true
	return pages, all
}

// run has readers read the shard until one has finished it.
func (f *fate) run(t *testing.T) {
	random := rand.New(rand.NewPCG(f.seed, 1))
	pages, all := f.contents()
	source := &source{next: make(chan fetched, len(pages))}
	for _, p := range pages {
		source.next <- fetched{page: p}
	}
	table := newTable()
	table.source = source
	acked := make([]bool, len(all))
	for i := range all {
		acked[i] = all[i].filtered
	}
	// done returns how many messages a position is after, which are acknowledged.
	done := func(position lease.Position) int {
		if position == (lease.Position{}) {
			return 0
		}
		i := slices.IndexFunc(all, func(m message) bool { return m.after == position })
		if i < 0 {
			f.failure = fmt.Sprintf("%+v is no place of the shard", position)
		}
		return i + 1
	}
	var before lease.Position
	table.Wrote = func(_, after lease.Item) {
		if after.Position().Compare(before) < 0 {
			f.failure = fmt.Sprintf("the checkpoint went back from %+v to %+v", before, after.Position())
		}
		before = after.Position()
		if i := slices.Index(acked[:done(before)], false); i >= 0 {
			f.failure = fmt.Sprintf("the checkpoint is %+v, and %q is not acknowledged", before, all[i].content)
		}
	}
	for life := 0; f.failure == "" && life <= lastReader; life++ {
		if f.live(t, life, random, table, source, all, acked, done) == Finished {
			break
		}
	}
	if i := slices.Index(acked, false); i >= 0 && f.failure == "" {
		f.failure = fmt.Sprintf("the shard is finished without %q", all[i].content)
	}
}

// lastReader has time to finish the shard.
const lastReader = 30

// live reads the shard until the reader crashes, is stopped, hands it over or has finished it.
func (f *fate) live(
	t *testing.T, life int, random *rand.Rand, table *table, source *source, all []message, acked []bool, done func(lease.Position) int,
) Outcome {
	opts := lease.Options{Client: fmt.Sprint("client ", life), Period: leasePeriod, CommitPeriod: commitPeriod}
	session, leave := join(t, table, opts)
	defer leave()
	holder, stop := context.WithCancel(t.Context())
	defer stop()
	held, item, err := lease.Take(holder, holder, session, table, table.now(), lease.Origin{}, opts)
	require.NoError(t, err)
	budget, out, handOver := retrieval.NewBudget(1<<30), make(chan *Delivery), make(chan string, 1)
	conf := Config{
		Lease: held, Committed: item.Position(), Batcher: batcher(t, service.BatchPolicy{Count: f.count, Period: "1s"}),
		Open:  func(after string) Source { return reserving{source.open(after), budget} },
		Limit: f.limit, Budget: budget, HandOver: handOver, DrainTimeout: drainTimeout,
		Awaited: func(context.Context, string) bool { return true }, Out: out, Deaggregate: lowerHalf(t),
		ByKey: f.byKey, MaxAge: maxAge,
	}
	conf.Deaggregate.DropForeign = true
	if f.filter > 1 {
		conf.Processors = processors(t, fmt.Sprintf(`[ { mapping: 'root = if meta("kinesis_sub_sequence_number").or("0").number() %% %d != 0 { deleted() }' } ]`, f.filter))
	}
	ended := make(chan Outcome, 1)
	go func() { ended <- New(conf).Run().Outcome }()

	next := done(item.Position()) // message to be delivered
	type under struct {           // way
		*Delivery
		messages []int
	}
	var sent []under
	receive := func() bool {
		synctest.Wait()
		select {
		case d := <-out:
			u := under{Delivery: d}
			for _, m := range d.Take() {
				for next < len(all) && all[next].filtered {
					next++
				}
				content, err := m.AsBytes()
				require.NoError(t, err)
				if next == len(all) || all[next].content != string(content) {
					f.failure = fmt.Sprintf("reader %d, which began after %+v, got %q as message %d", life, item.Position(), content, next)
					return false
				}
				u.messages = append(u.messages, next)
				next++
			}
			sent = append(sent, u)
			return true
		default:
			return false
		}
	}
	ack := func(share float64) {
		random.Shuffle(len(sent), func(i, j int) { sent[i], sent[j] = sent[j], sent[i] })
		n := int(share * float64(len(sent)))
		for _, u := range sent[:n] {
			for _, i := range u.messages {
				acked[i] = true
			}
			u.Ack(len(u.messages), nil)
		}
		sent = sent[n:]
	}
	outcome := Outcome(0)
	hasEnded := func() bool {
		synctest.Wait()
		select {
		case outcome = <-ended:
		default:
		}
		return outcome != 0
	}
	steps := 3 + random.IntN(20)
	if life == lastReader {
		steps = 10_000
	}
	for ; f.failure == "" && !hasEnded() && steps > 0; steps-- {
		switch what := random.IntN(20); {
		case what < 10:
			for range 1 + random.IntN(600) {
				if !receive() {
					break
				}
			}
		case what < 15 || life == lastReader:
			ack(min(1, 2*random.Float64()))
		case what < 19:
			pass(time.Duration(random.IntN(int(2 * commitPeriod))))
		default:
			table.answer(false)
			pass(2 * leasePeriod)
			table.answer(true)
			pass(leasePeriod)
		}
	}
	if outcome == 0 {
		switch random.IntN(4) {
		case 0:
			stop()
		case 1:
			handOver <- "another"
		default:
			f.crashes++
			table.answer(false)
			stop()
		}
		outcome = <-ended
		table.answer(true)
		if table.now().Within != (lease.Within{}) {
			f.inside++
		}
	}
	for _, u := range sent {
		u.Drop()
	}
	if held := budget.Held(); held != 0 && f.failure == "" {
		f.failure = fmt.Sprintf("reader %d has left %d bytes of the budget", life, held)
	}
	return outcome
}

// reserving is a source that takes what its pages cost.
type reserving struct {
	Source
	budget *retrieval.Budget
}

func (s reserving) Next(ctx context.Context) (retrieval.Page, error) {
	p, err := s.Source.Next(ctx)
	p.Cost = pageOf(p.Records...).Cost
	s.budget.Release(-p.Cost)
	return p, err
}

func TestWhateverEndsAReaderNothingIsLostAndNothingRepeatedThatWasCommitted(t *testing.T) {
	crashes, insides := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		f := drawFate(rt)
		synctest.Test(t, f.run)
		crashes, insides = crashes+f.crashes, insides+f.inside
		if f.failure != "" {
			rt.Fatalf("%s", f.failure)
		}
	})
	t.Logf("%d crashes; %d readers ended inside of an aggregate", crashes, insides)
	require.Greater(t, insides, 50)
}

// A buffer of the host may keep one message of many for hours, after its acknowledgement.
func TestMessageThatIsKeptHoldsLittleOfItsAggregate(t *testing.T) {
	const users, apart = 5000, 250
	records := make([]kpl.Record, users)
	for i := range records {
		records[i] = kpl.Record{Data: make([]byte, 100), PartitionKey: fmt.Sprintf("customer %030d", i)}
	}
	data := kpltest.Encode(records)
	bubble(t, func(c *Config) {
		deaggregating(c)
		c.Limit, c.Batcher = users, batcher(t, service.BatchPolicy{Count: users})
	}, func(r *rig) {
		before := heap()
		r.put(pageOf(retrieval.Record{Data: slices.Clone(data), SequenceNumber: sequence(0), PartitionKey: "a"}))
		var kept service.MessageBatch
		d := <-r.out
		for i, m := range d.Take() {
			if i%apart == 0 {
				kept = append(kept, m)
			}
		}
		d.Ack(users, nil)
		synctest.Wait()
		each := (heap() - before) / len(kept)
		r.Logf("a message of 100 bytes holds %d", each)
		require.Less(r, each, 8<<10)
		runtime.KeepAlive(kept)
	})
}

// heap is how many bytes of it are in use.
func heap() int {
	for range 3 { // what is pooled outlives one collection
		runtime.GC()
	}
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int(stats.HeapAlloc)
}
