//go:build linux

package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
)

// The test binary is the process of a fleet as well: one that prints what it
// finds in PRINT and waits for its end.
func TestMain(m *testing.M) {
	if text := os.Getenv("PRINT"); text != "" {
		fmt.Print(text)
		// Until whoever started it sends a signal.
		select {}
	}
	// Programs that the race detector watches otherwise take a second to end.
	if err := os.Setenv("GORACE", "atexit_sleep_ms=0"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// rig makes a fleet of two shards without a process, and one that was never
// started.
func rig(t *testing.T, programs map[string]string) (*fleet, *member) {
	t.Helper()
	f, err := newFleet(t.Context(), programs, setup{shards: 2, size: 8})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.close()) })
	return f, &member{kind: ours, active: time.Now(), seen: map[string]time.Time{}}
}

// verdicts maps what was measured to its verdict.
func verdicts(sh *sheet) map[string]string {
	all := map[string]string{}
	for _, r := range sh.rows {
		all[r.what] = r.verdict
	}
	return all
}

func (f *fleet) line(shard int) string { return f.ids[shard] + " " + f.last[f.ids[shard]] }

func TestLostRecordBreaksThePromise(t *testing.T) {
	f, m := rig(t, nil)
	for _, id := range f.ids {
		require.NoError(t, f.put(id, "key"))
	}
	require.NoError(t, f.take(report{from: m, line: f.line(0), at: time.Now()}))
	require.False(t, f.out())

	var sh sheet
	f.account(&sh)
	require.Equal(t, "BROKEN", verdicts(&sh)["records lost"])
	require.ErrorContains(t, sh.err(), "records lost: 1")
	require.Len(t, sh.lines, 1)
	require.Contains(t, sh.lines[0], "not out: 1 records of "+f.ids[1])
}

func TestRepeatIsSeenWhoeverLetsItOut(t *testing.T) {
	f, m := rig(t, nil)
	other := &member{kind: ours, active: time.Now(), seen: map[string]time.Time{}}
	require.NoError(t, f.put(f.ids[0], "key"))
	require.NoError(t, f.take(report{from: m, line: f.line(0), at: time.Now()}))
	var sh sheet
	f.noRepeats(&sh)
	require.NoError(t, sh.err())

	require.NoError(t, f.take(report{from: other, line: f.line(0), at: time.Now()}))
	require.Empty(t, other.seen, "a repeat is no flow")
	f.noRepeats(&sh)
	require.ErrorContains(t, sh.err(), "came twice: 1")
}

func TestCheckpointThatGoesBackBreaksThePromise(t *testing.T) {
	f, _ := rig(t, nil)
	write := func(sequence, owner string) {
		item := awsfake.Item{
			"StreamID": awsfake.String(stream), "ShardID": awsfake.String(f.ids[0]),
			"SequenceNumber": awsfake.String(sequence),
		}
		if owner != "" {
			item["ClientID"] = awsfake.String(owner)
		}
		require.NoError(t, f.aws.PutItem(table, item))
	}
	write("", "a")
	write("9", "a")
	write("10", "b")
	require.Empty(t, f.journal.wentBack())
	require.Equal(t, item{owner: "b", sequence: "10", changes: 2, renewals: 1}, f.journal.table()[f.ids[0]])
	require.Equal(t, map[string]int{"b": 1}, f.journal.loads())

	write("9", "")
	require.Equal(t, []setback{{shard: f.ids[0], before: "10", after: "9"}}, f.journal.wentBack())
	require.Empty(t, f.journal.loads())
	var sh sheet
	f.account(&sh)
	require.Equal(t, "BROKEN", verdicts(&sh)["checkpoints that went back"])
}

