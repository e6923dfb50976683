package group

import (
	"container/heap"
	"flag"
	"fmt"
	"maps"
	"math/big"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/lineage"
)

// What it costs to coordinate a group, in units of the table and in plans: members
// without consumers, goroutines or sockets, on a table in memory and a clock of its own.
// A group of 500 members on 10,000 shards spends ten minutes in one or two.

var costFull = flag.Bool("cost.full", false, "simulate groups of full size: up to 500 members on 10,000 shards")

const (
	costPeriod    = 30 * time.Second // the defaults
	costRebalance = 30 * time.Second
	// costCall is what a call takes, of which a write takes effect in the middle, and
	// costPage what each MB of a list adds.
	costCall = 10 * time.Millisecond
	costPage = 20 * time.Millisecond
	// costClaims is how many claims of one process are under way at once.
	costClaims = 64
)

// The limits are a quarter above what was measured, or less, so that what doubles shows.
// Those of 500 members are goals.
func TestIdleGroupsCostLittle(t *testing.T) {
	for _, test := range []struct {
		members, shards int
		full            bool
		idle            time.Duration
		reads           float64       // units a second at most
		writes          float64       // units a shard-minute at most
		takeover        time.Duration // after the lease period at most
		kills           int
	}{
		{8, 400, false, 10 * time.Minute, 8.3, 1.45, 3 * time.Second, 3},
		{30, 300, false, 5 * time.Minute, 29, 2, 4 * time.Second, 3},
		{100, 1_000, true, 10 * time.Minute, 100, 2, 5 * time.Second, 5},
		{500, 10_000, true, 4 * time.Minute, 2_000, 2, time.Minute, 1},
	} {
		if test.full && !*costFull {
			continue
		}
		t.Run(fmt.Sprintf("%d members on %d shards", test.members, test.shards), func(t *testing.T) {
			s := newCostSimulation(test.shards)
			s.startBalanced(test.members)
			s.pass(2 * time.Minute) // to rest
			require.True(t, s.balanced(), s.state())

			wall := time.Now()
			s.used = costs{}
			s.pass(test.idle)
			idle := s.used
			t.Logf("idle:      %8v, %s, %.0fs to simulate", test.idle, idle, time.Since(wall).Seconds())
			perShard := func(units float64) float64 { return units / test.idle.Minutes() / float64(test.shards) }
			t.Logf("           %.1f read and %.1f write units a second, %.2f write units a shard-minute",
				idle.reads()/test.idle.Seconds(), idle.writes()/test.idle.Seconds(), perShard(idle.writes()))
			require.LessOrEqual(t, idle.reads()/test.idle.Seconds(), test.reads, "read units a second")
			require.LessOrEqual(t, perShard(idle.writes()), test.writes, "write units a shard-minute")
			require.Greater(t, perShard(idle.touches), 0.9, "touches a shard-minute: once in half of the horizon")
			require.Less(t, perShard(idle.touches), 1.2, "touches a shard-minute")
			require.Less(t, idle.beats/test.idle.Minutes()/float64(test.members), 7.0, "heartbeats a member-minute")
			require.Zero(t, idle.moves, "moves while nothing happens")

			for range test.kills {
				s.used, wall = costs{}, time.Now()
				s.kill()
				took, ok := s.until(5*time.Minute, s.allRead)
				t.Logf("take-over: %8v, %s, %.0fs to simulate", took.Round(time.Millisecond), s.used, time.Since(wall).Seconds())
				require.True(t, ok, "all read within five minutes: %s", s.state())
				require.LessOrEqual(t, took, costPeriod+test.takeover)
				took, ok = s.until(5*time.Minute, s.balanced)
				require.True(t, ok, "balanced again within five minutes: %s", s.state())
				t.Logf("  balanced %8v later, %d shards moved", took.Round(time.Millisecond), s.used.moves)
				s.pass(time.Minute)
				t.Logf("  and then %d conflicts, %d readings of the items in all", s.used.conflicts, s.used.refreshed)
				require.LessOrEqual(t, s.used.conflicts, test.shards/50, "conflicts")
			}
		})
	}
}

