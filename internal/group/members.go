package group

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/balance"
	"github.com/benthos-plugins/aws-kinesis/internal/lease"
)

// members is who is in the group, as the list of their items shows it.
type members struct {
	period time.Duration // our lease period
	byID   map[string]*member
	// gone are ids of members that are known to be gone for good, and since when: an id is
	// never used again.
	gone map[string]time.Time
	// tombs are the members that were evicted and whose items are there still.
	tombs map[string]tomb
	known bool // the list has been read since the session began

	// participants are those who share shards, ourselves left out, and changedAt is when
	// they became others.
	participants   []string
	told           []string // those of them that were told
	toldOnce       bool
	anyLate        bool // whether somebody's heartbeat was late at the last list
	changedAt      time.Time
	unsettledSince time.Time // since when that happens again and again
	newest         time.Time // when the last newcomer was seen for the first time
	reads          reads
	soundSince     time.Time // since when our own session has been trusted
}

// member is another member, or this one.
type member struct {
	lease.Member
	first time.Time // end of the list that showed it first
	since time.Time // end of the list that showed its present token first
	last  time.Time // start of the list that showed it last
	// moved is whether its token was seen to change, and movedAt the end of the list that
	// showed it last.
	moved   bool
	movedAt time.Time
	// requestedAt is the end of the list that first showed what it asks of us now, and
	// given are the shards that it was given since it last said something else.
	requestedAt time.Time
	given       []lease.Key
	// evicting is whether it is being evicted, and after failures not before retryAt.
	evicting bool
	failures int
	retryAt  time.Time
}

func newMembers(period time.Duration) members {
	return members{period: period, byID: map[string]*member{}, gone: map[string]time.Time{}, tombs: map[string]tomb{}}
}

// rejoin forgets what was seen before the session: nothing is known of how long tokens
// have stood still.
func (ms *members) rejoin(now time.Time) {
	ms.byID, ms.known = map[string]*member{}, false
	ms.participants, ms.changedAt, ms.unsettledSince = nil, time.Time{}, time.Time{}
	ms.newest, ms.soundSince = now, now
	ms.reads.call(now)
}

func (ms *members) callAt(at time.Time) { ms.reads.call(at) }

// MemberSnapshot is what one reading of the list of members brought.
type MemberSnapshot struct {
	Members    []lease.Member
	Start, End time.Time // of the reading
	// SoundSince is since when the own session had been trusted at the end of it, zero
	// when it was not. One that cannot write, or has stood still itself, declares nobody
	// dead, and nor does it for a while afterwards.
	SoundSince time.Time
	Err        error
}

func (g *Group) applyMembers(v *MemberSnapshot, now time.Time) {
	ms := &g.members
	ms.reads.done(v.Err, g.every(), now)
	switch {
	case v.SoundSince.IsZero():
		ms.soundSince = v.End // also where nothing could be read, as in an outage
	case v.SoundSince.After(ms.soundSince):
		ms.soundSince = v.SoundSince
	}
	if v.Err != nil || g.self == "" {
		return
	}
	// What a reading costs goes by the number of members, for which those from before do
	// until the list has been taken in.
	before, byID, tombs := ms.byID, make(map[string]*member, len(v.Members)), map[string]tomb{}
	ms.known = true
	for _, seen := range v.Members {
		if seen.Gone() {
			g.dirty = g.dirty || !ms.isGone(seen.ID)
			ms.nowGone(seen.ID, now)
			tombs[seen.ID] = tomb{Member: seen, due: v.End.Add(ms.period)}
			if before, ok := ms.tombs[seen.ID]; ok {
				tombs[seen.ID] = before
			}
		}
		if ms.isGone(seen.ID) {
			continue // what is read may be older than what is known
		}
		m := before[seen.ID]
		if m == nil {
			m = &member{Member: seen, first: v.End, since: v.End}
			if seen.Requests[g.self] > 0 {
				m.requestedAt = v.End
			}
			if seen.ID != g.self {
				ms.newest = v.End
			}
			g.dirty = true
		} else {
			g.applyMember(m, seen, v)
		}
		m.last = v.Start
		byID[seen.ID] = m
	}
	ms.byID, ms.tombs = byID, tombs
	for _, s := range g.streams {
		g.adoptStart(s)
	}
	g.forgetGone(now)
	for id, m := range before {
		if ms.byID[id] == nil {
			g.left(m, now)
		}
	}
	g.settle(now)
	was := ms.anyLate
	ms.anyLate = false
	for id := range ms.byID {
		ms.anyLate = ms.anyLate || g.late(id)
	}
	g.dirty = g.dirty || was || ms.anyLate // how late their shards are is to be told
}

