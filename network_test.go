package awskinesis

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
	"github.com/benthos-plugins/aws-kinesis/internal/awsfake/relay"
	"github.com/benthos-plugins/aws-kinesis/internal/session"
)

// attempt is the time-out of attempts where a test waits for one in real time:
// long enough for a machine that has much else to do.
const attempt = 2 * time.Second

// A network that drops the packets of all connections, without closing any, costs
// a shard one attempt: package session tests that to the instant. This is about
// what becomes of it in real time, through sockets, TLS and the SDK: that all
// shards flow again within the 12 s that it takes with attempts of 10 s, and that
// no lease is lost meanwhile.
func TestShardsFlowAgainAfterTheNetworkFellSilent(t *testing.T) {
	server := awsfake.New(awsfake.Options{EnforceLimits: true})
	t.Cleanup(func() { require.NoError(t, server.Close()) })
	address := overTLS(t, server)

	const limit = session.AttemptTimeout + 2*time.Second
	for _, c := range []struct {
		name   string
		shards int
		cut    func(*relay.Relay) int
		outage time.Duration // of new connections, too
	}{
		{"four shards", 4, (*relay.Relay).Cut, 0},
		{"many shards", 64, (*relay.Relay).Cut, 0},
		{"hundreds of shards", 300, (*relay.Relay).Cut, 0},
		{"half of the connections", 65, (*relay.Relay).CutHalf, 0},
		{"no new connections at first", 16, (*relay.Relay).Cut, 3 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n := newNetworked(t, server, address, c.shards)
			for round := range 3 {
				n.flow(round, time.Minute)
			}

			n.relay.Block(c.outage > 0)
			cut := time.Now()
			require.NotZero(t, c.cut(n.relay))
			heal := time.AfterFunc(c.outage, func() { n.relay.Block(false) })
			defer heal.Stop()
			n.flow(3, c.outage+limit)
			t.Logf("%d shards flow again after %s", c.shards, time.Since(cut).Round(time.Millisecond))

			require.Zero(t, n.moves.Load(), "no lease is lost")
			require.Empty(t, n.journal.logged("lost"))
		})
	}
}

// overTLS has a server listen, and the environment trust it, and returns its address.
func overTLS(t *testing.T, server *awsfake.Server) string {
	t.Helper()
	url, ca, err := server.ListenTLS()
	require.NoError(t, err)
	bundle := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(bundle, ca, 0o600))
	t.Setenv("AWS_CA_BUNDLE", bundle)
	t.Setenv("AWS_CONFIG_FILE", os.DevNull)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", os.DevNull)
	t.Setenv("NO_PROXY", "127.0.0.1")
	return strings.TrimPrefix(url, "https://")
}

// networked is an input that reaches the services through a relay.
type networked struct {
	*process
	stream string
	shards int
	relay  *relay.Relay
	moves  atomic.Int64 // of shards from their owner
}

func newNetworked(t *testing.T, server *awsfake.Server, target string, shards int, fields ...string) *networked {
	t.Helper()
	n := &networked{stream: fmt.Sprint("stream-", shards), shards: shards}
	table := fmt.Sprint("leases-", shards)
	require.NoError(t, server.CreateStream(n.stream, shards))
	require.NoError(t, server.CreateTable(table, attrStream, attrShard))
	server.OnWrite(func(w awsfake.Write) {
		if owner := w.Before[attrOwner].Text; w.Table == table && owner != "" && w.After[attrOwner].Text != owner {
			n.moves.Add(1)
		}
	})
	var err error
	// The test's own context ends before the input is closed.
	n.relay, err = relay.New(context.WithoutCancel(t.Context()), target)
	require.NoError(t, err)
	t.Cleanup(n.relay.Close)

	conf, err := session.Options{
		Region: "us-east-1", Endpoint: "https://" + n.relay.Addr(),
		Credentials: session.Credentials{ID: "id", Secret: "secret"},
	}.Load(t.Context())
	require.NoError(t, err)
	conf.APIOptions = append(conf.APIOptions, session.WithAttemptTimeout(attempt))

	r := &rig{T: t, aws: server}
	n.process = r.input(fmt.Sprintf("{ streams: [ %s ], dynamodb: { table: %s }, commit_period: 1s%s }", n.stream, table, strings.Join(append([]string{""}, fields...), ", ")))
	t.Cleanup(n.close)
	lister, subscribing := kinesis.NewFromConfig(conf), session.Subscribing(conf)
	require.NoError(t, n.connect(t.Context(), clients{
		lister: lister, fanOut: lister, subscribe: newSubscribe(subscribing),
		reader: newReader(conf, wireJSON, attempt, nil),
		table:  dynamodb.NewFromConfig(conf),
		closeIdle: func() {
			session.CloseIdle(conf)
			session.CloseIdle(subscribing)
		},
	}))
	return n
}

// flow puts a record into each shard and waits until all have come.
func (n *networked) flow(round int, limit time.Duration) {
	n.Helper()
	missing := map[string]bool{}
	for shard := range n.shards {
		n.putTo(n.stream, shard, round, 1)
		missing[shardName(shard)] = true
	}
	deadline := time.Now().Add(limit)
	for len(missing) > 0 {
		b, ok := n.batch(time.Until(deadline))
		require.True(n, ok, "of %d shards %d stand still %s later", n.shards, len(missing), limit)
		n.ack(b)
		for _, content := range b.contents() {
			if content == strconv.Itoa(round) {
				delete(missing, b.meta("kinesis_shard"))
				if round == 3 {
					n.Logf("%s %s", b.meta("kinesis_shard")[16:], limit-time.Until(deadline))
				}
			}
		}
	}
}
