package leasecli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/benthos-plugins/aws-kinesis/internal/leases"
)

// The flags of commands that write.
const (
	flagYes    = "yes"
	flagDryRun = "dry-run"
	flagTo     = "to"
)

// writeFlags are the flags of each command that writes, with its own before them.
func writeFlags(own ...cli.Flag) []cli.Flag {
	return flags(append(own,
		&cli.BoolFlag{Name: flagYes, Aliases: []string{"y"}, Usage: "write without asking"},
		&cli.BoolFlag{Name: flagDryRun, Usage: "show what would be written, and write nothing"},
		&cli.DurationFlag{Name: flagWatch, Usage: "how long to watch at most, to tell which owners live; 0s for one reading", Value: untilProven, DefaultText: "the longest lease period of the members"},
	)...)
}

// notAllError means that a command has not done all that it was to do, as its output says.
type notAllError struct{ refused, failed int }

func (e *notAllError) Error() string {
	return fmt.Sprintf("not all was done: %d refused, %d failed", e.refused, e.failed)
}

// outcome is what a command that writes tells as JSON.
type outcome struct {
	DryRun  bool          `json:"dry_run"`
	Steps   []leases.Step `json:"steps"`
	Done    int           `json:"done"`
	Refused int           `json:"refused"`
	Failed  int           `json:"failed"` // conflicts and what was skipped too
}

// carryOut shows a plan, asks, writes, and tells what came of it.
func (t *tool) carryOut(c *cli.Context, conn *connection, p leases.Plan, inJSON bool) error {
	dry := c.Bool(flagDryRun)
	picture := t.out
	if inJSON {
		picture = t.err
	}
	ask := !dry && !c.Bool(flagYes) && p.Writes() > 0
	if !inJSON || ask {
		if err := writePlan(picture, p); err != nil {
			return err
		}
	}
	if ask {
		yes, err := t.confirm(c.Context, picture, p.Writes())
		if err != nil {
			return err
		}
		if !yes {
			return errors.New("nothing was written")
		}
	}
	if !dry {
		p = apply(c.Context, bounded{conn.table, conn.timeout}, p)
	}
	o := outcome{DryRun: dry, Steps: p.Steps, Refused: p.Refusals()}
	for _, s := range p.Steps {
		switch s.Result {
		case leases.Done:
			o.Done++
		case leases.Conflict, leases.Skipped, leases.Failed:
			o.Failed++
		}
	}
	if inJSON {
		if o.Steps == nil {
			o.Steps = []leases.Step{}
		}
		if err := writeJSON(t.out, o); err != nil {
			return err
		}
	} else {
		t.tell(p, o)
	}
	if o.Refused+o.Failed > 0 {
		return &notAllError{o.Refused, o.Failed}
	}
	return nil
}

// apply carries a plan out until a signal says to end, after which it is told what was
// written. A second signal ends the process at once.
func apply(ctx context.Context, w leases.Writer, p leases.Plan) leases.Plan {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	return leases.Apply(ctx, w, p)
}

// tell says what came of a plan that has been shown.
func (t *tool) tell(p leases.Plan, o outcome) {
	for _, s := range p.Steps {
		if s.Error != "" {
			fmt.Fprintf(t.out, "%s: %s: %s\n", s.Describe(), s.Result, s.Error)
		}
	}
	if o.DryRun {
		fmt.Fprintf(t.out, "\n%d writes, %d refused. Nothing was written.\n", p.Writes(), o.Refused)
		return
	}
	fmt.Fprintf(t.out, "\n%d done, %d refused, %d failed.\n", o.Done, o.Refused, o.Failed)
}

