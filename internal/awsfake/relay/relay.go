// Package relay is a network between a client and a server on loopback that can
// drop packets silently, as a firewall does that has forgotten a connection:
// neither end hears anything any more, nor that anything is wrong. It can be slow,
// too.
//
// It stands in for that from the first byte to the last but for one thing: what a
// client sends is acknowledged by the relay's own socket. The client's kernel has
// nothing to notice either, so what finds the dead connection is the client.
package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Relay forwards connections to a server. New makes it and Close ends it; it is
// safe for concurrent use.
type Relay struct {
	target   string
	listener *net.TCPListener
	ctx      context.Context //nolint:containedctx // the relay's own life, which Close ends: dials wait on it
	cancel   context.CancelFunc
	serving  sync.WaitGroup // the accept loop, all flows and their end

	mu      sync.Mutex
	blocked bool
	flows   map[*flow]struct{}
	rate    int       // bytes of answers a second; 0: no limit
	free    time.Time // when the last packet of an answer has passed
}

// flow is one connection through the relay.
type flow struct {
	client *net.TCPConn
	server *net.TCPConn // nil until dialed, and for ever if it never was
	silent atomic.Bool
}

// New listens on a free loopback port for connections to the target, a host and
// a port. It ends with ctx at the latest.
func New(ctx context.Context, target string) (*Relay, error) {
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, fmt.Errorf("listening for connections to %s: %w", target, err)
	}
	r := &Relay{target: target, listener: l, flows: map[*flow]struct{}{}}
	r.ctx, r.cancel = context.WithCancel(ctx)
	r.serving.Go(r.accept)
	r.serving.Go(r.end)
	return r, nil
}

// Addr is where to connect to, a host and a port.
func (r *Relay) Addr() string { return r.listener.Addr().String() }

// Cut drops from now on whatever is sent over the connections that are open, and
// returns their number. New ones work, unless Block is in force.
func (r *Relay) Cut() int { return r.cut(func(int) bool { return true }) }

// CutHalf is Cut for every other connection.
func (r *Relay) CutHalf() int { return r.cut(func(i int) bool { return i%2 == 0 }) }

// cut silences those of the open connections that are picked by their number, which is
// of no order.
func (r *Relay) cut(picked func(int) bool) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	open, cut := 0, 0
	for f := range r.flows {
		if f.silent.Load() {
			continue
		}
		if picked(open) {
			f.silent.Store(true)
			cut++
		}
		open++
	}
	return cut
}

// Block makes connections that are opened from now on silent from their start
// and for ever, until it is called with false.
func (r *Relay) Block(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.blocked = on
}

// Limit lets so many bytes of answers through a second from now on, over all
// connections together, which take turns packet by packet; 0 lets all through at once.
func (r *Relay) Limit(rate int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rate = rate
}

// packetSize is what a packet carries over Ethernet.
const packetSize = 1460

// wait waits until a packet of an answer, of so many bytes, has passed. It reports false
// when the relay has ended.
func (r *Relay) wait(bytes int) bool {
	r.mu.Lock()
	if r.rate == 0 {
		r.mu.Unlock()
		return true
	}
	now := time.Now()
	if r.free.Before(now) {
		r.free = now
	}
	r.free = r.free.Add(time.Duration(bytes) * time.Second / time.Duration(r.rate))
	passed := time.NewTimer(r.free.Sub(now))
	r.mu.Unlock()
	defer passed.Stop()
	select {
	case <-passed.C:
		return true
	case <-r.ctx.Done():
		return false
	}
}

// answerSize is how much of an answer is passed on at once.
func (r *Relay) answerSize() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.rate == 0 {
		return blockSize
	}
	return packetSize
}

// Close ends all connections and waits for their goroutines. It may be called
// again.
func (r *Relay) Close() {
	r.cancel()
	r.serving.Wait()
}

// end closes everything when the relay's life is over. What is closed already has
// nothing to tell.
func (r *Relay) end() {
	<-r.ctx.Done()
	_ = r.listener.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	for f := range r.flows {
		f.close()
	}
}

func (r *Relay) accept() {
	for {
		c, err := r.listener.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			panic(fmt.Sprintf("relay: accepting connections to %s: %v", r.target, err))
		}
		r.serving.Go(func() { r.carry(c) })
	}
}

// carry is the life of a connection.
func (r *Relay) carry(client *net.TCPConn) {
	f, blocked := r.begin(client)
	defer r.finish(f)
	if blocked {
		f.pump(nil, client, func() int { return blockSize }, nil)
		return
	}
	server, err := new(net.Dialer).DialContext(r.ctx, "tcp", r.target)
	if err != nil {
		return // the client sees its connection close
	}
	if !r.join(f, server.(*net.TCPConn)) {
		return
	}
	var answers sync.WaitGroup
	answers.Go(func() { f.pump(client, f.server, r.answerSize, r.wait) })
	f.pump(f.server, client, func() int { return blockSize }, func(int) bool { return true })
	answers.Wait()
}

func (r *Relay) begin(client *net.TCPConn) (f *flow, blocked bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f = &flow{client: client}
	f.silent.Store(r.blocked)
	r.flows[f] = struct{}{}
	if r.ctx.Err() != nil {
		f.close() // end has passed
	}
	return f, r.blocked
}

// join adds the server's side. It reports false when the relay has ended.
func (r *Relay) join(f *flow, server *net.TCPConn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	f.server = server
	return r.ctx.Err() == nil
}

func (r *Relay) finish(f *flow) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.flows, f)
	f.close()
}

func (f *flow) close() {
	_ = f.client.Close()
	if f.server != nil {
		_ = f.server.Close()
	}
}

// blockSize is how much is passed on at once where there is no limit.
const blockSize = 32 << 10

// pump carries what one end sends to the other until it ends, and drops it, its
// end included, while the flow is silent. It reads so much at once as size says, and wait
// holds it up, or ends it.
func (f *flow) pump(to, from *net.TCPConn, size func() int, wait func(bytes int) bool) {
	block := make([]byte, blockSize)
	for {
		n, err := from.Read(block[:size()])
		if f.silent.Load() {
			if err != nil {
				return
			}
			continue
		}
		if n > 0 {
			if !wait(n) {
				return
			}
			if _, gone := to.Write(block[:n]); gone != nil {
				err = gone
			}
		}
		if err != nil {
			// The other pump ends when its own end has closed, too.
			_ = to.CloseWrite()
			_ = from.CloseRead()
			return
		}
	}
}
