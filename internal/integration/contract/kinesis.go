package contract

import (
	"cmp"
	"context"
	"crypto/md5" // Kinesis maps partition keys by it
	"fmt"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/stretchr/testify/require"
)

// Hash keys at the bounds of a stream and in the middle of it, where shard 1 of
// two begins.
const (
	lowestHash  = "0"
	middleHash  = "170141183460469231731687303715884105728"
	highestHash = "340282366920938463463374607431768211455"

	// nearlyHighestHash is in the last shard of targets that put the highest nowhere.
	nearlyHighestHash = "340282366920938463463374607431768211454"
)

func runKinesis(t *testing.T, client *kinesis.Client, deviations Deviations) {
	for name, test := range map[string]func(*testing.T, server){
		"StreamIsDescribedOnceActive":            streamIsDescribedOnceActive,
		"ShardsAreDescribedInPages":              shardsAreDescribedInPages,
		"ShardsAreListedInPages":                 shardsAreListedInPages,
		"MissingStreamIsNotFound":                missingStreamIsNotFound,
		"MissingShardIsNotFound":                 missingShardIsNotFound,
		"RecordsComeAsTheyWerePut":               recordsComeAsTheyWerePut,
		"HashKeyDecidesTheShard":                 hashKeyDecidesTheShard,
		"PagesKeepTheOrderAndTheLimit":           pagesKeepTheOrderAndTheLimit,
		"IteratorReadsTheSamePageAgain":          iteratorReadsTheSamePageAgain,
		"SequenceIteratorsStartAtAndAfter":       sequenceIteratorsStartAtAndAfter,
		"LatestSkipsWhatWasThere":                latestSkipsWhatWasThere,
		"TimestampStartsAtTheFirstArrivalSince":  timestampStartsAtTheFirstArrivalSince,
		"FutureTimestampIsAnInvalidArgument":     futureTimestampIsAnInvalidArgument,
		"ForeignSequenceIsAnInvalidArgument":     foreignSequenceIsAnInvalidArgument,
		"BrokenIteratorIsAnInvalidArgument":      brokenIteratorIsAnInvalidArgument,
		"SplitClosesTheParentAndNamesItsHeirs":   splitClosesTheParentAndNamesItsHeirs,
		"MergeClosesBothParentsAndNamesTheHeir":  mergeClosesBothParentsAndNamesTheHeir,
		"ClosedShardIsReadToItsEndFromAnywhere":  closedShardIsReadToItsEndFromAnywhere,
		"ARNServesWhereverTheNameDoes":           arnServesWhereverTheNameDoes,
		"DeletedStreamIsNotFoundAndMayComeAgain": deletedStreamIsNotFoundAndMayComeAgain,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, server{client, deviations})
		})
	}
}

func streamIsDescribedOnceActive(t *testing.T, s server) {
	ctx, st := s.stream(t, 3)

	summary, err := s.DescribeStreamSummary(ctx, &kinesis.DescribeStreamSummaryInput{StreamName: &st.name})
	require.NoError(t, err)
	got := summary.StreamDescriptionSummary
	require.Equal(t, types.StreamStatusActive, got.StreamStatus)
	require.Equal(t, st.name, *got.StreamName)
	require.Equal(t, st.arn, *got.StreamARN)
	require.EqualValues(t, 3, *got.OpenShardCount)
	require.Regexp(t, `^arn:aws:kinesis:`+Region+`:\d{12}:stream/`+st.name+`$`, st.arn)

	shards := s.shards(ctx, t, st)
	for i, shard := range shards {
		require.Equal(t, fmt.Sprintf("shardId-%012d", i), *shard.ShardId)
		require.Nil(t, shard.ParentShardId)
		require.Nil(t, shard.AdjacentParentShardId)
		require.NotEmpty(t, *shard.SequenceNumberRange.StartingSequenceNumber)
		require.Nil(t, shard.SequenceNumberRange.EndingSequenceNumber)
	}
	requireCover(t, lowestHash, highestHash, ranges(shards))

	_, err = s.CreateStream(ctx, &kinesis.CreateStreamInput{StreamName: &st.name, ShardCount: aws.Int32(1)})
	refused[*types.ResourceInUseException](t, err)
}

