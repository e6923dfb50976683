package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
)

const (
	// patience is how long anything may take that a test waits for: far more
	// than it takes on a busy machine.
	patience = time.Minute
	// again is the time between two looks at what is waited for.
	again = 20 * time.Millisecond
)

// rig is a local AWS on a loopback port, and a directory for the configurations
// of a test and for what its pipelines write.
type rig struct {
	*testing.T
	aws *awsfake.Server
	url string
	dir string
}

func newRig(t *testing.T) *rig {
	t.Helper()
	server := awsfake.New(awsfake.Options{EnforceLimits: true})
	t.Cleanup(func() { require.NoError(t, server.Close()) })
	url, err := server.Listen()
	require.NoError(t, err)
	require.NoError(t, server.CreateTable("checkpoints", "StreamID", "ShardID"))
	return &rig{T: t, aws: server, url: url, dir: t.TempDir()}
}

// vars is the environment of every program.
func (r *rig) vars() []string {
	return append(os.Environ(), "AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test", "ENDPOINT="+r.url, "DIR="+r.dir)
}

// write writes a file of the rig's directory, in one step for those who watch
// it, and returns its path.
func (r *rig) write(name, content string) string {
	r.Helper()
	path := filepath.Join(r.dir, name)
	require.NoError(r, os.WriteFile(path+".new", []byte(content), 0o600))
	require.NoError(r, os.Rename(path+".new", path))
	return path
}

// input is the input of a pipeline, with the entries of `streams` and further
// fields.
func input(streams string, fields ...string) string {
	return "aws_kinesis: { streams: [ '" + streams + "' ], dynamodb: { table: checkpoints }, region: us-east-1, endpoint: '${ENDPOINT}', " +
		"commit_period: 200ms, lease_period: 3s, rebalance_period: 1s" + strings.Join(append([]string{""}, fields...), ", ") + " }"
}

// lines writes each record as a line of a file of the rig's directory.
func lines(file string) string {
	return "file: { path: '${DIR}/" + file + "', codec: lines }"
}

// written returns the lines of a file, none when it does not exist.
func (r *rig) written(file string) []string {
	content, err := os.ReadFile(filepath.Join(r.dir, file))
	if os.IsNotExist(err) {
		return nil
	}
	require.NoError(r, err)
	// What follows the last newline is a line that is being written.
	all := strings.Split(string(content), "\n")
	return all[:len(all)-1]
}

// await waits until a condition holds.
func (r *rig) await(what string, holds func() bool) {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	ticker := time.NewTicker(again)
	defer ticker.Stop()
	for !holds() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			require.Fail(r, "waited too long", what)
		}
	}
}

// awaitLines waits for as many lines in a file as are wanted, and checks that
// they are these, each once, in any order.
func (r *rig) awaitLines(file string, want []string) {
	r.Helper()
	r.await(fmt.Sprintf("%d lines in %s", len(want), file), func() bool { return len(r.written(file)) >= len(want) })
	require.ElementsMatch(r, want, r.written(file))
}

// numbered are the contents of n records of a stream.
func numbered(stream string, from, n int) []string {
	var all []string
	for i := from; i < from+n; i++ {
		all = append(all, fmt.Sprint(stream, " ", i))
	}
	return all
}

// put stores numbered records, spread over the shards of a stream, and returns
// their contents.
func (r *rig) put(stream string, from, n int) []string {
	r.Helper()
	all := numbered(stream, from, n)
	for _, content := range all {
		_, _, err := r.aws.Put(stream, content, []byte(content))
		require.NoError(r, err)
	}
	return all
}

// feed puts records into a stream until it is stopped, which returns them all.
func (r *rig) feed(stream string) (stop func() []string) {
	ctx, cancel := context.WithCancel(r.Context())
	var all []string
	var failed error
	var feeding sync.WaitGroup
	feeding.Go(func() {
		ticker := time.NewTicker(2 * time.Millisecond)
		defer ticker.Stop()
		for i := 0; failed == nil; i++ {
			select {
			case <-ticker.C:
			case <-ctx.Done():
				return
			}
			record := fmt.Sprint(stream, " ", i)
			if _, _, failed = r.aws.Put(stream, record, []byte(record)); failed == nil {
				all = append(all, record)
			}
		}
	})
	r.Cleanup(func() { cancel(); feeding.Wait() })
	return func() []string {
		r.Helper()
		cancel()
		feeding.Wait()
		require.NoError(r, failed)
		return all
	}
}

// journal keeps what a program prints.
type journal struct {
	mu      sync.Mutex
	printed bytes.Buffer
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.printed.Write(b)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.printed.String()
}

// process is a run of the distribution. start makes it; the end of the test, if
// not the test itself, ends it.
type process struct {
	*rig
	cmd   *exec.Cmd
	log   journal
	ended chan struct{} // closed when it has ended; err is set before
	err   error
}

func (r *rig) start(args ...string) *process {
	r.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), 5*patience)
	p := &process{rig: r, cmd: exec.CommandContext(ctx, program, args...), ended: make(chan struct{})}
	p.cmd.Env, p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = r.vars(), r.dir, &p.log, &p.log
	require.NoError(r, p.cmd.Start())
	go func() {
		defer close(p.ended)
		defer cancel()
		p.err = p.cmd.Wait()
	}()
	r.Cleanup(func() {
		p.stop()
		if r.Failed() {
			r.Logf("benthos-kinesis %s printed:\n%s", strings.Join(args, " "), &p.log)
		}
	})
	return p
}

// stop ends the program as an operator does, who expects it to succeed.
func (p *process) stop() {
	p.Helper()
	select {
	case <-p.ended:
		return
	default:
	}
	require.NoError(p, p.cmd.Process.Signal(syscall.SIGTERM))
	p.wait()
}

// wait waits for the end of the program, which must be a good one.
func (p *process) wait() {
	p.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(p.Context()), patience)
	defer cancel()
	select {
	case <-p.ended:
		require.NoError(p, p.err, "%s", &p.log)
	case <-ctx.Done():
		require.NoError(p, p.cmd.Process.Kill())
		<-p.ended
		require.Fail(p, "the program does not end", "%s", &p.log)
	}
}

// address is a free one on loopback. Benthos does not tell which port it got, so
// it is to be told one.
func (r *rig) address() string {
	r.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(r, err)
	require.NoError(r, l.Close())
	return l.Addr().String()
}

// request is an answer of the program's HTTP service: its body, and whether it
// came and has the status 200.
func (p *process) request(method, url, body string) (string, bool) {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	require.NoError(p, err)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err.Error(), false
	}
	defer res.Body.Close()
	content, err := io.ReadAll(res.Body)
	require.NoError(p, err)
	return string(content), res.StatusCode == http.StatusOK
}

// must is a request that succeeds.
func (p *process) must(method, url, body string) string {
	p.Helper()
	answer, ok := p.request(method, url, body)
	require.True(p, ok, "%s %s: %s", method, url, answer)
	return answer
}
