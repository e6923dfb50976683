package group

import (
	"slices"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
)

// A group may have an end: a moment up to which it reads. Shards that are named end too.

// ends reports whether there will be nothing left to read one day.
func (g *Group) ends() bool { return g.explicit() || !g.conf.EndAt.IsZero() }

// explicit reports whether the configuration names the shards. It does so for all
// streams or for none.
func (g *Group) explicit() bool { return len(g.streams[0].explicit) > 0 }

// isCut reports whether a shard was read up to the end of the group, or a later one,
// though it goes on.
func (g *Group) isCut(item lease.Item) bool {
	return !g.conf.EndAt.IsZero() && !item.CutAt.IsZero() && !item.CutAt.Before(g.conf.EndAt)
}

// finished reports whether nothing will ever be left to read of a stream, which explicit
// shards can come to, and all shards of a group that has an end.
func (g *Group) finished(s *stream) bool {
	balanced := len(s.explicit) == 0
	switch {
	case !g.ends() || !s.known || s.missing:
		return false
	case balanced && (!s.covers || s.listedAt.IsZero()):
		return false // the list may lack shards that began before the end
	}
	for _, sh := range s.shards {
		if !sh.suspectSince.IsZero() && !sh.recreated || !sh.unlistedSince.IsZero() || sh.assignment != Idle {
			return false
		}
		// Of one that the list has dropped too. Our own we do not read: it comes from a claim
		// of which nothing was heard, and if it is listed it is not done.
		if owner := g.owner(sh); balanced && owner != "" && owner != g.self {
			return false
		}
	}
	return !slices.ContainsFunc(s.candidates(), func(c candidate) bool {
		// Ids are given out in ascending order: one above all is of a shard to come.
		return c.key.Shard > s.newest || !s.lineage.Done(c.key.Shard)
	})
}

// tellBeyond says that a group with an end finds the positions of one that goes on: what
// those have read is not read again.
func (g *Group) tellBeyond(s *stream, items []lease.Item) {
	if g.conf.EndAt.IsZero() || len(items) == 0 {
		return
	}
	beyond := 0
	for _, item := range items {
		switch {
		case !item.CutAt.IsZero():
			return // it is the group's own
		case g.beyond(item, muchBeyond), g.conf.Begun:
			beyond++
		}
	}
	if beyond > 0 {
		g.say(Warning, "Stream %s has been read beyond `end_at_timestamp` by others in table %s, or is right now, %d of its shards at least. Nothing of that is read again, and the shards are shared with those others: to read it again, write a `group` of its own", s.name, g.conf.Table, beyond)
	}
}

// leftToOwner reports whether a shard that another reads has nothing for a group that has
// an end: it was read beyond that, or its reader is a built-in input, which has none. Who
// goes on would claim it again as soon as it is cut here, to be asked for it again.
func (g *Group) leftToOwner(e *eligible) bool {
	return !g.conf.EndAt.IsZero() && e.assignment == Idle && (e.item.Foreign() || e.of() != ofEarlierStream && g.beyond(e.item, 0))
}

// beyond reports whether everything that arrived in a shard up to some time after the end
// is acknowledged, by its item. A group that has an end does not write that of what it
// reads: others have read it, who go on.
func (g *Group) beyond(item lease.Item, by time.Duration) bool {
	return !g.conf.EndAt.IsZero() && !item.UpTo.IsZero() && item.UpTo.Add(g.skew).After(g.conf.EndAt.Add(by))
}

// muchBeyond is by how much the clocks of those who wrote how far a shard was read may
// have differed.
const muchBeyond = time.Minute
