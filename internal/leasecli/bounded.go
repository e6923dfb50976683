package leasecli

import (
	"context"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/table"
)

// bounded is the table as a plan writes it, each write in its time.
type bounded struct {
	*table.Table
	timeout time.Duration
}

func in[T any](ctx context.Context, timeout time.Duration, call func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return call(ctx)
}

// ListMembers implements leases.Writer.
func (b bounded) ListMembers(ctx context.Context, consistent bool) ([]lease.Member, error) {
	return in(ctx, b.timeout, func(ctx context.Context) ([]lease.Member, error) { return b.Table.ListMembers(ctx, consistent) })
}

// Get implements leases.Writer.
func (b bounded) Get(ctx context.Context, key lease.Key) (lease.Item, error) {
	return in(ctx, b.timeout, func(ctx context.Context) (lease.Item, error) { return b.Table.Get(ctx, key) })
}

// Place implements leases.Writer.
func (b bounded) Place(ctx context.Context, seen lease.Item, to table.Standing) (lease.Item, error) {
	return in(ctx, b.timeout, func(ctx context.Context) (lease.Item, error) { return b.Table.Place(ctx, seen, to) })
}

// Free implements leases.Writer.
func (b bounded) Free(ctx context.Context, seen lease.Item) (lease.Item, error) {
	return in(ctx, b.timeout, func(ctx context.Context) (lease.Item, error) { return b.Table.Free(ctx, seen) })
}

// RemoveItem implements leases.Writer.
func (b bounded) RemoveItem(ctx context.Context, seen lease.Item) (removed bool, err error) {
	return in(ctx, b.timeout, func(ctx context.Context) (bool, error) { return b.Table.RemoveItem(ctx, seen) })
}

// Evict implements leases.Writer.
func (b bounded) Evict(ctx context.Context, m lease.Member) error {
	_, err := in(ctx, b.timeout, func(ctx context.Context) (struct{}, error) { return struct{}{}, b.Table.Evict(ctx, m) })
	return err
}

// Remove implements leases.Writer.
func (b bounded) Remove(ctx context.Context, m lease.Member) error {
	_, err := in(ctx, b.timeout, func(ctx context.Context) (struct{}, error) { return struct{}{}, b.Table.Remove(ctx, m) })
	return err
}
