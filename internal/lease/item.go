package lease

import (
	"context"
	"errors"
	"strings"
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
	// Within is how much is acknowledged of the record after that, which holds several; zero
	// for nothing, and where the sequence is not the one that it was written with.
	Within Within
	// Owner is the client that holds the lease; empty when it is free.
	Owner string
	// Token changes with each write of an owner. It reads as a time, up to which the
	// built-in input leaves the shard alone, and which no decision of ours uses.
	Token string
	// Term names one ownership of one owner, from a claim or a hand-over on; empty for
	// owners that write none.
	Term string
	// Number grows with each claim and each hand-over, unless the built-in input has
	// erased it; zero where none was written.
	Number int64
	// StartAt is where a shard without a sequence starts; zero for its oldest
	// record.
	StartAt time.Time
	// UpTo is the moment before which everything that arrived in the shard was acknowledged
	// when the item was written, in whole seconds; zero where nobody has told. It says how
	// late the shard is, and to a group that has an end whether others have read beyond it.
	UpTo time.Time
	// Finished marks a closed shard that was read to its end and acknowledged.
	Finished bool
	// CutAt is the moment up to which the shard was read and acknowledged, by a reader that
	// ends there: what arrived after it is left to others. The shard was open then. Zero
	// when nobody has left it so.
	CutAt time.Time
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

// HandOverMark begins the term of each hand-over. Under such a term nobody reads: the
// recipient claims the shard first, which gives it another.
const HandOverMark = "+"

// HandedOver reports whether the shard was passed to its owner, who has not claimed it.
func (i Item) HandedOver() bool { return i.Owner != "" && strings.HasPrefix(i.Term, HandOverMark) }

// Position returns how far the shard is acknowledged.
func (i Item) Position() Position {
	return Position{Sequence: i.Sequence, Within: i.Within}
}

// Foreign reports whether the owner is an instance of the built-in input, which writes
// no term.
func (i Item) Foreign() bool { return i.Owner != "" && i.Term == "" }

// Link is the place in the chain of writes that a write takes: it succeeds only
// while the item still has this owner, term and token.
type Link struct {
	Owner, Term, Token string
}

// Link returns the item's present link.
func (i Item) Link() Link { return Link{Owner: i.Owner, Term: i.Term, Token: i.Token} }

// Grant is what a new owner writes. The store adds the number of the term, one above
// that which stands in the item.
type Grant struct {
	Link
	// StartAt, ShardStart and Pinned are those of the Item. ShardStart is written
	// where no sequence was seen.
	StartAt    time.Time
	ShardStart string
	Pinned     bool
	// Position is written where there is no item: up to there the shard was acknowledged
	// before somebody deleted it.
	Position Position
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
	// Renew moves the token of an item on, and the position if it moves at all.
	Renew(ctx context.Context, key Key, at Link, token string, position Move) (Item, error)
	// Release moves the position and frees the item.
	Release(ctx context.Context, key Key, at Link, position Move) error
	// Finish moves the position, frees the item and marks it finished.
	Finish(ctx context.Context, key Key, at Link, position Move) error
	// Cut moves the position, frees the item and notes up to which moment it was read.
	Cut(ctx context.Context, key Key, at Link, position Move, end time.Time) error
	// HandOver moves the position and makes another member the owner, in a term of its
	// own: that member claims the item from itself before it reads.
	HandOver(ctx context.Context, key Key, at Link, position Move, to Link) error
	// Yield stores the final checkpoint of an owner from which the item was stolen, if
	// the item is still as it was seen. Who has stolen it knows no place within a record.
	Yield(ctx context.Context, stolen Item, sequence string) error
}

// Move is a step of the committed position, from the one that must be stored. A built-in
// input from which the shard was stolen may have stored a later sequence, with no regard
// to owners; the place within a record is moved by owners alone.
// Invariant: From.Compare(To) <= 0.
type Move struct {
	From, To Position
	// UpTo is that of the Item; zero leaves what stands there.
	UpTo time.Time
}
