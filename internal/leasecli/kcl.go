package leasecli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/benthos-plugins/aws-kinesis/internal/kpl"
	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/leases"
	"github.com/benthos-plugins/aws-kinesis/internal/retrieval"
	"github.com/benthos-plugins/aws-kinesis/internal/sequence"
	"github.com/benthos-plugins/aws-kinesis/internal/session"
	"github.com/benthos-plugins/aws-kinesis/internal/table"
)

const (
	flagKCLTable  = "kcl-table"
	flagKCLWatch  = "kcl-watch"
	flagAt        = "at"
	usualFailover = 12 * time.Second // the library's own 10s, and a little more
)

func (t *tool) importKCL() *cli.Command {
	return &cli.Command{
		Name:  "import-kcl",
		Usage: "go on where an application of the Kinesis Client Library has stopped",
		Description: "Reads the lease table of an application of that library, 1, 2 or 3, and writes where its shards stand to the table of the input. " +
			"The application has to be stopped, and the input not started yet. A table of several streams names them; of any other `--stream` says of which it is.",
		Flags: writeFlags(
			&cli.StringFlag{Name: flagKCLTable, Usage: "the lease `TABLE` of the application: mostly its name"},
			&cli.StringFlag{Name: flagAt, Usage: "the `TIME` at which the application was told to start, where leases say AT_TIMESTAMP"},
			&cli.DurationFlag{Name: flagKCLWatch, Usage: "how long to watch whether leases are renewed: longer than the fail-over time of the application", Value: usualFailover},
		),
		Action: func(c *cli.Context) error {
			if strings.TrimSpace(c.String(flagKCLTable)) == "" {
				return usage("flag `--kcl-table`: no table is named: write the lease table of the application, which mostly has its name")
			}
			var at time.Time
			if written := c.String(flagAt); written != "" {
				var err error
				if at, err = timeOf(written); err != nil {
					return usage("flag `--at`: `%s` is no time: write one such as 2026-11-30T08:00:00Z", written)
				}
			}
			if err := errors.Join(noArguments(c), positive(c, flagKCLWatch)); err != nil {
				return err
			}
			inJSON, conn, err := t.writing(c)
			if err != nil {
				return err
			}
			defer conn.close()
			imports, err := conn.kclLeases(c)
			if err != nil {
				return err
			}
			conn.streams = nil
			for _, i := range imports {
				conn.streams = append(conn.streams, i.Stream)
			}
			v, err := conn.settle(c)
			if err != nil {
				return err
			}
			var all []leases.Plan
			for _, i := range imports {
				i.At = at
				i.Places = conn.places(c.Context, v, i)
				all = append(all, leases.PlanImport(v, i))
			}
			return t.carryOut(c, conn, leases.Join(all...), inJSON)
		},
	}
}

// kclLeases reads the leases of an application, twice where some have owners, and returns
// them by the streams of which they are.
func (c *connection) kclLeases(cc *cli.Context) ([]leases.Import, error) {
	name := cc.String(flagKCLTable)
	read := func() ([]table.KCLLease, error) {
		return in(cc.Context, c.timeout, func(ctx context.Context) ([]table.KCLLease, error) {
			all, err := table.KCLLeases(ctx, c.db, name)
			about := c.about[serviceTable]
			about.Table = name
			if err != nil {
				return nil, fmt.Errorf("reading what `--kcl-table` names: %w", session.Explain(err, about))
			}
			return all, nil
		})
	}
	before, err := read()
	if err != nil {
		return nil, err
	}
	if len(before) == 0 {
		return nil, fmt.Errorf("table %s has no leases of the Kinesis Client Library", name)
	}
	after := before
	if slices.ContainsFunc(before, func(l table.KCLLease) bool { return l.Owner != "" }) {
		if err := pause(cc.Context, cc.Duration(flagKCLWatch)); err != nil {
			return nil, err
		}
		if after, err = read(); err != nil {
			return nil, err
		}
	}
	return importsOf(c.streams, before, after)
}

