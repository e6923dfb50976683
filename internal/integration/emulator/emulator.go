// Package emulator runs the emulators of Kinesis and DynamoDB that others
// wrote, each as a child process of the test that asks for it, on a free
// loopback port.
package emulator

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/integration/child"
	"github.com/benthos-plugins/aws-kinesis/internal/integration/node"
)

// startTimeout bounds the wait for an emulator to listen. The slower one takes
// half a second on an idle core.
const startTimeout = 30 * time.Second

// Kinesis starts kinesis-local and returns its URL. State changes of streams
// and consumers take it 100 ms, so that callers meet them without waiting long.
func Kinesis(t testing.TB) string {
	t.Helper()
	env := []string{
		"KINESIS_MOCK_PLAIN_PORT=1", // see preload.cjs: a name, the port is another
		"KINESIS_MOCK_TLS_PORT=2",
		"LOG_LEVEL=ERROR",
		"SHARD_LIMIT=1000",
		"CATS_EFFECT_TRACING_MODE=none", // this and the larger semi-space double its speed
	}
	for _, change := range []string{
		"CREATE_STREAM", "DELETE_STREAM", "SPLIT_SHARD", "MERGE_SHARDS",
		"REGISTER_STREAM_CONSUMER", "DEREGISTER_STREAM_CONSUMER",
	} {
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
	preload := filepath.Join(child.Folder(t), "emulator", "preload.cjs")
	return await(t, pkg, func(hear func(string)) *child.Process {
		// In its folder kinesis-local looks for its certificate.
		return node.Start(t, node.Package(t, pkg), env, hear, append([]string{"--require", preload}, args...)...)
	})
}

// await starts an emulator and waits until it says that it listens, as preload.cjs
// and serve_moto.py do; its other lines are the test's.
func await(t testing.TB, name string, start func(hear func(string)) *child.Process) string {
	t.Helper()
	said := make(chan string, 1)
	process := start(func(line string) {
		var port int
		if _, err := fmt.Sscanf(line, "listening 1 %d", &port); err == nil {
			said <- fmt.Sprintf("http://127.0.0.1:%d", port)
		} else if !strings.HasPrefix(line, "listening ") {
			t.Logf("%s: %s", name, line)
		}
	})

	timeout := time.NewTimer(startTimeout)
	defer timeout.Stop()
	select {
	case url := <-said:
		return url
	case <-process.Exited:
		t.Fatalf("%s ended before it listened: %v", name, process.Err())
	case <-timeout.C:
		t.Fatalf("%s did not listen within %s", name, startTimeout)
	}
	return ""
}
