package wire

import (
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
)

// slowLink gives the bodies of answers in parts, one each pause, and stops after some.
type slowLink struct {
	aws.HTTPClient
	pause time.Duration
	part  int // bytes
	stops int // after so many parts; 0: never
}

func (l *slowLink) Do(r *http.Request) (*http.Response, error) {
	resp, err := l.HTTPClient.Do(r)
	if err == nil && l.part > 0 {
		resp.Body = &slowBody{ReadCloser: resp.Body, ctx: r.Context(), link: *l}
	}
	return resp, err
}

type slowBody struct {
	io.ReadCloser
	ctx  context.Context //nolint:containedctx // of the request, as a transport keeps it
	link slowLink
	read int
}

func (b *slowBody) Read(p []byte) (int, error) {
	pause := b.link.pause
	if b.read++; b.link.stops > 0 && b.read > b.link.stops {
		pause = time.Hour
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return b.ReadCloser.Read(p[:min(len(p), b.link.part)])
	case <-b.ctx.Done():
		return 0, b.ctx.Err()
	}
}

// overSlowLink runs a test for direct calls and for those through the SDK, with a page of
// some ten KiB and a bound of a second.
func overSlowLink(t *testing.T, link slowLink, test func(t *testing.T, sent *seen, read func(context.Context) error)) {
	t.Helper()
	for name, opts := range map[string][]func(*kinesis.Options){
		"direct":          nil,
		"through the SDK": {func(*kinesis.Options) {}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := awsfake.New(awsfake.Options{IteratorLifetime: time.Hour})
				d, sent, in := direct(t, s)
				_, err := d.GetRecords(t.Context(), in)
				require.NoError(t, err)
				_, _, err = s.Put("orders", "key", make([]byte, 10<<10))
				require.NoError(t, err)
				slow := link
				slow.HTTPClient = sent.HTTPClient
				sent.HTTPClient, sent.requests = &slow, nil
				test(t, sent, func(ctx context.Context) error {
					_, err := d.GetRecords(ctx, in, opts...)
					return err
				})
			})
		})
	}
}

func TestAnswerThatKeepsComingIsAwaited(t *testing.T) {
	overSlowLink(t, slowLink{pause: 900 * time.Millisecond, part: 256}, func(t *testing.T, sent *seen, read func(context.Context) error) {
		begin := time.Now()
		require.NoError(t, read(t.Context()))
		require.Greater(t, time.Since(begin), 40*time.Second)
		require.Len(t, sent.requests, 1)
	})
}

func TestAnswerThatStandsStillGoesBackToTheCaller(t *testing.T) {
	overSlowLink(t, slowLink{pause: 900 * time.Millisecond, part: 256, stops: 5}, func(t *testing.T, sent *seen, read func(context.Context) error) {
		begin := time.Now()
		err := read(t.Context())
		late, ok := errors.AsType[*TimeoutError](err)
		require.True(t, ok, "%v", err)
		require.Equal(t, "the answer to GetRecords stood still for 1s after 1280 bytes", late.Error())
		require.ErrorContains(t, err, "operation error Kinesis: GetRecords")
		require.Equal(t, 5*900*time.Millisecond+time.Second, time.Since(begin))
		require.Len(t, sent.requests, 1, "which may ask for less")
	})
}

func TestAnswerThatDoesNotComeGoesBackToTheCaller(t *testing.T) {
	overSlowLink(t, slowLink{pause: time.Hour, part: 256}, func(t *testing.T, sent *seen, read func(context.Context) error) {
		begin := time.Now()
		require.ErrorContains(t, read(t.Context()), "no answer to GetRecords within 1s")
		require.Equal(t, time.Second, time.Since(begin))
		require.Len(t, sent.requests, 1)
	})
}

func TestAnswerThatNeverEndsIsBrokenOff(t *testing.T) {
	overSlowLink(t, slowLink{pause: 900 * time.Millisecond, part: 1}, func(t *testing.T, _ *seen, read func(context.Context) error) {
		begin := time.Now()
		require.ErrorContains(t, read(t.Context()), "the answer to GetRecords was not complete after 5m0s")
		require.Equal(t, longestAttempt, time.Since(begin))
	})
}

