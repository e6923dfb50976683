package leasecli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/signal"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/benthos-plugins/aws-kinesis/internal/leases"
)

func (t *tool) watch() *cli.Command {
	return &cli.Command{
		Name:  "watch",
		Usage: "show the group again and again, and what changes",
		Description: "On a terminal the picture is refreshed, with the last changes below it. Elsewhere each change is a line, " +
			"and with `--output json` each reading is. It ends with SIGINT and SIGTERM.",
		Flags: flags(&cli.DurationFlag{Name: flagInterval, Usage: "the time between two readings", Value: 2 * time.Second, EnvVars: variable(flagInterval)}),
		Action: func(c *cli.Context) error {
			inJSON, err := asJSON(c)
			if err != nil {
				return err
			}
			if err := errors.Join(noArguments(c), positive(c, flagInterval)); err != nil {
				return err
			}
			conn, err := connect(c)
			if err != nil {
				return err
			}
			defer conn.close()
			ctx, stop := signal.NotifyContext(c.Context, syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			return t.watchWith(ctx, conn, c.Duration(flagInterval), inJSON)
		},
	}
}

// lastChanges is how many changes stand below the picture.
const lastChanges = 10

// watchWith shows one reading after the other until ctx ends. A reading that fails after
// the first is told, and made again.
func (t *tool) watchWith(ctx context.Context, conn *connection, interval time.Duration, inJSON bool) error {
	r := conn.reader()
	var before *leases.View
	var told []string
	for {
		v, err := conn.read(ctx, r)
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // it was told to end
		case err != nil && before == nil:
			return err
		case err != nil:
			fmt.Fprintf(t.err, "%s %v\n", time.Now().UTC().Format(time.RFC3339), err)
		default:
			var changes []string
			if before != nil {
				for _, change := range leases.Changes(*before, v) {
					changes = append(changes, v.At.Format(time.RFC3339)+" "+change.String())
				}
			}
			told = append(told, changes...)
			told = told[max(len(told)-lastChanges, 0):]
			if err := t.show(v, before == nil, changes, told, inJSON); err != nil {
				return err
			}
			before = &v
		}
		if pause(ctx, interval) != nil {
			return nil //nolint:nilerr // it was told to end
		}
	}
}

func (t *tool) show(v leases.View, first bool, changes, told []string, inJSON bool) error {
	switch {
	case inJSON:
		return json.NewEncoder(t.out).Encode(v)
	case t.terminal:
		var picture bytes.Buffer // in one write, lest it flickers
		picture.WriteString("\x1b[H\x1b[2J")
		fmt.Fprintf(&picture, "%s  table %s  group %s\n\n", v.At.Format(time.RFC3339), v.Table, dash(v.Group))
		if err := writeView(&picture, v); err != nil {
			return err
		}
		fmt.Fprintln(&picture)
		for _, change := range told {
			fmt.Fprintln(&picture, change)
		}
		_, err := t.out.Write(picture.Bytes())
		return err
	case first:
		return writeView(t.out, v)
	}
	for _, change := range changes {
		if _, err := fmt.Fprintln(t.out, change); err != nil {
			return err
		}
	}
	return nil
}
