//go:build integration && kcl

package integration

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
	"github.com/benthos-plugins/aws-kinesis/internal/integration/child"
	"github.com/benthos-plugins/aws-kinesis/internal/kpl"
	"github.com/benthos-plugins/aws-kinesis/internal/kpl/kpltest"
)

var saveLeases = flag.Bool("kcl.save", false, "write the lease tables that the Kinesis Client Library leaves to testdata")

// kclPatience bounds what the library takes for one part of the story. Before it makes the
// first leases of a table it waits for up to 30 s, at random.
const kclPatience = 2 * time.Minute

// told is a line that kcl/src/main/java/Reader.java printed: of a "record", a "checkpoint"
// that was written, a shard that "began" at a position, "ended" or was "lost".
type told struct {
	Event, Stream, Shard, Sequence string
	Sub                            int
}

func (m told) position() position { return position{m.Sequence, m.Sub} }

// position of a user record, or a checkpoint at one; or a sentinel of the library's.
type position struct {
	sequence string
	sub      int
}

// TestKinesisClientLibraryReadsTheLocalAWS has Amazon's library read a stream of
// aggregates and other records. It is killed in the middle, goes on as another worker, and
// reads on through a split.
func TestKinesisClientLibraryReadsTheLocalAWS(t *testing.T) {
	t.Parallel()
	for _, by := range []string{"polling", "fan-out"} {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			l := newLibrary(t, "s")
			shards, err := l.fake.Shards("s")
			require.NoError(t, err)
			read := refs("s", shards[:3]) // the last one gets no records
			l.feed(t, 30, read...)

			first := l.start(t, by, "worker-1", "s", "TRIM_HORIZON")
			l.listen(t, first, func() bool { return l.hasCheckpointed(read) })
			l.feed(t, 300, read...)
			n := len(l.lives[0])
			l.listen(t, first, func() bool { return len(l.lives[0]) > n })
			l.kill(first)
			at := l.checkpoints(t)
			for _, ref := range read {
				require.NotContains(t, at[ref.shard].sequence, "TRIM_HORIZON", "each shard is left in the middle")
			}
			require.Equal(t, position{sequence: "TRIM_HORIZON"}, at[shards[3].ID])

			l.feed(t, 30, read...)
			second := l.start(t, by, "worker-2", "s", "TRIM_HORIZON")
			l.listen(t, second, l.hasAll)
			_, _, err = l.fake.Split("s", read[0].shard)
			require.NoError(t, err)
			shards, err = l.fake.Shards("s")
			require.NoError(t, err)
			rest := slices.Concat(read[1:], refs("s", shards[4:]))
			l.feed(t, 30, rest...)
			l.listen(t, second, func() bool { return l.hasAll() && l.hasCheckpointed(rest) })
			l.kill(second)

			l.check(t, at)
			at = l.checkpoints(t)
			require.Equal(t, position{sequence: "SHARD_END"}, at[shards[0].ID])
			for _, ref := range rest {
				require.Positive(t, at[ref.shard].sub, "%v is left within an aggregate", ref)
			}
			if by == "polling" {
				l.keep(t, "kcl3-lease-table.json")
			}
			l.feed(t, 10, append(rest, refs("s", shards[3:4])...)...)
			l.moveOver(t, at, "--stream", "s")
		})
	}
	t.Run("SeveralStreams", func(t *testing.T) {
		t.Parallel()
		l := newLibrary(t, "a", "b")
		// At a time at which the streams had no shards yet, ListShards lists none.
		made := time.Now()
		require.Eventually(t, func() bool { return time.Since(made) > 2*time.Millisecond }, time.Second, time.Millisecond)
		from := time.Now().UTC().Format("2006-01-02T15:04:05.000Z07:00")
		var read []shardRef
		for _, stream := range []string{"a", "b"} {
			shards, err := l.fake.Shards(stream)
			require.NoError(t, err)
			read = append(read, refs(stream, shards[:3])...)
		}
		l.feed(t, 30, read...)
		const account = "123456789012:"
		p := l.start(t, "polling", "worker-1", account+"a:1700000000,"+account+"b:1700000001", from)
		l.listen(t, p, func() bool { return l.hasAll() && l.hasCheckpointed(read) })
		l.kill(p)
		l.check(t, map[string]position{})
		l.keep(t, "kcl3-lease-table-streams.json")
		at := map[string]position{}
		for key, position := range l.checkpoints(t) {
			parts := strings.Split(key, ":") // account, stream, epoch, shard
			at[parts[1]+":"+parts[3]] = position
		}
		for _, stream := range []string{"a", "b"} {
			shards, err := l.fake.Shards(stream)
			require.NoError(t, err)
			l.feed(t, 10, refs(stream, shards)...)
		}
		l.moveOver(t, at, "--at", from)
	})
}

