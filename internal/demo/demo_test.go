package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/benthos-plugins/aws-kinesis/internal/awsfake"
	"github.com/benthos-plugins/aws-kinesis/internal/measure/trial"
	"github.com/benthos-plugins/aws-kinesis/internal/measure/verify"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The pipeline is that of the demonstration, and drops one record. `make run`
// itself shows that the story passes otherwise.
func TestRecordThatThePipelineLosesFails(t *testing.T) {
	program := filepath.Join(t.TempDir(), "benthos-kinesis")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "../../cmd/benthos-kinesis").CombinedOutput()
	require.NoError(t, err, string(out))

	honest, err := os.ReadFile("../../docs/examples/quickstart.yaml")
	require.NoError(t, err)
	lossy := strings.Replace(string(honest), "\noutput:", `    - mapping: |
        root = if content().string().contains("\"record\":100,") { deleted() }

output:`, 1)
	require.NotEqual(t, string(honest), lossy)
	config := filepath.Join(t.TempDir(), "lossy.yaml")
	require.NoError(t, os.WriteFile(config, []byte(lossy), 0o600))

	var told bytes.Buffer
	err = run(t.Context(), &screen{out: &told}, options{benthos: program, config: config})
	require.ErrorContains(t, err, "1 records missing", told.String())
	require.Regexp(t, `\n  missing: shardId-\d{12} \d+$`, err.Error())
	require.Regexp(t, `\nmissing +1\n`, told.String())
	require.Contains(t, told.String(), "B is killed by SIGKILL")
	require.Contains(t, told.String(), "C has ended too\n")
	require.NotContains(t, told.String(), "Every record came out")
}

func TestLineOfTheOutputNamesItsRecord(t *testing.T) {
	for line, want := range map[string]verify.ID{
		`shardId-000000000001 49590 {"record":1} and more`: {Shard: "shardId-000000000001", Sequence: "49590"},
		`shardId-000000000001 49590`:                       {Shard: "shardId-000000000001", Sequence: "49590"},
	} {
		id, ok := parse(line)
		require.True(t, ok, line)
		require.Equal(t, want, id)
	}
	for _, line := range []string{"", "shardId-000000000001", "shardId-000000000001 ", `level=info msg="Launching"`} {
		_, ok := parse(line)
		require.False(t, ok, line)
	}
}

func TestSummaryShowsACheckpointThatIsBehind(t *testing.T) {
	var out bytes.Buffer
	summary(&out, trial.Result{
		Report: verify.Report{In: 3, Out: 2, Missing: 1},
		Shards: []trial.Shard{
			{ID: "shardId-000000000000", Records: 2, Last: "12", Stored: "12"},
			{ID: "shardId-000000000001", Records: 1, Last: "13", Stored: ""},
		},
	}, func(string) string { return "A, B" })
	require.Regexp(t, `missing +1\n`, out.String())
	require.Regexp(t, `0000 +2  A, B +at its last record\n`, out.String())
	require.Contains(t, out.String(), "none, NOT at its last record, 13\n")
}

func TestSummaryTellsRepeatsThatAKillExcusesFromOthers(t *testing.T) {
	var out bytes.Buffer
	summary(&out, trial.Result{Report: verify.Report{In: 9, Out: 14, Repeats: 5, Phases: []verify.Phase{
		{Name: "start", Out: 9},
		{Name: "kill of B", Out: 5, Repeats: 5, Allowed: 4, Unexcused: 2},
	}}}, nil)
	require.Regexp(t, `\nrepeated +3  not committed at the kill of B\n`, out.String())
	require.Regexp(t, `\nrepeated though committed +2\n`, out.String())
}

func TestShardsAreNamedByTheirNumbers(t *testing.T) {
	require.Equal(t, "no shard", shardWords(nil))
	require.Equal(t, "shard 0", shardWords([]string{"shardId-000000000000"}))
	require.Equal(t, "shards 0, 7 and 120", shardWords([]string{"shardId-000000000000", "shardId-000000000007", "shardId-000000000120"}))
}

// newGroup returns a stage on which A and B read a shard each and have printed two
// records of it, of which the first is committed.
func newGroup() (s *stage, a, b *process) {
	a, b = &process{name: "A"}, &process{name: "B"}
	s = &stage{
		screen:    &screen{out: &bytes.Buffer{}},
		leases:    newLeases(),
		ledger:    verify.New("start"),
		processes: []*process{a, b},
		readers:   map[string][]*process{},
	}
	for i, p := range s.processes {
		s.leases.write(awsfake.Write{Key: key(members, p.name+"1"), After: awsfake.Item{}})
		s.follow()
		shard := []string{"shardId-000000000000", "shardId-000000000001"}[i]
		s.leases.write(awsfake.Write{Key: key(stream, shard), After: awsfake.Item{
			"ClientID": awsfake.String(p.name + "1"), "SequenceNumber": awsfake.String("10"),
		}})
		for _, sequence := range []string{"10", "11"} {
			s.ledger.Put(p.name, verify.ID{Shard: shard, Sequence: sequence})
			s.ledger.See(verify.ID{Shard: shard, Sequence: sequence})
		}
		s.readers[shard] = []*process{p}
	}
	return s, a, b
}

func key(stream, shard string) awsfake.Item {
	return awsfake.Item{"StreamID": awsfake.String(stream), "ShardID": awsfake.String(shard)}
}

