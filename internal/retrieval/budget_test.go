package retrieval

import (
	"context"
	"encoding/base64"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestBudgetIsServedInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(100)
		_, err := b.Reserve(t.Context(), 90, nil)
		require.NoError(t, err)
		var mu sync.Mutex
		var order []int
		starved := 0
		var waiters sync.WaitGroup
		for i, bytes := range []int64{50, 5, 20} {
			waiters.Go(func() {
				if _, err := b.Reserve(t.Context(), bytes, func() { starved++ }); err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				order = append(order, i)
			})
			synctest.Wait()
		}
		require.Equal(t, 3, starved)
		require.Empty(t, order, "a small one does not overtake a large one, which would starve")
		b.Release(40)
		synctest.Wait()
		require.Equal(t, []int{0}, order)
		b.Release(50)
		waiters.Wait()
		require.ElementsMatch(t, []int{0, 1, 2}, order)
	})
}

func TestTimeForWhichSomebodyWaitsIsCountedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pass := func(d time.Duration) { time.Sleep(d) } //nolint:forbidigo // virtual time
		b := NewBudget(100)
		_, err := b.Reserve(t.Context(), 95, nil)
		require.NoError(t, err)
		pass(time.Minute)
		require.Zero(t, b.Waited(), "it is nearly full, and nobody waits")

		var waiters sync.WaitGroup
		leaving, leave := context.WithCancel(t.Context())
		for i, ctx := range []context.Context{t.Context(), t.Context(), leaving} {
			waiters.Go(func() {
				if _, err := b.Reserve(ctx, 10, nil); err != nil && i < 2 {
					t.Error(err)
				}
			})
			pass(time.Second)
		}
		require.Equal(t, 3*time.Second, b.Waited(), "of three")
		b.Release(5)
		pass(time.Second)
		b.Release(10)
		pass(time.Second)
		require.Equal(t, 5*time.Second, b.Waited(), "one does still")
		leave()
		waiters.Wait()
		pass(time.Minute)
		require.Equal(t, 5*time.Second, b.Waited())
	})
}

func TestPageLargerThanTheBudgetGoesAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(100)
		_, err := b.Reserve(t.Context(), 1, nil)
		require.NoError(t, err)
		got := make(chan int64, 1)
		go func() {
			bytes, err := b.Reserve(t.Context(), fullPage, nil)
			if err != nil {
				t.Error(err)
			}
			got <- bytes
		}()
		synctest.Wait()
		require.Empty(t, got)
		b.Release(1)
		require.EqualValues(t, 100, <-got)
	})
}

func TestOverdraftIsPaidBackFirst(t *testing.T) {
	b := NewBudget(100)
	bytes, err := b.Reserve(t.Context(), 50, nil)
	require.NoError(t, err)
	b.Release(bytes - 500) // the page was larger
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = b.Reserve(ctx, 1, nil)
	require.ErrorIs(t, err, context.Canceled)
	b.Release(500)
	bytes, err = b.Reserve(t.Context(), 100, nil)
	require.NoError(t, err)
	require.EqualValues(t, 100, bytes)
}

func TestBudgetIsWholeAgainWhateverWasCancelled(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		limit := rapid.Int64Range(1, 1000).Draw(rt, "limit")
		seed := rapid.Uint64().Draw(rt, "seed")
		synctest.Test(t, func(t *testing.T) {
			b := NewBudget(limit)
			var readers sync.WaitGroup
			for i := range 20 {
				readers.Go(func() {
					random := rand.New(rand.NewPCG(seed, uint64(i)))
					for range 20 {
						ctx, cancel := context.WithTimeout(t.Context(), time.Duration(random.IntN(20))*time.Millisecond)
						bytes, err := b.Reserve(ctx, random.Int64N(2*limit), nil)
						if err == nil {
							pause := time.NewTimer(time.Duration(random.IntN(10)) * time.Millisecond)
							<-pause.C
							b.Release(bytes)
						}
						cancel()
					}
				})
			}
			readers.Wait()
			require.Equal(t, limit, b.free)
			require.Empty(t, b.waiting)
		})
	})
}

func TestLargestRecordFitsIntoAFullPage(t *testing.T) {
	const data, others = 10 << 20, 1 << 10 // bytes of the record, and of its other members and the answer's
	answer := int64(base64.StdEncoding.EncodedLen(data) + others)
	require.LessOrEqual(t, memoryOf(answer, 1), int64(fullPage), "or each is given up when others wait, and read twice")
}

func TestBudgetIsOverdrawnOnlyBeyondItsLimit(t *testing.T) {
	b := NewBudget(10)
	for bytes, overdrawn := range map[int64]bool{0: false, 10: false, 11: true} {
		b.Release(-bytes)
		require.Equal(t, overdrawn, b.Overdrawn(), bytes)
		b.Release(bytes)
	}
}
