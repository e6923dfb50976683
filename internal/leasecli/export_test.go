package leasecli

import (
	"context"
	"io"
)

// RunAsking is Run on a terminal.
func RunAsking(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	return (&tool{in: in, out: out, err: errOut, asks: true}).run(ctx, args)
}
