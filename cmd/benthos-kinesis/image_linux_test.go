package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// image is the last stage of the Dockerfile.
type image struct {
	copies                 map[string]string // from the path in the stage before
	user                   int
	entrypoint, cmd, check []string
}

func readDockerfile(t *testing.T) image {
	t.Helper()
	content, err := os.ReadFile("../../Dockerfile")
	require.NoError(t, err)
	_, stage, found := strings.Cut(string(content), "\nFROM scratch\n")
	require.True(t, found)
	list := func(instruction string) (entries []string) {
		m := regexp.MustCompile(`(?m)^` + instruction + ` (\[.*\])$`).FindStringSubmatch(stage)
		require.NotNil(t, m, instruction)
		require.NoError(t, json.Unmarshal([]byte(m[1]), &entries))
		return entries
	}
	im := image{copies: map[string]string{}, entrypoint: list("ENTRYPOINT"), cmd: list("CMD"), check: list("HEALTHCHECK .* CMD")}
	for _, m := range regexp.MustCompile(`(?m)^COPY --from=build (\S+) (\S+)$`).FindAllStringSubmatch(stage, -1) {
		im.copies[m[1]] = m[2]
	}
	m := regexp.MustCompile(`(?m)^USER (\d+):(\d+)$`).FindStringSubmatch(stage)
	require.NotNil(t, m)
	require.Equal(t, m[1], m[2])
	im.user, err = strconv.Atoi(m[1])
	require.NoError(t, err)
	return im
}

// within runs a command in a root directory of its own as the image's user. Who is not
// root has that user in a namespace.
func (im image) within(t *testing.T, root string, vars []string, command ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
	cmd.Dir = "/"
	cmd.Env = vars
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: uint32(im.user), Gid: uint32(im.user)}}
	if os.Getuid() != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Chroot: root, Cloneflags: syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: im.user, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: im.user, HostID: os.Getgid(), Size: 1}},
		}
	}
	return cmd
}

// TestImageHasAllThatItsProgramNeeds lays out what the Dockerfile copies, and no more, with
// the certificate of the local AWS in place of those of authorities, and reads a stream
// over TLS there. It stands for an engine, which not every machine has.
func TestImageHasAllThatItsProgramNeeds(t *testing.T) {
	r := newRig(t)
	at, ca, err := r.aws.ListenTLS()
	require.NoError(t, err)
	require.NoError(t, r.aws.CreateStream("orders", 2))
	want := r.put("orders", 0, 20)

	im := readDockerfile(t)
	root := t.TempDir()
	require.NoError(t, os.Chmod(root, 0o755))
	lay := func(path string, content []byte, mode os.FileMode) {
		path = filepath.Join(root, path)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, content, mode))
		require.NoError(t, os.Chmod(path, mode))
	}
	binary, err := os.ReadFile(program)
	require.NoError(t, err)
	for from, to := range im.copies {
		switch filepath.Base(from) {
		case "benthos-kinesis":
			lay(to, binary, 0o755)
		case "ca-certificates.crt":
			lay(to, ca, 0o644)
		default:
			require.Fail(t, "the image has something else", from)
		}
	}
	address := r.address()
	lay(im.cmd[1], []byte("http: { address: '"+address+"' }\ninput: { "+input("orders")+" }\noutput: { stdout: { codec: lines } }\n"), 0o644)

	vars := []string{"AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test", "ENDPOINT=" + at}
	cmd := im.within(t, root, vars, append(im.entrypoint, im.cmd...)...)
	out, log := &journal{}, &journal{}
	cmd.Stdout, cmd.Stderr = out, log
	require.NoError(t, cmd.Start())
	defer func() {
		require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
		require.NoError(t, cmd.Wait(), "%s", log)
	}()
	check := append([]string{im.check[0], im.check[1]}, strings.Replace(im.check[2], "127.0.0.1:4195", address, 1))
	r.await("health", func() bool { return im.within(t, root, nil, check...).Run() == nil })
	r.await("records", func() bool { return strings.Count(out.String(), "\n") >= len(want) })
	require.ElementsMatch(t, want, strings.Split(strings.TrimSpace(out.String()), "\n"))

	// Nobody answers there.
	check[2] = "http://127.0.0.1:1/ready"
	require.Error(t, im.within(t, root, nil, check...).Run())
}
