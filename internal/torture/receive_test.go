package torture

import (
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream"
)

// What a receiver enters in its book about what it was told.
func TestReceiverBooks(t *testing.T) {
	data := func(n, seq uint64) arrival {
		return arrival{kind: novastream.KindData, sender: 1, seq: seq, known: true, id: ident(9, 0), n: n, whole: true, size: 10}
	}
	torn := data(2, 2)
	torn.whole = false
	foreign := data(0, 0)
	foreign.id = ident(8, 0)
	begin, end := arrival{kind: novastream.KindAttached, sender: 1}, arrival{kind: novastream.KindDropped, sender: 1}
	for name, c := range map[string]struct {
		told []arrival
		want sessionBook
		t    streamBook
	}{
		"honest":         {[]arrival{begin, data(0, 0), data(1, 1), end}, sessionBook{Got: 2, Bytes: 20}, streamBook{}},
		"a gap":          {[]arrival{begin, data(0, 0), data(2, 1), end}, sessionBook{Got: 2, Bytes: 20, Missing: 1}, streamBook{}},
		"late":           {[]arrival{begin, data(1, 0), data(0, 1), end}, sessionBook{Got: 2, Bytes: 20, Reordered: 1}, streamBook{}},
		"twice":          {[]arrival{begin, data(0, 0), data(0, 1), data(1, 2), end}, sessionBook{Got: 2, Bytes: 20, Doubled: 1}, streamBook{}},
		"torn":           {[]arrival{begin, data(0, 0), data(1, 1), torn, data(3, 3), end}, sessionBook{Got: 3, Bytes: 30, Torn: 1}, streamBook{}},
		"another's":      {[]arrival{begin, foreign, data(0, 1), end}, sessionBook{Got: 1, Bytes: 10, Foreign: 1}, streamBook{}},
		"misnumbered":    {[]arrival{begin, data(0, 0), data(1, 5), end}, sessionBook{Got: 2, Bytes: 20, Numbers: 1}, streamBook{}},
		"after its end":  {[]arrival{begin, data(0, 0), end, data(1, 1), end}, sessionBook{Got: 1, Bytes: 10}, streamBook{Unknown: 2}},
		"attached twice": {[]arrival{begin, begin, data(0, 0), end}, sessionBook{Got: 1, Bytes: 10}, streamBook{Overflow: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := CreateLedger(filepath.Join(t.TempDir(), "ledger"), 1)
			require.NoError(t, err)
			defer l.Close()
			p := &Plan{Episode: 9, Streams: []StreamPlan{{}}}
			r := receiver{p: p, s: &p.Streams[0], t: l.region(0).stream(0), region: l.region(0), next: new(atomic.Int64), sessions: map[novastream.SenderID]*session{}}
			for _, a := range c.told {
				r.take(a)
			}
			b := readBooks(l.region(0), p)
			require.Len(t, b.sessions, 1)
			got := b.sessions[0]
			require.EqualValues(t, 1, got.Exits)
			require.EqualValues(t, novastream.KindDropped, got.Kind)
			got.Exits, got.Kind, got.ID, got.EndAt, got.FirstAt = 0, 0, 0, 0, 0
			require.Equal(t, c.want, got)
			require.Equal(t, c.t.Unknown, b.streams[0].Unknown)
			require.Equal(t, c.t.Overflow, b.streams[0].Overflow)
		})
	}
}
