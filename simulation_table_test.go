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
)

// memoryTable is the table of a simulation: the checkpointer with its conditions,
// without the expressions, the SDK and the service. It is for clients of this
// package alone, so that no attribute is ever stale.
type memoryTable struct {
	mu      sync.Mutex
	items   map[lease.Key]lease.Item
	clients map[string]presence
	// wrote is told of each change of an item, under the lock.
	wrote func(before, after lease.Item)
}

var _ leaseTable = (*memoryTable)(nil)

func newMemoryTable() *memoryTable {
	return &memoryTable{
		items: map[lease.Key]lease.Item{}, clients: map[string]presence{},
		wrote: func(lease.Item, lease.Item) {},
	}
}

// change makes one conditional write.
func (m *memoryTable) change(key lease.Key, allowed func(now lease.Item) bool, write func(*lease.Item)) (lease.Item, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now, exists := m.items[key]
	if !exists {
		now.Key = key
	}
	if !allowed(now) {
		return lease.Item{}, lease.ErrConflict
	}
	next := now
	next.Exists = true
	write(&next)
	m.items[key] = next
	m.wrote(now, next)
	return next, nil
}

func (m *memoryTable) Get(_ context.Context, key lease.Key) (lease.Item, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if item, exists := m.items[key]; exists {
		return item, nil
	}
	return lease.Item{Key: key}, nil
}

// asSeen is the condition of that name of the checkpointer.
func asSeenInMemory(seen lease.Item) func(now lease.Item) bool {
	return func(now lease.Item) bool {
		switch {
		case !seen.Exists:
			return !now.Exists
		case seen.Owner == "":
			return now.Exists && now.Owner == "" && now.Sequence == seen.Sequence && now.Finished == seen.Finished
		}
		return now.Owner == seen.Owner && now.Token == seen.Token
	}
}

func (m *memoryTable) Claim(_ context.Context, seen lease.Item, grant lease.Grant) (lease.Item, error) {
	allowed := func(now lease.Item) bool {
		return asSeenInMemory(seen)(now) && (!grant.Anew || seen.Sequence == "" || now.Sequence == seen.Sequence)
	}
	return m.change(seen.Key, allowed, func(next *lease.Item) {
		if grant.Anew {
			next.Sequence = ""
		}
		next.Owner, next.Term, next.Token = grant.Owner, grant.Term, grant.Token
		next.Period = grant.Period.Truncate(time.Millisecond)
		next.Wanted, next.Finished = "", false
		next.Pinned, next.ShardStart = grant.Pinned, ""
		if (grant.Anew || seen.Sequence == "") && next.Sequence == "" {
			next.ShardStart = grant.ShardStart
		}
		if next.StartAt.IsZero() && !grant.StartAt.IsZero() {
			next.StartAt = grant.StartAt.UTC().Round(0)
		}
	})
}

// moved makes an item what it is after a write of a sequence: what tells the shard
// of an item without one is of use no more.
func moved(next *lease.Item, sequence lease.Move) {
	if sequence.From != sequence.To {
		next.ShardStart = ""
	}
	next.Sequence = sequence.To
}

// ours reports whether an item has an owner of this package, with a term or yet to
// begin one.
func ours(item lease.Item) bool { return item.Owner != "" && (item.Term != "" || item.Period != 0) }

// at is the condition that an item is at a link, which that of another owner has not.
func at(link lease.Link) func(lease.Item) bool {
	return func(now lease.Item) bool { return ours(now) && now.Link() == link }
}

// atWith is at for a write that moves the sequence.
func atWith(link lease.Link, sequence lease.Move) func(lease.Item) bool {
	return func(now lease.Item) bool { return at(link)(now) && now.Sequence == sequence.From }
}

func (m *memoryTable) Renew(_ context.Context, key lease.Key, link lease.Link, token string, sequence lease.Move) (lease.Item, error) {
	if sequence.From == sequence.To {
		return m.change(key, at(link), func(next *lease.Item) { next.Token = token })
	}
	return m.change(key, atWith(link, sequence), func(next *lease.Item) {
		next.Token = token
		moved(next, sequence)
	})
}

// freed is what is left of an item when its owner has let go of it.
func freedItem(now lease.Item) lease.Item {
	now.Owner, now.Term, now.Token, now.Period, now.Wanted = "", "", "", 0, ""
	return now
}

func (m *memoryTable) Release(_ context.Context, key lease.Key, link lease.Link, sequence lease.Move) error {
	_, err := m.change(key, atWith(link, sequence), func(next *lease.Item) {
		moved(next, sequence)
		*next = freedItem(*next)
	})
	return err
}

func (m *memoryTable) Finish(_ context.Context, key lease.Key, link lease.Link, sequence lease.Move) error {
	_, err := m.change(key, atWith(link, sequence), func(next *lease.Item) {
		moved(next, sequence)
		*next = freedItem(*next)
		next.Finished = true
	})
	return err
}

func (m *memoryTable) HandOver(_ context.Context, key lease.Key, link lease.Link, sequence lease.Move, to lease.Link) error {
	_, err := m.change(key, atWith(link, sequence), func(next *lease.Item) {
		moved(next, sequence)
		next.Owner, next.Term, next.Token, next.Wanted = to.Owner, "", to.Token, ""
		next.Pinned = false
	})
	return err
}

func (m *memoryTable) Ask(_ context.Context, seen lease.Item, client string) error {
	_, err := m.change(seen.Key, wantedAsSeen(seen), func(next *lease.Item) { next.Wanted = client })
	return err
}

func (m *memoryTable) Decline(_ context.Context, seen lease.Item) error {
	_, err := m.change(seen.Key, wantedAsSeen(seen), func(next *lease.Item) { next.Wanted = "" })
	return err
}

func wantedAsSeen(seen lease.Item) func(lease.Item) bool {
	return func(now lease.Item) bool {
		return ours(now) && now.Owner == seen.Owner && now.Term == seen.Term && now.Wanted == seen.Wanted
	}
}

func (m *memoryTable) Leave(_ context.Context, taken lease.Item, sequence string) error {
	notMoved := func(now lease.Item) bool {
		return now.Owner != "" && now.Owner == taken.Owner && now.Token == taken.Token && now.Sequence == taken.Sequence
	}
	_, err := m.change(taken.Key, notMoved, func(next *lease.Item) { next.Sequence, next.ShardStart = sequence, "" })
	return err
}

func (*memoryTable) ensureTable(context.Context) error { return nil }

func (m *memoryTable) list(_ context.Context, stream string) ([]lease.Item, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	items := make([]lease.Item, 0, len(m.items))
	for key, item := range m.items {
		if key.Stream == stream {
			items = append(items, item)
		}
	}
	return items, nil
}

func (m *memoryTable) remove(_ context.Context, seen lease.Item) (removed bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.items[seen.Key]
	if !seen.Exists || !asSeenInMemory(seen)(now) {
		return false, nil
	}
	delete(m.items, seen.Key)
	m.wrote(now, lease.Item{Key: seen.Key})
	return true, nil
}

func (m *memoryTable) vacate(_ context.Context, literal lease.Item) (lease.Item, error) {
	return m.change(literal.Key, asSeenInMemory(literal), func(next *lease.Item) { *next = freedItem(*next) })
}

func (m *memoryTable) mirror(_ context.Context, literal lease.Item, sequence string) (lease.Item, error) {
	return m.change(literal.Key, asSeenInMemory(literal), func(next *lease.Item) {
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
