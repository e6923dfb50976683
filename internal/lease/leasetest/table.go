// Package leasetest has the table of leases in memory, for tests: what the real one
// does with its conditions, without expressions, SDK and service. The contract test
// of the root package holds the two against each other.
package leasetest

import (
	"context"
	"sync"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
)

// Table is a lease.Store in memory. It is for clients of this module alone: no
// attribute is ever stale. It is safe for concurrent use.
type Table struct {
	// Network carries each request and its answer; nil for one without faults. It calls
	// serve, which is where the request takes effect, once, later or never.
	Network func(ctx context.Context, method string, serve func() error) error
	// Wrote is told of each change of an item, under the lock of the table; nil to
	// ignore them. An item that was removed has only its key afterwards.
	Wrote func(before, after lease.Item)

	mu    sync.Mutex
	items map[lease.Key]lease.Item
}

var _ lease.Store = (*Table)(nil)

// New returns an empty table.
func New() *Table { return &Table{items: map[lease.Key]lease.Item{}} }

func (t *Table) request(ctx context.Context, method string, serve func() error) error {
	if t.Network == nil {
		return serve()
	}
	return t.Network(ctx, method, serve)
}

// write makes one conditional write.
func (t *Table) write(
	ctx context.Context, method string, key lease.Key, allowed func(now lease.Item) bool, change func(*lease.Item),
) (written lease.Item, err error) {
	err = t.request(ctx, method, func() error {
		t.mu.Lock()
		defer t.mu.Unlock()
		now := t.at(key)
		if !allowed(now) {
			return lease.ErrConflict
		}
		next := now
		next.Exists = true
		change(&next)
		t.set(now, next)
		written = next
		return nil
	})
	if err != nil {
		return lease.Item{}, err
	}
	return written, nil
}

func (t *Table) at(key lease.Key) lease.Item {
	if item, ok := t.items[key]; ok {
		return item
	}
	return lease.Item{Key: key}
}

func (t *Table) set(now, next lease.Item) {
	if next.Exists {
		t.items[next.Key] = next
	} else {
		delete(t.items, next.Key)
	}
	if t.Wrote != nil {
		t.Wrote(now, next)
	}
}

// Now returns an item, past the network.
func (t *Table) Now(key lease.Key) lease.Item {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.at(key)
}

// All returns all items, past the network.
func (t *Table) All() []lease.Item {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]lease.Item, 0, len(t.items))
	for _, item := range t.items {
		all = append(all, item)
	}
	return all
}

// Change makes a write without any condition, past the network, as another client of
// the table or an operator may.
func (t *Table) Change(key lease.Key, change func(*lease.Item)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.at(key)
	next := now
	next.Exists = true
	change(&next)
	t.set(now, next)
}

// AsSeen is the condition that an item is as it was seen before a claim.
func AsSeen(seen lease.Item) func(now lease.Item) bool {
	return func(now lease.Item) bool {
		switch {
		case !seen.Exists:
			return !now.Exists
		case seen.Owner == "":
			return now.Exists && now.Owner == "" && now.Sequence == seen.Sequence && now.Finished == seen.Finished
		}
		return now.Owner == seen.Owner && now.Token == seen.Token
	}
}

// ours reports whether an item has an owner of this module, with a term or yet to
// begin one.
func ours(item lease.Item) bool { return item.Owner != "" && (item.Term != "" || item.Period != 0) }

// held is the condition that an item is at a link, which that of another owner has not.
func held(link lease.Link) func(lease.Item) bool {
	return func(now lease.Item) bool { return ours(now) && now.Link() == link }
}

// heldWith is held for a write that moves the sequence.
func heldWith(link lease.Link, sequence lease.Move) func(lease.Item) bool {
	return func(now lease.Item) bool { return held(link)(now) && now.Sequence == sequence.From }
}

// move makes an item what it is after a write of a sequence: what tells the shard of
// an item without one is of use no more.
func move(next *lease.Item, sequence lease.Move) {
	if sequence.From != sequence.To {
		next.ShardStart = ""
	}
	next.Sequence = sequence.To
}

// Free takes from an item what its owner takes along.
func Free(item *lease.Item) {
	item.Owner, item.Term, item.Token, item.Period, item.Wanted = "", "", "", 0, ""
}

// Get implements lease.Store.
func (t *Table) Get(ctx context.Context, key lease.Key) (item lease.Item, err error) {
	err = t.request(ctx, "Get", func() error {
		item = t.Now(key)
		return nil
	})
	if err != nil {
		return lease.Item{}, err
	}
	return item, nil
}

