package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// copied copies the sources into a directory of another name.
func copied(t *testing.T) string {
	t.Helper()
	to := t.TempDir()
	root := "../.."
	require.NoError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		require.NoError(t, err)
		if d.IsDir() {
			if slices.Contains([]string{".git", "bin", "node_modules", ".venv", "testdata", "benchmark-results"}, d.Name()) {
				return fs.SkipDir
			}
			return nil
		}
		within, err := filepath.Rel(root, path)
		require.NoError(t, err)
		if strings.HasSuffix(path, "_test.go") || !d.Type().IsRegular() {
			return nil
		}
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(to, within)), 0o755))
		return os.WriteFile(filepath.Join(to, within), content, 0o644)
	}))
	return to
}

// Of the machine's own platform, in two directories that have nothing of git.
func TestSameSourcesMakeTheSameBytes(t *testing.T) {
	sums := func() string {
		r := release{source: copied(t), out: filepath.Join(t.TempDir(), "out"), version: "v1.2.3", platforms: []string{runtime.GOOS + "/" + runtime.GOARCH}}
		require.NoError(t, r.run(t.Context(), "1764504000"))
		sums, err := os.ReadFile(filepath.Join(r.out, "SHA256SUMS"))
		require.NoError(t, err)
		if runtime.GOOS != "windows" {
			unpack := exec.CommandContext(t.Context(), "tar", "-xzf", strings.Fields(string(sums))[1])
			unpack.Dir = r.out
			require.NoError(t, unpack.Run())
			told, err := exec.CommandContext(t.Context(), filepath.Join(r.out, "benthos-kinesis_1.2.3_"+runtime.GOOS+"_"+runtime.GOARCH, name), "--version").Output()
			require.NoError(t, err)
			require.Equal(t, "Version: v1.2.3 (Benthos v4.27.0)\nDate: 2025-11-30T12:00:00Z\n", string(told))
		}
		return string(sums)
	}
	first := sums()
	require.Contains(t, first, "benthos-kinesis_1.2.3_"+runtime.GOOS+"_"+runtime.GOARCH)
	require.Equal(t, first, sums())
}

func TestArchivesHaveOneTimeAndOneOwner(t *testing.T) {
	date := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	entries := []entry{{"program", []byte("p"), 0o755}, {"LICENSE", []byte("l"), 0o644}}

	var packed bytes.Buffer
	require.NoError(t, tarball(&packed, "dir", entries, date))
	uncompressed, err := gzip.NewReader(&packed)
	require.NoError(t, err)
	require.Zero(t, uncompressed.ModTime)
	archive := tar.NewReader(uncompressed)
	for _, want := range entries {
		header, err := archive.Next()
		require.NoError(t, err)
		require.Equal(t, "dir/"+want.name, header.Name)
		require.True(t, header.ModTime.Equal(date))
		require.EqualValues(t, want.mode, header.Mode)
		require.Equal(t, [2]string{"root", "root"}, [2]string{header.Uname, header.Gname})
		require.Zero(t, header.Uid+header.Gid)
		content, err := io.ReadAll(archive)
		require.NoError(t, err)
		require.Equal(t, want.content, content)
	}
	_, err = archive.Next()
	require.ErrorIs(t, err, io.EOF)

	packed.Reset()
	require.NoError(t, zipped(&packed, "dir", entries, date))
	zipArchive, err := zip.NewReader(bytes.NewReader(packed.Bytes()), int64(packed.Len()))
	require.NoError(t, err)
	require.Len(t, zipArchive.File, len(entries))
	for i, want := range entries {
		file := zipArchive.File[i]
		require.Equal(t, "dir/"+want.name, file.Name)
		require.True(t, file.Modified.Equal(date))
		require.Equal(t, want.mode, file.Mode())
	}
}

func TestListsSayNothingOfTheMachine(t *testing.T) {
	list, err := withoutHashesOfTools([]byte(`{"metadata": {"tools": [{"name": "a", "hashes": [{"alg": "MD5"}]}]}, "components": [{"name": "b", "hashes": [1]}]}`))
	require.NoError(t, err)
	require.JSONEq(t, `{"metadata": {"tools": [{"name": "a"}]}, "components": [{"name": "b", "hashes": [1]}]}`, string(list))
	_, err = withoutHashesOfTools([]byte(`{}`))
	require.Error(t, err)
}
