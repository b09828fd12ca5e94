package rdmatest

import (
	"time"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream/rdma"
)

// quick is for cases in which much is lost: many short tries.
var quick = rdma.ConnectOptions{Timeout: 2 * time.Millisecond, RetryCount: 6}

// faultLoss: a lossy link is slow, and loses, doubles and reorders nothing: WRITEs,
// READs, SENDs, immediates.
func faultLoss(e *env) {
	f, g := e.faults(e.a), e.faults(e.b)
	f.Lose(0.1)
	g.Lose(0.1)
	a, b := e.pair(quick)
	require.NoError(e, flow(a, b, 300))
	e.part("kinds", func(e *env) {
		e.faults(e.a).Lose(0.1)
		for range 5 {
			orderAcrossKindsWith(e, quick)
		}
	})
	e.part("reads", func(e *env) {
		e.faults(e.a).Lose(0.3)
		a, b := e.pair(quick)
		fill(b.mem.Bytes(), 5)
		for range 100 {
			wr := a.writeTo(b.mem, 0, 4096)
			wr.Op = rdma.OpRead
			clear(a.mem.Bytes()[:4096])
			a.post(wr)
			a.sent()
			require.Equal(e, pattern(4096, 5), a.mem.Bytes()[:4096])
		}
	})
}

// faultDelay: requests of one queue pair stay in order, those of two overtake each
// other.
func faultDelay(e *env) {
	f := e.faults(e.a)
	a, b := e.pair(usual)
	other, far := a.newQP(), b.newQP()
	e.connect(other, far, usual)
	f.Delay(2 * time.Millisecond)
	const n = 30
	for i := range n {
		wr := a.writeTo(b.mem, 0, 8)
		wr.ID = uint64(i)
		a.post(wr)
		_, err := other.PostSend([]rdma.SendWR{wr})
		require.NoError(e, err)
	}
	next := map[uint32]uint64{}
	overtaken := false
	for _, c := range e.await(a.scq, 2*n) {
		require.NoError(e, c.Status.Err())
		require.Equal(e, next[c.QP], c.ID)
		next[c.QP]++
		x, y := next[a.qp.Num()], next[other.Num()]
		overtaken = overtaken || x > y+1 || y > x+1
	}
	require.True(e, overtaken)
}

// faultCutMended: a link that is cut for less than the queue pair's patience loses
// nothing and is no error.
func faultCutMended(e *env) {
	for name, which := range map[string]func(e *env) rdma.Device{
		"near": func(e *env) rdma.Device { return e.a }, "far": func(e *env) rdma.Device { return e.b },
	} {
		e.part(name, func(e *env) {
			f := e.faults(which(e))
			a, b := e.pair(usual)
			require.NoError(e, flow(a, b, 50))
			f.Cut(150 * time.Millisecond)
			require.NoError(e, flow(a, b, 200))
			f.Cut(0)
			time.AfterFunc(20*time.Millisecond, f.Mend)
			require.NoError(e, flow(b, a, 200))
		})
	}
}

// faultCut: a link that stays cut is RetryExceeded on whatever side sends.
func faultCut(e *env) {
	for name, which := range map[string]func(e *env) rdma.Device{
		"near": func(e *env) rdma.Device { return e.a }, "far": func(e *env) rdma.Device { return e.b },
	} {
		e.part(name, func(e *env) {
			f := e.faults(which(e))
			a, b := e.pair(impatient)
			require.NoError(e, flow(a, b, 50))
			f.Cut(0)
			a.post(a.writeTo(b.mem, 0, 8), a.writeTo(b.mem, 0, 8))
			require.Equal(e, rdma.RetryExceeded, a.status())
			require.Equal(e, rdma.Flushed, a.status())
			require.Equal(e, rdma.RTS, b.qp.State()) // who sends nothing learns nothing
			b.post(b.writeTo(a.mem, 0, 8))
			require.Equal(e, rdma.RetryExceeded, b.status())
		})
	}
}

// faultStall: a device that does not transmit fills its queues, and fails nothing.
func faultStall(e *env) {
	f := e.faults(e.a)
	a, b := e.pair(impatient)
	f.Stall(true)
	for i := range depth {
		wr := a.writeTo(b.mem, 0, 8)
		wr.ID = uint64(i)
		a.post(wr)
	}
	_, err := a.qp.PostSend([]rdma.SendWR{a.writeTo(b.mem, 0, 8)})
	require.ErrorIs(e, err, rdma.ErrQueueFull)
	e.none(a.scq)
	f.Stall(false)
	for i := range depth {
		require.EqualValues(e, i, a.sent().ID)
	}
}

// faultRevoke: a key taken back under its owner is stale for the peer.
func faultRevoke(e *env) {
	f := e.faults(e.b)
	a, b := e.pair(usual)
	require.NoError(e, flow(a, b, 50))
	f.Revoke(b.mem)
	refused(e, a, b, a.writeTo(b.mem, 0, 64), rdma.RemoteAccess)
}

// event takes the next event of a device.
func (e *env) event(d rdma.Device) rdma.Event {
	e.Helper()
	v, err := d.Event(e.ctx)
	require.NoError(e, err)
	return v
}

// faultPort: a port that goes down and up tells so, connects nobody meanwhile, and
// carries on.
func faultPort(e *env) {
	f := e.faults(e.a)
	a, b := e.pair(rdma.ConnectOptions{Timeout: time.Second})
	f.PortDown()
	require.Equal(e, rdma.Event{Kind: rdma.EventPortDown}, e.event(e.a))
	require.Equal(e, rdma.PortDown, e.a.Info().Port)
	idle := a.newQP()
	require.ErrorIs(e, idle.Connect(e.ctx, b.qp.Address(), usual), rdma.ErrPort)
	a.post(a.writeTo(b.mem, 0, 8))
	e.none(a.scq)
	f.PortUp()
	require.Equal(e, rdma.Event{Kind: rdma.EventPortUp}, e.event(e.a))
	a.sent()
	require.Equal(e, rdma.PortActive, e.a.Info().Port)
}

// faultRemove: a device that is removed flushes everything, tells so, makes nothing
// any more, and can be closed; its peer finds it gone.
func faultRemove(e *env) {
	f := e.faults(e.a)
	a, b := e.pair(impatient)
	require.NoError(e, flow(a, b, 50))
	a.recv(0, 1)
	f.Remove()
	require.Equal(e, rdma.EventDeviceGone, e.event(e.a).Kind)
	require.Equal(e, rdma.Flushed, e.await(a.rcq, 1)[0].Status)
	_, err := a.qp.PostSend([]rdma.SendWR{a.writeTo(b.mem, 0, 8)})
	require.ErrorIs(e, err, rdma.ErrDeviceGone)
	_, err = e.a.NewDomain()
	require.ErrorIs(e, err, rdma.ErrDeviceGone)
	_, err = a.dom.NewRegion(4096, 0)
	require.ErrorIs(e, err, rdma.ErrDeviceGone)
	b.post(b.writeTo(a.mem, 0, 8))
	require.Equal(e, rdma.RetryExceeded, b.status())
	require.NoError(e, e.a.Close())
}

// faultQPFatal: a queue pair that its peer has taken to Error tells so.
func faultQPFatal(e *env) {
	e.faults(e.b)
	a, b := e.pair(usual)
	wr := a.writeTo(b.mem, 0, 64)
	wr.RKey++
	a.post(wr)
	require.Equal(e, rdma.Event{Kind: rdma.EventQPFatal, QP: b.qp.Num()}, e.event(e.b))
	require.Equal(e, rdma.RemoteAccess, a.status())
}
