package wire

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/schemas"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// detour is how long calls go through the SDK after an answer that it might
// have spared us: it corrects a clock that is wrong, and a direct call does not.
const detour = 5 * time.Minute

var getRecords = smithy.NewOperationSchema(schemas.GetRecords, schemas.GetRecordsInput, schemas.GetRecordsOutput)

// Direct is a Kinesis client whose GetRecords goes straight from parameters to a
// signed request. The SDK builds and walks a stack of some thirty layers for
// each call, which is most of what the poll of an idle shard costs.
//
// The first call of a stream goes through the SDK and shows how its requests
// look: address, headers, and what they are signed for. Those that follow do
// likewise, each with one attempt. What brings neither a page nor Kinesis' own
// refusal, such as a lost connection, credentials that are not taken or a
// failure of the service, is left to the SDK as a call of its own, with its
// retries. Middleware of the client's APIOptions runs in calls through the SDK
// alone. Pages that came directly have no ResultMetadata.
//
// It is safe for concurrent use.
type Direct struct {
	*kinesis.Client
	options kinesis.Options
	timeout time.Duration

	patterns sync.Map     // of *pattern, by the ARN of the stream: one each
	resume   atomic.Int64 // when a detour ends, in nanoseconds since 1970
}

// pattern is how a request of one stream looks. It never changes.
type pattern struct {
	url          *url.URL
	host         string
	header       http.Header
	name, region string // that it is signed for
}

// NewDirect returns a client that reads as c does. timeout is that of one direct
// attempt, from its signing to the last byte of the answer.
func NewDirect(c *kinesis.Client, timeout time.Duration) *Direct {
	return &Direct{Client: c, options: c.Options(), timeout: timeout}
}

// GetRecords is that of the SDK's client. With options of its own a call goes
// through the SDK.
func (d *Direct) GetRecords(ctx context.Context, in *kinesis.GetRecordsInput, opts ...func(*kinesis.Options)) (*kinesis.GetRecordsOutput, error) {
	stream := aws.ToString(in.StreamARN)
	known, ok := d.patterns.Load(stream)
	if !ok || len(opts) > 0 || in.ShardIterator == nil || time.Now().UnixNano() < d.resume.Load() {
		return d.Client.GetRecords(ctx, in, append(opts, d.learn(stream))...)
	}
	out, err := d.attempt(ctx, known.(*pattern), in)
	if err == nil {
		return out, nil
	}
	if resp, answered := errors.AsType[*awshttp.ResponseError](err); answered && resp.HTTPStatusCode()/100 == 4 {
		if api, ok := errors.AsType[smithy.APIError](err); ok && api.ErrorFault() == smithy.FaultClient {
			return nil, err // one that Kinesis' model has: throttled, expired, not allowed
		}
		d.resume.Store(time.Now().Add(detour).UnixNano())
	}
	return d.Client.GetRecords(ctx, in, d.learn(stream))
}

// attempt makes one call.
func (d *Direct) attempt(ctx context.Context, p *pattern, in *kinesis.GetRecordsInput) (*kinesis.GetRecordsOutput, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	req, err := d.request(ctx, p, in)
	if err != nil {
		return nil, err
	}
	answer, err := d.options.HTTPClient.Do(req) //nolint:bodyclose // CloseResponseBody does, when it has read the rest
	if err != nil {
		return nil, err
	}
	resp := &smithyhttp.Response{Response: answer}
	defer smithyhttp.CloseResponseBody(ctx, resp, false, nil)
	out := new(kinesis.GetRecordsOutput)
	if err := d.options.Protocol.DeserializeResponse(ctx, getRecords, kinesis.TypeRegistry, resp, out); err != nil {
		return nil, &smithy.OperationError{ServiceID: kinesis.ServiceID, OperationName: "GetRecords", Err: &awshttp.ResponseError{
			ResponseError: &smithyhttp.ResponseError{Response: resp, Err: err},
			RequestID:     answer.Header.Get("X-Amzn-Requestid"),
		}}
	}
	return out, nil
}

// request makes a signed request after a pattern.
func (d *Direct) request(ctx context.Context, p *pattern, in *kinesis.GetRecordsInput) (*http.Request, error) {
	identity, err := d.options.Credentials.Retrieve(ctx)
	if err != nil {
		return nil, fmt.Errorf("retrieving credentials: %w", err)
	}
	unsigned := smithyhttp.NewStackRequest().(*smithyhttp.Request)
	if err := d.options.Protocol.SerializeRequest(ctx, getRecords, in, unsigned); err != nil {
		return nil, fmt.Errorf("serializing GetRecords: %w", err)
	}
	body, err := io.ReadAll(unsigned.GetStream())
	if err != nil {
		return nil, fmt.Errorf("serializing GetRecords: %w", err)
	}
	address := *p.url // the signer writes to it
	req := (&http.Request{
		Method: http.MethodPost,
		URL:    &address,
		Host:   p.host,
		Proto:  "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header:        make(http.Header, len(p.header)+4),
		Body:          io.NopCloser(bytes.NewReader(body)),
		GetBody:       func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil },
		ContentLength: int64(len(body)),
	}).WithContext(ctx)
	maps.Copy(req.Header, p.header) // whose values nobody changes
	sum := sha256.Sum256(body)
	if err := d.options.HTTPSignerV4.SignHTTP(ctx, identity, req, hex.EncodeToString(sum[:]), p.name, p.region, time.Now().UTC()); err != nil {
		return nil, fmt.Errorf("signing GetRecords: %w", err)
	}
	// To ask twice for a page does no harm. So HTTP may ask again by itself when the
	// service has closed an idle connection at the moment at which it was used. Without
	// a value the header is not sent.
	req.Header["Idempotency-Key"] = nil
	return req, nil
}

// learn is an option of a call through the SDK that keeps its pattern, if it
// succeeds.
func (d *Direct) learn(stream string) func(*kinesis.Options) {
	watch := middleware.FinalizeMiddlewareFunc("LearnRequest", func(
		ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler,
	) (middleware.FinalizeOutput, middleware.Metadata, error) {
		var p *pattern
		if req, ok := in.Request.(*smithyhttp.Request); ok {
			p = patternOf(req.Request)
		}
		out, metadata, err := next.HandleFinalize(ctx, in)
		if p != nil && err == nil {
			d.patterns.Store(stream, p)
		}
		return out, metadata, err
	})
	return func(o *kinesis.Options) {
		o.APIOptions = append(o.APIOptions, func(s *middleware.Stack) error {
			return s.Finalize.Insert(watch, "Signing", middleware.After)
		})
	}
}

// patternOf is the pattern of a request, nil if it is not signed in the way that
// a direct call signs.
func patternOf(r *http.Request) *pattern {
	scope, ok := strings.CutPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 Credential=")
	scope, _, _ = strings.Cut(scope, ",")
	parts := strings.Split(scope, "/") // key, date, region, service, aws4_request
	if !ok || len(parts) != 5 {
		return nil
	}
	address := *r.URL
	p := &pattern{url: &address, host: r.Host, header: r.Header.Clone(), region: parts[2], name: parts[3]}
	for _, each := range []string{ // what is of one call
		"Authorization", "X-Amz-Date", "X-Amz-Security-Token",
		"Amz-Sdk-Invocation-Id", "Amz-Sdk-Request", "X-Amzn-Trace-Id", "Content-Length",
	} {
		p.header.Del(each)
	}
	return p
}
