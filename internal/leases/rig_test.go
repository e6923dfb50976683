package leases_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/leases"
	"github.com/benthos-plugins/aws-kinesis/internal/lineage"
	"github.com/benthos-plugins/aws-kinesis/internal/retrieval"
	"github.com/benthos-plugins/aws-kinesis/internal/table"
)

// period is the lease period of all members here.
const period = 15 * time.Second

// stage is a local AWS whose table says what a test wants, in virtual time. Two shards of
// the stream orders are there, with a record each.
type stage struct {
	*testing.T
	aws    *awsfake.Server
	table  *table.Table
	search func(context.Context) ([]string, error)
	tokens int
	beat   map[string]lease.Member
}

func onStage(t *testing.T, test func(s *stage)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &stage{T: t, aws: awsfake.New(awsfake.Options{}), beat: map[string]lease.Member{}}
		defer func() { require.NoError(t, s.aws.Close()) }()
		require.NoError(t, s.aws.CreateTable("leases", table.AttrStream, table.AttrShard))
		require.NoError(t, s.aws.CreateStream("orders", 2))
		db := s.aws.DynamoDB()
		s.table = table.New(db, "leases", "")
		s.search = func(ctx context.Context) ([]string, error) { return s.table.Streams(ctx, db) }
		for i := range 2 {
			_, err := s.aws.PutTo("orders", lineage.ShardID(string(rune('0'+i))), "key", []byte("x"))
			require.NoError(t, err)
		}
		test(s)
	})
}

func (s *stage) reader(streams ...string) *leases.Reader {
	api := s.aws.Kinesis()
	return leases.NewReader(leases.Source{
		Table: s.table, Streams: streams,
		Search: s.search,
		Shards: func(ctx context.Context, stream string) ([]lineage.Shard, time.Time, error) {
			return retrieval.ListShards(ctx, api, stream)
		},
	})
}

// join adds a member that shares streams.
func (s *stage) join(id string, streams ...string) {
	s.Helper()
	m := lease.Member{ID: id, Token: "t0", Period: period, Report: lease.Report{Streams: streams}}
	require.NoError(s, s.table.Join(s.Context(), m))
	s.beat[id] = m
}

// beats sends the heartbeat of a member.
func (s *stage) beats(id string) {
	s.Helper()
	m := s.beat[id]
	at := m.Token
	s.tokens++
	m.Token = "t" + string(rune('a'+s.tokens))
	require.NoError(s, s.table.Beat(s.Context(), m, at))
	s.beat[id] = m
}

func key(shard int) lease.Key {
	return lease.Key{Stream: "orders", Shard: lineage.ShardID(string(rune('0' + shard)))}
}

func (s *stage) item(shard int) lease.Item {
	s.Helper()
	item, err := s.table.Get(s.Context(), key(shard))
	require.NoError(s, err)
	return item
}

// claim has a member claim a shard.
func (s *stage) claim(id string, shard int) lease.Item {
	s.Helper()
	item, err := s.table.Claim(s.Context(), s.item(shard), lease.Grant{Link: lease.Link{Owner: id, Term: "1", Token: time.Now().UTC().Format(time.RFC3339Nano)}})
	require.NoError(s, err)
	return item
}

// last is the sequence number of the last record of a shard.
func (s *stage) last(shard int) string {
	s.Helper()
	records, err := s.aws.Records("orders", key(shard).Shard)
	require.NoError(s, err)
	return records[len(records)-1].SequenceNumber
}

func (s *stage) finish(id string, shard int) {
	s.Helper()
	item := s.claim(id, shard)
	require.NoError(s, s.table.Finish(s.Context(), key(shard), item.Link(), lease.Move{To: lease.After(s.last(shard))}))
}

func (s *stage) view(r *leases.Reader) leases.View {
	s.Helper()
	v, err := r.Read(s.Context())
	require.NoError(s, err)
	return v
}

// after lets time pass between two readings, in which the members that are named send
// heartbeats.
func (s *stage) after(d time.Duration, r *leases.Reader, living ...string) leases.View {
	s.Helper()
	s.view(r)
	for passed := time.Duration(0); passed < d; passed += period / 3 {
		time.Sleep(period / 3) //nolint:forbidigo // virtual time
		for _, id := range living {
			s.beats(id)
		}
		s.view(r)
	}
	return s.view(r)
}

// codes are those of the reasons for a shard.
func (s *stage) explain(v leases.View, shard string) (leases.Explanation, []leases.Code) {
	s.Helper()
	e, ok := leases.Explain(v, "orders", shard)
	require.True(s, ok)
	var codes []leases.Code
	for _, r := range e.Reasons {
		codes = append(codes, r.Code)
		require.NotEmpty(s, r.Text)
	}
	return e, codes
}

// put writes the item of a shard, as another client of the table does.
func (s *stage) put(shard int, item awsfake.Item) {
	s.Helper()
	k := key(shard)
	item[table.AttrStream], item[table.AttrShard] = awsfake.String(k.Stream), awsfake.String(k.Shard)
	require.NoError(s, s.aws.PutItem("leases", item))
}
