package session

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/stretchr/testify/require"
)

// A process that polls many shards opens many connections at once, as it starts and after
// an outage.
func TestConnectionsResumeSessionsOfTLS(t *testing.T) {
	resumed := make(chan bool, 1)
	cfg := load(t, overTLS(t, func(w http.ResponseWriter, r *http.Request) {
		resumed <- r.TLS.DidResume
		answer(w, `{"StreamNames":[],"HasMoreStreams":false}`)
	}))
	subscribing := Subscribing(cfg)
	t.Cleanup(func() { CloseIdle(subscribing) })
	for i := range 3 {
		_, err := kinesis.NewFromConfig(cfg).ListStreams(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, i > 0, <-resumed)
		CloseIdle(cfg)
	}
	_, err := kinesis.NewFromConfig(subscribing).ListStreams(t.Context(), nil)
	require.NoError(t, err)
	require.True(t, <-resumed, "the first connection of HTTP/2 too")
}

// However many shards are read at once, the next calls use the same connections.
func TestEachConnectionIsUsedAgain(t *testing.T) {
	const shards = 400
	onNetwork(t, func(n *network) {
		n.open(shards)
		for range 3 {
			var calls sync.WaitGroup
			for range shards {
				calls.Go(func() {
					_, err := n.attempt("1ms")
					require.NoError(n, err)
				})
			}
			calls.Wait()
			synctest.Wait()
			require.Equal(n, shards, n.dials())
		}
	})
}

// Headers that go off alone cost a call of the system and a record of TLS.
func TestRequestIsOneWrite(t *testing.T) {
	onNetwork(t, func(n *network) {
		n.open(1)
		before := n.writes.Load()
		_, err := n.attempt("0s")
		require.NoError(n, err)
		require.EqualValues(n, 1, n.writes.Load()-before)
	})
}

// BenchmarkHandshake is what a connection costs, both its ends together, with certificates
// of the usual length and kind.
func BenchmarkHandshake(b *testing.B) {
	certificate, roots := chain(b)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS13})
	require.NoError(b, err)
	var serving sync.WaitGroup
	b.Cleanup(func() { _ = l.Close(); serving.Wait() })
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer c.Close()
				_, _ = c.Write([]byte{1}) // the client reads its ticket with it
				_, _ = c.Read(make([]byte, 1))
			})
		}
	})
	for name, cache := range map[string]tls.ClientSessionCache{"full": nil, "resumed": tls.NewLRUClientSessionCache(1)} {
		b.Run(name, func(b *testing.B) {
			conf := &tls.Config{RootCAs: roots, ClientSessionCache: cache, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12}
			before, resumed := cpuTime(b), 0
			for range b.N {
				dialed, err := (&tls.Dialer{Config: conf}).DialContext(b.Context(), "tcp", l.Addr().String())
				require.NoError(b, err)
				c := dialed.(*tls.Conn)
				_, err = c.Read(make([]byte, 1))
				require.NoError(b, err)
				if c.ConnectionState().DidResume {
					resumed++
				}
				require.NoError(b, c.Close())
			}
			b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/op")
			b.ReportMetric(float64(resumed)/float64(b.N), "resumed/op")
		})
	}
}

func cpuTime(b *testing.B) int64 {
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return u.Utime.Nano() + u.Stime.Nano()
}

// chain makes a certificate for 127.0.0.1 with an intermediate, and their root.
func chain(b *testing.B) (certificate tls.Certificate, roots *x509.CertPool) {
	b.Helper()
	sign := func(serial int64, public crypto.PublicKey, parent *x509.Certificate, parentKey crypto.Signer) *x509.Certificate {
		t := &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "test", SerialNumber: big.NewInt(serial).String()},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			IsCA: serial < 3, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
			IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		}
		if parent == nil {
			parent = t
		}
		der, err := x509.CreateCertificate(rand.Reader, t, parent, public, parentKey)
		require.NoError(b, err)
		c, err := x509.ParseCertificate(der)
		require.NoError(b, err)
		return c
	}
	var keys [3]*rsa.PrivateKey
	for i := range keys {
		var err error
		keys[i], err = rsa.GenerateKey(rand.Reader, 2048)
		require.NoError(b, err)
	}
	root := sign(1, keys[0].Public(), nil, keys[0])
	middle := sign(2, keys[1].Public(), root, keys[0])
	leaf := sign(3, keys[2].Public(), middle, keys[1])
	roots = x509.NewCertPool()
	roots.AddCert(root)
	return tls.Certificate{Certificate: [][]byte{leaf.Raw, middle.Raw}, PrivateKey: keys[2]}, roots
}
