package leasecli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/benthosdev/benthos/v4/public/components/io"
	_ "github.com/benthosdev/benthos/v4/public/components/pure"
	"github.com/benthosdev/benthos/v4/public/service"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	_ "github.com/benthos-plugins/aws-kinesis"
	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
	"github.com/benthos-plugins/aws-kinesis/internal/leasecli"
	"github.com/benthos-plugins/aws-kinesis/internal/leases"
	"github.com/benthos-plugins/aws-kinesis/internal/table"
)

// long is how long anything may take that a test waits for, on a busy machine too.
const long = time.Minute

// TestMain sets what the commands find in their environment. The tests run one after the
// other, since the library of commands keeps its flag for help in one place.
func TestMain(m *testing.M) {
	for name, value := range map[string]string{"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"} {
		if err := os.Setenv(name, value); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// rig is a local AWS on a loopback port, with a stream of two shards and a table.
type rig struct {
	*testing.T
	aws *awsfake.Server
	url string
}

func newRig(t *testing.T) *rig {
	t.Helper()
	server := awsfake.New(awsfake.Options{EnforceLimits: true})
	t.Cleanup(func() { require.NoError(t, server.Close()) })
	url, err := server.Listen()
	require.NoError(t, err)
	require.NoError(t, server.CreateTable("checkpoints", table.AttrStream, table.AttrShard))
	require.NoError(t, server.CreateStream("orders", 2))
	return &rig{T: t, aws: server, url: url}
}

// pipeline runs an input until the function that it returns is called.
func (r *rig) pipeline() (stop func()) {
	r.Helper()
	b := service.NewStreamBuilder()
	require.NoError(r, b.SetLoggerYAML("level: NONE"))
	require.NoError(r, b.AddInputYAML(fmt.Sprintf(
		"aws_kinesis: { streams: [ orders ], dynamodb: { table: checkpoints }, region: us-east-1, endpoint: '%s', commit_period: 200ms, lease_period: 3s, rebalance_period: 1s }", r.url)))
	require.NoError(r, b.AddOutputYAML("drop: {}"))
	stream, err := b.Build()
	require.NoError(r, err)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = stream.Run(context.WithoutCancel(r.Context()))
	}()
	stop = sync.OnceFunc(func() {
		require.NoError(r, stream.Stop(context.WithoutCancel(r.Context())))
		<-ended
	})
	r.Cleanup(stop)
	return stop
}

// leases runs a command, and returns what it wrote and its exit code.
func (r *rig) leases(command string, args ...string) (out, errOut string, code int) {
	return r.leasesWith(r.Context(), new(safeBuffer), command, args...)
}

func (r *rig) leasesWith(ctx context.Context, out *safeBuffer, command string, args ...string) (written, errOut string, code int) {
	var errs bytes.Buffer
	all := append([]string{command, "--table", "checkpoints", "--endpoint", r.url}, args...)
	code = leasecli.Run(ctx, all, strings.NewReader(""), out, &errs)
	return out.String(), errs.String(), code
}

// safeBuffer is what a command writes to while a test reads.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// view is what `list` shows as JSON.
func (r *rig) view(args ...string) (v leases.View) {
	r.Helper()
	out, errOut, code := r.leases("list", append([]string{"--output", "json"}, args...)...)
	require.Zero(r, code, errOut)
	require.NoError(r, json.Unmarshal([]byte(out), &v), out)
	return v
}

// reading waits until all shards of the stream are read.
func (r *rig) reading() {
	r.Helper()
	require.EventuallyWithT(r, func(c *assert.CollectT) {
		v := r.view()
		s, _ := v.Stream("orders")
		require.NotEmpty(c, s.Shards)
		for _, sh := range s.Shards {
			require.Equal(c, leases.Reading, sh.State)
		}
	}, long, 100*time.Millisecond)
}

func TestListShowsAGroupThatReads(t *testing.T) {
	r := newRig(t)
	r.pipeline()
	r.reading()
	seq, err := r.aws.PutTo("orders", "shardId-000000000001", "key", []byte("x"))
	require.NoError(t, err)
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		sh, _ := r.view().Shard("orders", "shardId-000000000001")
		require.Equal(c, seq, sh.Sequence)
	}, long, 100*time.Millisecond)

	v := r.view("--watch", "30s")
	require.Len(t, v.Members, 1)
	require.Equal(t, leases.Alive, v.Members[0].Life)
	require.Equal(t, 2, v.Members[0].Shards)
	sh, _ := v.Shard("orders", "shardId-000000000001")
	require.Equal(t, v.Members[0].ID, sh.Owner)
	require.NotNil(t, sh.Lag)
	require.Less(t, sh.Lag.Duration(), long)

	out, _, code := r.leases("list", "--stream", "orders")
	require.Zero(t, code)
	require.Contains(t, out, "SHARD   STATE    OWNER")
	require.Contains(t, out, seq)
}

