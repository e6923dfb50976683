package group

import (
	"cmp"
	"fmt"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/lineage"
)

// Assignment is what this member does with a shard.
type Assignment int

// The assignments.
const (
	Idle        Assignment = iota // nothing
	Claiming                      // a claim is under way
	Reading                       // it holds the lease
	HandingOver                   // it stops, and passes the shard on
	Yielding                      // it stops, and leaves the shard to a literal item's owner
)

func (a Assignment) String() string {
	return [...]string{"idle", "claiming", "reading", "handing over", "yielding"}[a]
}

// reads reports whether the lease is held.
func (a Assignment) reads() bool { return a >= Reading }

// shard is all that is known of one shard. A stream has one for each shard that is
// listed, that has an item, that is named in the configuration, or that is read here.
type shard struct {
	key lease.Key

	// What this member does with it, changed by the transitions below alone.
	assignment Assignment
	recipient  string    // of a hand-over
	why        Words     // it was claimed
	former     string    // who owned it before the present owner, by the items that were read
	first      string    // starting sequence number of the shard that is read, if known
	since      time.Time // of the assignment
	// exit is how the last assignment came to its end.
	exit exit

	// What the stream says of it.
	listed lineage.Shard
	inList bool

	// What the table says of it.
	item     lease.Item // Exists is false where there is none
	seen     sighting   // of item
	literals []literal

	// uncertain shards are left alone until a reading that was begun after the last exit
	// tells whose they are.
	uncertain bool
	// at once is whether it is to be claimed whatever the plan says: a child of a shard
	// that was finished here, or one whose item was deleted while it was read here.
	atOnce bool
	// acked is how far it was acknowledged under a lease that was lost.
	acked lease.Position

	// stealing is whether it was claimed from a built-in input that lives and may not have
	// noticed: how that claim came out is not known, or the wait after it was cut short.
	stealing bool

	// failures is how often in a row it could not be claimed or read for a reason of its
	// own, and restsUntil when that is tried again.
	failures   int
	restsUntil time.Time

	freeSince time.Time // stands free that another member should claim
	// vanishedUntil is until when it is left alone because its item was deleted under
	// its owner, who alone knows how far it has been read.
	vanishedUntil time.Time
	// unlistedSince is since when it has unread records and is not in the list.
	unlistedSince time.Time
	// suspectSince is since when it has been open by the list and finished by the table.
	// The list may be the older of the two. When a later one says the same it is
	// recreated: the stream was deleted and made anew, and the mark is of the earlier one.
	suspectSince time.Time
	recreated    bool
	// doneBefore is the moment before which all that arrived was acknowledged when it was
	// read here last, for an item of which somebody has deleted that.
	doneBefore time.Time
	// unreadSince is since when nobody has read it or one before it.
	unreadSince time.Time

	saidMalformed string // what was told of the item, so that it is told once
	saidWaiting   string // the same of who reads a shard that is to be read here
}

// Words are what is said after the name of one shard, and the same of several.
type Words struct{ One, Many string }

// literal is an item under which a reader that writes the shard as "0" keeps it, as
// the built-in input does.
type literal struct {
	item lease.Item
	seen sighting
}

// exit is how an assignment came to its end.
type exit struct {
	at     time.Time
	term   string // of the lease
	failed bool   // the item may or may not be in that term still
	// finished is whether the shard was read to its end.
	finished bool
}

// The transitions of a shard. Invariant: there is at most one consumer of a shard in
// one process, from claim to exited.

func (sh *shard) claim(now time.Time) {
	sh.assignment, sh.recipient, sh.since = Claiming, "", now
	sh.first = sh.listed.FirstSequence
	sh.atOnce, sh.saidWaiting, sh.freeSince = false, "", time.Time{}
	sh.exit = exit{}
}

func (sh *shard) claimed(term, first string, now time.Time) {
	if sh.assignment == Claiming {
		sh.assignment, sh.first, sh.since = Reading, first, now
	}
	sh.exit.term = term
}

func (sh *shard) handOver(to string, now time.Time) {
	sh.assignment, sh.recipient, sh.since = HandingOver, to, now
}

func (sh *shard) yield() { sh.assignment = Yielding }

func (sh *shard) exited(o Outcome, now time.Time) {
	sh.assignment, sh.recipient = Idle, ""
	sh.exit.at, sh.exit.finished = now, o == Finished
	// A claim that came to nothing may have been released or not.
	sh.exit.failed = o == Failed || o == NotClaimed
	sh.uncertain = o != Finished && o != Cut && o != HandedOver
}

// stale reports whether an item that was read shows the shard in a term of ours that
// has ended: the reading is older than our last write.
func (sh *shard) stale(item lease.Item, self string, start time.Time) bool {
	switch {
	case sh.exit.at.IsZero():
		return false
	case start.Before(sh.exit.at):
		return true
	}
	return !sh.exit.failed && sh.exit.term != "" && item.Owner == self && item.Term == sh.exit.term
}

