package consumer

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/benthosdev/benthos/v4/public/service"
	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/retrieval"
)

// witness is an output that remembers of each record of a shard what came of it, and what
// was told of it. Records come as time passes, and grow old.
type witness struct {
	*rig
	dice *rand.Rand
	// untold is whether the service does not tell of some records when they arrived. Those
	// may make the lag greater than it is.
	untold bool

	records []witnessed
	taken   []*Delivery // that are not acknowledged
	holds   map[*Delivery][]int
	keys    map[string]*Delivery // of each key, the batch with a message of it

	users                   int // that were delivered
	told                    Aggregate
	toldBroken, toldDropped int
	toldSkipped             []time.Time // when they arrived; what is new was not taken in
}

// witnessed is a record.
type witnessed struct {
	arrived          time.Time // zero where the service does not tell
	messages         int
	foreign, broken  bool
	delivered, acked int // messages
	skipped          bool
}

// done is whether nothing more will come of a record.
func (r *witnessed) done() bool {
	return r.foreign || r.acked == r.delivered && (r.skipped || r.delivered == r.messages)
}

// arrive puts a page of new records into the shard.
func (w *witness) arrive(n int) retrieval.Page {
	p := retrieval.Page{}
	for range n {
		pass(time.Millisecond) // no two at once: a record that is skipped is known by when it arrived
		i := len(w.records)
		r := page(i, 1).Records[0]
		seen := witnessed{arrived: time.Now(), messages: 1}
		switch w.dice.IntN(10) {
		case 0, 1:
			seen.messages = 1 + w.dice.IntN(12)
			r = aggregate(i, seen.messages)
		case 2:
			seen.foreign = true
			r = straying(i)
		case 3:
			seen.broken = true
			r = broken(i)
		case 4, 5:
			if w.untold {
				seen.arrived = time.Time{}
			}
		}
		r.Arrived, r.PartitionKey = seen.arrived, fmt.Sprint("customer ", w.dice.IntN(4))
		p.Records, w.records = append(p.Records, r), append(w.records, seen)
	}
	p.ReadTo = time.Now()
	return p
}

// skip takes in that the record that arrived at a moment is told of as skipped.
func (w *witness) skip(arrived time.Time) {
	i := slices.IndexFunc(w.records, func(r witnessed) bool { return !r.arrived.IsZero() && r.arrived.Equal(arrived) })
	require.False(w, w.records[i].skipped, "record %d is told of again", i)
	require.Less(w, w.records[i].delivered, w.records[i].messages, "record %d was delivered", i)
	w.records[i].skipped = true
}

// take takes a batch, and reports whether there was one.
func (w *witness) take() bool {
	synctest.Wait()
	select {
	case d := <-w.out:
		for _, m := range d.Take() {
			meta := metadata(w, m)
			i, err := strconv.Atoi(meta["kinesis_sequence_number"].(string))
			require.NoError(w, err)
			i -= 100 // see sequence
			w.records[i].delivered++
			require.LessOrEqual(w, w.records[i].delivered, w.records[i].messages, "record %d came twice", i)
			if _, ok := meta["kinesis_sub_sequence_number"]; ok {
				w.users++
			}
			if w.consumer.keyed != nil {
				key := meta["kinesis_partition_key"].(string)
				require.Nil(w, w.keys[key], "record %d came beside another of %s", i, key)
				w.keys[key] = d
			}
			w.holds[d] = append(w.holds[d], i)
		}
		w.taken = append(w.taken, d)
		return true
	default:
		return false
	}
}

// ack acknowledges any of the batches, if there is one.
func (w *witness) ack() bool {
	if len(w.taken) == 0 {
		return false
	}
	n := w.dice.IntN(len(w.taken))
	d := w.taken[n]
	w.taken = slices.Delete(w.taken, n, n+1)
	for _, i := range w.holds[d] {
		w.records[i].acked++
	}
	for key, by := range w.keys {
		if by == d {
			delete(w.keys, key)
		}
	}
	d.Ack(len(w.holds[d]), nil)
	return true
}

// interrupt has the shard suspended for a while.
func (w *witness) interrupt() {
	w.table.answer(false)
	pass(2 * leasePeriod)
	if w.dice.IntN(2) == 0 {
		w.ack()
	}
	w.table.answer(true)
	pass(leasePeriod)
}

