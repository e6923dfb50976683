package awsfake

import (
	"bytes"
	"context"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// reader reads one shard with an SDK client.
type reader struct {
	k      *kinesis.Client
	stream string
}

func (r reader) iterator(ctx context.Context, shard string, typ types.ShardIteratorType, sequence string) (*string, error) {
	in := &kinesis.GetShardIteratorInput{StreamName: &r.stream, ShardId: &shard, ShardIteratorType: typ}
	if sequence != "" {
		in.StartingSequenceNumber = &sequence
	}
	out, err := r.k.GetShardIterator(ctx, in)
	if err != nil {
		return nil, err
	}
	return out.ShardIterator, nil
}

// read follows an iterator until it has caught up or the shard ended, and
// returns the payloads and the last page.
func (r reader) read(ctx context.Context, it *string) (data []string, last *kinesis.GetRecordsOutput, err error) {
	for {
		last, err = r.k.GetRecords(ctx, &kinesis.GetRecordsInput{ShardIterator: it})
		if err != nil {
			return data, last, err
		}
		for _, rec := range last.Records {
			data = append(data, string(rec.Data))
		}
		if it = last.NextShardIterator; it == nil || *last.MillisBehindLatest == 0 {
			return data, last, nil
		}
	}
}

func put(t *testing.T, s *Server, stream, shard string, payloads ...string) (sequences []string) {
	t.Helper()
	for _, p := range payloads {
		seq, err := s.PutTo(stream, shard, "key", []byte(p))
		require.NoError(t, err)
		sequences = append(sequences, seq)
	}
	return sequences
}

func TestEveryKinesisOperationWorksThroughTheSDK(t *testing.T) {
	onEachTransport(t, Options{}, func(t *testing.T, s *Server, cfg aws.Config) {
		for format, f := range everyFormat {
			t.Run(format, func(t *testing.T) {
				defer s.Inject(Fault{Format: f.answers})()
				everyOperationWorks(t, s, kinesis.NewFromConfig(cfg, f.install))
			})
		}
	})
}

func everyOperationWorks(t *testing.T, s *Server, k *kinesis.Client) {
	t.Helper()
	ctx, name := t.Context(), aws.String("stream")
	_, err := k.CreateStream(ctx, &kinesis.CreateStreamInput{StreamName: name, ShardCount: aws.Int32(2)})
	require.NoError(t, err)

	d, err := k.DescribeStream(ctx, &kinesis.DescribeStreamInput{StreamName: name})
	require.NoError(t, err)
	require.Equal(t, types.StreamStatusActive, d.StreamDescription.StreamStatus)
	require.Equal(t, s.StreamARN("stream"), *d.StreamDescription.StreamARN)
	require.WithinDuration(t, time.Now(), *d.StreamDescription.StreamCreationTimestamp, time.Minute)
	require.Len(t, d.StreamDescription.Shards, 2)
	require.Equal(t, "0", *d.StreamDescription.Shards[0].HashKeyRange.StartingHashKey)
	require.Equal(t, "340282366920938463463374607431768211455", *d.StreamDescription.Shards[1].HashKeyRange.EndingHashKey)
	sum, err := k.DescribeStreamSummary(ctx, &kinesis.DescribeStreamSummaryInput{StreamARN: d.StreamDescription.StreamARN})
	require.NoError(t, err)
	require.EqualValues(t, 2, *sum.StreamDescriptionSummary.OpenShardCount)
	ls, err := k.ListStreams(ctx, &kinesis.ListStreamsInput{})
	require.NoError(t, err)
	require.Equal(t, []string{"stream"}, ls.StreamNames)

	first, second := shardID(0), shardID(1)
	one, err := k.PutRecord(ctx, &kinesis.PutRecordInput{StreamName: name, PartitionKey: aws.String("a"), Data: []byte("one"), ExplicitHashKey: aws.String("0")})
	require.NoError(t, err)
	require.Equal(t, first, *one.ShardId)
	many, err := k.PutRecords(ctx, &kinesis.PutRecordsInput{StreamName: name, Records: []types.PutRecordsRequestEntry{
		{PartitionKey: aws.String(`"\ü` + "\x01"), Data: []byte{0, 255}, ExplicitHashKey: aws.String("1")},
		{PartitionKey: aws.String("b"), Data: []byte("three"), ExplicitHashKey: aws.String("340282366920938463463374607431768211455")},
	}})
	require.NoError(t, err)
	require.Zero(t, *many.FailedRecordCount)
	require.Equal(t, second, *many.Records[1].ShardId)

	_, err = k.SplitShard(ctx, &kinesis.SplitShardInput{StreamName: name, ShardToSplit: &first, NewStartingHashKey: aws.String("1000")})
	require.NoError(t, err)
	_, err = k.MergeShards(ctx, &kinesis.MergeShardsInput{StreamName: name, ShardToMerge: aws.String(shardID(3)), AdjacentShardToMerge: &second})
	require.NoError(t, err)
	shards, err := k.ListShards(ctx, &kinesis.ListShardsInput{StreamName: name})
	require.NoError(t, err)
	require.Len(t, shards.Shards, 5)
	require.Equal(t, first, *shards.Shards[2].ParentShardId)
	require.Equal(t, "999", *shards.Shards[2].HashKeyRange.EndingHashKey)
	require.Equal(t, shardID(3), *shards.Shards[4].ParentShardId)
	require.Equal(t, second, *shards.Shards[4].AdjacentParentShardId)
	require.NotNil(t, shards.Shards[3].SequenceNumberRange.EndingSequenceNumber)
	require.Nil(t, shards.Shards[4].SequenceNumberRange.EndingSequenceNumber)

	r := reader{k, "stream"}
	it, err := r.iterator(ctx, first, types.ShardIteratorTypeTrimHorizon, "")
	require.NoError(t, err)
	page, err := k.GetRecords(ctx, &kinesis.GetRecordsInput{ShardIterator: it})
	require.NoError(t, err)
	require.Len(t, page.Records, 2)
	require.Equal(t, "one", string(page.Records[0].Data))
	require.Equal(t, *one.SequenceNumber, *page.Records[0].SequenceNumber)
	require.Equal(t, []byte{0, 255}, page.Records[1].Data)
	require.Equal(t, `"\ü`+"\x01", *page.Records[1].PartitionKey)
	require.WithinDuration(t, time.Now(), *page.Records[1].ApproximateArrivalTimestamp, time.Minute)
	require.Nil(t, page.NextShardIterator)
	require.Len(t, page.ChildShards, 2)
	require.Equal(t, shardID(2), *page.ChildShards[0].ShardId)
	require.Equal(t, []string{first}, page.ChildShards[0].ParentShards)

	_, err = k.DeleteStream(ctx, &kinesis.DeleteStreamInput{StreamName: name})
	require.NoError(t, err)
	_, err = k.DescribeStreamSummary(ctx, &kinesis.DescribeStreamSummaryInput{StreamName: name})
	requireCode(t, CodeResourceNotFound, err)
}

func TestKinesisRefusesWhatAWSRefuses(t *testing.T) {
	s := newServer(t, Options{})
	require.NoError(t, s.CreateStream("stream", 3))
	ctx, k, name, other := t.Context(), kinesis.NewFromConfig(once(s.AWSConfig())), aws.String("stream"), aws.String("other")
	first := aws.String(shardID(0))
	iterator := func(typ types.ShardIteratorType, mutate func(*kinesis.GetShardIteratorInput)) error {
		in := &kinesis.GetShardIteratorInput{StreamName: name, ShardId: first, ShardIteratorType: typ}
		mutate(in)
		_, err := k.GetShardIterator(ctx, in)
		return err
	}
	for _, test := range []struct {
		name, code string
		call       func() error
	}{
		{"create again", CodeResourceInUse, func() error {
			_, err := k.CreateStream(ctx, &kinesis.CreateStreamInput{StreamName: name, ShardCount: aws.Int32(1)})
			return err
		}},
		{"create with no shards", CodeValidation, func() error {
			_, err := k.CreateStream(ctx, &kinesis.CreateStreamInput{StreamName: other, ShardCount: aws.Int32(0)})
			return err
		}},
		{"create with a bad name", CodeValidation, func() error {
			_, err := k.CreateStream(ctx, &kinesis.CreateStreamInput{StreamName: aws.String("a b"), ShardCount: aws.Int32(1)})
			return err
		}},
		{"unknown stream", CodeResourceNotFound, func() error {
			_, err := k.ListShards(ctx, &kinesis.ListShardsInput{StreamName: other})
			return err
		}},
		{"no stream at all", CodeInvalidArgument, func() error {
			_, err := k.ListShards(ctx, &kinesis.ListShardsInput{})
			return err
		}},
		{"ARN of another region", CodeResourceNotFound, func() error {
			_, err := k.ListShards(ctx, &kinesis.ListShardsInput{StreamARN: aws.String("arn:aws:kinesis:eu-west-1:123456789012:stream/stream")})
			return err
		}},
		{"page too large", CodeValidation, func() error {
			_, err := k.ListShards(ctx, &kinesis.ListShardsInput{StreamName: name, MaxResults: aws.Int32(10_001)})
			return err
		}},
		{"unknown shard", CodeResourceNotFound, func() error {
			return iterator("LATEST", func(in *kinesis.GetShardIteratorInput) { in.ShardId = aws.String(shardID(7)) })
		}},
		{"unknown iterator type", CodeValidation, func() error {
			return iterator("MIDDLE", func(*kinesis.GetShardIteratorInput) {})
		}},
		{"timestamp missing", CodeInvalidArgument, func() error {
			return iterator("AT_TIMESTAMP", func(*kinesis.GetShardIteratorInput) {})
		}},
		{"timestamp to come", CodeInvalidArgument, func() error {
			return iterator("AT_TIMESTAMP", func(in *kinesis.GetShardIteratorInput) { in.Timestamp = aws.Time(time.Now().Add(time.Minute)) })
		}},
		{"sequence missing", CodeInvalidArgument, func() error {
			return iterator("AT_SEQUENCE_NUMBER", func(*kinesis.GetShardIteratorInput) {})
		}},
		{"sequence not numeric", CodeInvalidArgument, func() error {
			return iterator("AFTER_SEQUENCE_NUMBER", func(in *kinesis.GetShardIteratorInput) { in.StartingSequenceNumber = aws.String("SHARD_END") })
		}},
		{"iterator of nonsense", CodeInvalidArgument, func() error {
			_, err := k.GetRecords(ctx, &kinesis.GetRecordsInput{ShardIterator: aws.String("nonsense")})
			return err
		}},
		{"limit too large", CodeValidation, func() error {
			_, err := k.GetRecords(ctx, &kinesis.GetRecordsInput{ShardIterator: aws.String("nonsense"), Limit: aws.Int32(10_001)})
			return err
		}},
		{"no partition key", CodeValidation, func() error {
			_, err := k.PutRecord(ctx, &kinesis.PutRecordInput{StreamName: name, Data: []byte("x")})
			return err
		}},
		{"long partition key", CodeValidation, func() error {
			_, err := k.PutRecord(ctx, &kinesis.PutRecordInput{StreamName: name, Data: []byte("x"), PartitionKey: aws.String(strings.Repeat("k", 257))})
			return err
		}},
		{"record too large", CodeValidation, func() error {
			_, err := k.PutRecord(ctx, &kinesis.PutRecordInput{StreamName: name, Data: make([]byte, 10<<20), PartitionKey: aws.String("k")})
			return err
		}},
		{"hash key beyond the space", CodeInvalidArgument, func() error {
			_, err := k.PutRecord(ctx, &kinesis.PutRecordInput{StreamName: name, Data: []byte("x"), PartitionKey: aws.String("k"), ExplicitHashKey: aws.String("340282366920938463463374607431768211456")})
			return err
		}},
		{"501 records", CodeValidation, func() error {
			records := slices.Repeat([]types.PutRecordsRequestEntry{{Data: []byte("x"), PartitionKey: aws.String("k")}}, 501)
			_, err := k.PutRecords(ctx, &kinesis.PutRecordsInput{StreamName: name, Records: records})
			return err
		}},
		{"split at the edge", CodeInvalidArgument, func() error {
			_, err := k.SplitShard(ctx, &kinesis.SplitShardInput{StreamName: name, ShardToSplit: first, NewStartingHashKey: aws.String("0")})
			return err
		}},
		{"merge of strangers", CodeInvalidArgument, func() error {
			_, err := k.MergeShards(ctx, &kinesis.MergeShardsInput{StreamName: name, ShardToMerge: first, AdjacentShardToMerge: aws.String(shardID(2))})
			return err
		}},
		{"merge with itself", CodeInvalidArgument, func() error {
			_, err := k.MergeShards(ctx, &kinesis.MergeShardsInput{StreamName: name, ShardToMerge: first, AdjacentShardToMerge: first})
			return err
		}},
	} {
		t.Run(test.name, func(t *testing.T) { requireCode(t, test.code, test.call()) })
	}
	shards, err := s.Shards("stream")
	require.NoError(t, err)
	require.Len(t, shards, 3, "nothing refused took effect")
}

// The SDK's clients always send Data; others may not.
func TestRecordsNeedDataWhichMayBeEmpty(t *testing.T) {
	s := newServer(t, Options{})
	require.NoError(t, s.CreateStream("stream", 1))
	for body, status := range map[string]int{
		`{"StreamName":"stream","PartitionKey":"k"}`:             http.StatusBadRequest,
		`{"StreamName":"stream","PartitionKey":"k","Data":null}`: http.StatusBadRequest,
		`{"StreamName":"stream","PartitionKey":"k","Data":""}`:   http.StatusOK,
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://awsfake.invalid/", strings.NewReader(body))
		require.NoError(t, err)
		r.Header.Set("X-Amz-Target", targetKinesis+"PutRecord")
		answer, err := s.HTTPClient().Do(r)
		require.NoError(t, err)
		require.NoError(t, answer.Body.Close())
		require.Equal(t, status, answer.StatusCode, body)
	}
}

func TestIteratorsStartWhereTheirTypeSays(t *testing.T) {
	clock := NewManualClock(time.Unix(1_700_000_000, 0))
	s := newServer(t, Options{Clock: clock})
	require.NoError(t, s.CreateStream("stream", 1))
	var sequences []string
	for _, p := range []string{"a", "b", "c"} {
		sequences = append(sequences, put(t, s, "stream", shardID(0), p)...)
		clock.Advance(time.Second)
	}
	ctx, r := t.Context(), reader{kinesis.NewFromConfig(once(s.AWSConfig())), "stream"}
	start := func(typ types.ShardIteratorType, sequence string, at float64) string {
		in := &kinesis.GetShardIteratorInput{StreamName: aws.String("stream"), ShardId: aws.String(shardID(0)), ShardIteratorType: typ}
		if sequence != "" {
			in.StartingSequenceNumber = &sequence
		}
		if typ == types.ShardIteratorTypeAtTimestamp {
			in.Timestamp = aws.Time(time.UnixMilli(int64(at * 1000)))
		}
		out, err := r.k.GetShardIterator(ctx, in)
		require.NoError(t, err)
		got, last, err := r.read(ctx, out.ShardIterator)
		require.NoError(t, err)
		require.NotNil(t, last.NextShardIterator, "the shard is open")
		return strings.Join(got, "")
	}
	require.Equal(t, "abc", start("TRIM_HORIZON", "", 0))
	require.Empty(t, start("LATEST", "", 0))
	require.Equal(t, "bc", start("AT_SEQUENCE_NUMBER", sequences[1], 0))
	require.Equal(t, "c", start("AFTER_SEQUENCE_NUMBER", sequences[1], 0))
	require.Equal(t, "bc", start("AT_TIMESTAMP", "", 1_700_000_000.5))
	require.Equal(t, "bc", start("AT_TIMESTAMP", "", 1_700_000_001))
	require.Empty(t, start("AT_TIMESTAMP", "", 1_700_000_003))
	shards, err := s.Shards("stream")
	require.NoError(t, err)
	require.Equal(t, "abc", start("AT_SEQUENCE_NUMBER", shards[0].StartSequence, 0), "a shard's start is a place in it")
}

func TestSequenceNumbersBelongToOneShardOfOneLifeOfAStream(t *testing.T) {
	s := newServer(t, Options{})
	require.NoError(t, s.CreateStream("stream", 2))
	mine := put(t, s, "stream", shardID(0), "a")[0]
	require.Len(t, mine, 56)
	ctx, r := t.Context(), reader{kinesis.NewFromConfig(once(s.AWSConfig())), "stream"}
	_, err := r.iterator(ctx, shardID(0), "AFTER_SEQUENCE_NUMBER", mine)
	require.NoError(t, err)
	_, err = r.iterator(ctx, shardID(1), "AFTER_SEQUENCE_NUMBER", mine)
	requireCode(t, CodeInvalidArgument, err)

	old, err := r.iterator(ctx, shardID(0), "TRIM_HORIZON", "")
	require.NoError(t, err)
	require.NoError(t, s.DeleteStream("stream"))
	require.NoError(t, s.CreateStream("stream", 2))
	again := put(t, s, "stream", shardID(0), "a")[0]
	require.Greater(t, again, mine)
	_, err = r.iterator(ctx, shardID(0), "AFTER_SEQUENCE_NUMBER", mine)
	requireCode(t, CodeInvalidArgument, err)
	_, err = r.k.GetRecords(ctx, &kinesis.GetRecordsInput{ShardIterator: old})
	requireCode(t, CodeResourceNotFound, err)
}

func TestIteratorsExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, Options{})
		require.NoError(t, s.CreateStream("stream", 1))
		ctx, r := t.Context(), reader{kinesis.NewFromConfig(once(s.AWSConfig())), "stream"}
		it, err := r.iterator(ctx, shardID(0), "LATEST", "")
		require.NoError(t, err)
		pass(t, 5*time.Minute)
		out, err := r.k.GetRecords(ctx, &kinesis.GetRecordsInput{ShardIterator: it})
		require.NoError(t, err)
		pass(t, 5*time.Minute+1)
		_, err = r.k.GetRecords(ctx, &kinesis.GetRecordsInput{ShardIterator: out.NextShardIterator})
		requireCode(t, CodeExpiredIterator, err)
	})
}

