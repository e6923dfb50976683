package leases

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/group"
	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/lineage"
	"github.com/benthos-plugins/aws-kinesis/internal/table"
)

// Table is what a Reader reads of the table of leases.
type Table interface {
	Name() string
	Group() string
	List(ctx context.Context, stream string, consistent bool) (table.ItemList, error)
	ListMembers(ctx context.Context, consistent bool) ([]lease.Member, error)
}

// Source is where a Reader reads.
type Source struct {
	Table Table
	// Streams are those to read, as they stand in the table. With none, those are read that
	// the members name, and those that Search finds at the first reading.
	Streams []string
	Search  func(ctx context.Context) ([]string, error)
	// Shards lists the shards of a stream, and tells the service's own time, zero where it
	// does not tell. Its error is shown as it is.
	Shards func(ctx context.Context, stream string) ([]lineage.Shard, time.Time, error)
	// Eventual has the items of shards read at half the price, for whoever reads for hours
	// and decides nothing: they may be a second old, and older than those of the reading
	// before. Members are read consistently all the same: whether they live hangs on it.
	Eventual bool
}

// Reader reads a group again and again. What it has seen of the members it keeps, so that
// the second reading knows more than the first. It is not safe for concurrent use.
type Reader struct {
	Source
	began    time.Time
	searched bool
	found    []string
	observer *group.Observer
}

// NewReader returns a reader that has read nothing.
func NewReader(s Source) *Reader { return &Reader{Source: s} }

// UsualPeriod is the lease period of a group of which no member is there to tell.
const UsualPeriod = 30 * time.Second

// Read reads the group. The error is one of the table: of a stream that cannot be listed
// the View tells.
func (r *Reader) Read(ctx context.Context) (View, error) {
	start := time.Now()
	if r.observer == nil {
		r.began = start
		r.observer = group.NewObserver(group.Config{LeasePeriod: UsualPeriod, RebalancePeriod: UsualPeriod, Table: r.Table.Name()}, start)
	}
	names, err := r.streams(ctx)
	if err != nil {
		return View{}, err
	}
	snapshots, clocks := make([]group.StreamSnapshot, 0, len(names)), map[string]time.Duration{}
	for _, name := range names {
		s, err := r.stream(ctx, name)
		if err != nil {
			return View{}, err
		}
		if !s.ServerTime.IsZero() {
			clocks[name] = s.ServerTime.Sub(s.Start)
		}
		snapshots = append(snapshots, s)
	}
	members, err := r.members(ctx)
	if err != nil {
		return View{}, err
	}
	shortest := time.Duration(0)
	for _, m := range members.Members {
		if m.Period > 0 && (shortest == 0 || m.Period < shortest) {
			shortest = m.Period
		}
	}
	if shortest > 0 {
		r.observer.Period(shortest)
	}
	r.observer.Apply(snapshots, members, members.End)
	return r.view(snapshots, clocks, members.End), nil
}

// Chores returns what PlanPrune removes, by what was read so far.
func (r *Reader) Chores() group.Chores { return r.observer.Chores(time.Now()) }

// streams returns the streams to read. The table is searched once: a stream that comes
// later has a member that names it.
func (r *Reader) streams(ctx context.Context) ([]string, error) {
	if len(r.Streams) > 0 {
		return r.Streams, nil
	}
	if !r.searched && r.Search != nil {
		found, err := r.Search(ctx)
		if err != nil {
			return nil, err
		}
		r.searched, r.found = true, found
	}
	members, err := r.Table.ListMembers(ctx, false)
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, name := range r.found {
		names[name] = true
	}
	for _, m := range members {
		for _, name := range m.Streams {
			names[name] = true
		}
	}
	return slices.Sorted(maps.Keys(names)), nil
}

func (r *Reader) stream(ctx context.Context, name string) (s group.StreamSnapshot, err error) {
	s.Stream = name
	asked := time.Now()
	s.Shards, s.ServerTime, s.ListErr = r.Shards(ctx, name)
	if s.ListErr == nil {
		s.Listed = asked
	}
	s.Start = time.Now()
	list, err := r.Table.List(ctx, name, !r.Eventual)
	if err != nil {
		return group.StreamSnapshot{}, err
	}
	s.Items, s.Size, s.End = list.Items, list.Size, time.Now()
	return s, nil
}

func (r *Reader) members(ctx context.Context) (v group.MemberSnapshot, err error) {
	v.Start, v.SoundSince = time.Now(), r.began
	v.Members, err = r.Table.ListMembers(ctx, true)
	v.End = time.Now()
	return v, err
}

