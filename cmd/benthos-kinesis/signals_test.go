package main

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
)

// documented is a metric as the reference has it.
type documented struct {
	kind   string
	labels []string
}

var metricLine = regexp.MustCompile("(?m)^- `(kinesis_[a-z_]+)` \\((gauge|counter|timer), [^;)]*(?:; ([^)]*))?\\): ")

// reference reads the metrics of the reference.
func reference(t *testing.T) map[string]documented {
	t.Helper()
	page, err := os.ReadFile("../../docs/aws_kinesis.md")
	require.NoError(t, err)
	all := map[string]documented{}
	for _, m := range metricLine.FindAllStringSubmatch(string(page), -1) {
		d := documented{kind: m[2]}
		for label := range strings.SplitSeq(m[3], ", ") {
			if label = strings.Trim(label, "`"); label != "" {
				d.labels = append(d.labels, label)
			}
		}
		slices.Sort(d.labels)
		all[m[1]] = d
	}
	require.Len(t, all, strings.Count(string(page), "\n- `kinesis_"), "each line of the reference")
	return all
}

var seriesLine = regexp.MustCompile(`(?m)^(kinesis_[a-z_]+)\{([^}]*)\} \S+$`)

// scraped reads the series of an answer, timers under their own names, with the labels
// that are not the host's.
func scraped(answers ...string) map[string]documented {
	all := map[string]documented{}
	kinds := map[string]string{"gauge": "gauge", "counter": "counter", "summary": "timer"}
	typ := regexp.MustCompile(`(?m)^# TYPE (kinesis_[a-z_]+) ([a-z]+)$`)
	for _, answer := range answers {
		kind := map[string]string{}
		for _, m := range typ.FindAllStringSubmatch(answer, -1) {
			kind[m[1]] = kinds[m[2]]
		}
		for _, m := range seriesLine.FindAllStringSubmatch(answer, -1) {
			name := m[1]
			if _, known := kind[name]; !known {
				name = strings.TrimSuffix(strings.TrimSuffix(name, "_sum"), "_count")
			}
			labels := map[string]bool{}
			for label := range strings.SplitSeq(m[2], ",") {
				key, _, _ := strings.Cut(label, "=")
				if !slices.Contains([]string{"label", "path", "quantile"}, key) {
					labels[key] = true
				}
			}
			all[name] = documented{kind: kind[name], labels: slices.Sorted(maps.Keys(labels))}
		}
	}
	return all
}

// served is the configuration of a pipeline with an HTTP service.
func served(address, file string, fields ...string) string {
	return root(address) + "input: { " + input("orders", fields...) +
		" }\noutput: { " + lines(file) + " }\n"
}

// The series of two processes, of which one has handed shards over to the other, are those
// of the reference, with its labels and kinds.
func TestEachSeriesIsDocumentedAndEachDocumentedOneIsThere(t *testing.T) {
	r := newRig(t)
	require.NoError(t, r.aws.CreateStream("orders", 4))
	stop := r.feed("orders")
	defer stop()
	first, second := r.address(), r.address()
	a := r.start("-c", r.write("a.yaml", served(first, "a", "deaggregate: true", "max_record_age: 1h")))
	scrape := func(p *process, address string) string { return p.must("GET", "http://"+address+"/metrics", "") }
	r.await("four shards", func() bool {
		answer, ok := a.request("GET", "http://"+first+"/metrics", "")
		return ok && strings.Contains(answer, `kinesis_leases_held{kinesis_stream="orders",label="",path="root.input"} 4`)
	})
	b := r.start("-c", r.write("b.yaml", served(second, "b", "deaggregate: true", "max_record_age: 1h")))
	r.await("half of them with the second process", func() bool {
		answer, ok := b.request("GET", "http://"+second+"/metrics", "")
		return ok && strings.Contains(answer, `kinesis_leases_held{kinesis_stream="orders",label="",path="root.input"} 2`)
	})
	r.await("commits and reads of the second", func() bool {
		answer := scrape(b, second)
		return strings.Contains(answer, "kinesis_commits{") && strings.Contains(answer, "kinesis_fetches{")
	})
	require.Equal(t, reference(t), scraped(scrape(a, first), scrape(b, second)))

	// Counters and timers count what they are called after.
	r.await("values of the first process", func() bool {
		answer := scrape(a, first)
		return sum(t, answer, "kinesis_handovers_given_count") == 2 && sum(t, answer, "kinesis_records") > 0 &&
			sum(t, answer, "kinesis_bytes") > sum(t, answer, "kinesis_records") && sum(t, answer, "kinesis_fetches", `result="ok"`) > 0 &&
			sum(t, answer, "kinesis_commits", `result="ok"`) > 0 && sum(t, answer, "kinesis_table_calls", `operation="UpdateItem"`, `result="ok"`) > 0
	})
	r.await("values of the second process", func() bool {
		answer := scrape(b, second)
		return sum(t, answer, "kinesis_handovers_taken_count") == 2 && sum(t, answer, "kinesis_shards_stolen_total") == 2 &&
			sum(t, answer, "kinesis_leases_lost") == 0 && sum(t, answer, "kinesis_sessions_lost") == 0 && sum(t, answer, "kinesis_rejected_messages") == 0
	})

	// What an operator sees of it.
	r.await("the lines of the second process", func() bool { return strings.Contains(b.log.String(), "handed them over") })
	id := regexp.MustCompile(`Client (\S+) is in the group of table`)
	idA, idB := id.FindStringSubmatch(a.log.String()), id.FindStringSubmatch(b.log.String())
	require.NotNil(t, idA)
	require.NotNil(t, idB)
	r.await("the lines of the first process", func() bool {
		return strings.Contains(a.log.String(), "Clients: "+idB[1]+" joined. The group has 2 now, with this one") &&
			strings.Contains(a.log.String(), "2 shards of stream orders were handed over to client "+idB[1]+", which asked for them: ")
	})
	require.Contains(t, b.log.String(), "kinesis_client="+idB[1]+" kinesis_stream=orders")
	require.Contains(t, b.log.String(), "2 shards of stream orders are read here now: client "+idA[1]+" handed them over: ")
	for _, p := range []*process{a, b} {
		for line := range strings.SplitSeq(p.log.String(), "\n") {
			if strings.Contains(line, "group") || strings.Contains(line, "handed over") || strings.Contains(line, "read here") {
				t.Log(line)
			}
		}
	}
}

