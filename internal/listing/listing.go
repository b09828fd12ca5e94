// Package listing reads what the compiler has made of a package, for tests of
// what the documentation claims of it. It is no disassembler: it cuts the
// compiler's own listing into functions.
package listing

import (
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"
)

// Of compiles a package, given by its path, with these flags of go build, and
// answers the listing of each of its functions by name.
func Of(path string, flags ...string) (map[string]string, error) {
	out, err := exec.Command("go", append(append([]string{"build", "-gcflags=-S"}, flags...), path)...).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("go build -gcflags=-S %s: %w\n%s", path, err, out)
	}
	f := map[string]string{}
	name := ""
	for _, line := range strings.Split(string(out), "\n") {
		if i := strings.Index(line, " STEXT"); i > 0 && !strings.HasPrefix(line, "\t") {
			name = line[:i]
			continue
		}
		if strings.HasPrefix(line, "\t0x") {
			f[name] += line + "\n"
		} else if !strings.HasPrefix(line, "\t") {
			name = ""
		}
	}
	return f, nil
}

// fence is an instruction that waits for the store buffer. XCHGL AX, AX is how the
// assembler spells a one-byte NOP.
var fence = regexp.MustCompile(`XCHGQ|XCHGL\t[^A]|\tLOCK|MFENCE`)

// Check tells what a function of a fast path has that none may have: a fence, a
// check of a bound, an allocation, or a call of what is not allowed. An allowed
// call is given by a part of its name; the growth of the stack always is.
func Check(body string, allowed ...string) error {
	if f := fence.FindString(body); f != "" {
		return fmt.Errorf("it has a fence: %s", f)
	}
	for _, part := range []string{"panicIndex", "panicBounds", "newobject"} {
		if strings.Contains(body, part) {
			return fmt.Errorf("it checks a bound or allocates: %s", part)
		}
	}
	allowed = append(allowed, "morestack")
	for _, line := range strings.Split(body, "\n") {
		_, call, ok := strings.Cut(line, "\tCALL\t")
		if ok && !slices.ContainsFunc(allowed, func(a string) bool { return strings.Contains(call, a) }) {
			return fmt.Errorf("it calls %s", call)
		}
	}
	return nil
}
