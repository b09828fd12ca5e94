package rdmatest

import (
	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream/rdma"
)

// refused is what every request that the peer's region does not permit comes to:
// the request has the status, what is behind it is flushed, both queue pairs are
// in Error, and not a byte has landed.
func refused(e *env, a, b *end, wr rdma.SendWR, want rdma.Status) {
	e.Helper()
	before := append([]byte(nil), b.mem.Bytes()...)
	b.recv(0, 77)
	wr.ID = 1
	behind := a.writeTo(b.mem, 0, 64)
	behind.ID, behind.Flags = 2, 0
	n, err := a.qp.PostSend([]rdma.SendWR{wr, behind})
	require.NoError(e, err)
	require.Equal(e, 2, n)
	got := e.await(a.scq, 2)
	require.EqualValues(e, 1, got[0].ID)
	require.Equal(e, want, got[0].Status)
	require.EqualValues(e, 2, got[1].ID)
	require.Equal(e, rdma.Flushed, got[1].Status)
	e.inError(a.qp)
	e.inError(b.qp)
	c := e.await(b.rcq, 1)[0]
	require.EqualValues(e, 77, c.ID)
	require.Equal(e, rdma.Flushed, c.Status)
	require.Equal(e, before, b.mem.Bytes())
}

// remoteAccess: a key, a range or an access that the peer's region does not permit
// is RemoteAccess.
func remoteAccess(e *env) {
	type setup func(a, b *end, wr *rdma.SendWR)
	for name, change := range map[string]setup{
		"unknown key":        func(_, _ *end, wr *rdma.SendWR) { wr.RKey ^= 0x5a5a5a5a },
		"beyond the end":     func(_, b *end, wr *rdma.SendWR) { wr.Remote = b.mem.Addr() + regionSize - 63 },
		"far beyond the end": func(_, b *end, wr *rdma.SendWR) { wr.Remote = b.mem.Addr() + 1<<30 },
		"before the start":   func(_, b *end, wr *rdma.SendWR) { wr.Remote = b.mem.Addr() - 1 },
		"wrapped around":     func(_, _ *end, wr *rdma.SendWR) { wr.Remote = ^uint64(0) - 31 },
		"read beyond the end": func(_, b *end, wr *rdma.SendWR) {
			wr.Op, wr.Remote = rdma.OpRead, b.mem.Addr()+regionSize-63
		},
		"no write permitted": func(_, b *end, wr *rdma.SendWR) {
			r, err := b.dom.NewRegion(4096, rdma.RemoteRead)
			require.NoError(e, err)
			wr.Remote, wr.RKey = r.Addr(), r.RKey()
		},
		"no read permitted": func(_, b *end, wr *rdma.SendWR) {
			r, err := b.dom.NewRegion(4096, rdma.RemoteWrite)
			require.NoError(e, err)
			wr.Op, wr.Remote, wr.RKey = rdma.OpRead, r.Addr(), r.RKey()
		},
		"region of another domain": func(_, b *end, wr *rdma.SendWR) {
			other, err := b.dev.NewDomain()
			require.NoError(e, err)
			r, err := other.NewRegion(4096, rdma.RemoteWrite)
			require.NoError(e, err)
			wr.Remote, wr.RKey = r.Addr(), r.RKey()
		},
	} {
		e.part(name, func(e *env) {
			a, b := e.pair(usual)
			fill(a.mem.Bytes(), 1)
			wr := a.writeTo(b.mem, 0, 64)
			change(a, b, &wr)
			refused(e, a, b, wr, rdma.RemoteAccess)
		})
	}
}

// staleKey: what was written with a key before its region's Close has landed, what
// is written after it is RemoteAccess, though the memory next to it lives on.
func staleKey(e *env) {
	a, b := e.pair(usual)
	gone := b.region(4096)
	wr := a.writeTo(gone, 0, 64)
	a.post(wr)
	a.sent()
	require.NoError(e, gone.Close())
	require.NoError(e, gone.Close())
	fresh := b.region(4096)
	require.NotEqual(e, wr.RKey, fresh.RKey())
	refused(e, a, b, wr, rdma.RemoteAccess)
	require.Equal(e, make([]byte, 4096), fresh.Bytes())
}

