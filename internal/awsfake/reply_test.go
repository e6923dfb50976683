package awsfake

import (
	"io"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/stretchr/testify/require"
)

func TestRepliesComeAsTheyAre(t *testing.T) {
	onEachTransport(t, Options{}, func(t *testing.T, s *Server, cfg aws.Config) {
		for name, reply := range Replies() {
			remove := s.Inject(Fault{Reply: &reply})
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, *cfg.BaseEndpoint+"/", nil)
			require.NoError(t, err)
			r.Header.Set("X-Amz-Target", targetKinesis+"ListShards")
			r.Header.Set("Accept-Encoding", "identity")
			client := cfg.HTTPClient
			if c, ok := client.(ownBody); ok {
				client = c.HTTPClient
			}
			if c, ok := client.(*http.Client); ok {
				c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
			}
			answer, err := client.Do(r)
			require.NoError(t, err, name)
			body, err := io.ReadAll(answer.Body)
			require.NoError(t, err, name)
			require.NoError(t, answer.Body.Close())
			require.Equal(t, reply.Status, answer.StatusCode, name)
			require.True(t, slices.Equal(reply.Body, body), name)
			for key := range reply.Header {
				require.Equal(t, reply.Header.Get(key), answer.Header.Get(key), name)
			}
			require.NotEmpty(t, answer.Header.Get("Date"), name)
			require.Empty(t, answer.Header.Get("X-Amzn-Requestid"), name)
			remove()
		}
	})
}

// The SDK's clients take an answer that says nothing for one that tells of success: of
// a write that was done, or of an item that there is not.
func TestClientsTakeAnAnswerThatSaysNothingForSuccess(t *testing.T) {
	s := newServer(t, Options{})
	require.NoError(t, s.CreateStream("stream", 1))
	require.NoError(t, s.CreateTable("table", "h", ""))
	k, d := kinesis.NewFromConfig(once(s.AWSConfig())), dynamodb.NewFromConfig(once(s.AWSConfig()))
	var taken []string
	for name, reply := range Replies() {
		remove := s.Inject(Fault{Reply: &reply})
		_, err := k.ListShards(t.Context(), &kinesis.ListShardsInput{StreamName: aws.String("stream")})
		if err == nil {
			taken = append(taken, "kinesis: "+name)
		}
		if _, err = d.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: aws.String("table"), Key: tableKey("a")}); err == nil {
			taken = append(taken, "dynamodb: "+name)
		}
		remove()
	}
	slices.Sort(taken)
	require.Equal(t, []string{
		"dynamodb: 200 with nothing", "dynamodb: 200 with {}", "dynamodb: 204",
		"kinesis: 200 with nothing", "kinesis: 200 with {}", "kinesis: 204",
	}, taken)
}

func tableKey(hash string) map[string]types.AttributeValue {
	return map[string]types.AttributeValue{"h": &types.AttributeValueMemberS{Value: hash}}
}

func TestReplyAfterARequestLeavesItsEffect(t *testing.T) {
	s := newServer(t, Options{})
	require.NoError(t, s.CreateTable("table", "h", ""))
	reply := Replies()["502 with HTML"]
	put := func(hash string) error {
		_, err := dynamodb.NewFromConfig(once(s.AWSConfig())).PutItem(t.Context(), &dynamodb.PutItemInput{TableName: aws.String("table"), Item: tableKey(hash)})
		return err
	}
	s.Inject(Fault{Reply: &reply, Times: 1})
	require.Error(t, put("before"))
	s.Inject(Fault{ReplyAfter: &reply, Times: 1})
	require.Error(t, put("after"))
	items, err := s.Items("table")
	require.NoError(t, err)
	require.Equal(t, []Item{{"h": String("after")}}, items)
}

func TestCutAnswersAreWholeToHTTPAlone(t *testing.T) {
	onEachTransport(t, Options{}, func(t *testing.T, s *Server, cfg aws.Config) {
		require.NoError(t, s.CreateStream("stream", 3))
		require.NoError(t, s.CreateTable("table", "h", ""))
		require.NoError(t, s.PutItem("table", Item{"h": String("a")}))
		s.Inject(Fault{Cut: true})
		_, err := kinesis.NewFromConfig(cfg).ListShards(t.Context(), &kinesis.ListShardsInput{StreamName: aws.String("stream")})
		require.ErrorContains(t, err, "deserialization failed")
		require.NotErrorIs(t, err, io.ErrUnexpectedEOF)
		_, err = dynamodb.NewFromConfig(cfg).GetItem(t.Context(), &dynamodb.GetItemInput{TableName: aws.String("table"), Key: tableKey("a")})
		require.ErrorContains(t, err, "deserialization failed")
	})
}

func TestClosedShardsSayHowLongAgoTheyWereClosed(t *testing.T) {
	for _, tells := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := newServer(t, Options{ClosedBehind: tells})
			require.NoError(t, s.CreateStream("stream", 1))
			put(t, s, "stream", shardID(0), "a")
			pass(t, time.Minute)
			_, _, err := s.Split("stream", shardID(0))
			require.NoError(t, err)
			pass(t, time.Hour)
			r := reader{s.Kinesis(), "stream"}
			iterator, err := r.iterator(t.Context(), shardID(0), "TRIM_HORIZON", "")
			require.NoError(t, err)
			got, last, err := r.read(t.Context(), iterator)
			require.NoError(t, err)
			require.Equal(t, []string{"a"}, got)
			require.Nil(t, last.NextShardIterator)
			want := int64(0)
			if tells {
				want = time.Hour.Milliseconds()
			}
			require.Equal(t, want, *last.MillisBehindLatest)
		})
	}
}

func TestIdleShardsSayNowAndThenThatTheyAreBehind(t *testing.T) {
	s := newServer(t, Options{IdleBehind: true})
	require.NoError(t, s.CreateStream("stream", 1))
	k := s.Kinesis()
	iterator, err := reader{k, "stream"}.iterator(t.Context(), shardID(0), "TRIM_HORIZON", "")
	require.NoError(t, err)
	var behind []bool
	page := func(records int) {
		out, err := k.GetRecords(t.Context(), &kinesis.GetRecordsInput{ShardIterator: iterator})
		require.NoError(t, err)
		require.Len(t, out.Records, records)
		behind, iterator = append(behind, *out.MillisBehindLatest > 0), out.NextShardIterator
	}
	for range 4 {
		page(0)
	}
	put(t, s, "stream", shardID(0), "a")
	page(1)
	page(0)
	require.Equal(t, []bool{true, false, true, false, false, true}, behind)
}
