package awskinesis

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
)

// The limits of this file are a quarter above what was measured, so that what doubles
// shows.

// spent is what something took of the table.
type spent struct {
	*rig
	since   awsfake.Capacity
	touched *atomic.Int64 // writes of the items of shards
	beats   *atomic.Int64 // and of members
	at      time.Time
}

func (r *rig) spending() spent {
	r.Helper()
	used, err := r.aws.Capacity(tableName)
	require.NoError(r, err)
	s := spent{r, used, &atomic.Int64{}, &atomic.Int64{}, time.Now()}
	r.aws.OnWrite(func(w awsfake.Write) {
		if w.Key[attrStream].Text == members {
			s.beats.Add(1)
		} else {
			s.touched.Add(1)
		}
	})
	return s
}

// idle requires what shards may cost that nobody writes to: their items are written once
// in half of their horizon, which is a minute, and no more often however many members
// there are, each of which sends a heartbeat in a third of the lease period. reads are
// units a second, and writes units a shard-minute, at most.
func (s spent) idle(processes, shards int, reads, writes float64) {
	s.Helper()
	read, written := s.log("idle")
	took := time.Since(s.at)
	each := func(spent float64, n int) float64 { return spent / float64(n) / took.Minutes() }
	touches, beats := each(float64(s.touched.Load()), shards), each(float64(s.beats.Load()), processes)
	s.Logf("%.2f write units and %.2f touches a shard-minute, %.2f heartbeats a member-minute", each(written, shards), touches, beats)
	require.LessOrEqual(s, read/took.Seconds(), reads)
	require.LessOrEqual(s, each(written, shards), writes)
	require.Greater(s, touches, 0.9)
	require.Less(s, touches, 1.2)
	require.Less(s, beats, 7.0)
}

// log logs what was spent, and returns it in units.
func (s spent) log(what string) (reads, writes float64) {
	s.Helper()
	now := s.rig.spending()
	reads, writes = now.since.ReadUnits-s.since.ReadUnits, now.since.WriteUnits-s.since.WriteUnits
	took := now.at.Sub(s.at)
	operations := ""
	for _, name := range []string{"Query", "GetItem", "UpdateItem", "DeleteItem"} {
		operations += fmt.Sprintf(", %s %.0f", name, now.since.Operations[name]-s.since.Operations[name])
	}
	s.Logf("%s: %v, %.0f read units (%.2f a second), %.0f write units (%.2f a second)%s",
		what, took.Round(time.Millisecond), reads, reads/took.Seconds(), writes, writes/took.Seconds(), operations)
	return reads, writes
}

// heldBy returns how many shards the given processes own.
func (r *rig) heldBy(processes ...*process) (held int) {
	r.Helper()
	ids := map[string]bool{}
	for _, c := range processes {
		ids[c.id()] = true
	}
	for _, item := range r.items() {
		if ids[item[attrOwner].Text] {
			held++
		}
	}
	return held
}

// until lets time pass until something is so, and returns how long that took.
func (r *rig) until(most time.Duration, so func() bool) time.Duration {
	r.Helper()
	start := time.Now()
	for !so() {
		require.Less(r, time.Since(start), most)
		pass(100 * time.Millisecond)
	}
	return time.Since(start)
}

// idleConf reads as rarely as may be, so that little else happens.
const idleConf = `{ streams: [ orders ], poll_period: 30s }`

func TestIdleShardsAreWrittenOnceAMinute(t *testing.T) {
	const minutes = 10
	shards, reads := 100, 0.6
	if *simFull {
		shards, reads = 1_000, 1.75
	}
	bubbleOf(t, awsfake.Options{EnforceLimits: true, StaleReads: 200 * time.Millisecond}, func(r *rig) {
		r.stream("orders", shards)
		r.table()
		starting := r.spending()
		c := r.open(idleConf)
		r.until(time.Minute, func() bool { return r.heldBy(c) == shards })
		starting.log("starting")
		pass(2 * time.Minute)
		idle := r.spending()
		pass(minutes * time.Minute)
		idle.idle(1, shards, reads, 1.3)
	})
}

func TestAGroupThatIsIdleCostsLittle(t *testing.T) {
	const minutes = 5
	processes, shards, reads := 4, 80, 2.2
	if *simFull {
		processes, shards, reads = 8, 400, 7.5
	}
	bubbleOf(t, awsfake.Options{EnforceLimits: true, StaleReads: 200 * time.Millisecond}, func(r *rig) {
		r.stream("orders", shards)
		r.table()
		starting := r.spending()
		var all []*process
		for range processes {
			all = append(all, r.open(idleConf))
		}
		balanced := func() bool {
			shares := r.shares()
			return len(shares) == processes && shares[0] == shards/processes && shares[processes-1] == shards/processes
		}
		r.until(time.Minute, balanced)
		starting.log("joining")
		pass(2 * time.Minute)
		idle := r.spending()
		pass(minutes * time.Minute)
		idle.idle(processes, shards, reads, 1.6)

		takeOver := r.spending()
		all[0].crash()
		took := r.until(2*time.Minute, func() bool { return r.heldBy(all[1:]...) == shards })
		takeOver.log("take-over")
		require.LessOrEqual(t, took, 30*time.Second+3*time.Second, "the lease period and a little")
	})
}
