package ring

import (
	"regexp"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream/internal/listing"
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
	functions, err := listing.Of("./internal/probe")
	require.NoError(t, err)
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
			require.NoError(t, listing.Check(body, allowed...), name)
		}
		require.GreaterOrEqual(t, found, 3, "no function matches %s", pattern)
	}
}
