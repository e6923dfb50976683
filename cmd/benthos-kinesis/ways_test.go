package main

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/kpl"
	"github.com/benthos-plugins/aws-kinesis/internal/kpl/kpltest"
)

// quiet is the head of a configuration without an HTTP service.
const quiet = "http: { enabled: false }\n"

// into is the output of a pipeline: a file of lines.
func into(file string) string { return "output: { " + lines(file) + " }\n" }

// TestEveryWayThatBenthosRunsAnInput has one run of the distribution for each. There
// are a hundred records in each of two streams, and one more stream with ten whose
// first shard is closed.
func TestEveryWayThatBenthosRunsAnInput(t *testing.T) {
	orders, payments, old := numbered("orders", 0, 100), numbered("payments", 0, 100), numbered("old", 0, 10)

	for _, way := range []struct {
		name  string
		files map[string]string
		args  []string
		check func(p *process)
	}{
		{
			"run",
			map[string]string{"main.yaml": quiet + "input: { " + input("orders") + " }\n" + into("out")},
			[]string{"-c", "main.yaml"},
			func(p *process) { p.awaitLines("out", orders) },
		},
		{
			"one configuration and values for it by --set",
			map[string]string{"main.yaml": quiet + "input: { " + input("payments") + " }\n" + into("out")},
			[]string{"-c", "main.yaml", "--set", "input.aws_kinesis.streams.0=orders", "--set", "input.aws_kinesis.checkpoint_limit=1"},
			func(p *process) { p.awaitLines("out", orders) },
		},
		{
			"resource",
			map[string]string{
				"main.yaml": quiet + "input: { resource: in }\n" + into("out"),
				"in.yaml":   "input_resources: [ { label: in, " + input("orders") + " } ]\n",
			},
			[]string{"-r", "in.yaml", "-c", "main.yaml"},
			func(p *process) { p.awaitLines("out", orders) },
		},
		{
			"configuration changed while it runs",
			map[string]string{"main.yaml": quiet + "input: { " + input("orders") + " }\n" + into("out")},
			[]string{"-w", "-c", "main.yaml"},
			func(p *process) {
				p.awaitLines("out", orders)
				p.write("main.yaml", quiet+"input: { "+input("orders,payments")+" }\n"+into("changed"))
				p.awaitLines("changed", payments)
				more := p.put("orders", 100, 50)
				p.awaitLines("changed", slices.Concat(payments, more))
				p.awaitLines("out", orders)
			},
		},
		{
			"resource changed while it runs",
			map[string]string{
				"main.yaml": quiet + "input: { resource: in }\n" + into("out"),
				"in.yaml":   "input_resources: [ { label: in, " + input("orders") + " } ]\n",
			},
			[]string{"-w", "-r", "in.yaml", "-c", "main.yaml"},
			func(p *process) {
				p.awaitLines("out", orders)
				p.write("in.yaml", "input_resources: [ { label: in, "+input("payments")+" } ]\n")
				p.awaitLines("out", slices.Concat(orders, payments))
			},
		},
		{
			"broker of copies",
			map[string]string{"main.yaml": quiet + "input: { broker: { copies: 3, inputs: [ { " + input("orders,payments") + " } ] } }\n" + into("out")},
			[]string{"-c", "main.yaml"},
			func(p *process) { p.awaitLines("out", slices.Concat(orders, payments)) },
		},
		{
			"broker of two, batched together",
			map[string]string{"main.yaml": quiet + "input: { broker: { inputs: [ { " + input("orders") + " }, { " + input("payments", "batching: { count: 7, period: 100ms }") + " } ], batching: { count: 20, period: 100ms } } }\n" + into("out")},
			[]string{"-c", "main.yaml"},
			func(p *process) { p.awaitLines("out", slices.Concat(orders, payments)) },
		},
		{
			"sequence",
			map[string]string{"main.yaml": quiet + "input: { sequence: { inputs: [ { " + input("old:0") + " }, { " + input("orders") + " } ] } }\n" + into("out")},
			[]string{"-c", "main.yaml"},
			func(p *process) {
				p.awaitLines("out", slices.Concat(old, orders))
				require.ElementsMatch(p, old, p.written("out")[:len(old)], "the first input is read to its end before the second starts")
			},
		},
		{
			"read_until",
			map[string]string{"main.yaml": quiet + "input: { read_until: { check: 'count(\"read\") >= 100', input: { " + input("orders") + " } } }\n" + into("out")},
			[]string{"-c", "main.yaml"},
			func(p *process) {
				p.wait()
				require.ElementsMatch(p, orders, p.written("out"))
				// Benthos ends its input without waiting for acknowledgements that are on
				// their way: the next one may repeat those, and misses none.
				again := p.start("-c", p.write("again.yaml", quiet+"input: { "+input("orders")+" }\n"+into("again")))
				more := p.put("orders", 100, 10)
				p.await("the records that came later", func() bool {
					written := p.written("again")
					return !slices.ContainsFunc(more, func(record string) bool { return !slices.Contains(written, record) })
				})
				require.Subset(p, slices.Concat(orders, more), p.written("again"))
				require.Less(p, len(p.written("again")), len(orders), "what was acknowledged does not come again")
				again.stop()
			},
		},
		{
			"test",
			map[string]string{"main.yaml": quiet + "input: { " + input("${WAYS_STREAM}") + " }\npipeline: { processors: [ { mapping: 'root = content().uppercase()' } ] }\n" +
				"tests: [ { name: shout, target_processors: /pipeline/processors, input_batch: [ { content: a } ], output_batches: [ [ { content_equals: A } ] ] } ]\n"},
			[]string{"test", "main.yaml"},
			func(p *process) {
				p.wait()
				require.Equal(p, "Test 'main.yaml' succeeded\n", p.log.String())
			},
		},
		{
			"lint",
			map[string]string{
				"main.yaml": "input: { " + input("${WAYS_STREAM}:0") + " }\n",
				"in.yaml":   "input_resources: [ { label: in, " + input("${WAYS_STREAM}") + " } ]\n",
			},
			[]string{"-r", "in.yaml", "-c", "main.yaml", "lint", "--skip-env-var-check"},
			func(p *process) {
				p.wait()
				require.Empty(p, p.log.String())
			},
		},
		{
			"echo",
			map[string]string{"main.yaml": "input: { " + input("orders", "credentials: { id: i, secret: s, token: t }") + " }\n"},
			[]string{"-c", "main.yaml", "echo"},
			func(p *process) {
				p.wait()
				require.Contains(p, p.log.String(), "  aws_kinesis: {streams: ['orders'], dynamodb: {table: checkpoints}, ")
				require.Contains(p, p.log.String(), ", credentials: {id: i, secret: '!!!SECRET_SCRUBBED!!!', token: '!!!SECRET_SCRUBBED!!!'}}\n")
			},
		},
		{
			"create",
			nil,
			[]string{"create", "aws_kinesis//drop"},
			func(p *process) {
				p.wait()
				// What is created passes lint as it is, and runs once it is filled in.
				created := p.log.String()
				lint := p.start("lint", p.write("created.yaml", created))
				lint.wait()
				require.Empty(p, lint.log.String())
				filled := p.start("-c", "created.yaml", "--set", "http.enabled=false", "--set", "input.aws_kinesis.streams.-=orders", "--set", "input.aws_kinesis.dynamodb.table=checkpoints",
					"--set", "input.aws_kinesis.region=us-east-1", "--set", "input.aws_kinesis.endpoint="+p.url)
				p.await("a checkpoint", func() bool {
					item, err := p.aws.Item("checkpoints", "orders", "shardId-000000000000")
					require.NoError(p, err)
					return item["SequenceNumber"].Text != ""
				})
				filled.stop()
			},
		},
	} {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			require.NoError(t, r.aws.CreateStream("orders", 2))
			require.NoError(t, r.aws.CreateStream("payments", 2))
			require.NoError(t, r.aws.CreateStream("old", 1))
			r.put("orders", 0, 100)
			r.put("payments", 0, 100)
			r.put("old", 0, 10)
			_, _, err := r.aws.Split("old", "shardId-000000000000")
			require.NoError(t, err)
			for name, content := range way.files {
				r.write(name, content)
			}
			p := r.start(way.args...)
			way.check(p)
			p.stop()
			require.NotContains(t, p.log.String(), "panic")
		})
	}
}

