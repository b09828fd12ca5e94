package ring

import (
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream/internal/order"
)

// What the documentation claims of the compiled code: the fast paths have no
// fence, no bounds check and no call but of their slow halves, and the loops are
// inlined into the function that ranges over them. Read in a package that only
// uses the ring, because that is where users' code is compiled.
func TestCompiledFastPaths(t *testing.T) {
	if runtime.GOARCH != "amd64" || !order.Plain {
		t.Skip("the claims are about amd64 without the race detector and without novasafe")
	}
	out, err := exec.Command("go", "build", "-gcflags=-S", "./internal/probe").CombinedOutput()
	require.NoError(t, err, "%s", out)
	functions := sections(string(out))
	calls := map[string][]string{ // what each may call, besides growing the stack
		`^.*/ring\.Put\[go\.shape`:  {"putSlow", "look"},
		`^.*/ring\.Get\[go\.shape`:  {"getSlow"},
		`probe\.Slots(8|24|56)$`:    {"begin", "done", "look"},
		`probe\.Each(8|24|56)$`:     {"begin", "done", "gave"},
		`probe\.(Put|Get)(8|24|56)`: {"ring.Put[", "ring.Get["},
	}
	for pattern, allowed := range calls {
		found := 0
		for name, body := range functions {
			if !regexp.MustCompile(pattern).MatchString(name) {
				continue
			}
			found++
			// XCHGL AX, AX is how the assembler spells a one-byte NOP.
			require.NotRegexp(t, `XCHGQ|XCHGL\t[^A]|\tLOCK|MFENCE`, body, "%s has a fence", name)
			require.NotContains(t, body, "panicIndex", "%s checks a bound", name)
			require.NotContains(t, body, "panicBounds", "%s checks a bound", name)
			require.NotContains(t, body, "newobject", "%s allocates", name)
		calls:
			for _, m := range regexp.MustCompile(`\tCALL\t(\S.*)`).FindAllStringSubmatch(body, -1) {
				for _, a := range append(allowed, "morestack") {
					if strings.Contains(m[1], a) {
						continue calls
					}
				}
				require.Fail(t, "call on the fast path", "%s calls %s", name, m[1])
			}
		}
		require.GreaterOrEqual(t, found, 3, "no function matches %s", pattern)
	}
}

// sections cuts the compiler's listing into functions.
func sections(out string) map[string]string {
	f := map[string]string{}
	name := ""
	for _, line := range strings.Split(out, "\n") {
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
	return f
}
