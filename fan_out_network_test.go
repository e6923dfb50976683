package awskinesis

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
)

// fanOutOverTLS is an input that reads shards by fan-out over one network.
func fanOutOverTLS(t *testing.T, shards int, fields ...string) *networked {
	t.Helper()
	server := awsfake.New(awsfake.Options{})
	t.Cleanup(func() { require.NoError(t, server.Close()) })
	address := overTLS(t, server)
	inMode(t, "always")
	return newNetworked(t, server, address, shards, fields...)
}

// A shard whose output stands still holds up no other one of its connection.
func TestBlockedShardHoldsUpNoOtherOfItsConnection(t *testing.T) {
	const shards = 8
	n := fanOutOverTLS(t, shards)
	require.Eventually(t, func() bool { return len(n.aws.Subscriptions(n.stream)) == shards }, 30*time.Second, 50*time.Millisecond)
	n.relay.Cut() // so that all go over one connection afterwards
	pad := strings.Repeat("x", 50<<10)
	for i := range 400 { // far more than any window
		_, err := n.aws.PutTo(n.stream, shardName(0), "k", []byte(fmt.Sprint(i, pad)))
		require.NoError(t, err)
	}
	begun := time.Now()
	got := map[string]int{}
	for total := 0; total < 7*60; {
		if total%60 == 0 {
			for shard := 1; shard < shards; shard++ {
				for i := range 30 {
					_, err := n.aws.PutTo(n.stream, shardName(shard), "k", []byte(fmt.Sprint(i, pad)))
					require.NoError(t, err)
				}
			}
		}
		b := n.next()
		got[b.meta("kinesis_shard")]++
		if b.meta("kinesis_shard") != shardName(0) {
			n.ack(b)
			total++
		}
	}
	t.Logf("%v after %s", got, time.Since(begun))
}

// What an output holds up is in the window of the subscription, and old when it is read.
func TestBehindOfWhatWaitedInTheWindowIsNotThatOfItsEvent(t *testing.T) {
	n := fanOutOverTLS(t, 1, "checkpoint_limit: 1")
	require.Eventually(t, func() bool { return len(n.aws.Subscriptions(n.stream)) == 1 }, 30*time.Second, 50*time.Millisecond)
	put := map[string]time.Time{}
	for i := range 60 {
		content := fmt.Sprint(i, " ", "x")
		put[content] = time.Now()
		_, err := n.aws.PutTo(n.stream, shardName(0), "k", []byte(content))
		require.NoError(t, err)
		time.Sleep(100 * time.Millisecond) //nolint:forbidigo // real sockets, into whose windows the records are to come one by one
	}
	begun := time.Now()
	for range 60 {
		b := n.next()
		n.ack(b)
		time.Sleep(50 * time.Millisecond) //nolint:forbidigo // an output that is slow, over real sockets
		told := n.gauge("kinesis_millis_behind_latest", n.stream, shardName(0))
		lag := n.gauge("kinesis_lag_milliseconds", n.stream, shardName(0))
		age := time.Since(put[b.contents()[0]])
		if strings.HasSuffix(strings.Fields(b.contents()[0])[0], "0") {
			t.Logf("%s: %s old; behind %d, lag %d, read age %d", time.Since(begun), age, told, lag, n.gauge("kinesis_last_read_age_milliseconds", n.stream, shardName(0)))
		}
		// Of an older read it is not: for ten seconds it stands.
		if told != unknown && n.gauge("kinesis_last_read_age_milliseconds", n.stream, shardName(0)) < 2000 {
			require.GreaterOrEqual(t, told, age.Milliseconds()-2500)
		}
	}
}