// rest lets the shard alone for a while: a quarter of a second first, then twice as
// long each time.
func (sh *shard) rest(now time.Time, most time.Duration) {
	sh.restsUntil = now.Add(min(soon<<min(sh.failures, 10), max(soon, most), mostRest))
	sh.failures++
}

func (sh *shard) resting(now time.Time) (until time.Time, rests bool) {
	until = sh.restsUntil
	if sh.vanishedUntil.After(until) {
		until = sh.vanishedUntil
	}
	return until, now.Before(until)
}

// identity says of which stream an item is.
type identity int

const (
	ofUnknownStream identity = iota // it does not tell
	ofThisStream
	ofEarlierStream // of the same name, which was deleted
)

// identity compares an item with the shard that bears its id now. The sequence numbers
// of a shard are higher than all those of streams that were deleted before it was made.
func (sh *shard) identity(item lease.Item) identity {
	switch {
	case !sh.inList:
		return ofUnknownStream
	case item.Sequence != "" && sh.listed.Holds(item.Sequence):
		return ofThisStream
	case item.Sequence != "":
		return ofEarlierStream
	case item.ShardStart == "" || sh.listed.FirstSequence == "":
		return ofUnknownStream
	case item.ShardStart == sh.listed.FirstSequence:
		return ofThisStream
	}
	return ofEarlierStream
}

// of is the identity of the shard's own item.
func (sh *shard) of() identity {
	if sh.recreated {
		return ofEarlierStream
	}
	return sh.identity(sh.item)
}

// warning says why a shard is read from its start that the table knows otherwise.
func (sh *shard) warning(unproven bool) Words {
	switch of := sh.of(); {
	case of == ofEarlierStream && sh.item.Finished:
		return Words{
			"was finished in an earlier stream of the same name: it is read from its oldest record",
			"were finished in an earlier stream of the same name: they are read from their oldest records",
		}
	case of == ofEarlierStream && sh.item.Sequence != "":
		return Words{
			fmt.Sprintf("was read up to sequence number %s in an earlier stream of the same name: it is read from its oldest record", sh.item.Sequence),
			"were read in part in an earlier stream of the same name: they are read from their oldest records",
		}
	case unproven:
		return Words{
			"is read from its oldest record: it is closed and has no item, and its children have some that do not tell whether it was read to its end. If it was, its records come again",
			"are read from their oldest records: they are closed and have no items, and their children have some that do not tell whether they were read to their ends. If they were, their records come again",
		}
	}
	return Words{}
}

// sighting is an item that has not changed between two readings,
// on this process's monotonic clock. A process that has just begun must watch first,
// whatever the item claims about times.
type sighting struct {
	link lease.Link
	last time.Time // start of the reading that saw it last
	due  time.Time // end of the reading that saw it first, and the patience
	// moved is whether its owner has been seen to renew it.
	moved bool
}

// observe takes in an item that was read between two times. The bounds matter: an item
// has stood still at least from the end of one reading to the start of another.
func (s *sighting) observe(item lease.Item, patience time.Duration, start, end time.Time) {
	if item.Owner == "" {
		*s = sighting{}
		return
	}
	if s.link != item.Link() {
		*s = sighting{
			link: item.Link(), due: end.Add(patience),
			moved: s.link.Owner == item.Owner && s.link.Token != item.Token,
		}
	}
	s.last = start
}

// dead reports whether the owner has not renewed the item for as long as it is given.
func (s *sighting) dead() bool { return s.link.Owner != "" && !s.last.Before(s.due) }

// alive reports whether the owner was seen to renew the item, and is not dead since.
func (s *sighting) alive() bool { return s.moved && !s.dead() }

// owner returns who has a lease on the shard that is alive; empty when nobody has.
func (g *Group) owner(sh *shard) string {
	if sh.assignment == HandingOver {
		return cmp.Or(sh.recipient, g.self)
	}
	if sh.assignment != Idle {
		return g.self
	}
	return g.ownerOf(sh.item, &sh.seen)
}

// ownerOf returns who has a lease by an item that is alive. A member that is gone has
// none. One that is not in the list, and that has not been confirmed to be gone,
// counts as alive. A recipient that has not claimed for a lease period what was handed
// over to it may live and be unable to: nobody reads the shard under that term.
func (g *Group) ownerOf(item lease.Item, seen *sighting) string {
	switch {
	case g.members.isGone(item.Owner):
		return ""
	case item.Owner == g.self || !seen.dead():
		return item.Owner
	case item.Foreign(), item.HandedOver():
		return ""
	}
	return item.Owner
}

// literalOwner returns the owner of a literal item of the shard who is alive.
func (g *Group) literalOwner(sh *shard) string {
	for i := range sh.literals {
		if owner := g.ownerOf(sh.literals[i].item, &sh.literals[i].seen); owner != "" {
			return owner
		}
	}
	return ""
}
