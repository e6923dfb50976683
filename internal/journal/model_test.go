package journal

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// said is a line with its moment.
type said struct {
	Line
	at time.Time
}

// ends reports whether a line claims that a fault has ended.
func (s said) ends() bool {
	for _, words := range []string{" again after ", " is over after ", "; they work now", "; they can now", "what failed is read here no more"} {
		if strings.Contains(s.Text, words) {
			return true
		}
	}
	return false
}

// kindOf tells the two kinds of the model apart by their words.
func kindOf(l Line) Kind {
	if strings.Contains(strings.ToLower(l.Text), "reads") {
		return Reads
	}
	return TableWrites
}

// model writes down all that was told and said, and looks through all of it to judge.
type model struct {
	*Journal
	now     time.Time
	streams int
	fails   map[faultKey][]time.Time
	failing map[faultKey]map[string]bool // the shards that neither worked nor left
	calm    map[faultKey]time.Time       // when the last of them did
	lines   map[faultKey][]said          // those that name a stream
	shared  map[Kind][]said
}

func newModel(streams int) *model {
	m := &model{
		now: start, streams: streams, fails: map[faultKey][]time.Time{}, failing: map[faultKey]map[string]bool{},
		calm: map[faultKey]time.Time{}, lines: map[faultKey][]said{}, shared: map[Kind][]said{},
	}
	m.Journal = New(func(l Line) {
		k := kindOf(l)
		if l.Stream == "" {
			m.shared[k] = append(m.shared[k], said{l, m.now})
			return
		}
		key := faultKey{k, l.Stream}
		m.lines[key] = append(m.lines[key], said{l, m.now})
	})
	return m
}

func (m *model) draw(t *rapid.T) (faultKey, string) {
	k := rapid.SampledFrom([]Kind{Reads, TableWrites}).Draw(t, "kind")
	stream := fmt.Sprintf("s%d", rapid.IntRange(1, m.streams).Draw(t, "stream"))
	return faultKey{k, stream}, id(rapid.IntRange(1, 3).Draw(t, "shard"))
}

func (m *model) fail(key faultKey, shard string) {
	if m.failing[key] == nil {
		m.failing[key] = map[string]bool{}
	}
	m.failing[key][shard] = true
	m.fails[key] = append(m.fails[key], m.now)
	m.Fail(key.kind, key.stream, shard, errDenied, m.now)
}

func (m *model) recovered(key faultKey, shard string) {
	if m.failing[key][shard] {
		delete(m.failing[key], shard)
		m.calm[key] = m.now
	}
}

func (m *model) works(key faultKey, shard string) {
	m.recovered(key, shard)
	m.Works(key.kind, key.stream, shard, m.now)
}

func (m *model) leave(stream, shard string) {
	m.recovered(faultKey{Reads, stream}, shard)
	m.recovered(faultKey{TableWrites, stream}, shard)
	m.Left(stream, shard, m.now)
}

// pass ticks each second, and calls check after each tick.
func (m *model) pass(seconds int, check func()) {
	for range seconds {
		m.now = m.now.Add(time.Second)
		m.Tick(m.now)
		check()
	}
}

// run draws what happens, and lets all of it end.
func (m *model) run(t *rapid.T, check func()) {
	t.Repeat(map[string]func(*rapid.T){
		"fail":  func(t *rapid.T) { m.fail(m.draw(t)) },
		"works": func(t *rapid.T) { m.works(m.draw(t)) },
		"left": func(t *rapid.T) {
			key, shard := m.draw(t)
			m.leave(key.stream, shard)
		},
		"all work": func(*rapid.T) { m.allWork() },
		"pass":     func(t *rapid.T) { m.pass(rapid.IntRange(1, 10).Draw(t, "seconds"), check) },
		"wait":     func(t *rapid.T) { m.pass(rapid.IntRange(50, 70).Draw(t, "seconds"), check) },
	})
	m.allWork()
	m.pass(int((2*lineEvery+quiet)/time.Second)+2, check)
	requireNoState(t, m.Journal)
}

func (m *model) allWork() {
	for key, shards := range m.failing {
		for shard := range shards {
			m.works(key, shard)
		}
	}
}

func TestJournalKeepsItsPromisesForEachStream(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(ownFaults)
		m.run(t, func() {
			require.Empty(t, m.shared)
			for key, lines := range m.lines {
				newest := lines[len(lines)-1]
				if newest.ends() {
					require.False(t, newest.at.Equal(m.now) && len(m.failing[key]) > 0, "an end is said while a shard fails")
				} else {
					require.False(t, len(m.failing[key]) == 0 && m.now.Sub(m.calm[key]) >= quiet, "an end is not said: %v", newest)
				}
			}
		})
		for key, fails := range m.fails {
			for _, at := range fails {
				require.True(t, toldWithin(m.lines[key], at, 61*time.Second), "a failure is silent")
			}
		}
		for _, lines := range m.lines {
			for i := range lines {
				if i >= 3 {
					require.Greater(t, lines[i].at.Sub(lines[i-3].at), time.Minute, "four lines within a minute")
				}
			}
		}
	})
}

// Where streams share a fault, its lines speak for each of them.
func TestJournalKeepsItsPromisesForManyStreams(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(8)
		m.run(t, func() {
			for key, lines := range m.lines {
				newest := lines[len(lines)-1]
				require.False(t, newest.ends() && newest.at.Equal(m.now) && len(m.failing[key]) > 0, "an end is said while a shard fails")
			}
			for k, lines := range m.shared {
				newest := lines[len(lines)-1]
				if !newest.ends() || !newest.at.Equal(m.now) {
					continue
				}
				failing := 0
				for key, shards := range m.failing {
					if key.kind == k && len(shards) > 0 {
						failing++
					}
				}
				require.LessOrEqual(t, failing, ownFaults, "an end is said while a shard fails")
			}
		})
		for key, fails := range m.fails {
			for _, at := range fails {
				require.True(t, toldWithin(m.lines[key], at, 61*time.Second) || toldWithin(m.shared[key.kind], at, 61*time.Second), "a failure is silent")
			}
		}
		for k := range m.shared {
			lines := m.shared[k]
			for i := range lines {
				if i >= 3 {
					require.Greater(t, lines[i].at.Sub(lines[i-3].at), time.Minute, "four lines within a minute")
				}
			}
		}
		for _, lines := range m.lines {
			for i := range lines {
				if i >= 3 {
					require.Greater(t, lines[i].at.Sub(lines[i-3].at), time.Minute, "four lines within a minute")
				}
			}
		}
	})
}

func toldWithin(lines []said, at time.Time, d time.Duration) bool {
	for _, l := range lines {
		if !l.at.Before(at) && l.at.Sub(at) <= d {
			return true
		}
	}
	return false
}
