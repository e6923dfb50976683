package group

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/lineage"
)

// enoughNotFound is how often in a row a stream must not be found to be missing.
const enoughNotFound = 3

// stream is all that is known of one stream.
type stream struct {
	name string
	// explicit are the shards that the configuration names, in its order, and named their
	// ids.
	explicit []namedShard
	named    map[string]bool

	// shards has every shard that is known, by its full id, and listed those of the
	// list, in its order.
	shards map[string]*shard
	listed []*shard
	// ends are the last sequence numbers of shards that were closed, also of those that
	// have left the stream since.
	ends map[string]string

	// missing streams have not been listed yet, or do not exist any more. They are tried
	// again, more and more rarely, and nobody reads them until then.
	missing  bool
	notFound int // answers in a row that say so of one that was there

	listedAt time.Time // start of that list; zero asks for a new one
	// listFailures is how often in a row the shards could not be listed, and listAfter
	// when that is tried again. The items are read meanwhile.
	listFailures int
	listAfter    time.Time
	serverTime   time.Time // of that list, by the service's clock
	// newest is the highest id of the list. Ids are given out in ascending order: a shard
	// that is not listed has been trimmed if its id is lower, and is yet to be listed if
	// it is higher.
	newest string
	// covers is whether the open shards of the list share out all hash keys, as far as
	// that can be told.
	covers bool
	// unlistedTried is the newest shard in the table for which the shards have been listed
	// anew. It may belong to an earlier stream of the same name.
	unlistedTried string

	known   bool      // its items have been read
	itemsAt time.Time // start of the last reading of them
	startAt time.Time // where shards without an item start; zero for the oldest record
	// foreignAt is when an item of a built-in input was read last.
	foreignAt time.Time
	stoleAt   time.Time // when a shard was last stolen from one
	// claimFailures is how often claims have failed, other than because somebody else was
	// faster, since one succeeded, and requestAfter when shards may be requested again.
	claimFailures int
	requestAfter  time.Time

	lineage *lineage.Graph // of the last plan

	reads  reads
	size   int // bytes of its items
	unread int // shards that nobody has read for a while
	// unreadFrom is the moment before which everything that arrived in those is acknowledged.
	unreadFrom time.Time
	warned     bool
}

// namedShard is a shard as the configuration has it.
type namedShard struct{ id, written string }

func newStream(c StreamConfig) *stream {
	s := &stream{name: c.Name, named: map[string]bool{}, shards: map[string]*shard{}, ends: map[string]string{}}
	for _, written := range c.Shards {
		id := lineage.ShardID(written)
		s.explicit, s.named[id] = append(s.explicit, namedShard{id, written}), true
		s.at(id)
	}
	return s
}

// at returns a shard by its full id, which is made where it is not known.
func (s *stream) at(id string) *shard {
	sh := s.shards[id]
	if sh == nil {
		key := lease.Key{Stream: s.name, Shard: id}
		sh = &shard{key: key, item: lease.Item{Key: key}}
		s.shards[id] = sh
	}
	return sh
}

// forget drops the shards of which nothing is known any more.
func (s *stream) forget() {
	for id, sh := range s.shards {
		if !sh.inList && !sh.item.Exists && len(sh.literals) == 0 && sh.assignment == Idle && !s.named[id] {
			delete(s.shards, id)
		}
	}
}

// receives reports whether shards may be handed over to this member. Who cannot read the
// items would not hear of it, and who cannot claim would not read them.
func (s *stream) receives(now time.Time) bool {
	return s.reads.failures <= 1 && !now.Before(s.requestAfter)
}

// covered reports whether a shard is among those that this input reads.
func (s *stream) covered(id string) bool { return len(s.explicit) == 0 || s.named[id] }

// candidate is a shard that is ours to read, if the lineage and the table let us.
type candidate struct {
	*shard
	written string // as the configuration has it; empty when it has none
}

