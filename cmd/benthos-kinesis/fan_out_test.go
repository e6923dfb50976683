package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
	"github.com/benthos-plugins/aws-kinesis/internal/awsfake/relay"
)

// overTLS is a rig whose services speak HTTP/2, behind a network that can go silent.
func overTLS(t *testing.T) (*rig, *relay.Relay) {
	t.Helper()
	server := awsfake.New(awsfake.Options{EnforceLimits: true})
	t.Cleanup(func() { require.NoError(t, server.Close()) })
	url, ca, err := server.ListenTLS()
	require.NoError(t, err)
	require.NoError(t, server.CreateTable("checkpoints", "StreamID", "ShardID"))
	network, err := relay.New(t.Context(), strings.TrimPrefix(url, "https://"))
	require.NoError(t, err)
	t.Cleanup(network.Close)
	r := &rig{T: t, aws: server, url: "https://" + network.Addr(), dir: t.TempDir()}
	bundle := filepath.Join(r.dir, "ca.pem")
	require.NoError(t, os.WriteFile(bundle, ca, 0o600))
	t.Setenv("AWS_CA_BUNDLE", bundle)
	return r, network
}

// rest lets time pass.
func (r *rig) rest(d time.Duration) {
	r.Helper()
	end := time.Now().Add(d)
	r.await("time to pass", func() bool { return time.Now().After(end) })
}

const byFanOut = "enhanced_fan_out: { enabled: true }"

func fds(p *process) int {
	all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
	require.NoError(p, err)
	return len(all)
}

func rss(p *process) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	require.NoError(p, err)
	for l := range strings.SplitSeq(string(b), "\n") {
		if strings.HasPrefix(l, "VmRSS") {
			return l
		}
	}
	return ""
}

// An output that takes nothing keeps no process from ending.
func TestProcessEndsInTimeWithABlockedOutput(t *testing.T) {
	r, _ := overTLS(t)
	require.NoError(t, r.aws.CreateStream("orders", 64))
	pad := strings.Repeat("x", 20<<10)
	for i := range 64 {
		for range 60 {
			_, err := r.aws.PutTo("orders", fmt.Sprintf("shardId-%012d", i), "k", []byte(pad))
			require.NoError(t, err)
		}
	}
	release := make(chan struct{})
	sink := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) {
		select {
		case <-release:
		case <-q.Context().Done():
		}
	}))
	defer sink.Close()
	defer close(release)
	address := r.address()
	conf := "http: { address: '" + address + "', debug_endpoints: true }\nshutdown_timeout: 5s\ninput: { " + input("orders", byFanOut, "max_buffered_bytes: 16MiB") + " }\noutput: { http_client: { url: '" + sink.URL + "', verb: POST, timeout: 10m } }\n"
	p := r.start("-c", r.write("a.yaml", conf))
	r.await("subscriptions", func() bool { return len(r.aws.Subscriptions("orders")) == 64 })
	r.rest(8 * time.Second)
	t.Logf("%s, %d descriptors, %d most", rss(p), fds(p), r.aws.MostSubscriptionsOf("orders"))
	m := p.must("GET", "http://"+address+"/metrics", "")
	require.InDelta(t, 1, sum(t, m, "kinesis_ready"), 0)
	require.InDelta(t, 64, sum(t, m, "kinesis_subscriptions"), 0)
	require.Less(t, sum(t, m, "kinesis_buffered_bytes"), 18e6)
	begun := time.Now()
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM))
	p.wait()
	t.Logf("it took %s", time.Since(begun))
	require.Less(t, time.Since(begun), 15*time.Second)
}

// Each resubscription leaves nothing behind.
func TestResubscriptionsLeaveNothingBehind(t *testing.T) {
	r, network := overTLS(t)
	require.NoError(t, r.aws.CreateStream("orders", 50))
	address := r.address()
	conf := "http: { address: '" + address + "', debug_endpoints: true }\ninput: { " + input("orders", byFanOut) + " }\n" + into("out")
	p := r.start("-c", r.write("a.yaml", conf))
	r.await("subscriptions", func() bool { return len(r.aws.Subscriptions("orders")) == 50 })
	goroutines := func() string {
		a, _ := p.request("GET", "http://"+address+"/debug/pprof/goroutine?debug=1", "")
		return strings.SplitN(a, "\n", 2)[0]
	}
	r.rest(2 * time.Second)
	t.Logf("%s, %d descriptors, %s", rss(p), fds(p), goroutines())
	before := fds(p)
	remove := r.aws.InjectStream(awsfake.StreamFault{Cut: true, After: 1, Times: 150})
	r.put("orders", 0, 200)
	r.rest(25 * time.Second)
	remove()
	t.Logf("%d calls; %s, %d descriptors, %s", r.aws.Calls("SubscribeToShard"), rss(p), fds(p), goroutines())
	// The network forgets the connections.
	at := time.Now()
	t.Logf("%d connections are silent", network.Cut())
	r.put("orders", 200, 200)
	r.await("all", func() bool { return len(r.written("out")) >= 400 })
	t.Logf("read on after %s; %s, %d descriptors, %s", time.Since(at), rss(p), fds(p), goroutines())
	r.rest(5 * time.Second)
	require.LessOrEqual(t, fds(p), before+10)
	// Stopped for longer than a lease.
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGSTOP))
	r.put("orders", 400, 200)
	r.rest(12 * time.Second)
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGCONT))
	at = time.Now()
	r.await("all", func() bool { return len(r.written("out")) >= 600 })
	t.Logf("read on after %s; %d lines", time.Since(at), len(r.written("out")))
	p.stop()
}
