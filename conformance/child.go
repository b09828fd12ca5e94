package conformance

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
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

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream"
	"github.com/novastream/novastream/control"
	"github.com/novastream/novastream/internal/rdmaguest"
)

var errEOF = io.EOF

// What a child is told by its environment: which program it is to be, the directory in
// which nodes find each other, or, on another host, the nodes that there are; the lane;
// and the address that its nodes listen on, if the lane does not say.
const (
	programEnv = "NOVA_CONFORMANCE_CHILD"
	dirEnv     = "NOVA_CONFORMANCE_DIR"
	nodesEnv   = "NOVA_CONFORMANCE_NODES"
	laneEnv    = "NOVA_CONFORMANCE_LANE"
	addrEnv    = "NOVA_CONFORMANCE_ADDRESS"
)

// Main runs a child's program if this process is one, or the agent that starts them on
// another host, and never returns then. TestMain calls it first.
func Main() {
	rdmaguest.Main()
	name := os.Getenv(programEnv)
	if name == "" {
		return
	}
	p := programs[name]
	if p == nil {
		fmt.Println("error: no program", name)
		os.Exit(2)
	}
	with, err := newProgram()
	if err == nil {
		err = p(with)
	}
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Child is a running program.
type Child struct {
	e    *Env
	once sync.Once
	far  *rdmaguest.Program // nil for one on this host

	cmd   *exec.Cmd
	in    io.WriteCloser
	lines *bufio.Scanner
}

// Child starts a program, which is killed with the test: where the sending side is.
func (e *Env) Child(name string, args ...string) *Child {
	e.SkipFor(e.Lane.OneProcess, NoChild)
	if e.far != nil {
		c := e.farChild(name, args...)
		e.Cleanup(c.Kill)
		return c
	}
	return e.child(nil, name, args...)
}

// Near is Child where the receiving side is.
func (e *Env) Near(name string, args ...string) *Child { return e.child(nil, name, args...) }

// child is Near with a command that edit, if any, has changed.
func (e *Env) child(edit func(*exec.Cmd), name string, args ...string) *Child {
	e.SkipFor(e.Lane.OneProcess, NoChild)
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(append(os.Environ(), e.childEnv(name)...), dirEnv+"="+e.Dir)
	if e.far != nil {
		cmd.Env = append(cmd.Env, addrEnv+"="+e.far.here)
	}
	cmd.Stderr = os.Stderr
	if edit != nil {
		edit(cmd)
	}
	in, err := cmd.StdinPipe()
	require.NoError(e, err)
	out, err := cmd.StdoutPipe()
	require.NoError(e, err)
	require.NoError(e, cmd.Start())
	c := &Child{e: e, cmd: cmd, in: in, lines: bufio.NewScanner(out)}
	e.Cleanup(c.Kill)
	return c
}

func (e *Env) childEnv(name string) []string {
	return []string{programEnv + "=" + name, laneEnv + "=" + e.Lane.Name}
}

// Line reads the next line that the program prints.
func (c *Child) Line() string {
	c.e.Helper()
	if c.far != nil {
		line, err := c.far.Line()
		require.NoError(c.e, err, "the child has ended")
		return line
	}
	require.True(c.e, c.lines.Scan(), "the child has ended: %v", c.lines.Err())
	return c.lines.Text()
}

// Number reads a line that is a number.
func (c *Child) Number() uint64 {
	line := c.Line()
	n, err := strconv.ParseUint(line, 10, 64)
	require.NoError(c.e, err, line)
	return n
}

// Go lets the program go on.
func (c *Child) Go() {
	if c.far != nil {
		c.far.Write("go")
		return
	}
	_, err := fmt.Fprintln(c.in, "go")
	require.NoError(c.e, err)
}

// Signal sends a signal.
func (c *Child) Signal(s syscall.Signal) {
	if c.far != nil {
		c.far.Signal(s)
		return
	}
	require.NoError(c.e, c.cmd.Process.Signal(s))
}

// Stop stops a program of Near with SIGSTOP, and waits until it has stopped where the
// system tells.
func (c *Child) Stop() {
	c.Signal(syscall.SIGSTOP)
	c.e.Until(func() bool {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", c.cmd.Process.Pid))
		for _, t := range threads {
			b, err := os.ReadFile(t)
			if _, state, _ := strings.Cut(string(b), ") "); err == nil && !strings.HasPrefix(state, "T") {
				return false
			}
		}
		return true
	}, "the child does not stop")
}

// Kill kills the program with SIGKILL and waits for its end.
func (c *Child) Kill() {
	c.once.Do(func() {
		if c.far != nil {
			c.far.Signal(syscall.SIGCONT)
			c.far.Signal(syscall.SIGKILL)
			c.far.Wait()
			return
		}
		_ = c.cmd.Process.Signal(syscall.SIGCONT)
		_ = c.cmd.Process.Kill()
		_ = c.cmd.Wait()
	})
}

// Wait waits for the program to end by itself.
func (c *Child) Wait() {
	c.once.Do(func() {
		if c.far != nil {
			require.Empty(c.e, c.far.Wait())
			return
		}
		require.NoError(c.e, c.cmd.Wait())
	})
}

// program is what a child's program works with.
type program struct {
	lane Lane
	node []control.Option // of each of its nodes
	in   *bufio.Scanner
	ctx  context.Context
}

func newProgram() (*program, error) {
	p := &program{in: bufio.NewScanner(os.Stdin), ctx: context.Background()}
	for _, l := range every() {
		if l.Name == os.Getenv(laneEnv) {
			p.lane = l
		}
	}
	p.node = p.lane.Node
	if dir := os.Getenv(dirEnv); dir != "" {
		p.node = append(p.node, control.WithDir(dir))
	}
	if address := os.Getenv(addrEnv); address != "" {
		p.node = append(p.node, listenOn(address)...)
	}
	if b := os.Getenv(nodesEnv); b != "" {
		var nodes []control.Entry
		if err := json.Unmarshal([]byte(b), &nodes); err != nil {
			return nil, err
		}
		p.node = append(p.node, control.WithDiscovery(control.Static(nodes...)))
	}
	return p, nil
}

// listenOn has a node listen on an address of this host, for another one.
func listenOn(ip string) []control.Option {
	return []control.Option{control.WithTCP(net.JoinHostPort(ip, "0")), control.Insecure()}
}

func (p *program) streaming(opts ...control.Option) (*novastream.Streaming, error) {
	n, err := control.Listen(p.ctx, append(opts, p.node...)...)
	if err != nil {
		return nil, err
	}
	return novastream.New(n, p.lane.Streaming...)
}

func (p *program) attach() (*novastream.Sender[Rec], error) {
	s, err := p.streaming()
	if err != nil {
		return nil, err
	}
	h, err := novastream.ParseHandle(os.Args[1])
	if err != nil {
		return nil, err
	}
	var opts []novastream.AttachOption
	for _, o := range p.lane.End {
		opts = append(opts, o)
	}
	return novastream.Attach[Rec](p.ctx, s, h, opts...)
}

// visit is what a process of another user begins with, whose arguments are HANDLE DIR
// ENTRY: a node with a directory of its own, the entry of the receiver's, and users
// whom it lets in.
func (p *program) visit(uids ...int) (s *novastream.Streaming, h novastream.Handle, err error) {
	var e control.Entry
	if err := json.Unmarshal([]byte(os.Args[3]), &e); err != nil {
		return nil, h, err
	}
	n, err := control.Listen(p.ctx, control.WithDir(os.Args[2]), control.WithDiscovery(control.Static(e)), control.AllowUID(uids...))
	if err != nil {
		return nil, h, err
	}
	if s, err = novastream.New(n); err != nil {
		return nil, h, err
	}
	h, err = novastream.ParseHandle(os.Args[1])
	return s, h, err
}

// wait waits for the test's word.
func (p *program) wait() { p.in.Scan() }

// arg is a number among the arguments.
func arg(i int) uint64 {
	n, _ := strconv.ParseUint(os.Args[i], 10, 64)
	return n
}

// programs are what a child can be; the first argument is a handle.
var programs = map[string]func(*program) error{
	// send HANDLE N: sends N values, says so, waits for a word, finalizes.
	"send": func(p *program) error {
		tx, err := p.attach()
		if err != nil {
			return err
		}
		for i := range arg(2) {
			if err := tx.Send(p.ctx, MakeRec(i)); err != nil {
				return err
			}
		}
		fmt.Println(arg(2))
		p.wait()
		return tx.Finalize(p.ctx)
	},
	// exit HANDLE N: sends N values, finalizes and exits at once.
	"exit": func(p *program) error {
		tx, err := p.attach()
		if err != nil {
			return err
		}
		for i := range arg(2) {
			if err := tx.Send(p.ctx, MakeRec(i)); err != nil {
				return err
			}
		}
		return tx.Finalize(p.ctx)
	},
	// fill HANDLE: fills the ring, says with how many values, waits.
	"fill": func(p *program) error {
		tx, err := p.attach()
		if err != nil {
			return err
		}
		n := uint64(0)
		for {
			v := MakeRec(n)
			if err := tx.TrySend(&v); errors.Is(err, novastream.ErrFull) {
				break
			} else if err != nil {
				return err
			}
			n++
		}
		fmt.Println(n)
		p.wait()
		runtime.KeepAlive(tx)
		return nil
	},
	// fill-all ID HANDLE…: a node of that instance fills the ring of each stream, says
	// with how many values, and waits.
	"fill-all": func(p *program) error {
		id, err := uuid.Parse(os.Args[1])
		if err != nil {
			return err
		}
		s, err := p.streaming(control.WithInstanceID(id))
		if err != nil {
			return err
		}
		for _, arg := range os.Args[2:] {
			h, err := novastream.ParseHandle(arg)
			if err != nil {
				return err
			}
			tx, err := novastream.Attach[Rec](p.ctx, s, h)
			if err != nil {
				return err
			}
			defer tx.Close()
			n := uint64(0)
			for v := MakeRec(0); tx.TrySend(&v) == nil; v = MakeRec(n) {
				n++
			}
			fmt.Println(n)
		}
		p.wait()
		return nil
	},
	// flood HANDLE: says that it is attached and sends until it may not, and
	// says why.
	"flood": func(p *program) error {
		tx, err := p.attach()
		if err != nil {
			return err
		}
		fmt.Println(uint64(tx.ID()))
		for i := uint64(0); ; i++ {
			if err := tx.Send(p.ctx, MakeRec(i)); err != nil {
				fmt.Println(verdict(err))
				return nil
			}
		}
	},
	// claim HANDLE: sends one value, reserves a slot and holds it.
	"claim": func(p *program) error {
		tx, err := p.attach()
		if err != nil {
			return err
		}
		if err := tx.Send(p.ctx, MakeRec(0)); err != nil {
			return err
		}
		v, err := tx.Reserve()
		if err != nil {
			return err
		}
		*v = MakeRec(999)
		fmt.Println("held")
		p.wait()
		runtime.KeepAlive(tx)
		return nil
	},
	// idle HANDLE: attaches, says so and does nothing.
	"idle": func(p *program) error {
		tx, err := p.attach()
		if err != nil {
			return err
		}
		fmt.Println("attached")
		p.wait()
		runtime.KeepAlive(tx)
		return nil
	},
	// attach HANDLE TYPE: tries to attach and says what came of it.
	"attach": func(p *program) error {
		s, err := p.streaming()
		if err != nil {
			return err
		}
		h, err := novastream.ParseHandle(os.Args[1])
		if err != nil {
			return err
		}
		if os.Args[2] == "other" {
			_, err = novastream.Attach[[3]uint16](p.ctx, s, h)
		} else {
			_, err = novastream.Attach[Rec](p.ctx, s, h)
		}
		fmt.Println(verdict(err))
		return nil
	},
	// stranger HANDLE DIR ENTRY: another user's process, with a directory of its own
	// and the entry of the receiver's node, tries to attach and says what came of it.
	"stranger": func(p *program) error {
		s, h, err := p.visit(0)
		if err != nil {
			return err
		}
		_, err = novastream.Attach[Rec](p.ctx, s, h)
		fmt.Println(err)
		return nil
	},
	// receive N: creates a stream of N slots, says its handle, and reads nothing.
	"receive": func(p *program) error {
		s, err := p.streaming()
		if err != nil {
			return err
		}
		opts := []novastream.CreateOption{novastream.Capacity(int(arg(1)))}
		if p.lane.OneRing {
			opts = append(opts, novastream.Shared(8), novastream.OneRing())
		}
		rx, err := novastream.Create[Rec](s, opts...)
		if err != nil {
			return err
		}
		fmt.Println(rx.Handle())
		p.wait()
		runtime.KeepAlive(rx)
		return nil
	},
	// start ID TYPE: a node of that instance creates a stream of the type, and says
	// its handle; it receives one value, says its kind, and waits.
	"start": func(p *program) error {
		id, err := uuid.Parse(os.Args[1])
		if err != nil {
			return err
		}
		s, err := p.streaming(control.WithInstanceID(id))
		if err != nil {
			return err
		}
		if os.Args[2] == "other" {
			return startOn[[3]uint16](p, s)
		}
		return startOn[Rec](p, s)
	},
	// scribble HANDLE: attaches and writes at random into all of the shared
	// segment that it may write.
	"scribble": scribble,
	// puppet: has the sending side of a case, and does what it is told.
	"puppet": runPuppet,
	// limited HANDLE: meets the limits of descriptors and of memory.
	"limited": limited,
	// single: both ends in one process with one processor, ends of each kind on
	// a full ring.
	"single": single,
}

// startOn is the program start, with a type.
func startOn[T any](p *program, s *novastream.Streaming) error {
	rx, err := novastream.Create[T](s)
	if err != nil {
		return err
	}
	fmt.Println(rx.Handle())
	if _, err := rx.Recv(p.ctx); err != nil {
		return err
	}
	f, err := rx.Recv(p.ctx)
	if err != nil {
		return err
	}
	fmt.Println(f.Kind)
	p.wait()
	return nil
}

// single is the program of case 56.
func single(p *program) error {
	runtime.GOMAXPROCS(1)
	s, err := p.streaming()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(p.ctx, Patience)
	defer cancel()
	for _, end := range []string{"finalize", "detach", "close"} {
		rx, err := novastream.Create[Rec](s, novastream.Capacity(16))
		if err != nil {
			return err
		}
		tx, err := novastream.Attach[Rec](ctx, s, rx.Handle())
		if err != nil {
			return err
		}
		n := 0
		for v := MakeRec(0); tx.TrySend(&v) == nil; v = MakeRec(uint64(n)) {
			n++
		}
		switch end {
		case "finalize":
			err = tx.Finalize(ctx)
		case "detach":
			err = tx.Detach(ctx)
		case "close":
			err = tx.Close()
		}
		if err != nil {
			return err
		}
		got := 0
		for {
			f, err := rx.Recv(ctx)
			if err != nil {
				return err
			}
			if f.Kind == novastream.KindData {
				got++
			} else if f.Kind != novastream.KindAttached {
				break
			}
		}
		rx.Close()
		fmt.Println(end, n, got)
	}
	return nil
}
