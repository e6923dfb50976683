package group

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/lease/leasetest"
	"github.com/benthos-plugins/aws-kinesis/internal/lineage"
)

// The model of a whole group: some processes, each with a Group, on one table and one
// stream. What is obviously right is checked at each write and at each step.
//
// Readings are up to a second old, calls are slow, fail, or take effect without an
// answer, and processes come, leave, crash, and stand still.

const (
	modelLease   = 20 * time.Second
	modelTrust   = modelLease - modelLease/10
	modelStale   = time.Second
	modelChaos   = time.Minute
	modelSettled = modelLease + 20*time.Second
	modelStill   = 20 * time.Second
)

var errModel = errors.New("throttled")

type world struct {
	t      *rapid.T
	rand   *rand.Rand
	now    time.Time
	queue  events
	queued int
	faults bool
	trace  []string

	begun   bool // something that check may object to
	checked time.Time

	table   *leasetest.Table
	items   map[lease.Key][]version[lease.Item]
	members map[string][]version[lease.Member]
	lists   []version[[]lineage.Shard]

	end      time.Time // of the group; zero for none
	closedAt map[string]time.Time
	cut      map[string]bool // by the table's own words

	finished   map[string]bool // by the table's own words
	unreadFrom map[string]time.Time
	processes  []*process
	born       int
	moves      int // claims and hand-overs
}

// version is what something was from a time on.
type version[T any] struct {
	at time.Time
	is T
}

// asOf returns what something was at a time; the zero value when it was not there.
func asOf[T any](versions []version[T], at time.Time) (was T) {
	for _, v := range versions {
		if v.at.After(at) {
			break
		}
		was = v.is
	}
	return was
}

type occurrence struct {
	at  time.Time
	n   int
	run func()
}

type events []occurrence

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return cmp.Or(e[i].at.Compare(e[j].at), cmp.Compare(e[i].n, e[j].n)) < 0
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(occurrence)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

func newWorld(t *rapid.T) *world {
	w := &world{
		t: t, now: time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC), table: leasetest.New(), faults: true,
		rand:  rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0)),
		items: map[lease.Key][]version[lease.Item]{}, members: map[string][]version[lease.Member]{},
		finished: map[string]bool{}, unreadFrom: map[string]time.Time{},
		closedAt: map[string]time.Time{}, cut: map[string]bool{},
	}
	w.table.Wrote = w.wrote
	w.table.Beaten = func(before, after lease.Member) {
		id := cmp.Or(before.ID, after.ID)
		w.members[id] = append(w.members[id], version[lease.Member]{w.now, after})
	}
	return w
}

// wrote holds each write against what may be written.
func (w *world) wrote(before, after lease.Item) {
	w.items[after.Key] = append(w.items[after.Key], version[lease.Item]{w.now, after})
	if after.Finished {
		w.finished[after.Shard] = true
	}
	if !after.CutAt.IsZero() {
		w.cut[after.Shard] = true
		closed, is := w.closedAt[after.Shard]
		w.require(!is || closed.After(w.end), "%s is cut, which was closed before the end", after.Shard)
	}
	w.log("%s: %s/%s -> %s/%s", after.Shard, before.Owner, before.Term, after.Owner, after.Term)
}

func (w *world) log(format string, args ...any) {
	w.trace = append(w.trace, w.now.Format("04:05.000 ")+fmt.Sprintf(format, args...))
}

func (w *world) require(ok bool, format string, args ...any) {
	if !ok {
		for _, line := range w.trace[max(0, len(w.trace)-120):] {
			w.t.Log(line)
		}
		for _, p := range w.alive() {
			w.t.Logf("%s as %s, trusted %t, paused %v, sees %v", p.name, p.id, p.trusted(), p.paused.Sub(w.now), slices.Collect(maps.Keys(p.seen)))
			for id, sh := range p.g.streams[0].shards {
				w.t.Logf("  %s %s uncertain %t, listed %t, held %v: %+v", id, sh.assignment, sh.uncertain, sh.inList, p.holdings[sh.key], sh.item)
			}
		}
		w.t.Fatalf(w.now.Format("04:05.000 ")+format, args...)
	}
}

func (w *world) at(at time.Time, run func()) {
	w.queued++
	heap.Push(&w.queue, occurrence{at, w.queued, run})
}

