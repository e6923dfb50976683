package group

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
)

// Outcome says how an assignment came to its end.
type Outcome int

// The outcomes.
const (
	_ Outcome = iota
	// NotClaimed: the claim failed, or what follows it before the first read. Err says
	// why, lease.ErrConflict that another was faster.
	NotClaimed
	// Released: the shard is free.
	Released
	// Finished: it is closed, read to its end and acknowledged. Children are its own.
	Finished
	// HandedOver: it belongs to the recipient To.
	HandedOver
	// Lost: it belongs to somebody else, or its item is gone.
	Lost
	// Gone: the service does not know the shard.
	Gone
	// Failed: the last write has no known outcome.
	Failed
	// Cut: it was read up to the end of the group and acknowledged, and goes on.
	Cut
)

func (o Outcome) String() string {
	names := [...]string{"none", "not claimed", "released", "finished", "handed over", "lost", "gone", "failed", "cut"}
	if o < 0 || int(o) >= len(names) {
		return fmt.Sprintf("Outcome(%d)", int(o))
	}
	return names[o]
}

// Child is a shard that came out of a split or merge.
type Child struct {
	ID      string
	Parents []string
}

// Exit is what an assignment leaves behind.
type Exit struct {
	Outcome  Outcome
	Children []Child
	To       string
	Acked    lease.Position // up to which all was acknowledged under a lease that was Lost
	// Since is the moment before which all that arrived was acknowledged; zero where that is
	// not known.
	Since time.Time
	Err   error
}

// Exited tells that an assignment came to its end: the lease was let go of, or is used
// no more.
func (g *Group) Exited(key lease.Key, e Exit, now time.Time) {
	s, sh := g.stream(key.Stream), g.shard(key)
	sh.exited(e.Outcome, now)
	if !e.Since.IsZero() {
		sh.doneBefore = e.Since
	}
	g.dirty = true
	s.callAt(now.Add(soon))
	if e.Outcome == NotClaimed {
		g.notClaimed(s, sh, e.Err, now)
		return
	}
	sh.acked, sh.stealing = lease.Position{}, false
	if e.Outcome != Gone {
		sh.failures, sh.restsUntil = 0, time.Time{}
	}
	g.changed(now)
	g.record(s, sh, e, now)
}

func (g *Group) notClaimed(s *stream, sh *shard, err error, now time.Time) {
	if errors.Is(err, context.Canceled) {
		return
	}
	sh.rest(now, g.every())
	if !isConflict(err) {
		s.claimFailed(g.conf.LeasePeriod, now)
	}
}

// claimFailed has no shards of the stream requested for a while, up to four lease
// periods: what is handed over to a member that cannot claim it stands unread for one.
// Longer, and a member would go without its share long after a fault.
func (s *stream) claimFailed(period time.Duration, now time.Time) {
	if now.Before(s.requestAfter) {
		return
	}
	if s.claimFailures++; s.claimFailures > fewClaimFailures {
		s.requestAfter = now.Add(period << min(s.claimFailures-fewClaimFailures-1, 2))
	}
}

// fewClaimFailures is how many claims in a row may fail by chance.
const fewClaimFailures = 2

// record takes in what the end of a consumer tells of its shard.
func (g *Group) record(s *stream, sh *shard, e Exit, now time.Time) {
	switch e.Outcome {
	case NotClaimed:
	case Released:
		g.tellOf(sh.key, Info, "is read here no more: it was released", "are read here no more: they were released")
	case HandedOver:
		g.tellOf(sh.key, Info, "was handed over to client "+e.To+", which asked for it", "were handed over to client "+e.To+", which asked for them")
		sh.item = lease.Item{Key: sh.key, Exists: true, Owner: e.To, Term: lease.HandOverMark}
		sh.seen = sighting{}
	case Finished:
		g.tellOf(sh.key, Info, "is closed and has been read to its end", "are closed and have been read to their ends")
		// It is the shard that was read which is finished: the list may not have its start
		// yet, or that of another stream by now.
		sh.item = lease.Item{Key: sh.key, Exists: true, Finished: true, ShardStart: sh.first, UpTo: e.Since}
		s.addChildren(sh, e.Children)
		for _, child := range e.Children {
			s.at(child.ID).atOnce = true
		}
	case Cut:
		g.tellOf(sh.key, Info, "has been read up to the end", "have been read up to the end")
		sh.item = lease.Item{Key: sh.key, Exists: true, CutAt: g.conf.EndAt, ShardStart: sh.first, UpTo: e.Since}
	case Lost:
		g.recordLoss(sh, e)
	case Gone:
		sh.rest(now, g.every())
		g.tellOf(sh.key, Warning, fmt.Sprintf("is read here no more: %v", e.Err), "are read here no more: the service does not know them any more")
		s.listedAt = time.Time{}
	case Failed:
		g.tellOf(sh.key, Warning, fmt.Sprintf("is read here no more, and claimed anew if it is still this client's: %v", e.Err),
			"are read here no more, and claimed anew if they are still this client's: what became of their last writes is not known")
	}
}

// recordLoss keeps how far a shard was acknowledged whose lease was lost: nobody else
// knows it, where the item was deleted.
func (g *Group) recordLoss(sh *shard, e Exit) {
	sh.acked = e.Acked
	switch {
	case errors.Is(e.Err, lease.ErrEvicted):
		return // all leases are lost, which is told once
	case !errors.Is(e.Err, lease.ErrDeleted):
		g.tellOf(sh.key, Warning, fmt.Sprintf("is read here no more: %v", e.Err), "are read here no more: others have claimed them")
		return
	}
	const advice = "To have a shard read from its start, stop all processes before its item is deleted"
	g.tellOf(sh.key, Warning,
		fmt.Sprintf("had its item deleted from table %s by somebody. It is made anew, and reading goes on after sequence number %q, which is how far this process had got. %s", g.conf.Table, e.Acked.Sequence, advice),
		fmt.Sprintf("had their items deleted from table %s by somebody. They are made anew, and reading goes on where this process had got to. %s", g.conf.Table, advice))
	sh.atOnce = true
	sh.item, sh.uncertain = lease.Item{Key: sh.key}, false
}
