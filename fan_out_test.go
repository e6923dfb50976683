package awskinesis

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
)

const pushed = `{ streams: [ orders ], commit_period: 1s, lease_period: 5s, rebalance_period: 5s, enhanced_fan_out: { enabled: true } }`

// mostSubscriptions fails the test when a shard has two subscriptions at once, and returns
// the most that all shards have had together.
func (r *rig) mostSubscriptions(shards int) int {
	r.Helper()
	for shard := range shards {
		require.LessOrEqual(r, r.aws.MostSubscriptions("orders", shardName(shard)), 1, shardName(shard))
	}
	return r.aws.MostSubscriptionsOf("orders")
}

// verifyOnce checks that each record came, once unless a process that died may have sent it
// without storing that, and that the records of each shard came in order.
func (f *fleet) verifyOnce(records int, repeated func(content string) bool) (repeats int) {
	f.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	times := map[string]int{}
	last := map[string]map[string]int{} // by shard and member
	for _, s := range f.seen {
		times[s.content]++
		var n int
		_, err := fmt.Sscan(s.content, &n)
		require.NoError(f, err)
		if last[s.shard] == nil {
			last[s.shard] = map[string]int{}
		}
		by := fmt.Sprint(s.member)
		require.Greater(f, n+1, last[s.shard][by], "shard %s, client %s", s.shard, by)
		last[s.shard][by] = n + 1
	}
	for i := range records {
		content := fmt.Sprint(i)
		require.Positive(f, times[content], "record %d is lost", i)
		if times[content] > 1 {
			repeats++
			require.True(f, repeated(content), "record %d came %d times", i, times[content])
		}
	}
	return repeats
}

// Two hundred connections break in the middle of frames, under load, while a shard is split,
// two are merged, and a process dies.
func TestBrokenSubscriptionsLoseNothingThroughASplitAMergeAndADeath(t *testing.T) {
	bubbleOf(t, awsfake.Options{EnforceLimits: true, StaleReads: 200 * time.Millisecond}, func(r *rig) {
		r.table()
		r.stream("orders", 4)
		f := &fleet{rig: r, conf: pushed}
		survivor, victim := f.join(), f.join()
		defer func() { survivor.leave() }()
		r.until(time.Minute, func() bool { return r.heldBy(survivor.process) == 2 && r.heldBy(victim.process) == 2 })

		// A subscription breaks with each third frame, until two hundred have.
		r.aws.InjectStream(awsfake.StreamFault{Cut: true, After: 2, Times: 200})
		from := 0
		put := func(d time.Duration) {
			for end := time.Now().Add(d); time.Now().Before(end); pass(50 * time.Millisecond) {
				for range 4 {
					_, _, err := r.aws.Put("orders", fmt.Sprint("key ", from), fmt.Append(nil, from))
					require.NoError(r, err)
					from++
				}
			}
		}
		put(20 * time.Second)
		r.split(shardName(0))
		put(20 * time.Second)
		_, err := r.aws.Merge("orders", shardName(2), shardName(3))
		require.NoError(r, err)
		put(20 * time.Second)
		victim.kill()
		killed := from
		put(5 * time.Minute)
		pass(time.Minute)

		// What the dead process had read and not stored in its last second comes again.
		repeats := f.verifyOnce(from, func(content string) bool {
			var n int
			_, _ = fmt.Sscan(content, &n)
			return n >= killed-1000 && n < killed
		})
		r.Logf("%d records, %d came again, %d subscriptions", from, repeats, r.aws.Calls("SubscribeToShard"))
		require.Greater(r, r.aws.Calls("SubscribeToShard"), 200, "one for each that broke")
		r.mostSubscriptions(7)
	})
}

