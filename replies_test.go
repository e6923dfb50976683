package awskinesis

// Answers that are none of the services': of a portal, a proxy, a load balancer.

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
	"github.com/benthos-plugins/aws-kinesis/internal/lease"
)

// Nothing is lost, and no checkpoint goes back, while half of the requests of a service
// get an answer of another, before they take effect or after: one kind after the other, a
// second input joins meanwhile, and a shard is split.
func TestAnswersOfOthersLoseNothing(t *testing.T) {
	byPolling(t)
	for name, c := range map[string]struct{ service, fields string }{
		"Kinesis by polling": {"kinesis", ""},
		"Kinesis by fan-out": {"kinesis", "enhanced_fan_out: { enabled: true, mode: always, consumer_name: us }\n"},
		"DynamoDB":           {"dynamodb", ""},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) { r.replied(c.service, c.fields) })
		})
	}
}

func (r *rig) replied(service, fields string) {
	r.stream("orders", 2)
	r.table()
	r.neverBack()
	conf := "streams: [ orders ]\nlease_period: 6s\nrebalance_period: 2s\ncommit_period: 1s\n" + fields
	first, second := r.open(conf), r.input(conf)
	r.put("orders", 0, 10)
	got := first.read(10)

	dice, put, connected := rand.New(rand.NewPCG(1, 2)), 10, false
	read := func(within time.Duration) {
		r.collect(first, got, within)
		if connected {
			r.collect(second, got, within)
		}
	}
	for i, name := range slices.Sorted(maps.Keys(awsfake.Replies())) {
		reply := awsfake.Replies()[name]
		before := r.aws.Inject(awsfake.Fault{Service: service, Probability: 0.25, Rand: dice, Reply: &reply})
		after := r.aws.Inject(awsfake.Fault{Service: service, Probability: 0.3, Rand: dice, ReplyAfter: &reply})
		began, calls := time.Now(), r.requests(service)
		for time.Since(began) < 8*time.Second {
			connected = connected || second.connect(r.Context(), r.clientsOver(second.line)) == nil
			r.put("orders", put, 5)
			put += 5
			read(time.Second)
		}
		require.Less(r, r.requests(service)-calls, 60*int(time.Since(began)/time.Second), "a storm: %s", name)
		before()
		after()
		if i == 5 {
			_, _, err := r.aws.Split("orders", shardName(0))
			require.NoError(r, err)
		}
	}

	want := r.all("orders")
	require.Len(r, want, 4)
	for range 3 {
		read(10 * time.Second)
	}
	first.close()
	second.close()
	for shard, contents := range want {
		require.Equal(r, contents, once(got[shard]), "each record, in order: %s", shard)
		last := r.sequences("orders", shard)
		require.Equal(r, last[len(last)-1], r.item("orders", shard).Sequence, shard)
	}
}

// An answer that says nothing says nothing of a member or a shard either: neither that a
// write was done nor that an item is not there.
func TestAnswerThatSaysNothingEndsNoSession(t *testing.T) {
	for _, name := range []string{"200 with nothing", "200 with {}", "204"} {
		t.Run(name, func(t *testing.T) {
			reply := awsfake.Replies()[name]
			bubble(t, func(r *rig) {
				r.stream("orders", 2)
				r.table()
				c := r.open(`{ streams: [ orders ], lease_period: 30s }`)
				r.put("orders", 0, 10)
				c.read(10)
				pass(time.Minute)
				id := c.id()
				stop := r.aws.Inject(awsfake.Fault{Service: "dynamodb", Reply: &reply})
				pass(20 * time.Second)
				stop()
				pass(time.Minute)
				require.Equal(r, id, c.id())
				r.put("orders", 10, 10)
				require.ElementsMatch(r, numbers(10, 10), together(c.read(10)))
				require.Equal(r, id, r.item("orders", shardName(0)).Owner)
			})
		})
	}
}

