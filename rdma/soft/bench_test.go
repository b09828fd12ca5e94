package soft_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream/rdma"
)

// BenchmarkProcess writes to another process as a lane does: a range, and a word
// that announces it, inline; every eighth pair is signalled.
func BenchmarkProcess(b *testing.B) {
	for _, size := range []int{64, 4 << 10, 64 << 10, 256 << 10, 1 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			s := open(b, 64<<20)
			peer, _ := s.other(b, rdma.ConnectOptions{})
			wrs := []rdma.SendWR{
				{Op: rdma.OpWrite, Local: rdma.SegmentOf(s.mem, 4096, size), Remote: peer.Addr + 4096, RKey: peer.RKey},
				{Op: rdma.OpWrite, Flags: rdma.Inline, Local: rdma.SegmentOf(s.mem, 0, 8), Remote: peer.Addr, RKey: peer.RKey},
			}
			const every, inFlight = 8, 8 // pairs, and groups of them
			out := 0
			b.SetBytes(int64(size))
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				wrs[1].Flags = rdma.Inline
				last := i%every == every-1 || i == b.N-1
				if last {
					wrs[1].Flags |= rdma.Signaled
				}
				_, err := s.qp.PostSend(wrs)
				require.NoError(b, err)
				if last {
					if out++; out == inFlight {
						s.poll(b, 1)
						out--
					}
				}
			}
			s.poll(b, out)
		})
	}
}

// BenchmarkProcessRoundTrip is a signalled WRITE of a word, and its completion.
func BenchmarkProcessRoundTrip(b *testing.B) {
	s := open(b, 4096)
	peer, _ := s.other(b, rdma.ConnectOptions{})
	wr := []rdma.SendWR{{Op: rdma.OpWrite, Flags: rdma.Inline | rdma.Signaled, Local: rdma.SegmentOf(s.mem, 0, 8), Remote: peer.Addr, RKey: peer.RKey}}
	for range b.N {
		_, err := s.qp.PostSend(wr)
		require.NoError(b, err)
		s.poll(b, 1)
	}
}
