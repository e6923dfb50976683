// Package child runs programs that others wrote, each as a child process of the
// test that asks for it.
//
// A child ends with its test: killed by a cleanup of the test, or by itself when
// the process of the test is gone in any other way and its standard input closes.
// The second is what the programs are to do: node/preload.cjs, emulator/serve_moto.py and
// kcl/src/main/java/Reader.java see to it.
package child

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// Process is a running child. Start makes it; the end of its test ends it.
type Process struct {
	Exited <-chan struct{} // closed when it has ended and all that it printed was handed over
	err    error
	cmd    *exec.Cmd
}

// Err is how the child ended. It is valid once Exited is closed.
func (p *Process) Err() error { return p.err }

// Kill ends the child by SIGKILL, where there is that, and waits for it and for what it
// had printed.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it has ended already
	<-p.Exited
}

// Start runs a program in a folder, with env beside the environment of the test,
// and hands each line that it prints to line, which runs on one goroutine. A line that
// blocks holds up the child, and Kill.
func Start(t testing.TB, dir string, env []string, line func(string), program string, args ...string) *Process {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	_, err := cmd.StdinPipe() // closed by the end of this process, if by nothing else
	require.NoError(t, err)
	out, in := io.Pipe()
	cmd.Stdout, cmd.Stderr = in, in
	require.NoError(t, cmd.Start())

	// Owned by this goroutine: the child's output. It ends when the child does.
	done := make(chan struct{})
	go func() {
		defer close(done)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			line(lines.Text())
		}
		// An overlong line must not block the child on its next write.
		_, _ = io.Copy(io.Discard, out)
	}()
	exited := make(chan struct{})
	p := &Process{Exited: exited, cmd: cmd}
	go func() {
		defer close(exited)
		p.err = cmd.Wait()
		_ = in.Close() // never fails, by its documentation
		<-done
	}()
	t.Cleanup(func() {
		// t.Context was cancelled just before: exec has killed the child.
		<-exited
	})
	return p
}

// Folder returns internal/integration of the module in which the test runs:
// tests run in the folder of their package.
func Folder(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	require.NoError(t, err)
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return filepath.Join(dir, "internal", "integration")
		}
		require.NotEqual(t, filepath.Dir(dir), dir, "no go.mod above the test")
	}
}
