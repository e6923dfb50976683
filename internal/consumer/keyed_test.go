package consumer

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/benthosdev/benthos/v4/public/service"
	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/retrieval"
)

// keyedPage has a record for each key, the first of them the from-th of the shard.
func keyedPage(from int, keys string) retrieval.Page {
	p := page(from, len(keys))
	for i, key := range keys {
		if key != ' ' {
			p.Records[i].PartitionKey = string(key)
		}
		p.Cost += retrieval.Cost(&p.Records[i])
	}
	return p
}

// lastKeyedPage is the end of a closed shard that was split.
func lastKeyedPage(from int, keys string) retrieval.Page {
	p := keyedPage(from, keys)
	p.End, p.Children = true, children
	return p
}

// byKey has the order by key, and batches of a policy.
func byKey(t *testing.T, limit int, policy service.BatchPolicy) func(*Config) {
	return func(c *Config) {
		c.ByKey, c.Limit, c.Batcher = true, limit, batcher(t, policy)
	}
}

var single = service.BatchPolicy{Count: 1}

// requireNext requires that a delivery is there at this moment, and what it has.
func (r *rig) requireNext(contents ...string) *Delivery {
	r.Helper()
	d, got := r.next()
	require.Equal(r, contents, got)
	return d
}

func TestMessageWaitsForThoseBeforeItOfItsKey(t *testing.T) {
	bubble(t, byKey(t, 100, single), func(r *rig) {
		r.put(keyedPage(0, "aaab"))
		first := r.requireNext("0")
		b := r.requireNext("3")
		r.nothing()
		b.Ack(1, nil)
		r.nothing()
		first.Ack(1, nil)
		second := r.requireNext("1")
		r.nothing()
		first.Ack(1, nil)
		r.nothing()
		second.Ack(1, nil)
		r.requireNext("2")
	})
}

func TestCheckpointWaitsForTheSlowestKey(t *testing.T) {
	bubble(t, byKey(t, 100, single), func(r *rig) {
		r.put(keyedPage(0, "aabc"))
		first := r.requireNext("0")
		for _, content := range []string{"2", "3"} {
			r.requireNext(content).Ack(1, nil)
		}
		pass(commitPeriod)
		require.Empty(r, r.table.now().Sequence)
		first.Ack(1, nil)
		pass(commitPeriod)
		require.Equal(r, sequence(0), r.table.now().Sequence)
		r.requireNext("1").Ack(1, nil)
		pass(commitPeriod)
		require.Equal(r, sequence(3), r.table.now().Sequence)
	})
}

func TestMessagesWithoutAKeyWaitForNothing(t *testing.T) {
	bubble(t, byKey(t, 100, single), func(r *rig) {
		r.put(keyedPage(0, "   "))
		for _, content := range []string{"0", "1", "2"} {
			r.requireNext(content)
		}
	})
}

func TestLimitCountsMessagesThatWaitForTheirKey(t *testing.T) {
	bubble(t, byKey(t, 2, single), func(r *rig) {
		r.put(keyedPage(0, "aab"))
		first := r.requireNext("0")
		r.nothing()
		first.Ack(1, nil)
		r.requireNext("1")
		r.requireNext("2")
	})
}

func TestLimitOfOneKeepsTheOrderOfTheShard(t *testing.T) {
	bubble(t, byKey(t, 1, service.BatchPolicy{Count: 4}), func(r *rig) {
		r.put(keyedPage(0, "abc"))
		for _, content := range []string{"0", "1"} {
			d := r.requireNext(content)
			r.nothing()
			d.Ack(1, nil)
		}
	})
}

func TestBatchHoldsAKeyOnce(t *testing.T) {
	bubble(t, byKey(t, 100, service.BatchPolicy{Count: 3}), func(r *rig) {
		r.put(keyedPage(0, "aabacd"))
		first := r.requireNext("0", "2", "4")
		r.nothing()
		first.Ack(3, nil)
		r.requireNext("5", "1")
	})
}

