package session

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake/relay"
)

// through is a client whose calls go through a proxy, whatever the environment says, which
// Go reads once in a process: that the environment counts is tested with the program.
func through(t *testing.T, o Options, proxy string, subscribing bool) *kinesis.Client {
	t.Helper()
	cfg := load(t, o)
	if subscribing {
		cfg = Subscribing(cfg)
		t.Cleanup(func() { CloseIdle(cfg) })
	}
	address, err := url.Parse(proxy)
	require.NoError(t, err)
	switch own := cfg.HTTPClient.(*http.Client).Transport.(type) {
	case transport:
		own.Proxy = http.ProxyURL(address)
	case streaming:
		own.Proxy = http.ProxyURL(address)
	}
	return kinesis.NewFromConfig(cfg, func(o *kinesis.Options) {
		o.Retryer = aws.NopRetryer{}
		o.APIOptions = append(o.APIOptions, WithAttemptTimeout(300*time.Millisecond))
	})
}

func TestProxyThatFailsSaysWhatToWrite(t *testing.T) {
	isolate(t, "")
	var refusal atomic.Int32
	proxy, err := relay.NewProxy(t.Context(), func(*http.Request) int { return int(refusal.Load()) })
	require.NoError(t, err)
	defer proxy.Close()
	gone := httptest.NewServer(nil)
	gone.Close()
	const host = "kinesis.us-east-1.amazonaws.com"
	for _, c := range []struct {
		what             string
		refusal          int32
		url, fault, hint string
	}{
		{
			"credentials", http.StatusProxyAuthRequired, "http://" + proxy.Addr(),
			"proxy " + proxy.Addr() + " does not connect to " + host + ":443: 407 Proxy Authentication Required",
			"The HTTP proxy wants to know who calls. Write the user and the password in HTTPS_PROXY, as in `http://user:password@" + proxy.Addr() + "`, or add " + host + " to NO_PROXY",
		},
		{
			"refusal", http.StatusBadGateway, "http://" + proxy.Addr(),
			"proxy " + proxy.Addr() + " does not connect to " + host + ":443: 502 Bad Gateway",
			"The HTTP proxy fails. Correct HTTPS_PROXY, let the proxy connect to " + host + ", or add that to NO_PROXY",
		},
		{"nobody", 0, gone.URL, "proxyconnect tcp", "The HTTP proxy fails. Correct HTTPS_PROXY, let the proxy connect to " + host + ", or add that to NO_PROXY"},
		{"silence", -1, "http://" + proxy.Addr(), "no answer to ListShards within 300ms", "No answer came from Kinesis in region us-east-1. Check whether there is a route to it: VPC endpoint, proxy, security group"},
	} {
		for name, subscribing := range map[string]bool{"polling": false, "subscribing": true} {
			t.Run(c.what+", "+name, func(t *testing.T) {
				refusal.Store(c.refusal)
				_, err := through(t, static, c.url, subscribing).ListShards(t.Context(), &kinesis.ListShardsInput{StreamName: aws.String("foo")})
				require.ErrorContains(t, err, c.fault)
				require.EqualError(t, Explain(err, About{Service: "kinesis", Region: "us-east-1", Stream: "foo"}), err.Error()+". "+c.hint)
			})
		}
	}
	require.Equal(t, []string{host + ":443"}, proxy.Connects())
}

// Subscriptions share a connection of HTTP/2 behind a proxy as without one, and polls have
// one of HTTP/1.1 each.
func TestProxyLeavesTheProtocolsAsTheyAre(t *testing.T) {
	proxy, err := relay.NewProxy(t.Context(), func(*http.Request) int { return 0 })
	require.NoError(t, err)
	defer proxy.Close()
	spoken := make(chan string, 1)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		spoken <- r.Proto
		answer(w, `{"Shards":[]}`)
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	bundle := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(bundle, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600))
	isolate(t, "")
	t.Setenv("AWS_CA_BUNDLE", bundle)
	o := static
	o.Endpoint = server.URL
	for want, subscribing := range map[string]bool{"HTTP/1.1": false, "HTTP/2.0": true} {
		_, err := through(t, o, "http://"+proxy.Addr(), subscribing).ListShards(t.Context(), &kinesis.ListShardsInput{StreamName: aws.String("foo")})
		require.NoError(t, err)
		require.Equal(t, want, <-spoken)
	}
	require.Equal(t, []string{server.Listener.Addr().String()}, proxy.Connects())
}

// A proxy of https:// may speak HTTP/2, which is not what it is asked to connect in.
func TestProxyOfTLSIsSpokenToInHTTP1(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	isolate(t, "")
	t.Setenv("AWS_CA_BUNDLE", file(t, filepath.Join(t.TempDir(), "ca.pem"),
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))))
	for _, subscribing := range []bool{false, true} {
		_, err := through(t, static, server.URL, subscribing).ListShards(t.Context(), &kinesis.ListShardsInput{StreamName: aws.String("foo")})
		require.ErrorContains(t, err, " does not connect to kinesis.us-east-1.amazonaws.com:443: 502 Bad Gateway")
	}
}

// A proxy that answered for the metadata of the instance would answer with those of the
// machine that it runs on.
func TestInstanceAndContainerAreAskedDirectly(t *testing.T) {
	for _, host := range []string{"169.254.169.254", "169.254.170.2", "169.254.170.23", "fd00:ec2::254", "fd00:ec2::23", "fe80::1"} {
		require.True(t, local(host), host)
		proxy, err := proxyOf(&http.Request{URL: &url.URL{Scheme: "http", Host: netip.AddrPortFrom(netip.MustParseAddr(host), 80).String()}})
		require.NoError(t, err)
		require.Nil(t, proxy)
	}
	for _, host := range []string{"kinesis.us-east-1.amazonaws.com", "10.0.0.1", "fd00:ec3::1", "169.253.0.1", ""} {
		require.False(t, local(host), host)
	}
}

func TestBundleThatCannotBeReadSaysWhichSettingToCorrect(t *testing.T) {
	dir := t.TempDir()
	missing, empty := filepath.Join(dir, "missing.pem"), filepath.Join(dir, "empty.pem")
	require.NoError(t, os.WriteFile(empty, []byte("no certificate\n"), 0o600))
	for name, c := range map[string]struct{ env, profile, want string }{
		"missing":     {missing, "", "AWS_CA_BUNDLE: open " + missing + ": no such file or directory: write the path of a file with certificates in PEM, or unset it"},
		"no PEM":      {empty, "", "AWS_CA_BUNDLE: " + empty + " has no certificate in PEM: write the path of a file with certificates in PEM, or unset it"},
		"directory":   {dir, "", "AWS_CA_BUNDLE: read " + dir + ": is a directory: write the path of a file with certificates in PEM, or unset it"},
		"the profile": {"", "[default]\nca_bundle = " + empty + "\n", "`ca_bundle` of the profile: the file has no certificate in PEM: write the path of a file with certificates in PEM, or unset it"},
	} {
		t.Run(name, func(t *testing.T) {
			isolate(t, c.profile)
			if c.env != "" {
				t.Setenv("AWS_CA_BUNDLE", c.env)
			}
			_, err := static.Load(t.Context())
			require.EqualError(t, err, "loading the AWS configuration: "+c.want)
		})
	}
}
