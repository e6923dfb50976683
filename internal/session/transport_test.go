package session

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/stretchr/testify/require"
)

func TestCallsGoOverHTTP1WhereTheServiceHasHTTP2(t *testing.T) {
	isolate(t, "")
	type spoken struct{ negotiated, proto string }
	calls := make(chan spoken, 1)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls <- spoken{r.TLS.NegotiatedProtocol, r.Proto}
		answer(w, `{"StreamNames":[],"HasMoreStreams":false}`)
	}))
	s.EnableHTTP2 = true
	s.TLS = &tls.Config{NextProtos: []string{"h2", "http/1.1"}}
	s.StartTLS()
	t.Cleanup(s.Close)

	// The certificate is known by the bundle alone, which the SDK adds to the
	// transport after all of our own settings.
	bundle := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(bundle, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600))
	t.Setenv("AWS_CA_BUNDLE", bundle)

	o := static
	o.Endpoint = s.URL
	_, err := kinesis.NewFromConfig(load(t, o)).ListStreams(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, spoken{"http/1.1", "HTTP/1.1"}, <-calls)
}

// network is one of pipes in a bubble of synctest, from a transport to a server.
type network struct {
	*testing.T
	transport transport
	// away holds dials up until they are given up.
	away   atomic.Bool
	writes atomic.Int64

	arriving chan net.Conn
	mu       sync.Mutex
	dialed   []*lossy
}

// lossy is the server's end of a connection. Dead, it neither hears nor says
// anything, and nobody is told.
type lossy struct {
	net.Conn
	dead atomic.Bool
}

func (c *lossy) Read(p []byte) (int, error) {
	for {
		n, err := c.Conn.Read(p)
		if err != nil || !c.dead.Load() {
			return n, err
		}
	}
}

func (c *lossy) Write(p []byte) (int, error) {
	if c.dead.Load() {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func onNetwork(t *testing.T, test func(n *network)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := &network{T: t, arriving: make(chan net.Conn)}
		server := &http.Server{Handler: http.HandlerFunc(handle)}
		var serving sync.WaitGroup
		serving.Go(func() { _ = server.Serve(n) })
		n.transport = newTransport(&http.Transport{DialContext: n.dial, MaxIdleConnsPerHost: maxIdlePerHost})
		defer func() {
			n.transport.CloseIdleConnections()
			require.NoError(t, server.Close())
			serving.Wait()
			synctest.Wait()
			require.Empty(t, n.transport.open.all, "connections that are closed are forgotten")
		}()
		test(n)
	})
}

// handle takes the times that the path says, one for each byte of its answer, and
// for ever in place of "never".
func handle(w http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return
	}
	bytes := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	w.Header().Set("Content-Length", fmt.Sprint(len(bytes)))
	for _, b := range bytes {
		if took, err := time.ParseDuration(b); err != nil {
			<-r.Context().Done()
		} else if pause(r.Context(), took) != nil {
			return
		}
		_, _ = io.WriteString(w, "x")
		_ = http.NewResponseController(w).Flush()
	}
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (n *network) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	if n.away.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	client, server := net.Pipe()
	c := &lossy{Conn: server}
	n.mu.Lock()
	n.dialed = append(n.dialed, c)
	n.mu.Unlock()
	n.arriving <- c
	return counted{client, &n.writes}, nil
}

// counted counts what a client writes.
type counted struct {
	net.Conn
	writes *atomic.Int64
}

func (c counted) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

func (n *network) dials() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.dialed)
}

// Accept, Close and Addr make it a listener.
func (n *network) Accept() (net.Conn, error) {
	if c, ok := <-n.arriving; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}
func (n *network) Close() error { close(n.arriving); return nil }
func (*network) Addr() net.Addr { return &net.IPAddr{} }

// cut kills all connections that are open.
func (n *network) cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.dialed {
		c.dead.Store(true)
	}
}

// call asks for an answer and returns after what time it had come or failed.
func (n *network) call(ctx context.Context, path string) (time.Duration, error) {
	start := time.Now()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://service/"+path, strings.NewReader("request"))
	require.NoError(n, err)
	resp, err := n.transport.RoundTrip(req)
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		err = errors.Join(err, resp.Body.Close())
	}
	return time.Since(start), err
}

// attempt is a call with a time-out.
func (n *network) attempt(path string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(n.Context(), AttemptTimeout)
	defer cancel()
	return n.call(ctx, path)
}

// open leaves so many connections idle.
func (n *network) open(connections int) {
	var calls sync.WaitGroup
	for range connections {
		calls.Go(func() {
			_, err := n.attempt("1ms")
			require.NoError(n, err)
		})
	}
	calls.Wait()
	synctest.Wait()
	require.Equal(n, connections, n.dials())
}

func TestOneTimeOutFindsAllIdleConnectionsThatDied(t *testing.T) {
	onNetwork(t, func(n *network) {
		n.open(8)
		n.cut()
		took, err := n.attempt("0s")
		require.ErrorIs(n, err, context.DeadlineExceeded)
		require.Equal(n, AttemptTimeout, took)

		took, err = n.attempt("0s")
		require.NoError(n, err)
		require.Zero(n, took)
		require.Equal(n, 9, n.dials())
	})
}

