package dashboard

// leftOut are the metrics that no panel shows, each with the reason.
var leftOut = map[string]string{
	"kinesis_client_shards": "it is kinesis_leases_held under the name of other distributions",
	"kinesis_throttled":     "it is kinesis_fetches of the result throttled",
}

// Legends.
const (
	ofShard    = "{{kinesis_stream}} {{kinesis_shard}}"
	ofStream   = "{{kinesis_stream}}"
	ofInstance = "{{instance}} {{label}}"
)

// oldest is the largest value of a gauge that only the owner of a shard knows.
func oldest(name string) []query {
	return []query{{"max by (kinesis_stream, kinesis_shard) (" + name + "{@} >= 0)", ofShard}}
}

// each is how fast a counter grows, summed by labels, in units a second.
func each(name, by, legend string) query {
	return query{"sum by (" + by + ") (rate(" + name + "{@}[$__rate_interval]))", legend}
}

// took is how long a timer says that something took on average, in nanoseconds. A mean can
// be taken over instances, unlike the quantiles of a summary.
func took(name, by, legend string) query {
	return query{"sum by (" + by + ") (rate(" + name + "_sum{@}[$__rate_interval])) / (sum by (" + by + ") (rate(" + name + "_count{@}[$__rate_interval])) > 0)", legend}
}

// during is how much a counter has grown in the span that is shown around each point.
func during(name, by, legend string) query {
	return query{"sum by (" + by + ") (increase(" + name + "{@}[$__rate_interval]))", legend}
}

