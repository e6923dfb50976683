package awskinesis

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
)

// The tests of this file attack the repairs that those of losses_test.go hold: by
// items that prove less than they seem to, by answers that are wrong more than once,
// and by loops that something permanent keeps going.

// readAll reads and acknowledges until nothing has come for a while.
func (c *process) readAll(silence time.Duration) (all []string) {
	c.Helper()
	for {
		b, ok := c.batch(silence)
		if !ok {
			return all
		}
		all = append(all, b.contents()...)
		c.ack(b)
	}
}

func (r *rig) split(shard string) (children []string) {
	r.Helper()
	low, high, err := r.aws.Split("orders", shard)
	require.NoError(r, err)
	return []string{low, high}
}

// calls returns how many calls are made, and lines logged, in a time.
func (r *rig) calls(in time.Duration, operations ...string) (n int) {
	r.Helper()
	count := func() (n int) {
		for _, operation := range operations {
			n += r.aws.Calls(operation)
		}
		return n + len(r.journal.logged(""))
	}
	before := count()
	pass(in)
	return count() - before
}

func TestOwnerThatDiedInAnEarlierStreamProvesNothingOfParents(t *testing.T) {
	for name, item := range map[string]awsfake.Item{
		"the built-in input":   {attrOwner: awsfake.String("built-in"), attrToken: awsfake.String("2026-01-01T00:00:00Z")},
		"one without a record": {attrOwner: awsfake.String("old"), attrToken: awsfake.String("2026-01-01T00:00:00Z"), attrSequence: awsfake.String(""), attrTerm: awsfake.String("old/x"), attrPeriod: awsfake.Number(30000)},
		"one that is blank":    {attrOwner: awsfake.String(""), attrSequence: awsfake.String("")},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.table()
				r.stream("orders", 1)
				r.remake(0)
				r.putTo("orders", 2, 10, 5)
				full := awsfake.Item{attrStream: awsfake.String("orders"), attrShard: awsfake.String(shardName(1))}
				maps.Copy(full, item)
				require.NoError(r, r.aws.PutItem(tableName, full))
				require.ElementsMatch(r, numbers(0, 15), r.open(`streams: [ orders ]`).readAll(10*time.Minute))
			})
		})
	}
}

func TestItemsOfChildrenThatACrashLeftProveNothingInAStreamMadeAnew(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 2)
		in := r.open(`streams: [ orders ]`)
		for i := range 2 {
			r.putTo("orders", i, 1000+i, 1)
		}
		in.read(2)
		r.split(shardName(0))
		r.split(shardName(1))
		pass(time.Minute)
		in.crash()
		r.remake(0)
		r.putTo("orders", 1, 10, 5)
		require.ElementsMatch(r, numbers(0, 15), r.open(`streams: [ orders ]`).readAll(10*time.Minute))
	})
}

func TestPinnedReaderOfAnEarlierReleaseProvesNothingOfParents(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.putTo("orders", 0, 0, 10)
		children := r.split(shardName(0))
		r.putTo("orders", 2, 10, 5)
		renew := func() {
			require.NoError(r, r.aws.PutItem(tableName, awsfake.Item{
				attrStream: awsfake.String("orders"), attrShard: awsfake.String(children[0]), attrOwner: awsfake.String("pinned"),
				attrTerm: awsfake.String("pinned/x"), attrPeriod: awsfake.Number(30000), attrToken: awsfake.String(time.Now().String()), attrSequence: awsfake.String(""),
			}))
		}
		renew()
		in := r.open(`streams: [ orders ]`)
		var got []string
		for range 12 {
			got = append(got, in.readAll(5*time.Second)...)
			renew()
		}
		require.ElementsMatch(r, numbers(0, 15), got)
	})
}

