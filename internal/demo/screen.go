package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"
)

// The colours of lines, as ANSI has them.
const (
	plain = ""
	good  = "32"
	bad   = "31"
	faint = "2"
)

// screen is where a person reads. On a terminal a few live lines stand below
// what has been said; elsewhere there are none.
type screen struct {
	out io.Writer
	// width of the terminal in columns; nil where there is none.
	width    func() int
	coloured bool
	live     string // what stands below now
	lines    int    // of it
	err      error  // of the first write that failed
}

// newScreen looks whether out is a terminal that can move its cursor. NO_COLOR in
// the environment keeps it from colours.
func newScreen(out *os.File) *screen {
	s := &screen{out: out}
	fd := int(out.Fd())
	if !term.IsTerminal(fd) || os.Getenv("TERM") == "dumb" {
		return s
	}
	s.coloured = os.Getenv("NO_COLOR") == ""
	s.width = func() int {
		if width, _, err := term.GetSize(fd); err == nil && width > 0 {
			return width
		}
		return 80
	}
	return s
}

// say writes a line for good, above the live ones.
func (s *screen) say(colour, line string) {
	s.write(s.up() + s.paint(colour, line) + "\n" + s.live)
}

func (s *screen) write(text string) {
	if _, err := io.WriteString(s.out, text); err != nil && s.err == nil {
		s.err = fmt.Errorf("writing the output: %w", err)
	}
}

// show puts these in place of the live lines. Each is cut to the width, so that
// as many lines are overwritten the next time.
func (s *screen) show(lines ...liveLine) {
	if s.width == nil {
		return
	}
	var b strings.Builder
	for _, l := range lines {
		text := l.text
		if most := s.width() - 1; len(text) > most {
			text = text[:max(0, most)]
		}
		b.WriteString(s.paint(l.colour, text) + "\n")
	}
	if b.String() == s.live {
		return
	}
	up := s.up()
	s.live, s.lines = b.String(), len(lines)
	s.write(up + s.live)
}

// liveLine is one of the live lines, in ASCII.
type liveLine struct{ colour, text string }

// up moves to the first live line, and clears from there on.
func (s *screen) up() string {
	if s.lines == 0 {
		return ""
	}
	return fmt.Sprintf("\x1b[%dA\x1b[J", s.lines)
}

func (s *screen) paint(colour, text string) string {
	if !s.coloured || colour == plain {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// say tells what has just happened.
func (s *stage) say(colour, format string, args ...any) {
	s.screen.say(colour, fmt.Sprintf("%5.1fs  %s", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...)))
}

// draw shows who reads what, and how far the story is.
func (s *stage) draw() {
	lines := []liveLine{{}}
	for _, p := range s.processes {
		line := liveLine{plain, shardWords(s.readBy(p))}
		switch {
		case p.told == syscall.SIGKILL:
			line = liveLine{bad, "was killed"}
		case p.gone:
			line = liveLine{faint, "has ended"}
		case p.told != 0:
			line.text = "stops"
		case p.id == "":
			line.text = "starts"
		default:
			line.text = "reads " + line.text
		}
		line.text = fmt.Sprintf("  %s  %-48s %5d records", p.name, line.text, p.records)
		lines = append(lines, line)
	}
	const wide = 28
	full := wide * s.step / steps
	lines = append(lines, liveLine{good, fmt.Sprintf("  [%s%s]  step %d of %d  %5.1fs  in %4d  out %4d",
		strings.Repeat("#", full), strings.Repeat("-", wide-full), s.step, steps, time.Since(s.began).Seconds(), s.ledger.In(), s.ledger.Seen())})
	if s.page != nil && s.page.url != "" {
		lines = append(lines, liveLine{plain, "  " + s.page.url + " shows it in a browser"})
	}
	s.screen.show(lines...)
}