func TestBatchThatHoldsUpAMessageLeavesBeforeItsPeriod(t *testing.T) {
	bubble(t, byKey(t, 100, service.BatchPolicy{Count: 10, Period: "1m"}), func(r *rig) {
		r.put(keyedPage(0, "ab"))
		r.nothing()
		pass(30 * time.Second)
		r.put(keyedPage(2, "ca"))
		first := r.requireNext("0", "1", "2")
		first.Ack(3, nil)
		pass(time.Minute - 1)
		r.nothing()
		pass(1)
		r.requireNext("3")
	})
}

func TestBatchTakesInThePageAtHandBeforeItLeaves(t *testing.T) {
	bubble(t, byKey(t, 100, service.BatchPolicy{Count: 4}), func(r *rig) {
		r.put(keyedPage(0, "a"))
		synctest.Wait()
		r.put(keyedPage(1, "ab"), keyedPage(3, "cd"))
		r.requireNext("0", "2", "3", "4")
	})
}

func TestBatchThatFillsTheWindowLeaves(t *testing.T) {
	bubble(t, byKey(t, 3, service.BatchPolicy{Count: 10}), func(r *rig) {
		r.put(keyedPage(0, "abcde"))
		first := r.requireNext("0", "1", "2")
		r.nothing()
		first.Ack(3, nil)
		r.nothing()
		r.put(keyedPage(5, "fgh"))
		r.requireNext("3", "4", "5")
	})
}

func TestBatchIsNotHeldBackFromAWaitForTheBudget(t *testing.T) {
	var wanted chan struct{}
	bubble(t, func(c *Config) {
		byKey(t, 100, service.BatchPolicy{Count: 2})(c)
		wanted = make(chan struct{}, 1)
		c.BudgetWait = wanted
	}, func(r *rig) {
		r.put(keyedPage(0, "aab"))
		first := r.requireNext("0", "2")
		wanted <- struct{}{}
		r.nothing()
		first.Ack(2, nil)
		r.requireNext("1")
		r.put(keyedPage(3, "c"))
		r.nothing()
	})
}

func TestRejectedKeyWaitsAndOthersGoOn(t *testing.T) {
	bubble(t, byKey(t, 100, service.BatchPolicy{Count: 3, Period: "1s"}), func(r *rig) {
		r.put(keyedPage(0, "abcab"))
		synctest.Wait()
		o := NewOutgoing(<-r.out)
		batch := o.Batch()
		require.Len(r, batch, 3)
		require.False(r, o.Delivered(service.NewBatchError(batch, errElsewhere).Failed(0, errElsewhere)))
		pass(time.Second)
		r.requireNext("4").Ack(1, nil)
		require.Len(r, o.Batch(), 1)
		require.False(r, o.Delivered(errElsewhere))
		pass(time.Second)
		r.nothing()
		o.Ack()
		pass(time.Second)
		r.requireNext("3").Ack(1, nil)
		pass(commitPeriod)
		require.Equal(r, sequence(4), r.table.now().Sequence)
	})
}

func TestBatchThatIsDeliveredInPartsFreesEachKeyOnce(t *testing.T) {
	bubble(t, byKey(t, 100, service.BatchPolicy{Count: 2, Period: "1s"}), func(r *rig) {
		r.put(keyedPage(0, "abab"))
		synctest.Wait()
		o := NewOutgoing(<-r.out)
		for failed := range 2 {
			batch := o.Batch()
			all := o.Delivered(service.NewBatchError(batch, errElsewhere).Failed(0, errElsewhere))
			require.False(r, all, failed)
		}
		pass(time.Second)
		r.requireNext("3")
		o.Ack()
		pass(time.Second)
		r.requireNext("2")
		o.Ack()
		pass(time.Second)
		r.nothing()
	})
}

func TestBatchOfProcessorsIsAcknowledgedAsAWhole(t *testing.T) {
	bubble(t, func(c *Config) {
		byKey(t, 100, service.BatchPolicy{Count: 2})(c)
		c.Processors = processors(t, `[ { archive: { format: lines } }, { unarchive: { format: lines } } ]`)
	}, func(r *rig) {
		r.put(keyedPage(0, "abab"))
		synctest.Wait()
		o := NewOutgoing(<-r.out)
		require.False(r, o.Delivered(service.NewBatchError(o.Batch(), errElsewhere).Failed(0, errElsewhere)))
		r.nothing()
		o.Ack()
		r.requireNext("2", "3")
	})
}

