package wire

import (
	"context"
	"net/http"
)

// admitKey is the key of what WithAdmission puts into a context.
type admitKey struct{}

// WithAdmission returns a context for calls of [Direct.GetRecords] whose pages are to be
// admitted: admit is called with the bytes of an answer's body before any of them is read,
// in the goroutine of the call, for each attempt that gets one. An answer does not always
// tell its size; then nobody is asked. An error of admit ends the call and is wrapped in
// that of the call; the answer is broken off.
func WithAdmission(ctx context.Context, admit func(bytes int64) error) context.Context {
	return context.WithValue(ctx, admitKey{}, admit)
}

// admitted asks whether the body of an answer may be read, and closes it if it may not.
func admitted(ctx context.Context, resp *http.Response) error {
	admit, ok := ctx.Value(admitKey{}).(func(bytes int64) error)
	if !ok || resp.ContentLength < 0 || resp.StatusCode/100 != 2 {
		return nil
	}
	if err := admit(resp.ContentLength); err != nil {
		_ = resp.Body.Close() // unread, which ends the connection: there is nothing to lose any more
		return &refusedError{err}
	}
	return nil
}

// refusedError is an answer that was not admitted.
type refusedError struct{ error }

func (e *refusedError) Unwrap() error { return e.error }

// RetryableError keeps the SDK's retryers from trying again.
func (*refusedError) RetryableError() bool { return false }
