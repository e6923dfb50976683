package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Proxy is an HTTP proxy on loopback that connects to whatever it is asked for. NewProxy
// starts it, and Close ends it.
type Proxy struct {
	server  *http.Server
	addr    string
	serving sync.WaitGroup
	ctx     context.Context //nolint:containedctx // the proxy's life, which ends what hangs
	cancel  context.CancelFunc

	mu       sync.Mutex
	refuse   func(r *http.Request) int
	connects []string
	open     map[net.Conn]struct{}
}

// NewProxy starts a proxy. refuse returns the status with which it answers a request to
// connect, 0 to connect, and a negative number to give no answer at all.
func NewProxy(ctx context.Context, refuse func(r *http.Request) int) (*Proxy, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("starting a proxy: %w", err)
	}
	p := &Proxy{addr: l.Addr().String(), refuse: refuse, open: map[net.Conn]struct{}{}}
	p.ctx, p.cancel = context.WithCancel(context.WithoutCancel(ctx))
	p.server = &http.Server{Handler: http.HandlerFunc(p.handle), ReadHeaderTimeout: time.Minute}
	p.serving.Go(func() {
		if err := p.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			panic(fmt.Sprintf("relay: the proxy at %s: %v", p.addr, err))
		}
	})
	return p, nil
}

// Addr is the host and port of the proxy.
func (p *Proxy) Addr() string { return p.addr }

// Connects returns the hosts that it was asked to connect to, with their ports, once each.
func (p *Proxy) Connects() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Compact(slices.Sorted(slices.Values(p.connects)))
}

// Close ends all connections, and waits until they have ended.
func (p *Proxy) Close() {
	p.cancel()
	// That it is closed already is the only error that can come of these.
	_ = p.server.Close()
	p.mu.Lock()
	for c := range p.open {
		_ = c.Close()
	}
	p.mu.Unlock()
	p.serving.Wait()
}

func (p *Proxy) handle(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.connects = append(p.connects, r.Host)
	p.mu.Unlock()
	switch status := p.refuse(r); {
	case status < 0:
		select {
		case <-p.ctx.Done():
		case <-r.Context().Done():
		}
		return
	case status > 0:
		w.WriteHeader(status)
		return
	case r.Method != http.MethodConnect:
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	out, err := new(net.Dialer).DialContext(r.Context(), "tcp", r.Host)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	in, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		_ = out.Close()
		return
	}
	if !p.hold(in, out) {
		return
	}
	if _, err := io.WriteString(in, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		p.drop(in, out)
		return
	}
	p.serving.Go(func() { defer p.drop(in, out); _, _ = io.Copy(out, buffered) })
	p.serving.Go(func() { defer p.drop(in, out); _, _ = io.Copy(in, out) })
}

// hold keeps connections for Close to end, unless it has begun.
func (p *Proxy) hold(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		if p.ctx.Err() != nil {
			_ = c.Close()
			continue
		}
		p.open[c] = struct{}{}
	}
	return p.ctx.Err() == nil
}

// drop ends connections.
func (p *Proxy) drop(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
		delete(p.open, c)
	}
}
