package leases_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/leases"
	"github.com/benthos-plugins/aws-kinesis/internal/table"
)

// Each reason is staged in the table, by the writes that an input makes.
func TestShardIsExplained(t *testing.T) {
	for name, c := range map[string]struct {
		// on brings it about, and returns the view to judge.
		on    func(s *stage) leases.View
		shard int
		state leases.State
		codes []leases.Code
		says  string
	}{
		"read": {
			on: func(s *stage) leases.View {
				s.join("a", "orders")
				s.claim("a", 0)
				return s.after(period, s.reader("orders"), "a")
			},
			state: leases.Reading, codes: []leases.Code{leases.CodeRead}, says: "Client a reads it",
		},
		"not watched yet": {
			on: func(s *stage) leases.View {
				s.join("a", "orders")
				s.claim("a", 0)
				return s.view(s.reader("orders"))
			},
			state: leases.Reading, codes: []leases.Code{leases.CodeUnproven}, says: "at 2000-01-01T00:00:15Z at the earliest",
		},
		"owner suspended": {
			on: func(s *stage) leases.View {
				s.join("a", "orders")
				s.claim("a", 0)
				return s.after(period/2, s.reader("orders"))
			},
			state: leases.Reading, codes: []leases.Code{leases.CodeLate}, says: "no heartbeat for 10s",
		},
		"owner dead": {
			on: func(s *stage) leases.View {
				s.join("a", "orders")
				s.join("b", "orders")
				s.claim("a", 0)
				return s.after(period+time.Second, s.reader("orders"), "b")
			},
			state: leases.Orphaned, codes: []leases.Code{leases.CodeDead}, says: "client a, is dead",
		},
		"owner dead, and nobody else there": {
			on: func(s *stage) leases.View {
				s.join("a", "orders")
				s.claim("a", 0)
				return s.after(period+time.Second, s.reader("orders"))
			},
			state: leases.Orphaned, codes: []leases.Code{leases.CodeDead, leases.CodeNobody}, says: "Start an instance that reads this stream.\nNo member is in the group that may live",
		},
		"owner gone": {
			on: func(s *stage) leases.View {
				s.join("a", "orders")
				s.claim("a", 0)
				require.NoError(s, s.table.Evict(s.Context(), s.beat["a"]))
				return s.view(s.reader("orders"))
			},
			state: leases.Orphaned, codes: []leases.Code{leases.CodeGone, leases.CodeNobody}, says: "was evicted",
		},
		"owner left without a word": {
			on: func(s *stage) leases.View {
				s.join("a", "orders")
				s.join("b", "orders")
				s.claim("a", 0)
				require.NoError(s, s.table.Remove(s.Context(), s.beat["a"]))
				return s.view(s.reader("orders"))
			},
			state: leases.Orphaned, codes: []leases.Code{leases.CodeGone}, says: "client a, has left the group",
		},
		"nobody in the group": {
			on:    func(s *stage) leases.View { return s.view(s.reader("orders")) },
			state: leases.Free, codes: []leases.Code{leases.CodeNobody}, says: "No member",
		},
		"nobody shares the stream": {
			on: func(s *stage) leases.View {
				s.join("a", "arn:aws:kinesis:us-east-1:000000000000:stream/orders", "returns")
				return s.view(s.reader("orders"))
			},
			state: leases.Free, codes: []leases.Code{leases.CodeNotShared}, says: "they share arn:aws:kinesis:us-east-1:000000000000:stream/orders, returns",
		},
		"nobody has claimed it": {
			on: func(s *stage) leases.View {
				s.join("a", "orders")
				return s.view(s.reader("orders"))
			},
			state: leases.Free, codes: []leases.Code{leases.CodeUnclaimed}, says: "Nobody has begun it",
		},
		"handed over": {
			on: func(s *stage) leases.View {
				s.join("a", "orders")
				s.join("b", "orders")
				item := s.claim("a", 0)
				require.NoError(s, s.table.HandOver(s.Context(), key(0), item.Link(), lease.Move{To: lease.After(s.last(0))}, lease.Link{Owner: "b", Term: lease.HandOverMark + "2", Token: "x"}))
				return s.view(s.reader("orders"))
			},
			state: leases.Handed, codes: []leases.Code{leases.CodeHandedOver}, says: "handed over to client b",
		},
		"requested": {
			on: func(s *stage) leases.View {
				s.join("a", "orders")
				s.join("b", "orders")
				s.claim("a", 0)
				m := s.beat["b"]
				m.Requests = map[string]int{"a": 1}
				s.beat["b"] = m
				return s.after(period, s.reader("orders"), "a", "b")
			},
			state: leases.Reading, codes: []leases.Code{leases.CodeRead, leases.CodeRequested}, says: "Client b asks",
		},
		"named by its owner": {
			on: func(s *stage) leases.View {
				s.join("a")
				s.claim("a", 0)
				return s.after(period, s.reader("orders"), "a")
			},
			state: leases.Reading, codes: []leases.Code{leases.CodeRead, leases.CodePinned}, says: "told to read this very shard",
		},
		"late": {
			on: func(s *stage) leases.View {
				s.join("a", "orders")
				item := s.claim("a", 0)
				_, err := s.table.Renew(s.Context(), key(0), item.Link(), "x", lease.Move{UpTo: time.Now().Add(-time.Hour)})
				require.NoError(s, err)
				return s.after(period, s.reader("orders"), "a")
			},
			state: leases.Reading, codes: []leases.Code{leases.CodeRead, leases.CodeBehind}, says: "1h0m15s late",
		},
		"parents unfinished": {
			on: func(s *stage) leases.View {
				s.join("a", "orders")
				s.claim("a", 0)
				_, _, err := s.aws.Split("orders", key(0).Shard)
				require.NoError(s, err)
				return s.after(period, s.reader("orders"), "a")
			},
			shard: 2, state: leases.Waiting, codes: []leases.Code{leases.CodeParents}, says: "shardId-000000000000 is not read to its end yet, and goes first to keep the order of each key: it is reading, and client a reads it",
		},
		"finished": {
			on: func(s *stage) leases.View {
				s.join("a", "orders")
				_, _, err := s.aws.Split("orders", key(0).Shard)
				require.NoError(s, err)
				s.finish("a", 0)
				return s.view(s.reader("orders"))
			},
			state: leases.Finished, codes: []leases.Code{leases.CodeFinished}, says: "read to its end",
		},
		"cut": {
			on: func(s *stage) leases.View {
				s.join("a", "orders")
				item := s.claim("a", 0)
				require.NoError(s, s.table.Cut(s.Context(), key(0), item.Link(), lease.Move{To: lease.After(s.last(0))}, time.Now()))
				return s.view(s.reader("orders"))
			},
			state: leases.Cut, codes: []leases.Code{leases.CodeCut}, says: "at 2000-01-01T00:00:00Z",
		},
		"built-in input": {
			on: func(s *stage) leases.View {
				s.put(0, awsfake.Item{table.AttrOwner: awsfake.String("them"), table.AttrToken: awsfake.String("x"), table.AttrSequence: awsfake.String(s.last(0))})
				return s.view(s.reader("orders"))
			},
			state: leases.Reading, codes: []leases.Code{leases.CodeForeign}, says: "at 2000-01-01T00:02:00Z",
		},
		"literal item of a built-in input": {
			on: func(s *stage) leases.View {
				require.NoError(s, s.aws.PutItem("leases", awsfake.Item{
					table.AttrStream: awsfake.String("orders"), table.AttrShard: awsfake.String("0"),
					table.AttrOwner: awsfake.String("them"), table.AttrToken: awsfake.String("x"), table.AttrSequence: awsfake.String(s.last(0)),
				}))
				return s.view(s.reader("orders"))
			},
			state: leases.Reading, codes: []leases.Code{leases.CodeLiteral}, says: "item `0`",
		},
		"malformed": {
			on: func(s *stage) leases.View {
				s.put(0, awsfake.Item{table.AttrSequence: awsfake.String("LATEST")})
				s.join("a", "orders")
				return s.view(s.reader("orders"))
			},
			state: leases.Free, codes: []leases.Code{leases.CodeUnclaimed, leases.CodeMalformed}, says: "the text \"LATEST\"",
		},
		"item of an earlier stream": {
			on: func(s *stage) leases.View {
				s.put(0, awsfake.Item{table.AttrSequence: awsfake.String("17")})
				s.join("a", "orders")
				return s.view(s.reader("orders"))
			},
			state: leases.Free, codes: []leases.Code{leases.CodeUnclaimed, leases.CodeEarlier}, says: "deleted and made anew",
		},
		"not listed": {
			on: func(s *stage) leases.View {
				s.put(7, awsfake.Item{table.AttrSequence: awsfake.String(s.last(0))})
				return s.view(s.reader("orders"))
			},
			shard: 7, state: leases.Unlisted, codes: []leases.Code{leases.CodeUnlisted}, says: "lists none that is newer",
		},
		"stream cannot be listed": {
			on: func(s *stage) leases.View {
				s.put(0, awsfake.Item{table.AttrSequence: awsfake.String(s.last(0))})
				require.NoError(s, s.aws.DeleteStream("orders"))
				return s.view(s.reader("orders"))
			},
			state: leases.Unlisted, codes: []leases.Code{leases.CodeStreamUnknown}, says: "ResourceNotFoundException",
		},
	} {
		t.Run(name, func(t *testing.T) {
			onStage(t, func(s *stage) {
				e, codes := s.explain(c.on(s), key(c.shard).Shard)
				require.Equal(s, c.state, e.State)
				require.Equal(s, c.codes, codes)
				said := ""
				for _, r := range e.Reasons {
					said += r.Text + "\n" + r.Remedy + "\n"
				}
				require.Contains(s, said, c.says)
				require.Equal(s, codes[0] == leases.CodeRead, e.Read)
			})
		})
	}
}
