package awskinesis

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
)

func (r *rig) tellLog() {
	for _, l := range r.journal.logged("") {
		r.Log(l)
	}
}

// While the consumer is looked for in vain nothing is read, and the input is not ready for as
// long as that lasts.
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

// It delivers a tenth of the time, and each call succeeds.
func TestBreakingSubscriptionIsTold(t *testing.T) {
	for name, f := range map[string]awsfake.StreamFault{
		"cut":       {Cut: true, After: 2},
		"exception": {Exception: awsfake.NewError(awsfake.CodeInternalFailure, "x"), After: 2},
		"kms":       {Exception: awsfake.NewError("KMSAccessDeniedException", "x"), After: 2},
		"throttled": {Exception: awsfake.NewError("LimitExceededException", "x"), After: 2},
		"corrupt":   {Corrupt: true, After: 2},
		"silence":   {Silence: true, After: 2},
	} {
		t.Run(name, func(t *testing.T) {
			bubbleOf(t, awsfake.Options{EnforceLimits: true}, func(r *rig) {
				r.table()
				r.stream("orders", 1)
				in := r.open(pushed)
				r.aws.InjectStream(f)
				o := attach(in, func() time.Duration { return 0 })
				defer o.end()
				n := 0
				most, open := int64(0), 0
				for end := time.Now().Add(10 * time.Minute); time.Now().Before(end); n++ {
					r.putTo("orders", 0, n, 1)
					pass(time.Second)
					most = max(most, in.gauge("kinesis_lag_milliseconds", "orders", shardName(0)))
					open += int(in.gauge("kinesis_subscriptions", "orders"))
				}
				r.Logf("calls %d, lag up to %d, open %d of 600 s", r.aws.Calls("SubscribeToShard"), most, open)
				r.tellLog()
				require.NotEmpty(r, r.journal.logged("reads of"))
			})
		})
	}
}

// The source that reads on after a suspension finds that no subscription could be had.
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
		require.NotEmpty(r, r.journal.logged("is read by polling now: no subscription to it could be had, or kept, for 30s"))
		require.EqualValues(r, 1, in.gauge("kinesis_read_shards", "orders", "polling"))
	})
}

// The service has one error for both.
func TestConsumerInCreationIsNotTakenForAnotherSubscriber(t *testing.T) {
	bubbleOf(t, awsfake.Options{EnforceLimits: true, ConsumerDelay: 5 * time.Minute}, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		out, err := kinesis.NewFromConfig(r.aws.AWSConfig()).RegisterStreamConsumer(r.Context(), &kinesis.RegisterStreamConsumerInput{
			StreamARN: aws.String(r.aws.StreamARN("orders")), ConsumerName: aws.String("mine"),
		})
		require.NoError(r, err)
		arn := *out.Consumer.ConsumerARN
		r.aws.Inject(awsfake.Fault{Operation: "DescribeStreamConsumer", Refuse: no})
		in := r.open(strings.Replace(pushed, "enabled: true", "enabled: true, consumer_arn: '"+arn+"'", 1))
		pass(3 * time.Minute)
		r.tellLog()
		require.Zero(r, in.gauge("kinesis_ready"))
		pass(5 * time.Minute)
		r.tellLog()
		require.EqualValues(r, 1, in.gauge("kinesis_ready"))
		require.Empty(r, r.journal.logged("Somebody else"))
	})
}

// Readiness that comes and goes pages again and again.
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

// A consumer may be waited for for long, of which no call fails.
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

// A subscription that brings something each time before it breaks is worse than polling.
func TestShardWhoseSubscriptionsBreakIsPolled(t *testing.T) {
	bubbleOf(t, awsfake.Options{EnforceLimits: true}, func(r *rig) {
		r.table()
		r.stream("orders", 1)
		in := r.open(strings.Replace(pushed, "enabled: true", "enabled: true, mode: auto", 1))
		o := attach(in, func() time.Duration { return 0 })
		defer o.end()
		r.aws.InjectStream(awsfake.StreamFault{Cut: true, After: 2})
		others := r.aws.Inject(awsfake.Fault{Operation: "GetRecords", Probability: 0.6, Rand: rand.New(rand.NewPCG(1, 2)), Refuse: awsfake.NewError(awsfake.CodeThroughputExceeded, "others")})
		from := 0
		r.load(1, &from, 2*time.Minute)
		others()
		r.load(1, &from, 10*time.Second)
		require.NotEmpty(r, r.journal.logged("is read by polling now: no subscription to it could be had, or kept"))
		for range 10 * 60 {
			r.load(1, &from, time.Second)
			require.EqualValues(r, 1, in.gauge("kinesis_read_shards", "orders", "polling"))
		}
	})
}

