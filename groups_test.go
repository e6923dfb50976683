package awskinesis

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
)

// hashKeys returns the hash keys of a table, each once.
func (r *rig) hashKeys() (keys []string) {
	r.Helper()
	all, err := r.aws.Items(tableName)
	require.NoError(r, err)
	for _, item := range all {
		keys = append(keys, item[attrStream].Text)
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// store of a group has its items by the streams' own names.
func (r *rig) storeOf(group string) *checkpointer {
	return newCheckpointer(r.aws.DynamoDB(), tableConfig{name: tableName}, group)
}

func TestGroupsOfOneTableEachReadAllRecords(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.neverBack()
		r.stream("orders", 4)
		r.put("orders", 0, 100)
		live := r.open(`{ streams: [ orders ] }`)
		require.ElementsMatch(r, numbers(0, 100), together(live.read(100)))
		pass(10 * time.Second)
		before := r.itemsOf("orders")

		a := r.open(`{ streams: [ orders ], group: a }`)
		b := r.open(`{ streams: [ orders ], group: a.b }`)
		require.ElementsMatch(r, numbers(0, 100), together(a.read(100)))
		require.ElementsMatch(r, numbers(0, 100), together(b.read(100)))
		pass(10 * time.Second)
		live.nothing(time.Second)
		require.Equal(r, []string{"/clients", "/groups/a.b//clients", "/groups/a.b/orders", "/groups/a//clients", "/groups/a/orders", "orders"}, r.hashKeys())
		for shard, item := range r.itemsOf("orders") {
			require.Equal(r, before[shard][attrTerm], item[attrTerm], "nobody has touched what others read")
		}
		for shard, item := range r.itemsOf("/groups/a/orders") {
			require.Equal(r, a.id(), item[attrOwner].Text)
			stored, err := r.storeOf("a").List(r.Context(), "orders", true)
			require.NoError(r, err)
			require.Len(r, stored.Items, 4)
			require.Equal(r, "orders", stored.Items[0].Stream, "keys are by the stream's own name")
			require.NotEmpty(r, shard)
		}
		require.Len(r, r.journal.logged("is in group a of table leases, and reads its share of orders"), 1)
		require.Len(r, r.journal.logged("is in the group of table leases, and reads its share of orders"), 1)
	})
}

// itemsOf returns the items under a hash key, by their range keys.
func (r *rig) itemsOf(hash string) map[string]awsfake.Item {
	r.Helper()
	all, err := r.aws.Items(tableName)
	require.NoError(r, err)
	of := map[string]awsfake.Item{}
	for _, item := range all {
		if item[attrStream].Text == hash {
			of[item[attrShard].Text] = item
		}
	}
	return of
}

func TestMembersOfAGroupShareItsShardsAndTakeThemOver(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 8)
		live := &fleet{rig: r, conf: brisk}
		alone := live.join()
		f := &fleet{rig: r, conf: strings.Replace(brisk, "{", "{ group: nightly,", 1)}
		one, two := f.join(), f.join()
		pass(20 * time.Second)
		require.Equal(r, []int{4, 4, 8}, r.shares())
		r.putKeyed(0, 100, 10)
		pass(5 * time.Second)
		two.kill()
		r.putKeyed(100, 100, 10)
		pass(20 * time.Second)
		require.Equal(r, []int{8, 8}, r.shares())
		one.leave()
		alone.leave()
		require.ElementsMatch(r, f.puts(0, 200, 10), f.contents())
		require.ElementsMatch(r, f.puts(0, 200, 10), live.contents())
	})
}

// The built-in input sees nothing of a group that has a name, and goes on from nothing of
// it: an item under the short name of a shard would cost a write with each commit.
func TestExplicitShardsOfAGroupHaveOneItem(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.put("orders", 0, 10)
		in := r.open(`{ streams: [ "orders:0" ], group: a }`)
		require.Equal(r, map[string][]string{"0": numbers(0, 10)}, in.read(10))
		pass(10 * time.Second)
		require.Len(r, r.itemsOf("/groups/a/orders"), 1)
		require.Equal(r, r.sequences("orders", shardName(0))[9], r.itemsOf("/groups/a/orders")[shardName(0)][attrSequence].Text)
		require.Equal(r, []string{"/groups/a//clients", "/groups/a/orders"}, r.hashKeys())
	})
}

func TestGroupsOfOneTableHaveAConsumerEach(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 2)
		const conf = `{ streams: [ orders ], enhanced_fan_out: { enabled: true, deregister_on_close: true } }`
		names := func() (all []string) {
			consumers, err := r.aws.Consumers("orders")
			require.NoError(r, err)
			for _, c := range consumers {
				all = append(all, c.Name)
			}
			return all
		}
		live := r.open(conf)
		r.put("orders", 0, 10)
		require.ElementsMatch(r, numbers(0, 10), together(live.read(10)))
		a := r.open(strings.Replace(conf, "{", "{ group: a,", 1))
		require.ElementsMatch(r, numbers(0, 10), together(a.read(10)))
		r.put("orders", 10, 10)
		require.ElementsMatch(r, numbers(10, 10), together(live.read(10)))
		require.ElementsMatch(r, numbers(10, 10), together(a.read(10)))
		require.Len(r, names(), 2)
		require.Equal(r, 2, len(r.aws.Subscriptions("orders"))/2)

		a.close() // the last one of its group, whatever others there are in the table
		require.Equal(r, []string{"benthos-leases"}, names())
		r.put("orders", 20, 10)
		require.ElementsMatch(r, numbers(20, 10), together(live.read(10)))
		live.close()
		require.Empty(r, names())
	})
}

func TestWarningOfCheckpointsUnderTheOtherFormNamesTheKeyOfTheGroup(t *testing.T) {
	bubble(t, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.put("orders", 0, 10)
		in := r.open(`{ streams: [ "` + r.aws.StreamARN("orders") + `" ], group: a }`)
		in.read(10)
		pass(10 * time.Second)
		in.close()
		other := r.open(`{ streams: [ orders ] }`)
		require.Empty(r, r.journal.logged("the same stream written otherwise"), "those are of another group")
		other.close()
		r.open(`{ streams: [ orders ], group: a }`)
		require.Len(r, r.journal.logged("delete the items of /groups/a/orders from table leases"), 1)
	})
}
