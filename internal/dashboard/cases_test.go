package dashboard

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// ruleCase are series of values a minute, in promtool's notation, with which an alert does
// not fire at one minute and does at a later one, and no other does at either.
type ruleCase struct {
	alert         string
	silent, fires int
	series        map[string]string
}

// Labels of the series: of an input, one of its streams, one of its shards.
const (
	anInput     = `job="orders",instance="a:1",label="",path="root.input"`
	aStream     = anInput + `,kinesis_stream="orders"`
	aShard      = aStream + `,kinesis_shard="shardId-000000000000"`
	secondShard = `job="orders",instance="b:1",label="",path="root.input",kinesis_stream="orders",kinesis_shard="shardId-000000000000"`
)

// healthy are series with which no alert fires: what is not known is -1, a shard changes
// hands, lag comes and goes, and calls fail now and then.
var healthy = map[string]string{
	"kinesis_ready{" + anInput + "}":                                           "1+0x120",
	"kinesis_unread_shards{" + aStream + "}":                                   "-1 -1 4 0+0x40 1 0+0x80",
	"kinesis_max_lag_milliseconds{" + aStream + "}":                            "-1+0x5 1200000 1200000 1200000 800+0x120",
	"kinesis_lag_milliseconds{" + aShard + "}":                                 "500+0x30 400000 100+0x30 -1+0x60",
	"kinesis_lag_milliseconds{" + secondShard + "}":                            "-1+0x61 300+0x60",
	"kinesis_retention_left_milliseconds{" + aStream + "}":                     "-1+0x30 86400000+0x90",
	"kinesis_expired_shards{" + aStream + "}":                                  "0+0x120",
	"kinesis_oldest_unacknowledged_milliseconds{" + aShard + "}":               "-1+0x30 72000000-600000x60 0+0x30", // old records are read
	"kinesis_fetches{" + aShard + `,result="ok"}`:                              "0+300x120",
	"kinesis_fetches{" + aShard + `,result="failed"}`:                          "0+10x120",
	"kinesis_fetches{" + aShard + `,result="throttled"}`:                       "0+30x120",
	"kinesis_commits{" + aShard + `,result="ok"}`:                              "0+12x120",
	"kinesis_commits{" + aShard + `,result="failed"}`:                          "0+1x120",
	"kinesis_table_calls{" + anInput + `,operation="Query",result="ok"}`:       "0+30x120",
	"kinesis_table_calls{" + anInput + `,operation="Query",result="conflict"}`: "0+30x120",
	"kinesis_table_calls{" + anInput + `,operation="Query",result="failed"}`:   "0+1x120",
	"kinesis_leases_lost{" + aShard + "}":                                      "0+0x60 1+0x60",
	"kinesis_sessions_lost{" + anInput + "}":                                   "0+0x120",
	"kinesis_buffer_wait_milliseconds{" + anInput + "}":                        "0+60000x14 840000+20000x106", // a backlog of a quarter of an hour
	"kinesis_read_shards{" + aStream + `,way="fan_out"}`:                       "4+0x120",
	"kinesis_subscriptions{" + aStream + "}":                                   "0 2 4+0x60 3 4+0x60",
	"kinesis_resubscriptions{" + aStream + `,reason="ended"}`:                  "0+1x120",
	"kinesis_resubscriptions{" + aStream + `,reason="broken"}`:                 "0+0x30 8+0x90",
	"kinesis_replayed_messages{" + aShard + "}":                                "0+0x30 1+0x90",
	"kinesis_rejected_messages{" + aShard + "}":                                "0+0x120",
	"kinesis_skipped_records{" + aShard + "}":                                  "0+0x120",
	"kinesis_dropped_aggregates{" + aShard + "}":                               "0+0x120",
	"kinesis_broken_aggregates{" + aShard + "}":                                "0+0x120",
}

// with is the healthy series with others in their place.
func with(pairs ...string) map[string]string {
	changed := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		changed[pairs[i]] = pairs[i+1]
	}
	return changed
}

