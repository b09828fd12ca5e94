package rdma_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream"
	"github.com/novastream/novastream/control"
	"github.com/novastream/novastream/rdma"
)

// listen starts a node that only the network reaches, and a Streaming over a provider
// on it. Whoever calls it closes them.
func listen(t *testing.T, dir, provider string) (*control.Node, *novastream.Streaming) {
	n, err := control.Listen(t.Context(), control.WithDir(dir), control.WithoutUnix(), control.WithTCP("127.0.0.1:0"))
	require.NoError(t, err)
	s, err := novastream.New(n, novastream.RDMA(provider, ""))
	require.NoError(t, err)
	return n, s
}

// open is listen for as long as the test lasts.
func open(t *testing.T, dir, provider string) (*control.Node, *novastream.Streaming) {
	n, s := listen(t, dir, provider)
	t.Cleanup(func() {
		s.Close()
		n.Close()
	})
	return n, s
}

// wrapQPs is a device whose queue pairs are what wrap makes of them.
func wrapQPs(d rdma.Device, wrap func(rdma.QP) rdma.QP) rdma.Device { return &wrappedDevice{d, wrap} }

type wrappedDevice struct {
	rdma.Device
	wrap func(rdma.QP) rdma.QP
}

func (d *wrappedDevice) NewDomain() (rdma.Domain, error) {
	m, err := d.Device.NewDomain()
	return &wrappedDomain{m, d.wrap}, err
}

type wrappedDomain struct {
	rdma.Domain
	wrap func(rdma.QP) rdma.QP
}

func (m *wrappedDomain) NewQP(opt rdma.QPOptions) (rdma.QP, error) {
	q, err := m.Domain.NewQP(opt)
	if err != nil {
		return nil, err
	}
	return m.wrap(q), nil
}
