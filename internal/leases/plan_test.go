package leases

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/benthos-plugins/aws-kinesis/internal/lease"
	"github.com/benthos-plugins/aws-kinesis/internal/lineage"
	"github.com/benthos-plugins/aws-kinesis/internal/table"
)

// model is a table in memory, of a stream whose shards are random, with a naive reading of
// its conditions: an item is as it was seen, or it is not.
type model struct {
	shards  []lineage.Shard
	items   map[lease.Key]lease.Item
	members []lease.Member
	// claims are how many writes it takes until somebody claims a shard before it; none
	// where it is negative.
	claims  int
	claimed map[string]bool
	// fails are how many writes it takes until one fails; none where it is negative.
	fails  int
	failed bool
}

func (*model) Name() string  { return "leases" }
func (*model) Group() string { return "" }

func (m *model) List(_ context.Context, stream string, _ bool) (table.ItemList, error) {
	l := table.ItemList{Items: []lease.Item{}}
	for key, item := range m.items {
		if key.Stream == stream {
			l.Items = append(l.Items, item)
		}
	}
	return l, nil
}

func (m *model) ListMembers(context.Context, bool) ([]lease.Member, error) { return m.members, nil }

func (m *model) Get(_ context.Context, key lease.Key) (lease.Item, error) {
	item := m.items[key]
	item.Key = key
	return item, nil
}

// write is a conditional write.
func (m *model) write(seen lease.Item, to lease.Item) (lease.Item, error) {
	if m.fails--; m.fails == 0 {
		m.failed = true
		return lease.Item{}, errors.New("the table takes no writes")
	}
	if m.claims--; m.claims == 0 {
		item := m.items[seen.Key]
		item.Key, item.Exists, item.Owner, item.Term, item.Token = seen.Key, true, "living", "1", "t"
		item.Finished = false
		m.items[seen.Key], m.claimed[seen.Shard] = item, true
	}
	if now, ok := m.items[seen.Key]; ok != seen.Exists || ok && !reflect.DeepEqual(now, seen) {
		return lease.Item{}, lease.ErrConflict
	}
	m.items[seen.Key] = to
	return to, nil
}

func (m *model) Place(_ context.Context, seen lease.Item, to table.Standing) (lease.Item, error) {
	return m.write(seen, lease.Item{
		Key: seen.Key, Exists: true, Sequence: to.Sequence, Within: to.Within, StartAt: to.StartAt, UpTo: to.UpTo, CutAt: to.CutAt,
		Finished: to.Finished, Pinned: to.Pinned, ShardStart: to.ShardStart, Number: seen.Number,
	})
}

func (m *model) Free(_ context.Context, seen lease.Item) (lease.Item, error) {
	to := seen
	to.Owner, to.Term, to.Token = "", "", ""
	return m.write(seen, to)
}

func (m *model) RemoveItem(_ context.Context, seen lease.Item) (bool, error) {
	_, err := m.write(seen, lease.Item{})
	delete(m.items, seen.Key)
	return err == nil, nil
}

// untouched reports whether every write took effect.
func (m *model) untouched() bool { return len(m.claimed) == 0 && !m.failed }

func (*model) Evict(context.Context, lease.Member) error  { return nil }
func (*model) Remove(context.Context, lease.Member) error { return nil }

func (m *model) view(t *rapid.T) View {
	v, err := NewReader(Source{Table: m, Streams: []string{"s"}, Shards: func(context.Context, string) ([]lineage.Shard, time.Time, error) {
		return m.shards, time.Now(), nil
	}}).Read(context.Background())
	require.NoError(t, err)
	return v
}

