// Package rdmaguest is what drives a test on two hosts with soft-RoCE on one
// cable: each a machine that scripts/rdma/guest.sh boots. It runs programs there,
// reads what they print, and breaks things: the cable, a process, a machine. It
// is for tests only, and knows nothing of what runs.
package rdmaguest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Addresses of the hosts, which are also what their GIDs are made of.
const (
	AddrA = "10.77.0.1"
	AddrB = "10.77.0.2"
)

// patience is how long a machine may take to do anything.
const patience = 2 * time.Minute

// Host is a machine on the cable. Its methods may be called by the test's
// goroutine only.
type Host struct {
	t    testing.TB
	name string
	dir  string
	cmd  *exec.Cmd
	done chan struct{} // closed when the machine is off

	mu    sync.Mutex
	lines []string      // printed and not yet expected
	more  chan struct{} // holds a token after a line
	shell net.Conn
}

// Pair boots two hosts, with the file in /t of each, and turns them off at the
// end of the test. What they print is logged.
func Pair(t testing.TB, file string) (a, b *Host) {
	dir, err := os.MkdirTemp("", "rdma") // short: the path of a socket has 107 bytes at most
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	a, b = boot(t, dir, "a", file), boot(t, dir, "b", file)
	for _, h := range []*Host{a, b} {
		h.Expect("host is up")
		require.Eventually(t, func() bool {
			h.shell, err = net.Dial("unix", h.path("cmd"))
			return err == nil
		}, patience, 10*time.Millisecond)
		t.Cleanup(func() { h.shell.Close() })
	}
	return a, b
}

func boot(t testing.TB, dir, name, file string) *Host {
	_, here, _, _ := runtime.Caller(0)
	script := filepath.Join(filepath.Dir(here), "../../scripts/rdma/guest.sh")
	h := &Host{t: t, name: name, dir: dir, done: make(chan struct{}), more: make(chan struct{}, 1)}
	h.cmd = exec.Command(script, "-c", "1", "-m", "768", "-t", "600", "-d", dir, "-r", name, "-f", file, "-x", "echo host is up; sleep 3600")
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	h.cmd.Stderr = os.Stderr
	out, err := h.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, h.cmd.Start())
	go h.read(out)
	t.Cleanup(func() {
		_ = syscall.Kill(-h.cmd.Process.Pid, syscall.SIGTERM)
		h.Kill()
		<-h.done
	})
	return h
}

func (h *Host) read(out io.Reader) {
	defer close(h.done)
	for s := bufio.NewScanner(out); s.Scan(); {
		h.mu.Lock()
		h.lines = append(h.lines, s.Text())
		h.mu.Unlock()
		select {
		case h.more <- struct{}{}:
		default:
		}
	}
	_ = h.cmd.Wait()
}

// Expect waits for a line that contains what, and returns the line. Lines before
// it are logged and forgotten. A line that says FAIL or panic fails the test.
func (h *Host) Expect(what string) string {
	h.t.Helper()
	deadline := time.After(patience)
	for {
		h.mu.Lock()
		lines := h.lines
		h.lines = nil
		h.mu.Unlock()
		for i, line := range lines {
			h.t.Logf("%s: %s", h.name, line)
			if strings.Contains(line, what) {
				h.mu.Lock()
				h.lines = append(lines[i+1:], h.lines...)
				h.mu.Unlock()
				return line
			}
			if strings.Contains(line, "FAIL") || strings.HasPrefix(line, "panic") {
				require.Fail(h.t, "the other machine failed", "%s: %s, waiting for %q", h.name, line, what)
			}
		}
		select {
		case <-h.more:
		case <-h.done:
			require.Fail(h.t, "the machine is off", "%s, waiting for %q", h.name, what)
		case <-deadline:
			require.Fail(h.t, "waited in vain", "%s, for %q", h.name, what)
		}
	}
}

// Do runs a line of shell commands and does not wait for them.
func (h *Host) Do(line string) {
	h.t.Helper()
	_, err := fmt.Fprintln(h.shell, line)
	require.NoError(h.t, err)
}

// Run runs a line of shell commands and waits for them.
func (h *Host) Run(line string) {
	h.t.Helper()
	h.Do(line + "; echo done $?")
	require.Equal(h.t, "done 0", h.Expect("done "), "%s: %s", h.name, line)
}

// Kill takes the machine's power away.
func (h *Host) Kill() { h.signal(syscall.SIGKILL) }

// Freeze stops the machine as it stands; it never goes on.
func (h *Host) Freeze() { h.signal(syscall.SIGSTOP) }

func (h *Host) signal(s syscall.Signal) {
	b, err := os.ReadFile(h.path("pid"))
	if err != nil {
		return
	}
	if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
		_ = syscall.Kill(pid, s)
	}
}

// Cable cuts the cable at this host, or mends it. This host sees its link go, the
// other sees nothing.
func (h *Host) Cable(up bool) {
	h.t.Helper()
	conn, err := net.Dial("unix", h.path("qmp"))
	require.NoError(h.t, err)
	defer conn.Close()
	in, out := json.NewDecoder(conn), json.NewEncoder(conn)
	var greeting, answer map[string]any
	require.NoError(h.t, in.Decode(&greeting))
	for _, c := range []map[string]any{
		{"execute": "qmp_capabilities"},
		{"execute": "set_link", "arguments": map[string]any{"name": "cable", "up": up}},
	} {
		require.NoError(h.t, out.Encode(c))
		for answer = nil; answer["return"] == nil; {
			answer = nil
			require.NoError(h.t, in.Decode(&answer))
			require.Nil(h.t, answer["error"])
		}
	}
}

func (h *Host) path(kind string) string { return filepath.Join(h.dir, h.name+"."+kind) }
