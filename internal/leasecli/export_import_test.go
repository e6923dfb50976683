package leasecli_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
	"github.com/benthos-plugins/aws-kinesis/internal/leasecli"
	"github.com/benthos-plugins/aws-kinesis/internal/leases"
	"github.com/benthos-plugins/aws-kinesis/internal/table"
)

// half leaves a group that has read a parent to its end, one of its children and a shard
// in part, and the other child not at all; it returns what is left to read.
func (r *rig) half() (left []string) {
	r.Helper()
	first, stop := r.run("")
	all := r.put(0, 5, shards(0, 1)...)
	low, high, err := r.aws.Split("orders", shards(0)[0])
	require.NoError(r, err)
	all = append(all, r.put(10, 5, low)...)
	require.Eventually(r, func() bool {
		sh, _ := r.view().Shard("orders", shards(0)[0])
		return len(first.sorted()) == len(all) && sh.State == leases.Finished
	}, long, 50*time.Millisecond)
	stop()
	return r.put(20, 3, low, high, shards(1)[0])
}

func (r *rig) deleteItems() {
	r.Helper()
	items, err := r.aws.Items("checkpoints")
	require.NoError(r, err)
	for _, item := range items {
		require.NoError(r, r.aws.DeleteItem("checkpoints", awsfake.Item{table.AttrStream: item[table.AttrStream], table.AttrShard: item[table.AttrShard]}))
	}
}

func TestExportedGroupIsImportedAsItStood(t *testing.T) {
	r := newRig(t)
	left := r.half()
	exported, errOut, code := r.leases("export")
	require.Zero(t, code, errOut)
	file := filepath.Join(t.TempDir(), "leases.json")
	require.NoError(t, os.WriteFile(file, []byte(exported), 0o600))
	require.Zero(t, r.writes(0, "import", file).Done, "it stands there already")

	r.deleteItems()
	require.Equal(t, 4, r.writes(0, "import", file).Done)
	again, _, _ := r.leases("export")
	stands := func(export string) []leases.ExportedStream {
		var e leases.Export
		require.NoError(t, json.Unmarshal([]byte(export), &e))
		for i := range e.Streams[0].Shards {
			e.Streams[0].Shards[i].StartAt = nil // one is written where the oldest record is meant
		}
		return e.Streams
	}
	require.Equal(t, stands(exported), stands(again))
	r.reads("", left)

	got := r.writes(1, "import", file)
	require.Equal(t, 3, got.Refused, "%+v", got.Steps)
	for _, s := range got.Steps {
		require.Equal(t, s.Act == leases.Keep, s.Refused == "")
	}
	require.Contains(t, got.Steps[1].Refused, "write `--allow-back`")
	require.Equal(t, 3, r.writes(0, "import", "--allow-back", file).Done)
	r.reads("", left)
}

func TestImportRefusesAFileOfAnEarlierStream(t *testing.T) {
	r := newRig(t)
	r.half()
	exported, _, _ := r.leases("export")
	require.NoError(t, r.aws.DeleteStream("orders"))
	require.NoError(t, r.aws.CreateStream("orders", 2))
	r.deleteItems()
	var out, errs bytes.Buffer
	code := leasecli.Run(t.Context(), []string{"import", "--yes", "--table", "checkpoints", "--endpoint", r.url, "-"}, strings.NewReader(exported), &out, &errs)
	require.Equal(t, 1, code)
	require.Contains(t, out.String(), "that is another stream")
	require.Contains(t, out.String(), "0 done, 2 refused, 0 failed.")
}