func shardsAreDescribedInPages(t *testing.T, s server) {
	ctx, st := s.stream(t, 5)

	var got []types.Shard
	var sizes []int
	in := &kinesis.DescribeStreamInput{StreamName: &st.name, Limit: aws.Int32(2)}
	if s.deviations.ExclusiveStartIgnored {
		in.ExclusiveStartShardId = aws.String(shardID(1))
		page, err := s.DescribeStream(ctx, in)
		require.NoError(t, err)
		require.Equal(t, []string{shardID(0), shardID(1)}, ids(page.StreamDescription.Shards))
		return
	}
	for {
		page, err := s.DescribeStream(ctx, in)
		require.NoError(t, err)
		got = append(got, page.StreamDescription.Shards...)
		sizes = append(sizes, len(page.StreamDescription.Shards))
		if !*page.StreamDescription.HasMoreShards {
			break
		}
		in.ExclusiveStartShardId = got[len(got)-1].ShardId
	}
	require.Equal(t, []int{2, 2, 1}, sizes)
	require.Equal(t, s.shards(ctx, t, st), got)
}

func shardsAreListedInPages(t *testing.T, s server) {
	ctx, st := s.stream(t, 5)

	var got []types.Shard
	var sizes []int
	in := &kinesis.ListShardsInput{StreamName: &st.name, MaxResults: aws.Int32(2)}
	for {
		page, err := s.ListShards(ctx, in)
		require.NoError(t, err)
		got = append(got, page.Shards...)
		sizes = append(sizes, len(page.Shards))
		if page.NextToken == nil {
			break
		}
		alone := &kinesis.ListShardsInput{NextToken: page.NextToken, MaxResults: aws.Int32(2)}
		named := &kinesis.ListShardsInput{NextToken: page.NextToken, MaxResults: aws.Int32(2), StreamName: &st.name}
		if s.deviations.TokenNeedsName {
			_, err = s.ListShards(ctx, alone)
			require.Error(t, err)
			in = named
			continue
		}
		_, err = s.ListShards(ctx, named)
		refused[*types.InvalidArgumentException](t, err)
		in = alone
	}
	require.Equal(t, []int{2, 2, 1}, sizes)
	require.Equal(t, s.shards(ctx, t, st), got)

	after, err := s.ListShards(ctx, &kinesis.ListShardsInput{StreamName: &st.name, ExclusiveStartShardId: got[2].ShardId})
	require.NoError(t, err)
	if s.deviations.ExclusiveStartIgnored {
		require.Equal(t, got, after.Shards)
	} else {
		require.Equal(t, got[3:], after.Shards)
	}
}

func missingStreamIsNotFound(t *testing.T, s server) {
	ctx, name := bounded(t), aws.String(unique())
	for op, call := range map[string]func() error{
		"DescribeStreamSummary": func() error {
			_, err := s.DescribeStreamSummary(ctx, &kinesis.DescribeStreamSummaryInput{StreamName: name})
			return err
		},
		"DescribeStream": func() error {
			_, err := s.DescribeStream(ctx, &kinesis.DescribeStreamInput{StreamName: name})
			return err
		},
		"ListShards": func() error {
			_, err := s.ListShards(ctx, &kinesis.ListShardsInput{StreamName: name})
			return err
		},
		"GetShardIterator": func() error {
			_, err := s.GetShardIterator(ctx, &kinesis.GetShardIteratorInput{
				StreamName: name, ShardId: aws.String("shardId-000000000000"),
				ShardIteratorType: types.ShardIteratorTypeTrimHorizon,
			})
			return err
		},
		"PutRecord": func() error {
			_, err := s.PutRecord(ctx, &kinesis.PutRecordInput{
				StreamName: name, PartitionKey: aws.String("k"), Data: []byte("d"),
			})
			return err
		},
	} {
		t.Run(op, func(t *testing.T) {
			refused[*types.ResourceNotFoundException](t, call())
		})
	}
}

func missingShardIsNotFound(t *testing.T, s server) {
	ctx, st := s.stream(t, 1)
	_, err := s.GetShardIterator(ctx, &kinesis.GetShardIteratorInput{
		StreamName: &st.name, ShardId: aws.String("shardId-000000000009"),
		ShardIteratorType: types.ShardIteratorTypeTrimHorizon,
	})
	refused[*types.ResourceNotFoundException](t, err)
}