func TestMessagesThatAreFilteredFreeTheirKey(t *testing.T) {
	bubble(t, func(c *Config) {
		byKey(t, 2, single)(c)
		c.Processors = processors(t, `[ { mapping: 'root = if content() != "60" { deleted() }' } ]`)
	}, func(r *rig) {
		r.put(keyedPage(0, strings.Repeat("a", 100)))
		r.requireNext("60")
		pass(commitPeriod)
		require.Equal(r, sequence(59), r.table.now().Sequence)
	})
}

func TestWhatWaitsForItsBatchIsNotInFlight(t *testing.T) {
	bubble(t, byKey(t, 100, service.BatchPolicy{Count: 3}), func(r *rig) {
		r.put(keyedPage(0, "ab"))
		r.nothing()
		require.Zero(r, r.consumer.State().InFlight)
		r.put(keyedPage(2, "ca"))
		d := r.requireNext("0", "1", "2")
		require.Equal(r, 4, r.consumer.State().InFlight)
		d.Ack(3, nil)
		r.nothing()
		require.Zero(r, r.consumer.State().InFlight)
	})
}

func TestClosedShardIsFinishedOnceAllLanesAreEmpty(t *testing.T) {
	bubble(t, byKey(t, 100, service.BatchPolicy{Count: 10}), func(r *rig) {
		r.put(lastKeyedPage(0, "aaab"))
		for _, contents := range [][]string{{"0", "3"}, {"1"}, {"2"}} {
			d := r.requireNext(contents...)
			r.running()
			d.Ack(len(contents), nil)
		}
		require.Equal(r, Result{Outcome: Finished, Children: children}, r.result())
		require.Equal(r, sequence(3), r.table.now().Sequence)
	})
}

func TestWhatIsInTheLanesOfAShardThatIsGoneIsSent(t *testing.T) {
	bubble(t, byKey(t, 2, service.BatchPolicy{Count: 10}), func(r *rig) {
		r.put(keyedPage(0, "aaab"))
		r.source.next <- fetched{err: retrieval.ErrShardGone}
		r.requireNext("0").Ack(1, nil)
		r.requireNext("1").Ack(1, nil)
		r.requireNext("2", "3").Ack(2, nil)
		require.Equal(r, Result{Outcome: Gone, Err: retrieval.ErrShardGone}, r.result())
		require.Equal(r, free(sequence(3)), r.table.now())
	})
}

// budgeted has a budget with what the pages cost in use, as their source would have it.
func budgeted(t *testing.T, configure func(*Config), pages ...retrieval.Page) (*retrieval.Budget, func(*Config)) {
	budget := retrieval.NewBudget(1 << 30)
	for _, p := range pages {
		require.True(t, budget.TryReserve(p.Cost))
	}
	return budget, func(c *Config) {
		configure(c)
		c.Budget = budget
	}
}

func TestBudgetHasBackWhatEndsInTheLanes(t *testing.T) {
	p := keyedPage(0, "aabbcd")
	cost := retrieval.Cost(&p.Records[0])
	budget, configure := budgeted(t, byKey(t, 4, service.BatchPolicy{Count: 2}), p)
	bubble(t, configure, func(r *rig) {
		r.put(p)
		d := r.requireNext("0", "2")
		r.stop()
		require.Equal(r, Released, r.result().Outcome)
		require.Equal(r, 2*cost, budget.Held())
		d.Ack(2, nil)
		require.Zero(r, budget.Held())
	})
}

// suspend has the lease not be proved until resume is called.
func (r *rig) suspend() {
	r.Helper()
	r.table.answer(false)
	pass(leasePeriod)
	require.True(r, r.consumer.State().Suspended)
}

func (r *rig) resume() {
	r.Helper()
	r.table.answer(true)
	pass(10 * time.Second)
	require.False(r, r.consumer.State().Suspended)
}

