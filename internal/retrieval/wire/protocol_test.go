package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/schemas"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/aws/smithy-go/transport/http/protocol/awsjson"
	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
)

var (
	sdk  = awsjson.New11(schemas.Kinesis_20131202)
	ours = Protocol{ClientProtocol: sdk}
)

// deserialize gives an answer to a protocol.
func deserialize(p smithyhttp.ClientProtocol, body io.Reader, length int64, page *kinesis.GetRecordsOutput) error {
	resp := &smithyhttp.Response{Response: &http.Response{StatusCode: 200, Body: io.NopCloser(body), ContentLength: length}}
	return p.DeserializeResponse(context.Background(), getRecords, kinesis.TypeRegistry, resp, page)
}

// answers is a client to which a call brings these bodies, one an attempt.
type answers struct {
	protocol smithyhttp.ClientProtocol
	bodies   []io.Reader
	length   int64 // the Content-Length of each
}

func (a answers) GetRecords(ctx context.Context, _ *kinesis.GetRecordsInput, _ ...func(*kinesis.Options)) (out *kinesis.GetRecordsOutput, err error) {
	out = new(kinesis.GetRecordsOutput)
	for _, body := range a.bodies {
		resp := &smithyhttp.Response{Response: &http.Response{StatusCode: 200, Body: io.NopCloser(body), ContentLength: a.length}}
		err = a.protocol.DeserializeResponse(ctx, getRecords, kinesis.TypeRegistry, resp, out)
	}
	return out, err
}

// paged is the page that a protocol makes of an answer.
func paged(p smithyhttp.ClientProtocol, body io.Reader, length int64) (*Page, error) {
	return GetRecords(context.Background(), answers{protocol: p, bodies: []io.Reader{body}, length: length}, nil)
}

// theSDKs is what the SDK makes of an answer.
func theSDKs(body string) (page *kinesis.GetRecordsOutput, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &smithy.DeserializationError{Err: fmt.Errorf("the SDK panics at the answer: %v", r)}
		}
	}()
	page = new(kinesis.GetRecordsOutput)
	return page, deserialize(sdk, strings.NewReader(body), int64(len(body)), page)
}

// same holds that an answer is taken, or refused, as the SDK does.
func same(t require.TestingT, body string) {
	want, refused := theSDKs(body)
	var got kinesis.GetRecordsOutput
	err := deserialize(ours, strings.NewReader(body), int64(len(body)), &got)
	require.Equal(t, refused, err, "%v, %v: %.2000s", refused, err, body)
	require.Equal(t, want, &got, "%.2000s", body)
	page, err := paged(ours, strings.NewReader(body), int64(len(body)))
	require.Equal(t, refused, err, "%v, %v: %.2000s", refused, err, body)
	if refused == nil {
		require.Equal(t, pageOf(want), page, "%.2000s", body)
	}
}

func FuzzGetRecords(f *testing.F) {
	for _, body := range knownAnswers {
		f.Add([]byte(body))
	}
	for _, body := range foreignAnswers {
		f.Add([]byte(body))
	}
	for _, body := range fakeAnswers(f) {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body []byte) { same(t, string(body)) })
}

// fakeAnswers are those of a shard with records, without, and at its end.
func fakeAnswers(t testing.TB) [][]byte {
	t.Helper()
	s := awsfake.New(awsfake.Options{})
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	require.NoError(t, s.CreateStream("orders", 1))
	for i := range 3 {
		_, _, err := s.Put("orders", fmt.Sprintf("key %d \"ü\"", i), bytes.Repeat([]byte{byte(i)}, i*40))
		require.NoError(t, err)
	}
	tap := &tap{HTTPClient: s.HTTPClient()}
	client := kinesis.NewFromConfig(s.AWSConfig(), func(o *kinesis.Options) { o.HTTPClient = tap })
	it, err := client.GetShardIterator(t.Context(), &kinesis.GetShardIteratorInput{
		StreamName: aws.String("orders"), ShardId: aws.String("shardId-000000000000"), ShardIteratorType: types.ShardIteratorTypeTrimHorizon,
	})
	require.NoError(t, err)
	next := it.ShardIterator
	for range 3 {
		page, err := client.GetRecords(t.Context(), &kinesis.GetRecordsInput{ShardIterator: next, Limit: aws.Int32(2)})
		require.NoError(t, err)
		next = page.NextShardIterator
	}
	_, err = client.SplitShard(t.Context(), &kinesis.SplitShardInput{
		StreamName: aws.String("orders"), ShardToSplit: aws.String("shardId-000000000000"), NewStartingHashKey: aws.String("1000"),
	})
	require.NoError(t, err)
	page, err := client.GetRecords(t.Context(), &kinesis.GetRecordsInput{ShardIterator: next})
	require.NoError(t, err)
	require.Len(t, page.ChildShards, 2)
	return tap.bodies[1:]
}

