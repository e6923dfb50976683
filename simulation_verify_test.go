package awskinesis

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/benthosdev/benthos/v4/public/service"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/sequence"
)

// trailLength is how many of the last events of a shard a report shows.
const trailLength = 60

// The methods of this file are the verifier. Each looks at one event as it
// happens, under the simulation's lock, and breaks the run at the first promise
// that is not kept.

// broken notes a broken promise, with what led to it. Only the first counts.
func (s *simulation) broken(sh *simulatedShard, format string, args ...any) {
	if s.verdict != "" {
		return
	}
	var report strings.Builder
	fmt.Fprintf(&report, "after %s: %s", time.Since(s.began), fmt.Sprintf(format, args...))
	if sh != nil {
		fmt.Fprintf(&report, "\nthe last events of shard %s:", sh.key)
		for _, e := range sh.trail[max(0, len(sh.trail)-trailLength):] {
			fmt.Fprintf(&report, "\n  %12s %-4s %s %v", e.at.Sub(s.began), e.client, e.what, e.detail)
		}
	}
	s.verdict = report.String()
}

func (s *simulation) note(sh *simulatedShard, client, what string, detail fmt.Stringer) {
	sh.trail = append(sh.trail, simulatedEvent{at: time.Now(), client: client, what: what, detail: detail})
	if len(sh.trail) > 4*trailLength {
		sh.trail = slices.Delete(sh.trail, 0, len(sh.trail)-trailLength)
	}
}

// stored is an item as a trail shows it.
type stored lease.Item

func (i stored) String() string {
	state := i.Owner
	switch {
	case i.Finished:
		state = "finished"
	case i.Owner == "":
		state = "free"
	}
	if i.Wanted != "" {
		state += ", wanted by " + i.Wanted
	}
	return fmt.Sprintf("%s at %q, term %.4s, token %s", state, i.Sequence, i.Term, i.Token)
}

// wrote checks a change of an item: no checkpoint goes back or runs ahead of the
// acknowledgements, and nobody loses a shard that it trusts to have.
func (s *simulation) wrote(before, after lease.Item) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.streams[after.Stream]
	sh := st.byID[after.Shard]
	s.note(sh, "", "item:", stored(after))
	if after.Exists && !sh.claimed {
		s.firstClaim(st, sh, after)
	}
	s.checkOwner(sh, before, after)
	s.checkSequence(sh, before, after)
}

// firstClaim fixes where the reading of a shard begins. Whatever arrived after
// the stream was claimed for the first time has to be read.
func (s *simulation) firstClaim(st *simulatedStream, sh *simulatedShard, item lease.Item) {
	sh.claimed = true
	if st.claimed.IsZero() {
		st.claimed = serviceTime()
	}
	if s.startFromOldest {
		if !item.StartAt.IsZero() {
			s.broken(sh, "the start of a shard that is read from its oldest record was set to %s", item.StartAt)
		}
		return
	}
	if item.StartAt.After(st.claimed) {
		s.broken(sh, "reading starts at %s, after the stream was first claimed at %s", item.StartAt, st.claimed)
	}
	sh.seen = sh.arrivedBy(item.StartAt)
	sh.acked, sh.committed = sh.seen, sh.seen
}

func (s *simulation) checkOwner(sh *simulatedShard, before, after lease.Item) {
	if before.Owner == after.Owner {
		return
	}
	if before.Owner != "" {
		holder := s.clients[before.Owner]
		// Only its owner frees an item, or passes it on to one that has yet to
		// begin a term.
		if byOwner := after.Owner == "" || after.Term == ""; byOwner {
			delete(holder.tenures, sh.key)
		} else if holder.trusts(sh.key) {
			s.broken(sh, "%s took the shard from %s, which trusts its lease for %s more",
				after.Owner, before.Owner, time.Until(holder.tenures[sh.key].until))
		}
	}
	if after.Owner != "" && after.Owner != sh.owner {
		s.moves++
		sh.owner = after.Owner
	}
	if s.still {
		s.broken(sh, "the shard went from %q to %q in a balanced fleet", before.Owner, after.Owner)
	}
}