// Processes that start at once, fifty in full size, register one consumer, and a rolling
// restart of all leaves one.
func TestProcessesOfAGroupShareOneConsumer(t *testing.T) {
	bubbleOf(t, awsfake.Options{EnforceLimits: true, ConsumerDelay: 5 * time.Second}, func(r *rig) {
		processes := 20
		if *simFull {
			processes = 50
		}
		r.table()
		r.stream("orders", processes)
		f := &fleet{rig: r, conf: pushed}
		members := make([]*member, processes)
		for i := range members {
			members[i] = f.join()
		}
		r.until(2*time.Minute, func() bool { return len(r.aws.Subscriptions("orders")) == processes })
		only := func() {
			consumers, err := r.aws.Consumers("orders")
			require.NoError(r, err)
			require.Len(r, consumers, 1)
			require.Equal(r, "benthos-"+tableName, consumers[0].Name)
		}
		only()
		require.Len(r, r.journal.logged("was registered"), 1)
		require.Empty(r, r.journal.logged("fail"), "nobody is told of what is usual")
		if !*simFull { // one restart takes seconds of a machine
			for _, m := range members[5:] {
				m.leave()
			}
			members = members[:5]
			only()
		}
		for i, m := range members {
			m.leave()
			members[i] = f.join()
			pass(5 * time.Second)
		}
		r.until(2*time.Minute, func() bool { return len(r.aws.Subscriptions("orders")) == processes })
		only()
		require.Len(r, r.journal.logged("was registered"), 1)
		r.mostSubscriptions(processes)
		for _, m := range members {
			m.leave()
		}
		only()
	})
}

// Sixty-four shards full of backlog whose output stands still for ten lease periods: no
// shard moves, each has one subscription, the budget holds, and nothing comes twice.
func TestBlockedOutputHoldsSubscriptionsUp(t *testing.T) {
	bubbleOf(t, awsfake.Options{EnforceLimits: true}, func(r *rig) {
		const shards, each, period = 64, 400, 5 * time.Second
		r.table()
		r.stream("orders", shards)
		data := strings.Repeat("x", 10<<10)
		for shard := range shards {
			for i := range each {
				_, err := r.aws.PutTo("orders", shardName(shard), "key", fmt.Appendf(nil, "%d:%s", shard*each+i, data))
				require.NoError(r, err)
			}
		}
		moves := 0
		r.aws.OnWrite(func(w awsfake.Write) {
			if owner := w.Before[attrOwner].Text; owner != "" && w.After[attrOwner].Text != owner {
				moves++
			}
		})
		in := r.open(strings.Replace(pushed, "{ streams", "{ max_buffered_bytes: 16MiB, streams", 1))
		r.until(time.Minute, func() bool { return r.heldBy(in) == shards })
		first := in.next()
		most := int64(0)
		for end := time.Now().Add(10 * period); time.Now().Before(end); pass(time.Second) {
			most = max(most, in.gauge("kinesis_buffered_bytes"))
		}
		require.LessOrEqual(r, most, int64(18<<20), "the budget, and what a frame turned out larger than expected")
		require.LessOrEqual(r, r.mostSubscriptions(shards), shards)
		require.Zero(r, moves)

		times := map[string]int{}
		take := func(b received) {
			for _, content := range b.contents() {
				number, _, _ := strings.Cut(content, ":")
				times[number]++
			}
			in.ack(b)
		}
		take(first)
		for range shards*each - 1 {
			take(in.next())
		}
		require.Len(r, times, shards*each)
		for number, n := range times {
			require.Equal(r, 1, n, number)
		}
		pass(10 * time.Second)
		require.LessOrEqual(r, r.mostSubscriptions(shards), shards)
		require.Zero(r, moves)
	})
}

// A shard that is handed over has no subscription any more when its new owner reads it.
func TestSubscriptionEndsBeforeItsShardIsHandedOver(t *testing.T) {
	bubbleOf(t, awsfake.Options{EnforceLimits: true}, func(r *rig) {
		r.table()
		r.stream("orders", 4)
		f := &fleet{rig: r, conf: pushed}
		a := f.join()
		r.until(time.Minute, func() bool { return len(r.aws.Subscriptions("orders")) == 4 })
		from := 0
		r.load(4, &from, 10*time.Second)
		b := f.join()
		r.load(4, &from, 30*time.Second)
		require.Equal(r, 2, r.heldBy(b.process))
		require.Zero(r, f.verifyOnce(from, func(string) bool { return false }))
		require.EqualValues(r, 2, a.gauge("kinesis_subscriptions", "orders"))
		require.EqualValues(r, 2, b.gauge("kinesis_read_shards", "orders", "fan_out"))
		r.mostSubscriptions(4)
		a.leave()
		r.load(4, &from, 20*time.Second)
		require.Zero(r, f.verifyOnce(from, func(string) bool { return false }))
		b.leave()
		pass(time.Second) // the service hears of it in its own time
		require.Empty(r, r.aws.Subscriptions("orders"))
	})
}

