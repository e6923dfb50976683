package kpl

import (
	"cmp"
	"crypto/md5" //nolint:gosec // Kinesis maps partition keys by MD5
	"encoding/binary"
	"math/bits"
	"strconv"
)

// HashKey is a point in the 128-bit space that the shards of a stream divide.
type HashKey struct{ hi, lo uint64 }

// maxDigits is how many digits the largest hash key has, 2^128-1.
const maxDigits = 39

// ParseHashKey reads a hash key as Kinesis writes it, in 1 to 39 decimal digits. It
// returns false for what is none, or not below 2^128.
func ParseHashKey(s string) (HashKey, bool) {
	// Without a bound a long text that many user records share would be read for each.
	if s == "" || len(s) > maxDigits {
		return HashKey{}, false
	}
	// As many digits at a time as a uint64 has room for.
	const digits, power = 19, 1e19
	var h HashKey
	for s != "" {
		n := (len(s)-1)%digits + 1
		part, err := strconv.ParseUint(s[:n], 10, 64)
		if err != nil {
			return HashKey{}, false
		}
		high, lo := bits.Mul64(h.lo, power)
		over, hi := bits.Mul64(h.hi, power)
		lo, carry := bits.Add64(lo, part, 0)
		hi, carry = bits.Add64(hi, high, carry)
		if over != 0 || carry != 0 {
			return HashKey{}, false
		}
		h, s = HashKey{hi, lo}, s[n:]
	}
	return h, true
}

// HashKey returns the hash key by which a user record belongs to a shard: its explicit
// one or, where that is none, the MD5 of its partition key, as documented with
// PutRecord.
func (r Record) HashKey() HashKey {
	if h, ok := ParseHashKey(r.ExplicitHashKey); ok {
		return h
	}
	// Most keys find room on the stack, where a plain conversion allocates.
	sum := md5.Sum(append(make([]byte, 0, 256), r.PartitionKey...)) //nolint:gosec // see above
	return HashKey{binary.BigEndian.Uint64(sum[:8]), binary.BigEndian.Uint64(sum[8:])}
}

// Compare orders hash keys by value: it is negative where h comes first.
func (h HashKey) Compare(o HashKey) int {
	return cmp.Or(cmp.Compare(h.hi, o.hi), cmp.Compare(h.lo, o.lo))
}

// Range is the hash keys of a shard, from First to Last, both included.
type Range struct{ First, Last HashKey }

// ParseRange reads the range of a shard as Kinesis lists it: its StartingHashKey and its
// EndingHashKey. It returns false where one of them is none.
func ParseRange(first, last string) (Range, bool) {
	from, ok := ParseHashKey(first)
	to, toOK := ParseHashKey(last)
	return Range{from, to}, ok && toOK
}

// Contains reports whether a hash key is one of the range.
func (r Range) Contains(h HashKey) bool {
	return r.First.Compare(h) <= 0 && h.Compare(r.Last) <= 0
}