func TestChildThatTheBuiltInInputReadsProvesItsParent(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.putTo("orders", 0, 0, 10)
		children := r.split(shardName(0)) // and it has deleted the item of the parent
		r.putTo("orders", 2, 10, 5)
		renew := func() {
			require.NoError(r, r.aws.PutItem(tableName, awsfake.Item{
				attrStream: awsfake.String("orders"), attrShard: awsfake.String(children[0]), attrOwner: awsfake.String("built-in"),
				attrToken: awsfake.String(time.Now().Add(30 * time.Second).Format(time.RFC3339Nano)),
			}))
		}
		renew()
		in := r.open(`{ streams: [ orders ], steal_grace_period: 2s }`)
		var got []string
		for range 12 {
			got = append(got, in.readAll(5*time.Second)...)
			renew()
		}
		require.ElementsMatch(r, numbers(10, 5), got)
	})
}

func TestIdleChildrenTellTheirStream(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.putTo("orders", 0, 0, 10)
		in := r.open(`streams: [ orders ]`)
		in.read(10)
		r.split(shardName(0))
		pass(time.Minute)
		in.close()
		shards, err := r.aws.Shards("orders")
		require.NoError(r, err)
		for i := 1; i < 3; i++ {
			require.Equal(r, shards[i].StartSequence, r.item("orders", shardName(i)).ShardStart)
		}
		// The built-in input claims the finished shard, reads nothing, and deletes its item.
		require.NoError(r, r.aws.DeleteItem(tableName, awsfake.Item{attrStream: awsfake.String("orders"), attrShard: awsfake.String(shardName(0))}))
		r.open(`streams: [ orders ]`).nothing(time.Minute)
	})
}

func TestReadingMoreThanNeedBeIsSaid(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.putTo("orders", 0, 0, 10)
		for _, child := range r.split(shardName(0)) { // the built-in input has begun them, and stopped
			require.NoError(r, r.aws.PutItem(tableName, awsfake.Item{attrStream: awsfake.String("orders"), attrShard: awsfake.String(child)}))
		}
		in := r.open(`streams: [ orders ]`)
		require.ElementsMatch(r, numbers(0, 10), together(in.read(10)), "nothing tells that it was finished")
		pass(2 * time.Second)
		require.Len(r, r.journal.logged("If it was, its records come again"), 1)
	})
}

func TestDeletedStreamIsLookedForMoreAndMoreRarely(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 4)
		r.open(`streams: [ orders ]`)
		pass(time.Minute)
		require.NoError(r, r.aws.DeleteStream("orders"))
		pass(5 * time.Minute)
		require.Less(r, r.calls(10*time.Minute, "UpdateItem", "Query", "ListShards", "GetShardIterator"), 2000)
	})
}

// remakeEmpty has a stream read, deleted, and made anew with a shard that was split
// without ever having a record.
func (r *rig) remakeEmpty() {
	r.Helper()
	r.table()
	r.stream("orders", 1)
	r.putTo("orders", 0, 0, 10)
	in := r.open(`streams: [ orders ]`)
	in.read(10)
	for i, child := range r.split(shardName(0)) {
		_, err := r.aws.PutTo("orders", child, "key", fmt.Append(nil, i))
		require.NoError(r, err)
	}
	in.read(2)
	pass(time.Minute)
	in.close()
	require.NoError(r, r.aws.DeleteStream("orders"))
	r.stream("orders", 1)
	r.split(shardName(0))
}

func TestEmptyClosedShardOfAStreamMadeAnewIsFinishedOnce(t *testing.T) {
	for name, processes := range map[string]int{"by one": 1, "by three": 3} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.remakeEmpty()
				for range processes {
					r.open(`streams: [ orders ]`)
				}
				pass(2 * time.Minute)
				require.Len(r, r.journal.logged(shardName(0)+" of stream orders is closed and has been read to its end"), 2, "once in each stream")
				require.Less(r, r.calls(10*time.Minute, "UpdateItem", "Query", "ListShards", "GetShardIterator"), processes*1100, "a list of the members, of two pages here, each second and a half")
			})
		})
	}
}

