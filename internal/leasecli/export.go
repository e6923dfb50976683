package leasecli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/benthos-plugins/aws-kinesis/internal/leases"
	"github.com/benthos-plugins/aws-kinesis/internal/table"
)

const (
	flagAllowBack = "allow-back"
	flagToStream  = "to-stream"
	flagToGroup   = "to-group"
)

func (t *tool) export() *cli.Command {
	return &cli.Command{
		Name:        "export",
		Usage:       "write where all shards stand as JSON",
		Description: "It writes no owners, and nothing to the table. `import` reads it.",
		Flags:       flags(),
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			conn, err := connect(c)
			if err != nil {
				return err
			}
			defer conn.close()
			v, err := conn.read(c.Context, conn.reader())
			if err != nil {
				return err
			}
			for _, s := range v.Streams {
				if s.Error != "" {
					fmt.Fprintf(t.err, "Stream %s cannot be listed, so that the file does not tell its shards from others: %s\n", s.Name, s.Error)
				}
			}
			return writeJSON(t.out, leases.ExportOf(v))
		},
	}
}

func (t *tool) restore() *cli.Command {
	return &cli.Command{
		Name:      "import",
		Usage:     "have shards stand where a file says that `export` wrote",
		ArgsUsage: "FILE",
		Description: "FILE may be `-` for the standard input, with `--yes`. The pipelines have to be stopped first. " +
			"A shard that is further on than in the file is refused.",
		Flags: writeFlags(&cli.BoolFlag{Name: flagAllowBack, Usage: "have shards read again that are further on than in the file"}),
		Action: func(c *cli.Context) error {
			if c.Args().Len() != 1 {
				return usage("`import` takes one file, and has %d arguments: write flags first and the file last", c.Args().Len())
			}
			e, err := t.readExport(c.Args().First())
			if err != nil {
				return fmt.Errorf("reading %s: %w", c.Args().First(), err)
			}
			if named := c.StringSlice(flagStream); len(named) > 0 {
				e.Streams = slices.DeleteFunc(e.Streams, func(s leases.ExportedStream) bool { return !slices.Contains(named, s.Name) })
				if len(e.Streams) != len(named) {
					return usage("flag `--stream`: the file has only %d of the %d streams that are named", len(e.Streams), len(named))
				}
			}
			inJSON, conn, err := t.writing(c)
			if err != nil {
				return err
			}
			defer conn.close()
			conn.streams = nil
			for _, s := range e.Streams {
				conn.streams = append(conn.streams, s.Name)
			}
			v, err := conn.settle(c)
			if err != nil {
				return err
			}
			return t.carryOut(c, conn, leases.PlanRestore(v, e, c.Bool(flagAllowBack)), inJSON)
		},
	}
}

// readExport reads a file that export wrote.
func (t *tool) readExport(name string) (e leases.Export, err error) {
	from := t.in
	if name != "-" {
		f, err := os.Open(name) //nolint:gosec // the operator names it
		if err != nil {
			return leases.Export{}, err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		from = f
	}
	content, err := io.ReadAll(from)
	if err != nil {
		return leases.Export{}, err
	}
	if err := json.Unmarshal(content, &e); err != nil {
		return leases.Export{}, fmt.Errorf("it is not what `export` writes: %w", err)
	}
	return e, e.Check()
}

func (t *tool) copy() *cli.Command {
	return &cli.Command{
		Name:  "copy",
		Usage: "have a stream go on where another one stands that has the same shards, or another group",
		Description: "From a name to its ARN or the other way round, or to another group in the table. " +
			"The target has to be stopped, and the source too within one group. What the target has already is never overwritten.",
		Flags: writeFlags(
			&cli.StringFlag{Name: flagToStream, Usage: "the `STREAM` that is to go on; by default the same"},
			&cli.StringFlag{Name: flagToGroup, Usage: "the `GROUP` that is to go on, `-` for the one without a name; by default the same"},
		),
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			if len(c.StringSlice(flagStream)) != 1 {
				return usage("flag `--stream`: write the stream that is copied, once")
			}
			source, group := c.StringSlice(flagStream)[0], c.String(flagGroup)
			target, toGroup := source, group
			if s := c.String(flagToStream); s != "" {
				target = s
			}
			switch s := c.String(flagToGroup); {
			case s == "-":
				toGroup = ""
			case s != "" && !groupName.MatchString(s):
				return usage("flag `--to-group`: `%s` is not 1 to 128 letters, digits, dots, dashes and underscores", s)
			case s != "":
				toGroup = s
			}
			if target == source && toGroup == group {
				return usage("flags `--to-stream` and `--to-group`: nothing says where to copy to: write one of them, or both")
			}
			inJSON, conn, err := t.writing(c)
			if err != nil {
				return err
			}
			defer conn.close()
			from, err := conn.settle(c)
			if err != nil {
				return err
			}
			into := *conn
			into.table, into.streams = table.New(conn.db, conn.table.Name(), toGroup), []string{target}
			to, err := into.settle(c)
			if err != nil {
				return err
			}
			return t.carryOut(c, &into, leases.PlanCopy(from, source, to, target), inJSON)
		},
	}
}
