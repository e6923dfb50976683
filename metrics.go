package awskinesis

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/benthosdev/benthos/v4/public/service"
)

// metric is one of the input's metrics, as the reference describes it and as it is made.
type metric struct {
	name   string
	kind   metricKind
	unit   string
	labels []string
	help   string // what it counts or shows
	advice string // what to do when it is high or, where it says so, low; often empty
}

type metricKind string

const (
	gauge   metricKind = "gauge"
	counter metricKind = "counter"
	timer   metricKind = "timer"
)

// The labels are called as the metadata is. In streams mode Benthos adds a label
// stream of its own, the id of the pipeline, and panics where a metric has one
// already.
const (
	labelStream    = "kinesis_stream"
	labelShard     = "kinesis_shard"
	labelClient    = "kinesis_client" // in the log alone: of a label each new id would begin new series
	labelResult    = "result"
	labelOperation = "operation"
	labelReason    = "reason"
	labelWay       = "way"
)

var (
	ofInput  []string
	ofStream = []string{labelStream}
	ofShard  = []string{labelStream, labelShard}
)

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

// unknown is the value of a gauge while nobody knows it: the host gives a component no
// way to take a series back.
const unknown = -1

// metricTable has every metric. The reference is made from it, and so are they.
var metricTable = []metric{
	// Shards.
	{
		"kinesis_lag_milliseconds", gauge, "milliseconds", ofShard,
		"The age of the oldest record that is not acknowledged or, where all are, the time since the shard was last known to be read to its end; until the first page, where the table does not tell how far the shard was read, the time since the claim, which may be far too little. It grows by the clock while nothing moves, whatever stands still: reading, processors, output or lease. Of an idle shard that is subscribed it is up to five seconds, the time between two events. -1 while this instance does not have the shard.",
		"The gauges below tell where it stands: `kinesis_last_read_age_milliseconds` grows when reading does, `kinesis_oldest_unacknowledged_milliseconds` when processors or output do, `kinesis_last_commit_age_milliseconds` when the table does. If none grows, there is more in the shard than the pipeline handles: add instances, raise `checkpoint_limit`, or split the shard.",
	},
	{
		"kinesis_millis_behind_latest", gauge, "milliseconds", ofShard,
		"How far the last page lay behind the newest record, as Kinesis says it, and by enhanced fan-out for how long it had waited to be read since. -1 while that is not known: before the first page, after a read that failed, when nothing was read for ten seconds or, if that is longer, two `poll_period`s, where Kinesis does not tell, or while this instance does not have the shard.",
		"See `kinesis_lag_milliseconds`, which goes on when reading stands still.",
	},
	{
		"kinesis_shard_owned", gauge, "0 or 1", ofShard,
		"Whether this instance has the shard. Of all instances together it is 1 in one for each shard that is read.", "",
	},
	{
		"kinesis_last_read_age_milliseconds", gauge, "milliseconds", ofShard,
		"The time since the last read that succeeded, of an empty page too, or since the shard was claimed where there was none yet. -1 while this instance does not have the shard.",
		"With `kinesis_fetches` of results other than `ok` and `empty`: Kinesis refuses or fails. With `kinesis_suspended_shards` above 0: the lease cannot be proved. Otherwise the output is slow, and nothing is read that has no room, or the shard is closed and has been read to its end.",
	},
	{
		"kinesis_last_commit_age_milliseconds", gauge, "milliseconds", ofShard,
		"The time since the shard's item was last written, with a new sequence or without one, or since it was claimed. -1 while this instance does not have the shard.",
		"An idle shard is written every minute by default. Far above that the table refuses or fails: see `kinesis_commits`, and the log.",
	},
	{
		"kinesis_oldest_unacknowledged_milliseconds", gauge, "milliseconds", ofShard,
		"The age, since it arrived in the stream, of the oldest record that was read and is not acknowledged; 0 when there is none. -1 while this instance does not have the shard.",
		"If it grows as fast as the clock, records wait in a batch, in the processors or in the output: look there. High and falling, old records are being read.",
	},
	{
		"kinesis_in_flight_messages", gauge, "messages", ofShard,
		"Messages from the oldest one that is not acknowledged on.",
		"At `checkpoint_limit` nothing more of the shard is handed on: the output is slow, or one message holds the others up.",
	},
	{"kinesis_records", counter, "records", ofShard, "Records read.", ""},
	{
		"kinesis_bytes", counter, "bytes", ofShard, "Their data and partition keys.",
		"A shard gives 2 MB a second to all its readers together.",
	},
	{
		"kinesis_user_records", counter, "user records", ofShard,
		"With `deaggregate`, user records that came out of aggregated records and are delivered.", "",
	},
	{
		"kinesis_foreign_user_records", counter, "user records", ofShard,
		"With `deaggregate`, those of them that are in the wrong shard, by their hash keys. With `deaggregate_foreign: drop` they are dropped, and with each the rest of its aggregated record.",
		"They come for some seconds after a split or merge, from producers that had not noticed it. If they keep coming, a producer goes by an old list of shards: restart it.",
	},
	{
		"kinesis_dropped_aggregates", counter, "records", ofShard,
		"Aggregated records that were dropped whole, with `deaggregate_foreign: drop`, since a user record in them is in the wrong shard.",
		"Their user records are lost to this pipeline. `deaggregate_foreign: keep` delivers them.",
	},
	{
		"kinesis_broken_aggregates", counter, "records", ofShard,
		"With `deaggregate`, records that begin as aggregated ones do and are none. They are delivered as they are, with the metadata `kinesis_deaggregation_error`.",
		"The metadata says what is wrong. Look at the producer that made them.",
	},
	{
		"kinesis_skipped_records", counter, "records", ofShard,
		"With `max_record_age`, records that were older and were skipped.",
		"They are lost to this pipeline, which was away, or is too slow for all there is. The log says from when to when they had arrived.",
	},
	{
		"kinesis_fetches", counter, "calls",
		[]string{labelStream, labelShard, labelResult},
		"Reads by result: `ok`, `empty`, `throttled`, `expired` (an iterator), `denied` or `failed`. One that failed is counted when the SDK has given up repeating it, a throttled one each time.",
		"`throttled`: other readers take the shard's 5 calls and 2 MB a second, raise `poll_period`, or have them read less. `denied`, `failed`: the log says what to do.",
	},
	{
		"kinesis_commits", counter, "writes",
		[]string{labelStream, labelShard, labelResult},
		"Writes of the shard's item by result: `ok`, `throttled`, `denied` or `failed`. What was committed late is not lost, and comes again if this instance dies.",
		"`throttled`: give the table more capacity, or `billing_mode: PAY_PER_REQUEST`. `denied`, `failed`: the log says what to do.",
	},
	{
		"kinesis_rejected_messages", counter, "messages", ofShard,
		"Messages that the output rejected and that were skipped, with `auto_replay_nacks: false`.",
		"They are lost to this pipeline. The log has the output's errors.",
	},
	{
		"kinesis_replayed_messages", counter, "messages", ofShard,
		"Messages that the output rejected and that are handed out again. Benthos counts them in `input_received` each time.",
		"The output refuses what it gets. Its own errors tell why.",
	},
	{
		"kinesis_throttled", counter, "calls", ofShard,
		"Reads that Kinesis refused for being too many or too much.", "See `kinesis_fetches`.",
	},
	{
		"kinesis_leases_lost", counter, "leases", ofShard,
		"Leases that ended before they were given up. What was in flight comes again elsewhere.",
		"Where Benthos' built-in input shares the table, it steals shards, and that is no fault. Otherwise instances stop for longer than `lease_period`, or cannot reach the table: raise the period, or give them more processor time.",
	},

	{
		"kinesis_subscription_silence_milliseconds", gauge, "milliseconds", ofShard,
		"With enhanced fan-out, the time since something was read of the subscription, or since it was opened. -1 without one.",
		"Something comes every 5 s. After 35 s in which nothing came, a subscription is opened anew. Higher, the output is slow, and nothing is read that has no room.",
	},

	// Streams.
	{"kinesis_leases_held", gauge, "shards", ofStream, "Shards that this instance has.", ""},
	{"kinesis_client_shards", gauge, "shards", ofStream, "The same, under the name that it has in other distributions.", ""},
	{
		"kinesis_suspended_shards", gauge, "shards", ofStream,
		"Shards that this instance has and does not read, since their leases cannot be proved.",
		"The table cannot be written. The log says why.",
	},
	{
		"kinesis_unread_shards", gauge, "shards", ofStream,
		"Open shards that nobody reads, nor any shard before them; never above 0 for an input that names its shards. -1 while that is not known: without a session that is trusted, before the stream was listed, or while it is missing.",
		"Above zero for longer than a `lease_period`, something is wrong: the instances that should read them cannot claim. Their logs say why.",
	},
	{
		"kinesis_max_lag_milliseconds", gauge, "milliseconds", ofStream,
		"The largest lag of the shards that this instance has, and of those that nobody reads. -1 where there is none.",
		"See `kinesis_lag_milliseconds`.",
	},
	{
		"kinesis_retention_left_milliseconds", gauge, "milliseconds", ofStream,
		"The time until the oldest record that is not done with leaves the stream: its retention less `kinesis_max_lag_milliseconds`. 0 when it may have left; all of the retention where `kinesis_max_lag_milliseconds` is -1. -1 where the retention is not known, for which `kinesis:DescribeStreamSummary` has to be allowed.",
		"Low is bad here: at 0 records may be lost. Raise the retention of the stream, which holds for what it has already.",
	},
	{
		"kinesis_expired_shards", counter, "shards", ofStream,
		"Shards that left the stream, after its retention, before they were read to their end: records are lost. The log says which.",
		"Raise the retention of the stream.",
	},
	{
		"kinesis_handovers_given", timer, "nanoseconds", ofStream,
		"Shards handed over to another instance, each with the time from the decision to the write that made the other one the owner.",
		"It takes as long as the output needs for what is in flight, a third of `lease_period` at most.",
	},
	{
		"kinesis_handovers_taken", timer, "nanoseconds", ofStream,
		"Shards that another instance has handed over to this one, each with the time from the last change of what this one requests to the first read.", "",
	},
	{
		"kinesis_shards_stolen_total", counter, "shards", ofStream,
		"Shards that this instance has got from another one that lives, by request or, from Benthos' built-in input, by a steal. The name is that of other distributions.",
		"It grows while instances come and go, and stands still otherwise.",
	},

	{
		"kinesis_read_shards", gauge, "shards",
		[]string{labelStream, labelWay},
		"Shards that this instance has, by the way in which they are read: `polling` or `fan_out`.", "",
	},
	{
		"kinesis_subscriptions", gauge, "subscriptions", ofStream,
		"Subscriptions of enhanced fan-out that are open here, at most one a shard.",
		"Fewer than `kinesis_read_shards` with `fan_out` for longer than some seconds: they are refused or break. See `kinesis_resubscriptions` and the log.",
	},
	{
		"kinesis_resubscriptions", counter, "subscriptions",
		[]string{labelStream, labelReason},
		"Subscriptions that were opened after another one of the shard had ended, by how that ended: `ended` by Kinesis, as each is after five minutes; `broken`, with its connection; `silent` for 35 s; `taken` over by another subscription of the same consumer; `throttled` or `failed`, with an error of Kinesis.",
		"More `ended` than one in five minutes for each shard: the output is so slow that Kinesis gives up. `taken`: another group subscribes as the same consumer, give each one of its own in `enhanced_fan_out.consumer_name`. `broken`, `silent`: look at the network.",
	},

	// The input.
	{
		"kinesis_ready", gauge, "0 or 1", ofInput,
		"Whether something that may be read can be read and committed, see [Readiness](#readiness).", "",
	},
	{
		"kinesis_buffered_bytes", gauge, "bytes", ofInput, "What `max_buffered_bytes` counts.",
		"At the limit, shards are read in turn, as acknowledgements come: the output is slow, or the limit low for so many shards.",
	},
	{"kinesis_buffered_bytes_limit", gauge, "bytes", ofInput, "`max_buffered_bytes`.", ""},
	{
		"kinesis_detours", counter, "detours",
		[]string{labelReason},
		"How often reads began to go through all of the SDK for a while, for five minutes to an hour, which costs more of the processor and nothing else: of all streams after an answer about `credentials` or the clock, of one stream, or of all that are configured by name, after another answer that Kinesis does not give (`refused`), or when reads keep failing that go well through the SDK (`failed`).",
		"`credentials`: check the clock of this machine, and the credentials. Otherwise look at what stands between this machine and Kinesis, such as a proxy.",
	},
	{
		"kinesis_sessions_lost", counter, "sessions", ofInput,
		"How often the other instances took this one for dead, with all its leases.",
		"See `kinesis_leases_lost`.",
	},
	{
		"kinesis_session_trusted", gauge, "0 or 1", ofInput,
		"Whether this instance is in its group, and can prove it. While it cannot, nothing is read.",
		"At 0 the table cannot be written. The log says why.",
	},
	{
		"kinesis_table_calls", counter, "calls",
		[]string{labelOperation, labelResult},
		"Calls of DynamoDB by operation and result: `ok`, `conflict` (somebody else was faster), `throttled`, `denied` or `failed`. One is counted when the SDK has given up repeating it.", "",
	},
	{
		"kinesis_table_latency", timer, "nanoseconds",
		[]string{labelOperation},
		"How long these calls take, with the SDK's repetitions.", "",
	},
}

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
	for _, each := range metricTable {
		made.shardly[each.name] = len(each.labels) > 1 && each.labels[1] == labelShard
		if made.shardly[each.name] && !perShard {
			continue
		}
		switch each.kind {
		case gauge:
			made.gauges[each.name] = m.NewGauge(each.name, each.labels...)
		case counter:
			made.counters[each.name] = m.NewCounter(each.name, each.labels...)
		case timer:
			made.timers[each.name] = m.NewTimer(each.name, each.labels...)
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
	for _, each := range metricTable {
		if each.kind == counter && slices.Equal(each.labels, labels) && !slices.Contains(m.idle, each.name) {
			m.add(each.name, 0, values...)
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
	section := func(title string, is func(metric) bool) {
		fmt.Fprintf(&page, "#### %s\n", title)
		for _, m := range metricTable {
			if !is(m) {
				continue
			}
			fmt.Fprintf(&page, "\n- `%s` (%s, %s", m.name, m.kind, m.unit)
			if len(m.labels) > 0 {
				fmt.Fprintf(&page, "; `%s`", strings.Join(m.labels, "`, `"))
			}
			fmt.Fprintf(&page, "): %s", m.help)
			if m.advice != "" {
				fmt.Fprintf(&page, "\n  *What to do:* %s", m.advice)
			}
		}
		fmt.Fprint(&page, "\n\n")
	}
	shardly := func(m metric) bool { return len(m.labels) > 1 && m.labels[1] == labelShard }
	section("Of each shard", shardly)
	section("Of each stream", func(m metric) bool { return !shardly(m) && len(m.labels) > 0 && m.labels[0] == labelStream })
	section("Of the input", func(m metric) bool { return len(m.labels) == 0 || m.labels[0] != labelStream })
	return strings.TrimSpace(page.String())
}