// library is the story of a stream, or more, and of the library that reads it.
type library struct {
	fake    *awsfake.Server
	url, ca string
	put     map[shardRef][]position // user records, in order
	lives   [][]told                // what each process of the library told
	tells   *tells                  // what the last one told and nobody has heard yet
}

// tells holds what a process told until somebody listens: it is not held up by a test
// that does something else meanwhile.
type tells struct {
	mu   sync.Mutex
	all  []told
	more chan struct{}
}

func (s *tells) tell(m told) {
	s.mu.Lock()
	s.all = append(s.all, m)
	s.mu.Unlock()
	select {
	case s.more <- struct{}{}:
	default: // that there is something is known
	}
}

func (s *tells) take() []told {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.all
	s.all = nil
	return all
}

type shardRef struct{ stream, shard string }

func refs(stream string, shards []awsfake.Shard) (refs []shardRef) {
	for _, shard := range shards {
		refs = append(refs, shardRef{stream, shard.ID})
	}
	return refs
}

func newLibrary(t *testing.T, streams ...string) *library {
	t.Helper()
	l := &library{
		fake: awsfake.New(awsfake.Options{StreamDelay: 50 * time.Millisecond, ConsumerDelay: 50 * time.Millisecond}),
		put:  map[shardRef][]position{},
	}
	t.Cleanup(func() { require.NoError(t, l.fake.Close()) })
	for _, stream := range streams {
		require.NoError(t, l.fake.CreateStream(stream, 4))
	}
	url, ca, err := l.fake.ListenTLS()
	require.NoError(t, err)
	l.url, l.ca = url, filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(l.ca, ca, 0o600))
	return l
}

// feed puts n records into each shard, every other of which is an aggregate of five.
func (l *library) feed(t *testing.T, n int, into ...shardRef) {
	t.Helper()
	for i := range n {
		for _, ref := range into {
			users := []kpl.Record{{Data: fmt.Append(nil, "record ", i)}}
			if i%2 == 1 {
				users = l.userRecords(t, ref)
			}
			data := users[0].Data
			if len(users) > 1 {
				data = kpltest.Encode(users)
			}
			sequence, err := l.fake.PutTo(ref.stream, ref.shard, "key", data)
			require.NoError(t, err)
			for sub := range users {
				l.put[ref] = append(l.put[ref], position{sequence, sub})
			}
		}
	}
}

// userRecords have a hash key in the range of a shard: the library drops others.
func (l *library) userRecords(t *testing.T, ref shardRef) (records []kpl.Record) {
	t.Helper()
	shards, err := l.fake.Shards(ref.stream)
	require.NoError(t, err)
	hash := shards[slices.IndexFunc(shards, func(s awsfake.Shard) bool { return s.ID == ref.shard })].StartHash
	for i := range 5 {
		records = append(records, kpl.Record{Data: fmt.Append(nil, "user record ", i), PartitionKey: "key", ExplicitHashKey: hash})
	}
	return records
}

// start begins another life.
func (l *library) start(t *testing.T, by, worker, streams, from string) *child.Process {
	t.Helper()
	l.lives = append(l.lives, nil)
	tells := &tells{more: make(chan struct{}, 1)}
	l.tells = tells
	folder := filepath.Join(child.Folder(t), "kcl", "target")
	return child.Start(t, folder, nil, func(line string) {
		var m told
		if json.Unmarshal([]byte(line), &m) != nil {
			t.Log(worker, line)
			return
		}
		tells.tell(m)
	}, "java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m", "-cp", strings.Join([]string{"classes", "lib/*"}, string(os.PathListSeparator)),
		"Reader", l.url, l.ca, streams, "leases", worker, by, from)
}

// listen waits for a part of the story to be over.
func (l *library) listen(t *testing.T, p *child.Process, over func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), kclPatience)
	defer cancel()
	life := len(l.lives) - 1
	for l.hear(); !over(); l.hear() {
		select {
		case <-l.tells.more:
		case <-p.Exited:
			require.Fail(t, "the library has ended", "%v", p.Err())
		case <-ctx.Done():
			require.NoError(t, ctx.Err(), "told %d in life %d", len(l.lives[life]), life)
		}
	}
}