func (w *world) after(d time.Duration, run func()) { w.at(w.now.Add(d), run) }

// delay is how long something takes: mostly little.
func (w *world) delay(most time.Duration) time.Duration {
	if w.rand.IntN(4) > 0 {
		most /= 20
	}
	return time.Duration(w.rand.Float64() * float64(most))
}

// fails draws whether a call fails, and whether it takes effect nonetheless.
func (w *world) fails() (fails, effect bool) {
	return w.faults && w.rand.IntN(10) == 0, w.rand.IntN(2) == 0
}

// run has all occur until a time, and checks the whole whenever a shard has begun to be
// read or a session was prolonged, and now and then.
func (w *world) run(until time.Time) {
	for len(w.queue) > 0 && !w.queue[0].at.After(until) {
		o := heap.Pop(&w.queue).(occurrence)
		w.now = o.at
		o.run()
		if w.begun || w.now.Sub(w.checked) >= 250*time.Millisecond {
			w.begun, w.checked = false, w.now
			w.check()
		}
	}
	w.now = until
}

// shards is the stream's list as it is.
func (w *world) shards() []lineage.Shard {
	if len(w.lists) == 0 {
		return nil
	}
	return w.lists[len(w.lists)-1].is
}

func (w *world) setShards(shards []lineage.Shard) {
	w.lists = append(w.lists, version[[]lineage.Shard]{w.now, shards})
}

func (w *world) add(parents ...string) string {
	shards := slices.Clone(w.shards())
	for i := range shards {
		if slices.Contains(parents, shards[i].ID) {
			shards[i].Closed, shards[i].LastSequence = true, "9"
			w.closedAt[shards[i].ID] = w.now
		}
	}
	id := id(w.born)
	w.born++
	w.setShards(append(shards, lineage.Shard{ID: id, Parents: parents, FirstSequence: "1"}))
	return id
}

func (w *world) openShards() (open []string) {
	for _, s := range w.shards() {
		if !s.Closed {
			open = append(open, s.ID)
		}
	}
	return open
}

func (w *world) closed(id string) bool {
	return !slices.Contains(w.openShards(), id)
}

func (w *world) childrenOf(id string) (children []Child) {
	for _, s := range w.shards() {
		if slices.Contains(s.Parents, id) {
			children = append(children, Child{s.ID, s.Parents})
		}
	}
	return children
}

// trim removes finished shards from the stream.
func (w *world) trim() {
	w.setShards(slices.DeleteFunc(slices.Clone(w.shards()), func(s lineage.Shard) bool { return w.finished[s.ID] }))
}

// readable reports whether a shard is to be read by somebody.
func (w *world) readable(s lineage.Shard) bool {
	return !w.finished[s.ID] && !w.cut[s.ID] && !slices.ContainsFunc(s.Parents, func(p string) bool { return !w.finished[p] })
}

// gone reports whether a member is in the group no more.
func (w *world) gone(id string) bool {
	m, there, err := w.table.Member(context.Background(), id)
	return err == nil && (!there || m.Gone())
}

// check holds the whole against what is promised.
func (w *world) check() {
	readers := map[string]*process{}
	for _, p := range w.processes {
		for key, h := range p.holdings {
			if !h.reading || !p.trusted() {
				continue
			}
			other := readers[key.Shard]
			w.require(other == nil, "%s is read by %s and %v", key.Shard, p.id, other)
			readers[key.Shard] = p
		}
	}
	for _, s := range w.shards() {
		if w.faults || !w.readable(s) || readers[s.ID] != nil {
			delete(w.unreadFrom, s.ID)
			continue
		}
		from, ok := w.unreadFrom[s.ID]
		if !ok {
			w.unreadFrom[s.ID] = w.now
		}
		w.require(!ok || w.now.Sub(from) <= modelSettled, "%s has not been read for %v", s.ID, w.now.Sub(from))
	}
}

// process is one member as the balancer makes one of a Group.
type process struct {
	w        *world
	name     string
	lives    int
	g        *Group
	id       string // of its session; empty while it has none
	token    string
	trust    time.Time
	sound    time.Time // since when it has not run out
	report   lease.Report
	often    time.Duration
	beaten   time.Time
	beating  bool
	holdings map[lease.Key]*modelHolding
	paused   time.Time // until when it stands still
	leaving  bool
	ended    bool
	woken    int // acts so far

	seen  map[string]lease.Member // the last list
	given map[string]int          // hand-overs since each spoke, which is
	spoke map[string]time.Time    // when it was heard to say something else
}

