package awskinesis

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
)

// fleet is several inputs on one rig, each read by a goroutine that acknowledges
// at once, with what came out of all of them in one order.
type fleet struct {
	*rig
	conf string

	mu   sync.Mutex
	seen []seen
}

type seen struct {
	at             time.Time
	member         int
	shard, content string
}

type member struct {
	*process
	stop    context.CancelFunc
	stopped chan struct{}
}

func (f *fleet) join() *member {
	f.Helper()
	in := f.open(f.conf)
	ctx, cancel := context.WithCancel(context.Background())
	m := &member{process: in, stop: cancel, stopped: make(chan struct{})}
	number := len(f.inputs)
	go func() {
		defer close(m.stopped)
		for {
			messages, ack, err := readAsHost(ctx, in.BatchInput)
			if err != nil {
				return
			}
			b := received{messages, ack}
			f.mu.Lock()
			for _, content := range b.contents() {
				f.seen = append(f.seen, seen{time.Now(), number, b.meta("kinesis_shard"), content})
			}
			f.mu.Unlock()
			if err := ack(ctx, nil); err != nil {
				return
			}
		}
	}()
	return m
}

// leave stops a member in order, kill as SIGKILL does.
func (m *member) leave() { m.Helper(); m.stop(); <-m.stopped; m.close() }
func (m *member) kill()  { m.Helper(); m.stop(); <-m.stopped; m.crash() }

// contents returns what came, each as often as it came.
func (f *fleet) contents() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []string
	for _, s := range f.seen {
		all = append(all, s.content)
	}
	return all
}

// shares returns how many shards each owner has.
func (r *rig) shares() []int {
	r.Helper()
	owners := map[string]int{}
	for _, item := range r.items() {
		if owner := item[attrOwner].Text; owner != "" {
			owners[owner]++
		}
	}
	return slices.Sorted(maps.Values(owners))
}

// silence returns the longest time that a shard which gets records all the time
// was silent.
func (f *fleet) silence() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	longest, last := time.Duration(0), map[string]time.Time{}
	for _, s := range f.seen {
		if before, ok := last[s.shard]; ok {
			longest = max(longest, s.at.Sub(before))
		}
		last[s.shard] = s.at
	}
	return longest
}

// load puts a record into each shard every tenth of a second, for as long as d.
func (r *rig) load(shards int, from *int, d time.Duration) {
	r.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); pass(100 * time.Millisecond) {
		for shard := range shards {
			r.putTo("orders", shard, *from, 1)
			*from++
		}
	}
}

const brisk = `{ streams: [ orders ], commit_period: 1s, lease_period: 5s, rebalance_period: 5s }`

func TestSecondProcessGetsHalfOfTheShards(t *testing.T) {
	for name, test := range map[string]struct {
		conf   string
		within time.Duration
	}{
		"brisk":   {brisk, 5 * time.Second},
		"default": {`{ streams: [ orders ] }`, 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.table()
				r.neverBack()
				r.stream("orders", 16)
				n := 0
				f := &fleet{rig: r, conf: test.conf}
				one := f.join()
				r.load(16, &n, 5*time.Second)
				require.Equal(r, []int{16}, r.shares())
				two := f.join()
				r.load(16, &n, test.within)
				require.Equal(r, []int{8, 8}, r.shares())
				r.load(16, &n, 5*time.Second)
				pass(5 * time.Second)
				one.leave()
				two.leave()
				require.ElementsMatch(r, numbers(0, n), f.contents(), "nothing twice, nothing missing")
				require.Less(r, f.silence(), 2*time.Second)
			})
		})
	}
}

func TestIdleShardsAreHandedOverToo(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 16)
		f := &fleet{rig: r, conf: brisk}
		one := f.join()
		pass(10 * time.Second)
		two := f.join()
		pass(5 * time.Second)
		require.Equal(r, []int{8, 8}, r.shares())
		one.leave()
		two.leave()
	})
}

