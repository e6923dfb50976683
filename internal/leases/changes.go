package leases

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Kind is what sort of thing a Change is, for programs.
type Kind string

// The kinds. Owner changes of a shard count as what brings them about.
const (
	KindJoined   Kind = "joined"
	KindLeft     Kind = "left" // in order, or evicted and its item removed since
	KindEvicted  Kind = "evicted"
	KindAlive    Kind = "alive" // again
	KindLate     Kind = "late"
	KindDead     Kind = "dead"
	KindClaimed  Kind = "claimed"     // nobody had it
	KindHandOver Kind = "handed over" // from an owner who lives, or may
	KindTakeOver Kind = "taken over"  // from one that is dead or gone
	KindReleased Kind = "released"    // it has no owner any more
	KindFinished Kind = "finished"
	KindState    Kind = "state"
	KindSplit    Kind = "split" // it came out of one
	KindMerge    Kind = "merge" // it came out of one
	KindNew      Kind = "new"
	KindRemoved  Kind = "removed"
	KindBack     Kind = "moved back"
)

// Change is what is different in a View from an earlier one, of a member or of a shard. A
// position that moves on is none.
type Change struct {
	Kind   Kind   `json:"kind"`
	Member string `json:"member,omitempty"`
	Stream string `json:"stream,omitempty"`
	Shard  string `json:"shard,omitempty"`
	// From and To are owners.
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
	What string `json:"what"`
}

func (c Change) String() string {
	if c.Member != "" {
		return "client " + c.Member + " " + c.What
	}
	return c.Stream + ":" + c.Shard + " " + c.What
}

// Changes returns what is different in a view from the one before it: members that came,
// went or changed their lives, and shards that changed their states or their owners, came
// or went, or moved back.
func Changes(before, after View) (all []Change) {
	all = memberChanges(before, after)
	for _, stream := range after.Streams {
		old, known := before.Stream(stream.Name)
		was := make(map[string]Shard, len(old.Shards))
		for _, s := range old.Shards {
			was[s.Shard] = s
		}
		if !known {
			all = append(all, Change{Kind: KindNew, Stream: stream.Name, Shard: "*", What: "is new"})
			continue
		}
		for _, s := range stream.Shards {
			one, ok := was[s.Shard]
			delete(was, s.Shard)
			for _, c := range changesOf(one, s, ok) {
				c.Stream, c.Shard = s.Stream, s.Shard
				if c.Kind == KindHandOver && slices.Contains(after.Evicted, c.From) {
					c.Kind = KindTakeOver
				}
				all = append(all, c)
			}
		}
		for _, s := range old.Shards {
			if _, gone := was[s.Shard]; gone {
				all = append(all, Change{Kind: KindRemoved, Stream: s.Stream, Shard: s.Shard, What: "is not there any more"})
			}
		}
	}
	return all
}

func memberChanges(before, after View) (all []Change) {
	for _, m := range after.Members {
		switch was, ok := before.Member(m.ID); {
		case !ok:
			all = append(all, Change{Kind: KindJoined, Member: m.ID, What: "joined"})
		case was.Life != m.Life && (was.Life != Unproven || m.Life != Alive):
			all = append(all, Change{Kind: Kind(m.Life), Member: m.ID, What: fmt.Sprintf("is %s, and was %s", m.Life, was.Life)})
		}
	}
	for _, m := range before.Members {
		if _, there := after.Member(m.ID); there {
			continue
		}
		if slices.Contains(after.Evicted, m.ID) {
			all = append(all, Change{Kind: KindEvicted, Member: m.ID, What: "was evicted"})
		} else {
			all = append(all, Change{Kind: KindLeft, Member: m.ID, What: "left or was evicted"})
		}
	}
	return all
}

// changesOf names neither stream nor shard.
func changesOf(was, s Shard, known bool) (all []Change) {
	if !known {
		is := "is new, and is " + string(s.State)
		switch len(s.Parents) {
		case 0:
			return []Change{{Kind: KindNew, What: is}}
		case 1:
			return []Change{{Kind: KindSplit, What: is + ": it comes out of a split of " + s.Parents[0]}}
		}
		return []Change{{Kind: KindMerge, What: is + ": it comes out of a merge of " + strings.Join(s.Parents, " and ")}}
	}
	if was.Owner != s.Owner {
		c := Change{From: was.Owner, To: s.Owner}
		switch {
		case s.Owner == "":
			c.Kind, c.What = KindReleased, "has no owner any more, which was "+was.Owner
		case was.Owner == "":
			c.Kind, c.What = KindClaimed, "has the owner "+s.Owner+" now"
		default:
			c.Kind, c.What = KindHandOver, "went from "+was.Owner+" to "+s.Owner
			if was.Life == Dead || was.Life == Gone {
				c.Kind = KindTakeOver
			}
		}
		all = append(all, c)
	}
	if was.State != s.State {
		c := Change{Kind: KindState, What: fmt.Sprintf("is %s, and was %s", s.State, was.State)}
		if s.State == Finished {
			c.Kind = KindFinished
		}
		all = append(all, c)
	}
	if was.UpTo != nil && s.UpTo != nil && s.UpTo.Before(*was.UpTo) {
		all = append(all, Change{Kind: KindBack, What: "went back by " + was.UpTo.Sub(*s.UpTo).Round(time.Second).String()})
	}
	return all
}