func TestPagesEndByCountAndBySize(t *testing.T) {
	s := newServer(t, Options{})
	require.NoError(t, s.CreateStream("stream", 1))
	ctx, r := t.Context(), reader{kinesis.NewFromConfig(once(s.AWSConfig())), "stream"}
	page := func(it *string, limit int32) *kinesis.GetRecordsOutput {
		in := &kinesis.GetRecordsInput{ShardIterator: it}
		if limit > 0 {
			in.Limit = &limit
		}
		out, err := r.k.GetRecords(ctx, in)
		require.NoError(t, err)
		return out
	}
	large := strings.Repeat("x", 4<<20)
	put(t, s, "stream", shardID(0), "1", "2", "3", large, large, large)
	it, err := r.iterator(ctx, shardID(0), "TRIM_HORIZON", "")
	require.NoError(t, err)
	out := page(it, 2)
	require.Len(t, out.Records, 2)
	require.Positive(t, *out.MillisBehindLatest)
	out = page(out.NextShardIterator, 0)
	require.Len(t, out.Records, 3, "a third record of 4 MiB would make more than 10 MiB")
	require.Positive(t, *out.MillisBehindLatest)
	out = page(out.NextShardIterator, 0)
	require.Len(t, out.Records, 1)
	require.Equal(t, large, string(out.Records[0].Data))
	require.Zero(t, *out.MillisBehindLatest)

	for i := range maxPageRecords + 1 {
		put(t, s, "stream", shardID(0), strconv.Itoa(i))
	}
	out = page(out.NextShardIterator, 0)
	require.Len(t, out.Records, maxPageRecords)
	require.Equal(t, "9999", string(out.Records[9999].Data))
	out = page(out.NextShardIterator, 0)
	require.Len(t, out.Records, 1)
}