func TestClientIsSeenByThoseThatReadOtherStreamsToo(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 4)
		r.stream("returns", 1)
		r.stream("refunds", 1)
		gone := 0
		r.aws.OnWrite(func(w awsfake.Write) {
			if w.Key[attrStream].Text == members && w.After == nil {
				gone++
			}
		})
		r.open(`streams: [ returns ]`)
		r.open(`streams: [ refunds ]`)
		pass(5 * time.Second)
		r.open(`streams: [ orders, returns ]`) // which leaves the returns where they are
		pass(10 * time.Minute)
		require.Equal(r, []int{1, 1, 4}, r.shares())
		require.Zero(r, gone, "nobody is taken for dead")
	})
}

func TestStreamsOfOneShardAreSharedTogether(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		conf := "streams:\n"
		for i := range 20 {
			r.stream(fmt.Sprint("stream-", i), 1)
			conf += fmt.Sprintf("  - stream-%d\n", i)
		}
		f := &fleet{rig: r, conf: conf + "lease_period: 6s\ncommit_period: 1s"}
		var members []*member
		for range 4 {
			members = append(members, f.join())
			pass(time.Second)
		}
		pass(10 * time.Second)
		require.Equal(r, []int{5, 5, 5, 5}, r.shares())
		for _, m := range members {
			m.leave()
		}
	})
}

func TestClientsThatStartTogetherTakeEqualShares(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 40)
		f := &fleet{rig: r, conf: brisk}
		var members []*member
		for range 8 {
			members = append(members, f.join())
		}
		pass(3 * time.Second)
		require.Equal(r, []int{5, 5, 5, 5, 5, 5, 5, 5}, r.shares())
		for _, m := range members {
			m.leave()
		}
	})
}

func TestShardsOfAProcessThatDiedFlowAgain(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.neverBack()
		r.stream("orders", 8)
		n := 0
		f := &fleet{rig: r, conf: brisk}
		one, two := f.join(), f.join()
		r.load(8, &n, 10*time.Second)
		require.Equal(r, []int{4, 4}, r.shares())
		one.kill()
		r.load(8, &n, 15*time.Second)
		pass(5 * time.Second)
		require.Less(r, f.silence(), 7500*time.Millisecond)
		two.leave()
		require.Subset(r, f.contents(), numbers(0, n))
	})
}

func TestShardsOfAProcessThatStoppedFlowOnAtOnce(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.neverBack()
		r.stream("orders", 8)
		n := 0
		f := &fleet{rig: r, conf: brisk}
		one, two := f.join(), f.join()
		r.load(8, &n, 10*time.Second)
		one.leave()
		r.load(8, &n, 10*time.Second)
		pass(5 * time.Second)
		two.leave()
		require.Less(r, f.silence(), 2100*time.Millisecond)
		require.ElementsMatch(r, numbers(0, n), f.contents(), "nothing twice, nothing missing")
	})
}

func TestBalancedFleetStaysStill(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 13)
		f := &fleet{rig: r, conf: `{ streams: [ orders ] }`}
		var members []*member
		for range 3 {
			members = append(members, f.join())
		}
		pass(2 * time.Minute)
		require.Equal(r, []int{4, 4, 5}, r.shares())
		moves := 0
		r.aws.OnWrite(func(w awsfake.Write) {
			if w.Before[attrOwner].Text != w.After[attrOwner].Text {
				moves++
			}
		})
		pass(time.Hour)
		require.Zero(r, moves)
		for _, m := range members {
			m.leave()
		}
	})
}

func TestBlockedOutputGivesItsShardsAwayWhenAsked(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.neverBack()
		r.stream("orders", 2)
		r.putTo("orders", 0, 0, 5)
		r.putTo("orders", 1, 5, 5)
		stuck := r.open(brisk)
		b := stuck.next()
		other := r.open(brisk)
		got := other.next()
		other.ack(got)
		require.NotEmpty(r, got.contents())
		require.Equal(r, []int{1, 1}, r.shares())
		stuck.ack(b)
	})
}