// genModel draws a stream that was split and merged at random, with what readers have left
// of it: positions, starts, marks, owners that are gone, and no items at all.
func genModel(t *rapid.T) *model {
	m := &model{items: map[lease.Key]lease.Item{}, claims: -1, fails: -1, claimed: map[string]bool{}}
	n := rapid.IntRange(2, 8).Draw(t, "shards")
	parents, children := make([][]int, n), make([]int, n)
	for i := 2; i < n; i++ {
		for range rapid.IntRange(1, 2).Draw(t, "parents") {
			if p := rapid.IntRange(0, i-1).Draw(t, "parent"); !slices.Contains(parents[i], p) && children[p] < 2 {
				parents[i] = append(parents[i], p)
				children[p]++
			}
		}
	}
	for i := range n {
		s := lineage.Shard{ID: lineage.ShardID(strconv.Itoa(i)), FirstSequence: strconv.Itoa(1000 * (i + 1)), Closed: children[i] > 0}
		for _, p := range parents[i] {
			s.Parents = append(s.Parents, lineage.ShardID(strconv.Itoa(p)))
		}
		if s.Closed {
			s.LastSequence = strconv.Itoa(1000*(i+1) + 999)
		}
		m.shards = append(m.shards, s)
		key := lease.Key{Stream: "s", Shard: s.ID}
		item := lease.Item{Key: key, Exists: true, Number: int64(i)}
		switch rapid.SampledFrom([]string{"none", "none", "position", "start", "begun", "finished", "inside"}).Draw(t, "item") {
		case "none":
			continue
		case "position":
			item.Sequence = strconv.Itoa(1000*(i+1) + rapid.IntRange(0, 999).Draw(t, "at"))
		case "inside":
			item.Sequence = strconv.Itoa(1000*(i+1) + 10)
			item.Within = lease.Within{Sequence: strconv.Itoa(1000*(i+1) + 20), Count: rapid.IntRange(1, 3).Draw(t, "count")}
		case "start":
			item.ShardStart, item.StartAt = s.FirstSequence, time.Now().Add(-time.Duration(rapid.IntRange(1, 48).Draw(t, "hours"))*time.Hour).Truncate(time.Second).UTC()
		case "begun":
			item.ShardStart = s.FirstSequence
		case "finished":
			if !s.Closed {
				continue
			}
			item.Sequence, item.Finished = s.LastSequence, true
		}
		if !item.Finished && rapid.IntRange(0, 3).Draw(t, "owned") == 0 {
			item.Owner, item.Term, item.Token = "gone", "1", "t"
		}
		item.Pinned = rapid.IntRange(0, 5).Draw(t, "pinned") == 0
		m.items[key] = item
	}
	return m
}

// begins says where a shard is read from next, as plainly as can be.
func begins(v View, s Shard) string {
	start := s.item.StartAt
	if start.IsZero() {
		for _, o := range v.Streams[0].Shards {
			if at := o.item.StartAt; !at.IsZero() && (start.IsZero() || at.Before(start)) {
				start = at
			}
		}
	}
	switch {
	case s.State == Finished:
		return "finished"
	case s.item.Sequence != "":
		return fmt.Sprint("after ", s.item.Sequence, " ", s.item.Within)
	case start.Before(time.Now().Add(-300 * 24 * time.Hour)):
		return fmt.Sprint("oldest ", s.item.Within)
	}
	return fmt.Sprint("at ", start.Unix(), " ", s.item.Within)
}

// carriesOut applies a plan, with a claim of another in between perhaps, and checks what
// holds for each: nothing else is lost by it.
func carriesOut(t *rapid.T, m *model, before View, p Plan) (Plan, View) {
	m.claims, m.fails = -1, -1
	if which := rapid.IntRange(-len(p.Steps)-1, len(p.Steps)).Draw(t, "write"); which > 0 {
		m.claims = which
	} else {
		m.fails = -which
	}
	done := Apply(context.Background(), m, p)
	after := m.view(t)
	for _, s := range done.Steps {
		if s.Refused != "" || s.Act == Keep {
			require.Empty(t, s.Result)
			continue
		}
		require.NotEmpty(t, s.Result)
		if m.claimed[s.Shard] {
			require.Equal(t, Conflict, s.Result)
			require.Equal(t, "living", m.items[s.seen.Key].Owner, "a claim in between wins")
		}
	}
	marked := map[string]bool{} // finished by the plan itself
	for _, s := range done.Steps {
		marked[s.Shard] = s.Act == Set && s.to.Finished && s.Result == Done
	}
	for _, s := range before.Streams[0].Shards {
		now, _ := after.Shard("s", s.Shard)
		if s.State != Finished && !marked[s.Shard] && len(m.claimed) == 0 {
			require.NotEqual(t, Finished, now.State, "shard %s was not read to its end", s.Shard)
		}
	}
	return done, after
}

