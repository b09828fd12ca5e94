package novastream

import (
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream/internal/listing"
	"github.com/novastream/novastream/internal/order"
)

// What a user's code makes of the fast paths: one call a value for those that copy
// or reserve, none but the loop's beginning and end for those in place; what is
// called calls nothing but its slow half, and has no fence and no bounds check.
func TestCompiledFastPaths(t *testing.T) {
	if runtime.GOARCH != "amd64" || !order.Plain {
		t.Skip("the claims are about amd64 without the race detector and without novasafe")
	}
	functions, err := listing.Of("./internal/probe")
	require.NoError(t, err)
	for name, allowed := range map[string][]string{
		"probe.TrySend": {"ring.Put["},
		"probe.Reserve": {"]).Reserve(", "]).Commit("},
		"probe.Slots":   {".begin(", ".done(", ".look("},
		"probe.TryRecv": {"]).next("},
		"probe.Each":    {".begin(", ".done(", ".gave("},
		"ring.Put[":     {".putSlow[", ".look("},
		"]).Reserve":    {"]).reserve("},
		"]).Commit":     {"]).commit("},
		"]).next":       {"]).tryRecv("},
	} {
		found := false
		for f, body := range functions {
			if strings.HasPrefix(name, "]") && !strings.Contains(f, "er[go.shape") { // wrappers, and other types
				continue
			}
			if !strings.HasSuffix(f, name) && !(strings.HasSuffix(name, "[") && strings.Contains(f, name)) {
				continue
			}
			found = true
			require.NoError(t, listing.Check(body, allowed...), f)
		}
		require.True(t, found, "no function is called %s", name)
	}
}
