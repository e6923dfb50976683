package awskinesis

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/benthosdev/benthos/v4/public/service"
	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
)

func TestEveryRecordOfEveryShardArrivesInOrder(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.neverBack()
		r.stream("orders", 4)
		r.put("orders", 0, 1000)
		in := r.open(`streams: [ orders ]`)
		got := in.read(1000)
		r.put("orders", 1000, 1000)
		for shard, contents := range in.read(1000) {
			got[shard] = append(got[shard], contents...)
		}
		in.nothing(10 * time.Second)
		in.close()
		for i := range 4 {
			records, err := r.aws.Records("orders", shardName(i))
			require.NoError(r, err)
			var want []string
			for _, record := range records {
				want = append(want, string(record.Data))
			}
			require.Equal(r, want, got[shardName(i)])
			item := r.item("orders", shardName(i))
			require.Equal(r, records[len(records)-1].SequenceNumber, item.Sequence)
			require.Empty(r, item.Owner)
		}
	})
}

func TestMessageCarriesItsMetadata(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		_, sequence, err := r.aws.Put("orders", "customer 7", []byte("content"))
		require.NoError(r, err)
		_, _, err = r.aws.Put("orders", "", []byte("no key"))
		require.NoError(r, err)
		arrived := time.Now()
		in := r.open(`streams: [ "` + r.aws.StreamARN("orders") + `" ]`)

		b := in.next()
		meta := map[string]any{}
		require.NoError(r, b.messages[0].MetaWalkMut(func(key string, value any) error {
			meta[key] = value
			return nil
		}))
		at, err := time.Parse(time.RFC3339Nano, b.meta("kinesis_approximate_arrival_timestamp"))
		require.NoError(r, err)
		require.WithinDuration(r, arrived, at, time.Second)
		require.Equal(r, map[string]any{
			"kinesis_stream":                        r.aws.StreamARN("orders"),
			"kinesis_shard":                         shardName(0),
			"kinesis_sequence_number":               sequence,
			"kinesis_partition_key":                 "customer 7",
			"kinesis_approximate_arrival_timestamp": meta["kinesis_approximate_arrival_timestamp"],
			"kinesis_lease_term":                    "1",
		}, meta)
		require.IsType(r, "", meta["kinesis_approximate_arrival_timestamp"])

		_, present := in.next().messages[0].MetaGetMut("kinesis_partition_key")
		require.False(r, present)
	})
}

func TestStopAndStartRepeatsNothingAndMissesNothing(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.neverBack()
		r.stream("orders", 2)
		var got []string
		for i := range 5 {
			r.put("orders", i*100, 100)
			in := r.open(`streams: [ orders ]`)
			got = append(got, together(in.read(60))...) // and leaves 40
			in.close()
		}
		in := r.open(`streams: [ orders ]`)
		got = append(got, together(in.read(200))...)
		in.nothing(10 * time.Second)
		require.ElementsMatch(r, numbers(0, 500), got)
	})
}

func TestCrashRepeatsOnlyWhatWasNotCommitted(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.neverBack()
		r.stream("orders", 1)
		r.put("orders", 0, 100)
		in := r.open(`streams: [ orders ]`)
		in.read(70)
		pass(6 * time.Second) // past a commit
		in.read(10)
		in.crash()
		owner := r.item("orders", shardName(0)).Owner
		require.NotEmpty(r, owner)

		in = r.open(`streams: [ orders ]`)
		begin := time.Now()
		require.Equal(r, numbers(70, 30), in.read(30)[shardName(0)])
		require.GreaterOrEqual(r, time.Since(begin), 30*time.Second, "a dead owner is watched for its lease period")
		require.Less(r, time.Since(begin), 32*time.Second, "and no longer")
	})
}