// A request may be under way when the network dies. Those on other connections,
// which were used after it was sent, are dead all the same.
func TestConnectionsUsedDuringTheAttemptAreFoundToo(t *testing.T) {
	onNetwork(t, func(n *network) {
		n.open(8)
		var calls sync.WaitGroup
		calls.Go(func() {
			_, err := n.attempt("20ms")
			require.ErrorIs(n, err, context.DeadlineExceeded)
		})
		for range 7 {
			calls.Go(func() {
				_, err := n.attempt("10ms")
				require.NoError(n, err)
			})
		}
		require.NoError(n, pause(n.Context(), 15*time.Millisecond))
		n.cut()
		calls.Wait()

		took, err := n.attempt("0s")
		require.NoError(n, err)
		require.Zero(n, took)
	})
}

func TestCallsOnDeadConnectionsFailWithTheFirstThatTimesOut(t *testing.T) {
	onNetwork(t, func(n *network) {
		n.open(8)
		n.cut()
		var calls sync.WaitGroup
		for i := range 8 {
			calls.Go(func() {
				late := time.Duration(i) * time.Second
				require.NoError(n, pause(n.Context(), late))
				took, err := n.attempt("0s")
				require.Error(n, err)
				require.Equal(n, AttemptTimeout, late+took)
			})
		}
		calls.Wait()
		require.Equal(n, 8, n.dials())
	})
}

func TestAnswerThatStopsHalfWayFindsDeadConnections(t *testing.T) {
	onNetwork(t, func(n *network) {
		n.open(8)
		var calls sync.WaitGroup
		calls.Go(func() {
			took, err := n.attempt("2s/2s")
			require.ErrorIs(n, err, context.DeadlineExceeded)
			require.Equal(n, AttemptTimeout, took)
		})
		require.NoError(n, pause(n.Context(), 3*time.Second))
		n.cut()
		calls.Wait()

		took, err := n.attempt("0s")
		require.NoError(n, err)
		require.Zero(n, took)
	})
}

func TestAnswerThatStillComesTellsNothingOfTheNetwork(t *testing.T) {
	onNetwork(t, func(n *network) {
		n.open(8)
		_, err := n.attempt("3s/3s/3s/800ms/never")
		require.ErrorIs(n, err, context.DeadlineExceeded)
		require.Len(n, n.transport.open.all, 7)
	})
}

func TestShortWaitTellsNothingOfTheNetwork(t *testing.T) {
	onNetwork(t, func(n *network) {
		n.open(8)
		ctx, cancel := context.WithTimeout(n.Context(), 400*time.Millisecond)
		defer cancel()
		_, err := n.call(ctx, "never")
		require.ErrorIs(n, err, context.DeadlineExceeded)
		require.Len(n, n.transport.open.all, 7)
	})
}

func TestLateAnswerDisturbsNoOtherCall(t *testing.T) {
	onNetwork(t, func(n *network) {
		n.open(1)
		var calls sync.WaitGroup
		calls.Go(func() {
			_, err := n.attempt("never")
			require.ErrorIs(n, err, context.DeadlineExceeded)
		})
		calls.Go(func() {
			require.NoError(n, pause(n.Context(), 900*time.Millisecond))
			took, err := n.attempt("9500ms")
			require.NoError(n, err)
			require.Equal(n, 9500*time.Millisecond, took)
		})
		calls.Go(func() {
			for range 12 {
				require.NoError(n, pause(n.Context(), time.Second))
				_, err := n.attempt("0s")
				require.NoError(n, err)
			}
		})
		calls.Wait()
		require.Equal(n, 3, n.dials(), "what was heard of meanwhile goes on")
	})
}

func TestCancelledCallTellsNothingOfTheNetwork(t *testing.T) {
	onNetwork(t, func(n *network) {
		n.open(8)
		ctx, cancel := context.WithCancel(n.Context())
		var calls sync.WaitGroup
		calls.Go(func() {
			_, err := n.call(ctx, "never")
			require.ErrorIs(n, err, context.Canceled)
		})
		require.NoError(n, pause(n.Context(), 20*time.Second))
		cancel()
		calls.Wait()
		require.Len(n, n.transport.open.all, 7)
	})
}

func TestCallThatGotNoConnectionTellsNothingOfOthers(t *testing.T) {
	onNetwork(t, func(n *network) {
		var calls sync.WaitGroup
		calls.Go(func() {
			took, err := n.call(n.Context(), "20s")
			require.NoError(n, err)
			require.Equal(n, 20*time.Second, took)
		})
		require.NoError(n, pause(n.Context(), 5*time.Second))
		n.away.Store(true)
		_, err := n.attempt("0s")
		require.ErrorIs(n, err, context.DeadlineExceeded)
		calls.Wait()
	})
}
