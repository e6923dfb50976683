package inflight

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestPositionWaitsForTheOldestBatch(t *testing.T) {
	w := New[string](10)
	a, b, c := w.Add(1, "a"), w.Add(1, "b"), w.Add(1, "c")

	require.False(t, w.Ack(c))
	require.False(t, w.Ack(b))
	_, ok := w.Acked()
	require.False(t, ok, "nothing may be committed while the first batch is out")

	require.True(t, w.Ack(a))
	got, ok := w.Acked()
	require.True(t, ok)
	require.Equal(t, "c", got)
	require.True(t, w.Empty())
}

func TestAcknowledgingTwiceMovesNothing(t *testing.T) {
	w := New[int](10)
	a, b := w.Add(2, 1), w.Add(3, 2)
	require.True(t, w.Ack(a))
	require.False(t, w.Ack(a))
	require.Equal(t, 3, w.Held())
	require.True(t, w.Ack(b))
	require.False(t, w.Ack(b))
	require.False(t, w.Ack(b+1), "an id never given out")
	require.Zero(t, w.Held())
}

func TestLimitOfOneIsLockStep(t *testing.T) {
	w := New[int](1)
	require.True(t, w.Fits(1))
	id := w.Add(1, 1)
	require.False(t, w.Fits(1))
	w.Ack(id)
	require.True(t, w.Fits(1))
}

func TestBatchLargerThanTheLimitGoesAlone(t *testing.T) {
	w := New[int](5)
	require.True(t, w.Fits(50))
	id := w.Add(50, 1)
	require.False(t, w.Fits(1))
	w.Ack(id)
	small := w.Add(1, 2)
	require.False(t, w.Fits(50), "not beside another batch")
	w.Ack(small)
	require.True(t, w.Fits(50))
}

func TestOnlyTheNewestBatchMayBeWithdrawn(t *testing.T) {
	w := New[int](10)
	a, b := w.Add(1, 1), w.Add(1, 2)
	require.Panics(t, func() { w.Withdraw(a) })
	w.Withdraw(b)
	w.Ack(a)
	require.True(t, w.Empty())
	require.Panics(t, func() { w.Withdraw(a) })
}

func TestLimitBelowOneIsRefused(t *testing.T) {
	require.Panics(t, func() { New[int](0) })
}

func TestWhatIsPassedWaitsForTheBatchesBeforeIt(t *testing.T) {
	w := New[int](1)
	require.True(t, w.Pass(1), "there is nothing to wait for")
	id := w.Add(1, 2)
	for position := 3; position < 100; position++ {
		require.False(t, w.Pass(position))
	}
	require.Equal(t, 1, w.Held())
	got, _ := w.Acked()
	require.Equal(t, 1, got)
	require.True(t, w.Ack(id))
	got, _ = w.Acked()
	require.Equal(t, 99, got)
	require.True(t, w.Empty())
}

// model keeps everything that ever entered and answers by looking at all of it.
type model struct {
	sizes     []int
	positions []int
	acked     []bool
	newest    int // position that anything was at
	begin     int // position before the first batch; 0 for none
}

// next returns the position after the newest.
func (m *model) next() int {
	m.newest++
	return m.newest
}

// position returns that which may be committed; 0 for none.
func (m *model) position() int {
	if n := m.committed(); n > 0 {
		return m.positions[n-1]
	}
	return m.begin
}

func (m *model) committed() int {
	n := 0
	for n < len(m.acked) && m.acked[n] {
		n++
	}
	return n
}

func (m *model) held() int {
	total := 0
	for _, size := range m.sizes[m.committed():] {
		total += size
	}
	return total
}

func TestWindowAgreesWithNaiveModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(1, 20).Draw(t, "limit")
		w, m := New[int](limit), &model{}
		var ids []uint64
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				n := rapid.IntRange(1, 25).Draw(t, "messages")
				fits := m.held() == 0 || m.held()+n <= limit
				require.Equal(t, fits, w.Fits(n))
				if !fits {
					return
				}
				position := m.next()
				ids = append(ids, w.Add(n, position))
				require.Len(t, slices.Compact(slices.Clone(ids)), len(ids))
				m.sizes, m.positions, m.acked = append(m.sizes, n), append(m.positions, position), append(m.acked, false)
			},
			"pass": func(t *rapid.T) {
				before, position := m.position(), m.next()
				if last := len(ids) - 1; last >= 0 {
					m.positions[last] = position
				} else {
					m.begin = position
				}
				require.Equal(t, m.position() != before, w.Pass(position))
			},
			"ack": func(t *rapid.T) {
				if len(ids) == 0 {
					return
				}
				i := rapid.IntRange(0, len(ids)-1).Draw(t, "batch")
				before := m.committed()
				m.acked[i] = true
				require.Equal(t, m.committed() != before, w.Ack(ids[i]))
			},
			"withdraw": func(*rapid.T) {
				last := len(ids) - 1
				if last < 0 || m.acked[last] {
					return
				}
				w.Withdraw(ids[last])
				ids, m.sizes, m.positions, m.acked = ids[:last], m.sizes[:last], m.positions[:last], m.acked[:last]
			},
			"": func(t *rapid.T) {
				require.Equal(t, m.held(), w.Held())
				require.Equal(t, m.held() == 0, w.Empty())
				position, ok := w.Acked()
				require.Equal(t, m.position() > 0, ok)
				require.Equal(t, m.position(), position)
			},
		})
	})
}

func BenchmarkWindow(b *testing.B) {
	b.ReportAllocs()
	w := New[string](1024)
	for b.Loop() {
		w.Ack(w.Add(1, "49590338271490256608559692538361571095921575989136588898"))
	}
}
