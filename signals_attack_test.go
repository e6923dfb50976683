package awskinesis

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/benthosdev/benthos/v4/public/service"
	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
)

var no = awsfake.NewError("AccessDeniedException", "no")

func ofItem(stream, shard string) func(*awsfake.Call) bool {
	return func(c *awsfake.Call) bool {
		k := c.Key()
		return k[attrStream].Text == stream && (shard == "" || k[attrShard].Text == shard)
	}
}

// commits of all shards fail, leases are trusted, reads work: records are withheld.
func TestRecordsAreHandedOutWhileCommitsFail(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.put("orders", 0, 1)
		in := r.open(`streams: [ orders ]`)
		in.read(1)
		pass(10 * time.Second)
		r.aws.Inject(awsfake.Fault{Operation: "UpdateItem", When: ofItem("orders", ""), Refuse: no})
		n, delivered := 1, 0
		for begin := time.Now(); time.Since(begin) < 100*time.Second; {
			r.put("orders", n, 1)
			n++
			for {
				b, ok := in.batch(2 * time.Second)
				if !ok {
					break
				}
				in.ack(b)
				delivered++
			}
		}
		require.GreaterOrEqual(r, delivered, n-3)
	})
}

// reads fail, what was read before is withheld from a slow output.
func TestWhatWasReadIsHandedOutWhileReadsFail(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		in := r.open(`{ streams: [ orders ], checkpoint_limit: 1 }`)
		pass(5 * time.Second)
		r.put("orders", 0, 200)
		in.read(10)
		r.failReads(awsfake.Fault{Refuse: no})
		r.aws.Inject(awsfake.Fault{Operation: "GetShardIterator", Refuse: no})
		got := 10
		for got < 100 {
			b, ok := in.batch(10 * time.Second)
			if !ok {
				break
			}
			pass(time.Second)
			in.ack(b)
			got++
		}
		require.Equal(r, 100, got)
	})
}

// five seconds of trouble and a slow output: the input is dead for good.
func TestSlowOutputKeepsNoInputFromBecomingReadyAgain(t *testing.T) {
	bubbleOf(t, awsfake.Options{}, func(r *rig) {
		r.table()
		r.stream("orders", 2)
		bad := r.aws.Inject(awsfake.Fault{Operation: "GetShardIterator", When: func(c *awsfake.Call) bool { return c.Shard() == shardName(1) }, Refuse: awsfake.NewError(awsfake.CodeInternalFailure, "x")})
		in := r.open(`{ streams: [ orders ], checkpoint_limit: 1, max_buffered_bytes: 5MiB }`)
		pass(4 * time.Second)
		var mu sync.Mutex
		got := 0
		ctx, cancel := context.WithCancel(r.Context())
		done := make(chan struct{})
		go func() { // an output that takes one record a second
			defer close(done)
			for {
				_, ack, err := readAsHost(ctx, in.BatchInput)
				if err != nil {
					return
				}
				if wait(ctx, time.Second) != nil {
					return
				}
				_ = ack(ctx, nil)
				mu.Lock()
				got++
				mu.Unlock()
			}
		}()
		r.putTo("orders", 0, 0, 1)
		pass(2 * time.Second)
		r.putTo("orders", 0, 1, 99)
		var calls atomic.Int32 // of shard 0 since then: the first brings the 99, the next ones fail
		blip := r.aws.Inject(awsfake.Fault{Operation: "GetRecords", When: func(*awsfake.Call) bool {
			return calls.Add(1) > 1
		}, Refuse: awsfake.NewError(awsfake.CodeInternalFailure, "x")})
		pass(5 * time.Second)
		bad() // iterators can be had again, and ten seconds later all is well
		pass(10 * time.Second)
		blip()
		r.putTo("orders", 1, 1000, 1)
		pass(time.Hour)
		mu.Lock()
		n := got
		mu.Unlock()
		cancel()
		<-done
		for _, l := range r.journal.logged("") {
			r.Log(l)
		}
		require.Equal(r, 101, n)
	})
}

// a shard that was never read has its lag begin anew with each owner.
func TestLagGoesOnAtATakeOverThoughNothingWasEverRead(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.failReads(awsfake.Fault{Refuse: no})
		put := time.Now()
		r.put("orders", 0, 1)
		first := r.open(`streams: [ orders ]`)
		pass(10 * time.Minute)
		first.close()
		second := r.open(`streams: [ orders ]`)
		pass(time.Minute)
		told, truth := second.gauge("kinesis_max_lag_milliseconds", "orders"), time.Since(put).Milliseconds()
		require.GreaterOrEqual(r, told, truth-2000)
	})
}

