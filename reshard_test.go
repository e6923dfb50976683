package awskinesis

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
)

func TestBacklogOfAClosedParentComesInKeyOrderWithItsChildren(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.putKeyed(0, 20_000, 50)
		_, _, err := r.aws.Split("orders", shardName(0))
		require.NoError(t, err)
		r.putKeyed(20_000, 1000, 50)
		f := &fleet{rig: r, conf: `{ streams: [ orders ], batching: { count: 500, period: 100ms } }`}
		m := f.join()
		pass(time.Minute)
		m.leave()
		require.ElementsMatch(r, f.puts(0, 21_000, 50), f.contents())
		require.Zero(r, f.inversions())

		again := f.join()
		pass(time.Minute)
		again.leave()
		require.Len(r, f.contents(), 21_000, "after a restart, none again")
	})
}

func TestReshardingWhileStoppedLosesNothing(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 2)
		r.putKeyed(0, 100, 10)
		f := &fleet{rig: r, conf: brisk}
		m := f.join()
		pass(5 * time.Second)
		m.leave()
		r.putKeyed(100, 100, 10)
		_, _, err := r.aws.Split("orders", shardName(0))
		require.NoError(r, err)
		r.putKeyed(200, 100, 10)
		_, err = r.aws.Merge("orders", shardName(3), shardName(1))
		require.NoError(r, err)
		r.putKeyed(300, 100, 10)
		m = f.join()
		pass(20 * time.Second)
		m.leave()
		require.ElementsMatch(r, f.puts(0, 400, 10), f.contents())
		require.Zero(r, f.inversions())
	})
}

func TestThreeGenerationsInOneRound(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		f := &fleet{rig: r, conf: `{ streams: [ orders ] }`}
		m := f.join()
		pass(5 * time.Second)
		r.putKeyed(0, 100, 20)
		for _, shard := range []int{0, 1, 2, 3, 4, 5, 6} {
			_, _, err := r.aws.Split("orders", shardName(shard))
			require.NoError(r, err)
			r.putKeyed(100+shard*10, 10, 20)
		}
		pass(8 * time.Second)
		m.leave()
		require.ElementsMatch(r, f.puts(0, 170, 20), f.contents())
		require.Zero(r, f.inversions())
	})
}

func TestMergeOfShardsOfTwoProcessesBeginsSoonAfterTheLaterOne(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 2)
		r.putTo("orders", 0, 0, 1)
		r.putTo("orders", 1, 1, 1)
		one, two := r.open(`{ streams: [ orders ] }`), r.open(`{ streams: [ orders ] }`)
		first, second := one.next(), two.next()
		require.NotEqual(r, first.meta("kinesis_shard"), second.meta("kinesis_shard"))
		_, err := r.aws.Merge("orders", shardName(0), shardName(1))
		require.NoError(r, err)
		r.putTo("orders", 2, 2, 1)
		pass(30 * time.Second)
		one.ack(first)
		pass(30 * time.Second)
		one.nothing(time.Millisecond)
		two.nothing(time.Millisecond)

		two.ack(second)
		begin := time.Now()
		b, ok := two.batch(3 * time.Second)
		if !ok {
			b, ok = one.batch(time.Millisecond)
		}
		require.True(r, ok)
		require.Equal(r, []string{"2"}, b.contents())
		require.Less(r, time.Since(begin), 2*time.Second)
	})
}

func TestChildrenBeginAtOnceWhereTheirParentEnded(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 4)
		n := 0
		f := &fleet{rig: r, conf: `{ streams: [ orders ] }`}
		members := []*member{f.join(), f.join(), f.join(), f.join()}
		pass(time.Minute)
		require.Equal(r, []int{1, 1, 1, 1}, r.shares())
		for parent := range 4 {
			low, _, err := r.aws.Split("orders", shardName(parent))
			require.NoError(r, err)
			begin := time.Now()
			_, err = r.aws.PutTo("orders", low, "key", fmt.Append(nil, n))
			require.NoError(r, err)
			n++
			pass(3 * time.Second) // an idle parent may be polled for its end two seconds later
			f.mu.Lock()
			require.Len(r, f.seen, n)
			require.Less(r, f.seen[n-1].at.Sub(begin), 2500*time.Millisecond)
			f.mu.Unlock()
		}
		for _, m := range members {
			m.leave()
		}
	})
}

func TestStreamOfManyShardsIsReadInPages(t *testing.T) {
	bubble(t, func(r *rig) {
		require.NoError(r, r.aws.Close())
		r.aws = awsfake.New(awsfake.Options{ShardsPerPage: 100, ItemsPerPage: 100})
		r.table()
		r.stream("orders", 1500)
		for i := range 1500 {
			r.putTo("orders", i, i, 1)
		}
		in := r.open(`{ streams: [ orders ] }`)
		require.ElementsMatch(r, numbers(0, 1500), together(in.read(1500)))
	})
}

