package table

import (
	"encoding/json"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
)

func TestLeasesOfEachKCLAreRead(t *testing.T) {
	const key, number = "leaseKey", "49590000000000000001000000000000000000001204000000000001"
	s, n := awsfake.String, awsfake.Number
	for name, c := range map[string]struct {
		item awsfake.Item
		want *KCLLease
	}{
		"1.0, before user records counted": {
			awsfake.Item{key: s("shardId-000000000001"), "leaseOwner": s("w"), "leaseCounter": n(7), "checkpoint": s(number), "ownerSwitchesSinceCheckpoint": n(0)},
			&KCLLease{Shard: "shardId-000000000001", Checkpoint: number, Owner: "w", Counter: "7"},
		},
		"1.8, prepared": {
			awsfake.Item{key: s("shardId-000000000001"), "leaseCounter": n(7), "checkpoint": s("TRIM_HORIZON"), "checkpointSubSequenceNumber": n(0), "pendingCheckpoint": s(number), "pendingCheckpointSubSequenceNumber": n(3)},
			&KCLLease{Shard: "shardId-000000000001", Checkpoint: "TRIM_HORIZON", Counter: "7"},
		},
		"2.3, one of several streams": {
			awsfake.Item{key: s("123456789012:orders:1700000000:shardId-000000000001"), "streamName": s("123456789012:orders:1700000000"), "shardId": s("shardId-000000000001"), "leaseCounter": n(7), "checkpoint": s(number), "checkpointSubSequenceNumber": n(2)},
			&KCLLease{Stream: "orders", Account: "123456789012", Created: time.Unix(1700000000, 0).UTC(), Shard: "shardId-000000000001", Checkpoint: number, Sub: 2, Counter: "7"},
		},
		"3, passed on": {
			awsfake.Item{key: s("shardId-000000000001"), "entityType": s("LEASE"), "leaseOwner": s("next"), "checkpointOwner": s("present"), "leaseCounter": n(7), "checkpoint": s("SHARD_END"), "throughputKBps": n(1)},
			&KCLLease{Shard: "shardId-000000000001", Checkpoint: "SHARD_END", Owner: "present", Counter: "7"},
		},
		"3, leader":        {awsfake.Item{key: s("Leader"), "entityType": s("LEADER"), "ownerName": s("w")}, nil},
		"3, older leader":  {awsfake.Item{key: s("Leader"), "ownerName": s("w")}, nil},
		"3, migration":     {awsfake.Item{key: s("Migration3.0"), "entityType": s("CLIENT_VERSION_MIGRATION")}, nil},
		"3, worker":        {awsfake.Item{key: s("worker-1"), "entityType": s("WORKER_METRIC_STATS")}, nil},
		"3.6, of whatever": {awsfake.Item{key: s("x"), "entityType": s("LATER"), "checkpoint": s(number)}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			server := awsfake.New(awsfake.Options{})
			defer func() { require.NoError(t, server.Close()) }()
			require.NoError(t, server.CreateTable("app", key, ""))
			require.NoError(t, server.PutItem("app", c.item))
			all, err := KCLLeases(t.Context(), server.DynamoDB(), "app")
			require.NoError(t, err)
			if c.want == nil {
				require.Empty(t, all)
				return
			}
			require.Equal(t, []KCLLease{*c.want}, all)
		})
	}
}

func TestMalformedLeaseOfTheKCLIsAnError(t *testing.T) {
	server := awsfake.New(awsfake.Options{})
	defer func() { require.NoError(t, server.Close()) }()
	require.NoError(t, server.CreateTable("app", "leaseKey", ""))
	require.NoError(t, server.PutItem("app", awsfake.Item{"leaseKey": awsfake.String("shardId-000000000000"), "checkpoint": awsfake.String("1"), "checkpointSubSequenceNumber": awsfake.Number(-1)}))
	_, err := KCLLeases(t.Context(), server.DynamoDB(), "app")
	require.ErrorContains(t, err, `table app of the Kinesis Client Library: the lease "shardId-000000000000" has the sub-sequence number -1, which is none`)
}

// The tables are as version 3.5.1 left them when it was killed.
func TestTablesThatKCL3WroteAreRead(t *testing.T) {
	for file, want := range map[string]struct {
		leases   int
		streams  []string
		sub      int // the highest one
		finished int
	}{
		"kcl3-lease-table.json":         {6, []string{""}, 2, 1},
		"kcl3-lease-table-streams.json": {8, []string{"a", "b"}, 1, 0},
	} {
		content, err := os.ReadFile("../integration/testdata/" + file)
		require.NoError(t, err)
		var items []awsfake.Item
		require.NoError(t, json.Unmarshal(content, &items))
		server := awsfake.New(awsfake.Options{})
		t.Cleanup(func() { require.NoError(t, server.Close()) })
		require.NoError(t, server.CreateTable("app", "leaseKey", ""))
		for _, item := range items {
			require.NoError(t, server.PutItem("app", item))
		}
		all, err := KCLLeases(t.Context(), server.DynamoDB(), "app")
		require.NoError(t, err)
		require.Len(t, all, want.leases, file)
		var streams []string
		sub, finished := 0, 0
		for _, l := range all {
			require.Regexp(t, `^shardId-\d{12}$`, l.Shard)
			require.NotEmpty(t, l.Owner)
			require.NotEmpty(t, l.Counter)
			streams = append(streams, l.Stream)
			sub = max(sub, l.Sub)
			if l.Checkpoint == KCLShardEnd {
				finished++
			}
		}
		slices.Sort(streams)
		require.Equal(t, want.streams, slices.Compact(streams))
		require.Equal(t, want.sub, sub)
		require.Equal(t, want.finished, finished)
	}
}
