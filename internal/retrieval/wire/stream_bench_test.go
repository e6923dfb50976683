package wire

import (
	"bytes"
	"fmt"
	"io"
	"testing"

	"github.com/aws/smithy-go/eventstream"
	"github.com/stretchr/testify/require"
)

// eventOf returns a frame of an event with so many records of 1 KB.
func eventOf(tb testing.TB, records int) []byte {
	tb.Helper()
	sizes := make([]int, records)
	for i := range sizes {
		sizes[i] = 1 << 10
	}
	payload := bytes.Replace(bodyOf(sizes), []byte("NextShardIterator"), []byte("ContinuationSequenceNumber"), 1)
	return encoded(tb, payload, eventstream.MessageTypeHeader, "event", eventstream.EventTypeHeader, "SubscribeToShardEvent", eventstream.ContentTypeHeader, "application/x-amz-json-1.1")
}

func encoded(tb testing.TB, payload []byte, headers ...string) []byte {
	tb.Helper()
	m := eventstream.Message{Payload: payload}
	for i := 0; i < len(headers); i += 2 {
		m.Headers = append(m.Headers, eventstream.Header{Name: headers[i], Value: eventstream.StringValue(headers[i+1])})
	}
	var frame bytes.Buffer
	require.NoError(tb, eventstream.NewEncoder().Encode(&frame, m))
	return frame.Bytes()
}

// repeated is one frame again and again.
type repeated struct {
	frame []byte
	at    int
}

func (r *repeated) Read(p []byte) (int, error) {
	n := copy(p, r.frame[r.at:])
	r.at = (r.at + n) % len(r.frame)
	return n, nil
}

func (r *repeated) Close() error { return nil }

// BenchmarkStream takes frames of some records, of which there is one where a shard is fed
// steadily.
func BenchmarkStream(b *testing.B) {
	for _, records := range []int{1, 10, 500} {
		b.Run(fmt.Sprintf("records=%d", records), func(b *testing.B) {
			s := NewStream(&repeated{frame: eventOf(b, records)})
			measure(b, records, "record", func() error {
				event, err := s.Next()
				if err == nil && len(event.Records) != records {
					err = io.ErrShortBuffer
				}
				return err
			})
		})
	}
}
