package session

import (
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

const (
	// subscriptionWindow is how much of a subscription the service may send ahead of
	// what is read of it. All shards of a process may hold so much at once, when an
	// output is slow: of a thousand shards 32 MiB, where Go's own 4 MiB would be 4 GiB.
	// Twice as much was measured to take 438 MiB of such a process, 32 more than its goal.
	// The 2 MB a second that a shard delivers pass through it where the way there and back
	// takes up to 16 ms, as it does within a region.
	subscriptionWindow = 32 << 10
	// A connection of which nothing is heard for pingAfter is asked whether it lives, and
	// is closed when it does not answer within pingTimeout: together as long as an attempt
	// to poll may take. Each of its subscriptions brings an event every 5 s, so that a
	// connection is hardly ever asked that lives.
	pingAfter   = 5 * time.Second
	pingTimeout = 5 * time.Second
	// A connection to which nothing could be written for so long is closed.
	writeTimeout = 10 * time.Second
)

// Subscribing makes the configuration of a client that subscribes to shards, of one that
// Load returned. It speaks HTTP/2, of which one connection bears a hundred subscriptions
// and more, and has connections of its own. Where the endpoint does not speak it, such as
// an emulator without TLS, each subscription takes a connection of HTTP/1.1. Close the
// idle ones with CloseIdle when no subscription is open any more.
func Subscribing(cfg aws.Config) aws.Config {
	if c, ok := cfg.HTTPClient.(*http.Client); ok {
		if polling, ok := c.Transport.(transport); ok {
			own := *c
			own.Transport = newStreaming(polling)
			cfg.HTTPClient = &own
		}
	}
	return cfg
}

// streaming is a transport for answers that last.
type streaming struct {
	*http.Transport
	open *connections // those of polling, for their clock
}

// RoundTrip sends a request with its body in memory; see there. Otherwise subscriptions over
// HTTP/1.1 would end as they begin.
func (t streaming) RoundTrip(req *http.Request) (*http.Response, error) {
	_, ctx := watch(req, t.open)
	req, err := inMemory(req.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	return t.Transport.RoundTrip(req)
}

// newStreaming makes a transport of one for polling, with its dialer, proxy and certificates.
func newStreaming(polling transport) streaming {
	t := polling.Clone()
	t.DialContext = polling.dial // which does not watch for silence: events may be minutes apart where nothing is read
	t.TLSNextProto = nil
	if t.TLSClientConfig != nil {
		t.TLSClientConfig.NextProtos = []string{"h2", "http/1.1"}
		t.DialTLSContext = newShaker(t, sharedAtOnce).dial
	}
	t.Protocols = new(http.Protocols)
	t.Protocols.SetHTTP1(true)
	t.Protocols.SetHTTP2(true)
	t.HTTP2 = &http.HTTP2Config{
		MaxReceiveBufferPerStream: subscriptionWindow,
		SendPingTimeout:           pingAfter,
		PingTimeout:               pingTimeout,
		WriteByteTimeout:          writeTimeout,
	}
	return streaming{t, polling.open}
}