type modelHolding struct {
	link    lease.Link
	reading bool
	ending  bool
	to      string // of a hand-over
	at      time.Time
}

func (p *process) String() string { return p.name }

func (w *world) start(name string) {
	p := &process{w: w, name: name, holdings: map[lease.Key]*modelHolding{}, seen: map[string]lease.Member{}, given: map[string]int{}, spoke: map[string]time.Time{}}
	p.g = New(Config{
		Streams: []StreamConfig{{Name: "foo"}}, LeasePeriod: modelLease, RebalancePeriod: modelLease / 2,
		StartFromOldest: true, EndAt: w.end, Table: "leases", Random: w.rand.Float64,
	})
	p.g.Begin([]StreamSnapshot{{Stream: "foo", Shards: w.shards(), Listed: w.now, ServerTime: w.now}}, w.now)
	w.processes = append(w.processes, p)
	p.join()
}

func (w *world) alive() (alive []*process) {
	for _, p := range w.processes {
		if !p.ended && !p.leaving {
			alive = append(alive, p)
		}
	}
	return alive
}

func (p *process) trusted() bool {
	return !p.ended && p.id != "" && p.w.now.Before(p.trust)
}

// after has something occur in the process, which may stand still or end first.
func (p *process) after(d time.Duration, run func()) {
	p.w.after(d, func() {
		switch {
		case p.ended:
		case p.w.now.Before(p.paused):
			p.w.at(p.paused, func() {
				if !p.ended {
					run()
				}
			})
		default:
			run()
		}
	})
}

// tell has the loop hear something, and act.
func (p *process) tell(d time.Duration, event func()) {
	p.after(d, func() {
		event()
		p.act()
	})
}

func (p *process) join() {
	p.lives++
	id, start := fmt.Sprintf("%s.%d", p.name, p.lives), p.w.now
	m := lease.Member{ID: id, Token: id + " joins", Period: modelLease, Report: lease.Report{Streams: []string{"foo"}}}
	fails, effect := p.w.fails()
	if !fails || effect {
		require.NoError(p.w.t, p.w.table.Join(context.Background(), m))
	}
	if fails {
		p.after(time.Second, p.join) // under another id
		return
	}
	p.sound = p.w.now
	p.id, p.token, p.trust, p.report, p.beaten = id, m.Token, start.Add(modelTrust), m.Report, p.w.now
	p.tell(p.w.delay(100*time.Millisecond), func() { p.g.Joined(id, p.w.now) })
	p.keep()
}

// keep sends the heartbeats of one session.
func (p *process) keep() {
	id := p.id
	var tick func()
	tick = func() {
		if p.id != id {
			return
		}
		due := modelLease / 3
		if p.often > 0 {
			due = min(due, p.often)
		}
		if p.w.now.Sub(p.beaten) >= due {
			p.beat()
		}
		p.after(max(250*time.Millisecond, min(due, p.beaten.Add(due).Sub(p.w.now))), tick)
	}
	p.after(100*time.Millisecond, tick)
}

// beat sends a heartbeat. One without an answer is resolved by reading, in no time.
func (p *process) beat() {
	id, start := p.id, p.w.now
	if p.beating || id == "" {
		return
	}
	p.beating = true
	p.after(p.w.delay(time.Second), func() {
		p.beating = false
		if p.id != id {
			return
		}
		p.beaten = p.w.now
		if fails, effect := p.w.fails(); fails && !effect {
			return
		}
		next := lease.Member{ID: id, Token: fmt.Sprint(id, " at ", start.UnixNano()), Period: modelLease, Report: p.report}
		if err := p.w.table.Beat(context.Background(), next, p.token); err != nil {
			p.lose()
			return
		}
		if !p.trusted() {
			p.sound = p.w.now
		}
		p.token, p.trust, p.w.begun = next.Token, start.Add(modelTrust), true
	})
}

// lose ends a session that the table has not any more.
func (p *process) lose() {
	p.w.log("%s loses its session", p.id)
	p.id = ""
	for key, h := range p.holdings {
		h.reading = false
		if h.ending {
			continue
		}
		h.ending = true
		p.exit(key, Exit{Outcome: Lost, Acked: lease.After("1"), Err: lease.ErrLost})
	}
	p.tell(0, func() { p.g.SessionLost(p.w.now) })
	p.after(p.w.delay(2*time.Second), p.join)
}

