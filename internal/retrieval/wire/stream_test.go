package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/schemas"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/eventstream"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// frameOf encodes a frame with headers, which are names and values in turn.
func frameOf(payload string, headers ...string) []byte {
	message := eventstream.Message{Payload: []byte(payload)}
	for i := 0; i < len(headers); i += 2 {
		message.Headers.Set(headers[i], eventstream.StringValue(headers[i+1]))
	}
	var b bytes.Buffer
	if err := eventstream.NewEncoder().Encode(&b, message); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func eventFrame(kind, payload string) []byte {
	return frameOf(payload, ":message-type", "event", ":event-type", kind, ":content-type", "application/json")
}

func exceptionFrame(kind, payload string) []byte {
	return frameOf(payload, ":message-type", "exception", ":exception-type", kind, ":content-type", "application/json")
}

// streamOf is a subscription that brings these frames and ends.
func streamOf(frames ...[]byte) *Stream {
	return NewStream(io.NopCloser(bytes.NewReader(bytes.Join(frames, nil))))
}

// theSDKsEvent is what the SDK makes of a frame.
func theSDKsEvent(frame []byte) (event *types.SubscribeToShardEvent, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the SDK panics at the event: %v", r)
		}
	}()
	decoded, err := sdk.DeserializeEventMessage(schemas.SubscribeToShardEventStream, kinesis.TypeRegistry, bytes.NewReader(frame))
	event, _ = decoded.(*types.SubscribeToShardEvent)
	if err != nil {
		return nil, err
	}
	return event, nil
}

// sameEvent holds that an event is taken, or refused, as the SDK does.
func sameEvent(t require.TestingT, payload string) {
	frame := eventFrame("SubscribeToShardEvent", payload)
	want, refused := theSDKsEvent(frame)
	got, err := streamOf(frame).Next()
	require.Equal(t, refused == nil, err == nil, "%v, %v: %.2000s", refused, err, payload)
	if refused == nil {
		require.Equal(t, pageOfEvent(want), got, "%.2000s", payload)
	}
}

// asEvents are the bodies of pages as events have them.
func asEvents(body string) string {
	return strings.ReplaceAll(body, "NextShardIterator", "ContinuationSequenceNumber")
}

func FuzzEvent(f *testing.F) {
	for _, body := range knownAnswers {
		f.Add([]byte(asEvents(body)))
	}
	for _, body := range foreignAnswers {
		f.Add([]byte(asEvents(body)))
	}
	f.Fuzz(func(t *testing.T, body []byte) { sameEvent(t, string(body)) })
}

func TestEventsOfTheServiceAreDecodedWithoutTheSDK(t *testing.T) {
	for _, body := range knownAnswers {
		body = asEvents(body)
		var event Page
		require.True(t, decodeEvent([]byte(body), &event), "%s", body)
		sameEvent(t, body)
	}
}

func TestEventsOfAnyOtherShapeAreLeftToTheSDK(t *testing.T) {
	for name, body := range foreignAnswers {
		body = asEvents(body)
		var event Page
		require.False(t, decodeEvent([]byte(body), &event), name)
		require.Zero(t, event, "what is not known leaves no trace: %s", name)
		sameEvent(t, body)
	}
}

func TestEventsOwnTheirRecords(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sizes := rapid.SliceOfN(rapid.IntRange(0, 3000), 1, 50)
		first, second := sizes.Draw(t, "first"), sizes.Draw(t, "second")
		frames := [][]byte{
			eventFrame("SubscribeToShardEvent", asEvents(string(bodyOf(first)))),
			eventFrame("SubscribeToShardEvent", asEvents(string(bodyOf(second)))),
		}
		want, err := theSDKsEvent(frames[0])
		require.NoError(t, err)
		s := streamOf(frames...)
		got, err := s.Next()
		require.NoError(t, err)
		_, err = s.Next() // takes the same buffers
		require.NoError(t, err)
		require.Equal(t, pageOfEvent(want), got)
	})
}

