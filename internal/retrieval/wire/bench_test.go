package wire

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/stretchr/testify/require"
)

// measure runs f and reports the processor time of the whole process, garbage
// collection included, for each of n things that f does at once. Unlike the time
// on the wall it says the same on a busy machine.
func measure(b *testing.B, n int, unit string, f func() error) {
	b.Helper()
	require.NoError(b, f())
	runtime.GC()
	b.ReportAllocs()
	begin := processorTime(b)
	for b.Loop() {
		if err := f(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(processorTime(b)-begin)/float64(b.N*n), "cpu-ns/"+unit)
}

func processorTime(b *testing.B) int64 {
	b.Helper()
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return u.Utime.Nano() + u.Stime.Nano()
}

// BenchmarkDecode takes pages of half a megabyte and more through both protocols,
// from the response to the records. Bytes are those of the payloads.
func BenchmarkDecode(b *testing.B) {
	for _, size := range []int{100, 1_000, 10_000, 1_000_000} {
		sizes := make([]int, min(5_000, 1_000_000/size))
		for i := range sizes {
			sizes[i] = size
		}
		inJSON := bodyOf(sizes)
		inCBOR := cborOf(b, inJSON)
		for _, c := range []struct {
			name     string
			protocol smithyhttp.ClientProtocol
			body     []byte
		}{{"sdk", sdk, inJSON}, {"wire", ours, inJSON}, {"cbor", oursInCBOR, inCBOR}} {
			b.Run(fmt.Sprintf("record=%d/%s", size, c.name), func(b *testing.B) {
				b.SetBytes(int64(len(sizes) * size))
				measure(b, len(sizes), "record", func() error {
					_, err := paged(c.protocol, bytes.NewReader(c.body), int64(len(c.body)))
					return err
				})
				b.ReportMetric(float64(len(c.body))/float64(len(sizes)), "wire-B/record")
			})
		}
	}
}

// cborOf is a page in JSON once more in CBOR.
func cborOf(b testing.TB, inJSON []byte) []byte {
	b.Helper()
	page, err := theSDKs(string(inJSON))
	require.NoError(b, err)
	records := []any{}
	for _, r := range page.Records {
		records = append(records, fields{
			"Data": r.Data, "PartitionKey": *r.PartitionKey, "SequenceNumber": *r.SequenceNumber,
			"ApproximateArrivalTimestamp": tagged(epochTag, r.ApproximateArrivalTimestamp.UnixMilli()),
		})
	}
	return written(b, fields{"Records": records, "NextShardIterator": *page.NextShardIterator, "MillisBehindLatest": 0})
}

// still answers every call with an empty page, and costs no network.
type still struct {
	page    []byte
	content string
}

func (s still) Do(r *http.Request) (*http.Response, error) {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return nil, err
	}
	return &http.Response{
		StatusCode: 200, ProtoMajor: 1, ProtoMinor: 1,
		Header:        http.Header{"Content-Type": {s.content}, "X-Amzn-Requestid": {"id"}},
		Body:          io.NopCloser(bytes.NewReader(s.page)),
		ContentLength: int64(len(s.page)),
	}, nil
}

// BenchmarkIdlePoll asks a shard that has nothing, through the whole client but
// for its transport.
func BenchmarkIdlePoll(b *testing.B) {
	cfg := aws.Config{
		Region:      "us-east-1",
		Credentials: aws.NewCredentialsCache(credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "secret", "")),
		HTTPClient:  still{bodyOf(nil), "application/x-amz-json-1.1"},
	}
	inCBOR := cfg
	inCBOR.HTTPClient = still{cborOf(b, bodyOf(nil)), contentCBOR}
	in := &kinesis.GetRecordsInput{
		ShardIterator: aws.String(strings.Repeat("A", 224)),
		StreamARN:     aws.String("arn:aws:kinesis:us-east-1:123456789012:stream/orders"),
	}
	for _, c := range []struct {
		name   string
		client Client
	}{
		{"sdk", kinesis.NewFromConfig(cfg)},
		{"wire", kinesis.NewFromConfig(cfg, Install)},
		{"direct", NewDirect(kinesis.NewFromConfig(cfg, Install), time.Second, nil)},
		{"cbor", NewDirect(kinesis.NewFromConfig(inCBOR, InstallCBOR), time.Second, nil)},
	} {
		b.Run(c.name, func(b *testing.B) {
			measure(b, 1, "poll", func() error {
				_, err := GetRecords(b.Context(), c.client, in)
				return err
			})
		})
	}
}