// hear takes in what the present process has told up to now.
func (l *library) hear() {
	life := len(l.lives) - 1
	l.lives[life] = append(l.lives[life], l.tells.take()...)
}

// kill ends the present life by SIGKILL. What it told up to then counts: its checkpoints
// stand in the table.
func (l *library) kill(p *child.Process) {
	p.Kill()
	l.hear()
}

// hasCheckpointed reports whether a checkpoint was the last that the present process told
// of, of each of the shards.
func (l *library) hasCheckpointed(shards []shardRef) bool {
	last := map[shardRef]string{}
	for _, m := range l.lives[len(l.lives)-1] {
		last[shardRef{m.Stream, m.Shard}] = m.Event
	}
	return !slices.ContainsFunc(shards, func(ref shardRef) bool { return last[ref] != "checkpoint" })
}

// hasAll reports whether the last user record of each shard has been told of.
func (l *library) hasAll() bool {
	for ref, records := range l.put {
		last := records[len(records)-1]
		if !slices.ContainsFunc(l.lives[len(l.lives)-1], func(m told) bool {
			return m.Event == "record" && m.Stream == ref.stream && m.Shard == ref.shard && m.position() == last
		}) {
			return false
		}
	}
	return true
}

// checkpoints are those of the leases, by lease key.
func (l *library) checkpoints(t *testing.T) map[string]position {
	t.Helper()
	at := map[string]position{}
	for _, item := range l.items(t) {
		if item["entityType"].Text != "LEASE" {
			continue
		}
		var sub int
		_, err := fmt.Sscan(item["checkpointSubSequenceNumber"].Text, &sub)
		require.NoError(t, err)
		at[item["leaseKey"].Text] = position{item["checkpoint"].Text, sub}
	}
	return at
}

func (l *library) items(t *testing.T) []awsfake.Item {
	t.Helper()
	items, err := l.fake.Items("leases")
	require.NoError(t, err)
	return items
}

// check requires that each life read each shard from where it began, in order and without
// a gap; that the second began where the first had left its checkpoints in the table; and
// that no child was read before its parent had ended. A lease that is lost begins anew: on
// a busy machine one is not always renewed in time.
func (l *library) check(t *testing.T, at map[string]position) {
	t.Helper()
	seen := map[shardRef]map[position]bool{}
	for life, all := range l.lives {
		next, ended := map[shardRef]int{}, map[string]bool{}
		began := map[shardRef]bool{}
		for _, m := range all {
			ref := shardRef{m.Stream, m.Shard}
			switch m.Event {
			case "began":
				if life > 0 && !began[ref] && at[m.Shard] != (position{}) {
					require.Equal(t, at[m.Shard], m.position(), "%v goes on at its checkpoint", ref)
				}
				began[ref] = true
				next[ref] = slices.Index(l.put[ref], m.position()) + 1 // 0 for a sentinel
				shards, err := l.fake.Shards(m.Stream)
				require.NoError(t, err)
				parent := shards[slices.IndexFunc(shards, func(s awsfake.Shard) bool { return s.ID == m.Shard })].Parent
				require.True(t, parent == "" || ended[parent], "a child is read after its parent")
			case "record":
				require.Less(t, next[ref], len(l.put[ref]), "%v: more than was put", ref)
				require.Equal(t, l.put[ref][next[ref]], m.position(), "%v in order", ref)
				next[ref]++
				if seen[ref] == nil {
					seen[ref] = map[position]bool{}
				}
				seen[ref][m.position()] = true
			case "ended":
				ended[m.Shard] = true
			}
		}
	}
	for ref, records := range l.put {
		require.Len(t, seen[ref], len(records), "%v is read whole", ref)
	}
}