func TestSetbackTellsWhoseWriteItWas(t *testing.T) {
	f, _ := rig(t, nil)
	write := func(sequence, token string) {
		require.NoError(t, f.aws.PutItem(table, awsfake.Item{
			"StreamID": awsfake.String(stream), "ShardID": awsfake.String(f.ids[0]),
			"SequenceNumber": awsfake.String(sequence), "LeaseTimeout": awsfake.String(token),
			"ClientID": awsfake.String("a"), "LeaseTerm": awsfake.String("a/1"),
		}))
	}
	write("3", "t1")
	write("2", "t1")
	write("1", "t2")
	back := f.journal.wentBack()
	require.Len(t, back, 2)
	require.Contains(t, back[0].String(), `from 3 to "2" by a write without renewing the lease; owner: "a" (ours)`)
	require.Contains(t, back[1].String(), `from 2 to "1" by a write renewing the lease`)
	own, others := f.journal.loadsByKind()
	require.Equal(t, []int{1}, own)
	require.Empty(t, others)

	var sh sheet
	f.members = append(f.members, &member{kind: builtin})
	f.account(&sh)
	f.members = nil
	require.ErrorContains(t, sh.err(), "checkpoints that a process of ours moved back: 1")
}

func TestWritesAroundALossAreTold(t *testing.T) {
	f, _ := rig(t, nil)
	for _, sequence := range []string{"1", "2", "3", "4", "9", "10", "11", "12", "13"} {
		require.NoError(t, f.aws.PutItem(table, awsfake.Item{
			"StreamID": awsfake.String(stream), "ShardID": awsfake.String(f.ids[0]), "SequenceNumber": awsfake.String(sequence),
		}))
	}
	var stored []string
	for _, c := range f.journal.around(f.ids[0], "5", "7") {
		stored = append(stored, c.after)
	}
	require.Equal(t, []string{"2", "3", "4", "9", "10", "11"}, stored)
}

func TestShardThatIsLeftBehindBreaksThePromise(t *testing.T) {
	f, m := rig(t, nil)
	require.NoError(t, f.put(f.ids[0], "key"))
	require.NoError(t, f.take(report{from: m, line: f.line(0), at: time.Now()}))
	require.NoError(t, f.aws.PutItem(table, awsfake.Item{
		"StreamID": awsfake.String(stream), "ShardID": awsfake.String(f.ids[0]),
		"SequenceNumber": awsfake.String(""), "ClientID": awsfake.String("a"),
	}))
	var sh sheet
	f.account(&sh)
	require.Equal(t, "BROKEN", verdicts(&sh)["shards that a process left behind"])
	require.Equal(t, "BROKEN", verdicts(&sh)["shards not checkpointed to the last record at the end"])
	require.Equal(t, "kept", verdicts(&sh)["records lost"])
}

func TestRelayedFleetIsReachedOverTLSUntilItFallsSilent(t *testing.T) {
	f, err := newFleet(t.Context(), nil, setup{shards: 2, size: 8, relayed: true})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.close()) })
	ca, err := os.ReadFile(f.bundle())
	require.NoError(t, err)
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(ca))

	dial := func() *tls.Conn {
		c, err := (&tls.Dialer{Config: &tls.Config{RootCAs: roots}}).DialContext(t.Context(), "tcp", strings.TrimPrefix(f.endpoint, "https://"))
		require.NoError(t, err)
		t.Cleanup(func() { c.Close() })
		return c.(*tls.Conn)
	}
	ask := func(c *tls.Conn, within time.Duration) error {
		_, err := fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
		require.NoError(t, err)
		require.NoError(t, c.SetReadDeadline(time.Now().Add(within)))
		_, err = http.ReadResponse(bufio.NewReader(c), nil) //nolint:bodyclose // it goes with the connection
		return err
	}
	before := dial()
	require.NoError(t, ask(before, settle))
	require.Equal(t, 1, f.relay.Cut())
	require.ErrorIs(t, ask(before, 50*time.Millisecond), os.ErrDeadlineExceeded)
	require.NoError(t, ask(dial(), settle))
}

func TestSharedMeansEqualButForOneShard(t *testing.T) {
	f, _ := rig(t, nil)
	own := func(shard int, owner string) {
		require.NoError(t, f.aws.PutItem(table, awsfake.Item{
			"StreamID": awsfake.String(stream), "ShardID": awsfake.String(f.ids[shard]), "ClientID": awsfake.String(owner),
		}))
	}
	own(0, "a")
	require.False(t, f.shared(1)(), "one shard is free")
	own(1, "a")
	require.True(t, f.shared(1)())
	require.False(t, f.shared(2)())
	own(1, "b")
	require.True(t, f.shared(2)())
}

