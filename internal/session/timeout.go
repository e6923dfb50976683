package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/smithy-go/middleware"
)

// WithAttemptTimeout bounds each attempt of each call by d, above zero, in place
// of an earlier bound. An attempt that takes longer fails with an
// [AttemptTimeoutError] and is retried as one that the network failed. It is an
// option for a client (its Options.APIOptions) or for one call.
//
// SubscribeToShard has no such bound: its answer is a stream that lasts for
// minutes. Nor have the reads of pages by package wire, which puts a bound of the silence
// in its place, under the same name: a page may be long, and the link slow.
func WithAttemptTimeout(d time.Duration) func(*middleware.Stack) error {
	return func(s *middleware.Stack) error {
		m := attemptTimeout(d)
		if _, found := s.Finalize.Get(m.ID()); found {
			_, err := s.Finalize.Swap(m.ID(), m)
			return err
		}
		return s.Finalize.Insert(m, "Retry", middleware.After)
	}
}

// AttemptTimeoutError is the error of an attempt that took too long.
//
// It does not wrap the error of its context: the SDK would take that for the
// caller's cancellation and not retry.
type AttemptTimeoutError struct {
	Operation string
	Limit     time.Duration
	// credentials is what it waited for, nil if it was the answer.
	credentials *credentialsError
}

func (e *AttemptTimeoutError) Error() string {
	if e.credentials != nil {
		return fmt.Sprintf("no call of %s within %s: %v", e.Operation, e.Limit, e.credentials)
	}
	return fmt.Sprintf("no answer to %s within %s", e.Operation, e.Limit)
}

// Timeout marks the error as a time-out for the SDK's accounting of retries.
func (*AttemptTimeoutError) Timeout() bool { return true }

// RetryableError lets the SDK's retryers try again.
func (*AttemptTimeoutError) RetryableError() bool { return true }

// attemptTimeout stands within the retry loop, around signing, sending and
// reading the answer.
type attemptTimeout time.Duration

func (attemptTimeout) ID() string { return "AttemptTimeout" }

func (d attemptTimeout) HandleFinalize(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (
	middleware.FinalizeOutput, middleware.Metadata, error,
) {
	op := awsmiddleware.GetOperationName(ctx)
	if op == "SubscribeToShard" {
		return next.HandleFinalize(ctx, in)
	}
	attempt, cancel := context.WithTimeout(ctx, time.Duration(d))
	defer cancel()
	out, meta, err := next.HandleFinalize(attempt, in)
	if errors.Is(err, context.DeadlineExceeded) && attempt.Err() != nil && ctx.Err() == nil {
		waiting, _ := errors.AsType[*credentialsError](err)
		err = &AttemptTimeoutError{Operation: op, Limit: time.Duration(d), credentials: waiting}
	}
	return out, meta, err
}
