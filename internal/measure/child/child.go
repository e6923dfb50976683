// Package child runs another program and hands over what it prints: its
// standard output line by line as it comes, and of its standard error the end.
package child

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// killAfter is how long a program may take to end by itself once it was
	// closed.
	killAfter = 10 * time.Second
	// logLines is how much of the standard error is kept.
	logLines = 20
	// aheadLines is how far reading runs ahead of whoever takes the lines.
	aheadLines = 4096
)

// Process is a running program. Start makes it and Close ends it; its methods
// belong to one goroutine.
type Process struct {
	cmd    *exec.Cmd
	cancel context.CancelFunc
	lines  chan string
	log    tail
	// ended is closed when the process is gone and everything it printed was
	// read; readErr and err are set before.
	ended   chan struct{}
	readErr error
	err     error
}

// Start runs a program with the given arguments, and with env, as NAME=value,
// beside this process' environment. When ctx ends, the program is told to end.
func Start(ctx context.Context, program string, args, env []string) (*Process, error) {
	return StartLogged(ctx, program, args, env, io.Discard)
}

// StartLogged is Start for a caller who wants all of the standard error. log
// gets it from one goroutine, which ends before the process counts as gone.
func StartLogged(ctx context.Context, program string, args, env []string, log io.Writer) (*Process, error) {
	ctx, cancel := context.WithCancel(ctx)
	p := &Process{
		cmd:    exec.CommandContext(ctx, program, args...),
		cancel: cancel,
		lines:  make(chan string, aheadLines),
		ended:  make(chan struct{}),
	}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stderr = io.MultiWriter(&p.log, log)
	p.cmd.Cancel = func() error { return p.cmd.Process.Signal(syscall.SIGTERM) }
	p.cmd.WaitDelay = killAfter

	stdout, err := p.cmd.StdoutPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("starting %s: %w", program, err)
	}
	go p.read(stdout)
	return p, nil
}

// read is the only goroutine that reads the program's output and waits for its
// end.
func (p *Process) read(stdout io.Reader) {
	defer close(p.ended)
	r := bufio.NewReaderSize(stdout, 1<<16)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			// What is left without a line's end was cut when the program
			// died. It never got to know that it printed it.
			if !errors.Is(err, io.EOF) {
				p.readErr = fmt.Errorf("reading the output: %w", err)
			}
			break
		}
		p.lines <- strings.TrimSuffix(line, "\n")
	}
	close(p.lines)
	p.err = p.cmd.Wait()
}

// Lines hands over each whole line of the standard output, and is closed after
// the last one. Whoever starts a process takes them until then, or closes it:
// a program whose output is not read stands still.
func (p *Process) Lines() <-chan string { return p.lines }

// PID is the program's process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Signal sends a signal. A program that has ended already is no error.
func (p *Process) Signal(sig os.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("sending %s: %w", sig, err)
	}
	return nil
}

// Wait returns how the program ended. It may be called once Lines is closed,
// and lasts no longer than the program's end.
func (p *Process) Wait() error {
	<-p.ended
	p.cancel()
	return errors.Join(p.err, p.readErr)
}

// Close tells the program to end, kills it when it has not in ten seconds, and
// returns when it is gone. What it still prints is lost. It may be called more
// than once, and after Wait.
func (p *Process) Close() {
	p.cancel()
	for range p.lines {
		// Drained, so that the reader and the program come to their end.
	}
	<-p.ended
}

// Log returns the last lines of the standard error.
func (p *Process) Log() []string { return p.log.Lines() }

// tail keeps the last lines of what is written to it. The goroutine that copies
// the standard error writes while the process' owner reads.
type tail struct {
	mu    sync.Mutex
	lines []string
	rest  []byte // of a line without end so far
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rest = append(t.rest, b...)
	for {
		line, rest, found := bytes.Cut(t.rest, []byte("\n"))
		if !found {
			return len(b), nil
		}
		if len(t.lines) == logLines {
			t.lines = slices.Delete(t.lines, 0, 1)
		}
		t.lines = append(t.lines, string(line))
		t.rest = rest
	}
}

func (t *tail) Lines() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := slices.Clone(t.lines)
	if len(t.rest) > 0 {
		lines = append(lines, string(t.rest))
	}
	return lines
}
