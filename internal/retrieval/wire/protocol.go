// Package wire decodes the answers of GetRecords on their way through the SDK's
// client, in JSON and in CBOR, and the events of subscriptions.
//
// What bounds a reader is what one record costs, and most of that is the SDK's
// decoder: a token, an interface call and a copy for every field. A page has
// one shape, so this package goes over the body once, decodes each payload
// straight into the memory that its message will own, and knows nothing else.
// The SDK is authoritative: whatever the fast path does not know, a value of
// another type, an escape, a member twice, bytes that are no JSON, it leaves to
// the SDK's own protocol as a whole, so that answers and refusals are the SDK's
// in every case; what the SDK makes of it is converted. A fuzz test holds both against
// each other.
//
// For CBOR as Kinesis speaks it the SDK has no protocol. So the fast path for pages
// has one of this package beside it, which reads any answer into the SDK's types,
// and another test holds both against a library of CBOR.
package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// Protocol is the protocol of a Kinesis client, with a decoder of its own for
// the pages that [GetRecords] asks for. Everything else, errors included, is left to the
// protocol that it embeds. It is safe for concurrent use.
type Protocol struct {
	smithyhttp.ClientProtocol
	cbor bool // requests are
}

// Install puts the decoder in front of a client's protocol, for calls by way of [GetRecords]:
//
//	kinesis.NewFromConfig(cfg, wire.Install)
func Install(o *kinesis.Options) { o.Protocol = Protocol{ClientProtocol: o.Protocol} }

// DeserializeResponse implements [smithyhttp.ClientProtocol]. An answer above
// maxAnswer is refused, which the SDK would read whatever its size.
func (p Protocol) DeserializeResponse(
	ctx context.Context,
	schema *smithy.OperationSchema,
	types *smithy.TypeRegistry,
	resp *smithyhttp.Response,
	out smithy.Deserializable,
) (err error) {
	if !schema.IsOutputEventStream() && p.answeredInCBOR(resp) {
		return p.deserializeCBOR(ctx, schema, types, resp, out)
	}
	output, ok := out.(*kinesis.GetRecordsOutput)
	if !ok || resp.StatusCode < 200 || resp.StatusCode > 299 {
		return p.ClientProtocol.DeserializeResponse(ctx, schema, types, resp, out)
	}
	buf, err := readBody(resp.Body, resp.ContentLength)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = brokenOffError{err}
	}
	if err != nil {
		return &smithy.DeserializationError{Err: err}
	}
	defer buf.release()

	// All attempts of a call share one output. The SDK leaves there what it had
	// decoded of an answer before it failed, to be taken for the next one's: of
	// the last page of a shard, an iterator that makes it look open.
	*output = kinesis.GetRecordsOutput{}
	if decodedFor(ctx, buf.b, decode) {
		return nil
	}
	body := resp.Body
	resp.Body = io.NopCloser(bytes.NewReader(buf.b))
	defer func() {
		resp.Body = body // for the SDK to close
		if r := recover(); r != nil {
			// It does so at a time that is "NaN".
			err = &smithy.DeserializationError{Err: fmt.Errorf("the SDK panics at the answer: %v", r)}
		}
	}()
	return p.ClientProtocol.DeserializeResponse(ctx, schema, types, resp, out)
}

// brokenOffError is an answer that ended before its end. To the SDK, which retries
// every other failure of a connection, this is not one; reading is repeated with
// the same iterator without harm.
type brokenOffError struct{ error }

func (brokenOffError) ConnectionError() bool { return true }
func (e brokenOffError) Unwrap() error       { return e.error }