func TestNothingIsCommittedBeforeItIsAcknowledged(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.put("orders", 0, 3)
		in := r.open(`streams: [ orders ]`)
		first, second, third := in.next(), in.next(), in.next()
		in.ack(third)
		in.ack(second)
		pass(time.Minute)
		require.Empty(r, r.item("orders", shardName(0)).Sequence)
		in.ack(first)
		pass(6 * time.Second)
		require.Equal(r, r.sequences("orders", shardName(0))[2], r.item("orders", shardName(0)).Sequence)
	})
}

func TestRejectedBatchIsReplayedAndHoldsTheCheckpoint(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.put("orders", 0, 2)
		in := r.open(`streams: [ orders ]`)
		first := in.next()
		require.NoError(r, first.ack(r.Context(), fmt.Errorf("the output is full")))
		in.ack(in.next())
		pass(10 * time.Second)
		in.ack(in.next())
		pass(10 * time.Second)
		require.Equal(r, r.sequences("orders", shardName(0))[1], r.item("orders", shardName(0)).Sequence)
	})
}

func TestRejectedBatchCountsAsHandledWithoutReplay(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.put("orders", 0, 1)
		in := r.open(`{ streams: [ orders ], auto_replay_nacks: false }`)
		require.NoError(r, in.next().ack(r.Context(), fmt.Errorf("the output refuses")))
		pass(10 * time.Second)
		require.Equal(r, r.sequences("orders", shardName(0))[0], r.item("orders", shardName(0)).Sequence)
	})
}

func TestBatchThatAStoppingPipelineGivesUpIsReadAgain(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.put("orders", 0, 1)
		in := r.open(`{ streams: [ orders ], auto_replay_nacks: false }`)
		require.NoError(r, in.next().ack(r.Context(), context.Canceled))
		in.close()
		require.Equal(r, []string{"0"}, r.open(`streams: [ orders ]`).read(1)[shardName(0)])
	})
}

func TestSequencesOfTheBuiltInInputAreResumed(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 3)
		for i := range 3 {
			r.putTo("orders", i, i*10, 10)
		}
		put := func(shard int, attributes awsfake.Item) {
			item := awsfake.Item{"StreamID": awsfake.String("orders"), "ShardID": awsfake.String(shardName(shard))}
			maps.Copy(item, attributes)
			require.NoError(r, r.aws.PutItem(tableName, item))
		}
		put(0, awsfake.Item{ // stopped cleanly
			"SequenceNumber": awsfake.String(r.sequences("orders", shardName(0))[3]),
		})
		put(1, awsfake.Item{ // crashed; its times are no business of ours
			"SequenceNumber": awsfake.String(r.sequences("orders", shardName(1))[5]),
			"ClientID":       awsfake.String("f47ac10b-58cc-4372-a567-0e02b2c3d479"),
			"LeaseTimeout":   awsfake.String(time.Now().Add(1000 * time.Hour).Format(time.RFC3339Nano)),
		})
		put(2, awsfake.Item{ // claimed, and crashed before its first commit
			"ClientID":     awsfake.String("f47ac10b-58cc-4372-a567-0e02b2c3d479"),
			"LeaseTimeout": awsfake.String(time.Now().Add(-time.Hour).Format(time.RFC3339Nano)),
		})

		in := r.open(`streams: [ orders ]`)
		require.Equal(r, map[string][]string{shardName(0): numbers(4, 6)}, in.read(6))
		require.Equal(r, map[string][]string{shardName(1): numbers(16, 4), shardName(2): numbers(20, 10)}, in.read(14))
		in.close()

		// And back: what it finds is what it would have written itself.
		items := r.items()
		for _, item := range items {
			shard := item["ShardID"].Text
			all := r.sequences("orders", shard)
			require.Equal(r, awsfake.String(all[len(all)-1]), item["SequenceNumber"])
			require.NotContains(r, item, "ClientID")
		}
	})
}

