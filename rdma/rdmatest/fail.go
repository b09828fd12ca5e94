package rdmatest

import (
	"time"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream/rdma"
)

// impatient is for cases that wait for a peer that does not answer.
var impatient = rdma.ConnectOptions{Timeout: 8 * time.Millisecond, RetryCount: 3, RNRRetry: 3, RNRTimer: time.Millisecond}

// states: what each state permits, and what Connect refuses.
func states(e *env) {
	a, b := e.side(e.a), e.side(e.b)
	_, err := a.qp.PostSend([]rdma.SendWR{a.writeTo(b.mem, 0, 8)})
	require.ErrorIs(e, err, rdma.ErrState)
	a.recv(64, 1)
	for _, bad := range [][]byte{nil, {}, []byte("garbage"), b.qp.Address()[1:], append(b.qp.Address(), 0)} {
		require.ErrorIs(e, a.qp.Connect(e.ctx, bad, usual), rdma.ErrAddress, "%x", bad)
	}
	require.ErrorIs(e, a.qp.Connect(e.ctx, b.qp.Address(), rdma.ConnectOptions{RetryCount: 7}), rdma.ErrOption)
	require.Equal(e, rdma.Init, a.qp.State())
	e.connect(a.qp, b.qp, usual)
	require.ErrorIs(e, a.qp.Connect(e.ctx, b.qp.Address(), usual), rdma.ErrState)
	for name, wr := range map[string]rdma.SendWR{
		"no operation": {}, "a receive": {Op: rdma.OpRecv}, "inline read": {Op: rdma.OpRead, Flags: rdma.Inline},
	} {
		n, err := a.qp.PostSend([]rdma.SendWR{a.writeTo(b.mem, 0, 8), wr})
		require.ErrorIs(e, err, rdma.ErrRequest, name)
		require.Equal(e, 1, n, name)
		a.sent()
	}
	require.NoError(e, a.qp.Close())
	_, err = a.qp.PostSend([]rdma.SendWR{a.writeTo(b.mem, 0, 8)})
	require.ErrorIs(e, err, rdma.ErrClosed)
	_, err = a.qp.PostRecv([]rdma.RecvWR{{}})
	require.ErrorIs(e, err, rdma.ErrClosed)
	require.ErrorIs(e, a.qp.Abort(), rdma.ErrClosed)
	require.ErrorIs(e, a.qp.Connect(e.ctx, b.qp.Address(), usual), rdma.ErrClosed)
	require.NoError(e, a.qp.Close())
}

// mtu: a path MTU that both ports have is taken, a larger one is ErrMTU.
func mtu(e *env) {
	a, b := e.side(e.a), e.side(e.b)
	if e.a.Info().MTU < 4096 {
		require.ErrorIs(e, a.qp.Connect(e.ctx, b.qp.Address(), rdma.ConnectOptions{MTU: 4096}), rdma.ErrMTU)
	}
	e.connect(a.qp, b.qp, rdma.ConnectOptions{MTU: 256})
	fill(a.mem.Bytes(), 1)
	a.post(a.writeTo(b.mem, 0, 5000))
	a.sent()
	a.settle(b)
	require.Equal(e, pattern(5000, 1), b.mem.Bytes()[:5000])
}

// rnr: a request that finds no receive waits for one, and what is behind it waits
// too.
func rnr(e *env) {
	a, b := e.pair(rdma.ConnectOptions{RNRRetry: 6, RNRTimer: 100 * time.Millisecond})
	fill(a.mem.Bytes(), 1)
	imm := rdma.SendWR{Op: rdma.OpWriteImm, Flags: rdma.Signaled, ID: 1, Imm: 5}
	behind := a.writeTo(b.mem, 0, 64)
	behind.ID = 2
	a.post(imm, behind)
	time.Sleep(20 * time.Millisecond) // lets it be refused; nothing depends on it
	e.none(a.scq)
	b.recv(0, 9)
	require.EqualValues(e, 5, b.received().Imm)
	require.EqualValues(e, 1, a.sent().ID)
	require.EqualValues(e, 2, a.sent().ID)
}

