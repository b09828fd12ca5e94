//go:build unix

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream/internal/rdmacheck"
	"github.com/novastream/novastream/rdma"
)

// cliEnv makes the test binary be the command itself.
const cliEnv = "NOVA_TEST_CLI"

func TestMain(m *testing.M) {
	switch os.Getenv(cliEnv) {
	case "":
		os.Exit(m.Run())
	case "corrupt":
		if len(os.Args) > 1 && os.Args[1] == "sender" {
			corruptSender()
		}
	}
	main()
}

// tool is the command in a runtime directory of its own.
type tool struct {
	t   *testing.T
	dir string
	env []string
}

func newTool(t *testing.T) *tool {
	dir, err := os.MkdirTemp("", "nt") // short, for a socket's path
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return &tool{t: t, dir: dir, env: append(os.Environ(), cliEnv+"=1", "NOVA_RUNTIME_DIR="+filepath.Join(dir, "run"))}
}

func (c *tool) cmd(args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	c.t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = c.env
	return cmd
}

// run runs the command to its end.
func (c *tool) run(args ...string) (stdout, stderr string, status int) {
	var out, errs bytes.Buffer
	cmd := c.cmd(args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	status = exitStatus(c.t, cmd.Run())
	return out.String(), errs.String(), status
}

func exitStatus(t *testing.T, err error) int {
	if err == nil {
		return 0
	}
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	return exit.ExitCode()
}

// clean tells that no node has left anything.
func (c *tool) clean() {
	c.t.Helper()
	left, err := os.ReadDir(filepath.Join(c.dir, "run"))
	require.NoError(c.t, err)
	require.Empty(c.t, left)
}

// receiver is a running nova recv.
type receiver struct {
	t      *testing.T
	cmd    *exec.Cmd
	handle string
	lines  *bufio.Scanner // of its standard error
	rest   []string
}

// recv starts nova recv and reads the handle that it prints.
func (c *tool) recv(stdout io.Writer, args ...string) *receiver {
	r := &receiver{t: c.t, cmd: c.cmd(append([]string{"recv"}, args...)...)}
	r.cmd.Stdout = stdout
	out, err := r.cmd.StderrPipe()
	require.NoError(c.t, err)
	require.NoError(c.t, r.cmd.Start())
	c.t.Cleanup(func() { _ = r.cmd.Process.Kill() })
	r.lines = bufio.NewScanner(out)
	require.True(c.t, r.lines.Scan())
	for _, word := range strings.Fields(r.lines.Text()) {
		if strings.HasPrefix(word, "nova:") {
			r.handle = word
		}
	}
	require.NotEmpty(c.t, r.handle, r.lines.Text())
	return r
}

// wait waits for its end, and answers what else it has printed.
func (r *receiver) wait() (stderr string, status int) {
	for r.lines.Scan() {
		r.rest = append(r.rest, r.lines.Text())
	}
	return strings.Join(r.rest, "\n"), exitStatus(r.t, r.cmd.Wait())
}

func randomFile(t *testing.T, dir string, size int) (path string, content []byte) {
	content = make([]byte, size)
	r := rand.NewChaCha8([32]byte{byte(size)})
	_, _ = r.Read(content)
	path = filepath.Join(dir, "in")
	require.NoError(t, os.WriteFile(path, content, 0o600))
	return path, content
}

func TestTransfer(t *testing.T) {
	for _, lane := range []string{"shm", "tcp"} {
		for _, from := range []string{"file", "stdin"} {
			t.Run(lane+" "+from, func(t *testing.T) {
				for _, size := range []int{0, 1, 5<<20 + 7} {
					c := newTool(t)
					in, want := randomFile(t, c.dir, size)
					out := filepath.Join(c.dir, "out")
					rx := c.recv(nil, "-o", out, "--lane", lane)
					tx := c.cmd("send", "--lane", lane, rx.handle, in)
					if from == "stdin" {
						tx = c.cmd("send", "--lane", lane, rx.handle, "-")
						tx.Stdin = bytes.NewReader(want)
					}
					said, err := tx.CombinedOutput()
					require.NoError(t, err, "%s", said)
					told, status := rx.wait()
					require.Zero(t, status, told)
					got, err := os.ReadFile(out)
					require.NoError(t, err)
					require.True(t, bytes.Equal(want, got))
					sum := sha256.Sum256(want)
					require.Contains(t, string(said), hex.EncodeToString(sum[:]))
					require.Contains(t, told, hex.EncodeToString(sum[:]))
					require.NotContains(t, string(said)+told, "\r", "a progress bar without a terminal")
					c.clean()
				}
			})
		}
	}
}

// The bytes alone are on the standard output.
func TestTransferThroughPipes(t *testing.T) {
	c := newTool(t)
	_, want := randomFile(t, c.dir, 3<<20)
	var got bytes.Buffer
	rx := c.recv(&got)
	tx := c.cmd("send", rx.handle, "-")
	tx.Stdin = io.MultiReader(bytes.NewReader(want[:10]), bytes.NewReader(want[10:]))
	said, err := tx.CombinedOutput()
	require.NoError(t, err, "%s", said)
	told, status := rx.wait()
	require.Zero(t, status, told)
	require.True(t, bytes.Equal(want, got.Bytes()))
}

// The two hosts of this test are two runtime directories.
func TestTransferByAddress(t *testing.T) {
	c, other := newTool(t), newTool(t)
	in, want := randomFile(t, c.dir, 1<<20)
	out := filepath.Join(c.dir, "out")
	rx := c.recv(nil, "-o", out, "--listen", "127.0.0.1:0")
	require.True(t, rx.lines.Scan())
	f := strings.Fields(rx.lines.Text()) // … nova send --addr ADDR HANDLE FILE
	require.Len(t, f, 9, rx.lines.Text())
	require.Equal(t, rx.handle, f[7])
	_, said, status := other.run("send", "--addr", f[6], rx.handle, in)
	require.Zero(t, status, said)
	told, status := rx.wait()
	require.Zero(t, status, told)
	got, err := os.ReadFile(out)
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, got))
}

