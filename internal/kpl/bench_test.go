package kpl_test

import (
	"bytes"
	"crypto/md5"
	"errors"
	"fmt"
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/kpl"
	"github.com/benthos-plugins/aws-kinesis/internal/kpl/kpltest"
)

// BenchmarkDecode takes aggregates of 50 KB, as KPL makes them by default, of user
// records of 100 bytes: by this package, by protobuf as a whole, and only to the digest.
// Bytes are those of the aggregate. Of the time on the wall that of the processor is
// told apart, garbage collection included, which says the same on a busy machine.
func BenchmarkDecode(b *testing.B) {
	for _, keys := range []string{"one", "many"} {
		records := make([]kpl.Record, 480)
		for i := range records {
			records[i] = kpl.Record{Data: bytes.Repeat([]byte{byte(i)}, 100), PartitionKey: "1"}
		}
		if keys == "many" {
			records = records[:350]
			for i := range records {
				records[i].PartitionKey = fmt.Sprintf("%036d", i) // as long as a UUID
			}
		}
		data := kpltest.Encode(records)
		for _, c := range []struct {
			name   string
			decode func([]byte) ([]kpl.Record, error)
		}{{"kpl", kpl.Decode}, {"protobuf", published}, {"md5", digested}} {
			b.Run(fmt.Sprintf("keys=%s/%s", keys, c.name), func(b *testing.B) {
				got, err := c.decode(data)
				require.NoError(b, err)
				if got != nil {
					require.Equal(b, records, got)
				}
				b.SetBytes(int64(len(data)))
				b.ReportAllocs()
				runtime.GC()
				begin := processorTime(b)
				for b.Loop() {
					if _, err := c.decode(data); err != nil {
						b.Fatal(err)
					}
				}
				took := float64(processorTime(b) - begin)
				b.ReportMetric(took/float64(b.N*len(records)), "cpu-ns/record")
				b.ReportMetric(float64(b.N*len(data))/took*1e3, "cpu-MB/s")
			})
		}
	}
}

func processorTime(b *testing.B) int64 {
	b.Helper()
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return u.Utime.Nano() + u.Stime.Nano()
}

func digested(data []byte) ([]kpl.Record, error) {
	sum := md5.Sum(data[4 : len(data)-16])
	if !bytes.Equal(sum[:], data[len(data)-16:]) {
		return nil, errors.New("digest")
	}
	return nil, nil
}

// BenchmarkHashKey places a user record.
func BenchmarkHashKey(b *testing.B) {
	shard, ok := kpl.ParseRange("0", largest)
	require.True(b, ok)
	for _, c := range []struct {
		name   string
		record kpl.Record
	}{
		{"partition", kpl.Record{PartitionKey: fmt.Sprintf("%036d", 7)}},
		{"explicit", kpl.Record{ExplicitHashKey: largest}},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !shard.Contains(c.record.HashKey()) {
					b.Fatal("not in the range of all keys")
				}
			}
		})
	}
}
