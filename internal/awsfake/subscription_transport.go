package awsfake

import (
	"context"
	"errors"
	"io"
	"net/http"
)

// serve sends a subscription over a socket, on the goroutine of its request,
// with a flush for each frame. A connection that breaks is aborted.
func (sub *subscription) serve(ctx context.Context, w http.ResponseWriter) {
	out := http.NewResponseController(w)
	// The headers go first and alone: the first frame may be long in coming. If
	// the client has left, the first frame finds that out.
	_ = out.Flush()
	err := sub.run(ctx, func(frame []byte) error {
		if _, err := w.Write(frame); err != nil {
			return err
		}
		return out.Flush()
	})
	if err != nil {
		panic(http.ErrAbortHandler)
	}
}

// pipe sends a subscription in process, on a goroutine that ends with the
// request's context, the body or the server. The body has no buffer, so that a
// client that does not read holds the subscription up.
func (sub *subscription) pipe(ctx context.Context) io.ReadCloser {
	r, w := io.Pipe()
	ctx, cancel := context.WithCancel(ctx)
	// The subscription is counted there already, so that this is no late Add.
	sub.server.serving.Go(func() {
		defer cancel()
		stop := context.AfterFunc(sub.server.ctx, cancel)
		defer stop()
		// A frame that nobody reads does not outlive its request.
		unblock := context.AfterFunc(ctx, func() { _ = w.CloseWithError(sub.broken(ctx.Err())) })
		err := sub.run(ctx, func(frame []byte) error {
			_, err := w.Write(frame)
			return err
		})
		unblock()
		if err != nil {
			err = sub.broken(err)
		}
		_ = w.CloseWithError(err) // without an error it is the clean end
	})
	return body{r, cancel}
}

// broken is how a client sees the end of its connection.
func (sub *subscription) broken(err error) error {
	if errors.Is(err, errCut) || sub.server.ctx.Err() != nil {
		return io.ErrUnexpectedEOF
	}
	return err
}

// body is an answer's body in process. Closing it tells the subscription, which
// might not write for a while.
type body struct {
	*io.PipeReader
	cancel context.CancelFunc
}

func (b body) Close() error {
	b.cancel()
	return b.PipeReader.Close()
}
