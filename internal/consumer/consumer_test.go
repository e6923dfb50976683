package consumer

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/benthosdev/benthos/v4/public/service"
	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/retrieval"
)

func TestRecordsLeaveInOrder(t *testing.T) {
	bubble(t, func(c *Config) { c.Batcher = batcher(t, service.BatchPolicy{Count: 2}) }, func(r *rig) {
		r.put(page(0, 3), page(3, 0), page(3, 1), page(4, 2))
		for _, want := range [][]string{{"0", "1"}, {"2", "3"}, {"4", "5"}} {
			_, got := r.next()
			require.Equal(r, want, got)
		}
	})
}

func TestMessageSaysWhereItComesFrom(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		arrived := time.Date(2026, 1, 2, 3, 4, 5, 678_000_000, time.FixedZone("", 3600))
		r.put(retrieval.Page{Records: []retrieval.Record{
			{SequenceNumber: "1", PartitionKey: "customer", Arrived: arrived}, {SequenceNumber: "2"},
		}})
		for _, want := range []map[string]any{{
			"kinesis_stream": "orders", "kinesis_shard": key.Shard, "kinesis_sequence_number": "1", "kinesis_lease_term": "1",
			"kinesis_partition_key": "customer", "kinesis_approximate_arrival_timestamp": "2026-01-02T02:04:05.678Z",
		}, {
			"kinesis_stream": "orders", "kinesis_shard": key.Shard, "kinesis_sequence_number": "2", "kinesis_lease_term": "1",
		}} {
			synctest.Wait()
			got := map[string]any{}
			require.NoError(r, (<-r.out).Take()[0].MetaWalkMut(func(key string, value any) error {
				got[key] = value
				return nil
			}))
			require.Equal(r, want, got)
		}
	})
}

func TestReadingRunsOnePageAheadOfTheOutput(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		for i := range 10 {
			r.put(page(i, 1))
		}
		for delivered := range 8 {
			synctest.Wait()
			require.EqualValues(r, delivered+2, r.source.taken.Load(), "the page under way and the next")
			r.next()
		}
	})
}

func TestPeriodFlushesToTheInstant(t *testing.T) {
	policy := service.BatchPolicy{Count: 10, Period: "1s"}
	bubble(t, func(c *Config) { c.Batcher = batcher(t, policy) }, func(r *rig) {
		pass(20 * time.Second) // a quiet shard, whose period is long over
		r.put(page(0, 1))
		_, got := r.next()
		require.Equal(r, []string{"0"}, got)

		pass(300 * time.Millisecond)
		r.put(page(1, 2))
		pass(700*time.Millisecond - 1)
		r.nothing()
		pass(1)
		_, got = r.next()
		require.Equal(r, []string{"1", "2"}, got)

		r.put(page(3, 1))
		pass(time.Second - 1)
		r.nothing()
		pass(1)
		_, got = r.next()
		require.Equal(r, []string{"3"}, got)
	})
}

func TestLastBatchOfAClosedShardWaitsForNoTrigger(t *testing.T) {
	bubble(t, func(c *Config) { c.Batcher = batcher(t, service.BatchPolicy{Count: 10}) }, func(r *rig) {
		r.put(page(0, 1), lastPage(1, 2))
		_, got := r.next()
		require.Equal(r, []string{"0", "1", "2"}, got)
	})
}

func TestBatchFilteredToNothingIsCommitted(t *testing.T) {
	bubble(t, func(c *Config) {
		c.Limit = 2
		c.Processors = processors(t, `[ { mapping: 'root = if content() != "60" { deleted() }' } ]`)
	}, func(r *rig) {
		r.put(page(0, 100))
		_, got := r.next()
		require.Equal(r, []string{"60"}, got)
		pass(commitPeriod)
		require.Equal(r, sequence(59), r.table.now().Sequence, "all before the one that is under way")
	})
}

func TestProcessorsMayJoinAndPartBatches(t *testing.T) {
	bubble(t, func(c *Config) {
		c.Batcher = batcher(t, service.BatchPolicy{Count: 4})
		c.Processors = processors(t, `[ { split: { size: 2 } }, { archive: { format: lines } } ]`)
	}, func(r *rig) {
		r.put(page(0, 4))
		d, got := r.next()
		require.Equal(r, []string{"0\n1", "2\n3"}, got)
		pass(commitPeriod)
		require.Empty(r, r.table.now().Sequence)
		d.Ack(2, nil)
		pass(commitPeriod)
		require.Equal(r, sequence(3), r.table.now().Sequence)
	})
}

