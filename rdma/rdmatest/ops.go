package rdmatest

import (
	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream/rdma"
)

// write: a WRITE lands, before the word that is written after it, and touches
// nothing else.
func write(e *env) {
	a, b := e.pair(usual)
	fill(a.mem.Bytes(), 1)
	const n, announce = 4096, 8192
	word(a.mem, announce).Store(42)
	a.post(a.writeTo(b.mem, 0, n), a.writeTo(b.mem, announce, 8))
	e.until("the word has arrived", func() bool { return word(b.mem, announce).Load() == 42 })
	require.Equal(e, pattern(n, 1), b.mem.Bytes()[:n])
	require.Zero(e, b.mem.Bytes()[n])
	for range 2 {
		require.Equal(e, rdma.OpWrite, a.sent().Op)
	}
	e.none(a.scq)
	e.none(b.rcq)
}

// writeSizes: WRITEs of many sizes at many offsets land exactly.
func writeSizes(e *env) {
	a, b := e.pair(usual)
	fill(a.mem.Bytes(), 3)
	for _, n := range []int{0, 1, 7, 8, 9, 16, 63, 64, 65, 1023, 4095, 4096, 4097, 20000, regionSize - 16} {
		for _, off := range []int{0, 1, 8, 13} {
			if n+off > regionSize {
				continue
			}
			clear(b.mem.Bytes())
			a.post(a.writeTo(b.mem, off, n))
			a.sent()
			a.settle(b)
			want := make([]byte, regionSize)
			copy(want[off:off+n], a.mem.Bytes()[off:])
			require.Equal(e, want, b.mem.Bytes(), "%d bytes at %d", n, off)
		}
	}
	big, far := a.region(8<<20), b.region(8<<20)
	fill(big.Bytes(), 5)
	a.post(rdma.SendWR{Op: rdma.OpWrite, Flags: rdma.Signaled, Local: rdma.SegmentOf(big, 0, 8<<20), Remote: far.Addr(), RKey: far.RKey()})
	a.sent()
	a.settle(b)
	require.True(e, string(big.Bytes()) == string(far.Bytes()))
}

// writeImm: a WRITE_WITH_IMM lands and completes a receive, whose memory it leaves
// alone.
func writeImm(e *env) {
	a, b := e.pair(usual)
	fill(a.mem.Bytes(), 1)
	b.recv(0, 7, 8)
	wr := a.writeTo(b.mem, 128, 512)
	wr.Op, wr.ID, wr.Imm = rdma.OpWriteImm, 99, 0xdeadbeef
	empty := rdma.SendWR{Op: rdma.OpWriteImm, Imm: 1}
	a.post(wr, empty)
	got := b.received()
	require.EqualValues(e, 7, got.ID)
	require.Equal(e, rdma.OpRecvWrite, got.Op)
	require.True(e, got.HasImm)
	require.EqualValues(e, 0xdeadbeef, got.Imm)
	require.EqualValues(e, 512, got.Bytes)
	require.Equal(e, pattern(regionSize, 1)[128:640], b.mem.Bytes()[128:640])
	got = b.received()
	require.EqualValues(e, 8, got.ID)
	require.EqualValues(e, 1, got.Imm)
	require.Zero(e, got.Bytes)
	sent := a.sent()
	require.EqualValues(e, 99, sent.ID)
	require.Contains(e, []rdma.Op{rdma.OpWrite, rdma.OpWriteImm}, sent.Op)
}

// sendRecv: a SEND goes where the receive says, which may have room for more.
func sendRecv(e *env) {
	a, b := e.pair(usual)
	fill(a.mem.Bytes(), 9)
	b.recv(1000, 1)
	b.recv(0, 2)
	a.post(
		rdma.SendWR{Op: rdma.OpSend, Local: rdma.SegmentOf(a.mem, 0, 999)},
		rdma.SendWR{Op: rdma.OpSend, Flags: rdma.Signaled, ID: 5},
	)
	got := b.received()
	require.Equal(e, rdma.Completion{ID: 1, QP: b.qp.Num(), Op: rdma.OpRecv, Bytes: 999}, got)
	require.Equal(e, pattern(999, 9), b.mem.Bytes()[:999])
	require.Zero(e, b.mem.Bytes()[999])
	got = b.received()
	require.EqualValues(e, 2, got.ID)
	require.Zero(e, got.Bytes)
	require.Equal(e, rdma.OpSend, a.sent().Op)
}

// read: a READ brings the peer's bytes, in order with WRITEs before it, and a
// fenced WRITE after it sends on what it brought.
func read(e *env) {
	a, b := e.pair(usual)
	fill(a.mem.Bytes()[:4096], 2)
	there := func(op rdma.Op, local, remote, n int, f rdma.Flags) rdma.SendWR {
		return rdma.SendWR{Op: op, Flags: f, Local: rdma.SegmentOf(a.mem, local, n), Remote: b.mem.Addr() + uint64(remote), RKey: b.mem.RKey()}
	}
	a.post(
		there(rdma.OpWrite, 0, 0, 4096, 0),
		there(rdma.OpRead, 8192, 0, 4096, rdma.Signaled),
		there(rdma.OpWrite, 8192, 16384, 4096, rdma.Signaled|rdma.Fence),
	)
	require.Equal(e, rdma.OpRead, a.sent().Op)
	require.Equal(e, pattern(4096, 2), a.mem.Bytes()[8192:8192+4096])
	a.sent()
	a.settle(b)
	require.Equal(e, pattern(4096, 2), b.mem.Bytes()[16384:16384+4096])
}

// inline: an inline request is done with its memory at the post.
func inline(e *env) {
	a, b := e.pair(usual)
	for i := range 3 * depth {
		word(a.mem, 0).Store(uint64(i + 1))
		wr := a.writeTo(b.mem, 0, 8)
		wr.Remote += uint64(8 * i)
		wr.Flags = rdma.Inline
		if i%16 == 15 {
			wr.Flags |= rdma.Signaled
		}
		a.post(wr)
		word(a.mem, 0).Store(0)
		if i%16 == 15 {
			a.sent()
		}
	}
	for i := range 3 * depth {
		require.EqualValues(e, i+1, word(b.mem, 8*i).Load())
	}
	wr := a.writeTo(b.mem, 0, inlineSize+1)
	wr.Flags |= rdma.Inline
	if a.dev.Info().Provider == "soft" { // real devices may give more than was asked for
		_, err := a.qp.PostSend([]rdma.SendWR{wr})
		require.ErrorIs(e, err, rdma.ErrRequest)
	}
}

// unsignaled: only what is signalled completes, and its completion stands for all
// before it.
func unsignaled(e *env) {
	a, b := e.pair(usual)
	fill(a.mem.Bytes(), 4)
	const n = 10
	for round := range 20 {
		for i := range n {
			wr := a.writeTo(b.mem, i*64, 64)
			wr.ID = uint64(100*round + i)
			if i != n-1 {
				wr.Flags = 0
			}
			a.post(wr)
		}
		require.EqualValues(e, 100*round+n-1, a.sent().ID)
		e.none(a.scq)
	}
	a.settle(b)
	require.Equal(e, pattern(n*64, 4), b.mem.Bytes()[:n*64])
}
