package group

import (
	"math"
	"slices"
	"time"
)

const (
	// soon is the pause before a reading that something has called for.
	soon = 250 * time.Millisecond
	// askAgain is the time between two readings while what is read is older than what is
	// known, or while a shard that was requested is on its way.
	askAgain = 500 * time.Millisecond
	// mostRest bounds the pause before a shard that failed is tried again, and
	// mostMissing that before a missing stream is looked for again.
	mostRest    = 30 * time.Second
	mostMissing = 80 * time.Second
	// relistAfter is the number of rebalance periods after which the shards are listed
	// anew without a reason. Reasons are a finished shard, a shard that is gone, an item
	// of a shard that is not in the list, and a list that cannot be true.
	relistAfter = 10
	// joinDelay is how long nobody may have come or gone before a member asks for shards.
	joinDelay = time.Second
	// newcomer is how long a member shows by frequent heartbeats that it has joined.
	newcomer = 3 * time.Second
	// tellEvery bounds how often others are told that something has changed.
	tellEvery = 200 * time.Millisecond
)

// What reading costs the table, as the goals for large groups have it: see "Cheap to
// coordinate" in docs/architecture.md.
const (
	// oftenEach times their number is how far apart members send heartbeats that others
	// wait for, in a large group: two hundred writes a second of all.
	oftenEach = 5 * time.Millisecond
	// listEvery is the time between two lists of the members in a small group, and
	// listRoot times the root of the number of members in a large one. Each list costs
	// in proportion to that number, so all together cost its power of 1.5.
	listEvery = 1500 * time.Millisecond
	listRoot  = 450 * time.Millisecond
	// unit is what half a read unit buys: 4 KB, eventually consistent.
	unit = 4096
	// quietUnits is what all members together may take, per second, to read the items of
	// the shards while nothing happens, and busyUnits while something does. waitingUnits
	// is for those alone that wait for shards which nobody reads until they claim them: a
	// little less than the 3,000 that one key gives.
	quietUnits, busyUnits, waitingUnits = 35, 500, 2500
)

// every is the time between two readings for which there is no reason but time, where a
// built-in input shares the stream, and the measure for the pace of what is not urgent.
func (g *Group) every() time.Duration { return min(g.conf.RebalancePeriod, g.conf.LeasePeriod/3) }

// often is the time between two heartbeats of a member that others wait for.
func (g *Group) often() time.Duration {
	crowd := time.Duration(len(g.members.byID)) * oftenEach
	return min(max(soon, crowd), g.conf.LeasePeriod/3)
}

// listMembersEvery is the time between two lists of the members.
func (g *Group) listMembersEvery() time.Duration {
	n := float64(len(g.members.byID))
	return min(max(listEvery, time.Duration(math.Sqrt(n)*float64(listRoot))), g.conf.LeasePeriod/3)
}

// listMembersAgain is the time until the next list: in a large group half as long while a
// few members are late. The first to notice that one is dead evicts it, and who is to
// claim its shards learns of that by the list. If many are late it is the table, which
// nothing is asked of twice as often then.
func (g *Group) listMembersAgain() time.Duration {
	every, late := g.listMembersEvery(), 0
	for id, m := range g.members.byID {
		if id != g.self && m.late(every) {
			late++
		}
	}
	if late == 0 || late > 1+len(g.members.byID)/10 {
		return every
	}
	return max(every/2, min(every, listEvery))
}

// showEvicted is how long the item of an evicted member stays for the others to see.
// Those that find it absent instead have to confirm that, one by one.
func (g *Group) showEvicted() time.Duration { return min(2*g.listMembersEvery(), g.conf.LeasePeriod) }

