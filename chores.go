package awskinesis

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/group"
	"github.com/benthos-plugins/aws-kinesis/internal/journal"
	"github.com/benthos-plugins/aws-kinesis/internal/lease"
)

// Chores keep the table clean; which they are the group decides. Nothing waits for
// them. They run beside everything else, one round at a time, each with a bound, so
// that a table that is slow or refuses deletes delays no take-over.

const (
	// choreTimeout bounds one call, and choresTimeout a round.
	choreTimeout  = 5 * time.Second
	choresTimeout = 30 * time.Second
)

func (b *balancer) clean(ctx context.Context, c group.Chores) event {
	ctx, cancel := context.WithTimeout(ctx, choresTimeout)
	defer cancel()
	begun := time.Now()
	done := b.removeAll(ctx, c)
	b.signals.outcome(journal.Cleanup, "", done.Err, begun)
	return func(now time.Time) { b.group.Cleaned(done, now) }
}

func (b *balancer) removeAll(ctx context.Context, c group.Chores) (done group.Cleaned) {
	for _, m := range c.Evicted {
		if done.Err = b.removeMember(ctx, m); done.Err != nil {
			return done
		}
	}
	for _, item := range c.Finished {
		if _, done.Err = b.remove(ctx, item); done.Err != nil {
			return done
		}
		done.Done = append(done.Done, item)
	}
	for _, item := range c.Expired {
		removed, err := b.remove(ctx, item)
		if done.Err = err; err != nil {
			return done
		}
		done.Done = append(done.Done, item)
		if removed {
			done.Expired = append(done.Expired, item)
		}
	}
	return done
}

func (b *balancer) removeMember(ctx context.Context, m lease.Member) error {
	ctx, cancel := context.WithTimeout(ctx, choreTimeout)
	defer cancel()
	if err := b.store.Remove(ctx, m); err != nil && !errors.Is(err, lease.ErrConflict) {
		return fmt.Errorf("removing client %s, which was evicted: %w", m.ID, err)
	}
	return nil
}

func (b *balancer) remove(ctx context.Context, item lease.Item) (removed bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, choreTimeout)
	defer cancel()
	return b.store.RemoveItem(ctx, item)
}