// importsOf says which leases are of which stream, of those that were named or of all, and
// which owners have renewed one.
func importsOf(named []string, before, after []table.KCLLease) ([]leases.Import, error) {
	was := map[table.KCLLease]bool{} // without what a renewal changes
	for _, l := range before {
		was[l] = true
	}
	living := map[string]bool{}
	byStream := map[string][]table.KCLLease{}
	created := map[string]time.Time{}
	for _, l := range after {
		if !was[l] {
			living[l.Owner] = true
		}
		byStream[l.Stream] = append(byStream[l.Stream], l)
		if first, ok := created[l.Stream]; ok && !first.Equal(l.Created) {
			return nil, fmt.Errorf("the table has leases of two streams %s, created at %s and %s: remove those of the one that was deleted", l.Stream, first.Format(time.RFC3339), l.Created.Format(time.RFC3339))
		}
		created[l.Stream] = l.Created
	}
	single, several := byStream[""], len(byStream) > 1 || len(byStream[""]) == 0
	if !several {
		if len(named) != 1 {
			return nil, usage("flag `--stream`: the table of the application does not say of which stream it is: write that, once")
		}
		return []leases.Import{{Stream: named[0], Leases: single, Living: slices.Sorted(maps.Keys(living))}}, nil
	}
	if len(named) == 0 {
		named = slices.Sorted(maps.Keys(byStream))
	}
	var all []leases.Import
	for _, stream := range named {
		found, ok := byStream[nameOf(stream)]
		if !ok {
			return nil, fmt.Errorf("the table of the application has no leases of stream %s: it has those of %s", stream, strings.Join(slices.Sorted(maps.Keys(byStream)), ", "))
		}
		all = append(all, leases.Import{Stream: stream, Leases: found, Living: slices.Sorted(maps.Keys(living))})
	}
	return all, nil
}

// nameOf is the name of a stream that is a name or an ARN.
func nameOf(stream string) string {
	if _, name, ok := strings.Cut(stream, ":stream/"); ok {
		return name
	}
	return stream
}

// places finds out where reading goes on after the checkpoints of leases.
func (c *connection) places(ctx context.Context, v leases.View, i leases.Import) map[string]leases.Place {
	stream, _ := v.Stream(i.Stream)
	listed := map[string]bool{}
	for _, s := range stream.Shards {
		listed[s.Shard] = s.Listed
	}
	probe, all := retrieval.NewProbe(c.kinesis), map[string]leases.Place{}
	var mu sync.Mutex
	var workers sync.WaitGroup
	turns := make(chan struct{}, probesAtOnce)
	for _, l := range i.Leases {
		if !listed[l.Shard] || !sequence.Valid(l.Checkpoint) || len(i.Living) > 0 {
			continue
		}
		turns <- struct{}{}
		workers.Go(func() {
			defer func() { <-turns }()
			place := c.place(ctx, probe, i.Stream, l)
			mu.Lock()
			defer mu.Unlock()
			all[l.Shard] = place
		})
	}
	workers.Wait()
	return all
}

// place finds out where reading goes on after a checkpoint. That library counts the user
// records of an aggregate from 0, and does not say whether there are more.
func (c *connection) place(ctx context.Context, probe *retrieval.Probe, stream string, l table.KCLLease) leases.Place {
	after := leases.Place{Position: lease.After(l.Checkpoint)}
	record, ok, err := probe.At(ctx, stream, l.Shard, l.Checkpoint)
	switch {
	case err != nil:
		about := c.about[serviceKinesis]
		about.Stream = stream
		return leases.Place{Err: session.Explain(err, about).Error()}
	case !ok || sequence.Compare(record.SequenceNumber, l.Checkpoint) != 0:
		after.Note = "the record of its checkpoint has left the stream: it goes on after that"
		return after
	}
	after.UpTo = record.Arrived
	users, err := kpl.Decode(record.Data)
	if err != nil || l.Sub >= len(users)-1 {
		return after // it is no aggregate, or done whole
	}
	before, err := probe.Before(ctx, stream, l.Shard, record)
	if err != nil {
		return leases.Place{Err: "looking for the record before it: " + err.Error()}
	}
	return leases.Place{
		Position: lease.Position{Sequence: before, Within: lease.Within{Sequence: l.Checkpoint, Count: l.Sub + 1}},
		First:    before == "", UpTo: record.Arrived,
		Note: fmt.Sprintf("it goes on inside of an aggregate, of whose %d user records %d are done", len(users), l.Sub+1),
	}
}
