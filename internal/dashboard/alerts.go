package dashboard

import "time"

// alert is a rule. In its expression @input, @stream and @shard stand for the labels of
// one input, one of its streams and one of its shards, whichever instance has it; <5m>
// for a duration, and <5m ms> and <5m s> for the number of its milliseconds or seconds.
type alert struct {
	name     string
	severity string
	expr     string
	hold     time.Duration // how long it has to hold
	summary  string
	means    string
	// remedy is the metric whose advice is given, and further what to do beside it.
	remedy, further string
}

// Severities: somebody is woken, or looks at it the next day.
const (
	page    = "page"
	warning = "warning"
)

var alerts = []alert{
	{
		name: "KinesisInputNotReady", severity: page, hold: 2 * time.Minute,
		expr:    `kinesis_ready == 0`,
		summary: "An instance of {{ $labels.job }} reads nothing",
		means:   "{{ $labels.instance }} can read or commit nothing that it may read.",
		further: "Its log says what fails, and what to do about it.",
	},
	{
		name: "KinesisMetricsGone", severity: page, hold: 5 * time.Minute,
		expr: `(
  group by (job) (last_over_time(kinesis_ready[<1h>]))
  unless group by (job) (kinesis_ready)
)
or absent_over_time(kinesis_ready[<1h>])`,
		summary: "No instance of {{ $labels.job }} tells anything",
		means:   "Prometheus gets no metrics of the input from any instance: none runs, none can be scraped, or their configuration has no `metrics`.",
		further: "Look whether the processes run, and at the targets of Prometheus.",
	},
	{
		name: "KinesisShardUnread", severity: page, hold: 2 * time.Minute,
		expr:    `max by (@stream) (kinesis_unread_shards) > 0`,
		summary: "{{ $value }} shards of {{ $labels.kinesis_stream }} are read by nobody",
		means:   "Open shards of {{ $labels.kinesis_stream }} are free, and no instance of {{ $labels.job }} reads them.",
		remedy:  "kinesis_unread_shards",
	},
	{
		name: "KinesisLagHigh", severity: page, hold: 5 * time.Minute,
		expr:    `max by (@stream) (kinesis_max_lag_milliseconds) / 1000 > <15m s>`,
		summary: "{{ $labels.kinesis_stream }} is read too late",
		means:   "The oldest record of {{ $labels.kinesis_stream }} that is not acknowledged is {{ $value | humanizeDuration }} old.",
		remedy:  "kinesis_lag_milliseconds",
	},
	{
		name: "KinesisShardLagGrows", severity: page, hold: 10 * time.Minute,
		expr: `max by (@shard) (kinesis_lag_milliseconds) / 1000 > <5m s>
and
max by (@shard) (kinesis_lag_milliseconds) > (max by (@shard) (kinesis_lag_milliseconds offset <5m>) >= 0)`,
		summary: "The lag of {{ $labels.kinesis_shard }} of {{ $labels.kinesis_stream }} grows",
		means:   "Shard {{ $labels.kinesis_shard }} of {{ $labels.kinesis_stream }} is {{ $value | humanizeDuration }} behind, and falls further behind.",
		remedy:  "kinesis_lag_milliseconds",
	},
	{
		name: "KinesisRetentionInDanger", severity: page, hold: 5 * time.Minute,
		expr:    `min by (@stream) (kinesis_retention_left_milliseconds >= 0) / 1000 < 4 * 60 * 60`,
		summary: "Records of {{ $labels.kinesis_stream }} will be lost",
		means:   "In {{ $value | humanizeDuration }} the oldest record of {{ $labels.kinesis_stream }} that is not done with leaves the stream.",
		remedy:  "kinesis_retention_left_milliseconds",
	},
	{
		name: "KinesisShardsExpired", severity: page,
		expr:    `max by (@stream) (increase(kinesis_expired_shards[<1h>])) > 0`,
		summary: "Records of {{ $labels.kinesis_stream }} are lost",
		means:   "Shards of {{ $labels.kinesis_stream }} left the stream in the last hour before they were read to their end.",
		remedy:  "kinesis_expired_shards", further: "The log says which shards, and between which sequence numbers.",
	},
	{
		name: "KinesisOutputStuck", severity: page, hold: 10 * time.Minute,
		expr: `max by (@shard) (kinesis_oldest_unacknowledged_milliseconds)
- (max by (@shard) (kinesis_oldest_unacknowledged_milliseconds offset <5m>) >= 0)
> <3m ms>`,
		summary: "Nothing of {{ $labels.kinesis_shard }} of {{ $labels.kinesis_stream }} is acknowledged",
		means:   "The oldest record of shard {{ $labels.kinesis_shard }} of {{ $labels.kinesis_stream }} that was read has waited for its acknowledgement for minutes.",
		remedy:  "kinesis_oldest_unacknowledged_milliseconds",
	},
	{
		name: "KinesisReadsFail", severity: page, hold: 5 * time.Minute,
		expr: `sum by (@shard) (rate(kinesis_fetches{result=~"denied|expired|failed"}[<10m>]))
> 0.5 * sum by (@shard) (rate(kinesis_fetches[<10m>]))`,
		summary: "{{ $labels.kinesis_shard }} of {{ $labels.kinesis_stream }} cannot be read",
		means:   "Most reads of shard {{ $labels.kinesis_shard }} of {{ $labels.kinesis_stream }} are refused or fail.",
		remedy:  "kinesis_fetches",
	},
	{
		name: "KinesisReadsThrottled", severity: warning, hold: 15 * time.Minute,
		expr: `sum by (@shard) (rate(kinesis_fetches{result="throttled"}[<10m>]))
> 0.2 * sum by (@shard) (rate(kinesis_fetches[<10m>]))`,
		summary: "Reads of {{ $labels.kinesis_shard }} of {{ $labels.kinesis_stream }} are throttled",
		means:   "More than a fifth of the reads of shard {{ $labels.kinesis_shard }} of {{ $labels.kinesis_stream }} are throttled.",
		remedy:  "kinesis_fetches",
	},
	{
		name: "KinesisCommitsFail", severity: page, hold: 5 * time.Minute,
		expr: `sum by (@shard) (rate(kinesis_commits{result!="ok"}[<10m>]))
> 0.5 * sum by (@shard) (rate(kinesis_commits[<10m>]))`,
		summary: "Positions in {{ $labels.kinesis_shard }} of {{ $labels.kinesis_stream }} are not stored",
		means:   "Most writes of the item of shard {{ $labels.kinesis_shard }} of {{ $labels.kinesis_stream }} are refused or fail. What was read since comes again when the instance ends.",
		remedy:  "kinesis_commits",
	},
	{
		name: "KinesisTableFails", severity: warning, hold: 10 * time.Minute,
		expr: `sum by (@input, operation) (rate(kinesis_table_calls{result=~"denied|failed|throttled"}[<10m>]))
> 0.1 * sum by (@input, operation) (rate(kinesis_table_calls[<10m>]))`,
		summary: "DynamoDB refuses {{ $labels.operation }} for {{ $labels.job }}",
		means:   "More than a tenth of the calls of {{ $labels.operation }} are denied, throttled or fail.",
		remedy:  "kinesis_commits",
	},
	{
		name: "KinesisLeasesLost", severity: warning,
		expr:    `max by (@stream) (sum by (@shard) (increase(kinesis_leases_lost[<30m>]))) > 1.5`,
		summary: "Leases of {{ $labels.kinesis_stream }} are lost again and again",
		means:   "The lease of a shard of {{ $labels.kinesis_stream }} was lost more than once in half an hour. Each time, what was in flight comes again.",
		remedy:  "kinesis_leases_lost",
	},
	{
		name: "KinesisSessionsLost", severity: warning,
		expr:    `sum by (@input) (increase(kinesis_sessions_lost[<30m>])) > 0`,
		summary: "An instance of {{ $labels.job }} was evicted",
		means:   "The other instances took one for dead that lives, with all its leases.",
		remedy:  "kinesis_leases_lost",
	},
	{
		name: "KinesisBudgetExhausted", severity: warning, hold: 15 * time.Minute,
		expr:    `rate(kinesis_buffer_wait_milliseconds[<5m>]) > 500`,
		summary: "Shards of {{ $labels.instance }} wait for memory",
		means:   "For more than half of the time some shard of {{ $labels.instance }} waits for room in `max_buffered_bytes`.",
		remedy:  "kinesis_buffer_wait_milliseconds",
	},
	{
		name: "KinesisSubscriptionsMissing", severity: warning, hold: 5 * time.Minute,
		expr: `sum by (@stream) (kinesis_read_shards{way="fan_out"})
> sum by (@stream) (kinesis_subscriptions)`,
		summary: "Shards of {{ $labels.kinesis_stream }} have no subscription",
		means:   "More shards of {{ $labels.kinesis_stream }} are to be read by enhanced fan-out than have a subscription: the consumer cannot be registered, or subscriptions are refused.",
		remedy:  "kinesis_subscriptions",
	},
	{
		name: "KinesisSubscriptionsBreak", severity: warning, hold: 5 * time.Minute,
		expr: `sum by (@stream, reason) (increase(kinesis_resubscriptions{reason!="ended"}[<30m>]))
> on (@stream) group_left ()
3 * sum by (@stream) (kinesis_read_shards{way="fan_out"})`,
		summary: "Subscriptions to {{ $labels.kinesis_stream }} break again and again",
		means:   "In half an hour each subscription to {{ $labels.kinesis_stream }} has ended more than three times ({{ $labels.reason }}).",
		remedy:  "kinesis_resubscriptions",
	},
	{
		name: "KinesisMessagesReplayed", severity: warning, hold: 15 * time.Minute,
		expr:    `sum by (@stream) (rate(kinesis_replayed_messages[<5m>])) > 0`,
		summary: "The output rejects messages of {{ $labels.kinesis_stream }}",
		means:   "Messages of {{ $labels.kinesis_stream }} are rejected by the output, and come again, for a quarter of an hour.",
		remedy:  "kinesis_replayed_messages",
	},
	{
		name: "KinesisMessagesRejected", severity: warning,
		expr:    `sum by (@stream) (increase(kinesis_rejected_messages[<15m>])) > 0`,
		summary: "Messages of {{ $labels.kinesis_stream }} are skipped",
		means:   "The output rejected messages of {{ $labels.kinesis_stream }}, and `auto_replay_nacks` is false.",
		remedy:  "kinesis_rejected_messages",
	},
	{
		name: "KinesisRecordsSkipped", severity: warning,
		expr:    `sum by (@stream) (increase(kinesis_skipped_records[<15m>])) > 0`,
		summary: "Records of {{ $labels.kinesis_stream }} are skipped for their age",
		means:   "Records of {{ $labels.kinesis_stream }} are older than `max_record_age`.",
		remedy:  "kinesis_skipped_records",
	},
	{
		name: "KinesisAggregatesDropped", severity: warning,
		expr:    `sum by (@stream) (increase(kinesis_dropped_aggregates[<15m>])) > 0`,
		summary: "Aggregated records of {{ $labels.kinesis_stream }} are dropped",
		means:   "Aggregated records of {{ $labels.kinesis_stream }} have user records that are in the wrong shard, and `deaggregate_foreign` is `drop`.",
		remedy:  "kinesis_dropped_aggregates",
	},
	{
		name: "KinesisAggregatesBroken", severity: warning,
		expr:    `sum by (@stream) (increase(kinesis_broken_aggregates[<15m>])) > 0`,
		summary: "Aggregated records of {{ $labels.kinesis_stream }} are broken",
		means:   "Records of {{ $labels.kinesis_stream }} begin as aggregated ones do and are none.",
		remedy:  "kinesis_broken_aggregates",
	},
}