func TestBatchOnWhichTheProcessorsFailedIsTriedAgain(t *testing.T) {
	failures := 0
	bubble(t, func(c *Config) {
		c.Batcher = batcher(t, service.BatchPolicy{Count: 2})
		c.Processors = append(processors(t, `[ { mutation: 'root = content() + "!"' } ]`), unreliable(func() error {
			if failures == 3 {
				return nil
			}
			failures++
			return errElsewhere
		}))
	}, func(r *rig) {
		r.put(page(0, 2))
		pass(100*time.Millisecond + 200*time.Millisecond + 400*time.Millisecond - 1)
		r.nothing()
		pass(1)
		d, got := r.next()
		require.Equal(r, []string{"0!", "1!"}, got, "as it was before the first attempt, and processed once")
		require.Equal(r, 3, failures)
		d.Ack(2, nil)
		pass(commitPeriod)
		require.Equal(r, sequence(1), r.table.now().Sequence)
	})
}

func TestBatchOnWhichTheProcessorsKeepFailingIsNeverCommitted(t *testing.T) {
	attempts := 0
	bubble(t, func(c *Config) {
		c.Processors = []*service.OwnedProcessor{unreliable(func() error { attempts++; return errElsewhere })}
	}, func(r *rig) {
		r.put(page(0, 3))
		pass(10 * leasePeriod)
		r.running()
		require.Equal(r, "me", r.table.now().Owner)
		require.Empty(r, r.table.now().Sequence)
		require.InDelta(r, (10*leasePeriod)/(5*time.Second), attempts, 6, "not more often than every five seconds after the first")
		r.stop()
		require.Equal(r, Result{Outcome: Released}, r.result())
		require.Equal(r, free(""), r.table.now())
	})
}

func TestProcessorsThatAreInterruptedLoseNothing(t *testing.T) {
	bubble(t, func(c *Config) { c.Processors = processors(t, `[ { try: [ { sleep: { duration: 1h } } ] } ]`) }, func(r *rig) {
		r.put(page(0, 1))
		pass(time.Second)
		r.stop()
		require.Equal(r, Result{Outcome: Released}, r.result())
		require.Equal(r, free(""), r.table.now())
	})
}

func TestLimitHoldsUntilTheOldestIsAcknowledged(t *testing.T) {
	bubble(t, func(c *Config) { c.Limit = 2 }, func(r *rig) {
		r.put(page(0, 5))
		first, _ := r.next()
		second, _ := r.next()
		r.nothing()
		second.Ack(1, nil)
		r.nothing()
		first.Ack(1, nil)
		_, got := r.next()
		require.Equal(r, []string{"2"}, got)
		_, got = r.next()
		require.Equal(r, []string{"3"}, got)
		r.nothing()
	})
}

func TestBatchLargerThanTheLimitGoesAlone(t *testing.T) {
	bubble(t, func(c *Config) {
		c.Limit = 2
		c.Batcher = batcher(t, service.BatchPolicy{Check: `content() == "0" || content() == "5"`})
	}, func(r *rig) {
		r.put(page(0, 6), lastPage(6, 1))
		first, _ := r.next()
		r.nothing()
		first.Ack(1, nil)
		second, got := r.next()
		require.Len(r, got, 5)
		r.nothing()
		second.Ack(5, nil)
		_, got = r.next()
		require.Equal(r, []string{"6"}, got)
	})
}

func TestOnlyTheContiguousSequenceIsCommitted(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.put(page(0, 4))
		var ds []*Delivery
		for range 4 {
			d, _ := r.next()
			ds = append(ds, d)
		}
		for _, step := range []struct {
			ack  int
			want string
		}{{2, ""}, {0, sequence(0)}, {3, sequence(0)}, {1, sequence(3)}} {
			ds[step.ack].Ack(1, nil)
			pass(commitPeriod)
			require.Equal(r, step.want, r.table.now().Sequence)
		}
	})
}

func TestReleaseStoresTheContiguousSequence(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.put(page(0, 3))
		first, _ := r.next()
		r.next()
		third, _ := r.next()
		first.Ack(1, nil)
		third.Ack(1, nil)
		r.stop()
		require.Equal(r, Result{Outcome: Released}, r.result())
		require.Equal(r, free(sequence(0)), r.table.now())
	})
}

func TestReleaseBeforeAnythingWasAcknowledgedKeepsTheCheckpoint(t *testing.T) {
	bubble(t, func(c *Config) { c.Committed = lease.After(sequence(7)) }, func(r *rig) {
		r.put(page(8, 1))
		r.next()
		r.stop()
		require.Equal(r, Released, r.result().Outcome)
		require.Equal(r, free(sequence(7)), r.table.now())
	})
}

