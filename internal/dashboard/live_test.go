//go:build prometheus

package dashboard

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
	"github.com/benthos-plugins/aws-kinesis/internal/kpl"
	"github.com/benthos-plugins/aws-kinesis/internal/kpl/kpltest"
)

var (
	program = flag.String("benthos", "../../bin/benthos-kinesis", "the distribution to run")
	picture = flag.String("picture", "", "a PNG to draw of the dashboard; needs gnuplot")
)

const (
	// scale makes a minute of a rule a second.
	scale = 1.0 / 60
	// scrapeEvery is the time between two scrapes, and between two evaluations.
	scrapeEvery = 500 * time.Millisecond
	// patience is far longer than anything takes on a busy machine.
	patience = 2 * time.Minute
	// again is the time between two looks at what is waited for.
	again = 200 * time.Millisecond
)

// Jobs of Prometheus: a group of two processes, of which each polls one stream and is
// pushed another, and one process with a pipeline for each fault.
const (
	jobGroup  = "orders"
	jobFaults = "faults"
)

// rig is a local AWS, the processes that read it, and the Prometheus that scrapes them.
type rig struct {
	*testing.T
	aws        *awsfake.Server
	url, dir   string
	prometheus string
	began      time.Time
	feeding    sync.WaitGroup
}

func newRig(t *testing.T) *rig {
	server := awsfake.New(awsfake.Options{EnforceLimits: true})
	t.Cleanup(func() { require.NoError(t, server.Close()) })
	at, err := server.Listen()
	require.NoError(t, err)
	r := &rig{T: t, aws: server, url: at, dir: t.TempDir(), began: time.Now()}
	t.Cleanup(r.feeding.Wait)
	return r
}

func (r *rig) write(name, content string) string {
	r.Helper()
	path := filepath.Join(r.dir, name)
	require.NoError(r, os.WriteFile(path, []byte(content), 0o600))
	return path
}

func (r *rig) address() string {
	r.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(r, err)
	require.NoError(r, l.Close())
	return l.Addr().String()
}

// start runs a program until the end of the test, or until it is told to end.
func (r *rig) start(program string, args ...string) (tell func(os.Signal)) {
	r.Helper()
	var log bytes.Buffer
	cmd := exec.CommandContext(r.Context(), program, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = r.dir, &log, &log
	cmd.Env = append(os.Environ(), "AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test")
	require.NoError(r, cmd.Start())
	r.Cleanup(func() {
		_ = cmd.Wait() // it was killed with the context of the test, or told to end
		if r.Failed() {
			r.Logf("%s %s printed:\n%s", filepath.Base(program), strings.Join(args, " "), &log)
		}
	})
	return func(s os.Signal) { require.NoError(r, cmd.Process.Signal(s)) }
}

// stream makes a stream and its table, and feeds it with what data returns until the end
// of the test.
func (r *rig) stream(name string, shards int, every time.Duration, data func(n int) []byte) {
	r.Helper()
	require.NoError(r, r.aws.CreateStream(name, shards))
	require.NoError(r, r.aws.CreateTable(name, "StreamID", "ShardID"))
	if data == nil {
		return
	}
	r.feeding.Go(func() {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for n := 0; ; n++ {
			select {
			case <-ticker.C:
			case <-r.Context().Done():
				return
			}
			if _, _, err := r.aws.Put(name, fmt.Sprint("key ", n), data(n)); err != nil {
				r.Errorf("feeding %s: %v", name, err)
				return
			}
		}
	})
}

// input is that of a pipeline, which has a table for itself.
func (r *rig) input(stream string, fields ...string) string {
	return "aws_kinesis: { streams: [ " + stream + " ], dynamodb: { table: " + stream + " }, region: us-east-1, endpoint: '" + r.url + "', " +
		"commit_period: 200ms, lease_period: 3s, rebalance_period: 1s" + strings.Join(append([]string{""}, fields...), ", ") + " }"
}

// samples are the answer of Prometheus to a query over the whole run, a series each.
type samples []struct {
	Metric map[string]string `json:"metric"`
	Values [][2]any          `json:"values"`
}

// ask has Prometheus answer a query over the whole run.
func (r *rig) ask(query string) samples {
	r.Helper()
	var answer struct {
		Data struct {
			Result samples `json:"result"`
		} `json:"data"`
	}
	r.get("query_range", url.Values{
		"query": {query}, "step": {"1s"},
		"start": {fmt.Sprint(r.began.Unix())}, "end": {fmt.Sprint(time.Now().Unix())},
	}, &answer)
	return answer.Data.Result
}

// get reads an answer of Prometheus' own service.
func (r *rig) get(what string, values url.Values, answer any) {
	r.Helper()
	req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, "http://"+r.prometheus+"/api/v1/"+what+"?"+values.Encode(), http.NoBody)
	require.NoError(r, err)
	res, err := http.DefaultClient.Do(req)
	require.NoError(r, err)
	defer res.Body.Close()
	var body bytes.Buffer
	_, err = body.ReadFrom(res.Body)
	require.NoError(r, err)
	require.Equal(r, http.StatusOK, res.StatusCode, "%s: %s", values, &body)
	require.NoError(r, json.Unmarshal(body.Bytes(), answer))
}

