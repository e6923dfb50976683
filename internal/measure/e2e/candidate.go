package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
	"github.com/benthos-plugins/aws-kinesis/internal/measure/child"
)

// candidate is a program that is measured.
type candidate struct {
	name    string
	program string
	env     []string
	input   func(column, source) string // YAML of its input
	bound   time.Duration               // a run that lasts longer is cut
	isFloor bool                        // it reads nothing, and its first record is its start
	profile string                      // folder for profiles; empty for none
	debug   bool                        // profiles are to be had without a folder too
	tls     bool                        // it reads over TLS, where the source has it
	only    string                      // part of the names of the columns to run
}

// source is where a run finds its records.
type source struct {
	fake          *awsfake.Server
	url           string
	stream, table string
	tableURL      string // where the table is reached, if elsewhere
	bundle        string // file of the certificate to trust; empty without TLS
	// pages is where a GET brings the bytes of a page, over TLS.
	pages string
	// secure is the same source over TLS, nil where there is no other.
	secure *source
}

// reads counts what a program does first once it has shards: it asks for a page, or
// subscribes.
func (s source) reads() int { return s.fake.Calls("GetRecords") + s.fake.Calls("SubscribeToShard") }

func kinesisInput(c column, s source) string { return inputWith(c, s, "") }

// inputWith is the input with more fields, each on a line of its own.
func inputWith(c column, s source, more string) string {
	yaml := fmt.Sprintf(`aws_kinesis:
    streams: [ %s ]
    region: us-east-1
    endpoint: %s
    checkpoint_limit: 10000
    dynamodb:
      table: %s
      create: true
`, s.stream, s.url, s.table)
	if s.tableURL != "" {
		yaml += fmt.Sprintf("      endpoint: %s\n", s.tableURL)
	}
	yaml += more
	if c.batch > 1 {
		yaml += fmt.Sprintf("    batching: { count: %d, period: 1s }\n", c.batch)
	}
	return yaml
}

// floorRecords are enough for most of a second of work, whatever the column has.
const floorRecords = 500_000

func floorInput(c column, _ source) string {
	return fmt.Sprintf("floor: { records: %d, size: %d, batch: %d }\n", floorRecords, c.size, c.batch)
}

// receivingInput is the floor that reads the bytes of a page of JSON for as many records.
func receivingInput(c column, s source) string {
	return fmt.Sprintf("floor: { records: %d, size: %d, batch: %d, url: %s, certificate: %s, page: %d }\n",
		c.records, c.size, c.batch, s.pages, s.bundle, pageRecords(c))
}

// pageRecords is how many records come in a page: those of a megabyte, which is what a
// poller asks for.
func pageRecords(c column) int { return max(1<<20/c.size, 1) }

// pageSize is how many bytes a page of JSON has: payloads in base64, and beside each 128
// bytes of sequence number, key, time of arrival, names and punctuation.
func pageSize(c column) int { return pageRecords(c) * ((c.size+2)/3*4 + 128) }

// sample is what a process had used at a moment.
type sample struct {
	at   time.Time
	cpu  time.Duration // user and system
	sent int64         // records that its output took
}

// run is what one run of a candidate came to.
type run struct {
	records int64
	cpu     time.Duration
	wall    time.Duration
	peak    int64 // bytes of resident memory
	cut     bool
	allocs  uint64 // with profiles alone
}

func (r run) perRecord() float64 {
	if r.records == 0 {
		return 0
	}
	return float64(r.cpu) / float64(r.records) / float64(time.Microsecond)
}

const (
	startPoll = 2 * time.Millisecond
	sentPoll  = 250 * time.Millisecond // asked more often, the answers cost as much as slow records
	// startBound is how long a program may take until its first record.
	startBound = 30 * time.Second
)

