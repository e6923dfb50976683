package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// longestAttempt bounds an attempt whose answer keeps coming: as long does an iterator
// live, so that what follows it would have to begin with a new one. See "GetShardIterator"
// in the Kinesis API reference.
const longestAttempt = 5 * time.Minute

// patience is the context of one attempt to read a page. It ends when nothing has been
// heard for a time, and not because an answer is long and the link slow: bytes that keep
// coming show that the connection lives, and to break it off would waste what has come.
// Whoever makes one stops it.
type patience struct {
	context.Context //nolint:containedctx // it is one: the caller's, that ends when the timer has run out, too
	cancel          context.CancelFunc
	limit           time.Duration
	begun           time.Time
	timer           *time.Timer
	expired         atomic.Bool
	asked           atomic.Bool  // the request is signed
	bytes           atomic.Int64 // of the answer's body
}

func newPatience(ctx context.Context, limit time.Duration) *patience {
	p := &patience{limit: limit, begun: time.Now()}
	p.Context, p.cancel = context.WithCancel(ctx)
	p.timer = time.AfterFunc(limit, func() {
		p.expired.Store(true)
		p.cancel()
	})
	return p
}

// Err is DeadlineExceeded when patience is at its end. By that the transport tells a dead
// connection from a caller who has lost interest.
func (p *patience) Err() error {
	err := p.Context.Err()
	if err != nil && p.expired.Load() {
		return context.DeadlineExceeded
	}
	return err
}

// heard takes in that so many bytes of the answer have come.
func (p *patience) heard(bytes int) {
	p.bytes.Add(int64(bytes))
	// A timer that has run out comes back to life by that, and has nothing to end any more.
	p.timer.Reset(min(p.limit, time.Until(p.begun.Add(longestAttempt))))
}

func (p *patience) stop() {
	p.timer.Stop()
	p.cancel()
}

// explain returns what an attempt failed with: a TimeoutError where patience has ended it,
// or an unsignedError, where that was before the service was asked.
func (p *patience) explain(err error) error {
	switch {
	case err == nil || !p.expired.Load():
		return err
	case !p.asked.Load():
		return &unsignedError{limit: p.limit, err: err}
	}
	return &TimeoutError{Limit: p.limit, Took: time.Since(p.begun), Bytes: p.bytes.Load()}
}

// TimeoutError is the error of an attempt to read a page that took too long. The SDK does
// not make another one after it: its caller does, and may ask for less.
//
// It does not wrap the error of its context, which looks like the caller's cancellation.
type TimeoutError struct {
	// Limit is the longest silence that an attempt bears.
	Limit time.Duration
	// Took is how long the attempt has lasted.
	Took time.Duration
	// Bytes of the answer's body had come.
	Bytes int64
}

func (e *TimeoutError) Error() string {
	switch {
	case e.Took >= longestAttempt:
		return fmt.Sprintf("the answer to GetRecords was not complete after %s, with %d bytes", e.Took.Round(time.Second), e.Bytes)
	case e.Bytes > 0:
		return fmt.Sprintf("the answer to GetRecords stood still for %s after %d bytes", e.Limit, e.Bytes)
	}
	return fmt.Sprintf("no answer to GetRecords within %s", e.Limit)
}

// Timeout marks the error as a time-out.
func (*TimeoutError) Timeout() bool { return true }

// RetryableError keeps the SDK's retryers from trying again.
func (*TimeoutError) RetryableError() bool { return false }

// unsignedError is the error of an attempt for which no credentials came in time. It is no
// time-out of the read, which to ask for less would mend.
//
// It does not wrap the error of its context either, and yet tells of which type the error
// of the credentials is.
type unsignedError struct {
	limit time.Duration
	err   error
}

func (e *unsignedError) Error() string {
	return fmt.Sprintf("no call of GetRecords within %s: %v", e.limit, e.err)
}

// As finds what the error of the credentials has.
func (e *unsignedError) As(target any) bool { return errors.As(e.err, target) }

// Timeout says that it was not the service that took too long.
func (*unsignedError) Timeout() bool { return false }

// RetryableError keeps the SDK's retryers from trying again.
func (*unsignedError) RetryableError() bool { return false }

// heardBody is the body of an answer, of which each part that comes is reported.
type heardBody struct {
	io.ReadCloser
	heard func(bytes int)
}

func (b heardBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.heard(n)
	}
	return n, err
}

// patienceKey is the key of the patience in the context of an attempt through the SDK.
type patienceKey struct{}

// patiently is a middleware for calls through the SDK. It bounds each attempt by patience,
// in place of the bound on the whole attempt that the client has by
// session.WithAttemptTimeout, with which it shares its name.
type patiently time.Duration

func (patiently) ID() string { return "AttemptTimeout" }

func (d patiently) install(s *middleware.Stack) error {
	if err := s.Deserialize.Add(middleware.DeserializeMiddlewareFunc("HearBody", hearBody), middleware.After); err != nil {
		return err
	}
	if _, found := s.Finalize.Get(d.ID()); found {
		_, err := s.Finalize.Swap(d.ID(), d)
		return err
	}
	return s.Finalize.Insert(d, "Retry", middleware.After)
}

func (d patiently) HandleFinalize(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (
	middleware.FinalizeOutput, middleware.Metadata, error,
) {
	p := newPatience(ctx, time.Duration(d))
	defer p.stop()
	out, metadata, err := next.HandleFinalize(context.WithValue(p, patienceKey{}, p), in)
	return out, metadata, p.explain(err)
}

// hearBody stands between the transport and what decodes the answer.
func hearBody(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (
	middleware.DeserializeOutput, middleware.Metadata, error,
) {
	p, bounded := ctx.Value(patienceKey{}).(*patience)
	if bounded {
		p.asked.Store(true)
	}
	out, metadata, err := next.HandleDeserialize(ctx, in)
	if resp, ok := out.RawResponse.(*smithyhttp.Response); ok && bounded && err == nil {
		err = p.hear(resp)
	}
	return out, metadata, err
}

// hear follows the body of an answer, if that is admitted.
func (p *patience) hear(resp *smithyhttp.Response) error {
	p.heard(0)
	if err := admitted(p, resp.Response); err != nil {
		return err
	}
	resp.Body = heardBody{resp.Body, p.heard}
	return nil
}
