package awskinesis

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/benthosdev/benthos/v4/public/service"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/lineage"
	"github.com/benthos-plugins/aws-kinesis/internal/sequence"
)

// trailLength is how many of the last events of a shard a report shows.
const trailLength = 60

// The methods of this file are the verifier. Each looks at one event as it
// happens, under the simulation's lock, and breaks the run at the first promise
// that is not kept.

// broken notes a broken promise, with what led to it. Only the first counts.
func (s *simulation) broken(sh *progress, format string, args ...any) {
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

func (s *simulation) note(sh *progress, client, what string, detail fmt.Stringer) {
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
	return fmt.Sprintf("%s at %v, term %.4s, token %s", state, lease.Item(i).Position(), i.Term, i.Token)
}

// wrote checks a change of an item: no checkpoint goes back or runs ahead of the
// acknowledgements, and nobody loses a shard that it trusts to have.
func (s *simulation) wrote(before, after lease.Item) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if lineage.ShardID(after.Shard) != after.Shard {
		s.checkLiteral(before, after)
		return
	}
	sh := s.shardOf(after)
	if !after.Exists {
		sh = s.shardOf(before)
	}
	by := s.writer
	s.writer = nil
	who := ""
	if by != nil {
		who = by.name
	}
	s.note(sh, who, "item:", stored(after))
	if after.Exists && !sh.claimed {
		s.firstClaim(sh, after)
	}
	s.checkOwner(sh, before, after, by)
	if by != nil {
		// It stores what it has read, with no regard to what stands there.
		if robbed := s.builtIns[before.Owner]; robbed != nil && robbed != by {
			robbed.robbed[sh.key] = true
		}
		sh.committed = sh.done(after.Position())
		sh.deleted = !after.Exists
		return
	}
	s.checkSequence(sh, before, after)
}

// lives returns the streams that were made under a name, oldest first.
func (s *simulation) lives(name string) []*simulatedStream {
	all := slices.Clone(s.past[name])
	if st := s.streams[name]; st != nil {
		all = append(all, st)
	}
	return all
}

// shardOf is the shard of which an item is: by its sequence number or, where it has
// none, by the start that was written with the claim, of the streams of that name.
func (s *simulation) shardOf(item lease.Item) *progress {
	var of *simulatedShard
	for _, st := range slices.Backward(s.lives(item.Stream)) {
		sh := st.byID[item.Shard]
		switch {
		case sh == nil:
			continue
		case item.Sequence != "" && sequence.Compare(sh.first, item.Sequence) <= 0,
			item.Sequence == "" && (item.ShardStart == "" || item.ShardStart == sh.first):
			return s.of(sh)
		case of == nil:
			of = sh
		}
	}
	return s.of(of)
}

// ofEarlierStream reports whether an item is of a shard whose stream was deleted and
// made anew with another of that id.
func (s *simulation) ofEarlierStream(item lease.Item) bool {
	was := s.shardOf(item)
	for _, st := range s.lives(item.Stream)[was.life+1:] {
		if st.byID[item.Shard] != nil {
			return true
		}
	}
	return false
}

// checkLiteral checks a change of an item that is for the built-in input alone, under
// the shard as it was written.
func (s *simulation) checkLiteral(before, after lease.Item) {
	full := after
	full.Shard, full.ShardStart = lineage.ShardID(after.Shard), ""
	if !after.Exists || after.Sequence == "" {
		return
	}
	sh := s.shardOf(full)
	switch index, known := sh.indexes[after.Sequence]; {
	case sequence.Compare(before.Sequence, after.Sequence) > 0:
		s.broken(sh, "the literal item %s went back from %q to %q", after.Key, before.Sequence, after.Sequence)
	case !known || index >= sh.acked:
		s.broken(sh, "the literal item %s went to %q, and %d records are acknowledged", after.Key, after.Sequence, sh.acked)
	}
}

