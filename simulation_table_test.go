package awskinesis

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/lease/leasetest"
	"github.com/benthos-plugins/aws-kinesis/internal/table"
)

// memoryTable is the table of a simulation, in memory. Reads that are not consistent
// show it as it was a while ago.
type memoryTable struct {
	*leasetest.Table
	// lag is how old what such a read shows is; nil for no time at all.
	lag func() time.Duration

	mu sync.Mutex // taken within the lock of the table
	// What was there before each write of late, oldest first.
	items   []past[lease.Item]
	members []past[lease.Member]
}

// past is what was there until a time.
type past[T any] struct {
	until time.Time
	was   T
}

// mostLag bounds the lag.
const mostLag = 2 * time.Second

var _ leaseTable = (*memoryTable)(nil)

func newMemoryTable() *memoryTable {
	m := &memoryTable{Table: leasetest.New()}
	m.Wrote = func(before, _ lease.Item) { m.remember(before) }
	m.Beaten = func(before, after lease.Member) { m.rememberMember(before, after) }
	return m
}

func (m *memoryTable) remember(before lease.Item) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.items = append(recent(m.items), past[lease.Item]{time.Now(), before})
}

func (m *memoryTable) rememberMember(before, after lease.Member) {
	if before.ID == "" {
		before = lease.Member{ID: after.ID} // and no token: there was none
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.members = append(recent(m.members), past[lease.Member]{time.Now(), before})
}

func recent[T any](all []past[T]) []past[T] {
	if len(all) < 1000 || time.Since(all[len(all)/2].until) < mostLag {
		return all
	}
	return slices.Clone(all[len(all)/2:])
}

// snapshot returns all items.
func (m *memoryTable) snapshot() map[lease.Key]lease.Item {
	items := map[lease.Key]lease.Item{}
	for _, item := range m.All() {
		items[item.Key] = item
	}
	return items
}

func (m *memoryTable) at() time.Time {
	if m.lag == nil {
		return time.Now()
	}
	return time.Now().Add(-m.lag())
}

func (*memoryTable) ensureTable(context.Context) (bool, error) { return false, nil }

func (m *memoryTable) List(_ context.Context, stream string, consistent bool) (table.ItemList, error) {
	items := m.snapshot()
	if at := m.at(); !consistent {
		m.mu.Lock()
		for i := len(m.items) - 1; i >= 0 && m.items[i].until.After(at); i-- {
			was := m.items[i].was
			if items[was.Key] = was; !was.Exists {
				delete(items, was.Key)
			}
		}
		m.mu.Unlock()
	}
	var l table.ItemList
	for _, item := range items {
		if item.Stream == stream {
			l.Items = append(l.Items, item)
			l.Size += sizeOfSimulated(item)
		}
	}
	return l, nil
}

// sizeOfSimulated is about the size of an item in a real table, with one stream of a
// short name.
func sizeOfSimulated(item lease.Item) int {
	names := len(attrStream+attrShard+attrSequence+attrOwner+attrToken+attrTerm+attrNumber) + 3
	return names + len(item.Stream) + len(item.Shard) + 56 + 2*len(item.Owner) + 1 + len(item.Token) + len(item.Term)
}

func (m *memoryTable) ListMembers(_ context.Context, consistent bool) ([]lease.Member, error) {
	members := map[string]lease.Member{}
	for _, one := range m.Members() {
		members[one.ID] = one
	}
	at := m.at()
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := len(m.members) - 1; !consistent && i >= 0 && m.members[i].until.After(at); i-- {
		was := m.members[i].was
		if members[was.ID] = was; was.Token == "" {
			delete(members, was.ID)
		}
	}
	return slices.Collect(maps.Values(members)), nil
}

func (m *memoryTable) RemoveItem(ctx context.Context, seen lease.Item) (removed bool, err error) {
	return m.Delete(ctx, seen)
}

func (m *memoryTable) Vacate(ctx context.Context, seen lease.Item) (lease.Item, error) {
	return m.Update(ctx, seen, leasetest.Free)
}

func (m *memoryTable) Mirror(ctx context.Context, literal lease.Item, sequence string) (lease.Item, error) {
	return m.Update(ctx, literal, func(next *lease.Item) {
		next.Sequence, next.Within, next.ShardStart, next.Finished, next.CutAt = sequence, lease.Within{}, "", false, time.Time{}
	})
}

// What a simulation says of the table holds for the real one as long as the two
// cannot be told apart by anything that clients of this package do.
func TestTableOfTheSimulationIsTheCheckpointers(t *testing.T) {
	server := awsfake.New(awsfake.Options{ItemsPerPage: 2})
	defer func() { require.NoError(t, server.Close()) }()
	tables := 0
	rapid.Check(t, func(t *rapid.T) {
		tables++
		name := fmt.Sprint("table-", tables)
		require.NoError(t, server.CreateTable(name, attrStream, attrShard))
		group := rapid.SampledFrom([]string{"", "a"}).Draw(t, "group")
		compareTables(t, newCheckpointer(server.DynamoDB(), tableConfig{name: name}, group), newMemoryTable())
	})
}

func compareTables(t *rapid.T, stored, memory leaseTable) {
	ctx := t.Context()
	pick := func(label string, from ...string) string { return rapid.SampledFrom(from).Draw(t, label) }
	client := func(label string) string { return pick(label, "a", "b", "c") }
	number := func() string { return pick("sequence", "", "5", "17", "120") }
	sameError := func(op string, want, got error) {
		if want != nil || got != nil {
			require.ErrorIs(t, want, lease.ErrConflict, op)
			require.ErrorIs(t, got, lease.ErrConflict, op)
		}
	}
	position := func() lease.Position {
		p := lease.After(number())
		if rapid.IntRange(0, 2).Draw(t, "inside") == 0 {
			p.Within = lease.Within{Sequence: pick("record", "6", "18", "121"), Count: rapid.IntRange(1, 3).Draw(t, "count")}
		}
		return p
	}
	moveOf := func(item lease.Item) lease.Move {
		m := lease.Move{From: item.Position(), To: position()}
		if rapid.IntRange(0, 3).Draw(t, "stays") == 0 {
			m.To = m.From
		}
		if rapid.Bool().Draw(t, "timed") {
			m.UpTo = time.Unix(int64(rapid.IntRange(1, 9).Draw(t, "up to")), 7)
		}
		return m
	}
	key := func() lease.Key { return lease.Key{Stream: "orders", Shard: pick("shard", "s0", "s1", "s2")} }
	// An item as it is, as it was, or as it never was.
	var history []lease.Item
	seen := func() lease.Item {
		item, err := stored.Get(ctx, key())
		require.NoError(t, err)
		if len(history) > 0 && rapid.IntRange(0, 2).Draw(t, "stale") == 0 {
			return rapid.SampledFrom(history).Draw(t, "past")
		}
		return item
	}
	tokens := 0
	token := func() string {
		tokens++
		return fmt.Sprint("token-", rapid.IntRange(max(1, tokens-2), tokens).Draw(t, "token"))
	}
	both := func(op string, do func(leaseTable) error) { sameError(op, do(stored), do(memory)) }
	returning := func(op string, do func(leaseTable) (lease.Item, error)) {
		want, wantErr := do(stored)
		got, gotErr := do(memory)
		sameError(op, wantErr, gotErr)
		require.Equal(t, want, got, op)
		if wantErr == nil {
			history = append(history, want)
		}
	}
	// A member as it is, and with what it may say next.
	next := func() lease.Member {
		m := lease.Member{ID: client("member"), Token: token(), Period: 1500 * time.Microsecond}
		m.Changes = int64(rapid.IntRange(0, 3).Draw(t, "changes"))
		if rapid.Bool().Draw(t, "shares") {
			m.Streams = []string{"orders"}
		}
		if rapid.Bool().Draw(t, "asks") {
			m.Requests = map[string]int{client("asked"): rapid.IntRange(1, 9).Draw(t, "number")}
		}
		if rapid.Bool().Draw(t, "tells starts") {
			m.Starts = map[string]time.Time{"orders": {}, "payments": time.Unix(int64(rapid.IntRange(1, 9).Draw(t, "start")), 5).UTC()}
		}
		return m
	}
	t.Repeat(map[string]func(*rapid.T){
		"claim": func(t *rapid.T) {
			item := seen()
			grant := lease.Grant{
				Link: lease.Link{Owner: client("owner"), Term: pick("term", "1", "2"), Token: token()},
			}
			grant.ShardStart, grant.Pinned = pick("start of the shard", "", "3"), rapid.Bool().Draw(t, "pinned")
			grant.Position = position()
			grant.Anew = rapid.IntRange(0, 3).Draw(t, "anew") == 0
			if rapid.Bool().Draw(t, "timed") {
				grant.StartAt = time.Unix(int64(rapid.IntRange(1, 9).Draw(t, "start")), 5)
			}
			returning("claim", func(s leaseTable) (lease.Item, error) { return s.Claim(ctx, item, grant) })
		},
		"renew": func(*rapid.T) {
			item, next := seen(), token()
			sequence := moveOf(item)
			returning("renew", func(s leaseTable) (lease.Item, error) { return s.Renew(ctx, item.Key, item.Link(), next, sequence) })
		},
		"release": func(*rapid.T) {
			item := seen()
			sequence := moveOf(item)
			both("release", func(s leaseTable) error {
				return s.Release(ctx, item.Key, item.Link(), sequence)
			})
		},
		"finish": func(*rapid.T) {
			item := seen()
			sequence := moveOf(item)
			both("finish", func(s leaseTable) error {
				return s.Finish(ctx, item.Key, item.Link(), sequence)
			})
		},
		"cut": func(t *rapid.T) {
			item := seen()
			sequence, end := moveOf(item), time.Unix(int64(rapid.IntRange(1, 9).Draw(t, "end")), 5)
			both("cut", func(s leaseTable) error {
				return s.Cut(ctx, item.Key, item.Link(), sequence, end)
			})
		},
		"hand over": func(*rapid.T) {
			item := seen()
			sequence := moveOf(item)
			to := lease.Link{Owner: client("to"), Term: pick("term", "1", "2"), Token: token()}
			both("hand over", func(s leaseTable) error {
				return s.HandOver(ctx, item.Key, item.Link(), sequence, to)
			})
		},
		"yield": func(*rapid.T) {
			item, sequence := seen(), number()
			both("yield", func(s leaseTable) error { return s.Yield(ctx, item, sequence) })
		},
		"remove": func(t *rapid.T) {
			item := seen()
			want, err := stored.RemoveItem(ctx, item)
			require.NoError(t, err)
			got, err := memory.RemoveItem(ctx, item)
			require.NoError(t, err)
			require.Equal(t, want, got)
		},
		"vacate": func(*rapid.T) {
			if item := seen(); item.Exists {
				returning("vacate", func(s leaseTable) (lease.Item, error) { return s.Vacate(ctx, item) })
			}
		},
		"mirror": func(*rapid.T) {
			item, sequence := seen(), pick("sequence", "5", "17", "120")
			if item.Owner == "" {
				returning("mirror", func(s leaseTable) (lease.Item, error) { return s.Mirror(ctx, item, sequence) })
			}
		},
		"join": func(*rapid.T) {
			m := next()
			both("join", func(s leaseTable) error { return s.Join(ctx, m) })
		},
		"beat": func(*rapid.T) {
			m, at := next(), token()
			both("beat", func(s leaseTable) error { return s.Beat(ctx, m, at) })
		},
		"evict": func(*rapid.T) {
			m := next()
			both("evict", func(s leaseTable) error { return s.Evict(ctx, m) })
		},
		"remove a member": func(*rapid.T) {
			m := next()
			both("remove", func(s leaseTable) error { return s.Remove(ctx, m) })
		},
		"": func(t *rapid.T) {
			for _, consistent := range []bool{true, false} {
				want, err := stored.List(ctx, "orders", consistent)
				require.NoError(t, err)
				got, err := memory.List(ctx, "orders", consistent)
				require.NoError(t, err)
				require.ElementsMatch(t, want.Items, got.Items)
				for _, item := range want.Items {
					got, err := memory.Get(ctx, item.Key)
					require.NoError(t, err)
					require.Equal(t, item, got)
				}
			}
			want, err := stored.ListMembers(ctx, true)
			require.NoError(t, err)
			got, err := memory.ListMembers(ctx, false)
			require.NoError(t, err)
			require.ElementsMatch(t, want, got)
			for _, who := range []string{"a", "b", "c"} {
				want, wantThere, err := stored.Member(ctx, who)
				require.NoError(t, err)
				got, gotThere, err := memory.Member(ctx, who)
				require.NoError(t, err)
				require.Equal(t, want, got)
				require.Equal(t, wantThere, gotThere)
			}
		},
	})
}
