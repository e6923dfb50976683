package awsfake

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestCallsNameTheirActionAndResource(t *testing.T) {
	s := New(Options{ShardsPerPage: 1})
	defer s.Close()
	require.NoError(t, s.CreateStream("orders", 2))
	require.NoError(t, s.CreateTable("leases", "StreamID", "ShardID"))
	var last string
	s.OnCall(func(c *Call) { last = c.Action() + " " + c.Resource() })
	k, d := s.Kinesis(), s.DynamoDB()
	const stream = "arn:aws:kinesis:us-east-1:123456789012:stream/orders"

	list, err := k.ListShards(t.Context(), &kinesis.ListShardsInput{StreamName: aws.String("orders")})
	require.NoError(t, err)
	require.Equal(t, "kinesis:ListShards "+stream, last)
	_, err = k.ListShards(t.Context(), &kinesis.ListShardsInput{NextToken: list.NextToken})
	require.NoError(t, err)
	require.Equal(t, "kinesis:ListShards "+stream, last, "the token has the stream")

	at, err := k.GetShardIterator(t.Context(), &kinesis.GetShardIteratorInput{StreamARN: aws.String(stream), ShardId: list.Shards[0].ShardId, ShardIteratorType: "LATEST"})
	require.NoError(t, err)
	require.Equal(t, "kinesis:GetShardIterator "+stream, last)
	_, err = k.GetRecords(t.Context(), &kinesis.GetRecordsInput{ShardIterator: at.ShardIterator})
	require.NoError(t, err)
	require.Equal(t, "kinesis:GetRecords "+stream, last)

	who := &kinesis.DescribeStreamConsumerInput{StreamARN: aws.String(stream), ConsumerName: aws.String("c")}
	_, err = k.DescribeStreamConsumer(t.Context(), who)
	require.Error(t, err)
	require.Equal(t, "kinesis:DescribeStreamConsumer "+stream+"/consumer/c:", last)
	made, err := k.RegisterStreamConsumer(t.Context(), &kinesis.RegisterStreamConsumerInput{StreamARN: aws.String(stream), ConsumerName: aws.String("c")})
	require.NoError(t, err)
	require.Equal(t, "kinesis:RegisterStreamConsumer "+stream, last)
	_, err = k.DescribeStreamConsumer(t.Context(), who)
	require.NoError(t, err)
	require.Equal(t, "kinesis:DescribeStreamConsumer "+*made.Consumer.ConsumerARN, last)
	_, err = k.DeregisterStreamConsumer(t.Context(), &kinesis.DeregisterStreamConsumerInput{ConsumerARN: made.Consumer.ConsumerARN})
	require.NoError(t, err)
	require.Equal(t, "kinesis:DeregisterStreamConsumer "+*made.Consumer.ConsumerARN, last)

	_, err = d.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: aws.String("leases"), Key: map[string]types.AttributeValue{
		"StreamID": &types.AttributeValueMemberS{Value: "a"}, "ShardID": &types.AttributeValueMemberS{Value: "b"},
	}})
	require.NoError(t, err)
	require.Equal(t, "dynamodb:GetItem arn:aws:dynamodb:us-east-1:123456789012:table/leases", last)
	_, err = d.ListTables(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, "dynamodb:ListTables ", last)
}

// filepath.Match has the same patterns, where there are no slashes.
func TestPatternsCoverAsShellsDo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pattern := rapid.StringMatching(`[ab*?]{0,8}`).Draw(t, "pattern")
		text := rapid.StringMatching(`[ab]{0,10}`).Draw(t, "text")
		want, err := filepath.Match(pattern, text)
		require.NoError(t, err)
		require.Equal(t, want, Covers(pattern, text))
	})
	require.True(t, Covers("arn:*:stream/foo/consumer/*", "arn:aws:kinesis:us-east-1:1:stream/foo/consumer/a:1"), "a star stands for slashes too")
}

func TestPoliciesThatAreNotUnderstoodAreRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "p.json")
	read := func(statement string) (Policy, error) {
		require.NoError(t, os.WriteFile(file, []byte(`{"Version": "2012-10-17", "Statement": [`+statement+`]}`), 0o600))
		return ReadPolicy(file)
	}
	p, err := read(`{"Effect": "Allow", "Action": "kinesis:List*", "Resource": ["a", "b:*"]}`)
	require.NoError(t, err)
	require.True(t, p.Allows("kinesis:ListShards", "b:1"))
	require.True(t, p.Allows("Kinesis:listshards", "a"), "actions have no case")
	require.False(t, p.Allows("kinesis:ListShards", "A"))
	require.False(t, p.Allows("kinesis:GetRecords", "a"))
	for _, statement := range []string{
		`{"Effect": "Deny", "Action": "a", "Resource": "b"}`,
		`{"Effect": "Allow", "NotAction": "a", "Resource": "b"}`,
		`{"Effect": "Allow", "Action": "a"}`,
	} {
		_, err := read(statement)
		require.ErrorContains(t, err, "p.json", strings.TrimSpace(statement))
	}
	_, err = ReadPolicy(filepath.Join(t.TempDir(), "none.json"))
	require.ErrorIs(t, err, os.ErrNotExist)
}