// rnrExhausted: a request that never finds a receive is RNRRetryExceeded.
func rnrExhausted(e *env) {
	for name, op := range map[string]rdma.Op{"SEND": rdma.OpSend, "WRITE_WITH_IMM": rdma.OpWriteImm} {
		e.part(name, func(e *env) {
			a, b := e.pair(impatient)
			first := a.writeTo(b.mem, 0, 8)
			first.ID = 1
			a.post(first, rdma.SendWR{Op: op, ID: 2}, rdma.SendWR{Op: rdma.OpWrite, ID: 3})
			got := e.await(a.scq, 3)
			require.NoError(e, got[0].Status.Err())
			require.EqualValues(e, 2, got[1].ID)
			require.Equal(e, rdma.RNRRetryExceeded, got[1].Status)
			require.Equal(e, rdma.Flushed, got[2].Status)
			e.inError(a.qp)
		})
	}
}

// peerConnectsLater: what is sent before the other side is connected arrives when
// it is, if that is soon enough.
func peerConnectsLater(e *env) {
	a, b := e.side(e.a), e.side(e.b)
	opt := rdma.ConnectOptions{Timeout: 500 * time.Millisecond}
	require.NoError(e, a.qp.Connect(e.ctx, b.qp.Address(), opt))
	fill(a.mem.Bytes(), 1)
	a.post(a.writeTo(b.mem, 0, 64))
	time.Sleep(20 * time.Millisecond) // lets it be lost; nothing depends on it
	require.NoError(e, b.qp.Connect(e.ctx, a.qp.Address(), opt))
	a.sent()
	a.settle(b)
	require.Equal(e, pattern(64, 1), b.mem.Bytes()[:64])
}

// peerGone: a peer that was closed is RetryExceeded, once, and the rest is flushed.
func peerGone(e *env) {
	a, b := e.pair(impatient)
	a.post(a.writeTo(b.mem, 0, 64))
	a.sent()
	require.NoError(e, b.qp.Close())
	a.recv(64, 5)
	wr := a.writeTo(b.mem, 0, 64)
	wr.ID = 1
	a.post(wr, wr)
	got := e.await(a.scq, 2)
	require.EqualValues(e, 1, got[0].ID)
	require.Equal(e, rdma.RetryExceeded, got[0].Status)
	require.ErrorIs(e, got[0].Status.Err(), rdma.ErrRetryExceeded)
	require.Equal(e, rdma.Flushed, got[1].Status)
	require.Equal(e, rdma.Flushed, e.await(a.rcq, 1)[0].Status)
	e.inError(a.qp)
}

// abort: everything outstanding is flushed, in order, signalled or not, and what
// is posted after it too.
func abort(e *env) {
	a := e.side(e.a)
	b := e.side(e.b)
	require.NoError(e, a.qp.Connect(e.ctx, b.qp.Address(), usual)) // b never connects
	a.recv(64, 1, 2, 3)
	for id := range uint64(10) {
		a.post(rdma.SendWR{Op: rdma.OpWrite, ID: id, Local: rdma.SegmentOf(a.mem, 0, 64), Remote: b.mem.Addr(), RKey: b.mem.RKey()})
	}
	require.NoError(e, a.qp.Abort())
	for i, c := range e.await(a.scq, 10) {
		require.EqualValues(e, i, c.ID)
		require.Equal(e, rdma.Flushed, c.Status)
		require.Equal(e, a.qp.Num(), c.QP)
	}
	for i, c := range e.await(a.rcq, 3) {
		require.EqualValues(e, i+1, c.ID)
		require.Equal(e, rdma.Flushed, c.Status)
	}
	require.Equal(e, rdma.Error, a.qp.State())
	require.NoError(e, a.qp.Abort())
	for id := range uint64(3 * depth) {
		a.post(rdma.SendWR{Op: rdma.OpWrite, ID: id})
		a.recv(0, id)
		for _, cq := range []rdma.CQ{a.scq, a.rcq} {
			c := e.await(cq, 1)[0]
			require.EqualValues(e, id, c.ID)
			require.Equal(e, rdma.Flushed, c.Status)
		}
	}
	require.NoError(e, b.qp.Abort()) // never connected
	require.Equal(e, rdma.Error, b.qp.State())
}