// confirm asks whether to write. Anything but yes is no.
func (t *tool) confirm(ctx context.Context, out io.Writer, writes int) (bool, error) {
	fmt.Fprintf(out, "\nWrite these %d? y/N ", writes)
	answer := make(chan string, 1)
	// It ends with the process where nobody answers.
	go func() {
		line, _ := bufio.NewReader(t.in).ReadString('\n') // the end of the input is no
		answer <- line
	}()
	select {
	case line := <-answer:
		line = strings.ToLower(strings.TrimSpace(line))
		return line == "y" || line == "yes", nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

func writePlan(out io.Writer, p leases.Plan) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "WHAT\tACT\tFROM\tTO\tREAD AGAIN\tSKIPPED\tWHY\n")
	span := func(s *leases.Seconds) string {
		if s == nil {
			return "-"
		}
		return s.Duration().Round(time.Second).String()
	}
	for _, s := range p.Steps {
		act, why := string(s.Act), s.Why
		if s.Refused != "" {
			act, why = "REFUSED", s.Refused
		}
		from, to := "-", "-"
		if s.Shard != "" {
			from = s.From.String()
		}
		if s.To != nil {
			to = s.To.String()
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", s.Describe(), act, from, to, span(s.Again), span(s.Skipped), why)
	}
	if len(p.Steps) == 0 {
		fmt.Fprintln(w, "nothing")
	}
	return w.Flush()
}

// settle reads the group until it is known of each member whether it lives, for the
// longest lease period at most.
func (c *connection) settle(cc *cli.Context) (leases.View, error) {
	r, began := c.reader(), time.Now()
	for {
		v, err := c.read(cc.Context, r)
		if err != nil {
			return leases.View{}, err
		}
		most := cc.Duration(flagWatch)
		if most == untilProven {
			most = 0
			for _, m := range v.Members {
				most = max(most, m.LeasePeriod.Duration()+slack)
			}
		}
		if proven(v) && (cc.Duration(flagWatch) == untilProven || foreignProven(v)) || time.Since(began) >= most {
			return v, nil
		}
		if err := pause(cc.Context, min(betweenReadings, most-time.Since(began))); err != nil {
			return leases.View{}, err
		}
	}
}

// foreignProven reports whether it is known of each built-in input whether it lives.
func foreignProven(v leases.View) bool {
	for _, s := range v.Streams {
		for _, sh := range s.Shards {
			if sh.Foreign && sh.Owner != "" && sh.Life == leases.Unproven {
				return false
			}
		}
	}
	return true
}

// writing begins a command that writes: it checks the flags that all have.
func (t *tool) writing(c *cli.Context) (inJSON bool, conn *connection, err error) {
	if inJSON, err = asJSON(c); err != nil {
		return false, nil, err
	}
	if c.Bool(flagYes) && c.Bool(flagDryRun) {
		return false, nil, usage("flags `--yes` and `--dry-run`: one writes and the other does not: leave one out")
	}
	if !t.asks && !c.Bool(flagYes) && !c.Bool(flagDryRun) {
		return false, nil, usage("nobody is there to confirm what is to be written, since the standard input is no terminal: write `--yes` to have it written, or `--dry-run` to see it")
	}
	conn, err = connect(c)
	return inJSON, conn, err
}

func (t *tool) release() *cli.Command {
	return &cli.Command{
		Name:      "release",
		Usage:     "free shards whose owners are dead or gone, or did not claim what was handed over to them",
		ArgsUsage: "[SHARD...]",
		Description: "Without arguments, all such shards are freed. An owner who lives, or may, is refused. " +
			"How far the shards are read stays. A running group does this by itself.",
		Flags: writeFlags(),
		Action: func(c *cli.Context) error {
			inJSON, conn, err := t.writing(c)
			if err != nil {
				return err
			}
			defer conn.close()
			v, err := conn.settle(c)
			if err != nil {
				return err
			}
			var which func(leases.Shard) bool
			if c.Args().Present() {
				named := map[[2]string]bool{}
				for _, written := range c.Args().Slice() {
					stream, shard, err := find(v, written)
					if err != nil {
						return err
					}
					named[[2]string{stream, shard}] = true
				}
				which = func(s leases.Shard) bool { return named[[2]string{s.Stream, s.Shard}] }
			}
			return t.carryOut(c, conn, leases.PlanRelease(v, which), inJSON)
		},
	}
}

func (t *tool) evict() *cli.Command {
	return &cli.Command{
		Name:      "evict",
		Usage:     "put a member that is dead out of the group",
		ArgsUsage: "MEMBER",
		Description: "The member is watched for its lease period. One that lives, or may, is refused: stop it instead. " +
			"Its shards can be claimed then. A running group does this by itself.",
		Flags: writeFlags(),
		Action: func(c *cli.Context) error {
			if c.Args().Len() != 1 {
				return usage("`evict` takes one member, and has %d arguments: write flags first and the id last, as `list` shows it", c.Args().Len())
			}
			inJSON, conn, err := t.writing(c)
			if err != nil {
				return err
			}
			defer conn.close()
			v, err := conn.settle(c)
			if err != nil {
				return err
			}
			p, ok := leases.PlanEvict(v, c.Args().First())
			if !ok {
				return fmt.Errorf("no member `%s` is in the group, which has %d members: `list` shows them", c.Args().First(), len(v.Members))
			}
			return t.carryOut(c, conn, p, inJSON)
		},
	}
}