func recordsComeAsTheyWerePut(t *testing.T, s server) {
	ctx, st := s.stream(t, 1)
	before := time.Now()
	large := make([]byte, 256<<10)
	for i := range large {
		large[i] = byte(i)
	}
	bodies := [][]byte{[]byte("text"), {0, 0xff, 0x80, '"', '\\', '\n'}, large}
	keys := []string{"key", "clé \"quoted\"", "日本"}
	var sequences []string
	for i, data := range bodies {
		put, err := s.PutRecord(ctx, &kinesis.PutRecordInput{StreamName: &st.name, PartitionKey: &keys[i], Data: data})
		require.NoError(t, err)
		require.Equal(t, "shardId-000000000000", *put.ShardId)
		sequences = append(sequences, *put.SequenceNumber)
	}

	got := s.readToTip(ctx, t, s.oldest(ctx, t, st, "shardId-000000000000"))
	require.Len(t, got, len(bodies))
	for i, record := range got {
		require.Equal(t, bodies[i], record.Data)
		require.Equal(t, keys[i], *record.PartitionKey)
		require.Equal(t, sequences[i], *record.SequenceNumber)
		require.WithinRange(t, *record.ApproximateArrivalTimestamp, before.Add(-time.Second), time.Now().Add(time.Second))
	}
}

func hashKeyDecidesTheShard(t *testing.T, s server) {
	ctx, st := s.stream(t, 2)
	middle, _ := new(big.Int).SetString(middleHash, 10)
	for i := range 8 {
		key := fmt.Sprintf("key-%d", i)
		sum := md5.Sum([]byte(key))
		want := "shardId-000000000000"
		if new(big.Int).SetBytes(sum[:]).Cmp(middle) >= 0 {
			want = "shardId-000000000001"
		}
		put, err := s.PutRecord(ctx, &kinesis.PutRecordInput{StreamName: &st.name, PartitionKey: &key, Data: []byte("d")})
		require.NoError(t, err)
		require.Equal(t, want, *put.ShardId, key)
	}
	require.Equal(t, "shardId-000000000000", s.put(ctx, t, st, lowestHash, "d")[0].shard)
	require.Equal(t, "shardId-000000000001", s.put(ctx, t, st, middleHash, "d")[0].shard)
	require.Equal(t, "shardId-000000000001", s.put(ctx, t, st, nearlyHighestHash, "d")[0].shard)
	if s.deviations.EndingHashKeyNowhere {
		_, err := s.PutRecord(ctx, &kinesis.PutRecordInput{
			StreamName: &st.name, PartitionKey: aws.String("k"), ExplicitHashKey: aws.String(highestHash), Data: []byte("d"),
		}, once)
		require.Error(t, err)
		return
	}
	require.Equal(t, "shardId-000000000001", s.put(ctx, t, st, highestHash, "d")[0].shard)
}

func pagesKeepTheOrderAndTheLimit(t *testing.T, s server) {
	ctx, st := s.stream(t, 1)
	var bodies []string
	for i := range 250 {
		bodies = append(bodies, fmt.Sprintf("body-%d", i))
	}
	want := s.put(ctx, t, st, lowestHash, bodies...)

	iterator := s.oldest(ctx, t, st, "shardId-000000000000")
	var got []position
	var sizes []int
	for len(got) < len(want) {
		page, err := s.GetRecords(ctx, &kinesis.GetRecordsInput{ShardIterator: iterator, Limit: aws.Int32(100)})
		require.NoError(t, err)
		for _, r := range page.Records {
			require.Equal(t, bodies[len(got)], string(r.Data))
			got = append(got, position{"shardId-000000000000", *r.SequenceNumber})
		}
		sizes = append(sizes, len(page.Records))
		require.Empty(t, page.ChildShards)
		iterator = page.NextShardIterator
	}
	require.Equal(t, want, got)
	require.Equal(t, []int{100, 100, 50}, sizes)
	require.True(t, slices.IsSortedFunc(got, func(a, b position) int { return compareSequences(a.sequence, b.sequence) }))

	tip, err := s.GetRecords(ctx, &kinesis.GetRecordsInput{ShardIterator: iterator})
	require.NoError(t, err)
	require.Empty(t, tip.Records)
	require.Zero(t, *tip.MillisBehindLatest)
	require.NotNil(t, tip.NextShardIterator, "an open shard goes on")
}

func iteratorReadsTheSamePageAgain(t *testing.T, s server) {
	ctx, st := s.stream(t, 1)
	put := s.put(ctx, t, st, lowestHash, "a", "b")
	iterator := s.oldest(ctx, t, st, put[0].shard)
	for range 2 { // what a retry after a lost answer does
		page, err := s.GetRecords(ctx, &kinesis.GetRecordsInput{ShardIterator: iterator, Limit: aws.Int32(1)})
		require.NoError(t, err)
		require.Equal(t, []string{"a"}, data(page.Records))
	}
}