func TestTheLargestRecordPasses(t *testing.T) {
	s := newServer(t, Options{})
	require.NoError(t, s.CreateStream("stream", 1))
	cfg := loopback(t, s)
	// Now and then the client closes its connection in the middle of a large
	// answer, and retries.
	cfg.Retryer = nil
	r := reader{kinesis.NewFromConfig(cfg), "stream"}
	data := bytes.Repeat([]byte{7}, maxRecordBytes-1)
	_, err := r.k.PutRecord(t.Context(), &kinesis.PutRecordInput{StreamName: aws.String("stream"), PartitionKey: aws.String("k"), Data: data})
	require.NoError(t, err)
	it, err := r.iterator(t.Context(), shardID(0), "TRIM_HORIZON", "")
	require.NoError(t, err)
	got, _, err := r.read(t.Context(), it)
	require.NoError(t, err)
	require.True(t, len(got) == 1 && got[0] == string(data))
}

func TestEmptyPagesComeBeforeRecordsAndSayThereIsMore(t *testing.T) {
	s := newServer(t, Options{})
	require.NoError(t, s.CreateStream("stream", 1))
	s.SetEmptyPages("stream", 2)
	put(t, s, "stream", shardID(0), "a")
	ctx, r := t.Context(), reader{kinesis.NewFromConfig(once(s.AWSConfig())), "stream"}
	it, err := r.iterator(ctx, shardID(0), "TRIM_HORIZON", "")
	require.NoError(t, err)
	for _, want := range []struct {
		records int
		behind  bool
	}{{0, true}, {0, true}, {1, false}, {0, false}} {
		out, err := r.k.GetRecords(ctx, &kinesis.GetRecordsInput{ShardIterator: it})
		require.NoError(t, err)
		require.Len(t, out.Records, want.records)
		require.Equal(t, want.behind, *out.MillisBehindLatest > 0)
		it = out.NextShardIterator
	}
}

