package awskinesis

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
	"github.com/benthos-plugins/aws-kinesis/internal/kpl"
	"github.com/benthos-plugins/aws-kinesis/internal/kpl/kpltest"
	"github.com/benthos-plugins/aws-kinesis/internal/lease"
)

const deaggregating = `{ streams: [ orders ], deaggregate: true }`

// putAggregate stores an aggregate of n user records with numbered contents.
func (r *rig) putAggregate(stream string, shard, from, n int) (sequence string) {
	r.Helper()
	var users []kpl.Record
	for i := from; i < from+n; i++ {
		users = append(users, kpl.Record{Data: fmt.Append(nil, i), PartitionKey: fmt.Sprint("key ", i)})
	}
	sequence, err := r.aws.PutTo(stream, shardName(shard), "a", kpltest.Encode(users))
	require.NoError(r, err)
	return sequence
}

// within is a position inside of one of two records that follow one another.
func within(before, record string, count int) lease.Position {
	return lease.Position{Sequence: before, Within: lease.Within{Sequence: record, Count: count}}
}

func TestStopAndStartInsideOfAnAggregateRepeatsNothingAndMissesNothing(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.neverBack()
		r.stream("orders", 1)
		r.putTo("orders", 0, 0, 10)
		r.putAggregate("orders", 0, 10, 500)
		r.putTo("orders", 0, 510, 10)
		r.putAggregate("orders", 0, 520, 80)
		all := r.sequences("orders", shardName(0))
		var got []string
		for i, n := range []int{5, 105, 200, 150, 55, 40, 45} {
			in := r.open(deaggregating)
			got = append(got, in.read(n)[shardName(0)]...)
			in.close()
			require.Equal(r, numbers(0, len(got)), got, "start %d", i)
			if len(got) == 310 {
				require.Equal(r, within(all[9], all[10], 300), r.item("orders", shardName(0)).Position())
			}
		}
		require.Equal(r, lease.After(all[len(all)-1]), r.item("orders", shardName(0)).Position())
	})
}

func TestCrashInsideOfAnAggregateRepeatsOnlyWhatWasNotCommitted(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.neverBack()
		r.stream("orders", 1)
		first := r.putAggregate("orders", 0, 0, 5000)
		in := r.open(deaggregating)
		in.read(70)
		pass(6 * time.Second) // past a commit
		in.read(10)
		in.crash()
		require.Equal(r, within("", first, 70), r.item("orders", shardName(0)).Position())

		in = r.open(deaggregating)
		require.Equal(r, numbers(70, 4930), in.read(4930)[shardName(0)])
		in.close()
		require.Equal(r, lease.After(first), r.item("orders", shardName(0)).Position())
	})
}

func TestShardIsHandedOverInsideOfAnAggregate(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.neverBack()
		r.stream("orders", 2)
		for shard := range 2 {
			r.putAggregate("orders", shard, 1000*shard, 400)
		}
		one := r.open(deaggregating)
		got := together(one.read(300)) // of both
		two := r.open(deaggregating)
		pass(time.Minute)
		for _, in := range []*process{one, two} {
			for {
				b, ok := in.batch(10 * time.Second)
				if !ok {
					break
				}
				got = append(got, b.contents()...)
				in.ack(b)
			}
		}
		require.ElementsMatch(r, append(numbers(0, 400), numbers(1000, 400)...), got, "none is missing, none comes twice")
		require.NotEqual(r, r.item("orders", shardName(0)).Owner, r.item("orders", shardName(1)).Owner)
	})
}

func TestRejectedUserRecordIsReplayedAndHoldsTheCheckpoint(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		sequence := r.putAggregate("orders", 0, 0, 4)
		in := r.open(deaggregating)
		in.ack(in.next())
		second := in.next()
		require.Equal(r, []string{"1"}, second.contents())
		in.ack(in.next())
		require.NoError(r, second.ack(r.Context(), fmt.Errorf("the output is full")))
		pass(10 * time.Second)
		require.Equal(r, within("", sequence, 1), r.item("orders", shardName(0)).Position())
		second = in.next()
		require.Equal(r, []string{"1"}, second.contents())
		in.ack(second)
		pass(10 * time.Second)
		require.Equal(r, within("", sequence, 3), r.item("orders", shardName(0)).Position())
	})
}