func (s *stream) candidates() []candidate {
	if len(s.explicit) > 0 {
		cs := make([]candidate, len(s.explicit))
		for i, named := range s.explicit {
			cs[i] = candidate{s.at(named.id), named.written}
		}
		return cs
	}
	cs := make([]candidate, len(s.listed))
	for i, sh := range s.listed {
		cs[i].shard = sh
	}
	return cs
}

// StreamSnapshot is what one reading of a stream brought.
type StreamSnapshot struct {
	Stream string
	// Shards is the list, if it was asked for at the time Listed, which is zero where
	// there is none, and ServerTime when the service answered, by its own clock.
	Shards             []lineage.Shard
	Listed, ServerTime time.Time
	// NotFound is whether the service knows no such stream.
	NotFound bool
	// Items are all items of the stream, if they were read between Start and End, which
	// are zero where they were not. Size is their size in the table, in bytes.
	Items      []lease.Item
	Start, End time.Time
	Size       int
	// Skew is by how much the service's clock is ahead of ours, in which the items have
	// their moments.
	Skew time.Duration
	// ListErr is what kept the shards from being listed, and Err the items from being read,
	// or a stream that was missing from being found.
	ListErr, Err error
}

// Begin takes in the first lists of the streams. One that failed is missing for now.
func (g *Group) Begin(lists []StreamSnapshot, now time.Time) {
	for _, v := range lists {
		s := g.stream(v.Stream)
		if v.Err != nil {
			s.missing = true
			s.reads.postpone(g.every(), now)
			continue
		}
		s.setList(v.Shards, v.Listed, v.ServerTime)
		if !v.ServerTime.IsZero() && (g.began.IsZero() || v.ServerTime.Before(g.began)) {
			g.began = v.ServerTime
		}
	}
}

func (g *Group) applyStream(v *StreamSnapshot, now time.Time) {
	s := g.stream(v.Stream)
	s.reads.underWay = false
	g.dirty = true
	if s.missing {
		if v.Err != nil {
			s.reads.postpone(g.every(), now)
			return
		}
		s.reads.failures = 0
		g.say(Info, "Stream %s, which was missing, is read now", s.name)
		s.missing = false
		if !g.began.IsZero() {
			v.ServerTime = g.began
		}
	}
	if v.NotFound {
		s.notFoundAgain(g, now)
		return
	}
	s.reads.done(v.Err, g.every(), now)
	s.notFound = 0
	g.listTried(s, v, now)
	// A list from before a shard's end would undo what its end has told.
	if !v.Listed.IsZero() && !s.finishedSince(v.Listed) {
		g.tellUnbegun(s, v.Shards)
		s.setList(v.Shards, v.Listed, v.ServerTime)
	}
	if !v.Start.IsZero() {
		g.applyItems(s, v, now)
	}
}

// listTried has a list that failed made again later, and later each time: in a large
// group the items, which are read after it, cost the table much.
func (g *Group) listTried(s *stream, v *StreamSnapshot, now time.Time) {
	switch {
	case v.ListErr != nil:
		gap := g.gap(s, now)
		pause := max(gap, min(soon<<min(s.listFailures, 10), max(g.every(), 2*gap)))
		s.listFailures++
		s.listAfter = now.Add(pause)
		s.callAt(s.listAfter)
	case !v.Listed.IsZero():
		s.listFailures, s.listAfter = 0, time.Time{}
	}
}

// notFoundAgain takes in that the service knows no stream of the name.
func (s *stream) notFoundAgain(g *Group, now time.Time) {
	s.listedAt = time.Time{}
	if s.notFound++; s.notFound < enoughNotFound {
		s.callAt(now.Add(soon))
		return
	}
	// There is nothing to read until there is a stream of this name again.
	g.say(Warning, "Stream %s does not exist any more: it is looked for again in a while", s.name)
	s.missing, s.reads.failures = true, 0
	s.reads.postpone(g.every(), now)
}

// finishedSince reports whether a shard of the stream was finished here after a time.
func (s *stream) finishedSince(at time.Time) bool {
	for _, sh := range s.shards {
		if sh.exit.finished && sh.exit.at.After(at) {
			return true
		}
	}
	return false
}

