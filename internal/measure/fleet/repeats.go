//go:build linux

package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"syscall"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/measure/verify"
)

// stay is the time for which a process has a shard, from one claim on.
type stay struct {
	by    *member
	claim claim
}

// sight is when a process let a user record out, by its own word, and in which stay.
type sight struct {
	stay
	at time.Time
}

// repeat is a stay from which user records came, and the one from which they came again,
// which may be the same.
type repeat struct {
	shard        string
	first, again stay
}

// repeated are the user records of a repeat.
type repeated struct {
	number          int
	lowest, highest verify.ID
	first, last     time.Time // let out for the first time
	again           time.Time // the earliest that came again
}

// cause is what ended the stay from which a user record came that comes again.
type cause string

const (
	// killed is the end of a process by SIGKILL.
	killed cause = "killed"
	// passed is a hand-over to another process, with acknowledgements that did not come
	// in the time for which they are waited for.
	passed cause = "passed"
	// hasty is a hand-over that has not waited for them.
	hasty cause = "hasty"
	// evicted is the claim of another process, since nothing had been heard of the first.
	evicted cause = "evicted"
	// released is the release of the shard, as after SIGTERM. Everything that was let out
	// is acknowledged then, and covered by the checkpoint where the order is by shard.
	released cause = "released"
	// kept is no end: the shard was suspended, say, or a batch was rejected.
	kept cause = "kept"
)

// repeats knows from which stay each user record came that came twice. It belongs to the
// harness.
type repeats struct {
	firsts map[verify.ID]sight
	found  map[repeat]*repeated
}

func newRepeats() *repeats {
	return &repeats{firsts: map[verify.ID]sight{}, found: map[repeat]*repeated{}}
}

// note takes note of a user record that a process let out.
func (r *repeats) note(id verify.ID, now sight) {
	before, known := r.firsts[id]
	if !known {
		r.firsts[id] = now
		return
	}
	if now.at.Before(before.at) { // of two processes the one may be heard before the other
		before, now = now, before
		r.firsts[id] = before
	}
	key := repeat{id.Shard, before.stay, now.stay}
	of := r.found[key]
	if of == nil {
		of = &repeated{lowest: id, highest: id, first: before.at, last: before.at, again: now.at}
		r.found[key] = of
	}
	of.number++
	of.lowest = slices.MinFunc([]verify.ID{of.lowest, id}, compareIDs)
	of.highest = slices.MaxFunc([]verify.ID{of.highest, id}, compareIDs)
	of.first = slices.MinFunc([]time.Time{of.first, before.at}, time.Time.Compare)
	of.last = slices.MaxFunc([]time.Time{of.last, before.at}, time.Time.Compare)
	of.again = slices.MinFunc([]time.Time{of.again, now.at}, time.Time.Compare)
}

func compareIDs(a, b verify.ID) int {
	return cmp.Or(verify.Compare(a.Sequence, b.Sequence), cmp.Compare(a.Sub, b.Sub))
}

// causeOf tells what ended the first stay of a repeat, and the write that did.
func (f *fleet) causeOf(r repeat) (cause, change) {
	end, ended := f.journal.endOf(r.shard, r.first.claim)
	switch {
	case r.first == r.again || !ended:
		return kept, end
	case end.passed && end.unread < f.lease/6:
		// A shard is not read while it is drained, for a third of the lease period where
		// acknowledgements do not come. Its last read may have been on its way for a while.
		return hasty, end
	case end.passed:
		return passed, end
	case end.owner == "":
		return released, end
	case r.first.by.sent == syscall.SIGKILL && r.first.by.lost.Before(end.at):
		return killed, end
	}
	return evicted, end
}

// tellRepeats adds what came twice, by what ended the stay from which it came first. Of
// what no process was killed for it tells from whom it came, and when.
func (f *fleet) tellRepeats(sh *sheet) {
	found, sums, most := f.producer.repeats.found, map[cause]int{}, map[cause]int{}
	inOrder := slices.SortedFunc(maps.Keys(found), func(a, b repeat) int { return found[a].first.Compare(found[b].first) })
	for _, r := range inOrder {
		why, end := f.causeOf(r)
		sums[why] += found[r].number
		most[why] = max(most[why], found[r].number)
		if why != killed {
			sh.line("%s", found[r].tell(why, r, end))
			for _, line := range r.first.by.logged() {
				sh.line("  | %s", line)
			}
		}
	}
	sh.note("user records that came twice", "%d", f.ledger.Report().Repeats)
	sh.note("of these, from processes that were killed, and not covered by their checkpoints", "%d", sums[killed])
	sh.note("from hand-overs whose drain time-out ended before the output had acknowledged them", "%d", sums[passed])
	sh.note("from processes that were taken for dead, and lived", "%d", sums[evicted])
	sh.none("from hand-overs that did not wait", sums[hasty])
	if f.aggregated == byKey {
		// What was acknowledged beyond one that waits for its key comes again.
		sh.note("from processes that had released the shard, as at SIGTERM", "%d", sums[released])
		sh.atMost("the most of these of one shard, which had so many in flight", most[released], checkpointLimit)
	} else {
		sh.none("from processes that had released the shard, as at SIGTERM", sums[released])
	}
	sh.none("from processes that kept the shard", sums[kept])
}

func (of *repeated) tell(why cause, r repeat, end change) string {
	clock := func(t time.Time) string { return t.Format("15:04:05.000") }
	told := "it was told to end by nobody"
	if m := r.first.by; m.told {
		told = fmt.Sprintf("it was told to end at %s (%s)", clock(m.lost), m.sent)
	}
	return fmt.Sprintf("came twice (%s): %d user records of %s from %s/%d to %s/%d; from %s, which claimed it at %s, between %s and %s, and from %s from %s on; at %s the shard became that of %q, not read for %s; %s",
		why, of.number, r.shard, of.lowest.Sequence, of.lowest.Sub, of.highest.Sequence, of.highest.Sub,
		r.first.by.client, clock(r.first.claim.at), clock(of.first), clock(of.last), r.again.by.client, clock(of.again),
		clock(end.at), end.owner, seconds(end.unread), told)
}