func sequenceIteratorsStartAtAndAfter(t *testing.T, s server) {
	ctx, st := s.stream(t, 1)
	put := s.put(ctx, t, st, lowestHash, "a", "b", "c", "d")
	for _, c := range []struct {
		kind types.ShardIteratorType
		from int
		want []string
	}{
		{types.ShardIteratorTypeAtSequenceNumber, 0, []string{"a", "b", "c", "d"}},
		{types.ShardIteratorTypeAtSequenceNumber, 2, []string{"c", "d"}},
		{types.ShardIteratorTypeAfterSequenceNumber, 0, []string{"b", "c", "d"}},
		{types.ShardIteratorTypeAfterSequenceNumber, 2, []string{"d"}},
		{types.ShardIteratorTypeAfterSequenceNumber, 3, nil},
	} {
		iterator := s.iterator(ctx, t, st, put[0].shard, c.kind, put[c.from].sequence)
		require.Equal(t, c.want, data(s.readToTip(ctx, t, iterator)), "%s %d", c.kind, c.from)
	}

	// An iterator after the last record goes on with the next one.
	iterator := s.iterator(ctx, t, st, put[0].shard, types.ShardIteratorTypeAfterSequenceNumber, put[3].sequence)
	s.put(ctx, t, st, lowestHash, "e")
	require.Equal(t, []string{"e"}, data(s.readToTip(ctx, t, iterator)))
}

func latestSkipsWhatWasThere(t *testing.T, s server) {
	ctx, st := s.stream(t, 1)
	shard := s.put(ctx, t, st, lowestHash, "before")[0].shard
	iterator := s.iterator(ctx, t, st, shard, types.ShardIteratorTypeLatest, "")
	s.put(ctx, t, st, lowestHash, "after", "last")
	require.Equal(t, []string{"after", "last"}, data(s.readToTip(ctx, t, iterator)))
}

func timestampStartsAtTheFirstArrivalSince(t *testing.T, s server) {
	ctx, st := s.stream(t, 1)
	// Arrival times have milliseconds: put until three records differ in it.
	var records []types.Record
	await(ctx, t, "three records arrived at different times", func() bool {
		shard := s.put(ctx, t, st, lowestHash, "d")[0].shard
		records = s.readToTip(ctx, t, s.oldest(ctx, t, st, shard))
		return arrivals(records) >= 3
	})

	check := func(from time.Time) {
		out, err := s.GetShardIterator(ctx, &kinesis.GetShardIteratorInput{
			StreamName: &st.name, ShardId: aws.String("shardId-000000000000"),
			ShardIteratorType: types.ShardIteratorTypeAtTimestamp, Timestamp: &from,
		})
		require.NoError(t, err)
		i := slices.IndexFunc(records, func(r types.Record) bool { return !r.ApproximateArrivalTimestamp.Before(from) })
		got := s.readToTip(ctx, t, out.ShardIterator)
		require.NotEmpty(t, got)
		require.Equal(t, *records[i].SequenceNumber, *got[0].SequenceNumber)
		require.Len(t, got, len(records)-i)
	}
	check(records[0].ApproximateArrivalTimestamp.Add(-time.Hour))
	for _, r := range records {
		check(*r.ApproximateArrivalTimestamp)
	}
}

func futureTimestampIsAnInvalidArgument(t *testing.T, s server) {
	ctx, st := s.stream(t, 1)
	_, err := s.GetShardIterator(ctx, &kinesis.GetShardIteratorInput{
		StreamName: &st.name, ShardId: aws.String(shardID(0)),
		ShardIteratorType: types.ShardIteratorTypeAtTimestamp, Timestamp: aws.Time(time.Now().Add(time.Minute)),
	})
	if s.deviations.FutureTimestampTaken {
		require.NoError(t, err)
	} else {
		refused[*types.InvalidArgumentException](t, err)
	}
}

func foreignSequenceIsAnInvalidArgument(t *testing.T, s server) {
	ctx, st := s.stream(t, 2)
	shard := s.put(ctx, t, st, lowestHash, "d")[0].shard
	s.requireForeign(ctx, t, st, shard, "12345")
	s.requireForeign(ctx, t, st, shard, s.put(ctx, t, st, nearlyHighestHash, "d")[0].sequence)
}