func TestWhoeverMovesTheSequenceHasUserRecordsReadAgain(t *testing.T) {
	for name, test := range map[string]struct {
		move func(r *rig, all []string, stored awsfake.Item) awsfake.Item
		from int // the first that comes
	}{
		"nobody": {func(_ *rig, _ []string, stored awsfake.Item) awsfake.Item { return stored }, 15},
		"built-in input that has committed nothing new": {func(_ *rig, all []string, stored awsfake.Item) awsfake.Item {
			return awsfake.Item{attrStream: stored[attrStream], attrShard: stored[attrShard], attrSequence: awsfake.String(all[1])}
		}, 10},
		"built-in input that has committed the next record": {func(_ *rig, all []string, stored awsfake.Item) awsfake.Item {
			return awsfake.Item{attrStream: stored[attrStream], attrShard: stored[attrShard], attrSequence: awsfake.String(all[2])}
		}, 20},
		"built-in input that has yielded": {func(_ *rig, all []string, stored awsfake.Item) awsfake.Item {
			stored[attrSequence] = awsfake.String(all[2])
			return stored
		}, 20},
		"operator who wants a record again": {func(_ *rig, all []string, stored awsfake.Item) awsfake.Item {
			stored[attrSequence] = awsfake.String(all[0])
			return stored
		}, 1},
		"operator who wants all again": {func(_ *rig, _ []string, stored awsfake.Item) awsfake.Item {
			stored[attrSequence] = awsfake.String("")
			return stored
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.table()
				r.stream("orders", 1)
				r.putTo("orders", 0, 0, 1)
				r.putAggregate("orders", 0, 1, 9)
				r.putAggregate("orders", 0, 10, 10)
				r.putAggregate("orders", 0, 20, 10)
				all := r.sequences("orders", shardName(0))
				in := r.open(deaggregating)
				in.read(15)
				in.close()
				require.Equal(r, within(all[1], all[2], 5), r.item("orders", shardName(0)).Position())
				stored, err := r.aws.Item(tableName, "orders", shardName(0))
				require.NoError(r, err)
				require.NoError(r, r.aws.PutItem(tableName, test.move(r, all, stored)))

				in = r.open(deaggregating)
				require.Equal(r, numbers(test.from, 30-test.from), in.read(30 - test.from)[shardName(0)])
			})
		})
	}
}

func TestLiteralItemHasWholeRecordsAlone(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		first := r.putAggregate("orders", 0, 0, 10)
		second := r.putAggregate("orders", 0, 10, 10)
		const conf = `{ streams: [ "orders:0" ], deaggregate: true }`
		in := r.open(conf)
		in.read(15)
		in.close()
		require.Equal(r, within(first, second, 5), r.item("orders", shardName(0)).Position())
		require.Equal(r, lease.After(first), r.item("orders", "0").Position())
		in = r.open(conf)
		require.Equal(r, numbers(15, 5), in.read(5)["0"])
		in.close()
		require.Equal(r, lease.After(second), r.item("orders", "0").Position())
	})
}

func TestReadingGoesOnInsideOfAnAggregateWhenTheItemIsDeleted(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		sequence := r.putAggregate("orders", 0, 0, 100)
		in := r.open(deaggregating)
		got := in.read(40)[shardName(0)]
		require.NoError(r, r.aws.DeleteItem(tableName, awsfake.Item{attrStream: awsfake.String("orders"), attrShard: awsfake.String(shardName(0))}))
		pass(30 * time.Second)
		require.Equal(r, within("", sequence, 40), r.item("orders", shardName(0)).Position(), "it is made anew")
		for len(got) < 100 {
			b := in.next()
			got = append(got, b.contents()...)
			in.ack(b)
		}
		require.Equal(r, numbers(0, 100), got)
		in.nothing(10 * time.Second)
	})
}

func TestForeignUserRecordsAreKeptOrDroppedByWhoMayRead(t *testing.T) {
	for conf, want := range map[string][]string{
		deaggregating: {"0", "1", "2", "9"},
		`{ streams: [ orders ], deaggregate: true, deaggregate_foreign: drop }`:     {"9"},
		`{ streams: [ "orders:1" ], deaggregate: true, deaggregate_foreign: keep }`: {"0", "1", "2", "9"},
		`{ streams: [ "orders:1" ], deaggregate: true, deaggregate_foreign: drop }`: {"9"},
	} {
		t.Run(conf, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.table()
				r.stream("orders", 2)
				upper := "340282366920938463463374607431768211455"
				_, err := r.aws.PutTo("orders", shardName(1), "a", kpltest.Encode([]kpl.Record{
					{Data: []byte("0"), ExplicitHashKey: upper}, {Data: []byte("1"), ExplicitHashKey: "7"}, {Data: []byte("2"), ExplicitHashKey: upper},
				}))
				require.NoError(r, err)
				last, err := r.aws.PutTo("orders", shardName(1), "a", kpltest.Encode([]kpl.Record{{Data: []byte("9"), ExplicitHashKey: upper}}))
				require.NoError(r, err)
				in := r.open(conf)
				require.Equal(r, want, together(in.read(len(want))))
				in.nothing(10 * time.Second)
				require.Equal(r, lease.After(last), r.item("orders", shardName(1)).Position())
			})
		})
	}
}

func TestAggregatesComeAsTheyAreByDefault(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.putAggregate("orders", 0, 0, 3)
		b := r.open(`{ streams: [ orders ] }`).next()
		users, err := kpl.Decode([]byte(b.contents()[0]))
		require.NoError(r, err)
		require.Len(r, users, 3)
	})
}
