package rdmatest

import (
	"context"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream/rdma"
)

// patience is how long a case waits for what must happen. Real devices in an
// emulated machine are slow.
const patience = 30 * time.Second

// Sizes that suffice for most cases.
const (
	depth      = 64
	regionSize = 1 << 16
	inlineSize = 64
)

// env is one case's.
type env struct {
	*testing.T
	ctx  context.Context
	open Open
	a, b rdma.Device
}

// part runs a part of a case, with devices of its own.
func (e *env) part(name string, run func(e *env)) {
	e.Run(name, func(t *testing.T) { run(newEnv(t, e.open)) })
}

func newEnv(t *testing.T, open Open) *env {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	e := &env{T: t, ctx: ctx, open: open}
	e.a, e.b = open(t)
	t.Cleanup(func() {
		cancel()
		require.NoError(t, e.a.Close())
		require.NoError(t, e.b.Close())
	})
	return e
}

// faults is the device as one that can be told to fail.
func (e *env) faults(d rdma.Device) FaultInjector {
	e.Helper()
	f, ok := d.(FaultInjector)
	if !ok {
		e.Skipf("devices of %s cannot be told to fail", d.Info().Provider)
	}
	return f
}

// end is one side's objects.
type end struct {
	e    *env
	dev  rdma.Device
	dom  rdma.Domain
	scq  rdma.CQ
	rcq  rdma.CQ
	qp   rdma.QP
	mem  rdma.Region
	bell rdma.Region // words that the other side writes last
	rung uint64
}

// side makes one side, not connected.
func (e *env) side(d rdma.Device) *end {
	e.Helper()
	s := &end{e: e, dev: d}
	var err error
	s.dom, err = d.NewDomain()
	require.NoError(e, err)
	s.scq, err = s.dom.NewCQ(4 * depth)
	require.NoError(e, err)
	s.rcq, err = s.dom.NewCQ(4 * depth)
	require.NoError(e, err)
	s.qp = s.newQP()
	s.mem = s.region(regionSize)
	s.bell = s.region(64)
	return s
}

func (s *end) newQP() rdma.QP {
	s.e.Helper()
	qp, err := s.dom.NewQP(rdma.QPOptions{SendCQ: s.scq, RecvCQ: s.rcq, MaxSend: depth, MaxRecv: depth, MaxInline: inlineSize})
	require.NoError(s.e, err)
	require.Equal(s.e, rdma.Init, qp.State())
	return qp
}

// region makes a region that a peer may read and write.
func (s *end) region(size int) rdma.Region {
	s.e.Helper()
	r, err := s.dom.NewRegion(size, rdma.RemoteWrite|rdma.RemoteRead)
	require.NoError(s.e, err)
	require.Len(s.e, r.Bytes(), size)
	return r
}

// connect connects two queue pairs.
func (e *env) connect(a, b rdma.QP, opt rdma.ConnectOptions) {
	e.Helper()
	require.NoError(e, a.Connect(e.ctx, b.Address(), opt))
	require.NoError(e, b.Connect(e.ctx, a.Address(), opt))
	require.Equal(e, rdma.RTS, a.State())
}

// pair makes two sides, connected.
func (e *env) pair(opt rdma.ConnectOptions) (a, b *end) {
	e.Helper()
	a, b = e.side(e.a), e.side(e.b)
	e.connect(a.qp, b.qp, opt)
	return a, b
}

// usual is what most cases connect with.
var usual = rdma.ConnectOptions{}

// post posts sends.
func (s *end) post(wrs ...rdma.SendWR) {
	s.e.Helper()
	n, err := s.qp.PostSend(wrs)
	require.NoError(s.e, err)
	require.Equal(s.e, len(wrs), n)
}

