package relay

import (
	"bufio"
	"context"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// limit is for what happens at once.
const limit = 10 * time.Second

// echo answers each line with itself, and tells of the connections that end.
type echo struct {
	net.Listener
	ended   chan struct{}
	serving sync.WaitGroup
}

func newEcho(t *testing.T) *echo {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	e := &echo{Listener: l, ended: make(chan struct{}, 16)}
	e.serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			e.serving.Go(func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
				e.ended <- struct{}{}
			})
		}
	})
	t.Cleanup(func() {
		require.NoError(t, l.Close())
		e.serving.Wait()
	})
	return e
}

func newRelay(t *testing.T) (*Relay, *echo) {
	t.Helper()
	e := newEcho(t)
	r, err := New(t.Context(), e.Addr().String())
	require.NoError(t, err)
	t.Cleanup(r.Close)
	return r, e
}

func connect(t *testing.T, r *Relay) net.Conn {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", r.Addr())
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

func say(t *testing.T, c net.Conn, line string) {
	t.Helper()
	_, err := io.WriteString(c, line+"\n")
	require.NoError(t, err)
}

func hear(t *testing.T, c net.Conn, want string) {
	t.Helper()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(limit)))
	got, err := bufio.NewReader(c).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, want+"\n", got)
}

func hearNothing(t *testing.T, c net.Conn) {
	t.Helper()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(50*time.Millisecond)))
	n, err := c.Read(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.Zero(t, n)
}

func TestOpenConnectionsFallSilentAndNewOnesWork(t *testing.T) {
	r, e := newRelay(t)
	before := connect(t, r)
	say(t, before, "one")
	hear(t, before, "one")

	require.Equal(t, 1, r.Cut())
	say(t, before, "two")
	hearNothing(t, before)
	require.Zero(t, r.Cut(), "it is silent already")

	after := connect(t, r)
	say(t, after, "three")
	hear(t, after, "three")

	require.NoError(t, before.Close())
	require.Empty(t, e.ended, "the end of a silent connection is not heard either")
}

// answers reports whether a line comes back.
func answers(t *testing.T, c net.Conn) bool {
	t.Helper()
	say(t, c, "line")
	require.NoError(t, c.SetReadDeadline(time.Now().Add(250*time.Millisecond)))
	_, err := io.ReadFull(c, make([]byte, len("line\n")))
	return err == nil
}

func TestHalfOfTheConnectionsFallSilent(t *testing.T) {
	r, _ := newRelay(t)
	open := make([]net.Conn, 6)
	for i := range open {
		open[i] = connect(t, r)
		require.True(t, answers(t, open[i]))
	}
	require.Equal(t, 3, r.CutHalf())
	alive := 0
	for _, c := range open {
		if answers(t, c) {
			alive++
		}
	}
	require.Equal(t, 3, alive)
	require.Equal(t, 3, r.Cut(), "those that still work")
}

func TestBlockedConnectionsStaySilentWhenOthersWorkAgain(t *testing.T) {
	r, _ := newRelay(t)
	r.Block(true)
	blocked := connect(t, r)
	require.Eventually(t, func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.flows) == 1
	}, limit, time.Millisecond, "it is accepted")
	say(t, blocked, "one")
	hearNothing(t, blocked)

	r.Block(false)
	say(t, blocked, "two")
	hearNothing(t, blocked)
	free := connect(t, r)
	say(t, free, "three")
	hear(t, free, "three")
}

func TestEndOfConnectionReachesTheOtherSide(t *testing.T) {
	r, e := newRelay(t)
	c := connect(t, r)
	say(t, c, "one")
	hear(t, c, "one")
	require.NoError(t, c.Close())
	select {
	case <-e.ended:
	case <-time.NewTimer(limit).C:
		require.Fail(t, "the server's side stays open")
	}
}

func TestCloseEndsSilentConnectionsToo(t *testing.T) {
	r, _ := newRelay(t)
	c := connect(t, r)
	say(t, c, "one")
	hear(t, c, "one")
	r.Cut()
	r.Close()
	r.Close()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(limit)))
	_, err := c.Read(make([]byte, 1))
	require.Error(t, err)
	require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
}

func TestContextEndsConnections(t *testing.T) {
	e := newEcho(t)
	ctx, cancel := context.WithCancel(t.Context())
	r, err := New(ctx, e.Addr().String())
	require.NoError(t, err)
	t.Cleanup(r.Close)
	c := connect(t, r)
	say(t, c, "one")
	hear(t, c, "one")
	cancel()
	select {
	case <-e.ended:
	case <-time.NewTimer(limit).C:
		require.Fail(t, "the server's side stays open")
	}
}

func TestUnreachableServerIsAConnectionThatCloses(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	r, err := New(t.Context(), l.Addr().String())
	require.NoError(t, err)
	t.Cleanup(r.Close)
	c := connect(t, r)
	require.NoError(t, c.SetReadDeadline(time.Now().Add(limit)))
	_, err = c.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
}

func TestLimitedConnectionsShareTheRate(t *testing.T) {
	const each, rate = 50_000, 500_000
	r, _ := newRelay(t)
	r.Limit(rate)
	begin := time.Now()
	var reading sync.WaitGroup
	took := make([]time.Duration, 2)
	for i := range took {
		c := connect(t, r)
		reading.Go(func() {
			_, err := c.Write(make([]byte, each))
			if err == nil {
				_, err = io.ReadFull(c, make([]byte, each))
			}
			if err != nil {
				t.Error(err)
			}
			took[i] = time.Since(begin)
		})
	}
	reading.Wait()
	const all = 2 * each * time.Second / rate
	require.Greater(t, min(took[0], took[1]), all*2/3, "they take turns")
	require.GreaterOrEqual(t, max(took[0], took[1]), all*9/10)
	require.Less(t, max(took[0], took[1]), all+limit)
}
