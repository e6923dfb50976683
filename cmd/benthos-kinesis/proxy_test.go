package main

import (
	"encoding/base64"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
	"github.com/benthos-plugins/aws-kinesis/internal/awsfake/relay"
)

// behindProxy is a rig over TLS, and a proxy which asks for a password where one is given.
// The services have an address that Go does not take for loopback, for which it would use
// no proxy.
func behindProxy(t *testing.T, password string) (*rig, *relay.Proxy) {
	t.Helper()
	server := awsfake.New(awsfake.Options{EnforceLimits: true})
	t.Cleanup(func() { require.NoError(t, server.Close()) })
	url, ca, err := server.ListenTLS()
	require.NoError(t, err)
	require.NoError(t, server.CreateTable("checkpoints", "StreamID", "ShardID"))
	wanted := "Basic " + base64.StdEncoding.EncodeToString([]byte("reader:"+password))
	proxy, err := relay.NewProxy(t.Context(), func(r *http.Request) int {
		if password != "" && r.Header.Get("Proxy-Authorization") != wanted {
			return http.StatusProxyAuthRequired
		}
		return 0
	})
	require.NoError(t, err)
	t.Cleanup(proxy.Close)
	r := &rig{T: t, aws: server, url: strings.Replace(url, "127.0.0.1", "0.0.0.0", 1), dir: t.TempDir()}
	bundle := filepath.Join(r.dir, "ca.pem")
	require.NoError(t, os.WriteFile(bundle, ca, 0o600))
	for _, name := range []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_CA_BUNDLE", bundle)
	return r, proxy
}

func (r *rig) host() string { return strings.TrimPrefix(r.url, "https://") }

func TestCallsGoThroughTheProxyOfTheEnvironment(t *testing.T) {
	for _, c := range []struct {
		what, password, user, fields string
	}{
		{"polling", "", "", ""},
		{"fan-out with a password", "secret", "reader:secret@", byFanOut},
	} {
		t.Run(c.what, func(t *testing.T) {
			r, proxy := behindProxy(t, c.password)
			require.NoError(t, r.aws.CreateStream("orders", 2))
			t.Setenv("HTTPS_PROXY", "http://"+c.user+proxy.Addr())
			want := r.put("orders", 0, 20)
			fields := []string{"batching: { count: 1 }"}
			if c.fields != "" {
				fields = append(fields, c.fields)
			}
			r.start("-c", r.write("a.yaml", "http: { enabled: false }\ninput: { "+input("orders", fields...)+" }\n"+into("out")))
			r.awaitLines("out", want)
			require.Equal(t, []string{r.host()}, proxy.Connects())
			if c.fields != "" {
				require.Positive(t, r.aws.Calls("SubscribeToShard"))
			}
		})
	}
}

func TestNoProxyGoesAroundTheProxy(t *testing.T) {
	r, proxy := behindProxy(t, "")
	require.NoError(t, r.aws.CreateStream("orders", 1))
	t.Setenv("HTTPS_PROXY", "http://"+proxy.Addr())
	t.Setenv("NO_PROXY", "example.com,0.0.0.0")
	want := r.put("orders", 0, 20)
	r.start("-c", r.write("a.yaml", "http: { enabled: false }\ninput: { "+input("orders")+" }\n"+into("out")))
	r.awaitLines("out", want)
	require.Empty(t, proxy.Connects())
}

func TestProxyThatWantsAPasswordIsSaidInTheLog(t *testing.T) {
	r, proxy := behindProxy(t, "secret")
	require.NoError(t, r.aws.CreateStream("orders", 1))
	t.Setenv("HTTPS_PROXY", "http://"+proxy.Addr())
	p := r.start("-c", r.write("a.yaml", "http: { enabled: false }\ninput: { "+input("orders")+" }\n"+into("out")))
	hint := "The HTTP proxy wants to know who calls. Write the user and the password in HTTPS_PROXY, as in `http://user:password@" + proxy.Addr() + "`, or add 0.0.0.0"
	r.await("the hint", func() bool { return strings.Contains(p.log.String(), hint) })
	require.Contains(t, p.log.String(), "407 Proxy Authentication Required")
}

func TestMissingBundleIsSaidInTheLog(t *testing.T) {
	r, _ := behindProxy(t, "")
	missing := filepath.Join(r.dir, "missing.pem")
	t.Setenv("AWS_CA_BUNDLE", missing)
	p := r.start("-c", r.write("a.yaml", "http: { enabled: false }\ninput: { "+input("orders")+" }\n"+into("out")))
	// Of two attempts, since the first is so early that the program does not listen for the
	// signal yet with which the test ends it.
	r.await("the error of a second attempt", func() bool {
		return strings.Count(p.log.String(), "AWS_CA_BUNDLE: open "+missing+": no such file or directory: write the path of a file with certificates in PEM, or unset it") > 1
	})
}
