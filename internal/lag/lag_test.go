package lag_test

import (
	"fmt"
	"iter"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/benthos-plugins/aws-kinesis/internal/lag"
)

var start = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// read has a page of one record noted.
func read(tr *lag.Tracker, sequence string, arrived time.Time) {
	tr.Read(func(yield func(string, time.Time) bool) { yield(sequence, arrived) })
}

func at(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }

func TestNothingIsKnownBeforeTheFirstRead(t *testing.T) {
	require.Zero(t, lag.New(time.Time{}, "").Since())
}

func TestShardIsDoneUpToWhatThePreviousOwnerKnew(t *testing.T) {
	require.Equal(t, at(5), lag.New(at(5), "7").Since())
}

func TestShardReadToItsEndIsDoneUpToThatRead(t *testing.T) {
	tr := lag.New(at(0), "")
	tr.ReadTo(at(10))
	require.Equal(t, at(10), tr.Since())
	tr.ReadTo(at(9))
	require.Equal(t, at(10), tr.Since(), "what was known stays so")
}

func TestOldestUnacknowledgedRecordHoldsTheMomentBack(t *testing.T) {
	tr := lag.New(at(0), "")
	read(tr, "10", at(1))
	read(tr, "11", at(2))
	tr.ReadTo(at(3))
	require.Equal(t, at(1), tr.Since())
	require.Equal(t, at(1), tr.Oldest())
	tr.Acked("10")
	require.Equal(t, at(2), tr.Since())
	tr.Acked("11")
	require.Equal(t, at(3), tr.Since())
	require.Zero(t, tr.Oldest())
}

func TestRecordThatIsReadAgainChangesNothing(t *testing.T) {
	tr := lag.New(at(0), "")
	read(tr, "10", at(1))
	read(tr, "11", at(2))
	read(tr, "10", at(1))
	tr.Acked("10")
	require.Equal(t, at(2), tr.Since(), "the other one is not acknowledged")
	read(tr, "11", at(2))
	tr.ReadTo(at(5))
	tr.Acked("11")
	require.Equal(t, at(5), tr.Since())
}

func TestRecordWithoutArrivalIsAsOldAsItMayBe(t *testing.T) {
	tr := lag.New(at(4), "")
	read(tr, "10", time.Time{})
	tr.ReadTo(at(9))
	require.Equal(t, at(4), tr.Since())
}

func TestRecordThatIsOlderThanTheOneBeforeItHoldsTheMomentBack(t *testing.T) {
	tr := lag.New(at(0), "")
	read(tr, "10", at(5))
	read(tr, "11", at(6))
	read(tr, "12", at(3))
	require.Equal(t, at(3), tr.Since())
	tr.Acked("11")
	require.Equal(t, at(3), tr.Since())
	tr.ReadTo(at(7))
	tr.Acked("12")
	require.Equal(t, at(7), tr.Since())
}

func TestRecordsThatExpiredUnreadAreForgottenWithTheNextAcknowledgement(t *testing.T) {
	tr := lag.New(at(0), "")
	read(tr, "10", at(1))
	// 10 was dropped unsent, and has left the stream before it was read again.
	read(tr, "20", at(50))
	tr.ReadTo(at(51))
	tr.Acked("20")
	require.Equal(t, at(51), tr.Since())
}

// naive keeps every record.
type naive struct {
	readTo  time.Time
	records []record
}

type record struct {
	sequence int
	arrived  time.Time
	acked    bool
}

// since is the earliest arrival of a record that is not acknowledged, or the moment up to
// which all has been read.
func (n *naive) since() time.Time {
	var since time.Time
	for _, r := range n.records {
		if !r.acked && (since.IsZero() || r.arrived.Before(since)) {
			since = r.arrived
		}
	}
	if since.IsZero() {
		return n.readTo
	}
	return since
}

// page is records as they are read.
func page(records []record) iter.Seq2[string, time.Time] {
	return func(yield func(string, time.Time) bool) {
		for _, r := range records {
			if !yield(fmt.Sprint(r.sequence), r.arrived) {
				return
			}
		}
	}
}

