//go:build linux

package main

import (
	"bytes"
	"cmp"
	"regexp"
	"slices"
	"sync"
)

// logbook counts what processes log at warning level and above, each message
// once for each kind of process.
type logbook struct {
	mu     sync.Mutex
	counts map[entry]int
}

// entry is a message without what differs from one time to the next.
type entry struct{ kind, level, message string }

// tally is how often an entry came.
type tally struct {
	entry
	count int
}

func newLogbook() *logbook { return &logbook{counts: map[entry]int{}} }

// of returns what one process writes its log to.
func (b *logbook) of(kind string) *logWriter { return &logWriter{book: b, kind: kind} }

// tallies returns all entries, the most frequent first.
func (b *logbook) tallies() []tally {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []tally
	for e, n := range b.counts {
		all = append(all, tally{e, n})
	}
	slices.SortFunc(all, func(x, y tally) int {
		return cmp.Or(y.count-x.count, cmp.Compare(x.kind, y.kind), cmp.Compare(x.message, y.message))
	})
	return all
}

func (b *logbook) note(e entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.counts[e]++
}

// logWriter belongs to the goroutine that copies a process' standard error.
type logWriter struct {
	book *logbook
	kind string
	rest []byte // of a line without end so far
}

func (w *logWriter) Write(p []byte) (int, error) {
	w.rest = append(w.rest, p...)
	for {
		line, rest, found := bytes.Cut(w.rest, []byte("\n"))
		if !found {
			return len(p), nil
		}
		if e := entryOf(w.kind, string(line)); e.level != "info" {
			w.book.note(e)
		}
		w.rest = rest
	}
}

var (
	logLine = regexp.MustCompile(`level=(\w+) (?:.* )?msg=("(?:[^"\\]|\\.)*"|\S+)`)
	// Ids, numbers and addresses: whatever has a digit in it.
	variable = regexp.MustCompile(`[\w.:/-]*\d[\w.:/-]*`)
)

// entryOf reads a line of Benthos' log. Any other line, such as one of a
// panic, is an entry of its own.
func entryOf(kind, line string) entry {
	if m := logLine.FindStringSubmatch(line); m != nil {
		return entry{kind, m[1], variable.ReplaceAllString(m[2], "#")}
	}
	return entry{kind, "unknown", variable.ReplaceAllString(line, "#")}
}