// firstClaim fixes where the reading of a shard begins. Whatever arrived after
// the stream was claimed for the first time has to be read.
func (s *simulation) firstClaim(sh *progress, item lease.Item) {
	sh.claimed = true
	if s.claimed[sh.key.Stream].IsZero() {
		s.claimed[sh.key.Stream] = serviceTime()
	}
	if !s.from.IsZero() {
		if !item.StartAt.Equal(s.from) {
			s.broken(sh, "reading starts at %s, not at %s", item.StartAt, s.from)
		}
		return
	}
	if s.startFromOldest {
		if !item.StartAt.IsZero() {
			s.broken(sh, "the start of a shard that is read from its oldest record was set to %s", item.StartAt)
		}
		return
	}
	if first := s.claimed[sh.key.Stream]; item.StartAt.After(first) {
		s.broken(sh, "reading starts at %s, after the stream was first claimed at %s", item.StartAt, first)
	}
	sh.startsAt(sh.arrivedBy(item.StartAt))
}

// unclaimed reports whether a term is that of a hand-over whose recipient has not claimed
// the shard for a lease period. Nobody reads under it.
func (s *simulation) unclaimed(term string) bool {
	at, passed := s.passed[term]
	return passed && time.Since(at) >= s.leasePeriod
}

func (s *simulation) checkOwner(sh *progress, before, after lease.Item, by *builtIn) {
	if before.Owner == after.Owner {
		return
	}
	if holder := s.clientOf(before.Owner); holder != nil && by == nil {
		// Only its owner frees an item, or passes it on.
		if _, passed := s.passed[after.Term]; passed || after.Owner == "" {
			delete(holder.tenures, sh.key)
		} else if t := holder.tenures[sh.key]; holder.trusts(sh.key) && t.id == before.Owner {
			s.broken(sh, "%s took the shard from %s, which trusts its lease for %s more",
				after.Owner, before.Owner, time.Until(holder.standing[t.id].until))
		} else if s.present[before.Owner] && !s.unclaimed(before.Term) {
			s.broken(sh, "%s took the shard from %s, which was not evicted before", after.Owner, before.Owner)
		}
	}
	if owner := clientName(after.Owner); owner != "" && owner != sh.owner {
		s.moves++
		sh.owner = owner
	}
	if s.still {
		s.broken(sh, "the shard went from %q to %q in a balanced fleet", before.Owner, after.Owner)
	}
}

func (s *simulation) checkSequence(sh *progress, before, after lease.Item) {
	switch {
	case !after.Exists && s.current(sh):
		s.broken(sh, "the item was deleted, though its shard is in the stream")
	case !after.Exists:
	case after.Position() == lease.Position{} && before.Position() != lease.Position{} && s.ofEarlierStream(before):
		// It makes place for the position in the stream that was made anew.
	case before.Position().Compare(after.Position()) > 0:
		s.broken(sh, "the checkpoint went back from %v to %v", before.Position(), after.Position())
	case after.Position() != before.Position():
		sh.committed = sh.done(after.Position())
		if _, known := sh.indexes[after.Sequence]; !known && after.Sequence != "" {
			s.broken(sh, "the checkpoint %q is no sequence number of the shard", after.Sequence)
		} else if sh.committed > sh.acked {
			s.broken(sh, "the checkpoint went to %v, but only %d records before it are acknowledged, of %d", after.Position(), sh.acked, sh.committed)
		}
		if in := after.Within; in != (lease.Within{}) {
			s.tally.add("checkpoint inside of an aggregate")
			if at := sh.committed; at >= len(sh.records) || sh.records[at].sequence != in.Sequence || sh.records[at].sub != in.Count {
				s.broken(sh, "the checkpoint %v is not inside of the record that comes next", after.Position())
			}
		}
	}
	if after.Finished && (!sh.closed || sh.acked < len(sh.records)) {
		s.broken(sh, "the shard was marked as finished with %d of %d records acknowledged", sh.acked, len(sh.records))
	}
	if !after.CutAt.Equal(before.CutAt) {
		s.checkCut(sh, after)
	}
}

// listed reports whether a stream has a shard now.
func (s *simulation) listed(key lease.Key) bool {
	st := s.streams[key.Stream]
	return st != nil && st.byID[key.Shard] != nil
}

// current reports whether a shard is in the stream that has its name now.
func (s *simulation) current(sh *progress) bool {
	st := s.streams[sh.key.Stream]
	return st != nil && st.life == sh.life
}

