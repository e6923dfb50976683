package leases

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Code names a reason, for programs.
type Code string

// The reasons.
const (
	CodeRead          Code = "read"                // somebody reads the shard
	CodeUnproven      Code = "owner_unproven"      // it has an owner who was not seen to move yet
	CodeLate          Code = "owner_late"          // its owner lets heartbeats pass
	CodeDead          Code = "owner_dead"          // its owner is dead and not evicted yet
	CodeGone          Code = "owner_gone"          // its owner is in the group no more
	CodeForeign       Code = "foreign_owner"       // a built-in input has it
	CodeLiteral       Code = "literal_owner"       // it does so by an item such as `0`
	CodeHandedOver    Code = "handed_over"         // its owner has not claimed it yet
	CodeRequested     Code = "requested"           // its owner is asked for shards
	CodePinned        Code = "pinned"              // its owner was told to read this very shard
	CodeBehind        Code = "behind"              // its owner lives and the shard is late
	CodeParents       Code = "parents_unfinished"  // they are to be read first
	CodeUndecided     Code = "undecided"           // it may have been finished
	CodeUnproved      Code = "finish_unproved"     // it is read again, perhaps for nothing
	CodeNobody        Code = "nobody_in_group"     // no member is there
	CodeNotShared     Code = "nobody_shares"       // no member shares the stream
	CodeUnclaimed     Code = "unclaimed"           // members are there, and nobody has claimed it
	CodeFinished      Code = "finished"            // it was read to its end
	CodeCut           Code = "cut"                 // it was read to the end of its group
	CodeBeyond        Code = "beyond_end"          // it comes after the end of its group
	CodeTrimmed       Code = "trimmed"             // it has left the stream
	CodeUnlisted      Code = "not_listed"          // the stream does not list it
	CodeStreamUnknown Code = "stream_unlisted"     // the stream cannot be listed
	CodeEarlier       Code = "earlier_stream_item" // its item is of a stream that was deleted
	CodeMalformed     Code = "item_malformed"      // its item is not as an input writes it
)

// Reason is one thing that is so, and what to do about it; no remedy where nothing need be
// done.
type Reason struct {
	Code   Code   `json:"code"`
	Text   string `json:"text"`
	Remedy string `json:"remedy,omitempty"`
}

// Explanation says why a shard is or is not read. What decides comes first.
type Explanation struct {
	Stream  string   `json:"stream"`
	Shard   string   `json:"shard"`
	State   State    `json:"state"`
	Read    bool     `json:"read"` // by somebody who was seen to live
	Reasons []Reason `json:"reasons"`
}

// Behind is the lag from which on a shard that is read counts as late.
const Behind = time.Minute

// Explain says why a shard is or is not read. ok is false for one that neither the stream
// nor the table knows.
func Explain(v View, stream, shard string) (e Explanation, ok bool) {
	s, ok := v.Shard(stream, shard)
	if !ok {
		return Explanation{}, false
	}
	x := explainer{View: v, Shard: s}
	x.state()
	x.item()
	return Explanation{
		Stream: s.Stream, Shard: s.Shard, State: s.State, Read: s.State == Reading && s.Life == Alive, Reasons: x.reasons,
	}, true
}

type explainer struct {
	View
	Shard   Shard
	reasons []Reason
}

func (x *explainer) say(code Code, remedy, text string, args ...any) {
	x.reasons = append(x.reasons, Reason{code, fmt.Sprintf(text, args...), remedy})
}

