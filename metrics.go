package awskinesis

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/benthosdev/benthos/v4/public/service"

	"github.com/benthos-plugins/aws-kinesis/internal/metric"
)

// labelClient is a field of the log alone: of a label each new id would begin new series.
const labelClient = "kinesis_client"

// ofAggregates are the metrics of aggregated records.
var ofAggregates = []string{
	"kinesis_user_records", "kinesis_foreign_user_records", "kinesis_dropped_aggregates", "kinesis_broken_aggregates",
}

// The results of calls.
const (
	resultOK        = "ok"
	resultEmpty     = "empty"
	resultThrottled = "throttled"
	resultExpired   = "expired"
	resultDenied    = "denied"
	resultConflict  = "conflict"
	resultFailed    = "failed"
)

// unknown is the value of a gauge while nobody knows it.
const unknown = metric.Unknown

// inputMetrics are the metrics of one input. With perShard unset those of single shards
// are not written.
type inputMetrics struct {
	perShard bool
	gauges   map[string]*service.MetricGauge
	counters map[string]*service.MetricCounter
	timers   map[string]*service.MetricTimer
	shardly  map[string]bool

	// idle are counters that nothing is to count, by the configuration: they do not begin at 0.
	idle []string

	mu   sync.Mutex
	last map[string]int64 // values of gauges, so that one is written when it changes
}

func newMetrics(m *service.Metrics, perShard bool) *inputMetrics {
	made := &inputMetrics{
		perShard: perShard,
		gauges:   map[string]*service.MetricGauge{}, counters: map[string]*service.MetricCounter{}, timers: map[string]*service.MetricTimer{},
		shardly: map[string]bool{}, last: map[string]int64{},
	}
	for _, each := range metric.Table {
		made.shardly[each.Name] = each.OfShard()
		if made.shardly[each.Name] && !perShard {
			continue
		}
		switch each.Kind {
		case metric.Gauge:
			made.gauges[each.Name] = m.NewGauge(each.Name, each.Labels...)
		case metric.Counter:
			made.counters[each.Name] = m.NewCounter(each.Name, each.Labels...)
		case metric.Timer:
			made.timers[each.Name] = m.NewTimer(each.Name, each.Labels...)
		}
	}
	return made
}

// of returns a metric of a table by its name. It panics for one that is not in it.
func of[T any](m *inputMetrics, table map[string]*T, name string) (made *T, written bool) {
	if known := table[name]; known != nil {
		return known, true
	}
	if shardly, ok := m.shardly[name]; !ok || !shardly || m.perShard {
		panic("no metric of its kind is called " + name)
	}
	return nil, false
}

func (m *inputMetrics) set(name string, value int64, labels ...string) {
	g, written := of(m, m.gauges, name)
	if !written {
		return
	}
	series := name + "\x00" + strings.Join(labels, "\x00")
	m.mu.Lock()
	before, known := m.last[series]
	m.last[series] = value
	m.mu.Unlock()
	if !known || before != value {
		g.Set(value, labels...)
	}
}

func (m *inputMetrics) add(name string, n int64, labels ...string) {
	if c, written := of(m, m.counters, name); written {
		c.Incr(n, labels...)
	}
}

// begin has the counters begin at 0 that have exactly these labels, so that the first thing
// they count is an increase.
func (m *inputMetrics) begin(labels []string, values ...string) {
	for _, each := range metric.Table {
		if each.Kind == metric.Counter && slices.Equal(each.Labels, labels) && !slices.Contains(m.idle, each.Name) {
			m.add(each.Name, 0, values...)
		}
	}
}

func (m *inputMetrics) time(name string, nanoseconds int64, labels ...string) {
	if t, written := of(m, m.timers, name); written {
		t.Timing(nanoseconds, labels...)
	}
}

// metricsReference is the table of metrics for the reference.
func metricsReference() string {
	var page strings.Builder
	section := func(title string, is func(metric.Metric) bool) {
		fmt.Fprintf(&page, "#### %s\n", title)
		for _, m := range metric.Table {
			if !is(m) {
				continue
			}
			fmt.Fprintf(&page, "\n- `%s` (%s, %s", m.Name, m.Kind, m.Unit)
			if len(m.Labels) > 0 {
				fmt.Fprintf(&page, "; `%s`", strings.Join(m.Labels, "`, `"))
			}
			fmt.Fprintf(&page, "): %s", m.Help)
			if m.Advice != "" {
				fmt.Fprintf(&page, "\n  *What to do:* %s", m.Advice)
			}
		}
		fmt.Fprint(&page, "\n\n")
	}
	section("Of each shard", metric.Metric.OfShard)
	section("Of each stream", metric.Metric.OfStream)
	section("Of the input", func(m metric.Metric) bool { return !m.OfShard() && !m.OfStream() })
	return strings.TrimSpace(page.String())
}
