package consumer

import (
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/benthosdev/benthos/v4/public/service"
	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/retrieval"
)

const (
	maxAge  = 10 * time.Minute
	old     = time.Hour
	fresh   = time.Minute
	unknown = time.Duration(-1) // age of a record of which nobody knows when it arrived
)

// aged is a page of records of these ages, the first of them the from-th of the shard.
func aged(from int, ages ...time.Duration) retrieval.Page {
	p := page(from, len(ages))
	for i, age := range ages {
		if age != unknown {
			p.Records[i].Arrived = time.Now().Add(-age)
		}
	}
	p.ReadTo = time.Now()
	return p
}

// skipped is what a consumer has told of the records that it skipped.
type skipped struct {
	ages   []time.Duration
	budget *retrieval.Budget
}

// inBothOrders runs a test with records that are skipped when they are too old.
func inBothOrders(t *testing.T, configure func(*Config), test func(r *rig, s *skipped)) {
	t.Helper()
	for name, byKey := range map[string]bool{"shard": false, "partition_key": true} {
		t.Run(name, func(t *testing.T) {
			s := &skipped{budget: retrieval.NewBudget(1 << 30)}
			bubble(t, func(c *Config) {
				c.ByKey, c.MaxAge, c.Budget = byKey, maxAge, s.budget
				c.Hooks.OnSkip = func(arrived time.Time, age time.Duration) {
					require.Equal(t, time.Since(arrived)+c.Skew(), age)
					s.ages = append(s.ages, age)
				}
				c.Skew = func() time.Duration { return 0 }
				open := c.Open
				c.Open = func(after string) Source { return reserving{open(after), s.budget} }
				if configure != nil {
					configure(c)
				}
			}, func(r *rig) { test(r, s) })
		})
	}
}

func TestShardOfOldRecordsIsCommittedThoughNothingIsDelivered(t *testing.T) {
	inBothOrders(t, func(c *Config) { c.Since = time.Now() }, func(r *rig, s *skipped) {
		for i := range 3 {
			pass(commitPeriod)
			r.put(aged(2*i, old, old))
			r.nothing()
			require.Equal(r, time.Now(), r.consumer.State().Since, "all is done with that was read")
			require.Zero(r, r.consumer.State().Oldest)
			require.Zero(r, r.consumer.State().InFlight)
			require.Zero(r, s.budget.Held())
			pass(commitPeriod)
			require.Equal(r, lease.After(sequence(2*i+1)), r.table.now().Position())
		}
		require.Len(r, s.ages, 6)
	})
}

func TestRecordIsSkippedWhenItIsOlderThanItMayBe(t *testing.T) {
	inBothOrders(t, nil, func(r *rig, s *skipped) {
		r.put(aged(0, old, maxAge+time.Nanosecond, maxAge, maxAge-1, unknown, -time.Hour))
		for _, content := range []string{"2", "3", "4", "5"} {
			r.requireNext(content).Ack(1, nil)
		}
		r.nothing()
		require.Equal(r, []time.Duration{old, maxAge + time.Nanosecond}, s.ages)
		pass(commitPeriod)
		require.Equal(r, lease.After(sequence(5)), r.table.now().Position())
		require.Zero(r, s.budget.Held())
	})
}

func TestNothingIsSkippedWhereRecordsMayHaveAnyAge(t *testing.T) {
	inBothOrders(t, func(c *Config) { c.MaxAge = 0 }, func(r *rig, s *skipped) {
		r.put(aged(0, 1000*time.Hour))
		r.requireNext("0")
		require.Empty(r, s.ages)
	})
}

func TestAgeIsThatByTheServicesClock(t *testing.T) {
	for _, ahead := range []time.Duration{time.Hour, -time.Hour} {
		inBothOrders(t, func(c *Config) { c.Skew = func() time.Duration { return ahead } }, func(r *rig, s *skipped) {
			r.put(aged(0, maxAge+1-ahead, maxAge-ahead))
			r.requireNext("1")
			require.Equal(r, []time.Duration{maxAge + 1}, s.ages)
		})
	}
}