// The lag is never less than the truth, and no more than the resolution above it.
func TestMomentIsThatOfTheOldestRecordThatIsNotAcknowledged(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		model := &naive{readTo: start}
		tr := lag.New(start, "")
		clock := start
		next, acked := 100, 99 // sequence numbers
		turn := 100            // of the record that is to be made a message, or passed
		// Of each message that is not acknowledged, its record and the last that was passed after it.
		var made, ends []int
		t.Repeat(map[string]func(*rapid.T){
			"read a page": func(t *rapid.T) {
				clock = clock.Add(time.Duration(rapid.IntRange(0, 2000).Draw(t, "passed")) * time.Millisecond)
				first := len(model.records)
				if rapid.Bool().Draw(t, "begins with what had not been sent") {
					first = acked - 99
				}
				arrived := model.readTo
				for range rapid.IntRange(0, 5).Draw(t, "records") {
					arrived = arrived.Add(time.Duration(rapid.IntRange(-150, 200).Draw(t, "later")) * time.Millisecond)
					if arrived.After(clock) {
						arrived = clock
					}
					model.records = append(model.records, record{sequence: next, arrived: arrived})
					next++
				}
				tr.Read(page(model.records[first:]))
				model.readTo = clock
				tr.ReadTo(clock)
			},
			"make messages": func(t *rapid.T) {
				for ; turn < next && rapid.IntRange(0, 3).Draw(t, "more") > 0; turn++ {
					made, ends = append(made, turn), append(ends, turn)
				}
			},
			"pass over": func(t *rapid.T) {
				to := rapid.IntRange(turn-1, next-1).Draw(t, "up to")
				turn = to + 1
				if len(made) > 0 {
					ends[len(ends)-1] = to
					tr.Passed(fmt.Sprint(made[len(made)-1]), fmt.Sprint(to))
					return
				}
				made, ends = []int{to}, []int{to}
			},
			"acknowledge": func(t *rapid.T) {
				n := rapid.IntRange(0, len(ends)).Draw(t, "messages")
				if n == 0 {
					return
				}
				acked = ends[n-1]
				made, ends = made[n:], ends[n:]
				for i := range model.records {
					model.records[i].acked = model.records[i].sequence <= acked
				}
				tr.Acked(fmt.Sprint(acked))
			},
			"read again": func(t *rapid.T) { // some of what had not been sent, under the same lease
				again := model.records[acked-99:]
				tr.Read(page(again[:rapid.IntRange(0, len(again)).Draw(t, "records")]))
			},
			"": func(t *rapid.T) {
				truth, told := model.since(), tr.Since()
				if told.After(truth) {
					t.Fatalf("done up to %s is told, and %s is true", told, truth)
				}
				if truth.Sub(told) >= 100*time.Millisecond {
					t.Fatalf("done up to %s is told, long before %s", told, truth)
				}
			},
		})
	})
}

func TestRecordsThatWerePassedWaitForTheOneBeforeThem(t *testing.T) {
	tr := lag.New(at(0), "")
	for i := range 10 {
		read(tr, fmt.Sprint(10+i), at(float64(1+i)))
	}
	tr.ReadTo(at(20))
	tr.Passed("11", "14")
	tr.Passed("16", "19")
	require.Equal(t, at(1), tr.Since())
	tr.Acked("10")
	require.Equal(t, at(2), tr.Since())
	tr.Acked("14")
	require.Equal(t, at(6), tr.Since())
	tr.Acked("15")
	require.Equal(t, at(7), tr.Since())
	tr.Acked("19")
	require.Equal(t, at(20), tr.Since())
}

func TestTrackerHoldsAsMuchAsIsNotAcknowledged(t *testing.T) {
	tr := lag.New(start, "")
	sequences := 0
	allocs := testing.AllocsPerRun(1000, func() {
		sequences++
		number := fmt.Sprintf("%020d", sequences)
		read(tr, number, at(float64(sequences)))
		tr.Acked(number)
	})
	require.Less(t, allocs, 6.0)
	require.Zero(t, tr.Oldest())
}
