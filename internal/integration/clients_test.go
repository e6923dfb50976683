//go:build integration

package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
	"github.com/benthos-plugins/aws-kinesis/internal/integration/child"
	"github.com/benthos-plugins/aws-kinesis/internal/integration/contract"
	"github.com/benthos-plugins/aws-kinesis/internal/integration/emulator"
	"github.com/benthos-plugins/aws-kinesis/internal/integration/node"
)

// patience bounds what a client takes to read the stream. lifion-kinesis takes
// longest: it waits 3 s for the consumer that it has registered.
const patience = 60 * time.Second

// said is a line that a client printed. Each has other members; see
// clients/*.mjs.
type said struct {
	Shard, Key, Sequence, Data string
	Arrived                    int64 // Unix milliseconds

	Ended    string
	Children []struct {
		ShardID      string   `json:"ShardId"`
		ParentShards []string `json:"ParentShards"`
		HashKeyRange struct{ StartingHashKey, EndingHashKey string }
	}

	Other any // an event of another kind
	Log   string
	Words []string
}

// TestClientsReadTheLocalAWSByFanOut has clients that others wrote, and that
// read the service, read a stream of the local AWS through a split.
func TestClientsReadTheLocalAWSByFanOut(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name      string
		encrypted bool
		// whole is a client that tells of the event that ends a shard, and takes the
		// records that come with it. lifion-kinesis drops those.
		whole bool
		args  func(t *testing.T, fake *awsfake.Server, url string) []string
	}{
		{"SDKOverHTTP2", true, true, sdkOver("h2")},
		{"SDKOverHTTP1WithTLS", true, true, sdkOver("http/1.1")},
		{"SDKOverHTTP1", false, true, sdkOver("http/1.1")},
		{"LifionWithTLS", true, false, lifion},
		{"Lifion", false, false, lifion},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			fake := awsfake.New(awsfake.Options{StreamDelay: 50 * time.Millisecond, ConsumerDelay: 50 * time.Millisecond})
			t.Cleanup(func() { require.NoError(t, fake.Close()) })
			url, env := serve(t, fake, c.encrypted)
			env = append(env, "NODE_NO_WARNINGS=1") // such as that of the end of Node.js 20
			s := story{fake: fake, whole: c.whole, hears: make(chan said, 1000)}
			s.begin(t)
			client := node.Start(t, filepath.Join(child.Folder(t), "clients"), env, s.hear(t), c.args(t, fake, url)...)
			s.exited = client.Exited
			s.goOn(t)
			s.check(t)
		})
	}
}

func serve(t *testing.T, fake *awsfake.Server, encrypted bool) (url string, env []string) {
	t.Helper()
	if !encrypted {
		url, err := fake.Listen()
		require.NoError(t, err)
		return url, nil
	}
	url, ca, err := fake.ListenTLS()
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(file, ca, 0o600))
	return url, []string{"NODE_EXTRA_CA_CERTS=" + file}
}

func sdkOver(protocol string) func(*testing.T, *awsfake.Server, string) []string {
	return func(t *testing.T, fake *awsfake.Server, url string) []string {
		node.Package(t, "@aws-sdk/client-kinesis")
		return []string{"sdk.mjs", protocol, url, fake.StreamARN("s")}
	}
}

// lifion keeps its table in dynalite: it writes to paths within attributes, which
// the local AWS does not have. The table is there before: for one that it has made
// itself it waits 20 s.
func lifion(t *testing.T, _ *awsfake.Server, url string) []string {
	t.Helper()
	node.Package(t, "lifion-kinesis")
	tables := emulator.DynamoDB(t)
	const group, stream = "consumerGroup", "streamName"
	_, err := dynamodb.NewFromConfig(contract.Config(tables)).CreateTable(t.Context(), &dynamodb.CreateTableInput{
		TableName:   aws.String("lifion-kinesis-state"),
		BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{
			{AttributeName: aws.String(group), AttributeType: types.ScalarAttributeTypeS},
			{AttributeName: aws.String(stream), AttributeType: types.ScalarAttributeTypeS},
		},
		KeySchema: []types.KeySchemaElement{
			{AttributeName: aws.String(group), KeyType: types.KeyTypeHash},
			{AttributeName: aws.String(stream), KeyType: types.KeyTypeRange},
		},
	})
	require.NoError(t, err)
	return []string{"lifion.mjs", url, tables, "s"}
}

