// Command dist makes what a release consists of: an archive for each platform with a
// static binary, a list of the modules in it (CycloneDX), and the checksums of all. The
// same sources, built by the same Go release, make the same bytes, wherever and whenever.
package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

const name = "benthos-kinesis"

// platforms are those of a release, as GOOS/GOARCH.
var platforms = []string{
	"darwin/amd64", "darwin/arm64", "linux/amd64", "linux/arm64", "windows/amd64", "windows/arm64",
}

// documents go into each archive.
var documents = []string{"CHANGELOG.md", "LICENSE", "README.md"}

func main() {
	log.SetFlags(0)
	r := release{}
	flag.StringVar(&r.source, "source", ".", "the root of the sources")
	flag.StringVar(&r.out, "out", "bin/dist", "the directory to write to, which is emptied first")
	flag.StringVar(&r.version, "version", "", "the version; that of git without it")
	seconds := flag.String("epoch", os.Getenv("SOURCE_DATE_EPOCH"), "the time of all files, in seconds since 1970; that of the commit without it")
	flag.StringVar(&r.cyclonedx, "cyclonedx", "", "the program cyclonedx-gomod; no lists of modules without it")
	targets := flag.String("platforms", strings.Join(platforms, ","), "the platforms, as GOOS/GOARCH")
	flag.Parse()
	r.platforms = strings.Split(*targets, ",")
	if err := r.run(context.Background(), *seconds); err != nil {
		log.Fatalf("dist: %v", err)
	}
}

// release is one that is being made.
type release struct {
	source, out, version, cyclonedx string
	platforms                       []string
	date                            time.Time
	files                           []string // of out, in the order in which they are made
}

// run makes the release; seconds are the time of its files, empty for that of the commit.
func (r *release) run(ctx context.Context, seconds string) (err error) {
	if r.version == "" {
		if r.version, err = r.git(ctx, "describe", "--tags", "--always", "--dirty"); err != nil {
			return fmt.Errorf("finding the version, which -version may say: %w", err)
		}
	}
	if seconds == "" {
		if seconds, err = r.git(ctx, "log", "-1", "--format=%ct"); err != nil {
			return fmt.Errorf("finding the time of the commit, which -epoch may say: %w", err)
		}
	}
	epoch, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return fmt.Errorf("reading the time of the commit: %w", err)
	}
	r.date = time.Unix(epoch, 0).UTC()
	if err := errors.Join(os.RemoveAll(r.out), os.MkdirAll(r.out, 0o755)); err != nil {
		return err
	}
	for _, platform := range r.platforms {
		if err := r.make(ctx, platform); err != nil {
			return fmt.Errorf("making %s: %w", platform, err)
		}
	}
	return r.sums()
}

func (r *release) git(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, "git", append([]string{"-C", r.source}, args...)...).Output()
	return strings.TrimSpace(string(out)), err
}

// make makes the archive of a platform and the list of its modules.
func (r *release) make(ctx context.Context, platform string) error {
	system, arch, ok := strings.Cut(platform, "/")
	if !ok {
		return errors.New("a platform is GOOS/GOARCH, such as linux/amd64")
	}
	dir, err := os.MkdirTemp("", name)
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a directory for temporary files
	binary := filepath.Join(dir, name)
	if system == "windows" {
		binary += ".exe"
	}
	if err := r.build(ctx, system, arch, binary); err != nil {
		return err
	}
	base := strings.Join([]string{name, strings.TrimPrefix(r.version, "v"), system, arch}, "_")
	if err := r.list(ctx, binary, base+".cdx.json"); err != nil {
		return err
	}
	content, err := os.ReadFile(binary)
	if err != nil {
		return err
	}
	entries := []entry{{filepath.Base(binary), content, 0o755}}
	for _, document := range documents {
		content, err := os.ReadFile(filepath.Join(r.source, document))
		if err != nil {
			return err
		}
		entries = append(entries, entry{document, content, 0o644})
	}
	archive, pack := base+".tar.gz", tarball
	if system == "windows" {
		archive, pack = base+".zip", zipped
	}
	var packed bytes.Buffer
	if err := pack(&packed, base, entries, r.date); err != nil {
		return fmt.Errorf("packing %s: %w", archive, err)
	}
	fmt.Printf("%-50s %5.1f MB, of it the binary %5.1f MB before packing\n", archive, float64(packed.Len())/1e6, float64(len(entries[0].content))/1e6)
	return r.write(archive, packed.Bytes())
}