// To the store an answer that says nothing is a failure, whatever was asked: no list is
// not an empty one, no item not one that is gone, and no word not a write that was done.
func TestAnswerThatSaysNothingIsAFailureToTheStore(t *testing.T) {
	key := lease.Key{Stream: "orders", Shard: shardName(0)}
	owned := lease.Grant{Link: lease.Link{Owner: "us", Term: "t1", Token: "1"}}
	for operation, call := range map[string]func(context.Context, *checkpointer, lease.Item) error{
		"list": func(ctx context.Context, c *checkpointer, _ lease.Item) error {
			_, err := c.List(ctx, "orders", true)
			return err
		},
		"members": func(ctx context.Context, c *checkpointer, _ lease.Item) error {
			_, err := c.ListMembers(ctx, true)
			return err
		},
		"get": func(ctx context.Context, c *checkpointer, seen lease.Item) error {
			_, err := c.Get(ctx, seen.Key)
			return err
		},
		"member": func(ctx context.Context, c *checkpointer, _ lease.Item) error {
			_, _, err := c.Member(ctx, "us")
			return err
		},
		"claim": func(ctx context.Context, c *checkpointer, seen lease.Item) error {
			_, err := c.Claim(ctx, seen, owned)
			return err
		},
		"join": func(ctx context.Context, c *checkpointer, _ lease.Item) error {
			return c.Join(ctx, lease.Member{ID: "us", Token: "1", Period: time.Minute})
		},
		"remove": func(ctx context.Context, c *checkpointer, seen lease.Item) error {
			_, err := c.RemoveItem(ctx, seen)
			return err
		},
	} {
		for _, name := range []string{"200 with nothing", "200 with {}", "200 with null", "204"} {
			t.Run(operation+", "+name, func(t *testing.T) {
				bubble(t, func(r *rig) {
					r.table()
					store := r.store()
					_, err := store.Claim(r.Context(), lease.Item{Key: key}, owned)
					require.NoError(r, err)
					seen, err := store.Get(r.Context(), key)
					require.NoError(r, err)
					reply := awsfake.Replies()[name]
					r.aws.Inject(awsfake.Fault{Service: "dynamodb", Reply: &reply})
					err = call(r.Context(), store, seen)
					require.Error(r, err)
					require.NotErrorIs(r, err, lease.ErrConflict)
				})
			})
		}
	}
}

// requests counts those of a service so far.
func (r *rig) requests(service string) (n int) {
	for _, operation := range map[string][]string{
		"kinesis":  {"GetRecords", "GetShardIterator", "ListShards", "SubscribeToShard", "DescribeStreamSummary", "DescribeStreamConsumer", "RegisterStreamConsumer"},
		"dynamodb": {"GetItem", "UpdateItem", "Query", "DeleteItem", "PutItem", "DescribeTable"},
	}[service] {
		n += r.aws.Calls(operation)
	}
	return n
}

// all returns the contents of a stream by shard.
func (r *rig) all(stream string) map[string][]string {
	r.Helper()
	shards, err := r.aws.Shards(stream)
	require.NoError(r, err)
	all := map[string][]string{}
	for _, shard := range shards {
		records, err := r.aws.Records(stream, shard.ID)
		require.NoError(r, err)
		for _, record := range records {
			all[shard.ID] = append(all[shard.ID], string(record.Data))
		}
	}
	return all
}

// collect reads and acknowledges until nothing has come for a while.
func (r *rig) collect(c *process, got map[string][]string, within time.Duration) {
	r.Helper()
	for {
		b, ok := c.batch(within)
		if !ok {
			return
		}
		shard := b.meta("kinesis_shard")
		got[shard] = append(got[shard], b.contents()...)
		c.ack(b)
	}
}

// once keeps the first of each.
func once(contents []string) (first []string) {
	for _, content := range contents {
		if !slices.Contains(first, content) {
			first = append(first, content)
		}
	}
	return first
}