func TestCopyGoesOnWhereTheSourceStands(t *testing.T) {
	for name, c := range map[string]struct {
		args   []string
		fields string
	}{
		"name to ARN":    {[]string{"--to-stream", "ARN"}, ", streams: [ 'ARN' ]"},
		"to a group":     {[]string{"--to-group", "b"}, ", group: b"},
		"both of a kind": {[]string{"--to-group", "b", "--to-stream", "ARN"}, ", group: b, streams: [ 'ARN' ]"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			left := r.half()
			arn := r.aws.StreamARN("orders")
			args := slices.Clone(c.args)
			for i := range args {
				args[i] = strings.ReplaceAll(args[i], "ARN", arn)
			}
			args = append([]string{"--stream", "orders"}, args...)
			require.Equal(t, 4, r.writes(0, "copy", args...).Done)
			require.Zero(t, r.writes(0, "copy", args...).Done, "it stands there already")
			r.reads(strings.ReplaceAll(c.fields, "ARN", arn), slices.Clone(left))
			got := r.writes(1, "copy", args...)
			require.Zero(t, got.Done, "it has been read on")
			require.Positive(t, got.Refused)
			r.reads("", left)
		})
	}
}

func TestCopyRefusesAnotherLineage(t *testing.T) {
	r := newRig(t)
	r.half()
	require.NoError(t, r.aws.CreateStream("returns", 2))
	got := r.writes(1, "copy", "--stream", "orders", "--to-stream", "returns")
	require.Zero(t, got.Done)
	for _, s := range got.Steps {
		require.Contains(t, s.Refused, "not of the same lineage")
	}
}

func TestCopySaysWhyItsTargetCannotBeListed(t *testing.T) {
	r := newRig(t)
	r.half()
	got := r.writes(1, "copy", "--stream", "orders", "--to-stream", "refunds")
	require.NotEmpty(t, got.Steps)
	for _, s := range got.Steps {
		require.Contains(t, s.Refused, "refunds")
		require.Contains(t, s.Refused, "cannot be listed")
	}
}

func TestImportOverALivingGroupSaysToStopItFirst(t *testing.T) {
	r := newRig(t)
	_, stop := r.run("")
	r.reading()
	old := r.put(0, 1, shards(0, 1)...)
	require.NotEmpty(t, old)
	exported, errOut, code := r.leases("export")
	require.Zero(t, code, errOut)
	file := filepath.Join(t.TempDir(), "leases.json")
	require.NoError(t, os.WriteFile(file, []byte(exported), 0o600))
	r.put(1, 3, shards(0, 1)...)
	before := r.view().Streams[0].Shards[0].Sequence
	require.Eventually(t, func() bool { return r.view().Streams[0].Shards[0].Sequence > before }, long, 50*time.Millisecond)
	for _, s := range r.writes(1, "import", file).Steps {
		require.NotContains(t, s.Refused, "--allow-back")
	}
	stop()
}

func TestCopyWithinAGroupWaitsForItsSource(t *testing.T) {
	r := newRig(t)
	out, stop := r.run("")
	r.reading()
	got := r.writes(1, "copy", "--stream", "orders", "--to-stream", r.aws.StreamARN("orders"))
	require.Zero(t, got.Done)
	require.Contains(t, got.Steps[0].Refused, "it is to go on where orders has stopped: client ")
	require.Equal(t, 2, r.writes(0, "copy", "--stream", "orders", "--to-group", "b").Done, "another group goes on from a moment")
	all := r.put(0, 5, shards(0, 1)...)
	slices.Sort(all)
	require.Eventually(t, func() bool { return len(out.sorted()) >= len(all) }, long, 20*time.Millisecond)
	stop()
	require.Equal(t, all, out.sorted())
}

func TestCopyWithinAGroupEvictsTheDeadOfItsSource(t *testing.T) {
	r := newRig(t)
	r.dead("a", shards(0)...)
	got := r.writes(0, "copy", "--stream", "orders", "--to-stream", r.aws.StreamARN("orders"))
	require.Equal(t, leases.EvictMember, got.Steps[0].Act)
	require.Equal(t, 3, got.Done)
	require.Equal(t, []string{"a"}, r.view("--stream", "orders").Evicted, "it would read on beside the copy, if it was merely suspended")
}