// records older than the process.
func TestLagOfAShardOfWhichNothingIsKnownGrowsFromItsClaim(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.put("orders", 0, 1)
		pass(2 * time.Hour)
		remove := r.failReads(awsfake.Fault{Refuse: no})
		opened := time.Now()
		in := r.open(`streams: [ orders ]`)
		for range 10 {
			pass(time.Minute)
			require.GreaterOrEqual(r, in.gauge("kinesis_max_lag_milliseconds", "orders"), time.Since(opened).Milliseconds()-2000)
		}
		remove()
		pass(30 * time.Second)
		require.GreaterOrEqual(r, in.gauge("kinesis_max_lag_milliseconds", "orders"), (2 * time.Hour).Milliseconds(), "the first page tells")
	})
}

// UpTo is of the writer's clock, and is read by another one's.
func TestMomentInTheFutureIsNotBelieved(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.put("orders", 0, 1)
		first := r.open(`{ streams: [ orders ] }`)
		// Its clock is two hours ahead: shift what it writes, as its clock would have it.
		first.read(1)
		pass(2 * time.Minute)
		first.close()
		items := r.items()
		before := items[0][attrUpTo].Text
		var at int64
		_, err := fmt.Sscan(before, &at)
		require.NoError(r, err)
		r.setUpTo(shardName(0), at+7200)
		r.failReads(awsfake.Fault{Refuse: no})
		put := time.Now()
		r.put("orders", 1, 1)
		second := r.open(`{ streams: [ orders ] }`)
		pass(time.Hour)
		told, truth := second.gauge("kinesis_max_lag_milliseconds", "orders"), time.Since(put).Milliseconds()
		require.GreaterOrEqual(r, told, truth-2000)
	})
}

type shiftedClock struct{ by time.Duration }

func (c shiftedClock) Now() time.Time { return time.Now().Add(c.by) }
func (c shiftedClock) Wait(ctx context.Context, d time.Duration) error {
	return wait(ctx, d)
}

// what is written is by the own clock, not the service's.
func TestItemHasTheMomentByTheClockOfTheService(t *testing.T) {
	bubbleOf(t, awsfake.Options{Clock: shiftedClock{2 * time.Hour}}, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.put("orders", 0, 1)
		first := r.open(`{ streams: [ orders ] }`)
		first.read(1)
		pass(2 * time.Minute)
		first.close()
		up := r.item("orders", shardName(0)).UpTo
		service := time.Now().Add(2 * time.Hour)
		require.WithinDuration(r, service, up, time.Minute)
	})
}

// StartAt is by the service's clock.
func TestStartOfAStreamIsByTheClockOfTheService(t *testing.T) {
	bubbleOf(t, awsfake.Options{Clock: shiftedClock{2 * time.Hour}}, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.failReads(awsfake.Fault{Refuse: no})
		in := r.open(`{ streams: [ orders ], start_from_oldest: false }`)
		pass(5 * time.Second)
		put := time.Now()
		r.put("orders", 0, 1)
		pass(time.Hour)
		told, truth := in.gauge("kinesis_max_lag_milliseconds", "orders"), time.Since(put).Milliseconds()
		require.GreaterOrEqual(r, told, truth-2000)
	})
}

// slow lists: the skew is never known.
func TestClocksThatDifferByHoursAreNoticedThroughSlowAnswers(t *testing.T) {
	bubbleOf(t, awsfake.Options{Clock: shiftedClock{2 * time.Hour}}, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.aws.Inject(awsfake.Fault{Operation: "ListShards", DelayAnswer: 2500 * time.Millisecond})
		in := r.open(`{ streams: [ orders ] }`)
		pass(15 * time.Second)
		put := time.Now()
		r.put("orders", 0, 1)
		_ = in.next()
		pass(time.Hour)
		told, truth := in.gauge("kinesis_max_lag_milliseconds", "orders"), time.Since(put).Milliseconds()
		require.GreaterOrEqual(r, told, truth-2000)
	})
}

// an explicit shard that cannot be claimed has no lag.
func TestExplicitShardThatNobodyReadsIsLate(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 2)
		r.aws.Inject(awsfake.Fault{Operation: "UpdateItem", When: ofItem("orders", shardName(1)), Refuse: no})
		put := time.Now()
		in := r.open(`{ streams: [ "orders:0", "orders:1" ] }`)
		r.putTo("orders", 1, 0, 1)
		pass(time.Hour)
		told, truth := in.gauge("kinesis_max_lag_milliseconds", "orders"), time.Since(put).Milliseconds()
		require.GreaterOrEqual(r, told, truth-2000)
	})
}

