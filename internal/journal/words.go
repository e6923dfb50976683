package journal

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// maxError is how many bytes of an error a line has.
const maxError = 600

// words are what the lines of a kind are made of: "<Things> of stream orders <fail> since
// 2m3s", "<Things> of stream orders <again> after 43 s", "<Things> of stream orders
// <failed> now and then: …; <works>".
type words struct {
	level  Level
	things string
	of     string // joins things to a stream or a shard
	fail   string
	failed string
	again  string
	works  string
	// every is the least time between two lines of a fault that lasts, where that is not
	// lineEvery: what is harmless is said once an hour.
	every time.Duration
	// forOne and forMany say what the fault means, and what is to be done, for one shard
	// and for any number of them. An error brings its own hints.
	forOne, forMany string
}

var kindWords = [kinds]words{
	Reads: {
		level: Error, things: "reads", of: "of",
		fail: "fail", failed: "failed", again: "work again", works: "they work now",
		forOne:  "It is read on from where it was when they work again; nothing is skipped",
		forMany: "Shards are read on from where they were when they work again; nothing is skipped",
	},
	Throttling: {
		level: Warning, things: "reads", of: "of",
		fail: "are throttled", failed: "were throttled", again: "are not throttled any more", works: "they are not now",
		forOne:  "It is read more slowly and nothing is skipped; if this lasts, look for what else reads the stream",
		forMany: "Shards are read more slowly and nothing is skipped; if this lasts, look for what else reads the streams",
	},
	Lists: {
		level: Warning, things: "the shards", of: "of",
		fail: "cannot be listed", failed: "could not be listed", again: "can be listed again", works: "they can now",
		forMany: "Shards that are known are read on, new ones are found when this works again",
	},
	TableReads: {
		level: Error, things: "the items", of: "of",
		fail: "cannot be read from the table", failed: "could not be read from the table", again: "can be read from the table again", works: "they can now",
		forMany: "Shards that are read here are read on; whether others are free is not known until this works again",
	},
	TableWrites: {
		level: Error, things: "leases and checkpoints", of: "of",
		fail: "cannot be written to the table", failed: "could not be written to the table", again: "can be written to the table again", works: "they can now",
		forOne:  "Its records go on until its lease ends, then it is read by whoever can write; what has no checkpoint is delivered again",
		forMany: "Records go on until the lease of their shard ends, then it is read by whoever can write; what has no checkpoint is delivered again",
	},
	Claims: {
		level: Error, things: "claims", of: "of",
		fail: "fail", failed: "failed", again: "work again", works: "they work now",
		forOne:  "It is not read here until a claim works, which is tried again",
		forMany: "Free shards are not read here until a claim works, which is tried again",
	},
	Joining: {
		level: Error, things: "attempts to join the group or to stay in it", of: "for",
		fail: "fail", failed: "failed", again: "work again", works: "they work now",
		forMany: "No shard is read here without a session in the group, which is tried again",
	},
	Cleanup: {
		level: Warning, things: "unneeded items", of: "of",
		fail: "cannot be removed from the table", every: time.Hour, failed: "could not be removed from the table", again: "can be removed from the table again", works: "they can now",
		forMany: "Reading goes on, and the table grows until this works again",
	},
	Processors: {
		level: Error, things: "batch processors", of: "for",
		fail: "fail", failed: "failed", again: "work again", works: "they work now",
		forOne:  "Its batch is tried again and nothing is skipped; look at the processors of the pipeline",
		forMany: "Their batches are tried again and nothing is skipped; look at the processors of the pipeline",
	},
	Stalled: {
		level: Warning, things: "acknowledgements", of: "of",
		fail: "do not come", failed: "did not come", again: "come again", works: "they come now",
		forOne:  "Look at the processors and the output: nothing more of it is handed on once `checkpoint_limit` is reached",
		forMany: "Look at the processors and the output: nothing more of a shard is handed on once `checkpoint_limit` is reached",
	},
	Rejections: {
		level: Error, things: "messages", of: "of",
		fail: "are rejected by the output and skipped", failed: "were rejected by the output and skipped", again: "are not rejected any more", works: "they are not now",
		forOne:  "They are lost to this pipeline, since `auto_replay_nacks` is false",
		forMany: "They are lost to this pipeline, since `auto_replay_nacks` is false",
	},
	Drops: {
		level: Error, things: "aggregated records", of: "of",
		fail: "are dropped", failed: "were dropped", again: "are not dropped any more", works: "none are now",
		forOne:  "They are lost to this pipeline, since `deaggregate_foreign` is `drop`",
		forMany: "They are lost to this pipeline, since `deaggregate_foreign` is `drop`",
	},
	Retention: {
		level: Info, things: "the retention", of: "of",
		fail: "cannot be read", failed: "could not be read", again: "can be read again", works: "it can now", every: time.Hour,
		forMany: "Reading goes on, without a warning when records are about to expire",
	},
}