// endless gives bytes until the test is over, and says when some were taken.
func endless(t *testing.T, cmd *exec.Cmd) (taken <-chan struct{}) {
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	half := make(chan struct{})
	go func() {
		_, _ = in.Write(make([]byte, 1<<20))
		close(half)
	}()
	t.Cleanup(func() { in.Close() })
	return half
}

func TestSenderKilledHalfWay(t *testing.T) {
	for _, lane := range []string{"shm", "tcp"} {
		c := newTool(t)
		out := filepath.Join(c.dir, "out")
		rx := c.recv(nil, "-o", out, "--lane", lane)
		tx := c.cmd("send", rx.handle, "--lane", lane, "-")
		half := endless(t, tx)
		require.NoError(t, tx.Start())
		<-half
		require.Eventually(t, func() bool { // some of it has arrived
			st, err := os.Stat(out)
			return err == nil && st.Size() > 0
		}, 20*time.Second, time.Millisecond)
		require.NoError(t, tx.Process.Kill())
		_ = tx.Wait()
		told, status := rx.wait()
		require.Equal(t, exitFailed, status)
		require.Contains(t, told, "killed")
		require.Contains(t, told, "Dropped")
		require.Regexp(t, `after \d+ bytes, which are not all`, told)
		require.NoFileExists(t, out)
	}
}

// A sender whose input gives nothing notices all the same that nobody receives.
func TestReceiverKilled(t *testing.T) {
	c := newTool(t)
	rx := c.recv(nil, "-o", filepath.Join(c.dir, "out"))
	tx := c.cmd("send", rx.handle, "-")
	half := endless(t, tx)
	var said bytes.Buffer
	tx.Stderr = &said
	require.NoError(t, tx.Start())
	<-half
	require.NoError(t, rx.cmd.Process.Kill())
	require.Equal(t, exitFailed, exitStatus(t, tx.Wait()))
	require.Contains(t, said.String(), "receiver has gone")
}

// Ctrl-C leaves nothing behind, whatever a command waits for.
func TestInterrupted(t *testing.T) {
	c := newTool(t)
	out := filepath.Join(c.dir, "out")
	rx := c.recv(nil, "-o", out)
	tx := c.cmd("send", rx.handle, "-")
	half := endless(t, tx)
	var said bytes.Buffer
	tx.Stderr = &said
	require.NoError(t, tx.Start())
	<-half
	require.NoError(t, tx.Process.Signal(os.Interrupt))
	require.Equal(t, exitFailed, exitStatus(t, tx.Wait()))
	require.Contains(t, said.String(), "interrupt")
	told, status := rx.wait()
	require.Equal(t, exitFailed, status)
	require.Contains(t, told, "Dropped")
	require.NoFileExists(t, out)
	c.clean()

	rx = c.recv(nil, "-o", out)
	require.FileExists(t, out)
	require.NoError(t, rx.cmd.Process.Signal(os.Interrupt))
	told, status = rx.wait()
	require.Equal(t, exitFailed, status)
	require.Contains(t, told, "interrupt")
	require.NoFileExists(t, out)
	c.clean()
}

// Whoever reads the output may go.
func TestOutputClosed(t *testing.T) {
	c := newTool(t)
	r, w, err := os.Pipe()
	require.NoError(t, err)
	rx := c.recv(w)
	w.Close()
	r.Close()
	in, _ := randomFile(t, c.dir, 1<<20)
	_, said, status := c.run("send", rx.handle, in)
	require.Equal(t, exitFailed, status, said)
	require.Contains(t, said, "broken pipe", "the sender is not told why")
	told, status := rx.wait()
	require.Equal(t, exitFailed, status)
	require.Contains(t, told, "broken pipe")
	c.clean()
}