func (r *Reader) view(snapshots []group.StreamSnapshot, clocks map[string]time.Duration, now time.Time) View {
	v := View{
		Table: r.Table.Name(), Group: r.Table.Group(), At: now.UTC(), Watched: SecondsOf(now.Sub(r.began)),
		Members: []Member{}, Streams: []Stream{}, Evicted: r.observer.Evicted(),
	}
	lives, dueAt := map[string]Life{}, map[string]time.Time{}
	for _, m := range r.observer.Members() {
		life := lifeOf(m)
		lives[m.ID], dueAt[m.ID] = life, m.DeadAt
		member := Member{
			ID: m.ID, Life: life, LeasePeriod: SecondsOf(m.Period), Still: SecondsOf(m.Still), DeadAt: known(m.DeadAt),
			Streams: slices.Sorted(slices.Values(m.Streams)), Requests: m.Requests, Changes: m.Changes,
			member: m.Member,
		}
		if member.Streams == nil {
			member.Streams = []string{}
		}
		v.Members = append(v.Members, member)
	}
	for _, snapshot := range snapshots {
		s := Stream{Name: snapshot.Stream, Shards: []Shard{}}
		if snapshot.ListErr != nil {
			s.Error = snapshot.ListErr.Error()
		}
		if ahead, ok := clocks[snapshot.Stream]; ok {
			s.clock = now.Add(ahead).UTC().Round(0)
		}
		children := map[string][]string{}
		observed := r.observer.Shards(snapshot.Stream)
		for _, o := range observed {
			for _, parent := range o.Listed.Parents {
				children[parent] = append(children[parent], o.Key.Shard)
			}
		}
		for _, o := range observed {
			shard := shardOf(o, lives, dueAt)
			shard.Children = children[o.Key.Shard]
			if ahead, ok := clocks[snapshot.Stream]; ok && shard.UpTo != nil {
				// The service's clock has whole seconds.
				lag := SecondsOf(max(now.Add(ahead).Sub(*shard.UpTo), 0).Truncate(time.Second))
				shard.Lag = &lag
			}
			if i := slices.IndexFunc(v.Members, func(m Member) bool { return m.ID == shard.Owner }); i >= 0 {
				v.Members[i].Shards++
			}
			s.Shards = append(s.Shards, shard)
		}
		v.Streams = append(v.Streams, s)
	}
	return v
}

func lifeOf(m group.ObservedMember) Life {
	switch {
	case m.Dead:
		return Dead
	case m.Late:
		return Late
	case m.Moved:
		return Alive
	}
	return Unproven
}

func shardOf(o group.Observed, lives map[string]Life, dueAt map[string]time.Time) Shard {
	item := o.Item
	s := Shard{
		Stream: o.Key.Stream, Shard: o.Key.Shard, Sequence: item.Sequence, UpTo: known(item.UpTo), Term: item.Term,
		TermNumber: item.Number, StartAt: known(item.StartAt), CutAt: known(item.CutAt), Parents: o.Listed.Parents,
		Listed: o.InList, Closed: o.Listed.Closed, FirstKey: o.Listed.FirstKey, LastKey: o.Listed.LastKey, HasItem: item.Exists, LiteralOwner: o.Literal,
		Pinned: o.Named, EarlierStream: o.Earlier, Unproven: o.Unproven, Malformed: item.Malformed, FreeAt: known(o.FreeAt),
		item: item, literals: o.Literals, listed: o.Listed,
	}
	if item.Within != (lease.Within{}) {
		s.Inside = &Inside{item.Within.Sequence, item.Within.Count}
	}
	for _, l := range o.Literals {
		s.Literals = append(s.Literals, l.Shard)
		if l.Malformed != "" && s.Malformed == "" {
			s.Malformed = l.Malformed
		}
	}
	s.Owner = o.Owner
	if s.Owner == "" {
		s.Owner = item.Owner // one that is dead
	}
	s.Foreign = o.Literal || item.Foreign() && s.Owner == item.Owner
	if until, err := time.Parse(time.RFC3339Nano, item.Token); err == nil && !o.Literal {
		s.LeaseUntil = known(until)
	}
	switch life, member := lives[s.Owner]; {
	case s.Owner == "":
	case o.Owner == "" && s.Foreign:
		s.Life = Dead
	case o.Owner == "" && !member:
		s.Life = Gone
	case s.Foreign && o.Renewed:
		s.Life = Alive
	case s.Foreign:
		s.Life = Unproven
	case member:
		s.Life = life
		if due := dueAt[s.Owner]; s.FreeAt == nil || due.Before(*s.FreeAt) {
			s.FreeAt = known(due)
		}
	default:
		s.Life = Unproven
	}
	s.State = stateOf(o, s)
	return s
}

// stateOf asks in the order in which a member would: what is done needs no reader, and
// who has the shard counts before where it stands.
func stateOf(o group.Observed, s Shard) State {
	switch {
	case o.InList && o.Finished || o.Item.Finished && !o.Earlier:
		return Finished
	case o.Progress == lineage.Cut:
		return Cut
	case o.Owner != "" && s.Life != Dead && o.Item.HandedOver() && !o.Literal:
		return Handed
	case o.Owner != "" && s.Life != Dead:
		return Reading
	case o.Trimmed:
		return Trimmed
	case !o.InList:
		return Unlisted
	case o.Beyond:
		return Beyond
	case s.Owner != "":
		return Orphaned
	case o.Undecided:
		return Undecided
	case o.Ready:
		return Free
	}
	return Waiting
}

// known is a time that is left out where nobody knows it.
func known(at time.Time) *time.Time {
	if at.IsZero() {
		return nil
	}
	at = at.UTC().Round(0)
	return &at
}