// Those that reading by polling has not.
func TestSignalsAreTrueInEachFaultOfFanOut(t *testing.T) {
	if *fanOutMode == "" {
		inMode(t, "always")
	}
	for _, f := range []trouble{
		{name: "an error of KMS in the stream", begin: func(r *rig, _ *output) func() {
			return r.aws.InjectStream(awsfake.StreamFault{Exception: awsfake.NewError("KMSDisabledException", "x"), After: 1})
		}, says: "reads of", ends: "work again after", most: 12},
		{name: "each subscription breaks", ready: true, begin: func(r *rig, _ *output) func() {
			return r.aws.InjectStream(awsfake.StreamFault{Cut: true, After: 2})
		}, says: "reads of", most: 12},
		{name: "consumer gone, and may not be registered", begin: func(r *rig, _ *output) func() {
			remove := r.aws.Inject(awsfake.Fault{Operation: "RegisterStreamConsumer", Refuse: no})
			require.NoError(r, r.aws.DeregisterConsumer("orders", "benthos-"+tableName))
			return remove
		}, says: "reads of", ends: "work again after", most: 12},
		{name: "consumer gone again and again", ready: true, begin: func(r *rig, _ *output) func() {
			done := make(chan struct{})
			go func() {
				defer close(done)
				for range 11 {
					time.Sleep(10 * time.Second) //nolint:forbidigo // virtual time
					_ = r.aws.DeregisterConsumer("orders", "benthos-"+tableName)
				}
			}()
			return func() { <-done }
		}, says: "was registered", most: 30},
		{name: "silence", begin: func(r *rig, _ *output) func() {
			a := r.aws.InjectStream(awsfake.StreamFault{Silence: true})
			b := r.aws.Inject(awsfake.Fault{Operation: "SubscribeToShard", Delay: time.Hour})
			return func() { a(); b() }
		}, says: "reads of", ends: "work again after", most: 12},
	} {
		t.Run(f.name, func(t *testing.T) {
			bubbleOf(t, awsfake.Options{}, func(r *rig) { f.run(r) })
		})
	}
}

func TestGaugesOfFanOutEndWithTheInput(t *testing.T) {
	bubbleOf(t, awsfake.Options{EnforceLimits: true}, func(r *rig) {
		r.table()
		r.stream("orders", 2)
		in := r.open(pushed)
		r.until(time.Minute, func() bool { return len(r.aws.Subscriptions("orders")) == 2 })
		in.close()
		pass(2 * time.Second)
		require.Zero(r, in.gauge("kinesis_subscriptions", "orders"))
		require.Zero(r, in.gauge("kinesis_read_shards", "orders", "fan_out"))
		require.EqualValues(r, -1, in.gauge("kinesis_subscription_silence_milliseconds", "orders", shardName(0)))
	})
}

// Who may not subscribe reads nothing, whatever the service calls it.
func TestReadsDoNotWorkAgainWhileSubscribingIsThrottled(t *testing.T) {
	bubbleOf(t, awsfake.Options{EnforceLimits: true}, func(r *rig) {
		r.table()
		r.stream("orders", 2)
		in := r.open(pushed)
		r.until(time.Minute, func() bool { return len(r.aws.Subscriptions("orders")) == 2 })
		pass(5 * time.Second)
		denied := r.aws.Inject(awsfake.Fault{Operation: "SubscribeToShard", Refuse: no})
		r.aws.InjectStream(awsfake.StreamFault{Cut: true, Times: 2})
		pass(30 * time.Second)
		denied()
		throttled := r.aws.Inject(awsfake.Fault{Operation: "SubscribeToShard", Refuse: awsfake.NewError(awsfake.CodeLimitExceeded, "Rate exceeded")})
		pass(3 * time.Minute)
		require.Empty(r, r.journal.logged("work again after"))
		throttled()
		pass(2 * time.Minute)
		require.Len(r, r.journal.logged("work again after"), 1)
		require.EqualValues(r, 1, in.gauge("kinesis_ready"))
	})
}