func TestErrorsNameValueAndRemedy(t *testing.T) {
	c := newTool(t)
	file, _ := randomFile(t, c.dir, 10)
	nobody := "nova:00112233445566778899aabbccddeeff"
	rx := c.recv(nil, "-o", filepath.Join(c.dir, "out"))
	long := filepath.Join(c.dir, strings.Repeat("x", 120))
	open := filepath.Join(c.dir, "open")
	require.NoError(t, os.Mkdir(open, 0o700))
	require.NoError(t, os.Chmod(open, 0o777))
	for _, x := range []struct {
		name   string
		args   []string
		status int
		says   []string
	}{
		{"garbled handle", []string{"send", "nova:xyz", file}, exitFailed, []string{"nova:xyz", "32 hexadecimal digits"}},
		{"handle of zeros", []string{"send", "nova:" + strings.Repeat("0", 32), file}, exitFailed, []string{"all zero"}},
		{"unknown handle", []string{"send", nobody, file}, exitFailed, []string{nobody, "no such stream", "--dir", "--addr"}},
		{"folder", []string{"send", nobody, c.dir}, exitFailed, []string{c.dir, "folder", "tar c"}},
		{"no file", []string{"send", nobody, file + "x"}, exitFailed, []string{file + "x"}},
		{"existing output", []string{"recv", "-o", file}, exitFailed, []string{file, "exists", "another name"}},
		{"no folder for the output", []string{"recv", "-o", file + "x/y"}, exitFailed, []string{file + "x/y"}},
		{"no such lane", []string{"send", "--lane", "pigeon", rx.handle, file}, exitFailed, []string{"pigeon", "shm"}},
		{"lane of one process", []string{"send", "--lane", "local", rx.handle, file}, exitFailed, []string{"local", "another node"}},
		{"lane that the receiver lacks", []string{"send", "--lane", "tcp", rx.handle, file}, exitFailed, []string{"tcp", "--listen"}},
		{"nobody at the address", []string{"send", "--addr", "127.0.0.1:1", rx.handle, file}, exitFailed, []string{"127.0.0.1:1", "unreachable"}},
		{"TCP in the clear", []string{"recv", "--listen", "0.0.0.0:0"}, exitFailed, []string{"0.0.0.0:0", "loopback"}},
		{"timeout", []string{"recv", "--timeout", "50ms"}, exitFailed, []string{"no sender has come", "50ms"}},
		{"negative timeout", []string{"recv", "--timeout=-1s"}, exitFailed, []string{"--timeout -1s"}},
		{"directory too long", []string{"recv", "--dir", long}, exitFailed, []string{"107"}},
		{"directory open to others", []string{"recv", "--dir", open}, exitFailed, []string{open, "chmod 700"}},
		{"demo of nothing", []string{"demo", file + "x"}, exitFailed, []string{file + "x"}},
		{"demo of an empty folder", []string{"demo", open}, exitFailed, []string{open, "no file"}},
		{"unknown command", []string{"sned"}, exitUsage, []string{"sned"}},
		{"unknown shell", []string{"completion", "tcsh"}, exitUsage, []string{"tcsh", "bash"}},
	} {
		t.Run(x.name, func(t *testing.T) {
			_, said, status := c.run(x.args...)
			require.Equal(t, x.status, status, said)
			for _, s := range x.says {
				require.Contains(t, said, s)
			}
			if x.status == exitFailed {
				_, said, status := c.run(append([]string{"--json"}, x.args...)...)
				require.Equal(t, x.status, status)
				lines := strings.Split(strings.TrimSpace(said), "\n")
				var e struct{ Error string }
				require.NoError(t, json.Unmarshal([]byte(lines[len(lines)-1]), &e), said)
				require.NotEmpty(t, e.Error)
			}
		})
	}
	// None of it has disturbed the receiver; its handle is good for one transfer.
	_, said, status := c.run("send", rx.handle, file)
	require.Zero(t, status, said)
	told, status := rx.wait()
	require.Zero(t, status, told)
	_, said, status = c.run("send", rx.handle, file)
	require.Equal(t, exitFailed, status)
	require.Contains(t, said, rx.handle)
}