// tenure is what a client knows of its session, or of its lease on a shard, kept beside
// the code that is tested by the rules of the protocol alone.
type tenure struct {
	// attempts have the beginning of each try to write, by its token.
	attempts map[string]time.Time
	// until is when trust ends that nothing has renewed.
	until time.Time
	// id is the session on which a lease stands.
	id string
	// from is the owner at the claim of a lease, empty when there was none.
	from string
	// out is the number of messages of a lease's tenure that are not settled.
	out int
	// next is the index after the last record that was read under a lease.
	next int
	// Where the order is by partition key, newest is the index of the last record of each
	// that was read under a lease, and underWay the one that is not settled.
	newest, underWay map[string]int
}

// tries notes the beginning of a try to write.
func (t *tenure) tries(token string) {
	if t.attempts == nil {
		t.attempts = map[string]time.Time{}
	}
	t.attempts[token] = time.Now()
}

// stands notes that a token is stored, and reports whether the tenure has written it.
func (t *tenure) stands(token string, period time.Duration) bool {
	began, ours := t.attempts[token]
	if ours {
		t.until = began.Add(period)
	}
	return ours
}

// nextID is the id of the client's next session.
func (c *simulatedClient) nextID() string {
	c.sim.mu.Lock()
	defer c.sim.mu.Unlock()
	c.sessions++
	c.id = fmt.Sprint(c.name, "/", c.sessions)
	return c.id
}

// clientName is the name of the client that has an id.
func clientName(id string) string {
	name, _, _ := strings.Cut(id, "/")
	return name
}

func (s *simulation) clientOf(id string) *simulatedClient { return s.clients[clientName(id)] }

func (c *simulatedClient) owns(id string) bool { return clientName(id) == c.name }

// beatsNow notes that a client tries to renew its session.
func (c *simulatedClient) beatsNow(m lease.Member) {
	c.sim.mu.Lock()
	defer c.sim.mu.Unlock()
	if c.standing[m.ID] == nil {
		c.standing[m.ID] = &tenure{}
	}
	c.standing[m.ID].tries(m.Token)
}

// stands notes what an answer tells a client of its session.
func (c *simulatedClient) stands(id, token string) {
	c.sim.mu.Lock()
	defer c.sim.mu.Unlock()
	if t := c.standing[id]; t != nil && !t.stands(token, c.sim.trust()) && (token == "" || token == lease.Evicted) {
		t.until = time.Time{} // it was evicted
	}
}

// leaves notes that a client leaves the group, after all its leases have ended.
func (c *simulatedClient) leaves(id string) {
	c.sim.mu.Lock()
	defer c.sim.mu.Unlock()
	if c.owns(id) && c.standing[id] != nil {
		c.standing[id] = &tenure{}
	}
}

// trust is how long a session may be trusted without a heartbeat.
func (s *simulation) trust() time.Duration { return s.leasePeriod - s.leasePeriod/10 }

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
	t, now := c.tenures[key], time.Now()
	return t != nil && !c.dead && now.Before(t.until) && c.standing[t.id] != nil && now.Before(c.standing[t.id].until)
}

// begins notes that a client begins anew with a shard, whatever it had of it.
func (c *simulatedClient) begins(seen lease.Item, id string) {
	c.sim.mu.Lock()
	defer c.sim.mu.Unlock()
	delete(c.ways, seen.Key)
	from := seen.Owner
	if before := c.tenures[seen.Key]; before != nil && c.owns(from) {
		from = before.from // it claims again what it has claimed without an answer
	}
	c.tenures[seen.Key] = &tenure{id: id, from: from}
}

// passes notes the term with which a client hands a shard over.
func (c *simulatedClient) passes(term string) {
	c.sim.mu.Lock()
	defer c.sim.mu.Unlock()
	if _, again := c.sim.passed[term]; !again { // the first attempt may have been the one
		c.sim.passed[term] = time.Now()
	}
}

// attempts notes that a client tries to claim or renew.
func (c *simulatedClient) attempts(key lease.Key, token string) {
	c.sim.mu.Lock()
	defer c.sim.mu.Unlock()
	c.tenure(key).tries(token)
}

