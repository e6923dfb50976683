package leases

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/table"
)

// Result is what came of a step.
type Result string

// The results.
const (
	Done     Result = "done"
	Conflict Result = "conflict" // the table is not as it was seen any more: nothing was written
	Skipped  Result = "skipped"  // what it depends on has not come about
	Failed   Result = "failed"
)

// Writer is the table as Apply writes it. Each write is conditional on what was seen.
type Writer interface {
	ListMembers(ctx context.Context, consistent bool) ([]lease.Member, error)
	Get(ctx context.Context, key lease.Key) (lease.Item, error)
	Place(ctx context.Context, seen lease.Item, to table.Standing) (lease.Item, error)
	Free(ctx context.Context, seen lease.Item) (lease.Item, error)
	RemoveItem(ctx context.Context, seen lease.Item) (removed bool, err error)
	Evict(ctx context.Context, m lease.Member) error
	Remove(ctx context.Context, m lease.Member) error
}

// Apply carries a plan out, one step after the other, and returns it with what came of
// each. A step that fails keeps none from being tried but those that depend on it. Where ctx
// ends, the step that is under way is carried out, since nobody would know whether it was,
// and the others are skipped.
func Apply(ctx context.Context, w Writer, p Plan) Plan {
	a := applier{Writer: w, notEvicted: map[string]bool{}, notSet: map[lease.Key]bool{}}
	out := Plan{Steps: make([]Step, len(p.Steps))}
	for i, s := range p.Steps {
		switch {
		case !s.writes():
		case ctx.Err() != nil:
			s.Result, s.Error = Skipped, "it was interrupted before this"
		default:
			s.Result, s.Error = a.apply(context.WithoutCancel(ctx), s)
		}
		if s.Act == Set && s.Result != Done && !s.seen.Exists {
			a.notSet[s.seen.Key] = true
		}
		out.Steps[i] = s
	}
	return out
}

type applier struct {
	Writer
	notEvicted map[string]bool
	notSet     map[lease.Key]bool // which have no item either

	members   []lease.Member // as they were listed at the time listed
	listed    time.Time
	memberErr error
}

// membersFor is for how long a list of the members counts. The plan may be old: it waits for
// whoever confirms it. A list for each of a thousand shards would cost as much as the writes.
const membersFor = time.Second

// joined returns the member that shares one of the streams by now. Whoever did when the plan
// was made is evicted by it.
func (a *applier) joined(ctx context.Context, streams []string) (id string, err error) {
	if now := time.Now(); a.listed.IsZero() || now.Sub(a.listed) >= membersFor {
		a.members, a.memberErr = a.ListMembers(ctx, true)
		a.listed = now
	}
	for _, m := range a.members {
		if slices.ContainsFunc(m.Streams, func(s string) bool { return slices.Contains(streams, s) }) {
			return m.ID, nil
		}
	}
	return "", a.memberErr
}

func (a *applier) apply(ctx context.Context, s Step) (Result, string) {
	var err error
	switch s.Act {
	case EvictMember:
		if err = a.Evict(ctx, s.member); err != nil {
			a.notEvicted[s.Member] = true
		}
	case RemoveMember:
		err = a.Remove(ctx, s.member)
	case RemoveItem:
		err = a.remove(ctx, s.seen)
	case FreeShard:
		if a.notEvicted[s.seen.Owner] {
			return Skipped, "its owner was not evicted"
		}
		_, err = a.Free(ctx, s.seen)
	case Set:
		return a.set(ctx, s)
	case Keep:
	}
	return resultOf(err)
}

// set writes where a shard stands, and removes its literal items, which would count where
// they are further on.
func (a *applier) set(ctx context.Context, s Step) (Result, string) {
	if len(a.notEvicted) > 0 {
		return Skipped, "a member of its group that seemed to be dead was not evicted"
	}
	if id, err := a.joined(ctx, s.stopped); err != nil {
		return resultOf(err)
	} else if id != "" {
		return Skipped, "client " + id + " has joined since, and shares the stream: stop all pipelines that read it, and run the command again"
	}
	for _, parent := range s.parents {
		// Without an item it would count as finished by that of a child, also where a reader
		// that reads parents first takes the place of one that does not.
		if a.notSet[lease.Key{Stream: s.Stream, Shard: parent}] {
			return Skipped, "its parent " + parent + " was not set"
		}
	}
	if _, err := a.Place(ctx, s.seen, s.to); err != nil {
		// The answer of an attempt that took effect may have been lost.
		if item, read := a.Get(ctx, s.seen.Key); read != nil || item.Owner != "" || !item.Exists || !same(table.StandingOf(item), s.to) {
			return resultOf(err)
		}
	}
	for _, literal := range s.literals {
		if err := a.remove(ctx, literal); err != nil {
			result, text := resultOf(err)
			return result, "its item " + literal.Shard + " stays, and counts where it is further on: " + text
		}
	}
	return Done, ""
}

func (a *applier) remove(ctx context.Context, seen lease.Item) error {
	removed, err := a.Writer.RemoveItem(ctx, seen)
	if err == nil && !removed {
		err = lease.ErrConflict
	}
	return err
}

func resultOf(err error) (Result, string) {
	switch {
	case err == nil:
		return Done, ""
	case errors.Is(err, lease.ErrConflict):
		return Conflict, "somebody has changed it meanwhile: run the command again"
	}
	return Failed, err.Error()
}