// a process is killed: who tells the lag of its shards?
func TestShardsOfADeadProcessAreLateBeforeItIsEvicted(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 2)
		a := r.open(`streams: [ orders ]`)
		b := r.open(`streams: [ orders ]`)
		oa := attach(a, func() time.Duration { return 0 })
		ob := attach(b, func() time.Duration { return 0 })
		defer oa.end()
		defer ob.end()
		pass(time.Minute)
		require.EqualValues(r, 1, a.gauge("kinesis_leases_held", "orders"))
		require.EqualValues(r, 1, b.gauge("kinesis_leases_held", "orders"))
		dead := shardName(0)
		if _, ok := b.input.signals.metrics.last["kinesis_shard_owned\x00orders\x00"+dead]; !ok || b.gauge("kinesis_shard_owned", "orders", dead) == 0 {
			dead = shardName(1)
		}
		b.crash()
		pass(time.Second)
		at := time.Now()
		_, err := r.aws.PutTo("orders", dead, "key", []byte("x"))
		require.NoError(r, err)
		worst := int64(0)
		for time.Since(at) < 2*time.Minute {
			pass(time.Second)
			oa.mu.Lock()
			done := oa.acked["x"]
			oa.mu.Unlock()
			if done {
				break
			}
			worst = max(worst, time.Since(at).Milliseconds()-a.gauge("kinesis_max_lag_milliseconds", "orders"))
		}
		// Between two heartbeats, and two lists, nobody knows that it is dead.
		require.LessOrEqual(r, worst, (12*time.Second + 3*1500*time.Millisecond + 2*time.Second).Milliseconds())
	})
}

// the parent was closed while nobody was there, and cannot be claimed.
func TestClosedParentThatNobodyReadsIsLate(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		first := r.open(`streams: [ orders ]`)
		pass(time.Minute)
		first.close()
		put := time.Now()
		r.put("orders", 0, 1)
		pass(time.Minute)
		r.split(shardName(0))
		pass(time.Hour)
		r.aws.Inject(awsfake.Fault{Operation: "UpdateItem", When: ofItem("orders", ""), Refuse: no})
		in := r.open(`streams: [ orders ]`)
		pass(time.Minute)
		told, truth := in.gauge("kinesis_max_lag_milliseconds", "orders"), time.Since(put).Milliseconds()
		require.GreaterOrEqual(r, told, truth-2000)
	})
}

// a permission that is optional is not there.
func TestMissingOptionalPermissionIsSaidRarely(t *testing.T) {
	byPolling(t) // by fan-out it is none that is optional
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.aws.Inject(awsfake.Fault{Operation: "DescribeStreamSummary", Refuse: no})
		r.open(`streams: [ orders ]`)
		pass(time.Hour)
		lines := r.journal.logged("")
		require.Less(r, len(lines), 15)
	})
}

// errors that differ.
func TestRejectionsWithErrorsThatDifferAreFewLines(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		in := r.open(`{ streams: [ orders ], auto_replay_nacks: false }`)
		pass(5 * time.Second)
		from := len(r.journal.logged(""))
		n := 0
		for begin := time.Now(); time.Since(begin) < time.Minute; {
			r.put("orders", n, 30)
			for range 30 {
				b := in.next()
				n++
				require.NoError(r, b.ack(r.Context(), fmt.Errorf("refused, request id %d", n)))
			}
			pass(700 * time.Millisecond)
		}
		pass(2 * time.Second)
		lines := r.journal.logged("")[from:]
		r.Log(len(lines), lines[0])
		require.Less(r, len(lines), 70)
	})
}

// one line for each shard.
func TestWhatHappensToAllShardsIsOneLine(t *testing.T) {
	const shards = 100
	for name, f := range map[string]func(r *rig){
		"items deleted": func(r *rig) {
			for i := range shards {
				require.NoError(r, r.deleteItem("orders", shardName(i)))
			}
		},
		"stream made anew": func(r *rig) {
			require.NoError(r, r.aws.DeleteStream("orders"))
			r.stream("orders", shards)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubbleOf(t, awsfake.Options{}, func(r *rig) {
				r.table()
				r.stream("orders", shards)
				in := r.open(`{ streams: [ orders ], poll_period: 2s }`)
				o := attach(in, func() time.Duration { return 0 })
				defer o.end()
				pass(20 * time.Second)
				for i := range shards {
					r.putTo("orders", i, 0, 1)
				}
				pass(20 * time.Second)
				from := len(r.journal.logged(""))
				f(r)
				pass(3 * time.Minute)
				lines := r.journal.logged("")[from:]
				r.Log(len(lines))
				for _, l := range lines[:min(5, len(lines))] {
					r.Log(l)
				}
				require.Less(r, len(lines), 40)
			})
		})
	}
}