func brokenIteratorIsAnInvalidArgument(t *testing.T, s server) {
	_, err := s.GetRecords(bounded(t), &kinesis.GetRecordsInput{ShardIterator: aws.String("AAAAbroken")}, once)
	if s.deviations.BrokenIteratorFails {
		refusedOtherwise[*types.InvalidArgumentException](t, err)
	} else {
		refused[*types.InvalidArgumentException](t, err)
	}
}

func splitClosesTheParentAndNamesItsHeirs(t *testing.T, s server) {
	ctx, st := s.stream(t, 1)
	before := s.put(ctx, t, st, lowestHash, "a", "b")
	s.split(ctx, t, st, "shardId-000000000000")

	shards := s.shards(ctx, t, st)
	require.Equal(t, []string{"shardId-000000000000", "shardId-000000000001", "shardId-000000000002"}, ids(shards))
	for _, child := range shards[1:] {
		require.Equal(t, "shardId-000000000000", *child.ParentShardId)
		require.Nil(t, child.AdjacentParentShardId)
		require.Nil(t, child.SequenceNumberRange.EndingSequenceNumber)
	}
	requireCover(t, lowestHash, highestHash, ranges(shards[1:]))
	s.requireEnd(t, shards[0], before[1].sequence)

	if s.deviations.ReshardingClosesNothing {
		require.Equal(t, shardID(0), s.put(ctx, t, st, lowestHash, "c")[0].shard)
		require.Equal(t, []string{"a", "b", "c"}, data(s.readToTip(ctx, t, s.oldest(ctx, t, st, shardID(0)))))
		return
	}
	after := slices.Concat(s.put(ctx, t, st, lowestHash, "c"), s.put(ctx, t, st, nearlyHighestHash, "d"))
	require.Equal(t, []string{"shardId-000000000001", "shardId-000000000002"}, []string{after[0].shard, after[1].shard})
	for _, p := range after {
		require.Positive(t, compareSequences(p.sequence, before[1].sequence), "a child's sequences follow its parent's")
	}

	records, heirs := s.readToEnd(ctx, t, s.oldest(ctx, t, st, "shardId-000000000000"))
	require.Equal(t, []string{"a", "b"}, data(records))
	require.Len(t, heirs, 2)
	for i, heir := range heirs {
		require.Equal(t, *shards[i+1].ShardId, *heir.ShardId)
		require.Equal(t, []string{"shardId-000000000000"}, heir.ParentShards)
		require.Equal(t, shards[i+1].HashKeyRange, heir.HashKeyRange)
	}
	require.Equal(t, []string{"c"}, data(s.readToTip(ctx, t, s.oldest(ctx, t, st, "shardId-000000000001"))))
	require.Equal(t, []string{"d"}, data(s.readToTip(ctx, t, s.oldest(ctx, t, st, "shardId-000000000002"))))
}

func mergeClosesBothParentsAndNamesTheHeir(t *testing.T, s server) {
	ctx, st := s.stream(t, 2)
	s.put(ctx, t, st, lowestHash, "a")
	s.put(ctx, t, st, nearlyHighestHash, "b")
	_, err := s.MergeShards(ctx, &kinesis.MergeShardsInput{
		StreamName: &st.name, ShardToMerge: aws.String("shardId-000000000000"),
		AdjacentShardToMerge: aws.String("shardId-000000000001"),
	})
	require.NoError(t, err)
	s.active(ctx, t, st)

	shards := s.shards(ctx, t, st)
	require.Equal(t, []string{"shardId-000000000000", "shardId-000000000001", "shardId-000000000002"}, ids(shards))
	require.Equal(t, "shardId-000000000000", *shards[2].ParentShardId)
	require.Equal(t, "shardId-000000000001", *shards[2].AdjacentParentShardId)
	requireCover(t, lowestHash, highestHash, ranges(shards[2:]))

	if s.deviations.ReshardingClosesNothing {
		require.Equal(t, shardID(0), s.put(ctx, t, st, lowestHash, "c")[0].shard)
		return
	}
	require.Equal(t, "shardId-000000000002", s.put(ctx, t, st, lowestHash, "c")[0].shard)
	for shard, want := range map[string]string{"shardId-000000000000": "a", "shardId-000000000001": "b"} {
		records, heirs := s.readToEnd(ctx, t, s.oldest(ctx, t, st, shard))
		require.Equal(t, []string{want}, data(records))
		require.Len(t, heirs, 1)
		require.Equal(t, "shardId-000000000002", *heirs[0].ShardId)
		require.Equal(t, []string{"shardId-000000000000", "shardId-000000000001"}, heirs[0].ParentShards)
		require.Equal(t, lowestHash, *heirs[0].HashKeyRange.StartingHashKey)
		require.Equal(t, highestHash, *heirs[0].HashKeyRange.EndingHashKey)
	}
	require.Equal(t, []string{"c"}, data(s.readToTip(ctx, t, s.oldest(ctx, t, st, "shardId-000000000002"))))
}

