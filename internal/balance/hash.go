package balance

import "math/bits"

// offset is where hashes begin: the offset basis of FNV-1a with 64 bits.
const offset uint64 = 14695981039346656037

// hash goes on with a hash by FNV-1a, which is the same in every process and
// costs nothing to go on from. It breaks ties, and need not resist anybody.
func hash(h uint64, s string) uint64 {
	const prime = 1099511628211
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * prime
	}
	return h
}

// score says how much a shard is a client's, from the hashes of both: the
// finalizer of MurmurHash3, since FNV alone hardly mixes names that differ in
// their last digit.
func score(client, shard uint64) uint64 {
	x := client ^ bits.RotateLeft64(shard, 32)
	x = (x ^ x>>33) * 0xff51afd7ed558ccd
	x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}