func (ms *members) isGone(id string) bool {
	_, gone := ms.gone[id]
	return gone
}

func (ms *members) nowGone(id string, now time.Time) {
	if !ms.isGone(id) {
		ms.gone[id] = now
	}
}

// manyGone is how many ids of members that are gone are remembered in any case.
const manyGone = 1000

// forgetGone forgets old ids of members that are gone, which nobody will read any more:
// they own nothing, and their items have long been removed.
func (g *Group) forgetGone(now time.Time) {
	ms := &g.members
	if len(ms.gone) <= manyGone {
		return
	}
	owning := g.owning()()
	maps.DeleteFunc(ms.gone, func(id string, since time.Time) bool {
		_, there := ms.tombs[id]
		return !there && !owning[id] && now.Sub(since) > 2*lease.Horizons*ms.period
	})
}

// tomb is the item of a member that was evicted.
type tomb struct {
	lease.Member
	due  time.Time // to be removed
	ours bool      // evicted by this member
}

// takeEvicted returns some of the evicted members whose items are to be removed: by
// whoever evicted them soon, and by anybody after a lease period. It returns each once.
// Where that fails, a later list shows the item for as long as it takes to be returned
// again.
func (g *Group) takeEvicted(most int, now time.Time) (some []lease.Member) {
	for id, t := range g.members.tombs {
		switch {
		case !now.Before(t.due) && len(some) < most:
			some = append(some, t.Member)
			delete(g.members.tombs, id)
		case t.ours && now.Before(t.due):
			g.planBy(t.due)
		}
	}
	return some
}

// applyMember takes in what a member says now.
func (g *Group) applyMember(m *member, seen lease.Member, v *MemberSnapshot) {
	if seen.Token == m.Token {
		if m.since.Before(g.members.soundSince) {
			m.since = g.members.soundSince
		}
		return
	}
	if !m.moved {
		g.dirty = true
	}
	if asked := seen.Requests[g.self]; asked != m.Requests[g.self] || seen.Changes != m.Changes {
		if asked > 0 && m.Requests[g.self] == 0 {
			m.requestedAt = v.End
		}
		m.given = nil
		g.dirty = true
	}
	if seen.Requests[g.self] > 0 {
		g.dirty = true // it was seen to live since it asked
	}
	if seen.Changes != m.Changes && seen.ID != g.self {
		g.othersChanged(seen.Streams, v.End)
	}
	if !slices.Equal(slices.Sorted(slices.Values(seen.Streams)), slices.Sorted(slices.Values(m.Streams))) {
		g.dirty = true
	}
	m.Member, m.since, m.moved, m.movedAt, m.evicting, m.failures = seen, v.End, true, v.End, false, 0
}

// left takes in that a member is in the list no more.
func (g *Group) left(m *member, now time.Time) {
	g.dirty = true
	if !g.members.isGone(m.ID) {
		// It may have left, or been evicted by another: what it owned is confirmed first.
		g.othersChanged(m.Streams, now)
	}
}

// counts reports whether a member is to have a share: it shares streams, and is known
// to live, or owns something. The item of a process that died at once must not take a
// share for good.
func (m *member) counts(owning func() map[string]bool) bool {
	return len(m.Streams) > 0 && (m.moved || owning()[m.ID])
}

// late reports whether the lists have shown a member's token to stand still for longer than
// the longest time between two heartbeats and that between two lists, with a second to
// spare.
func (m *member) late(listEvery time.Duration) bool {
	return m.last.Sub(m.since) > m.Period*2/5+listEvery+time.Second
}

// dead reports whether a member's token has stood still for its lease period, while
// our own session was sound.
func (ms *members) dead(m *member) bool {
	return !m.last.Before(ms.due(m))
}

func (ms *members) due(m *member) time.Time { return m.since.Add(max(ms.period, m.Period)) }

// evict has the members removed that are dead. What they own is claimed after that.
func (g *Group) evict(now time.Time) {
	for id, m := range g.members.byID {
		if id != g.self && !m.evicting && !now.Before(m.retryAt) && g.members.dead(m) {
			m.evicting = true
			g.pending.Evict = append(g.pending.Evict, m.Member)
		}
	}
}

