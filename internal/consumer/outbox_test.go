package consumer

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// received takes a batch as an input does: it is nil when it was set aside.
func (r *rig) received(b *Outbox, life context.Context) *Outgoing { //nolint:revive // the rig is no context
	r.Helper()
	synctest.Wait()
	o := b.Take()
	fresh := o == nil
	if fresh {
		select {
		case d := <-r.out:
			o = NewOutgoing(d)
		default:
			return nil
		}
	}
	if b.SetAside(life, o, fresh) {
		return nil
	}
	return o
}

func contents(t require.TestingT, o *Outgoing) string {
	content, err := o.Batch()[0].AsBytes()
	require.NoError(t, err)
	return string(content)
}

func TestBatchesWithoutProofStepAsideAndComeBackInOrder(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		b, life := NewOutbox(), r.Context()
		r.put(page(0, 10))
		var all []*Outgoing
		for range 10 {
			all = append(all, r.received(b, life))
		}
		r.table.answer(false)
		pass(leasePeriod)
		for _, o := range all {
			b.Reject(o)
		}
		for range 10 {
			require.Nil(r, r.received(b, life), "nobody can tell whose the shard is")
		}
		r.table.answer(true)
		r.put(page(10, 1))
		pass(10 * time.Second)
		for i := range 11 {
			require.Equal(r, fmt.Sprint(i), contents(r, r.received(b, life)))
		}
		b.Close()
		b.Wait()
	})
}

func TestFreshBatchGoesBehindThoseOfItsLeaseThatAreDue(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		b, life := NewOutbox(), r.Context()
		r.put(page(0, 2))
		first := r.received(b, life)
		synctest.Wait()
		fresh := NewOutgoing(<-r.out) // taken when nothing was due
		b.Reject(first)
		require.True(r, b.SetAside(life, fresh, true))
		require.Equal(r, "0", contents(r, r.received(b, life)))
		require.Equal(r, "1", contents(r, r.received(b, life)))
	})
}

func TestBatchesThatAreAsideAreDroppedAtTheEnd(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		b := NewOutbox()
		life, end := context.WithCancel(r.Context())
		r.put(page(0, 3))
		first, second, third := r.received(b, life), r.received(b, life), r.received(b, life)
		r.table.answer(false)
		pass(leasePeriod)
		require.True(r, b.SetAside(life, first, false))
		require.True(r, b.SetAside(life, second, false))
		b.Close()
		require.True(r, b.SetAside(life, third, false))
		end()
		b.Wait()
		require.Nil(r, b.Take())
		r.table.answer(true)
		r.stop()
		require.Equal(r, Released, r.result().Outcome)
		require.Empty(r, r.table.now().Sequence, "none counts as acknowledged")
	})
}

func TestRejectedBatchPausesFromTheThirdTimeOn(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		b := NewOutbox()
		r.put(page(0, 1))
		o := r.received(b, r.Context())
		var pauses []time.Duration
		for range 14 {
			begin := time.Now()
			b.Reject(o)
			<-b.Ready()
			o = b.Take()
			pauses = append(pauses, time.Since(begin))
		}
		require.Equal(r, []time.Duration{0, 0, time.Millisecond, 2 * time.Millisecond}, pauses[:4])
		require.Equal(r, time.Second, pauses[13])
		require.False(r, o.Delivered(errors.New("lost")))
		o.Ack()
	})
}