// measure runs a candidate until its output took all records of the column or its
// time is up. The start of the process is not counted: the first sample is taken
// as the first page is asked for or the first shard subscribed to, and at the floor when it has given something.
func (c candidate) measure(ctx context.Context, col column, src source) (r run, err error) {
	if c.tls && src.secure != nil {
		table := src.table
		src = *src.secure
		src.table = table
	}
	before := src.reads()
	w, err := c.launch(ctx, col, src, "output: { drop: {} }\n")
	if err != nil {
		return run{}, err
	}
	defer func() { err = w.end(err) }()

	start, err := w.await(ctx, startPoll, startBound, func(s sample) bool {
		return src.reads() > before || s.sent > 0
	}, c.isFloor)
	if err != nil {
		return run{}, err
	}
	var profiling sync.WaitGroup
	var profileErr error
	var allocs uint64
	if c.profile != "" {
		if allocs, err = w.allocs(ctx); err != nil {
			return run{}, err
		}
		profiling.Go(func() { profileErr = w.save(ctx, "profile?seconds=10", c.profile, c.name+" cpu", col) })
	}
	records := int64(col.records)
	if c.isFloor && !c.tls {
		records = floorRecords
	}
	end, err := w.await(ctx, sentPoll, c.bound, func(s sample) bool { return s.sent >= records }, true)
	profiling.Wait()
	if err := errors.Join(err, profileErr); err != nil {
		return run{}, err
	}
	if c.profile != "" {
		now, err := w.allocs(ctx)
		if err := errors.Join(err, w.save(ctx, "allocs", c.profile, c.name+" allocs", col)); err != nil {
			return run{}, err
		}
		allocs = now - allocs
	}
	most, err := peak(w.PID())
	if err != nil {
		return run{}, err
	}
	return run{
		records: end.sent - start.sent,
		cpu:     end.cpu - start.cpu,
		wall:    end.at.Sub(start.at),
		peak:    most,
		cut:     end.sent < records,
		allocs:  allocs,
	}, nil
}

// watched is a running candidate.
type watched struct {
	*child.Process
	what    string // is measured
	dir     string // for its configuration
	metrics string // URL
}

// launch starts the program with the column's input, and with a pipeline and an
// output in YAML. The caller ends it.
func (c candidate) launch(ctx context.Context, col column, src source, rest string) (w watched, err error) {
	address, err := freeAddress(ctx)
	if err != nil {
		return w, err
	}
	w = watched{what: c.name + ", " + col.name, metrics: "http://" + address + "/metrics"}
	if w.dir, err = os.MkdirTemp("", "e2e-"); err != nil {
		return w, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(w.dir))
		}
	}()
	config := fmt.Sprintf(`http: { address: %s, debug_endpoints: %t }
logger: { level: ERROR }
metrics: { json_api: {} }
input:
  %s%s`, address, c.debug || c.profile != "", c.input(col, src), rest)
	file := filepath.Join(w.dir, "config.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return w, err
	}
	env := append(slices.Clone(c.env),
		"AWS_ACCESS_KEY_ID=local", "AWS_SECRET_ACCESS_KEY=local", "AWS_EC2_METADATA_DISABLED=true")
	if src.bundle != "" {
		env = append(env, "AWS_CA_BUNDLE="+src.bundle)
	}
	w.Process, err = child.Start(ctx, c.program, []string{"-c", file}, env)
	return w, err
}

// end stops the program, and adds what it said to an error.
func (w watched) end(err error) error {
	if err != nil {
		err = fmt.Errorf("%s: %w; it said: %s", w.what, err, strings.Join(w.Log(), " | "))
	}
	w.Close()
	return errors.Join(err, os.RemoveAll(w.dir))
}

// await samples a process until it is ready, or until the bound: then the sample is
// that of the last record, so that idling or spinning behind it does not count. It
// asks for the records sent only when told to, since that is work for the process.
func (w watched) await(ctx context.Context, every, bound time.Duration, ready func(sample) bool, countSent bool) (sample, error) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	begin := time.Now()
	var last sample
	for {
		s := sample{at: time.Now()}
		var err error
		if s.cpu, err = cpu(w.PID()); err != nil {
			return s, err
		}
		if countSent {
			if s.sent, err = w.sent(ctx); err != nil && time.Since(begin) > startBound {
				return s, err
			}
		}
		if s.sent > last.sent || last.at.IsZero() {
			last = s
		}
		switch {
		case ready(s):
			return s, nil
		case time.Since(begin) > bound:
			return last, nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return s, ctx.Err()
		}
	}
}