// A process whose session cannot be proved reads its subscriptions no more, and has none
// when its leases are lost.
func TestSubscriptionsEndWithTheLease(t *testing.T) {
	bubbleOf(t, awsfake.Options{EnforceLimits: true}, func(r *rig) {
		r.table()
		r.stream("orders", 2)
		f := &fleet{rig: r, conf: pushed}
		a := f.join()
		r.until(time.Minute, func() bool { return len(r.aws.Subscriptions("orders")) == 2 })
		remove := r.aws.Inject(awsfake.Fault{Service: "dynamodb", Refuse: awsfake.NewError("AccessDeniedException", "no")})
		pass(6 * time.Second) // more than nine tenths of the lease period
		require.Empty(r, r.aws.Subscriptions("orders"))
		require.EqualValues(r, 2, a.gauge("kinesis_suspended_shards", "orders"))
		remove()
		r.until(time.Minute, func() bool { return len(r.aws.Subscriptions("orders")) == 2 })
		r.mostSubscriptions(2)
		a.leave()
	})
}

func TestConsumerIsDeregisteredByTheLastOfItsGroup(t *testing.T) {
	bubbleOf(t, awsfake.Options{EnforceLimits: true}, func(r *rig) {
		r.table()
		r.stream("orders", 2)
		conf := strings.Replace(pushed, "enabled: true", "enabled: true, deregister_on_close: true", 1)
		a, b := r.open(conf), r.open(conf)
		r.until(time.Minute, func() bool { return len(r.aws.Subscriptions("orders")) == 2 })
		consumers := func() int {
			all, err := r.aws.Consumers("orders")
			require.NoError(r, err)
			return len(all)
		}
		a.close()
		require.Equal(r, 1, consumers())
		b.close()
		require.Zero(r, consumers())
		require.Len(r, r.journal.logged("was deregistered"), 1)
		c := r.open(conf)
		r.until(time.Minute, func() bool { return len(r.aws.Subscriptions("orders")) == 2 })
		c.close()
		require.Zero(r, consumers())
	})
}

func TestStreamWithoutRoomForAConsumerSaysSo(t *testing.T) {
	for mode, reads := range map[string]bool{"always": false, "auto": true} {
		t.Run(mode, func(t *testing.T) {
			bubbleOf(t, awsfake.Options{EnforceLimits: true}, func(r *rig) {
				r.table()
				r.stream("orders", 1)
				for i := range 20 {
					_, err := r.aws.RegisterConsumer("orders", fmt.Sprint("other-", i))
					require.NoError(r, err)
				}
				in := r.open(strings.Replace(pushed, "enabled: true", "enabled: true, mode: "+mode, 1))
				if reads {
					// Throttled by others, so that it would subscribe.
					r.aws.Inject(awsfake.Fault{Operation: "GetRecords", Probability: 0.5, Rand: rand.New(rand.NewPCG(1, 2)), Refuse: awsfake.NewError(awsfake.CodeThroughputExceeded, "others")})
				}
				o := attach(in, func() time.Duration { return 0 })
				defer o.end()
				r.putTo("orders", 0, 0, 3)
				pass(3 * time.Minute)
				lines := r.journal.logged("stream orders has 20 consumers, and takes no more")
				require.NotEmpty(r, lines, "%q", r.journal.logged(""))
				require.Contains(r, lines[0], "`enhanced_fan_out.consumer_name`")
				require.Contains(r, lines[0], "other-7")
				if reads {
					require.Len(r, lines, 1)
					// Half of its reads are throttled, now and then so many in a row that it is not.
					r.until(time.Minute, func() bool { return in.gauge("kinesis_ready") == 1 })
					require.Len(r, o.acked, 3)
					require.EqualValues(r, 1, in.gauge("kinesis_read_shards", "orders", "polling"))
				} else {
					require.Zero(r, in.gauge("kinesis_ready"))
					require.NoError(r, r.aws.DeregisterConsumer("orders", "other-7"))
					pass(time.Minute)
					require.EqualValues(r, 1, in.gauge("kinesis_ready"))
				}
			})
		})
	}
}

