package leasecli_test

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
	"github.com/benthos-plugins/aws-kinesis/internal/kpl"
	"github.com/benthos-plugins/aws-kinesis/internal/kpl/kpltest"
	"github.com/benthos-plugins/aws-kinesis/internal/leases"
	"github.com/benthos-plugins/aws-kinesis/internal/table"
)

// application is a lease table of the Kinesis Client Library that is written by hand.
type application struct {
	*rig
	// before stands before each key, in a table of several streams.
	before string
}

func (a application) lease(shard, checkpoint string, sub int64, more ...awsfake.Item) {
	a.Helper()
	item := awsfake.Item{
		"leaseKey": awsfake.String(a.before + shard), "checkpoint": awsfake.String(checkpoint), "checkpointSubSequenceNumber": awsfake.Number(sub),
		"leaseCounter": awsfake.Number(7), "ownerSwitchesSinceCheckpoint": awsfake.Number(0),
	}
	for _, attributes := range more {
		maps.Copy(item, attributes)
	}
	require.NoError(a, a.aws.PutItem("app", item))
}

func (r *rig) application(before string) application {
	r.Helper()
	require.NoError(r, r.aws.CreateTable("app", "leaseKey", ""))
	return application{r, before}
}

// putAggregate stores a record that holds n user records.
func (r *rig) putAggregate(shard string, from, n int) (sequence string, contents []string) {
	r.Helper()
	listed, err := r.aws.Shards("orders")
	require.NoError(r, err)
	hash := ""
	for _, s := range listed {
		if s.ID == shard {
			hash = s.StartHash
		}
	}
	var users []kpl.Record
	for i := from; i < from+n; i++ {
		content := fmt.Sprintf("%s %d", shard[len(shard)-1:], i)
		users = append(users, kpl.Record{Data: []byte(content), PartitionKey: "key", ExplicitHashKey: hash})
		contents = append(contents, content)
	}
	sequence, err = r.aws.PutTo("orders", shard, "key", kpltest.Encode(users))
	require.NoError(r, err)
	return sequence, contents
}

func TestImportedApplicationGoesOnExactlyWhereItStopped(t *testing.T) {
	for name, c := range map[string]struct {
		before, stream string
		more           awsfake.Item
	}{
		"version 1":                   {"", "orders", nil},
		"version 2, several streams":  {"123456789012:orders:1700000000:", "orders", awsfake.Item{"streamName": awsfake.String("123456789012:orders:1700000000")}},
		"version 3, owned and killed": {"", "orders", awsfake.Item{"entityType": awsfake.String("LEASE"), "leaseOwner": awsfake.String("worker-1"), "throughputKBps": awsfake.Number(0)}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			require.NoError(t, r.aws.DeleteStream("orders"))
			require.NoError(t, r.aws.CreateStream("orders", 9))
			id := shards(0, 1, 2, 3, 4, 5, 6, 7, 8)
			app := r.application(c.before)
			var want []string
			begun := time.Now()

			// 0: some way into the first record that there is. 1: into a later one, long after
			// the one before it. 2: an aggregate that is done whole. 3: a plain record.
			first, users := r.putAggregate(id[0], 0, 5)
			app.lease(id[0], first, 1, c.more)
			want = append(want, users[2:]...)
			r.put(0, 3, id[1])
			r.aws.SetClockOffset(3 * time.Hour)
			later, users := r.putAggregate(id[1], 10, 4)
			app.lease(id[1], later, 0, c.more)
			want = append(want, users[1:]...)
			whole, _ := r.putAggregate(id[2], 0, 3)
			app.lease(id[2], whole, 2, c.more)
			r.put(0, 3, id[3])
			records, err := r.aws.Records("orders", id[3])
			require.NoError(t, err)
			app.lease(id[3], records[1].SequenceNumber, 0, c.more)
			want = append(want, "3 2")
			// 4: nothing was read. 5: from a time on, of which some is older. 6: from now on.
			want = append(want, r.put(0, 3, id[4])...)
			app.lease(id[4], "TRIM_HORIZON", 0, c.more)
			r.aws.SetClockOffset(0)
			r.put(0, 3, id[5], id[6])
			r.aws.SetClockOffset(4 * time.Hour)
			want = append(want, r.put(10, 3, id[5])...)
			app.lease(id[5], "AT_TIMESTAMP", 0, c.more)
			app.lease(id[6], "LATEST", 0, c.more)
			// 7: finished, and one child is some way on and the other was not begun. 8: finished,
			// and its lease was removed: its grandchild has one.
			r.put(0, 3, id[7], id[8])
			low, high, err := r.aws.Split("orders", id[7])
			require.NoError(t, err)
			app.lease(id[7], "SHARD_END", 0, c.more)
			r.put(0, 1, low)
			records, err = r.aws.Records("orders", low)
			require.NoError(t, err)
			app.lease(low, records[0].SequenceNumber, 0, c.more)
			want = append(want, r.put(10, 2, low, high)...)
			child, _, err := r.aws.Split("orders", id[8])
			require.NoError(t, err)
			grandchild, _, err := r.aws.Split("orders", child)
			require.NoError(t, err)
			app.lease(grandchild, "TRIM_HORIZON", 0, c.more)
			want = append(want, r.put(20, 2, grandchild)...)
			require.NoError(t, r.aws.PutItem("app", awsfake.Item{"leaseKey": awsfake.String("Leader"), "entityType": awsfake.String("LEADER")}))

			args := []string{"--kcl-table", "app", "--kcl-watch", "100ms", "--stream", c.stream}
			r.aws.SetClockOffset(5 * time.Hour)
			got := r.writes(1, "import-kcl", append(args, "--dry-run")...)
			require.Equal(t, 1, got.Refused, "%+v", got.Steps)
			require.Contains(t, got.Steps[5].Refused, "write it as `--at`")
			at := begun.Add(time.Hour).UTC().Format(time.RFC3339)
			require.Equal(t, 15, r.writes(0, "import-kcl", append(args, "--at", at)...).Done)
			if name == "version 1" {
				for _, s := range r.writes(0, "import-kcl", append(args, "--at", at, "--dry-run")...).Steps {
					require.Equal(t, leases.Keep, s.Act, "it stands there already")
				}
			}

			r.aws.SetClockOffset(6 * time.Hour)
			want = append(want, r.put(30, 1, id[6])...)
			r.reads(", deaggregate: true", want)
			require.NotEmpty(t, r.writes(1, "import-kcl", append(args, "--at", at)...).Refused, "it has been read on since")
		})
	}
}