// userHz is the unit of times in /proc, see proc(5) and sysconf(3): 100 on every
// Linux that Go runs on.
const userHz = 100

// cpu returns the processor time of a process by its id.
func cpu(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("reading processor time: %w", err)
	}
	// After the command in parentheses, which may hold anything, utime and stime
	// are the 12th and 13th field.
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, fmt.Errorf("reading processor time: unknown format %q", stat)
	}
	user, err := strconv.ParseInt(fields[11], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("reading processor time: %w", err)
	}
	system, err := strconv.ParseInt(fields[12], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("reading processor time: %w", err)
	}
	return time.Duration(user+system) * (time.Second / userHz), nil
}

// peak returns the most memory that a process has had resident, in bytes.
func peak(pid int) (int64, error) { return memory(pid, "VmHWM") }

// memory returns a size from the status of a process, in bytes; see proc(5).
func memory(pid int, name string) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, fmt.Errorf("reading memory: %w", err)
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("reading memory: %w", err)
			}
			return kib << 10, nil
		}
	}
	return 0, fmt.Errorf("reading memory: no %s in %q", name, status)
}

// profile writes what the process answers to a question of /debug/pprof.
func (w watched) profile(ctx context.Context, question string, to io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(w.metrics, "/metrics")+"/debug/pprof/"+question, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("taking the profile %s: %w", question, err)
	}
	defer res.Body.Close()
	_, err = io.Copy(to, res.Body)
	return err
}

// allocs returns how many objects the process has allocated, which the text of a
// profile has from runtime.MemStats.
func (w watched) allocs(ctx context.Context) (uint64, error) {
	var text strings.Builder
	if err := w.profile(ctx, "allocs?debug=1", &text); err != nil {
		return 0, err
	}
	for line := range strings.Lines(text.String()) {
		if value, ok := strings.CutPrefix(line, "# Mallocs = "); ok {
			return strconv.ParseUint(strings.TrimSpace(value), 10, 64)
		}
	}
	return 0, errors.New("no count of allocations in the text of the profile")
}

// save keeps a profile of the process for `go tool pprof`.
func (w watched) save(ctx context.Context, profile, dir, name string, col column) (err error) {
	file, err := os.Create(filepath.Join(dir, strings.NewReplacer(" ", "-", ",", "").Replace(col.name+" "+name)+".pprof"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	return w.profile(ctx, profile, file)
}

// sent asks for the records that the output took.
func (w watched) sent(ctx context.Context) (int64, error) { return w.metric(ctx, "output_sent") }

// metric asks for the first metric whose name begins so; 0 where there is none.
func (w watched) metric(ctx context.Context, name string) (int64, error) {
	values, err := w.values(ctx, name)
	if err != nil || len(values) == 0 {
		return 0, err
	}
	return int64(values[0]), nil
}

// metricRange asks for the smallest and the largest of the metrics whose names begin so.
func (w watched) metricRange(ctx context.Context, name string) (least, most float64, err error) {
	values, err := w.values(ctx, name)
	if err != nil || len(values) == 0 {
		return 0, 0, err
	}
	return slices.Min(values), slices.Max(values), nil
}

// values asks for the metrics whose names begin so.
func (w watched) values(ctx context.Context, name string) (values []float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.metrics, nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("asking for metrics: %w", err)
	}
	defer res.Body.Close()
	var metrics map[string]any
	if err := json.NewDecoder(res.Body).Decode(&metrics); err != nil {
		return nil, fmt.Errorf("asking for metrics: %w", err)
	}
	for full, value := range metrics {
		if n, ok := value.(float64); ok && strings.HasPrefix(full, name) {
			values = append(values, n)
		}
	}
	return values, nil
}

// freeAddress returns a loopback address that was free a moment ago.
func freeAddress(ctx context.Context) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