func closedShardIsReadToItsEndFromAnywhere(t *testing.T, s server) {
	ctx, st := s.stream(t, 1)
	put := s.put(ctx, t, st, lowestHash, "a", "b")
	s.split(ctx, t, st, put[0].shard)
	if s.deviations.ReshardingClosesNothing {
		require.Equal(t, []string{"a", "b"}, data(s.readToTip(ctx, t, s.oldest(ctx, t, st, put[0].shard))))
		return
	}
	for _, c := range []struct {
		kind types.ShardIteratorType
		from string
		want []string
	}{
		{types.ShardIteratorTypeTrimHorizon, "", []string{"a", "b"}},
		{types.ShardIteratorTypeAtSequenceNumber, put[1].sequence, []string{"b"}},
		{types.ShardIteratorTypeAfterSequenceNumber, put[0].sequence, []string{"b"}},
		{types.ShardIteratorTypeAfterSequenceNumber, put[1].sequence, nil},
		{types.ShardIteratorTypeLatest, "", nil},
	} {
		records, heirs := s.readToEnd(ctx, t, s.iterator(ctx, t, st, put[0].shard, c.kind, c.from))
		require.Equal(t, c.want, data(records), "%s", c.kind)
		require.Len(t, heirs, 2, "%s", c.kind)
	}
}

func arnServesWhereverTheNameDoes(t *testing.T, s server) {
	ctx, st := s.stream(t, 1)
	summary, err := s.DescribeStreamSummary(ctx, &kinesis.DescribeStreamSummaryInput{StreamARN: &st.arn})
	require.NoError(t, err)
	require.Equal(t, st.name, *summary.StreamDescriptionSummary.StreamName)
	described, err := s.DescribeStream(ctx, &kinesis.DescribeStreamInput{StreamARN: &st.arn})
	require.NoError(t, err)
	require.Equal(t, st.name, *described.StreamDescription.StreamName)
	listed, err := s.ListShards(ctx, &kinesis.ListShardsInput{StreamARN: &st.arn})
	require.NoError(t, err)
	require.Equal(t, s.shards(ctx, t, st), listed.Shards)

	_, err = s.PutRecord(ctx, &kinesis.PutRecordInput{StreamARN: &st.arn, PartitionKey: aws.String("k"), Data: []byte("a")})
	require.NoError(t, err)
	iterator, err := s.GetShardIterator(ctx, &kinesis.GetShardIteratorInput{
		StreamARN: &st.arn, ShardId: listed.Shards[0].ShardId, ShardIteratorType: types.ShardIteratorTypeTrimHorizon,
	})
	require.NoError(t, err)
	page, err := s.GetRecords(ctx, &kinesis.GetRecordsInput{StreamARN: &st.arn, ShardIterator: iterator.ShardIterator})
	require.NoError(t, err)
	require.Equal(t, []string{"a"}, data(page.Records))
}

func deletedStreamIsNotFoundAndMayComeAgain(t *testing.T, s server) {
	ctx, st := s.stream(t, 1)
	old := s.put(ctx, t, st, lowestHash, "old")[0]
	s.remove(ctx, t, st)
	if second := time.Now().Unix(); s.deviations.SequencesBySecond {
		await(ctx, t, "the next second has begun", func() bool { return time.Now().Unix() > second })
	}
	s.create(ctx, t, st.name, 1)
	require.Empty(t, s.readToTip(ctx, t, s.oldest(ctx, t, st, old.shard)))
	fresh := s.put(ctx, t, st, lowestHash, "new")[0]
	if s.deviations.SequencesCountFromOne {
		require.Equal(t, old.sequence, fresh.sequence)
	} else {
		require.Positive(t, compareSequences(fresh.sequence, old.sequence), "no sequence number is given twice")
	}
	s.requireForeign(ctx, t, st, old.shard, old.sequence)
}