func TestPartitionKeysMayBeAbsent(t *testing.T) {
	s := newServer(t, Options{})
	ctx, k := t.Context(), kinesis.NewFromConfig(once(s.AWSConfig()))
	_, err := k.CreateStream(ctx, &kinesis.CreateStreamInput{
		StreamName:                 aws.String("stream"),
		StreamModeDetails:          &types.StreamModeDetails{StreamMode: types.StreamModeOnDemand},
		RecordDistributionStrategy: types.RecordDistributionStrategyAuto,
	})
	require.NoError(t, err)
	used := map[string]bool{}
	for range 4 {
		out, err := k.PutRecord(ctx, &kinesis.PutRecordInput{StreamName: aws.String("stream"), Data: []byte("x")})
		require.NoError(t, err)
		used[*out.ShardId] = true
	}
	require.Len(t, used, 4, "records without keys go round the shards")
	_, _, err = s.Put("stream", "", []byte("y"))
	require.NoError(t, err)
	r := reader{k, "stream"}
	it, err := r.iterator(ctx, shardID(0), "TRIM_HORIZON", "")
	require.NoError(t, err)
	out, err := k.GetRecords(ctx, &kinesis.GetRecordsInput{ShardIterator: it})
	require.NoError(t, err)
	require.Len(t, out.Records, 2)
	require.Nil(t, out.Records[0].PartitionKey)
	records, err := s.Records("stream", shardID(0))
	require.NoError(t, err)
	require.Nil(t, records[1].PartitionKey)
	require.Equal(t, "y", string(records[1].Data))
}