func TestCheckpointDoesNotPassWhatIsNotAcknowledgedForWhatIsSkipped(t *testing.T) {
	inBothOrders(t, nil, func(r *rig, s *skipped) {
		r.put(aged(0, fresh, old, fresh, old, old))
		first, second := r.requireNext("0"), r.requireNext("2")
		r.nothing()
		require.Len(r, s.ages, 3)
		require.Equal(r, 2, r.consumer.State().InFlight)
		stored := func(want lease.Position) {
			r.Helper()
			pass(commitPeriod)
			require.Equal(r, want, r.table.now().Position())
		}
		stored(lease.Position{})
		first.Ack(1, nil)
		stored(lease.After(sequence(1)))
		r.put(aged(5, old))
		stored(lease.After(sequence(1)))
		second.Ack(1, nil)
		stored(lease.After(sequence(5)))
		require.Zero(r, s.budget.Held())
	})
}

func TestWhatIsSkippedTakesNoRoomInTheWindow(t *testing.T) {
	inBothOrders(t, func(c *Config) { c.Limit = 1 }, func(r *rig, s *skipped) {
		r.put(aged(0, old, fresh))
		first := r.requireNext("1")
		for i := range 100 {
			r.put(aged(2*i+2, old, old))
		}
		r.put(aged(202, fresh, old))
		r.nothing()
		require.Len(r, s.ages, 201)
		require.Equal(r, 1, r.consumer.State().InFlight)
		pass(commitPeriod)
		require.Equal(r, lease.After(sequence(0)), r.table.now().Position())
		first.Ack(1, nil)
		second := r.requireNext("202")
		pass(commitPeriod)
		require.Equal(r, lease.After(sequence(201)), r.table.now().Position())
		second.Ack(1, nil)
		pass(commitPeriod)
		require.Equal(r, lease.After(sequence(203)), r.table.now().Position())
		require.Zero(r, s.budget.Held())
	})
}

// A record waits for its turn here too. What is a message by then remains one, however long
// that waits in a batch or for room.
func TestAgeIsJudgedWhenTheTurnOfARecordComes(t *testing.T) {
	inBothOrders(t, func(c *Config) { c.Limit = 1 }, func(r *rig, s *skipped) {
		r.put(aged(0, fresh, fresh, fresh))
		first := r.requireNext("0")
		pass(maxAge)
		first.Ack(1, nil)
		if r.consumer.keyed == nil { // where the second is a batch that waits for room
			r.requireNext("1").Ack(1, nil)
		}
		r.nothing()
		require.Equal(r, fresh+maxAge, s.ages[len(s.ages)-1])
		pass(commitPeriod)
		require.Equal(r, lease.After(sequence(2)), r.table.now().Position())
		require.Zero(r, s.budget.Held())
	})
}

func TestWhatIsSkippedGoesWithTheBatchThatIsBeingFilled(t *testing.T) {
	inBothOrders(t, func(c *Config) { c.Batcher = batcher(t, service.BatchPolicy{Count: 2, Period: "1h"}) }, func(r *rig, s *skipped) {
		r.put(aged(0, fresh, old, old))
		pass(commitPeriod)
		r.nothing()
		require.Empty(r, r.table.now().Sequence)
		pass(30 * time.Minute)
		r.put(aged(3, fresh, old))
		r.requireNext("0", "3").Ack(2, nil)
		pass(commitPeriod)
		require.Equal(r, lease.After(sequence(4)), r.table.now().Position())
		require.Zero(r, s.budget.Held())
	})
}

