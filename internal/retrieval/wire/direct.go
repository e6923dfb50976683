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

	"github.com/benthos-plugins/aws-kinesis/internal/throttle"
)

var getRecords = smithy.NewOperationSchema(schemas.GetRecords, schemas.GetRecordsInput, schemas.GetRecordsOutput)

// Direct is a Kinesis client whose GetRecords goes straight from parameters to a
// signed request. The SDK builds and walks a stack of some thirty layers for
// each call, which is most of what the poll of an idle shard costs.
//
// The first call of a stream goes through the SDK and shows how its requests
// look: address, headers, and what they are signed for. Those that follow do
// likewise, each with one attempt. Kinesis' own refusals go back to the caller, and
// so does whatever says that there were too many calls. What else brings no page,
// such as a lost connection, credentials that are not taken or a failure of the
// service, is left to the SDK as a call of its own, with its retries. An attempt
// that took too long goes back to the caller, who may ask for less. Where the SDK
// helps again and again, calls of that stream go through the SDK for a while;
// after an answer about credentials or the clock those of all streams do. Calls without
// an ARN, as those for streams that are configured by name, count as of one stream.
// Middleware of the client's APIOptions runs in calls through the SDK alone. Pages
// that came directly have no ResultMetadata.
//
// It is safe for concurrent use.
type Direct struct {
	*kinesis.Client
	options  kinesis.Options
	timeout  time.Duration
	onDetour func(reason string)

	routes sync.Map // of *route, by the ARN of the stream, "" for all without: one each
	detour detour   // of all streams
}

// route is the way of the calls of one stream.
type route struct {
	pattern atomic.Pointer[pattern] // nil until a call through the SDK has shown it
	detour  detour
}

// pattern is how a request of one stream looks. It never changes.
type pattern struct {
	url          *url.URL
	host         string
	header       http.Header
	name, region string // that it is signed for
}

// NewDirect returns a client that reads as c does. timeout is for how long an attempt,
// direct or through the SDK, may hear nothing: until there are credentials and the answer
// begins, and between two parts of that. After that, or after five minutes in any case, it
// fails with a [TimeoutError], or with the error of the credentials, and no other is made.
// onDetour, if not nil, is called when calls begin to go through the SDK for a while, with
// one of the reasons that begin with Detour.
func NewDirect(c *kinesis.Client, timeout time.Duration, onDetour func(reason string)) *Direct {
	if onDetour == nil {
		onDetour = func(string) {}
	}
	return &Direct{Client: c, options: c.Options(), timeout: timeout, onDetour: onDetour}
}

func (d *Direct) route(stream string) *route {
	known, ok := d.routes.Load(stream)
	if !ok {
		known, _ = d.routes.LoadOrStore(stream, new(route))
	}
	return known.(*route)
}

// GetRecords is that of the SDK's client. With options of its own a call goes
// through the SDK.
func (d *Direct) GetRecords(ctx context.Context, in *kinesis.GetRecordsInput, opts ...func(*kinesis.Options)) (*kinesis.GetRecordsOutput, error) {
	r, now := d.route(aws.ToString(in.StreamARN)), time.Now()
	known := r.pattern.Load()
	if known == nil || len(opts) > 0 || in.ShardIterator == nil || d.detour.active(now) || r.detour.active(now) {
		return d.throughSDK(ctx, r, in, opts...)
	}
	out, err := d.attempt(ctx, known, in)
	switch {
	case err == nil || isFinal(err):
		d.detour.succeeded(time.Now())
		r.detour.succeeded(time.Now())
		return out, err
	case ctx.Err() != nil || isGivenUp(err):
		return nil, err
	}
	if resp, answered := errors.AsType[*awshttp.ResponseError](err); answered && resp.HTTPStatusCode()/100 == 4 {
		reason, of := detourReason(err), &r.detour
		if reason == DetourCredentials {
			of = &d.detour
		}
		if of.refused(time.Now()) {
			d.onDetour(reason)
		}
		return d.throughSDK(ctx, r, in)
	}
	out, err = d.throughSDK(ctx, r, in)
	if err == nil && r.detour.failed(time.Now()) {
		d.onDetour(DetourFailed)
	}
	return out, err
}

