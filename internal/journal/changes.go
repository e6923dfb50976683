package journal

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

const (
	// gatherChanges is how long changes are gathered before they are said.
	gatherChanges = time.Second
	// maxChanges is how many lines about changes of a stream one tick emits, beside one
	// about the others.
	maxChanges = 20
	// maxShards is how many shards a line names.
	maxShards = 8
)

// changeKey is what changes have in common that become one line.
type changeKey struct {
	level  Level
	stream string
	many   string
}

// change is what became of shards. The first Changed makes it, and the Tick that says it
// drops it.
type change struct {
	changeKey
	one    string // of the newest
	since  time.Time
	number int // of changes that were pending when it was made: their order at one moment
	shards map[string]struct{}
}

// takeChanges removes the changes that began at a moment or before, and returns their
// lines in the order in which they began.
func takeChanges(pending map[changeKey]*change, until time.Time) []Line {
	byStream := map[string][]*change{}
	for key, c := range pending {
		if !c.since.After(until) {
			byStream[c.stream] = append(byStream[c.stream], c)
			delete(pending, key)
		}
	}
	var lines []Line
	for _, stream := range slices.Sorted(maps.Keys(byStream)) {
		largest := byStream[stream]
		slices.SortFunc(largest, func(a, b *change) int {
			return cmp.Or(cmp.Compare(len(b.shards), len(a.shards)), older(a, b))
		})
		kept := largest[:min(len(largest), maxChanges)]
		others := largest[len(kept):]
		slices.SortFunc(kept, older)
		for _, c := range kept {
			lines = append(lines, c.line())
		}
		if len(others) > 0 {
			lines = append(lines, othersLine(others))
		}
	}
	return lines
}

func older(a, b *change) int {
	return cmp.Or(a.since.Compare(b.since), cmp.Compare(a.number, b.number), strings.Compare(a.many, b.many))
}

// line says a change.
func (c *change) line() Line {
	l := Line{Level: c.level, Stream: c.stream}
	ids := slices.Sorted(maps.Keys(c.shards))
	if len(ids) > 1 {
		l.Text = fmt.Sprintf("%d shards%s %s: %s", len(ids), ofStream(c.stream), c.many, listShards(ids))
		return l
	}
	l.Shard = ids[0]
	switch {
	case l.Shard != "":
		l.Text = fmt.Sprintf("Shard %s%s %s", l.Shard, ofStream(c.stream), c.one)
	case c.stream != "":
		l.Text = fmt.Sprintf("Stream %s %s", c.stream, c.one)
	default:
		l.Text = capital(c.one)
	}
	return l
}

// othersLine says how many changes of a stream there are that no line tells. It has the
// level of the worst of them.
func othersLine(others []*change) Line {
	l := Line{Stream: others[0].stream}
	shards := map[string]struct{}{}
	for _, c := range others {
		l.Level = max(l.Level, c.level)
		maps.Copy(shards, c.shards)
	}
	l.Text = fmt.Sprintf("%s%s had %s that no line tells", capital(count(len(shards), "shard")), ofStream(l.Stream), count(len(others), "further change"))
	return l
}

// listShards names the first of several shards, which are in order. What all ids begin
// with is written once.
func listShards(ids []string) string {
	const prefix = "shardId"
	short := slices.Clone(ids[:min(len(ids), maxShards)])
	if strings.HasPrefix(short[0], prefix+"-") {
		for i := 1; i < len(short); i++ {
			short[i] = strings.TrimPrefix(short[i], prefix)
		}
	}
	text := strings.Join(short, ", ")
	if more := len(ids) - len(short); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

func ofStream(stream string) string {
	if stream == "" {
		return ""
	}
	return " of stream " + stream
}