// leave releases all, and leaves the group.
func (p *process) leave() {
	p.leaving = true
	for key, h := range p.holdings {
		if h.reading {
			h.reading = false
			_ = p.w.table.Release(context.Background(), key, h.link, lease.Move{})
		}
	}
	p.w.after(p.w.delay(time.Second), func() {
		m, there, _ := p.w.table.Member(context.Background(), p.id)
		if there && m.Token == p.token {
			require.NoError(p.w.t, p.w.table.Remove(context.Background(), m))
		}
		p.ended = true
	})
}

func (p *process) act() {
	if p.leaving {
		return
	}
	w := p.w
	a := p.g.Next(w.now, p.trusted())
	w.require(a.Wake.After(w.now), "%s is to wake at %v", p.name, a.Wake)
	if a.Finished {
		w.requireDone(p)
		p.leave()
		return
	}
	p.woken++
	turn := p.woken
	p.after(a.Wake.Sub(w.now), func() {
		if p.woken == turn {
			p.act()
		}
	})
	for owner := range a.Report.Requests {
		_, there := p.seen[owner]
		// In a group that ends, members leave all the time, also while others get acquainted.
		w.require((there || !w.end.IsZero()) && owner != p.id, "%s requests shards of %s", p.id, owner)
	}
	if p.often != a.Often || !reflect.DeepEqual(p.report, a.Report) {
		p.often, p.report = a.Often, a.Report
		p.beat()
	}
	if a.ReadMembers {
		p.readMembers()
	}
	for _, r := range a.Refresh {
		p.refresh(r)
	}
	for _, id := range a.Confirm {
		p.confirm(id)
	}
	for _, m := range a.Evict {
		p.evict(m)
	}
	for _, c := range a.Claim {
		p.claim(c)
	}
	for _, h := range a.HandOver {
		p.handOver(h)
	}
	if a.Clean != nil {
		p.clean(*a.Clean)
	}
}

func (p *process) readMembers() {
	w, v := p.w, &MemberSnapshot{Start: p.w.now}
	p.tell(w.delay(time.Second), func() {
		if v.End = w.now; p.trusted() {
			v.SoundSince = p.sound
		}
		if fails, _ := w.fails(); fails {
			v.Err = errModel
		} else {
			for _, id := range slices.Sorted(maps.Keys(w.members)) {
				// Not older than the reading's start by more than readings may be.
				if m := asOf(w.members[id], w.stale(v.Start)); m.ID != "" {
					v.Members = append(v.Members, m)
				}
			}
			p.look(v.Members)
		}
		p.g.Apply(Snapshot{Members: v}, w.now)
	})
}

func (w *world) stale(start time.Time) time.Time {
	if w.rand.IntN(3) > 0 {
		return start
	}
	return start.Add(-time.Duration(w.rand.Float64() * float64(modelStale)))
}

// look remembers what others ask for, to be held against what they are given.
func (p *process) look(members []lease.Member) {
	seen := map[string]lease.Member{}
	for _, m := range members {
		before := p.seen[m.ID]
		if before.Requests[p.id] != m.Requests[p.id] || before.Changes != m.Changes {
			p.given[m.ID], p.spoke[m.ID] = 0, p.w.now
		}
		if !m.Gone() {
			seen[m.ID] = m
		}
	}
	p.seen = seen
}

func (p *process) refresh(r Refresh) {
	w, v, listed := p.w, &StreamSnapshot{Stream: r.Stream}, p.w.now
	start := listed.Add(w.delay(500 * time.Millisecond))
	p.tell(start.Sub(listed)+w.delay(time.Second), func() {
		if fails, _ := w.fails(); fails {
			v.Err = errModel
		} else {
			if r.Shards {
				v.Listed, v.ServerTime = listed, listed
				v.Shards = slices.Clone(asOf(w.lists, w.stale(listed)))
			}
			v.Start, v.End = start, w.now
			for _, key := range w.keys() {
				at := start
				if !r.Consistent {
					at = w.stale(start)
				}
				if item := asOf(w.items[key], at); item.Exists {
					v.Items = append(v.Items, item)
				}
			}
		}
		p.g.Apply(Snapshot{Stream: v}, w.now)
	})
}