// the items cannot be read, the members can.
func TestInputIsNotReadyWhileNoItemCanBeRead(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		in := r.input(`streams: [ orders ]`)
		require.NoError(r, in.connect(r.Context(), r.clientsOver(in.line)))
		r.aws.Inject(awsfake.Fault{Operation: "Query", When: func(c *awsfake.Call) bool {
			v, _ := c.Params()["ExpressionAttributeValues"].(map[string]any)
			return strings.Contains(fmt.Sprint(v), "orders")
		}, Refuse: awsfake.NewError(awsfake.CodeThroughputExceeded, "hot")})
		notReady := 0
		for range 600 {
			pass(time.Second)
			if in.gauge("kinesis_ready") == 0 {
				notReady++
			}
		}
		require.EqualValues(r, 0, in.gauge("kinesis_leases_held", "orders"))
		require.Greater(r, notReady, 500)
	})
}

// each claim works, and what follows fails.
func TestInputIsNotReadyWhileEachClaimIsGivenUp(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.aws.Inject(awsfake.Fault{Operation: "GetItem", When: ofItem("orders", ""), Refuse: no})
		in := r.open(`streams: [ "orders:0" ]`)
		notReady := 0
		for range 600 {
			pass(time.Second)
			if in.gauge("kinesis_ready") == 0 {
				notReady++
			}
		}
		for _, l := range r.journal.logged("") {
			r.Log(l)
		}
		require.Greater(r, notReady, 500)
	})
}

// lockbook notices whether the lock of signals is held while a line is written.
type lockbook struct {
	*logbook
	in *input
	mu sync.Mutex
	n  map[string]int
}

func (l *lockbook) see(template string, args ...any) {
	for range 1000 { // another goroutine may have it for a moment
		if l.in.signals.mu.TryLock() {
			l.in.signals.mu.Unlock()
			return
		}
		runtime.Gosched()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.n[fmt.Sprintf(template, args...)]++
}
func (l *lockbook) Warnf(t string, a ...any)  { l.see(t, a...) }
func (l *lockbook) Errorf(t string, a ...any) { l.see(t, a...) }
func (l *lockbook) Infof(t string, a ...any)  { l.see(t, a...) }

// a line is written under the lock that reading and delivery take.
func TestSlowLogHoldsUpNoBatch(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.put("orders", 0, 1)
		in := r.input(`streams: [ orders ]`)
		book := &lockbook{logbook: &r.journal, in: in.input, n: map[string]int{}}
		in.input.log = func(...any) logger { return book }
		require.NoError(r, in.connect(r.Context(), r.clientsOver(in.line)))
		_ = in.next()
		pass(2 * time.Minute)
		book.mu.Lock()
		defer book.mu.Unlock()
		require.Empty(r, book.n)
	})
}

// a claim that failed in a stream that has gone since, others have all the rest.
func TestClaimInAStreamThatIsGoneKeepsNoInputFromBeingReady(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.stream("bills", 1)
		other := r.open(`streams: [ bills ]`)
		pass(10 * time.Second)
		r.aws.Inject(awsfake.Fault{Operation: "UpdateItem", When: ofItem("orders", ""), Refuse: no})
		in := r.open(`streams: [ orders, bills ]`)
		pass(20 * time.Second)
		require.EqualValues(r, 1, other.gauge("kinesis_leases_held", "bills"))
		require.NoError(r, r.aws.DeleteStream("orders"))
		pass(15 * time.Minute)
		require.EqualValues(r, 1, in.gauge("kinesis_ready"))
	})
}

func (r *rig) deleteItem(stream, shard string) error {
	return r.aws.DeleteItem(tableName, awsfake.Item{attrStream: awsfake.String(stream), attrShard: awsfake.String(shard)})
}

func (r *rig) setUpTo(shard string, at int64) {
	r.Helper()
	for _, item := range r.items() {
		if item[attrShard].Text == shard {
			item[attrUpTo] = awsfake.Number(at)
			require.NoError(r, r.aws.PutItem(tableName, item))
		}
	}
}

