//go:build !(verbs && cgo && linux)

package verbs

import (
	"fmt"

	"github.com/novastream/novastream/rdma"
)

// Provider is the provider. This build has none: every call of it says what is
// missing.
func Provider() rdma.Provider { return missing{} }

type missing struct{}

func (missing) Name() string { return "verbs" }

func (missing) Devices() ([]rdma.DeviceInfo, error) { return nil, errMissing() }

func (missing) Open(string) (rdma.Device, error) { return nil, errMissing() }

func errMissing() error {
	return fmt.Errorf("%w: this program was built without libibverbs: on Linux install gcc, libibverbs-dev and librdmacm-dev, and build with CGO_ENABLED=1 and -tags verbs", rdma.ErrNoDevice)
}