// handedOver reports whether a write hands a shard over to a process.
func handedOver(w awsfake.Write, to *process) bool {
	before, after := w.Before[attrOwner].Text, w.After[attrOwner].Text
	return after != "" && after == to.id() && before != "" && before != after
}

func TestShardHandedOverToAClientThatDiesIsTakenAfterALeasePeriod(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 2)
		n := 0
		f := &fleet{rig: r, conf: brisk}
		owner := f.join()
		pass(5 * time.Second)
		asker := r.input(brisk)
		r.aws.OnWrite(func(w awsfake.Write) {
			if handedOver(w, asker) {
				asker.line.cut.Store(true)
			}
		})
		require.NoError(r, asker.connect(r.Context(), r.clientsOver(asker.line)))
		r.load(2, &n, 12*time.Second)
		require.True(r, asker.line.cut.Load())
		require.Less(r, f.silence(), 8*time.Second, "and not after three")
		require.Equal(r, []int{2}, r.shares())
		owner.leave()
		asker.crash()
	})
}

func TestShardIsNotHandedOverToAClientThatHasItsShare(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 4)
		f := &fleet{rig: r, conf: brisk}
		one, two := f.join(), f.join()
		pass(10 * time.Second)
		require.Equal(r, []int{2, 2}, r.shares())
		moves := 0
		remove := r.aws.OnWrite(func(w awsfake.Write) {
			if w.Before[attrOwner].Text != w.After[attrOwner].Text {
				moves++
			}
		})
		for shard := range 4 {
			if item := r.item("orders", shardName(shard)); item.Owner == one.id() {
				// It says that it wants two more, between two of its own heartbeats.
				for range 10 {
					m := r.member(two.process)
					m.Requests = map[string]int{one.id(): 2}
					_ = r.store().Beat(r.Context(), m, m.Token)
					pass(300 * time.Millisecond)
				}
			}
		}
		require.Zero(r, moves)
		remove()
		one.leave()
		two.leave()
	})
}

func TestPinnedShardsStayWithWhoNamesThem(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 8)
		pinned := []*process{
			r.open(`streams: [ "orders:shardId-000000000000, orders:shardId-000000000001, orders:shardId-000000000002" ]`),
			r.open(`streams: [ "orders:shardId-000000000003" ]`),
		}
		pass(5 * time.Second)
		r.open(`streams: [ orders ]`)
		pass(2 * time.Second)
		require.Equal(r, []int{1, 3, 4}, r.shares(), "the others are not left to who takes no part")
		r.open(`streams: [ orders ]`)
		for range 10 {
			pass(10 * time.Second)
			require.Equal(r, []int{1, 2, 2, 3}, r.shares())
		}
		for shard := range 4 {
			item := r.item("orders", shardName(shard))
			require.Equal(r, pinned[shard/3].id(), item.Owner)
		}
	})
}

func TestShardsAskedForByAClientThatHasStoppedStayWithTheirOwner(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 2)
		r.putTo("orders", 0, 0, 1)
		r.putTo("orders", 1, 1, 1)
		owner := r.open(brisk)
		first, second := owner.next(), owner.next() // and hand-over waits for them
		asker := r.open(brisk)
		wanted := func() bool {
			return len(r.member(asker).Requests) > 0
		}
		for range 100 {
			if pass(20 * time.Millisecond); wanted() {
				break
			}
		}
		require.True(r, wanted())
		asker.close()
		pass(4 * time.Second) // less than a lease period
		require.Equal(r, []int{2}, r.shares())
		require.Equal(r, owner.id(), r.item("orders", shardName(0)).Owner)
		owner.ack(first)
		owner.ack(second)
	})
}