func TestMembersThatJoinMoveFewShards(t *testing.T) {
	for _, test := range []struct {
		there, join, shards int
		full                bool
		least               int
		within              time.Duration // of balanced shards
		reads               float64       // units at most until then
	}{
		{0, 20, 400, false, 0, 1300 * time.Millisecond, 500},
		{1, 19, 400, false, 380, 3200 * time.Millisecond, 1_800},
		{0, 50, 2_000, true, 0, 1300 * time.Millisecond, 3_650},
		{1, 49, 2_000, true, 1_960, 3600 * time.Millisecond, 16_100},
		{100, 1, 1_000, true, 9, 6200 * time.Millisecond, 3_400},
	} {
		if test.full && !*costFull {
			continue
		}
		t.Run(fmt.Sprintf("%d join %d on %d shards", test.join, test.there, test.shards), func(t *testing.T) {
			s := newCostSimulation(test.shards)
			for range test.there {
				s.joinBy(0)
			}
			if test.there > 0 {
				_, ok := s.until(5*time.Minute, s.balanced)
				require.True(t, ok, "balanced before: %s", s.state())
				s.pass(3 * time.Minute)
			}
			s.used = costs{}
			for range test.join {
				s.joinBy(500 * time.Millisecond)
			}
			took, ok := s.until(5*time.Minute, func() bool { return len(s.living()) == test.there+test.join && s.balanced() })
			t.Logf("balanced: %8v, %s", took.Round(time.Millisecond), s.used)
			require.True(t, ok, "balanced within five minutes: %s", s.state())
			require.LessOrEqual(t, took, test.within)
			require.LessOrEqual(t, s.used.reads(), test.reads)
			s.pass(2 * time.Minute)
			require.True(t, s.balanced(), "and still: %s", s.state())
			t.Logf("moved %d shards, at least %d had to move", s.used.moves, test.least)
			require.LessOrEqual(t, s.used.moves, test.least+test.shards/20)
		})
	}
}

// costs are capacity units, by what they are spent on, and how often it was done.
type costs struct {
	lists, refreshes, looks float64 // read units
	beats, touches, claims  float64 // write units
	passes, others          float64
	listed, refreshed       int
	conflicts, moves        int
	plans                   int
	planning                time.Duration
}

func (c costs) reads() float64  { return c.lists + c.refreshes + c.looks }
func (c costs) writes() float64 { return c.beats + c.touches + c.claims + c.passes + c.others }

func (c costs) String() string {
	each := time.Duration(0)
	if c.plans > 0 {
		each = c.planning / time.Duration(c.plans)
	}
	return fmt.Sprintf("%.0f read units (%d lists of members %.0f, %d readings of the items %.0f, single items %.0f), "+
		"%.0f write units (heartbeats %.0f, touches %.0f, claims %.0f, hand-overs %.0f, others %.0f), %d conflicts, %d moves, %d plans of %.2f ms",
		c.reads(), c.listed, c.lists, c.refreshed, c.refreshes, c.looks,
		c.writes(), c.beats, c.touches, c.claims, c.passes, c.others, c.conflicts, c.moves, c.plans, each.Seconds()*1000)
}

// costSimulation is a table and the members that share it.
type costSimulation struct {
	random *rand.Rand
	now    time.Time
	queue  costEvents
	queued int
	used   costs

	stream string
	shards []lineage.Shard
	number map[string]int // of a shard, by its id

	items   []lease.Item
	bytes   []int // of each item
	shown   []lease.Item
	size    int
	members map[string]lease.Member
	nodes   []*costNode
	terms   int
}

// costEvent is something that happens at a time.
type costEvent struct {
	at     time.Time
	number int
	happen func()
}

type costEvents []costEvent