var rows = []row{
	{"Overview", []panel{
		{title: "Inputs that are ready", kind: kindStat, width: 4, queries: []query{
			{"sum(kinesis_ready{@})", "ready"},
			{"count(kinesis_ready{@})", "all"},
		}},
		{title: "Shards that are read", kind: kindStat, width: 4, queries: []query{{"sum(kinesis_leases_held{@})", "shards"}}},
		{title: "Shards that nobody reads", kind: kindStat, width: 4, queries: []query{{"max by (kinesis_stream) (kinesis_unread_shards{@} >= 0)", ofStream}}},
		{title: "Largest lag", kind: kindStat, unit: "ms", width: 4, queries: []query{{"max by (kinesis_stream) (kinesis_max_lag_milliseconds{@} >= 0)", ofStream}}},
		{title: "Retention left", kind: kindStat, unit: "ms", width: 4, queries: []query{{"min by (kinesis_stream) (kinesis_retention_left_milliseconds{@} >= 0)", ofStream}}},
		{title: "Records lost with their shards", kind: kindStat, width: 4, queries: []query{{"max by (kinesis_stream) (increase(kinesis_expired_shards{@}[$__range]))", ofStream}}},
	}},
	{"Lag", []panel{
		{title: "Lag of each shard", unit: "ms", width: 12, queries: oldest("kinesis_lag_milliseconds")},
		{title: "Shards that each instance reads", unit: "short", width: 12, queries: []query{{"kinesis_leases_held{@}", "{{instance}} {{label}} {{kinesis_stream}}"}}},
		{title: "Age of the oldest record that is read and not acknowledged", unit: "ms", queries: oldest("kinesis_oldest_unacknowledged_milliseconds")},
		{title: "Time since the last read", unit: "ms", queries: oldest("kinesis_last_read_age_milliseconds")},
		{title: "Time since the last commit", unit: "ms", queries: oldest("kinesis_last_commit_age_milliseconds")},
		{title: "Behind the newest record, by Kinesis", unit: "ms", width: 6, queries: oldest("kinesis_millis_behind_latest")},
		{title: "Messages in flight", unit: "short", width: 6, queries: []query{{"max by (kinesis_stream, kinesis_shard) (kinesis_in_flight_messages{@})", ofShard}}},
		{title: "Memory for records", unit: "bytes", width: 6, queries: []query{
			{"kinesis_buffered_bytes{@}", ofInstance},
			{"max(kinesis_buffered_bytes_limit{@})", "limit"},
		}},
		{title: "Part of the time for which shards wait for memory", unit: "percentunit", width: 6, queries: []query{{"rate(kinesis_buffer_wait_milliseconds{@}[$__rate_interval]) / 1000", ofInstance}}},
	}},
	{"Reading", []panel{
		{title: "Records a second", unit: "cps", queries: []query{each("kinesis_records", "kinesis_stream, kinesis_shard", ofShard)}},
		{title: "Bytes a second", unit: "Bps", queries: []query{each("kinesis_bytes", "kinesis_stream, kinesis_shard", ofShard)}},
		{title: "Reads a second by result", unit: "reqps", queries: []query{each("kinesis_fetches", "kinesis_stream, result", "{{kinesis_stream}} {{result}}")}},
		{title: "Who reads each shard", kind: kindTable, width: 12, queries: []query{{"max by (kinesis_stream, kinesis_shard, instance) (kinesis_shard_owned{@} == 1)", ""}}},
		{title: "Detours through the SDK", unit: "short", width: 12, queries: []query{during("kinesis_detours", "instance, reason", "{{instance}} {{reason}}")}},
	}},
	{"Group and table", []panel{
		{title: "Sessions that are trusted", unit: "short", queries: []query{{"kinesis_session_trusted{@}", ofInstance}}},
		{title: "Shards whose leases cannot be proved", unit: "short", queries: []query{{"kinesis_suspended_shards{@}", "{{instance}} {{kinesis_stream}}"}}},
		{title: "Leases and sessions lost", unit: "short", queries: []query{
			during("kinesis_leases_lost", "kinesis_stream", "leases of {{kinesis_stream}}"),
			during("kinesis_sessions_lost", "instance", "sessions of {{instance}}"),
		}},
		{title: "Shards that changed hands", unit: "short", queries: []query{
			during("kinesis_handovers_given_count", "kinesis_stream", "{{kinesis_stream}} given"),
			during("kinesis_handovers_taken_count", "kinesis_stream", "{{kinesis_stream}} taken"),
			during("kinesis_shards_stolen_total", "kinesis_stream", "{{kinesis_stream}} from a living instance"),
		}},
		{title: "Time that a hand-over takes", unit: "ns", queries: []query{
			took("kinesis_handovers_given", "kinesis_stream", "{{kinesis_stream}} given"),
			took("kinesis_handovers_taken", "kinesis_stream", "{{kinesis_stream}} taken"),
		}},
		{title: "Commits a second by result", unit: "reqps", queries: []query{each("kinesis_commits", "kinesis_stream, result", "{{kinesis_stream}} {{result}}")}},
		{title: "Calls of the table by result", unit: "reqps", width: 12, queries: []query{each("kinesis_table_calls", "operation, result", "{{operation}} {{result}}")}},
		{title: "Time that a call of the table takes", unit: "ns", width: 12, queries: []query{took("kinesis_table_latency", "operation", "{{operation}}")}},
	}},
	{"Enhanced fan-out", []panel{
		{title: "Shards by the way in which they are read", unit: "short", width: 6, queries: []query{
			{"sum by (kinesis_stream, way) (kinesis_read_shards{@})", "{{kinesis_stream}} {{way}}"},
			{"sum by (kinesis_stream) (kinesis_subscriptions{@})", "{{kinesis_stream}} subscriptions"},
		}},
		{title: "Silence of each subscription", unit: "ms", width: 9, queries: oldest("kinesis_subscription_silence_milliseconds")},
		{title: "Subscriptions opened anew, by how the last one ended", unit: "short", width: 9, queries: []query{during("kinesis_resubscriptions", "kinesis_stream, reason", "{{kinesis_stream}} {{reason}}")}},
	}},
	{"What does not arrive, and what comes again", []panel{
		{title: "Messages that the output rejected", unit: "short", queries: []query{
			during("kinesis_rejected_messages", "kinesis_stream", "{{kinesis_stream}} skipped"),
			during("kinesis_replayed_messages", "kinesis_stream", "{{kinesis_stream}} replayed"),
		}},
		{title: "Records skipped for their age", unit: "short", queries: []query{during("kinesis_skipped_records", "kinesis_stream", ofStream)}},
		{title: "Aggregated records", unit: "short", queries: []query{
			during("kinesis_user_records", "kinesis_stream", "{{kinesis_stream}} user records"),
			during("kinesis_foreign_user_records", "kinesis_stream", "{{kinesis_stream}} in the wrong shard"),
			during("kinesis_dropped_aggregates", "kinesis_stream", "{{kinesis_stream}} dropped"),
			during("kinesis_broken_aggregates", "kinesis_stream", "{{kinesis_stream}} broken"),
		}},
	}},
}
