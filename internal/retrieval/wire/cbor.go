package wire

import (
	"encoding/binary"
	"math"
)

// Major types of CBOR, the upper three bits of an item's first byte. See RFC 8949,
// section 3.1.
const (
	cborUnsigned = iota
	cborNegative
	cborBytes
	cborText
	cborList
	cborMap
	cborTag
	cborOther // false, true, null, undefined, floats
)

const (
	cborFalse     = 0xf4
	cborTrue      = 0xf5
	cborNull      = 0xf6
	cborUndefined = 0xf7
	cborBreak     = 0xff // ends what has no length

	// indefinite takes the place of a length, of what goes on until a break.
	indefinite = 31
	// epochTag stands before a time. After it the services write an integer of
	// milliseconds since 1970, which RFC 8949 would have in seconds.
	epochTag = 1

	// maxDepth is how deep lists and maps may be nested. Those of Kinesis are four deep.
	maxDepth = 32
)

// cborReader goes over a body in CBOR. Its methods read from the position onwards, and
// say whether there was what they look for. Where there was not, the position means
// nothing.
type cborReader struct {
	body []byte
	at   int // Invariant: 0 <= at <= len(body)
}

// wellFormed says whether body is one item, which is no deeper than maxDepth.
func wellFormed(body []byte) bool {
	r := cborReader{body: body}
	return r.skip(maxDepth) && r.at == len(body)
}

// head reads the begin of an item: its major type, and its argument, which is a value,
// a length or the bits of a float. It knows no indefinite length.
func (r *cborReader) head() (major byte, n uint64, ok bool) {
	if r.at == len(r.body) {
		return 0, 0, false
	}
	first := r.body[r.at]
	r.at++
	major, n = first>>5, uint64(first&31)
	rest := r.body[r.at:]
	switch {
	case n < 24:
		return major, n, true
	case n == 24 && len(rest) >= 1:
		r.at++
		return major, uint64(rest[0]), true
	case n == 25 && len(rest) >= 2:
		r.at += 2
		return major, uint64(binary.BigEndian.Uint16(rest)), true
	case n == 26 && len(rest) >= 4:
		r.at += 4
		return major, uint64(binary.BigEndian.Uint32(rest)), true
	case n == 27 && len(rest) >= 8:
		r.at += 8
		return major, binary.BigEndian.Uint64(rest), true
	}
	return 0, 0, false
}

// next reads c, if it comes next.
func (r *cborReader) next(c byte) bool {
	if r.at == len(r.body) || r.body[r.at] != c {
		return false
	}
	r.at++
	return true
}

// null reads null or undefined, if it comes next.
func (r *cborReader) null() bool { return r.next(cborNull) || r.next(cborUndefined) }

// begin reads the begin of a list or map, and returns how many entries follow, -1 where
// a break ends them. Each entry takes a byte at least, so that they are no more than the
// rest of the body has bytes.
func (r *cborReader) begin(major byte) (entries int, ok bool) {
	if r.next(major<<5 | indefinite) {
		return -1, true
	}
	m, n, ok := r.head()
	return int(n), ok && m == major && n <= uint64(r.left())
}

// more says whether another entry follows of those that begin counted. At the end of a
// body it does, and then there is nothing to read.
func (r *cborReader) more(entries *int) bool {
	if *entries < 0 {
		return !r.next(cborBreak)
	}
	*entries--
	return *entries >= 0
}

// part reads a text or a byte string that has a length. The result is part of the body.
func (r *cborReader) part(major byte) ([]byte, bool) {
	m, n, ok := r.head()
	if !ok || m != major || n > uint64(r.left()) {
		return nil, false
	}
	s := r.body[r.at : r.at+int(n)]
	r.at += int(n)
	return s, true
}

// whole reads a text or a byte string, with a length or in parts.
func (r *cborReader) whole(major byte) ([]byte, bool) {
	if !r.next(major<<5 | indefinite) {
		return r.part(major)
	}
	s := []byte{}
	for !r.next(cborBreak) {
		p, ok := r.part(major)
		if !ok {
			return nil, false
		}
		s = append(s, p...)
	}
	return s, true
}

// skip passes over an item of any kind, in which at most depth lists and maps are nested.
// The tags of one item count among them, but for the first.
func (r *cborReader) skip(depth int) bool {
	if r.at == len(r.body) {
		return false
	}
	first := r.body[r.at]
	switch major := first >> 5; major {
	case cborBytes, cborText:
		if !r.next(major<<5 | indefinite) {
			_, ok := r.part(major)
			return ok
		}
		for !r.next(cborBreak) {
			if _, ok := r.part(major); !ok {
				return false
			}
		}
		return true
	case cborList, cborMap:
		n, ok := r.begin(major)
		if depth == 0 {
			return false
		}
		for ok && r.more(&n) {
			ok = r.skip(depth-1) && (major == cborList || r.skip(depth-1))
		}
		return ok
	case cborTag:
		_, _, ok := r.head()
		for ok && r.at < len(r.body) && r.body[r.at]>>5 == cborTag {
			depth--
			_, _, ok = r.head()
		}
		return ok && depth >= 0 && r.skip(depth)
	}
	_, n, ok := r.head()
	// Below 32 a simple value has no byte of its own.
	return ok && (first != cborOther<<5|24 || n >= 32)
}

// left is how much of the body is left.
func (r *cborReader) left() int { return len(r.body) - r.at }

// integer reads a whole number that fits.
func (r *cborReader) integer() (int64, bool) {
	major, n, ok := r.head()
	if !ok || major > cborNegative || n > math.MaxInt64 {
		return 0, false
	}
	if major == cborNegative {
		return -1 - int64(n), true
	}
	return int64(n), true
}

// float reads a float of any size.
func (r *cborReader) float() (float64, bool) {
	if r.at == len(r.body) {
		return 0, false
	}
	size := r.body[r.at]
	_, n, ok := r.head()
	if !ok {
		return 0, false
	}
	switch size {
	case cborOther<<5 | 25:
		return half(uint16(n)), true
	case cborOther<<5 | 26:
		return float64(math.Float32frombits(uint32(n))), true
	case cborOther<<5 | 27:
		return math.Float64frombits(n), true
	}
	return 0, false
}

// half is the float of 16 bits, see RFC 8949, appendix D.
func half(bits uint16) float64 {
	exponent, fraction := int(bits>>10&31), float64(bits&1023)
	var f float64
	switch exponent {
	case 0:
		f = math.Ldexp(fraction, -24)
	case 31:
		f = math.Inf(1)
		if fraction != 0 {
			f = math.NaN()
		}
	default:
		f = math.Ldexp(fraction+1024, exponent-25)
	}
	if bits>>15 == 1 {
		return -f
	}
	return f
}
