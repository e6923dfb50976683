// Package leasecli has the commands of `benthos-kinesis leases`: flags, what is written to
// a terminal and as JSON, and exit codes. What a group looks like and what it means is for
// internal/leases, and what stands in the table for internal/table.
package leasecli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
)

// The exit codes.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2 // a flag or an argument is wrong, and nothing was called
)

// tool is one run of the commands.
type tool struct {
	in       io.Reader
	out, err io.Writer
	terminal bool // whether out is one
	asks     bool // whether somebody is there to answer
}

// usageError is a mistake in what was written on the command line.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usage(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// Run runs a command with the arguments that follow `leases`, and returns the exit code.
// It ends with ctx.
func Run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	return (&tool{in: in, out: out, err: errOut, terminal: isTerminal(out), asks: isTerminal(in)}).run(ctx, args)
}

func (t *tool) run(ctx context.Context, args []string) int {
	err := t.app().RunContext(ctx, append([]string{"benthos-kinesis leases"}, args...))
	if err == nil {
		return exitOK
	}
	fmt.Fprintf(t.err, "Error: %v\n", err)
	if _, wrong := errors.AsType[*usageError](err); wrong {
		return exitUsage
	}
	return exitFailure
}

func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

func (t *tool) app() *cli.App {
	app := &cli.App{
		Name:  "benthos-kinesis leases",
		Usage: "show who reads which shard, how far and why, and change it",
		Description: "Reads the DynamoDB table of the aws_kinesis input and the streams. " +
			"What writes to the table shows first what it is about to do, and asks.",
		Reader: t.in, Writer: t.out, ErrWriter: t.err,
		HideVersion:          true,
		EnableBashCompletion: true,
		Commands: []*cli.Command{
			t.list(), t.watch(), t.explain(), t.reset(), t.release(), t.evict(), t.importKCL(), t.export(), t.restore(), t.copy(), t.prune(), t.serve(), t.completion(),
		},
		// Codes and messages are those of Run.
		ExitErrHandler: func(*cli.Context, error) {},
		Action: func(c *cli.Context) error {
			if unknown := c.Args().First(); unknown != "" {
				return usage("there is no command `%s`: write one of %s", unknown, strings.Join(names(c.App), ", "))
			}
			return cli.ShowAppHelp(c)
		},
	}
	app.OnUsageError = onUsageError
	for _, c := range app.Commands {
		c.OnUsageError = onUsageError
	}
	return app
}

func onUsageError(_ *cli.Context, err error, _ bool) error {
	return usage("%v: see `--help`", err)
}

func names(app *cli.App) (all []string) {
	for _, c := range app.VisibleCommands() {
		if c.Name != "help" {
			all = append(all, c.Name)
		}
	}
	return all
}

// The names of flags that more than one place knows.
const (
	flagTable    = "table"
	flagGroup    = "group"
	flagStream   = "stream"
	flagOutput   = "output"
	flagTimeout  = "timeout"
	flagInterval = "interval"
	flagWatch    = "watch"
)

// variable is what the environment variable of a flag is called.
func variable(flag string) []string {
	return []string{"KINESIS_LEASES_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))}
}

// flags are those of each command that reaches AWS, with its own before them.
func flags(own ...cli.Flag) []cli.Flag {
	text := func(name, usage string) cli.Flag {
		return &cli.StringFlag{Name: name, Usage: usage, EnvVars: variable(name)}
	}
	return append(own,
		text(flagTable, "the DynamoDB `TABLE`, a name or an ARN; `dynamodb.table` of the input"),
		text(flagGroup, "the `GROUP` in it, where the input has one"),
		&cli.StringSliceFlag{Name: flagStream, Usage: "a `STREAM`, exactly as `streams` of the input has it, a name or an ARN; may be repeated", EnvVars: variable(flagStream)},
		text("region", "the `REGION`; by default that of the environment"),
		text("endpoint", "the base `URL` of Kinesis, and of what has no other, where it is not that of AWS"),
		text("dynamodb-region", "the `REGION` of the table, where it is another"),
		text("dynamodb-endpoint", "the base `URL` of DynamoDB, where it is another"),
		text("profile", "the `PROFILE` of the shared configuration"),
		text("role-arn", "the `ARN` of a role to assume"),
		text("role-external-id", "the external `ID` for that role"),
		&cli.StringFlag{Name: flagOutput, Usage: "how to write: table or json", Value: "table", EnvVars: variable(flagOutput)},
		&cli.DurationFlag{Name: flagTimeout, Usage: "how long one reading may take", Value: 30 * time.Second, EnvVars: variable(flagTimeout)},
	)
}

// asJSON reports whether to write JSON.
func asJSON(c *cli.Context) (bool, error) {
	switch written := c.String(flagOutput); written {
	case "json":
		return true, nil
	case "table":
		return false, nil
	default:
		return false, usage("flag `--output`: `%s` is no form: write `table` or `json`", written)
	}
}

// positive finds durations that are none.
func positive(c *cli.Context, flags ...string) error {
	for _, name := range flags {
		if slices.Contains(c.FlagNames(), name) && c.Duration(name) <= 0 {
			return usage("flag `--%s`: %s is no time to wait: write one such as `5s`", name, c.Duration(name))
		}
	}
	return nil
}

// noArguments finds arguments where a command takes none.
func noArguments(c *cli.Context) error {
	if c.Args().Present() {
		return usage("`%s` takes no arguments, and `%s` is one: write a stream as `--stream %s`", c.Command.Name, c.Args().First(), c.Args().First())
	}
	return nil
}
