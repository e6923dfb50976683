package consumer

import (
	"fmt"
	"testing"
	"time"

	"github.com/benthosdev/benthos/v4/public/service"
	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/retrieval"
)

func TestDeliveryLetsGoOfItsBatch(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.put(page(0, 1))
		d, got := r.next()
		require.Len(r, got, 1)
		require.Nil(r, d.Take())
	})
}

func TestBatchIsOfferedOnlyWhileTheLeaseCanBeProved(t *testing.T) {
	for name, early := range map[string]bool{"one that was offered before": true, "one that comes later": false} {
		t.Run(name, func(t *testing.T) {
			bubble(t, nil, func(r *rig) {
				if early {
					r.put(page(0, 2))
				}
				pass(leasePeriod)
				r.table.answer(false)
				pass(leasePeriod)
				if !early {
					r.put(page(0, 2))
				}
				r.nothing()
				r.table.answer(true)
				pass(10 * time.Second)
				for i := range 2 {
					_, contents := r.next()
					require.Equal(r, []string{fmt.Sprint(i)}, contents)
				}
			})
		})
	}
}

func TestOfferEndsWithAStopWhileTheLeaseCannotBeProved(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.put(page(0, 1))
		r.table.answer(false)
		pass(leasePeriod)
		r.table.answer(true)
		r.stop()
		require.Equal(r, Released, r.result().Outcome)
		require.Equal(r, free(""), r.table.now())
	})
}

func TestRejectedBatchIsSkippedAndItsMessagesAreCounted(t *testing.T) {
	rejected := 0
	bubble(t, func(c *Config) {
		c.Batcher = batcher(t, service.BatchPolicy{Count: 3})
		c.Hooks.OnReject = func(messages int, err error) {
			require.ErrorIs(t, err, errElsewhere)
			rejected += messages
		}
	}, func(r *rig) {
		r.put(page(0, 6))
		first, _ := r.next()
		second, _ := r.next()
		first.Ack(3, errElsewhere)
		require.Equal(r, 3, rejected)

		m0, m1, m2 := service.NewMessage(nil), service.NewMessage(nil), service.NewMessage(nil)
		two := service.NewBatchError(service.MessageBatch{m0, m1, m2}, errElsewhere).
			Failed(0, errElsewhere).Failed(2, errElsewhere)
		second.Ack(3, fmt.Errorf("writing: %w", two))
		require.Equal(r, 5, rejected, "only the messages that were rejected")
		pass(commitPeriod)
		require.Equal(r, sequence(5), r.table.now().Sequence)
	})
}

func TestDeliveryThatIsDroppedIsReadAgain(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.put(page(0, 1))
		d, _ := r.next()
		d.Drop()
		r.stop()
		require.Equal(r, Released, r.result().Outcome)
		require.Equal(r, free(""), r.table.now())
	})
}

func TestSuspendedShardTakesNoRoomAndIsReadOnWhenItsLeaseIsProved(t *testing.T) {
	budget := retrieval.NewBudget(1 << 20)
	costly := func(from, n int) retrieval.Page {
		p := page(from, n)
		for i := range p.Records {
			p.Cost += retrieval.Cost(&p.Records[i])
		}
		return p
	}
	bubble(t, func(c *Config) {
		c.Budget = budget
		c.Batcher = batcher(t, service.BatchPolicy{Count: 2})
	}, func(r *rig) {
		for i := range 3 {
			p := costly(i*5, 5)
			_, err := budget.Reserve(r.Context(), p.Cost, nil)
			require.NoError(r, err)
			r.put(p)
		}
		first, contents := r.next()
		require.Equal(r, []string{"0", "1"}, contents)
		require.Positive(r, budget.Held())
		r.table.answer(false)
		pass(leasePeriod)
		r.nothing()
		// What is at the output, and what the source had not handed out by then.
		require.Equal(r, first.cost.Load()+costly(10, 5).Cost, budget.Held())
		pass(time.Hour)
		r.table.answer(true)
		pass(10 * time.Second)
		for i := 2; i < 14; i += 2 {
			d, contents := r.next()
			require.Equal(r, []string{fmt.Sprint(i), fmt.Sprint(i + 1)}, contents)
			d.Ack(2, nil)
		}
		first.Ack(2, nil)
		pass(commitPeriod)
		require.Equal(r, sequence(13), r.table.now().Sequence)
	})
}

func TestShardThatIsAskedForWhileSuspendedIsHandedOverAfterwards(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.put(page(0, 2))
		r.table.answer(false)
		pass(leasePeriod)
		r.give <- "other"
		pass(time.Minute)
		r.running()
		r.table.answer(true)
		pass(10 * time.Second)
		require.Equal(r, HandedOver, r.result().Outcome)
		require.Equal(r, "other", r.table.now().Owner)
	})
}

func TestShardThatIsGoneIsKeptUntilWhatIsUnderWayIsAcknowledged(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.put(page(0, 1))
		d, _ := r.next()
		r.source.next <- fetched{err: retrieval.ErrShardGone}
		pass(10 * leasePeriod)
		r.running()
		require.Equal(r, "me", r.table.now().Owner, "its children are to wait")
		d.Ack(1, nil)
		require.Equal(r, Gone, r.result().Outcome)
		require.Equal(r, free(sequence(0)), r.table.now())
	})
}