// A shard that others throttle is subscribed after half a minute, and each record is read
// once through the change and back.
func TestThrottledShardIsSubscribedAndPolledAgain(t *testing.T) {
	bubbleOf(t, awsfake.Options{EnforceLimits: true}, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		f := &fleet{rig: r, conf: strings.Replace(pushed, "enabled: true", "enabled: true, mode: auto", 1)}
		m := f.join()
		defer func() { m.leave() }()
		others := r.aws.Inject(awsfake.Fault{Operation: "GetRecords", Probability: 0.6, Rand: rand.New(rand.NewPCG(1, 2)), Refuse: awsfake.NewError(awsfake.CodeThroughputExceeded, "others")})
		from := 0
		r.load(1, &from, 30*time.Second)
		require.EqualValues(r, 1, m.gauge("kinesis_read_shards", "orders", "polling"))
		r.load(1, &from, time.Minute)
		require.EqualValues(r, 1, m.gauge("kinesis_read_shards", "orders", "fan_out"))
		require.Len(r, r.journal.logged("is read by enhanced fan-out now: reads of it have been throttled"), 1)
		others()
		r.load(1, &from, 11*time.Minute)
		require.EqualValues(r, 1, m.gauge("kinesis_read_shards", "orders", "polling"))
		require.Len(r, r.journal.logged("is read by polling now: it has been caught up for 10m0s"), 1)
		require.Empty(r, r.aws.Subscriptions("orders"))
		r.load(1, &from, time.Minute)
		pass(5 * time.Second)
		require.Zero(r, f.verifyOnce(from, func(string) bool { return false }))
	})
}

// Two groups that share a consumer take each other's subscriptions over.
func TestConsumerThatTwoGroupsShareIsTold(t *testing.T) {
	bubbleOf(t, awsfake.Options{EnforceLimits: true}, func(r *rig) {
		r.table()
		require.NoError(r, r.aws.CreateTable("others", attrStream, attrShard))
		r.stream("orders", 1)
		conf := strings.Replace(pushed, "enabled: true", "enabled: true, consumer_name: shared", 1)
		ours := &fleet{rig: r, conf: conf}
		theirs := &fleet{rig: r, conf: strings.Replace(conf, "{ streams", "{ dynamodb: { table: others }, streams", 1)}
		a, b := ours.join(), theirs.join()
		from := 0
		r.load(1, &from, 3*time.Minute)
		require.NotEmpty(r, r.journal.logged("give each group a consumer of its own"))
		a.leave()
		pass(time.Minute)
		b.leave()
		require.Zero(r, theirs.verifyOnce(from, func(string) bool { return false }))
	})
}

// Records put while a subscription stands come through at once.
func TestRecordsArePushed(t *testing.T) {
	bubbleOf(t, awsfake.Options{EnforceLimits: true}, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		in := r.open(pushed)
		r.until(time.Minute, func() bool { return len(r.aws.Subscriptions("orders")) == 1 })
		for i := range 100 {
			pass(777 * time.Millisecond)
			at := time.Now()
			r.putTo("orders", 0, i, 1)
			b := in.next()
			require.Equal(r, []string{fmt.Sprint(i)}, b.contents())
			require.Less(r, time.Since(at), time.Millisecond)
			in.ack(b)
		}
		require.EqualValues(r, 1, in.gauge("kinesis_subscriptions", "orders"))
		pass(4 * time.Second)
		require.LessOrEqual(r, in.gauge("kinesis_subscription_silence_milliseconds", "orders", shardName(0)), int64(5000))
	})
}

// After each five minutes a subscription is opened anew, and an idle shard goes on at the
// place to which the service says that it has come.
func TestIdleShardIsSubscribedFromWhereItIs(t *testing.T) {
	bubbleOf(t, awsfake.Options{EnforceLimits: true}, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		var mu sync.Mutex
		var starts []string
		r.aws.OnCall(func(c *awsfake.Call) {
			if c.Operation != "SubscribeToShard" {
				return
			}
			from, _ := c.Params()["StartingPosition"].(map[string]any)
			mu.Lock()
			defer mu.Unlock()
			starts = append(starts, fmt.Sprint(from["Type"]))
		})
		in := r.open(pushed)
		pass(time.Hour)
		mu.Lock()
		defer mu.Unlock()
		require.InDelta(r, 12, len(starts), 1)
		require.Equal(r, "TRIM_HORIZON", starts[0])
		require.Equal(r, []string{"AFTER_SEQUENCE_NUMBER"}, slices.Compact(slices.Clone(starts[1:])))
		require.Empty(r, r.journal.logged("fail"))
		require.LessOrEqual(r, in.gauge("kinesis_max_lag_milliseconds", "orders"), int64(6000))
	})
}
