package emulator

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/integration/child"
)

// Moto starts moto's server, for Kinesis and DynamoDB alike, and returns its URL. It
// is installed in a virtual environment of Python.
func Moto(t testing.TB) string {
	t.Helper()
	python := filepath.Join(child.Folder(t), ".venv", "bin", "python")
	require.FileExists(t, python, "not installed: run the tests by `make integration`")
	return await(t, "moto", func(hear func(string)) *child.Process {
		return child.Start(t, t.TempDir(), nil, hear, python, "-B", filepath.Join(child.Folder(t), "emulator", "serve_moto.py"))
	})
}