func (e costEvents) Len() int      { return len(e) }
func (e costEvents) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e costEvents) Less(i, j int) bool {
	if !e[i].at.Equal(e[j].at) {
		return e[i].at.Before(e[j].at)
	}
	return e[i].number < e[j].number
}
func (e *costEvents) Push(x any) { *e = append(*e, x.(costEvent)) }
func (e *costEvents) Pop() any {
	last := (*e)[len(*e)-1]
	(*e)[len(*e)-1] = costEvent{}
	*e = (*e)[:len(*e)-1]
	return last
}

func newCostSimulation(shards int) *costSimulation {
	s := &costSimulation{
		random: rand.New(rand.NewPCG(1, uint64(shards))), now: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC),
		stream: "orders", number: map[string]int{}, members: map[string]lease.Member{},
	}
	keys := new(big.Int).Lsh(big.NewInt(1), 128)
	bound := func(i int) *big.Int {
		return new(big.Int).Div(new(big.Int).Mul(keys, big.NewInt(int64(i))), big.NewInt(int64(shards)))
	}
	for i := range shards {
		id := fmt.Sprintf("shardId-%012d", i)
		s.number[id] = i
		s.shards = append(s.shards, lineage.Shard{
			ID: id, FirstKey: bound(i).String(), LastKey: new(big.Int).Sub(bound(i+1), big.NewInt(1)).String(),
			FirstSequence: "49650000000000000000000000000000000000000000000000000000",
		})
		key := lease.Key{Stream: s.stream, Shard: id}
		// Shards that were read before are the dearest: their items have a sequence.
		s.items = append(s.items, lease.Item{Key: key, Exists: true, Sequence: "49650000000000000000000000000000000000000000000000000001"})
		s.bytes = append(s.bytes, 0)
		s.put(i, s.items[i])
	}
	return s
}

func (s *costSimulation) at(at time.Time, happen func()) {
	s.queued++
	heap.Push(&s.queue, costEvent{at, s.queued, happen})
}

func (s *costSimulation) after(d time.Duration, happen func()) { s.at(s.now.Add(d), happen) }

// until lets time pass until something is so, and returns how long that took.
func (s *costSimulation) until(most time.Duration, so func() bool) (took time.Duration, ok bool) {
	start := s.now
	for s.now.Sub(start) < most {
		s.pass(50 * time.Millisecond)
		if so() {
			return s.now.Sub(start), true
		}
	}
	return most, false
}

func (s *costSimulation) pass(d time.Duration) {
	end := s.now.Add(d)
	for len(s.queue) > 0 && !s.queue[0].at.After(end) {
		e := heap.Pop(&s.queue).(costEvent)
		s.now = e.at
		e.happen()
	}
	s.now = end
}

func (s *costSimulation) living() (all []*costNode) {
	for _, n := range s.nodes {
		if !n.dead && n.id != "" {
			all = append(all, n)
		}
	}
	return all
}

func (s *costSimulation) allRead() bool {
	read := 0
	for _, n := range s.living() {
		read += n.reading
	}
	return read == len(s.shards)
}

func (s *costSimulation) balanced() bool {
	least, most := len(s.shards), 0
	for _, n := range s.living() {
		least, most = min(least, n.reading), max(most, n.reading)
	}
	return s.allRead() && most-least <= 1
}

func (s *costSimulation) state() string {
	counts := map[int]int{}
	for _, n := range s.living() {
		counts[n.reading]++
	}
	text := "members by the shards that they read:"
	for _, reading := range slices.Sorted(maps.Keys(counts)) {
		text += fmt.Sprintf(" %d×%d", counts[reading], reading)
	}
	return text
}

// The table, by the rules of its capacity units: a write costs one for each KB, an
// eventually consistent read half of one for each 4 KB.