func TestLateAcknowledgementMovesNothing(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.put(page(0, 1))
		d, _ := r.next()
		r.stop()
		require.Equal(r, Released, r.result().Outcome)
		d.Ack(1, nil)
		pass(leasePeriod)
		require.Equal(r, free(""), r.table.now())
	})
}

func TestClosedShardIsFinishedOnceAllIsAcknowledged(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		begin := time.Now()
		r.put(page(0, 1), lastPage(1, 1))
		first, _ := r.next()
		last, _ := r.next()
		last.Ack(1, nil)
		pass(10 * leasePeriod)
		r.running()
		require.True(r, r.lease.Trusted())
		require.LessOrEqual(r, r.table.longestGap(begin), lease.Horizons*leasePeriod/2+commitPeriod)
		require.Equal(r, "me", r.table.now().Owner)
		require.False(r, r.table.now().Finished)

		first.Ack(1, nil)
		require.Equal(r, Result{Outcome: Finished, Children: children}, r.result())
		require.Equal(r, lease.Item{Key: key, Exists: true, Sequence: sequence(1), Finished: true, Number: 1}, r.table.now())
	})
}

func TestClosedShardWithoutRecordsIsFinishedAtOnce(t *testing.T) {
	bubble(t, func(c *Config) { c.Committed = lease.After(sequence(7)) }, func(r *rig) {
		r.put(lastPage(0, 0))
		require.Equal(r, Result{Outcome: Finished, Children: children}, r.result())
		require.Equal(r, lease.Item{Key: key, Exists: true, Sequence: sequence(7), Finished: true, Number: 1}, r.table.now())
	})
}

func TestWaitForTheLastAcknowledgementEndsWithItsContext(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.put(lastPage(0, 2))
		first, _ := r.next()
		r.next()
		first.Ack(1, nil)
		pass(time.Second)
		r.running()
		r.stop()
		require.Equal(r, Result{Outcome: Released}, r.result())
		require.Equal(r, free(sequence(0)), r.table.now(), "the next owner reads the rest and finishes it")
	})
}

func TestWaitsForTheOutputAndTheLimitEndWithTheirContext(t *testing.T) {
	for name, limit := range map[string]int{"output": 100, "limit": 1} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(c *Config) { c.Limit = limit }, func(r *rig) {
				r.put(page(0, 3))
				r.next()
				pass(time.Second)
				r.stop()
				require.Equal(r, Result{Outcome: Released}, r.result())
				require.Equal(r, free(""), r.table.now())
			})
		})
	}
}

func TestBlockedOutputKeepsTheLeaseAndReadsNoFurther(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		begin, before := time.Now(), r.table.now()
		for i := range 100 {
			r.put(page(i, 1))
		}
		pass(10 * leasePeriod)
		now := r.table.now()
		require.Equal(r, [2]string{before.Owner, before.Term}, [2]string{now.Owner, now.Term})
		require.LessOrEqual(r, r.table.longestGap(begin), lease.Horizons*leasePeriod/2+commitPeriod)
		require.EqualValues(r, 2, r.source.taken.Load())

		_, got := r.next()
		require.Equal(r, []string{"0"}, got)
		require.True(r, r.lease.Trusted())
	})
}

func TestLostLeaseEndsTheConsumerAndWritesNothing(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.put(page(0, 3))
		d, _ := r.next()
		pass(time.Second)
		tchildren := lease.Item{Key: key, Exists: true, Owner: "other", Token: "t", Sequence: sequence(50)}
		r.table.put(tchildren)
		d.Ack(1, nil)
		pass(commitPeriod)
		result := r.result()
		require.Equal(r, Lost, result.Outcome)
		require.ErrorIs(r, result.Err, lease.ErrLost)
		require.Equal(r, tchildren, r.table.now())
		require.Equal(r, 1, r.table.asked, "nothing after the renewal that told of the loss")
		require.ErrorIs(r, r.lease.Await(r.Context()), lease.ErrLost)
		r.nothing()
	})
}

func TestLeaseThatProvesLostAtTheLastWriteIsLost(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		tchildren := lease.Item{Key: key, Exists: true, Owner: "other", Token: "t", Sequence: sequence(50)}
		r.table.put(tchildren)
		r.put(lastPage(0, 0))
		result := r.result()
		require.Equal(r, Lost, result.Outcome)
		require.ErrorIs(r, result.Err, lease.ErrLost)
		require.Empty(r, result.Children, "they are for the owner to start")
		require.Equal(r, tchildren, r.table.now())
	})
}