func TestStartAtATimeMissesNothingAfterIt(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 2)
		r.put("orders", 0, 100)
		pass(time.Minute)
		at := time.Now()
		r.put("orders", 100, 100)
		_, _, err := r.aws.Split("orders", shardName(0))
		require.NoError(r, err)
		pass(time.Minute)
		r.put("orders", 200, 100)
		in := r.open(`{ streams: [ orders ], start_from_timestamp: "` + at.UTC().Format(time.RFC3339Nano) + `" }`)
		require.ElementsMatch(r, numbers(100, 200), together(in.read(200)))
		in.nothing(10 * time.Second)
	})
}

func TestMarksGoWithTheirShards(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.put("orders", 0, 10)
		in := r.open(`{ streams: [ orders ] }`)
		in.read(10)
		_, _, err := r.aws.Split("orders", shardName(0))
		require.NoError(r, err)
		pass(time.Minute)
		require.Len(r, r.items(), 3)
		require.True(r, r.item("orders", shardName(0)).Finished)
		require.NoError(r, r.aws.Trim("orders", time.Now()))
		pass(10 * time.Minute)
		require.Len(r, r.items(), 2)
		require.False(r, r.item("orders", shardName(0)).Exists)
	})
}

// TestStreamThatWasMadeAnewIsReadInSpiteOfTheMarksOfItsPredecessor also holds that
// of each shard whether its records were acknowledged or it never had one.
func TestStreamThatWasMadeAnewIsReadInSpiteOfTheMarksOfItsPredecessor(t *testing.T) {
	for name, streams := range map[string]string{"balanced": "orders", "explicit": "orders:0, orders:1"} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.table()
				r.stream("orders", 2)
				r.putTo("orders", 0, 0, 10)
				conf := `streams: [ "` + streams + `" ]`
				in := r.open(conf)
				in.read(10)
				for shard := range 2 {
					_, _, err := r.aws.Split("orders", shardName(shard))
					require.NoError(r, err)
				}
				pass(time.Minute)
				in.close()
				require.Empty(r, r.journal.logged("earlier stream"), "the marks are of this one")

				require.NoError(r, r.aws.DeleteStream("orders"))
				r.stream("orders", 2)
				r.putTo("orders", 0, 10, 10)
				r.putTo("orders", 1, 20, 10)
				in = r.open(conf)
				require.ElementsMatch(r, numbers(10, 20), together(in.read(20)))
				pass(2 * time.Second)
				require.NotEmpty(r, r.journal.logged("finished in an earlier stream"))
				in.close()
				in = r.open(conf)
				in.nothing(time.Minute)
			})
		})
	}
}

// lateLister leaves some shards out until a time, as the service may for a while
// after a reshard.
type lateLister struct {
	shardLister
	until  time.Time
	hidden []string
}

func (l *lateLister) ListShards(ctx context.Context, in *kinesis.ListShardsInput, opts ...func(*kinesis.Options)) (*kinesis.ListShardsOutput, error) {
	out, err := l.shardLister.ListShards(ctx, in, opts...)
	if err == nil && time.Now().Before(l.until) {
		out.Shards = slices.DeleteFunc(out.Shards, func(s types.Shard) bool { return slices.Contains(l.hidden, *s.ShardId) })
	}
	return out, err
}

func TestChildrenThatAreListedLateAreReadAllTheSame(t *testing.T) {
	for name, hidden := range map[string][]string{"both": {shardName(1), shardName(2)}, "one": {shardName(2)}} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.table()
				r.stream("orders", 1)
				conf := `{ streams: [ orders ] }`
				owner, heir := r.open(conf), r.input(conf)
				late := r.clientsOver(heir.line)
				late.lister = &lateLister{late.lister, time.Now().Add(30 * time.Second), hidden}
				require.NoError(r, heir.connect(r.Context(), late))
				pass(5 * time.Second)
				low, high, err := r.aws.Split("orders", shardName(0))
				require.NoError(r, err)
				// The owner finishes the parent, gets no further, and dies.
				remove := r.aws.Inject(awsfake.Fault{Operation: "UpdateItem", Lose: true, When: func(c *awsfake.Call) bool {
					shard := c.Key()[attrShard].Text
					return shard == low || shard == high
				}})
				pass(5 * time.Second)
				require.True(r, r.item("orders", shardName(0)).Finished)
				owner.crash()
				remove()
				for i, child := range []string{low, high} {
					_, err := r.aws.PutTo("orders", child, "key", fmt.Append(nil, i))
					require.NoError(r, err)
				}
				begin := time.Now()
				require.ElementsMatch(r, numbers(0, 2), together(heir.read(2)))
				require.Less(r, time.Since(begin), 45*time.Second)
			})
		})
	}
}

func TestShardsAreListedOnlyWhenSomethingCanHaveChanged(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 3)
		r.open(`{ streams: [ orders ] }`)
		pass(time.Second)
		before := r.aws.Calls("ListShards")
		pass(4 * time.Minute)
		require.Equal(r, before, r.aws.Calls("ListShards"))
		_, _, err := r.aws.Split("orders", shardName(1))
		require.NoError(r, err)
		pass(time.Minute)
		require.Greater(r, r.aws.Calls("ListShards"), before)
	})
}

