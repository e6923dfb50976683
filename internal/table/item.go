package table

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/session"
)

// Claim implements lease.Store.
func (t *Table) Claim(ctx context.Context, seen lease.Item, grant lease.Grant) (lease.Item, error) {
	v := values{
		":owner": text(grant.Owner),
		":token": text(grant.Token),
		":term":  text(termOf(grant.Link)),
		":first": text(""),
		":zero":  number(0),
		":one":   number(1),
	}
	set := []string{
		AttrOwner + " = :owner",
		AttrToken + " = :token",
		AttrTerm + " = :term",
		nextNumber,
	}
	remove := []string{AttrFinished, AttrCut, AttrCutSequence}
	if !seen.Exists {
		v[":first"] = text(grant.Position.Sequence)
		if within := encodeWithin(grant.Position); within != "" {
			set = append(set, AttrInside+" = :within")
			v[":within"] = text(within)
		}
	}
	if _, malformed := raw(seen)[AttrSequence]; malformed || grant.Anew && seen.Exists {
		set = append(set, AttrSequence+" = :first")
		remove = append(remove, AttrUpTo, AttrInside)
	} else {
		// The built-in input fails on an item that it claims without one.
		set = append(set, AttrSequence+" = if_not_exists("+AttrSequence+", :first)")
	}
	if !grant.StartAt.IsZero() {
		set = append(set, AttrStartAt+" = if_not_exists("+AttrStartAt+", :startAt)")
		v[":startAt"] = text(grant.StartAt.UTC().Format(time.RFC3339Nano))
	}
	if grant.ShardStart != "" && (seen.Sequence == "" || grant.Anew) && (seen.Exists || grant.Position.Sequence == "") {
		set = append(set, AttrShardStart+" = :shardStart")
		v[":shardStart"] = text(grant.ShardStart)
	} else {
		remove = append(remove, AttrShardStart)
	}
	if grant.Pinned {
		set = append(set, AttrPinned+" = :owner")
	} else {
		remove = append(remove, AttrPinned)
	}
	condition := claimable(seen, v)
	if grant.Anew && seen.Owner != "" && seen.Sequence != "" {
		v[":seenSequence"] = text(seen.Sequence)
		condition += " AND " + AttrSequence + " = :seenSequence"
	}
	return t.update(ctx, seen.Key, "SET "+strings.Join(set, ", ")+" REMOVE "+strings.Join(remove, ", "), condition, v)
}

// Renew implements lease.Store.
func (t *Table) Renew(ctx context.Context, key lease.Key, at lease.Link, token string, position lease.Move) (lease.Item, error) {
	condition, v := held(at)
	set := "SET " + AttrToken + " = :next"
	if position.From != position.To {
		condition, v = heldWith(at, position)
		set += ", " + AttrSequence + " = :sequence"
	}
	v[":next"] = text(token)
	further, remove := moved(position, v)
	if remove != "" {
		remove = " REMOVE " + strings.TrimPrefix(remove, ", ")
	}
	return t.update(ctx, key, set+further+remove, condition, v)
}

// lastWrite is an option of the writes that end a lease. Their caller tries again
// by itself, and sooner than the SDK where the table takes no more writes at this
// moment, as when a process releases a thousand shards at once.
var lastWrite = sync.OnceValue(func() func(*dynamodb.Options) {
	retryer := session.CallerPaced()
	return func(o *dynamodb.Options) { o.Retryer = retryer }
})

// Release implements lease.Store.
func (t *Table) Release(ctx context.Context, key lease.Key, at lease.Link, position lease.Move) error {
	condition, v := heldWith(at, position)
	set, remove := moved(position, v)
	_, err := t.update(ctx, key, "SET "+AttrSequence+" = :sequence"+set+" REMOVE "+freed+remove, condition, v, lastWrite())
	return err
}

// Finish implements lease.Store.
func (t *Table) Finish(ctx context.Context, key lease.Key, at lease.Link, position lease.Move) error {
	condition, v := heldWith(at, position)
	set, remove := moved(position, v)
	_, err := t.update(ctx, key,
		"SET "+AttrSequence+" = :sequence, "+AttrFinished+" = :sequence"+set+" REMOVE "+freed+remove, condition, v, lastWrite())
	return err
}

