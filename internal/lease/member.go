package lease

import (
	"context"
	"maps"
	"slices"
	"time"
)

// Member is one instance of the input as its item in the table shows it to the
// others: that it lives, what it reads, and what it asks of them.
type Member struct {
	// ID is the owner of the member's leases. It is unique to one session and never
	// used again.
	ID string
	// Token changes with each heartbeat. It reads as a time, which no decision uses.
	Token string
	// Period is the member's lease period: how long its token stands still when it is
	// dead.
	Period time.Duration
	Report
	// Raw is the store's own record of a token that it could not read, for its
	// conditions.
	Raw any
}

// Evicted is the token of a member that was taken for dead. Its next heartbeat fails,
// and so do all its leases.
const Evicted = "evicted"

// Gone reports whether the member was evicted, and is in the group no more.
func (m Member) Gone() bool { return m.Token == Evicted }

// Report is what a member tells the others beside that it lives.
type Report struct {
	// Streams are those whose shards it shares with others. A member without any
	// reads shards that were named to it, and takes no part in the balance.
	Streams []string
	// Requests are how many shards it asks for, by the owner that is asked.
	Requests map[string]int
	// Starts are where shards without an item start, zero for their oldest records, of those
	// of the streams in which built-in inputs were seen: these delete the items of finished
	// shards, and with the last of them what tells it.
	Starts map[string]time.Time
	// Changes counts what the member has changed that others may want to read the
	// items of the shards for: claims, releases, hand-overs and ends.
	Changes int64
}

// equal reports whether two reports tell the same.
func (r Report) equal(other Report) bool {
	return r.Changes == other.Changes && slices.Equal(r.Streams, other.Streams) && maps.Equal(r.Requests, other.Requests) &&
		maps.EqualFunc(r.Starts, other.Starts, time.Time.Equal)
}

// Members is the part of the table that shows who is there. Each method is one
// request, and an error other than ErrConflict says nothing about whether a write
// took effect.
type Members interface {
	// Member reads the item of a member, consistently; ok is false when there is none.
	Member(ctx context.Context, id string) (m Member, ok bool, err error)
	// Join writes the item of a member that has none.
	Join(ctx context.Context, m Member) error
	// Beat writes the item of a member whose token is still the one that is given.
	Beat(ctx context.Context, m Member, at string) error
	// Evict puts the token Evicted in place of that of m, which is dead, if that still
	// stands. The item stays, so that this takes no right or capacity to delete.
	Evict(ctx context.Context, m Member) error
	// Remove removes the item of a member whose token is still that of m: the member's
	// own, as it leaves, or that of an evicted one.
	Remove(ctx context.Context, m Member) error
}