// cost is the read units that one reading of a stream takes, by a number of members.
func (s *stream) cost(members int) float64 {
	return float64(max(1, members)) * math.Ceil(float64(s.size)/unit) / 2
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// readEvery is the time between two readings of a stream of which nothing is heard.
func (g *Group) readEvery(s *stream, now time.Time) time.Duration {
	if g.foreign(s, now) {
		return g.every()
	}
	dear := min(seconds(s.cost(len(g.members.byID))/quietUnits), 4*g.conf.LeasePeriod)
	return max(g.conf.RebalancePeriod, dear)
}

// gap is the least time between two readings of a stream that something has called for.
// Who waits for shards shares that with the others that do, and with nobody else: what
// was handed over is not read until its recipient has seen it.
func (g *Group) gap(s *stream, now time.Time) time.Duration {
	least := seconds(s.cost(len(g.members.byID)) / busyUnits)
	if g.Waiting(now) {
		least = min(least, seconds(s.cost(g.requesters())/waitingUnits))
	}
	return min(least, 2*g.conf.LeasePeriod)
}

// requesters is how many members wait for shards.
func (g *Group) requesters() (n int) {
	for _, m := range g.members.byID {
		if len(m.Requests) > 0 {
			n++
		}
	}
	return n
}

// othersChanged has the streams read that another member may have changed something of.
func (g *Group) othersChanged(streams []string, now time.Time) {
	for _, s := range g.streams {
		if len(streams) == 0 || slices.Contains(streams, s.name) {
			gap := g.gap(s, now)
			at := now
			if next := s.reads.began.Add(gap); next.After(at) {
				at = next
			}
			s.callAt(at.Add(time.Duration(g.share(s, now) * float64(gap))))
		}
	}
}

// share is the part of a gap after which this member reads. It is drawn once for each
// reading: of the many changes that one death or join brings each would draw anew, the
// least would count, and all members would read at once. Only who waits for shards, and
// is told of them by those changes, does that.
func (g *Group) share(s *stream, now time.Time) float64 {
	if s.reads.share == 0 || g.Waiting(now) {
		s.reads.share = g.conf.Random()
	}
	return s.reads.share
}

func (g *Group) callAll(at time.Time) {
	for _, s := range g.streams {
		s.callAt(at)
	}
}

// reads is when something is read.
type reads struct {
	underWay bool
	began    time.Time // the last one
	due      time.Time // the next one
	failures int       // in a row
	share    float64   // of a gap until the next one, see Group.share; 0 when not drawn
}

// call brings the next reading forward.
func (r *reads) call(at time.Time) {
	if r.due.IsZero() || at.Before(r.due) {
		r.due = at
	}
}

// begin begins a reading, and plans the next one.
func (r *reads) begin(now time.Time, next time.Duration) {
	r.underWay, r.began, r.due, r.share = true, now, now.Add(next), 0
}

// done ends a reading. After a failure the next one comes soon, and later each time.
func (r *reads) done(err error, most time.Duration, now time.Time) {
	r.underWay = false
	if err == nil {
		r.failures = 0
		return
	}
	r.failures++
	r.call(now.Add(min(soon<<min(r.failures-1, 10), max(most, soon))))
}

// postpone has a stream that is missing looked for later, and later each time.
func (r *reads) postpone(every time.Duration, now time.Time) {
	r.due = now.Add(min(every<<min(r.failures, 10), mostMissing))
	r.failures++
}

func (r *reads) ready(now time.Time) bool { return !r.underWay && !now.Before(r.due) }

func (s *stream) callAt(at time.Time) {
	if !s.missing {
		s.reads.call(at)
	}
}

// schedule begins the readings that are due.
func (g *Group) schedule(now time.Time) {
	if g.self == "" {
		return
	}
	ms := &g.members
	if g.watching(now) {
		ms.reads.call(ms.reads.began.Add(g.often()))
	}
	if ms.reads.ready(now) {
		// A member sees the others' tokens at other moments than they are written.
		next := g.listMembersAgain()
		ms.reads.begin(now, g.spread(next))
		g.pending.ReadMembers, g.pending.Consistently = true, now.Sub(g.joinedAt) < newcomer
	}
	for _, s := range g.streams {
		if !s.reads.ready(now) {
			continue
		}
		next := g.readEvery(s, now)
		s.reads.begin(now, g.spread(next))
		g.pending.Refresh = append(g.pending.Refresh, Refresh{
			Stream: s.name, Missing: s.missing,
			Shards:     now.Sub(s.listedAt) >= relistAfter*g.conf.RebalancePeriod && !now.Before(s.listAfter),
			Consistent: !s.known,
		})
	}
}

// spread returns a time less up to a tenth at random, so that members that came
// together do not read together for ever.
func (g *Group) spread(d time.Duration) time.Duration {
	return d - time.Duration(g.conf.Random()*float64(d/10))
}

// watching reports whether the members are to be listed often: this one or another has
// just joined, and is about to request shards; this one waits for shards that it has
// requested, or is asked by one that has not been seen to live since.
func (g *Group) watching(now time.Time) bool {
	g.pending.Report.Starts = g.starts()
	if now.Sub(g.joinedAt) < newcomer || now.Sub(g.members.newest) < newcomer || g.Waiting(now) {
		return true
	}
	for id, m := range g.members.byID {
		if id != g.self && m.Requests[g.self] > 0 && now.Sub(m.requestedAt) < newcomer && !g.livesSince(m, now) {
			return true
		}
	}
	return false
}

// Waiting reports whether shards that were requested are expected any moment.
func (g *Group) Waiting(now time.Time) bool {
	return len(g.requests) > 0 && now.Sub(g.requested) < g.conf.LeasePeriod
}

// wake returns when something is due. Without a sound session that is no plan.
func (g *Group) wake(now time.Time, sound bool) time.Time {
	next := now.Add(g.conf.LeasePeriod)
	by := func(at time.Time) {
		if !at.IsZero() && at.Before(next) {
			next = at
		}
	}
	if g.self == "" {
		return next
	}
	if !g.members.reads.underWay {
		by(g.members.reads.due)
		if g.watching(now) {
			by(g.members.reads.began.Add(g.often()))
		}
	}
	for _, s := range g.streams {
		if !s.reads.underWay {
			by(s.reads.due)
		}
	}
	if sound {
		by(g.planAt)
	}
	by(g.told.at)
	return next
}

// toldChanges is when others are to be told that something has changed.
type toldChanges struct {
	at   time.Time // zero when nothing is to be told
	last time.Time
	said int64
}

func (t *toldChanges) pending(now time.Time) {
	if t.at.IsZero() {
		t.at = now
		if next := t.last.Add(tellEvery); next.After(now) {
			t.at = next
		}
	}
}

// tell makes the report of this member.
func (g *Group) tell(now time.Time) {
	if t := &g.told; !t.at.IsZero() && !now.Before(t.at) {
		t.at, t.last, t.said = time.Time{}, now, g.changes
	}
	g.pending.Report.Streams = g.shared()
	g.pending.Report.Changes = g.told.said
	if len(g.requests) > 0 {
		g.pending.Report.Requests = g.requests
	}
	if now.Sub(g.joinedAt) < newcomer || g.Waiting(now) {
		g.pending.Often = g.often()
	}
}
