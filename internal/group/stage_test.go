package group

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/lineage"
)

const (
	lp = time.Minute      // lease period
	rp = 30 * time.Second // rebalance period
	// me and others: the members of most tests.
	me, anna, bob = "me", "anna", "bob"
)

// stage is one member with what it is told. Its clock moves when a test says so.
type stage struct {
	*Group
	t       *testing.T
	now     time.Time
	beats   int
	members map[string]lease.Member // in the table, as are the rows
	shards  map[string][]lineage.Shard
	rows    map[lease.Key]lease.Item
}

func newStage(t *testing.T, change ...func(*Config)) *stage {
	conf := Config{
		Streams:     []StreamConfig{{Name: "foo"}},
		LeasePeriod: lp, RebalancePeriod: rp, StartFromOldest: true, Table: "leases",
		Random: func() float64 { return 0 },
	}
	for _, c := range change {
		c(&conf)
	}
	return &stage{
		Group: New(conf), t: t, now: time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC),
		members: map[string]lease.Member{}, shards: map[string][]lineage.Shard{}, rows: map[lease.Key]lease.Item{},
	}
}

func streamsNamed(names ...string) func(*Config) {
	return func(c *Config) {
		c.Streams = nil
		for _, name := range names {
			c.Streams = append(c.Streams, StreamConfig{Name: name})
		}
	}
}

func shardsNamed(written ...string) func(*Config) {
	return func(c *Config) { c.Streams = []StreamConfig{{Name: "foo", Shards: written}} }
}

// begin has the stream foo of some open shards, this member in the group, and the
// others, who live, known to it. No item has been read yet.
func begin(t *testing.T, shards int, others ...string) *stage {
	s := newStage(t)
	s.list("foo", open(shards)...)
	s.join(others...)
	return s
}

// join begins, joins and gets acquainted with the others.
func (s *stage) join(others ...string) {
	var lists []StreamSnapshot
	for name, shards := range s.shards {
		lists = append(lists, StreamSnapshot{Stream: name, Shards: shards, Listed: s.now, ServerTime: s.now})
	}
	s.Begin(lists, s.now)
	s.Joined(me, s.now)
	s.next()
	for range 8 {
		s.see(append(others, me)...)
		s.pass(time.Second)
	}
}

func (s *stage) pass(d time.Duration) { s.now = s.now.Add(d) }

// see has the list of members read, after each of those that are named has sent a
// heartbeat.
func (s *stage) see(beating ...string) {
	for _, id := range beating {
		m, ok := s.members[id]
		if !ok {
			m = lease.Member{ID: id, Period: lp, Report: lease.Report{Streams: s.shared()}}
		}
		s.beats++
		m.Token = fmt.Sprint("beat ", s.beats)
		s.members[id] = m
	}
	s.readMembers(s.now, s.now, true)
}

func (s *stage) readMembers(start, end time.Time, sound bool) {
	v := &MemberSnapshot{Start: start, End: end}
	if sound {
		v.SoundSince = time.Unix(1, 0)
	}
	for _, id := range slices.Sorted(maps.Keys(s.members)) {
		v.Members = append(v.Members, s.members[id])
	}
	s.Apply(Snapshot{Members: v}, end)
}

// says has a member tell something with its next heartbeats.
func (s *stage) says(id string, change func(*lease.Member)) {
	m := s.members[id]
	change(&m)
	s.members[id] = m
}

func requesting(n int) func(*lease.Member) {
	return func(m *lease.Member) { m.Requests = map[string]int{me: n} }
}

// list is the shards of a stream from now on. read reads them.
func (s *stage) list(stream string, shards ...lineage.Shard) { s.shards[stream] = shards }

// put is what the table has for the shards of foo from now on.
func (s *stage) put(items ...lease.Item) {
	s.rows = map[lease.Key]lease.Item{}
	for _, item := range items {
		s.rows[item.Key] = item
	}
}

// read reads the list of foo and its items, in no time.
func (s *stage) read(items ...lease.Item) {
	s.put(items...)
	s.readBetween("foo", s.now, s.now)
}

