package soft_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream/rdma"
	"github.com/novastream/novastream/rdma/rdmatest"
	"github.com/novastream/novastream/rdma/soft"
)

// opener opens two devices of a provider.
func opener(opts ...soft.Option) rdmatest.Open {
	p := soft.New(opts...)
	return func(t testing.TB) (a, b rdma.Device) {
		a, err := p.Open("")
		require.NoError(t, err)
		b, err = p.Open("")
		require.NoError(t, err)
		return a, b
	}
}

func TestSuite(t *testing.T) { rdmatest.Run(t, opener()) }

func TestSuiteOverTCP(t *testing.T) { rdmatest.Run(t, opener(soft.OverTCP())) }
