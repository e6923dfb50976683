package session

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
)

const (
	dialTimeout = 3 * time.Second // so that a dead address leaves time for the next in an attempt
	tlsTimeout  = 5 * time.Second

	// Every connection that a call has used is kept. There are as many as calls were
	// under way at once, which are no more than the shards of the process and its leases'
	// writes: HTTP has no smaller limit that fits both 8 shards and 1,000. With one of 256,
	// 1,000 live shards opened 300 connections a second and closed them again, of which
	// each cost more than the poll that it was for, and made the next calls wait and want
	// connections of their own.
	maxIdlePerHost = math.MaxInt
	// idleTimeout ends those that a burst has left behind. The one used last is taken
	// first, so that the others soon are idle. It is longer than the time between two
	// writes of a member's item, and than what services are said to wait themselves.
	idleTimeout = 30 * time.Second
	// sessionsKept are the hosts of which a session of TLS is remembered: those of two
	// services in a few regions.
	sessionsKept = 32

	// shortestSilence is what a call has to wait for an answer before that tells
	// anything of the network. The attempts of a lease of 3 s have 600 ms.
	shortestSilence = 500 * time.Millisecond
)

func newHTTPClient() *awshttp.BuildableClient {
	return byProxy(awshttp.NewBuildableClient()).
		WithDialerOptions(func(d *net.Dialer) { d.Timeout = dialTimeout }).
		WithTransportOptions(func(t *http.Transport) {
			t.TLSHandshakeTimeout = tlsTimeout
			t.MaxIdleConns = 0 // no limit but those of each host
			t.MaxIdleConnsPerHost = maxIdlePerHost
			t.IdleConnTimeout = idleTimeout
			// A connection that resumes a session spares both sides the certificates.
			t.TLSClientConfig.ClientSessionCache = tls.NewLRUClientSessionCache(sessionsKept)
			speakHTTP1(t)
		})
}

// speakHTTP1 keeps a transport from HTTP/2, which the SDK's own asks for. All
// calls to a service would share one connection, which a call that times out
// does not close: where the network drops packets without a word, every call
// goes the same way, for minutes. Of HTTP/1.1 a dead connection takes one call
// at most.
func speakHTTP1(t *http.Transport) {
	t.ForceAttemptHTTP2 = false
	t.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{} // not nil: no HTTP/2 by default either
	// By now the SDK has copied the transport, and each copy of one that may speak
	// HTTP/2 offers it in the handshake, whatever is set here.
	t.TLSClientConfig.NextProtos = []string{"http/1.1"}
}

