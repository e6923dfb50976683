package session

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// services is what the answers of AWS tell about credentials and clock, to those that
// renew credentials of one configuration. It is filled before the first call.
type services struct {
	renewers []*renewer
	ahead    atomic.Int64 // of this machine's clock, their clock in nanoseconds
}

func (s *services) close() {
	for _, r := range slices.Backward(s.renewers) { // first the one that waits for the other
		r.close()
	}
}

// now is the time by the clock of AWS, as far as an answer has told it.
func (s *services) now() time.Time { return time.Now().Add(time.Duration(s.ahead.Load())) }

// clockIs takes note of how far the clock of a service is ahead of this machine's.
// Times are in whole seconds, and answers take a while: less than a minute is nothing.
func (s *services) clockIs(ahead time.Duration) {
	const inaccuracy = time.Minute
	if (ahead - time.Duration(s.ahead.Load())).Abs() < inaccuracy {
		return
	}
	s.ahead.Store(int64(ahead))
	for _, r := range s.renewers {
		r.mu.Lock()
		if r.failures == 0 && !r.refused && r.creds.HasKeys() {
			r.schedule(time.Now())
		}
		r.mu.Unlock()
	}
}

// refuse tells the renewers that a service did not take the credentials of id.
func (s *services) refuse(id string) (others bool) {
	for _, r := range s.renewers {
		others = r.refuse(id) || others
	}
	return others
}

// watch is an option for clients that listens to what their calls are answered.
func (s *services) watch(stack *middleware.Stack) error {
	const signing = "Signing"
	if _, found := stack.Finalize.Get(signing); !found {
		return nil // a call that needs no credentials
	}
	return stack.Finalize.Insert(middleware.FinalizeMiddlewareFunc("WatchCredentials", s.handle), signing, middleware.After)
}

// handle stands within the retry loop: a call whose credentials have expired is
// repeated with others, which the SDK does not do by itself.
func (s *services) handle(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (
	middleware.FinalizeOutput, middleware.Metadata, error,
) {
	out, meta, err := next.HandleFinalize(ctx, in)
	if err == nil {
		if ahead, ok := awsmiddleware.GetAttemptSkew(meta); ok {
			s.clockIs(ahead)
		}
		return out, meta, nil
	}
	if req, ok := in.Request.(*smithyhttp.Request); ok {
		id := signer(req)
		if id != "" && (isRefusal(err) || isMismatch(err) && s.written(id)) && s.refuse(id) {
			err = &refusedError{err}
		}
	}
	return out, meta, err
}

// written tells whether the credentials of id were written by somebody, who may have
// written the key, and not yet its secret.
func (s *services) written(id string) bool {
	return slices.ContainsFunc(s.renewers, func(r *renewer) bool { return r.written(id) })
}

// isMismatch tells whether an error is that of a signature that is wrong, for another
// reason than the clock.
func isMismatch(err error) bool {
	api, ok := errors.AsType[smithy.APIError](err)
	return ok && (api.ErrorCode() == "InvalidSignatureException" || api.ErrorCode() == "SignatureDoesNotMatch") &&
		!strings.HasPrefix(api.ErrorMessage(), "Signature expired") && !strings.HasPrefix(api.ErrorMessage(), "Signature not yet current")
}

// isRefusal tells whether other credentials may mend an error.
func isRefusal(err error) bool {
	api, ok := errors.AsType[smithy.APIError](err)
	return ok && (slices.Contains(expired, api.ErrorCode()) ||
		api.ErrorCode() == "UnrecognizedClientException" || api.ErrorCode() == "InvalidClientTokenId")
}

// signer is the access key id that a request is signed with, "" if it is not.
func signer(r *smithyhttp.Request) string {
	_, scope, _ := strings.Cut(r.Header.Get("Authorization"), "Credential=")
	id, _, _ := strings.Cut(scope, "/")
	return id
}

// refusedError is the error of a call that is worth repeating with other credentials.
type refusedError struct{ err error }

func (e *refusedError) Error() string { return e.err.Error() }
func (e *refusedError) Unwrap() error { return e.err }

// RetryableError lets the SDK's retryers try again.
func (*refusedError) RetryableError() bool { return true }
