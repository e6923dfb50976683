package wire

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/schemas"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/smithy-go/eventstream"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/aws/smithy-go/transport/http/protocol/awsjson"
)

// The parts of a frame; see "Event stream encoding" in the documentation of Amazon
// Transcribe, which describes the format for all services.
const (
	preludeBytes = 12 // length, length of the headers, checksum of these
	// maxFrame bounds what a prelude may claim. An event carries at most 10 MiB of
	// payloads, as a page of GetRecords does.
	maxFrame = maxAnswer
	// readAhead is what is read of a stream beyond the frame that is asked for: a frame of
	// one record of 1 KB. The rest of a larger one is taken at once, and answered once:
	// HTTP/2 gives room back by a write of its own for each 4 KiB that are taken.
	readAhead = 2 << 10
)

// Stream is an open subscription to a shard: the answer of SubscribeToShard, of which
// one frame after the other is read as it comes. The SDK's own reader of it decodes each
// frame as soon as it has arrived, on a goroutine of its own and by way of the slow
// decoder. This one reads nothing but the length of a frame until it is asked for the
// rest, so that its caller may wait until there is room for it, and the service with it.
//
// One goroutine uses it, but for Close.
type Stream struct {
	body   io.ReadCloser
	ahead  *bufio.Reader
	length int // of the frame that Await has found; 0 when it is to look
	frames *eventstream.Decoder
	// sdk decodes what is not decoded here. It is not safe for concurrent use.
	sdk *awsjson.Protocol
}

// Subscribe opens a subscription, which lasts until ctx ends, at the longest, and returns
// the body of the answer, to be read by a Stream. The call is the SDK's in everything up
// to the header of the answer, with its retries.
func Subscribe(ctx context.Context, c *kinesis.Client, in *kinesis.SubscribeToShardInput) (io.ReadCloser, error) {
	var opened capture
	if _, err := c.SubscribeToShard(ctx, in, func(o *kinesis.Options) {
		o.APIOptions = append(o.APIOptions, func(s *middleware.Stack) error {
			_, err := s.Deserialize.Swap(opened.ID(), &opened)
			return err
		})
	}); err != nil {
		return nil, err
	}
	return opened.body, nil
}

// NewStream returns the subscription whose answer has this body.
func NewStream(body io.ReadCloser) *Stream {
	return &Stream{
		body: body, ahead: bufio.NewReaderSize(body, readAhead),
		frames: eventstream.NewDecoder(), sdk: awsjson.New11(schemas.Kinesis_20131202),
	}
}

// capture stands in the place of the SDK's reader of the stream, and keeps the body of
// the answer. Answers that are errors do not come so far.
type capture struct{ body io.ReadCloser }

// ID is that of the middleware whose place it takes.
func (*capture) ID() string { return "OperationEventStreamDeserializer" }

