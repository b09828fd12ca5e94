package rdmaguest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
)

// What a driver and an agent say to each other: objects of JSON, one behind the
// other, over a virtual serial port that nothing else writes to. The driver gives
// the programs their numbers.
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

// agentEnv makes a test binary the agent of the machine that it runs on.
const agentEnv = "NOVA_TEST_AGENT"

// Main serves as the agent if this process is one, and never returns then. TestMain
// of a package whose tests use hosts calls it first.
func Main() {
	if os.Getenv(agentEnv) == "" {
		return
	}
	os.Unsetenv(agentEnv)
	err := serve()
	fmt.Fprintln(os.Stderr, "agent:", err)
	os.Exit(1)
}

func serve() error {
	ports, err := filepath.Glob("/dev/vport*")
	if err != nil || len(ports) != 1 {
		return fmt.Errorf("ports %q: one is wanted", ports)
	}
	port, err := os.OpenFile(ports[0], os.O_RDWR, 0)
	if err != nil {
		return err
	}
	a := &agent{out: json.NewEncoder(port), programs: map[int]*running{}}
	go a.pulse.run()
	a.say(report{}) // waits until the driver is there
	for in := json.NewDecoder(port); ; {
		var r request
		if err := in.Decode(&r); err != nil {
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
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			a.say(report{Program: r.Program, Line: lines.Text()})
		}
		out.Close()
		end := report{Program: r.Program, Ended: true}
		if err := cmd.Wait(); err != nil {
			end.Status = err.Error()
		}
		a.say(end)
	}()
	return &running{cmd, in}, nil
}