// story is what happens to the stream that a client reads: there are records
// before it starts, more come while it reads, one of the two shards is split, and
// the children get records too.
type story struct {
	fake   *awsfake.Server
	whole  bool
	hears  chan said
	exited <-chan struct{}
	heard  []said // the records and ends
	put    int
}

const keys = 20

func (s *story) begin(t *testing.T) {
	t.Helper()
	require.NoError(t, s.fake.CreateStream("s", 2))
	s.feed(t, 200)
}

// feed puts n records, whose texts are numbers that rise for each key.
func (s *story) feed(t *testing.T, n int) {
	t.Helper()
	for range n {
		_, _, err := s.fake.Put("s", fmt.Sprint("key ", s.put%keys), fmt.Append(nil, "record ", s.put))
		require.NoError(t, err)
		s.put++
	}
}

// hear takes in what a client prints, on the goroutine of its output.
func (s *story) hear(t *testing.T) func(string) {
	return func(line string) {
		var m said
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			m = said{Log: line}
		}
		t.Log(line)
		select {
		case s.hears <- m:
		case <-t.Context().Done(): // nobody listens any more
		}
	}
}

func (s *story) goOn(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s.listen(ctx, t)
	s.feed(t, 100)
	s.listen(ctx, t)
	s.feed(t, 50)
	if !s.whole {
		s.listen(ctx, t)
	} // else they are there unread when the shard is closed
	_, _, err := s.fake.Split("s", "shardId-000000000000")
	require.NoError(t, err)
	s.feed(t, 100)
	s.listen(ctx, t)
}

// listen waits until a client has read what was put.
func (s *story) listen(ctx context.Context, t *testing.T) {
	t.Helper()
	for s.records() < s.put {
		select {
		case m := <-s.hears:
			require.Nil(t, m.Other, "an event that the client does not know")
			if m.Shard != "" || m.Ended != "" {
				s.heard = append(s.heard, m)
			}
		case <-s.exited:
			require.Fail(t, "the client has ended", "it read %d of %d records", s.records(), s.put)
		case <-ctx.Done():
			require.NoError(t, ctx.Err(), "the client has read %d of %d records", s.records(), s.put)
		}
	}
}

func (s *story) records() (n int) {
	for _, m := range s.heard {
		if m.Shard != "" {
			n++
		}
	}
	return n
}

// check requires that every record came once, in order, and where it is, and no
// record of a child before the end of its parent.
func (s *story) check(t *testing.T) {
	t.Helper()
	shards, err := s.fake.Shards("s")
	require.NoError(t, err)
	require.Len(t, shards, 4)
	want, got, byKey := map[string][]said{}, map[string][]said{}, map[string][]int{}
	for _, shard := range shards {
		records, err := s.fake.Records("s", shard.ID)
		require.NoError(t, err)
		require.NotEmpty(t, records)
		for _, r := range records {
			want[shard.ID] = append(want[shard.ID], said{
				Shard: shard.ID, Key: *r.PartitionKey, Sequence: r.SequenceNumber, Data: string(r.Data), Arrived: r.Arrival.UnixMilli(),
			})
		}
	}
	var ends []said
	closed := map[string]bool{}
	for _, m := range s.heard {
		if m.Ended != "" {
			ends, closed[m.Ended] = append(ends, m), true
			continue
		}
		got[m.Shard] = append(got[m.Shard], m)
		var n int
		_, err := fmt.Sscanf(m.Data, "record %d", &n)
		require.NoError(t, err)
		byKey[m.Key] = append(byKey[m.Key], n)
		require.False(t, closed[m.Shard], "no record follows the end of %s", m.Shard)
		if s.whole && m.Shard > shards[1].ID {
			require.True(t, closed[shards[0].ID], "a child is read after its parent")
		}
	}
	require.Equal(t, want, got)
	require.Len(t, byKey, keys)
	for key, numbers := range byKey {
		require.IsIncreasing(t, numbers, key)
	}
	if !s.whole {
		return
	}
	require.Len(t, ends, 1)
	require.Equal(t, shards[0].ID, ends[0].Ended)
	require.Len(t, ends[0].Children, 2)
	for i, child := range ends[0].Children {
		require.Equal(t, shards[2+i].ID, child.ShardID)
		require.Equal(t, []string{shards[0].ID}, child.ParentShards)
		require.Equal(t, shards[2+i].StartHash, child.HashKeyRange.StartingHashKey)
		require.Equal(t, shards[2+i].EndHash, child.HashKeyRange.EndingHashKey)
	}
}
