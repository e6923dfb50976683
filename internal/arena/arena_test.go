package arena

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestOneSmallRecordDoesNotKeepItsPage(t *testing.T) {
	var a Arena
	blocks := 0
	for i := range 1000 {
		free := len(a.free)
		a.Take(1000, (1000-i)*1000)
		require.Less(t, len(a.free), blockSize)
		if len(a.free) > free {
			blocks++
		}
	}
	require.InDelta(t, 1000/neighbours, blocks, 2)

	var few Arena
	for range 1000 {
		few.Take(100, 1_000_000)
		require.Less(t, len(few.free), neighbours*100, "small records share small blocks")
	}

	var small Arena
	small.Take(100, 150)
	require.Len(t, small.free, 50, "a small page takes a small block")
	require.Len(t, small.Take(1<<20, 1<<20), 1<<20)
	require.Len(t, small.free, 50, "a large record has memory of its own")
}

func TestNothingIsHandedOutTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var a Arena
		sizes := rapid.SliceOfN(rapid.OneOf(rapid.IntRange(0, 300), rapid.IntRange(ownSize-2, ownSize+2)), 1, 100).Draw(t, "sizes")
		need := 0
		for _, n := range sizes {
			need += n
		}
		var bytes [][]byte
		var texts []string
		for i, n := range sizes {
			content := make([]byte, n)
			for j := range content {
				content[j] = byte(i)
			}
			bytes = append(bytes, a.Bytes(content, need))
			texts = append(texts, a.Text(content, need))
			need -= n
		}
		for i, b := range bytes {
			require.Len(t, b, sizes[i])
			require.Equal(t, texts[i], string(b))
			for _, c := range b {
				require.Equal(t, byte(i), c)
			}
			_ = append(b, 0xff) // which takes memory of its own
		}
		for i, s := range texts {
			require.Equal(t, string(bytes[i]), s)
		}
	})
}