func (s *costSimulation) put(i int, item lease.Item) {
	s.items[i] = item
	size := len("StreamID") + len(item.Stream) + len("ShardID") + len(item.Shard) + len("SequenceNumber") + len(item.Sequence)
	if item.Owner != "" {
		size += len("ClientID") + len(item.Owner) + len("LeaseTimeout") + len(item.Token) +
			len("LeaseTerm") + len(item.Owner) + 1 + len(item.Term)
	}
	if item.Number > 0 {
		size += len("TermNumber") + len(strconv.FormatInt(item.Number, 10))/2 + 1
		size += len("UpTo") + len("1764000000")/2 + 1
	}
	s.size += size - s.bytes[i]
	s.bytes[i], s.shown = size, nil
}

// list returns the items as they are now. What it returns is shared.
func (s *costSimulation) list() []lease.Item {
	if s.shown == nil {
		s.shown = slices.Clone(s.items)
	}
	return s.shown
}

func costUnits(size, unit int) float64 { return float64(max(1, (size+unit-1)/unit)) }

func memberBytes(m lease.Member) int {
	size := len("StreamID") + len("/clients") + len("ShardID") + len(m.ID) + len("LeaseTimeout") + len(m.Token)
	if m.Gone() {
		return size
	}
	size += len("LeasePeriod") + 3 + len("Changes") + 3 + len("Streams")
	for _, stream := range m.Streams {
		size += len(stream)
	}
	if len(m.Requests) > 0 {
		size += len("Requests")
	}
	for owner := range m.Requests {
		size += 2 + len(owner)
	}
	return size
}

func (s *costSimulation) listMembers() (all []lease.Member, size int) {
	for _, id := range slices.Sorted(maps.Keys(s.members)) {
		all = append(all, s.members[id])
		size += memberBytes(s.members[id])
	}
	return all, size
}

func (s *costSimulation) token() string { return s.now.Format("2006-01-02T15:04:05.000000000Z") }

// costNode is a member.
type costNode struct {
	*costSimulation
	id    string
	group *Group
	dead  bool
	acts  bool // is about to
	waker int

	// The session, as lease.Session keeps it.
	report, said lease.Report
	often, usual time.Duration
	token        string
	beatAt       time.Time
	beating      bool
	beater       int

	reading   int
	consumers map[lease.Key]*costConsumer
	waiting   []Claim
	claiming  int
}

// costConsumer is a shard that is read.
type costConsumer struct {
	link    lease.Link
	toucher int
}

// joinBy has a member join at some time within a while.
func (s *costSimulation) joinBy(within time.Duration) {
	n := s.newNode()
	s.after(time.Duration(s.random.Float64()*float64(within)), n.join)
}

func (s *costSimulation) newNode() *costNode {
	n := &costNode{costSimulation: s, consumers: map[lease.Key]*costConsumer{}}
	n.group = New(Config{
		Streams:     []StreamConfig{{Name: s.stream}},
		LeasePeriod: costPeriod, RebalancePeriod: costRebalance, StartFromOldest: true, Random: s.random.Float64,
	})
	s.nodes = append(s.nodes, n)
	return n
}

// newID returns one as a pod has it.
func (s *costSimulation) newID() string {
	return fmt.Sprintf("reader-7d9f8b6c5-%05d-%016d", s.random.IntN(100_000), s.random.Int64N(1e15))
}

// kill kills a member right after a heartbeat, which takes the longest to notice.
func (s *costSimulation) kill() {
	living := s.living()
	victim := living[s.random.IntN(len(living))]
	beatAt := victim.beatAt
	s.until(time.Minute, func() bool { return victim.beatAt.After(beatAt) })
	victim.dead = true
}

// event is something that a member hears of: its loop then acts, once for all that it
// hears at the same time.
func (n *costNode) event(after time.Duration, happen func()) {
	n.after(after, func() {
		if n.dead {
			return
		}
		happen()
		n.actSoon()
	})
}

