package lease

import (
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// Link is the place of the lease in the chain of writes, for the tests of this
// package.
func (l *Lease) Link() Link { return l.link }

func TestElapsedTimeIsTheLargerOfTheTwoClocks(t *testing.T) {
	const wallSecond = 1 << 30 // of the first word of a time.Time with a monotonic reading
	from := time.Now()
	suspended := from // the wall clock went on, the monotonic one stood still
	*(*uint64)(unsafe.Pointer(&suspended)) += 3600 * wallSecond
	require.Equal(t, time.Hour, elapsed(from, suspended))

	setBack := from.Add(time.Minute)
	*(*uint64)(unsafe.Pointer(&setBack)) -= 3600 * wallSecond
	require.Equal(t, time.Minute, elapsed(from, setBack))
}