func (k Kind) String() string {
	if k < Reads || k >= kinds {
		return fmt.Sprintf("Kind(%d)", int(k))
	}
	return [...]string{
		Reads: "reads", Throttling: "throttling", Lists: "lists", TableReads: "table reads", TableWrites: "table writes",
		Claims: "claims", Joining: "joining", Cleanup: "cleanup", Processors: "processors", Stalled: "stalled", Rejections: "rejections", Drops: "drops", Retention: "retention",
	}[k]
}

// startLine says that a fault began: what it is about, the error, what that means and
// what to do.
func startLine(f *fault) Line {
	w := kindWords[f.kind]
	s := spanOf(f.concerned, nil)
	l := f.line(w.level, s)
	means := w.forMany
	if l.Shard != "" && w.forOne != "" {
		means = w.forOne
	}
	var head string
	switch {
	case l.Stream == "":
		head = capital(w.subject(s) + " " + w.fail)
	case s.shards > 0:
		head = fmt.Sprintf("Stream %s: %s %s %s %s", l.Stream, w.things, w.of, s.shardWords(), w.fail)
	default:
		head = fmt.Sprintf("Stream %s: %s %s", l.Stream, w.things, w.fail)
	}
	l.Text = fmt.Sprintf("%s: %s. %s", head, f.newest, means)
	return l
}

// lastsLine says that a fault lasts, or comes and goes. It has failures since the newest
// line.
func lastsLine(f *fault, now time.Time) Line {
	w := kindWords[f.kind]
	all := f.toldSpan()
	l := f.line(w.level, all)
	subject := capital(w.subject(all))
	lasts := timeWords(now.Sub(f.since))
	current := spanOf(f.concerned, isFailing)
	if f.failing == 0 {
		l.Text = fmt.Sprintf("%s %s now and then, for %s now: %s since this was said last, the newest: %s",
			subject, w.fail, lasts, f.failureWords(), f.newest)
		return l
	}
	l.Text = fmt.Sprintf("%s %s, for %s now: %s%s since this was said last, the newest: %s",
		subject, w.fail, lasts, current.concernWords(" is concerned, ", " are concerned, "), count(f.failures, "failure"), f.newest)
	return l
}

// endLine says that a fault ended. Shards that only left have not worked again.
func endLine(f *fault) Line {
	w := kindWords[f.kind]
	all := spanOf(f.concerned, nil)
	gone := spanOf(f.concerned, hasLeft)
	l := f.line(Info, all)
	lasted := timeWords(f.calmAt.Sub(f.since))
	if gone.places == all.places {
		l.Text = fmt.Sprintf("The fault that %s %s is over after %s", w.subject(all), w.fail, lasted)
		if all.shards > 0 {
			l.Text += fmt.Sprintf(": %s %s read here no more", all.shardWords(), plural(all.shards, "is", "are"))
		}
		return l
	}
	l.Text = fmt.Sprintf("%s %s after %s", capital(w.subject(all)), w.again, lasted)
	if all.shards > 0 {
		l.Text += fmt.Sprintf("; %s %s concerned", all.shardWords(), plural(all.shards, "was", "were"))
	}
	if gone.shards > 0 {
		l.Text += fmt.Sprintf(", %d of which %s read here no more", gone.shards, plural(gone.shards, "is", "are"))
	}
	return l
}

// passedLine says what failed for a moment after the end of a fault, and has passed.
func passedLine(f *fault) Line {
	w := kindWords[f.kind]
	s := spanOf(f.recent, nil)
	l := f.line(w.level, s)
	l.Text = fmt.Sprintf("%s %s now and then: %s since the end of it was said, the newest: %s; %s",
		capital(w.subject(s)), w.failed, f.failureWords(), f.newest, w.works)
	if spanOf(f.concerned, hasLeft).places == len(f.concerned) {
		l.Text = strings.TrimSuffix(l.Text, w.works) + "what failed is read here no more"
	}
	return l
}

