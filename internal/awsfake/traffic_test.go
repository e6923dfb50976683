package awsfake

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTrafficIsCountedByPort(t *testing.T) {
	s := newServer(t, Options{IdleTimeout: time.Millisecond})
	url, ca, err := s.ListenTLS()
	require.NoError(t, err)
	other, err := s.Listen()
	require.NoError(t, err)
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(ca))
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{
		RootCAs: roots, ClientSessionCache: tls.NewLRUClientSessionCache(1), NextProtos: []string{"http/1.1"},
	}}}
	for range 2 {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
		require.NoError(t, err)
		res, err := client.Do(req)
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, res.Body)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		require.Eventually(t, func() bool { return s.Traffic(url).Open == 0 }, 10*time.Second, time.Millisecond, "the server closes what is idle")
	}
	got := s.Traffic(url)
	require.EqualValues(t, 2, got.Accepted)
	require.EqualValues(t, 2, got.Handshakes)
	require.EqualValues(t, 1, got.Resumed)
	require.Greater(t, got.Received, int64(500))
	require.Greater(t, got.Sent, int64(500))
	require.Zero(t, s.Traffic(other))
	require.Zero(t, s.Traffic("http://127.0.0.1:1"))
}
