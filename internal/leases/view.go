// Package leases is what an operator sees of a group: who is in it, who reads each shard
// and how far, and why a shard is not read.
//
// A Reader reads the table and the lists of shards, and makes a View of them. What is
// believed of a shard is what the members themselves believe of it: internal/group decides
// it, by the same rules. Whether a member lives takes two readings at least, as it does for
// the members: its token moves, or has stood still for its lease period. No clocks of two
// machines are compared for that.
//
// Explain says of a shard in a View why it is or is not read.
//
// What an operator wants written is planned from a View: each planner returns a Plan of
// steps, with the reason of each or why it is refused, and calls nothing. Apply carries a
// plan out, each step on the condition that the table is as the View has it.
package leases

import (
	"slices"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/lineage"
)

// View is what one reading shows, in the form in which it is written as JSON. Times are
// in UTC, and a time that nobody knows is left out.
type View struct {
	Table string `json:"table"`
	Group string `json:"group,omitempty"` // empty for the group that is the table itself
	// At is when it was read, by this machine's clock, and Watched for how long the group
	// had been watched by then: 0 at the first reading, at which nobody is known to live.
	At      time.Time `json:"at"`
	Watched Seconds   `json:"watched_seconds"`
	Members []Member  `json:"members"`
	// Evicted are members that were taken for dead and whose items are there still.
	Evicted []string `json:"evicted_members,omitempty"`
	Streams []Stream `json:"streams"`
}

// Seconds is a duration that is written as a number of seconds.
type Seconds float64

// SecondsOf returns a duration in whole milliseconds.
func SecondsOf(d time.Duration) Seconds { return Seconds(d.Milliseconds()) / 1000 }

// Duration returns s as a duration.
func (s Seconds) Duration() time.Duration { return time.Duration(float64(s) * float64(time.Second)) }

// Life is what is known of whether an owner lives.
type Life string

// The lives.
const (
	// Unproven owners have not been watched for long enough, or were not seen to move.
	Unproven Life = "unproven"
	// Alive owners have sent a heartbeat, or renewed an item, while they were watched.
	Alive Life = "alive"
	// Late owners have let a heartbeat pass: they may be suspended, cut off or dead.
	Late Life = "late"
	// Dead owners have stood still for their lease period. Any member may evict them.
	Dead Life = "dead"
	// Gone owners have left the group or were evicted. They never come back.
	Gone Life = "gone"
)

// Member is an instance of the input.
type Member struct {
	ID          string  `json:"id"`
	Life        Life    `json:"life"`
	LeasePeriod Seconds `json:"lease_period_seconds"`
	// Still is for how long its item was seen unchanged, and DeadAt when it may be taken
	// for dead unless that changes.
	Still  Seconds    `json:"still_seconds"`
	DeadAt *time.Time `json:"dead_at,omitempty"`
	// Streams are those whose shards it shares; none for one that was told which shards to
	// read. Requests are how many shards it asks for, by owner.
	Streams  []string       `json:"streams"`
	Requests map[string]int `json:"requests,omitempty"`
	Changes  int64          `json:"changes"`
	Shards   int            `json:"shards"` // that it owns, in all streams of the view

	member lease.Member // as it was read, for the condition of a write
}

// Stream is a stream of the group.
type Stream struct {
	Name string `json:"name"` // as it stands in the table, a name or an ARN
	// Error is why its shards could not be listed: lineage and lag are not known then.
	Error  string  `json:"error,omitempty"`
	Shards []Shard `json:"shards"`

	clock time.Time // of the service at the reading; zero where it did not tell
}

// State is what happens to a shard.
type State string

// The states.
const (
	Reading   State = "reading"     // it has an owner who lives, or may
	Handed    State = "handed over" // it was passed to its owner, who has not claimed it
	Orphaned  State = "owner dead"  // its owner is dead or gone, and nobody has claimed it
	Free      State = "free"        // it may be read, and nobody has it
	Waiting   State = "waiting"     // its parents are not finished
	Undecided State = "undecided"   // whether it was finished is not known yet
	Finished  State = "finished"    // it was read to its end
	Cut       State = "cut"         // it was read up to the end of its group
	Beyond    State = "beyond"      // all of it comes after the end of its group
	Trimmed   State = "trimmed"     // it has left the stream
	Unlisted  State = "not listed"  // the stream does not list it, yet or because it cannot be listed
)