// Cut implements lease.Store.
func (t *Table) Cut(ctx context.Context, key lease.Key, at lease.Link, position lease.Move, end time.Time) error {
	condition, v := heldWith(at, position)
	v[":cut"] = text(end.UTC().Format(time.RFC3339Nano))
	set, remove := moved(position, v)
	_, err := t.update(ctx, key,
		"SET "+AttrSequence+" = :sequence, "+AttrCut+" = :cut, "+AttrCutSequence+" = :sequence"+set+" REMOVE "+freed+remove, condition, v, lastWrite())
	return err
}

// HandOver implements lease.Store.
func (t *Table) HandOver(ctx context.Context, key lease.Key, at lease.Link, position lease.Move, to lease.Link) error {
	condition, v := heldWith(at, position)
	v[":to"], v[":next"], v[":nextTerm"] = text(to.Owner), text(to.Token), text(termOf(to))
	v[":zero"], v[":one"] = number(0), number(1)
	set, remove := moved(position, v)
	_, err := t.update(ctx, key,
		"SET "+AttrSequence+" = :sequence, "+AttrOwner+" = :to, "+AttrToken+" = :next, "+AttrTerm+" = :nextTerm, "+nextNumber+set+
			" REMOVE "+AttrPinned+remove, condition, v, lastWrite())
	return err
}

// nextNumber counts a term. It needs the placeholders :zero and :one.
const nextNumber = AttrNumber + " = if_not_exists(" + AttrNumber + ", :zero) + :one"

// Yield implements lease.Store.
func (t *Table) Yield(ctx context.Context, stolen lease.Item, sequence string) error {
	v := values{
		":sequence": text(sequence),
		":owner":    text(stolen.Owner), ":token": text(stolen.Token), ":seen": text(stolen.Sequence),
	}
	_, err := t.update(ctx, stolen.Key, "SET "+AttrSequence+" = :sequence REMOVE "+AttrShardStart+", "+AttrInside,
		AttrOwner+" = :owner AND "+AttrToken+" = :token AND "+AttrSequence+" = :seen", v)
	return err
}

// freed is what an owner takes with it.
const freed = AttrOwner + ", " + AttrToken + ", " + AttrTerm

// RemoveItem removes an item that nobody owns or whose owner is dead, if it is still as
// it was seen. It reports whether it has.
func (t *Table) RemoveItem(ctx context.Context, seen lease.Item) (removed bool, err error) {
	if !seen.Exists {
		return false, nil
	}
	v := values{}
	condition := asSeen(seen, v)
	err = t.delete(ctx, seen.Key, condition, v)
	if errors.Is(err, lease.ErrConflict) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("removing the item of shard %s: %w", seen.Key, err)
	}
	return true, nil
}

// Vacate takes the owner from the literal item of a shard, if it is still as it was
// seen, and returns what is left. Its owner is dead; should it come back after all,
// its next commit fails.
func (t *Table) Vacate(ctx context.Context, seen lease.Item) (lease.Item, error) {
	v := values{}
	condition := asSeen(seen, v)
	return t.update(ctx, seen.Key, "REMOVE "+freed, condition, v)
}

// Mirror stores how far a shard has been read in its literal item, if nobody owns
// that and it is as it was seen.
func (t *Table) Mirror(ctx context.Context, seen lease.Item, next string) (lease.Item, error) {
	v := values{}
	condition := asSeen(seen, v)
	v[":sequence"] = text(next)
	return t.update(ctx, seen.Key, "SET "+AttrSequence+" = :sequence REMOVE "+
		strings.Join([]string{AttrFinished, AttrCut, AttrCutSequence, AttrShardStart, AttrInside}, ", "), condition, v)
}

// moved is what else to set and to remove in a write of a position: a sequence that moves
// tells the shard from then on. Both begin with a comma where they are not empty. It adds
// its placeholders to v.
func moved(position lease.Move, v values) (set, remove string) {
	if !position.UpTo.IsZero() {
		v[":upTo"] = number(position.UpTo.Unix())
		set += ", " + AttrUpTo + " = :upTo"
	}
	if position.From.Sequence != position.To.Sequence {
		remove += ", " + AttrShardStart
	}
	switch within := encodeWithin(position.To); {
	case position.From == position.To:
	case within == "":
		remove += ", " + AttrInside
	default:
		v[":within"] = text(within)
		set += ", " + AttrInside + " = :within"
	}
	return set, remove
}
