package main

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestLeasesShowsAPipeline has the commands run as an operator does, beside a pipeline.
func TestLeasesShowsAPipeline(t *testing.T) {
	r := newRig(t)
	require.NoError(t, r.aws.CreateStream("orders", 2))
	p := r.start("-c", r.write("main.yaml", quiet+"input: { "+input("orders")+" }\n"+into("out")))
	args := []string{"--table", "checkpoints", "--region", "us-east-1", "--endpoint", r.url}
	r.await("both shards to be read", func() bool {
		out, err := run(t, r.vars(), append([]string{"leases", "list"}, args...)...)
		require.NoError(t, err, out)
		return strings.Count(out, " reading ") == 2
	})
	out, err := run(t, append(r.vars(), "KINESIS_LEASES_TABLE=checkpoints", "KINESIS_LEASES_ENDPOINT="+r.url, "AWS_REGION=us-east-1"), "leases", "explain", "orders:1")
	require.NoError(t, err, out)
	require.Contains(t, out, "reads it, and was seen to live.")

	watch := r.start(append([]string{"leases", "watch", "--interval", "100ms"}, args...)...)
	r.await("the first picture", func() bool { return strings.Contains(watch.log.String(), "STREAM  orders") })
	p.stop()
	r.await("the end of the pipeline", func() bool { return strings.Contains(watch.log.String(), "left or was evicted") })
	watch.stop()
}

func TestLeasesTellsMistakesByItsExitCode(t *testing.T) {
	for code, args := range map[int][]string{
		2: {"leases", "list"},
		1: {"leases", "list", "--table", "t", "--region", "us-east-1", "--endpoint", "http://127.0.0.1:1", "--timeout", "1s"},
	} {
		out, err := run(t, []string{"AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test"}, args...)
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit, out)
		require.Equal(t, code, exit.ExitCode(), out)
	}
}

func TestLeasesCompletesItsCommandsAndFlags(t *testing.T) {
	out, err := run(t, nil, "leases", "--generate-bash-completion")
	require.NoError(t, err, out)
	require.Subset(t, strings.Fields(out), []string{"list", "watch", "explain", "reset", "release", "evict", "export", "import", "copy", "import-kcl", "prune", "serve", "completion"})
	out, err = run(t, nil, "leases", "list", "--str", "--generate-bash-completion")
	require.NoError(t, err, out)
	require.Contains(t, out, "--stream")
}
