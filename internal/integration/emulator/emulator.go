// Package emulator runs the emulators of Kinesis and DynamoDB that others
// wrote, each as a child process of the test that asks for it, on a free
// loopback port.
//
// `make integration` installs them. An emulator ends with its test: killed by a
// cleanup of the test, or by itself when the process of the test is gone in any
// other way and its standard input closes (preload.cjs).
package emulator

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// startTimeout bounds the wait for an emulator to listen. The slower one takes
// half a second on an idle core.
const startTimeout = 30 * time.Second

// Kinesis starts kinesis-local and returns its URL. State changes of streams
// take it 100 ms, so that callers meet them without waiting long.
func Kinesis(t testing.TB) string {
	t.Helper()
	env := []string{
		"KINESIS_MOCK_PLAIN_PORT=1", // see preload.cjs: a name, the port is another
		"KINESIS_MOCK_TLS_PORT=2",
		"LOG_LEVEL=ERROR",
		"SHARD_LIMIT=1000",
		"CATS_EFFECT_TRACING_MODE=none", // this and the larger semi-space double its speed
	}
	for _, change := range []string{"CREATE_STREAM", "DELETE_STREAM", "SPLIT_SHARD", "MERGE_SHARDS"} {
		env = append(env, change+"_DURATION=100ms")
	}
	return start(t, "kinesis-local", env, "--max-semi-space-size=128", "main.js")
}

// DynamoDB starts dynalite, with its tables in memory, and returns its URL.
// State changes of tables take it 100 ms.
func DynamoDB(t testing.TB) string {
	t.Helper()
	return start(t, "dynalite", nil, "cli.js", "--port", "1", "--createTableMs", "100", "--deleteTableMs", "100")
}

// start runs node with args in the folder of an installed package, and waits
// until the server that asked for port 1 listens.
func start(t testing.TB, pkg string, env []string, args ...string) string {
	t.Helper()
	root := folder(t)
	dir := filepath.Join(root, "node_modules", pkg)
	require.DirExists(t, dir, "not installed: run the tests by `make integration`")

	preload := filepath.Join(root, "emulator", "preload.cjs")
	cmd := exec.CommandContext(t.Context(), "node", append([]string{"--require", preload}, args...)...)
	cmd.Dir = dir // where kinesis-local looks for its certificate
	cmd.Env = append(os.Environ(), env...)
	_, err := cmd.StdinPipe() // closed by the end of this process, if by nothing else
	require.NoError(t, err)
	out, in := io.Pipe()
	cmd.Stdout, cmd.Stderr = in, in
	require.NoError(t, cmd.Start())

	// Owned by this goroutine: the child's output. It ends when the child does.
	said := make(chan string, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			var port int
			if _, err := fmt.Sscanf(lines.Text(), "listening 1 %d", &port); err == nil {
				said <- fmt.Sprintf("http://127.0.0.1:%d", port)
			} else if !strings.HasPrefix(lines.Text(), "listening ") {
				t.Logf("%s: %s", pkg, lines.Text())
			}
		}
		// An overlong line must not block the child on its next write.
		_, _ = io.Copy(io.Discard, out)
	}()
	var ended error // valid once exited is closed
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		ended = cmd.Wait()
		_ = in.Close() // never fails, by its documentation
	}()
	t.Cleanup(func() {
		// t.Context was cancelled just before: exec has killed the child.
		<-exited
		<-done
	})

	timeout := time.NewTimer(startTimeout)
	defer timeout.Stop()
	select {
	case url := <-said:
		return url
	case <-exited:
		t.Fatalf("%s ended before it listened: %v", pkg, ended)
	case <-timeout.C:
		t.Fatalf("%s did not listen within %s", pkg, startTimeout)
	}
	return ""
}

// folder returns internal/integration of the module in which the test runs:
// tests run in the folder of their package.
func folder(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	require.NoError(t, err)
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return filepath.Join(dir, "internal", "integration")
		}
		require.NotEqual(t, filepath.Dir(dir), dir, "no go.mod above the test")
	}
}
