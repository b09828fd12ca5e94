//go:build !(verbs && cgo && linux)

package verbs_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream/rdma"
	"github.com/novastream/novastream/rdma/verbs"
)

// Without the tag nothing is registered, and the provider says what is missing.
func TestStub(t *testing.T) {
	require.NotContains(t, rdma.Providers(), "verbs")
	_, err := verbs.Provider().Open("")
	require.ErrorIs(t, err, rdma.ErrNoDevice)
	require.ErrorContains(t, err, "-tags verbs")
	_, err = verbs.Provider().Devices()
	require.ErrorContains(t, err, "libibverbs-dev")
}
