package lease

import (
	"context"
	"errors"
	"time"
)

// Key names one shard in the table.
type Key struct {
	// Stream as it stands in the configuration, a name or an ARN.
	Stream string
	// Shard is the Kinesis shard id, or the text of an explicit shard ("0").
	Shard string
}

func (k Key) String() string { return k.Stream + ":" + k.Shard }

// Item is what the table holds for one shard. Attributes that were written
// under another owner or term than the present one are stale; the store leaves
// them out.
type Item struct {
	Key

	// Exists is false for a shard without an item. All below is then zero.
	Exists bool
	// Sequence is the highest sequence number up to which every record is
	// acknowledged; empty when there is none yet.
	Sequence string
	// Owner is the client that holds the lease; empty when it is free.
	Owner string
	// Token changes with each write of an owner. It reads as a time, which no
	// decision uses.
	Token string
	// Term names one ownership of one owner; empty for owners that write none, and
	// for one that an item was handed over to, until it begins one.
	Term string
	// Period is the lease period that the owner wrote beside its lease, or who
	// handed the item over to it; zero for owners that write none.
	Period time.Duration
	// Wanted is the client that asked the owner, in this term, to hand the shard
	// over to it.
	Wanted string
	// StartAt is where a shard without a sequence starts; zero for its oldest
	// record.
	StartAt time.Time
	// Finished marks a closed shard that was read to its end and acknowledged.
	Finished bool
	// ShardStart is the starting sequence number of the shard that was claimed,
	// while nothing is committed: it tells a shard from that of the same id in a
	// stream that was deleted and made anew. Empty when nobody has written it.
	ShardStart string
	// Pinned items are those of readers that name their shards. They read a shard
	// whatever became of its parents, of which their items therefore tell nothing.
	Pinned bool
	// Malformed says what is wrong with the item, empty when nothing is. Owner,
	// Token and Sequence are then the most cautious reading of what stands there.
	Malformed string
	// Raw is the store's own record of what it could not read, for its conditions.
	Raw any
}

// foreign reports whether the owner is an instance of the built-in input.
func (i Item) foreign() bool { return i.Term == "" && i.Period == 0 }

// Link is the place in the chain of writes that a write takes: it succeeds only
// while the item still has this owner, term and token.
type Link struct {
	Owner, Term, Token string
}

// Link returns the item's present link.
func (i Item) Link() Link { return Link{Owner: i.Owner, Term: i.Term, Token: i.Token} }

// Grant is what a new owner writes.
type Grant struct {
	Link
	Period time.Duration
	// StartAt, ShardStart and Pinned are those of the Item. ShardStart is written
	// where no sequence was seen.
	StartAt    time.Time
	ShardStart string
	Pinned     bool
	// Anew says that the item is of a shard of an earlier stream: its sequence is not
	// this shard's, and makes place for none.
	Anew bool
}

// ErrConflict is returned by a Store when the item was not as the write demands.
// Nothing was written.
var ErrConflict = errors.New("the item in the table has changed")

// Store is the table. Each method is one conditional request. An error other
// than ErrConflict says nothing about whether the write took effect.
type Store interface {
	// Get reads one item, consistently.
	Get(ctx context.Context, key Key) (Item, error)
	// Claim takes the item over, if it is as it was seen.
	Claim(ctx context.Context, seen Item, grant Grant) (Item, error)
	// Renew moves the token of an item on, and the sequence if it moves at all.
	Renew(ctx context.Context, key Key, at Link, token string, sequence Move) (Item, error)
	// Release moves the sequence and frees the item.
	Release(ctx context.Context, key Key, at Link, sequence Move) error
	// Finish moves the sequence, frees the item and marks it finished.
	Finish(ctx context.Context, key Key, at Link, sequence Move) error
	// HandOver moves the sequence and makes another client the owner, without a
	// term: it claims the item from itself to begin one.
	HandOver(ctx context.Context, key Key, at Link, sequence Move, to Link) error
	// Ask marks an item as wanted by a client, if it is still held in the term in
	// which it was seen, and wanted by whom it was.
	Ask(ctx context.Context, seen Item, client string) error
	// Decline takes the mark of who wanted the item away, under the same condition.
	Decline(ctx context.Context, seen Item) error
	// Leave commits the last sequence of a client that the item was taken from, if
	// the item is still as it was seen.
	Leave(ctx context.Context, taken Item, sequence string) error
}

// Move is a step of the committed sequence number, from the one that must be
// stored. A client that the shard was taken from may have stored a later one, with
// no regard to owners.
// Invariant: sequence.Compare(From, To) <= 0.
type Move struct {
	From, To string
}
