package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/measure/trial"
	"github.com/benthos-plugins/aws-kinesis/internal/measure/verify"
)

func TestLineOfTheOutputNamesItsRecord(t *testing.T) {
	for line, want := range map[string]verify.ID{
		`shardId-000000000001 49590 {"record":1} and more`: {Shard: "shardId-000000000001", Sequence: "49590"},
		`shardId-000000000001 49590`:                       {Shard: "shardId-000000000001", Sequence: "49590"},
	} {
		id, ok := parse(line)
		require.True(t, ok, line)
		require.Equal(t, want, id)
	}
	for _, line := range []string{"", "shardId-000000000001", "shardId-000000000001 ", `level=info msg="Launching"`} {
		_, ok := parse(line)
		require.False(t, ok, line)
	}
}

func TestSummaryShowsACheckpointThatIsBehind(t *testing.T) {
	var out bytes.Buffer
	summary(&out, trial.Result{
		Report: verify.Report{In: 3, Out: 2, Missing: 1},
		Shards: []trial.Shard{
			{ID: "shardId-000000000000", Records: 2, Last: "12", Stored: "12"},
			{ID: "shardId-000000000001", Records: 1, Last: "13", Stored: ""},
		},
	})
	require.Regexp(t, `missing +1\n`, out.String())
	require.Contains(t, out.String(), "12, at its last record\n")
	require.Contains(t, out.String(), "none, NOT at its last record, 13\n")
}