func TestAggregateIsSkippedAsAWhole(t *testing.T) {
	for _, committed := range []lease.Position{{}, inside(1, 2)} {
		inBothOrders(t, func(c *Config) {
			deaggregating(c)
			c.Committed = committed
			c.Hooks.OnAggregate = func(a Aggregate) { require.Equal(t, Aggregate{UserRecords: 1}, a, "that which is fed") }
		}, func(r *rig, s *skipped) {
			skip, keep := aggregate(1, 5), aggregate(2, 1)
			skip.Arrived, keep.Arrived = time.Now().Add(-old), time.Now().Add(-fresh)
			r.put(pageOf(skip))
			pass(commitPeriod)
			require.Equal(r, lease.After(sequence(1)), r.table.now().Position())
			require.Equal(r, []time.Duration{old}, s.ages)
			r.put(pageOf(keep))
			r.requireNext("2/0").Ack(1, nil)
			r.nothing()
			require.Zero(r, s.budget.Held())
		})
	}
}

func TestAggregateThatHasLeftInPartIsNotJudgedAgain(t *testing.T) {
	inBothOrders(t, func(c *Config) {
		deaggregating(c)
		c.Limit = 1
	}, func(r *rig, s *skipped) {
		record := aggregate(0, 3)
		record.Arrived = time.Now()
		r.put(pageOf(record))
		for _, content := range []string{"0/0", "0/1", "0/2"} {
			d := r.requireNext(content)
			pass(maxAge + 1)
			d.Ack(1, nil)
		}
		require.Empty(r, s.ages)
	})
}

func TestRecordThatGrowsOldWhileTheShardIsSuspendedTakesNoOtherWithIt(t *testing.T) {
	inBothOrders(t, func(c *Config) { c.Batcher = batcher(t, service.BatchPolicy{Count: 3, Period: "3m"}) }, func(r *rig, s *skipped) {
		r.put(aged(0, maxAge-time.Second, fresh))
		r.nothing()
		r.table.answer(false)
		pass(2 * leasePeriod)
		require.True(r, r.consumer.State().Suspended)
		r.table.answer(true)
		pass(leasePeriod)
		r.nothing()
		require.Len(r, s.ages, 1)
		pass(3 * time.Minute)
		r.requireNext("1").Ack(1, nil)
		pass(commitPeriod)
		require.Equal(r, lease.After(sequence(1)), r.table.now().Position())
		require.Zero(r, s.budget.Held())
	})
}

// A batch that waits when the shard is suspended is dropped and read again. By then its
// records may be too old, as may the rest of an aggregate that has left in part.
func TestRecordsThatGrowOldWhileTheShardIsSuspendedAreSkipped(t *testing.T) {
	inBothOrders(t, func(c *Config) {
		deaggregating(c)
		c.Limit, c.Batcher = 4, batcher(t, service.BatchPolicy{Count: 3})
	}, func(r *rig, s *skipped) {
		apart := aggregate(1, 9)
		apart.Arrived = time.Now().Add(-fresh)
		p := aged(0, fresh)
		p.Records = append(p.Records, apart)
		r.put(p)
		first, _ := r.next()
		r.table.answer(false)
		pass(2 * leasePeriod)
		require.True(r, r.consumer.State().Suspended)
		pass(maxAge)
		r.table.answer(true)
		pass(leasePeriod)
		r.nothing()
		require.Empty(r, r.table.now().Sequence, "what has left is not acknowledged")
		first.Ack(1, nil)
		r.nothing()
		require.Len(r, s.ages, 1)
		pass(commitPeriod)
		require.Equal(r, lease.After(sequence(1)), r.table.now().Position())
		require.Zero(r, r.consumer.State().InFlight)
		require.Zero(r, s.budget.Held())
		r.put(aged(2, old, fresh, fresh, fresh))
		d := r.requireNext("3", "4", "5")
		require.Positive(r, s.budget.Held())
		d.Ack(3, nil)
		require.Zero(r, s.budget.Held())
	})
}