func (w *world) keys() []lease.Key {
	return slices.SortedFunc(maps.Keys(w.items), func(a, b lease.Key) int { return cmp.Compare(a.Shard, b.Shard) })
}

func (p *process) confirm(id string) {
	w := p.w
	p.after(w.delay(500*time.Millisecond), func() {
		fails, _ := w.fails()
		gone := w.gone(id)
		p.tell(w.delay(500*time.Millisecond), func() {
			if fails {
				p.g.Confirmed(id, false, errModel, w.now)
			} else {
				p.g.Confirmed(id, !gone, nil, w.now)
			}
		})
	})
}

func (p *process) evict(m lease.Member) {
	w := p.w
	p.after(w.delay(500*time.Millisecond), func() {
		fails, effect := w.fails()
		err := errModel
		if !fails || effect {
			if err = w.table.Evict(context.Background(), m); err == nil {
				w.log("%s evicts %s", p.id, m.ID)
			}
			if fails {
				err = errModel
			}
		}
		p.tell(w.delay(500*time.Millisecond), func() { p.g.Evicted(m.ID, err, w.now) })
	})
}

// exit tells that an assignment came to its end.
func (p *process) exit(key lease.Key, e Exit) {
	p.holdings[key].ending = true // a session that is lost meanwhile does not end it again
	p.tell(p.w.delay(500*time.Millisecond), func() {
		h := p.holdings[key]
		if to := h.to; to != "" && e.Outcome != HandedOver && !h.at.Before(p.spoke[to]) {
			p.given[to]-- // as far as the owner knows
		}
		delete(p.holdings, key)
		p.g.Exited(key, e, p.w.now)
	})
}

func (p *process) claim(c Claim) {
	w, h, id := p.w, &modelHolding{}, p.id
	w.require(p.holdings[c.Key] == nil, "%s has two consumers of %s", p.id, c.Key)
	w.require(!w.finished[c.Key.Shard] || !w.table.Now(c.Key).Finished || !c.Item.Finished, "%s claims %s, which is finished", p.id, c.Key)
	p.holdings[c.Key] = h
	p.after(w.delay(500*time.Millisecond), func() {
		if p.id != id || h.ending {
			if !h.ending {
				p.exit(c.Key, Exit{Outcome: NotClaimed, Err: context.Canceled})
			}
			return
		}
		fails, effect := w.fails()
		if fails && !effect {
			p.exit(c.Key, Exit{Outcome: NotClaimed, Err: errModel})
			return
		}
		before := w.table.Now(c.Key)
		w.queued++
		grant := lease.Grant{Link: lease.Link{Owner: id, Term: fmt.Sprint("t", w.queued), Token: "0"}, ShardStart: "1", Anew: c.Anew}
		if _, err := w.table.Claim(context.Background(), c.Item, grant); err != nil {
			p.exit(c.Key, Exit{Outcome: NotClaimed, Err: err})
			return
		}
		w.moves++
		w.mayClaim(id, before)
		if fails {
			p.exit(c.Key, Exit{Outcome: NotClaimed, Err: errModel})
			return
		}
		h.link = grant.Link
		p.tell(w.delay(200*time.Millisecond), func() {
			if h.ending {
				return // the session was lost
			}
			p.g.Claimed(c.Key, grant.Term, grant.ShardStart, w.now)
			if fails, effect := w.fails(); fails { // its position cannot be read
				if effect {
					_ = w.table.Release(context.Background(), c.Key, h.link, lease.Move{})
				}
				p.exit(c.Key, Exit{Outcome: NotClaimed, Err: errModel})
				return
			}
			h.reading, w.begun = true, true
			p.consume(c.Key, h)
		})
	})
}

// mayClaim holds a claim that took effect against what is true at that moment.
func (w *world) mayClaim(id string, before lease.Item) {
	w.require(before.Owner == "" || before.Owner == id || w.gone(before.Owner), "%s claims %s, whose owner %s is in the group", id, before.Shard, before.Owner)
	w.require(!before.Finished && before.CutAt.IsZero(), "%s claims %s, which is finished or cut", id, before.Shard)
	for _, v := range w.lists {
		for _, s := range v.is {
			if s.ID != before.Shard {
				continue
			}
			for _, parent := range s.Parents {
				w.require(w.finished[parent], "%s claims %s before its parent %s is finished", id, s.ID, parent)
			}
		}
	}
}