// TestFilesOfTheArchiveExampleCanBeJoined runs the example with smaller batches.
func TestFilesOfTheArchiveExampleCanBeJoined(t *testing.T) {
	example, err := filepath.Abs("../../docs/examples/archive.yaml")
	require.NoError(t, err)
	r := newRig(t)
	require.NoError(t, r.aws.CreateStream("orders", 1))
	records := append(r.put("orders", 0, 29), "\xff is no UTF-8")
	_, _, err = r.aws.Put("orders", "key", []byte(records[29]))
	require.NoError(t, err)
	t.Setenv("STREAM", "orders")
	t.Setenv("TABLE", "checkpoints")
	t.Setenv("REGION", "us-east-1")
	p := r.start("-c", example, "--set", "http.enabled=false", "--set", "input.aws_kinesis.endpoint="+r.url, "--set", "input.aws_kinesis.batching.count=10")

	var files []string
	r.await("three files", func() bool {
		files, err = filepath.Glob(filepath.Join(r.dir, "archive", "shardId-000000000000", "*.gz"))
		require.NoError(t, err)
		return len(files) == 3
	})
	p.stop()
	// Sequence numbers of one shard have the same length, so files are in order.
	var joined []byte
	for _, name := range files {
		file, err := os.ReadFile(name)
		require.NoError(t, err)
		joined = append(joined, file...)
	}
	zipped, err := gzip.NewReader(bytes.NewReader(joined))
	require.NoError(t, err)
	content, err := io.ReadAll(zipped)
	require.NoError(t, err)
	require.Equal(t, strings.Join(records, "\n")+"\n", string(content))
}

