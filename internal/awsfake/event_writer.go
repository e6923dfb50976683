package awsfake

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/aws/protocol/eventstream"
)

var (
	// errEnded is the clean end of a stream.
	errEnded = errors.New("awsfake: the subscription has ended")
	// errCut is the end of a connection that a fault breaks.
	errCut = errors.New("awsfake: a fault cuts the connection")
	// errSilent is the end of all frames, but not of the connection.
	errSilent = errors.New("awsfake: a fault silences the subscription")
)

// eventWriter encodes the frames of one subscription and sends them under the
// faults that match them. The goroutine of subscription.run owns it. Its buffers
// are used again for each frame: send has taken all bytes when it returns.
type eventWriter struct {
	sub     *subscription
	send    func(frame []byte) error
	encoder *eventstream.Encoder
	payload []byte
	frame   bytes.Buffer
	sent    int // whole frames
}

func newEventWriter(sub *subscription, send func([]byte) error) *eventWriter {
	return &eventWriter{sub: sub, send: send, encoder: eventstream.NewEncoder()}
}

func (w *eventWriter) initialResponse() error {
	f := w.fault(false)
	if w.sub.truncated {
		f = &StreamFault{Cut: true} // the fault of the call itself
	}
	return w.write(f, frameHeaders("event", ":event-type", "initial-response"), []byte("{}"))
}

func (w *eventWriter) event(ev *event) error {
	f := w.fault(ev.continuation != "")
	if f != nil && f.NoContinuation {
		ev.continuation = ""
	}
	var err error
	if w.payload, err = ev.appendJSON(w.payload[:0]); err != nil {
		return err
	}
	at := w.sub.server.clock.Now()
	if err := w.write(f, frameHeaders("event", ":event-type", "SubscribeToShardEvent"), w.payload); err != nil {
		return err
	}
	if ev.records > 0 {
		w.sub.server.subscriptions.handedOver(w.sub.Subscription, at, ev.records)
	}
	return nil
}

// exception sends the last frame of a stream.
func (w *eventWriter) exception(e *Error) error { return w.refuse(w.fault(false), e) }

func (w *eventWriter) refuse(f *StreamFault, e *Error) error {
	payload, err := json.Marshal(map[string]string{"message": e.Message})
	if err != nil {
		return err
	}
	if err := w.write(f, frameHeaders("exception", ":exception-type", e.Code), payload); err != nil {
		return err
	}
	return errEnded
}

// fault is what happens to the next frame, or nil.
func (w *eventWriter) fault(continues bool) *StreamFault {
	return w.sub.server.streamFaults.match(w.sub.Subscription, w.sent, continues)
}

// write sends one frame, or does what a fault does in its place.
func (w *eventWriter) write(f *StreamFault, headers eventstream.Headers, payload []byte) error {
	if f == nil {
		f = &StreamFault{}
	}
	switch {
	case f.Silence:
		return errSilent
	case f.Close:
		return errEnded
	case f.Exception != nil:
		return w.refuse(nil, f.Exception)
	}
	w.frame.Reset()
	if err := w.encoder.Encode(&w.frame, eventstream.Message{Headers: headers, Payload: payload}); err != nil {
		return fmt.Errorf("encoding a frame of %d bytes: %w", len(payload), err)
	}
	frame := w.frame.Bytes()
	switch {
	case f.Cut:
		if err := w.send(frame[:len(frame)/2]); err != nil {
			return err
		}
		return errCut
	case f.Corrupt:
		frame[len(frame)-5] ^= 1 // the payload's last byte, before four of checksum
	}
	if err := w.send(frame); err != nil {
		return err
	}
	w.sent++
	return nil
}

func frameHeaders(message, name, kind string) eventstream.Headers {
	return eventstream.Headers{
		{Name: ":message-type", Value: eventstream.StringValue(message)},
		{Name: name, Value: eventstream.StringValue(kind)},
		{Name: ":content-type", Value: eventstream.StringValue("application/x-amz-json-1.1")},
	}
}

// event is one SubscribeToShardEvent.
type event struct {
	page         page
	records      int
	continuation string       // empty at the end of the shard
	children     []childShard // at the end of the shard
}

// appendJSON appends an event as the service writes it.
func (ev *event) appendJSON(b []byte) ([]byte, error) {
	b = append(b, `{"MillisBehindLatest":`...)
	b = strconv.AppendInt(b, ev.page.behind, 10)
	if ev.continuation != "" {
		b = append(b, `,"ContinuationSequenceNumber":"`...)
		b = append(b, ev.continuation...)
		b = append(b, '"')
	}
	if ev.page.ended {
		children, err := json.Marshal(ev.children)
		if err != nil {
			return nil, err
		}
		b = append(append(b, `,"ChildShards":`...), children...)
	}
	b = append(b, `,"Records":[`...)
	for _, p := range ev.page.parts {
		b = append(b, p...)
	}
	return append(b, "]}"...), nil
}