// consume reads a shard to its end, if it has one, or until the lease is lost.
func (p *process) consume(key lease.Key, h *modelHolding) {
	p.after(time.Second+p.w.delay(3*time.Second), func() {
		if h.ending {
			return
		}
		if item := p.w.table.Now(key); item.Owner != h.link.Owner || item.Term != h.link.Term {
			h.reading, h.ending = false, true
			p.exit(key, Exit{Outcome: Lost, Acked: lease.After("1"), Err: lease.ErrLost})
			return
		}
		if p.trusted() && p.w.passes(key.Shard) {
			h.reading, h.ending = false, true
			write := func() error { return p.w.table.Cut(context.Background(), key, h.link, lease.Move{}, p.w.end) }
			p.end(key, write, Exit{Outcome: Cut})
			return
		}
		if !p.w.closed(key.Shard) || !p.trusted() {
			p.consume(key, h)
			return
		}
		h.reading, h.ending = false, true
		write := func() error { return p.w.table.Finish(context.Background(), key, h.link, lease.Move{}) }
		p.end(key, write, Exit{Outcome: Finished, Children: p.w.childrenOf(key.Shard)})
	})
}

// passes reports whether a shard that is read has something that arrived after the end, or
// has had nothing since. One that was closed after it may have had nothing in between.
func (w *world) passes(id string) bool {
	if w.end.IsZero() || !w.now.After(w.end) {
		return false
	}
	at, closed := w.closedAt[id]
	return !closed || at.After(w.end) && w.rand.IntN(2) == 0
}

// requireDone requires that nothing is left to read up to the end, and nobody reads.
func (w *world) requireDone(p *process) {
	w.require(!w.end.IsZero(), "%s ends", p.name)
	beyond := map[string]bool{} // parents come before their children
	for _, s := range w.shards() {
		beyond[s.ID] = w.cut[s.ID] || slices.ContainsFunc(s.Parents, func(parent string) bool { return beyond[parent] })
		w.require(w.finished[s.ID] || beyond[s.ID], "%s ends, and %s is unread", p.name, s.ID)
	}
	for _, other := range w.processes {
		for key, h := range other.holdings {
			// One that has left the stream, with its mark, may be claimed by an old list.
			w.require(!h.reading || !other.trusted() || w.finished[key.Shard], "%s ends, and %s reads %s", p.name, other.name, key.Shard)
		}
	}
}

// end makes the last write of a lease.
func (p *process) end(key lease.Key, write func() error, e Exit) {
	p.after(p.w.delay(500*time.Millisecond), func() {
		fails, effect := p.w.fails()
		if !fails || effect {
			if err := write(); err != nil {
				p.exit(key, Exit{Outcome: Lost, Acked: lease.After("1"), Err: lease.ErrLost})
				return
			}
		}
		if fails {
			e = Exit{Outcome: Failed, Err: errModel}
		}
		p.exit(key, e)
	})
}

func (p *process) handOver(h HandOver) {
	w, held := p.w, p.holdings[h.Key]
	w.require(held != nil, "%s hands over %s, which it has not", p.id, h.Key)
	p.given[h.To]++
	// In a group that ends, shards change hands right after they were claimed, and a reading
	// from before the claim makes the owner forget what it has given.
	w.require(p.given[h.To] <= p.seen[h.To].Requests[p.id] || !w.end.IsZero(), "%s gives %d shards to %s, which has requested %d", p.id, p.given[h.To], h.To, p.seen[h.To].Requests[p.id])
	w.moves++
	held.to, held.at = h.To, w.now
	if held.ending {
		return // it ends as it would have
	}
	held.ending = true
	p.after(w.delay(2*time.Second), func() { // drains
		if p.id == "" || !held.reading {
			return // the session was lost
		}
		held.reading = false
		w.queued++
		to := lease.Link{Owner: h.To, Term: fmt.Sprint("h", w.queued), Token: "0"}
		if fails, _ := w.fails(); fails {
			write := func() error { return w.table.Release(context.Background(), h.Key, held.link, lease.Move{}) }
			p.end(h.Key, write, Exit{Outcome: Released})
			return
		}
		write := func() error { return w.table.HandOver(context.Background(), h.Key, held.link, lease.Move{}, to) }
		p.end(h.Key, write, Exit{Outcome: HandedOver, To: h.To})
	})
}