// build builds the binary of a platform. What the Go tool would write into it of the
// repository depends on which part of it is there: version and date are said instead.
func (r *release) build(ctx context.Context, system, arch, binary string) error {
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false",
		"-ldflags", "-s -w -X main.version="+r.version+" -X main.date="+r.date.Format(time.RFC3339),
		"-o", binary, "./cmd/"+name)
	build.Dir = r.source
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+system, "GOARCH="+arch,
		"GOFLAGS=", "GOEXPERIMENT=", "GOAMD64=v1", "GOARM64=v8.0", "GOFIPS140=off", "GOWORK=off")
	build.Stderr = os.Stderr
	return build.Run()
}

// list writes which modules a binary has been made of.
func (r *release) list(ctx context.Context, binary, file string) error {
	if r.cyclonedx == "" {
		return nil
	}
	list := exec.CommandContext(ctx, r.cyclonedx, "bin", "-json", "-noserial", "-notimestamp", "-version", r.version,
		"-output", filepath.Join(r.out, file), binary)
	list.Stderr = os.Stderr
	if err := list.Run(); err != nil {
		return fmt.Errorf("listing the modules: %w", err)
	}
	content, err := os.ReadFile(filepath.Join(r.out, file))
	if err != nil {
		return err
	}
	if content, err = withoutHashesOfTools(content); err != nil {
		return fmt.Errorf("reading the list of modules: %w", err)
	}
	return r.write(file, content)
}

// withoutHashesOfTools takes out of a list what depends on the machine that the program
// which made the list was built on.
func withoutHashesOfTools(list []byte) ([]byte, error) {
	var whole map[string]any
	if err := json.Unmarshal(list, &whole); err != nil {
		return nil, err
	}
	metadata, _ := whole["metadata"].(map[string]any)
	tools, ok := metadata["tools"].([]any)
	if !ok {
		return nil, errors.New("it does not say what made it")
	}
	for _, tool := range tools {
		if named, ok := tool.(map[string]any); ok {
			delete(named, "hashes")
		}
	}
	return json.MarshalIndent(whole, "", "  ")
}

func (r *release) write(file string, content []byte) error {
	r.files = append(r.files, file)
	return os.WriteFile(filepath.Join(r.out, file), content, 0o644)
}

// sums writes the checksums of all files, as `sha256sum --check` reads them.
func (r *release) sums() error {
	var sums strings.Builder
	for _, file := range slices.Sorted(slices.Values(r.files)) {
		content, err := os.ReadFile(filepath.Join(r.out, file))
		if err != nil {
			return err
		}
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(content), file)
	}
	return r.write("SHA256SUMS", []byte(sums.String()))
}

// entry is a file of an archive.
type entry struct {
	name    string
	content []byte
	mode    fs.FileMode
}

// tarball packs entries, all below one directory, owned by root and of one time.
func tarball(to *bytes.Buffer, dir string, entries []entry, date time.Time) error {
	compressed, err := gzip.NewWriterLevel(to, gzip.BestCompression)
	if err != nil {
		return err
	}
	archive := tar.NewWriter(compressed)
	for _, e := range entries {
		header := &tar.Header{
			Typeflag: tar.TypeReg, Name: path.Join(dir, e.name), Size: int64(len(e.content)), Mode: int64(e.mode),
			ModTime: date, Uname: "root", Gname: "root", Format: tar.FormatUSTAR,
		}
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		if _, err := archive.Write(e.content); err != nil {
			return err
		}
	}
	return errors.Join(archive.Close(), compressed.Close())
}

// zipped packs entries as tarball does.
func zipped(to *bytes.Buffer, dir string, entries []entry, date time.Time) error {
	archive := zip.NewWriter(to)
	for _, e := range entries {
		header := &zip.FileHeader{Name: path.Join(dir, e.name), Method: zip.Deflate, Modified: date}
		header.SetMode(e.mode)
		w, err := archive.CreateHeader(header)
		if err != nil {
			return err
		}
		if _, err := w.Write(e.content); err != nil {
			return err
		}
	}
	return archive.Close()
}
