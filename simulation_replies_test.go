package awskinesis

import "time"

// Answers of something on the way, with status 200 and without content, which the SDK
// takes for the service's. Of the table's the checkpointer makes errors: they are a
// refusal or a lost answer to what stands on it.

// emptied tells whether a request of a client is answered so, in place of the service.
func (c *simulatedClient) emptied(operation, about string) bool {
	s := c.sim
	s.mu.Lock()
	defer s.mu.Unlock()
	if !c.strikes("emptied "+operation+about, 0.3) {
		return false
	}
	s.tally.add("fault: answer without content: " + operation)
	return true
}

// behindWays are what the service's reference leaves open about MillisBehindLatest: what
// it is at the end of a closed shard, and whether an idle shard may claim to be behind.
type behindWays struct {
	closed, idle bool
	doubted      map[*simulatedShard]bool // whose last page without records said so
}

func newBehindWays(seed uint64) behindWays {
	d := seeded(seed, "behind")
	return behindWays{closed: d.IntN(2) == 0, idle: d.IntN(2) == 0, doubted: map[*simulatedShard]bool{}}
}

// of is how far behind a page of a shard says that it is, if it is left records before the
// end. The simulation is locked.
func (w behindWays) of(sh *simulatedShard, records, left int) time.Duration {
	behind := time.Duration(left) * time.Millisecond
	switch {
	case sh.closed && left == 0 && w.closed:
		return time.Hour
	case !sh.closed && left == 0 && records == 0 && w.idle:
		if w.doubted[sh] = !w.doubted[sh]; w.doubted[sh] {
			return time.Second
		}
	}
	return behind
}