// setList takes in a list of the shards that was asked for at a time.
func (s *stream) setList(shards []lineage.Shard, listed, serverTime time.Time) {
	s.listedAt, s.serverTime, s.covers = listed, serverTime, lineage.Covers(shards)
	for _, sh := range s.listed {
		sh.inList = false
	}
	s.listed, s.newest = make([]*shard, len(shards)), ""
	for i, l := range shards {
		sh := s.at(l.ID)
		sh.listed, sh.inList = l, true
		s.listed[i] = sh
		s.newest = max(s.newest, l.ID)
		if sh.assignment != Idle && sh.first == "" {
			sh.first = l.FirstSequence
		}
		if l.LastSequence != "" {
			s.ends[l.ID] = l.LastSequence
		}
	}
	for id := range s.ends {
		if sh := s.shards[id]; sh == nil || !sh.inList && !sh.item.Exists {
			delete(s.ends, id)
		}
	}
	s.forget()
}

// addChildren adds the children of a shard that was read to its end to those known, so
// that they begin at once. The next list confirms them, and brings those of which
// another parent has yet to be listed, which would pass for one that was trimmed.
func (s *stream) addChildren(parent *shard, children []Child) {
	s.listedAt = time.Time{}
	parent.listed.Closed = true
	yetToCome := func(id string) bool { sh := s.shards[id]; return (sh == nil || !sh.inList) && id > s.newest }
	for _, child := range children {
		if yetToCome(child.ID) && !slices.ContainsFunc(child.Parents, yetToCome) {
			sh := s.at(child.ID)
			sh.listed, sh.inList = lineage.Shard{ID: child.ID, Parents: child.Parents}, true
			s.listed = append(s.listed, sh)
		}
	}
}

func (g *Group) applyItems(s *stream, v *StreamSnapshot, now time.Time) {
	first := !s.known
	s.known, s.size, s.itemsAt, g.skew = true, v.Size, v.Start, v.Skew
	there := make(map[lease.Key]bool, len(v.Items))
	for _, item := range v.Items {
		there[item.Key] = true
	}
	for _, sh := range s.shards {
		sh.literals = slices.DeleteFunc(sh.literals, func(l literal) bool { return !there[l.item.Key] })
	}
	for _, item := range v.Items {
		id := lineage.ShardID(item.Shard)
		sh := s.at(id)
		g.tellMalformed(sh, item)
		if item.Foreign() {
			s.foreignAt = now
		}
		if id == item.Shard {
			g.applyItem(s, sh, item, v)
		} else {
			sh.applyLiteral(item, g.conf.LeasePeriod, v)
		}
		// Where the first process on this stream began is where late shards begin too:
		// those from before that time that nobody has got to yet, and those from after
		// it, all of whose records are newer.
		if !item.StartAt.IsZero() && (s.startAt.IsZero() || item.StartAt.Before(s.startAt)) {
			s.startAt = item.StartAt
		}
	}
	for _, sh := range s.shards {
		if !there[sh.key] {
			g.applyAbsence(s, sh, v, now)
		}
	}
	if first {
		g.tellBeyond(s, v.Items)
	}
	if first && len(v.Items) == 0 {
		s.startAt = g.conf.StartFrom
		if !g.conf.StartFromOldest {
			s.startAt = s.serverTime
		}
	}
	g.adoptStart(s)
	g.relist(s, now)
	s.forget()
	s.callAt(now.Add(g.readEvery(s, now))) // what was read may call for the next one sooner
}

// adoptStart has shards without an item start where they do for the others that share
// the stream. A newcomer finds no items where built-in inputs have finished, and deleted,
// all that there were, and must not take the stream for one that nobody has begun: what
// arrived in their children before it came would be lost.
func (g *Group) adoptStart(s *stream) {
	if !s.known {
		return
	}
	for id, m := range g.members.byID {
		if at, ok := m.Starts[s.name]; ok && id != g.self && at.Before(s.startAt) {
			s.startAt = at
		}
	}
}