func TestListShardsPagesByATokenThatGoesAlone(t *testing.T) {
	clock := NewManualClock(time.Unix(1_700_000_000, 0))
	s := newServer(t, Options{ShardsPerPage: 3, Clock: clock})
	require.NoError(t, s.CreateStream("stream", 8))
	ctx, k, name := t.Context(), kinesis.NewFromConfig(once(s.AWSConfig())), aws.String("stream")
	var ids []string
	in := &kinesis.ListShardsInput{StreamName: name}
	var token *string
	for {
		out, err := k.ListShards(ctx, in)
		require.NoError(t, err)
		require.LessOrEqual(t, len(out.Shards), 3)
		for _, sh := range out.Shards {
			ids = append(ids, *sh.ShardId)
		}
		if out.NextToken == nil {
			break
		}
		token = out.NextToken
		in = &kinesis.ListShardsInput{NextToken: token}
	}
	require.Len(t, ids, 8)
	require.Equal(t, shardID(7), ids[7])
	_, err := k.ListShards(ctx, &kinesis.ListShardsInput{NextToken: token, StreamName: name})
	requireCode(t, CodeInvalidArgument, err)
	_, err = k.ListShards(ctx, &kinesis.ListShardsInput{NextToken: aws.String("nonsense")})
	requireCode(t, CodeInvalidArgument, err)
	clock.Advance(301 * time.Second)
	_, err = k.ListShards(ctx, &kinesis.ListShardsInput{NextToken: token})
	requireCode(t, "ExpiredNextTokenException", err)

	out, err := k.ListShards(ctx, &kinesis.ListShardsInput{StreamName: name, ExclusiveStartShardId: aws.String(shardID(5))})
	require.NoError(t, err)
	require.Len(t, out.Shards, 2)
	d, err := k.DescribeStream(ctx, &kinesis.DescribeStreamInput{StreamName: name, ExclusiveStartShardId: aws.String(shardID(1))})
	require.NoError(t, err)
	require.Len(t, d.StreamDescription.Shards, 3)
	require.True(t, *d.StreamDescription.HasMoreShards)
	require.NoError(t, s.CreateStream("another", 1))
	ls, err := k.ListStreams(ctx, &kinesis.ListStreamsInput{Limit: aws.Int32(1)})
	require.NoError(t, err)
	require.True(t, *ls.HasMoreStreams)
	ls, err = k.ListStreams(ctx, &kinesis.ListStreamsInput{NextToken: ls.NextToken})
	require.NoError(t, err)
	require.Equal(t, []string{"stream"}, ls.StreamNames)
}

func TestShardFiltersSelect(t *testing.T) {
	clock := NewManualClock(time.Unix(1_700_000_000, 0))
	s := newServer(t, Options{Clock: clock})
	require.NoError(t, s.CreateStream("stream", 2))
	clock.Advance(time.Minute)
	_, _, err := s.Split("stream", shardID(0))
	require.NoError(t, err)
	clock.Advance(time.Minute)
	k := kinesis.NewFromConfig(once(s.AWSConfig()))
	list := func(f types.ShardFilter) (ids []int) {
		out, err := k.ListShards(t.Context(), &kinesis.ListShardsInput{StreamName: aws.String("stream"), ShardFilter: &f})
		require.NoError(t, err)
		for _, sh := range out.Shards {
			i, _ := shardIndex(*sh.ShardId)
			ids = append(ids, i)
		}
		return ids
	}
	at := func(d time.Duration) *time.Time { return aws.Time(time.Unix(1_700_000_000, 0).Add(d)) }
	require.Equal(t, []int{1, 2, 3}, list(types.ShardFilter{Type: types.ShardFilterTypeAtLatest}))
	require.Equal(t, []int{0, 1, 2, 3}, list(types.ShardFilter{Type: types.ShardFilterTypeFromTrimHorizon}))
	require.Equal(t, []int{0, 1}, list(types.ShardFilter{Type: types.ShardFilterTypeAtTrimHorizon}))
	require.Equal(t, []int{2, 3}, list(types.ShardFilter{Type: types.ShardFilterTypeAfterShardId, ShardId: aws.String(shardID(1))}))
	require.Equal(t, []int{0, 1}, list(types.ShardFilter{Type: types.ShardFilterTypeAtTimestamp, Timestamp: at(time.Second)}))
	require.Equal(t, []int{1, 2, 3}, list(types.ShardFilter{Type: types.ShardFilterTypeAtTimestamp, Timestamp: at(61 * time.Second)}))
	require.Equal(t, []int{1, 2, 3}, list(types.ShardFilter{Type: types.ShardFilterTypeFromTimestamp, Timestamp: at(61 * time.Second)}))
	require.Equal(t, []int{0, 1, 2, 3}, list(types.ShardFilter{Type: types.ShardFilterTypeFromTimestamp, Timestamp: at(59 * time.Second)}))
}

