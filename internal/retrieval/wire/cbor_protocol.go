package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/schemas"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// contentCBOR is the media type of requests and answers in CBOR. Smithy's protocol of
// that name, rpcv2Cbor, is another one: it has other paths, and times in seconds.
const contentCBOR = "application/x-amz-cbor-1.1"

// InstallCBOR is [Install] for a client that asks in CBOR, for payloads that are not in
// base64. Subscriptions remain in JSON.
//
// The service's documents do not describe the protocol. It is that of Amazon's client
// for Java, which speaks it by default: what differs from JSON are the media type and
// the body, where payloads are byte strings and times have tag 1 and integers of
// milliseconds.
func InstallCBOR(o *kinesis.Options) { o.Protocol = Protocol{ClientProtocol: o.Protocol, cbor: true} }

// SerializeRequest implements [smithyhttp.ClientProtocol].
func (p Protocol) SerializeRequest(ctx context.Context, schema *smithy.OperationSchema, in smithy.Serializable, req *smithyhttp.Request) error {
	if !p.cbor || schema.IsInputEventStream() || schema.IsOutputEventStream() {
		return p.ClientProtocol.SerializeRequest(ctx, schema, in, req)
	}
	body := []byte{cborMap << 5} // of an operation without parameters
	if schema.Input != nil {
		var err error
		if body, err = writeShape(in); err != nil {
			return &smithy.SerializationError{Err: err}
		}
	}
	req.Method = http.MethodPost
	if req.URL.Path == "" {
		req.URL.Path = "/"
	}
	req.Header.Set("X-Amz-Target", schemas.Kinesis_20131202.ID().Name+"."+schema.ID().Name)
	req.Header.Set("Content-Type", contentCBOR)
	streaming, err := req.SetStream(bytes.NewReader(body))
	if err != nil {
		return &smithy.SerializationError{Err: err}
	}
	*req = *streaming
	return nil
}

// answeredInCBOR says whether an answer is in CBOR. It need not be as it was asked for:
// services have answered in JSON all the same.
func (p Protocol) answeredInCBOR(resp *smithyhttp.Response) bool {
	written := resp.Header.Get("Content-Type")
	if written == "" {
		return p.cbor
	}
	media, _, err := mime.ParseMediaType(written)
	return err == nil && (media == contentCBOR || media == "application/cbor")
}

// deserializeCBOR is DeserializeResponse for an answer in CBOR. One above maxAnswer is
// refused, and so is one that is not well-formed.
func (Protocol) deserializeCBOR(ctx context.Context, schema *smithy.OperationSchema, types *smithy.TypeRegistry, resp *smithyhttp.Response, out smithy.Deserializable) error {
	output, isPage := out.(*kinesis.GetRecordsOutput)
	buf, err := readBody(resp.Body, resp.ContentLength)
	if isPage && errors.Is(err, io.ErrUnexpectedEOF) {
		err = brokenOffError{err}
	}
	if err != nil {
		return &smithy.DeserializationError{Err: err}
	}
	defer buf.release()
	switch {
	case resp.StatusCode < 200 || resp.StatusCode > 299:
		return refusal(types, resp, buf.b)
	case schema.Output == nil || len(buf.b) == 0 && len(schema.Output.Members()) == 0:
		return nil // an answer that has nothing to say
	case isPage:
		*output = kinesis.GetRecordsOutput{} // see DeserializeResponse
		if decodedFor(ctx, buf.b, decodeCBOR) {
			return nil
		}
	}
	if err := readShape(buf.b, out); err != nil {
		return &smithy.DeserializationError{Err: err}
	}
	return nil
}

// refusal is the error that an answer in CBOR has, or says why there is none in it.
func refusal(types *smithy.TypeRegistry, resp *smithyhttp.Response, body []byte) error {
	said := &refused{}
	if len(body) > 0 {
		if err := readShape(body, said); err != nil {
			return &smithy.DeserializationError{Err: fmt.Errorf("decoding the error of an answer: %w", err)}
		}
	}
	code := resp.Header.Get("X-Amzn-Errortype")
	if code == "" {
		code = said.code
	}
	code, _, _ = strings.Cut(code, ":") // a URL may follow
	if _, name, ok := strings.Cut(code, "#"); ok {
		code = name // of its namespace
	}
	typed, ok := types.DeserializableError(code)
	if !ok {
		const unknown = "UnknownError" // as the SDK has it for an answer without
		e := &smithy.GenericAPIError{Code: code, Message: said.message}
		if e.Code == "" {
			e.Code = unknown
		}
		if e.Message == "" {
			e.Message = unknown
		}
		return e
	}
	if len(body) > 0 {
		if err := readShape(body, typed); err != nil {
			return &smithy.DeserializationError{Err: err}
		}
	}
	return typed
}

// refused is what all errors have.
type refused struct{ code, message string }

var (
	textShape    = smithy.NewSchema(smithy.ShapeID{Name: "Text"}, smithy.ShapeTypeString, 0)
	refusedShape = smithy.NewSchema(smithy.ShapeID{Name: "Error"}, smithy.ShapeTypeStructure, 2)
	refusedType  = refusedShape.AddMember("__type", textShape)
	refusedText  = refusedShape.AddMember("message", textShape)
)

// Deserialize implements [smithy.Deserializable].
func (r *refused) Deserialize(d smithy.ShapeDeserializer) error {
	return smithy.ReadStruct(d, refusedShape, func(s *smithy.Schema) error {
		if s == refusedType {
			return d.ReadString(s, &r.code)
		}
		return d.ReadString(refusedText, &r.message)
	})
}
