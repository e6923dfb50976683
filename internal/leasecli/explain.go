package leasecli

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/benthos-plugins/aws-kinesis/internal/leases"
	"github.com/benthos-plugins/aws-kinesis/internal/lineage"
)

// untilProven is the value of --watch that means the lease period of the owner.
const untilProven = -1

// slack is how long beyond an owner's lease period it is watched at most.
const slack = 3 * time.Second

func (t *tool) explain() *cli.Command {
	return &cli.Command{
		Name:      "explain",
		Usage:     "say why a shard is or is not read, and what to do",
		ArgsUsage: "SHARD",
		Description: "SHARD is a number or an id, after its stream and a colon where the group has several: `3`, `orders:3`, `orders:shardId-000000000003`. " +
			"Whether its owner lives is watched, for the owner's lease period at most.",
		Flags: flags(&cli.DurationFlag{Name: flagWatch, Usage: "how long to watch its owner at most; 0s for one reading", Value: untilProven, DefaultText: "the owner's lease period", EnvVars: variable("explain-watch")}),
		Action: func(c *cli.Context) error {
			inJSON, err := asJSON(c)
			if err != nil {
				return err
			}
			if c.Args().Len() != 1 {
				return usage("`explain` takes one shard, and has %d arguments: write flags first and the shard last, such as `explain --table leases orders:0`", c.Args().Len())
			}
			conn, err := connect(c)
			if err != nil {
				return err
			}
			defer conn.close()
			e, err := conn.explain(c, c.Args().First())
			if err != nil {
				return err
			}
			if inJSON {
				return writeJSON(t.out, e)
			}
			fmt.Fprintf(t.out, "%s:%s is %s\n", e.Stream, e.Shard, e.State)
			for _, r := range e.Reasons {
				fmt.Fprintf(t.out, "\n- %s\n", strings.TrimSpace(r.Text))
				if r.Remedy != "" {
					fmt.Fprintf(t.out, "  What to do: %s\n", r.Remedy)
				}
			}
			return nil
		},
	}
}

// explain watches a shard until it is known whether its owner lives.
func (c *connection) explain(cc *cli.Context, written string) (leases.Explanation, error) {
	r, began, most := c.reader(), time.Now(), cc.Duration(flagWatch)
	for {
		v, err := c.read(cc.Context, r)
		if err != nil {
			return leases.Explanation{}, err
		}
		stream, shard, err := find(v, written)
		if err != nil {
			return leases.Explanation{}, err
		}
		e, _ := leases.Explain(v, stream, shard)
		if sh, _ := v.Shard(stream, shard); sh.Life != leases.Unproven && sh.Life != leases.Late || time.Since(began) >= patience(v, sh, most) {
			return e, nil
		}
		if err := pause(cc.Context, betweenReadings); err != nil {
			return leases.Explanation{}, err
		}
	}
}

// patience is how long to watch the owner of a shard. A built-in input has no lease period
// that anybody knows, and is not waited for.
func patience(v leases.View, sh leases.Shard, most time.Duration) time.Duration {
	if most != untilProven {
		return most
	}
	m, ok := v.Member(sh.Owner)
	if !ok {
		return 0
	}
	return m.LeasePeriod.Duration() + slack
}

// find returns the stream and the id of a shard that was written with or without its
// stream.
func find(v leases.View, written string) (stream, shard string, err error) {
	shard = written
	if i := strings.LastIndex(written, ":"); i >= 0 {
		stream, shard = written[:i], written[i+1:]
	}
	id := lineage.ShardID(shard)
	var found []string
	for _, s := range v.Streams {
		if stream != "" && s.Name != stream {
			continue
		}
		if slices.ContainsFunc(s.Shards, func(sh leases.Shard) bool { return sh.Shard == id }) {
			found = append(found, s.Name)
		}
	}
	switch len(found) {
	case 1:
		return found[0], id, nil
	case 0:
		var streams []string
		for _, s := range v.Streams {
			streams = append(streams, fmt.Sprintf("%s with %d shards", s.Name, len(s.Shards)))
			if s.Error != "" {
				streams[len(streams)-1] += " (" + s.Error + ")"
			}
		}
		if len(streams) == 0 {
			streams = []string{"no stream: write one as `--stream`"}
		}
		if _, ok := v.Stream(written); ok {
			return "", "", usage("`%s` is a stream: write one of its shards, as in `%s:3`, or `--stream %s` for a command that takes a whole one", written, written, written)
		}
		return "", "", fmt.Errorf("neither the table nor a stream has a shard `%s`: the group has %s", written, strings.Join(streams, ", "))
	}
	return "", "", usage("%d streams have a shard `%s`: write one of %s", len(found), written, strings.Join(found, ":"+shard+", ")+":"+shard)
}