func (s *stage) readBetween(stream string, start, end time.Time) {
	v := s.snapshot(stream, start, end)
	v.Listed, v.Shards, v.ServerTime = start, s.shards[stream], start
	s.Apply(Snapshot{Stream: v}, end)
}

// readItems reads the items of foo alone.
func (s *stage) readItems(items ...lease.Item) {
	s.put(items...)
	s.Apply(Snapshot{Stream: s.snapshot("foo", s.now, s.now)}, s.now)
}

func (s *stage) snapshot(stream string, start, end time.Time) *StreamSnapshot {
	v := &StreamSnapshot{Stream: stream, Start: start, End: end}
	for key, item := range s.rows {
		if key.Stream == stream {
			v.Items = append(v.Items, item)
		}
	}
	return v
}

// next returns what is to be done, and holds on to what is promised of every answer.
func (s *stage) next() Actions { return s.nextIf(true) }

func (s *stage) nextIf(sound bool) Actions {
	a := s.Next(s.now, sound)
	require.True(s.t, a.Wake.After(s.now), "it is to wake at %v, and it is %v", a.Wake, s.now)
	require.False(s.t, a.Wake.After(s.now.Add(s.conf.LeasePeriod)))
	return a
}

// claims claims what is to be claimed, each under the term that is its id.
func (s *stage) claims() (ids []string) {
	for _, c := range s.next().Claim {
		s.Claimed(c.Key, "term of "+c.Key.Shard, c.Shard.FirstSequence, s.now)
		ids = append(ids, c.Key.Shard)
	}
	slices.Sort(ids)
	return ids
}

// reading has the stream of some open shards that are read here, all of them.
func reading(t *testing.T, shards int, others ...string) *stage {
	s := begin(t, shards)
	s.read()
	require.Len(t, s.claims(), shards)
	for range 4 {
		s.pass(time.Second)
		s.see(append(others, me)...)
	}
	s.read(s.held(shards)...)
	s.pass(time.Second)
	return s
}

// held are the items of shards that are read here.
func (s *stage) held(n int) (items []lease.Item) {
	for i := range n {
		items = append(items, lease.Item{Key: key(i), Exists: true, Owner: me, Term: "term of " + id(i), Sequence: "1000"})
	}
	return items
}

func (s *stage) exit(n int, e Exit) { s.Exited(key(n), e, s.now) }

func id(n int) string { return fmt.Sprintf("shardId-%012d", n) }

func key(n int) lease.Key { return lease.Key{Stream: "foo", Shard: id(n)} }

func ids(ns ...int) (all []string) {
	for _, n := range ns {
		all = append(all, id(n))
	}
	return all
}

// open are n open shards.
func open(n int) (all []lineage.Shard) {
	for i := range n {
		all = append(all, shardOf(i))
	}
	return all
}

func shardOf(n int, parents ...int) lineage.Shard {
	return lineage.Shard{ID: id(n), Parents: ids(parents...), FirstSequence: "1000"}
}

func closed(s lineage.Shard) lineage.Shard {
	s.Closed, s.LastSequence = true, "1999"
	return s
}

// free, owned, foreign, finished and literally are items of a shard.
func free(n int) lease.Item { return lease.Item{Key: key(n), Exists: true, Sequence: "1001"} }

func owned(n int, owner string) lease.Item {
	item := free(n)
	item.Owner, item.Term, item.Token = owner, "term of "+owner, "t"
	return item
}

func foreign(n int, owner, token string) lease.Item {
	item := free(n)
	item.Owner, item.Token = owner, token
	return item
}

func finished(n int) lease.Item {
	item := free(n)
	item.Finished = true
	return item
}

func literally(n int, owner, token string) lease.Item {
	item := foreign(n, owner, token)
	item.Shard = fmt.Sprint(n)
	return item
}

// said returns the lines that hold a text.
func said(a Actions, text string) (lines []Line) {
	for _, l := range a.Lines {
		if strings.Contains(l.Text, text) {
			lines = append(lines, l)
		}
	}
	return lines
}

// unread returns how many shards of foo nobody reads.
func (s *stage) unread() int {
	shards, _, _ := s.Unread("foo")
	return shards
}