func TestItemInUseReadsAsTheBuiltInInputWritesIt(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.open(`streams: [ orders ]`)
		pass(time.Second)
		items := r.items()
		require.Len(r, items, 1)
		require.Equal(r, awsfake.String(""), items[0]["SequenceNumber"], "it fails on an item without one")
		require.NotEmpty(r, items[0]["ClientID"].Text)
		timeout, err := time.Parse(time.RFC3339Nano, items[0]["LeaseTimeout"].Text)
		require.NoError(r, err)
		require.WithinDuration(r, time.Now().Add(2*time.Minute), timeout, 2*time.Second, "four lease periods ahead, in which it leaves the shard alone")
	})
}

func TestBatchesFlushByCountAndOnTime(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		in := r.open(`{ streams: [ orders ], batching: { count: 10, period: 1s } }`)
		pass(20 * time.Second) // the shard is quiet, its period has passed many times

		r.put("orders", 0, 25)
		var sizes []int
		begin := time.Now()
		for n := 0; n < 25; {
			b := in.next()
			sizes = append(sizes, len(b.messages))
			n += len(b.messages)
			in.ack(b)
		}
		require.Contains(r, sizes, 10)
		require.Less(r, time.Since(begin), 3500*time.Millisecond)

		r.put("orders", 25, 1)
		begin = time.Now()
		require.Equal(r, []string{"25"}, in.read(1)[shardName(0)])
		require.Less(r, time.Since(begin), 3500*time.Millisecond, "the last batch is flushed too")
	})
}

func TestShardsAreBatchedApart(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 4)
		r.put("orders", 0, 400)
		in := r.open(`{ streams: [ orders ], batching: { count: 7, period: 1s } }`)
		for n := 0; n < 400; {
			b := in.next()
			for _, m := range b.messages {
				shard, _ := m.MetaGet("kinesis_shard")
				require.Equal(r, b.meta("kinesis_shard"), shard)
			}
			n += len(b.messages)
			in.ack(b)
		}
	})
}

func TestBatchFilteredToNothingCountsAsAcknowledged(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.put("orders", 0, 3000)
		in := r.open(`
streams: [ orders ]
checkpoint_limit: 10
batching:
  count: 5
  processors: [ { mapping: 'root = deleted()' } ]`)
		in.nothing(20 * time.Second)
		all := r.sequences("orders", shardName(0))
		require.Equal(r, all[2999], r.item("orders", shardName(0)).Sequence)
	})
}

func TestBatchProcessorsJoinAndMarkFailures(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.put("orders", 0, 10)
		in := r.open(`
streams: [ orders ]
batching:
  count: 5
  processors:
    - mapping: 'root = if content() == "3" { throw("three") } else { content() }'
    - archive: { format: lines }`)
		b := in.next()
		require.Equal(r, []string{"0\n1\n2\n3\n4"}, b.contents())
		in.ack(b)
		in.ack(in.next())
		in.close()
		require.Equal(r, r.sequences("orders", shardName(0))[9], r.item("orders", shardName(0)).Sequence)
	})
}

func TestCheckpointLimitOfOneIsLockStep(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.put("orders", 0, 5)
		in := r.open(`{ streams: [ orders ], checkpoint_limit: 1 }`)
		for i := range 5 {
			b := in.next()
			in.nothing(3 * time.Second)
			require.NoError(r, b.ack(r.Context(), fmt.Errorf("not yet")))
			b = in.next()
			require.Equal(r, numbers(i, 1), b.contents(), "the replay comes before the next")
			in.ack(b)
		}
	})
}

func TestCheckpointLimitCountsMessages(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.put("orders", 0, 40)
		in := r.open(`{ streams: [ orders ], checkpoint_limit: 10, batching: { count: 4 } }`)
		first, second := in.next(), in.next()
		in.nothing(time.Second) // a third would make twelve
		in.ack(second)
		in.nothing(time.Second) // the gap from the oldest counts
		in.ack(first)
		in.next()

		large := r.open(`{ streams: [ orders ], checkpoint_limit: 1, batching: { count: 4 } }`)
		in.close()
		require.Len(r, large.next().messages, 4)
		large.nothing(time.Second)
	})
}