func TestImportRefusesAnApplicationThatLives(t *testing.T) {
	r := newRig(t)
	app := r.application("")
	owner := awsfake.Item{"leaseOwner": awsfake.String("worker-1")}
	app.lease(shards(0)[0], "TRIM_HORIZON", 0, owner)
	app.lease(shards(1)[0], "TRIM_HORIZON", 0)
	var once sync.Once
	scans := 0
	remove := r.aws.OnCall(func(c *awsfake.Call) {
		if c.Operation == "Scan" {
			if scans++; scans == 2 {
				once.Do(func() {
					app.lease(shards(0)[0], "TRIM_HORIZON", 0, owner, awsfake.Item{"leaseCounter": awsfake.Number(8)})
				})
			}
		}
	})
	defer remove()
	got := r.writes(1, "import-kcl", "--kcl-table", "app", "--kcl-watch", "10ms", "--stream", "orders")
	require.Equal(t, 2, got.Refused)
	require.Contains(t, got.Steps[0].Refused, "worker worker-1 of the Kinesis Client Library renews its leases")
}

func TestImportRefusesTheTableOfAnotherStream(t *testing.T) {
	r := newRig(t)
	app := r.application("")
	r.put(0, 1, shards(0)...)
	app.lease(shards(0)[0], "1", 0)
	app.lease(shards(1)[0], "SHARD_END", 0)
	app.lease(shards(5)[0], "TRIM_HORIZON", 0)
	got := r.writes(1, "import-kcl", "--kcl-table", "app", "--stream", "orders")
	require.Equal(t, 3, got.Refused)
	for _, s := range got.Steps {
		require.Contains(t, s.Refused, "is this the stream of that table?")
	}
	_, errOut, code := r.leases("import-kcl", "--yes", "--kcl-table", "app")
	require.Equal(t, 2, code)
	require.Contains(t, errOut, "does not say of which stream it is")
	require.False(t, slices.ContainsFunc(r.view("--stream", "orders").Streams[0].Shards, func(s leases.Shard) bool { return s.HasItem }))
}

func TestImportOfSeveralStreamsEvictsAMemberThatIsDeadOnce(t *testing.T) {
	r := newRig(t)
	require.NoError(t, r.aws.CreateStream("other", 1))
	r.application("123456789012:orders:1700000000:").lease(shards(0)[0], "TRIM_HORIZON", 0)
	application{r, "123456789012:other:1700000000:"}.lease(shards(0)[0], "TRIM_HORIZON", 0)
	require.NoError(t, r.aws.PutItem("checkpoints", awsfake.Item{
		table.AttrStream: awsfake.String(table.MembersStream), table.AttrShard: awsfake.String("a"), table.AttrToken: awsfake.String("t"),
		table.AttrPeriod: awsfake.Number(1000), table.AttrStreams: {Type: "SS", List: []awsfake.Value{awsfake.String("orders"), awsfake.String("other")}},
	}))
	require.Equal(t, 4, r.writes(0, "import-kcl", "--kcl-table", "app").Done, "one eviction and three shards")
}