// once makes a call whose failure is expected a single attempt.
func once(o *kinesis.Options) { o.RetryMaxAttempts = 1 }

// server is the Kinesis under test.
type server struct {
	*kinesis.Client
	deviations Deviations
}

type stream struct{ name, arn string }

// position is where a record stands in its stream.
type position struct{ shard, sequence string }

// stream creates one that the end of the test deletes, and the test's context.
func (s server) stream(t *testing.T, shards int32) (context.Context, stream) {
	t.Helper()
	ctx := bounded(t)
	return ctx, s.create(ctx, t, unique(), shards)
}

// create creates a stream and waits until it is active.
func (s server) create(ctx context.Context, t *testing.T, name string, shards int32) stream {
	t.Helper()
	_, err := s.CreateStream(ctx, &kinesis.CreateStreamInput{StreamName: &name, ShardCount: &shards})
	require.NoError(t, err)
	return stream{name, s.active(ctx, t, stream{name: name})}
}

// active waits until a stream is, and returns its ARN.
func (s server) active(ctx context.Context, t *testing.T, st stream) (arn string) {
	t.Helper()
	await(ctx, t, "the stream is active", func() bool {
		out, err := s.DescribeStreamSummary(ctx, &kinesis.DescribeStreamSummaryInput{StreamName: &st.name})
		require.NoError(t, err)
		arn = *out.StreamDescriptionSummary.StreamARN
		return out.StreamDescriptionSummary.StreamStatus == types.StreamStatusActive
	})
	return arn
}

// remove deletes a stream and waits until it is gone.
func (s server) remove(ctx context.Context, t *testing.T, st stream) {
	t.Helper()
	_, err := s.DeleteStream(ctx, &kinesis.DeleteStreamInput{StreamName: &st.name})
	require.NoError(t, err)
	await(ctx, t, "the stream is gone", func() bool {
		_, err := s.DescribeStreamSummary(ctx, &kinesis.DescribeStreamSummaryInput{StreamName: &st.name})
		if err != nil {
			refused[*types.ResourceNotFoundException](t, err)
		}
		return err != nil
	})
}

// shards lists the shards of a stream that has few.
func (s server) shards(ctx context.Context, t *testing.T, st stream) []types.Shard {
	t.Helper()
	out, err := s.ListShards(ctx, &kinesis.ListShardsInput{StreamName: &st.name})
	require.NoError(t, err)
	require.Nil(t, out.NextToken)
	return out.Shards
}

// split splits the only open shard of a stream in its middle.
func (s server) split(ctx context.Context, t *testing.T, st stream, shard string) {
	t.Helper()
	_, err := s.SplitShard(ctx, &kinesis.SplitShardInput{
		StreamName: &st.name, ShardToSplit: &shard, NewStartingHashKey: aws.String(middleHash),
	})
	require.NoError(t, err)
	s.active(ctx, t, st)
}

// put puts records in one call under an explicit hash key, and returns where
// each is.
func (s server) put(ctx context.Context, t *testing.T, st stream, hash string, bodies ...string) []position {
	t.Helper()
	in := &kinesis.PutRecordsInput{StreamName: &st.name}
	for _, body := range bodies {
		in.Records = append(in.Records, types.PutRecordsRequestEntry{
			Data: []byte(body), PartitionKey: aws.String("k"), ExplicitHashKey: &hash,
		})
	}
	out, err := s.PutRecords(ctx, in)
	require.NoError(t, err)
	require.Zero(t, *out.FailedRecordCount)
	require.Len(t, out.Records, len(bodies))
	at := make([]position, len(bodies))
	for i, r := range out.Records {
		at[i] = position{*r.ShardId, *r.SequenceNumber}
	}
	return at
}

func (s server) oldest(ctx context.Context, t *testing.T, st stream, shard string) *string {
	t.Helper()
	return s.iterator(ctx, t, st, shard, types.ShardIteratorTypeTrimHorizon, "")
}

// iterator returns one of a kind; from is empty for those that need no sequence
// number.
func (s server) iterator(
	ctx context.Context, t *testing.T, st stream, shard string, kind types.ShardIteratorType, from string,
) *string {
	t.Helper()
	in := &kinesis.GetShardIteratorInput{StreamName: &st.name, ShardId: &shard, ShardIteratorType: kind}
	if from != "" {
		in.StartingSequenceNumber = &from
	}
	out, err := s.GetShardIterator(ctx, in)
	require.NoError(t, err)
	return out.ShardIterator
}

