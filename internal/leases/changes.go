package leases

import (
	"fmt"
	"time"
)

// Change is what is different in a View from an earlier one, of a member or of a shard. A
// position that moves on is none.
type Change struct {
	Member string `json:"member,omitempty"`
	Stream string `json:"stream,omitempty"`
	Shard  string `json:"shard,omitempty"`
	What   string `json:"what"`
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
	for _, m := range after.Members {
		switch was, ok := before.Member(m.ID); {
		case !ok:
			all = append(all, Change{Member: m.ID, What: "joined"})
		case was.Life != m.Life && (was.Life != Unproven || m.Life != Alive):
			all = append(all, Change{Member: m.ID, What: fmt.Sprintf("is %s, and was %s", m.Life, was.Life)})
		}
	}
	for _, m := range before.Members {
		if _, there := after.Member(m.ID); !there {
			all = append(all, Change{Member: m.ID, What: "left or was evicted"})
		}
	}
	for _, stream := range after.Streams {
		old, known := before.Stream(stream.Name)
		was := make(map[string]Shard, len(old.Shards))
		for _, s := range old.Shards {
			was[s.Shard] = s
		}
		if !known {
			all = append(all, Change{Stream: stream.Name, Shard: "*", What: "is new"})
			continue
		}
		for _, s := range stream.Shards {
			one, ok := was[s.Shard]
			delete(was, s.Shard)
			for _, what := range changesOf(one, s, ok) {
				all = append(all, Change{Stream: s.Stream, Shard: s.Shard, What: what})
			}
		}
		for _, s := range old.Shards {
			if _, gone := was[s.Shard]; gone {
				all = append(all, Change{Stream: s.Stream, Shard: s.Shard, What: "is not there any more"})
			}
		}
	}
	return all
}

func changesOf(was, s Shard, known bool) (all []string) {
	if !known {
		return []string{"is new, and is " + string(s.State)}
	}
	if was.Owner != s.Owner {
		switch {
		case s.Owner == "":
			all = append(all, "has no owner any more, which was "+was.Owner)
		case was.Owner == "":
			all = append(all, "has the owner "+s.Owner+" now")
		default:
			all = append(all, "went from "+was.Owner+" to "+s.Owner)
		}
	}
	if was.State != s.State {
		all = append(all, fmt.Sprintf("is %s, and was %s", s.State, was.State))
	}
	if was.UpTo != nil && s.UpTo != nil && s.UpTo.Before(*was.UpTo) {
		all = append(all, "went back by "+was.UpTo.Sub(*s.UpTo).Round(time.Second).String())
	}
	return all
}