// learns notes what an answer tells a client: an attempt of it has succeeded when
// its token is the one that is stored.
func (c *simulatedClient) learns(item lease.Item) {
	s := c.sim
	s.mu.Lock()
	defer s.mu.Unlock()
	t := c.tenures[item.Key]
	switch {
	case c.dead || t == nil:
		return
	case item.Owner != t.id:
		t.until = time.Time{} // it is another's, or nobody's
		return
	}
	ends, err := time.Parse(time.RFC3339Nano, item.Token)
	if err != nil || !t.stands(item.Token, time.Until(ends)) {
		return
	}
	if t.until = ends.Add(-s.leasePeriod / 10); !c.trusts(item.Key) {
		return
	}
	sh := s.shardOf(item)
	for _, other := range s.clients {
		if other != c && other.trusts(item.Key) {
			s.broken(sh, "%s and %s trust their leases of the shard at the same time", c.name, other.name)
		}
	}
}

// beaten notes who is in the group.
func (s *simulation) beaten(before, after lease.Member) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if after.ID == "" || after.Gone() {
		delete(s.present, before.ID)
		if c := s.clientOf(before.ID); c.standing[before.ID] != nil && !c.dead && time.Now().Before(c.standing[before.ID].until) {
			s.broken(nil, "%s was evicted though it trusts its session for %s more", before.ID, time.Until(c.standing[before.ID].until))
		}
		return
	}
	s.present[after.ID] = true
}

// delivery is a batch that a client has read.
type delivery struct {
	shard   *progress
	indexes []int // of its records, in its order
	tenure  *tenure
}

func (d delivery) String() string { return indexes(d.indexes).String() }

// indexes are records of a shard as a trail shows them.
type indexes []int

func (all indexes) String() string {
	var spans []string
	for i := 0; i < len(all); {
		end := i + 1
		for end < len(all) && all[end] == all[end-1]+1 {
			end++
		}
		span := fmt.Sprint(all[i])
		if end-i > 1 {
			span += fmt.Sprint(" to ", all[end-1])
		}
		spans = append(spans, span)
		i = end
	}
	return "records " + strings.Join(spans, ", ")
}

// indexOf is the index of the record that a message of a shard is of.
func (s *simulation) indexOf(sh *progress, m *service.Message) int {
	meta := func(name string) string { value, _ := m.MetaGet(name); return value }
	number, sub := meta("kinesis_sequence_number"), meta("kinesis_sub_sequence_number")
	index, known := sh.indexes[number]
	if !known {
		s.broken(sh, "a message has sequence number %s, which no record has", number)
		return 0
	}
	if of := sh.records[index].of; of > 0 {
		place, err := strconv.Atoi(sub)
		if err != nil || place < 0 || place >= of {
			s.broken(sh, "a message is user record %q of %d", sub, of)
			return index
		}
		index -= of - 1 - place
	} else if sub != "" {
		s.broken(sh, "a message is user record %q of a record that is no aggregate", sub)
	}
	if key := meta("kinesis_partition_key"); key != sh.records[index].key {
		s.broken(sh, "the message of record %d has partition key %q, the record has %q", index, key, sh.records[index].key)
	}
	return index
}

