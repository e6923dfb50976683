package leasecli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/benthosdev/benthos/v4/public/service"
	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
	"github.com/benthos-plugins/aws-kinesis/internal/leasecli"
	"github.com/benthos-plugins/aws-kinesis/internal/leases"
	"github.com/benthos-plugins/aws-kinesis/internal/table"
)

// output has what a pipeline has sent.
type output struct {
	mu  sync.Mutex
	all []string
}

func (o *output) add(_ context.Context, m *service.Message) error {
	content, err := m.AsBytes()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all = append(o.all, string(content))
	return err
}

func (o *output) sorted() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Sorted(slices.Values(o.all))
}

// run runs a pipeline that reads orders, with more fields of the input.
func (r *rig) run(fields string) (out *output, stop func()) {
	r.Helper()
	out = new(output)
	if !strings.Contains(fields, "streams:") {
		fields += ", streams: [ orders ]"
	}
	b := service.NewStreamBuilder()
	require.NoError(r, b.SetLoggerYAML("level: NONE"))
	require.NoError(r, b.AddInputYAML(fmt.Sprintf(
		"aws_kinesis: { dynamodb: { table: checkpoints }, region: us-east-1, endpoint: '%s', commit_period: 200ms, lease_period: 3s, rebalance_period: 1s%s }", r.url, fields)))
	require.NoError(r, b.AddConsumerFunc(out.add))
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
	return out, stop
}

// reads runs a pipeline until it has sent what is wanted, and a moment longer: nothing
// comes twice, and nothing else.
func (r *rig) reads(fields string, want []string) {
	r.Helper()
	slices.Sort(want)
	out, stop := r.run(fields)
	require.Eventually(r, func() bool { return len(out.sorted()) >= len(want) }, long, 20*time.Millisecond)
	require.Never(r, func() bool { return len(out.sorted()) > len(want) }, 500*time.Millisecond, 50*time.Millisecond)
	stop()
	require.Equal(r, want, out.sorted())
}

// put stores n numbered records in each of the shards.
func (r *rig) put(from, n int, shards ...string) (contents []string) {
	r.Helper()
	for _, shard := range shards {
		for i := from; i < from+n; i++ {
			content := fmt.Sprintf("%s %d", shard[len(shard)-1:], i)
			_, err := r.aws.PutTo("orders", shard, "key", []byte(content))
			require.NoError(r, err)
			contents = append(contents, content)
		}
	}
	return contents
}

func shards(n ...int) (ids []string) {
	for _, i := range n {
		ids = append(ids, fmt.Sprintf("shardId-%012d", i))
	}
	return ids
}

// result is what a command that writes tells as JSON.
type result struct {
	DryRun                bool          `json:"dry_run"`
	Steps                 []leases.Step `json:"steps"`
	Done, Refused, Failed int
}

// writes runs a command that writes, and returns what came of it.
func (r *rig) writes(code int, command string, args ...string) (got result) {
	r.Helper()
	all := append([]string{"--output", "json"}, args...)
	if !slices.Contains(all, "--dry-run") {
		all = append([]string{"--yes"}, all...)
	}
	out, errOut, c := r.leases(command, all...)
	require.Equal(r, code, c, "%s%s", out, errOut)
	require.NoError(r, json.Unmarshal([]byte(out), &got), errOut)
	return got
}

