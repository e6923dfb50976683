package main

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
)

func TestPercentileIsTheNearestRank(t *testing.T) {
	var times []time.Duration
	for i := range 200 {
		times = append(times, time.Duration(i+1))
	}
	require.Equal(t, time.Duration(100), percentile(times, 50))
	require.Equal(t, time.Duration(198), percentile(times, 99))
	require.Equal(t, time.Duration(200), percentile(times, 100))
	require.Equal(t, time.Duration(1), percentile(times, 0))
	require.Equal(t, time.Duration(1), percentile(times[:1], 99))
	require.Zero(t, percentile(nil, 99))
}

func TestSpreadSortsWhatItGets(t *testing.T) {
	require.Equal(t, "2.0 / 3.0 / 3.0", spread([]time.Duration{3 * time.Millisecond, time.Millisecond, 2 * time.Millisecond}))
	require.Equal(t, "none", spread(nil))
}

func TestHandOversGoToTheOldestRecordsOfTheirShard(t *testing.T) {
	f := &feed{coming: map[string][]int{"a": {0, 2}, "b": {1}}, fed: make([]fedRecord, 3)}
	f.handed(awsfake.Subscription{Shard: "a"}, time.Unix(0, 7), 1)
	f.handed(awsfake.Subscription{Shard: "b"}, time.Unix(0, 8), 1)
	f.handed(awsfake.Subscription{Shard: "a"}, time.Unix(0, 9), 2) // one of them again
	require.Equal(t, []fedRecord{{handed: 7}, {handed: 8}, {handed: 9}}, f.fed)
	_, frames, extra := f.count()
	require.Equal(t, 3, frames)
	require.Equal(t, 1, extra)
}

func TestLatenciesAreSortedByWhenARecordWasPut(t *testing.T) {
	l := latencies{from: time.Unix(10, 0), splitFrom: time.Unix(20, 0), splitTo: time.Unix(30, 0)}
	for second := range 40 {
		put := time.Unix(int64(second), 1).UnixNano()
		l.take(fedRecord{put: put, handed: put + 2}, put+5)
	}
	require.Len(t, l.split.whole, 10)
	require.Len(t, l.steady.whole, 20)
	require.Equal(t, []time.Duration{5, 2, 3}, []time.Duration{l.steady.whole[0], l.steady.service[0], l.steady.own[0]})
}

func TestRecordThatWasNotPushedHasNoDelayOfTheService(t *testing.T) {
	var d delays
	d.take(fedRecord{put: 1}, 4)
	require.Len(t, d.whole, 1)
	require.Empty(t, d.service)
	require.Empty(t, d.own)
}

func TestLineOfTheOutputHasNumberAndTime(t *testing.T) {
	a, err := parseArrival("000000000042 1700000000000000000")
	require.NoError(t, err)
	require.Equal(t, arrival{42, 1700000000000000000}, a)
	for _, line := range []string{"", "42", "x 1", "1 x"} {
		_, err := parseArrival(line)
		require.Error(t, err, line)
	}
}

func TestConnectionsAreCountedByPortStateAndOwner(t *testing.T) {
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:A000 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 11 1 0 20 4 30 10 -1
   1: 0100007F:A001 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 12 1 0 20 4 30 10 -1
   2: 0100007F:A002 0100007F:1F90 06 00000000:00000000 00:00000000 00000000     0        0 11 1 0 20 4 30 10 -1
   3: 0100007F:1F90 0100007F:A000 01 00000000:00000000 00:00000000 00000000     0        0 11 1 0 20 4 30 10 -1
`
	n, err := countConnections(strings.NewReader(table), map[string]bool{"11": true}, "8080")
	require.NoError(t, err)
	require.Equal(t, 1, n)
}

func TestMoneyIsByShardHourAndByGB(t *testing.T) {
	require.InDelta(t, 4*0.015, hourly(4, 0), 1e-12)
	require.InDelta(t, 0.015+0.013, hourly(1, float64(1<<30)/3600), 1e-12)
}

func TestOwnersCountChangesOfShardsAlone(t *testing.T) {
	var o owners
	item := func(owner string) awsfake.Item { return awsfake.Item{"ClientID": awsfake.String(owner)} }
	shard := awsfake.Item{"ShardID": awsfake.String("shardId-0")}
	o.write(awsfake.Write{Key: shard, Before: item("a"), After: item("a")})
	require.Zero(t, o.count())
	o.write(awsfake.Write{Key: shard, Before: item("a"), After: item("b")})
	require.Equal(t, 1, o.count())
}