// await waits until a condition holds.
func (r *rig) await(what string, holds func() bool) {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	ticker := time.NewTicker(again)
	defer ticker.Stop()
	for !holds() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			require.Fail(r, "waited too long", what)
		}
	}
}

// scrape starts Prometheus, with the rules in seconds.
func (r *rig) scrape(jobs map[string][]string) {
	r.Helper()
	rules, err := Rules(scale)
	require.NoError(r, err)
	config := fmt.Sprintf("global: { scrape_interval: %[1]s, scrape_timeout: %[1]s, evaluation_interval: %[1]s }\nrule_files: [ %[2]s ]\nscrape_configs:\n", scrapeEvery, r.write("alerts.yaml", string(rules)))
	for job, targets := range jobs {
		config += fmt.Sprintf("  - { job_name: %s, static_configs: [ { targets: [ %s ] } ] }\n", job, "'"+strings.Join(targets, "', '")+"'")
	}
	r.prometheus = r.address()
	r.start("prometheus", "--config.file="+r.write("prometheus.yaml", config), "--storage.tsdb.path="+filepath.Join(r.dir, "tsdb"), "--web.listen-address="+r.prometheus, "--log.level=warn")
	r.await("Prometheus", func() bool {
		req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, "http://"+r.prometheus+"/-/ready", http.NoBody)
		require.NoError(r, err)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return false // it does not listen yet
		}
		defer res.Body.Close()
		return res.StatusCode == http.StatusOK
	})
}

// fault is a pipeline with something wrong, and the alerts that tell it.
type fault struct {
	pipeline string
	tells    []string
	does     string
}

