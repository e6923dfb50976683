// Package group decides what a member of a group does: whom it takes for alive, what it
// believes of each shard, and which shards it claims, requests, hands over or leaves
// alone.
//
// The package is pure: it makes no call, starts nothing and reads no clock. The
// balancer tells it what it has read (Apply), what became of a claim or a consumer
// (Claimed, Exited) and of its own session (Joined, SessionLost), and carries out what
// it answers (Next). So each decision can be tested alone, and a thousand members fit
// into one test.
//
// # What is believed
//
// The shards' items say who reads them, and the list of members says who lives. Both
// are read eventually consistently, so what is believed may be a moment old. That is
// safe, since each write is conditional on what was seen. What this member knows from
// its own writes is newer than any reading that was begun before them.
//
// # States of a shard
//
//	Idle ──Next: claim──▶ Claiming ──Claimed──▶ Reading ──Next: hand over──▶ HandingOver
//	  ▲                      │                     │  └────Next: yield─────▶ Yielding
//	  └───────Exited─────────┴─────────────────────┴───────────────────────────┘
//
// # Files
//
// shard.go has the shard and its states, stream.go what is known of a stream,
// members.go who is there and who asks, assign.go who reads what, chores.go what may be
// removed from the table, monitor.go what nobody reads, end.go when nothing is left to read,
// and timing.go when to read.
package group

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/lineage"
)

// Config is what a group is made of.
type Config struct {
	Streams []StreamConfig
	// LeasePeriod after which a member without heartbeats is dead, and RebalancePeriod
	// within which the items of a stream are read at least, unless that is too dear.
	LeasePeriod, RebalancePeriod time.Duration
	// StartFromOldest and StartFrom say where the shards of a stream without any item
	// start: at the oldest record or at a time, by default that of the service.
	StartFromOldest bool
	StartFrom       time.Time
	// EndAt is the moment, by the service's clock, up to which the group reads; zero for one
	// that goes on for ever. Begun is whether it began just now, with this input.
	EndAt time.Time
	Begun bool
	// Table is its name in messages.
	Table string
	// Random is a source in [0, 1) that spreads what many would do at once.
	Random func() float64
}

// StreamConfig is a stream to read.
type StreamConfig struct {
	Name string // exactly as configured, name or ARN
	// Shards are those to read, exactly as written; none for all of them, shared with
	// the other members.
	Shards []string
}

// Group is what one member knows of its group. The balancer's loop owns it.
type Group struct {
	conf    Config
	streams []*stream
	members members

	self     string          // the member's id; empty while it has none
	joinedAt time.Time       // when it got that
	ids      map[string]bool // that, and those that it had before
	skew     time.Duration   // by how much the service's clock is ahead of ours
	// began is the start of the input by the service's clock. Streams that were missing
	// then and are found later are read from that time on.
	began time.Time

	requests  map[string]int // how many shards we ask for, by owner
	requested time.Time      // since when that is so
	changes   int64
	told      toldChanges

	confirming map[string]bool // owners whose items are being read

	dirty    bool      // something is known that no plan was made from
	planAt   time.Time // a plan is due for the time alone
	pending  Actions   // decided, and not handed out yet
	cleaning bool
	cleanAt  time.Time // not before
	ended    bool      // it was told that nothing is left to read
	// cleanFailures is how many rounds of chores failed in a row.
	cleanFailures int
}

// New returns the group of a member that has not joined yet. It reads the streams of
// conf, of which there is one at least.
func New(conf Config) *Group {
	g := &Group{conf: conf, requests: map[string]int{}, confirming: map[string]bool{}, ids: map[string]bool{}}
	g.members = newMembers(conf.LeasePeriod)
	for _, c := range conf.Streams {
		g.streams = append(g.streams, newStream(c))
	}
	return g
}

// Snapshot is what one reading brought. Parts that were not read are zero.
type Snapshot struct {
	Members *MemberSnapshot
	Stream  *StreamSnapshot
}

// Apply takes a snapshot in.
func (g *Group) Apply(s Snapshot, now time.Time) {
	if s.Members != nil {
		g.applyMembers(s.Members, now)
	}
	if s.Stream != nil {
		g.applyStream(s.Stream, now)
	}
}

// Joined tells that the member has a session under an id.
func (g *Group) Joined(id string, now time.Time) {
	g.self, g.joinedAt, g.ids[id] = id, now, true
	g.members.rejoin(now)
	g.requests, g.requested = map[string]int{}, time.Time{}
	for _, s := range g.streams {
		s.callAt(now)
	}
	g.dirty = true
}