// TestKeyOrderExampleSendsEachKeyInOrderAndManyAtOnce runs the example into a service that
// takes a while.
func TestKeyOrderExampleSendsEachKeyInOrderAndManyAtOnce(t *testing.T) {
	const records, keys = 600, 30
	example, err := filepath.Abs("../../docs/examples/key-order.yaml")
	require.NoError(t, err)
	var mu sync.Mutex
	inside, most, got, wrong := map[string]bool{}, 0, map[string][]string{}, ""
	service := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		content, err := io.ReadAll(r.Body)
		key := r.Header.Get("X-Key")
		mu.Lock()
		if err != nil || inside[key] {
			wrong = fmt.Sprintf("record %s of %s came beside another: %v", content, key, err)
		}
		inside[key] = true
		most = max(most, len(inside))
		got[key] = append(got[key], string(content))
		mu.Unlock()
		wait := time.NewTimer(10 * time.Millisecond)
		defer wait.Stop()
		<-wait.C
		mu.Lock()
		defer mu.Unlock()
		delete(inside, key)
	}))
	defer service.Close()
	r := newRig(t)
	require.NoError(t, r.aws.CreateStream("orders", 1))
	want := map[string][]string{}
	for i := range records {
		key := fmt.Sprint("key ", i*i%keys)
		want[key] = append(want[key], fmt.Sprint(i))
		_, _, err := r.aws.Put("orders", key, fmt.Append(nil, i))
		require.NoError(t, err)
	}
	for name, value := range map[string]string{"STREAM": "orders", "TABLE": "checkpoints", "REGION": "us-east-1", "URL": service.URL} {
		t.Setenv(name, value)
	}
	p := r.start("-c", example, "--set", "http.enabled=false", "--set", "input.aws_kinesis.endpoint="+r.url)
	r.await("all records", func() bool {
		mu.Lock()
		defer mu.Unlock()
		n := 0
		for _, contents := range got {
			n += len(contents)
		}
		return n >= records || wrong != ""
	})
	p.stop()
	require.Empty(t, wrong)
	require.Equal(t, want, got)
	require.Greater(t, most, len(want)/2)
}

// TestDeadLetterExamplePutsAsideWhatTheServiceRejects runs the example before a service
// that rejects some user records.
func TestDeadLetterExamplePutsAsideWhatTheServiceRejects(t *testing.T) {
	example, err := filepath.Abs("../../docs/examples/dead-letter.yaml")
	require.NoError(t, err)
	var mu sync.Mutex
	var taken []string
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		content, err := io.ReadAll(r.Body)
		if err != nil || strings.HasPrefix(string(content), "bad") {
			w.WriteHeader(http.StatusUnprocessableEntity)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		taken = append(taken, string(content))
	}))
	defer service.Close()
	r := newRig(t)
	require.NoError(t, r.aws.CreateStream("orders", 1))
	aggregate := kpltest.Encode([]kpl.Record{
		{Data: []byte("good 0"), PartitionKey: "a"}, {Data: []byte("bad 1"), PartitionKey: "b"}, {Data: []byte("good 2"), PartitionKey: "c"},
	})
	var sequences []string
	for _, data := range [][]byte{aggregate, []byte("bad \xff"), []byte("good 3")} {
		_, sequence, err := r.aws.Put("orders", "key", data)
		require.NoError(t, err)
		sequences = append(sequences, sequence)
	}
	for name, value := range map[string]string{"STREAM": "orders", "TABLE": "checkpoints", "REGION": "us-east-1", "URL": service.URL} {
		t.Setenv(name, value)
	}
	p := r.start("-c", example, "--set", "http.enabled=false", "--set", "input.aws_kinesis.endpoint="+r.url)
	var letters []map[string]any
	r.await("all records", func() bool {
		content, err := os.ReadFile(filepath.Join(r.dir, "dead-letters.jsonl"))
		if err != nil {
			return false
		}
		letters = nil
		for line := range strings.Lines(string(content)) {
			var letter map[string]any
			if json.Unmarshal([]byte(line), &letter) != nil {
				return false // it is being written
			}
			letters = append(letters, letter)
		}
		mu.Lock()
		defer mu.Unlock()
		return len(letters) == 2 && len(taken) == 3
	})
	p.stop()
	require.ElementsMatch(t, []string{"good 0", "good 2", "good 3"}, taken)
	for _, letter := range letters {
		require.Contains(t, letter["reason"], "422")
		delete(letter, "reason")
	}
	place := func(record int, sub any, key, payload string) map[string]any {
		return map[string]any{
			"stream": "orders", "shard": "shardId-000000000000", "sequence_number": sequences[record], "sub_sequence_number": sub,
			"partition_key": key, "payload": base64.StdEncoding.EncodeToString([]byte(payload)),
		}
	}
	require.ElementsMatch(t, []map[string]any{place(0, 1.0, "b", "bad 1"), place(1, nil, "key", "bad \xff")}, letters)
}

