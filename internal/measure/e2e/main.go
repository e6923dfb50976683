// Command e2e measures what a record costs from the service to the output: this
// input, the host's built-in one, and a floor that hands out ready-made messages,
// each as a process of its own into drop. The streams are served by a local AWS in
// this process, whose own processor time therefore does not count.
//
// With -scenario fan-out it compares the two ways of this input instead, polling and
// enhanced fan-out: delay, processor time, a thousand shards, an output that blocks, and
// other readers. With -scenario dead or connections it measures the wire: how soon shards
// flow again when a network has dropped connections, and how many of them there are.
//
// All candidates run in turn, several times over, so that whatever else the
// machine does meets all of them. It needs Linux, for /proc.
package main

import (
	"context"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
)

// column is a shape of records.
type column struct {
	name    string
	records int
	size    int // bytes
	batch   int // messages
}

var columns = []column{
	{"1 KB, batches of 500", 200_000, 1 << 10, 500},
	{"1 KB, no batching", 120_000, 1 << 10, 1},
	{"100 B, batches of 500", 600_000, 100, 500},
	{"10 KB, batches of 100", 16_000, 10 << 10, 100},
	{"1 MB, batches of 4", 160, 1 << 20, 4},
}

type options struct {
	ours, builtin, floor string
	runs, shards, scale  int
	bound                time.Duration
	only                 string
	plot, profile        string
	scenario             string
	brief                bool
}

func main() {
	var o options
	flag.StringVar(&o.ours, "benthos", "bin/benthos-kinesis", "the distribution with this input")
	flag.StringVar(&o.builtin, "builtin", "bin/builtin", "the distribution with the built-in input; empty for none")
	flag.StringVar(&o.floor, "floor", "bin/floor", "the distribution with the floor")
	flag.IntVar(&o.runs, "runs", 3, "runs of each candidate, of which the median counts")
	flag.IntVar(&o.shards, "shards", 8, "shards of a stream")
	flag.IntVar(&o.scale, "scale", 1, "multiply the records of each column of the table by this, for profiles with more samples")
	flag.DurationVar(&o.bound, "bound", 6*time.Second, "longest run of the built-in input")
	flag.StringVar(&o.only, "only", "", "measure the columns alone whose name has this in it (table, slow and fan-out-cpu), or the live or backlog part of fan-out-many")
	flag.StringVar(&o.plot, "plot", "", "file for the plot, an SVG")
	flag.StringVar(&o.profile, "profile", "", "folder for profiles; everything then costs more, and allocations are counted")
	flag.StringVar(&o.scenario, "scenario", "table", "table (what a record costs), slow (memory behind a slow output), limit (pace of a backlog), trickle (delay), slow-link (50 KB/s for 20 shards), burst (memory when 512 shards get much at once), keys (throughput and order by partition key), fan-out (enhanced fan-out beside polling), also one part of that, dead (connections that fell silent), connections (how many, handshakes, bytes) or sizing (what 10, 100 and 1,000 shards take)")
	flag.BoolVar(&o.brief, "brief", false, "make the parts of fan-out short, to try them out")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	do := measureAll
	if o.scenario != "table" {
		do = runScenario
	}
	err := do(ctx, os.Stdout, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		os.Exit(1)
	}
}

func candidates(o options) []candidate {
	ours := candidate{name: "this input", program: o.ours, input: kinesisInput, bound: 2 * time.Minute, profile: o.profile, only: o.only}
	all := []candidate{ours}
	if o.builtin != "" {
		builtin := ours
		builtin.name, builtin.program, builtin.bound = "built-in", o.builtin, o.bound
		all = append(all, builtin)
	}
	return all
}

// throughputCandidates are those whose cost by the record is compared: over TLS, as the
// service is reached, and the first one without, to show what TLS costs.
func throughputCandidates(o options) []candidate {
	ours := candidate{program: o.ours, input: kinesisInput, bound: 2 * time.Minute, profile: o.profile, only: o.only}
	floor := ours
	floor.program, floor.isFloor = o.floor, true
	as := func(c candidate, name string, secure bool, input func(column, source) string, env ...string) candidate {
		c.name, c.tls, c.input, c.env = name, secure, input, env
		return c
	}
	all := []candidate{
		as(ours, inTLS, true, kinesisInput),
		as(ours, inCBOR, true, func(c column, s source) string { return inputWith(c, s, "    wire_format: cbor\n") }),
		as(ours, "this input, no TLS", false, kinesisInput),
		as(floor, hostAlone, false, floorInput),
		as(floor, hostAndTLS, true, receivingInput),
	}
	if o.builtin != "" {
		builtin := ours
		builtin.program, builtin.bound = o.builtin, o.bound
		all = append(all,
			as(builtin, "built-in, TLS", true, kinesisInput),
			as(builtin, "built-in, TLS, GOMAXPROCS=16", true, kinesisInput, "GOMAXPROCS=16"),
		)
	}
	return all
}

// Names of candidates that others are compared with.
const (
	inTLS      = "this input, TLS"
	inCBOR     = "this input, TLS, CBOR"
	hostAlone  = "floor"
	hostAndTLS = "floor that reads the bytes, TLS"
)

// measured are the runs of each candidate in one column.
type measured struct {
	column column
	runs   map[string][]run
}

func measureAll(ctx context.Context, out io.Writer, o options) error {
	if o.runs < 1 || o.shards < 1 || o.scale < 1 {
		return errors.New("-runs, -shards and -scale: give 1 or more")
	}
	all := throughputCandidates(o)
	var results []measured
	for _, col := range columns {
		if !strings.Contains(col.name, o.only) {
			continue
		}
		col.records *= o.scale
		m, err := measureColumn(ctx, out, o, col, all)
		if err != nil {
			return err
		}
		results = append(results, m)
	}
	if len(results) == 0 {
		return fmt.Errorf("-only %s: no column has that in its name", o.only)
	}
	table(out, all, results)
	if o.plot != "" {
		return os.WriteFile(o.plot, []byte(plot(all, results)), 0o644)
	}
	return nil
}