func TestCapacityModesDecideTheShards(t *testing.T) {
	s := newServer(t, Options{})
	k := kinesis.NewFromConfig(once(s.AWSConfig()))
	onDemand := &types.StreamModeDetails{StreamMode: types.StreamModeOnDemand}
	for _, in := range []*kinesis.CreateStreamInput{
		{},
		{StreamModeDetails: onDemand, ShardCount: aws.Int32(1)},
		{ShardCount: aws.Int32(1), RecordDistributionStrategy: types.RecordDistributionStrategyAuto},
	} {
		in.StreamName = aws.String("refused")
		_, err := k.CreateStream(t.Context(), in)
		requireCode(t, CodeValidation, err)
	}
	_, err := k.CreateStream(t.Context(), &kinesis.CreateStreamInput{StreamName: aws.String("stream"), StreamModeDetails: onDemand})
	require.NoError(t, err)
	shards, err := s.Shards("stream")
	require.NoError(t, err)
	require.Len(t, shards, 4)
	d, err := k.DescribeStreamSummary(t.Context(), &kinesis.DescribeStreamSummaryInput{StreamName: aws.String("stream")})
	require.NoError(t, err)
	require.Equal(t, types.StreamModeOnDemand, d.StreamDescriptionSummary.StreamModeDetails.StreamMode)
}

func TestClosedShardsTakeNoRecords(t *testing.T) {
	s := newServer(t, Options{})
	require.NoError(t, s.CreateStream("stream", 1))
	low, high, err := s.Split("stream", shardID(0))
	require.NoError(t, err)
	_, err = s.PutTo("stream", shardID(0), "key", []byte("x"))
	require.Error(t, err)
	records, err := s.Records("stream", shardID(0))
	require.NoError(t, err)
	require.Empty(t, records)
	put(t, s, "stream", high, "y")
	child, err := s.Merge("stream", low, high)
	require.NoError(t, err)
	_, _, err = s.Split("stream", low)
	require.Error(t, err)
	shard, _, err := s.Put("stream", "any", []byte("z"))
	require.NoError(t, err)
	require.Equal(t, child, shard)
}

func TestStatusLagsBehindChanges(t *testing.T) {
	clock := NewManualClock(time.Unix(1_700_000_000, 0))
	s := newServer(t, Options{Clock: clock, StreamDelay: 10 * time.Second})
	ctx, k, name := t.Context(), kinesis.NewFromConfig(once(s.AWSConfig())), aws.String("stream")
	status := func() types.StreamStatus {
		d, err := k.DescribeStreamSummary(ctx, &kinesis.DescribeStreamSummaryInput{StreamName: name})
		require.NoError(t, err)
		return d.StreamDescriptionSummary.StreamStatus
	}
	_, err := k.CreateStream(ctx, &kinesis.CreateStreamInput{StreamName: name, ShardCount: aws.Int32(1)})
	require.NoError(t, err)
	require.Equal(t, types.StreamStatusCreating, status())
	_, err = k.ListShards(ctx, &kinesis.ListShardsInput{StreamName: name})
	requireCode(t, CodeResourceNotFound, err)
	clock.Advance(10 * time.Second)
	require.Equal(t, types.StreamStatusActive, status())
	_, _, err = s.Split("stream", shardID(0))
	require.NoError(t, err)
	require.Equal(t, types.StreamStatusUpdating, status())
	_, err = k.MergeShards(ctx, &kinesis.MergeShardsInput{StreamName: name, ShardToMerge: aws.String(shardID(1)), AdjacentShardToMerge: aws.String(shardID(2))})
	requireCode(t, CodeResourceInUse, err)
	clock.Advance(10 * time.Second)
	_, err = s.Merge("stream", shardID(1), shardID(2))
	require.NoError(t, err)
}

func TestTrimmedShardsLeaveWithTheirLastRecord(t *testing.T) {
	clock := NewManualClock(time.Unix(1_700_000_000, 0))
	s := newServer(t, Options{Clock: clock})
	require.NoError(t, s.CreateStream("stream", 1))
	ctx, r := t.Context(), reader{kinesis.NewFromConfig(once(s.AWSConfig())), "stream"}
	first := put(t, s, "stream", shardID(0), "a")[0]
	start, err := r.iterator(ctx, shardID(0), "TRIM_HORIZON", "")
	require.NoError(t, err)
	clock.Advance(time.Minute)
	put(t, s, "stream", shardID(0), "b")
	_, _, err = s.Split("stream", shardID(0))
	require.NoError(t, err)
	put(t, s, "stream", shardID(1), "c")
	require.NoError(t, s.Trim("stream", clock.Now()))

	got, last, err := r.read(ctx, start)
	require.NoError(t, err)
	require.Equal(t, []string{"b"}, got, "an iterator before the trim horizon goes on at it")
	require.Nil(t, last.NextShardIterator)
	it, err := r.iterator(ctx, shardID(0), "AFTER_SEQUENCE_NUMBER", first)
	require.NoError(t, err)
	got, _, err = r.read(ctx, it)
	require.NoError(t, err)
	require.Equal(t, []string{"b"}, got)

	clock.Advance(time.Minute)
	require.NoError(t, s.TrimShard("stream", shardID(0), clock.Now()))
	shards, err := s.Shards("stream")
	require.NoError(t, err)
	require.Len(t, shards, 2)
	require.Equal(t, shardID(1), shards[0].ID)
	require.Equal(t, shardID(0), shards[0].Parent, "children name a parent that left")
	_, err = r.iterator(ctx, shardID(0), "TRIM_HORIZON", "")
	requireCode(t, CodeResourceNotFound, err)
	records, err := s.Records("stream", shardID(1))
	require.NoError(t, err)
	require.Len(t, records, 1)
}