func TestTableThatDoesNotAnswerDelaysTheEndByFiveSeconds(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.table.answer(false)
		r.stop()
		pass(endTimeout - 1)
		r.running()
		pass(1)
		result := r.result()
		require.Equal(r, Failed, result.Outcome)
		require.ErrorIs(r, result.Err, context.DeadlineExceeded)
		require.Equal(r, "me", r.table.now().Owner)
	})
}

func TestShardThatTheServiceDoesNotKnowIsReleased(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.put(page(0, 1))
		d, _ := r.next()
		d.Ack(1, nil)
		r.source.next <- fetched{err: retrieval.ErrShardGone}
		require.Equal(r, Result{Outcome: Gone, Err: retrieval.ErrShardGone}, r.result())
		require.Equal(r, free(sequence(0)), r.table.now())
	})
}

// brittle is a batcher that fails, and notes that it was closed.
type brittle struct {
	Batcher
	flushErr, closeErr error
	closed             int
}

func (b *brittle) Flush(ctx context.Context) (service.MessageBatch, error) {
	if b.flushErr != nil {
		return nil, b.flushErr
	}
	return b.Batcher.Flush(ctx)
}

func (b *brittle) Close(ctx context.Context) error {
	b.closed++
	return errors.Join(b.closeErr, ctx.Err())
}

func TestBatchThatCannotBeFlushedEndsTheConsumerUncommitted(t *testing.T) {
	b := &brittle{flushErr: errElsewhere}
	bubble(t, func(c *Config) {
		b.Batcher = batcher(t, service.BatchPolicy{Count: 2})
		c.Batcher = b
	}, func(r *rig) {
		r.put(page(0, 2), lastPage(2, 0))
		require.ErrorIs(r, r.result().Err, errElsewhere)
		require.Equal(r, free(""), r.table.now())
		require.Equal(r, 1, b.closed)
	})
}

func TestWhatTheConsumerTookOverIsClosedWhateverFails(t *testing.T) {
	b := &brittle{closeErr: errElsewhere}
	bubble(t, func(c *Config) {
		b.Batcher = c.Batcher
		c.Batcher = b
	}, func(r *rig) {
		r.stop()
		require.Equal(r, Result{Outcome: Released}, r.result())
		require.Equal(r, 1, b.closed)
	})
}

func TestOutcomesHaveNames(t *testing.T) {
	for outcome, want := range map[Outcome]string{
		Released: "released", Finished: "finished", HandedOver: "handed over", Lost: "lost", Gone: "gone", Failed: "failed", 0: "Outcome(0)",
	} {
		require.Equal(t, want, outcome.String())
	}
}

func TestShardThatIsCutIsFreeAndSaysUpToWhen(t *testing.T) {
	end := time.Date(2024, 5, 1, 13, 0, 0, 0, time.UTC)
	bubble(t, func(conf *Config) { conf.End = end }, func(r *rig) {
		last := page(0, 2)
		last.End, last.Cut = true, true
		r.put(last)
		first, _ := r.next()
		second, _ := r.next()
		second.Ack(1, nil)
		pass(time.Minute)
		r.running()
		require.True(r, r.table.now().CutAt.IsZero(), "the first is not acknowledged")
		first.Ack(1, nil)
		require.Equal(r, Result{Outcome: Cut}, r.result())
		want := free(sequence(1))
		want.CutAt = end
		got := r.table.now()
		got.UpTo = time.Time{}
		require.Equal(r, want, got)
	})
}

func TestShardThatIsCutWithoutARecordHasNoSequence(t *testing.T) {
	end := time.Date(2024, 5, 1, 13, 0, 0, 0, time.UTC)
	bubble(t, func(conf *Config) { conf.End = end }, func(r *rig) {
		r.put(retrieval.Page{End: true, Cut: true})
		require.Equal(r, Result{Outcome: Cut}, r.result())
		require.Empty(r, r.table.now().Sequence)
		require.Empty(r, r.table.now().Owner)
		require.True(r, r.table.now().CutAt.Equal(end))
	})
}

// A shard is handed over while the last of it is under way, and cut by its next reader.
func TestShardThatIsHandedOverBeforeItIsCutIsNotMarked(t *testing.T) {
	bubble(t, func(conf *Config) { conf.End = time.Unix(1, 0) }, func(r *rig) {
		last := page(0, 1)
		last.End, last.Cut = true, true
		r.put(last)
		r.next()
		r.give <- "other"
		pass(drainTimeout + time.Second)
		require.Equal(r, HandedOver, r.result().Outcome)
		require.True(r, r.table.now().CutAt.IsZero())
		require.Equal(r, "other", r.table.now().Owner)
	})
}
