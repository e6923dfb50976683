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
				pass(2 * time.Second)
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