// putKeyed puts records whose contents are their key and their number, so that
// the order of each key can be seen.
func (r *rig) putKeyed(from, n, keys int) {
	r.Helper()
	for _, content := range r.puts(from, n, keys) {
		key, _, _ := strings.Cut(content, " ")
		_, _, err := r.aws.Put("orders", key, []byte(content))
		require.NoError(r, err)
	}
}

func (r *rig) puts(from, n, keys int) []string {
	all := make([]string, 0, n)
	for i := from; i < from+n; i++ {
		all = append(all, fmt.Sprintf("key%d %d", i%keys, i))
	}
	return all
}

// inversions counts the records that came, for the first time, after a later
// record of their key.
func (f *fleet) inversions() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	count, last, known := 0, map[string]int{}, map[string]bool{}
	for _, s := range f.seen {
		if known[s.content] {
			continue
		}
		known[s.content] = true
		var number int
		key, text, _ := strings.Cut(s.content, " ")
		if _, err := fmt.Sscan(text, &number); err != nil {
			panic(err)
		}
		if number < last[key] {
			count++
		}
		last[key] = max(last[key], number)
	}
	return count
}

func TestReshardingUnderLoadAndCrashesLosesNothingAndKeepsTheOrder(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			bubble(t, func(r *rig) {
				random := rand.New(rand.NewPCG(seed, 0))
				r.table()
				r.neverBack()
				r.stream("orders", 3)
				f := &fleet{rig: r, conf: `{ streams: [ orders ], commit_period: 1s, lease_period: 5s, rebalance_period: 5s, batching: { count: 20, period: 50ms } }`}
				members := []*member{f.join(), f.join()}
				n := 0
				for step := range 1200 { // two minutes
					r.putKeyed(n, 40, 200)
					n += 40
					pass(100 * time.Millisecond)
					if step%40 == 20 {
						r.reshard(random)
					}
					if step%97 == 96 {
						i := random.IntN(2)
						if random.IntN(2) == 0 {
							members[i].kill()
						} else {
							members[i].leave()
						}
						members[i] = f.join()
					}
				}
				pass(time.Minute)
				for _, m := range members {
					m.leave()
				}
				missing := map[string]bool{}
				for _, content := range r.puts(0, n, 200) {
					missing[content] = true
				}
				for _, content := range f.contents() {
					delete(missing, content)
				}
				require.Empty(r, missing)
				require.Zero(r, f.inversions())
			})
		})
	}
}

// reshard splits a shard or merges two neighbours.
func (r *rig) reshard(random *rand.Rand) {
	r.Helper()
	shards, err := r.aws.Shards("orders")
	require.NoError(r, err)
	open := slices.DeleteFunc(shards, func(s awsfake.Shard) bool { return s.Closed() })
	if len(open) < 5 {
		_, _, err = r.aws.Split("orders", open[random.IntN(len(open))].ID)
		require.NoError(r, err)
		return
	}
	slices.SortFunc(open, func(a, b awsfake.Shard) int { return byNumber(a.StartHash, b.StartHash) })
	i := random.IntN(len(open) - 1)
	_, err = r.aws.Merge("orders", open[i].ID, open[i+1].ID)
	require.NoError(r, err)
}

func TestStreamThatIsWrittenOtherwiseIsNoticed(t *testing.T) {
	for _, before := range []string{"name", "ARN"} {
		t.Run("by "+before+" before", func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.table()
				r.stream("orders", 1)
				r.put("orders", 0, 1)
				forms := []string{"orders", r.aws.StreamARN("orders")}
				if before == "ARN" {
					slices.Reverse(forms)
				}
				conf := func(stream string) string { return "streams: [ \"" + stream + "\" ]" }
				in := r.open(conf(forms[0]))
				in.read(1)
				in.close()
				require.Empty(r, r.journal.logged("written otherwise"))

				in = r.open(conf(forms[1]))
				in.read(1)
				in.close()
				require.Len(r, r.journal.logged("There are 1 under "+forms[0]), 1)
				in = r.open(conf(forms[1]))
				in.close()
				require.Len(r, r.journal.logged("written otherwise"), 1, "it has its own by now")
			})
		})
	}
}

func TestShardThatNobodyReadsIsCountedAndWarnedOfOnce(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 3)
		in := r.open(`{ streams: [ orders ] }`)
		pass(time.Minute)
		require.Empty(r, r.journal.logged("Nobody has read"))
		// Claims of one shard fail from now on, and it is taken away.
		r.aws.Inject(awsfake.Fault{Operation: "UpdateItem", Refuse: awsfake.NewError("AccessDeniedException", "no"), When: func(c *awsfake.Call) bool {
			return c.Key()[attrShard].Text == shardName(1)
		}})
		require.NoError(r, r.aws.PutItem(tableName, awsfake.Item{
			attrStream: awsfake.String("orders"), attrShard: awsfake.String(shardName(1)), attrSequence: awsfake.String(""),
		}))
		pass(10 * time.Minute)
		require.Len(r, r.journal.logged("Nobody has read shard "+shardName(1)), 1)
		in.close()
	})
}
