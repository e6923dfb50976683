package wire

import (
	"bytes"
	"testing"

	"github.com/aws/smithy-go/eventstream"
	"github.com/stretchr/testify/require"
)

const eventType = "SubscribeToShardEvent"

func TestPayloadOfAnEventIsFoundInItsFrame(t *testing.T) {
	frame := encoded(t, []byte("{}"), eventstream.MessageTypeHeader, "event", eventstream.EventTypeHeader, eventType, ":other", "")
	payload, ok := eventPayload(frame)
	require.True(t, ok)
	require.Equal(t, "{}", string(payload))
}

func TestUnusualFrameIsLeftToTheSDK(t *testing.T) {
	odd := eventstream.Message{Payload: []byte("{}"), Headers: eventstream.Headers{
		{Name: eventstream.MessageTypeHeader, Value: eventstream.StringValue("event")},
		{Name: eventstream.EventTypeHeader, Value: eventstream.StringValue(eventType)},
		{Name: ":time", Value: eventstream.Int32Value(1)},
	}}
	var number bytes.Buffer
	require.NoError(t, eventstream.NewEncoder().Encode(&number, odd))
	corrupt := encoded(t, []byte("{}"), eventstream.MessageTypeHeader, "event", eventstream.EventTypeHeader, eventType)
	corrupt[len(corrupt)-5] ^= 1
	for name, frame := range map[string][]byte{
		"exception":       encoded(t, []byte("{}"), eventstream.MessageTypeHeader, "exception", eventstream.ExceptionTypeHeader, "X"),
		"another event":   encoded(t, []byte("{}"), eventstream.MessageTypeHeader, "event", eventstream.EventTypeHeader, "initial-response"),
		"no headers":      encoded(t, []byte("{}")),
		"no type":         encoded(t, []byte("{}"), eventstream.MessageTypeHeader, "event"),
		"a type twice":    encoded(t, []byte("{}"), eventstream.MessageTypeHeader, "event", eventstream.EventTypeHeader, eventType, eventstream.EventTypeHeader, eventType),
		"another kind":    number.Bytes(),
		"a wrong sum":     corrupt,
		"nothing in it":   nil,
		"only a prelude":  make([]byte, preludeBytes),
		"headers too far": append(append(make([]byte, 4), 0xff, 0xff, 0xff, 0xff), make([]byte, 8)...),
	} {
		_, ok := eventPayload(frame)
		require.False(t, ok, name)
	}
}

// FuzzEventPayload holds what is found to what the SDK finds.
func FuzzEventPayload(f *testing.F) {
	f.Add([]byte("{}"), []byte(":message-type"), []byte("event"))
	f.Fuzz(func(t *testing.T, payload, name, value []byte) {
		if len(name) == 0 || len(name) > 255 || len(value) > 1<<15 {
			return // no header is like that
		}
		frame := encoded(t, payload, string(name), string(value), eventstream.EventTypeHeader, eventType)
		m, err := eventstream.NewDecoder().Decode(bytes.NewReader(frame), nil)
		require.NoError(t, err)
		if got, ok := eventPayload(frame); ok {
			require.Equal(t, string(m.Payload), string(got))
			require.Equal(t, "event", m.Headers.Get(eventstream.MessageTypeHeader).String())
			require.Equal(t, eventType, m.Headers.Get(eventstream.EventTypeHeader).String())
		}
	})
}

func FuzzEventPayloadOfAnyBytes(f *testing.F) {
	f.Add(encoded(f, []byte("{}"), eventstream.MessageTypeHeader, "event", eventstream.EventTypeHeader, eventType))
	f.Fuzz(func(t *testing.T, frame []byte) {
		got, ok := eventPayload(frame)
		if !ok || len(frame) < preludeBytes {
			return
		}
		m, err := eventstream.NewDecoder().Decode(bytes.NewReader(frame), nil)
		if err != nil {
			return // for its prelude, which is checked before
		}
		require.Equal(t, string(m.Payload), string(got))
	})
}
