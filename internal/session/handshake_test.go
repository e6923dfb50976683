package session

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A thousand handshakes at once would be given up one and all where there is little
// processor time.
func TestHandshakesOfAnAddressAreBoundedAndOfOthersGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var connecting atomic.Int64
		release := make(chan struct{})
		refused := errors.New("refused")
		s := newShaker(&http.Transport{
			TLSClientConfig: &tls.Config{},
			DialContext: func(context.Context, string, string) (net.Conn, error) {
				connecting.Add(1)
				<-release
				connecting.Add(-1)
				return nil, refused
			},
		}, handshakesAtOnce)
		var dials sync.WaitGroup
		dial := func(ctx context.Context, addr string, want error) {
			dials.Go(func() {
				_, err := s.dial(ctx, "tcp", addr)
				require.ErrorIs(t, err, want)
			})
		}
		for range handshakesAtOnce {
			dial(t.Context(), "kinesis:443", refused)
		}
		synctest.Wait()
		served, waiting, ended := new(wait), new(wait), new(wait)
		over, end := context.WithCancel(t.Context())
		served.call, waiting.call, ended.call = t.Context(), t.Context(), over
		dial(context.WithValue(t.Context(), waitKey{}, served), "kinesis:443", errUnwanted)
		dial(context.WithValue(t.Context(), waitKey{}, ended), "kinesis:443", errUnwanted)
		dial(context.WithValue(t.Context(), waitKey{}, waiting), "kinesis:443", refused)
		dial(over, "kinesis:443", context.Canceled)
		synctest.Wait()
		require.EqualValues(t, handshakesAtOnce, connecting.Load())
		dial(t.Context(), "dynamodb:443", refused)
		synctest.Wait()
		require.EqualValues(t, handshakesAtOnce+1, connecting.Load())

		served.connected.Store(true)
		end()
		synctest.Wait()
		close(release)
		dials.Wait()
		require.Zero(t, connecting.Load())
	})
}

// toNobody returns a connection to a server that takes what is sent and never answers.
func toNobody(t *testing.T) net.Conn {
	t.Helper()
	client, server := net.Pipe()
	t.Cleanup(func() { server.Close() })
	go func() {
		for p := make([]byte, 1<<10); ; {
			if _, err := server.Read(p); err != nil {
				return
			}
		}
	}()
	return client
}

// An address has several machines, of which one in four accepts and does not answer.
func TestMachineThatNeverAnswersKeepsFewTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const calls = 400
		answered := errors.New("an answer")
		var connected atomic.Int64
		s := newShaker(&http.Transport{
			TLSClientConfig: &tls.Config{},
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				if connected.Add(1)%4 == 0 {
					return toNobody(t), nil
				}
				return nil, errors.Join(pause(ctx, 50*time.Millisecond), answered)
			},
		}, handshakesAtOnce)
		begun := time.Now()
		var dials sync.WaitGroup
		for range calls {
			dials.Go(func() {
				if _, err := s.dial(t.Context(), "tcp", "kinesis:443"); errors.Is(err, answered) && time.Since(begun) > 3*time.Second {
					t.Errorf("an answer after %v", time.Since(begun))
				}
			})
		}
		dials.Wait()
	})
}

func TestHandshakeIsBoundedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := toNobody(t)
		s := newShaker(&http.Transport{
			TLSClientConfig: &tls.Config{},
			DialContext:     func(context.Context, string, string) (net.Conn, error) { return client, nil },
		}, handshakesAtOnce)
		_, err := s.dial(t.Context(), "tcp", "kinesis:443")
		require.EqualError(t, err, "no TLS handshake within 5s")
		_, err = client.Write(nil)
		require.ErrorContains(t, err, "closed")
	})
}