// moveOver imports the positions of the library, which has ended, and has the input read
// on: exactly what comes after them, each user record once, in the order of its shard. The
// positions are at, by "stream:shard", or by the shard alone where there is one stream.
func (l *library) moveOver(t *testing.T, at map[string]position, args ...string) {
	t.Helper()
	dir := t.TempDir()
	benthos := filepath.Join(dir, "benthos-kinesis")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", benthos, "../../cmd/benthos-kinesis").CombinedOutput()
	require.NoError(t, err, string(out))
	url, err := l.fake.Listen()
	require.NoError(t, err)
	require.NoError(t, l.fake.CreateTable("positions", "StreamID", "ShardID"))
	env := []string{"AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test", "AWS_REGION=us-east-1"}

	tool := exec.CommandContext(t.Context(), benthos, append([]string{
		"leases", "import-kcl", "--yes", "--table", "positions", "--kcl-table", "leases", "--kcl-watch", "500ms", "--endpoint", url,
	}, args...)...)
	tool.Env = append(os.Environ(), env...)
	out, err = tool.CombinedOutput()
	require.NoError(t, err, string(out))

	want, count := map[shardRef][]position{}, 0
	streams := map[string]bool{}
	for ref, records := range l.put {
		streams[ref.stream] = true
		position, ok := at[ref.stream+":"+ref.shard]
		if !ok {
			position, ok = at[ref.shard]
		}
		require.True(t, ok, "%v has a position", ref)
		if i := slices.Index(records, position); i >= 0 {
			records = records[i+1:]
		} else if position.sequence == "SHARD_END" {
			continue
		} else {
			require.Contains(t, []string{"TRIM_HORIZON", "AT_TIMESTAMP"}, position.sequence)
		}
		want[ref] = records
		count += len(records)
	}
	config := filepath.Join(dir, "config.yaml")
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, `
http: { enabled: false }
logger: { level: NONE }
input:
  aws_kinesis:
    streams: [ %s ]
    dynamodb: { table: positions }
    endpoint: %s
    deaggregate: true
pipeline:
  threads: 1 # several would print records in another order
  processors:
    - mapping: |
        root.event = "record"
        root.stream = meta("kinesis_stream")
        root.shard = meta("kinesis_shard")
        root.sequence = meta("kinesis_sequence_number")
        root.sub = meta("kinesis_sub_sequence_number").or("0").number()
output:
  stdout: {}
`, strings.Join(slices.Sorted(maps.Keys(streams)), ", "), url), 0o600))
	heard := &tells{more: make(chan struct{}, 1)}
	input := child.Start(t, dir, env, func(line string) {
		var m told
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			m.Event = line
		}
		heard.tell(m)
	}, benthos, "-c", config)
	got, n := map[shardRef][]position{}, 0
	take := func() {
		for _, m := range heard.take() {
			require.Equal(t, "record", m.Event)
			ref := shardRef{m.Stream, m.Shard}
			got[ref] = append(got[ref], m.position())
			n++
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), kclPatience)
	defer cancel()
	for n < count {
		select {
		case <-heard.more:
			take()
		case <-input.Exited:
			require.Fail(t, "the input has ended", "%v", input.Err())
		case <-ctx.Done():
			require.NoError(t, ctx.Err(), "%d of %d have come", n, count)
		}
	}
	input.Kill()
	take()
	for ref, records := range want {
		require.Equal(t, records, got[ref], "%v after %v", ref, at)
		delete(got, ref)
	}
	require.Empty(t, got)
}

// keep requires that the table has no other form than the one that is committed, for the
// tests of what reads it, and writes that anew if so asked. What the library measures, such as
// throughput, comes some time after the start, or not at all in a short run.
func (l *library) keep(t *testing.T, name string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *saveLeases {
		text, err := json.MarshalIndent(l.items(t), "", "  ")
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(path, append(text, '\n'), 0o600))
	}
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	var committed []awsfake.Item
	require.NoError(t, json.Unmarshal(text, &committed))
	known, now := formOf(committed), formOf(l.items(t))
	// While a lease is passed on in order, which not every run comes to.
	known["LEASE"]["checkpointOwner"] = "S"
	for kind, attributes := range now {
		require.Subset(t, known[kind], attributes, "items of kind %s", kind)
	}
	for _, attribute := range []string{"leaseKey", "checkpoint", "checkpointSubSequenceNumber", "leaseCounter"} {
		require.Contains(t, now["LEASE"], attribute)
	}
}

// formOf tells the attributes that items of each kind have, and their types.
func formOf(items []awsfake.Item) map[string]map[string]string {
	form := map[string]map[string]string{}
	for _, item := range items {
		kind := item["entityType"].Text
		if form[kind] == nil {
			form[kind] = map[string]string{}
		}
		for name, v := range item {
			form[kind][name] = v.Type
		}
	}
	return form
}
