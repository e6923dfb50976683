package awskinesis

import (
	"context"
	"errors"
	"fmt"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/sequence"
)

// A shard may be written as `0` or in full, and Benthos' built-in input keeps its
// lease under what was written. Here the lease stands under the full id, so that
// all readers of a shard meet at one item. A literal item, which is under another
// spelling, is respected while its owner lives, freed when that has died, and its
// position counts if it is further on. Where the configuration itself has the
// literal spelling, the item is kept up, so that the built-in input can go on from
// it.

// settleLiterals takes dead owners from the literal items of a shard. It returns
// the store under which to hold the lease, and the literal items as they are.
func (b *balancer) settleLiterals(ctx context.Context, o offer) (lease.Store, []lease.Item, error) {
	literals := make([]lease.Item, 0, len(o.literals)+1)
	kept := lease.Key{Stream: o.key.Stream, Shard: o.written}
	known := o.written == "" || kept == o.key
	for _, literal := range o.literals {
		if literal.Owner != "" {
			var err error
			if literal, err = b.store.vacate(ctx, literal); err != nil {
				return nil, nil, fmt.Errorf("freeing item %q of shard %s, whose owner is dead: %w", literal.Shard, o.key, err)
			}
		}
		known = known || literal.Key == kept
		literals = append(literals, literal)
	}
	if !known {
		literals = append(literals, lease.Item{Key: kept})
	}
	if o.written == "" || kept == o.key {
		return b.store, literals, nil
	}
	for _, literal := range literals {
		if literal.Key == kept {
			return &mirroring{leaseTable: b.store, literal: literal, warn: b.log.Warnf}, literals, nil
		}
	}
	return nil, nil, fmt.Errorf("shard %s has no literal item %q", o.key, kept.Shard)
}

// position is the sequence number after which to read a shard whose item was
// claimed: that of the item if it is one of this shard, or where this process had got
// before the item was deleted, or that of a literal item that is further on. It is a conflict when somebody has got hold of a literal item
// meanwhile.
func (b *balancer) position(ctx context.Context, o offer, item lease.Item, literals []lease.Item) (after string, err error) {
	switch ours := o.of != ofEarlierStream && (item.Sequence == "" || o.shard.Holds(item.Sequence)); {
	case ours:
		after = item.Sequence
	case o.item.Finished:
		b.log.Warnf("Shard %s was finished in an earlier stream of the same name: it is read from its oldest record", o.key)
	case item.Sequence != "":
		b.log.Warnf("Shard %s was read up to sequence number %s in an earlier stream of the same name: it is read from its oldest record", o.key, item.Sequence)
	}
	if o.acked != "" && o.shard.Holds(o.acked) {
		after = o.acked
	}
	for _, literal := range literals {
		if literal, err = b.store.Get(ctx, literal.Key); err != nil {
			return "", fmt.Errorf("reading item %q of shard %s: %w", literal.Shard, o.key, err)
		}
		if literal.Owner != "" {
			return "", fmt.Errorf("item %q of shard %s was claimed: %w", literal.Shard, o.key, lease.ErrConflict)
		}
		if o.shard.Holds(literal.Sequence) && sequence.Compare(literal.Sequence, after) > 0 {
			after = literal.Sequence
		}
	}
	return after, nil
}

// mirroring is the table for one lease, whose sequence it stores in a literal item
// too. The holder of the lease alone uses it.
type mirroring struct {
	leaseTable
	literal lease.Item // as it was seen last
	warn    func(template string, args ...any)
	warned  bool
}

// Renew implements lease.Store.
func (m *mirroring) Renew(ctx context.Context, key lease.Key, at lease.Link, token string, sequence lease.Move) (lease.Item, error) {
	item, err := m.leaseTable.Renew(ctx, key, at, token, sequence)
	if err == nil {
		m.follow(ctx, item.Sequence)
	}
	return item, err
}

// Release implements lease.Store.
func (m *mirroring) Release(ctx context.Context, key lease.Key, at lease.Link, sequence lease.Move) error {
	err := m.leaseTable.Release(ctx, key, at, sequence)
	if err == nil {
		m.follow(ctx, sequence.To)
	}
	return err
}

// Finish implements lease.Store.
func (m *mirroring) Finish(ctx context.Context, key lease.Key, at lease.Link, sequence lease.Move) error {
	err := m.leaseTable.Finish(ctx, key, at, sequence)
	if err == nil {
		m.follow(ctx, sequence.To)
	}
	return err
}

// follow moves the literal item on. It is behind if that fails, and moves the next
// time: nothing that this input decides depends on it.
func (m *mirroring) follow(ctx context.Context, next string) {
	if sequence.Compare(next, m.literal.Sequence) <= 0 {
		return
	}
	literal, err := m.mirror(ctx, m.literal, next)
	if errors.Is(err, lease.ErrConflict) {
		if literal, err = m.Get(ctx, m.literal.Key); err == nil && literal.Owner != "" {
			return // the balancer sees to it
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
