package wire

import (
	"bytes"
	"encoding/binary"

	"github.com/benthos-plugins/aws-kinesis/internal/arena"
)

// decoder goes over a body once. Its methods read one element each, from the
// position onwards, after white space, and say whether they knew it. Where they
// did not, the position means nothing.
type decoder struct {
	body  []byte
	at    int // Invariant: 0 <= at <= len(body)
	arena arena.Arena
}

// object calls member for each member that is not null; member reads the value.
// A name with escapes may be that of any member, so it is not known.
func (d *decoder) object(member func(name []byte) bool) bool {
	if !d.token('{') {
		return false
	}
	if d.token('}') {
		return true
	}
	for {
		name, ok := d.text()
		if !ok || !d.token(':') {
			return false
		}
		if !d.literal("null") && !member(name) {
			return false
		}
		if d.token('}') {
			return true
		}
		if !d.token(',') {
			return false
		}
	}
}

// list calls element for each element; element reads it.
func (d *decoder) list(element func() bool) bool {
	if !d.token('[') {
		return false
	}
	if d.token(']') {
		return true
	}
	for element() {
		if d.token(']') {
			return true
		}
		if !d.token(',') {
			return false
		}
	}
	return false
}

// skip passes over the value of a member that is not ours, when it is a simple
// one, so that a member which the service adds does not cost the speed.
func (d *decoder) skip() bool {
	switch d.peek() {
	case '"':
		_, ok := d.text()
		return ok
	case 't':
		return d.literal("true")
	case 'f':
		return d.literal("false")
	}
	_, _, ok := d.whole()
	return ok
}

// text reads a string without escapes. The result is part of the body.
func (d *decoder) text() ([]byte, bool) {
	s, ok := d.quoted()
	return s, ok && plain(s)
}

// quoted reads what stands between two quotes, which is a string if it is plain.
func (d *decoder) quoted() ([]byte, bool) {
	if !d.token('"') {
		return nil, false
	}
	n := bytes.IndexByte(d.body[d.at:], '"')
	if n < 0 {
		return nil, false
	}
	s := d.body[d.at : d.at+n]
	d.at += n + 1
	return s, true
}

// plain says whether s stands for itself within quotes: no escapes, no control
// characters. It takes eight bytes at a time, in which the high bit of each is
// worked out to say whether that byte is below a space, or equals a backslash.
func plain(s []byte) bool {
	const ones, high = 0x0101010101010101, 0x8080808080808080
	for ; len(s) >= 8; s = s[8:] {
		v := binary.LittleEndian.Uint64(s)
		x := v ^ ones*'\\'
		if ((v-ones*' ')&^v|(x-ones)&^x)&high != 0 {
			return false
		}
	}
	for _, c := range s {
		if c < ' ' || c == '\\' {
			return false
		}
	}
	return true
}

// whole reads an integer that is not negative and has at most 18 digits.
func (d *decoder) whole() (n uint64, size int, ok bool) {
	zero := d.peek() == '0'
	n, size = d.digits(0)
	return n, size, size > 0 && size <= 18 && (!zero || size == 1)
}

// digits appends the digits that follow to those of n, and says how many they
// are. It reads no white space.
func (d *decoder) digits(n uint64) (uint64, int) {
	begin := d.at
	for ; d.at < len(d.body); d.at++ {
		c := d.body[d.at] - '0'
		if c > 9 {
			break
		}
		n = n*10 + uint64(c)
	}
	return n, d.at - begin
}

// literal reads word, if it comes next.
func (d *decoder) literal(word string) bool {
	if d.peek() != word[0] || !bytes.HasPrefix(d.body[d.at:], []byte(word)) {
		return false
	}
	d.at += len(word)
	return true
}

// token reads c, if it comes next after white space.
func (d *decoder) token(c byte) bool {
	if d.peek() != c {
		return false
	}
	d.at++
	return true
}

// next reads c, if it comes next.
func (d *decoder) next(c byte) bool {
	if d.at == len(d.body) || d.body[d.at] != c {
		return false
	}
	d.at++
	return true
}

// end says whether nothing but white space follows.
func (d *decoder) end() bool { return d.peek() == 0 && d.at == len(d.body) }

// peek passes over white space and returns the byte that follows, 0 at the end
// of the body.
func (d *decoder) peek() byte {
	for ; d.at < len(d.body); d.at++ {
		switch c := d.body[d.at]; c {
		case ' ', '\t', '\n', '\r':
		default:
			return c
		}
	}
	return 0
}
