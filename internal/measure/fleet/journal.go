//go:build linux

package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/measure/verify"
)

// journal follows the table write by write, and the reads of each shard. The
// server's goroutines write it, the harness reads it.
type journal struct {
	mu     sync.Mutex
	writes int // of any item
	items  map[string]item
	reads  map[string]int       // calls of GetRecords by shard
	readAt map[string]time.Time // when the last of them began
	back   []setback
	// history has the writes to each shard in order, but for renewals alone.
	history map[string][]change
	// claims are the writes to each shard that gave it an owner, in order.
	claims map[string][]claim
	// clients are the members of the group without a name, in the order in which they
	// joined.
	clients []string
	inside  int // writes that left a checkpoint inside of an aggregate, and moved it
}

// claim is a write that gave a shard an owner, which reads on at the position.
type claim struct {
	at       time.Time
	owner    string
	position lease.Position
}

// change is a write that gave a shard another owner or another checkpoint.
type change struct {
	at                   time.Time
	owner, before, after string
	passed               bool          // it was handed over
	unread               time.Duration // since the last read of the shard began
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
	within          lease.Within
	ours            bool // the owner wrote a term, as only this input does
	// changes counts writes after which the owner was another one, renewals
	// those that left it the same.
	changes, renewals int
}

func (it item) position() lease.Position {
	return lease.Position{Sequence: it.sequence, Within: it.within}
}

func newJournal() *journal {
	return &journal{items: map[string]item{}, reads: map[string]int{}, readAt: map[string]time.Time{}, history: map[string][]change{}, claims: map[string][]claim{}}
}

// members is the name under which the table has the members of the group without a name.
const members = "/clients"

// write is a watcher of awsfake.Server.OnWrite.
func (j *journal) write(w awsfake.Write) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.writes++
	if w.Key["StreamID"].Text == members && w.Before == nil {
		j.clients = append(j.clients, w.Key["ShardID"].Text)
	}
	if w.Key["StreamID"].Text != stream {
		return
	}
	now, shard := time.Now(), w.Key["ShardID"].Text
	it := j.items[shard]
	before, after := positionOf(w.Before), positionOf(w.After)
	owner := w.After["ClientID"].Text
	it.ours = owner != "" && strings.HasPrefix(w.After["LeaseTerm"].Text, owner+"/")
	if after.Compare(before) < 0 {
		renewed := w.Before["LeaseTimeout"].Text != w.After["LeaseTimeout"].Text
		j.back = append(j.back, setback{shard, textOf(before), textOf(after), owner, it.ours, renewed})
	}
	if owner != it.owner || before != after {
		passed := owner != it.owner && strings.HasPrefix(w.After["LeaseTerm"].Text, owner+"/"+lease.HandOverMark)
		j.history[shard] = append(j.history[shard], change{now, owner, before.Sequence, after.Sequence, passed, now.Sub(j.readAt[shard])})
	}
	if owner != it.owner && owner != "" {
		j.claims[shard] = append(j.claims[shard], claim{now, owner, after})
	}
	if before != after && after.Within.Count > 0 {
		j.inside++
	}
	it.sequence, it.within = after.Sequence, after.Within
	if owner != it.owner {
		it.owner = owner
		it.changes++
	} else {
		it.renewals++
	}
	j.items[shard] = it
}

// positionOf reads the checkpoint of an item. How much of the next record is done stands
// as "sequence/record/count", and counts beside that sequence alone.
func positionOf(it awsfake.Item) lease.Position {
	p := lease.After(it["SequenceNumber"].Text)
	parts := strings.Split(it["Inside"].Text, "/")
	if len(parts) != 3 || parts[0] != p.Sequence {
		return p
	}
	if count, err := strconv.Atoi(parts[2]); err == nil {
		p.Within = lease.Within{Sequence: parts[1], Count: count}
	}
	return p
}

func textOf(p lease.Position) string {
	if p.Within.Count == 0 {
		return p.Sequence
	}
	return fmt.Sprintf("%s and %d of %s", p.Sequence, p.Within.Count, p.Within.Sequence)
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
	j.readAt[shard] = time.Now()
}

// table returns what is stored of each shard that has an item.
func (j *journal) table() map[string]item {
	j.mu.Lock()
	defer j.mu.Unlock()
	return maps.Clone(j.items)
}

// lastClaim returns the last claim of a shard by a client until then; false for none.
func (j *journal) lastClaim(shard, client string, until time.Time) (claim, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, c := range slices.Backward(j.claims[shard]) {
		if c.owner == client && !c.at.After(until) {
			return c, true
		}
	}
	return claim{}, false
}

// endOf returns the write after which a claim was over; false for none.
func (j *journal) endOf(shard string, c claim) (change, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, h := range j.history[shard] {
		if h.at.After(c.at) && h.owner != c.owner {
			return h, true
		}
	}
	return change{}, false
}

// owned returns the shards of an owner, in order.
func (j *journal) owned(owner string) []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	var shards []string
	for shard, it := range j.items {
		if it.owner == owner {
			shards = append(shards, shard)
		}
	}
	slices.Sort(shards)
	return shards
}

// joined returns the members of the group so far.
func (j *journal) joined() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.clients)
}

// insides returns how many writes left a checkpoint inside of an aggregate, and how many
// claims began with one.
func (j *journal) insides() (writes, claims int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, ofShard := range j.claims {
		for _, c := range ofShard {
			if c.position.Within.Count > 0 {
				claims++
			}
		}
	}
	return j.inside, claims
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
