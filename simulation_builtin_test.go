package awskinesis

import (
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
)

// builtIn is an instance of Benthos' built-in input, as far as the table and the
// records go. It keeps the waits that its own protocol demands, and is otherwise as
// careless as DESIGN.md ("The table") says: it writes whole items, deletes them and
// stores its final checkpoint without looking, begins shards whatever their parents
// do, and reads on after a wait though the shard may be another's by then.
type builtIn struct {
	sim  *simulation
	name string // its ClientID too
	skew time.Duration

	life context.Context //nolint:containedctx // a process has it as long as it lives
	stop context.CancelFunc
	work sync.WaitGroup

	// Guarded by the simulation's lock.
	dice    *rand.Rand
	gone    bool // it left or crashed
	crashed bool
	reads   map[lease.Key]*builtInRead
	// robbed has the shards that another instance took from it. While it waits after a
	// steal for longer than three periods the others take it for dead, and it does not
	// look again before it begins: what comes of that is between them.
	robbed map[lease.Key]bool
}

// builtInRead is a shard that is read, by a goroutine of its own.
type builtInRead struct {
	shard *progress
	next  int // index of the next record; all before it are acknowledged
	// unsure is whether the last checkpoint failed, or another instance took the shard,
	// from when on it may be ours without our fault.
	unsure bool
}

func (s *simulation) joinBuiltIn(t *testing.T) {
	t.Helper()
	s.mu.Lock()
	b := &builtIn{
		sim: s, name: fmt.Sprint("b", len(s.builtIns)+1), skew: s.skew(),
		reads: map[lease.Key]*builtInRead{}, robbed: map[lease.Key]bool{},
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(b.name))
	b.dice = rand.New(rand.NewPCG(s.seed, h.Sum64()))
	s.builtIns[b.name] = b
	s.mu.Unlock()
	b.life, b.stop = context.WithCancel(t.Context())
	b.work.Go(b.run)
}

// leaveBuiltIn ends an instance, in order or as SIGKILL does.
func (s *simulation) leaveBuiltIn(b *builtIn, crash bool) {
	s.mu.Lock()
	b.gone, b.crashed = true, crash
	s.mu.Unlock()
	b.stop()
	s.departures.Go(b.work.Wait)
}

// livingBuiltIns returns those that are there, in the order of their joining.
func (s *simulation) livingBuiltIns() []*builtIn {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*builtIn
	for n := range len(s.builtIns) {
		if b := s.builtIns[fmt.Sprint("b", n+1)]; !b.gone {
			all = append(all, b)
		}
	}
	return all
}

func (b *builtIn) now() time.Time { return time.Now().Add(b.skew) }

// timeout is what it writes as its LeaseTimeout.
func (b *builtIn) timeout() string {
	return b.now().Add(b.sim.leasePeriod).UTC().Format(time.RFC3339Nano)
}

// hop is the way of a request, and reports whether it arrives. Requests of an instance
// that ends in order still do.
func (b *builtIn) hop() (arrives bool) {
	s := b.sim
	s.mu.Lock()
	delay := time.Duration(b.dice.Int64N(int64(10 * time.Millisecond)))
	arrives = !s.faulty || b.dice.Float64() >= s.faultRate
	if s.faulty && b.dice.Float64() < s.faultRate {
		delay = time.Duration(b.dice.Float64() * float64(s.leasePeriod) / 20)
	}
	s.mu.Unlock()
	_ = wait(context.WithoutCancel(b.life), delay)
	s.mu.Lock()
	defer s.mu.Unlock()
	return arrives && !b.crashed
}

// write makes one request that may change an item.
func (b *builtIn) write(key lease.Key, next func(now lease.Item) (lease.Item, bool)) bool {
	return b.sim.table.Swap(key, func(now lease.Item) (lease.Item, bool) {
		after, allowed := next(now)
		if allowed {
			b.sim.writer = b
		}
		return after, allowed
	})
}

// run is its only loop. All waits are within it.
func (b *builtIn) run() {
	for b.life.Err() == nil {
		for _, name := range b.sim.names {
			b.round(name)
		}
		_ = wait(b.life, b.sim.leasePeriod)
	}
}

// round claims what is free or has run out of a stream, or else steals one shard.
func (b *builtIn) round(stream string) {
	if !b.hop() {
		return
	}
	l, _ := b.sim.table.List(b.life, stream, false)
	items := map[string]lease.Item{}
	for _, item := range l.Items {
		items[item.Shard] = item
	}
	b.sim.mu.Lock()
	type listed struct {
		key          lease.Key
		closed, mine bool
	}
	var shards []listed
	for _, sh := range b.sim.streams[stream].shards {
		shards = append(shards, listed{sh.key, sh.closed, b.reads[sh.key] != nil})
	}
	b.sim.mu.Unlock()

	claimed, of := false, map[string][]lease.Key{}
	for _, sh := range shards {
		item := items[sh.key.Shard]
		switch {
		case b.life.Err() != nil:
			return
		case sh.mine:
			of[b.name] = append(of[b.name], sh.key)
		case !item.Exists && sh.closed: // which it takes for read
		case item.Owner == "" || b.ranOut(item):
			claimed = true
			b.claim(sh.key, item)
		default:
			of[item.Owner] = append(of[item.Owner], sh.key)
		}
	}
	if claimed {
		return
	}
	// From whoever has most of the stream.
	most := ""
	for owner, keys := range of {
		if owner != b.name && (len(keys) > len(of[most]) || len(keys) == len(of[most]) && owner < most) {
			most = owner
		}
	}
	if len(of[most]) >= len(of[b.name])+2 {
		b.sim.mu.Lock()
		key := of[most][b.dice.IntN(len(of[most]))]
		b.sim.mu.Unlock()
		b.claim(key, items[key.Shard])
	}
}