// SessionLost tells that the member is in the group no more. Its consumers exit by
// themselves. Whether its shards are free the table tells: it was evicted, or a copy of
// its machine goes on under its id.
func (g *Group) SessionLost(now time.Time) {
	if g.self == "" {
		return
	}
	g.self = ""
	g.callAll(now)
	g.dirty = true
}

// Claimed tells that a shard is read now, under a term. first is its starting sequence
// number, empty when that is not known.
func (g *Group) Claimed(key lease.Key, term, first string, now time.Time) {
	if sh := g.shard(key); sh != nil {
		sh.claimed(term, first, now)
		g.stream(key.Stream).claimFailures = 0
		g.changes++
		g.told.pending(now)
		g.planBy(now.Add(tellEvery)) // of a thousand claims one plan is made
	}
}

// Began tells that a shard that was claimed is read from now on.
func (g *Group) Began(key lease.Key) {
	if sh := g.shard(key); sh != nil {
		g.tellOf(key, Info, "is read here now: "+sh.why.One, "are read here now: "+sh.why.Many)
	}
}

// Confirmed tells what a consistent read said of an owner that is not in the list of
// members.
func (g *Group) Confirmed(owner string, there bool, err error, now time.Time) {
	delete(g.confirming, owner)
	switch {
	case err != nil:
		// It is asked again when a plan needs it, a while later.
		g.planBy(now.Add(g.every() / 2))
	case !there:
		g.members.nowGone(owner, now)
		g.dirty = true
	default:
		g.members.callAt(now) // it has joined since the list was read
	}
}

// Evicted tells whether a dead member was removed.
func (g *Group) Evicted(id string, err error, now time.Time) {
	g.members.wasEvicted(id, err, g.showEvicted(), now)
	if err == nil {
		g.say(Warning, "Client %s is taken for dead: it sent no heartbeat for its lease period. Its shards are shared out among the others", id)
	}
	g.dirty = true
}

// Urge has the items of all streams read soon.
func (g *Group) Urge(now time.Time) { g.callAll(now.Add(soon)) }

// Foreign reports whether a built-in input was seen in a stream of late.
func (g *Group) Foreign(stream string, now time.Time) bool { return g.foreign(g.stream(stream), now) }

// Actions are what is to be done. Each is to be answered by the method that is named.
type Actions struct {
	ReadMembers bool // Apply
	// Consistently is whether they are to be read so: by one that has just joined, and
	// must not overlook others that have.
	Consistently bool
	Refresh      []Refresh // Apply
	Confirm      []string  // members to look up consistently: Confirmed
	Evict        []lease.Member
	Claim        []Claim        // Claimed, or Exited
	HandOver     []HandOver     // Exited
	Yield        []lease.Key    // shards to stop reading: Exited
	Check        []lease.Key    // items that are not as they should be: to be renewed now
	Clean        *Chores        // Cleaned
	Report       lease.Report   // what the session is to tell
	Often        time.Duration  // how often it is to tell it; 0 for the usual time
	Lines        []Line         // to log
	Expired      map[string]int // shards that left a stream unread, by stream
	// Planned is whether a plan was made by a member that knows the others, after which Unread
	// tells of all shards.
	Planned bool
	// Finished is set when nothing will ever be left to read, which shards that were named
	// can come to, and a group that has an end.
	Finished bool
	// Wake is when to ask again, unless something is told before.
	Wake time.Time
}

// Refresh is what to read of a stream.
type Refresh struct {
	Stream string
	// Missing streams are looked for: their list first, then their items.
	Missing bool
	// Shards is whether to list them, before the items.
	Shards bool
	// Consistent is whether the items are to be read so.
	Consistent bool
}

// HandOver is a shard to hand over.
type HandOver struct {
	Key lease.Key
	To  string
}

// Line is something to log. One that is about a shard goes on after its name, and has
// the same words for several shards, of which one line is made.
type Line struct {
	Level Level
	Text  string
	// Key and Many are those of a line about a shard.
	Key  lease.Key
	Many string
}

// Level says how much a line matters.
type Level int

// The levels, as those of Benthos' logger.
const (
	Info Level = iota
	Warning
	Error
)

func (l Level) String() string { return [...]string{"info", "warning", "error"}[l] }