func TestAShardReadsWithinItsQuotas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, Options{EnforceLimits: true})
		require.NoError(t, s.CreateStream("stream", 2))
		ctx, r := t.Context(), reader{kinesis.NewFromConfig(once(s.AWSConfig())), "stream"}
		it, err := r.iterator(ctx, shardID(0), "TRIM_HORIZON", "")
		require.NoError(t, err)
		get := func() error {
			_, err := r.k.GetRecords(ctx, &kinesis.GetRecordsInput{ShardIterator: it})
			return err
		}
		for range 5 {
			require.NoError(t, get())
		}
		requireCode(t, CodeThroughputExceeded, get())
		pass(t, time.Second)
		require.NoError(t, get())
		require.Equal(t, 1, s.Refused("GetRecords", CodeThroughputExceeded))

		for range 4 {
			_, err = r.iterator(ctx, shardID(0), "LATEST", "")
			require.NoError(t, err)
		}
		_, err = r.iterator(ctx, shardID(1), "LATEST", "")
		require.NoError(t, err, "each shard has its own quota")

		pass(t, time.Second)
		put(t, s, "stream", shardID(0), strings.Repeat("x", 3<<20))
		require.NoError(t, get())
		pass(t, 400*time.Millisecond)
		requireCode(t, CodeThroughputExceeded, get())
		pass(t, 200*time.Millisecond)
		require.NoError(t, get(), "3 MiB overdraw 2 MiB/s by half a second")

		pass(t, 10*time.Second)
		put(t, s, "stream", shardID(0), strings.Repeat("x", 9<<20))
		require.NoError(t, get())
		pass(t, 5*time.Second-1)
		requireCode(t, CodeThroughputExceeded, get())
		pass(t, 1)
		require.NoError(t, get(), "5 seconds after a page that 10 MiB ended")
	})
}

func TestIteratorsAndDescriptionsHaveQuotas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, Options{EnforceLimits: true})
		require.NoError(t, s.CreateStream("stream", 1))
		ctx, r, name := t.Context(), reader{kinesis.NewFromConfig(once(s.AWSConfig())), "stream"}, aws.String("stream")
		for _, q := range []struct {
			perSecond int
			code      string
			call      func() error
		}{
			{5, CodeThroughputExceeded, func() error {
				_, err := r.iterator(ctx, shardID(0), "LATEST", "")
				return err
			}},
			{10, CodeLimitExceeded, func() error {
				_, err := r.k.DescribeStream(ctx, &kinesis.DescribeStreamInput{StreamName: name})
				return err
			}},
			{20, CodeLimitExceeded, func() error {
				_, err := r.k.DescribeStreamSummary(ctx, &kinesis.DescribeStreamSummaryInput{StreamName: name})
				return err
			}},
			{1000, CodeLimitExceeded, func() error {
				_, err := r.k.ListShards(ctx, &kinesis.ListShardsInput{StreamName: name})
				return err
			}},
			{5, CodeLimitExceeded, func() error {
				_, err := r.k.ListStreams(ctx, nil)
				return err
			}},
		} {
			for range q.perSecond {
				require.NoError(t, q.call())
			}
			requireCode(t, q.code, q.call())
			pass(t, time.Second)
			require.NoError(t, q.call())
		}
	})
}

func TestAShardTakesWritesWithinItsQuotas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, Options{EnforceLimits: true})
		require.NoError(t, s.CreateStream("stream", 1))
		ctx, k, name := t.Context(), kinesis.NewFromConfig(once(s.AWSConfig())), aws.String("stream")
		batch := make([]types.PutRecordsRequestEntry, 500)
		for i := range batch {
			batch[i] = types.PutRecordsRequestEntry{PartitionKey: aws.String("k"), Data: []byte("x")}
		}
		for _, failed := range []int32{0, 0, 500} {
			out, err := k.PutRecords(ctx, &kinesis.PutRecordsInput{StreamName: name, Records: batch})
			require.NoError(t, err)
			require.Equal(t, failed, *out.FailedRecordCount)
			if failed > 0 {
				require.Equal(t, CodeThroughputExceeded, *out.Records[0].ErrorCode)
				require.Nil(t, out.Records[0].SequenceNumber)
			}
		}
		pass(t, time.Second)
		record := &kinesis.PutRecordInput{StreamName: name, PartitionKey: aws.String("k"), Data: make([]byte, 1<<20)}
		_, err := k.PutRecord(ctx, record)
		require.NoError(t, err)
		_, err = k.PutRecord(ctx, record)
		requireCode(t, CodeThroughputExceeded, err)
	})
}

func TestConcurrentPutsAndReshardsLoseNothing(t *testing.T) {
	s := newServer(t, Options{})
	require.NoError(t, s.CreateStream("stream", 1))
	const writers, each = 4, 500
	var wg sync.WaitGroup
	errs := make(chan error, writers*each+20)
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				_, _, err := s.Put("stream", fmt.Sprint(w), []byte(fmt.Sprintf("%d/%d", w, i)))
				errs <- err
			}
		})
	}
	for range 10 {
		shards, err := s.Shards("stream")
		require.NoError(t, err)
		_, _, err = s.Split("stream", shards[len(shards)-1].ID)
		require.NoError(t, err)
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
	shards, err := s.Shards("stream")
	require.NoError(t, err)
	next := map[string]int{}
	r := reader{kinesis.NewFromConfig(once(s.AWSConfig())), "stream"}
	for _, sh := range shards { // in order of ids, so parents come first
		it, err := r.iterator(t.Context(), sh.ID, "TRIM_HORIZON", "")
		require.NoError(t, err)
		got, _, err := r.read(t.Context(), it)
		require.NoError(t, err)
		for _, data := range got {
			w, n, _ := strings.Cut(data, "/")
			require.Equal(t, strconv.Itoa(next[w]), n, "writer %s in order", w)
			next[w]++
		}
	}
	for w := range writers {
		require.Equal(t, each, next[fmt.Sprint(w)])
	}
}

