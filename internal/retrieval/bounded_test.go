package retrieval_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
	"github.com/benthos-plugins/aws-kinesis/internal/retrieval"
)

// bounded reads the shard up to a moment, and returns what came until it ended.
func bounded(t *testing.T, s *awsfake.Server, end time.Time, budget *retrieval.Budget) (got []string, last retrieval.Page, b *retrieval.Bounded) {
	t.Helper()
	at := retrieval.Shard{Stream: stream, ID: shard}
	l := lists(s)
	source := retrieval.NewPoller(client(s), l, at, retrieval.Position{}, budget, 0, retrieval.Hooks{})
	b = retrieval.NewBounded(source, l, at, end, budget, func() time.Duration { return 0 })
	for {
		page, err := b.Next(t.Context())
		require.NoError(t, err)
		for _, r := range page.Records {
			got = append(got, string(r.Data))
			budget.Release(retrieval.Cost(&r))
		}
		if page.End {
			return got, page, b
		}
	}
}

func TestBoundedSourceEndsBeforeTheFirstRecordAfterItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, awsfake.Options{})
		put(t, s, 0, 3)
		end := time.Now()
		pass(time.Millisecond)
		put(t, s, 3, 3)
		budget := retrieval.NewBudget(1 << 30)
		begun := time.Now()
		got, last, _ := bounded(t, s, end, budget)
		require.Equal(t, records(0, 3), got)
		require.True(t, last.Cut)
		require.Empty(t, last.Children)
		require.Less(t, time.Since(begun), 2*time.Second)
		require.Zero(t, budget.Held(), "what was left out is given back")
	})
}

func TestBoundedSourceEndsOfAShardThatHasNothing(t *testing.T) {
	for name, records := range map[string]int{"no record": 0, "some before the end": 3} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := start(t, awsfake.Options{})
				put(t, s, 0, records)
				pass(time.Minute)
				end := time.Now()
				budget := retrieval.NewBudget(1 << 30)
				got, last, _ := bounded(t, s, end, budget)
				require.Len(t, got, records)
				require.True(t, last.Cut)
				require.Greater(t, time.Since(end), 5*time.Second, "a record may come yet")
				require.Less(t, time.Since(end), 12*time.Second)
				require.Equal(t, 1, s.Calls("ListShards")-1, "one beside that of the start")
				require.Zero(t, budget.Held())
			})
		})
	}
}

func TestBoundedSourceReadsAClosedShardToItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, awsfake.Options{})
		put(t, s, 0, 3)
		_, _, err := s.Split(stream, shard)
		require.NoError(t, err)
		pass(time.Hour)
		got, last, _ := bounded(t, s, time.Now(), retrieval.NewBudget(1<<30))
		require.Equal(t, records(0, 3), got)
		require.False(t, last.Cut)
		require.Len(t, last.Children, 2)
	})
}

// pages is a source that hands out what a test has put into it, and then pages without
// records, at the tip.
type pages struct {
	next   []retrieval.Page
	closed bool
	err    error
}

func (p *pages) Next(ctx context.Context) (retrieval.Page, error) {
	if p.err != nil {
		return retrieval.Page{}, p.err
	}
	if len(p.next) > 0 {
		page := p.next[0]
		p.next = p.next[1:]
		return page, nil
	}
	pass(time.Second)
	return retrieval.Page{ReadTo: time.Now()}, ctx.Err()
}

func (p *pages) Close() { p.closed = true }

// A shard that is closed and was read to its tip may not say yet that it has ended. Its
// children may have begun before the end.
func TestBoundedSourceDoesNotEndOfAClosedShardAtItsTip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, awsfake.Options{})
		_, _, err := s.Split(stream, shard)
		require.NoError(t, err)
		at := retrieval.Shard{Stream: stream, ID: shard}
		source := &pages{}
		b := retrieval.NewBounded(source, lists(s), at, time.Now().Add(time.Minute), retrieval.NewBudget(1<<30), func() time.Duration { return 0 })
		for range 180 {
			page, err := b.Next(t.Context())
			require.NoError(t, err)
			require.False(t, page.End)
		}
		require.LessOrEqual(t, s.Calls("ListShards"), 24, "it asks every five seconds at most")

		gone := errors.New("gone")
		source.err = gone
		_, err = b.Next(t.Context())
		require.ErrorIs(t, err, gone)
		b.Close()
		require.True(t, source.closed)
	})
}

func TestBoundedSourceEndsByTheClockOfTheServiceAlone(t *testing.T) {
	for name, offset := range map[string]time.Duration{"service ahead": time.Hour, "service behind": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := awsfake.New(awsfake.Options{}) // limits do not bear a clock that goes back
				defer func() { require.NoError(t, s.Close()) }()
				s.SetClockOffset(offset)
				require.NoError(t, s.CreateStream(stream, 1))
				now := time.Now().Add(offset) // by the service
				at := retrieval.Shard{Stream: stream, ID: shard}
				// The skew is not known yet, and the end seems to be long past.
				b := retrieval.NewBounded(&pages{}, lists(s), at, now.Add(30*time.Second), retrieval.NewBudget(1<<30), func() time.Duration { return max(0, -2*offset) })
				begun := time.Now()
				for {
					page, err := b.Next(t.Context())
					require.NoError(t, err)
					if page.End {
						break
					}
					require.Less(t, time.Since(begun), 3*time.Hour)
				}
				require.Greater(t, time.Since(begun), 35*time.Second)
			})
		})
	}
}

// What was read before the shard was found to be open says nothing of what came meanwhile.
func TestBoundedSourceDoesNotEndOfAPageFromBeforeItsList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, awsfake.Options{})
		pass(time.Hour)
		at := retrieval.Shard{Stream: stream, ID: shard}
		source := &pages{next: slices.Repeat([]retrieval.Page{{ReadTo: time.Now()}}, 10)}
		pass(time.Second)
		b := retrieval.NewBounded(source, lists(s), at, time.Now().Add(-time.Minute), retrieval.NewBudget(1<<30), func() time.Duration { return 0 })
		for i := range 11 {
			page, err := b.Next(t.Context())
			require.NoError(t, err)
			require.Equal(t, i == 10, page.End, i)
		}
	})
}

func TestBoundedSourceDoesNotEndOfAPageThatIsBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, awsfake.Options{})
		pass(time.Hour)
		at := retrieval.Shard{Stream: stream, ID: shard}
		behind := retrieval.Page{ReadTo: time.Now(), Behind: time.Millisecond}
		unknown := retrieval.Page{}
		source := &pages{next: slices.Repeat([]retrieval.Page{behind, unknown}, 50)}
		b := retrieval.NewBounded(source, lists(s), at, time.Now().Add(-time.Minute), retrieval.NewBudget(1<<30), func() time.Duration { return 0 })
		for range 100 {
			page, err := b.Next(t.Context())
			require.NoError(t, err)
			require.False(t, page.End)
		}
		require.Zero(t, s.Calls("ListShards"))
		for range 3 {
			page, err := b.Next(t.Context())
			require.NoError(t, err)
			if page.End {
				return
			}
		}
		require.Fail(t, "it has not ended")
	})
}