// requireTrue requires that nothing is told twice, and that neither the lag nor the
// checkpoint is beyond what is not done.
func (w *witness) requireTrue() {
	w.Helper()
	synctest.Wait()
	for _, arrived := range w.toldSkipped {
		w.skip(arrived)
	}
	w.toldSkipped = nil
	since, stored := w.consumer.State().Since, w.table.now().Position()
	oldest := true
	for i := range w.records {
		r := &w.records[i]
		if r.done() {
			continue
		}
		require.Less(w, stored.Sequence, sequence(i), "record %d is not done", i)
		if !r.arrived.IsZero() {
			require.False(w, since.After(r.arrived), "record %d is not done, which arrived at %s, and all before %s is", i, r.arrived, since)
			if oldest && r.delivered > 0 && !w.untold {
				require.Less(w, r.arrived.Sub(since), 150*time.Millisecond, "all before record %d is done", i)
			}
		}
		oldest = false
	}
}

func TestWhatIsToldOfAShardIsTrueWhateverHappens(t *testing.T) {
	suspended := 0
	for seed := range uint64(60) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			dice := rand.New(rand.NewPCG(seed, 2))
			w := &witness{dice: dice, untold: dice.IntN(2) == 0, holds: map[*Delivery][]int{}, keys: map[string]*Delivery{}}
			most := []time.Duration{0, 20 * time.Second, 90 * time.Second}[dice.IntN(3)]
			budget := retrieval.NewBudget([]int64{1 << 30, 40 << 10}[dice.IntN(2)])
			bubble(t, func(c *Config) {
				c.Deaggregate = lowerHalf(t)
				c.Deaggregate.DropForeign = true
				c.Since, c.ByKey, c.MaxAge, c.Budget = time.Now(), dice.IntN(2) == 0, most, budget
				c.Limit = []int{1, 3, 20, 100}[dice.IntN(4)]
				c.Batcher = batcher(t, service.BatchPolicy{Count: []int{1, 2, 5, 30}[dice.IntN(4)], Period: "7s"})
				open := c.Open
				c.Open = func(after string) Source { return reserving{open(after), budget} }
				c.Hooks.OnSkip = func(arrived time.Time, _ time.Duration) { w.toldSkipped = append(w.toldSkipped, arrived) }
				c.Hooks.OnAggregate = func(a Aggregate) {
					w.told.UserRecords += a.UserRecords
					if a.Err != nil {
						w.toldBroken++
					}
					if a.Dropped {
						w.toldDropped++
					}
				}
				c.Hooks.OnSuspend = func(bool) { suspended++ }
			}, func(r *rig) {
				w.rig = r
				for range 60 + dice.IntN(60) {
					switch what := dice.IntN(30); {
					case what < 8:
						w.put(w.arrive(1 + dice.IntN(6)))
					case what < 16:
						w.take()
					case what < 22:
						w.ack()
					case what < 28:
						pass(time.Duration(dice.Int64N(int64(6 * time.Second))))
					default:
						w.interrupt()
					}
					w.requireTrue()
				}
				last := w.arrive(1)
				last.End, last.Cut = true, dice.IntN(2) == 0
				w.put(last)
				for len(r.ended) == 0 {
					switch {
					case dice.IntN(30) == 0:
						w.interrupt()
					case !w.take() && !w.ack():
						pass(time.Second)
					}
					w.requireTrue()
				}
				w.requireDone(last.Cut, most)
				require.Zero(r, budget.Held())
			})
		})
	}
	require.Greater(t, suspended, 100)
}

// requireDone requires that the shard is done with, and that all of it was told, once.
func (w *witness) requireDone(cut bool, most time.Duration) {
	w.Helper()
	result, want := w.result(), Finished
	if cut {
		want = Cut
	}
	if result.Outcome != Failed { // the table did not answer the last write
		require.Equal(w, want, result.Outcome)
		require.Equal(w, lease.After(sequence(len(w.records)-1)), w.table.now().Position())
	}
	dropped, broke := 0, 0
	for i := range w.records {
		switch r := &w.records[i]; {
		case !r.done():
			require.Fail(w, "the shard is finished", "without record %d", i)
		case r.skipped:
			require.NotZero(w, most)
		case r.foreign:
			dropped++
		case r.broken:
			broke++
		}
	}
	require.Equal(w, dropped, w.toldDropped)
	if most == 0 { // otherwise some grow old, and are skipped, that were a message before
		require.Equal(w, w.users, w.told.UserRecords)
		require.Equal(w, broke, w.toldBroken)
	}
	require.Zero(w, reflect.ValueOf(w.consumer.lag).Elem().FieldByName("spans").Len())
}
