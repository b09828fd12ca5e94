//go:build linux

package shm

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream/shm"
)

// All that is given up is closed, also what is more than may wait, and a Lane that is
// closed has nothing left.
func TestDiscardsAreClosed(t *testing.T) {
	var d discards
	require.False(t, d.settle())
	var kits []*kit
	for _, size := range []int{4096, 4096, discardBytes, 4096} {
		seg, err := shm.NewHeap(size)
		require.NoError(t, err)
		k := &kit{seg: seg}
		k.consumerBell, err = shm.NewBell()
		require.NoError(t, err)
		k.producerBell, err = shm.NewBell()
		require.NoError(t, err)
		kits = append(kits, k)
		d.add(k)
	}
	d.settle()
	for _, k := range kits {
		require.ErrorIs(t, k.consumerBell.Wait(0), shm.ErrClosed)
		require.ErrorIs(t, k.producerBell.Wait(0), shm.ErrClosed)
	}
	require.Zero(t, d.bytes)
	require.Empty(t, d.kits)
}