// ranOut reports whether nobody has renewed an item for two periods after its time.
func (b *builtIn) ranOut(item lease.Item) bool {
	at, err := time.Parse(time.RFC3339Nano, item.Token)
	return err == nil && b.now().Sub(at) > 2*b.sim.leasePeriod
}

// claim makes a shard its own, conditional on its owner alone, and reads it. After it
// has taken it from somebody it waits first, for a lease period after the time that
// stood there.
func (b *builtIn) claim(key lease.Key, seen lease.Item) {
	if !b.hop() {
		return
	}
	b.sim.mu.Lock()
	b.robbed[key] = false
	b.sim.mu.Unlock()
	var was lease.Item
	if !b.write(key, func(now lease.Item) (lease.Item, bool) {
		was = now
		next := now
		next.Exists, next.Owner, next.Term, next.Token = true, b.name, "", b.timeout()
		// What else stands there is stale from now on.
		next.Finished, next.Pinned = false, false
		return next, now.Exists == seen.Exists && now.Owner == seen.Owner
	}) {
		return
	}
	if was.Owner != "" {
		at, err := time.Parse(time.RFC3339Nano, was.Token)
		if err != nil || wait(b.life, at.Add(b.sim.leasePeriod).Sub(b.now())) != nil {
			return // it leaves the item as it is
		}
	}
	b.hop()
	if b.life.Err() != nil {
		return
	}
	item := b.sim.table.Now(key)
	b.sim.mu.Lock()
	defer b.sim.mu.Unlock()
	sh := b.sim.of(b.sim.streams[key.Stream].byID[key.Shard])
	r := &builtInRead{shard: sh, next: sh.after(item.Sequence), unsure: b.robbed[key]}
	b.reads[key] = r
	b.sim.note(sh, b.name, "begins", stored(item))
	b.work.Go(func() { b.read(key, r) })
}

// read reads a shard until it ends, is lost, or the instance ends.
func (b *builtIn) read(key lease.Key, r *builtInRead) {
	s := b.sim
	commits := time.NewTicker(s.conf.commitPeriod)
	defer commits.Stop()
	polls := time.NewTicker(s.leasePeriod / 20)
	defer polls.Stop()
	for {
		select {
		case <-polls.C:
			if s.builtInReads(b, r) && b.checkpoint(key, r) {
				b.stopReading(key)
				if b.hop() {
					b.write(key, func(now lease.Item) (lease.Item, bool) { return lease.Item{Key: key}, now.Exists })
				}
				return
			}
		case <-commits.C:
			b.checkpoint(key, r)
		case <-b.life.Done():
			b.stopReading(key)
			if b.hop() {
				b.write(key, func(now lease.Item) (lease.Item, bool) {
					return lease.Item{Key: key, Exists: true, Sequence: s.sequenceAt(r)}, now.Owner == b.name
				})
			}
			return
		}
		s.mu.Lock()
		reading := b.reads[key] == r
		s.mu.Unlock()
		if !reading {
			return
		}
	}
}

func (b *builtIn) stopReading(key lease.Key) {
	b.sim.mu.Lock()
	defer b.sim.mu.Unlock()
	delete(b.reads, key)
}

// checkpoint stores how far a shard was read, and reports whether it has. When the
// shard is another's it stops, and yields.
func (b *builtIn) checkpoint(key lease.Key, r *builtInRead) bool {
	s := b.sim
	if !b.hop() {
		s.mu.Lock()
		r.unsure = true
		s.mu.Unlock()
		return false
	}
	if b.write(key, func(now lease.Item) (lease.Item, bool) {
		next := lease.Item{Key: key, Exists: true, Sequence: s.sequenceAt(r), Owner: b.name, Token: b.timeout()}
		return next, now.Owner == b.name
	}) {
		s.mu.Lock()
		r.unsure = false
		s.mu.Unlock()
		return true
	}
	b.stopReading(key)
	if s.sequenceAt(r) == "" {
		return false
	}
	s.network.Go(func() {
		s.mu.Lock()
		var late time.Duration
		if s.faulty && b.dice.Float64() < s.faultRate {
			late = time.Duration(b.dice.Float64() * 2 * float64(s.leasePeriod))
		}
		s.mu.Unlock()
		_ = wait(context.Background(), late)
		if b.hop() {
			b.write(key, func(now lease.Item) (lease.Item, bool) {
				next := now
				next.Key, next.Exists, next.Sequence, next.ShardStart = key, true, s.sequenceAt(r), ""
				next.Finished = now.Finished && now.Sequence == next.Sequence
				if now.Sequence != next.Sequence {
					next.Within = lease.Within{} // it is stale then
				}
				return next, true
			})
		}
	})
	return false
}