// standsLine says how a fault stands at the end of the journal.
func standsLine(f *fault, now time.Time) Line {
	w := kindWords[f.kind]
	all := f.toldSpan()
	l := f.line(w.level, all)
	l.Text = fmt.Sprintf("%s %s when this input ended, and had for %s: %sthe newest error: %s",
		capital(w.subject(all)), w.failed, timeWords(now.Sub(f.since)),
		spanOf(f.concerned, isFailing).concernWords(" is concerned, ", " are concerned, "), f.newest)
	return l
}

// toldSpan is what a line about a fault that lasts speaks for: what failed since the fault
// began anew, and what had failed and worked before that, which no line has told.
func (f *fault) toldSpan() span {
	all := maps.Clone(f.concerned)
	maps.Copy(all, f.recent)
	return spanOf(all, nil)
}

// line returns a line without text about the places of a fault.
func (f *fault) line(level Level, s span) Line {
	l := Line{Level: level, Stream: f.stream}
	if len(s.streams) == 1 {
		l.Stream = s.streams[0]
	}
	if s.places == 1 {
		l.Shard = s.shard
	}
	return l
}

// failureWords say how many failures there were since the newest line, and where.
func (f *fault) failureWords() string {
	text := count(f.failures, "failure")
	if s := spanOf(f.recent, nil); s.shards > 0 {
		text += " of " + s.shardWords()
	}
	return text
}

// subject says what fails: "reads of stream orders".
func (w words) subject(s span) string {
	const named = 3
	streams := s.streams
	switch n := len(streams); {
	case n == 1 && streams[0] == "":
		return w.things
	case n == 1:
		return fmt.Sprintf("%s %s stream %s", w.things, w.of, streams[0])
	case n <= named:
		return fmt.Sprintf("%s %s streams %s and %s", w.things, w.of, strings.Join(streams[:n-1], ", "), streams[n-1])
	default:
		return fmt.Sprintf("%s %s %d more streams", w.things, w.of, n)
	}
}

// span is how far a fault reaches.
type span struct {
	places  int
	shards  int
	shard   string   // one of them
	streams []string // in order
}

// spanOf counts the places that which holds for, all of them when it is nil.
func spanOf(places map[place]outcome, which func(outcome) bool) span {
	var s span
	streams := map[string]struct{}{}
	for p, how := range places {
		if which != nil && !which(how) {
			continue
		}
		s.places++
		if p.shard != "" {
			s.shards++
			s.shard = p.shard
		}
		if _, ok := streams[p.stream]; !ok {
			streams[p.stream] = struct{}{}
			s.streams = append(s.streams, p.stream)
		}
	}
	slices.Sort(s.streams)
	return s
}

func isFailing(how outcome) bool { return how == fails }
func hasLeft(how outcome) bool   { return how == left }

// shardWords name the only shard, or say how many there are. There is one at least.
func (s span) shardWords() string {
	if s.shards == 1 {
		return "shard " + s.shard
	}
	return count(s.shards, "shard")
}

// concernWords say how many shards and streams are concerned, followed by is or are. They
// are empty where the subject of the sentence says it all.
func (s span) concernWords(is, are string) string {
	switch {
	case s.shards > 0 && len(s.streams) > 1:
		return fmt.Sprintf("%s of %s%s", s.shardWords(), count(len(s.streams), "stream"), plural(s.shards, is, are))
	case s.shards > 0:
		return s.shardWords() + plural(s.shards, is, are)
	case len(s.streams) > 1:
		return count(len(s.streams), "stream") + are
	default:
		return ""
	}
}

// errorText is an error as lines print it, cut where it is too long. A full stop at its
// end is left to the line.
func errorText(err error) string {
	text := strings.TrimRight(fmt.Sprint(err), ". \n")
	if len(text) <= maxError {
		return text
	}
	end := maxError
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + "..."
}

// timeWords say how long something lasted, to the second, from an hour on to the minute.
func timeWords(d time.Duration) string {
	switch {
	case d < time.Second:
		return "less than 1 s"
	case d.Round(time.Second) < time.Minute:
		return fmt.Sprintf("%d s", d.Round(time.Second)/time.Second)
	case d < time.Hour:
		return d.Round(time.Second).String()
	default:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	}
}

func count(n int, thing string) string {
	return fmt.Sprintf("%d %s", n, plural(n, thing, thing+"s"))
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

func capital(text string) string {
	first, size := utf8.DecodeRuneInString(text)
	return string(unicode.ToUpper(first)) + text[size:]
}