func TestBlockedOutputKeepsItsLeasesAndReadsOnePageAhead(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 2)
		r.put("orders", 0, 100)
		in := r.open(`streams: [ orders ]`)
		b := in.next()
		pass(time.Minute)
		r.put("orders", 100, 100)
		calls := r.aws.Calls("GetRecords")
		owner := r.item("orders", shardName(0)).Owner
		for range 10 {
			pass(30 * time.Second)
			require.Equal(r, owner, r.item("orders", shardName(0)).Owner)
			require.Equal(r, owner, r.item("orders", shardName(1)).Owner)
		}
		require.LessOrEqual(r, r.aws.Calls("GetRecords")-calls, 2)
		in.ack(b)
		require.Len(r, together(in.read(199)), 199)
	})
}

func TestDeliveriesStopWhenTheLeaseCannotBeProved(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.put("orders", 0, 10)
		in := r.open(`streams: [ orders ]`)
		in.ack(in.next())
		remove := r.aws.Inject(awsfake.Fault{Service: "dynamodb", Refuse: awsfake.NewError(awsfake.CodeInternalServerError, "down")})
		pass(28 * time.Second)
		in.nothing(10 * time.Minute)
		remove()
		require.Equal(r, numbers(1, 9), in.read(9)[shardName(0)], "nobody else had it meanwhile")
	})
}

func TestLeasesThatCannotBeProvedHoldUpNobodyElse(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 2)
		r.stream("returns", 2)
		in := r.open(`streams: [ orders, returns ]`)
		pass(time.Minute)
		r.put("orders", 0, 10)
		pass(5 * time.Second) // for one of its batches to be offered
		r.aws.Inject(awsfake.Fault{Operation: "UpdateItem", Refuse: awsfake.NewError(awsfake.CodeInternalServerError, "down"), When: func(c *awsfake.Call) bool {
			return c.Key()[attrStream].Text == "orders"
		}})
		pass(3 * time.Minute)
		r.put("returns", 10, 100)
		require.ElementsMatch(r, numbers(10, 100), together(in.read(100)))
	})
}

func TestBatchThatWaitsForProofWhenTheInputIsClosedIsReadAgain(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.put("orders", 0, 1)
		in := r.open(`streams: [ orders ]`)
		b := in.next()
		remove := r.aws.Inject(awsfake.Fault{Service: "dynamodb", Refuse: awsfake.NewError(awsfake.CodeInternalServerError, "down")})
		pass(28 * time.Second)
		require.NoError(r, b.ack(r.Context(), fmt.Errorf("rejected")))
		read, closed := make(chan error), make(chan error)
		go func() {
			_, _, err := in.BatchInput.ReadBatch(r.Context())
			read <- err
		}()
		synctest.Wait()
		remove()
		go func() { closed <- in.BatchInput.Close(r.Context()) }()
		require.ErrorIs(r, <-read, service.ErrEndOfInput)
		require.NoError(r, <-closed)
		require.Empty(r, r.item("orders", shardName(0)).Owner)

		again := r.open(`streams: [ orders ]`)
		require.Equal(r, numbers(0, 1), again.next().contents())
	})
}

func TestRecordsOfALostShardAreNotDeliveredNorReplayed(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.put("orders", 0, 10)
		in := r.open(`streams: [ orders ]`)
		b := in.next()
		item := r.item("orders", shardName(0))
		require.NoError(r, r.aws.PutItem(tableName, awsfake.Item{
			"StreamID": awsfake.String("orders"), "ShardID": awsfake.String(shardName(0)),
			"ClientID": awsfake.String("thief"), "SequenceNumber": awsfake.String(item.Sequence),
			"LeaseTimeout": awsfake.String(time.Now().Add(time.Hour).Format(time.RFC3339Nano)),
		}))
		pass(31 * time.Second) // the next reading of the items finds out
		require.NoError(r, b.ack(r.Context(), fmt.Errorf("rejected")))
		in.nothing(10 * time.Second)
		require.Equal(r, "thief", r.item("orders", shardName(0)).Owner)
	})
}