func (x *explainer) state() {
	s := x.Shard
	switch s.State {
	case Reading:
		x.owned()
	case Handed:
		x.say(CodeHandedOver, "Nothing if it lasts for seconds. Otherwise look in the log of "+s.Owner+" for claims that fail.",
			"It was handed over to client %s, which has not claimed it yet.%s", s.Owner, timeOf(" If that client does not, others may %s.", s.FreeAt))
	case Orphaned:
		x.orphaned()
	case Free:
		x.free()
	case Waiting:
		x.parents()
	case Undecided:
		x.say(CodeUndecided, "Wait for a lease period, and ask again.",
			"It is closed and has no item, and an owner of a child of it may prove that it was read to its end: that is known when that owner was seen to live, or is dead.")
	case Finished:
		if s.HasItem {
			x.say(CodeFinished, "", "It was read to its end, and everything in it is acknowledged.")
		} else {
			x.say(CodeFinished, "", "It is closed and has no item, and its children have been begun by readers that read parents first: it was read to its end.")
		}
	case Cut:
		x.say(CodeCut, "To read on, remove `end_at_timestamp`, or write a later one.",
			"It was read up to the end of its group%s, and everything up to there is acknowledged.", timeOf(" %s", s.CutAt))
	case Beyond:
		x.say(CodeBeyond, "To read it, remove `end_at_timestamp`, or write a later one.",
			"It comes out of a shard that was read up to the end of its group: all its records arrived after that.")
	case Trimmed:
		x.say(CodeTrimmed, "Nothing can be read of it any more. Raise the retention of the stream where it was not read to its end.",
			"It has left the stream, whose retention has passed, and its item does not say that it was read to its end. %s", upTo(s))
	case Unlisted:
		x.unlisted()
	}
	if s.Unproven && s.State != Finished {
		x.say(CodeUnproved, "Where it was read to its end, its records come again.",
			"It is closed and has no item, and the items of its children do not tell whether it was finished: it counts as never read.")
	}
}

// owned says what is known of an owner that lives, or may.
func (x *explainer) owned() {
	s := x.Shard
	switch {
	case s.LiteralOwner:
		x.say(CodeLiteral, "Give the built-in input and this one different shards, or end the former.",
			"Client %s has it under another spelling, item %s: that is a built-in input, or one that was told to read this very shard.%s",
			s.Owner, quoted(s.Literals), timeOf(" It is left alone until that item is free or has stood still for long, %s at the earliest.", s.FreeAt))
	case s.Foreign:
		x.say(CodeForeign, "Nothing while both share the stream on purpose.",
			"Client %s has it, an instance of Benthos' built-in input%s.%s",
			s.Owner, map[bool]string{true: " that renews its item", false: " that was not seen to renew its item yet"}[s.Life == Alive], timeOf(" Unless its item changes, others may claim it %s.", s.FreeAt))
	case s.Life == Alive:
		x.say(CodeRead, "", "Client %s reads it, and was seen to live.", s.Owner)
	case s.Life == Late:
		m, _ := x.Member(s.Owner)
		x.say(CodeLate, "Look whether the machine of that client is suspended or overloaded, or cannot reach the table.",
			"Client %s has it, and has sent no heartbeat for %s though one was due: it may be suspended, cut off or dead, and delivers nothing once it trusts its lease no more.%s",
			s.Owner, m.Still.Duration().Round(time.Second), timeOf(" Others may take it for dead %s, and claim the shard then.", s.FreeAt))
	default:
		x.say(CodeUnproven, "Watch for longer, such as with `--watch 35s`.",
			"Client %s has it, and has not been watched for long enough to tell whether it lives.%s",
			s.Owner, timeOf(" If it is dead, others may claim the shard %s at the earliest.", s.FreeAt))
	}
	if s.Pinned && !s.LiteralOwner && !s.Foreign {
		x.say(CodePinned, "To have it shared, write the stream without a shard in `streams`.",
			"That client was told to read this very shard, so it is no part of the balance.")
	}
	for _, m := range x.Members {
		if n := m.Requests[s.Owner]; n > 0 {
			x.say(CodeRequested, "Nothing: it is part of sharing out.",
				"Client %s asks that client for %d shards, of which this may be one: it is handed over when what was sent is acknowledged.", m.ID, n)
		}
	}
	if s.Lag != nil && s.Lag.Duration() > Behind && s.Life == Alive {
		x.say(CodeBehind, "Look in the log of "+s.Owner+" for reads that are throttled or denied, and at `kinesis_lag_milliseconds`, `output_latency_ns` and the processors: where the output is slow, nothing more is read.",
			"It is %s late, though its owner lives: its reads are throttled or fail, or the output does not acknowledge.", s.Lag.Duration())
	}
}

func (x *explainer) orphaned() {
	s := x.Shard
	remedy := "Nothing if other members run: they claim it. Otherwise start one."
	if x.sharing() == 0 {
		remedy = "Start an instance that reads this stream."
	}
	if s.Life == Gone {
		x.say(CodeGone, remedy, "Its owner, client %s, has left the group or was evicted: it can be claimed now. %s", s.Owner, upTo(s))
	} else {
		x.say(CodeDead, remedy, "Its owner, client %s, is dead: it has stood still for its lease period. Any member may evict it now and claim the shard. %s", s.Owner, upTo(s))
	}
	x.readers()
}