func TestExplicitShardsOfAStreamMadeAnewEndTheInput(t *testing.T) {
	bubble(t, func(r *rig) {
		r.remakeEmpty()
		r.split(shardName(1))
		in := r.open(`streams: [ "orders:0", "orders:1" ]`)
		pass(2 * time.Minute)
		_, _, err := in.tryRead(time.Second)
		require.ErrorContains(r, err, "end of input")
	})
}

func TestBatchesThatStepAsideKeepTheirOrder(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		in := r.open(`streams: [ orders ]`)
		r.putTo("orders", 0, 0, 20)
		var batches []received
		for range 20 {
			batches = append(batches, in.next())
		}
		restore := r.aws.Inject(awsfake.Fault{Operation: "UpdateItem", Refuse: awsfake.NewError(awsfake.CodeInternalServerError, "down")})
		pass(time.Minute)
		for _, b := range batches {
			require.NoError(r, b.ack(r.Context(), errors.New("the output refuses")))
		}
		in.nothing(time.Minute)
		restore()
		require.Equal(r, numbers(0, 20), together(in.read(20)))
	})
}

// frozenLister answers with its first list until a time.
type frozenLister struct {
	shardLister
	first *kinesis.ListShardsOutput
	until time.Time
}

func (l *frozenLister) ListShards(ctx context.Context, in *kinesis.ListShardsInput, opts ...func(*kinesis.Options)) (*kinesis.ListShardsOutput, error) {
	if l.first != nil && time.Now().Before(l.until) {
		return l.first, nil
	}
	out, err := l.shardLister.ListShards(ctx, in, opts...)
	if err == nil && l.first == nil {
		l.first = out
	}
	return out, err
}

func TestListThatLagsRepeatsNothing(t *testing.T) {
	for _, lag := range []time.Duration{5 * time.Second, 15 * time.Second, time.Minute} {
		t.Run(lag.String(), func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.table()
				r.stream("orders", 1)
				r.putTo("orders", 0, 0, 10)
				in := r.input(`{ streams: [ orders ] }`)
				c := r.clientsOver(in.line)
				lister := &frozenLister{shardLister: c.lister}
				c.lister = lister
				require.NoError(r, in.connect(r.Context(), c))
				in.read(10)
				lister.until = time.Now().Add(lag)
				r.split(shardName(0))
				in.nothing(5 * time.Minute)
			})
		})
	}
}

func TestStartThatALiteralItemTellsIsKept(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.putTo("orders", 0, 0, 10)
		pass(time.Minute)
		// As an earlier release left it: from now on, and nothing committed.
		r.literally(awsfake.Item{attrSequence: awsfake.String(""), attrStartAt: awsfake.String(time.Now().UTC().Format(time.RFC3339Nano))})
		pass(time.Minute)
		r.putTo("orders", 0, 10, 10)
		in := r.open(`{ streams: [ "orders:0" ], start_from_oldest: false }`)
		require.Equal(r, numbers(10, 10), in.readAll(time.Minute))
	})
}

func TestShardThatIsSaidToBeGoneIsReadOnce(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.putTo("orders", 0, 0, 1)
		in := r.open(`{ streams: [ orders ], checkpoint_limit: 1 }`)
		b := in.next()
		r.aws.Inject(awsfake.Fault{Operation: "GetRecords", Times: 1, Refuse: awsfake.NewError(awsfake.CodeResourceNotFound, "a bad day")})
		in.nothing(time.Minute)
		in.ack(b)
		in.nothing(time.Minute)
	})
}

func TestMarkThatIsMalformedIsNoMark(t *testing.T) {
	for name, value := range map[string]awsfake.Value{"a number": awsfake.Number(7), "a word": awsfake.String("SHARD_END"), "NULL": {Type: "NULL"}} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.table()
				r.stream("orders", 1)
				r.putTo("orders", 0, 0, 10)
				require.NoError(r, r.aws.PutItem(tableName, awsfake.Item{
					attrStream: awsfake.String("orders"), attrShard: awsfake.String(shardName(0)), attrSequence: value, attrFinished: value,
				}))
				require.Equal(r, numbers(0, 10), together(r.open(`streams: [ orders ]`).read(10)))
			})
		})
	}
}