func TestFramesWithoutRecordsAreNoEvents(t *testing.T) {
	for name, frame := range map[string][]byte{
		"the initial response": eventFrame("initial-response", "{}"),
		"an unknown event":     eventFrame("ShardWeatherEvent", `{"Weather":"fair"}`),
	} {
		s := streamOf(frame, eventFrame("SubscribeToShardEvent", `{"MillisBehindLatest":7}`))
		event, err := s.Next()
		require.NoError(t, err, name)
		require.Nil(t, event, name)
		event, err = s.Next()
		require.NoError(t, err, name)
		require.EqualValues(t, 7, *event.Behind, name)
	}
}

func TestExceptionsComeAsTheirTypes(t *testing.T) {
	for name, want := range map[string]error{
		"ResourceNotFoundException":   new(types.ResourceNotFoundException),
		"ResourceInUseException":      new(types.ResourceInUseException),
		"KMSDisabledException":        new(types.KMSDisabledException),
		"KMSInvalidStateException":    new(types.KMSInvalidStateException),
		"KMSAccessDeniedException":    new(types.KMSAccessDeniedException),
		"KMSNotFoundException":        new(types.KMSNotFoundException),
		"KMSOptInRequired":            new(types.KMSOptInRequired),
		"KMSThrottlingException":      new(types.KMSThrottlingException),
		"InternalFailureException":    new(types.InternalFailureException),
		"AnExceptionOfAnotherVersion": new(smithy.GenericAPIError),
	} {
		event, err := streamOf(exceptionFrame(name, `{"message":"sorry"}`)).Next()
		require.Nil(t, event, name)
		require.IsType(t, want, err, "%s: %v", name, err) //nolint:testifylint // it is the type, not the chain
		var api smithy.APIError
		require.ErrorAs(t, err, &api, name)
		if name != "AnExceptionOfAnotherVersion" {
			require.Equal(t, "sorry", api.ErrorMessage(), name)
		}
		require.Equal(t, name, api.ErrorCode())
	}
}

func TestErrorFramesAreErrorsWithTheirCode(t *testing.T) {
	_, err := streamOf(frameOf("", ":message-type", "error", ":error-code", "InternalError", ":error-message", "sorry")).Next()
	var api smithy.APIError
	require.ErrorAs(t, err, &api)
	require.Equal(t, "InternalError", api.ErrorCode())
	require.Equal(t, "sorry", api.ErrorMessage())
}

func TestFramesOfNoKnownTypeAreErrors(t *testing.T) {
	for name, frame := range map[string][]byte{
		"without headers":       frameOf("{}"),
		"without an event type": frameOf("{}", ":message-type", "event"),
		"of a foreign type":     frameOf("{}", ":message-type", "greeting"),
	} {
		_, err := streamOf(frame).Next()
		require.Error(t, err, name)
		require.NotErrorIs(t, err, io.EOF, name)
	}
}

func TestOnlyAnEndBetweenFramesIsAnEnd(t *testing.T) {
	first := eventFrame("initial-response", "{}")
	second := eventFrame("SubscribeToShardEvent", `{"Records":[`+record+`]}`)
	for cut := range len(second) + 1 {
		s := streamOf(first, second[:cut])
		_, err := s.Next()
		require.NoError(t, err)
		event, err := s.Next()
		switch cut {
		case 0:
			require.Equal(t, io.EOF, err)
		case len(second):
			require.NoError(t, err)
			require.Len(t, event.Records, 1)
			_, err = s.Await()
			require.Equal(t, io.EOF, err)
		default:
			require.ErrorIs(t, err, io.ErrUnexpectedEOF, "after %d bytes", cut)
			require.NotErrorIs(t, err, io.EOF, "after %d bytes", cut)
		}
	}
}