// shared makes one client of a buildable one, of which each service client would
// make a copy with connections of its own, that nobody could close. Until the
// configuration is loaded it has to be buildable, for the SDK to add the
// certificates of AWS_CA_BUNDLE.
func shared(c aws.HTTPClient) aws.HTTPClient {
	b, ok := c.(*awshttp.BuildableClient)
	if !ok {
		return c
	}
	return &http.Client{
		Transport: newTransport(b.GetTransport()),
		// A redirect is no answer of AWS, and a signed request must not follow it.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// transport finds connections that died silently. A call that runs into its
// deadline closes its own; but a network that lost one has lost those that were
// idle or waiting for an answer meanwhile, too, and each of them would cost some
// call another attempt. So they are closed with it.
type transport struct {
	*http.Transport
	open *connections
	dial func(ctx context.Context, network, addr string) (net.Conn, error) // without open
}

// newTransport takes t over, whose configuration of TLS is complete.
func newTransport(t *http.Transport) transport {
	open := &connections{epoch: time.Now(), all: map[*conn]struct{}{}}
	dial := t.DialContext
	t.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return open.add(c), nil
	}
	if t.TLSClientConfig != nil {
		t.DialTLSContext = newShaker(t, handshakesAtOnce).dial
	}
	return transport{t, open, dial}
}

func (t transport) RoundTrip(req *http.Request) (*http.Response, error) {
	w, ctx := watch(req, t.open)
	req, err := inMemory(req.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	resp, err := t.Transport.RoundTrip(req)
	if err != nil {
		t.failed(w)
		return nil, err
	}
	w.moved()
	resp.Body = responseBody{resp.Body, t, w}
	return resp, nil
}

// inMemory gives a request, which it takes over, a body of which HTTP knows that it is in
// memory. Before any other it sends the headers off alone, in a record of TLS and a call
// of the system of their own, which is a tenth of what an idle poll costs. It also hides
// that bodies of the SDK can write themselves: once closed, they do so by reporting the
// end of the file, which the transport takes for a broken connection and ends the answer
// that is under way.
func inMemory(req *http.Request) (*http.Request, error) {
	if req.Body == nil || req.Body == http.NoBody {
		return req, nil
	}
	content, err := readBody(req)
	if err = errors.Join(err, req.Body.Close()); err != nil {
		return nil, fmt.Errorf("reading the body of a request: %w", err)
	}
	body := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }
	req.Body, _ = body()
	req.GetBody = body
	return req, nil
}

func readBody(req *http.Request) ([]byte, error) {
	if req.ContentLength <= 0 {
		return io.ReadAll(req.Body)
	}
	content := make([]byte, req.ContentLength)
	_, err := io.ReadFull(req.Body, content)
	return content, err
}

// closeSilent closes what has probably died with a connection on which a call has
// waited for so long. Whatever waits on one of them fails at once, and is retried.
func (t transport) closeSilent(silence int64) {
	silent, idle := t.open.silent(silence)
	if idle {
		// All idle ones, since a call can still get one that was closed behind
		// HTTP's back. It happens every half a silence at most: what is opened
		// from now on is not silent for that long before.
		t.CloseIdleConnections()
	}
	for _, c := range silent {
		// That it is closed already is the only error that can come of it.
		_ = c.Close()
	}
}

// wait is one call's for its answer.
type wait struct {
	open *connections
	host string          // of the request, without a port
	call context.Context //nolint:containedctx // it is asked how the call ended, by whom the call does not know
	// since is when the request got its connection or the answer came on; zero: it has
	// none yet, and tells nothing about those of others.
	since     atomic.Int64
	connected atomic.Bool
}

// watch makes the wait of a request, and the context under which HTTP tells it of
// connections.
func watch(req *http.Request, open *connections) (*wait, context.Context) {
	call := req.Context()
	w := &wait{open: open, host: req.URL.Hostname(), call: call}
	return w, httptrace.WithClientTrace(context.WithValue(call, waitKey{}, w), &httptrace.ClientTrace{GetConn: w.wants, GotConn: w.got})
}

// wants is called when the call is to get a connection, also another one, for a request that
// is made again.
func (w *wait) wants(string) { w.connected.Store(false) }

func (w *wait) got(httptrace.GotConnInfo) {
	w.connected.Store(true)
	w.moved()
}

func (w *wait) moved() { w.since.Store(w.open.now()) }

// failed takes note of an error that ended the wait.
func (t transport) failed(w *wait) {
	since := w.since.Load()
	if since == 0 || !errors.Is(w.call.Err(), context.DeadlineExceeded) {
		return
	}
	if silence := w.open.now() - since; silence >= shortestSilence.Nanoseconds() {
		t.closeSilent(silence)
	}
}

// responseBody is an answer's body.
type responseBody struct {
	io.ReadCloser
	transport transport
	wait      *wait
}

func (b responseBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.wait.moved()
	}
	if err != nil {
		b.transport.failed(b.wait)
	}
	return n, err
}

// connections are those of a transport that are open, whether in use or idle.
// Times are nanoseconds since epoch, by the monotonic clock.
type connections struct {
	epoch time.Time
	mu    sync.Mutex
	all   map[*conn]struct{}
}

func (o *connections) now() int64 { return int64(time.Since(o.epoch)) }

func (o *connections) add(c net.Conn) *conn {
	added := &conn{Conn: c, open: o}
	added.heard.Store(o.now())
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all[added] = struct{}{}
	return added
}

func (o *connections) remove(c *conn) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.all, c)
}

// silent returns the connections that are to go when a call on another one has
// heard nothing for so long, and whether idle ones are among them. Of those half
// of that is enough: one was used before the other's request, perhaps after it,
// but before the network died, and all that is lost with it is a handshake. With
// one that owes an answer a call is lost, which may be in good health and under
// way for a shorter time: it goes when nothing has come for all that time, so that
// a service that is slow is not asked again much earlier than it would be anyway.
func (o *connections) silent(silence int64) (silent []*conn, idle bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := o.now()
	for c := range o.all {
		owes, quiet := c.state(now)
		if quiet >= silence || !owes && quiet >= silence/2 {
			silent, idle = append(silent, c), idle || !owes
		}
	}
	return silent, idle
}

// conn remembers when it was last heard of.
type conn struct {
	net.Conn
	open         *connections
	asked, heard atomic.Int64
}

// state reports whether the connection owes an answer, and how long it has been
// silent.
func (c *conn) state(now int64) (owes bool, quiet int64) {
	heard := c.heard.Load()
	return c.asked.Load() >= heard, now - heard
}

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.heard.Store(c.open.now())
	}
	return n, err
}

func (c *conn) Write(p []byte) (int, error) {
	c.asked.Store(c.open.now())
	return c.Conn.Write(p)
}

func (c *conn) Close() error {
	c.open.remove(c)
	return c.Conn.Close()
}
