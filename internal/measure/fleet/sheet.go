//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// sheet is what a scenario has measured, line by line.
type sheet struct {
	rows   []row
	lines  []string // below the table
	broken []error
}

type row struct{ what, asked, measured, verdict string }

// none is a promise: the count must be zero.
func (s *sheet) none(what string, count int) {
	s.atMost(what, count, 0)
}

// atMost is a promise about a count.
func (s *sheet) atMost(what string, count, most int) {
	verdict := "kept"
	if count > most {
		verdict = "BROKEN"
		s.broken = append(s.broken, fmt.Errorf("%s: %d, at most %d allowed", what, count, most))
	}
	s.rows = append(s.rows, row{what, fmt.Sprint(most), fmt.Sprint(count), verdict})
}

// within is a goal for a time; err says that it was never reached.
func (s *sheet) within(what string, got, most time.Duration, err error) {
	measured := seconds(got)
	if err != nil {
		measured = "not in " + measured
	}
	s.rows = append(s.rows, row{what, seconds(most), measured, metIf(err == nil && got <= most)})
}

// below is a goal for a figure.
func (s *sheet) below(what string, got, most float64, format string) {
	s.rows = append(s.rows, row{what, fmt.Sprintf(format, most), fmt.Sprintf(format, got), metIf(got <= most)})
}

// note is a figure without a goal.
func (s *sheet) note(what, format string, args ...any) {
	s.rows = append(s.rows, row{what, "", fmt.Sprintf(format, args...), ""})
}

// line is what fits into no table.
func (s *sheet) line(format string, args ...any) {
	s.lines = append(s.lines, fmt.Sprintf(format, args...))
}

// err says which promises were broken; nil: none.
func (s *sheet) err() error { return errors.Join(s.broken...) }

func (s *sheet) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "what\tasked\tmeasured\t")
	for _, r := range s.rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", r.what, r.asked, r.measured, r.verdict)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, line := range s.lines {
		if _, err := fmt.Fprintln(out, line); err != nil {
			return err
		}
	}
	return nil
}

func metIf(met bool) string {
	if met {
		return "met"
	}
	return "not met"
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

func mebibytes(bytes int) float64 { return float64(bytes) / (1 << 20) }

// median and worst of samples, which it sorts; there is at least one.
func spread(samples []time.Duration) (median, worst time.Duration) {
	slices.Sort(samples)
	return samples[len(samples)/2], samples[len(samples)-1]
}