func TestReadOverASlowLinkEndsWithItsContext(t *testing.T) {
	overSlowLink(t, slowLink{pause: 900 * time.Millisecond, part: 256}, func(t *testing.T, _ *seen, read func(context.Context) error) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		time.AfterFunc(10*time.Second, cancel)
		begin := time.Now()
		require.ErrorIs(t, read(ctx), context.Canceled)
		require.Equal(t, 10*time.Second, time.Since(begin))
	})
}

// unavailable is the error of credentials that nobody gives.
type unavailable struct{ error }

func (e unavailable) Unwrap() error { return e.error }

func TestReadThatWaitsForCredentialsDoesNotBlameTheService(t *testing.T) {
	for name, opts := range map[string][]func(*kinesis.Options){
		"direct":          nil,
		"through the SDK": {func(*kinesis.Options) {}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				known, sent, in := direct(t, awsfake.New(awsfake.Options{}))
				_, err := known.GetRecords(t.Context(), in)
				require.NoError(t, err)
				options := known.options
				options.Credentials = aws.CredentialsProviderFunc(func(ctx context.Context) (aws.Credentials, error) {
					<-ctx.Done()
					return aws.Credentials{}, unavailable{&smithy.OperationError{ServiceID: "STS", Err: ctx.Err()}}
				})
				d := NewDirect(kinesis.New(options), time.Second, nil)
				d.route(*in.StreamARN).pattern.Store(known.route(*in.StreamARN).pattern.Load())
				sent.requests = nil

				begin := time.Now()
				_, err = d.GetRecords(t.Context(), in, opts...)
				require.Equal(t, time.Second, time.Since(begin))
				require.Empty(t, sent.requests)
				require.ErrorContains(t, err, "operation error Kinesis: GetRecords, no call of GetRecords within 1s: ")
				require.ErrorContains(t, err, "operation error STS")
				_, late := errors.AsType[*TimeoutError](err)
				require.False(t, late, "a smaller page does not mend it")
				_, told := errors.AsType[unavailable](err)
				require.True(t, told, "on which depends what to do about it")
				require.NotErrorIs(t, err, context.DeadlineExceeded, "the caller has set none")
			})
		})
	}
}

// flood gives answers that go on and on, a part each tenth of a second.
type flood struct {
	aws.HTTPClient
	length int64 // that they claim
}

func (f flood) Do(r *http.Request) (*http.Response, error) {
	resp, err := f.HTTPClient.Do(r)
	if err == nil {
		err = resp.Body.Close()
		resp.Body, resp.ContentLength = &floodBody{ctx: r.Context()}, f.length
	}
	return resp, err
}

type floodBody struct {
	ctx    context.Context //nolint:containedctx // of the request, as a transport keeps it
	closed bool
}

func (b *floodBody) Read(p []byte) (int, error) {
	time.Sleep(100 * time.Millisecond) //nolint:forbidigo // virtual time
	if b.closed {
		return 0, http.ErrBodyReadAfterClose
	}
	return len(p), b.ctx.Err()
}

func (b *floodBody) Close() error {
	b.closed = true
	return nil
}

func TestAnswerThatIsTooLargeIsNotReadToItsEnd(t *testing.T) {
	for _, length := range []int64{-1, 1 << 40} {
		for name, opts := range map[string][]func(*kinesis.Options){
			"direct":          nil,
			"through the SDK": {func(*kinesis.Options) {}},
		} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					d, sent, in := direct(t, awsfake.New(awsfake.Options{}))
					_, err := d.GetRecords(t.Context(), in)
					require.NoError(t, err)
					sent.HTTPClient = flood{sent.HTTPClient, length}
					begin := time.Now()
					_, err = d.GetRecords(t.Context(), in, opts...)
					require.ErrorContains(t, err, "the limit of 67108864", "and not that it took too long")
					require.Less(t, time.Since(begin), 10*time.Second)
				})
			})
		}
	}
}
