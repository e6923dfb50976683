// Package arena hands out memory for the records of a page, or the user records of an
// aggregate: many with one allocation, and yet so that one which is kept holds little of
// the others.
//
// The package is pure.
package arena

import "unsafe"

const (
	// blockSize is what one record pins at most, beside its own payload, by
	// living longer than its page. A page of small records lives in many
	// blocks, so that a record kept back, in a retry, a window or a buffer of the host,
	// which the budget does not know of, does not keep 10 MiB with it.
	blockSize = 32 << 10
	// ownSize is the least size that gets an allocation of its own, which bounds
	// what is left over at the end of a block.
	ownSize = blockSize / 8
	// neighbours is for how many pieces of memory, of the largest size so far, a block has
	// room: a record that is kept holds so many times itself, and the allocation of a block
	// is shared by so many. A record of 100 bytes held 24 KiB where all blocks were large.
	neighbours = 16
)

// Arena hands out memory in the order of the records. Messages own it: nothing
// is ever handed out twice or taken back. The zero value is ready.
type Arena struct {
	free    []byte
	largest int // piece that was taken from a block
}

// Take returns n bytes that nobody else has. need is how many the page may yet
// ask for, n included: the last block of a page, or the only one, is no larger.
func (a *Arena) Take(n, need int) []byte {
	if n >= ownSize {
		return make([]byte, n)
	}
	a.largest = max(a.largest, n)
	if n > len(a.free) {
		a.free = make([]byte, max(n, min(need, blockSize, neighbours*a.largest)))
	}
	p := a.free[:n:n]
	a.free = a.free[n:]
	return p
}

// Bytes returns a copy of b, which is not nil.
func (a *Arena) Bytes(b []byte, need int) []byte {
	if len(b) == 0 {
		return []byte{}
	}
	p := a.Take(len(b), need)
	copy(p, b)
	return p
}

// Text returns a copy of s.
func (a *Arena) Text(s []byte, need int) string {
	if len(s) == 0 {
		return ""
	}
	p := a.Take(len(s), need)
	copy(p, s)
	return unsafe.String(&p[0], len(p)) //nolint:gosec // p has no other name, so it never changes
}
