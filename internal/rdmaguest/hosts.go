// Package rdmaguest is what drives a test on one or two hosts with soft-RoCE: each a
// machine that scripts/rdma/guest.sh boots. It runs programs there, reads what they
// print, and breaks things: the cable, a process, a machine. It is for tests only,
// and knows nothing of what runs.
//
// The test binary is also the agent that starts the programs on a host (Main), and
// usually the programs too.
package rdmaguest

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
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

// Host is a machine. What it does wrong fails the test.
type Host struct {
	t    testing.TB
	name string
	dir  string
	cmd  *exec.Cmd
	done chan struct{} // closed when the machine is off
	link *link
}

// Hosts boots one or two hosts, on one cable, and turns them off at the end of the
// test. This test binary, whose TestMain calls Main, is their agent. Their consoles
// go to the test's output.
func Hosts(t testing.TB, n int) []*Host {
	dir, err := os.MkdirTemp("", "rdma") // short: the path of a socket has 107 bytes at most
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	var hosts []*Host
	for i := range n {
		hosts = append(hosts, boot(t, dir, "ab"[i:i+1], 3-n))
	}
	for _, h := range hosts {
		h.connect()
	}
	return hosts
}

func boot(t testing.TB, dir, name string, cpus int) *Host {
	_, here, _, _ := runtime.Caller(0)
	script := filepath.Join(filepath.Dir(here), "../../scripts/rdma/guest.sh")
	self, err := os.Executable()
	require.NoError(t, err)
	h := &Host{t: t, name: name, dir: dir, done: make(chan struct{})}
	h.cmd = exec.Command(script, "-c", strconv.Itoa(cpus), "-m", "768", "-t", "600", "-d", dir, "-r", name, "-e", agentEnv+"=1", self)
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	h.cmd.Stderr = os.Stderr
	out, err := h.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, h.cmd.Start())
	go h.console(out)
	t.Cleanup(func() {
		_ = syscall.Kill(-h.cmd.Process.Pid, syscall.SIGTERM)
		h.Kill()
		<-h.done
	})
	return h
}

// console passes on what the kernel and the agent have to say.
func (h *Host) console(out io.Reader) {
	defer close(h.done)
	for s := bufio.NewScanner(out); s.Scan(); {
		_, _ = os.Stdout.WriteString(h.name + ": " + s.Text() + "\n")
	}
	_ = h.cmd.Wait()
}

// connect finds the agent.
func (h *Host) connect() {
	var conn net.Conn
	require.Eventually(h.t, func() (ok bool) {
		var err error
		conn, err = net.Dial("unix", h.path("cmd"))
		return err == nil
	}, patience, 10*time.Millisecond, "%s: QEMU has not started", h.name)
	h.t.Cleanup(func() { conn.Close() })
	require.NoError(h.t, conn.SetReadDeadline(time.Now().Add(patience)))
	var err error
	h.link, err = newLink(conn)
	require.NoError(h.t, err, "%s: no agent", h.name)
	require.NoError(h.t, conn.SetReadDeadline(time.Time{}))
}

// Connect makes a host of what is at the other end of a connection, served by Serve or by
// an agent that listens there: programs can be run on it, and nothing else be done to it.
// The connection is closed, and the programs end, with the test.
func Connect(t testing.TB, name string, conn net.Conn) *Host {
	h := &Host{t: t, name: name}
	t.Cleanup(func() {
		conn.Close()
		if h.link != nil {
			<-h.link.off
		}
	})
	var err error
	h.link, err = newLink(conn)
	require.NoError(t, err, "%s: no agent", name)
	return h
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

// Still answers for how long the machine stood still in any half second since the last
// call, at most.
func (h *Host) Still() time.Duration {
	h.t.Helper()
	p := h.Start(still, nil, still)
	d, err := time.ParseDuration(p.Expect(""))
	require.NoError(h.t, err)
	return d
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
