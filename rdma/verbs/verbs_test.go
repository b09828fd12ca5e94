//go:build verbs && cgo && linux

package verbs_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream/internal/rdmaguest"
	"github.com/novastream/novastream/rdma"
	"github.com/novastream/novastream/rdma/rdmatest"
	"github.com/novastream/novastream/rdma/verbs"
)

func TestMain(m *testing.M) {
	rdmaguest.Main()
	os.Exit(m.Run())
}

// required says that this host is to have devices, as the guest has.
const required = "NOVA_TEST_VERBS"

// openDevice opens a device.
func openDevice(t testing.TB, name string) rdma.Device {
	d, err := verbs.Provider().Open(name)
	if err != nil && os.Getenv(required) == "" {
		t.Skipf("no device to test with (make test-rdma has one): %v", err)
	}
	require.NoError(t, err)
	return d
}

func TestSuite(t *testing.T) {
	rdmatest.Run(t, func(t testing.TB) (a, b rdma.Device) { return openDevice(t, ""), openDevice(t, "") })
}