func (s *simulation) checkSequence(sh *simulatedShard, before, after lease.Item) {
	switch {
	case !after.Exists:
		s.broken(sh, "the item was deleted, though its shard is in the stream")
	case sequence.Compare(before.Sequence, after.Sequence) > 0:
		s.broken(sh, "the checkpoint went back from %q to %q", before.Sequence, after.Sequence)
	case after.Sequence != before.Sequence:
		index, known := sh.indexes[after.Sequence]
		if !known {
			s.broken(sh, "the checkpoint %q is no sequence number of the shard", after.Sequence)
		} else if index >= sh.acked {
			s.broken(sh, "the checkpoint went to %q, but only %d records before it are acknowledged, of %d", after.Sequence, sh.acked, index+1)
		}
		sh.committed = index + 1
	}
	if after.Finished && (!sh.closed || sh.acked < len(sh.records)) {
		s.broken(sh, "the shard was marked as finished with %d of %d records acknowledged", sh.acked, len(sh.records))
	}
}

// tenure is what a client knows of its lease on a shard, kept beside the code
// that is tested by the rules of the protocol alone.
type tenure struct {
	// attempt and its beginning are the last try to claim or renew.
	attempt string
	began   time.Time
	// until is when trust ends that nothing has renewed.
	until time.Time
	// out is the number of messages of this tenure that are not settled.
	out int
}

func (c *simulatedClient) tenure(key lease.Key) *tenure {
	t := c.tenures[key]
	if t == nil {
		t = &tenure{}
		c.tenures[key] = t
	}
	return t
}

// trusts reports whether a client may think at this moment that a shard is its.
func (c *simulatedClient) trusts(key lease.Key) bool {
	t := c.tenures[key]
	return t != nil && !c.dead && time.Now().Before(t.until)
}

// begins notes that a client begins anew with a shard, whatever it had of it.
func (c *simulatedClient) begins(key lease.Key) {
	c.sim.mu.Lock()
	defer c.sim.mu.Unlock()
	delete(c.tenures, key)
}

// attempts notes that a client tries to claim or renew.
func (c *simulatedClient) attempts(key lease.Key, token string) {
	c.sim.mu.Lock()
	defer c.sim.mu.Unlock()
	t := c.tenure(key)
	t.attempt, t.began = token, time.Now()
}

// learns notes what an answer tells a client: an attempt of it has succeeded when
// its token is the one that is stored.
func (c *simulatedClient) learns(item lease.Item) {
	s := c.sim
	s.mu.Lock()
	defer s.mu.Unlock()
	t := c.tenures[item.Key]
	if c.dead || t == nil || item.Owner != c.name || item.Token != t.attempt {
		return
	}
	t.until = t.began.Add(s.leasePeriod - s.leasePeriod/10)
	if !c.trusts(item.Key) {
		return
	}
	sh := s.streams[item.Stream].byID[item.Shard]
	for _, other := range s.clients {
		if other != c && other.trusts(item.Key) {
			s.broken(sh, "%s and %s trust their leases of the shard at the same time", c.name, other.name)
		}
	}
}

// delivery is a batch that a client has read.
type delivery struct {
	shard  *simulatedShard
	from   int // index of its first record
	to     int // of the one after its last
	tenure *tenure
}

func (d delivery) String() string { return fmt.Sprintf("records %d to %d", d.from, d.to-1) }