func (n *costNode) actSoon() {
	if n.acts {
		return
	}
	n.acts = true
	n.after(0, func() {
		n.acts = false
		if !n.dead {
			n.act()
		}
	})
}

// startBalanced begins with members that have joined and share out all shards.
func (s *costSimulation) startBalanced(members int) {
	for i := range members {
		n := s.newNode()
		n.id, n.token = n.newID(), s.token()
		s.members[n.id] = lease.Member{ID: n.id, Token: n.token, Period: costPeriod, Report: lease.Report{Streams: []string{s.stream}}}
		n.report = s.members[n.id].Report
		n.said, n.beatAt, n.usual = n.report, s.now, time.Duration(s.random.Float64()*float64(costPeriod/3))
		for shard := i * len(s.shards) / members; shard < (i+1)*len(s.shards)/members; shard++ {
			item := s.items[shard]
			item.Owner, item.Term, item.Token, item.Number = n.id, "0123456789", n.token, 1
			s.put(shard, item)
		}
	}
	for _, n := range s.nodes {
		g := n.group
		g.Begin([]StreamSnapshot{{Stream: s.stream, Shards: s.shards, Listed: s.now, ServerTime: s.now}}, s.now)
		g.Joined(n.id, s.now)
		g.Apply(Snapshot{Stream: &StreamSnapshot{Stream: s.stream, Start: s.now, End: s.now, Items: s.list(), Size: s.size}}, s.now)
		for _, item := range s.items {
			if item.Owner == n.id {
				g.shard(item.Key).claim(s.now)
				g.Claimed(item.Key, item.Term, "", s.now)
				n.reading++
				c := &costConsumer{link: item.Link()}
				n.consumers[item.Key] = c
				n.touchWithin(item.Key, c, time.Duration(s.random.Float64()*float64(lease.Horizons*costPeriod/2)))
			}
		}
		g.changes, g.told = 0, toldChanges{}
		g.streams[0].reads.due = s.now.Add(time.Duration(s.random.Float64() * float64(lease.Horizons*costPeriod)))
		n.event(time.Duration(s.random.Float64()*float64(time.Second)), n.beatWhenDue)
	}
}

func (n *costNode) join() {
	n.group.Begin([]StreamSnapshot{{Stream: n.stream, Shards: n.shards, Listed: n.now, ServerTime: n.now}}, n.now)
	id := n.newID()
	m := lease.Member{ID: id, Token: n.costSimulation.token(), Period: costPeriod, Report: lease.Report{Streams: []string{n.stream}}}
	start := n.now
	n.after(costCall/2, func() { n.members[id] = m; n.used.beats++ })
	n.event(costCall, func() {
		n.id, n.token, n.beatAt, n.said, n.report = id, m.Token, start, m.Report, m.Report
		n.usual = n.beatAfter()
		n.group.Joined(id, n.now)
		n.beatWhenDue()
	})
}

func (n *costNode) beatAfter() time.Duration {
	return costPeriod/3 + time.Duration(n.random.Float64()*float64(costPeriod/15))
}

// beatWhenDue sends a heartbeat as lease.Session does.
func (n *costNode) beatWhenDue() {
	if n.beating {
		return
	}
	wait := n.usual
	if n.often > 0 {
		wait = min(wait, n.often)
	}
	if wait -= n.now.Sub(n.beatAt); wait < 0 || !sameReport(n.report, n.said) {
		wait = 0
	}
	n.beater++
	beater := n.beater
	n.after(wait, func() {
		if !n.dead && beater == n.beater && !n.beating {
			n.beat()
		}
	})
}

func sameReport(a, b lease.Report) bool {
	return a.Changes == b.Changes && slices.Equal(a.Streams, b.Streams) && maps.Equal(a.Requests, b.Requests)
}

