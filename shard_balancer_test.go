package awskinesis

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
)

// Whoever claims a shard that is freed before that begins while the built-in input reads.
func TestStolenShardIsFreedAfterItsFinalCheckpointThoughTheInputStops(t *testing.T) {
	bubble(t, func(r *rig) {
		in, stolen := r.stealing(`{ streams: [ orders ], steal_grace_period: 4s }`)
		done := make(chan struct{})
		go func() {
			defer close(done)
			in.close()
		}()
		pass(3 * time.Second)
		require.Equal(r, in.id(), r.item("orders", stolen).Owner)
		last := r.sequences("orders", stolen)[6]
		r.finalCheckpoint(stolen, last)
		begin := time.Now()
		<-done
		require.Less(r, time.Since(begin), 2*time.Second)
		require.Empty(r, r.item("orders", stolen).Owner)
		require.Equal(r, last, r.item("orders", stolen).Sequence)
	})
}

func TestInputThatStopsAwaitsAFinalCheckpointForTenSecondsAtMost(t *testing.T) {
	bubble(t, func(r *rig) {
		in, stolen := r.stealing(`{ streams: [ orders ], steal_grace_period: 1m }`)
		begin := time.Now()
		in.close()
		require.InDelta(r, stolenTimeout, time.Since(begin), float64(time.Second))
		require.Empty(r, r.item("orders", stolen).Owner)
	})
}

// A reader that knows nothing of literal items would begin further back.
func TestPositionOfALiteralItemIsStoredBeforeAnythingIsAcknowledged(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.putTo("orders", 0, 0, 10)
		adopted := r.sequences("orders", shardName(0))[3]
		r.literally(awsfake.Item{attrSequence: awsfake.String(adopted)})
		in := r.open(`streams: [ orders ]`)
		r.until(10*time.Second, func() bool { return r.heldBy(in) == 1 })
		pass(time.Second)
		require.Equal(r, adopted, r.item("orders", shardName(0)).Sequence)
	})
}

// Freed instead, it would go to whoever is there first.
func TestShardIsHandedOverThoughItCannotBeFoundOutWhetherTheRecipientIsThere(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 2)
		owner := r.open(brisk)
		r.until(10*time.Second, func() bool { return r.heldBy(owner) == 2 })
		r.aws.Inject(awsfake.Fault{
			Operation: "GetItem", Refuse: awsfake.NewError(awsfake.CodeInternalServerError, "down"),
			When: func(c *awsfake.Call) bool { return c.Key()[attrStream].Text == members },
		})
		requester := r.input(brisk)
		given, freed := 0, 0
		r.aws.OnWrite(func(w awsfake.Write) {
			switch {
			case handedOver(w, requester):
				given++
			case w.Key[attrStream].Text == "orders" && w.After[attrOwner].Text == "":
				freed++
			}
		})
		require.NoError(r, requester.connect(r.Context(), r.clientsOver(requester.line)))
		r.until(time.Minute, func() bool { return r.heldBy(requester) == 1 })
		require.Equal(r, 1, given)
		require.Zero(r, freed)
	})
}

func TestWhatBecomesOfTheLastShardsIsSaidThoughTheInputStops(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		in := r.open(brisk)
		r.until(10*time.Second, func() bool { return r.heldBy(in) == 1 })
		r.aws.Inject(awsfake.Fault{Operation: "UpdateItem", Refuse: awsfake.NewError(awsfake.CodeInternalServerError, "down")})
		in.close()
		require.Len(r, r.journal.logged("claimed anew if it is still this client's"), 1)
	})
}

// Other members would find them, but not the built-in input.
func TestClaimThatIsCutShortLeavesNoOwner(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		claimed := make(chan struct{}, 1)
		r.aws.OnWrite(func(w awsfake.Write) {
			if w.Key[attrStream].Text == "orders" && w.Before[attrOwner].Text == "" {
				claimed <- struct{}{}
			}
		})
		r.aws.Inject(awsfake.Fault{Operation: "UpdateItem", DelayAnswer: time.Hour, Times: 1, When: func(c *awsfake.Call) bool {
			return c.Key()[attrStream].Text == "orders"
		}})
		in := r.open(brisk)
		<-claimed
		require.Equal(r, in.id(), r.item("orders", shardName(0)).Owner)
		in.close()
		require.Empty(r, r.item("orders", shardName(0)).Owner)
	})
}