func TestSilenceOfAShardLastsUntilNow(t *testing.T) {
	f, m := rig(t, nil)
	start := time.Now()
	f.active = map[string]time.Time{f.ids[0]: start, f.ids[1]: start.Add(-time.Minute)}
	require.NoError(t, f.put(f.ids[1], "key"))
	require.NoError(t, f.take(report{from: m, line: f.line(1), at: start.Add(time.Second)}))
	require.Equal(t, 61*time.Second, f.longestSilence())

	f.active[f.ids[0]] = start.Add(-time.Hour)
	require.GreaterOrEqual(t, f.longestSilence(), time.Hour, "nothing has come since")
	f.mark()
	require.Less(t, f.longestSilence(), time.Minute)
}

func TestLineThatNamesNoRecordIsAnError(t *testing.T) {
	f, m := rig(t, nil)
	for _, line := range []string{"", "panic: no", "shardId-000000000099 1"} {
		require.ErrorContains(t, f.take(report{from: m, line: line}), "names no record", line)
	}
}

func TestProcessThatEndsByItselfFailsTheStory(t *testing.T) {
	f, m := rig(t, map[string]string{ours: "/bin/false"})
	_, err := f.join(ours)
	require.NoError(t, err)
	_, err = f.until(t.Context(), time.Minute, func() bool { return false })
	require.ErrorContains(t, err, "ended by itself")

	m.told = true
	require.NoError(t, f.take(report{from: m, ended: true, at: time.Now()}))
	require.False(t, m.running())
}

func TestBlockedProcessIsHeardOfOnceItIsFree(t *testing.T) {
	exe, err := os.Executable()
	require.NoError(t, err)
	f, _ := rig(t, map[string]string{ours: exe})
	require.NoError(t, f.put(f.ids[0], "key"))
	t.Setenv("PRINT", strings.Repeat(f.line(0)+"\n", 3))

	m, err := f.join(ours)
	require.NoError(t, err)
	m.block()
	// At most the line that was on its way passes the gate.
	_, err = f.until(t.Context(), 300*time.Millisecond, func() bool { return f.ledger.Report().Out > 1 })
	require.ErrorIs(t, err, errLate)
	m.unblock()
	_, err = f.until(t.Context(), time.Minute, func() bool { return f.ledger.Report().Out == 3 })
	require.NoError(t, err)
}

func TestReshardedStreamIsFedByKeyAndItsShardsAreKnown(t *testing.T) {
	f, m := rig(t, nil)
	f.keys, f.rate = 3, 1000
	f.start()
	r := rand.New(rand.NewPCG(1, 1))
	did := map[string]int{}
	for range 20 {
		require.NoError(t, f.feed(f.feeding.Add(time.Duration(len(f.ids))*time.Second)))
		what, born, err := f.reshard(r)
		require.NoError(t, err)
		did[what] += len(born)
	}
	require.Len(t, f.ids, 2+did["split"]+did["merge"])
	require.Positive(t, did["merge"])
	shards, err := f.aws.Shards(stream)
	require.NoError(t, err)
	open := slices.DeleteFunc(shards, awsfake.Shard.Closed)
	require.LessOrEqual(t, len(open), mostOpen)
	for _, id := range f.ids {
		require.NoError(t, f.take(report{from: m, line: id + " " + f.last[id], at: time.Now()}), "records of every shard are taken")
	}
}

func TestBirthsAreToldApartByTheirReaders(t *testing.T) {
	f, one := rig(t, nil)
	two, lost := &member{kind: ours}, &member{kind: ours, lost: time.Now()}
	at := func(ms int, by *member) sighting {
		return sighting{time.Now().Add(time.Duration(ms) * time.Millisecond), by}
	}
	f.firsts = map[string]sighting{"same": at(500, one), "other": at(900, one), "lost": at(9000, one)}
	f.lasts = map[string]sighting{"a": at(0, one), "b": at(400, two), "c": at(0, lost)}
	var sh sheet
	f.tellBirths(&sh, []birth{{"same", []string{"a"}}, {"other", []string{"a", "b"}}, {"lost", []string{"c"}}, {"silent", []string{"a"}}})
	var told []string
	for _, r := range sh.rows {
		told = append(told, r.measured)
	}
	require.Equal(t, []string{"0.50 s", "0.50 s", "0.50 s", "0.50 s", "2"}, told)
}

