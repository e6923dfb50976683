package leasecli_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/leases"
	"github.com/benthos-plugins/aws-kinesis/internal/table"
)

func TestPruneRemovesWhatNobodyNeeds(t *testing.T) {
	r := newRig(t)
	left := r.half()
	// 0 was finished and 1 was not; both are split and leave the stream. The rest stays.
	_, _, err := r.aws.Split("orders", shards(1)[0])
	require.NoError(t, err)
	require.NoError(t, r.aws.TrimShard("orders", shards(0)[0], time.Now().Add(time.Hour)))
	require.NoError(t, r.aws.TrimShard("orders", shards(1)[0], time.Now().Add(time.Hour)))
	require.NoError(t, r.aws.PutItem("checkpoints", awsfake.Item{
		table.AttrStream: awsfake.String(table.MembersStream), table.AttrShard: awsfake.String("a"), table.AttrToken: awsfake.String(lease.Evicted),
	}))
	r.dead("b") // it gives the group a lease period of a second

	got := r.writes(0, "prune", "--watch", "2s")
	var acts []leases.Act
	for _, s := range got.Steps {
		acts = append(acts, s.Act)
	}
	require.Equal(t, []leases.Act{leases.RemoveItem, leases.RemoveItem, leases.RemoveMember}, acts, "%+v", got.Steps)
	require.Contains(t, got.Steps[0].Why, "it was finished")
	require.Contains(t, got.Steps[1].Why, "what was left of it is lost")
	require.Empty(t, r.writes(0, "prune", "--watch", "2s").Steps)
	r.writes(0, "evict", "b")
	r.reads("", left[:6]) // those of 1 are lost
}