func TestResetStreamIsReadFromTheTargetAlone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := genModel(t)
		before := m.view(t)
		at := time.Now().Add(-time.Hour).Truncate(time.Second)
		to := rapid.SampledFrom([]Target{{Oldest: true}, {At: at}}).Draw(t, "to")
		want := "oldest { 0}"
		if !to.Oldest {
			want = fmt.Sprint("at ", at.Unix(), " { 0}")
		}
		done, after := carriesOut(t, m, before, PlanReset(before, "s", "", to, nil))
		for _, s := range done.Steps {
			if now, _ := after.Shard("s", s.Shard); s.Result == Done {
				require.Equal(t, want, begins(after, now), s.Shard)
				require.Empty(t, now.Owner)
			}
		}
		if m.untouched() {
			require.Len(t, done.Steps, len(m.shards))
			require.Zero(t, done.Refusals())
		}
	})
}

func TestResetOfOneShardLeavesTheOthersWhereTheyBegin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := genModel(t)
		before := m.view(t)
		i := rapid.IntRange(0, len(m.shards)-1).Draw(t, "shard")
		id := m.shards[i].ID
		number := strconv.Itoa(1000*(i+1) + 500)
		to := rapid.SampledFrom([]Target{{Oldest: true}, {At: time.Now().Add(-time.Hour)}, {After: number}}).Draw(t, "to")
		done, after := carriesOut(t, m, before, PlanReset(before, "s", id, to, nil))
		if !m.untouched() {
			return
		}
		for _, s := range before.Streams[0].Shards {
			now, _ := after.Shard("s", s.Shard)
			if s.Shard != id {
				was := begins(before, s)
				require.Equal(t, was, begins(after, now), "shard %s beside %s: %+v", s.Shard, id, done.Steps)
			}
		}
	})
}

func TestResetOfOneShardThatIsRefusedWritesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := genModel(t)
		id := rapid.SampledFrom(m.shards).Draw(t, "shard").ID
		p := PlanReset(m.view(t), "s", id, Target{After: "1"}, nil)
		require.Equal(t, 1, p.Refusals())
		require.Zero(t, p.Writes())
	})
}

func TestNothingIsPlannedThatOverwritesTheLiving(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := genModel(t)
		m.members = []lease.Member{{ID: "living", Token: "t", Period: time.Second, Report: lease.Report{Streams: []string{"s"}}}}
		for _, key := range slices.SortedFunc(maps.Keys(m.items), compareKeys) {
			if item := m.items[key]; !item.Finished && rapid.Bool().Draw(t, "living") {
				item.Owner, item.Term, item.Token = "living", "1", "t"
				m.items[key] = item
			}
		}
		v := m.view(t)
		e := ExportOf(v)
		for _, p := range []Plan{
			PlanReset(v, "s", "", Target{Oldest: true}, nil), PlanReset(v, "s", m.shards[0].ID, Target{Latest: true}, nil),
			PlanRestore(v, e, true), PlanImport(v, Import{Stream: "s"}), PlanCopy(v, "s", v, "s"),
		} {
			require.Zero(t, p.Writes())
		}
		for _, s := range PlanRelease(v, func(Shard) bool { return true }).Steps {
			require.Equal(t, s.seen.Owner == "gone", s.writes(), "%+v", s)
		}
		p, ok := PlanEvict(v, "living")
		require.True(t, ok)
		require.Equal(t, 1, p.Refusals())
	})
}

func TestNothingIsSetBesideAMemberThatJoinedAfterThePlan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := genModel(t)
		v := m.view(t)
		to := v
		to.Streams = []Stream{{Name: "arn", Shards: slices.Clone(v.Streams[0].Shards)}}
		for i := range to.Streams[0].Shards {
			s := &to.Streams[0].Shards[i]
			s.Stream, s.item, s.HasItem, s.Owner, s.Life, s.State = "arn", lease.Item{Key: lease.Key{Stream: "arn", Shard: s.Shard}}, false, "", "", Free
		}
		plans := []Plan{
			PlanReset(v, "s", "", Target{Oldest: true}, nil), PlanRestore(v, ExportOf(v), true),
			PlanImport(v, Import{Stream: "s"}), PlanCopy(v, "s", to, "arn"),
		}
		was := maps.Clone(m.items)
		m.members = []lease.Member{{ID: "new", Token: "t", Period: time.Second, Report: lease.Report{Streams: []string{"s"}}}}
		for _, p := range plans {
			for _, s := range Apply(t.Context(), m, p).Steps {
				if s.writes() {
					require.Equal(t, Skipped, s.Result)
					require.Contains(t, s.Error, "client new has joined since")
				}
			}
			require.Equal(t, was, m.items)
		}
		require.Positive(t, plans[0].Writes())
		require.Positive(t, plans[3].Writes())
	})
}