func (n *costNode) beat() {
	n.beating = true
	start, report := n.now, n.report
	m := lease.Member{ID: n.id, Token: n.costSimulation.token(), Period: costPeriod, Report: report}
	n.after(costCall/2, func() {
		if n.members[n.id].Token != n.token {
			panic("a living member was evicted")
		}
		n.used.beats += costUnits(max(memberBytes(m), memberBytes(n.members[n.id])), 1024)
		n.members[n.id], n.token = m, m.Token
	})
	n.after(costCall, func() {
		n.beating, n.beatAt, n.said, n.usual = false, start, report, n.beatAfter()
		if !n.dead {
			n.beatWhenDue()
		}
	})
}

// act does as the balancer does.
func (n *costNode) act() {
	g := n.group
	plans := g.self != "" && (g.dirty || !g.planAt.IsZero() && !n.now.Before(g.planAt)) && g.acquainted(n.now)
	begin := time.Now()
	a := g.Next(n.now, true)
	if plans {
		n.used.plans++
		n.used.planning += time.Since(begin)
	}
	if n.id != "" {
		n.report, n.often = a.Report, a.Often
		n.beatWhenDue()
	}
	if a.ReadMembers {
		n.readMembers()
	}
	for _, r := range a.Refresh {
		n.refresh(r)
	}
	for _, id := range a.Confirm {
		n.confirm(id)
	}
	for _, m := range a.Evict {
		n.evict(m)
	}
	if a.Clean != nil {
		n.clean(*a.Clean)
	}
	for _, c := range a.Claim {
		n.claim(c)
	}
	for _, h := range a.HandOver {
		n.handOver(h)
	}
	for _, key := range a.Check {
		if c := n.consumers[key]; c != nil {
			n.touch(key, c)
		}
	}
	n.waker++
	waker := n.waker
	n.at(a.Wake, func() {
		if waker == n.waker {
			n.actSoon()
		}
	})
}

func (n *costNode) readMembers() {
	v := &MemberSnapshot{Start: n.now, SoundSince: time.Unix(1, 0)}
	var size int
	v.Members, size = n.listMembers()
	n.used.listed++
	n.used.lists += costUnits(size, 4096) / 2
	n.event(costCall, func() {
		v.End = n.now
		n.group.Apply(Snapshot{Members: v}, n.now)
	})
}

func (n *costNode) refresh(r Refresh) {
	v := &StreamSnapshot{Stream: n.stream, Start: n.now, Items: n.list(), Size: n.size}
	units := costUnits(n.size, 4096)
	if !r.Consistent {
		units /= 2
	}
	n.used.refreshed++
	n.used.refreshes += units
	if r.Shards {
		v.Shards, v.Listed, v.ServerTime = n.shards, n.now, n.now
	}
	n.event(costCall+costPage*time.Duration(n.size>>20), func() {
		v.End = n.now
		n.group.Apply(Snapshot{Stream: v}, n.now)
	})
}

func (n *costNode) confirm(id string) {
	n.used.looks++
	m, there := n.members[id]
	n.event(costCall, func() { n.group.Confirmed(id, there && !m.Gone(), nil, n.now) })
}

func (n *costNode) evict(m lease.Member) {
	var err error
	n.after(costCall/2, func() {
		n.used.others++
		if n.members[m.ID].Token != m.Token {
			n.used.conflicts++
			err = lease.ErrConflict
			return
		}
		n.members[m.ID] = lease.Member{ID: m.ID, Token: lease.Evicted}
	})
	n.event(costCall, func() { n.group.Evicted(m.ID, err, n.now) })
}

func (n *costNode) clean(c Chores) {
	n.after(costCall/2, func() {
		for _, m := range c.Evicted {
			n.used.others++
			if n.members[m.ID].Token == m.Token {
				delete(n.members, m.ID)
			}
		}
	})
	n.event(costCall, func() { n.group.Cleaned(Cleaned{}, n.now) })
}

