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
)

// memoryTable is the table of a simulation: that of the leases in memory, and who has
// announced itself.
type memoryTable struct {
	*leasetest.Table
	mu      sync.Mutex
	clients map[string]presence
}

var _ leaseTable = (*memoryTable)(nil)

func newMemoryTable() *memoryTable {
	return &memoryTable{Table: leasetest.New(), clients: map[string]presence{}}
}

// snapshot returns all items.
func (m *memoryTable) snapshot() map[lease.Key]lease.Item {
	items := map[lease.Key]lease.Item{}
	for _, item := range m.All() {
		items[item.Key] = item
	}
	return items
}

func (*memoryTable) ensureTable(context.Context) error { return nil }

func (m *memoryTable) list(_ context.Context, stream string) ([]lease.Item, error) {
	return slices.DeleteFunc(m.All(), func(item lease.Item) bool { return item.Stream != stream }), nil
}

func (m *memoryTable) remove(ctx context.Context, seen lease.Item) (removed bool, err error) {
	return m.Remove(ctx, seen)
}

func (m *memoryTable) vacate(ctx context.Context, literal lease.Item) (lease.Item, error) {
	return m.Update(ctx, literal, leasetest.Free)
}

func (m *memoryTable) mirror(ctx context.Context, literal lease.Item, sequence string) (lease.Item, error) {
	return m.Update(ctx, literal, func(next *lease.Item) {
		next.Sequence, next.ShardStart, next.Finished = sequence, "", false
	})
}

func (m *memoryTable) present(context.Context) ([]presence, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Values(m.clients)), nil
}

func (m *memoryTable) announced(_ context.Context, client string) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, there := m.clients[client]
	return there, nil
}

func (m *memoryTable) announce(_ context.Context, p presence) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	p.Exists, p.Owner, p.Period = true, p.Shard, p.Period.Truncate(time.Millisecond)
	m.clients[p.Owner] = p
	return nil
}

func (m *memoryTable) withdraw(_ context.Context, p presence) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if now, ok := m.clients[p.Shard]; ok && now.Token == p.Token {
		delete(m.clients, p.Shard)
	}
	return nil
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
		compareTables(t, &checkpointer{api: server.DynamoDB(), table: tableConfig{name: name}}, newMemoryTable())
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
	a := func() presence {
		who := client("present")
		return presence{
			Item: lease.Item{
				Key: lease.Key{Stream: presences, Shard: who}, Owner: who, Token: token(),
				Period: 1500 * time.Microsecond,
			},
			streams: []string{"orders"},
		}
	}
	t.Repeat(map[string]func(*rapid.T){
		"claim": func(t *rapid.T) {
			item := seen()
			grant := lease.Grant{
				Link:   lease.Link{Owner: client("owner"), Term: pick("term", "1", "2"), Token: token()},
				Period: 2500 * time.Microsecond,
			}
			grant.ShardStart, grant.Pinned = pick("start of the shard", "", "3"), rapid.Bool().Draw(t, "pinned")
			grant.Anew = rapid.IntRange(0, 3).Draw(t, "anew") == 0
			if rapid.Bool().Draw(t, "timed") {
				grant.StartAt = time.Unix(int64(rapid.IntRange(1, 9).Draw(t, "start")), 5)
			}
			returning("claim", func(s leaseTable) (lease.Item, error) { return s.Claim(ctx, item, grant) })
		},
		"renew": func(*rapid.T) {
			item, next := seen(), token()
			sequence := lease.Move{From: item.Sequence, To: number()}
			returning("renew", func(s leaseTable) (lease.Item, error) { return s.Renew(ctx, item.Key, item.Link(), next, sequence) })
		},
		"release": func(*rapid.T) {
			item, sequence := seen(), number()
			both("release", func(s leaseTable) error {
				return s.Release(ctx, item.Key, item.Link(), lease.Move{From: item.Sequence, To: sequence})
			})
		},
		"finish": func(*rapid.T) {
			item, sequence := seen(), number()
			both("finish", func(s leaseTable) error {
				return s.Finish(ctx, item.Key, item.Link(), lease.Move{From: item.Sequence, To: sequence})
			})
		},
		"hand over": func(*rapid.T) {
			item, sequence := seen(), number()
			to := lease.Link{Owner: client("to"), Token: token()}
			both("hand over", func(s leaseTable) error {
				return s.HandOver(ctx, item.Key, item.Link(), lease.Move{From: item.Sequence, To: sequence}, to)
			})
		},
		"ask": func(*rapid.T) {
			item, who := seen(), client("asker")
			both("ask", func(s leaseTable) error { return s.Ask(ctx, item, who) })
		},
		"decline": func(*rapid.T) {
			item := seen()
			both("decline", func(s leaseTable) error { return s.Decline(ctx, item) })
		},
		"leave": func(*rapid.T) {
			item, sequence := seen(), number()
			both("leave", func(s leaseTable) error { return s.Leave(ctx, item, sequence) })
		},
		"remove": func(t *rapid.T) {
			item := seen()
			want, err := stored.remove(ctx, item)
			require.NoError(t, err)
			got, err := memory.remove(ctx, item)
			require.NoError(t, err)
			require.Equal(t, want, got)
		},
		"vacate": func(*rapid.T) {
			if item := seen(); item.Exists {
				returning("vacate", func(s leaseTable) (lease.Item, error) { return s.vacate(ctx, item) })
			}
		},
		"mirror": func(*rapid.T) {
			item, sequence := seen(), pick("sequence", "5", "17", "120")
			if item.Owner == "" {
				returning("mirror", func(s leaseTable) (lease.Item, error) { return s.mirror(ctx, item, sequence) })
			}
		},
		"announce": func(*rapid.T) {
			p := a()
			both("announce", func(s leaseTable) error { return s.announce(ctx, p) })
		},
		"withdraw": func(*rapid.T) {
			p := a()
			both("withdraw", func(s leaseTable) error { return s.withdraw(ctx, p) })
		},
		"": func(t *rapid.T) {
			want, err := stored.list(ctx, "orders")
			require.NoError(t, err)
			got, err := memory.list(ctx, "orders")
			require.NoError(t, err)
			require.ElementsMatch(t, want, got)
			for _, item := range want {
				got, err := memory.Get(ctx, item.Key)
				require.NoError(t, err)
				require.Equal(t, item, got)
			}
			wantClients, err := stored.present(ctx)
			require.NoError(t, err)
			gotClients, err := memory.present(ctx)
			require.NoError(t, err)
			require.ElementsMatch(t, wantClients, gotClients)
			for _, who := range []string{"a", "b", "c"} {
				want, err := stored.announced(ctx, who)
				require.NoError(t, err)
				got, err := memory.announced(ctx, who)
				require.NoError(t, err)
				require.Equal(t, want, got)
			}
		},
	})
}