// starts is where shards without an item start, by the stream, for others to adopt.
func (g *Group) starts() map[string]time.Time {
	var starts map[string]time.Time
	for _, s := range g.streams {
		if g.explicit() || !s.known || s.missing || s.foreignAt.IsZero() {
			continue
		}
		if starts == nil {
			starts = map[string]time.Time{}
		}
		starts[s.name] = s.startAt
	}
	return starts
}

// applyItem takes in the item of a shard.
func (g *Group) applyItem(s *stream, sh *shard, item lease.Item, v *StreamSnapshot) {
	if sh.stale(item, g.self, v.Start) {
		s.callAt(v.End.Add(askAgain))
		return
	}
	sh.uncertain = false
	if sh.item.Owner != "" && sh.item.Owner != item.Owner {
		sh.former = sh.item.Owner
	}
	sh.item, sh.vanishedUntil = item, time.Time{}
	if item.Owner != "" && !g.ids[item.Owner] {
		sh.acked, sh.doneBefore = lease.Position{}, time.Time{} // it has been read on by another
	}
	if item.Owner != g.self && !item.Foreign() {
		sh.stealing = false
	}
	sh.seen.observe(item, g.patience(item), v.Start, v.End)
	g.check(sh, v.Start)
}

// applyAbsence takes in that a shard has no item. Somebody has deleted it, where another
// owned it: that one makes it anew as soon as it notices, and until then nobody else
// should begin the shard, since its owner alone knows how far it was read. That holds
// for an owner without a session, too: who deletes the items of all shards may have
// deleted those of the members with them.
func (g *Group) applyAbsence(s *stream, sh *shard, v *StreamSnapshot, now time.Time) {
	if sh.stale(lease.Item{}, g.self, v.Start) {
		s.callAt(v.End.Add(askAgain))
		return
	}
	if owner := sh.item.Owner; owner != "" && owner != g.self && !sh.item.Foreign() && !sh.assignment.reads() && sh.acked == (lease.Position{}) {
		sh.vanishedUntil = now.Add(g.conf.LeasePeriod + g.conf.RebalancePeriod)
	}
	sh.uncertain = false
	sh.item, sh.seen = lease.Item{Key: sh.key}, sighting{}
	sh.saidMalformed = ""
	g.check(sh, v.Start)
}

// check has a lease renewed whose item is not in the term in which the shard is read.
// The reading may be older than the claim, but then the renewal finds all well.
func (g *Group) check(sh *shard, start time.Time) {
	if sh.assignment == Reading && start.After(sh.since) && (sh.item.Owner != g.self || sh.item.Term != sh.exit.term) {
		g.pending.Check = append(g.pending.Check, sh.key)
	}
}

// applyLiteral takes in an item under another spelling of the shard's id. No lease of
// ours is ever under one, so its owner is given no more time than the built-in input
// gives others itself.
func (sh *shard) applyLiteral(item lease.Item, period time.Duration, v *StreamSnapshot) {
	i := slices.IndexFunc(sh.literals, func(l literal) bool { return l.item.Key == item.Key })
	if i < 0 {
		i = len(sh.literals)
		sh.literals = append(sh.literals, literal{})
	}
	sh.literals[i].item = item
	sh.literals[i].seen.observe(item, literalPatience*period, v.Start, v.End)
}

// patience is after how long without a change an item is free that is one of a built-in
// input, or was handed over and not claimed. A built-in input that has stolen the shard
// waits for a lease period after the time that stood there, up to a horizon ahead, and
// only then begins to read; within one more it commits.
func (g *Group) patience(item lease.Item) time.Duration {
	switch {
	case item.HandedOver():
		return g.conf.LeasePeriod
	case uncommitted(item):
		return (lease.Horizons + 2) * g.conf.LeasePeriod
	}
	return lease.Horizons * g.conf.LeasePeriod
}

// uncommitted reports whether a built-in input has claimed an item that was ours and
// has not committed since: that would have erased the number of the term. It may be
// waiting, and the member that had the shard may trust its lease still.
func uncommitted(item lease.Item) bool { return item.Foreign() && item.Number > 0 }