// dynamodb:DeleteItem is optional; one member died an hour ago.
func TestRefusedDeletesAreSaidRarely(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 2)
		r.aws.Inject(awsfake.Fault{Operation: "DeleteItem", Refuse: no})
		r.open(`streams: [ orders ]`)
		b := r.open(`streams: [ orders ]`)
		pass(time.Minute)
		b.crash()
		pass(5 * time.Minute)
		from := len(r.journal.logged(""))
		pass(time.Hour)
		lines := r.journal.logged("")[from:]
		r.Log(len(lines))
		for _, l := range lines[:min(3, len(lines))] {
			r.Log(l)
		}
		require.Less(r, len(lines), 15)
	})
}

// children hold records from the split on; their parent took ten minutes.
func TestChildrenThatCannotBeReadAreAsLateAsTheirParentWas(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.put("orders", 0, 1)
		in := r.open(`streams: [ orders ]`)
		b := in.next()
		r.failReads(awsfake.Fault{Refuse: no}, func(shard string) bool { return shard != shardName(0) })
		pass(5 * time.Second)
		r.split(shardName(0))
		put := time.Now()
		r.putTo("orders", 1, 1, 1)
		pass(10 * time.Minute)
		in.ack(b)
		pass(20 * time.Second)
		told, truth := in.gauge("kinesis_max_lag_milliseconds", "orders"), time.Since(put).Milliseconds()
		require.GreaterOrEqual(r, told, truth-2000)
	})
}

// the session is lost and cannot be had again: the lag is gone with it.
func TestLagGoesOnWithoutASession(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		in := r.open(`streams: [ orders ]`)
		pass(time.Minute)
		put := time.Now()
		r.put("orders", 0, 1)
		_ = in.next() // and never acknowledged
		pass(time.Minute)
		r.aws.Inject(awsfake.Fault{Operation: "UpdateItem", Refuse: no})
		require.NoError(r, r.deleteItem(members, in.id()))
		wrong := 0
		for range 600 {
			pass(time.Second)
			told, truth := in.gauge("kinesis_max_lag_milliseconds", "orders"), time.Since(put).Milliseconds()
			if told < truth-2000 {
				wrong++
			}
		}
		require.Zero(r, wrong)
	})
}

// the own clock, two hours ahead, is set right: what is read until the next list is
// placed two hours ahead, and stays there.
func TestClockThatIsSetRightHidesNoLag(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		in := r.open(`streams: [ orders ]`)
		pass(10 * time.Second)
		in.input.signals.mu.Lock()
		in.input.signals.skew = -2 * time.Hour // as the list said, before the clock was set right
		in.input.signals.mu.Unlock()
		put := time.Now()
		r.put("orders", 0, 1)
		_ = in.next()
		pass(30 * time.Minute)
		told, truth := in.gauge("kinesis_max_lag_milliseconds", "orders"), time.Since(put).Milliseconds()
		require.GreaterOrEqual(r, told, truth-3500, "a read of an idle shard and a tick")
	})
}

// A record that is skipped is lost: the own clock, two hours behind and set right, or set
// wrong, makes none too old.
func TestClockThatIsSetSkipsNoFreshRecord(t *testing.T) {
	for name, conf := range skipping {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.table()
				r.stream("orders", 1)
				in := r.open(conf)
				pass(time.Minute)
				in.input.signals.mu.Lock()
				in.input.signals.skew = 2 * time.Hour // as the list said, before the clock was set
				in.input.signals.mu.Unlock()
				r.put("orders", 0, 5)
				require.Equal(r, numbers(0, 5), in.drained())
				require.Empty(r, r.journal.logged("skip"))
			})
		})
	}
}

// host is what Benthos' AsyncReader does: it is connected from a Connect that succeeds to a
// ReadBatch that says it is not.
type host struct {
	mu        sync.Mutex
	connected bool
	lost      int
}

func (h *host) set(c bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.connected && !c {
		h.lost++
	}
	h.connected = c
}

func (h *host) run(ctx context.Context, in service.BatchInput, takes time.Duration, handled func()) {
	h.set(true)
	for {
		_, ack, err := in.ReadBatch(ctx)
		if errors.Is(err, service.ErrNotConnected) {
			h.set(false)
			if in.Connect(ctx) != nil {
				return
			}
			h.set(true)
			continue
		}
		if err != nil {
			return
		}
		if wait(ctx, takes) != nil {
			return
		}
		_ = ack(ctx, nil)
		handled()
	}
}