// TestDashboardAndAlertsOnARunningGroup has a real Prometheus scrape a group of two
// processes, and one that has a pipeline for each fault. Each query of each panel is
// answered, each alert fires for the pipeline with its fault, and none for the group until
// one of its processes stands still.
func TestDashboardAndAlertsOnARunningGroup(t *testing.T) {
	r := newRig(t)
	denied := awsfake.NewError("AccessDeniedException", "not allowed")
	refuse := func(service, operation string, e *awsfake.Error, when func(*awsfake.Call) bool) {
		r.aws.Inject(awsfake.Fault{Service: service, Operation: operation, Refuse: e, When: when})
	}
	reads := func(stream string) func(*awsfake.Call) bool {
		return func(c *awsfake.Call) bool { return c.Stream() == stream }
	}
	// The items of shards stand under the stream's name, those of members elsewhere.
	writes := func(stream string) func(*awsfake.Call) bool {
		return func(c *awsfake.Call) bool {
			return c.Table() == stream && c.Key()["StreamID"].Text == stream
		}
	}
	small := func(n int) []byte { return fmt.Appendf(nil, "record %d", n) }
	aggregate := func(key string) []byte {
		return kpltest.Encode([]kpl.Record{{Data: []byte("user record"), PartitionKey: "k", ExplicitHashKey: key}})
	}
	const firstHash, lastHash = "0", "340282366920938463463374607431768211455"
	aggregates := func(n int) []byte {
		switch n % 4 {
		case 0:
			broken := aggregate(firstHash)
			broken[len(broken)-1]++
			return broken
		case 1:
			return aggregate(lastHash)
		}
		return aggregate(firstHash)
	}

	// The group.
	r.stream("orders", 4, 10*time.Millisecond, func(n int) []byte {
		return kpltest.Encode([]kpl.Record{{Data: small(n), PartitionKey: fmt.Sprint("key ", n)}})
	})
	r.stream("clicks", 2, 20*time.Millisecond, small)
	group := func(address string) string {
		return "http: { address: '" + address + "' }\nmetrics: { prometheus: {} }\noutput: { drop: {} }\ninput:\n  broker:\n    inputs:\n" +
			"      - { label: polled, " + r.input("orders", "deaggregate: true", "max_record_age: 1h") + " }\n" +
			"      - { label: pushed, " + r.input("clicks", "enhanced_fan_out: { enabled: true }") + " }\n"
	}

	// The faults. Records that are 21 h old leave a stream of 24 h soon.
	r.aws.SetClockOffset(-21 * time.Hour)
	r.stream("stuck", 1, 0, nil)
	_, _, err := r.aws.Put("stuck", "key", []byte("old"))
	require.NoError(t, err)
	r.aws.SetClockOffset(0)
	// A page of each shard waits for the output, of more shards than there is memory for.
	const many = 48
	r.stream("full", many, 0, nil)
	for n := range 2 * many {
		_, err := r.aws.PutTo("full", fmt.Sprintf("shardId-%012d", n%many), "key", make([]byte, 900<<10))
		require.NoError(t, err)
	}
	pipelines := map[string]string{}
	pipeline := func(name, output string, fields ...string) {
		pipelines[name] = "input: { " + r.input(name, fields...) + " }\n" + output + "\n"
	}
	const drop, reject = "output: { drop: {} }", "output: { reject: 'not today' }"
	const blocked = "pipeline: { processors: [ { sleep: { duration: 1h } } ] }\n" + drop
	pipeline("stuck", blocked)
	pipeline("full", blocked, "max_buffered_bytes: 64MiB")
	for _, name := range []string{"unread", "expired"} {
		r.stream(name, 2, 0, nil)
		pipeline(name, drop)
		refuse("dynamodb", "UpdateItem", denied, writes(name))
		refuse("dynamodb", "PutItem", denied, writes(name))
	}
	r.stream("commits", 1, 100*time.Millisecond, small)
	pipeline("commits", drop)
	r.stream("denied", 1, 0, nil)
	pipeline("denied", drop)
	refuse("kinesis", "GetRecords", denied, reads("denied"))
	r.stream("throttled", 1, 100*time.Millisecond, small)
	pipeline("throttled", drop)
	r.aws.Inject(awsfake.Fault{
		Service: "kinesis", Operation: "GetRecords", When: reads("throttled"), Probability: 0.6, Rand: rand.New(rand.NewPCG(1, 1)),
		Refuse: awsfake.NewError("ProvisionedThroughputExceededException", "too fast"),
	})
	r.stream("rejected", 1, 200*time.Millisecond, small)
	pipeline("rejected", reject, "auto_replay_nacks: false")
	r.stream("replayed", 1, 200*time.Millisecond, small)
	pipeline("replayed", reject)
	r.stream("skipped", 1, 50*time.Millisecond, small)
	pipeline("skipped", "pipeline: { threads: 1, processors: [ { sleep: { duration: 500ms } } ] }\n"+drop, "checkpoint_limit: 1", "max_record_age: 1s")
	r.stream("aggregates", 2, 100*time.Millisecond, aggregates)
	pipeline("aggregates", drop, "deaggregate: true", "deaggregate_foreign: drop")
	r.stream("silent", 1, 0, nil)
	pipeline("silent", drop, "enhanced_fan_out: { enabled: true }")
	refuse("kinesis", "SubscribeToShard", denied, reads("silent"))
	r.stream("breaks", 1, 100*time.Millisecond, small)
	pipeline("breaks", drop, "enhanced_fan_out: { enabled: true }")
	r.aws.InjectStream(awsfake.StreamFault{Cut: true, After: 2, When: func(s awsfake.Subscription) bool { return s.Stream == "breaks" }})
	r.stream("leases", 1, 0, nil)
	pipeline("leases", drop)

	faults := []fault{
		{"stuck", []string{"KinesisLagHigh", "KinesisShardLagGrows", "KinesisRetentionInDanger", "KinesisOutputStuck"}, "nothing is acknowledged, and the first record is 21 h old"},
		{"full", []string{"KinesisBudgetExhausted"}, "nothing is acknowledged, of more records than max_buffered_bytes"},
		{"unread", []string{"KinesisShardUnread", "KinesisInputNotReady", "KinesisTableFails"}, "DynamoDB denies the claims of both shards"},
		{"expired", []string{"KinesisShardsExpired"}, "a shard that nobody could claim is closed and leaves the stream"},
		{"commits", []string{"KinesisCommitsFail"}, "DynamoDB denies the writes of a shard that is read"},
		{"denied", []string{"KinesisReadsFail"}, "Kinesis denies GetRecords"},
		{"throttled", []string{"KinesisReadsThrottled"}, "Kinesis throttles three of five GetRecords"},
		{"rejected", []string{"KinesisMessagesRejected"}, "the output rejects, with auto_replay_nacks: false"},
		{"replayed", []string{"KinesisMessagesReplayed"}, "the output rejects"},
		{"skipped", []string{"KinesisRecordsSkipped"}, "two messages a second of twenty are handled, with max_record_age: 1s"},
		{"aggregates", []string{"KinesisAggregatesDropped", "KinesisAggregatesBroken"}, "aggregates are broken or have foreign user records, with deaggregate_foreign: drop"},
		{"silent", []string{"KinesisSubscriptionsMissing"}, "Kinesis denies SubscribeToShard"},
		{"breaks", []string{"KinesisSubscriptionsBreak"}, "each subscription breaks in its third frame"},
		{"leases", []string{"KinesisLeasesLost"}, "somebody deletes the item of a shard again and again"},
	}

	first, second, faulty := r.address(), r.address(), r.address()
	r.start(*program, "-c", r.write("first.yaml", group(first)))
	args := []string{"-c", r.write("root.yaml", "http: { address: '"+faulty+"' }\nmetrics: { prometheus: {} }\nlogger: { level: ERROR }\n"), "streams"}
	for _, name := range slices.Sorted(maps.Keys(pipelines)) {
		args = append(args, r.write(name+".yaml", pipelines[name]))
	}
	tellFaulty := r.start(*program, args...)
	r.scrape(map[string][]string{jobGroup: {first, second}, jobFaults: {faulty}})

	is := func(query string) bool { return len(r.ask(query)) > 0 }
	now := func(query string) bool {
		for _, s := range r.ask(query) {
			if last := s.Values[len(s.Values)-1]; int64(last[0].(float64)) >= time.Now().Unix()-1 {
				return true
			}
		}
		return false
	}
	r.await("the first process to have all shards", func() bool {
		return is(`sum by (instance) (kinesis_leases_held{job="orders"}) == 6`)
	})
	stopSecond := r.start(*program, "-c", r.write("second.yaml", group(second)))

	// What can be wrong only once it was well.
	done := map[string]bool{}
	stage := func(name, when string, do func()) {
		if !done[name] && is(when) {
			done[name] = true
			do()
		}
	}
	fired := map[string]float64{} // seconds after the start, by alert and pipeline, or job where it has none
	gather := func() {
		for _, s := range r.ask(`ALERTS{alertstate="firing"}`) {
			key := s.Metric["alertname"] + " " + cmp.Or(s.Metric["stream"], s.Metric["job"])
			if _, known := fired[key]; !known {
				fired[key] = s.Values[0][0].(float64) - float64(r.began.Unix())
			}
		}
	}
	missing := func() (names []string) {
		for _, f := range faults {
			for _, name := range f.tells {
				if _, is := fired[name+" "+f.pipeline]; !is {
					names = append(names, name+" "+f.pipeline)
				}
			}
		}
		return names
	}
	defer func() {
		if t.Failed() {
			t.Logf("these did not fire: %s", missing())
		}
	}()
	deleted := time.Now()
	r.await("the alerts", func() bool {
		stage("commits", `kinesis_commits{kinesis_stream="commits", result="ok"} > 1`, func() { refuse("dynamodb", "UpdateItem", denied, writes("commits")) })
		stage("expired", `kinesis_unread_shards{kinesis_stream="expired"} == 2`, func() {
			_, _, err := r.aws.Split("expired", "shardId-000000000000")
			require.NoError(t, err)
			require.NoError(t, r.aws.Trim("expired", time.Now()))
		})
		if time.Since(deleted) > 3*time.Second {
			deleted = time.Now()
			require.NoError(t, r.aws.DeleteItem("leases", awsfake.Item{"StreamID": awsfake.String("leases"), "ShardID": awsfake.String("shardId-000000000000")}))
		}
		gather()
		return len(missing()) == 0
	})
	for key := range fired {
		require.False(t, strings.HasSuffix(key, " "+jobGroup), "%s: nothing is wrong with the group", key)
	}
	r.readable()

	// A process of the group that stands still loses its session, and no more is wrong.
	stopSecond(syscall.SIGSTOP)
	r.await("the first process to have all shards again", func() bool {
		return now(`sum by (instance) (kinesis_leases_held{job="orders", instance="` + first + `"}) == 6`)
	})
	stopSecond(syscall.SIGCONT)
	faults = append(faults, fault{jobGroup, []string{"KinesisSessionsLost"}, "one of two processes stands still for longer than its lease"})
	r.await("the alert", func() bool { gather(); return len(missing()) == 0 })
	r.await("the second process to have its share", func() bool {
		return now(`sum by (instance) (kinesis_leases_held{job="orders", instance="` + second + `"}) == 3`)
	})

	r.answered()
	if *picture != "" {
		shown := time.Now().Add(15 * time.Second)
		r.await("something to show of the time after it", func() bool { return time.Now().After(shown) })
	}
	tellFaulty(syscall.SIGKILL)
	faults = append(faults, fault{jobFaults, []string{"KinesisMetricsGone"}, "the process is killed"})
	r.await("the alert", func() bool { gather(); return len(missing()) == 0 })

	told := map[string]bool{}
	for _, f := range faults {
		for _, name := range f.tells {
			told[name] = true
			t.Logf("%-28s after %3.0f s: %s", name, fired[name+" "+f.pipeline], f.does)
		}
	}
	for _, a := range alerts {
		require.True(t, told[a.name], "%s is staged", a.name)
	}
	if *picture != "" {
		r.draw(*picture)
	}
}