func TestShardsAreReleasedSoonAfterTheTableTakesWritesAgain(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 40)
		in := r.open(`streams: [ orders ]`)
		pass(time.Minute)
		require.Equal(r, []int{40}, r.shares())
		remove := r.aws.Inject(awsfake.Fault{Operation: "UpdateItem", Refuse: awsfake.NewError(awsfake.CodeThroughputExceeded, "slow down")})
		begin, closed := time.Now(), make(chan error)
		go func() { closed <- in.BatchInput.Close(r.Context()) }()
		pass(200 * time.Millisecond)
		remove()
		require.NoError(r, <-closed)
		require.Empty(r, r.shares())
		require.Less(r, time.Since(begin), 600*time.Millisecond)
	})
}

func TestExplicitShardsEndTheInput(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 3)
		r.putTo("orders", 0, 0, 5)
		r.putTo("orders", 1, 5, 5)
		r.putTo("orders", 2, 10, 5)
		conf := `streams: [ "orders:0", "orders:shardId-000000000002" ]`
		in := r.open(conf)
		require.ElementsMatch(r, slices.Concat(numbers(0, 5), numbers(10, 5)), together(in.read(10)))
		for _, shard := range []int{0, 2} {
			_, _, err := r.aws.Split("orders", shardName(shard))
			require.NoError(r, err)
		}
		r.putTo("orders", 3, 15, 5)
		_, _, err := in.tryRead(time.Minute)
		require.ErrorIs(r, err, service.ErrEndOfInput)
		require.True(r, r.item("orders", shardName(0)).Finished)
		require.True(r, r.item("orders", shardName(2)).Finished)
		in.close()

		_, _, err = r.open(conf).tryRead(time.Minute)
		require.ErrorIs(r, err, service.ErrEndOfInput, "and so at every later start")
	})
}

func TestExplicitShardIsWaitedForAndTakenOver(t *testing.T) {
	for name, leave := range map[string]func(*process){"released": (*process).close, "crashed": (*process).crash} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.table()
				r.stream("orders", 1)
				r.put("orders", 0, 10)
				in := r.open(`streams: [ "orders:0" ]`)
				in.read(5)
				standby := r.open(`streams: [ "orders:0" ]`)
				standby.nothing(3 * time.Minute)
				pass(6 * time.Second)
				leave(in)
				require.Equal(r, map[string][]string{"0": numbers(5, 5)}, standby.read(5))
			})
		})
	}
}

func TestExplicitShardThatNeverWasIsAnError(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 2)
		in := r.input(`streams: [ "orders:7" ]`)
		require.EqualError(r, in.connect(r.Context(), r.clients()),
			"stream orders has no shard 7, its newest is shardId-000000000001: write one of its shards in `streams`")
	})
}

func TestChildrenComeAfterTheirParentsAreAcknowledged(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.neverBack()
		r.stream("orders", 2)
		r.putTo("orders", 0, 0, 5)
		r.putTo("orders", 1, 5, 5)
		in := r.open(`streams: [ orders ]`)
		in.read(9)
		last := in.next()
		child, err := r.aws.Merge("orders", shardName(0), shardName(1))
		require.NoError(r, err)
		require.Equal(r, shardName(2), child)
		r.putTo("orders", 2, 10, 5)
		in.nothing(3 * time.Minute) // one parent is not acknowledged

		in.ack(last)
		begin := time.Now()
		require.Equal(r, map[string][]string{child: numbers(10, 5)}, in.read(5))
		require.Less(r, time.Since(begin), time.Second)
	})
}

func TestClosedShardThatNobodyHasReadIsReadFirst(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.putTo("orders", 0, 0, 50)
		_, _, err := r.aws.Split("orders", shardName(0))
		require.NoError(r, err)
		r.putTo("orders", 1, 50, 50)
		_, _, err = r.aws.Split("orders", shardName(1))
		require.NoError(r, err)
		r.putTo("orders", 3, 100, 50)
		in := r.open(`streams: [ orders ]`)
		var order []string
		for range 150 {
			b := in.next()
			order = append(order, b.contents()...)
			in.ack(b)
		}
		require.Equal(r, numbers(0, 150), order)
		in.close()
		r.open(`streams: [ orders ]`).nothing(2 * time.Minute)
	})
}

