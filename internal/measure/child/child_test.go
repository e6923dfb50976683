package child_test

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/benthos-plugins/aws-kinesis/internal/measure/child"
)

// The test binary is the program as well: AS says which one.
func TestMain(m *testing.M) {
	if program := os.Getenv("AS"); program != "" {
		play(program)
		return
	}
	// Programs that the race detector watches otherwise take a second to end.
	if err := os.Setenv("GORACE", "atexit_sleep_ms=0"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

func play(program string) {
	switch program {
	case "printer":
		for n := range 10_000 {
			fmt.Println("line", n)
		}
	case "failure":
		for n := range 30 {
			fmt.Fprintln(os.Stderr, "log", n)
		}
		os.Exit(3)
	case "server":
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, syscall.SIGTERM)
		fmt.Println("ready")
		<-stop
		fmt.Println("stopped")
	case "cut":
		fmt.Print("whole\nha")
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
}

func start(t *testing.T, program string) *child.Process {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	p, err := child.Start(t.Context(), exe, nil, []string{"AS=" + program})
	require.NoError(t, err)
	t.Cleanup(p.Close)
	return p
}

func lines(p *child.Process) (all []string) {
	for line := range p.Lines() {
		all = append(all, line)
	}
	return all
}

func TestEveryLineArrivesInOrder(t *testing.T) {
	p := start(t, "printer")
	got := lines(p)
	require.NoError(t, p.Wait())
	require.Len(t, got, 10_000)
	for n, line := range got {
		require.Equal(t, fmt.Sprint("line ", n), line)
	}
}

func TestFailureIsReportedWithTheEndOfTheLog(t *testing.T) {
	p := start(t, "failure")
	require.Empty(t, lines(p))
	var exit *exec.ExitError
	require.ErrorAs(t, p.Wait(), &exit)
	require.Equal(t, 3, exit.ExitCode())
	require.Len(t, p.Log(), 20)
	require.Equal(t, "log 29", p.Log()[19])
}

func TestProgramThatIsSignalledEndsByItself(t *testing.T) {
	p := start(t, "server")
	require.Equal(t, "ready", <-p.Lines())
	require.NoError(t, p.Signal(syscall.SIGTERM))
	require.Equal(t, []string{"stopped"}, lines(p))
	require.NoError(t, p.Wait())
	require.NoError(t, p.Signal(syscall.SIGTERM))
}

func TestCloseEndsAProgramWhoseOutputNobodyTakes(t *testing.T) {
	p := start(t, "server")
	p.Close()
	_, open := <-p.Lines()
	require.False(t, open)
	p.Close()
}

func TestLineThatAKillCutIsNoLine(t *testing.T) {
	p := start(t, "cut")
	require.Equal(t, []string{"whole"}, lines(p))
	require.ErrorContains(t, p.Wait(), "killed")
}

func TestProgramThatIsMissingIsAnError(t *testing.T) {
	_, err := child.Start(t.Context(), "./no-such-program", nil, nil)
	require.ErrorContains(t, err, "starting ./no-such-program")
}