func number(t require.TestingT, s string) *big.Int {
	n, ok := new(big.Int).SetString(s, 10)
	require.True(t, ok, "%q is a number", s)
	return n
}

func TestOpenShardsPartitionTheKeySpaceAfterAnyReshards(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := New(Options{})
		defer s.Close()
		k := kinesis.NewFromConfig(once(s.AWSConfig()))
		require.NoError(t, s.CreateStream("stream", rapid.IntRange(1, 5).Draw(t, "shards")))
		for range rapid.IntRange(0, 15).Draw(t, "reshards") {
			open := openShards(t, s)
			i := rapid.IntRange(0, len(open)-1).Draw(t, "shard")
			lo, hi := number(t, open[i].StartHash), number(t, open[i].EndHash)
			switch {
			case i+1 < len(open) && rapid.Bool().Draw(t, "merge"):
				_, err := s.Merge("stream", open[i].ID, open[i+1].ID)
				require.NoError(t, err)
			case lo.Cmp(hi) == 0:
				_, _, err := s.Split("stream", open[i].ID)
				require.Error(t, err, "one hash key cannot be divided")
			case rapid.Bool().Draw(t, "halves"):
				_, _, err := s.Split("stream", open[i].ID)
				require.NoError(t, err)
			default:
				at := new(big.Int).Add(lo, big.NewInt(1))
				if rapid.Bool().Draw(t, "top") {
					at = hi
				}
				_, err := k.SplitShard(t.Context(), &kinesis.SplitShardInput{StreamName: aws.String("stream"), ShardToSplit: &open[i].ID, NewStartingHashKey: aws.String(at.String())})
				require.NoError(t, err)
			}
			requirePartition(t, s)
		}
		key := rapid.String().Draw(t, "key")
		if key == "" {
			return
		}
		id, sequence, err := s.Put("stream", key, []byte("x"))
		require.NoError(t, err)
		for _, sh := range openShards(t, s) {
			h := number(t, hashOf(key).String())
			inside := h.Cmp(number(t, sh.StartHash)) >= 0 && h.Cmp(number(t, sh.EndHash)) <= 0
			require.Equal(t, inside, sh.ID == id)
			require.Greater(t, sequence, sh.StartSequence)
		}
	})
}

// openShards are ordered by their ranges.
func openShards(t require.TestingT, s *Server) []Shard {
	all, err := s.Shards("stream")
	require.NoError(t, err)
	var open []Shard
	for _, sh := range all {
		if !sh.Closed() {
			i := 0
			for i < len(open) && number(t, open[i].StartHash).Cmp(number(t, sh.StartHash)) < 0 {
				i++
			}
			open = append(open[:i], append([]Shard{sh}, open[i:]...)...)
		}
	}
	return open
}

func requirePartition(t require.TestingT, s *Server) {
	next := big.NewInt(0)
	for _, sh := range openShards(t, s) {
		require.Zero(t, next.Cmp(number(t, sh.StartHash)), "a shard starts behind the last")
		next.Add(number(t, sh.EndHash), big.NewInt(1))
	}
	require.Equal(t, 129, next.BitLen(), "the last shard ends at 2^128-1")
	all, err := s.Shards("stream")
	require.NoError(t, err)
	byID := map[string]Shard{}
	for _, sh := range all {
		byID[sh.ID] = sh
		for _, parent := range []string{sh.Parent, sh.Adjacent} {
			if parent != "" {
				require.True(t, byID[parent].Closed())
				require.Greater(t, sh.StartSequence, byID[parent].EndSequence, "a child's sequences follow its parents'")
			}
		}
	}
}

func FuzzIterator(f *testing.F) {
	f.Add(iterator{stream: "s", life: 1, shard: 2, next: 3, issued: time.Unix(4, 5)}.String())
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		it, err := parseIterator(s)
		if err != nil {
			return
		}
		again, err := parseIterator(it.String())
		require.NoError(t, err)
		require.Equal(t, it, again)
	})
}

func BenchmarkGetRecords(b *testing.B) {
	s := New(Options{})
	defer s.Close()
	require.NoError(b, s.CreateStream("stream", 1))
	data := make([]byte, 1024)
	for range 10_000 {
		_, _, err := s.Put("stream", "key", data)
		require.NoError(b, err)
	}
	it := iterator{stream: "stream", life: 1, issued: time.Now()}
	body := []byte(`{"ShardIterator":"` + it.String() + `"}`)
	b.SetBytes(10_000 * 1024)
	b.ReportAllocs()
	r := httptest.NewRequestWithContext(b.Context(), http.MethodPost, "/", nil)
	r.Header.Set("X-Amz-Target", targetKinesis+"GetRecords")
	for b.Loop() {
		a, err := s.answer(r, body)
		if err != nil || a.status != 200 || a.size < 10_000*1024 {
			b.Fatal(a.status, err)
		}
	}
}

func BenchmarkPut(b *testing.B) {
	s := New(Options{})
	defer s.Close()
	require.NoError(b, s.CreateStream("stream", 4))
	data := make([]byte, 1024)
	b.SetBytes(1024)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := s.Put("stream", "key", data); err != nil {
			b.Fatal(err)
		}
	}
}
