package trial_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/benthos-plugins/aws-kinesis/internal/measure/trial"
	"github.com/benthos-plugins/aws-kinesis/internal/measure/verify"
)

// The test binary is the program under trial as well.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "read" {
		if err := runReader(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	// Programs that the race detector watches otherwise take a second to end.
	if err := os.Setenv("GORACE", "atexit_sleep_ms=0"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// run has a reader of the given manner take a few hundred records, with a split
// and a stop by the signal on the way.
func run(t *testing.T, manner string, signal syscall.Signal) (trial.Result, []trial.Event, error) {
	t.Helper()
	program, err := os.Executable()
	require.NoError(t, err)
	var events []trial.Event
	plan := trial.Plan{
		Program: program,
		Args:    []string{"read", manner},
		Shards:  3,
		Keys:    10,
		Records: 600,
		Payload: func(int, string) []byte { return []byte("data") },
		Every:   time.Millisecond,
		Burst:   2,
		Ahead:   600,
		Parse: func(line string) (verify.ID, bool) {
			shard, sequence, ok := strings.Cut(line, " ")
			return verify.ID{Shard: shard, Sequence: sequence}, ok
		},
		Split:   150,
		Stops:   []trial.Stop{{After: 250, Signal: signal}},
		Stall:   20 * time.Second,
		Observe: func(e trial.Event) { events = append(events, e) },
	}
	if manner == loser || manner == silent {
		plan.Stall = 2 * time.Second
	}
	result, err := trial.Run(t.Context(), plan)
	return result, events, err
}

func TestHonestReaderPasses(t *testing.T) {
	result, events, err := run(t, honest, syscall.SIGTERM)
	require.NoError(t, err)
	require.NoError(t, result.Err())
	require.Equal(t, 600, result.In)
	require.Equal(t, 600, result.Out)
	require.Len(t, result.Phases, 2)

	kinds := map[trial.Kind]int{}
	for _, e := range events {
		kinds[e.Kind]++
	}
	require.Equal(t, map[trial.Kind]int{
		trial.Listening: 1,
		trial.Started:   2,
		trial.Output:    600,
		trial.Split:     1,
		trial.Stopping:  2,
		trial.Stopped:   2,
	}, kinds)
}

// It stores nothing before its end, so that all it printed may come again.
func TestRepeatsAfterAKillPass(t *testing.T) {
	result, _, err := run(t, honest, syscall.SIGKILL)
	require.NoError(t, err)
	require.NoError(t, result.Err())
	require.GreaterOrEqual(t, result.Repeats, 250)
	require.Equal(t, result.Phases[1].Allowed, result.Repeats)
}

func TestMissingRecordFails(t *testing.T) {
	result, _, err := run(t, loser, syscall.SIGTERM)
	require.ErrorContains(t, err, "let no record out for 2s")
	require.Positive(t, result.Missing)
	require.ErrorContains(t, result.Err(), "records missing")
}

func TestDisorderFails(t *testing.T) {
	result, _, err := run(t, shuffler, syscall.SIGTERM)
	require.NoError(t, err)
	require.ErrorContains(t, result.Err(), "before an earlier record of their key")
}

func TestRepeatOfWhatACheckpointCoversFails(t *testing.T) {
	result, _, err := run(t, rewinder, syscall.SIGTERM)
	require.NoError(t, err)
	require.ErrorContains(t, result.Err(), "again after the SIGTERM although a checkpoint covered them")
	require.ErrorContains(t, result.Err(), "repeats after a SIGTERM, which leaves nothing unacknowledged")
}

func TestCheckpointThatIsNotStoredFails(t *testing.T) {
	result, _, err := run(t, forgetful, syscall.SIGTERM)
	require.NoError(t, err)
	require.ErrorContains(t, result.Err(), `the stored checkpoint is ""`)
}

func TestLeaseThatIsNotReleasedFails(t *testing.T) {
	result, _, err := run(t, holder, syscall.SIGTERM)
	require.NoError(t, err)
	require.ErrorContains(t, result.Err(), "the table names the owner reader, who has ended")
}

func TestProcessThatEndsByItselfFailsWithItsLog(t *testing.T) {
	_, _, err := run(t, quitter, syscall.SIGTERM)
	require.ErrorContains(t, err, "ended by itself, with 49 of")
	require.ErrorContains(t, err, "exit status 1")
	require.ErrorContains(t, err, "| enough of it")
}

func TestProcessThatDoesNotStopCleanlyFails(t *testing.T) {
	_, _, err := run(t, deaf, syscall.SIGTERM)
	require.ErrorContains(t, err, "did not stop cleanly: exit status 1")
	require.ErrorContains(t, err, "| too busy to stop")
}

func TestSilentProcessFailsInTime(t *testing.T) {
	start := time.Now()
	_, _, err := run(t, silent, syscall.SIGTERM)
	require.ErrorContains(t, err, "let no record out for 2s, with 0 of")
	require.Less(t, time.Since(start), 10*time.Second)
}

func TestEndOfTheContextEndsTheProcess(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	program, err := os.Executable()
	require.NoError(t, err)
	_, err = trial.Run(ctx, trial.Plan{
		Program: program,
		Args:    []string{"read", honest},
		Shards:  1,
		Keys:    1,
		Records: 1_000_000,
		Payload: func(int, string) []byte { return []byte("data") },
		Every:   time.Millisecond,
		Burst:   1,
		Ahead:   1000,
		Parse:   func(line string) (verify.ID, bool) { return verify.ID{Shard: line}, true },
		Stall:   10 * time.Second,
		Observe: func(e trial.Event) {
			if e.Kind == trial.Output {
				cancel()
			}
		},
	})
	require.ErrorIs(t, err, context.Canceled)
}
