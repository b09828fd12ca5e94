package torture

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// An episode follows from seed, lane and number, and has room in the ledger; somebody
// is at each end of each stream, and nobody at both.
func TestPlan(t *testing.T) {
	for _, l := range Lanes {
		kinds := map[FaultKind]int{}
		for n := range uint64(5000) {
			p := NewPlan(l, 7, n, false)
			require.Equal(t, p, NewPlan(l, 7, n, false))
			records := 0
			for _, s := range p.Streams {
				for _, x := range s.Senders {
					require.Equal(t, records, x.Record)
					records += x.Rounds
					require.Less(t, x.Host, max(p.Children, 0))
					require.True(t, l.local || x.Host != p.Receiver)
				}
			}
			require.LessOrEqual(t, records, maxSenders)
			require.LessOrEqual(t, len(p.Streams), maxStreams)
			for _, f := range p.Faults {
				require.Less(t, f.Child, p.Children)
				kinds[f.Kind]++
			}
			require.Empty(t, NewPlan(l, 7, n, true).Faults)
		}
		if !l.local {
			require.Len(t, kinds, faultKinds, "not every fault comes about")
		}
		require.NotEqual(t, NewPlan(l, 7, 1, false), NewPlan(l, 8, 1, false))
	}
}
