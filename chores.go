package awskinesis

import (
	"context"
	"errors"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
)

// Chores keep the table clean: marks of shards that have left the stream, items of
// those that left it unread, announcements of clients that died. Nothing waits for
// them. They run beside the looks, one round at a time, each with a bound, so that a
// table that is slow or refuses deletes delays no take-over.

const (
	// choresAtOnce bounds a round.
	choresAtOnce = 100
	// choreTimeout bounds one call, and choresTimeout a round.
	choreTimeout  = 5 * time.Second
	choresTimeout = 30 * time.Second
)

// chores is a round of them.
type chores struct {
	dead    []presence
	gone    []lease.Item // of shards that were finished
	expired []lease.Item // of shards that were not
}

// chored is what came of a round, which ends with the first failure.
type chored struct {
	done    []lease.Item // which are not as they were seen any more
	expired []lease.Item // which were removed
	err     error
}

// planChores returns what there is to do.
func (b *balancer) planChores() chores {
	var c chores
	owning := map[string]bool{}
	for _, s := range b.streams {
		for _, item := range s.items {
			owning[item.Owner] = true
		}
		c.gone = append(c.gone, s.gone()...)
		c.expired = append(c.expired, b.expired(s)...)
	}
	for client, p := range b.present {
		if client != b.client && !owning[client] && b.watcher.Dead(p.Item) {
			c.dead = append(c.dead, p)
		}
	}
	c.dead = c.dead[:min(len(c.dead), choresAtOnce)]
	c.gone = c.gone[:min(len(c.gone), choresAtOnce)]
	c.expired = c.expired[:min(len(c.expired), choresAtOnce)]
	return c
}

// startChores begins a round, unless one is under way or has failed of late.
func (b *balancer) startChores(ctx context.Context) {
	if b.choring || time.Now().Before(b.choresAt) {
		return
	}
	c := b.planChores()
	if len(c.dead)+len(c.gone)+len(c.expired) == 0 {
		return
	}
	b.choring = true
	go func() { // run and stop receive until it has ended
		b.chored <- b.doChores(ctx, c)
	}()
}

// doChores runs beside the loop and touches nothing that the loop owns.
func (b *balancer) doChores(ctx context.Context, c chores) chored {
	ctx, cancel := context.WithTimeout(ctx, choresTimeout)
	defer cancel()
	var done chored
	for _, p := range c.dead {
		if done.err = b.withdrawPresence(ctx, p); done.err != nil {
			return done
		}
	}
	for _, item := range c.gone {
		if _, done.err = b.remove(ctx, item); done.err != nil {
			return done
		}
		done.done = append(done.done, item)
	}
	for _, item := range c.expired {
		removed, err := b.remove(ctx, item)
		if done.err = err; err != nil {
			return done
		}
		done.done = append(done.done, item)
		if removed {
			done.expired = append(done.expired, item)
		}
	}
	return done
}

func (b *balancer) withdrawPresence(ctx context.Context, p presence) error {
	ctx, cancel := context.WithTimeout(ctx, choreTimeout)
	defer cancel()
	return b.store.withdraw(ctx, p)
}

func (b *balancer) remove(ctx context.Context, item lease.Item) (removed bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, choreTimeout)
	defer cancel()
	return b.store.remove(ctx, item)
}

// absorbChores takes in what came of a round. After a failure the next one waits,
// longer each time.
func (b *balancer) absorbChores(c chored) {
	b.choring = false
	for _, item := range c.done {
		s := b.view(item.Stream)
		if now := s.items[item.Key]; now.Link() == item.Link() && now.Sequence == item.Sequence {
			delete(s.items, item.Key) // until the next look says otherwise
		}
		delete(s.unseen, item.Key)
	}
	for _, item := range c.expired {
		s := b.view(item.Stream)
		b.tellExpired(s, s.shardID(item.Shard), item.Sequence)
	}
	if c.err == nil {
		b.choreFailures, b.choresAt, b.untidy = 0, time.Time{}, ""
		return
	}
	b.choreFailures++
	b.choresAt = time.Now().Add(b.lookEvery() << min(b.choreFailures-1, 5))
	if said := faultText(c.err); said != b.untidy && !errors.Is(c.err, context.Canceled) {
		b.log.Warnf("The table could not be tidied, which is tried again and harms nothing until then: %v", c.err)
		b.untidy = said
	}
}