func TestEveryWrongByteIsAnError(t *testing.T) {
	frame := eventFrame("SubscribeToShardEvent", `{"Records":[`+record+`]}`)
	rapid.Check(t, func(t *rapid.T) {
		broken := bytes.Clone(frame)
		at := rapid.IntRange(0, len(frame)-1).Draw(t, "at")
		broken[at] ^= rapid.ByteRange(1, 255).Draw(t, "by")
		event, err := streamOf(broken, frame).Next()
		require.Error(t, err)
		require.NotErrorIs(t, err, io.EOF, "it is no end")
		require.Nil(t, event)
	})
}

// prelude makes one whose checksum is right.
func prelude(length, headers uint32) []byte {
	b := binary.BigEndian.AppendUint32(nil, length)
	b = binary.BigEndian.AppendUint32(b, headers)
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
}

// sealed appends the checksum of a frame.
func sealed(b []byte) []byte { return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b)) }

func TestLengthsThatNoFrameHasAreRefusedBeforeMemoryIsTaken(t *testing.T) {
	for _, length := range []uint32{0, 1, preludeBytes, preludeBytes + 3, maxFrame + 1, 1 << 31, 1<<32 - 1} {
		s := streamOf(prelude(length, 0), make([]byte, 64))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := s.Next()
		runtime.ReadMemStats(&after)
		require.Error(t, err, length)
		require.NotErrorIs(t, err, io.EOF, length)
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20), length)
	}
}

// A frame whose checksums are right may be wrong all the same.
func TestWrongFrameIsNoEndOfTheStream(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		header := rapid.SampledFrom([]string{"", "\x01a\x07\x00\x01b", "\x0d:message-type\x07\x00\x05event"}).Draw(t, "header")
		body := append([]byte(header), rapid.SliceOfN(rapid.ByteRange(0, 9), 0, 12).Draw(t, "body")...)
		body = body[:rapid.IntRange(0, len(body)).Draw(t, "cut")]
		headers := rapid.OneOf(rapid.Uint32Range(0, 40), rapid.Uint32()).Draw(t, "headers")
		frame := sealed(append(prelude(uint32(len(body)+preludeBytes+4), headers), body...))
		event, err := streamOf(frame).Next()
		require.Error(t, err)
		require.NotErrorIs(t, err, io.EOF)
		require.Nil(t, event)
	})
}

func FuzzFrames(f *testing.F) {
	f.Add(eventFrame("initial-response", "{}"))
	f.Add(append(eventFrame("SubscribeToShardEvent", `{"Records":[`+record+`]}`), exceptionFrame("ResourceInUseException", "{}")...))
	f.Add(sealed(append(prelude(20, 5), "abcd"...)))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := streamOf(b)
		for range len(b) { // each frame takes some of it
			if _, err := s.Next(); err != nil {
				return
			}
		}
		_, err := s.Await()
		require.Equal(t, io.EOF, err)
	})
}

// counted counts the bytes that are read.
type counted struct {
	io.Reader
	n      int
	closed int
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += n
	return n, err
}

func (c *counted) Close() error { c.closed++; return nil }

func TestNothingOfAFrameIsReadBeforeItIsAskedForButTheReadAhead(t *testing.T) {
	large := eventFrame("SubscribeToShardEvent", asEvents(string(bodyOf([]int{1 << 20}))))
	body := &counted{Reader: bytes.NewReader(bytes.Join([][]byte{eventFrame("initial-response", "{}"), large, large}, nil))}
	s := NewStream(body)
	_, err := s.Next()
	require.NoError(t, err)
	for range 3 {
		length, err := s.Await()
		require.NoError(t, err)
		require.Equal(t, len(large), length)
	}
	require.LessOrEqual(t, body.n, readAhead)
	_, err = s.Next()
	require.NoError(t, err)
	require.LessOrEqual(t, body.n, len(large)+2*readAhead)
	require.NoError(t, s.Close())
	require.Equal(t, 1, body.closed)
}
