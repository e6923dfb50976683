package main

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// What is too old shows in the counter and in the log, and does not come after a restart.
func TestOldRecordsAreSkippedAndCounted(t *testing.T) {
	r := newRig(t)
	require.NoError(t, r.aws.CreateStream("orders", 2))
	r.aws.SetClockOffset(-time.Hour)
	r.put("orders", 0, 40)
	r.aws.SetClockOffset(0)
	want := r.put("orders", 40, 10)
	address := r.address()
	conf := r.write("a.yaml", served(address, "a", "max_record_age: 10m"))
	p := r.start("-c", conf)
	p.awaitLines("a", want)
	r.await("the counter", func() bool {
		answer, ok := p.request("GET", "http://"+address+"/metrics", "")
		return ok && sum(t, answer, "kinesis_skipped_records") == 40
	})
	r.await("a line about it", func() bool {
		return strings.Contains(p.log.String(), "2 shards of stream orders have records older than 10m0s, which are skipped and lost to this pipeline, as `max_record_age` says: ")
	})
	p.stop()
	require.Contains(t, p.log.String(), "2 shards of stream orders had old records skipped, see `kinesis_skipped_records`; that is over")

	p = r.start("-c", conf)
	want = append(want, r.put("orders", 50, 10)...)
	p.awaitLines("a", want)
	answer := p.must("GET", "http://"+address+"/metrics", "")
	require.Contains(t, answer, "kinesis_skipped_records{", "it begins at 0")
	require.Zero(t, sum(t, answer, "kinesis_skipped_records"))

	p.stop()
	p = r.start("-c", r.write("a.yaml", served(address, "a")))
	r.await("metrics of the shards", func() bool {
		answer, ok := p.request("GET", "http://"+address+"/metrics", "")
		return ok && strings.Contains(answer, "kinesis_records{")
	})
	require.NotContains(t, p.must("GET", "http://"+address+"/metrics", ""), "kinesis_skipped_records{", "nothing is to count")
}
