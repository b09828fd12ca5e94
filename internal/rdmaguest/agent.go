package rdmaguest

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
)

// What a driver and an agent say to each other: objects of JSON, one behind the
// other, over a virtual serial port that nothing else writes to, or a connection. The
// driver gives the programs their numbers.
type (
	// request is the driver's: start a program, give it a line of input, or send it a
	// signal.
	request struct {
		Program int
		Args    []string `json:",omitempty"` // start it; as self, the agent's own executable
		Env     []string `json:",omitempty"`
		Input   string   `json:",omitempty"`
		Signal  int      `json:",omitempty"`
	}
	// report is the agent's: a program has printed a line, or has ended.
	report struct {
		Program int
		Line    string `json:",omitempty"`
		Ended   bool   `json:",omitempty"`
		Status  string `json:",omitempty"` // how it has ended, "" with 0
	}
)

// Programs that are none of the host's files: the agent's own executable, and one that
// prints for how long the machine stood still in any half second since it was asked last,
// at most.
const (
	self  = "self"
	still = "still"
)

// agentEnv makes a test binary the agent of the machine that it runs on: for the
// driver at its virtual serial port, or for those who connect, if it is an address.
const agentEnv = "NOVA_TEST_AGENT"

// Main serves as the agent if this process is one, and never returns then. TestMain
// of a package whose tests use hosts calls it first.
func Main() {
	at := os.Getenv(agentEnv)
	if at == "" {
		return
	}
	os.Unsetenv(agentEnv)
	var err error
	if _, _, no := net.SplitHostPort(at); no == nil {
		err = listen(at)
	} else {
		err = servePort()
	}
	fmt.Fprintln(os.Stderr, "agent:", err)
	os.Exit(1)
}

func servePort() error {
	ports, err := filepath.Glob("/dev/vport*")
	if err != nil || len(ports) != 1 {
		return fmt.Errorf("ports %q: one is wanted", ports)
	}
	port, err := os.OpenFile(ports[0], os.O_RDWR, 0)
	if err != nil {
		return err
	}
	a := newAgent(port)
	go a.pulse.run()
	return a.serve(port)
}

// listen serves drivers, each by an agent of its own.
func listen(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go Serve(conn)
	}
}

// Serve is the agent of the driver at the other end of a connection, until that ends.
// The programs end with it.
func Serve(conn io.ReadWriteCloser) {
	a := newAgent(conn)
	_ = a.serve(conn)
	conn.Close()
	for _, p := range a.programs {
		if p.cmd != nil {
			_ = p.cmd.Process.Kill()
		}
	}
	a.running.Wait()
}

func newAgent(out io.Writer) *agent {
	return &agent{out: json.NewEncoder(out), programs: map[int]*running{}}
}

func (a *agent) serve(from io.Reader) error {
	a.say(report{}) // waits until the driver is there
	for in := json.NewDecoder(from); ; {
		var r request
		if err := in.Decode(&r); errors.Is(err, io.EOF) {
			return errors.New("the driver has gone")
		} else if err != nil {
			return err
		}
		a.do(r)
	}
}

// agent runs programs for a driver.
type agent struct {
	mu  sync.Mutex
	out *json.Encoder

	programs map[int]*running // the reader's
	running  sync.WaitGroup
	pulse    pulse
}

type running struct {
	cmd *exec.Cmd
	in  io.WriteCloser
}

func (a *agent) say(r report) {
	a.mu.Lock()
	defer a.mu.Unlock()
	_ = a.out.Encode(r)
}

func (a *agent) do(r request) {
	p := a.programs[r.Program]
	var err error
	switch {
	case p == nil && len(r.Args) == 1 && r.Args[0] == still:
		a.say(report{Program: r.Program, Line: a.pulse.take().String()})
		a.say(report{Program: r.Program, Ended: true})
	case p == nil && len(r.Args) > 0:
		p, err = a.start(r)
		a.programs[r.Program] = p
	case p == nil || p.cmd == nil: // it did not start: that was said
	case r.Signal != 0:
		_ = p.cmd.Process.Signal(syscall.Signal(r.Signal)) // it may have ended
	default:
		_, _ = io.WriteString(p.in, r.Input+"\n")
	}
	if err != nil {
		a.say(report{Program: r.Program, Ended: true, Status: err.Error()})
	}
}

func (a *agent) start(r request) (*running, error) {
	if r.Args[0] == self {
		var err error
		if r.Args[0], err = os.Executable(); err != nil {
			return &running{}, err
		}
	}
	cmd := exec.Command(r.Args[0], r.Args[1:]...)
	cmd.Env = append(os.Environ(), r.Env...)
	in, err := cmd.StdinPipe()
	if err != nil {
		return &running{}, err
	}
	out, w, err := os.Pipe()
	if err != nil {
		return &running{}, err
	}
	cmd.Stdout, cmd.Stderr = w, w
	err = cmd.Start()
	w.Close()
	if err != nil {
		return &running{}, err
	}
	a.running.Go(func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			a.say(report{Program: r.Program, Line: lines.Text()})
		}
		out.Close()
		end := report{Program: r.Program, Ended: true}
		if err := cmd.Wait(); err != nil {
			end.Status = err.Error()
		}
		a.say(end)
	})
	return &running{cmd, in}, nil
}