// readToTip reads an open shard until it is no longer behind.
func (s server) readToTip(ctx context.Context, t *testing.T, iterator *string) (records []types.Record) {
	t.Helper()
	await(ctx, t, "the shard is read to its tip", func() bool {
		page, err := s.GetRecords(ctx, &kinesis.GetRecordsInput{ShardIterator: iterator})
		require.NoError(t, err)
		require.NotNil(t, page.NextShardIterator, "the shard is open")
		records, iterator = append(records, page.Records...), page.NextShardIterator
		return *page.MillisBehindLatest == 0
	})
	return records
}

// readToEnd reads a closed shard until it has no next iterator, and returns its
// children.
func (s server) readToEnd(
	ctx context.Context, t *testing.T, iterator *string,
) (records []types.Record, heirs []types.ChildShard) {
	t.Helper()
	await(ctx, t, "the shard is read to its end", func() bool {
		page, err := s.GetRecords(ctx, &kinesis.GetRecordsInput{ShardIterator: iterator})
		require.NoError(t, err)
		records, iterator = append(records, page.Records...), page.NextShardIterator
		heirs = page.ChildShards
		if iterator != nil {
			require.Empty(t, heirs, "children are named by the last page alone")
		}
		return iterator == nil
	})
	slices.SortFunc(heirs, func(a, b types.ChildShard) int { return cmp.Compare(*a.ShardId, *b.ShardId) })
	return records, heirs
}

// requireForeign requires that a shard refuses to start at a sequence number, or
// after it.
func (s server) requireForeign(ctx context.Context, t *testing.T, st stream, shard, sequence string) {
	t.Helper()
	for _, kind := range []types.ShardIteratorType{
		types.ShardIteratorTypeAtSequenceNumber, types.ShardIteratorTypeAfterSequenceNumber,
	} {
		_, err := s.GetShardIterator(ctx, &kinesis.GetShardIteratorInput{
			StreamName: &st.name, ShardId: &shard, ShardIteratorType: kind, StartingSequenceNumber: &sequence,
		})
		switch {
		case s.deviations.SequencesCountFromOne:
			require.NoError(t, err)
		case s.deviations.ForeignSequenceNotFound:
			refused[*types.ResourceNotFoundException](t, err)
		default:
			refused[*types.InvalidArgumentException](t, err)
		}
	}
}

// requireEnd requires that a closed shard ends at its last record or after it.
func (s server) requireEnd(t *testing.T, shard types.Shard, last string) {
	t.Helper()
	end := shard.SequenceNumberRange.EndingSequenceNumber
	require.NotNil(t, end)
	if s.deviations.EarlyEndingSequence {
		require.Negative(t, compareSequences(*end, last))
	} else {
		require.GreaterOrEqual(t, compareSequences(*end, last), 0)
	}
}

// requireCover requires that the hash key ranges of shards lie side by side from
// low to high.
func requireCover(t *testing.T, low, high string, ranges []types.HashKeyRange) {
	t.Helper()
	next, _ := new(big.Int).SetString(low, 10)
	for _, r := range ranges {
		require.Equal(t, next.String(), *r.StartingHashKey)
		end, ok := new(big.Int).SetString(*r.EndingHashKey, 10)
		require.True(t, ok)
		next = end.Add(end, big.NewInt(1))
	}
	require.Equal(t, high, next.Sub(next, big.NewInt(1)).String())
}

// compareSequences compares sequence numbers, which are decimal numbers without
// leading zeros.
func compareSequences(a, b string) int {
	return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
}

func data(records []types.Record) (bodies []string) {
	for _, r := range records {
		bodies = append(bodies, string(r.Data))
	}
	return bodies
}

func ids(shards []types.Shard) (ids []string) {
	for _, shard := range shards {
		ids = append(ids, *shard.ShardId)
	}
	return ids
}

func ranges(shards []types.Shard) (ranges []types.HashKeyRange) {
	for _, shard := range shards {
		ranges = append(ranges, *shard.HashKeyRange)
	}
	return ranges
}

// arrivals counts the different arrival times of records.
func arrivals(records []types.Record) int {
	times := map[time.Time]bool{}
	for _, r := range records {
		times[*r.ApproximateArrivalTimestamp] = true
	}
	return len(times)
}
