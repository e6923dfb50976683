package leasecli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/benthos-plugins/aws-kinesis/internal/leasepage"
	"github.com/benthos-plugins/aws-kinesis/internal/leases"
)

const (
	flagAddress = "address"
	// headerTime is how long a client may take for its request, and closeTime how long the
	// answers that are on their way get at the end.
	headerTime = 10 * time.Second
	closeTime  = 2 * time.Second
)

func (t *tool) serve() *cli.Command {
	return &cli.Command{
		Name:  "serve",
		Usage: "serve a page that shows the group",
		Description: "The first line of the output is the page's URL. The group is read at the interval, however many look at the page. " +
			"The page has no actions, and whoever reaches the address sees it: keep to a loopback one, and use a tunnel. It ends with SIGINT and SIGTERM.",
		Flags: flags(
			&cli.StringFlag{Name: flagAddress, Usage: "the `HOST:PORT` to listen at; port 0 is a free one", Value: "127.0.0.1:4199", EnvVars: variable(flagAddress)},
			&cli.DurationFlag{Name: flagInterval, Usage: "the time between two readings", Value: 2 * time.Second, EnvVars: variable(flagInterval)},
		),
		Action: func(c *cli.Context) error {
			if err := errors.Join(noArguments(c), positive(c, flagInterval)); err != nil {
				return err
			}
			if _, _, err := net.SplitHostPort(c.String(flagAddress)); err != nil {
				return usage("flag `--%s`: `%s` is no address: write one such as `127.0.0.1:4199`", flagAddress, c.String(flagAddress))
			}
			conn, err := connect(c)
			if err != nil {
				return err
			}
			defer conn.close()
			ctx, stop := signal.NotifyContext(c.Context, syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			return t.serveAt(ctx, conn, c.String(flagAddress), c.Duration(flagInterval))
		},
	}
}

// serveAt serves the page until ctx ends.
func (t *tool) serveAt(ctx context.Context, conn *connection, address string, interval time.Duration) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("listening at %s: %w", address, err)
	}
	own, _ := listener.Addr().(*net.TCPAddr)
	if !own.IP.IsLoopback() {
		fmt.Fprintf(t.err, "Warning: whoever reaches %s sees this group: there is neither a password nor encryption.\n", own)
	}
	r := conn.reader()
	r.Eventual = true
	page := leasepage.New(leasepage.Options{
		Table: conn.table.Name(), Group: conn.table.Group(), Interval: interval, Loopback: own.IP.IsLoopback(),
		Read:   func(ctx context.Context) (leases.View, error) { return conn.read(ctx, r) },
		Failed: func(err error) { fmt.Fprintf(t.err, "%s %v\n", time.Now().UTC().Format(time.RFC3339), err) },
	})
	server := &http.Server{Handler: page, ReadHeaderTimeout: headerTime, IdleTimeout: time.Minute}

	reading, stop := context.WithCancel(ctx)
	var work sync.WaitGroup
	defer work.Wait()
	defer stop()
	work.Go(func() { page.Run(reading) })
	work.Go(func() {
		<-reading.Done()
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
		defer cancel()
		if server.Shutdown(closing) != nil {
			_ = server.Close() // what is on its way is cut off
		}
	})
	if _, err := fmt.Fprintf(t.out, "http://%s/\n", own); err != nil {
		return err
	}
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving at %s: %w", own, err)
	}
	return nil
}
