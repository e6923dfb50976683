package session

import (
	"crypto/tls"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
)

// overTLS serves over HTTP/2 and HTTP/1.1, with a certificate that the clients of this
// test know.
func overTLS(t *testing.T, handler http.HandlerFunc) Options {
	t.Helper()
	isolate(t, "")
	s := httptest.NewUnstartedServer(handler)
	s.EnableHTTP2 = true
	s.TLS = &tls.Config{NextProtos: []string{"h2", "http/1.1"}}
	s.StartTLS()
	t.Cleanup(s.Close)
	bundle := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(bundle, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600))
	t.Setenv("AWS_CA_BUNDLE", bundle)
	o := static
	o.Endpoint = s.URL
	return o
}

func TestSubscriptionsGoOverHTTP2AndPollingDoesNot(t *testing.T) {
	protos := make(chan string, 1)
	cfg := load(t, overTLS(t, func(w http.ResponseWriter, r *http.Request) {
		protos <- r.Proto
		answer(w, `{"StreamNames":[],"HasMoreStreams":false}`)
	}))
	subscribing := Subscribing(cfg)
	t.Cleanup(func() { CloseIdle(subscribing) })
	for range 2 { // whichever is first
		_, err := kinesis.NewFromConfig(subscribing).ListStreams(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, "HTTP/2.0", <-protos)
		_, err = kinesis.NewFromConfig(cfg).ListStreams(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, "HTTP/1.1", <-protos)
	}
}

func TestSubscriptionsGoOverHTTP1WhereThereIsNoTLS(t *testing.T) {
	isolate(t, "")
	protos := make(chan string, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		protos <- r.Proto
		answer(w, `{"StreamNames":[],"HasMoreStreams":false}`)
	}))
	t.Cleanup(s.Close)
	o := static
	o.Endpoint = s.URL
	cfg := Subscribing(load(t, o))
	t.Cleanup(func() { CloseIdle(cfg) })
	_, err := kinesis.NewFromConfig(cfg).ListStreams(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, "HTTP/1.1", <-protos)
}

func TestServiceSendsNoMoreAheadThanTheWindow(t *testing.T) {
	var sent atomic.Int64
	stalled := make(chan struct{})
	o := overTLS(t, func(w http.ResponseWriter, _ *http.Request) {
		c := http.NewResponseController(w)
		for {
			stall := time.AfterFunc(200*time.Millisecond, func() { close(stalled) })
			n, err := w.Write(make([]byte, 4<<10))
			if err == nil {
				err = c.Flush()
			}
			stall.Stop()
			if err != nil {
				return
			}
			sent.Add(int64(n))
		}
	})
	cfg := Subscribing(load(t, o))
	t.Cleanup(func() { CloseIdle(cfg) })
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, o.Endpoint, http.NoBody)
	require.NoError(t, err)
	resp, err := cfg.HTTPClient.Do(req)
	require.NoError(t, err)
	<-stalled
	require.LessOrEqual(t, sent.Load(), int64(subscriptionWindow+8<<10))
	require.GreaterOrEqual(t, sent.Load(), int64(subscriptionWindow-8<<10))
	_, err = io.CopyN(io.Discard, resp.Body, subscriptionWindow)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
}

// Until it is known that connections can be shared, each call makes one.
func TestSubscriptionsThatBeginTogetherShareFewConnections(t *testing.T) {
	isolate(t, "")
	server := awsfake.New(awsfake.Options{})
	t.Cleanup(func() { require.NoError(t, server.Close()) })
	url, ca, err := server.ListenTLS()
	require.NoError(t, err)
	bundle := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(bundle, ca, 0o600))
	t.Setenv("AWS_CA_BUNDLE", bundle)
	o := static
	o.Endpoint = url
	cfg := Subscribing(load(t, o))
	t.Cleanup(func() { CloseIdle(cfg) })
	server.Inject(awsfake.Fault{Operation: "ListStreams", Delay: 500 * time.Millisecond}) // so that all are open at once
	client := kinesis.NewFromConfig(cfg)
	var calls sync.WaitGroup
	for range 200 {
		calls.Go(func() {
			_, err := client.ListStreams(t.Context(), nil)
			require.NoError(t, err)
		})
	}
	calls.Wait()
	// A call may get a turn in the moment between another's connection and its own use of it.
	require.LessOrEqual(t, server.Traffic(url).Accepted, int64(4*sharedAtOnce))
}