// throughSDK makes a call through the SDK, and learns from it how its requests look.
func (d *Direct) throughSDK(ctx context.Context, r *route, in *kinesis.GetRecordsInput, opts ...func(*kinesis.Options)) (*kinesis.GetRecordsOutput, error) {
	return d.Client.GetRecords(ctx, in, append(opts, r.learn, func(o *kinesis.Options) {
		o.APIOptions = append(o.APIOptions, patiently(d.timeout).install)
	})...)
}

// isGivenUp reports whether we have ended an attempt ourselves, and another one like it
// would go the same way.
func isGivenUp(err error) bool {
	_, late := errors.AsType[*TimeoutError](err)
	_, unsigned := errors.AsType[*unsignedError](err)
	_, refused := errors.AsType[*refusedError](err)
	return late || unsigned || refused
}

// isFinal reports whether an error is an answer that the caller is to deal with: one that
// Kinesis' model has, such as an iterator that has expired, or one that asks for fewer
// calls, which to make another would not do.
func isFinal(err error) bool {
	if throttle.Is(err) {
		return true
	}
	resp, answered := errors.AsType[*awshttp.ResponseError](err)
	api, known := errors.AsType[smithy.APIError](err)
	return answered && resp.HTTPStatusCode()/100 == 4 && known && api.ErrorFault() == smithy.FaultClient
}

// attempt makes one call.
func (d *Direct) attempt(ctx context.Context, p *pattern, in *kinesis.GetRecordsInput) (*kinesis.GetRecordsOutput, error) {
	waiting := newPatience(ctx, d.timeout)
	defer waiting.stop()
	out, err := d.ask(waiting, p, in)
	if err = waiting.explain(err); err != nil {
		return nil, &smithy.OperationError{ServiceID: kinesis.ServiceID, OperationName: "GetRecords", Err: err}
	}
	return out, nil
}

func (d *Direct) ask(ctx *patience, p *pattern, in *kinesis.GetRecordsInput) (*kinesis.GetRecordsOutput, error) {
	req, err := d.request(ctx, p, in)
	if err != nil {
		return nil, err
	}
	ctx.asked.Store(true)
	answer, err := d.options.HTTPClient.Do(req) //nolint:bodyclose // CloseResponseBody does, when it has read the rest
	if err != nil {
		return nil, err
	}
	resp := &smithyhttp.Response{Response: answer}
	if err := ctx.hear(resp); err != nil {
		return nil, err
	}
	defer smithyhttp.CloseResponseBody(ctx, resp, false, nil)
	out := new(kinesis.GetRecordsOutput)
	if err := d.options.Protocol.DeserializeResponse(ctx, getRecords, kinesis.TypeRegistry, resp, out); err != nil {
		return nil, &awshttp.ResponseError{
			ResponseError: &smithyhttp.ResponseError{Response: resp, Err: err},
			RequestID:     answer.Header.Get("X-Amzn-Requestid"),
		}
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
func (r *route) learn(o *kinesis.Options) {
	watch := middleware.FinalizeMiddlewareFunc("LearnRequest", func(
		ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler,
	) (middleware.FinalizeOutput, middleware.Metadata, error) {
		var p *pattern
		if req, ok := in.Request.(*smithyhttp.Request); ok {
			p = patternOf(req.Request)
		}
		out, metadata, err := next.HandleFinalize(ctx, in)
		if p != nil && err == nil {
			r.pattern.Store(p)
		}
		return out, metadata, err
	})
	o.APIOptions = append(o.APIOptions, func(s *middleware.Stack) error {
		return s.Finalize.Insert(watch, "Signing", middleware.After)
	})
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