// Next returns what is to be done now. sound is whether the session is trusted: a
// member that cannot write declares nobody dead, and begins nothing.
func (g *Group) Next(now time.Time, sound bool) Actions {
	if g.self != "" && sound {
		if g.dirty || !g.planAt.IsZero() && !now.Before(g.planAt) {
			g.dirty, g.planAt = false, time.Time{}
			for _, s := range g.streams {
				s.lineage = g.graph(s)
			}
			g.assign(now)
			g.clean(now)
			g.monitor(now)
			g.pending.Planned = g.explicit() || g.acquainted(now)
		}
		g.evict(now)
	}
	g.schedule(now)
	g.tell(now)
	a := g.pending
	g.pending = Actions{}
	a.Wake = g.wake(now, sound)
	return a
}

// changed counts something that others may want to know of.
func (g *Group) changed(now time.Time) {
	g.changes++
	g.told.pending(now)
	g.dirty = true
}

// Said returns what is to be logged, where nothing else is to be done any more.
func (g *Group) Said() []Line {
	lines := g.pending.Lines
	g.pending.Lines = nil
	return lines
}

func (g *Group) say(level Level, format string, args ...any) {
	g.pending.Lines = append(g.pending.Lines, Line{Level: level, Text: fmt.Sprintf(format, args...)})
}

// tellOf says something of a shard: one is what follows its name, and many the same of
// several.
func (g *Group) tellOf(key lease.Key, level Level, one, many string) {
	g.pending.Lines = append(g.pending.Lines, Line{Level: level, Key: key, Text: one, Many: many})
}

// planBy has a plan made at a time, though nothing is told until then.
func (g *Group) planBy(at time.Time) {
	if g.planAt.IsZero() || at.Before(g.planAt) {
		g.planAt = at
	}
}

func (g *Group) stream(name string) *stream {
	i := slices.IndexFunc(g.streams, func(s *stream) bool { return s.name == name })
	if i < 0 {
		return nil
	}
	return g.streams[i]
}

func (g *Group) shard(key lease.Key) *shard {
	if s := g.stream(key.Stream); s != nil {
		return s.shards[key.Shard]
	}
	return nil
}

// Held returns the number of shards of a stream whose leases are held here.
func (g *Group) Held(name string) (held int) {
	for _, sh := range g.stream(name).shards {
		if sh.assignment.reads() {
			held++
		}
	}
	return held
}

// Unread returns how many shards of a stream nobody has read for a while, and the moment
// before which everything that arrived in them is acknowledged, zero when there is none;
// known is false while nobody can tell.
func (g *Group) Unread(name string) (shards int, from time.Time, known bool) {
	s := g.stream(name)
	return s.unread, s.unreadFrom, s.known && !s.missing && g.self != ""
}

// Settled reports whether a shard needs no claim of ours: it is read by another member, or
// by nobody for now or ever again.
func (g *Group) Settled(key lease.Key) bool {
	s, sh := g.stream(key.Stream), g.shard(key)
	if sh == nil || s.missing || sh.item.Finished || sh.exit.finished {
		return true
	}
	owner := cmp.Or(g.literalOwner(sh), g.owner(sh))
	if owner == "" {
		return s.lineage != nil && !s.lineage.Ready(key.Shard) // its parents are not finished
	}
	return owner != g.self
}

// Claim is a shard to claim and read.
type Claim struct {
	Key lease.Key
	// Written is the shard as the configuration has it; empty when it has none.
	Written string
	Shard   lineage.Shard // as it is listed
	// Item and Literals are the items of the shard as they were seen.
	Item     lease.Item
	Literals []lease.Item
	StartAt  time.Time // where it starts without a sequence; zero for its oldest record
	// Pinned and Anew are those of a lease.Grant.
	Pinned, Anew bool
	// Acked is how far the shard was acknowledged here under a lease that was lost, and
	// counts where that is further on than the item says, which may not be there any more.
	Acked lease.Position
	// Stolen is whether the owner lives, and is to be given time for its final
	// checkpoint.
	Stolen bool
	// Failures is how often it could not be claimed or read, in a row.
	Failures int
	// Since is the moment before which all that arrived is acknowledged; zero where nobody
	// knows.
	Since time.Time
	// HandedOver is whether another member passed the shard on, and Requested since when it
	// was requested.
	HandedOver bool
	Requested  time.Time
	// Warning says why it is read from its start though it looks as if it had been read; of
	// no words mostly.
	Warning Words
}