// Claim implements lease.Store.
func (t *Table) Claim(ctx context.Context, seen lease.Item, grant lease.Grant) (lease.Item, error) {
	allowed := func(now lease.Item) bool {
		return AsSeen(seen)(now) && (!grant.Anew || seen.Sequence == "" || now.Sequence == seen.Sequence)
	}
	return t.write(ctx, "Claim", seen.Key, allowed, func(next *lease.Item) {
		if grant.Anew {
			next.Sequence = ""
		}
		next.Owner, next.Term, next.Token = grant.Owner, grant.Term, grant.Token
		next.Period = grant.Period.Truncate(time.Millisecond)
		next.Wanted, next.Finished = "", false
		next.Pinned, next.ShardStart = grant.Pinned, ""
		if (grant.Anew || seen.Sequence == "") && next.Sequence == "" {
			next.ShardStart = grant.ShardStart
		}
		if next.StartAt.IsZero() && !grant.StartAt.IsZero() {
			next.StartAt = grant.StartAt.UTC().Round(0)
		}
	})
}

// Renew implements lease.Store.
func (t *Table) Renew(ctx context.Context, key lease.Key, at lease.Link, token string, sequence lease.Move) (lease.Item, error) {
	allowed := held(at)
	if sequence.From != sequence.To {
		allowed = heldWith(at, sequence)
	}
	return t.write(ctx, "Renew", key, allowed, func(next *lease.Item) {
		next.Token = token
		if sequence.From != sequence.To {
			move(next, sequence)
		}
	})
}

// Release implements lease.Store.
func (t *Table) Release(ctx context.Context, key lease.Key, at lease.Link, sequence lease.Move) error {
	_, err := t.write(ctx, "Release", key, heldWith(at, sequence), func(next *lease.Item) {
		move(next, sequence)
		Free(next)
	})
	return err
}

// Finish implements lease.Store.
func (t *Table) Finish(ctx context.Context, key lease.Key, at lease.Link, sequence lease.Move) error {
	_, err := t.write(ctx, "Finish", key, heldWith(at, sequence), func(next *lease.Item) {
		move(next, sequence)
		Free(next)
		next.Finished = true
	})
	return err
}

// HandOver implements lease.Store.
func (t *Table) HandOver(ctx context.Context, key lease.Key, at lease.Link, sequence lease.Move, to lease.Link) error {
	_, err := t.write(ctx, "HandOver", key, heldWith(at, sequence), func(next *lease.Item) {
		move(next, sequence)
		next.Owner, next.Term, next.Token, next.Wanted = to.Owner, "", to.Token, ""
		next.Pinned = false
	})
	return err
}

// Ask implements lease.Store.
func (t *Table) Ask(ctx context.Context, seen lease.Item, client string) error {
	_, err := t.write(ctx, "Ask", seen.Key, wantedAs(seen), func(next *lease.Item) { next.Wanted = client })
	return err
}

// Decline implements lease.Store.
func (t *Table) Decline(ctx context.Context, seen lease.Item) error {
	_, err := t.write(ctx, "Decline", seen.Key, wantedAs(seen), func(next *lease.Item) { next.Wanted = "" })
	return err
}

// wantedAs is the condition that an item is held in the term in which it was seen, and
// wanted by whom it was.
func wantedAs(seen lease.Item) func(lease.Item) bool {
	return func(now lease.Item) bool {
		return ours(now) && now.Owner == seen.Owner && now.Term == seen.Term && now.Wanted == seen.Wanted
	}
}

// Leave implements lease.Store.
func (t *Table) Leave(ctx context.Context, taken lease.Item, sequence string) error {
	notMoved := func(now lease.Item) bool {
		return now.Owner != "" && now.Owner == taken.Owner && now.Token == taken.Token && now.Sequence == taken.Sequence
	}
	_, err := t.write(ctx, "Leave", taken.Key, notMoved, func(next *lease.Item) { next.Sequence, next.ShardStart = sequence, "" })
	return err
}

// Update changes an item that is as it was seen.
func (t *Table) Update(ctx context.Context, seen lease.Item, change func(*lease.Item)) (lease.Item, error) {
	return t.write(ctx, "Update", seen.Key, AsSeen(seen), change)
}

// Remove removes an item that is as it was seen, and reports whether it has.
func (t *Table) Remove(ctx context.Context, seen lease.Item) (removed bool, err error) {
	err = t.request(ctx, "Remove", func() error {
		t.mu.Lock()
		defer t.mu.Unlock()
		now := t.at(seen.Key)
		if removed = seen.Exists && AsSeen(seen)(now); removed {
			t.set(now, lease.Item{Key: seen.Key})
		}
		return nil
	})
	return removed && err == nil, err
}