// recv posts receives into the first bytes of the side's region, none when n is 0.
func (s *end) recv(n int, ids ...uint64) {
	s.e.Helper()
	for _, id := range ids {
		wr := rdma.RecvWR{ID: id}
		if n > 0 {
			wr.Local = rdma.SegmentOf(s.mem, 0, n)
		}
		k, err := s.qp.PostRecv([]rdma.RecvWR{wr})
		require.NoError(s.e, err)
		require.Equal(s.e, 1, k)
	}
}

// writeTo is a WRITE of n bytes from the side's region to another, at the same
// offset.
func (s *end) writeTo(to rdma.Region, off, n int) rdma.SendWR {
	return rdma.SendWR{
		Op: rdma.OpWrite, Flags: rdma.Signaled, Local: rdma.SegmentOf(s.mem, off, n),
		Remote: to.Addr() + uint64(off), RKey: to.RKey(),
	}
}

// await takes n completions.
func (e *env) await(cq rdma.CQ, n int) []rdma.Completion {
	e.Helper()
	got, err := take(e.ctx, cq, n)
	require.NoError(e, err)
	return got
}

// take takes n completions, in any goroutine.
func take(ctx context.Context, cq rdma.CQ, n int) ([]rdma.Completion, error) {
	got := make([]rdma.Completion, 0, n)
	for len(got) < n {
		k, err := cq.Poll(got[len(got):n])
		if err != nil {
			return got, err
		}
		if got = got[:len(got)+k]; k == 0 {
			if err := cq.Wait(ctx); err != nil {
				return got, err
			}
		}
	}
	return got, nil
}

// sent takes one completion of a send, which must have succeeded.
func (s *end) sent() rdma.Completion {
	s.e.Helper()
	c := s.e.await(s.scq, 1)[0]
	require.NoError(s.e, c.Status.Err())
	require.Equal(s.e, s.qp.Num(), c.QP)
	return c
}

// received takes one completion of a receive, which must have succeeded.
func (s *end) received() rdma.Completion {
	s.e.Helper()
	c := s.e.await(s.rcq, 1)[0]
	require.NoError(s.e, c.Status.Err())
	require.Equal(s.e, s.qp.Num(), c.QP)
	return c
}

// settle waits until all that the side has posted has arrived at to, as to's owner
// may know it: by a word that is written last.
func (s *end) settle(to *end) {
	s.e.Helper()
	s.rung++
	word(s.bell, 8).Store(s.rung)
	s.post(rdma.SendWR{
		Op: rdma.OpWrite, Flags: rdma.Signaled, Local: rdma.SegmentOf(s.bell, 8, 8), Remote: to.bell.Addr(), RKey: to.bell.RKey(),
	})
	s.sent()
	s.e.until("the last word has arrived", func() bool { return word(to.bell, 0).Load() == s.rung })
}

// status takes one completion of a send.
func (s *end) status() rdma.Status {
	s.e.Helper()
	return s.e.await(s.scq, 1)[0].Status
}

// none says that a queue has nothing now.
func (e *env) none(cq rdma.CQ) {
	e.Helper()
	n, err := cq.Poll(make([]rdma.Completion, 1))
	require.NoError(e, err)
	require.Zero(e, n)
}

// inError waits until the queue pair is in Error.
func (e *env) inError(q rdma.QP) {
	e.Helper()
	e.until("the queue pair is in Error", func() bool { return q.State() == rdma.Error })
}

// until waits for what nothing tells of.
func (e *env) until(what string, ok func() bool) {
	e.Helper()
	for !ok() {
		if e.ctx.Err() != nil {
			require.Fail(e, "waited in vain", "until %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// word is the 64-bit word at an offset of a region, as its owner polls it.
func word(r rdma.Region, off int) *atomic.Uint64 {
	return (*atomic.Uint64)(unsafe.Pointer(&r.Bytes()[off : off+8][0]))
}

// fill writes a pattern.
func fill(b []byte, seed int) {
	for i := range b {
		b[i] = byte(i*7 + i>>8 + seed)
	}
}

// pattern is what fill writes.
func pattern(n, seed int) []byte {
	b := make([]byte, n)
	fill(b, seed)
	return b
}