func TestStartFromNowMissesNothingAfterTheStart(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 4)
		r.put("orders", 0, 100)
		pass(time.Minute)
		in := r.open(`{ streams: [ orders ], start_from_oldest: false }`)
		pass(2 * time.Second)
		in.close() // before the first commit
		r.put("orders", 100, 100)
		in = r.open(`{ streams: [ orders ], start_from_oldest: false }`)
		require.ElementsMatch(r, numbers(100, 100), together(in.read(100)))
		_, _, err := r.aws.Split("orders", shardName(0))
		require.NoError(r, err)
		r.put("orders", 200, 100)
		require.ElementsMatch(r, numbers(200, 100), together(in.read(100)))
	})
}

func TestSeveralStreamsAreReadSideBySide(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		for i := range 5 {
			r.stream(fmt.Sprint("stream-", i), 2)
			r.put(fmt.Sprint("stream-", i), i*10, 10)
		}
		in := r.open(`streams: [ "stream-0, stream-1", stream-2, "stream-3,stream-4" ]`)
		require.ElementsMatch(r, numbers(0, 50), together(in.read(50)))
	})
}

func TestTableIsCreatedAndWaitedFor(t *testing.T) {
	for billing, conf := range map[string]string{
		"PAY_PER_REQUEST": ``,
		"PROVISIONED":     `, billing_mode: PROVISIONED, read_capacity_units: 5, write_capacity_units: 7`,
	} {
		t.Run(billing, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.aws = awsfake.New(awsfake.Options{TableDelay: 10 * time.Second})
				r.stream("orders", 1)
				r.put("orders", 0, 1)
				in := r.open(`{ streams: [ orders ], dynamodb: { table: leases, create: true` + conf + ` } }`)
				in.read(1)
				require.Equal(r, 1, r.aws.Calls("CreateTable"))
			})
		})
	}
}

func TestTableThatCannotBeUsedIsAClearError(t *testing.T) {
	bubble(t, func(r *rig) {
		r.stream("orders", 1)
		in := r.input(`streams: [ orders ]`)
		require.ErrorContains(r, in.connect(r.Context(), r.clients()), `table "leases" does not exist: create it`)
		require.NoError(r, r.aws.CreateTable("leases", "ID", ""))
		require.ErrorContains(r, in.connect(r.Context(), r.clients()), `table "leases": its keys are not`)
	})
}

func TestConnectMayFailAnywhereAndBeCalledAgain(t *testing.T) {
	bubble(t, func(r *rig) {
		r.stream("orders", 1)
		r.put("orders", 0, 1)
		in := r.input(`{ streams: [ orders ], dynamodb: { table: leases, create: true } }`)
		for _, operation := range []string{"DescribeTable", "CreateTable", "ListShards"} {
			_, _, err := in.BatchInput.ReadBatch(r.Context())
			require.ErrorIs(r, err, service.ErrNotConnected)
			remove := r.aws.Inject(awsfake.Fault{Operation: operation, Refuse: awsfake.NewError("AccessDeniedException", "no")})
			require.ErrorContains(r, in.connect(r.Context(), r.clients()), "AccessDeniedException", operation)
			remove()
		}
		require.NoError(r, in.connect(r.Context(), r.clients()))
		in.read(1)
	})
}

