package leasepage

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/leases"
)

// remembered is for how long lag is kept, and who has gone.
const remembered = time.Hour

// maxDeparted bounds how many members that have gone are shown.
const maxDeparted = 100

// Reading is the answer of /api/view.
type Reading struct {
	Table string `json:"table"`
	Group string `json:"group,omitempty"`
	// Started tells this process from another that was at its address before.
	Started    time.Time      `json:"started"`
	Interval   leases.Seconds `json:"interval_seconds"`
	StaleAfter leases.Seconds `json:"stale_after_seconds"`
	// Error is why the last reading failed, and View that of the last that did not, since
	// when it is older than it looks.
	Error      string       `json:"error,omitempty"`
	ErrorSince *time.Time   `json:"error_since,omitempty"`
	View       *leases.View `json:"view"` // null before the first
	Counts     Counts       `json:"counts"`
	// Labels are short names of owners, by their ids; nobody has had one before.
	Labels labels `json:"labels"`
	// Departed are the members that have gone in the last hour, the latest first.
	Departed []Departed `json:"departed"`
}

// Counts is the view in numbers.
type Counts struct {
	Members map[leases.Life]int `json:"members"`
	// Read shards have an owner who lives or was not watched for long enough, Late ones
	// one that lets heartbeats pass. Unread ones may be read, and are not; Waiting ones wait
	// for their parents; and of those that are Done nothing is left to read, or can be.
	Read    int `json:"read"`
	Late    int `json:"late"`
	Unread  int `json:"unread"`
	Waiting int `json:"waiting"`
	Done    int `json:"done"`
	// WorstLag is the greatest of those that are not done.
	WorstLag *leases.Seconds `json:"worst_lag_seconds,omitempty"`
}

// Departed is a member that is in the group no more.
type Departed struct {
	ID  string      `json:"id"`
	At  time.Time   `json:"at"`
	How leases.Kind `json:"how"`
}

// Run reads the group until ctx ends.
func (s *Server) Run(ctx context.Context) {
	for {
		v, err := s.Read(ctx)
		if ctx.Err() != nil {
			return
		}
		s.take(v, err)
		timer := time.NewTimer(s.Interval)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// take publishes what a reading has come to.
func (s *Server) take(v leases.View, err error) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readings++
	if err != nil {
		if s.err == "" {
			s.errSince = now
		}
		if s.Failed != nil && s.err != err.Error() {
			s.Failed(err)
		}
		s.err = err.Error()
	} else {
		s.err = ""
		if s.view != nil {
			changes := leases.Changes(*s.view, v)
			s.events.add(v.At, changes)
			s.depart(v, changes)
		}
		s.view, s.readAt = &v, now
		s.history.record(now.Sub(s.started), v)
	}
	s.labels.keep(s.view, s.departed)
	s.marshal()
}

// depart notes who has gone, and forgets who did long ago, or is there again.
func (s *Server) depart(v leases.View, changes []leases.Change) {
	for _, c := range changes {
		if c.Kind == leases.KindLeft || c.Kind == leases.KindEvicted {
			s.departed = slices.Insert(s.departed, 0, Departed{c.Member, v.At, c.Kind})
		}
	}
	s.departed = slices.DeleteFunc(s.departed, func(d Departed) bool {
		_, there := v.Member(d.ID)
		return there || v.At.Sub(d.At) > remembered
	})
	s.departed = s.departed[:min(len(s.departed), maxDeparted)]
}

// marshal needs s.mu.
func (s *Server) marshal() {
	r := Reading{
		Table: s.Table, Group: s.Group, Started: s.started.UTC(), Interval: leases.SecondsOf(s.Interval), StaleAfter: leases.SecondsOf(s.staleAfter()),
		Error: s.err, View: s.view, Labels: s.labels, Departed: s.departed, Counts: Counts{Members: map[leases.Life]int{}},
	}
	if r.Departed == nil {
		r.Departed = []Departed{}
	}
	if s.err != "" {
		since := s.errSince.UTC()
		r.ErrorSince = &since
	}
	if s.view != nil {
		r.Counts = count(*s.view)
	}
	body, err := json.Marshal(r)
	if err != nil {
		panic(err) // all of it is texts, numbers and times
	}
	s.body = body
}

func count(v leases.View) Counts {
	c := Counts{Members: map[leases.Life]int{}}
	for _, m := range v.Members {
		c.Members[m.Life]++
	}
	for _, stream := range v.Streams {
		for _, s := range stream.Shards {
			switch s.State {
			case leases.Reading:
				if s.Life == leases.Late {
					c.Late++
				} else {
					c.Read++
				}
			case leases.Waiting:
				c.Waiting++
			default:
				if done(s) {
					c.Done++
				} else {
					c.Unread++
				}
			}
			if s.Lag != nil && !done(s) && (c.WorstLag == nil || *s.Lag > *c.WorstLag) {
				c.WorstLag = s.Lag
			}
		}
	}
	return c
}

// done reports whether nothing is left to read of a shard, or nothing can be read. One
// that is not listed is of an earlier stream, or the stream tells nothing.
func done(s leases.Shard) bool {
	switch s.State {
	case leases.Finished, leases.Cut, leases.Beyond, leases.Trimmed:
		return true
	case leases.Unlisted:
		return s.Owner == ""
	default:
		return false
	}
}

// labels are short names by the ids of owners: A, B, and so on.
type labels map[string]string

// keep names those who own something or are members, and forgets who is shown no more.
func (l labels) keep(v *leases.View, departed []Departed) {
	if v == nil {
		return
	}
	shown := map[string]bool{}
	var all []string
	show := func(id string) {
		if id != "" && !shown[id] {
			shown[id] = true
			all = append(all, id)
		}
	}
	for _, m := range v.Members {
		show(m.ID)
	}
	for _, stream := range v.Streams {
		for _, s := range stream.Shards {
			show(s.Owner)
		}
	}
	for _, d := range departed {
		show(d.ID)
	}
	used := map[string]bool{}
	for id, label := range l {
		if shown[id] {
			used[label] = true
		} else {
			delete(l, id)
		}
	}
	next := 0
	for _, id := range all {
		if l[id] != "" {
			continue
		}
		for used[labelOf(next)] {
			next++
		}
		l[id] = labelOf(next)
		used[l[id]] = true
	}
}

// labelOf is A for 0, Z for 25, and AA for 26.
func labelOf(n int) (text string) {
	for ; n >= 0; n = n/26 - 1 {
		text = string(rune('A'+n%26)) + text
	}
	return text
}