// tap keeps the bodies that pass.
type tap struct {
	aws.HTTPClient
	bodies [][]byte
}

func (c *tap) Do(r *http.Request) (*http.Response, error) {
	resp, err := c.HTTPClient.Do(r)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(resp.Body)
	c.bodies = append(c.bodies, body)
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, err
}

func TestClientGivesTheSamePagesAndErrors(t *testing.T) {
	for _, body := range fakeAnswers(t) {
		same(t, string(body))
	}
	s := awsfake.New(awsfake.Options{})
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	client := kinesis.NewFromConfig(s.AWSConfig(), Install)
	_, err := client.GetRecords(t.Context(), &kinesis.GetRecordsInput{ShardIterator: aws.String("AAAA")})
	refused, ok := errors.AsType[*types.InvalidArgumentException](err)
	require.True(t, ok)
	require.NotEmpty(t, refused.ErrorMessage())
	require.NoError(t, s.CreateStream("orders", 2))
	list, err := client.ListShards(t.Context(), &kinesis.ListShardsInput{StreamName: aws.String("orders")})
	require.NoError(t, err)
	require.Len(t, list.Shards, 2)
}

func TestBodyThatBreaksFailsAsWithTheSDK(t *testing.T) {
	reset := errors.New("connection reset by peer")
	for _, begin := range []string{``, `{"Records":[`, `{"Records":[]}`} {
		for _, length := range []int64{-1, 0, 5, 1 << 20} {
			body := func() io.Reader { return io.MultiReader(strings.NewReader(begin), iotest.ErrReader(reset)) }
			var page, want kinesis.GetRecordsOutput
			refused := deserialize(sdk, body(), length, &want)
			require.ErrorIs(t, refused, reset)
			require.Equal(t, refused, deserialize(ours, body(), length, &page))
			require.Equal(t, want, page)
		}
	}
}

func TestBodyThatBreaksOffIsRetried(t *testing.T) {
	var page kinesis.GetRecordsOutput
	err := deserialize(ours, io.MultiReader(strings.NewReader(`{}`), iotest.ErrReader(io.ErrUnexpectedEOF)), 9, &page)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	_, ok := errors.AsType[*smithy.DeserializationError](err)
	require.True(t, ok)

	s := awsfake.New(awsfake.Options{})
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	require.NoError(t, s.CreateStream("orders", 1))
	_, _, err = s.Put("orders", "key", make([]byte, 1000))
	require.NoError(t, err)
	client := kinesis.NewFromConfig(s.AWSConfig(), Install)
	it, err := client.GetShardIterator(t.Context(), &kinesis.GetShardIteratorInput{
		StreamName: aws.String("orders"), ShardId: aws.String("shardId-000000000000"), ShardIteratorType: types.ShardIteratorTypeTrimHorizon,
	})
	require.NoError(t, err)
	s.Inject(awsfake.Fault{Operation: "GetRecords", Times: 1, Truncate: true})
	again, err := client.GetRecords(t.Context(), &kinesis.GetRecordsInput{ShardIterator: it.ShardIterator})
	require.NoError(t, err)
	require.Len(t, again.Records, 1)
	require.Equal(t, 2, s.Calls("GetRecords"))
}

func TestContentLengthDoesNotDecideWhatIsRead(t *testing.T) {
	sizes := make([]int, 100)
	for i := range sizes {
		sizes[i] = i * 50
	}
	body := bodyOf(sizes)
	want, err := theSDKs(string(body))
	require.NoError(t, err)
	for _, length := range []int64{-1, 0, 1, int64(len(body)) - 1, int64(len(body)), int64(len(body)) + 1, 2 * int64(len(body)), maxAnswer} {
		for _, reader := range []func(io.Reader) io.Reader{iotest.HalfReader, iotest.DataErrReader} {
			page, err := paged(ours, reader(bytes.NewReader(body)), length)
			require.NoError(t, err)
			require.Equal(t, pageOf(want), page)
		}
	}
}

func TestAnswerAboveTheLimitIsRefused(t *testing.T) {
	var page kinesis.GetRecordsOutput
	err := deserialize(ours, iotest.ErrReader(errors.New("read all the same")), maxAnswer+1, &page)
	require.ErrorContains(t, err, "the answer has 67108865 bytes, above the limit of 67108864")
	_, ok := errors.AsType[*smithy.DeserializationError](err)
	require.True(t, ok)

	endless := &endless{}
	err = deserialize(ours, endless, -1, &page)
	require.ErrorContains(t, err, "the answer exceeds the limit of 67108864 bytes")
	require.LessOrEqual(t, endless.read, 2*maxAnswer)
}

