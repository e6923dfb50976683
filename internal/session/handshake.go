package session

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// handshakesAtOnce is how many connections to one address are made at the same time. When
// 1,000 connections have died together, as many calls want a new one. All their handshakes
// at once take a second of a core and more, and where there is less than that, each of
// them takes so long that it is given up, and its work is lost: then shards stood still
// for twice an attempt. So many keep a core busy where an answer takes 50 ms, and
// calls that wait may use a connection that has become free before theirs is made.
const handshakesAtOnce = 64

// longestTurn is when a connection that is still being made keeps no other from it. Where
// an answer has not come by then it is not for want of processor time. Of the machines
// behind an address one may accept and never answer: those that wait for it would soon have
// all turns, for 5 s each, and keep calls from those that are well.
const longestTurn = time.Second

// sharedAtOnce is handshakesAtOnce for connections of HTTP/2. Until the first one stands, each call
// that wants to subscribe makes one of its own, of which all but a few would be for nothing.
const sharedAtOnce = 8

// shaker makes the connections of TLS of a transport, a bounded number at a time. Each has
// a turn, for longestTurn at most.
type shaker struct {
	connect func(ctx context.Context, network, addr string) (net.Conn, error)
	conf    *tls.Config
	atOnce  int
	mu      sync.Mutex
	turns   map[string]chan struct{} // by address, since one that does not answer is no reason to keep from another
}

func newShaker(t *http.Transport, atOnce int) *shaker {
	return &shaker{connect: t.DialContext, conf: t.TLSClientConfig, atOnce: atOnce, turns: map[string]chan struct{}{}}
}

func (s *shaker) turn(addr string) chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	turn := s.turns[addr]
	if turn == nil {
		turn = make(chan struct{}, s.atOnce)
		s.turns[addr] = turn
	}
	return turn
}

var errUnwanted = errors.New("the call does not need a connection any more")

// dial is http.Transport.DialTLSContext. HTTP takes no notice of an error when the call has
// a connection already.
func (s *shaker) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	turn := s.turn(addr)
	select {
	case turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	release := sync.OnceFunc(func() { <-turn })
	defer release()
	defer time.AfterFunc(longestTurn, release).Stop()
	if w, ok := ctx.Value(waitKey{}).(*wait); ok && w.served() {
		return nil, errUnwanted
	}
	conn, err := s.connect(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	shaken, err := s.shake(ctx, conn, addr)
	if err != nil {
		// It was never in use, and what is wrong with it is told.
		_ = conn.Close()
		return nil, err
	}
	return shaken, nil
}

func (s *shaker) shake(ctx context.Context, conn net.Conn, addr string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("shaking hands with %s: %w", addr, err)
	}
	conf := s.conf.Clone()
	if conf.ServerName == "" {
		conf.ServerName = host
	}
	if w, ok := ctx.Value(waitKey{}).(*wait); ok && !strings.EqualFold(host, w.host) {
		conf.NextProtos = []string{"http/1.1"} // a proxy of https://, to which HTTP says CONNECT in that
	}
	ctx, cancel := context.WithTimeoutCause(ctx, tlsTimeout, fmt.Errorf("no TLS handshake within %s", tlsTimeout))
	defer cancel()
	shaken := tls.Client(conn, conf)
	if err := shaken.HandshakeContext(ctx); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	return shaken, nil
}

// waitKey is where the context of a dial has the wait that it is for.
type waitKey struct{}

// served reports whether the call has a connection or has ended.
func (w *wait) served() bool { return w.connected.Load() || w.call.Err() != nil }