// all GetRecords fail slowly; the shards take turns in the budget.
func TestInputIsNotReadyWhileAllReadsFailWithinASmallBudget(t *testing.T) {
	for name, c := range map[string]struct {
		conf   string
		shards int
		delay  time.Duration
	}{
		"small, slow":        {`{ streams: [ orders ], max_buffered_bytes: 8MiB }`, 3, 5 * time.Second},
		"default, slow, 60":  {`{ streams: [ orders ] }`, 60, 5 * time.Second},
		"default, fast, 60":  {`{ streams: [ orders ] }`, 60, 50 * time.Millisecond},
		"default, slow, one": {`{ streams: [ orders ] }`, 1, 5 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			bubbleOf(t, awsfake.Options{}, func(r *rig) {
				r.table()
				r.stream("orders", c.shards)
				for i := range c.shards {
					r.putTo("orders", i, i, 1)
				}
				r.failReads(awsfake.Fault{Delay: c.delay, Refuse: awsfake.NewError(awsfake.CodeInternalFailure, "x")})
				in := r.open(c.conf)
				notReady := 0
				for range 600 {
					pass(time.Second)
					if in.gauge("kinesis_ready") == 0 {
						notReady++
					}
				}
				r.Log(name, notReady)
				require.Greater(r, notReady, 500)
			})
		})
	}
}

// an output rejects with context.Canceled while the input is not ready.
func TestRejectionsAreJudgedWhileTheInputIsNotReady(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.put("orders", 0, 1)
		in := r.open(`{ streams: [ orders ], auto_replay_nacks: false, checkpoint_limit: 1 }`)
		in.read(1)
		pass(10 * time.Second)
		r.aws.Inject(awsfake.Fault{Operation: "UpdateItem", When: ofItem("orders", ""), Refuse: no})
		r.put("orders", 1, 1)
		in.ack(in.next())
		pass(45 * time.Second)
		require.EqualValues(r, 0, in.gauge("kinesis_ready"))
		r.put("orders", 2, 3)
		b, ok := in.batch(5 * time.Second)
		require.True(r, ok)
		require.NoError(r, b.ack(r.Context(), context.Canceled))
		_, ok = in.batch(10 * time.Minute)
		require.True(r, ok, "the next record, ten minutes later")
	})
}

// one heartbeat of the other member is late by some seconds; it reads all the time.
func TestLateHeartbeatIsNoMoreLagThanItIsLate(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 2)
		a := r.open(`streams: [ orders ]`)
		b := r.open(`streams: [ orders ]`)
		oa := attach(a, func() time.Duration { return 0 })
		ob := attach(b, func() time.Duration { return 0 })
		defer oa.end()
		defer ob.end()
		pass(5 * time.Minute)
		require.EqualValues(r, 1, a.gauge("kinesis_leases_held", "orders"))
		worst, truth := int64(0), int64(0)
		for k := range 8 {
			remove := r.aws.Inject(awsfake.Fault{Operation: "UpdateItem", When: func(c *awsfake.Call) bool {
				return c.Key()[attrStream].Text == members && c.Key()[attrShard].Text == b.id()
			}, Delay: time.Minute, Times: 1}) // one attempt that times out after six seconds
			for range 40 + k {
				pass(time.Second)
				worst = max(worst, a.gauge("kinesis_max_lag_milliseconds", "orders"))
				truth = max(truth, b.gauge("kinesis_max_lag_milliseconds", "orders"))
			}
			remove()
		}
		require.Empty(r, r.journal.logged("taken for dead"))
		require.Less(r, worst, truth+20_000)
	})
}