// Whoever claims a shard reads it on from the item that is further on, its own or a literal
// one.
func TestWhatALiteralItemHasAcknowledgedIsNotReadAgain(t *testing.T) {
	id := lineage.ShardID("0")
	shards := []lineage.Shard{{ID: id, FirstSequence: "1000"}}
	literal := lease.Item{Key: lease.Key{Stream: "s", Shard: "0"}, Exists: true, Sequence: "1500"}
	own := lease.Item{Key: lease.Key{Stream: "s", Shard: id}, Exists: true, Sequence: "1100"}
	view := func(items ...lease.Item) View {
		m := &model{shards: shards, items: map[lease.Key]lease.Item{}}
		for _, item := range items {
			m.items[item.Key] = item
		}
		v, err := NewReader(Source{Table: m, Streams: []string{"s"}, Shards: func(context.Context, string) ([]lineage.Shard, time.Time, error) {
			return m.shards, time.Now(), nil
		}}).Read(t.Context())
		require.NoError(t, err)
		return v
	}
	earlier := ExportOf(view(own))
	for name, v := range map[string]View{"alone": view(literal), "beside an item": view(literal, own)} {
		t.Run(name, func(t *testing.T) {
			e := ExportOf(v)
			require.Len(t, e.Streams[0].Shards, 1)
			require.Equal(t, "1500", e.Streams[0].Shards[0].Sequence)

			p := PlanRestore(v, e, false)
			require.Zero(t, p.Writes()+p.Refusals(), "it stands there already")
			require.Equal(t, 1, PlanRestore(v, earlier, false).Refusals())
			require.Equal(t, 1, PlanRestore(v, earlier, true).Writes())
			require.Zero(t, PlanRestore(v, Export{Streams: []ExportedStream{{Name: "s"}}}, false).Writes())

			i := Import{Stream: "s", Leases: []table.KCLLease{{Shard: id, Checkpoint: "1100"}}, Places: map[string]Place{id: {Position: lease.After("1100")}}}
			require.Equal(t, 1, PlanImport(v, i).Refusals())

			copied := PlanCopy(v, "s", view(), "s").Steps[0]
			require.Equal(t, "1500", copied.To.Sequence)
			require.Equal(t, 1, PlanCopy(view(own), "s", v, "s").Refusals())
		})
	}
}

func TestNoShardCountsAsFinishedByALiteralItemOfAnEarlierStream(t *testing.T) {
	parent, child := lineage.ShardID("0"), lineage.ShardID("1")
	m := &model{
		shards: []lineage.Shard{
			{ID: parent, FirstSequence: "1000", LastSequence: "1999", Closed: true},
			{ID: child, FirstSequence: "2000", Parents: []string{parent}},
		},
		items: map[lease.Key]lease.Item{},
	}
	literal := lease.Item{Key: lease.Key{Stream: "s", Shard: "0"}, Exists: true, Sequence: "15"}
	m.items[literal.Key] = literal
	read := func() View {
		v, err := NewReader(Source{Table: m, Streams: []string{"s"}, Shards: func(context.Context, string) ([]lineage.Shard, time.Time, error) {
			return m.shards, time.Now(), nil
		}}).Read(t.Context())
		require.NoError(t, err)
		return v
	}
	Apply(t.Context(), m, PlanReset(read(), "s", child, Target{Oldest: true}, nil))
	s, _ := read().Shard("s", parent)
	require.Equal(t, Free, s.State)
}

