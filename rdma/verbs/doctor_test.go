//go:build verbs && cgo && linux

package verbs_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream/internal/rdmacheck"
	"github.com/novastream/novastream/rdma/verbs"
)

// What `nova doctor rdma` says of the guest's devices.
func TestDoctor(t *testing.T) {
	guest(t)
	devices, found := rdmacheck.Examine(t.Context(), verbs.Provider())
	states := map[string]rdmacheck.State{}
	for _, f := range found {
		t.Logf("%-8s %-16s %s -> %s", f.State, f.What, f.Found, f.Remedy)
		states[f.What] = f.State
		require.True(t, f.State == rdmacheck.OK || f.Remedy != "", "%s: no word on what to do", f.What)
	}
	require.Equal(t, map[string]rdmacheck.State{
		"provider verbs": rdmacheck.OK,
		"rxe0 port":      rdmacheck.OK, "rxe0 MTU": rdmacheck.OK, "rxe0 GIDs": rdmacheck.OK, "rxe0 loopback": rdmacheck.OK,
		"rxe1 port": rdmacheck.OK, "rxe1 MTU": rdmacheck.Slow, "rxe1 GIDs": rdmacheck.OK, "rxe1 loopback": rdmacheck.OK,
		"rxe2 port": rdmacheck.Missing, "rxe2 MTU": rdmacheck.OK, "rxe2 GIDs": states["rxe2 GIDs"],
		"MTUs": rdmacheck.Slow,
	}, states)
	require.Len(t, devices, 3)
	require.NotNil(t, devices[0].Loopback)
	require.Nil(t, devices[2].Loopback)
}
