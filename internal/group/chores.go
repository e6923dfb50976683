package group

import (
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/lineage"
)

// Chores keep the table clean: marks of shards that have left the stream, items of
// those that left it unread, and items of members that were evicted. Nothing waits for
// them.

// choresAtOnce bounds each part of a round.
const choresAtOnce = 100

// Chores are the items to remove, if they are still as they were seen.
type Chores struct {
	Finished []lease.Item   // of shards that were finished
	Expired  []lease.Item   // of shards that were not
	Evicted  []lease.Member // whose items may go
}

// Cleaned is what came of a round, which ends with the first failure.
type Cleaned struct {
	Done    []lease.Item // which are not as they were seen any more
	Expired []lease.Item // which were removed, of those that had expired
	Err     error
}

// clean begins a round of chores, unless one is under way or has failed of late.
func (g *Group) clean(now time.Time) {
	if g.cleaning {
		return
	}
	if now.Before(g.cleanAt) {
		g.planBy(g.cleanAt)
		return
	}
	var c Chores
	for _, s := range g.streams {
		if s.known && !s.missing {
			c.Finished = append(c.Finished, s.gone()...)
			c.Expired = append(c.Expired, g.expired(s, now)...)
		}
	}
	c.Evicted = g.takeEvicted(choresAtOnce, now)
	c.Finished = c.Finished[:min(len(c.Finished), choresAtOnce)]
	c.Expired = c.Expired[:min(len(c.Expired), choresAtOnce)]
	if len(c.Finished)+len(c.Expired)+len(c.Evicted) > 0 {
		g.cleaning, g.pending.Clean = true, &c
	}
}

// gone returns the items of finished shards that have left the stream.
func (s *stream) gone() []lease.Item {
	var gone []lease.Item
	for id, sh := range s.shards {
		if !sh.item.Finished || sh.inList || id >= s.newest || sh.assignment != Idle {
			continue
		}
		gone = append(gone, sh.item)
		for _, l := range sh.literals {
			if l.item.Owner == "" {
				gone = append(gone, l.item)
			}
		}
	}
	return gone
}

// expired returns the items of shards that have left the stream without having been
// read to their end, and that nobody reads now. The list must have said so twice, and
// nothing in it must look as if it were not true.
func (g *Group) expired(s *stream, now time.Time) []lease.Item {
	var expired []lease.Item
	for id, sh := range s.shards {
		if !sh.item.Exists || sh.inList || sh.item.Finished || g.isCut(sh.item) || id >= s.newest || g.owner(sh) != "" || !s.covered(id) {
			sh.unlistedSince = time.Time{}
			continue
		}
		if sh.unlistedSince.IsZero() {
			sh.unlistedSince = now
			s.listedAt = time.Time{}
			s.callAt(now.Add(g.every()))
		} else if s.covers && s.listedAt.After(sh.unlistedSince) {
			expired = append(expired, sh.item)
		}
	}
	return expired
}

// Cleaned takes in what came of a round. After a failure the next one waits, longer
// each time.
func (g *Group) Cleaned(c Cleaned, now time.Time) {
	g.cleaning, g.dirty = false, true
	for _, item := range c.Done {
		s := g.stream(item.Stream)
		sh := s.shards[lineage.ShardID(item.Shard)]
		if sh == nil {
			continue
		}
		sh.unlistedSince = time.Time{}
		if sh.item.Key == item.Key && sh.item.Link() == item.Link() && sh.item.Sequence == item.Sequence {
			sh.item = lease.Item{Key: sh.key} // until the next reading says otherwise
		}
	}
	for _, item := range c.Expired {
		g.tellExpired(g.stream(item.Stream), lineage.ShardID(item.Shard), item.Sequence)
	}
	if c.Err == nil {
		g.cleanFailures, g.cleanAt = 0, time.Time{}
		return
	}
	g.cleanAt = now.Add(g.every() << min(g.cleanFailures, 5))
	g.cleanFailures++
}