func TestJSON(t *testing.T) {
	c := newTool(t)
	in, want := randomFile(t, c.dir, 1000)
	sum := sha256.Sum256(want)
	rx := c.cmd("--json", "recv", "-o", filepath.Join(c.dir, "out"), "--lane", "tcp")
	rx.Stderr = os.Stderr
	out, err := rx.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, rx.Start())
	dec := json.NewDecoder(out)
	var first struct{ Handle, Addr string }
	require.NoError(t, dec.Decode(&first))
	require.NotEmpty(t, first.Addr)
	said, _, status := c.run("send", "--json", first.Handle, in)
	require.Zero(t, status)
	var sent, received transferResult
	require.NoError(t, json.Unmarshal([]byte(said), &sent))
	require.NoError(t, dec.Decode(&received))
	require.NoError(t, rx.Wait())
	for _, r := range []transferResult{sent, received} {
		require.Equal(t, int64(1000), r.Bytes)
		require.Equal(t, hex.EncodeToString(sum[:]), r.SHA256)
	}
	require.Equal(t, "tcp", sent.Lane) // although it was not asked for
	for _, args := range [][]string{{"doctor"}, {"version"}, {"completion", "bash"}} {
		said, _, status := c.run(append(args, "--json")...)
		require.Zero(t, status)
		require.True(t, json.Valid([]byte(said)), "%v: %s", args, said)
	}
}

func TestDoctor(t *testing.T) {
	c := newTool(t)
	said, _, status := c.run("doctor")
	require.Zero(t, status)
	for _, what := range []string{"kernel", "processors", "memfd", "membarrier", "descriptors", "mappings", "memory", "huge pages", "RDMA devices", "runtime directory"} {
		require.Contains(t, said, what)
	}
	text, _, _ := c.run("doctor", "--json")
	var d struct{ Findings []finding }
	require.NoError(t, json.Unmarshal([]byte(text), &d))
	require.NotEmpty(t, d.Findings)
	judged(t, said, d.Findings)
	c.clean()
}

// judged checks what a doctor has found, beside what it says without --json.
func judged(t *testing.T, said string, all []finding) {
	for _, f := range all {
		require.Contains(t, []rdmacheck.State{rdmacheck.OK, rdmacheck.Slow, rdmacheck.Missing}, f.State, f.What)
		require.NotEmpty(t, f.Found, f.What)
		if f.State != "ok" {
			require.NotEmpty(t, f.Remedy, "%s: no word on what to do", f.What)
			require.Contains(t, said, f.Remedy)
		}
	}
}

func TestDoctorRDMA(t *testing.T) {
	c := newTool(t)
	said, _, status := c.run("doctor", "rdma")
	require.Zero(t, status)
	for _, what := range []string{"kernel", "locked memory", "provider verbs", "provider soft", "soft0 port", "soft0 MTU", "soft0 loopback"} {
		require.Contains(t, said, what)
	}
	text, _, _ := c.run("doctor", "rdma", "--json")
	var d struct {
		Devices  []rdmacheck.Device
		Findings []finding
	}
	require.NoError(t, json.Unmarshal([]byte(text), &d))
	judged(t, said, d.Findings)
	for _, dev := range d.Devices {
		if dev.Provider == "soft" {
			require.NotNil(t, dev.Loopback)
			require.Equal(t, "active", dev.Port)
		}
	}
	if _, err := rdma.Lookup("verbs"); err != nil {
		require.Contains(t, said, "go build -tags verbs") // what is missing for it
	}
	_, _, status = c.run("doctor", "feet")
	require.Equal(t, exitUsage, status)
}

func TestVersion(t *testing.T) {
	said, _, status := newTool(t).run("version")
	require.Zero(t, status)
	require.Regexp(t, `^nova \S+ .*go1\.\d+\S* \w+/\w+\n$`, said)
}

func TestCompletion(t *testing.T) {
	c := newTool(t)
	for _, shell := range []string{"bash", "zsh", "fish"} {
		said, _, status := c.run("completion", shell)
		require.Zero(t, status)
		for _, word := range []string{"demo", "recv", "send", "doctor", "version", "completion", "lane", "timeout"} {
			require.Contains(t, said, word, shell)
		}
		require.NotContains(t, said, "sender", "a hidden command")
		if _, err := exec.LookPath(shell); err != nil {
			continue // what can be said of it without the shell was said
		}
		script := filepath.Join(c.dir, shell)
		require.NoError(t, os.WriteFile(script, []byte(said), 0o600))
		out, err := exec.Command(shell, "-n", script).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	if bash, err := exec.LookPath("bash"); err == nil {
		out, err := exec.Command(bash, "-c", `source `+filepath.Join(c.dir, "bash")+`; COMP_WORDS=(nova do); COMP_CWORD=1; _nova; echo "${COMPREPLY[@]}"; COMP_WORDS=(nova send --la); COMP_CWORD=2; _nova; echo "${COMPREPLY[@]}"`).Output()
		require.NoError(t, err)
		require.Equal(t, "doctor\n--lane\n", string(out))
	}
}

func TestHelp(t *testing.T) {
	c := newTool(t)
	for _, args := range [][]string{{}, {"--help"}, {"recv", "--help"}} {
		said, _, status := c.run(args...)
		require.Zero(t, status)
		require.Contains(t, said, "Usage: nova")
	}
}
