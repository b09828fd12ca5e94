//go:build failpoint && linux

package crashtest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream/internal/failpoint"
)

// childEnv holds what a child is to do.
const childEnv = "NOVA_CRASH_CHILD"

// patience is how long a test waits for what must happen. It measures nothing.
const patience = 20 * time.Second

func TestMain(m *testing.M) {
	slog.SetLogLoggerLevel(slog.LevelError)
	if what := os.Getenv(childEnv); what != "" {
		var p program
		err := json.Unmarshal([]byte(what), &p)
		if err == nil {
			err = p.run()
		}
		fmt.Println("ended:", err)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// program is what a child does.
type program struct {
	Dir    string
	Handle string // of the stream to send to
	Bytes  bool   // frames of bytes, not values
	Shared int    // senders of one ring, for a receiver
	Op     string // what it does when its first frames are through
	Point  string // where it stops
	Nth    int
	Size   int // bytes of a frame, or slots of a ring
}

// child is a process that stops at its point.
type child struct {
	*failpoint.Child
	t     testing.TB
	cmd   *exec.Cmd
	in    io.Writer
	lines *bufio.Scanner
	over  bool
}

// start starts a child, which is killed with the test at the latest.
func start(t testing.TB, p program) *child {
	if p.Nth == 0 {
		p.Nth = 1
	}
	what, err := json.Marshal(p)
	require.NoError(t, err)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+string(what))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	c := &child{t: t, cmd: cmd, in: in, lines: bufio.NewScanner(out)}
	c.Child, err = failpoint.Start(cmd)
	require.NoError(t, err)
	t.Cleanup(c.kill)
	return c
}

// line is the next line that the child prints.
func (c *child) line() string {
	c.t.Helper()
	require.True(c.t, c.lines.Scan(), "the child has ended: %v", c.lines.Err())
	return c.lines.Text()
}

// word lets the child go on where it waits for one.
func (c *child) word() {
	_, err := fmt.Fprintln(c.in, "go")
	require.NoError(c.t, err)
}

// stopped waits until the child stands at its point.
func (c *child) stopped() {
	c.t.Helper()
	_, err := c.Stopped(patience)
	require.NoError(c.t, err)
}

func (c *child) signal(s syscall.Signal) { require.NoError(c.t, c.cmd.Process.Signal(s)) }

// kill kills the child and waits for its end.
func (c *child) kill() {
	if c.over {
		return
	}
	c.over = true
	_ = c.cmd.Process.Signal(syscall.SIGKILL)
	_ = c.cmd.Wait()
	c.Close()
}
