package awsfake

import (
	"crypto/tls"
	"net"
	"strings"
	"sync"
	"sync/atomic"
)

// Traffic is what has passed through one of a server's ports since it began to listen, as
// it is on the wire: with TLS, in its ciphered form, handshakes included.
type Traffic struct {
	Accepted, Open int64 // connections
	// Handshakes of TLS that came to an end, and how many of them resumed an earlier
	// session, which spares the certificates.
	Handshakes, Resumed int64
	Received, Sent      int64 // bytes
}

// Traffic returns that of the port in a URL that Listen, ListenAddr or ListenTLS returned.
func (s *Server) Traffic(url string) Traffic {
	_, address, _ := strings.Cut(url, "://")
	s.mu.Lock()
	p := s.ports[address]
	s.mu.Unlock()
	if p == nil {
		return Traffic{}
	}
	return Traffic{
		Accepted: p.accepted.Load(), Open: p.open.Load(),
		Handshakes: p.handshakes.Load(), Resumed: p.resumed.Load(),
		Received: p.received.Load(), Sent: p.sent.Load(),
	}
}

// port is a listener that counts. The server's mutex guards the map of them alone.
type port struct {
	net.Listener
	accepted, open, handshakes, resumed, received, sent atomic.Int64
}

func (p *port) Accept() (net.Conn, error) {
	c, err := p.Listener.Accept()
	if err != nil {
		return nil, err
	}
	p.accepted.Add(1)
	p.open.Add(1)
	return &portConn{Conn: c, port: p}, nil
}

// shake is called when a handshake has gone well.
func (p *port) shake(state tls.ConnectionState) error {
	p.handshakes.Add(1)
	if state.DidResume {
		p.resumed.Add(1)
	}
	return nil
}

type portConn struct {
	net.Conn
	port *port
	once sync.Once
}

func (c *portConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.port.received.Add(int64(n))
	return n, err
}

func (c *portConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.port.sent.Add(int64(n))
	return n, err
}

func (c *portConn) Close() error {
	c.once.Do(func() { c.port.open.Add(-1) })
	return c.Conn.Close()
}