func TestResetReadsExactlyWhatItPromises(t *testing.T) {
	for name, reset := range map[string]struct {
		args []string
		want func(early, late []string) []string
	}{
		"oldest": {[]string{"--to", "oldest"}, func(early, late []string) []string { return slices.Concat(early, late) }},
		"latest": {[]string{"--to", "latest"}, func(_, _ []string) []string { return nil }},
		"a time": {[]string{"--to", "TIME"}, func(_, late []string) []string { return late }},
		"one shard to a time": {[]string{"--to", "TIME", "orders:1"}, func(_, late []string) []string {
			return slices.DeleteFunc(slices.Clone(late), func(c string) bool { return !strings.HasPrefix(c, "1 ") })
		}},
		"one shard after a record": {[]string{"--to", "SEQUENCE", "0"}, func(_, _ []string) []string { return []string{"0 9", "0 100", "0 101"} }},
	} {
		for _, fields := range []string{"", ", start_from_oldest: false"} {
			t.Run(name+fields, func(t *testing.T) {
				r := newRig(t)
				first, stop := r.run(fields)
				r.reading()
				begun := time.Now()
				early := r.put(0, 10, shards(0, 1)...)
				r.aws.SetClockOffset(time.Hour)
				late := r.put(100, 2, shards(0, 1)...)
				require.Eventually(t, func() bool { return len(first.sorted()) >= len(early)+len(late) }, long, 20*time.Millisecond)
				stop()
				r.aws.SetClockOffset(90 * time.Minute) // the service tells its time in seconds
				records, err := r.aws.Records("orders", shards(0)[0])
				require.NoError(t, err)
				args := slices.Clone(reset.args)
				for i := range args {
					args[i] = strings.ReplaceAll(args[i], "TIME", begun.Add(30*time.Minute).UTC().Format(time.RFC3339))
					args[i] = strings.ReplaceAll(args[i], "SEQUENCE", records[8].SequenceNumber)
				}
				before := r.view()
				dry := r.writes(0, "reset", append([]string{"--dry-run"}, args...)...)
				require.True(t, dry.DryRun)
				require.Equal(t, before.Streams[0].Shards[0].Sequence, r.view().Streams[0].Shards[0].Sequence)
				if name == "a time" {
					for _, s := range dry.Steps {
						require.NotNil(t, s.Again, "%+v %v", s, s.Skipped)
						require.InDelta(t, 1800, float64(*s.Again), 60)
					}
				}
				require.Positive(t, r.writes(0, "reset", args...).Done)
				r.aws.SetClockOffset(2 * time.Hour)
				r.reads(fields, append(reset.want(early, late), r.put(200, 2, shards(0, 1)...)...))
			})
		}
	}
}

func TestResetReadsParentsFirstThoughTheyWereFinished(t *testing.T) {
	r := newRig(t)
	first, stop := r.run("")
	all := r.put(0, 5, shards(0, 1)...)
	low, _, err := r.aws.Split("orders", shards(0)[0])
	require.NoError(t, err)
	all = append(all, r.put(10, 5, low)...)
	require.Eventually(t, func() bool {
		sh, _ := r.view().Shard("orders", shards(0)[0])
		return len(first.sorted()) == len(all) && sh.State == leases.Finished
	}, long, 50*time.Millisecond)
	stop()
	// As the built-in input leaves it: a parent without an item.
	require.NoError(t, r.aws.DeleteItem("checkpoints", awsfake.Item{table.AttrStream: awsfake.String("orders"), table.AttrShard: awsfake.String(shards(0)[0])}))
	r.writes(0, "reset", "--to", "oldest")
	for _, sh := range r.view().Streams[0].Shards {
		require.True(t, sh.HasItem, sh.Shard)
	}
	r.reads("", all)
}

// The item of a shard of which nothing was committed says nothing, and takes the earliest
// start of its stream.
func TestIdleShardBesideOneThatIsResetIsReadWhole(t *testing.T) {
	r := newRig(t)
	before := r.put(0, 1, shards(0)...)
	out, stop := r.run("")
	r.reading()
	require.Eventually(t, func() bool { return len(out.sorted()) == len(before) }, long, 20*time.Millisecond)
	stop()
	r.put(1, 1, shards(0)...)
	want := r.put(1, 2, shards(1)...)
	r.aws.SetClockOffset(time.Hour)
	r.writes(0, "reset", "--stream", "orders", "--to", "latest", "orders:0")
	r.reads("", append(want, r.put(2, 1, shards(0)...)...))
}

