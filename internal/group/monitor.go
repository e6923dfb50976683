package group

import (
	"cmp"
	"time"
)

// monitor counts the open shards whose records nobody reads, nor will when a shard
// before them is finished. It overlooks those that are on their way to an owner, which
// takes a reading or two, and warns of one that stays. It notices the end of all
// explicit shards, too.
func (g *Group) monitor(now time.Time) {
	done := g.explicit()
	for _, s := range g.streams {
		switch {
		case s.missing:
			s.unread, s.unreadFrom, s.warned = 0, time.Time{}, false // there is nothing to read
			for _, sh := range s.shards {
				sh.unreadSince = time.Time{}
			}
		case s.known && !g.explicit():
			g.watch(s, now)
		}
		done = done && g.finished(s)
	}
	g.pending.Finished = done
}

func (g *Group) watch(s *stream, now time.Time) {
	read := func(id string) bool {
		sh := s.shards[id]
		if sh.assignment != Idle {
			return sh.assignment.reads()
		}
		owner := g.owner(sh)
		return owner != "" && owner != g.self
	}
	overdue := ""
	s.unread, s.unreadFrom = 0, time.Time{}
	for _, sh := range s.listed {
		id := sh.key.Shard
		if sh.listed.Closed || s.lineage.Reached(id, read) {
			sh.unreadSince = time.Time{}
			continue
		}
		if sh.unreadSince.IsZero() {
			sh.unreadSince = now
		}
		since := now.Sub(sh.unreadSince)
		if since > 2*g.every() {
			s.unread++
		}
		from := cmp.Or(sh.item.UpTo, sh.doneBefore, sh.unreadSince)
		if s.unreadFrom.IsZero() || from.Before(s.unreadFrom) {
			s.unreadFrom = from
		}
		if since > 2*g.conf.LeasePeriod {
			overdue = id
		}
		g.planBy(now.Add(g.every()))
	}
	if overdue != "" && !s.warned {
		g.say(Warning, "Nobody has read shard %s of stream %s for two lease periods, one of %d such shards", overdue, s.name, s.unread)
	}
	s.warned = overdue != ""
}