func TestWhatASuspendedShardHasInItsLanesIsReadAgain(t *testing.T) {
	p := keyedPage(0, "aabacbd")
	cost := retrieval.Cost(&p.Records[0])
	budget, configure := budgeted(t, byKey(t, 5, single), p, p) // what is read again costs again
	bubble(t, configure, func(r *rig) {
		r.put(p)
		a, b, c := r.requireNext("0"), r.requireNext("2"), r.requireNext("4")
		r.nothing()
		c.Ack(1, nil)
		r.suspend()
		require.Equal(r, p.Cost+2*cost, budget.Held(), "what has left alone")
		a.Ack(1, nil)
		require.Equal(r, p.Cost+cost, budget.Held())
		r.nothing()
		r.resume()
		second := r.requireNext("1")
		r.nothing()
		second.Ack(1, nil)
		r.requireNext("3").Ack(1, nil)
		r.requireNext("6").Ack(1, nil)
		r.nothing()
		b.Ack(1, nil)
		r.requireNext("5").Ack(1, nil)
		pass(commitPeriod)
		require.Equal(r, sequence(6), r.table.now().Sequence)
		require.Equal(r, cost, budget.Held(), "that of the first record, which was not read again")
	})
}

func TestShardThatIsSuspendedTwiceLosesNothing(t *testing.T) {
	bubble(t, byKey(t, 100, single), func(r *rig) {
		r.put(keyedPage(0, "aaabbb"))
		a := r.requireNext("0")
		b := r.requireNext("3")
		for range 2 {
			r.suspend()
			r.resume()
			r.nothing()
		}
		b.Ack(1, nil)
		b = r.requireNext("4")
		r.suspend()
		b.Ack(1, nil)
		a.Ack(1, nil)
		r.resume()
		r.requireNext("1").Ack(1, nil)
		r.requireNext("2").Ack(1, nil)
		r.requireNext("5").Ack(1, nil)
		pass(commitPeriod)
		require.Equal(r, sequence(5), r.table.now().Sequence)
	})
}

func TestShardThatEndedBeforeItWasSuspendedIsFinished(t *testing.T) {
	bubble(t, byKey(t, 100, single), func(r *rig) {
		r.put(lastKeyedPage(0, "aab"))
		a, b := r.requireNext("0"), r.requireNext("2")
		r.suspend()
		b.Ack(1, nil)
		a.Ack(1, nil)
		r.resume()
		r.requireNext("1").Ack(1, nil)
		require.Equal(r, Result{Outcome: Finished, Children: children}, r.result())
	})
}

func TestWhatLeavesTheStreamDuringASuspensionHoldsNothingBack(t *testing.T) {
	bubble(t, byKey(t, 100, single), func(r *rig) {
		r.put(keyedPage(0, "aaab"))
		first := r.requireNext("0")
		r.requireNext("3").Ack(1, nil)
		r.suspend()
		first.Ack(1, nil)
		r.source.mu.Lock()
		r.source.past[0].page.Records = r.source.past[0].page.Records[2:]
		r.source.mu.Unlock()
		r.resume()
		r.requireNext("2").Ack(1, nil)
		pass(commitPeriod)
		require.Equal(r, sequence(3), r.table.now().Sequence)
	})
}

func TestShardThatIsGoneAfterASuspensionIsReleased(t *testing.T) {
	bubble(t, byKey(t, 100, single), func(r *rig) {
		r.put(keyedPage(0, "aab"))
		first := r.requireNext("0")
		r.requireNext("2").Ack(1, nil)
		r.suspend()
		r.source.mu.Lock()
		r.source.past = nil
		r.source.mu.Unlock()
		r.source.next <- fetched{err: retrieval.ErrShardGone}
		r.table.answer(true)
		pass(10 * time.Second)
		r.running()
		first.Ack(1, nil)
		require.Equal(r, Result{Outcome: Gone, Err: retrieval.ErrShardGone}, r.result())
	})
}

