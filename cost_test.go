package awskinesis

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
)

// spent is what something took of the table.
type spent struct {
	*rig
	since awsfake.Capacity
	at    time.Time
}

func (r *rig) spending() spent {
	r.Helper()
	used, err := r.aws.Capacity(tableName)
	require.NoError(r, err)
	return spent{r, used, time.Now()}
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

func TestIdleShardsAreWrittenTwiceAMinuteAtMost(t *testing.T) {
	const minutes = 10
	shards := 100
	if *simFull {
		shards = 1_000
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
		reads, writes := idle.log("idle")
		t.Logf("%.2f write units a shard-minute", writes/float64(shards)/minutes)
		require.LessOrEqual(t, writes/float64(shards)/minutes, 2.0)
		require.LessOrEqual(t, reads/(minutes*60), 5.0)
	})
}

func TestAGroupThatIsIdleCostsLittle(t *testing.T) {
	const minutes = 5
	processes, shards := 4, 80
	if *simFull {
		processes, shards = 8, 400
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
		reads, writes := idle.log("idle")
		require.LessOrEqual(t, reads/(minutes*60), 15.0)
		require.LessOrEqual(t, writes/float64(shards)/minutes, 2.0)

		takeOver := r.spending()
		all[0].crash()
		took := r.until(2*time.Minute, func() bool { return r.heldBy(all[1:]...) == shards })
		takeOver.log("take-over")
		require.LessOrEqual(t, took, 30*time.Second+3*time.Second, "the lease period and a little")
	})
}
