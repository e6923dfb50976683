package awsfake

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Clock is the time that a Server lives in: it stamps records, ages iterators,
// refills quotas and measures delays.
type Clock interface {
	Now() time.Time
	// Wait returns nil when d has passed, or the context's error when that
	// ends first.
	Wait(ctx context.Context, d time.Duration) error
}

// systemClock is the process' own clock, or the bubble's under testing/synctest.
type systemClock struct{}

func (systemClock) Now() time.Time { return time.Now() }

func (systemClock) Wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// offsetClock is a clock that is ahead of another.
type offsetClock struct {
	Clock
	by atomic.Int64 // nanoseconds
}

func (c *offsetClock) Now() time.Time { return c.Clock.Now().Add(time.Duration(c.by.Load())) }

// SetClockOffset puts the server's clock ahead of Options.Clock, or behind it where d
// is below zero: the clock of its answers, its records and its signatures. It is for
// clients whose clocks are wrong; limits and iterators that are in use when it changes
// take the jump for time that has passed.
func (s *Server) SetClockOffset(d time.Duration) { s.clock.by.Store(int64(d)) }

// ManualClock stands still until Advance moves it. Safe for concurrent use.
type ManualClock struct {
	mu      sync.Mutex
	now     time.Time
	changed chan struct{} // closed and replaced whenever now moves
}

// NewManualClock returns a clock that stands at now.
func NewManualClock(now time.Time) *ManualClock {
	return &ManualClock{now: now, changed: make(chan struct{})}
}

// Now returns the time at which the clock stands.
func (c *ManualClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance moves the clock by d, which must not be negative, and releases the
// waits that are over.
func (c *ManualClock) Advance(d time.Duration) {
	if d < 0 {
		panic("awsfake: a clock does not go back")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	close(c.changed)
	c.changed = make(chan struct{})
}

// Wait implements Clock.
func (c *ManualClock) Wait(ctx context.Context, d time.Duration) error {
	end := c.Now().Add(d)
	for {
		c.mu.Lock()
		now, changed := c.now, c.changed
		c.mu.Unlock()
		if !now.Before(end) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
