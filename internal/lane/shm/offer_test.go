package shm

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream/internal/lane"
	"github.com/novastream/novastream/ring"
	"github.com/novastream/novastream/shm"
)

// FuzzOffer: a sender's offer names segments or nothing.
func FuzzOffer(f *testing.F) {
	f.Add(release{1 << 40, 3}.append(release{1, 1}.append(nil)))
	f.Add([]byte{0x80})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		all := offered(b)
		require.LessOrEqual(t, 2*len(all), len(b))
		var again []byte
		for _, r := range all {
			again = r.append(again)
		}
		require.Equal(t, all, offered(again))
	})
}

// Two attaches offer the same segment. When the second one arrives, the first one's
// session is over at the receiver, and perhaps not yet at the sender: the segment is
// not the second one's.
func TestOfferThatWasOvertaken(t *testing.T) {
	geo := ring.Geometry{SlotSize: 64, Slots: 64, Payload: 56, Producers: 1}
	seg, err := shm.NewHeap(1 << 16)
	require.NoError(t, err)
	k := &kit{id: 7, geo: geo, sessions: 1, seg: seg}
	l, p := New(nil), &pair{receiving: map[uint64]*kit{7: k}, sending: map[uint64]*kit{}}
	req := lane.Request{Geometry: geo, Offer: release{7, 1}.append(nil)}
	require.Same(t, k, l.again(p, req), "the first")
	k.sessions++
	p.receiving[7] = k // its session has ended
	require.Nil(t, l.again(p, req), "the second, whose offer is of before")
	req.Offer = release{7, 2}.append(nil)
	require.Same(t, k, l.again(p, req), "a later one")
}