func TestCloseReturnsWithinItsContext(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 3)
		require.NoError(r, r.input(`streams: [ orders ]`).BatchInput.Close(r.Context()), "before Connect")

		in := r.open(`streams: [ orders ]`)
		pass(time.Second)
		r.aws.Inject(awsfake.Fault{Service: "dynamodb", Delay: time.Hour, Times: 3})
		ctx, cancel := context.WithTimeout(r.Context(), 100*time.Millisecond)
		defer cancel()
		begin := time.Now()
		require.ErrorIs(r, in.BatchInput.Close(ctx), context.DeadlineExceeded)
		require.Equal(r, 100*time.Millisecond, time.Since(begin))
		in.close()
		require.Less(r, time.Since(begin), 15*time.Second)
		in.close()
		require.ErrorIs(r, in.connect(r.Context(), r.clients()), service.ErrEndOfInput, "a closed input stays closed")
	})
}

func TestGoneStreamIsReportedOnceAndReadAgainWhenItIsBack(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.put("orders", 0, 1)
		in := r.open(`streams: [ orders ]`)
		in.read(1)
		require.NoError(r, r.aws.DeleteStream("orders"))
		in.nothing(2 * time.Minute)
		r.stream("orders", 1)
		r.put("orders", 1, 1)
		require.Equal(r, []string{"1"}, in.read(1)[shardName(0)])
	})
}

func TestFaultsOfEveryOperationLoseNothing(t *testing.T) {
	for _, operation := range []string{"ListShards", "GetShardIterator", "GetRecords", "Query", "UpdateItem", "GetItem"} {
		for name, fault := range map[string]awsfake.Fault{
			"lost":     {Lose: true},
			"unheard":  {LoseAnswer: true},
			"late":     {Late: 3 * time.Second},
			"slow":     {Delay: 12 * time.Second},
			"refused":  {Refuse: awsfake.NewError(awsfake.CodeInternalServerError, "sorry")},
			"throttle": {Refuse: awsfake.NewError(awsfake.CodeThroughputExceeded, "slow down")},
		} {
			t.Run(strings.Join([]string{operation, name}, " "), func(t *testing.T) {
				bubble(t, func(r *rig) {
					r.table()
					r.neverBack()
					r.stream("orders", 2)
					in := r.open(`streams: [ orders ]`)
					var got []string
					for i := range 10 {
						r.put("orders", i*10, 10)
						fault.Operation, fault.Times = operation, 5
						remove := r.aws.Inject(fault)
						got = append(got, together(in.read(10))...)
						pass(7 * time.Second)
						remove()
					}
					in.close()
					require.Equal(r, numbers(0, 100), slices.SortedFunc(slices.Values(got), byNumber))
				})
			})
		}
	}
}

func TestBudgetIsSharedAndGivenBack(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 8)
		for shard := range 8 {
			r.putTo("orders", shard, shard*500, 500)
		}
		in := r.open(`{ streams: [ orders ], max_buffered_bytes: 100000, batching: { count: 300, period: 30s } }`)
		require.ElementsMatch(r, numbers(0, 4000), together(in.read(4000)))
		pass(3 * time.Second)
		require.Zero(r, in.running.budget.Held())
	})
}

func TestFullBudgetStopsReadingUntilAcknowledgementsCome(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 4)
		for shard := range 4 {
			for range 30 {
				_, err := r.aws.PutTo("orders", shardName(shard), "key", make([]byte, 1_000_000))
				require.NoError(r, err)
			}
		}
		in := r.open(`{ streams: [ orders ], max_buffered_bytes: 40000000 }`)
		pass(time.Hour)
		require.LessOrEqual(r, in.running.budget.Held(), int64(50_000_000))
		require.Zero(r, in.running.budget.Waited(), "they wait for the output, which has not asked for the first batch")
		for range 120 {
			in.ack(in.next())
		}
		pass(3 * time.Second)
		require.Zero(r, in.running.budget.Held())
	})
}

