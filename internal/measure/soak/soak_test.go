package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/measure/trial"
	"github.com/benthos-plugins/aws-kinesis/internal/measure/verify"
)

func TestOptionsThatCannotWorkAreRefused(t *testing.T) {
	good := options{benthos: "no-such-program", records: 10_000, size: 16, shards: 1, keys: 1}
	for want, change := range map[string]func(*options){
		"-records 9999":          func(o *options) { o.records = 9999 },
		"-size 15":               func(o *options) { o.size = 15 },
		"-size 1048577":          func(o *options) { o.size = 1<<20 + 1 },
		"-shards and -keys":      func(o *options) { o.shards = 0 },
		"-shards and -keys:":     func(o *options) { o.keys = 0 },
		"starting no-such-progr": func(*options) {},
	} {
		o := good
		change(&o)
		require.ErrorContains(t, run(t.Context(), &bytes.Buffer{}, o), want)
	}
}

func TestLineOfTheOutputNamesItsRecord(t *testing.T) {
	id, ok := parse("shardId-000000000001 49590")
	require.True(t, ok)
	require.Equal(t, verify.ID{Shard: "shardId-000000000001", Sequence: "49590"}, id)
	for _, line := range []string{"", "shardId-000000000001", `level=warn msg="slow"`} {
		_, ok := parse(line)
		require.False(t, ok, line)
	}
}

func TestReportTellsTheStopsApart(t *testing.T) {
	var out bytes.Buffer
	report(&out, trial.Result{Report: verify.Report{In: 10, Out: 14, Phases: []verify.Phase{
		{Name: "start", Out: 5},
		{Name: "SIGTERM", Out: 3},
		{Name: "SIGKILL", Out: 6, Repeats: 4, Allowed: 5},
	}}, Took: 2_000_000_000})
	require.Regexp(t, `after SIGTERM +0  \(above the stored checkpoints were 0;`, out.String())
	require.Regexp(t, `after SIGKILL +4  \(above the stored checkpoints were 5;`, out.String())
	require.Contains(t, out.String(), "5 records/s")
}