// literalPatience is the number of lease periods after which the built-in input takes
// an owner for dead: two after the time that its item says, which is one ahead.
const literalPatience = 3

func (g *Group) tellMalformed(sh *shard, item lease.Item) {
	if item.Malformed == "" {
		if item.Key == sh.key {
			sh.saidMalformed = ""
		}
		return
	}
	if said := item.Shard + item.Malformed; sh.saidMalformed != said {
		sh.saidMalformed = said
		g.tellOf(item.Key, Warning, fmt.Sprintf("has an item in table %s that is malformed: %s. %s", g.conf.Table, item.Malformed, whatFollows(item)),
			fmt.Sprintf("have items in table %s that are malformed. They are claimed when they are free or their owners are dead", g.conf.Table))
	}
}

func whatFollows(malformed lease.Item) string {
	if malformed.Owner == "" {
		return "It has no owner, and is claimed as any other"
	}
	return "It is claimed when it has stood still long enough for its owner to be dead"
}

// relist asks for a new list where the one at hand cannot be true, or is older than
// what the table knows.
func (g *Group) relist(s *stream, now time.Time) {
	if id := s.unlisted(); id > s.unlistedTried {
		s.unlistedTried, s.listedAt = id, time.Time{}
	}
	if slices.ContainsFunc(s.explicit, func(named namedShard) bool { return named.id > s.newest }) {
		s.listedAt = time.Time{} // a shard that is to be read has yet to come
	}
	if !s.covers {
		s.listedAt = time.Time{}
	}
	g.suspect(s, now)
	if s.listedAt.IsZero() && !s.missing && s.listFailures == 0 {
		s.callAt(now.Add(max(g.every(), g.gap(s, now))))
	}
}

// suspect looks for finished shards that are open: the service may list shards as they
// were for a while after a reshard. Such a list is soon made anew. When it says the
// same again, the stream was deleted and made anew, and the mark is of the earlier one;
// where the sequence of the mark is known not to be of this shard that is certain at
// once.
func (g *Group) suspect(s *stream, now time.Time) {
	for _, sh := range s.shards {
		if !sh.item.Finished || !sh.inList || sh.listed.Closed || sh.identity(sh.item) == ofEarlierStream {
			sh.suspectSince, sh.recreated = time.Time{}, false
			continue
		}
		if sh.suspectSince.IsZero() {
			sh.suspectSince = now
		}
		if sh.identity(sh.item) == ofUnknownStream && (sh.recreated || s.listedAt.Sub(sh.suspectSince) >= g.every()) {
			sh.recreated = true
		} else {
			sh.recreated = false
			s.listedAt = time.Time{}
		}
	}
}

// unlisted returns the highest id of a shard that the table knows and that is newer
// than the list; empty when there is none.
func (s *stream) unlisted() string {
	highest := ""
	for id, sh := range s.shards {
		if sh.item.Exists && id > s.newest {
			highest = max(highest, id)
		}
	}
	return highest
}

// foreign reports whether a built-in input was seen in a stream of late, for which
// leases are then renewed as it renews its own.
func (g *Group) foreign(s *stream, now time.Time) bool {
	return !s.foreignAt.IsZero() && now.Sub(s.foreignAt) < foreignFor*g.conf.LeasePeriod
}

// foreignFor is the number of lease periods for which a built-in input that is seen no
// more may still be there: it may own nothing for a while.
const foreignFor = 10

// graph is the lineage of the shards that this input reads. Of explicit shards, those
// that are not listed in the configuration are somebody else's business and hold
// nobody.
func (g *Group) graph(s *stream) *lineage.Graph {
	known := make(map[string]lineage.Progress, len(s.shards))
	for id, sh := range s.shards {
		if p, ok := g.progress(sh); ok && s.covered(id) {
			known[id] = p
		}
	}
	shards := make([]lineage.Shard, 0, len(s.listed))
	for _, sh := range s.listed {
		if s.covered(sh.key.Shard) {
			shards = append(shards, sh.listed)
		}
	}
	return lineage.NewGraph(shards, known)
}