func (p *process) clean(c Chores) {
	w := p.w
	p.tell(w.delay(time.Second), func() {
		var done Cleaned
		for _, m := range c.Evicted {
			_ = w.table.Remove(context.Background(), m)
		}
		for _, item := range slices.Concat(c.Finished, c.Expired) {
			if fails, _ := w.fails(); fails {
				done.Err = errModel
				break
			}
			if removed, err := w.table.Delete(context.Background(), item); removed && err == nil {
				w.require(w.finished[item.Shard], "%s removes the item of %s", p.id, item.Shard)
			}
			done.Done = append(done.Done, item)
		}
		p.g.Cleaned(done, w.now)
	})
}

// happens is what befalls the group while there are faults.
func (w *world) happens(what string, n int) {
	open, alive := w.openShards(), w.alive()
	switch {
	case what == "start" && len(alive) < 5:
		w.start(fmt.Sprint("p", len(w.processes)))
	case what == "leave" && len(alive) > 1:
		alive[n%len(alive)].leave()
	case what == "crash" && len(alive) > 1:
		alive[n%len(alive)].ended = true
	case what == "pause" && len(alive) > 0:
		if p := alive[n%len(alive)]; !w.now.Before(p.paused) {
			p.paused = w.now.Add(time.Duration(n%40) * time.Second)
		}
	case what == "split" && len(open) > 0 && len(open) < 10:
		parent := open[n%len(open)]
		w.add(parent)
		w.add(parent)
	case what == "merge" && len(open) > 1:
		w.add(open[n%len(open)], open[(n+1)%len(open)])
	case what == "trim":
		w.trim()
	default:
		return
	}
	w.log("%s %d", what, n)
}

func TestNextAgainstANaiveModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		for range rapid.IntRange(1, 6).Draw(t, "shards") {
			w.add()
		}
		w.start("p0")
		what := rapid.SampledFrom([]string{"start", "start", "start", "leave", "crash", "pause", "split", "merge", "trim"})
		for range rapid.IntRange(0, 12).Draw(t, "happenings") {
			what, n := what.Draw(t, "what"), rapid.IntRange(0, 100).Draw(t, "n")
			w.after(time.Duration(rapid.IntRange(0, int(modelChaos)).Draw(t, "when")), func() { w.happens(what, n) })
		}
		w.run(w.now.Add(modelChaos + 40*time.Second)) // none stands still any more
		w.faults = false
		w.run(w.now.Add(2*modelSettled + 20*time.Second))
		w.requireBalanced()
		moves := w.moves
		w.run(w.now.Add(modelStill))
		w.require(w.moves == moves, "it is balanced, and shards move still")
	})
}

func TestEndOfAGroupAgainstANaiveModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		w.end = w.now.Add(time.Duration(rapid.IntRange(int(-time.Minute), int(modelChaos)).Draw(t, "end")))
		for range rapid.IntRange(1, 6).Draw(t, "shards") {
			w.add()
		}
		w.start("p0")
		what := rapid.SampledFrom([]string{"start", "start", "start", "crash", "pause", "split", "merge", "trim"})
		for range rapid.IntRange(0, 12).Draw(t, "happenings") {
			what, n := what.Draw(t, "what"), rapid.IntRange(0, 100).Draw(t, "n")
			w.after(time.Duration(rapid.IntRange(0, int(modelChaos)).Draw(t, "when")), func() { w.happens(what, n) })
		}
		w.run(w.now.Add(modelChaos + 40*time.Second)) // none stands still any more
		w.faults = false
		w.run(w.now.Add(2*modelSettled + 20*time.Second))
		w.require(len(w.alive()) == 0, "%d have not ended", len(w.alive()))
	})
}

// requireBalanced requires that all is read, shared within one.
func (w *world) requireBalanced() {
	least, most := len(w.shards()), 0
	for _, p := range w.alive() {
		held := 0
		for _, h := range p.holdings {
			if h.reading {
				held++
			}
		}
		least, most = min(least, held), max(most, held)
		w.log("%s holds %d", p.id, held)
	}
	w.require(most-least <= 1, "the loads are from %d to %d", least, most)
}
