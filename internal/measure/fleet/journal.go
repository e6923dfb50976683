//go:build linux

package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
	"github.com/benthos-plugins/aws-kinesis/internal/measure/verify"
)

// journal follows the table write by write, and the reads of each shard. The
// server's goroutines write it, the harness reads it.
type journal struct {
	mu     sync.Mutex
	writes int // of any item
	items  map[string]item
	reads  map[string]int // calls of GetRecords by shard
	back   []setback
	// history has the writes to each shard in order, but for renewals alone.
	history map[string][]change
}

// change is a write that gave a shard another owner or another checkpoint.
type change struct {
	at                   time.Time
	owner, before, after string
}

// setback is a write after which a checkpoint was lower than before.
type setback struct {
	shard, before, after, owner string
	// ours says that the item belongs to a process of ours, renewed that the
	// write changed the lease too. A write of an owner does, while the built-in
	// input's last word on a shard that it lost does not.
	ours, renewed bool
}

func (s setback) String() string {
	by := "without renewing the lease"
	if s.renewed {
		by = "renewing the lease"
	}
	kind := builtin
	if s.ours {
		kind = ours
	}
	return fmt.Sprintf("checkpoint of %s went back from %s to %q by a write %s; owner: %q (%s)", s.shard, s.before, s.after, by, s.owner, kind)
}

// item is what the table has of a shard, and had.
type item struct {
	owner, sequence string
	ours            bool // the owner wrote a term, as only this input does
	// changes counts writes after which the owner was another one, renewals
	// those that left it the same.
	changes, renewals int
}

func newJournal() *journal {
	return &journal{items: map[string]item{}, reads: map[string]int{}, history: map[string][]change{}}
}

// write is a watcher of awsfake.Server.OnWrite.
func (j *journal) write(w awsfake.Write) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.writes++
	if w.Key["StreamID"].Text != stream {
		return
	}
	shard := w.Key["ShardID"].Text
	it := j.items[shard]
	before, after := w.Before["SequenceNumber"].Text, w.After["SequenceNumber"].Text
	owner := w.After["ClientID"].Text
	it.ours = owner != "" && strings.HasPrefix(w.After["LeaseTerm"].Text, owner+"/")
	if verify.Compare(after, before) < 0 {
		renewed := w.Before["LeaseTimeout"].Text != w.After["LeaseTimeout"].Text
		j.back = append(j.back, setback{shard, before, after, owner, it.ours, renewed})
	}
	if owner != it.owner || before != after {
		j.history[shard] = append(j.history[shard], change{time.Now(), owner, before, after})
	}
	it.sequence = after
	if owner != it.owner {
		it.owner = owner
		it.changes++
	} else {
		it.renewals++
	}
	j.items[shard] = it
}

// call is a hook of awsfake.Server.OnCall.
func (j *journal) call(c *awsfake.Call) {
	if c.Operation != "GetRecords" {
		return
	}
	shard := c.Shard()
	j.mu.Lock()
	defer j.mu.Unlock()
	j.reads[shard]++
}

// table returns what is stored of each shard that has an item.
func (j *journal) table() map[string]item {
	j.mu.Lock()
	defer j.mu.Unlock()
	return maps.Clone(j.items)
}

// loads returns how many shards each owner has.
func (j *journal) loads() map[string]int {
	j.mu.Lock()
	defer j.mu.Unlock()
	loads := map[string]int{}
	for _, it := range j.items {
		if it.owner != "" {
			loads[it.owner]++
		}
	}
	return loads
}

// loadsByKind returns how many shards each owner has, in ascending order, of
// ours and of the built-in input.
func (j *journal) loadsByKind() (own, others []int) {
	kinds := map[string]bool{}
	for _, it := range j.table() {
		kinds[it.owner] = it.ours
	}
	for owner, n := range j.loads() {
		if kinds[owner] {
			own = append(own, n)
		} else {
			others = append(others, n)
		}
	}
	slices.Sort(own)
	slices.Sort(others)
	return own, others
}

// totals returns the writes so far, and the reads of each shard.
func (j *journal) totals() (writes int, reads map[string]int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.writes, maps.Clone(j.reads)
}

// around returns the writes to a shard from the last one with a checkpoint below
// first to the first one with a checkpoint above last.
func (j *journal) around(shard, first, last string) []change {
	j.mu.Lock()
	defer j.mu.Unlock()
	h := j.history[shard]
	from, to := 0, len(h)
	for i, c := range h {
		if verify.Compare(c.after, first) < 0 {
			from = i
		}
		if to == len(h) && verify.Compare(c.after, last) > 0 {
			to = i + 1
		}
	}
	from = min(from, to)
	return slices.Clone(h[max(from-2, 0):min(to+2, len(h))])
}

// wentBack returns the writes after which a checkpoint was lower than before.
func (j *journal) wentBack() []setback {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.back)
}
