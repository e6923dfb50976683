package consumer

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/benthosdev/benthos/v4/public/service"
	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/retrieval"
)

// arrived is a page whose records arrived one second after the other, the last of them at
// a moment up to which all was read.
func arrived(from, n int, last time.Time) retrieval.Page {
	p := page(from, n)
	for i := range p.Records {
		p.Records[i].Arrived = last.Add(time.Duration(i+1-n) * time.Second)
	}
	p.ReadTo = last
	return p
}

func TestStateTellsTheOldestRecordThatIsNotAcknowledged(t *testing.T) {
	bubble(t, func(c *Config) { c.Since = time.Now() }, func(r *rig) {
		require.Equal(r, time.Now(), r.consumer.State().Since, "what the claim told")
		pass(10 * time.Second)
		read := time.Now()
		r.put(arrived(0, 3, read))
		first, _ := r.next()
		second, _ := r.next()
		s := r.consumer.State()
		require.Equal(r, read.Add(-2*time.Second), s.Since)
		require.Equal(r, read.Add(-2*time.Second), s.Oldest)
		require.Equal(r, 2, s.InFlight)

		second.Ack(1, nil)
		require.Equal(r, read.Add(-2*time.Second), r.consumer.State().Since, "the first is missing still")
		first.Ack(1, nil)
		require.Equal(r, read, r.consumer.State().Since, "the third has not been sent")
		third, _ := r.next()
		third.Ack(1, nil)
		s = r.consumer.State()
		require.Equal(r, read, s.Since, "all is acknowledged that was read")
		require.Zero(r, s.Oldest)
		require.Zero(r, s.InFlight)

		pass(time.Minute)
		require.Equal(r, read, r.consumer.State().Since, "and nothing has been read since")
		empty := retrieval.Page{ReadTo: time.Now()}
		r.put(empty)
		pass(time.Second)
		require.Equal(r, empty.ReadTo, r.consumer.State().Since)
	})
}

func TestStateGoesByOurOwnClock(t *testing.T) {
	const ahead = time.Hour // of ours
	bubble(t, func(c *Config) {
		c.Since = time.Now()
		c.Skew = func() time.Duration { return ahead }
	}, func(r *rig) {
		pass(time.Minute)
		read := time.Now()
		p := arrived(0, 1, read.Add(ahead))
		p.ReadTo = read
		r.put(p)
		r.next()
		require.Equal(r, read, r.consumer.State().Since)
	})
}

func TestWhatASuspendedShardHasDroppedIsNotDoneWith(t *testing.T) {
	var told []bool
	bubble(t, func(c *Config) {
		c.Since = time.Now()
		c.Batcher = batcher(t, service.BatchPolicy{Count: 2})
		c.Hooks.OnSuspend = func(suspended bool) { told = append(told, suspended) }
	}, func(r *rig) {
		pass(10 * time.Second)
		read := time.Now()
		r.put(arrived(0, 3, read))
		first, _ := r.next()
		r.table.answer(false)
		pass(leasePeriod)
		require.True(r, r.consumer.State().Suspended)
		first.Ack(2, nil)
		require.Equal(r, read, r.consumer.State().Since, "when the third arrived, which waited for a fourth")
		pass(time.Hour)
		require.Equal(r, read, r.consumer.State().Since)
		r.table.answer(true)
		pass(10 * time.Second)
		require.False(r, r.consumer.State().Suspended)
		require.Equal(r, []bool{true, false}, told)
	})
}

func TestBatchingPolicyThatCannotBeClosedIsTold(t *testing.T) {
	var told []error
	bubble(t, func(c *Config) {
		c.Batcher = unclosable{c.Batcher}
		c.Hooks.OnClose = func(err error) { told = append(told, err) }
	}, func(r *rig) {
		r.stop()
		r.result()
		require.Len(r, told, 1)
		require.ErrorIs(r, told[0], errElsewhere)
	})
}

// unclosable is a batcher that fails as it is closed.
type unclosable struct{ Batcher }

func (u unclosable) Close(ctx context.Context) error {
	return errors.Join(u.Batcher.Close(ctx), errElsewhere)
}

func TestSuspensionThatEndsWithTheLeaseIsNotSaidToBeOver(t *testing.T) {
	var told []bool
	bubble(t, func(c *Config) {
		c.Hooks.OnSuspend = func(suspended bool) { told = append(told, suspended) }
	}, func(r *rig) {
		r.table.answer(false)
		pass(leasePeriod)
		r.stop()
		pass(time.Minute)
		r.result()
		require.Equal(r, []bool{true}, told)
	})
}

func TestProcessorsThatFailAreTold(t *testing.T) {
	var mu sync.Mutex
	var told []error
	failing := errElsewhere
	locked := func(f func()) { mu.Lock(); defer mu.Unlock(); f() }
	bubble(t, func(c *Config) {
		c.Processors = []*service.OwnedProcessor{unreliable(func() (err error) {
			locked(func() { err = failing })
			return err
		})}
		c.Hooks.OnProcess = func(err error) { locked(func() { told = append(told, err) }) }
	}, func(r *rig) {
		r.put(page(0, 1))
		pass(50 * time.Millisecond)
		locked(func() {
			require.Len(r, told, 1)
			require.ErrorIs(r, told[0], errElsewhere)
			failing = nil
		})
		require.NotZero(r, r.consumer.State().Processing)
		pass(time.Second)
		r.next()
		require.Zero(r, r.consumer.State().Processing)
		locked(func() { require.NoError(r, told[len(told)-1]) })
	})
}
