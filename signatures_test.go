package awskinesis

// Whole inputs in front of services that verify signatures.

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
)

// Whatever the clocks say, every call of an input is signed as the services want it: by
// the SDK and directly, of Kinesis, of subscriptions and of the table. Of a clock that is
// wrong each client hears once.
func TestSignaturesAreTakenAlsoWithAWrongClock(t *testing.T) {
	for name, c := range map[string]struct {
		offset time.Duration
		fields string
	}{
		"polling":                                {0, ""},
		"polling, the service ten minutes ahead": {10 * time.Minute, ""},
		"fan-out, the service a day behind":      {-24 * time.Hour, "enhanced_fan_out: { enabled: true, mode: always, consumer_name: us }"},
	} {
		t.Run(name, func(t *testing.T) {
			keys := &awsfake.Keys{}
			keys.Set("ASIAEXAMPLE", awsfake.AccessKey{Secret: "se/cret+", Token: "token=="})
			server := awsfake.New(awsfake.Options{Keys: keys, ClockOffset: c.offset})
			t.Cleanup(func() { require.NoError(t, server.Close()) })
			url := "https://" + overTLS(t, server)
			r := &rig{T: t, aws: server}
			r.stream("orders", 2)
			r.put("orders", 0, 10)
			in := r.input(fmt.Sprintf(`
streams: [ %q ]
dynamodb: { table: leases, create: true }
region: us-east-1
endpoint: %s
credentials: { id: ASIAEXAMPLE, secret: se/cret+, token: "token==" }
commit_period: 100ms
%s`, server.StreamARN("orders"), url, c.fields))
			t.Cleanup(in.close)
			require.NoError(t, in.BatchInput.Connect(t.Context()))
			require.ElementsMatch(t, numbers(0, 10), together(in.read(10)))
			for round := range 3 {
				r.put("orders", 10+round*10, 10)
				require.ElementsMatch(t, numbers(10+round*10, 10), together(in.read(10)))
			}
			in.close()
			for shard := range 2 {
				last := r.sequences("orders", shardName(shard))
				item, err := server.Item("leases", server.StreamARN("orders"), shardName(shard))
				require.NoError(t, err)
				require.Equal(t, last[len(last)-1], item[attrSequence].Text)
			}
			refused := 0
			for _, operation := range []string{
				"ListShards", "GetRecords", "GetShardIterator", "SubscribeToShard", "DescribeStreamConsumer", "RegisterStreamConsumer",
				"DescribeTable", "CreateTable", "Query", "GetItem", "UpdateItem", "DeleteItem",
			} {
				n := server.Refused(operation, awsfake.CodeInvalidSignature)
				if n > 0 {
					t.Logf("%s: %d refused of %d", operation, n, server.Calls(operation))
				}
				refused += n
			}
			if c.offset == 0 {
				require.Zero(t, refused)
			} else {
				require.LessOrEqual(t, refused, 12)
			}
		})
	}
}

// wallet has the credentials of a process, which may change.
type wallet struct {
	mu      sync.Mutex
	id      string
	expires time.Time
}

func (w *wallet) Retrieve(context.Context) (aws.Credentials, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return aws.Credentials{AccessKeyID: w.id, SecretAccessKey: "secret of " + w.id, SessionToken: "token", CanExpire: !w.expires.IsZero(), Expires: w.expires}, nil
}

func (w *wallet) put(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.id = id
}

// Credentials that expire before there are new ones cost the time until these come, and
// nothing else: no record and no shard, and the log says what is wrong.
func TestCredentialsExpireInTheMiddleOfARun(t *testing.T) {
	byPolling(t)
	for name, fields := range map[string]string{"polling": "", "fan-out": ", enhanced_fan_out: { enabled: true, mode: always, consumer_name: us }"} {
		t.Run(name, func(t *testing.T) {
			keys := &awsfake.Keys{}
			bubbleOf(t, awsfake.Options{EnforceLimits: true, Keys: keys}, func(r *rig) {
				key := func(expires time.Time) awsfake.AccessKey {
					return awsfake.AccessKey{Secret: "secret of " + fmt.Sprint(expires.Unix()), Token: "token", Expires: expires}
				}
				began := time.Now()
				first, second := began.Add(10*time.Minute), began.Add(time.Hour)
				name := func(expires time.Time) string { return fmt.Sprint(expires.Unix()) }
				keys.Set(name(first), key(first))
				r.stream("orders", 2)
				r.table()
				r.neverBack()
				own := &wallet{id: name(first)}
				in := r.input("{ streams: [ orders ], lease_period: 1m" + fields + " }")
				require.NoError(r, in.connect(r.Context(), r.clientsSigning(in.line, own)))
				r.put("orders", 0, 10)
				require.ElementsMatch(r, numbers(0, 10), together(in.read(10)))
				id := in.id()

				pass(time.Until(first) + time.Second)
				r.put("orders", 10, 10)
				pass(20 * time.Second)
				keys.Set(name(second), key(second))
				own.put(name(second))
				calls := r.requests("kinesis") + r.requests("dynamodb")
				require.ElementsMatch(r, numbers(10, 10), together(in.read(10)))
				require.Equal(r, id, in.id(), "the same member")
				require.Less(r, r.requests("kinesis")+r.requests("dynamodb")-calls, 200)
				expired := r.journal.logged("ExpiredTokenException")
				require.NotEmpty(r, expired)
				require.Contains(r, expired[0], "The credentials are temporary and have expired")
			})
		})
	}
}
