//go:build linux

package main

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/measure/child"
)

// member is one process of a fleet. fleet.join makes it; it is over when ended
// is set. All but the gate belongs to the harness.
type member struct {
	kind    string // ours or builtin
	client  string // its name in the group, where the story asked for it
	process *child.Process
	// The goroutine that hands lines over passes the gate with each. While it
	// is locked the process' output blocks, once the buffers up to it are full.
	gate    sync.Mutex
	blocked bool

	started time.Time
	// told is set with the signal that ends the process, which is sent, at the time lost;
	// ended and err are when it is gone.
	told  bool
	sent  syscall.Signal
	lost  time.Time
	ended time.Time
	err   error

	// active is when a record came last, longest the longest time before or
	// between two of them while the process ran, which began at since.
	active, since time.Time
	longest       time.Duration
	// clock is when what came last was let out, by the process' own word, in nanoseconds
	// since 1970, each record a nanosecond after the one before it.
	clock int

	// seen has the time of the first new record of each shard since mark.
	seen map[string]time.Time
}

// report is what a process' goroutine tells the harness.
type report struct {
	from  *member
	line  string
	at    time.Time
	ended bool // after the last line
	err   error
}

// tell hands the process' lines over until it has ended, or ctx has.
func (m *member) tell(ctx context.Context, reports chan<- report) {
	send := func(r report) {
		r.from, r.at = m, time.Now()
		m.gate.Lock()
		defer m.gate.Unlock()
		select {
		case reports <- r:
		case <-ctx.Done():
		}
	}
	for line := range m.process.Lines() {
		send(report{line: line})
	}
	send(report{ended: true, err: m.process.Wait()})
}

func (m *member) block() {
	if !m.blocked {
		m.blocked = true
		m.gate.Lock()
	}
}

func (m *member) unblock() {
	if m.blocked {
		m.blocked = false
		m.gate.Unlock()
	}
}

// signal sends one; SIGTERM and SIGKILL count as told to end.
func (m *member) signal(sig syscall.Signal) error {
	if sig == syscall.SIGTERM || sig == syscall.SIGKILL {
		m.told, m.sent, m.lost = true, sig, time.Now()
	}
	return m.process.Signal(sig)
}

// tick takes the time that the process tells.
func (m *member) tick(at string) error {
	clock, err := strconv.Atoi(at)
	if err != nil {
		return fmt.Errorf("reading when a process let out a batch: %w", err)
	}
	m.clock = max(m.clock, clock)
	return nil
}

// idle takes note that the process was without a record until now.
func (m *member) idle(now time.Time) {
	if d := now.Sub(m.active); d > m.longest {
		m.longest, m.since = d, m.active
	}
}

// logged returns the last lines of the process' log.
func (m *member) logged() []string {
	if m.process == nil {
		return nil
	}
	return m.process.Log()
}

func (m *member) running() bool { return m.ended.IsZero() }