func TestTimeForWhichAShardWaitsForMemoryIsCounted(t *testing.T) {
	const shards = 8
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", shards)
		for shard := range shards {
			_, err := r.aws.PutTo("orders", shardName(shard), "key", make([]byte, 1_000_000))
			require.NoError(r, err)
		}
		in := r.open(`{ streams: [ orders ], max_buffered_bytes: 6000000 }`)
		counted := func() int64 {
			s := in.input.signals
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.waited
		}
		pass(5 * time.Minute)
		require.InDelta(r, 5*60_000, counted(), 10_000)
		require.Less(r, in.gauge("kinesis_buffered_bytes"), int64(5_400_000), "and less than nine tenths of it are in use")
		for range shards {
			in.ack(in.next())
			pass(time.Second)
		}
		waited := counted()
		pass(5 * time.Minute)
		require.Equal(r, waited, counted(), "nothing is left to read")
	})
}

func TestWireFormatIsThatOfEveryPoll(t *testing.T) {
	for format, want := range map[string]awsfake.Format{"json": awsfake.FormatJSON, "cbor": awsfake.FormatCBOR} {
		t.Run(format, func(t *testing.T) {
			server := awsfake.New(awsfake.Options{})
			t.Cleanup(func() { require.NoError(t, server.Close()) })
			url, err := server.Listen()
			require.NoError(t, err)
			require.NoError(t, server.CreateStream("orders", 2))
			require.NoError(t, server.CreateTable("leases", "StreamID", "ShardID"))
			r := &rig{T: t, aws: server}
			r.put("orders", 0, 100)
			var polls, others sync.Map // of formats
			server.OnCall(func(c *awsfake.Call) {
				if c.Operation == "GetRecords" || c.Operation == "GetShardIterator" {
					polls.Store(c.Format, true)
				} else if c.Service == "kinesis" {
					others.Store(c.Format, true)
				}
			})

			b := service.NewStreamBuilder()
			require.NoError(t, b.SetLoggerYAML("level: OFF"))
			require.NoError(t, b.AddInputYAML(`
aws_kinesis:
  streams: [ orders ]
  dynamodb: { table: leases }
  wire_format: `+format+`
  region: us-east-1
  endpoint: `+url+`
  credentials: { id: id, secret: secret }
`))
			var mu sync.Mutex
			var got []string
			all := make(chan struct{})
			require.NoError(t, b.AddConsumerFunc(func(_ context.Context, m *service.Message) error {
				content, err := m.AsBytes()
				mu.Lock()
				defer mu.Unlock()
				got = append(got, string(content))
				if len(got) == 100 {
					close(all)
				}
				return err
			}))
			stream, err := b.Build()
			require.NoError(t, err)
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			ended := make(chan error, 1)
			go func() { ended <- stream.Run(ctx) }()
			select {
			case <-all:
			case err := <-ended:
				require.FailNow(t, "the stream has ended", "%v", err)
			}
			require.NoError(t, stream.Stop(ctx))
			require.NoError(t, <-ended)
			require.ElementsMatch(t, numbers(0, 100), got)
			formats := func(m *sync.Map) (all []awsfake.Format) {
				m.Range(func(f, _ any) bool {
					all = append(all, f.(awsfake.Format))
					return true
				})
				return all
			}
			require.Equal(t, []awsfake.Format{want}, formats(&polls))
			require.NotContains(t, formats(&others), awsfake.FormatCBOR)
		})
	}
}

// An answer is in the format that it says, whatever was asked for: one in another fails no
// poll.
func TestAnswersInOtherFormatsAreReadAsWell(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.neverBack()
		r.stream("orders", 2)
		seed := rand.New(rand.NewPCG(1, 2))
		for _, f := range []awsfake.Format{awsfake.FormatJSON, awsfake.FormatCBOR, awsfake.FormatCBORInParts} {
			r.aws.Inject(awsfake.Fault{Operation: "GetRecords", Format: f, Probability: 0.3, Rand: seed})
		}
		in := r.open(`streams: [ orders ]`)
		var got []string
		for i := range 20 {
			r.put("orders", i*50, 50)
			got = append(got, together(in.read(50))...)
		}
		_, _, err := r.aws.Split("orders", shardName(0))
		require.NoError(r, err)
		r.put("orders", 1000, 100)
		got = append(got, together(in.read(100))...)
		require.ElementsMatch(r, numbers(0, 1100), got)
	})
}