// TestReplayExampleReadsAnHourBesideALivePipelineAndEnds runs the example on a stream of
// three hours, which its clock has passed through.
func TestReplayExampleReadsAnHourBesideALivePipelineAndEnds(t *testing.T) {
	example, err := filepath.Abs("../../docs/examples/replay.yaml")
	require.NoError(t, err)
	r := newRig(t)
	require.NoError(t, r.aws.CreateStream("orders", 2))
	live := r.start("-c", r.write("live.yaml", "http: { enabled: false }\ninput: { "+input("orders")+" }\noutput: { "+lines("live")+" }\n"))
	begun := time.Now().Truncate(time.Second)
	all := r.put("orders", 0, 50)
	r.aws.SetClockOffset(time.Hour)
	hour := r.put("orders", 50, 50)
	r.aws.SetClockOffset(2 * time.Hour)
	all = append(append(all, hour...), r.put("orders", 100, 50)...)
	r.awaitLines("live", all)

	for name, value := range map[string]string{
		"STREAM": "orders", "TABLE": "checkpoints", "REGION": "us-east-1",
		"START": begun.Add(time.Hour).UTC().Format(time.RFC3339), "END": begun.Add(2 * time.Hour).UTC().Format(time.RFC3339),
	} {
		t.Setenv(name, value)
	}
	for _, want := range [][]string{hour, nil} { // it ends at once when all has been read
		p := r.start("-c", example, "--set", "http.enabled=false", "--set", "input.aws_kinesis.endpoint="+r.url)
		p.wait()
		var got []string
		for line := range strings.SplitSeq(p.log.String(), "\n") {
			if strings.HasPrefix(line, "orders ") {
				got = append(got, line)
			}
		}
		require.ElementsMatch(t, want, got)
	}
	all = append(all, r.put("orders", 150, 50)...)
	r.awaitLines("live", all)
	live.stop()
}

// Lint looks at fields, and not at what the fields make together.
func TestExamplesCanBeStarted(t *testing.T) {
	files, err := filepath.Glob("../../docs/examples/*.yaml")
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(files), 7)
	for name, value := range map[string]string{
		"STREAM": "foo", "TABLE": "leases", "REGION": "us-east-1", "AWS_REGION": "us-east-1", "URL": "http://127.0.0.1:1", "ARCHIVE": t.TempDir(),
		"STREAM_ARN": "arn:aws:kinesis:us-east-1:111122223333:stream/foo", "STREAM_ROLE": "arn:aws:iam::111122223333:role/reader",
		"TABLE_ROLE": "arn:aws:iam::444455556666:role/checkpoints", "EXTERNAL_ID": "x",
	} {
		t.Setenv(name, value)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			file, err := filepath.Abs(file)
			require.NoError(t, err)
			r := newRig(t)
			p := r.start("-c", file, "--set", "http.address="+r.address(), "--set", "input.aws_kinesis.endpoint="+r.url)
			r.await("the pipeline", func() bool {
				select {
				case <-p.ended:
					require.Fail(t, "it has ended", "%s", &p.log)
				default:
				}
				// The input connects while the output has yet to be made.
				return strings.Contains(p.log.String(), "Output type ") &&
					(strings.Contains(p.log.String(), "Input type aws_kinesis is now active") ||
						strings.Contains(p.log.String(), "Failed to connect to aws_kinesis"))
			})
		})
	}
}
