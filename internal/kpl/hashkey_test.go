package kpl_test

import (
	"crypto/md5"
	"math/big"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/benthos-plugins/aws-kinesis/internal/kpl"
)

const largest = "340282366920938463463374607431768211455" // 2^128-1

var digits = rapid.OneOf(rapid.StringMatching(`[0-9]{1,41}`), rapid.SampledFrom([]string{
	"0", "00", "1", "18446744073709551615", "18446744073709551616", "9999999999999999999", "10000000000000000000",
	largest, "340282366920938463463374607431768211456", "999999999999999999999999999999999999999", "0" + largest,
}))

// key is a hash key as a number, or nil for what is none.
func key(s string) *big.Int {
	if s == "" || len(s) > 39 || strings.Trim(s, "0123456789") != "" {
		return nil
	}
	n, _ := new(big.Int).SetString(s, 10)
	if n.BitLen() > 128 {
		return nil
	}
	return n
}

func TestHashKeysCompareByValue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := digits.Draw(t, "a"), digits.Draw(t, "b")
		x, ok := kpl.ParseHashKey(a)
		require.Equal(t, key(a) != nil, ok, a)
		y, alsoOK := kpl.ParseHashKey(b)
		if ok && alsoOK {
			require.Equal(t, key(a).Cmp(key(b)), x.Compare(y), "%s, %s", a, b)
		}
	})
}

func FuzzParseHashKey(f *testing.F) {
	for _, s := range []string{"", "0", "007", "-1", "+1", "1_000", "0x10", "1e3", " 1", "１", largest, largest + "0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		h, ok := kpl.ParseHashKey(s)
		require.Equal(t, key(s) != nil, ok)
		if ok {
			again, _ := kpl.ParseHashKey(key(s).String())
			require.Equal(t, again, h)
		}
	})
}

func TestRangeContainsWhatABigIntegerSaysIsInIt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		first, last, s := digits.Draw(t, "first"), digits.Draw(t, "last"), digits.Draw(t, "key")
		r, ok := kpl.ParseRange(first, last)
		require.Equal(t, key(first) != nil && key(last) != nil, ok)
		h, isKey := kpl.ParseHashKey(s)
		if ok && isKey {
			within := key(first).Cmp(key(s)) <= 0 && key(s).Cmp(key(last)) <= 0
			require.Equal(t, within, r.Contains(h), "%s in %s to %s", s, first, last)
		}
	})
}

func TestShardsHaveTheirBoundsAndNothingBeyond(t *testing.T) {
	lower, ok := kpl.ParseRange("0", "170141183460469231731687303715884105727")
	require.True(t, ok)
	upper, ok := kpl.ParseRange("170141183460469231731687303715884105728", largest)
	require.True(t, ok)
	for _, c := range []struct {
		key          string
		lower, upper bool
	}{
		{"0", true, false},
		{"170141183460469231731687303715884105727", true, false},
		{"170141183460469231731687303715884105728", false, true},
		{largest, false, true},
	} {
		h := kpl.Record{ExplicitHashKey: c.key}.HashKey()
		require.Equal(t, c.lower, lower.Contains(h), c.key)
		require.Equal(t, c.upper, upper.Contains(h), c.key)
	}
}

func TestUserRecordIsPlacedByItsExplicitHashKeyElseByItsPartitionKey(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := kpl.Record{PartitionKey: someKey.Draw(t, "partition key")}
		sum := md5.Sum([]byte(r.PartitionKey))
		hashed, ok := kpl.ParseHashKey(new(big.Int).SetBytes(sum[:]).String())
		require.True(t, ok)
		require.Equal(t, hashed, r.HashKey())

		r.ExplicitHashKey = rapid.OneOf(digits, rapid.SampledFrom([]string{"-1", "1.5", "abc", " 7"})).Draw(t, "explicit hash key")
		if h, ok := kpl.ParseHashKey(r.ExplicitHashKey); ok {
			hashed = h
		}
		require.Equal(t, hashed, r.HashKey())
	})
}

func TestPlacingAUserRecordAllocatesNothing(t *testing.T) {
	r := kpl.Record{PartitionKey: strings.Repeat("k", 256)}
	explicit := kpl.Record{ExplicitHashKey: largest}
	lower, _ := kpl.ParseRange("0", "1")
	require.Zero(t, testing.AllocsPerRun(100, func() {
		_, _ = lower.Contains(r.HashKey()), lower.Contains(explicit.HashKey())
	}))
}
