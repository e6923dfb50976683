package awskinesis

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/benthosdev/benthos/v4/public/service"
	"github.com/stretchr/testify/require"
)

// texts returns the payloads of a batch.
func texts(t *testing.T, batch service.MessageBatch) []string {
	t.Helper()
	var all []string
	for _, m := range batch {
		b, err := m.AsBytes()
		require.NoError(t, err)
		all = append(all, string(b))
	}
	return all
}

func TestMessagesThatTheOutputDeliveredDoNotComeAgain(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.put("orders", 0, 4)
		in := r.open(`{ streams: [ orders ], batching: { count: 4 } }`)
		batch, ack, err := in.BatchInput.ReadBatch(r.Context())
		require.NoError(r, err)

		// A processor dropped the first message and turned the others round.
		seen := slices.Clone(batch[1:])
		slices.Reverse(seen)
		seen[0].SetBytes([]byte("changed"))
		lost := errors.New("lost")
		require.NoError(r, ack(r.Context(), service.NewBatchError(seen, lost).Failed(0, lost).Failed(2, lost)))
		again, ack, err := in.BatchInput.ReadBatch(r.Context())
		require.NoError(r, err)
		require.Equal(r, []string{"0", "1", "3"}, texts(r.T, again), "what arrived, not what a processor made of it")

		require.NoError(r, ack(r.Context(), service.NewBatchError(again, lost).Failed(2, lost)))
		again, ack, err = in.BatchInput.ReadBatch(r.Context())
		require.NoError(r, err)
		require.Equal(r, []string{"3"}, texts(r.T, again))
		require.NoError(r, ack(r.Context(), service.NewBatchError(again, lost).Failed(0, lost)))
		again, ack, err = in.BatchInput.ReadBatch(r.Context())
		require.NoError(r, err)
		require.Equal(r, []string{"3"}, texts(r.T, again))
		pass(10 * time.Second)
		require.Empty(r, r.item("orders", shardName(0)).Sequence, "one is missing yet")
		require.NoError(r, ack(r.Context(), nil))
		pass(10 * time.Second)
		require.Equal(r, r.sequences("orders", shardName(0))[3], r.item("orders", shardName(0)).Sequence)
	})
}

func TestRejectedBatchComesAgainWholeAndLessAndLessOften(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.put("orders", 0, 2)
		in := r.open(`{ streams: [ orders ], batching: { count: 2 } }`)
		var pauses []time.Duration
		last := time.Now()
		for range 15 {
			batch, ack, err := in.BatchInput.ReadBatch(r.Context())
			require.NoError(r, err)
			require.Equal(r, []string{"0", "1"}, texts(r.T, batch))
			pauses = append(pauses, time.Since(last))
			last = time.Now()
			require.NoError(r, ack(r.Context(), errors.New("rejected")))
		}
		require.Equal(r, []time.Duration{0, 0, time.Millisecond, 2 * time.Millisecond, 4 * time.Millisecond}, pauses[1:6])
		require.Equal(r, time.Second, pauses[14])
	})
}

func TestRejectedBatchComesBeforeNewOnes(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.put("orders", 0, 3)
		in := r.open(`streams: [ orders ]`)
		first, ack, err := in.BatchInput.ReadBatch(r.Context())
		require.NoError(r, err)
		require.NoError(r, ack(r.Context(), context.DeadlineExceeded))
		again, _, err := in.BatchInput.ReadBatch(r.Context())
		require.NoError(r, err)
		require.Equal(r, texts(r.T, first), texts(r.T, again))
	})
}

func TestMessagesThatAProcessorMergedComeAgainTogether(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.put("orders", 0, 4)
		in := r.open(`{ streams: [ orders ], batching: { count: 4 } }`)
		batch, ack, err := in.BatchInput.ReadBatch(r.Context())
		require.NoError(r, err)

		lost := errors.New("lost")
		merged := service.MessageBatch{batch[0], batch[1]} // each with another one in it
		require.NoError(r, ack(r.Context(), service.NewBatchError(merged, lost).Failed(0, lost)))
		again, ack, err := in.BatchInput.ReadBatch(r.Context())
		require.NoError(r, err)
		require.Equal(r, []string{"0", "2", "3"}, texts(r.T, again), "1 was delivered, with or without others")

		unknown := append(slices.Clone(again), service.NewMessage(nil))
		require.NoError(r, ack(r.Context(), service.NewBatchError(unknown, lost).Failed(3, lost)))
		again, _, err = in.BatchInput.ReadBatch(r.Context())
		require.NoError(r, err)
		require.Len(r, again, 3, "what failed may have come from any")
	})
}

func TestFailureOfAnotherBatchOfTheSameRequestIsNotReplayed(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.put("orders", 0, 4)
		in := r.open(`{ streams: [ orders ], batching: { count: 2 } }`)
		first, ackFirst, err := in.BatchInput.ReadBatch(r.Context())
		require.NoError(r, err)
		second, ackSecond, err := in.BatchInput.ReadBatch(r.Context())
		require.NoError(r, err)

		lost := errors.New("lost")
		rejection := service.NewBatchError(slices.Concat(first, second), lost).Failed(3, lost)
		require.NoError(r, ackFirst(r.Context(), rejection))
		require.NoError(r, ackSecond(r.Context(), rejection))
		again, ack, err := in.BatchInput.ReadBatch(r.Context())
		require.NoError(r, err)
		require.Equal(r, []string{"3"}, texts(r.T, again))
		require.NoError(r, ack(r.Context(), nil))
		pass(10 * time.Second)
		require.Equal(r, r.sequences("orders", shardName(0))[3], r.item("orders", shardName(0)).Sequence)
	})
}