func TestExplainWatchesTheOwner(t *testing.T) {
	r := newRig(t)
	stop := r.pipeline()
	r.reading()
	out, errOut, code := r.leases("explain", "0")
	require.Zero(t, code, errOut)
	require.Contains(t, out, "orders:shardId-000000000000 is reading\n\n- Client ")
	require.Contains(t, out, "reads it, and was seen to live.")
	stop()
	out, _, code = r.leases("explain", "--stream", "orders", "orders:0")
	require.Zero(t, code)
	require.Contains(t, out, "is free")
	require.Contains(t, out, "No member is in the group that may live.")
	require.Contains(t, out, "What to do: Start an instance with this table.")
}

// An input that cannot write to the table is to the others as one that is dead.
func TestExplainNoticesThatTheOwnerIsCutOff(t *testing.T) {
	r := newRig(t)
	r.pipeline()
	r.reading()
	heal := r.aws.Inject(awsfake.Fault{Operation: "UpdateItem", Refuse: awsfake.NewError("AccessDeniedException", "not now")})
	defer heal()
	out, errOut, code := r.leases("explain", "1")
	require.Zero(t, code, errOut)
	require.Contains(t, out, "orders:shardId-000000000001 is owner dead\n")
	require.Contains(t, out, "it has stood still for its lease period. Any member may evict it now")
	require.Contains(t, out, "What to do: Start an instance that reads this stream.")
}

func TestExplainNamesTheReaderOfAParent(t *testing.T) {
	r := newRig(t)
	stop := r.aws.Inject(awsfake.Fault{Operation: "GetRecords", Refuse: awsfake.NewError("KMSThrottlingException", "not now")})
	defer stop()
	r.pipeline()
	r.reading()
	_, _, err := r.aws.Split("orders", "shardId-000000000000")
	require.NoError(t, err)
	v := r.view()
	out, errOut, code := r.leases("explain", "2")
	require.Zero(t, code, errOut)
	require.Contains(t, out, "orders:shardId-000000000002 is waiting\n")
	require.Contains(t, out, "Its parent shardId-000000000000 is not read to its end yet")
	require.Contains(t, out, "it is reading, and client "+v.Members[0].ID+" reads it")
	require.Contains(t, out, "explain orders:shardId-000000000000.")
}

func TestWatchTellsWhatChanges(t *testing.T) {
	r := newRig(t)
	ctx, end := context.WithCancel(t.Context())
	out, code := new(safeBuffer), make(chan int, 1)
	go func() {
		_, errOut, c := r.leasesWith(ctx, out, "watch", "--stream", "orders", "--interval", "100ms")
		t.Logf("watch ended with %d, and wrote:\n%s\n%s", c, out, errOut)
		code <- c
	}()
	defer func() {
		end()
		if t.Failed() {
			<-code
		}
	}()
	require.Eventually(t, func() bool { return strings.Contains(out.String(), "STREAM  orders") }, long, 20*time.Millisecond)
	stop := r.pipeline()
	require.Eventually(t, func() bool {
		return strings.Contains(out.String(), "orders:shardId-000000000001 is reading, and was free")
	}, long, 20*time.Millisecond)
	stop()
	require.Eventually(t, func() bool { return strings.Contains(out.String(), "left or was evicted") }, long, 20*time.Millisecond)
	end()
	require.Zero(t, <-code)
}

func TestServeShowsAPageUntilItIsToldToEnd(t *testing.T) {
	r := newRig(t)
	stop := r.pipeline()
	ctx, end := context.WithCancel(t.Context())
	out, code := new(safeBuffer), make(chan int, 1)
	go func() {
		_, _, c := r.leasesWith(ctx, out, "serve", "--address", "127.0.0.1:0", "--interval", "100ms")
		code <- c
	}()
	require.Eventually(t, func() bool { return strings.HasSuffix(out.String(), "\n") }, long, 20*time.Millisecond)
	url := strings.TrimSpace(out.String())
	get := func(path string) string {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+path, http.NoBody)
		require.NoError(t, err)
		answer, err := http.DefaultClient.Do(request)
		require.NoError(t, err)
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		require.NoError(t, err)
		return string(body)
	}
	require.Contains(t, get(""), "<!doctype html>")
	require.Eventually(t, func() bool { return strings.Contains(get("api/view"), `"shards":2`) }, long, 100*time.Millisecond)
	require.Contains(t, get("healthz"), `"fresh":true`)
	stop()
	require.Eventually(t, func() bool { return strings.Contains(get("api/events"), `"kind":"left"`) }, long, 100*time.Millisecond)
	end()
	require.Zero(t, <-code)
}