// progress is what is known of the reading of a shard; ok is false when nothing is.
func (g *Group) progress(sh *shard) (p lineage.Progress, ok bool) {
	if sh.assignment != Idle {
		// One that was begun in an earlier stream is about to find out.
		now := sh.listed.FirstSequence
		return lineage.Progress{State: lineage.Reading, Balanced: !g.explicit() && (sh.first == now || sh.first == "" || now == "")}, true
	}
	if sh.item.Exists {
		p = g.progressOf(sh)
	}
	for i := range sh.literals {
		l := &sh.literals[i]
		switch {
		case g.ownerOf(l.item, &l.seen) != "":
			p.State = lineage.Reading
		case p.State == lineage.Unknown && sh.identity(l.item) != ofEarlierStream:
			p.State = lineage.Begun
		}
	}
	return p, sh.item.Exists || len(sh.literals) > 0
}

// progressOf is what an item tells of its shard. One that does not tell of which
// stream it is holds the shard back, to be read from its start. It proves something of
// the parents only if its owner was seen to live: one that has not been proved dead yet
// may have died in an earlier stream.
func (g *Group) progressOf(sh *shard) (p lineage.Progress) {
	of, owned := sh.identity(sh.item), g.ownerOf(sh.item, &sh.seen) != "" && sh.item.Owner != g.self
	if !sh.item.Pinned && !g.names(sh.item) {
		p.Balanced = of == ofThisStream || of == ofUnknownStream && owned && g.alive(sh)
		p.Undecided = !p.Balanced && of == ofUnknownStream && owned
	}
	switch {
	case owned:
		p.State = lineage.Reading
	case of == ofEarlierStream, sh.recreated:
		// Whoever had finished the shard of this stream would have written over it.
		p.State = lineage.Begun
	case sh.item.Finished && (of == ofThisStream || sh.listed.FirstSequence == ""):
		p.State = lineage.Finished
	case g.isCut(sh.item):
		p.State = lineage.Cut
	default:
		p.State = lineage.Begun
	}
	return p
}

// alive reports whether the owner of a shard's item was seen to live.
func (g *Group) alive(sh *shard) bool {
	if sh.item.Foreign() {
		return sh.seen.alive()
	}
	m := g.members.byID[sh.item.Owner]
	return m != nil && m.moved
}

// names reports whether the owner of an item names its shards, and shares none.
func (g *Group) names(item lease.Item) bool {
	if item.Owner == "" || item.Owner == g.self || item.Foreign() {
		return false
	}
	m := g.members.byID[item.Owner]
	return m != nil && len(m.Streams) == 0
}

// tellUnbegun tells of the shards that have left the stream and that nobody here or
// elsewhere has ever begun.
func (g *Group) tellUnbegun(s *stream, next []lineage.Shard) {
	if !s.known || g.explicit() || s.missing {
		return
	}
	graph, last := g.graph(s), ""
	listed := make(map[string]bool, len(next))
	for _, l := range next {
		listed[l.ID] = true
		last = max(last, l.ID)
	}
	for _, sh := range s.listed {
		id := sh.key.Shard
		if listed[id] || id > last {
			continue
		}
		if !sh.item.Exists && !sh.assignment.reads() && !graph.Done(id) {
			g.tellExpired(s, id, "")
		}
	}
}

func (g *Group) tellExpired(s *stream, id, after string) {
	if g.pending.Expired == nil {
		g.pending.Expired = map[string]int{}
	}
	g.pending.Expired[s.name]++
	g.tellOf(lease.Key{Stream: s.name, Shard: id}, Error,
		fmt.Sprintf("has left the stream, whose retention has passed, before it was known to be read to its end: what it held after sequence number %s, up to %s, is lost. Where that may be anything, raise the retention of the stream",
			cmp.Or(after, "(its first record)"), cmp.Or(s.ends[id], "(its last record)")),
		"have left the stream, whose retention has passed, before they were known to be read to their ends: what they held after that is lost. Where that may be anything, raise the retention of the stream")
	delete(s.ends, id)
}
