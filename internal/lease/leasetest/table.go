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

	// Beaten is told of each change of a member's item, under the lock of the table; nil
	// to ignore them. Where there is none the id is empty.
	Beaten func(before, after lease.Member)

	mu      sync.Mutex
	items   map[lease.Key]lease.Item
	members map[string]lease.Member
}

var (
	_ lease.Store   = (*Table)(nil)
	_ lease.Members = (*Table)(nil)
)

// New returns an empty table.
func New() *Table {
	return &Table{items: map[lease.Key]lease.Item{}, members: map[string]lease.Member{}}
}

func (t *Table) request(ctx context.Context, method string, serve func() error) error {
	if t.Network == nil {
		return serve()
	}
	return t.Network(ctx, method, serve)
}

// write makes one conditional write.
func (t *Table) write(
	ctx context.Context, method string, key lease.Key, allowed func(now lease.Item) bool, change func(*lease.Item),
) (lease.Item, error) {
	var written lease.Item // no result by name: it may be set after the request was given up
	err := t.request(ctx, method, func() error {
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

// claimable is the condition of a claim.
func claimable(seen lease.Item) func(now lease.Item) bool {
	if seen.Term == "" {
		return AsSeen(seen)
	}
	return func(now lease.Item) bool { return now.Owner == seen.Owner && now.Term == seen.Term }
}

// Swap makes a write of another client of the table, past the network: next returns
// what is to stand there, without Exists where that is nothing, and whether the write's
// own condition allows it.
func (t *Table) Swap(key lease.Key, next func(now lease.Item) (lease.Item, bool)) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.at(key)
	after, allowed := next(now)
	if allowed {
		t.set(now, after)
	}
	return allowed
}

// AsSeen is the condition that an item is as it was seen.
func AsSeen(seen lease.Item) func(now lease.Item) bool {
	return func(now lease.Item) bool {
		switch {
		case !seen.Exists:
			return !now.Exists
		case seen.Owner == "":
			return now.Exists && now.Owner == "" && now.Sequence == seen.Sequence && now.Finished == seen.Finished && now.CutAt.IsZero() == seen.CutAt.IsZero()
		}
		return now.Link() == seen.Link()
	}
}

// ours reports whether an item has an owner of this module.
func ours(item lease.Item) bool { return item.Owner != "" && !item.Foreign() }

// held is the condition that an item is at a link, which that of another owner has not.
func held(link lease.Link) func(lease.Item) bool {
	return func(now lease.Item) bool { return ours(now) && now.Link() == link }
}

// heldWith is held for a write that moves the position.
func heldWith(link lease.Link, position lease.Move) func(lease.Item) bool {
	return func(now lease.Item) bool { return held(link)(now) && now.Sequence == position.From.Sequence }
}

// move makes an item what it is after a write of a position: what tells the shard of
// an item without a sequence is of use no more.
func move(next *lease.Item, position lease.Move) {
	if position.From.Sequence != position.To.Sequence {
		next.ShardStart = ""
	}
	if position.From != position.To {
		next.Within = position.To.Within
	}
	next.Sequence = position.To.Sequence
	tell(next, position)
}

// tell makes an item say up to when the shard is acknowledged.
func tell(next *lease.Item, position lease.Move) {
	if !position.UpTo.IsZero() {
		next.UpTo = time.Unix(position.UpTo.Unix(), 0)
	}
}

// Free takes from an item what its owner takes along.
func Free(item *lease.Item) {
	item.Owner, item.Term, item.Token = "", "", ""
}

// Get implements lease.Store.
func (t *Table) Get(ctx context.Context, key lease.Key) (lease.Item, error) {
	var item lease.Item
	err := t.request(ctx, "Get", func() error {
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
		return claimable(seen)(now) && (!grant.Anew || seen.Sequence == "" || now.Sequence == seen.Sequence)
	}
	return t.write(ctx, "Claim", seen.Key, allowed, func(next *lease.Item) {
		if grant.Anew {
			next.Sequence, next.Within, next.UpTo = "", lease.Within{}, time.Time{}
		}
		next.Owner, next.Term, next.Token = grant.Owner, grant.Term, grant.Token
		next.Number++
		next.Finished, next.CutAt = false, time.Time{}
		next.Pinned, next.ShardStart = grant.Pinned, ""
		if !seen.Exists {
			next.Sequence, next.Within = grant.Position.Sequence, grant.Position.Within
		}
		if (grant.Anew || seen.Sequence == "") && next.Sequence == "" {
			next.ShardStart = grant.ShardStart
		}
		if next.StartAt.IsZero() && !grant.StartAt.IsZero() {
			next.StartAt = grant.StartAt.UTC().Round(0)
		}
	})
}

// Renew implements lease.Store.
func (t *Table) Renew(ctx context.Context, key lease.Key, at lease.Link, token string, position lease.Move) (lease.Item, error) {
	allowed := held(at)
	if position.From != position.To {
		allowed = heldWith(at, position)
	}
	return t.write(ctx, "Renew", key, allowed, func(next *lease.Item) {
		next.Token = token
		if position.From != position.To {
			move(next, position)
		}
		tell(next, position)
	})
}

// Release implements lease.Store.
func (t *Table) Release(ctx context.Context, key lease.Key, at lease.Link, position lease.Move) error {
	_, err := t.write(ctx, "Release", key, heldWith(at, position), func(next *lease.Item) {
		move(next, position)
		Free(next)
	})
	return err
}

// Finish implements lease.Store.
func (t *Table) Finish(ctx context.Context, key lease.Key, at lease.Link, position lease.Move) error {
	_, err := t.write(ctx, "Finish", key, heldWith(at, position), func(next *lease.Item) {
		move(next, position)
		Free(next)
		next.Finished = true
	})
	return err
}

// Cut implements lease.Store.
func (t *Table) Cut(ctx context.Context, key lease.Key, at lease.Link, position lease.Move, end time.Time) error {
	_, err := t.write(ctx, "Cut", key, heldWith(at, position), func(next *lease.Item) {
		move(next, position)
		Free(next)
		next.CutAt = end.UTC().Round(0)
	})
	return err
}

// HandOver implements lease.Store.
func (t *Table) HandOver(ctx context.Context, key lease.Key, at lease.Link, position lease.Move, to lease.Link) error {
	_, err := t.write(ctx, "HandOver", key, heldWith(at, position), func(next *lease.Item) {
		move(next, position)
		next.Owner, next.Term, next.Token = to.Owner, to.Term, to.Token
		next.Number++
		next.Pinned = false
	})
	return err
}

// Yield implements lease.Store.
func (t *Table) Yield(ctx context.Context, stolen lease.Item, final string) error {
	notMoved := func(now lease.Item) bool {
		return now.Owner != "" && now.Owner == stolen.Owner && now.Token == stolen.Token && now.Sequence == stolen.Sequence
	}
	_, err := t.write(ctx, "Yield", stolen.Key, notMoved, func(next *lease.Item) {
		next.Sequence, next.Within, next.ShardStart = final, lease.Within{}, ""
	})
	return err
}

// Update changes an item that is as it was seen.
func (t *Table) Update(ctx context.Context, seen lease.Item, change func(*lease.Item)) (lease.Item, error) {
	return t.write(ctx, "Update", seen.Key, AsSeen(seen), change)
}

// Delete deletes a shard's item that is as it was seen, and reports whether it has.
func (t *Table) Delete(ctx context.Context, seen lease.Item) (bool, error) {
	var removed bool
	err := t.request(ctx, "Delete", func() error {
		t.mu.Lock()
		defer t.mu.Unlock()
		now := t.at(seen.Key)
		if removed = seen.Exists && AsSeen(seen)(now); removed {
			t.set(now, lease.Item{Key: seen.Key})
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	return removed, nil
}

// Member implements lease.Members.
func (t *Table) Member(ctx context.Context, id string) (lease.Member, bool, error) {
	var m lease.Member
	var ok bool
	err := t.request(ctx, "Member", func() error {
		t.mu.Lock()
		defer t.mu.Unlock()
		m, ok = t.members[id]
		return nil
	})
	if err != nil {
		return lease.Member{}, false, err
	}
	return m, ok, nil
}

// Members returns all members, past the network.
func (t *Table) Members() []lease.Member {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]lease.Member, 0, len(t.members))
	for _, m := range t.members {
		all = append(all, m)
	}
	return all
}

// Join implements lease.Members.
func (t *Table) Join(ctx context.Context, m lease.Member) error {
	return t.beat(ctx, "Join", m.ID, func(_ lease.Member, ok bool) bool { return !ok }, &m)
}

// Beat implements lease.Members.
func (t *Table) Beat(ctx context.Context, m lease.Member, at string) error {
	return t.beat(ctx, "Beat", m.ID, func(now lease.Member, ok bool) bool { return ok && now.Token == at }, &m)
}

// Evict implements lease.Members.
func (t *Table) Evict(ctx context.Context, m lease.Member) error {
	next := lease.Member{ID: m.ID, Token: lease.Evicted}
	return t.beat(ctx, "Evict", m.ID, func(now lease.Member, ok bool) bool { return ok && now.Token == m.Token }, &next)
}

// Remove implements lease.Members.
func (t *Table) Remove(ctx context.Context, m lease.Member) error {
	return t.beat(ctx, "Remove", m.ID, func(now lease.Member, ok bool) bool { return ok && now.Token == m.Token }, nil)
}

// beat makes one conditional write of a member's item; nil removes it.
func (t *Table) beat(ctx context.Context, method, id string, allowed func(now lease.Member, ok bool) bool, next *lease.Member) error {
	return t.request(ctx, method, func() error {
		t.mu.Lock()
		defer t.mu.Unlock()
		now, ok := t.members[id]
		if !allowed(now, ok) {
			return lease.ErrConflict
		}
		var after lease.Member
		if next == nil {
			delete(t.members, id)
		} else {
			after = *next
			after.Period = after.Period.Truncate(time.Millisecond)
			t.members[id] = after
		}
		if t.Beaten != nil {
			t.Beaten(now, after)
		}
		return nil
	})
}
