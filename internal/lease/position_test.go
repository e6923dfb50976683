package lease_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
)

func TestPositionsAreInOrder(t *testing.T) {
	inside := func(sequence, record string, count int) lease.Position {
		return lease.Position{Sequence: sequence, Within: lease.Within{Sequence: record, Count: count}}
	}
	ascending := []lease.Position{
		{},
		inside("", "5", 1), inside("", "5", 2), lease.After("5"), inside("5", "7", 9), inside("5", "7", 10),
		inside("5", "10", 1), lease.After("7"), lease.After("10"), inside("10", "11", 1), lease.After("11"),
	}
	for i, a := range ascending {
		for j, b := range ascending {
			require.Equal(t, i < j, a.Compare(b) < 0, "%v, %v", a, b)
			require.Equal(t, i > j, a.Compare(b) > 0, "%v, %v", a, b)
		}
	}
}

// within is a position some way into the record 7, which comes after the record 5.
func within(count int) lease.Position {
	return lease.Position{Sequence: "5", Within: lease.Within{Sequence: "7", Count: count}}
}

func TestPlaceWithinARecordIsCommittedAsItMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		l := take(t, s)
		var position atomic.Pointer[lease.Position]
		position.Store(&lease.Position{})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.Keep(ctx, func() lease.Position { return *position.Load() }) }()
		for i, next := range []lease.Position{lease.After("5"), within(1), within(4000), within(5000), lease.After("7")} {
			position.Store(&next)
			pass(5*time.Second - 1)
			require.Equal(t, i, s.written(), "at most one a commit period")
			pass(1)
			require.Equal(t, next, s.now().Position())
			require.Equal(t, i+1, s.written())
		}
		pass(20 * time.Second)
		require.Equal(t, 5, s.written(), "nothing has moved")
		cancel()
		require.NoError(t, <-done)
	})
}

func TestNoWriteStoresLessOfARecordThanIsStored(t *testing.T) {
	for name, last := range map[string]func(ctx context.Context, l *lease.Lease, p lease.Position) error{
		"Keep": func(ctx context.Context, l *lease.Lease, p lease.Position) error {
			ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
			defer cancel()
			return l.Keep(ctx, func() lease.Position { return p })
		},
		"Release":  func(ctx context.Context, l *lease.Lease, p lease.Position) error { return l.Release(ctx, p) },
		"Finish":   func(ctx context.Context, l *lease.Lease, p lease.Position) error { return l.Finish(ctx, p) },
		"HandOver": func(ctx context.Context, l *lease.Lease, p lease.Position) error { return l.HandOver(ctx, p, "other") },
	} {
		t.Run(name, func(t *testing.T) {
			for _, less := range []lease.Position{within(2), lease.After("5"), {}} {
				synctest.Test(t, func(t *testing.T) {
					s := newTable()
					s.Change(key, func(item *lease.Item) { item.Sequence, item.Within = "5", within(3).Within })
					require.NoError(t, last(t.Context(), take(t, s), less))
					require.NotZero(t, s.written())
					require.Equal(t, within(3), s.now().Position())
				})
			}
		})
	}
}

func TestLateAttemptMovesNoPlaceWithinARecordBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTable()
		l := take(t, s)
		late := l.Link()
		require.NoError(t, l.Release(t.Context(), within(3)))
		_, err := s.Renew(others(t.Context()), key, late, "late", lease.Move{To: within(2)})
		require.ErrorIs(t, err, lease.ErrConflict)
		require.Equal(t, within(3), s.now().Position())
	})
}

func TestBuiltInInputThatHasStolenTheShardGetsWholeRecords(t *testing.T) {
	for _, test := range []struct{ acked, want lease.Position }{
		{within(4), within(3)}, // it knows nothing of places, and repeats the record
		{lease.After("7"), lease.After("7")},
		{lease.Position{Sequence: "7", Within: lease.Within{Sequence: "8", Count: 1}}, lease.After("7")},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newTable()
			s.Change(key, func(item *lease.Item) { item.Sequence, item.Within = "5", within(3).Within })
			l := take(t, s)
			s.steal()
			require.ErrorIs(t, l.Release(t.Context(), test.acked), lease.ErrLost)
			require.Equal(t, test.want, s.now().Position())
		})
	}
}