func (x *explainer) free() {
	s := x.Shard
	if x.sharing() > 0 {
		x.say(CodeUnclaimed, "Nothing if it lasts for seconds. Otherwise look in the logs of all members for claims that fail, and whether they may write to the table.",
			"It may be read, and nobody has claimed it yet. %s", upTo(s))
		return
	}
	x.readers()
}

// readers says where nobody is there who could claim the shard.
func (x *explainer) readers() {
	var reads []string
	living := 0
	for _, m := range x.Members {
		if m.Life != Dead {
			living++
			reads = append(reads, m.Streams...)
		}
	}
	switch stream := x.Shard.Stream; {
	case living == 0:
		x.say(CodeNobody, "Start an instance with this table"+ofGroup(x.Group)+".", "No member is in the group that may live.")
	case x.sharing() == 0:
		slices.Sort(reads)
		x.say(CodeNotShared, "Write "+stream+" in `streams` of one of them, exactly as it stands here: a name and an ARN are two streams to the table.",
			"None of the members shares stream %s, of which %d may live: they share %s.", stream, living, cmp.Or(strings.Join(slices.Compact(reads), ", "), "none"))
	}
}

// sharing counts the members that may claim shards of the stream.
func (x *explainer) sharing() (n int) {
	for _, m := range x.Members {
		if m.Life != Dead && slices.Contains(m.Streams, x.Shard.Stream) {
			n++
		}
	}
	return n
}

func (x *explainer) parents() {
	for _, id := range x.Shard.Parents {
		parent, ok := x.View.Shard(x.Shard.Stream, id)
		if !ok || parent.State == Finished {
			continue
		}
		reader := "nobody reads it"
		if parent.State == Reading {
			reader = "client " + parent.Owner + " reads it"
			if parent.Lag != nil {
				reader += ", " + parent.Lag.Duration().String() + " late"
			}
		}
		x.say(CodeParents, "Nothing if that one is read. Otherwise ask why it is not: explain "+parent.Stream+":"+parent.Shard+".",
			"Its parent %s is not read to its end yet, and goes first to keep the order of each key: it is %s, and %s.", id, parent.State, reader)
	}
	if len(x.reasons) == 0 {
		x.say(CodeParents, "Ask again in a while.", "Its parents are not known to be read to their ends.")
	}
}

func (x *explainer) unlisted() {
	s := x.Shard
	if stream, _ := x.Stream(s.Stream); stream.Error != "" {
		x.say(CodeStreamUnknown, "Mend that first.", "The shards of its stream cannot be listed: %s", stream.Error)
		return
	}
	x.say(CodeUnlisted, "Where the stream was deleted and made anew, its item is removed by nobody until the stream has a shard with a higher number.",
		"The stream does not list it, and lists none that is newer: it is yet to be listed, or of an earlier stream of the same name.")
}

// item says what is odd about the item, whatever becomes of the shard.
func (x *explainer) item() {
	s := x.Shard
	if s.EarlierStream {
		x.say(CodeEarlier, "Nothing: its sequence number does not count, and the shard is read from its oldest record.",
			"Its item is of a shard of the same id in a stream that was deleted and made anew.")
	}
	if s.Malformed != "" {
		x.say(CodeMalformed, "Where nobody but inputs should write to the table, find who does. It is claimed when it is free or its owner is dead.",
			"Its item is not as an input writes it: %s.", s.Malformed)
	}
}

func upTo(s Shard) string {
	switch {
	case !s.HasItem:
		return "Nobody has begun it."
	case s.Lag != nil:
		return fmt.Sprintf("What arrived in it more than %s ago is acknowledged.", s.Lag.Duration())
	case s.Sequence == "":
		return "Nothing of it is acknowledged."
	}
	return "It is acknowledged up to sequence number " + s.Sequence + "."
}

func ofGroup(name string) string {
	if name == "" {
		return ""
	}
	return " and `group: " + name + "`"
}

func quoted(names []string) string {
	all := make([]string, len(names))
	for i, name := range names {
		all[i] = "`" + name + "`"
	}
	return strings.Join(all, ", ")
}

func timeOf(text string, at *time.Time) string {
	if at == nil {
		return ""
	}
	return fmt.Sprintf(text, "at "+at.Format(time.RFC3339))
}
