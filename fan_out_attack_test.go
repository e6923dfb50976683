package awskinesis

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
)

// Records of a stream that cannot be read any more, whose batch will not fill up, do not
// keep the budget from a stream that is well.
func TestStreamThatCannotBeReadLeavesTheBudgetToOthers(t *testing.T) {
	for mode, fanOut := range map[string]string{"polling": "enabled: false", "always": "enabled: true", "auto": "enabled: true, mode: auto"} {
		t.Run(mode, func(t *testing.T) {
			bubbleOf(t, awsfake.Options{EnforceLimits: true}, func(r *rig) {
				r.table()
				r.stream("orders", 1)
				r.stream("ill", 1)
				conf := strings.Replace(pushed, "enabled: true", fanOut, 1)
				conf = strings.Replace(conf, "{ streams: [ orders ]", "{ streams: [ orders, ill ], max_buffered_bytes: 1MiB, batching: { count: 50 }", 1)
				in := r.open(conf)
				r.until(time.Minute, func() bool { return r.heldBy(in) == 2 })
				pass(10 * time.Second)
				for range 19 {
					_, err := r.aws.PutTo("ill", shardName(0), "key", bytes.Repeat([]byte("x"), 10<<10))
					require.NoError(r, err)
				}
				pass(5 * time.Second) // a silent shard is polled each two, and the gauge told each one
				require.Positive(r, in.gauge("kinesis_buffered_bytes"))
				for _, operation := range []string{"SubscribeToShard", "GetShardIterator", "GetRecords"} {
					r.aws.Inject(awsfake.Fault{Operation: operation, When: func(c *awsfake.Call) bool { return c.Stream() == "ill" }, Refuse: awsfake.NewError("AccessDeniedException", "no")})
				}
				r.aws.InjectStream(awsfake.StreamFault{When: func(s awsfake.Subscription) bool { return s.Stream == "ill" }, Close: true})
				pass(10 * time.Second)
				o := attach(in, func() time.Duration { return 0 })
				defer o.end()
				for i := range 500 {
					_, err := r.aws.PutTo("orders", shardName(0), "key", fmt.Appendf(nil, "%d:%s", i, bytes.Repeat([]byte("x"), 10<<10)))
					require.NoError(r, err)
				}
				pass(10 * time.Minute)
				require.GreaterOrEqual(r, len(o.acked), 450, "%d bytes are held", in.gauge("kinesis_buffered_bytes"))
			})
		})
	}
}

// A process that stops while its consumer is being made leaves none behind.
func TestProcessThatStopsAsItStartsDeregistersItsConsumer(t *testing.T) {
	bubbleOf(t, awsfake.Options{EnforceLimits: true, ConsumerDelay: 30 * time.Second}, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		in := r.open(strings.Replace(pushed, "enabled: true", "enabled: true, deregister_on_close: true", 1))
		r.until(time.Minute, func() bool { return len(r.journal.logged("was registered")) == 1 })
		pass(10 * time.Second)
		in.close()
		pass(time.Minute)
		consumers, err := r.aws.Consumers("orders")
		require.NoError(r, err)
		require.Empty(r, consumers, "%q", r.journal.logged(""))
	})
}

// Two processes of a group that stop at once leave no consumer.
func TestGroupThatStopsAtOnceDeregistersItsConsumer(t *testing.T) {
	bubbleOf(t, awsfake.Options{EnforceLimits: true, StaleReads: 200 * time.Millisecond}, func(r *rig) {
		r.table()
		r.stream("orders", 4)
		conf := strings.Replace(pushed, "enabled: true", "enabled: true, deregister_on_close: true", 1)
		a, b := r.open(conf), r.open(conf)
		r.until(time.Minute, func() bool { return r.heldBy(a) == 2 && r.heldBy(b) == 2 })
		pass(10 * time.Second)
		r.aws.Inject(awsfake.Fault{Service: "dynamodb", Delay: 50 * time.Millisecond})
		done := make(chan bool)
		go func() { a.close(); done <- true }()
		b.close()
		<-done
		pass(time.Minute)
		consumers, err := r.aws.Consumers("orders")
		require.NoError(r, err)
		require.Empty(r, consumers, "%q", r.journal.logged(""))
	})
}

// A stream that is made anew under the name of one that was read by fan-out is read.
func TestStreamMadeAnewIsReadByFanOutWholly(t *testing.T) {
	bubbleOf(t, awsfake.Options{EnforceLimits: true}, func(r *rig) {
		r.table()
		r.stream("orders", 2)
		in := r.open(strings.Replace(pushed, "{ streams", "{ batching: { count: 7 }, streams", 1))
		o := attach(in, func() time.Duration { return 0 })
		defer o.end()
		r.until(time.Minute, func() bool { return r.heldBy(in) == 2 })
		r.putTo("orders", 0, 0, 5)
		pass(5 * time.Second)
		require.NoError(r, r.aws.DeleteStream("orders"))
		pass(time.Minute)
		r.stream("orders", 2)
		r.putTo("orders", 1, 5, 9)
		pass(5 * time.Minute)
		o.mu.Lock()
		defer o.mu.Unlock()
		require.Len(r, o.acked, 12, "%v %q", o.acked, r.journal.logged(""))
	})
}
