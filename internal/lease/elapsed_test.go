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

const wallSecond = 1 << 30 // of the first word of a time.Time with a monotonic reading

// setBack sets the wall clock of a time back, and leaves the monotonic one alone, which
// times of a bubble of synctest do not have.
func setBack(at *time.Time, d time.Duration) {
	wall := (*uint64)(unsafe.Pointer(at))
	if *wall>>63 == 0 {
		*at = at.Add(-d)
		return
	}
	*wall -= uint64(d/time.Second) * wallSecond
}

// JumpWall has the wall clock jump, as it has when a machine was suspended, for all
// that the lease's item knows.
func (l *Lease) JumpWall(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	setBack(&l.trustedFrom, d)
}

// JumpWall is that of a lease, for the session.
func (s *Session) JumpWall(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	setBack(&s.trustedFrom, d)
}

func TestElapsedTimeIsTheLargerOfTheTwoClocks(t *testing.T) {
	from := time.Now()
	suspended := from // the wall clock went on, the monotonic one stood still
	setBack(&suspended, -time.Hour)
	require.Equal(t, time.Hour, elapsed(from, suspended))

	corrected := from.Add(time.Minute)
	setBack(&corrected, time.Hour)
	require.Equal(t, time.Minute, elapsed(from, corrected))
}
