package wire

import "unsafe"

const (
	// blockSize is what one record pins at most, beside its own payload, by
	// living longer than its page. A page of small records lives in a few dozen
	// blocks, so that a record kept back, in a retry or a window, does not keep
	// 10 MiB with it, while a block serves many records with one allocation.
	blockSize = 32 << 10
	// ownSize is the least size that gets an allocation of its own, which bounds
	// what is left over at the end of a block.
	ownSize = blockSize / 8
)

// arena hands out memory in the order of the records. Messages own it: nothing
// is ever handed out twice or taken back. The zero value is ready.
type arena struct{ free []byte }

// take returns n bytes that nobody else has. need is how many the page may yet
// ask for, n included: the last block of a page, or the only one, is no larger.
func (a *arena) take(n, need int) []byte {
	if n >= ownSize {
		return make([]byte, n)
	}
	if n > len(a.free) {
		a.free = make([]byte, max(n, min(need, blockSize)))
	}
	p := a.free[:n:n]
	a.free = a.free[n:]
	return p
}

// bytes returns a copy of b, which is not nil.
func (a *arena) bytes(b []byte, need int) []byte {
	if len(b) == 0 {
		return []byte{}
	}
	p := a.take(len(b), need)
	copy(p, b)
	return p
}

// text returns a copy of s.
func (a *arena) text(s []byte, need int) string {
	if len(s) == 0 {
		return ""
	}
	p := a.take(len(s), need)
	copy(p, s)
	return unsafe.String(&p[0], len(p)) //nolint:gosec // p has no other name, so it never changes
}