// sum adds up the series of a name whose labels have all of some parts.
func sum(t *testing.T, answer, name string, parts ...string) (total float64) {
	t.Helper()
	for _, m := range seriesLine.FindAllStringSubmatch(answer, -1) {
		if m[1] != name || slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(m[2], part) }) {
			continue
		}
		var value float64
		_, err := fmt.Sscan(m[0][strings.LastIndex(m[0], " ")+1:], &value)
		require.NoError(t, err)
		total += value
	}
	return total
}

// A rejection is counted, and so is what it costs: skipped messages where they are not
// replayed, replays where they are.
func TestRejectionsAndReplaysAreCounted(t *testing.T) {
	for replay, name := range map[bool]string{false: "kinesis_rejected_messages", true: "kinesis_replayed_messages"} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			require.NoError(t, r.aws.CreateStream("orders", 1))
			address := r.address()
			conf := root(address) + "input: { " + input("orders", fmt.Sprintf("auto_replay_nacks: %t", replay)) + " }\noutput: { reject: 'not today' }\n"
			p := r.start("-c", r.write("a.yaml", conf))
			r.put("orders", 0, 3)
			r.await("three messages", func() bool {
				answer, ok := p.request("GET", "http://"+address+"/metrics", "")
				return ok && sum(t, answer, name) >= 3
			})
			if !replay {
				require.InDelta(t, 3, sum(t, p.must("GET", "http://"+address+"/metrics", ""), name), 0)
				r.await("a line about it", func() bool { return strings.Contains(p.log.String(), "are rejected by the output and skipped") })
			}
		})
	}
}

func TestSeriesOfShardsCanBeTurnedOff(t *testing.T) {
	r := newRig(t)
	require.NoError(t, r.aws.CreateStream("orders", 2))
	address := r.address()
	p := r.start("-c", r.write("a.yaml", served(address, "a", "shard_metrics: false")))
	r.awaitLines("a", r.put("orders", 0, 20))
	answer := p.must("GET", "http://"+address+"/metrics", "")
	require.Contains(t, answer, "kinesis_max_lag_milliseconds{")
	require.NotContains(t, answer, "kinesis_shard=")
}

func TestReadyAnswers503WhileNothingCanBeRead(t *testing.T) {
	r := newRig(t)
	require.NoError(t, r.aws.CreateStream("orders", 2))
	address := r.address()
	p := r.start("-c", r.write("a.yaml", served(address, "a")))
	want := r.put("orders", 0, 20)
	r.awaitLines("a", want)
	status := func() bool { _, ok := p.request("GET", "http://"+address+"/ready", ""); return ok }
	require.True(t, status())
	remove := r.aws.Inject(awsfake.Fault{Operation: "GetRecords", Refuse: awsfake.NewError("AccessDeniedException", "not allowed")})
	r.await("503", func() bool { return !status() })
	require.Contains(t, p.must("GET", "http://"+address+"/metrics", ""), "kinesis_ready{label=\"\",path=\"root.input\"} 0\n")
	require.Contains(t, p.log.String(), "The input is not ready: for a lease period none of its 2 shards could be read")
	require.Contains(t, p.log.String(), "Allow `kinesis:GetRecords` on `orders`")
	remove()
	r.await("200", status)
	r.awaitLines("a", append(want, r.put("orders", 20, 20)...))
	r.await("the end of it in the log", func() bool { return strings.Contains(p.log.String(), "The input is ready again after ") })
}

// A process that stood still tells the truth a moment after it goes on.
func TestLagIsTrueAfterAProcessHasStoodStill(t *testing.T) {
	r := newRig(t)
	require.NoError(t, r.aws.CreateStream("orders", 1))
	address := r.address()
	// The output holds what it has, so that the lag is that of the first record.
	conf := root(address) + "input: { " + input("orders") + " }\npipeline: { processors: [ { sleep: { duration: 1h } } ] }\noutput: { " + lines("a") + " }\n"
	p := r.start("-c", r.write("a.yaml", conf))
	r.await("a connection", func() bool { _, ok := p.request("GET", "http://"+address+"/ready", ""); return ok })
	put := time.Now()
	r.put("orders", 0, 1)
	lag := func() (ms float64) {
		for _, m := range seriesLine.FindAllStringSubmatch(p.must("GET", "http://"+address+"/metrics", ""), -1) {
			if m[1] == "kinesis_lag_milliseconds" {
				_, err := fmt.Sscanf(m[0][strings.LastIndex(m[0], " ")+1:], "%g", &ms)
				require.NoError(t, err)
			}
		}
		return ms
	}
	r.await("a lag of half a second", func() bool { return lag() >= 500 })
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGSTOP))
	still := time.NewTimer(4 * time.Second)
	defer still.Stop()
	select {
	case <-still.C:
	case <-t.Context().Done():
	}
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGCONT))
	r.await("the lag of now", func() bool { return lag() >= float64(time.Since(put).Milliseconds()-2000) })
	require.Less(t, time.Since(put), patience)
	require.NoError(t, p.cmd.Process.Kill())
	<-p.ended
}