// readable checks that what the alerts say is complete.
func (r *rig) readable() {
	r.Helper()
	var answer struct {
		Data struct {
			Alerts []struct {
				Labels, Annotations map[string]string
			}
		}
	}
	r.get("alerts", nil, &answer)
	require.NotEmpty(r, answer.Data.Alerts)
	for _, a := range answer.Data.Alerts {
		for _, text := range a.Annotations {
			require.NotRegexp(r, `<error|<no value>|\{\{| of ?[.:,]|  `, text, a.Labels["alertname"])
		}
	}
}

// variablesOf are what those of the dashboard stand for, with one job chosen.
func variablesOf(job string) *strings.Replacer {
	return strings.NewReplacer("$__rate_interval", "10s", "$__range", "5m", "$job", job, "$kinesis_stream", ".*", "$kinesis_shard", ".*")
}

// answered waits until each query of each panel is answered with data.
func (r *rig) answered() {
	r.Helper()
	panels := map[int]bool{}
	open := map[string]string{} // queries without an answer so far, with their panels
	for _, p := range shipped(r.T).Panels {
		for _, each := range p.Targets {
			panels[p.ID] = true
			open[variablesOf(jobGroup).Replace(each.Expr)] = p.Title
		}
	}
	queries := len(open)
	defer func() {
		if r.Failed() {
			r.Logf("without an answer: %v", open)
		}
	}()
	r.await("each query of each panel to be answered", func() bool {
		maps.DeleteFunc(open, func(query, _ string) bool { return len(r.ask(query)) > 0 })
		return len(open) == 0
	})
	r.Logf("%d queries of %d panels were answered with data of the group alone", queries, len(panels))
}
