package metric

// Table has every metric.
var Table = []Metric{
	// Shards.
	{
		"kinesis_lag_milliseconds", Gauge, "milliseconds", OfShard,
		"The age of the oldest record that is not acknowledged or, where all are, the time since the shard was last known to be read to its end; until the first page, where the table does not tell how far the shard was read, the time since the claim, which may be far too little. It grows by the clock while nothing moves, whatever stands still: reading, processors, output or lease. Of an idle shard that is subscribed it is up to five seconds, the time between two events. -1 while this instance does not have the shard.",
		"Three gauges tell where it stands: `kinesis_last_read_age_milliseconds` grows when reading does, `kinesis_oldest_unacknowledged_milliseconds` when processors or output do, `kinesis_last_commit_age_milliseconds` when the table does. If none grows, there is more in the shard than the pipeline handles: add instances, raise `checkpoint_limit`, or split the shard.",
	},
	{
		"kinesis_millis_behind_latest", Gauge, "milliseconds", OfShard,
		"How far the last page lay behind the newest record, as Kinesis says it, and by enhanced fan-out for how long it had waited to be read since. -1 while that is not known: before the first page, after a read that failed, when nothing was read for ten seconds or, if that is longer, two `poll_period`s, where Kinesis does not tell, or while this instance does not have the shard.",
		"See `kinesis_lag_milliseconds`, which goes on when reading stands still.",
	},
	{
		"kinesis_shard_owned", Gauge, "0 or 1", OfShard,
		"Whether this instance has the shard. Of all instances together it is 1 in one for each shard that is read.", "",
	},
	{
		"kinesis_last_read_age_milliseconds", Gauge, "milliseconds", OfShard,
		"The time since the last read that succeeded, of an empty page too, or since the shard was claimed where there was none yet. -1 while this instance does not have the shard.",
		"With `kinesis_fetches` of results other than `ok` and `empty`: Kinesis refuses or fails. With `kinesis_suspended_shards` above 0: the lease cannot be proved. Otherwise the output is slow, and nothing is read that has no room, or the shard is closed and has been read to its end.",
	},
	{
		"kinesis_last_commit_age_milliseconds", Gauge, "milliseconds", OfShard,
		"The time since the shard's item was last written, with a new sequence or without one, or since it was claimed. -1 while this instance does not have the shard.",
		"An idle shard is written every minute by default. Far above that the table refuses or fails: see `kinesis_commits`, and the log.",
	},
	{
		"kinesis_oldest_unacknowledged_milliseconds", Gauge, "milliseconds", OfShard,
		"The age, since it arrived in the stream, of the oldest record that was read and is not acknowledged; 0 when there is none. -1 while this instance does not have the shard.",
		"If it grows as fast as the clock, records wait in a batch, in the processors or in the output: look there. High and falling, old records are being read.",
	},
	{
		"kinesis_in_flight_messages", Gauge, "messages", OfShard,
		"Messages from the oldest one that is not acknowledged on.",
		"At `checkpoint_limit` nothing more of the shard is handed on: the output is slow, or one message holds the others up.",
	},
	{"kinesis_records", Counter, "records", OfShard, "Records read.", ""},
	{
		"kinesis_bytes", Counter, "bytes", OfShard, "Their data and partition keys.",
		"A shard gives 2 MB a second to all its readers together.",
	},
	{
		"kinesis_user_records", Counter, "user records", OfShard,
		"With `deaggregate`, user records that came out of aggregated records and are delivered.", "",
	},
	{
		"kinesis_foreign_user_records", Counter, "user records", OfShard,
		"With `deaggregate`, those of them that are in the wrong shard, by their hash keys. With `deaggregate_foreign: drop` they are dropped, and with each the rest of its aggregated record.",
		"They come for some seconds after a split or merge, from producers that had not noticed it. If they keep coming, a producer goes by an old list of shards: restart it.",
	},
	{
		"kinesis_dropped_aggregates", Counter, "records", OfShard,
		"Aggregated records that were dropped whole, with `deaggregate_foreign: drop`, since a user record in them is in the wrong shard.",
		"Their user records are lost to this pipeline. `deaggregate_foreign: keep` delivers them.",
	},
	{
		"kinesis_broken_aggregates", Counter, "records", OfShard,
		"With `deaggregate`, records that begin as aggregated ones do and are none. They are delivered as they are, with the metadata `kinesis_deaggregation_error`.",
		"The metadata says what is wrong. Look at the producer that made them.",
	},
	{
		"kinesis_skipped_records", Counter, "records", OfShard,
		"With `max_record_age`, records that were older and were skipped.",
		"They are lost to this pipeline, which was away, or is too slow for all there is. The log says from when to when they had arrived.",
	},
	{
		"kinesis_fetches", Counter, "calls",
		[]string{LabelStream, LabelShard, LabelResult},
		"Reads by result: `ok`, `empty`, `throttled`, `expired` (an iterator), `denied` or `failed`. One that failed is counted when the SDK has given up repeating it, a throttled one each time.",
		"`throttled`: other readers take the shard's 5 calls and 2 MB a second, raise `poll_period`, or have them read less. `denied`, `failed`: the log says what to do.",
	},
	{
		"kinesis_commits", Counter, "writes",
		[]string{LabelStream, LabelShard, LabelResult},
		"Writes of the shard's item by result: `ok`, `throttled`, `denied` or `failed`. What was committed late is not lost, and comes again if this instance dies.",
		"`throttled`: give the table more capacity, or `billing_mode: PAY_PER_REQUEST`. `denied`, `failed`: the log says what to do.",
	},
	{
		"kinesis_rejected_messages", Counter, "messages", OfShard,
		"Messages that the output rejected and that were skipped, with `auto_replay_nacks: false`.",
		"They are lost to this pipeline. The log has the output's errors.",
	},
	{
		"kinesis_replayed_messages", Counter, "messages", OfShard,
		"Messages that the output rejected and that are handed out again. Benthos counts them in `input_received` each time.",
		"The output refuses what it gets. Its own errors tell why.",
	},
	{
		"kinesis_throttled", Counter, "calls", OfShard,
		"Reads that Kinesis refused for being too many or too much.", "See `kinesis_fetches`.",
	},
	{
		"kinesis_leases_lost", Counter, "leases", OfShard,
		"Leases that ended before they were given up. What was in flight comes again elsewhere.",
		"Where Benthos' built-in input shares the table, it steals shards, and that is no fault. Otherwise instances stop for longer than `lease_period`, or cannot reach the table: raise the period, or give them more processor time.",
	},

	{
		"kinesis_subscription_silence_milliseconds", Gauge, "milliseconds", OfShard,
		"With enhanced fan-out, the time since something was read of the subscription, or since it was opened. -1 without one.",
		"Something comes every 5 s. After 35 s in which nothing came, a subscription is opened anew. Higher, the output is slow, and nothing is read that has no room.",
	},

	// Streams.
	{"kinesis_leases_held", Gauge, "shards", OfStream, "Shards that this instance has.", ""},
	{"kinesis_client_shards", Gauge, "shards", OfStream, "The same, under the name that it has in other distributions.", ""},
	{
		"kinesis_suspended_shards", Gauge, "shards", OfStream,
		"Shards that this instance has and does not read, since their leases cannot be proved.",
		"The table cannot be written. The log says why.",
	},
	{
		"kinesis_unread_shards", Gauge, "shards", OfStream,
		"Open shards that nobody reads, nor any shard before them; never above 0 for an input that names its shards. -1 while that is not known: without a session that is trusted, before the stream was listed, or while it is missing.",
		"Above zero for longer than a `lease_period`, something is wrong: the instances that should read them cannot claim. Their logs say why.",
	},
	{
		"kinesis_max_lag_milliseconds", Gauge, "milliseconds", OfStream,
		"The largest lag of the shards that this instance has, and of those that nobody reads. -1 where there is none.",
		"See `kinesis_lag_milliseconds`.",
	},
	{
		"kinesis_retention_left_milliseconds", Gauge, "milliseconds", OfStream,
		"The time until the oldest record that is not done with leaves the stream: its retention less `kinesis_max_lag_milliseconds`. 0 when it may have left; all of the retention where `kinesis_max_lag_milliseconds` is -1. -1 where the retention is not known, for which `kinesis:DescribeStreamSummary` has to be allowed.",
		"Low is bad here: at 0 records may be lost. Raise the retention of the stream, which holds for what it has already.",
	},
	{
		"kinesis_expired_shards", Counter, "shards", OfStream,
		"Shards that left the stream, after its retention, before they were read to their end: records are lost. The log says which.",
		"Raise the retention of the stream.",
	},
	{
		"kinesis_handovers_given", Timer, "nanoseconds", OfStream,
		"Shards handed over to another instance, each with the time from the decision to the write that made the other one the owner.",
		"It takes as long as the output needs for what is in flight, a third of `lease_period` at most.",
	},
	{
		"kinesis_handovers_taken", Timer, "nanoseconds", OfStream,
		"Shards that another instance has handed over to this one, each with the time from the last change of what this one requests to the first read.", "",
	},
	{
		"kinesis_shards_stolen_total", Counter, "shards", OfStream,
		"Shards that this instance has got from another one that lives, by request or, from Benthos' built-in input, by a steal. The name is that of other distributions.",
		"It grows while instances come and go, and stands still otherwise.",
	},

	{
		"kinesis_read_shards", Gauge, "shards",
		[]string{LabelStream, LabelWay},
		"Shards that this instance has, by the way in which they are read: `polling` or `fan_out`.", "",
	},
	{
		"kinesis_subscriptions", Gauge, "subscriptions", OfStream,
		"Subscriptions of enhanced fan-out that are open here, at most one a shard.",
		"Fewer than `kinesis_read_shards` with `fan_out` for longer than some seconds: they are refused or break. See `kinesis_resubscriptions` and the log.",
	},
	{
		"kinesis_resubscriptions", Counter, "subscriptions",
		[]string{LabelStream, LabelReason},
		"Subscriptions that were opened after another one of the shard had ended, by how that ended: `ended` by Kinesis, as each is after five minutes; `broken`, with its connection; `silent` for 35 s; `taken` over by another subscription of the same consumer; `throttled` or `failed`, with an error of Kinesis.",
		"More `ended` than one in five minutes for each shard: the output is so slow that Kinesis gives up. `taken`: another group subscribes as the same consumer, give each one of its own in `enhanced_fan_out.consumer_name`. `broken`, `silent`: look at the network.",
	},

	// The input.
	{
		"kinesis_ready", Gauge, "0 or 1", OfInput,
		"Whether something that may be read can be read and committed, see [Readiness](#readiness).", "",
	},
	{
		"kinesis_buffered_bytes", Gauge, "bytes", OfInput, "What `max_buffered_bytes` counts.",
		"Whether reads wait for it says `kinesis_buffer_wait_milliseconds`: that can be so below the limit, where a page needs more than is left.",
	},
	{"kinesis_buffered_bytes_limit", Gauge, "bytes", OfInput, "`max_buffered_bytes`.", ""},
	{
		"kinesis_buffer_wait_milliseconds", Counter, "milliseconds", OfInput,
		"The time for which at least one shard has waited for room in `max_buffered_bytes`, before it is read on. It grows by a second a second while one always waits.",
		"Shards are read in turn, as acknowledgements come: the output is slow, or `max_buffered_bytes` low for so many shards.",
	},
	{
		"kinesis_detours", Counter, "detours",
		[]string{LabelReason},
		"How often reads began to go through all of the SDK for a while, for five minutes to an hour, which costs more of the processor and nothing else: of all streams after an answer about `credentials` or the clock, of one stream, or of all that are configured by name, after another answer that Kinesis does not give (`refused`), or when reads keep failing that go well through the SDK (`failed`).",
		"`credentials`: check the clock of this machine, and the credentials. Otherwise look at what stands between this machine and Kinesis, such as a proxy.",
	},
	{
		"kinesis_sessions_lost", Counter, "sessions", OfInput,
		"How often the other instances took this one for dead, with all its leases.",
		"See `kinesis_leases_lost`.",
	},
	{
		"kinesis_session_trusted", Gauge, "0 or 1", OfInput,
		"Whether this instance is in its group, and can prove it. While it cannot, nothing is read.",
		"At 0 the table cannot be written. The log says why.",
	},
	{
		"kinesis_table_calls", Counter, "calls",
		[]string{LabelOperation, LabelResult},
		"Calls of DynamoDB by operation and result: `ok`, `conflict` (somebody else was faster), `throttled`, `denied` or `failed`. One is counted when the SDK has given up repeating it.", "",
	},
	{
		"kinesis_table_latency", Timer, "nanoseconds",
		[]string{LabelOperation},
		"How long these calls take, with the SDK's repetitions.", "",
	},
}