func TestRestoreLeavesTheShardsWhereTheyBeginThatItDoesNotSet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := genModel(t)
		before := m.view(t)
		e := ExportOf(before)
		x := &e.Streams[0]
		x.Shards = slices.DeleteFunc(x.Shards, func(ExportedShard) bool { return rapid.Bool().Draw(t, "left out") })
		moved := map[string]bool{}
		for i := range x.Shards {
			s := &x.Shards[i]
			if rapid.Bool().Draw(t, "moved") {
				at := time.Now().Add(-time.Minute).Truncate(time.Second).UTC()
				s.Standing, moved[s.Shard] = Standing{StartAt: &at, ShardStart: s.First}, true
			}
		}
		m.claims, m.fails = -1, -1
		Apply(t.Context(), m, PlanRestore(before, e, true))
		after := m.view(t)
		for _, s := range before.Streams[0].Shards {
			if now, _ := after.Shard("s", s.Shard); s.HasItem && !moved[s.Shard] {
				require.Equal(t, begins(before, s), begins(after, now), s.Shard)
			}
		}
	})
}

func TestRestoreGoesBackOnlyWhereItMay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := genModel(t)
		e := ExportOf(m.view(t))
		other := genModel(t)
		for i := range m.shards { // another state of the same stream
			key := lease.Key{Stream: "s", Shard: m.shards[i].ID}
			delete(m.items, key)
			if item, ok := other.items[key]; ok && (m.shards[i].Closed || !item.Finished) {
				m.items[key] = item
			}
		}
		before := m.view(t)
		back := rapid.Bool().Draw(t, "back")
		done, after := carriesOut(t, m, before, PlanRestore(before, e, back))
		rank := func(s Shard) (finished int, sequence string, count int) {
			if s.State == Finished {
				finished = 1
			}
			return finished, s.item.Sequence, s.item.Within.Count
		}
		for _, s := range done.Steps {
			if s.Result != Done {
				continue
			}
			was, _ := before.Shard("s", s.Shard)
			now, _ := after.Shard("s", s.Shard)
			f0, s0, _ := rank(was)
			f1, s1, _ := rank(now)
			if !back && was.HasItem {
				require.GreaterOrEqual(t, f1, f0, s.Shard)
				if f1 == f0 {
					require.GreaterOrEqual(t, len(s1), len(s0), s.Shard)
					require.GreaterOrEqual(t, s1, s0, s.Shard)
				}
			}
		}
	})
}

func TestImportedLeasesSayWhereEachShardBegins(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := genModel(t)
		clear(m.items)
		at := time.Now().Add(-time.Hour).Truncate(time.Second)
		i := Import{Stream: "s", At: at, Places: map[string]Place{}}
		want := map[string]string{}
		for n, s := range m.shards {
			number := strconv.Itoa(1000*(n+1) + 7)
			words := []string{"none", number, table.KCLTrimHorizon, table.KCLAtTimestamp}
			if s.Closed {
				words = append(words, table.KCLShardEnd)
			}
			switch word := rapid.SampledFrom(words).Draw(t, "checkpoint"); word {
			case "none":
				continue
			case number:
				i.Places[s.ID] = Place{Position: lease.Position{Sequence: strconv.Itoa(1000*(n+1) + 6), Within: lease.Within{Sequence: number, Count: 2}}}
				want[s.ID] = fmt.Sprint("after ", 1000*(n+1)+6, " {", number, " 2}")
				i.Leases = append(i.Leases, table.KCLLease{Shard: s.ID, Checkpoint: number, Sub: 1})
			default:
				i.Leases = append(i.Leases, table.KCLLease{Shard: s.ID, Checkpoint: word})
				want[s.ID] = map[string]string{table.KCLTrimHorizon: "oldest { 0}", table.KCLAtTimestamp: fmt.Sprint("at ", at.Unix(), " { 0}"), table.KCLShardEnd: "finished"}[word]
			}
		}
		// Without a lease: finished where a descendant has one.
		for range m.shards {
			for _, child := range m.shards {
				for _, parent := range child.Parents {
					if want[child.ID] != "" && want[parent] == "" {
						want[parent] = "finished"
					}
				}
			}
		}
		before := m.view(t)
		done, after := carriesOut(t, m, before, PlanImport(before, i))
		for _, s := range done.Steps {
			now, _ := after.Shard("s", s.Shard)
			if s.Result == Done {
				w := want[s.Shard]
				if w == "" {
					w = "oldest { 0}"
				}
				require.Equal(t, w, begins(after, now), s.Shard)
			}
		}
		if m.untouched() {
			require.Len(t, done.Steps, len(m.shards))
			again := PlanImport(after, i)
			require.Zero(t, again.Writes(), "%+v", again.Steps)
			require.Zero(t, again.Refusals())
		}
	})
}
