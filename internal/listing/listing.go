// Package listing reads what the compiler has made of a package, for tests of
// what the documentation claims of it. It is no disassembler: it cuts the
// compiler's own listing into functions.
package listing

import (
	"fmt"
	"os/exec"
	"strings"
)

// Of compiles a package, given by its path, and answers the listing of each of
// its functions by name.
func Of(path string) (map[string]string, error) {
	out, err := exec.Command("go", "build", "-gcflags=-S", path).CombinedOutput()
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

// Calls lists what a function calls, but the growth of its stack.
func Calls(body string) (calls []string) {
	for _, line := range strings.Split(body, "\n") {
		if _, call, ok := strings.Cut(line, "\tCALL\t"); ok && !strings.Contains(call, "morestack") {
			calls = append(calls, call)
		}
	}
	return calls
}
