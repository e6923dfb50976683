package lanes

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestMessagesOfOneKeyGoOneAfterTheOther(t *testing.T) {
	q := New[string, int]()
	q.Push("a", 1)
	q.Push("a", 2)
	q.Push("b", 3)
	requireNext(t, q, 1)
	requireNext(t, q, 3)
	requireNone(t, q)
	q.Done("b")
	requireNone(t, q)
	q.Done("a")
	requireNext(t, q, 2)
}

func TestOldestMessageThatMayGoIsNext(t *testing.T) {
	q := New[string, int]()
	for i, key := range []string{"hot", "hot", "b", "c", "d"} {
		q.Push(key, i)
	}
	requireNext(t, q, 0)
	requireNext(t, q, 2)
	q.Done("hot")
	requireNext(t, q, 1)
	requireNext(t, q, 3)
}

func TestMessagesThatFollowAreDoneWithAtOnce(t *testing.T) {
	q := New[string, int]()
	require.Panics(t, func() { q.Follow("a") })
	for i := range 3 {
		q.Push("a", i)
	}
	require.Panics(t, func() { q.Follow("a") })
	requireNext(t, q, 0)
	got, ok := q.Follow("a")
	require.True(t, ok)
	require.Equal(t, 1, got)
	requireNone(t, q)
	q.Done("a")
	requireNext(t, q, 2)
	_, ok = q.Follow("a")
	require.False(t, ok)
}

func TestKeyThatIsDoneWithTakesNoMemory(t *testing.T) {
	q := New[int, int]()
	for i := range 1000 {
		q.Push(i, i)
		requireNext(t, q, i)
		q.Done(i)
	}
	require.Empty(t, q.lanes)
	require.Empty(t, q.ready)
}

func TestKeyIsNotFreedTwice(t *testing.T) {
	q := New[string, int]()
	require.Panics(t, func() { q.Done("a") })
	q.Push("a", 1)
	require.Panics(t, func() { q.Done("a") })
	requireNext(t, q, 1)
	q.Push("a", 2)
	q.Done("a")
	require.Panics(t, func() { q.Done("a") })
}

func requireNext[K comparable, M any](t *testing.T, q *Queue[K, M], want M) {
	t.Helper()
	got, ok := q.Next()
	require.True(t, ok)
	require.Equal(t, want, got)
}

func requireNone[K comparable, M any](t *testing.T, q *Queue[K, M]) {
	t.Helper()
	_, ok := q.Next()
	require.False(t, ok)
}

// model is a list of all messages that are not done with, in the order in which they
// came, and answers by looking at all of it.
type model []modelled

type modelled struct {
	key      string
	message  int
	underWay bool
}

// next is the place of the first message that waits, and of whose key none is before it.
func (m model) next() int {
	seen := map[string]bool{}
	for i, one := range m {
		if !one.underWay && !seen[one.key] {
			return i
		}
		seen[one.key] = true
	}
	return -1
}

func (m model) underWay(key string) int {
	for i, one := range slices.Backward(m) {
		if one.underWay && one.key == key {
			return i
		}
	}
	return -1
}

func (m model) waiting() []int {
	waiting := []int{}
	for _, one := range m {
		if !one.underWay {
			waiting = append(waiting, one.message)
		}
	}
	return waiting
}

func TestQueueAgreesWithNaiveModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q, m, pushed := New[string, int](), model{}, 0
		keys := rapid.IntRange(1, 8).Draw(t, "keys")
		key := rapid.Custom(func(t *rapid.T) string { return fmt.Sprint(rapid.IntRange(1, keys).Draw(t, "key")) })
		t.Repeat(map[string]func(*rapid.T){
			"push": func(t *rapid.T) {
				k := key.Draw(t, "pushed")
				q.Push(k, pushed)
				m = append(m, modelled{key: k, message: pushed})
				pushed++
			},
			"next": func(t *rapid.T) {
				want := m.next()
				got, ok := q.Next()
				require.Equal(t, want >= 0, ok)
				if ok {
					require.Equal(t, m[want].message, got)
					m[want].underWay = true
				}
			},
			"done": func(t *rapid.T) {
				k := key.Draw(t, "done")
				i := m.underWay(k)
				if i < 0 {
					require.Panics(t, func() { q.Done(k) })
					return
				}
				q.Done(k)
				m = slices.DeleteFunc(m, func(one modelled) bool { return one.key == k && one.underWay })
			},
			"follow": func(t *rapid.T) {
				k := key.Draw(t, "followed")
				if m.underWay(k) < 0 {
					require.Panics(t, func() { q.Follow(k) })
					return
				}
				want := slices.IndexFunc(m, func(one modelled) bool { return one.key == k && !one.underWay })
				got, ok := q.Follow(k)
				require.Equal(t, want >= 0, ok)
				if ok {
					require.Equal(t, m[want].message, got)
					m[want].underWay = true
				}
			},
			"withdraw": func(t *rapid.T) {
				require.Equal(t, m.waiting(), q.Withdraw())
				m = slices.DeleteFunc(m, func(one modelled) bool { return !one.underWay })
			},
			"": func(t *rapid.T) {
				require.Equal(t, len(m.waiting()), q.Waiting())
				lanes := map[string]bool{}
				for _, one := range m {
					lanes[one.key] = true
				}
				require.Len(t, q.lanes, len(lanes))
				for i := range keys {
					k := fmt.Sprint(i + 1)
					message, ok := q.UnderWay(k)
					at := m.underWay(k)
					require.Equal(t, at >= 0, ok)
					if ok {
						require.Equal(t, m[at].message, message)
					}
					require.Equal(t, slices.ContainsFunc(m, func(one modelled) bool { return one.key == k && !one.underWay }), q.Followed(k))
				}
			},
		})
	})
}

func BenchmarkQueue(b *testing.B) {
	for _, keys := range []int{1, 1000, 1 << 20} {
		b.Run(fmt.Sprint(keys, " keys"), func(b *testing.B) {
			q := New[int, int]()
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				q.Push(i%keys, i)
				i++
				if q.Waiting() == 1024 {
					for message, ok := q.Next(); ok; message, ok = q.Next() {
						q.Done(message % keys)
					}
				}
			}
		})
	}
}
