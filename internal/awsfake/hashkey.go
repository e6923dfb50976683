package awsfake

import (
	"cmp"
	"crypto/md5" //nolint:gosec // Kinesis maps partition keys by MD5
	"encoding/binary"
	"math/big"
	"math/bits"
)

// hashKey is a point in the 128-bit space that a stream's shards divide.
type hashKey struct{ hi, lo uint64 }

var maxHashKey = hashKey{^uint64(0), ^uint64(0)}

// hashOf maps a partition key, as documented with PutRecord.
func hashOf(partitionKey string) hashKey {
	sum := md5.Sum([]byte(partitionKey)) //nolint:gosec // see above
	return hashKey{binary.BigEndian.Uint64(sum[:8]), binary.BigEndian.Uint64(sum[8:])}
}

// parseHashKey takes decimal digits without sign or leading zeros.
func parseHashKey(s string) (hashKey, bool) {
	if s == "" || len(s) > 39 || s[0] == '0' && s != "0" || !isDigits(s) {
		return hashKey{}, false
	}
	n, ok := new(big.Int).SetString(s, 10)
	if !ok || n.BitLen() > 128 {
		return hashKey{}, false
	}
	return hashKeyOf(n), true
}

func hashKeyOf(n *big.Int) hashKey {
	var b [16]byte
	n.FillBytes(b[:])
	return hashKey{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

func (h hashKey) String() string {
	n := new(big.Int).SetUint64(h.hi)
	n.Lsh(n, 64)
	return n.Or(n, new(big.Int).SetUint64(h.lo)).String()
}

func (h hashKey) compare(o hashKey) int {
	return cmp.Or(cmp.Compare(h.hi, o.hi), cmp.Compare(h.lo, o.lo))
}

// prev is h-1, and wraps around.
func (h hashKey) prev() hashKey {
	lo, borrow := bits.Sub64(h.lo, 1, 0)
	return hashKey{h.hi - borrow, lo}
}

// between is the rounded-up middle of start and end: where a split in halves
// starts its second child.
func between(start, end hashKey) hashKey {
	lo, borrow := bits.Sub64(end.lo, start.lo, 0)
	hi, _ := bits.Sub64(end.hi, start.hi, borrow)
	// Half of the distance, rounded up without overflow: d/2 + d%2.
	odd := lo & 1
	lo, hi = lo>>1|hi<<63, hi>>1
	lo, carry := bits.Add64(lo, odd, 0)
	hi += carry
	lo, carry = bits.Add64(start.lo, lo, 0)
	return hashKey{start.hi + hi + carry, lo}
}

// evenly returns the first hash key of each of n shards of nearly one size.
func evenly(n int) []hashKey {
	width := new(big.Int).Lsh(big.NewInt(1), 128)
	width.Div(width, big.NewInt(int64(n)))
	starts := make([]hashKey, n)
	for i := range starts {
		starts[i] = hashKeyOf(new(big.Int).Mul(width, big.NewInt(int64(i))))
	}
	return starts
}

func isDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}
