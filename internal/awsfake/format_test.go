package awsfake

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/fxamacker/cbor/v2"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/benthos-plugins/aws-kinesis/internal/retrieval/wire"
)

// everyFormat are clients of each format, and the fault that gives them their answers.
var everyFormat = map[string]struct {
	install func(*kinesis.Options)
	answers Format
}{
	"JSON":                        {func(*kinesis.Options) {}, ""},
	"CBOR":                        {wire.InstallCBOR, ""},
	"CBOR answered in JSON":       {wire.InstallCBOR, FormatJSON},
	"CBOR answered in parts":      {wire.InstallCBOR, FormatCBORInParts},
	"JSON answered in CBOR":       {wire.Install, FormatCBOR},
	"JSON answered in parts":      {wire.Install, FormatCBORInParts},
	"CBOR that is set explicitly": {wire.InstallCBOR, FormatCBOR},
}

func TestPagesAreTheSameInEachFormat(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := newServer(t, Options{})
		require.NoError(t, s.CreateStream("stream", 1))
		n := rapid.IntRange(0, 25).Draw(rt, "records")
		for i := range n {
			key := rapid.OneOf(rapid.SampledFrom([]string{"key", `"`, `\`, `","ApproximateArrivalTimestamp":`, "ü\x01\u2028<"}), rapid.StringN(1, 100, -1)).Draw(rt, "key")
			if i == 3 {
				key = "" // without one
			}
			_, _, err := s.Put("stream", key, rapid.SliceOfN(rapid.Byte(), 0, 3000).Draw(rt, "data"))
			require.NoError(t, err)
		}
		clients := map[string]*kinesis.Client{}
		for name, f := range everyFormat {
			clients[name] = kinesis.NewFromConfig(s.AWSConfig(), f.install)
		}
		it, err := reader{s.Kinesis(), "stream"}.iterator(t.Context(), shardID(0), types.ShardIteratorTypeTrimHorizon, "")
		require.NoError(t, err)
		if rapid.Bool().Draw(rt, "all before") { // then later pages are parts of what was encoded
			_, err := clients["CBOR"].GetRecords(t.Context(), &kinesis.GetRecordsInput{ShardIterator: it})
			require.NoError(t, err)
		}
		for it != nil {
			in := &kinesis.GetRecordsInput{ShardIterator: it, Limit: aws.Int32(int32(rapid.IntRange(1, 20).Draw(rt, "limit")))}
			want, err := clients["JSON"].GetRecords(t.Context(), in)
			require.NoError(t, err)
			for name, f := range everyFormat {
				remove := s.Inject(Fault{Format: f.answers})
				got, err := clients[name].GetRecords(t.Context(), in)
				remove()
				require.NoError(t, err, name)
				require.Equal(t, want.Records, got.Records, name)
				require.Equal(t, want.ChildShards, got.ChildShards, name)
				require.Equal(t, *want.MillisBehindLatest == 0, *got.MillisBehindLatest == 0, name)
				require.Equal(t, want.NextShardIterator == nil, got.NextShardIterator == nil, name)
			}
			it = want.NextShardIterator
			if *want.MillisBehindLatest == 0 && it != nil {
				_, _, err := s.Split("stream", shardID(0))
				require.NoError(t, err)
			}
		}
	})
}

func TestRefusalsAreTheSameInEachFormat(t *testing.T) {
	for name, f := range everyFormat {
		s := newServer(t, Options{})
		s.Inject(Fault{Format: f.answers})
		k := kinesis.NewFromConfig(once(s.AWSConfig()), f.install)
		_, err := k.GetRecords(t.Context(), &kinesis.GetRecordsInput{ShardIterator: aws.String("AAAA")})
		requireCode(t, CodeInvalidArgument, err)
		require.ErrorContains(t, err, "Invalid ShardIterator", name)
		_, err = k.DescribeStreamSummary(t.Context(), &kinesis.DescribeStreamSummaryInput{StreamName: aws.String("ü")})
		requireCode(t, CodeResourceNotFound, err)
		require.ErrorContains(t, err, "Stream ü under account")
	}
}

// post sends a request as it is.
func post(t *testing.T, s *Server, operation, content string, body []byte) (status int, answered string, answer []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://awsfake.invalid/", bytes.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("X-Amz-Target", targetKinesis+operation)
	req.Header.Set("Content-Type", content)
	resp, err := s.HTTPClient().Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	answer, err = io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, resp.Header.Get("Content-Type"), answer
}

func TestCBORIsWrittenAsTheServiceWritesIt(t *testing.T) {
	s := newServer(t, Options{})
	require.NoError(t, s.CreateStream("stream", 1))
	_, sequence, err := s.Put("stream", "key", []byte("data"))
	require.NoError(t, err)
	records, err := s.Records("stream", shardID(0))
	require.NoError(t, err)
	encode := func(v any) []byte {
		b, err := cbor.Marshal(v)
		require.NoError(t, err)
		return b
	}
	millis := records[0].Arrival.UnixMilli()

	// A time in a request is of milliseconds too.
	type fields = map[string]any
	status, answered, answer := post(t, s, "GetShardIterator", contentCBOR, encode(fields{
		"StreamName": "stream", "ShardId": shardID(0), "ShardIteratorType": "AT_TIMESTAMP", "Timestamp": cbor.Tag{Number: 1, Content: millis},
	}))
	require.Equal(t, 200, status, "%q", answer)
	require.Equal(t, contentCBOR, answered)
	var it struct{ ShardIterator string }
	require.NoError(t, cbor.Unmarshal(answer, &it))

	_, _, answer = post(t, s, "GetRecords", contentCBOR, encode(fields{"ShardIterator": it.ShardIterator}))
	var page struct{ Records []map[string]cbor.RawMessage }
	require.NoError(t, cbor.Unmarshal(answer, &page))
	require.Equal(t, []map[string]cbor.RawMessage{{
		"Data": encode([]byte("data")), "PartitionKey": encode("key"), "SequenceNumber": encode(sequence),
		"ApproximateArrivalTimestamp": encode(cbor.Tag{Number: 1, Content: millis}),
	}}, page.Records)

	s.Inject(Fault{Format: FormatCBORInParts})
	_, _, answer = post(t, s, "GetRecords", contentCBOR, encode(fields{"ShardIterator": it.ShardIterator}))
	require.NoError(t, cbor.Wellformed(answer))
	require.Contains(t, string(answer), "\x7f\x62Da\x62ta\xff\x5f\x42da\x42ta\xff")

	for _, body := range []string{"\xa1", `{"StreamName":"stream"}`, "\xa1\x6aStreamName\xc2\x41a"} {
		status, _, _ = post(t, s, "DescribeStream", contentCBOR, []byte(body))
		require.Equal(t, 400, status)
	}
	require.Equal(t, 3, s.Refused("DescribeStream", "SerializationException"))
}

func TestDynamoDBKeepsItsFormat(t *testing.T) {
	s := newServer(t, Options{})
	s.Inject(Fault{Format: FormatCBOR})
	require.NoError(t, s.CreateTable("table", "key", ""))
	out, err := s.DynamoDB().DescribeTable(t.Context(), &dynamodb.DescribeTableInput{TableName: aws.String("table")})
	require.NoError(t, err)
	require.Equal(t, "table", *out.Table.TableName)
}

func BenchmarkGetRecordsInCBOR(b *testing.B) {
	s := New(Options{})
	defer s.Close()
	require.NoError(b, s.CreateStream("stream", 1))
	data := make([]byte, 1024)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	for range 10_000 {
		_, _, err := s.Put("stream", "key", data)
		require.NoError(b, err)
	}
	body := []byte(fmt.Sprintf(`{"ShardIterator":"%s"}`, iterator{stream: "stream", life: 1, issued: time.Now()}.String()))
	st, err := s.kinesis.find(streamRef{StreamName: "stream"})
	require.NoError(b, err)
	for _, first := range []bool{true, false} {
		b.Run(strings.TrimSuffix(fmt.Sprintf("first=%t", first), "=false"), func(b *testing.B) {
			b.SetBytes(10_000 * 1024)
			b.ReportAllocs()
			for b.Loop() {
				if first {
					for _, r := range st.shards[0].records {
						r.chunk.cbor = cborChunk{}
					}
				}
				parts, err := s.kinesis.getRecords(FormatCBOR, body)
				if err != nil || len(parts) < 2 {
					b.Fatal(len(parts), err)
				}
			}
		})
	}
}