// sequenceAt is the sequence number up to which a shard was read.
func (s *simulation) sequenceAt(r *builtInRead) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.next == 0 {
		return ""
	}
	return r.shard.records[r.next-1].sequence
}

// after is the index of the record after a sequence number.
func (sh *simulatedShard) after(sequence string) int {
	if sequence == "" {
		return 0
	}
	return sh.indexes[sequence] + 1
}

// builtInReads has an instance read and acknowledge a few records, and reports whether
// that was the end of the shard. Nobody of ours may trust its lease of it, but for one
// who has stolen it and waits for its final checkpoint.
func (s *simulation) builtInReads(b *builtIn, r *builtInRead) (end bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sh := r.shard
	d, to := delivery{shard: sh}, sh.whole(r.next+4)
	for i := r.next; i < to; i++ {
		d.indexes = append(d.indexes, i)
	}
	for _, c := range s.clients {
		if c.trusts(sh.key) && c.tenures[sh.key].from != b.name && !r.unsure {
			s.broken(sh, "%s reads the shard, after all its waits, while %s trusts its lease of it for %s more",
				b.name, c.name, time.Until(c.tenures[sh.key].until))
		}
	}
	if len(d.indexes) > 0 {
		s.note(sh, b.name, "reads", d)
	}
	sh.foreign = true
	s.checkSkips(sh, b.name, d)
	r.next = to
	sh.acknowledge(d.indexes)
	return sh.closed && to == len(sh.records)
}

// Whatever instances of the built-in input do beside ours, the promises hold. It may
// move a checkpoint back by itself: then records come again.
func TestSimulationWithBuiltInInputs(t *testing.T) {
	simulateSeeds(t, manySeeds, (*simulation).directMixed)
}

// directMixed is a whole run with instances of the built-in input.
func (s *simulation) directMixed(t *testing.T) {
	t.Helper()
	s.mixed = true
	clients, most := 1+s.dice.IntN(3), 1+s.dice.IntN(2)
	streams, shards := 1+s.dice.IntN(2), 2+s.dice.IntN(8)
	for range streams {
		s.addStream(shards)
	}
	s.feed()
	s.faultRate = s.dice.Float64() * s.dice.Float64() / 2
	s.faulty = true
	if s.dice.IntN(3) == 0 {
		s.joinBuiltIn(t)
		pass(time.Duration(s.dice.Int64N(int64(3 * s.leasePeriod))))
	}
	for range clients {
		s.join(t)
	}
	for range 30 + s.dice.IntN(30) {
		pass(time.Duration(s.dice.Int64N(int64(2 * s.leasePeriod))))
		there := s.livingBuiltIns()
		switch event := s.dice.IntN(8); {
		case event == 0 && len(there) < most:
			s.joinBuiltIn(t)
		case event == 1 && len(there) > 0 && s.dice.IntN(2) == 0:
			s.leaveBuiltIn(there[s.dice.IntN(len(there))], s.dice.IntN(2) == 0)
		default:
			s.scene(t, 2*clients)
		}
		if s.failed() {
			break
		}
	}
	s.sideBySide(t)
	for _, b := range s.livingBuiltIns() {
		s.leaveBuiltIn(b, s.dice.IntN(2) == 0)
	}
	s.calm(t)
	s.linger(t)
	s.stay(t, 5*time.Minute)
	s.finish(t)
}

// sideBySide ends all faults, and checks that ours and the built-in ones come to share
// the shards in peace, with all read.
func (s *simulation) sideBySide(t *testing.T) {
	t.Helper()
	s.heal(t)
	pass(20 * s.leasePeriod)
	s.mu.Lock()
	before := s.moves
	s.mu.Unlock()
	pass(10 * s.leasePeriod)
	if missing := s.unread(); missing != "" {
		s.mu.Lock()
		s.broken(nil, "thirty lease periods after the last fault, with built-in inputs: %s", missing)
		s.mu.Unlock()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.moves != before {
		s.broken(nil, "shards still move between ours and the built-in inputs: %d times in ten periods", s.moves-before)
	}
}

// unread says what is missing for all to be read, and to be somebody's; empty when
// nothing is.
func (s *simulation) unread() string {
	items := s.table.snapshot()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range s.names {
		for _, shard := range s.streams[name].shards {
			sh := s.of(shard)
			item := items[sh.key]
			b, c := s.builtIns[item.Owner], s.clientOf(item.Owner)
			switch {
			case sh.acked < len(sh.records):
				return fmt.Sprintf("shard %s: %d of %d records are acknowledged; %s", sh.key, sh.acked, len(sh.records), stored(item))
			case sh.closed:
			case b == nil && c == nil, b != nil && b.reads[sh.key] == nil, c != nil && !c.trusts(sh.key):
				return fmt.Sprintf("open shard %s: %s", sh.key, stored(item))
			}
		}
	}
	return ""
}
