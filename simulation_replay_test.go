package awskinesis

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
)

// Groups that read up to a moment once more, beside one that goes on.

// replay adds a group that reads from a moment that is past, or from the oldest records on
// where it is zero, up to an end.
func (s *simulation) replay(from, end time.Time) *simulation {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.addGroup(fmt.Sprint("r", len(s.groups)))
	r.conf, r.autoReplay, r.faultRate, r.faulty = s.conf, s.autoReplay, s.faultRate, true
	r.startFromOldest, r.conf.startFromOldest = true, true
	r.from, r.conf.startFrom, r.end = from, from, end
	r.conf.group = r.group
	return r
}

// wanted is the number of records of a shard that a group reads: those before the first one
// that arrived after its end.
func (s *simulation) wanted(sh *progress) int {
	if s.end.IsZero() {
		return len(sh.records)
	}
	return sh.arrivedBy(s.end.Add(time.Nanosecond))
}

// checkBeyond checks that nothing is read which arrived after the end.
func (s *simulation) checkBeyond(c *simulatedClient, d delivery) {
	if newest := slices.Max(d.indexes); newest >= s.wanted(d.shard) {
		s.broken(d.shard, "%s read record %d, the group has its end at record %d", c.name, newest, s.wanted(d.shard))
	}
}

// checkCut checks that a shard was read up to the end which its item has from now on.
func (s *simulation) checkCut(sh *progress, item lease.Item) {
	switch {
	case !item.CutAt.Equal(s.end):
		s.broken(sh, "the shard was cut at %s, the end is %s", item.CutAt, s.end)
	case !serviceTime().After(s.end):
		s.broken(sh, "the shard was cut %s before the end", s.end.Sub(serviceTime()))
	case sh.acked < s.wanted(sh):
		s.broken(sh, "the shard was cut with %d of %d records acknowledged", sh.acked, s.wanted(sh))
	}
}

// ended checks that nothing is left to read when an input ends by itself, and has the client
// leave, as the host does. One that was told which shards to read ends when those have.
func (s *simulation) ended(c *simulatedClient) {
	if c.pinned {
		s.leave(c, false)
		return
	}
	s.mu.Lock()
	switch now := serviceTime(); {
	case s.end.IsZero():
		s.broken(nil, "%s has ended by itself, its group goes on", c.name)
	case !now.After(s.end):
		s.broken(nil, "%s has ended %s before the end", c.name, s.end.Sub(now))
	}
	for _, name := range s.names {
		for _, shard := range s.streams[name].shards {
			if sh := s.of(shard); sh.committed < s.wanted(sh) {
				s.broken(sh, "%s has ended by itself with %d of %d records of shard %s committed", c.name, sh.committed, s.wanted(sh), sh.key)
			}
		}
	}
	s.tally.add("inputs ended by themselves")
	s.mu.Unlock()
	s.leave(c, false)
}

// TestSimulationOfReplays has groups with an end read beside a live one, while their members
// crash. Each reads up to its end and no further, and ends in time; nothing comes again that
// is committed, and the live group keeps its promises, and its shards where it is balanced.
func TestSimulationOfReplays(t *testing.T) {
	simulateSeeds(t, fewSeeds, (*simulation).directReplays)
}

func (s *simulation) directReplays(t *testing.T) {
	t.Helper()
	if s.dice.IntN(2) == 0 {
		s.orderByKey()
	}
	clients := s.begin(t)
	for range 10 + s.dice.IntN(20) {
		pass(time.Duration(s.dice.Int64N(int64(s.leasePeriod))))
		s.scene(t, 2*clients)
	}
	balanced := s.dice.IntN(2) == 0
	if balanced {
		s.balance(t)
	}
	for range 1 + s.dice.IntN(2) {
		s.beginReplay(t)
	}
	for range 20 + s.dice.IntN(20) {
		pass(time.Duration(s.dice.Int64N(int64(s.leasePeriod))))
		if s.failed() {
			break
		}
		switch r := s.groups[1+s.dice.IntN(len(s.groups)-1)]; {
		case s.dice.IntN(2) == 0:
			r.replayScene(t)
		case balanced:
			s.feed()
		default:
			s.scene(t, 2*clients)
		}
	}
	for _, r := range s.groups[1:] {
		r.awaitEnd(t)
	}
	s.mu.Lock()
	s.still = false
	s.mu.Unlock()
	s.calm(t)
	s.linger(t)
	s.stay(t, 5*time.Minute)
	s.finish(t)
}

// balance lets the live group come to rest, and has its shards stay where they are.
func (s *simulation) balance(t *testing.T) {
	t.Helper()
	s.calm(t)
	pass(3 * s.leasePeriod)
	s.calm(t)
	s.mu.Lock()
	s.still = true
	s.mu.Unlock()
}

// beginReplay starts a replay of what was read so far, or will be soon.
func (s *simulation) beginReplay(t *testing.T) {
	t.Helper()
	age := time.Since(s.began)
	begun := serviceTime().Add(-age)
	from := time.Time{}
	if s.dice.IntN(2) == 0 {
		from = begun.Add(time.Duration(s.dice.Float64() * float64(age))).Truncate(time.Millisecond)
	}
	end := begun.Add(time.Duration(s.dice.Float64() * float64(age+10*s.leasePeriod))).Truncate(time.Millisecond)
	if end.Before(from) {
		from, end = end, from
	}
	r := s.replay(from, end)
	for range 1 + s.dice.IntN(3) {
		r.join(t)
	}
}

// replayScene is one event of a replay.
func (s *simulation) replayScene(t *testing.T) {
	t.Helper()
	living := s.living()
	if len(living) == 0 {
		s.join(t)
		return
	}
	c := living[s.dice.IntN(len(living))]
	span := time.Duration(s.dice.Float64() * 3 * float64(s.leasePeriod))
	switch event := s.dice.IntN(8); {
	case event < 3:
		s.tally.add("replaying clients crashed")
		s.crash(c)
	case event < 4:
		s.leave(c, s.dice.IntN(2) == 0)
	case event < 5 && len(living) < 4:
		s.join(t)
	case event < 6:
		s.part(c, span)
	default:
		s.pause(c, span)
	}
}

// awaitEnd ends all faults of a replay, and checks that its clients end by themselves.
func (s *simulation) awaitEnd(t *testing.T) {
	t.Helper()
	if early := s.end.Sub(serviceTime()); early > 0 {
		pass(early)
	}
	s.heal(t)
	within := 20*s.leasePeriod + s.patience()
	for begun := time.Now(); len(s.living()) > 0 && time.Since(begun) < within; {
		pass(s.leasePeriod / 4)
		if s.failed() {
			return
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.clients {
		if c.reading() {
			s.broken(nil, "%s after the last fault and the end %s has not ended", within, c.name)
		}
	}
}
