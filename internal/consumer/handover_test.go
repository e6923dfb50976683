package consumer

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
)

// handOver has the consumer hand the shard over to another client.
func (r *rig) handOver() {
	r.Helper()
	r.give <- "other"
	synctest.Wait()
}

// requireHandedOver requires that the shard is the recipient's from a sequence on.
func (r *rig) requireHandedOver(sequence string) {
	r.Helper()
	require.Equal(r, Result{Outcome: HandedOver, To: "other"}, r.result())
	item := r.table.now()
	require.Equal(r, lease.Item{Key: key, Exists: true, Owner: "other", Token: item.Token, Term: item.Term, Number: 2, Sequence: sequence}, item)
	require.NotEmpty(r, item.Term)
	require.False(r, r.lease.Trusted())
}

func TestShardIsHandedOverOnceAllIsAcknowledged(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.put(page(0, 2))
		first, _ := r.next()
		second, _ := r.next()
		r.handOver()
		r.put(page(2, 1))
		pass(drainTimeout / 2)
		r.running()
		r.nothing()
		second.Ack(1, nil)
		r.running()
		first.Ack(1, nil)
		r.requireHandedOver(sequence(1))
		require.Zero(r, r.source.taken.Load()-1, "nothing more was read")
	})
}

func TestShardIsReleasedWhenWhoWasToHaveItHasGone(t *testing.T) {
	for there, want := range map[bool]Outcome{true: HandedOver, false: Released} {
		t.Run(want.String(), func(t *testing.T) {
			asked := ""
			bubble(t, func(c *Config) {
				c.Awaited = func(_ context.Context, client string) bool { asked = client; return there }
			}, func(r *rig) {
				r.put(page(0, 1))
				d, _ := r.next()
				r.handOver()
				require.Empty(r, asked, "it may go while the shard is drained")
				d.Ack(1, nil)
				require.Equal(r, want, r.result().Outcome)
				require.Equal(r, "other", asked)
				require.Equal(r, there, r.table.now().Owner == "other")
				require.Equal(r, sequence(0), r.table.now().Sequence)
			})
		})
	}
}

func TestShardWithoutAnythingUnderWayIsHandedOverAtOnce(t *testing.T) {
	bubble(t, func(c *Config) { c.Committed = lease.After(sequence(7)) }, func(r *rig) {
		r.handOver()
		r.requireHandedOver(sequence(7))
	})
}

func TestSlowOutputDelaysHandOverByTheDrainTimeoutAlone(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.put(page(0, 2))
		first, _ := r.next()
		r.next()
		first.Ack(1, nil)
		r.handOver()
		pass(drainTimeout - time.Nanosecond)
		r.running()
		pass(time.Nanosecond)
		r.requireHandedOver(sequence(0))
	})
}

func TestHandOverDoesNotWaitForABatchThatNeverLeft(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.put(page(0, 3))
		first, _ := r.next()
		r.handOver() // while the second batch waits for the output
		first.Ack(1, nil)
		r.requireHandedOver(sequence(0))
	})
}

func TestClosedShardThatIsGivenAwayBeforeItsEndIsHandedOver(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.put(lastPage(0, 2))
		first, _ := r.next()
		second, _ := r.next()
		r.handOver()
		first.Ack(1, nil)
		second.Ack(1, nil)
		r.requireHandedOver(sequence(1))
	})
}

func TestShardThatIsLostWhileItIsHandedOverIsLost(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.put(page(0, 1))
		r.next()
		r.handOver()
		tchildren := lease.Item{Key: key, Exists: true, Owner: "third", Token: "t", Sequence: sequence(50)}
		r.table.put(tchildren)
		pass(drainTimeout)
		require.Equal(r, Lost, r.result().Outcome)
		require.Equal(r, tchildren, r.table.now())
	})
}

func TestStopWhileTheShardIsHandedOverReleasesIt(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.put(page(0, 1))
		r.next()
		r.handOver()
		r.stop()
		require.Equal(r, Result{Outcome: Released}, r.result())
		require.Equal(r, free(""), r.table.now())
	})
}