// write makes a conditional write of a shard's item, of which the member hears by told.
func (n *costNode) write(key lease.Key, seen lease.Item, spent *float64, change func(*lease.Item), told func(err error)) {
	var err error
	i := n.number[key.Shard]
	n.after(costCall/2, func() {
		*spent++
		item := n.items[i]
		if item.Link() != seen.Link() || item.Sequence != seen.Sequence {
			n.used.conflicts++
			err = lease.ErrConflict
			return
		}
		change(&item)
		n.put(i, item)
	})
	n.event(costCall, func() { told(err) })
}

func (n *costNode) claim(c Claim) {
	if n.claiming == costClaims {
		n.waiting = append(n.waiting, c)
		return
	}
	n.claiming++
	n.terms++
	link := lease.Link{Owner: n.id, Term: fmt.Sprintf("%010d", n.terms), Token: n.costSimulation.token()}
	n.write(c.Key, c.Item, &n.used.claims, func(item *lease.Item) {
		item.Owner, item.Term, item.Token = link.Owner, link.Term, link.Token
		item.Number++
	}, func(err error) {
		n.claiming--
		if len(n.waiting) > 0 {
			next := n.waiting[0]
			n.waiting = n.waiting[1:]
			n.claim(next)
		}
		if err != nil {
			n.group.Exited(c.Key, Exit{Outcome: NotClaimed, Err: err}, n.now)
			return
		}
		n.group.Claimed(c.Key, link.Term, c.Shard.FirstSequence, n.now)
		n.reading++
		consumer := &costConsumer{link: link}
		n.consumers[c.Key] = consumer
		n.touchLater(c.Key, consumer)
	})
}

// touchLater has the item written when half of its horizon has passed, as lease.Lease
// does.
func (n *costNode) touchLater(key lease.Key, c *costConsumer) {
	horizon := lease.Horizons * costPeriod
	n.touchWithin(key, c, horizon/2-time.Duration(n.random.Float64()*float64(horizon/20)))
}

func (n *costNode) touchWithin(key lease.Key, c *costConsumer, within time.Duration) {
	c.toucher++
	toucher := c.toucher
	n.after(within, func() {
		if !n.dead && n.consumers[key] == c && c.toucher == toucher {
			n.touch(key, c)
		}
	})
}

func (n *costNode) touch(key lease.Key, c *costConsumer) {
	seen := n.items[n.number[key.Shard]]
	if seen.Link() != c.link {
		panic("a lease of a living member was lost")
	}
	next := n.costSimulation.token()
	c.toucher++ // none beside it
	n.write(key, seen, &n.used.touches, func(item *lease.Item) { item.Token = next }, func(err error) {
		if err != nil {
			panic("a lease of a living member was lost")
		}
		c.link.Token = next
		n.touchLater(key, c)
	})
}

// handOver stops a consumer and passes its shard on, as an idle one does: at once, if the
// recipient is there.
func (n *costNode) handOver(h HandOver) {
	c := n.consumers[h.Key]
	delete(n.consumers, h.Key)
	n.reading--
	n.used.looks++
	m, there := n.members[h.To]
	n.event(costCall, func() {
		seen := n.items[n.number[h.Key.Shard]]
		if seen.Owner != c.link.Owner || seen.Term != c.link.Term {
			panic("a lease of a living member was lost")
		}
		if !there || m.Gone() {
			n.write(h.Key, seen, &n.used.passes, func(item *lease.Item) { item.Owner, item.Term, item.Token = "", "", "" }, func(error) {
				n.group.Exited(h.Key, Exit{Outcome: Released}, n.now)
			})
			return
		}
		n.used.moves++
		n.terms++
		next := lease.Link{Owner: h.To, Term: fmt.Sprintf("%010d", n.terms), Token: n.costSimulation.token()}
		n.write(h.Key, seen, &n.used.passes, func(item *lease.Item) {
			item.Owner, item.Term, item.Token = next.Owner, next.Term, next.Token
			item.Number++
		}, func(error) { n.group.Exited(h.Key, Exit{Outcome: HandedOver, To: h.To}, n.now) })
	})
}