func TestWhoReadsAShardHasItsLeaseAndPrintedItsLastRecord(t *testing.T) {
	s, a, b := newGroup()
	require.Equal(t, []string{"shardId-000000000000"}, s.readBy(a))
	require.Equal(t, []string{"shardId-000000000001"}, s.readBy(b))

	s.leases.write(awsfake.Write{Key: key(stream, "shardId-000000000001"), After: awsfake.Item{
		"ClientID": awsfake.String("A1"), "SequenceNumber": awsfake.String("11"),
	}})
	require.Empty(t, s.readBy(b))
	require.Len(t, s.readBy(a), 1, "it has printed nothing of the other one")
}

func TestKillExcusesWhatItsVictimHadNotCommittedAndNothingElse(t *testing.T) {
	s, _, b := newGroup()
	require.Equal(t, 1, s.excuse("kill of B", b))
	s.ledger.See(verify.ID{Shard: "shardId-000000000001", Sequence: "11"})
	require.NoError(t, s.result().Err())

	s.ledger.See(verify.ID{Shard: "shardId-000000000001", Sequence: "10"})
	require.ErrorContains(t, s.result().Err(), "1 records came out again after the kill of B although a checkpoint covered them")
	s, _, b = newGroup()
	s.excuse("kill of B", b)
	s.ledger.See(verify.ID{Shard: "shardId-000000000000", Sequence: "11"})
	require.ErrorContains(t, s.result().Err(), "1 repeats after the kill of B beyond")
}

func TestProcessThatWasEvictedWhileItLivesJoinsAnew(t *testing.T) {
	s, a, b := newGroup()
	s.evict("A1")
	s.leases.write(awsfake.Write{Key: key(members, "A2"), After: awsfake.Item{}})
	s.follow()
	require.Equal(t, []string{"A2", "B1"}, []string{a.id, b.id})
	require.Contains(t, s.screen.out.(*bytes.Buffer).String(), "A stood still")
}

// B has claimed the shard before the eviction is heard of, and prints before and
// after A does.
func TestStandstillExcusesWhatWasReadBeforeIt(t *testing.T) {
	s, a, b := newGroup()
	const shard = "shardId-000000000000"
	for _, sequence := range []string{"12", "13"} {
		s.ledger.Put("A", verify.ID{Shard: shard, Sequence: sequence})
	}
	s.evict("A1")
	s.leases.write(awsfake.Write{Key: key(stream, shard), After: awsfake.Item{
		"ClientID": awsfake.String("B1"), "SequenceNumber": awsfake.String("10"),
	}})
	for _, r := range []report{{from: b, line: shard + " 11"}, {from: b, line: shard + " 12"}, {from: a, line: shard + " 12"}, {from: a, line: shard + " 13"}, {from: b, line: shard + " 13"}} {
		require.NoError(t, s.take(t.Context(), r))
	}
	require.Equal(t, 3, s.result().Repeats)
	require.NoError(t, s.result().Err())

	require.NoError(t, s.take(t.Context(), report{from: b, line: shard + " 10"}))
	require.ErrorContains(t, s.result().Err(), "1 records came out again after the standstill of A although a checkpoint covered them")
}

func (s *stage) evict(id string) {
	s.leases.write(awsfake.Write{Key: key(members, id), Before: awsfake.Item{}, After: awsfake.Item{"LeaseTimeout": awsfake.String(evicted)}})
}

func TestEndOfAProcessThatNobodyToldFails(t *testing.T) {
	s, a, b := newGroup()
	b.told = syscall.SIGTERM
	require.NoError(t, s.take(t.Context(), report{from: b, gone: true}))
	require.EqualError(t, s.take(t.Context(), report{from: a, gone: true}), "A ended by itself: exit status 0")
}

func TestOutputElsewhereThanOnATerminalIsLines(t *testing.T) {
	var out bytes.Buffer
	s := &screen{out: &out}
	s.show(liveLine{good, "live"})
	s.say(bad, "said")
	s.show()
	require.Equal(t, "said\n", out.String())
}

func TestLiveLinesStandBelowWhatIsSaidAndAreCutToTheWidth(t *testing.T) {
	var out bytes.Buffer
	s := &screen{out: &out, width: func() int { return 11 }}
	s.show(liveLine{good, "0123456789 and more"}, liveLine{plain, "b"})
	require.Equal(t, "0123456789\nb\n", out.String())

	out.Reset()
	s.show(liveLine{good, "0123456789 and more"}, liveLine{plain, "b"})
	require.Empty(t, out.String(), "nothing has changed")
	s.say(bad, "said")
	require.Equal(t, "\x1b[2A\x1b[Jsaid\n0123456789\nb\n", out.String())

	out.Reset()
	s.show()
	require.Equal(t, "\x1b[2A\x1b[J", out.String())
}

func TestColoursAreThoseOfATerminalThatWantsThem(t *testing.T) {
	for coloured, want := range map[bool]string{true: "\x1b[31msaid\x1b[0m\n", false: "said\n"} {
		var out bytes.Buffer
		s := &screen{out: &out, width: func() int { return 80 }, coloured: coloured}
		s.say(bad, "said")
		require.Equal(t, want, out.String())
	}
}

func TestOutputThatNobodyReadsEndsTheStory(t *testing.T) {
	r, w, err := os.Pipe()
	require.NoError(t, err)
	require.NoError(t, r.Close())
	s := newScreen(w)
	require.Nil(t, s.width, "a pipe is no terminal")
	s.say(plain, "said")
	require.ErrorContains(t, s.err, "writing the output")
	require.NoError(t, w.Close())
}