// localProtection: local memory that is not registered, or not all of it, is
// LocalProtection, after what was posted before it.
func localProtection(e *env) {
	for name, change := range map[string]func(a *end, wr *rdma.SendWR){
		"unknown key":    func(_ *end, wr *rdma.SendWR) { wr.Local.LKey ^= 0x5a5a5a5a },
		"beyond the end": func(a *end, wr *rdma.SendWR) { wr.Local.Addr = a.mem.Addr() + regionSize - 63 },
		"closed region": func(a *end, wr *rdma.SendWR) {
			r := a.region(4096)
			wr.Local = rdma.SegmentOf(r, 0, 64)
			require.NoError(e, r.Close())
		},
	} {
		e.part(name, func(e *env) {
			a, b := e.pair(usual)
			before, wr := a.writeTo(b.mem, 0, 64), a.writeTo(b.mem, 64, 64)
			before.ID, wr.ID = 1, 2
			change(a, &wr)
			a.post(before, wr)
			got := e.await(a.scq, 2)
			require.EqualValues(e, 1, got[0].ID)
			require.NoError(e, got[0].Status.Err())
			require.EqualValues(e, 2, got[1].ID)
			// rdma_rxe says that the queue pair is inconsistent.
			require.Contains(e, []rdma.Status{rdma.LocalProtection, rdma.LocalOperation}, got[1].Status)
			e.inError(a.qp)
		})
	}
}

// recvTooSmall: a SEND that is longer than its receive fails on both sides.
func recvTooSmall(e *env) {
	a, b := e.pair(usual)
	b.recv(64, 1, 2)
	a.post(rdma.SendWR{Op: rdma.OpSend, Flags: rdma.Signaled, Local: rdma.SegmentOf(a.mem, 0, 65)})
	require.Contains(e, []rdma.Status{rdma.RemoteInvalid, rdma.RemoteOperation}, a.status())
	got := e.await(b.rcq, 2)
	require.EqualValues(e, 1, got[0].ID)
	require.Contains(e, []rdma.Status{rdma.LocalLength, rdma.LocalOperation, rdma.LocalProtection}, got[0].Status)
	require.Equal(e, rdma.Flushed, got[1].Status)
	e.inError(a.qp)
	e.inError(b.qp)
}

// limits: what a device cannot make is ErrLimit, and ErrOption what nobody could.
func limits(e *env) {
	s := e.side(e.a)
	l := e.a.Info().Limits
	_, err := s.dom.NewRegion(0, 0)
	require.ErrorIs(e, err, rdma.ErrLimit)
	_, err = s.dom.NewRegion(-1, 0)
	require.ErrorIs(e, err, rdma.ErrLimit)
	_, err = s.dom.NewCQ(0)
	require.ErrorIs(e, err, rdma.ErrLimit)
	_, err = s.dom.NewCQ(l.MaxCQ + 1)
	require.ErrorIs(e, err, rdma.ErrLimit)
	good := rdma.QPOptions{SendCQ: s.scq, RecvCQ: s.rcq, MaxSend: 1, MaxRecv: 1}
	for _, change := range []func(*rdma.QPOptions){
		func(o *rdma.QPOptions) { o.MaxSend = 0 }, func(o *rdma.QPOptions) { o.MaxSend = l.MaxSend + 1 },
		func(o *rdma.QPOptions) { o.MaxRecv = 0 }, func(o *rdma.QPOptions) { o.MaxRecv = l.MaxRecv + 1 },
		func(o *rdma.QPOptions) { o.MaxInline = -1 }, func(o *rdma.QPOptions) { o.MaxInline = l.MaxInline + 1 },
	} {
		o := good
		change(&o)
		_, err := s.dom.NewQP(o)
		require.ErrorIs(e, err, rdma.ErrLimit, "%+v", o)
	}
	other, err := e.a.NewDomain()
	require.NoError(e, err)
	o := good
	o.RecvCQ, err = other.NewCQ(1)
	require.NoError(e, err)
	_, err = s.dom.NewQP(o)
	require.ErrorIs(e, err, rdma.ErrOption)
	o.RecvCQ = nil
	_, err = s.dom.NewQP(o)
	require.ErrorIs(e, err, rdma.ErrOption)
	_, err = s.dom.NewQP(good)
	require.NoError(e, err)
}