func TestHandOverSendsWhatLiesBeforeWhatWasSent(t *testing.T) {
	p := keyedPage(0, "aaabaac")
	budget, configure := budgeted(t, byKey(t, 6, service.BatchPolicy{Count: 10, Period: "1m"}), p)
	bubble(t, configure, func(r *rig) {
		r.put(p)
		first := r.requireNext("0", "3")
		first.Ack(2, nil)
		r.handOver()
		r.put(keyedPage(7, "d"))
		for _, content := range []string{"1", "2"} {
			d := r.requireNext(content)
			r.nothing()
			d.Ack(1, nil)
		}
		r.requireHandedOver(sequence(3))
		require.Zero(r, budget.Held())
	})
}

func TestHandOverDoesNotWaitForWhatNeverLeft(t *testing.T) {
	bubble(t, byKey(t, 100, single), func(r *rig) {
		r.put(keyedPage(0, "aab"))
		first := r.requireNext("0")
		r.handOver() // while the message of b waits for the output
		first.Ack(1, nil)
		r.requireHandedOver(sequence(0))
	})
}

func TestSlowKeyDelaysHandOverByTheDrainTimeoutAlone(t *testing.T) {
	bubble(t, byKey(t, 100, single), func(r *rig) {
		r.put(keyedPage(0, "aab"))
		r.requireNext("0")
		r.requireNext("2").Ack(1, nil)
		r.handOver()
		pass(drainTimeout - 1)
		r.running()
		pass(1)
		r.requireHandedOver("")
	})
}

func TestHandOverAfterASuspensionWaitsForWhatIsUnderWayAlone(t *testing.T) {
	bubble(t, byKey(t, 100, single), func(r *rig) {
		r.put(keyedPage(0, "aab"))
		first := r.requireNext("0")
		r.requireNext("2").Ack(1, nil)
		r.suspend()
		r.source.mu.Lock()
		r.source.past = nil // what was dropped cannot be read again before
		r.source.mu.Unlock()
		r.handOver()
		r.table.answer(true)
		for r.consumer.State().Suspended {
			pass(time.Second)
		}
		r.running()
		first.Ack(1, nil)
		r.requireHandedOver(sequence(0))
	})
}

func TestLateAcknowledgementOfAKeyMovesNothing(t *testing.T) {
	bubble(t, byKey(t, 100, single), func(r *rig) {
		r.put(keyedPage(0, "aa"))
		d := r.requireNext("0")
		other := lease.Item{Key: key, Exists: true, Owner: "other", Token: "t", Sequence: sequence(50)}
		r.table.put(other)
		pass(2 * commitPeriod)
		for len(r.ended) == 0 {
			pass(leasePeriod)
		}
		require.Equal(r, Lost, r.result().Outcome)
		d.Ack(1, nil)
		pass(leasePeriod)
		require.Equal(r, other, r.table.now())
	})
}

func TestBatchThatIsJoinedIntoOneMessageHoldsRunsOfOneKey(t *testing.T) {
	bubble(t, func(c *Config) {
		byKey(t, 100, service.BatchPolicy{Count: 4, Period: "1m"})(c)
		c.Processors = processors(t, `[ { archive: { format: lines } } ]`)
	}, func(r *rig) {
		r.put(keyedPage(0, "aab"))
		r.nothing()
		r.put(keyedPage(3, "aac"))
		first := r.requireNext("0\n1\n2\n3")
		pass(time.Minute)
		other := r.requireNext("5")
		first.Ack(1, nil)
		pass(time.Minute)
		r.requireNext("4").Ack(1, nil)
		other.Ack(1, nil)
		pass(commitPeriod)
		require.Equal(r, sequence(5), r.table.now().Sequence)
	})
}

func TestBatchThatIsNotJoinedIntoOneMessageHoldsAKeyOnce(t *testing.T) {
	bubble(t, func(c *Config) {
		byKey(t, 100, service.BatchPolicy{Count: 3})(c)
		c.Processors = processors(t, `[ { mapping: 'root = content() + "!"' } ]`)
	}, func(r *rig) {
		r.put(lastKeyedPage(0, "aabab"))
		for _, contents := range [][]string{{"0!", "2!"}, {"1!", "4!"}, {"3!"}} {
			r.requireNext(contents...).Ack(1, nil)
		}
		require.Equal(r, Finished, r.result().Outcome)
	})
}
