package sequence

import (
	"math/big"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestSequencesCompareByValue(t *testing.T) {
	number := rapid.StringMatching(`0{0,3}[0-9]{1,60}`)
	rapid.Check(t, func(t *rapid.T) {
		a, b := number.Draw(t, "a"), number.Draw(t, "b")
		x, _ := new(big.Int).SetString(a, 10)
		y, _ := new(big.Int).SetString(b, 10)
		require.Equal(t, x.Cmp(y), Compare(a, b), "%s, %s", a, b)
	})
}

func TestNoSequenceComesBeforeAll(t *testing.T) {
	require.Negative(t, Compare("", "1"))
	require.Positive(t, Compare("1", ""))
	require.Zero(t, Compare("", ""))
}

func TestOnlyNumbersAreSequences(t *testing.T) {
	for _, s := range []string{"0", "49590338271490256608559692538361571095921575989136588898"} {
		require.True(t, Valid(s), s)
	}
	for _, s := range []string{"", "null", "SHARD_END", "-1", "1.5", "4959e3", " 1", "１"} {
		require.False(t, Valid(s), s)
	}
}
