package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
)

// How enhanced fan-out does beside polling. Both are this input, over TLS, and each part
// runs them one after the other against a local AWS that enforces the limits.

// comparison is a part: it measures both ways and writes its tables.
type comparison struct {
	name string
	run  func(context.Context, options, io.Writer) error
}

var comparisons = []comparison{
	{"fan-out-latency", fanOutLatency},
	{"fan-out-cpu", fanOutCPU},
	{"fan-out-many", fanOutMany},
	{"fan-out-blocked", fanOutBlocked},
	{"fan-out-auto", fanOutAuto},
}

func fanOutNames() []string {
	var names []string
	for _, c := range comparisons {
		names = append(names, c.name)
	}
	return names
}

// wires are parts about connections, which are run by name alone.
var wires = []comparison{
	{"connections", connections},
	{"sizing", sizing},
	{"dead", dead},
}

// runFanOut reports whether the scenario is one of these.
func runFanOut(ctx context.Context, out io.Writer, o options) (done bool, err error) {
	for _, c := range slices.Concat(wires, comparisons) {
		if o.scenario != c.name && (o.scenario != "fan-out" || !strings.HasPrefix(c.name, "fan-out")) {
			continue
		}
		if !done {
			fmt.Fprintf(out, "%s, %s, %d cores, %s\n", time.Now().Format("2 January 2006"), runtime.Version(), runtime.NumCPU(), runtime.GOARCH)
		}
		done = true
		if err := c.run(ctx, o, out); err != nil {
			return true, fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return done, nil
}

const (
	byPolling = "polling"
	byFanOut  = "fan-out"
)

// ways are this input by polling and by enhanced fan-out, with more fields in YAML.
func ways(o options, fields string) []candidate {
	return []candidate{way(o, byPolling, fields), way(o, byFanOut, fields+"    enhanced_fan_out: { enabled: true }\n")}
}

func way(o options, name, fields string) candidate {
	return candidate{
		name: name, program: o.ours, bound: 2 * time.Minute, profile: o.profile,
		input: func(c column, s source) string { return kinesisInput(c, s) + fields },
	}
}

// briefly shortens a time where parts are tried out alone.
func (o options) briefly(d time.Duration) time.Duration {
	if o.brief {
		return d / 6
	}
	return d
}

// servedTLS is served over TLS, with the limits of the service.
func servedTLS(shards int, do func(source) error) error {
	return servedTLSBy(awsfake.Options{EnforceLimits: true}, shards, do)
}

func servedTLSBy(opts awsfake.Options, shards int, do func(source) error) error {
	dir, err := os.MkdirTemp("", "e2e-")
	if err != nil {
		return err
	}
	err = servedBy(opts, shards, func(src *source) error {
		url, ca, err := src.fake.ListenTLS()
		if err != nil {
			return err
		}
		// The table has a port of its own, so that connections to it do not count as those
		// of the stream.
		table, tableCA, err := src.fake.ListenTLS()
		if err != nil {
			return err
		}
		src.url, src.tableURL, src.bundle = url, table, filepath.Join(dir, "ca.pem")
		return os.WriteFile(src.bundle, append(ca, tableCA...), 0o600)
	}, do)
	return errors.Join(err, os.RemoveAll(dir))
}

// percentile returns the smallest of sorted times that is not below p percent of them;
// 0 where there are none.
func percentile(sorted []time.Duration, p float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	i := int(math.Ceil(p/100*float64(len(sorted)))) - 1
	return sorted[min(max(i, 0), len(sorted)-1)]
}

// spread writes the median, the 99th percentile and the longest of some times, in ms.
func spread(times []time.Duration) string {
	if len(times) == 0 {
		return "none"
	}
	slices.Sort(times)
	return fmt.Sprintf("%s / %s / %s", inMillis(percentile(times, 50)), inMillis(percentile(times, 99)), inMillis(times[len(times)-1]))
}

func inMillis(d time.Duration) string {
	return fmt.Sprintf("%.1f", float64(d)/float64(time.Millisecond))
}

// goroutines asks how many there are in the process.
func (w watched) goroutines(ctx context.Context) (n int, err error) {
	var text strings.Builder
	if err := w.profile(ctx, "goroutine?debug=1", &text); err != nil {
		return 0, err
	}
	if _, err := fmt.Sscanf(text.String(), "goroutine profile: total %d", &n); err != nil {
		return 0, fmt.Errorf("counting goroutines: %w", err)
	}
	return n, nil
}

// connections returns how many connections the process has to a port of loopback, from the
// sockets among its files.
func (w watched) connections(url string) (int, error) {
	own := map[string]bool{}
	files := fmt.Sprintf("/proc/%d/fd", w.PID())
	entries, err := os.ReadDir(files)
	if err != nil {
		return 0, fmt.Errorf("counting connections: %w", err)
	}
	for _, e := range entries {
		link, err := os.Readlink(filepath.Join(files, e.Name()))
		if inode, ok := strings.CutPrefix(link, "socket:["); err == nil && ok {
			own[strings.TrimSuffix(inode, "]")] = true
		}
	}
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return 0, fmt.Errorf("counting connections: %w", err)
	}
	return countConnections(bytes.NewReader(table), own, url[strings.LastIndexByte(url, ':')+1:])
}

// countConnections counts lines of /proc/net/tcp, see proc(5): those that are established
// to a port, and whose inode is one of some.
func countConnections(table io.Reader, inodes map[string]bool, port string) (n int, err error) {
	var number int
	if _, err := fmt.Sscan(port, &number); err != nil {
		return 0, fmt.Errorf("port %q: %w", port, err)
	}
	const remote, state, inode, established = 2, 3, 9, "01"
	remotePort := fmt.Sprintf(":%04X", number)
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) > inode && f[state] == established && strings.HasSuffix(f[remote], remotePort) && inodes[f[inode]] {
			n++
		}
	}
	return n, lines.Err()
}

// awaitShards waits until the process has all shards of the stream, and where it is to
// subscribe, has opened as many subscriptions.
func (w watched) awaitShards(ctx context.Context, src source, shards int, subscribes bool) (time.Duration, error) {
	begin := time.Now()
	ready := func() bool {
		if subscribes {
			return len(src.fake.Subscriptions(src.stream)) >= shards
		}
		held, err := w.metric(ctx, "kinesis_leases_held")
		return err == nil && held >= int64(shards)
	}
	for !ready() {
		if time.Since(begin) > 2*time.Minute {
			return 0, fmt.Errorf("it had not all of %d shards within two minutes", shards)
		}
		if err := rest(ctx, 100*time.Millisecond); err != nil {
			return 0, err
		}
	}
	return time.Since(begin), nil
}