type endless struct{ read int }

func (e *endless) Read(p []byte) (int, error) {
	e.read += len(p)
	return len(p), nil
}

// What the SDK decoded of an answer before it failed must not show in the page
// of the next attempt.
func TestFailedAttemptLeavesNothingForTheNext(t *testing.T) {
	var page kinesis.GetRecordsOutput
	body := `{"NextShardIterator":"stale","Records":[{"Data":1}]}`
	require.Error(t, deserialize(ours, strings.NewReader(body), int64(len(body)), &page))
	require.Equal(t, "stale", *page.NextShardIterator)
	for _, body := range []string{`{"Records":[]}`, `{"Records":[],"New":{}}`} {
		last := page
		require.NoError(t, deserialize(ours, strings.NewReader(body), int64(len(body)), &last))
		require.Nil(t, last.NextShardIterator)
	}
}

func TestPageIsThatOfTheLastAttempt(t *testing.T) {
	decoded, foreign := `{"Records":[],"NextShardIterator":"decoded"}`, `{"Records":[],"NextShardIterator":"\u0041"}`
	for _, c := range []struct{ first, second, next string }{
		{foreign, decoded, "decoded"}, {decoded, foreign, "A"}, {decoded, `{"Records":[]}`, ""},
	} {
		page, err := GetRecords(t.Context(), answers{protocol: ours, bodies: []io.Reader{strings.NewReader(c.first), strings.NewReader(c.second)}, length: -1}, nil)
		require.NoError(t, err)
		require.Equal(t, c.next, page.Next)
	}
}

func TestBodyIsGivenBackToBeClosed(t *testing.T) {
	for _, body := range []string{`{}`, `null`, `[`} {
		r := io.NopCloser(strings.NewReader(body))
		resp := &smithyhttp.Response{Response: &http.Response{StatusCode: 200, Body: r, ContentLength: -1}}
		ctx := context.WithValue(t.Context(), answerKey{}, &answer{})
		_ = ours.DeserializeResponse(ctx, getRecords, kinesis.TypeRegistry, resp, &kinesis.GetRecordsOutput{})
		require.Equal(t, r, resp.Body, "%s", body)
	}
}

func TestBuffersFitAndAreKeptUpToTheLargestPage(t *testing.T) {
	for _, n := range []int{
		1, minBuffer - 1, minBuffer, minBuffer + 1, largeBuffer/2 - 1, largeBuffer / 2, largeBuffer/2 + 1, largeBuffer - 1,
		largeBuffer, largeBuffer + 1, 1 << 20, 1<<20 + 1, 1<<20 + 1<<18, 1<<20 + 1<<18 + 1, keptBuffer - 1, keptBuffer,
	} {
		b := newBuffer(n)
		require.GreaterOrEqual(t, cap(b.b), n)
		require.LessOrEqual(t, cap(b.b), max(minBuffer, 2*n))
		if cap(b.b) < largeBuffer {
			require.Less(t, class(cap(b.b)), len(pools))
			require.Equal(t, class(n), class(cap(b.b)), "it goes back to where it came from")
		} else {
			require.LessOrEqual(t, cap(b.b), max(largeBuffer, n*5/4))
			require.Equal(t, cap(b.b), largeSize(cap(b.b)), "it goes back to where it came from")
		}
		b.release()
		require.Empty(t, b.b)
	}
	require.Equal(t, keptBuffer+1, cap(newBuffer(keptBuffer+1).b))
	require.Equal(t, len(pools), class(largeBuffer))

	s := stock{most: 8 << 20}
	for range 10 {
		s.put(&buffer{make([]byte, 0, 1<<21)})
	}
	require.Equal(t, 8<<20, s.size, "of large ones few are kept")
	require.Nil(t, s.get(1<<20))
	for range 4 {
		require.NotNil(t, s.get(1<<21))
	}
	require.Nil(t, s.get(1<<21))
	require.Zero(t, s.size)
}

func TestBuffersAreKeptOfTheSizeThatPagesHaveNow(t *testing.T) {
	s := stock{most: 8 << 20}
	for range 8 {
		s.put(&buffer{make([]byte, 0, 1<<20)})
	}
	larger := &buffer{make([]byte, 0, 3<<20)}
	s.put(larger)
	require.Equal(t, 8<<20, s.size)
	require.NotNil(t, s.get(1<<20))
	require.Same(t, larger, s.get(3<<20))
	for range 4 {
		require.NotNil(t, s.get(1<<20))
	}
	require.Zero(t, s.size)
	require.Empty(t, s.kept)
}