func TestBuiltInInputThatClaimsALiteralItemIsNoticedWithACommit(t *testing.T) {
	byPolling(t) // it reads for hours, and is about the table alone
	for _, period := range []string{"30s", "10m"} {
		t.Run(period, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.table()
				r.stream("orders", 1)
				in := r.open(`{ streams: [ "orders:0" ], lease_period: ` + period + `, rebalance_period: ` + period + ` }`)
				r.putTo("orders", 0, 0, 10)
				in.read(10)
				pass(10 * time.Second)
				r.literally(awsfake.Item{
					attrSequence: awsfake.String(r.item("orders", "0").Sequence), attrOwner: awsfake.String("built-in"),
					attrToken: awsfake.String(time.Now().Add(30 * time.Second).Format(time.RFC3339Nano)),
				})
				begin := time.Now()
				for i := 10; ; i++ {
					r.putTo("orders", 0, i, 1)
					b, ok := in.batch(2 * time.Second)
					if !ok {
						break
					}
					in.ack(b)
				}
				require.Less(r, time.Since(begin), 11*time.Second)
			})
		})
	}
}

func TestPickedOutShardLeavesNothingUnreadBeforeIt(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.putTo("orders", 0, 0, 10)
		r.split(shardName(0))
		r.putTo("orders", 2, 10, 10)
		r.split(shardName(2))
		r.putTo("orders", 4, 20, 10)
		r.split(shardName(4))
		pinned := r.open(`streams: [ "orders:4" ]`)
		pinned.read(10)
		pass(10 * time.Second)
		pinned.close()
		require.ElementsMatch(r, numbers(0, 20), r.open(`streams: [ orders ]`).readAll(time.Minute))
	})
}

func TestMarkOfAnEarlierStreamTellsThatNobodyFinishedTheShardOfThisOne(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.putTo("orders", 0, 100, 10)
		in := r.open(`streams: [ orders ]`)
		in.read(10)
		r.split(shardName(0))
		pass(time.Minute)
		in.close()
		r.remake(0)
		renew := func() { // a built-in input that has begun a child out of turn
			require.NoError(r, r.aws.PutItem(tableName, awsfake.Item{
				attrStream: awsfake.String("orders"), attrShard: awsfake.String(shardName(1)), attrOwner: awsfake.String("built-in"),
				attrToken: awsfake.String(time.Now().Add(30 * time.Second).Format(time.RFC3339Nano)), attrSequence: awsfake.String(""),
			}))
		}
		renew()
		in = r.open(`streams: [ orders ]`)
		var got []string
		for range 24 {
			got = append(got, in.readAll(5*time.Second)...)
			renew()
		}
		require.ElementsMatch(r, numbers(0, 10), got)
	})
}

func TestIdleShardIsNotReadOnInAStreamMadeAnew(t *testing.T) {
	for name, fault := range map[string]awsfake.Fault{
		"reads fail":        {Operation: "GetRecords", Refuse: awsfake.NewError(awsfake.CodeInternalFailure, "sorry")},
		"the table is down": {Service: "dynamodb", Refuse: awsfake.NewError(awsfake.CodeInternalServerError, "down")},
		"lists fail":        {Operation: "ListShards", Refuse: awsfake.NewError(awsfake.CodeLimitExceeded, "slow down")},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.table()
				r.stream("orders", 1)
				r.putTo("orders", 0, 1000, 1)
				in := r.open(`streams: [ orders ]`)
				in.read(1)
				r.split(shardName(0))
				pass(time.Minute)
				remove := r.aws.Inject(fault)
				pass(time.Minute)
				r.remake(0)
				r.putTo("orders", 1, 10, 5)
				r.putTo("orders", 2, 15, 5)
				pass(10 * time.Second)
				remove()
				got := in.readAll(2 * time.Minute)
				require.ElementsMatch(r, numbers(0, 20), got)
				require.ElementsMatch(r, numbers(0, 10), got[:10], "the parent comes first")
			})
		})
	}
}