// wasEvicted takes in what came of an eviction. show is how long the item stays.
func (ms *members) wasEvicted(id string, err error, show time.Duration, now time.Time) {
	if err == nil {
		evicted := lease.Member{ID: id, Token: lease.Evicted}
		ms.tombs[id] = tomb{Member: evicted, due: now.Add(show), ours: true}
		ms.nowGone(id, now)
		delete(ms.byID, id)
		return
	}
	m := ms.byID[id]
	if m == nil {
		return
	}
	m.evicting = false
	switch {
	case isConflict(err):
		m.since = now // it lives, or is gone: the next list tells
		ms.reads.call(now)
	default:
		m.failures++
		m.retryAt = now.Add(min(soon<<min(m.failures, 10), ms.period))
	}
}

func isConflict(err error) bool { return errors.Is(err, lease.ErrConflict) }

// settle notices that those who share shards became others.
func (g *Group) settle(now time.Time) {
	ms := &g.members
	owning := g.owning()
	var participants []string
	for id, m := range ms.byID {
		if id != g.self && m.counts(owning) {
			participants = append(participants, id)
		}
	}
	slices.Sort(participants)
	if slices.Equal(participants, ms.participants) {
		return
	}
	if now.Sub(ms.changedAt) > joinDelay {
		ms.unsettledSince = now
	}
	ms.participants, ms.changedAt = participants, now
	g.dirty = true
}

// tellMembers says who has come and who has gone, once nobody does any more for a moment.
func (g *Group) tellMembers(now time.Time) {
	before, after := g.members.told, g.members.participants
	if slices.Equal(before, after) && g.members.toldOnce || !g.stable(now) {
		return
	}
	g.members.told = after
	if g.members.known && !g.members.toldOnce {
		g.members.toldOnce = true
		g.say(Info, "The group has %d members: %s", len(after)+1, few(append([]string{"this client"}, after...)))
		return
	}
	var changes []string
	tell := func(what string, these, those []string) {
		if ids := slices.DeleteFunc(slices.Clone(these), func(id string) bool { return slices.Contains(those, id) }); len(ids) > 0 {
			changes = append(changes, few(ids)+" "+what)
		}
	}
	tell("joined", after, before)
	tell("left", before, after)
	g.say(Info, "Clients: %s. The group has %d now, with this one", strings.Join(changes, ", "), len(after)+1)
}

// few is a list of ids for a line, of which the first are named.
func few(ids []string) string {
	const named = 3
	if len(ids) > named {
		return fmt.Sprintf("%s and %d more", strings.Join(ids[:named], ", "), len(ids)-named)
	}
	return strings.Join(ids, ", ")
}

// stable reports whether it is a time to ask for shards: what is asked for while many
// come would be asked for again by those that come later.
func (g *Group) stable(now time.Time) bool {
	ms := &g.members
	wait := min(joinDelay, g.every()/2) - now.Sub(ms.changedAt)
	if wait <= 0 || now.Sub(ms.unsettledSince) >= g.every() {
		return true
	}
	g.planBy(now.Add(wait))
	return false
}

// acquainted reports whether a member that has just joined knows the others by now:
// who starts together with others must not take them for ghosts, and claim what is
// theirs. Of each newcomer two heartbeats have to have been awaited.
func (g *Group) acquainted(now time.Time) bool {
	ms := &g.members
	if !ms.known || now.Before(g.joinedAt.Add(2*g.often())) {
		return false
	}
	if now.Sub(g.joinedAt) > newcomer {
		return true
	}
	owning := g.owning()
	for id, m := range ms.byID {
		if id != g.self && len(m.Streams) > 0 && !m.counts(owning) && m.last.Sub(m.first) < 3*g.often() {
			return false
		}
	}
	return true
}

// owning returns who owns something, by the items. It looks at each shard, and only
// when asked: of members that were seen to live nobody needs to know.
func (g *Group) owning() func() map[string]bool {
	return sync.OnceValue(func() map[string]bool {
		owning := map[string]bool{}
		for _, s := range g.streams {
			for _, sh := range s.shards {
				if sh.item.Owner != "" {
					owning[sh.item.Owner] = true
				}
			}
		}
		return owning
	})
}

// participantsOf returns the members of a plan: this one, and the others that count.
// Owners of the built-in input count too, by what they own.
func (g *Group) participantsOf(owning func() map[string]bool) []balance.Member {
	all := []balance.Member{{Client: g.self, Streams: g.shared()}}
	for _, id := range slices.Sorted(maps.Keys(g.members.byID)) {
		if m := g.members.byID[id]; id != g.self && m.counts(owning) {
			all = append(all, balance.Member{Client: id, Streams: m.Streams})
		}
	}
	return all
}

// shared returns the streams of which this member shares the shards, not nil.
func (g *Group) shared() []string {
	names := []string{}
	if g.explicit() {
		return names
	}
	for _, s := range g.streams {
		if !s.missing {
			names = append(names, s.name)
		}
	}
	return names
}
