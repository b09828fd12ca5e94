package shm

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// No more are kept ready than were asked for, whoever takes some while another is made.
func TestPoolKeepsNoMoreThanItShould(t *testing.T) {
	const size, most = 1 << 20, 2
	p := NewPool(most, 1<<30)
	defer p.Close()
	for range 300 {
		for range 3 {
			seg, _, err := p.Get(size)
			require.NoError(t, err)
			require.NoError(t, seg.Close())
		}
		p.Settle()
		p.mu.Lock()
		n := len(p.ready[size])
		p.mu.Unlock()
		require.Equal(t, most, n)
	}
}