func TestAnswerWithoutADescriptionIsAnError(t *testing.T) {
	for _, operation := range []string{"DescribeTable", "DescribeStreamSummary"} {
		t.Run(operation, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.table()
				r.stream("orders", 1)
				r.putTo("orders", 0, 0, 1)
				r.aws.Inject(awsfake.Fault{Operation: operation, Times: 1, Answer: []byte(`{}`)})
				in := r.input(`streams: [ orders ]`)
				for in.connect(r.Context(), r.clientsOver(in.line)) != nil {
					pass(time.Second)
				}
				in.read(1)
			})
		})
	}
}

func TestDeletedItemOfALongerLeaseIsLeftAsLong(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 2)
		r.put("orders", 0, 10)
		one := r.open(`{ streams: [ orders ], lease_period: 10m, rebalance_period: 1m }`)
		two := r.open(`{ streams: [ orders ] }`)
		got := append(one.readAll(20*time.Second), two.readAll(20*time.Second)...)
		pass(5 * time.Minute)
		require.ElementsMatch(r, numbers(0, 10), got)
		for i := range 2 {
			require.NoError(r, r.aws.DeleteItem(tableName, awsfake.Item{attrStream: awsfake.String("orders"), attrShard: awsfake.String(shardName(i))}))
		}
		for range 20 {
			one.nothing(15 * time.Second)
			two.nothing(15 * time.Second)
		}
	})
}

func TestExplicitShardThatIsYetToComeDoesNotEndTheInput(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 2)
		in := r.open(`streams: [ "orders:1" ]`)
		pass(time.Minute)
		require.NoError(r, r.aws.DeleteStream("orders"))
		r.stream("orders", 1)
		in.nothing(2 * time.Minute)
		r.split(shardName(0))
		r.putTo("orders", 1, 0, 3)
		require.Equal(r, numbers(0, 3), together(in.read(3)))
	})
}

func TestInputIsClosedInTimeWhileListsHang(t *testing.T) {
	for _, after := range []time.Duration{time.Second, 5 * time.Second, 12 * time.Second} {
		t.Run(after.String(), func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.table()
				r.stream("orders", 4)
				in := r.open(`streams: [ orders ]`)
				r.aws.Inject(awsfake.Fault{Operation: "ListShards", Delay: time.Hour})
				pass(after)
				begin := time.Now()
				in.close()
				require.Less(r, time.Since(begin), 6*time.Second)
			})
		})
	}
}

func TestStreamThatIsNotFoundOnceIsReadOn(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		in := r.open(`{ streams: [ orders ], lease_period: 10m, rebalance_period: 10m }`)
		pass(time.Minute)
		r.aws.Inject(awsfake.Fault{Operation: "ListShards", Times: 2, Refuse: awsfake.NewError(awsfake.CodeResourceNotFound, "a bad day")})
		r.split(shardName(0))
		r.putTo("orders", 1, 0, 1)
		begin := time.Now()
		in.read(1)
		require.Less(r, time.Since(begin), 10*time.Second)
	})
}

func TestFaultThatGoesOnIsSummedUpOnceAMinute(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.open(`streams: [ orders ]`)
		pass(time.Minute)
		r.aws.Inject(awsfake.Fault{Operation: "Query", Refuse: awsfake.NewError("AccessDeniedException", "not allowed")})
		require.Less(r, r.calls(time.Hour), 70)
		require.NoError(r, r.aws.DeleteStream("orders"))
		pass(10 * time.Minute)
		require.Empty(r, r.journal.logged("may not be empty"))
	})
}