func TestFeedKeepsTheRate(t *testing.T) {
	f, _ := rig(t, nil)
	f.rate = 10
	require.NoError(t, f.feed(time.Now()))
	require.Zero(t, f.ledger.In(), "not started")
	f.start()
	require.NoError(t, f.feed(f.feeding.Add(1500*time.Millisecond)))
	require.Equal(t, 30, f.ledger.In())
	for _, id := range f.ids {
		records, err := f.aws.Records(stream, id)
		require.NoError(t, err)
		require.Len(t, records, 15)
	}
}

func TestLogbookCountsMessagesWithoutWhatDiffers(t *testing.T) {
	b := newLogbook()
	w := b.of(builtin)
	for _, text := range []string{
		`level=info msg="Launching 1"` + "\n",
		`level=error msg="shard shardId-000000000001 failed: \"no\"" @service=benthos` + "\nlevel=err",
		`or msg="shard shardId-000000000002 failed: \"no\"" label=""` + "\n",
		"panic: oh\n",
	} {
		_, err := w.Write([]byte(text))
		require.NoError(t, err)
	}
	require.Equal(t, []tally{
		{entry{builtin, "error", `"shard # failed: \"no\""`}, 2},
		{entry{builtin, "unknown", "panic: oh"}, 1},
	}, b.tallies())
}

func TestUsageIsReadBehindTheName(t *testing.T) {
	u, err := parseStat("7 (a) b (c)) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 9 0 100 1000000 300 0 0\n")
	require.NoError(t, err)
	require.Equal(t, usage{cpu: 3 * time.Second, rss: 300 * os.Getpagesize()}, u)
	_, err = parseStat("7 (a) S 1")
	require.ErrorContains(t, err, "2 fields")

	u, err = usageOf(os.Getpid())
	require.NoError(t, err)
	require.Greater(t, u.rss, 1<<20)
}

func TestSheetTellsPromisesFromGoals(t *testing.T) {
	var sh sheet
	sh.within("slow", 3*time.Second, 2*time.Second, nil)
	sh.within("never", time.Second, 2*time.Second, errLate)
	sh.within("quick", time.Second, 2*time.Second, nil)
	sh.below("large", 7, 6, "%.1f")
	sh.none("repeats", 0)
	require.NoError(t, sh.err(), "a goal that is not met is no failure")
	sh.atMost("losses", 3, 2)
	require.ErrorContains(t, sh.err(), "losses: 3")
	require.Equal(t, map[string]string{
		"slow": "not met", "never": "not met", "quick": "met", "large": "not met", "repeats": "kept", "losses": "BROKEN",
	}, verdicts(&sh))

	var out bytes.Buffer
	require.NoError(t, sh.print(&out))
	require.Contains(t, out.String(), "not in 1.00 s")
}

func TestScenariosAreChosenByName(t *testing.T) {
	names := func(text string, o options) []string {
		chosen, err := choose(text, o)
		require.NoError(t, err)
		var names []string
		for _, s := range chosen {
			names = append(names, s.name)
		}
		return names
	}
	require.Equal(t, []string{"kill", "join"}, names("kill,join", options{}))
	require.NotContains(t, names("all", options{}), "mixed")
	require.Contains(t, names("all", options{programs: map[string]string{builtin: "x"}}), "mixed")

	for text, want := range map[string]string{"mixed": "give -builtin", "nap": "none of this name"} {
		require.ErrorContains(t, run(t.Context(), &bytes.Buffer{}, text, options{}), want)
	}
	require.ErrorContains(t, run(t.Context(), &bytes.Buffer{}, "term", options{programs: map[string]string{ours: "no-such-program"}}), "starting no-such-program")
}
