package leasecli

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/benthos-plugins/aws-kinesis/internal/leases"
	"github.com/benthos-plugins/aws-kinesis/internal/retrieval"
	"github.com/benthos-plugins/aws-kinesis/internal/sequence"
)

func (t *tool) reset() *cli.Command {
	return &cli.Command{
		Name:      "reset",
		Usage:     "have a stream, or one shard of it, read from somewhere else",
		ArgsUsage: "[SHARD]",
		Description: "The pipelines that read the stream have to be stopped first. Without SHARD all shards of the stream are reset, finished ones too. " +
			"The plan says how much is read again or skipped, as far as the table or the records tell.",
		Flags: writeFlags(&cli.StringFlag{
			Name:  flagTo,
			Usage: "`WHERE` to read from: `oldest`, `latest`, a time such as 2026-11-30T08:00:00Z, from which on everything is read, or a sequence number, after which one shard is read",
		}),
		Action: func(c *cli.Context) error {
			to, err := targetOf(c.String(flagTo))
			if err != nil {
				return err
			}
			if c.Args().Len() > 1 {
				return usage("`reset` takes one shard at most, and has %d arguments: write flags first", c.Args().Len())
			}
			if to.After != "" && !c.Args().Present() {
				return usage("flag `--to`: a sequence number is one of a single shard: write that too, such as `reset --to %s orders:0`", to.After)
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
			stream, shard, err := meant(v, c.Args().First())
			if err != nil {
				return err
			}
			probed := conn.probe(c.Context, v, stream, shard, to)
			return t.carryOut(c, conn, leases.PlanReset(v, stream, shard, to, probed), inJSON)
		},
	}
}

// targetOf reads the value of --to.
func targetOf(written string) (leases.Target, error) {
	switch written {
	case "":
		return leases.Target{}, usage("flag `--to`: nothing says where to read from: write `oldest`, `latest`, a time or a sequence number")
	case "oldest":
		return leases.Target{Oldest: true}, nil
	case "latest":
		return leases.Target{Latest: true}, nil
	}
	if sequence.Valid(written) {
		return leases.Target{After: written}, nil
	}
	at, err := timeOf(written)
	if err != nil {
		return leases.Target{}, usage("flag `--to`: `%s` is none of `oldest`, `latest`, a time such as 2026-11-30T08:00:00Z and a sequence number", written)
	}
	return leases.Target{At: at}, nil
}

// timeOf reads a time as an operator writes it.
func timeOf(written string) (time.Time, error) {
	at, err := time.Parse(time.RFC3339Nano, written)
	return at.UTC(), err
}

// meant returns the stream that is meant, and the shard where one is written.
func meant(v leases.View, written string) (stream, shard string, err error) {
	if written != "" {
		return find(v, written)
	}
	var names []string
	for _, s := range v.Streams {
		names = append(names, s.Name)
	}
	if len(names) != 1 {
		return "", "", usage("flag `--stream`: one stream is to be named, and there are %d: %s", len(names), strings.Join(names, ", "))
	}
	return names[0], "", nil
}

// probesAtOnce is how many shards are looked at beside one another.
const probesAtOnce = 10

// probe finds out when records arrived where the table does not tell. What it may not
// read stays unknown.
func (c *connection) probe(ctx context.Context, v leases.View, name, shard string, to leases.Target) map[string]leases.Probed {
	stream, _ := v.Stream(name)
	probe, all := retrieval.NewProbe(c.kinesis), map[string]leases.Probed{}
	var mu sync.Mutex
	var workers sync.WaitGroup
	turns := make(chan struct{}, probesAtOnce)
	for _, s := range stream.Shards {
		if !s.Listed || shard != "" && s.Shard != shard {
			continue
		}
		turns <- struct{}{}
		workers.Go(func() {
			defer func() { <-turns }()
			ctx, cancel := context.WithTimeout(ctx, c.timeout)
			defer cancel()
			var p leases.Probed
			arrival := func(number string) time.Time {
				r, ok, err := probe.At(ctx, name, s.Shard, number)
				if err != nil || !ok {
					return time.Time{}
				}
				return r.Arrived
			}
			if s.Sequence != "" && !s.EarlierStream {
				p.Last = arrival(s.Sequence)
			}
			if to.Oldest {
				if r, ok, err := probe.Oldest(ctx, name, s.Shard); err == nil && ok {
					p.Oldest = r.Arrived
				}
			}
			if to.After != "" {
				p.Target = arrival(to.After)
			}
			mu.Lock()
			defer mu.Unlock()
			all[s.Shard] = p
		})
	}
	workers.Wait()
	return all
}