// delivered checks a batch at the moment at which it leaves the input: its reader
// is the only one, it comes in its order, no record before it was skipped, its parents
// are done with, and no more is under way than the limit allows.
func (s *simulation) delivered(c *simulatedClient, batch service.MessageBatch) delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	meta := func(name string) string { value, _ := batch[0].MetaGet(name); return value }
	sh := s.shardOf(lease.Item{
		Key:      lease.Key{Stream: meta("kinesis_stream"), Shard: lineage.ShardID(meta("kinesis_shard"))},
		Sequence: meta("kinesis_sequence_number"),
	})
	d := delivery{shard: sh}
	for _, m := range batch {
		d.indexes = append(d.indexes, s.indexOf(sh, m))
	}
	s.note(sh, c.name, "reads", d)
	s.checkBeyond(c, d)

	if !s.conf.orderByKey {
		s.checkSkips(sh, c.name, d)
	}
	for _, shard := range sh.parents {
		if parent := s.of(shard); parent.acked < len(parent.records) && !sh.foreign && !c.pinned && s.current(sh) {
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
	for _, b := range s.builtIns {
		if r := b.reads[sh.key]; r != nil && !r.unsure {
			s.broken(sh, "%s read the shard while %s reads it, which has not had its time to notice", c.name, b.name)
		}
	}
	d.tenure = c.tenure(sh.key)
	s.checkRepeats(c, d)
	d.tenure.out += len(batch)
	most := max(c.limit, len(batch))
	if s.conf.orderByKey {
		most = c.limit // each message enters the window by itself
	}
	if d.tenure.out > most {
		s.broken(sh, "%s has %d messages under way, its limit is %d", c.name, d.tenure.out, c.limit)
	}
	return d
}

// checkSkips checks that records were read in their order.
func (s *simulation) checkSkips(sh *progress, reader string, d delivery) {
	for i, index := range d.indexes {
		if index > sh.seen {
			s.broken(sh, "%s read record %d, though record %d was never delivered", reader, index, sh.seen)
		}
		sh.seen = max(sh.seen, index+1)
		// What comes again in part was in its order at the first time.
		if i > 0 && index != d.indexes[i-1]+1 && !sh.rejected[index] {
			s.broken(sh, "%s read record %d right behind record %d", reader, index, d.indexes[i-1])
		}
	}
}

// checkRepeats checks that what comes again under a lease was rejected under it, and that
// nothing comes again which is committed.
func (s *simulation) checkRepeats(c *simulatedClient, d delivery) {
	sh, t := d.shard, d.tenure
	for _, index := range d.indexes {
		switch {
		case index < sh.committed && !sh.foreign:
			s.broken(sh, "%s read record %d again, though %d are committed", c.name, index, sh.committed)
		case s.conf.orderByKey:
			s.checkLane(c, d, index)
		case index < t.next && !sh.rejected[index]:
			s.broken(sh, "%s read record %d again, though it had read the shard up to record %d under this lease", c.name, index, t.next)
		}
		t.next = max(t.next, index+1)
	}
}

// settled notes that a batch was acknowledged, but for what was rejected of it. That comes
// again, or is handled otherwise.
func (s *simulation) settled(c *simulatedClient, d delivery, rejected []int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.tenure != nil {
		d.tenure.out -= len(d.indexes)
		for _, index := range d.indexes {
			delete(d.tenure.underWay, d.shard.records[index].key)
		}
	}
	sh, handled := d.shard, d.indexes
	if len(rejected) > 0 && s.autoReplay {
		s.note(sh, c.name, "rejects", indexes(rejected))
		handled = slices.DeleteFunc(slices.Clone(d.indexes), func(index int) bool { return slices.Contains(rejected, index) })
	}
	if len(handled) > 0 {
		s.note(sh, c.name, "acknowledges", indexes(handled))
	}
	sh.acknowledge(handled)
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
	for key, item := range items {
		if item.Owner != "" && s.listed(key) {
			shares[clientName(item.Owner)]++
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
		for _, shard := range s.streams[name].shards {
			sh := s.of(shard)
			item := items[sh.key]
			s.guilty = sh // if what follows says so
			switch {
			case sh.acked < len(sh.records):
				return fmt.Sprintf("shard %s: %d of %d records are acknowledged; %s", sh.key, sh.acked, len(sh.records), stored(item))
			case sh.deleted: // by a built-in input that has read it to its end
				continue
			case sh.closed && !item.Finished:
				return fmt.Sprintf("closed shard %s: %s", sh.key, stored(item))
			case sh.committed < len(sh.records):
				return fmt.Sprintf("shard %s: %d of %d records are committed; %s", sh.key, sh.committed, len(sh.records), stored(item))
			case sh.closed:
				continue
			}
			if owner := s.clientOf(item.Owner); owner == nil || !owner.reading() || owner.id != item.Owner {
				return fmt.Sprintf("open shard %s: %s", sh.key, stored(item))
			} else if !owner.trusts(sh.key) {
				return fmt.Sprintf("open shard %s is on its way, or its lease is not proved: %s", sh.key, stored(item))
			}
		}
	}
	s.guilty = nil
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
		// A shard of a stream that is gone may stay with an owner that is dead.
		if item.Owner != "" && s.listed(item.Key) {
			return fmt.Sprintf("shard %s: %s", item.Key, stored(item))
		}
	}
	if !s.end.IsZero() {
		return "" // who would have evicted a member that crashed had nothing left to read
	}
	for _, m := range s.table.Members() {
		return "client " + m.ID + " is still in the group"
	}
	return ""
}