func TestShardHandedOverToAClientThatIsStoppingIsFree(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 2)
		owner := r.open(brisk)
		pass(5 * time.Second)
		asker := r.input(brisk)
		given := make(chan struct{}, 2)
		r.aws.OnWrite(func(w awsfake.Write) {
			if handedOver(w, asker) {
				given <- struct{}{}
			}
		})
		require.NoError(r, asker.connect(r.Context(), r.clientsOver(asker.line)))
		<-given
		asker.close()
		require.Equal(r, []int{1}, r.shares())
		pass(2 * time.Second)
		require.Equal(r, []int{2}, r.shares())
		owner.close()
	})
}

// builtIn is an instance of Benthos' built-in input, as far as the table sees it.
// Its writes are those of the protocol in docs/architecture.md.
func (r *rig) builtInItem(shard int, client, sequence string) {
	r.Helper()
	require.NoError(r, r.aws.PutItem(tableName, awsfake.Item{
		"StreamID": awsfake.String("orders"), "ShardID": awsfake.String(shardName(shard)),
		"ClientID": awsfake.String(client), "SequenceNumber": awsfake.String(sequence),
		"LeaseTimeout": awsfake.String(time.Now().Add(30 * time.Second).Format(time.RFC3339Nano)),
	}))
}

// stealing opens an input on three shards that a built-in input reads, and returns the
// one that it steals, as soon as it has.
func (r *rig) stealing(conf string) (in *process, stolen string) {
	r.Helper()
	r.table()
	r.stream("orders", 3)
	for shard := range 3 {
		r.putTo("orders", shard, shard*10, 10)
		r.builtInItem(shard, "built-in", r.sequences("orders", shardName(shard))[1])
	}
	in = r.open(conf)
	for i := range 1000 {
		// At other moments than our looks, whose claims it would defeat for ever.
		pass(97 * time.Millisecond)
		for shard := range 3 {
			item := r.item("orders", shardName(shard))
			if item.Owner == "built-in" && i%50 == 0 {
				r.builtInItem(shard, "built-in", item.Sequence) // it renews
			} else if item.Owner != "built-in" {
				return in, item.Shard
			}
		}
	}
	require.Fail(r, "no shard is stolen")
	return nil, ""
}

// finalCheckpoint is what a built-in input writes when it notices that a shard was stolen
// from it.
func (r *rig) finalCheckpoint(shard, sequence string) {
	r.Helper()
	item := r.item("orders", shard)
	require.NoError(r, r.aws.PutItem(tableName, awsfake.Item{
		"StreamID": awsfake.String("orders"), "ShardID": awsfake.String(shard),
		"ClientID": awsfake.String(item.Owner), "LeaseTimeout": awsfake.String(item.Token),
		"LeaseTerm":      awsfake.String(item.Owner + "/" + item.Term),
		"SequenceNumber": awsfake.String(sequence),
	}))
}

func TestShardIsStolenFromABuiltInInputAfterItsFinalCheckpoint(t *testing.T) {
	bubble(t, func(r *rig) {
		in, taken := r.stealing(`streams: [ orders ]`)
		in.nothing(2 * time.Second)
		// The built-in input notices at its next commit, and yields further on.
		r.finalCheckpoint(taken, r.sequences("orders", taken)[6])
		begin := time.Now()
		got := in.read(3)[taken]
		require.Len(r, got, 3)
		require.Equal(r, "7", got[0][len(got[0])-1:])
		require.Less(r, time.Since(begin), 2*time.Second)
	})
}

func TestShardThatABuiltInInputStealsGetsOurFinalCheckpoint(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.put("orders", 0, 10)
		in := r.open(`streams: [ orders ]`)
		pass(3 * time.Second)
		in.read(6)
		item := r.item("orders", shardName(0))
		require.Empty(r, item.Sequence, "not committed yet")
		r.builtInItem(0, "built-in", item.Sequence)
		pass(6 * time.Second)
		item = r.item("orders", shardName(0))
		require.Equal(r, "built-in", item.Owner)
		require.Equal(r, r.sequences("orders", shardName(0))[5], item.Sequence)
	})
}
