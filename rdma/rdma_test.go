package rdma_test

import (
	"errors"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream/rdma"
)

type fake struct{ rdma.Provider }

func (fake) Name() string { return "fake" }

func TestLookup(t *testing.T) {
	rdma.Register(fake{})
	p, err := rdma.Lookup("fake")
	require.NoError(t, err)
	require.Equal(t, "fake", p.Name())
	require.Contains(t, rdma.Providers(), "fake")
	_, err = rdma.Lookup("verbs")
	require.ErrorIs(t, err, rdma.ErrUnknownProvider)
	require.ErrorContains(t, err, "-tags verbs")
	require.ErrorContains(t, err, "fake")
}

// The C shim and the wire know these layouts.
func TestLayout(t *testing.T) {
	require.EqualValues(t, 24, unsafe.Sizeof(rdma.Completion{}))
	require.EqualValues(t, 48, unsafe.Sizeof(rdma.SendWR{}))
	require.EqualValues(t, 24, unsafe.Sizeof(rdma.RecvWR{}))
	require.EqualValues(t, 40, unsafe.Offsetof(rdma.SendWR{}.Op))
	require.EqualValues(t, 20, unsafe.Offsetof(rdma.Completion{}.Op))
}

func TestStatus(t *testing.T) {
	require.NoError(t, rdma.Success.Err())
	seen := map[string]bool{}
	for s := range rdma.Status(32) {
		require.NotEmpty(t, s.String())
		if s == rdma.Success {
			continue
		}
		require.Error(t, s.Err(), s)
		if !errors.Is(s.Err(), rdma.ErrStatus) {
			require.False(t, seen[s.Err().Error()], s)
			seen[s.Err().Error()] = true
		}
	}
}

func TestNormalize(t *testing.T) {
	o, err := rdma.ConnectOptions{RNRRetry: -1}.Normalize()
	require.NoError(t, err)
	require.Equal(t, rdma.ConnectOptions{
		Timeout: rdma.DefaultTimeout, RetryCount: rdma.DefaultRetryCount, RNRTimer: rdma.DefaultRNRTimer,
	}, o)
	for _, bad := range []rdma.ConnectOptions{
		{RetryCount: 7}, {RNRRetry: 7}, {RetryCount: -2}, {Timeout: -1}, {Timeout: time.Hour}, {RNRTimer: time.Second}, {MTU: 1500}, {MTU: 128},
	} {
		_, err := bad.Normalize()
		require.ErrorIs(t, err, rdma.ErrOption, "%+v", bad)
	}
}