// A batch that is dropped takes what was skipped between its messages with it, which is
// skipped again and told of once.
func TestRecordsAreCountedAsSkippedOnceThoughTheyAreReadAgain(t *testing.T) {
	inBothOrders(t, func(c *Config) { c.Batcher = batcher(t, service.BatchPolicy{Count: 4}) }, func(r *rig, s *skipped) {
		r.put(aged(0, fresh, old, old, maxAge-1, old))
		r.put(aged(5, fresh, old))
		for n := 1; n <= 3; n++ {
			r.nothing()
			r.table.answer(false)
			pass(2 * leasePeriod)
			require.True(r, r.consumer.State().Suspended)
			r.table.answer(true)
			pass(leasePeriod)
			r.nothing()
			require.Len(r, s.ages, 5, "the fourth is too old by now")
		}
		r.put(aged(7, fresh, old, fresh, fresh))
		r.requireNext("0", "5", "7", "9").Ack(4, nil)
		r.nothing()
		require.Len(r, s.ages, 6)
	})
}

// The service's clock by which records are old is not what the lag goes by, where that of the
// machine was set since it was told.
func TestAgeIsByTheClockThatWasNotSet(t *testing.T) {
	inBothOrders(t, func(c *Config) {
		c.Skew = func() time.Duration { return time.Hour } // as it was before
		c.ServiceTime = time.Now
		c.Hooks.OnSkip = func(time.Time, time.Duration) { require.Fail(t, "it is not too old") }
	}, func(r *rig, _ *skipped) {
		r.put(aged(0, maxAge))
		r.requireNext("0")
	})
}

// A day of old records behind one that is not acknowledged, or that waits for its batch to
// fill up, is not remembered record by record.
func TestLagOfWhatIsSkippedTakesNoMemory(t *testing.T) {
	for _, count := range []int{1, 2} {
		inBothOrders(t, func(c *Config) {
			c.Batcher = batcher(t, service.BatchPolicy{Count: count})
			c.Limit = 3
		}, func(r *rig, s *skipped) {
			begun, n := time.Now(), 0
			next := func(arrived time.Time) {
				r.put(aged(n, time.Since(arrived)))
				n++
				synctest.Wait()
			}
			var sent []*Delivery
			for i := range 2 {
				next(time.Now())
				if (i+1)%count == 0 {
					d, _ := r.next()
					sent = append(sent, d)
				}
				after := time.Now()
				pass(time.Hour)
				for j := range 1000 {
					next(after.Add(time.Duration(j) * time.Second))
				}
			}
			spans := func() int {
				r.consumer.mu.Lock()
				defer r.consumer.mu.Unlock()
				return reflect.ValueOf(r.consumer.lag).Elem().FieldByName("spans").Len()
			}
			require.LessOrEqual(r, spans(), 4)
			require.Equal(r, begun, r.consumer.State().Since)
			require.Len(r, s.ages, 2000)
			for _, d := range sent {
				d.Ack(count, nil)
			}
			pass(commitPeriod)
			require.Equal(r, lease.After(sequence(n-1)), r.table.now().Position())
			r.put(aged(n))
			synctest.Wait()
			require.Zero(r, spans())
			require.Equal(r, time.Now(), r.consumer.State().Since)
		})
	}
}

// The same holds for a batch that is full, and waits for room or for the output.
func TestRecordsAreCountedAsSkippedOnceThoughTheirBatchDidNotLeave(t *testing.T) {
	for _, limit := range []int{2, 100} {
		inBothOrders(t, func(c *Config) {
			c.Limit, c.Batcher = limit, batcher(t, service.BatchPolicy{Count: 2})
		}, func(r *rig, s *skipped) {
			r.put(aged(0, fresh, fresh, old, fresh, old, fresh, old))
			first := r.requireNext("0", "1")
			for range 3 {
				synctest.Wait()
				r.table.answer(false)
				pass(2 * leasePeriod)
				require.True(r, r.consumer.State().Suspended)
				r.table.answer(true)
				pass(leasePeriod)
			}
			first.Ack(2, nil)
			r.requireNext("3", "5").Ack(2, nil)
			r.nothing()
			require.Len(r, s.ages, 3)
		})
	}
}
