package rdmaguest

import (
	"encoding/json"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// link is the driver's end of a host's port.
type link struct {
	off chan struct{} // closed when the port has closed: the machine is off

	mu       sync.Mutex
	out      *json.Encoder
	programs []*Program
}

// newLink begins to read what the agent reports, and returns when it is there.
func newLink(conn net.Conn) (*link, error) {
	l := &link{out: json.NewEncoder(conn), off: make(chan struct{})}
	in := json.NewDecoder(conn)
	if err := in.Decode(&report{}); err != nil {
		return nil, err
	}
	go l.read(in)
	return l, nil
}

func (l *link) read(in *json.Decoder) {
	defer close(l.off)
	for {
		var r report
		if in.Decode(&r) != nil {
			return
		}
		l.mu.Lock()
		p := l.programs[r.Program]
		l.mu.Unlock()
		p.mu.Lock()
		if r.Ended {
			p.ended, p.status = true, r.Status
		} else {
			p.lines = append(p.lines, printed{r.Line, time.Now()})
		}
		p.mu.Unlock()
		select {
		case p.more <- struct{}{}:
		default:
		}
	}
}

// Program is one that runs on a host. Its methods may be called by one goroutine
// at a time.
type Program struct {
	t    testing.TB
	host *Host
	name string
	id   int

	mu     sync.Mutex
	lines  []printed // and not yet expected
	ended  bool
	status string
	more   chan struct{} // holds a token after news

	last time.Time // the user's: when the line was printed that it got last
}

// printed is a line, and when it came.
type printed struct {
	line string
	at   time.Time
}

// Start starts a program, whose lines are logged under name. The program "self"
// is this test binary.
func (h *Host) Start(name string, env []string, args ...string) *Program {
	h.t.Helper()
	l := h.link
	p := &Program{t: h.t, host: h, name: name, more: make(chan struct{}, 1)}
	l.mu.Lock()
	p.id = len(l.programs)
	l.programs = append(l.programs, p)
	l.mu.Unlock()
	p.ask(request{Args: args, Env: env})
	return p
}

func (p *Program) ask(r request) {
	p.t.Helper()
	r.Program = p.id
	l := p.host.link
	l.mu.Lock()
	defer l.mu.Unlock()
	require.NoError(p.t, l.out.Encode(r))
}

// Run runs a line of shell commands, and waits until they have succeeded.
func (h *Host) Run(line string) {
	h.t.Helper()
	status := h.Start("sh", nil, "/bin/sh", "-c", line).Wait()
	require.Empty(h.t, status, "%s: %s", h.name, line)
}

// Expect waits for a line that contains one of what, and returns the line. Lines
// before it are logged and forgotten. A line that says FAIL or panic fails the test,
// and so does the program's end.
func (p *Program) Expect(what ...string) string {
	p.t.Helper()
	line, err := p.next(func(line string) bool {
		return slices.ContainsFunc(what, func(w string) bool { return strings.Contains(line, w) })
	})
	require.NoError(p.t, err, "%s: %s: waiting for %q", p.host.name, p.name, what)
	return line
}

// Printed is when the line came that Expect has returned last.
func (p *Program) Printed() time.Time { return p.last }

// Wait waits for the program's end, and returns how it has ended: "" with 0.
func (p *Program) Wait() string {
	p.t.Helper()
	_, err := p.next(func(string) bool { return false })
	require.ErrorIs(p.t, err, io.EOF, "%s: %s: waiting for its end", p.host.name, p.name)
	return p.status
}

// Signal sends the program a signal, if it has not ended.
func (p *Program) Signal(s syscall.Signal) { p.ask(request{Signal: int(s)}) }

// Write gives the program a line of input.
func (p *Program) Write(line string) { p.ask(request{Input: line}) }

func (p *Program) next(wanted func(line string) bool) (string, error) {
	for deadline := time.After(patience); ; {
		l, err := p.take(deadline)
		if err != nil {
			return "", err
		}
		p.t.Logf("%s %s: %s: %s", l.at.Format("05.000"), p.host.name, p.name, l.line)
		if wanted(l.line) {
			p.last = l.at
			return l.line, nil
		}
		if strings.Contains(l.line, "FAIL") || strings.HasPrefix(l.line, "panic") {
			return "", failedError(l.line)
		}
	}
}

// Line waits for the next line, however long, and logs nothing. The program's end is
// io.EOF.
func (p *Program) Line() (string, error) {
	l, err := p.take(nil)
	return l.line, err
}

// take takes the next line.
func (p *Program) take(deadline <-chan time.Time) (printed, error) {
	for {
		p.mu.Lock()
		ended := p.ended
		if len(p.lines) > 0 {
			l := p.lines[0]
			p.lines = p.lines[1:]
			p.mu.Unlock()
			return l, nil
		}
		p.mu.Unlock()
		if ended {
			return printed{}, io.EOF
		}
		select {
		case <-p.more:
		case <-p.host.link.off:
			return printed{}, failedError("the machine is off")
		case <-deadline:
			return printed{}, failedError("waited in vain")
		}
	}
}

type failedError string

func (e failedError) Error() string { return string(e) }