func TestCommandsLeaveALivingGroupAlone(t *testing.T) {
	r := newRig(t)
	out, stop := r.run("")
	r.reading()
	all := r.put(0, 20, shards(0, 1)...)
	member := r.view().Members[0].ID
	exported, errOut, code := r.leases("export")
	require.Zero(t, code, errOut)
	file := filepath.Join(t.TempDir(), "leases.json")
	require.NoError(t, os.WriteFile(file, []byte(exported), 0o600))
	app := r.application("")
	app.lease(shards(0)[0], "TRIM_HORIZON", 0)
	app.lease(shards(1)[0], "LATEST", 0)
	for _, command := range [][]string{
		{"reset", "--to", "oldest"},
		{"reset", "--to", "latest", "orders:1"},
		{"evict", member},
		{"release", "orders:0", "orders:1"},
		{"import", "--allow-back", file},
		{"import-kcl", "--kcl-table", "app", "--stream", "orders"},
		{"copy", "--stream", "orders", "--to-stream", r.aws.StreamARN("orders")},
	} {
		got := r.writes(1, command[0], command[1:]...)
		require.Zero(t, got.Done, command)
		require.Positive(t, got.Refused, command)
		for _, s := range got.Steps {
			require.Contains(t, s.Refused, "lives", command)
			require.Contains(t, s.Refused, "stop", command)
		}
	}
	require.Empty(t, r.writes(0, "release").Steps, "nobody is dead")
	require.Empty(t, r.writes(0, "prune").Steps, "everything is of use")
	require.Equal(t, 2, r.writes(0, "copy", "--stream", "orders", "--to-group", "b").Done)
	all = append(all, r.put(20, 20, shards(0, 1)...)...)
	slices.Sort(all)
	require.Eventually(t, func() bool { return len(out.sorted()) >= len(all) }, long, 20*time.Millisecond)
	stop()
	require.Equal(t, all, out.sorted())
}

// dead leaves the table as a process does that was killed: with a member and its shards.
func (r *rig) dead(id string, shards ...string) {
	r.Helper()
	require.NoError(r, r.aws.PutItem("checkpoints", awsfake.Item{
		table.AttrStream: awsfake.String(table.MembersStream), table.AttrShard: awsfake.String(id), table.AttrToken: awsfake.String("t"),
		table.AttrPeriod: awsfake.Number(1000), table.AttrStreams: {Type: "SS", List: []awsfake.Value{awsfake.String("orders")}},
	}))
	for _, shard := range shards {
		require.NoError(r, r.aws.PutItem("checkpoints", awsfake.Item{
			table.AttrStream: awsfake.String("orders"), table.AttrShard: awsfake.String(shard), table.AttrSequence: awsfake.String(""),
			table.AttrOwner: awsfake.String(id), table.AttrToken: awsfake.String("2026-01-02T03:04:05Z"), table.AttrTerm: awsfake.String(id + "/1"),
		}))
	}
}

func TestDeadOwnersAreEvictedAndTheirShardsFreed(t *testing.T) {
	for name, command := range map[string][]string{
		"evict, then release": {"evict", "a"},
		"release":             {"release"},
		"reset":               {"reset", "--to", "oldest"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.dead("a", shards(0, 1)...)
			got := r.writes(1, command[0], append([]string{"--watch", "0s"}, append(command[1:], map[bool][]string{true: {"orders:0"}}[name == "release"]...)...)...)
			require.Zero(t, got.Done)
			require.Contains(t, got.Steps[0].Refused, "may live")

			got = r.writes(0, command[0], command[1:]...)
			require.Equal(t, leases.EvictMember, got.Steps[0].Act)
			if command[0] == "evict" {
				require.Equal(t, 2, r.writes(0, "release").Done)
			}
			v := r.view()
			require.Equal(t, []string{"a"}, v.Evicted)
			for _, sh := range v.Streams[0].Shards {
				require.Equal(t, leases.Free, sh.State)
			}
			r.reads("", r.put(0, 3, shards(0, 1)...))
		})
	}
}