// Shard is a shard of a stream, or an item of one that the stream does not list.
type Shard struct {
	Stream string `json:"stream"`
	Shard  string `json:"shard"`
	State  State  `json:"state"`
	Owner  string `json:"owner,omitempty"`
	Life   Life   `json:"owner_life,omitempty"`
	// FreeAt is when others may claim it at the earliest, unless its owner moves.
	FreeAt *time.Time `json:"free_at,omitempty"`
	// Sequence is up to where all is acknowledged, and Inside how much of the record after
	// that, which holds several.
	Sequence string  `json:"sequence,omitempty"`
	Inside   *Inside `json:"inside,omitempty"`
	// UpTo is the moment, by the clock of Kinesis, before which all that arrived was
	// acknowledged, and Lag how long ago that was: at most so late is the shard.
	UpTo *time.Time `json:"up_to,omitempty"`
	Lag  *Seconds   `json:"lag_seconds,omitempty"`
	// LeaseUntil is the time that stands in the item, by its owner's clock. An owner that
	// has nothing to commit renews it every two lease periods.
	LeaseUntil *time.Time `json:"lease_until,omitempty"`
	Term       string     `json:"term,omitempty"`
	TermNumber int64      `json:"term_number,omitempty"`
	// StartAt is where it starts while it has no sequence.
	StartAt *time.Time `json:"start_at,omitempty"`
	CutAt   *time.Time `json:"cut_at,omitempty"`

	Parents  []string `json:"parents,omitempty"`
	Children []string `json:"children,omitempty"`
	Listed   bool     `json:"listed"` // by the stream
	Closed   bool     `json:"closed"` // it takes no more records
	// FirstKey and LastKey bound its hash keys, both included, as decimal numbers below
	// 2^128. JSON has them as texts, since most programs read numbers less exactly.
	FirstKey string `json:"first_key,omitempty"`
	LastKey  string `json:"last_key,omitempty"`
	// HasItem is whether the table has an item under its id, and Literals are other items
	// of it, such as `0`.
	HasItem  bool     `json:"has_item"`
	Literals []string `json:"literal_items,omitempty"`
	// LiteralOwner is whether Owner holds one of those.
	LiteralOwner bool `json:"literal_owner,omitempty"`
	// Foreign is whether the owner is Benthos' built-in input.
	Foreign       bool `json:"foreign_owner,omitempty"`
	Pinned        bool `json:"pinned,omitempty"`
	EarlierStream bool `json:"earlier_stream,omitempty"` // the item is of a stream that was deleted
	// Unproven is whether it may be read once more than need be: its children were begun by
	// somebody whose items do not tell whether it was finished.
	Unproven  bool   `json:"unproven,omitempty"`
	Malformed string `json:"malformed,omitempty"`

	// item and literals are as they were read, for the condition of a write, and listed as
	// the stream lists the shard.
	item     lease.Item
	literals []lease.Item
	listed   lineage.Shard
}

// Inside is how much is acknowledged of a record that holds several.
type Inside struct {
	Sequence string `json:"sequence"`
	Records  int    `json:"records"`
}

// Shard returns a shard of a stream.
func (v View) Shard(stream, shard string) (Shard, bool) {
	for _, s := range v.Streams {
		if s.Name != stream {
			continue
		}
		if i := slices.IndexFunc(s.Shards, func(sh Shard) bool { return sh.Shard == shard }); i >= 0 {
			return s.Shards[i], true
		}
	}
	return Shard{}, false
}

// Stream returns a stream.
func (v View) Stream(name string) (Stream, bool) {
	i := slices.IndexFunc(v.Streams, func(s Stream) bool { return s.Name == name })
	if i < 0 {
		return Stream{}, false
	}
	return v.Streams[i], true
}

// Member returns a member.
func (v View) Member(id string) (Member, bool) {
	i := slices.IndexFunc(v.Members, func(m Member) bool { return m.ID == id })
	if i < 0 {
		return Member{}, false
	}
	return v.Members[i], true
}