// A search of the table takes a right that the input does not need: it is made only where
// no stream is named.
func TestTableIsSearchedWhereNoStreamIsNamed(t *testing.T) {
	r := newRig(t)
	for _, hash := range []string{"orders", "/groups/a/returns", "/clients", "/groups/a//clients"} {
		require.NoError(t, r.aws.PutItem("checkpoints", awsfake.Item{table.AttrStream: awsfake.String(hash), table.AttrShard: awsfake.String("shardId-000000000000"), table.AttrSequence: awsfake.String("")}))
	}
	names := func(v leases.View) (all []string) {
		for _, s := range v.Streams {
			all = append(all, s.Name)
		}
		return all
	}
	require.Equal(t, []string{"orders"}, names(r.view()))
	require.Equal(t, 1, r.aws.Calls("Scan"))
	v := r.view("--group", "a")
	require.Equal(t, []string{"returns"}, names(v))
	require.Contains(t, v.Streams[0].Error, "ResourceNotFoundException")
	scans := r.aws.Calls("Scan")
	r.view("--stream", "orders")
	require.Equal(t, scans, r.aws.Calls("Scan"))
}

func TestMistakesNameTheFlag(t *testing.T) {
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"list"}, 2, "flag `--table`: no table is named"},
		{[]string{"list", "--table", "t", "--group", "a/b"}, 2, "flag `--group`: `a/b` is not"},
		{[]string{"list", "--table", "t", "--stream", "orders:0"}, 2, "flag `--stream`: `orders:0` names a shard"},
		{[]string{"list", "--table", "t", "--output", "xml"}, 2, "flag `--output`: `xml` is no form: write `table` or `json`"},
		{[]string{"list", "--table", "t", "--timeout", "0s"}, 2, "flag `--timeout`: 0s is no time to wait"},
		{[]string{"list", "--table", "t", "--role-external-id", "x"}, 2, "flag `--role-external-id`: there is no role"},
		{[]string{"list", "orders"}, 2, "`orders` is one: write a stream as `--stream orders`"},
		{[]string{"list", "--nonsense"}, 2, "flag provided but not defined: -nonsense"},
		{[]string{"watch", "--table", "t", "--interval", "-1s"}, 2, "flag `--interval`: -1s is no time to wait"},
		{[]string{"serve", "--table", "t", "--address", "here"}, 2, "flag `--address`: `here` is no address"},
		{[]string{"explain", "--table", "t"}, 2, "`explain` takes one shard, and has 0 arguments"},
		{[]string{"completion", "fish"}, 2, "write `completion bash` or `completion zsh`"},
		{[]string{"lst"}, 2, "there is no command `lst`: write one of list, watch, explain, reset, release, evict, import-kcl, export, import, copy, prune, serve, completion"},
	} {
		var out, errs bytes.Buffer
		code := leasecli.Run(t.Context(), c.args, strings.NewReader(""), &out, &errs)
		require.Equal(t, c.code, code, "%v: %s", c.args, errs.String())
		require.Contains(t, errs.String(), c.says, "%v", c.args)
	}
}

func TestErrorsOfAWSAreExplained(t *testing.T) {
	r := newRig(t)
	out, errOut, code := r.leases("list", "--table", "others", "--stream", "orders")
	require.Equal(t, 1, code)
	require.Empty(t, out)
	require.Contains(t, errOut, "reading table others: ")
	require.Contains(t, errOut, "ResourceNotFoundException")

	_, errOut, code = r.leases("explain", "--stream", "orders", "9")
	require.Equal(t, 1, code)
	require.Contains(t, errOut, "neither the table nor a stream has a shard `9`: the group has orders with 2 shards")
}

func TestCompletionIsPrinted(t *testing.T) {
	for _, shell := range []string{"bash", "zsh"} {
		var out bytes.Buffer
		require.Zero(t, leasecli.Run(t.Context(), []string{"completion", shell}, nil, &out, io.Discard))
		require.Contains(t, out.String(), "complete -o bashdefault")
	}
}