func measureColumn(ctx context.Context, out io.Writer, o options, col column, all []candidate) (measured, error) {
	m := measured{column: col, runs: map[string][]run{}}
	err := servedBothWays(o.shards, col, func(src source) error {
		if err := fill(src, col); err != nil {
			return err
		}
		return measureRuns(ctx, out, o, src, all, m)
	})
	return m, err
}

// servedBothWays runs what needs a local AWS that can be reached with and without TLS, and
// pages of the column's size.
func servedBothWays(shards int, col column, do func(source) error) error {
	dir, err := os.MkdirTemp("", "e2e-")
	if err != nil {
		return err
	}
	page := make([]byte, pageSize(col))
	pages := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(page)))
		_, _ = w.Write(page) // a client that has gone away notices by itself
	}))
	defer pages.Close()
	err = served(awsfake.Options{}, shards, func(src source) error {
		secure := src
		url, certificate, err := src.fake.ListenTLS()
		if err != nil {
			return err
		}
		certificate = append(certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pages.Certificate().Raw})...)
		secure.url, secure.pages, secure.bundle = url, pages.URL, filepath.Join(dir, "ca.pem")
		if err := os.WriteFile(secure.bundle, certificate, 0o600); err != nil {
			return err
		}
		src.secure = &secure
		return do(src)
	})
	return errors.Join(err, os.RemoveAll(dir))
}

func measureRuns(ctx context.Context, out io.Writer, o options, src source, all []candidate, m measured) error {
	col := m.column
	for i := range o.runs {
		for j, c := range all {
			src.table = fmt.Sprintf("leases-%d-%d", i, j)
			r, err := c.measure(ctx, col, src)
			if err != nil {
				return err
			}
			m.runs[c.name] = append(m.runs[c.name], r)
			fmt.Fprintf(out, "%-22s  %-24s  %8.2f us a record  %8d records in %6.2f s  peak %4d MiB%s%s\n",
				col.name, c.name, r.perRecord(), r.records, r.wall.Seconds(), r.peak>>20, allocNote(r), cutNote(r.cut))
		}
	}
	return nil
}

// fill puts the records of a column into the shards in turn.
func fill(src source, col column) error {
	list, err := src.fake.Shards(src.stream)
	if err != nil {
		return err
	}
	data := []byte(strings.Repeat("the quick brown fox jumps over the lazy dog. ", col.size/45+1)[:col.size])
	for i := range col.records {
		if _, err := src.fake.PutTo(src.stream, list[i%len(list)].ID, fmt.Sprintf("key-%d", i%1000), data); err != nil {
			return err
		}
	}
	return nil
}

func allocNote(r run) string {
	if r.allocs == 0 {
		return ""
	}
	return fmt.Sprintf("  %6.1f allocations a record", float64(r.allocs)/float64(max(r.records, 1)))
}

func cutNote(cut bool) string {
	if cut {
		return "  (cut)"
	}
	return ""
}

// median is the run whose cost is in the middle; of an even number the dearer.
func median(runs []run) run {
	sorted := slices.SortedFunc(slices.Values(runs), func(a, b run) int {
		switch {
		case a.perRecord() < b.perRecord():
			return -1
		case a.perRecord() > b.perRecord():
			return 1
		}
		return 0
	})
	return sorted[len(sorted)/2]
}

// table writes the medians in Markdown.
func table(out io.Writer, all []candidate, results []measured) {
	fmt.Fprint(out, "\n| us of processor time a record |")
	for _, m := range results {
		fmt.Fprintf(out, " %s |", m.column.name)
	}
	fmt.Fprintf(out, "\n|---|%s\n", strings.Repeat("---|", len(results)))
	for _, c := range all {
		fmt.Fprintf(out, "| %s |", c.name)
		for _, m := range results {
			r := median(m.runs[c.name])
			fmt.Fprintf(out, " %s%s |", figure(r), cutNote(r.cut))
		}
		fmt.Fprintln(out)
	}
	ours := all[0].name
	for _, c := range all[1:] {
		above, below := c.name, ours
		if c.program == all[0].program || c.isFloor {
			above, below = ours, c.name
		}
		fmt.Fprintf(out, "| %s / %s |", above, below)
		for _, m := range results {
			fmt.Fprintf(out, " %s |", ratio(median(m.runs[above]), median(m.runs[below])))
		}
		fmt.Fprintln(out)
	}
	for _, c := range all {
		fmt.Fprintf(out, "| peak memory of %s, MiB |", c.name)
		for _, m := range results {
			fmt.Fprintf(out, " %d |", median(m.runs[c.name]).peak>>20)
		}
		fmt.Fprintln(out)
	}
	for _, c := range all {
		fmt.Fprintf(out, "| records a second and core, %s |", c.name)
		for _, m := range results {
			r := median(m.runs[c.name])
			fmt.Fprintf(out, " %.0f |", float64(r.records)/max(r.cpu.Seconds(), 0.01))
		}
		fmt.Fprintln(out)
	}
}

func figure(r run) string {
	if r.records == 0 {
		return "no record"
	}
	return fmt.Sprintf("%.1f", r.perRecord())
}

func ratio(a, b run) string {
	if b.perRecord() == 0 {
		return "-"
	}
	return fmt.Sprintf("%.3g", a.perRecord()/b.perRecord())
}
