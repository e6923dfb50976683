package wire

import (
	"fmt"
	"io"
	"math/bits"
	"slices"
	"sync"
)

const (
	// maxAnswer bounds the bytes of one answer. The service sends at most 10 MiB
	// of payloads, which base64 makes 14 MiB, and 10,000 records, whose other
	// fields take 16 MiB where every key has 256 characters that are escaped.
	maxAnswer = 64 << 20

	// Buffers have a power of two of bytes, and large ones a quarter, a half or three
	// quarters more: from that of an empty page to that of the largest one. A larger
	// body gets a buffer that is not kept.
	minBuffer  = 1 << 11
	keptBuffer = 1 << 24
	// unsized is where the buffer of a body without Content-Length begins.
	unsized = 1 << 16
)

// pools holds the small buffers of each size; idle ones go with the garbage. Of large
// ones few are kept.
var (
	pools  [7]sync.Pool // log2(largeBuffer/minBuffer)
	larges = stock{most: 24 << 20}
)

// largeBuffer is the size from which buffers go to the stock. As many of them are in use
// at once as answers are on their way; all kept, they would stand in the heap beside the
// budget, while a thousand shards wait for room. The stock has those of sixteen pages. With
// 8 MiB of powers of two, which were four, a new one was made for most pages of 64 shards
// with a backlog, and to clear it took an eighth of all processor time.
const largeBuffer = 1 << 18

// stock keeps buffers, of most bytes together. It is safe for concurrent use.
type stock struct {
	most int

	mu   sync.Mutex
	kept []*buffer // by when they came. Invariant: their bytes are most at the most
	size int
}

// get returns a buffer of so many bytes; nil when there is none.
func (s *stock) get(bytes int) *buffer {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, buf := range slices.Backward(s.kept) {
		if cap(buf.b) == bytes {
			s.kept = slices.Delete(s.kept, i, i+1)
			s.size -= bytes
			return buf
		}
	}
	return nil
}

// put keeps a buffer, which has no more than most bytes, in place of those that nobody has
// asked for since they came: pages change in size, and a stock full of one that is not
// used any more would keep no other.
func (s *stock) put(buf *buffer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.size += cap(buf.b)
	old := 0
	for ; s.size > s.most; old++ {
		s.size -= cap(s.kept[old].b)
	}
	s.kept = append(slices.Delete(s.kept, 0, old), buf)
}

// A buffer holds a body. Its owner releases it when nothing refers to it.
type buffer struct{ b []byte }

// class is the pool of buffers of n bytes or a little more.
func class(n int) int { return max(0, bits.Len(uint(n-1))-bits.Len(uint(minBuffer-1))) }

// largeSize is the size of large buffers of n bytes or a little more.
func largeSize(n int) int {
	quarter := 1 << (bits.Len(uint(n-1)) - 3)
	return (n + quarter - 1) / quarter * quarter
}

func newBuffer(n int) *buffer {
	if n > keptBuffer {
		return &buffer{make([]byte, 0, n)}
	}
	size := minBuffer << class(n)
	if size >= largeBuffer {
		size = max(largeSize(n), largeBuffer)
		if buf := larges.get(size); buf != nil {
			return buf
		}
	} else if buf, ok := pools[class(n)].Get().(*buffer); ok {
		return buf
	}
	return &buffer{make([]byte, 0, size)}
}

func (b *buffer) release() {
	if cap(b.b) > keptBuffer {
		return
	}
	b.b = b.b[:0]
	if cap(b.b) >= largeBuffer {
		larges.put(b)
		return
	}
	pools[class(cap(b.b))].Put(b)
}

// readBody reads a body to its end. length is its Content-Length, -1 when
// unknown; it says how large a buffer to begin with, not how much to read: the
// transport knows what the body owes. The error is the body's own, or says that
// it exceeds maxAnswer. Such a body is closed, or whoever ends the call would read what
// is left of it first, for the sake of the connection.
func readBody(r io.ReadCloser, length int64) (*buffer, error) {
	if length > maxAnswer {
		_ = r.Close()
		return nil, fmt.Errorf("the answer has %d bytes, above the limit of %d", length, maxAnswer)
	}
	size := unsized
	if length >= 0 {
		size = int(length) + 1 // for the end to show without growing
	}
	buf := newBuffer(size)
	for {
		n, err := r.Read(buf.b[len(buf.b):cap(buf.b)])
		buf.b = buf.b[:len(buf.b)+n]
		switch {
		case len(buf.b) > maxAnswer:
			_ = r.Close()
			buf.release()
			return nil, fmt.Errorf("the answer exceeds the limit of %d bytes", maxAnswer)
		case err == io.EOF:
			return buf, nil
		case err != nil:
			buf.release()
			return nil, err
		case len(buf.b) == cap(buf.b):
			larger := newBuffer(2 * cap(buf.b))
			larger.b = append(larger.b, buf.b...)
			buf.release()
			buf = larger
		}
	}
}
