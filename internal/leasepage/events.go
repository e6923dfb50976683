package leasepage

import (
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/leases"
)

const (
	// maxEvents bounds what is kept.
	maxEvents = 1000
	// alike is up to how many shards that changed alike in one reading get an event each.
	alike = 20
)

// events are what has happened, oldest first, at most maxEvents.
type events struct {
	newest int64 // the number of the last; they are numbered from 1 on
	all    []Event
}

// Event is a change, or one that many shards had alike.
type Event struct {
	ID int64 `json:"id"`
	// At is when the change was read. It had happened since the reading before.
	At time.Time `json:"at"`
	leases.Change
	// Count is how many shards changed so, where it is not one, and Shards the first of
	// them. Shard is empty then.
	Count  int      `json:"count,omitempty"`
	Shards []string `json:"shards,omitempty"`
}

// add notes the changes of a reading. A member that dies may have had 1,000 shards, which
// would push out all that was before: many that are alike are one event.
func (e *events) add(at time.Time, changes []leases.Change) {
	changes = telling(changes)
	many := map[leases.Change][]string{}
	for _, c := range changes {
		if c.Member == "" {
			many[sortOf(c)] = append(many[sortOf(c)], c.Shard)
		}
	}
	for _, c := range changes {
		shards, shared := many[sortOf(c)]
		if c.Member != "" || len(shards) <= alike && shared {
			e.append(Event{At: at, Change: c})
			continue
		}
		if shared {
			e.append(Event{At: at, Change: sortOf(c), Count: len(shards), Shards: shards[:alike]})
			delete(many, sortOf(c))
		}
	}
	if over := len(e.all) - maxEvents; over > 0 {
		e.all = append([]Event(nil), e.all[over:]...)
	}
}

// telling leaves out what another change of the same shard says already: a state that
// comes with its owner, and an owner that has come to the end.
func telling(changes []leases.Change) (all []leases.Change) {
	type shard struct{ stream, id string }
	owned, finished := map[shard]bool{}, map[shard]bool{}
	for _, c := range changes {
		switch c.Kind {
		case leases.KindClaimed, leases.KindHandOver, leases.KindTakeOver:
			owned[shard{c.Stream, c.Shard}] = true
		case leases.KindFinished:
			finished[shard{c.Stream, c.Shard}] = true
		default:
		}
	}
	for _, c := range changes {
		one := shard{c.Stream, c.Shard}
		if c.Kind == leases.KindState && owned[one] || c.Kind == leases.KindReleased && finished[one] {
			continue
		}
		all = append(all, c)
	}
	return all
}

// sortOf is a change as it stands for all that are alike.
func sortOf(c leases.Change) leases.Change {
	c.Shard = ""
	switch c.Kind {
	case leases.KindSplit, leases.KindMerge:
		c.What = "are new: they come out of others"
	case leases.KindBack:
		c.What = "went back"
	default:
	}
	return c
}

func (e *events) append(one Event) {
	e.newest++
	one.ID = e.newest
	e.all = append(e.all, one)
}

// Events is the answer of /api/events.
type Events struct {
	Newest int64   `json:"newest"` // the number of the last one, 0 where there is none
	Events []Event `json:"events"`
}

func (e *events) after(id int64) Events {
	a := Events{Newest: e.newest, Events: []Event{}}
	if id > e.newest {
		id = 0 // asked of an earlier process
	}
	for _, one := range e.all {
		if one.ID > id {
			a.Events = append(a.Events, one)
		}
	}
	return a
}
