// Package node runs what others wrote for Node.js. `make integration` installs it.
package node

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/integration/child"
)

// Start runs node with args in a folder; see child.Start. preload.cjs ends it with
// the process of the test.
func Start(t testing.TB, dir string, env []string, line func(string), args ...string) *child.Process {
	t.Helper()
	preload := filepath.Join(child.Folder(t), "node", "preload.cjs")
	return child.Start(t, dir, env, line, "node", append([]string{"--require", preload}, args...)...)
}

// Package returns the folder of an installed package.
func Package(t testing.TB, name string) string {
	t.Helper()
	dir := filepath.Join(child.Folder(t), "node_modules", filepath.FromSlash(name))
	require.DirExists(t, dir, "not installed: run the tests by `make integration`")
	return dir
}
