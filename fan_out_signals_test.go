package awskinesis

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
)

func (r *rig) tellLog() {
	for _, l := range r.journal.logged("") {
		r.Log(l)
	}
}

func TestInputIsNotReadyWhileTheConsumerIsLookedForInVain(t *testing.T) {
	bubbleOf(t, awsfake.Options{EnforceLimits: true}, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		r.aws.Inject(awsfake.Fault{Operation: "DescribeStreamConsumer", Refuse: awsfake.NewError(awsfake.CodeLimitExceeded, "Rate exceeded")})
		in := r.open(strings.Replace(pushed, "lease_period: 5s", "lease_period: 30s", 1))
		defer r.tellLog()
		pass(3 * time.Minute)
		turned := 0
		for range 20 * 60 {
			pass(time.Second)
			if in.gauge("kinesis_ready") == 1 {
				turned++
			}
		}
		r.Logf("ready for %d s of 1200", turned)
		require.Zero(r, turned)
	})
}

func TestReadinessTurnsOnceWhateverFanOutIsRefused(t *testing.T) {
	for _, op := range []string{"SubscribeToShard", "RegisterStreamConsumer", "DescribeStreamConsumer", "DescribeStreamSummary"} {
		for _, code := range []string{"AccessDeniedException", "LimitExceededException", "InternalFailure", "ResourceNotFoundException"} {
			t.Run(op+"/"+code, func(t *testing.T) {
				bubbleOf(t, awsfake.Options{EnforceLimits: true}, func(r *rig) {
					r.table()
					r.stream("orders", 2)
					remove := r.aws.Inject(awsfake.Fault{Operation: op, Refuse: awsfake.NewError(code, "no")})
					in := r.open(pushed)
					o := attach(in, func() time.Duration { return 0 })
					defer o.end()
					was := int64(1)
					turns := 0
					for range 600 {
						pass(time.Second)
						if is := in.gauge("kinesis_ready"); is != was {
							was = is
							turns++
						}
					}
					remove()
					pass(2 * time.Minute)
					r.Logf("ready turned %d times, lag %d, %d lines", turns, in.gauge("kinesis_max_lag_milliseconds", "orders"), len(r.journal.logged("")))
					r.tellLog()
					require.LessOrEqual(r, turns, 1)
					require.EqualValues(r, 1, in.gauge("kinesis_ready"))
				})
			})
		}
	}
}

func TestInputIsNotReadyWhileItsFirstConsumerBecomesActive(t *testing.T) {
	bubbleOf(t, awsfake.Options{EnforceLimits: true, ConsumerDelay: 20 * time.Minute}, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		in := r.open(strings.Replace(pushed, "enabled: true", "enabled: true, consumer_activation_timeout: 1h", 1))
		pass(time.Minute + time.Second)
		for range 18 * 60 {
			pass(time.Second)
			require.Zero(r, in.gauge("kinesis_ready"))
		}
		pass(2 * time.Minute)
		r.tellLog()
		require.EqualValues(r, 1, in.gauge("kinesis_ready"))
	})
}

func TestWayIsTrueAfterAnOutageThatSuspendedTheShard(t *testing.T) {
	bubbleOf(t, awsfake.Options{EnforceLimits: true}, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		in := r.open(strings.Replace(pushed, "enabled: true", "enabled: true, mode: auto", 1))
		o := attach(in, func() time.Duration { return 0 })
		defer o.end()
		others := r.aws.Inject(awsfake.Fault{Operation: "GetRecords", Probability: 0.6, Rand: rand.New(rand.NewPCG(1, 2)), Refuse: awsfake.NewError(awsfake.CodeThroughputExceeded, "others")})
		from := 0
		r.load(1, &from, 90*time.Second)
		require.EqualValues(r, 1, in.gauge("kinesis_read_shards", "orders", "fan_out"))
		others()
		r.load(1, &from, time.Minute)
		remove := r.aws.Inject(awsfake.Fault{Lose: true})
		r.aws.InjectStream(awsfake.StreamFault{Cut: true, Times: 1})
		r.load(1, &from, 2*time.Minute)
		require.EqualValues(r, 1, in.gauge("kinesis_suspended_shards", "orders"))
		remove()
		r.load(1, &from, 20*time.Second)
		r.tellLog()
		require.Empty(r, r.aws.Subscriptions("orders"))
		require.EqualValues(r, 0, in.gauge("kinesis_read_shards", "orders", "fan_out"))
		require.NotEmpty(r, r.journal.logged("is read by polling now: no subscription to it could be had for 30s"))
		require.EqualValues(r, 1, in.gauge("kinesis_read_shards", "orders", "polling"))
	})
}