var ruleCases = []ruleCase{
	{alert: "KinesisInputNotReady", silent: 31, fires: 33, series: with("kinesis_ready{"+anInput+"}", "1+0x29 0+0x90")},
	{alert: "KinesisMetricsGone", silent: 43, fires: 46, series: with("kinesis_ready{"+anInput+"}", "1+0x40 stale")},
	{alert: "KinesisShardUnread", silent: 31, fires: 33, series: with("kinesis_unread_shards{"+aStream+"}", "0+0x29 3+0x90")},
	{alert: "KinesisLagHigh", silent: 34, fires: 36, series: with("kinesis_max_lag_milliseconds{"+aStream+"}", "0+0x29 900001+0x90")},
	{
		// It goes on where another instance takes the shard over.
		alert: "KinesisShardLagGrows", silent: 43, fires: 46,
		series: with("kinesis_lag_milliseconds{"+aShard+"}", "0+0x29 60000+60000x9 -1+0x90", "kinesis_lag_milliseconds{"+secondShard+"}", "-1+0x39 660000+60000x90"),
	},
	{alert: "KinesisRetentionInDanger", silent: 34, fires: 36, series: with("kinesis_retention_left_milliseconds{"+aStream+"}", "-1+0x29 14399999+0x90")},
	{alert: "KinesisShardsExpired", silent: 30, fires: 31, series: with("kinesis_expired_shards{"+aStream+"}", "0+0x30 1+0x90")},
	{alert: "KinesisOutputStuck", silent: 42, fires: 46, series: with("kinesis_oldest_unacknowledged_milliseconds{"+aShard+"}", "0+0x29 0+60000x90")},
	{
		alert: "KinesisReadsFail", silent: 39, fires: 47,
		series: with("kinesis_fetches{"+aShard+`,result="ok"}`, "0+300x29 8700+0x90", "kinesis_fetches{"+aShard+`,result="throttled"}`, "0+30x29 870+0x90", "kinesis_fetches{"+aShard+`,result="failed"}`, "0+0x30 1+1x90"),
	},
	{
		alert: "KinesisReadsThrottled", silent: 44, fires: 58,
		series: with("kinesis_fetches{"+aShard+`,result="throttled"}`, "0+0x29 0+150x90"),
	},
	{
		alert: "KinesisCommitsFail", silent: 39, fires: 45,
		series: with("kinesis_commits{"+aShard+`,result="ok"}`, "0+12x29 348+0x90", "kinesis_commits{"+aShard+`,result="denied"}`, "0+0x29 0+1x90"),
	},
	{
		alert: "KinesisTableFails", silent: 40, fires: 52,
		series: with("kinesis_table_calls{"+anInput+`,operation="Query",result="throttled"}`, "0+0x29 0+10x90"),
	},
	{alert: "KinesisLeasesLost", silent: 62, fires: 72, series: with("kinesis_leases_lost{"+aShard+"}", "0+0x60 1+0x9 2+0x60")},
	{alert: "KinesisSessionsLost", silent: 30, fires: 31, series: with("kinesis_sessions_lost{"+anInput+"}", "0+0x30 1+0x90")},
	{alert: "KinesisBudgetExhausted", silent: 44, fires: 55, series: with("kinesis_buffer_wait_milliseconds{"+anInput+"}", "0+20000x29 580000+60000x90")},
	{alert: "KinesisSubscriptionsMissing", silent: 34, fires: 36, series: with("kinesis_subscriptions{"+aStream+"}", "4+0x29 3+0x90")},
	{alert: "KinesisSubscriptionsBreak", silent: 31, fires: 50, series: with("kinesis_resubscriptions{"+aStream+`,reason="taken"}`, "0+0x29 0+4x90")},
	{alert: "KinesisMessagesReplayed", silent: 44, fires: 48, series: with("kinesis_replayed_messages{"+aShard+"}", "0+0x29 0+1x90")},
	{alert: "KinesisMessagesRejected", silent: 29, fires: 32, series: with("kinesis_rejected_messages{"+aShard+"}", "0+0x30 1+0x90")},
	{alert: "KinesisRecordsSkipped", silent: 29, fires: 32, series: with("kinesis_skipped_records{"+aShard+"}", "0+0x30 1+0x90")},
	{alert: "KinesisAggregatesDropped", silent: 29, fires: 32, series: with("kinesis_dropped_aggregates{"+aShard+"}", "0+0x30 1+0x90")},
	{alert: "KinesisAggregatesBroken", silent: 29, fires: 32, series: with("kinesis_broken_aggregates{"+aShard+"}", "0+0x30 1+0x90")},
}

func TestEachAlertHasACase(t *testing.T) {
	cases := map[string]int{}
	for _, c := range ruleCases {
		cases[c.alert]++
		require.Less(t, c.silent, c.fires, c.alert)
		for series := range c.series {
			name, _, labelled := strings.Cut(series, "{")
			require.True(t, labelled, series)
			require.NotPanics(t, func() { find(name) }, series)
		}
	}
	for _, a := range alerts {
		require.Equal(t, 1, cases[a.name], "%s: one case in ruleCases", a.name)
	}
	require.Len(t, ruleCases, len(alerts))
}
