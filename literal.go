package awskinesis

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/group"
	"github.com/benthos-plugins/aws-kinesis/internal/journal"
	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/lineage"
	"github.com/benthos-plugins/aws-kinesis/internal/sequence"
)

// A shard may be written as `0` or in full, and Benthos' built-in input keeps its
// lease under what was written. Here the lease stands under the full id, so that
// all readers of a shard meet at one item. A literal item, which is under another
// spelling, is respected while its owner lives, freed when that has died, and its
// position counts if it is further on. Where the configuration itself has the
// literal spelling, the item is kept up, so that the built-in input can go on from
// it. Not so in a group that has a name, of which that input sees nothing.

// settleLiterals takes dead owners from the literal items of a shard. It returns
// the store under which to hold the lease, and the literal items as they are.
func (b *balancer) settleLiterals(ctx context.Context, c group.Claim) (lease.Store, []lease.Item, error) {
	literals := make([]lease.Item, 0, len(c.Literals)+1)
	kept := lease.Item{Key: lease.Key{Stream: c.Key.Stream, Shard: c.Written}} // there may be none yet
	known := false
	for _, literal := range c.Literals {
		if literal.Owner != "" {
			var err error
			if literal, err = limited(ctx, literal, b.store.Vacate); err != nil {
				return nil, nil, fmt.Errorf("freeing item %q of shard %s, whose owner is dead: %w", literal.Shard, c.Key, err)
			}
		}
		if literal.Key == kept.Key {
			kept, known = literal, true
		}
		literals = append(literals, literal)
	}
	if c.Written == "" || kept.Key == c.Key || b.conf.group != "" {
		return b.store, literals, nil
	}
	if !known {
		literals = append(literals, kept)
	}
	return &mirroring{leaseTable: b.store, literal: kept, taken: b.urge, warn: b.warn}, literals, nil
}

// position is the position after which to read a shard whose item was
// claimed: that of the item if it is one of this shard, or where this process had got
// before the item was deleted, or that of a literal item that is further on. It is a
// conflict when somebody has got hold of a literal item meanwhile.
func (b *balancer) position(ctx context.Context, c group.Claim, item lease.Item, literals []lease.Item) (after lease.Position, err error) {
	if item.Sequence != "" && !c.Shard.Holds(item.Sequence) {
		return lease.Position{}, fmt.Errorf("the item of shard %s has changed: %w", c.Key, lease.ErrConflict)
	}
	after = item.Position()
	if c.Warning != (group.Words{}) {
		b.signals.journal.Changed(journal.Warning, c.Key.Stream, c.Key.Shard, c.Warning.One, c.Warning.Many, time.Now())
	}
	if acked := ackedHere(c); acked.Compare(after) > 0 {
		after = acked
	}
	for _, literal := range literals {
		if literal, err = limited(ctx, literal.Key, b.store.Get); err != nil {
			return lease.Position{}, fmt.Errorf("reading item %q of shard %s: %w", literal.Shard, c.Key, err)
		}
		if literal.Owner != "" {
			return lease.Position{}, fmt.Errorf("item %q of shard %s was claimed: %w", literal.Shard, c.Key, lease.ErrConflict)
		}
		if c.Shard.Holds(literal.Sequence) && sequence.Compare(literal.Sequence, after.Sequence) > 0 {
			after = lease.After(literal.Sequence)
		}
	}
	return after, nil
}

// ackedHere is how far this process had got with the shard that is claimed; zero where that
// was another one of the same id.
func ackedHere(c group.Claim) lease.Position {
	if first := cmp.Or(c.Acked.Sequence, c.Acked.Within.Sequence); first == "" || !c.Shard.Holds(first) {
		return lease.Position{}
	}
	return c.Acked
}

func (b *balancer) warn(template string, args ...any) {
	b.signals.say(journal.Warning, template, args...)
}

// limited makes one call in its time: a claim that hangs in one keeps its lease, and
// nobody else reads the shard.
func limited[In any](ctx context.Context, in In, call func(context.Context, In) (lease.Item, error)) (lease.Item, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return call(ctx, in)
}

// identify returns a shard as its stream lists it.
func (b *balancer) identify(ctx context.Context, c group.Claim) (lineage.Shard, error) {
	shard, ok, err := b.lists.Find(ctx, c.Key.Stream, c.Key.Shard)
	switch {
	case err != nil && c.Failures < patientFailures:
		return lineage.Shard{}, err
	case err != nil || !ok: // it may be that we are not allowed to list, or that the list lags
		return c.Shard, nil //nolint:nilerr // it was waited for long enough
	}
	return shard, nil
}

// patientFailures is after how many failures a shard is read though its stream cannot
// be listed.
const patientFailures = 3

// mirroring is the table for one lease, whose sequence it stores in a literal item
// too, without the place within a record, which the built-in input does not know. The holder of the lease alone uses it.
type mirroring struct {
	leaseTable
	literal lease.Item // as it was seen last
	taken   func()     // is called when it has got an owner
	warn    func(template string, args ...any)
	warned  bool
}

// Renew implements lease.Store.
func (m *mirroring) Renew(ctx context.Context, key lease.Key, at lease.Link, token string, position lease.Move) (lease.Item, error) {
	item, err := m.leaseTable.Renew(ctx, key, at, token, position)
	if err == nil {
		m.follow(ctx, item.Sequence)
	}
	return item, err
}

// Release implements lease.Store.
func (m *mirroring) Release(ctx context.Context, key lease.Key, at lease.Link, position lease.Move) error {
	err := m.leaseTable.Release(ctx, key, at, position)
	if err == nil {
		m.follow(ctx, position.To.Sequence)
	}
	return err
}

// Finish implements lease.Store.
func (m *mirroring) Finish(ctx context.Context, key lease.Key, at lease.Link, position lease.Move) error {
	err := m.leaseTable.Finish(ctx, key, at, position)
	if err == nil {
		m.follow(ctx, position.To.Sequence)
	}
	return err
}

// Cut implements lease.Store.
func (m *mirroring) Cut(ctx context.Context, key lease.Key, at lease.Link, position lease.Move, end time.Time) error {
	err := m.leaseTable.Cut(ctx, key, at, position, end)
	if err == nil {
		m.follow(ctx, position.To.Sequence)
	}
	return err
}

// follow moves the literal item on. It is behind if that fails, and moves the next
// time: nothing that this input decides depends on it.
func (m *mirroring) follow(ctx context.Context, next string) {
	if sequence.Compare(next, m.literal.Sequence) <= 0 {
		return
	}
	literal, err := m.Mirror(ctx, m.literal, next)
	if errors.Is(err, lease.ErrConflict) {
		if literal, err = m.Get(ctx, m.literal.Key); err == nil && literal.Owner != "" {
			m.taken()
			return
		}
	}
	if err != nil {
		if !m.warned {
			m.warn("Item %q of stream %s is behind, from which Benthos' own input would go on: %v", m.literal.Shard, m.literal.Stream, err)
		}
		m.warned = true
		return
	}
	m.literal, m.warned = literal, false
}
