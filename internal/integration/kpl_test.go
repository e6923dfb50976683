//go:build integration

package integration

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/integration/child"
	"github.com/benthos-plugins/aws-kinesis/internal/integration/node"
	"github.com/benthos-plugins/aws-kinesis/internal/kpl"
	"github.com/benthos-plugins/aws-kinesis/internal/kpl/kpltest"
)

// aggregated is user records, and an aggregate of them.
type aggregated struct {
	Name      string
	Records   []kpl.Record
	Aggregate []byte
}

func TestAggregatesOfAnotherLibraryAreDecoded(t *testing.T) {
	t.Parallel()
	cases := manyRecords()
	for _, made := range another(t, "aggregate", cases) {
		got, err := kpl.Decode(made.Aggregate)
		require.NoError(t, err, made.Name)
		require.Equal(t, made.Records, got, made.Name)
	}
}

func TestAnotherLibraryDecodesTheAggregatesOfTheTests(t *testing.T) {
	t.Parallel()
	cases := manyRecords()
	sealed := make([]aggregated, len(cases))
	for i, c := range cases {
		sealed[i] = aggregated{Name: c.Name, Aggregate: kpltest.Encode(c.Records)}
	}
	for i, made := range another(t, "deaggregate", sealed) {
		// It takes an index that is not there for 0, the first hash key of the table.
		want, first := slices.Clone(cases[i].Records), ""
		for _, r := range want {
			first = cmp.Or(first, r.ExplicitHashKey)
		}
		for i, r := range want {
			want[i].ExplicitHashKey = cmp.Or(r.ExplicitHashKey, first)
		}
		require.Equal(t, want, made.Records, made.Name)
	}
}

// TestCommittedAggregatesAreThoseOfTheOtherLibrary holds the vectors of internal/kpl
// against the version that is installed.
func TestCommittedAggregatesAreThoseOfTheOtherLibrary(t *testing.T) {
	t.Parallel()
	path := filepath.Join(child.Folder(t), "..", "kpl", "testdata", "vectors.json")
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	var committed []aggregated
	require.NoError(t, json.Unmarshal(text, &committed))
	require.NotEmpty(t, committed)
	require.Equal(t, committed, another(t, "aggregate", committed))
}

// another has aws-kinesis-agg aggregate or deaggregate.
func another(t *testing.T, what string, cases []aggregated) (made []aggregated) {
	t.Helper()
	node.Package(t, "aws-kinesis-agg")
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in.json"), filepath.Join(dir, "out.json")
	text, err := json.Marshal(cases)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(in, text, 0o600))

	p := node.Start(t, filepath.Join(child.Folder(t), "clients"), nil, func(line string) { t.Log(line) }, "kpl.mjs", what, in, out)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	select {
	case <-p.Exited:
	case <-ctx.Done():
		require.Fail(t, "aws-kinesis-agg takes too long")
	}
	require.NoError(t, p.Err())
	text, err = os.ReadFile(out)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &made))
	require.Len(t, made, len(cases))
	return made
}

// manyRecords are user records of many shapes. A key of theirs is no small integer; see
// clients/kpl.mjs.
func manyRecords() (cases []aggregated) {
	random := rand.New(rand.NewPCG(1, 2))
	add := func(name string, n int, record func(i int) kpl.Record) {
		c := aggregated{Name: name}
		for i := range n {
			c.Records = append(c.Records, record(i))
		}
		cases = append(cases, c)
	}
	data := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		return b
	}
	add("one", 1, func(int) kpl.Record { return kpl.Record{Data: data(100), PartitionKey: "key"} })
	add("one that is empty", 1, func(int) kpl.Record { return kpl.Record{Data: []byte{}, PartitionKey: "key"} })
	add("one of 900,000 bytes", 1, func(int) kpl.Record { return kpl.Record{Data: data(900_000), PartitionKey: "key"} })
	add("5,000 that share a key", 5_000, func(int) kpl.Record { return kpl.Record{Data: data(random.IntN(50)), PartitionKey: "key"} })
	add("5,000 with a key each", 5_000, func(i int) kpl.Record { return kpl.Record{Data: data(10), PartitionKey: fmt.Sprint("key ", i)} })
	add("long keys", 300, func(i int) kpl.Record {
		return kpl.Record{Data: data(i), PartitionKey: strings.Repeat(string(rune('ä'+i)), 256)}
	})
	add("hash keys", 300, func(i int) kpl.Record {
		return kpl.Record{Data: data(i), PartitionKey: "key", ExplicitHashKey: fmt.Sprintf("3402823669209384634633746074317682114%02d", i%50)}
	})
	add("hash keys for some", 300, func(i int) kpl.Record {
		r := kpl.Record{Data: data(i), PartitionKey: fmt.Sprint("key ", i%7)}
		if i%3 > 0 {
			r.ExplicitHashKey = fmt.Sprintf("3402823669209384634633746074317682114%02d", i%50)
		}
		return r
	})
	return cases
}