func (c *capture) HandleDeserialize(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (
	middleware.DeserializeOutput, middleware.Metadata, error,
) {
	out, metadata, err := next.HandleDeserialize(ctx, in)
	if err != nil {
		return out, metadata, err
	}
	resp, ok := out.RawResponse.(*smithyhttp.Response)
	if !ok {
		return out, metadata, fmt.Errorf("the answer is of type %T", out.RawResponse)
	}
	c.body = resp.Body
	if out.Result == nil {
		out.Result = &kinesis.SubscribeToShardOutput{}
	}
	return out, metadata, nil
}

// Await waits for the next frame and returns its length in bytes. Nothing more of it is
// read before Next is called. The error is io.EOF where the stream has ended between two
// frames, and io.ErrUnexpectedEOF within one.
func (s *Stream) Await() (length int, err error) {
	if s.length > 0 {
		return s.length, nil
	}
	prelude, err := s.ahead.Peek(preludeBytes)
	if err != nil {
		if errors.Is(err, io.EOF) && len(prelude) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return 0, err
	}
	// Before the length is believed, for room is to be made for so much.
	if crc32.ChecksumIEEE(prelude[:8]) != binary.BigEndian.Uint32(prelude[8:]) {
		return 0, fmt.Errorf("reading the length of a frame: %w", eventstream.ChecksumError{})
	}
	n := binary.BigEndian.Uint32(prelude)
	if n < preludeBytes+4 || n > maxFrame {
		return 0, fmt.Errorf("a frame has %d bytes, outside of %d to %d", n, preludeBytes+4, maxFrame)
	}
	s.length = int(n)
	return s.length, nil
}

// Next reads the frame that Await has found, or finds and reads the next one. The page
// is nil for a frame that has no records to tell of: the initial response, and events
// that are not known. The exceptions of the stream come as errors of their type.
func (s *Stream) Next() (*Page, error) {
	length, err := s.Await()
	if err != nil {
		return nil, err
	}
	s.length = 0
	frame := newBuffer(length)
	defer frame.release()
	frame.b = frame.b[:length]
	if _, err := io.ReadFull(s.ahead, frame.b); err != nil {
		return nil, within(err)
	}
	if payload, ok := eventPayload(frame.b); ok {
		page := new(Page)
		if decodeEvent(payload, page) {
			return page, nil
		}
	}
	// The decoder appends the payload, in steps of 512 bytes at least.
	payload := newBuffer(length + 512)
	defer payload.release()
	message, err := s.frames.Decode(bytes.NewReader(frame.b), payload.b)
	if err != nil {
		return nil, fmt.Errorf("decoding a frame: %w", within(err))
	}
	if textOf(message, eventstream.MessageTypeHeader) == eventstream.EventMessageType &&
		textOf(message, eventstream.EventTypeHeader) == "SubscribeToShardEvent" {
		page := new(Page)
		if decodeEvent(message.Payload, page) {
			return page, nil
		}
	}
	return s.decodeBySDK(frame.b)
}

// eventPayload finds the payload of an event within a frame, whose prelude has been checked.
// It takes what the service sends and leaves the rest to the decoder of the SDK, which reads
// through readers and makes a message of its own: at one record a frame, as a shard brings
// that is fed steadily, that costs more than everything else here.
func eventPayload(frame []byte) (payload []byte, ok bool) {
	const checksumBytes = 4
	if len(frame) < preludeBytes+checksumBytes {
		return nil, false
	}
	end := len(frame) - checksumBytes
	headersEnd := preludeBytes + uint64(binary.BigEndian.Uint32(frame[4:]))
	if headersEnd > uint64(end) || crc32.ChecksumIEEE(frame[:end]) != binary.BigEndian.Uint32(frame[end:]) {
		return nil, false
	}
	var isMessage, isEvent bool
	for rest := frame[preludeBytes:headersEnd]; len(rest) > 0; {
		var name, value []byte
		if name, value, rest, ok = textHeader(rest); !ok {
			return nil, false
		}
		// One that comes twice is left to the SDK.
		switch string(name) {
		case eventstream.MessageTypeHeader:
			if isMessage || string(value) != eventstream.EventMessageType {
				return nil, false
			}
			isMessage = true
		case eventstream.EventTypeHeader:
			if isEvent || string(value) != "SubscribeToShardEvent" {
				return nil, false
			}
			isEvent = true
		}
	}
	return frame[headersEnd:end], isMessage && isEvent
}

// textHeader takes the first header, which must be a text: a byte with the length of its
// name, the name, the type 7, two bytes with the length of the text, and the text.
func textHeader(b []byte) (name, value, rest []byte, ok bool) {
	const text = 7
	n := int(b[0])
	if n == 0 || len(b) < n+4 || b[n+1] != text {
		return nil, nil, nil, false
	}
	name, b = b[1:n+1], b[n+2:]
	n = int(binary.BigEndian.Uint16(b))
	if len(b) < n+2 {
		return nil, nil, nil, false
	}
	return name, b[2 : n+2], b[n+2:], true
}

// decodeBySDK decodes a frame as the SDK does, which is authoritative for whatever is
// unusual.
func (s *Stream) decodeBySDK(frame []byte) (page *Page, err error) {
	defer func() {
		if r := recover(); r != nil {
			// It does so at a time that is "NaN".
			err = fmt.Errorf("the SDK panics at the event: %v", r)
		}
	}()
	decoded, err := s.sdk.DeserializeEventMessage(schemas.SubscribeToShardEventStream, kinesis.TypeRegistry, bytes.NewReader(frame))
	if err != nil {
		return nil, within(err)
	}
	if event, ok := decoded.(*types.SubscribeToShardEvent); ok {
		page = pageOfEvent(event)
	}
	return page, nil
}

// within is an error that came within a frame, where io.EOF would tell of the end of the
// stream. A frame that is whole may announce more headers than it has.
func within(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func textOf(m eventstream.Message, header string) string {
	if value := m.Headers.Get(header); value != nil {
		return value.String()
	}
	return ""
}

// Close ends the subscription. It may be called while another goroutine reads, whose call
// it ends, and again.
func (s *Stream) Close() error { return s.body.Close() }
