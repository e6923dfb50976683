package session

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
)

// byProxy sends calls through the proxy of the environment (HTTPS_PROXY, HTTP_PROXY,
// NO_PROXY), which Go reads once in the life of a process, and never one to loopback.
func byProxy(c *awshttp.BuildableClient) *awshttp.BuildableClient {
	return c.WithTransportOptions(func(t *http.Transport) {
		t.Proxy = proxyOf
		t.OnProxyConnectResponse = checkConnect
	})
}

// proxyOf is the proxy for a request, nil for none. What lives on this machine's own link,
// such as the metadata of the instance and the credentials of a container, is asked
// directly: behind a proxy it would be that of the proxy's machine, and its credentials.
func proxyOf(r *http.Request) (*url.URL, error) {
	if local(r.URL.Hostname()) {
		return nil, nil
	}
	return http.ProxyFromEnvironment(r)
}

// ofInstances is where AWS has its link-local services over IPv6.
var ofInstances = netip.MustParsePrefix("fd00:ec2::/32")

func local(host string) bool {
	addr, err := netip.ParseAddr(host)
	return err == nil && (addr.IsLinkLocalUnicast() || ofInstances.Contains(addr))
}

// checkConnect makes an error of a proxy's refusal to connect. Go's own has the status and
// no more, and looks like that of a service.
func checkConnect(_ context.Context, proxy *url.URL, req *http.Request, resp *http.Response) error {
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	return &ProxyError{Proxy: proxy.Host, Host: req.Host, Status: resp.StatusCode}
}

// ProxyError says that a proxy refused to connect to a host.
type ProxyError struct {
	Proxy, Host string // with their ports
	Status      int    // of HTTP
}

func (e *ProxyError) Error() string {
	return fmt.Sprintf("proxy %s does not connect to %s: %d %s", e.Proxy, e.Host, e.Status, http.StatusText(e.Status))
}

// proxied is for a call that a proxy did not let through to a host.
func (f fault) proxied(proxy *ProxyError, host string) string {
	if proxy != nil && proxy.Status == http.StatusProxyAuthRequired {
		return "The HTTP proxy wants to know who calls. Write the user and the password in HTTPS_PROXY, as in `http://user:password@" + proxy.Proxy + "`, or add " + host + " to NO_PROXY"
	}
	return "The HTTP proxy fails. Correct HTTPS_PROXY, let the proxy connect to " + host + ", or add that to NO_PROXY"
}

// bundled says of an error of loading a configuration which setting names the bundle of
// certificates that cannot be used. The SDK names the file at most.
func bundled(err error) error {
	const remedy = "write the path of a file with certificates in PEM, or unset it"
	bundle := os.Getenv("AWS_CA_BUNDLE")
	path, _ := errors.AsType[*fs.PathError](err)
	switch {
	case path != nil && bundle != "" && path.Path == bundle:
		return fmt.Errorf("AWS_CA_BUNDLE: %w: %s", path, remedy)
	case !strings.Contains(err.Error(), "custom CA bundle"):
		return err
	case bundle != "":
		return fmt.Errorf("AWS_CA_BUNDLE: %s has no certificate in PEM: %s", bundle, remedy)
	default:
		return fmt.Errorf("`ca_bundle` of the profile: the file has no certificate in PEM: %s", remedy)
	}
}
