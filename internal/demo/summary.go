package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"github.com/benthos-plugins/aws-kinesis/internal/measure/trial"
)

// summary accounts for all records. readers has the names of those that read a
// shard.
func summary(out io.Writer, r trial.Result, readers func(shard string) string) {
	unexcused := 0
	var excuses []string
	for _, p := range r.Phases {
		unexcused += p.Unexcused
		if p.Allowed > 0 {
			excuses = append(excuses, p.Name)
		}
	}
	why := ""
	if r.Repeats > unexcused {
		why = "not committed at the " + strings.Join(excuses, " and the ")
	}
	fmt.Fprintln(out)
	for _, line := range []struct {
		what  string
		count int
		why   string
	}{
		{"records in", r.In, ""},
		{"records out", r.Out, ""},
		{"missing", r.Missing, ""},
		{"repeated", r.Repeats - unexcused, why},
		{"repeated though committed", unexcused, ""},
		{"out of order for their key", r.Inversions, ""},
	} {
		fmt.Fprintln(out, strings.TrimRight(fmt.Sprintf("%-28s %6d  %s", line.what, line.count, line.why), " "))
	}
	fmt.Fprintf(out, "\n%-22s %8s  %-14s %s\n", "shard", "records", "read by", "checkpoint")
	for _, shard := range r.Shards {
		verdict := "at its last record"
		if shard.Stored != shard.Last {
			verdict = fmt.Sprintf("%s, NOT at its last record, %s", cmp.Or(shard.Stored, "none"), shard.Last)
		}
		fmt.Fprintf(out, "%-22s %8d  %-14s %s\n", shard.ID, shard.Records, readers(shard.ID), verdict)
	}
}
