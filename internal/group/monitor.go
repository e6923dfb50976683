package group

import (
	"cmp"
	"time"
)

// monitor counts the open shards whose records nobody reads, nor will when a shard
// before them is finished. It overlooks those that are on their way to an owner, which
// takes a reading or two, and warns of one that stays. It notices the end of all
// explicit shards, and of the group, too.
func (g *Group) monitor(now time.Time) {
	done := g.ends()
	for _, s := range g.streams {
		s.unreadFrom = time.Time{}
		switch {
		case s.missing: // there is nothing to read
			s.unread, s.warned = 0, false
			for _, sh := range s.shards {
				sh.unreadSince = time.Time{}
			}
		case s.known && g.explicit():
			g.watchNamed(s, now)
		case s.known:
			g.watch(s, now)
		}
		done = done && g.finished(s)
	}
	g.pending.Finished = done
	if done && !g.ended && !g.conf.EndAt.IsZero() {
		g.say(Info, "All shards have been read up to %s: the input ends", g.conf.EndAt.UTC().Format(time.RFC3339Nano))
	}
	g.ended = done
}

func (g *Group) watch(s *stream, now time.Time) {
	read := func(id string) bool { return g.isRead(s.shards[id]) }
	overdue := ""
	s.unread = 0
	for _, sh := range s.listed {
		id := sh.key.Shard
		if s.lineage.Done(id) {
			sh.unreadSince = time.Time{}
			continue
		}
		known := sh.knownDoneBefore()
		switch {
		case !read(id):
			s.unreadSoFar(known)
		case g.late(sh.item.Owner):
			// Until then it has told that itself. An idle shard's item is older.
			s.unreadSoFar(g.members.byID[sh.item.Owner].since)
		}
		if sh.listed.Closed || s.lineage.Reached(id, read) {
			sh.unreadSince = time.Time{}
			continue
		}
		if sh.unreadSince.IsZero() {
			sh.unreadSince = now
		}
		s.unreadSoFar(cmp.Or(known, s.parentsDoneBefore(sh), sh.unreadSince))
		since := now.Sub(sh.unreadSince)
		if since > 2*g.every() {
			s.unread++
		}
		if since > 2*g.conf.LeasePeriod {
			overdue = id
		}
		g.planBy(now.Add(g.every()))
	}
	if overdue != "" && !s.warned {
		g.say(Warning, "Nobody has read shard %s of stream %s for two lease periods, and %d shards of it are unread. Look in the logs of all clients for claims that fail, and whether all of them run", overdue, s.name, s.unread)
	}
	s.warned = overdue != ""
}

// watchNamed finds how late the shards are that this input is told to read and that nobody
// reads.
func (g *Group) watchNamed(s *stream, now time.Time) {
	for _, c := range s.candidates() {
		if c.key.Shard > s.newest || s.lineage.Done(c.key.Shard) || g.isRead(c.shard) {
			c.unreadSince = time.Time{}
			continue
		}
		if c.unreadSince.IsZero() {
			c.unreadSince = now
		}
		s.unreadSoFar(cmp.Or(c.knownDoneBefore(), c.unreadSince))
	}
}

// isRead reports whether somebody reads a shard, as far as is known.
func (g *Group) isRead(sh *shard) bool {
	if sh.assignment != Idle {
		return sh.assignment.reads()
	}
	owner := cmp.Or(g.literalOwner(sh), g.owner(sh))
	return owner != "" && owner != g.self && !g.ids[owner]
}

// late reports whether a member has not sent the heartbeat that was due: it may be dead,
// though nobody may take it for that yet.
func (g *Group) late(id string) bool {
	m := g.members.byID[id]
	return m != nil && id != g.self && m.late(g.listMembersEvery())
}

// knownDoneBefore is the moment before which everything that arrived in the shard is
// acknowledged, by its item, or by what was known here of one that somebody has changed;
// zero where neither tells. An item of an earlier stream tells nothing.
func (sh *shard) knownDoneBefore() time.Time {
	if sh.of() == ofEarlierStream {
		return time.Time{}
	}
	return cmp.Or(sh.item.UpTo, sh.doneBefore)
}

// unreadSoFar takes in the moment before which everything that arrived in a shard that
// nobody reads is acknowledged, if that is known.
func (s *stream) unreadSoFar(from time.Time) {
	if !from.IsZero() && (s.unreadFrom.IsZero() || from.Before(s.unreadFrom)) {
		s.unreadFrom = from
	}
}

// parentsDoneBefore is the earliest moment that the parents of a shard tell, before which
// nothing of the shard arrived; zero when they tell none.
func (s *stream) parentsDoneBefore(sh *shard) (earliest time.Time) {
	for _, id := range sh.listed.Parents {
		parent := s.shards[id]
		if parent == nil {
			continue
		}
		if at := parent.knownDoneBefore(); !at.IsZero() && (earliest.IsZero() || at.Before(earliest)) {
			earliest = at
		}
	}
	return earliest
}