// delivered checks a batch at the moment at which it leaves the input: its reader
// is the only one, no record before it was skipped, its parents are done with,
// and no more is under way than the limit allows.
func (s *simulation) delivered(c *simulatedClient, batch service.MessageBatch) delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	meta := func(name string) string { value, _ := batch[0].MetaGet(name); return value }
	sh := s.streams[meta("kinesis_stream")].byID[meta("kinesis_shard")]
	d := delivery{shard: sh, from: sh.indexes[meta("kinesis_sequence_number")]}
	d.to = d.from + len(batch)
	s.note(sh, c.name, "reads", d)

	for i, m := range batch {
		if sequence, _ := m.MetaGet("kinesis_sequence_number"); sequence != sh.records[d.from+i].sequence {
			s.broken(sh, "message %d of a batch has sequence %s, the record there has %s", i, sequence, sh.records[d.from+i].sequence)
		}
	}
	if d.from > sh.seen {
		s.broken(sh, "%s read record %d, though record %d was never delivered", c.name, d.from, sh.seen)
	}
	sh.seen = max(sh.seen, d.to)
	for _, parent := range sh.parents {
		if parent.acked < len(parent.records) {
			s.broken(parent, "%s read its child %s with %d of %d records acknowledged", c.name, sh.key.Shard, parent.acked, len(parent.records))
		}
	}
	if !c.trusts(sh.key) {
		s.broken(sh, "%s read the shard without a lease that it may trust", c.name)
		return d
	}
	for _, other := range s.clients {
		if other != c && other.trusts(sh.key) {
			s.broken(sh, "%s read the shard while %s trusts its lease of it", c.name, other.name)
		}
	}
	d.tenure = c.tenure(sh.key)
	d.tenure.out += len(batch)
	if d.tenure.out > max(c.limit, len(batch)) {
		s.broken(sh, "%s has %d messages under way, its limit is %d", c.name, d.tenure.out, c.limit)
	}
	return d
}

// settled notes that a batch was acknowledged, or handled otherwise.
func (s *simulation) settled(c *simulatedClient, d delivery, handled bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.tenure != nil {
		d.tenure.out -= d.to - d.from
	}
	sh := d.shard
	if !handled {
		s.note(sh, c.name, "rejects", d)
		return
	}
	s.note(sh, c.name, "acknowledges", d)
	for i := range sh.records[d.from:d.to] {
		sh.records[d.from+i].acked = true
	}
	for sh.acked < len(sh.records) && sh.records[sh.acked].acked {
		sh.acked++
	}
}

// shares counts the shards of each client that is there, and of all that own any.
// The simulation is locked.
func (s *simulation) shares(items map[lease.Key]lease.Item) map[string]int {
	shares := map[string]int{}
	for name, c := range s.clients {
		if c.reading() {
			shares[name] = 0
		}
	}
	for _, item := range items {
		if item.Owner != "" {
			shares[item.Owner]++
		}
	}
	return shares
}

// unsettled says what is missing for all to be read, stored and shared equally;
// empty when nothing is.
func (s *simulation) unsettled() string {
	items := s.table.snapshot() // before the lock, which a write of the table takes within its own
	s.mu.Lock()
	defer s.mu.Unlock()
	shares := s.shares(items)
	for _, name := range s.names {
		for _, sh := range s.streams[name].shards {
			item := items[sh.key]
			switch {
			case sh.acked < len(sh.records):
				return fmt.Sprintf("shard %s: %d of %d records are acknowledged; %s", sh.key, sh.acked, len(sh.records), stored(item))
			case sh.closed && !item.Finished:
				return fmt.Sprintf("closed shard %s: %s", sh.key, stored(item))
			case sh.committed < len(sh.records):
				return fmt.Sprintf("shard %s: %d of %d records are committed; %s", sh.key, sh.committed, len(sh.records), stored(item))
			case sh.closed:
				continue
			}
			if owner := s.clients[item.Owner]; owner == nil || !owner.reading() || item.Term == "" {
				return fmt.Sprintf("open shard %s: %s", sh.key, stored(item))
			}
			if asker := s.clients[item.Wanted]; asker != nil && asker.reading() {
				return fmt.Sprintf("open shard %s is on its way: %s", sh.key, stored(item))
			}
		}
	}
	least, most := len(items), 0
	for _, n := range shares {
		least, most = min(least, n), max(most, n)
	}
	if most-least > 1 {
		return fmt.Sprintf("the shares are not equal: %v", shares)
	}
	return ""
}

// leftover says what clients that all have left should have taken back.
func (s *simulation) leftover() string {
	for _, item := range s.table.All() {
		if item.Owner != "" {
			return fmt.Sprintf("shard %s: %s", item.Key, stored(item))
		}
	}
	s.table.mu.Lock()
	defer s.table.mu.Unlock()
	for name := range s.table.clients {
		return "client " + name + " is still announced"
	}
	return ""
}