// an outage of the table of a few seconds.
func TestShortOutageOfTheTableIsNoMoreLagThanItLasts(t *testing.T) {
	// In a longer one somebody may be late enough to be taken for dead, and the items of idle
	// shards are a minute old.
	for _, outage := range []time.Duration{5 * time.Second, 10 * time.Second} {
		t.Run(outage.String(), func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.table()
				r.stream("orders", 4)
				a := r.open(`streams: [ orders ]`)
				b := r.open(`streams: [ orders ]`)
				oa := attach(a, func() time.Duration { return 0 })
				ob := attach(b, func() time.Duration { return 0 })
				defer oa.end()
				defer ob.end()
				pass(5 * time.Minute)
				worst, truth := int64(0), int64(0)
				for range 6 {
					remove := r.aws.Inject(awsfake.Fault{Service: "dynamodb", Refuse: awsfake.NewError(awsfake.CodeInternalFailure, "x")})
					pass(outage)
					remove()
					for range 47 {
						pass(time.Second)
						worst = max(worst, a.gauge("kinesis_max_lag_milliseconds", "orders"), b.gauge("kinesis_max_lag_milliseconds", "orders"))
						for i := range 4 {
							for _, p := range []*process{a, b} {
								p.input.signals.mu.Lock()
								for key, s := range p.input.signals.shards {
									if key.Shard == shardName(i) {
										truth = max(truth, age(s.since(), time.Now()))
									}
								}
								p.input.signals.mu.Unlock()
							}
						}
					}
				}
				require.Less(r, worst, truth+45_000)
			})
		})
	}
}

// the session is lost and had again: the lag of what is not acknowledged has no gap.
func TestLagGoesOnWhenTheSessionIsHadAgain(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		in := r.open(`streams: [ orders ]`)
		pass(time.Minute)
		put := time.Now()
		r.put("orders", 0, 1)
		_ = in.next() // and never acknowledged
		pass(5 * time.Minute)
		require.NoError(r, r.deleteItem(members, in.id()))
		wrong := 0
		least := int64(1 << 60)
		for range 600 {
			pass(100 * time.Millisecond)
			told, truth := in.gauge("kinesis_max_lag_milliseconds", "orders"), time.Since(put).Milliseconds()
			if told < truth-2000 {
				wrong++
				least = min(least, told)
			}
		}
		require.Zero(r, wrong)
	})
}

// a stream is deleted and made anew a month later.
func TestStreamThatWasMadeAnewIsNotLate(t *testing.T) {
	for _, delay := range []time.Duration{0, 5 * time.Second} {
		t.Run(delay.String(), func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.table()
				r.stream("orders", 2)
				r.put("orders", 0, 4)
				first := r.open(`streams: [ orders ]`)
				first.read(4)
				pass(2 * time.Minute)
				first.close()
				require.NoError(r, r.aws.DeleteStream("orders"))
				pass(30 * 24 * time.Hour)
				r.stream("orders", 2)
				made := time.Now()
				if delay > 0 {
					r.failReads(awsfake.Fault{Delay: delay})
				}
				second := r.open(`streams: [ orders ]`)
				worst, left := int64(0), int64(1<<60)
				for range 300 {
					pass(100 * time.Millisecond)
					worst = max(worst, second.gauge("kinesis_max_lag_milliseconds", "orders")-time.Since(made).Milliseconds())
					if second.gauge("kinesis_leases_held", "orders") > 0 && second.gauge("kinesis_retention_left_milliseconds", "orders") >= 0 {
						left = min(left, second.gauge("kinesis_retention_left_milliseconds", "orders"))
					}
				}
				require.Less(r, worst, int64(10_000))
			})
		})
	}
}

// start_from_timestamp before anything there can be.
func TestStartFromATimestampIsNoLag(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 2)
		made := time.Now()
		pass(time.Minute)
		r.failReads(awsfake.Fault{Delay: 2 * time.Second})
		in := r.open(fmt.Sprintf(`{ streams: [ orders ], start_from_timestamp: %q }`, made.Add(-30*24*time.Hour).Format(time.RFC3339)))
		worst, left := int64(0), int64(1<<60)
		for range 300 {
			pass(100 * time.Millisecond)
			worst = max(worst, in.gauge("kinesis_max_lag_milliseconds", "orders")-time.Since(made).Milliseconds())
			if l := in.gauge("kinesis_retention_left_milliseconds", "orders"); l >= 0 {
				left = min(left, l)
			}
		}
		require.Less(r, worst, int64(10_000))
		require.Positive(r, left)
	})
}

// heartbeats alone fail for a while, and one commit does.
func TestCommitsGoOnWhileHeartbeatsAloneFail(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		in := r.open(`{ streams: [ orders ], commit_period: 1s }`)
		pass(30 * time.Second)
		r.aws.Inject(awsfake.Fault{Operation: "UpdateItem", When: ofItem(members, ""), Refuse: no})
		pass(12 * time.Second)
		r.aws.Inject(awsfake.Fault{Operation: "UpdateItem", When: ofItem("orders", ""), Refuse: no, Times: 1})
		r.put("orders", 0, 1)
		in.ack(in.next())
		at := time.Now()
		for time.Since(at) < 10*time.Minute {
			if r.item("orders", shardName(0)).Sequence != "" {
				break
			}
			pass(time.Second)
		}
		r.Log("committed after", time.Since(at))
		require.Less(r, time.Since(at), 30*time.Second)
	})
}

