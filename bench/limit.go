package bench

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// errNoCC is a machine without a C compiler.
var errNoCC = errors.New("bench: no C compiler: install gcc or clang")

// program is the built C program that says what the machine permits: the same
// ring, and a bare cache line, between two pinned processes.
type program struct{ dir, bin string }

// build compiles the program with cc -O3.
func build() (*program, error) {
	cc, err := exec.LookPath("cc")
	if err != nil {
		return nil, errNoCC
	}
	_, self, _, _ := runtime.Caller(0)
	dir, err := os.MkdirTemp("", "limit")
	if err != nil {
		return nil, err
	}
	p := &program{dir, filepath.Join(dir, "limit")}
	src := filepath.Join(filepath.Dir(self), "limit", "limit.c")
	if out, err := exec.Command(cc, "-std=gnu11", "-O3", "-march=native", "-o", p.bin, src).CombinedOutput(); err != nil {
		return nil, errors.Join(fmt.Errorf("limit: %w: %s", err, out), os.RemoveAll(dir))
	}
	return p, nil
}

// close removes what build has made.
func (p *program) close() error { return os.RemoveAll(p.dir) }

// run runs one measurement, which prints one number.
func (p *program) run(mode string, d time.Duration, args ...any) (float64, error) {
	argv := []string{mode, strconv.FormatInt(d.Milliseconds(), 10)}
	for _, a := range args {
		argv = append(argv, fmt.Sprint(a))
	}
	out, err := exec.Command(p.bin, argv...).Output()
	if err != nil {
		return 0, fmt.Errorf("limit %v: %w", argv, err)
	}
	return strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
}

// line is the round trip of a cache line, in nanoseconds.
func (p *program) line(d time.Duration) (float64, error) { return p.run("line", d) }

// trip is the round trip over two rings with slots of so many bytes, in
// nanoseconds.
func (p *program) trip(d time.Duration, slot int) (float64, error) { return p.run("trip", d, slot) }

// How the C producer of rate works.
const (
	inRegister = 0 // its cursor kept in a register
	stored     = 1 // its cursor stored after each frame
	copied     = 2 // the same, and each frame copied from a struct just filled
)

// rate is the rate of a ring of so many bytes in million frames a second. Lag has
// the consumer stay half a ring behind.
func (p *program) rate(d time.Duration, slot, payload, ring, how int, lag bool) (float64, error) {
	return p.run("rate", d, slot, payload, ring, how, bit(lag))
}

// large is the rate of frames of so many bytes, copied in and read whole, in
// gigabytes a second.
func (p *program) large(d time.Duration, frame, ring int) (float64, error) {
	return p.run("large", d, frame, ring)
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}
