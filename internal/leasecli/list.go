package leasecli

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/benthos-plugins/aws-kinesis/internal/leases"
)

// betweenReadings is how often a group is read of which something is to be found out.
const betweenReadings = time.Second

func (t *tool) list() *cli.Command {
	return &cli.Command{
		Name:  "list",
		Usage: "show the members of the group and all shards",
		Flags: flags(&cli.DurationFlag{Name: flagWatch, Usage: "how long to watch, to tell which owners live; 0s for one reading", EnvVars: variable("list-watch")}),
		Action: func(c *cli.Context) error {
			inJSON, err := asJSON(c)
			if err != nil {
				return err
			}
			if err := noArguments(c); err != nil {
				return err
			}
			conn, err := connect(c)
			if err != nil {
				return err
			}
			defer conn.close()
			v, err := conn.readFor(c.Context, conn.reader(), c.Duration(flagWatch), betweenReadings, proven)
			if err != nil {
				return err
			}
			if inJSON {
				return writeJSON(t.out, v)
			}
			return writeView(t.out, v)
		},
	}
}

// proven reports whether it is known of each member whether it lives.
func proven(v leases.View) bool {
	for _, m := range v.Members {
		if m.Life != leases.Alive && m.Life != leases.Dead {
			return false
		}
	}
	return true
}

func writeJSON(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func writeView(out io.Writer, v leases.View) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "MEMBER\tLIFE\tUNCHANGED\tPERIOD\tSHARDS\tSTREAMS\n")
	for _, m := range v.Members {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\n", m.ID, m.Life, m.Still.Duration().Round(time.Second), m.LeasePeriod.Duration(), m.Shards,
			cmp.Or(strings.Join(m.Streams, ","), "(named shards)"))
	}
	for _, s := range v.Streams {
		fmt.Fprintf(w, "\nSTREAM\t%s\n", s.Name)
		if s.Error != "" {
			fmt.Fprintf(w, "cannot be listed:\t%s\n", s.Error)
		}
		fmt.Fprintf(w, "SHARD\tSTATE\tOWNER\tLIFE\tLAG\tSEQUENCE\tPARENTS\tNOTES\n")
		for _, sh := range s.Shards {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", short(sh.Shard), sh.State, dash(sh.Owner), dash(string(sh.Life)),
				lag(sh), dash(sequenceOf(sh)), dash(shorts(sh.Parents)), notes(sh))
		}
	}
	return w.Flush()
}

// short is a shard as an operator writes it, and as all commands take it.
func short(shard string) string {
	if n := strings.TrimLeft(strings.TrimPrefix(shard, "shardId-"), "0"); len(shard) == len("shardId-000000000000") {
		return cmp.Or(n, "0")
	}
	return shard
}

func shorts(shards []string) string {
	all := make([]string, len(shards))
	for i, id := range shards {
		all[i] = short(id)
	}
	return strings.Join(all, ",")
}

func dash(s string) string { return cmp.Or(s, "-") }

func lag(sh leases.Shard) string {
	if sh.Lag == nil || sh.State == leases.Finished {
		return "-"
	}
	return sh.Lag.Duration().String()
}

// sequenceOf is the sequence number, with how much of the record after it is acknowledged.
func sequenceOf(sh leases.Shard) string {
	if sh.Inside == nil {
		return sh.Sequence
	}
	return fmt.Sprintf("%s +%d", cmp.Or(sh.Sequence, "(start)"), sh.Inside.Records)
}

func notes(sh leases.Shard) string {
	var all []string
	note := func(is bool, text string) {
		if is {
			all = append(all, text)
		}
	}
	note(sh.Closed && sh.State != leases.Finished, "closed")
	note(sh.Pinned, "pinned")
	note(sh.Foreign, "built-in input")
	note(sh.LiteralOwner, "by item "+strings.Join(sh.Literals, ","))
	note(sh.EarlierStream, "item of an earlier stream")
	note(sh.Malformed != "", "item malformed")
	return strings.Join(all, ", ")
}
