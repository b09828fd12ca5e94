package torture

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"time"
)

// child is a child process as the torturer has it. It ends with its standard input,
// so that none outlives the torturer, whatever ends that.
type child struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	replies chan reply    // closed when the process has gone
	gone    chan struct{} // the same, for those who want no reply
	err     error         // of its end, once gone
	killed  atomic.Bool
	used    int
	held    []held // after each job
}

// spawn starts a child and does not wait until it is ready.
func (t *Torture) spawn(l *Lane) (*child, error) {
	args := append(append([]string{}, t.Child[1:]...), "--lane", l.Name, "--dir", t.dirOf(l), "--ledger", t.ledgerPath())
	c := &child{cmd: exec.Command(t.Child[0], args...), replies: make(chan reply, 8), gone: make(chan struct{})}
	c.cmd.Stderr = os.Stderr
	var err error
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	go c.read(out)
	return c, nil
}

func (c *child) read(out io.Reader) {
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r reply
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			r.Error = fmt.Sprintf("what the child says: %v", err)
		}
		c.replies <- r
	}
	c.err = c.cmd.Wait()
	c.in.Close()
	close(c.gone)
	close(c.replies)
}

// order writes a line; a child that has gone is noticed by its replies.
func (c *child) order(o order) {
	b, err := json.Marshal(o)
	if err == nil {
		_, _ = c.in.Write(append(b, '\n'))
	}
}

// errGone is the end of a child that was to say something.
var errGone = errors.New("the child has gone")

// next waits for a reply that pleases.
func (c *child) next(pleases func(reply) bool, patience time.Duration) (reply, error) {
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for {
		select {
		case r, ok := <-c.replies:
			switch {
			case !ok:
				return r, errGone
			case r.Error != "":
				return r, errors.New(r.Error)
			case r.Held != nil:
				c.held = append(c.held, *r.Held)
			}
			if pleases(r) {
				return r, nil
			}
		case <-limit.C:
			return reply{}, errHang
		}
	}
}

// errHang is that nothing happens.
var errHang = errors.New("nothing happens")

func (c *child) signal(s syscall.Signal) {
	if s == syscall.SIGKILL {
		c.killed.Store(true)
	}
	_ = c.cmd.Process.Signal(s)
}

// end has the child end by itself, and tells how it did.
func (c *child) end(patience time.Duration) error {
	c.in.Close()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for {
		select {
		case _, ok := <-c.replies:
			if !ok {
				return c.err
			}
		case <-limit.C:
			c.signal(syscall.SIGQUIT) // it says what it does
			time.Sleep(time.Second)
			c.signal(syscall.SIGKILL)
			<-c.gone
			return fmt.Errorf("a child that was to end: %w", errHang)
		}
	}
}
