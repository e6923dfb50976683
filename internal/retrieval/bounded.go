package retrieval

import (
	"context"
	"time"
)

const (
	// afterEnd is how long after the end of a Bounded source a shard that has nothing more
	// is still read: a record may become readable a little after it arrived, and the
	// service tells its time in whole seconds.
	afterEnd = 5 * time.Second
	// lookAgain is the time between two lists that a Bounded source asks for.
	lookAgain = 5 * time.Second
)

// Bounded is a source that ends at a moment, by the service's clock. Its last page is the
// one before the first record that arrived after that moment. Records are in the order in
// which they arrived as nearly as the service keeps it: one that arrived before the end
// and stands behind one that arrived after it is not read.
//
// A shard in which no such record comes ends when it has been read to its tip after the
// end. It must be open then: the children of one that is closed may have begun before the
// end, and a closed shard that has been read to its tip may not say yet that it has ended.
// So a list of the shards that was made after the end has to show it, by the service's own
// time in that answer.
//
// A consumer makes one, calls Next from one goroutine, and closes it.
type Bounded struct {
	source Source
	lists  *Lists
	shard  Shard
	end    time.Time
	budget *Budget
	skew   func() time.Duration

	lookedAt time.Time // when the shards were listed last
	// openAt is when the shard was found to be open after the end, by our own clock; zero
	// until then.
	openAt time.Time
}

// Source is what a Bounded source bounds.
type Source interface {
	Next(ctx context.Context) (Page, error)
	Close()
}

// NewBounded returns what ends a source of a shard at a moment. The records that are left
// out go back to the budget. skew returns by how much the service's clock is ahead of ours.
func NewBounded(source Source, lists *Lists, shard Shard, end time.Time, budget *Budget, skew func() time.Duration) *Bounded {
	return &Bounded{source: source, lists: lists, shard: shard, end: end, budget: budget, skew: skew}
}

// Close closes the source.
func (b *Bounded) Close() { b.source.Close() }

// Next returns the next page, and errors as those of the source. After one with End it is
// not called again.
func (b *Bounded) Next(ctx context.Context) (Page, error) {
	page, err := b.source.Next(ctx)
	if err != nil {
		return page, err
	}
	for i := range page.Records {
		if page.Records[i].Arrived.After(b.end) {
			return b.cut(page, i), nil
		}
	}
	if !page.End && len(page.Records) == 0 && b.past(ctx, page) {
		return b.cut(page, 0), nil
	}
	return page, nil
}

// cut makes a page the last one, of its first n records.
func (b *Bounded) cut(page Page, n int) Page {
	var left int64
	for i := range page.Records[n:] {
		left += Cost(&page.Records[n+i])
	}
	clear(page.Records[n:])
	b.budget.Release(left)
	page.Records, page.Cost = page.Records[:n], page.Cost-left
	page.End, page.Cut, page.Children = true, true, nil
	return page
}

// past reports whether a page without records shows that the shard, which is open, has
// nothing that arrived before the end and was not read.
func (b *Bounded) past(ctx context.Context, page Page) bool {
	if page.ReadTo.IsZero() || page.Behind > 0 {
		return false
	}
	if !b.openAt.IsZero() {
		return page.ReadTo.After(b.openAt)
	}
	// Our own clock tells when it is worth to ask, and no more. The service tells its own
	// in whole seconds.
	now := time.Now()
	if !page.ReadTo.Add(b.skew()).After(b.end.Add(afterEnd+time.Second)) || !b.lookedAt.IsZero() && now.Sub(b.lookedAt) < lookAgain {
		return false
	}
	b.lookedAt = now
	listed, at, ok, err := b.lists.FindAt(ctx, b.shard.Stream, b.shard.ID)
	if err != nil || !ok || listed.Closed {
		return false // it is read on, to its end or to a record that arrived after ours
	}
	if at.IsZero() {
		at = now.Add(b.skew())
	}
	if at.After(b.end.Add(afterEnd)) {
		b.openAt = time.Now()
	}
	return false
}