// With the default budget and many shards that have a backlog of small records.
func TestInputIsNotReadyWhileAllReadsFailThoughSomeWaitForRoom(t *testing.T) {
	byPolling(t)
	for _, shards := range []int{10, 20, 40} {
		t.Run(fmt.Sprint(shards, " shards"), func(t *testing.T) {
			bubbleOf(t, awsfake.Options{}, func(r *rig) {
				r.table()
				r.stream("orders", shards)
				for i := range shards {
					r.putTo("orders", i, i*10, 3)
				}
				var mu sync.Mutex
				calls := map[string]int{}
				r.aws.Inject(awsfake.Fault{Operation: "GetRecords", When: func(c *awsfake.Call) bool {
					mu.Lock()
					defer mu.Unlock()
					calls[c.Shard()]++
					return calls[c.Shard()] > 1
				}, Delay: 5 * time.Second, Refuse: awsfake.NewError(awsfake.CodeInternalFailure, "x")})
				in := r.open(`{ streams: [ orders ] }`)
				ctx, cancel := context.WithCancel(r.Context())
				var h host
				done := make(chan struct{})
				go func() { defer close(done); h.run(ctx, in.BatchInput, 0, func() {}) }()
				notReady := 0
				for range 600 {
					pass(time.Second)
					if in.gauge("kinesis_ready") == 0 {
						notReady++
					}
				}
				cancel()
				<-done
				r.Log(shards, "shards, not ready for", notReady)
				if notReady <= 500 {
					t.Error("ready though no read succeeds for ten minutes")
				}
			})
		})
	}
}

// as M5, with a table that is slow to tell who is there.
func TestLagGoesOnWhenTheSessionIsHadAgainSlowly(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		in := r.open(`streams: [ orders ]`)
		pass(time.Minute)
		put := time.Now()
		r.put("orders", 0, 1)
		_ = in.next() // and never acknowledged
		pass(5 * time.Minute)
		require.NoError(r, r.deleteItem(members, in.id()))
		id := in.id()
		r.aws.Inject(awsfake.Fault{Operation: "GetItem", When: ofItem(members, ""), Delay: 4 * time.Second})
		wrong := 0
		least := int64(1 << 60)
		for range 600 {
			pass(100 * time.Millisecond)
			told, truth := in.gauge("kinesis_max_lag_milliseconds", "orders"), time.Since(put).Milliseconds()
			if told < truth-2000 {
				wrong++
				least = min(least, told)
			}
		}
		require.NotEqual(r, id, in.id())
		require.Zero(r, wrong)
	})
}

// as TestShardsOfADeadProcessAreLateBeforeItIsEvicted, by how long it had read.
func TestShardsOfADeadProcessAreLateBeforeTheirFirstRenewal(t *testing.T) {
	for _, read := range []time.Duration{20 * time.Second, 45 * time.Second, time.Minute, 3 * time.Minute} {
		t.Run(read.String(), func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.table()
				r.stream("orders", 2)
				a := r.open(`streams: [ orders ]`)
				b := r.open(`streams: [ orders ]`)
				oa := attach(a, func() time.Duration { return 0 })
				ob := attach(b, func() time.Duration { return 0 })
				defer oa.end()
				defer ob.end()
				pass(read)
				dead := shardName(0)
				if _, ok := b.input.signals.metrics.last["kinesis_shard_owned\x00orders\x00"+dead]; !ok || b.gauge("kinesis_shard_owned", "orders", dead) == 0 {
					dead = shardName(1)
				}
				b.crash()
				r.Log("UpTo in the item:", r.item("orders", dead).UpTo)
				pass(time.Second)
				at := time.Now()
				_, err := r.aws.PutTo("orders", dead, "key", []byte("x"))
				require.NoError(r, err)
				worst := int64(0)
				for time.Since(at) < 2*time.Minute {
					pass(time.Second)
					oa.mu.Lock()
					done := oa.acked["x"]
					oa.mu.Unlock()
					if done {
						break
					}
					worst = max(worst, time.Since(at).Milliseconds()-a.gauge("kinesis_max_lag_milliseconds", "orders"))
				}
				require.LessOrEqual(r, worst, int64(18500), "two lists and a tick more than a heartbeat")
			})
		})
	}
}
