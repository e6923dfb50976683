package awskinesis

import "testing"

// Fleets whose order is by partition key.

// orderByKey has all clients keep the order of each partition key, of which there are so few
// that many messages of one are read together.
func (s *simulation) orderByKey() {
	s.conf.orderByKey = true
	s.producers.keyer = seeded(s.seed, "keys")
	s.producers.keys = []int{1, 3, 10, 40}[s.producers.keyer.IntN(4)]
}

// checkLane checks a record that a client has read against the others of its key: all before
// it are done with, and under one lease it is the only one under way, and behind those that
// were read before. A record without a key has no order.
func (s *simulation) checkLane(c *simulatedClient, d delivery, index int) {
	sh, t, r := d.shard, d.tenure, &d.shard.records[index]
	if r.key == "" {
		return
	}
	if t.newest == nil {
		t.newest, t.underWay = map[string]int{}, map[string]int{}
	}
	newest, read := t.newest[r.key]
	beside, busy := t.underWay[r.key]
	switch {
	case r.before >= 0 && !sh.handled(r.before):
		s.broken(sh, "%s read record %d of %s, though record %d of it is not acknowledged", c.name, index, r.key, r.before)
	case busy:
		s.broken(sh, "%s read record %d of %s, while record %d of it is under way", c.name, index, r.key, beside)
	case read && index < newest, read && index == newest && !sh.rejected[index]:
		s.broken(sh, "%s read record %d of %s, though it had read record %d of it under this lease", c.name, index, r.key, newest)
	}
	t.newest[r.key], t.underWay[r.key] = index, index
}

// The records of each partition key are read one after the other, whatever happens, while
// different keys overtake one another, and no checkpoint overtakes any of them.
func TestSimulationOfKeyedFleets(t *testing.T) {
	simulateSeeds(t, fewSeeds, func(s *simulation, t *testing.T) {
		s.orderByKey()
		s.direct(t)
	})
}