func TestNothingIsWrittenThatNobodyConfirms(t *testing.T) {
	r := newRig(t)
	_, errOut, code := r.leases("reset", "--to", "oldest")
	require.Equal(t, 2, code)
	require.Contains(t, errOut, "write `--yes` to have it written, or `--dry-run` to see it")
	for answer, written := range map[string]bool{"": false, "\n": false, "n\n": false, "yep\n": false, "y\n": true, "YES\n": true} {
		var out, errs bytes.Buffer
		code := leasecli.RunAsking(t.Context(), []string{"reset", "--table", "checkpoints", "--endpoint", r.url, "--stream", "orders", "--to", "oldest"}, strings.NewReader(answer), &out, &errs)
		require.Equal(t, written, code == 0, "%q: %s", answer, errs.String())
		require.Contains(t, out.String(), "Write these 2? y/N ")
		require.Equal(t, written, r.view("--stream", "orders").Streams[0].Shards[0].HasItem, "%q", answer)
		for _, shard := range shards(0, 1) {
			require.NoError(t, r.aws.DeleteItem("checkpoints", awsfake.Item{table.AttrStream: awsfake.String("orders"), table.AttrShard: awsfake.String(shard)}))
		}
	}
}

func TestWhatWasWrittenIsToldWhereACommandIsInterrupted(t *testing.T) {
	r := newRig(t)
	// The command may have ended before its signal arrives, which then would end the test.
	arrived := make(chan os.Signal, 1)
	signal.Notify(arrived, syscall.SIGINT)
	defer signal.Stop(arrived)
	// More would come after the first write. Whether the signal is seen before it is open.
	var once sync.Once
	remove := r.aws.OnCall(func(c *awsfake.Call) {
		if c.Operation == "UpdateItem" {
			once.Do(func() { require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGINT)) })
		}
	})
	out, _, _ := r.leases("reset", "--yes", "--output", "json", "--stream", "orders", "--to", "oldest")
	remove()
	<-arrived
	var got result
	require.NoError(t, json.Unmarshal([]byte(out), &got))
	require.Equal(t, leases.Done, got.Steps[0].Result, "what is under way is carried out")

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	remove = r.aws.OnCall(func(c *awsfake.Call) {
		if c.Operation == "UpdateItem" {
			cancel()
		}
	})
	defer remove()
	out, _, code := r.leasesWith(ctx, new(safeBuffer), "reset", "--yes", "--output", "json", "--stream", "orders", "--to", "2026-01-02T03:04:05Z")
	require.Equal(t, 1, code)
	require.NoError(t, json.Unmarshal([]byte(out), &got))
	require.Equal(t, []leases.Result{leases.Done, leases.Skipped}, []leases.Result{got.Steps[0].Result, got.Steps[1].Result})
	again := r.writes(0, "reset", "--dry-run", "--stream", "orders", "--to", "oldest")
	require.Equal(t, "from 2026-01-02T03:04:05Z", again.Steps[0].From.String())
	require.NotEqual(t, "from 2026-01-02T03:04:05Z", again.Steps[1].From.String())
}

func TestAClaimInBetweenWins(t *testing.T) {
	r := newRig(t)
	fill := r.put(0, 1, shards(0, 1)...)
	require.Len(t, fill, 2)
	claim := awsfake.Item{
		table.AttrStream: awsfake.String("orders"), table.AttrShard: awsfake.String(shards(1)[0]), table.AttrSequence: awsfake.String(""),
		table.AttrOwner: awsfake.String("b"), table.AttrToken: awsfake.String("2026-01-02T03:04:05Z"), table.AttrTerm: awsfake.String("b/1"),
	}
	var once sync.Once
	remove := r.aws.OnCall(func(c *awsfake.Call) {
		if c.Operation == "UpdateItem" {
			once.Do(func() { require.NoError(t, r.aws.PutItem("checkpoints", claim)) })
		}
	})
	defer remove()
	got := r.writes(1, "reset", "--stream", "orders", "--to", "oldest")
	require.Equal(t, []leases.Result{leases.Done, leases.Conflict}, []leases.Result{got.Steps[0].Result, got.Steps[1].Result}, "%+v", got.Steps)
	sh, _ := r.view().Shard("orders", shards(1)[0])
	require.Equal(t, "b", sh.Owner)
}
