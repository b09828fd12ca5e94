//go:build verbs && cgo && linux

package verbs_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream/rdma"
	"github.com/novastream/novastream/rdma/verbs"
)

// cmEnd is one side's objects.
type cmEnd struct {
	dom rdma.Domain
	cq  rdma.CQ
	qp  rdma.QP
	mem rdma.Region
}

func newCMEnd(t *testing.T, d rdma.Device) *cmEnd {
	m, err := d.NewDomain()
	require.NoError(t, err)
	e := &cmEnd{dom: m}
	e.cq, err = m.NewCQ(16)
	require.NoError(t, err)
	e.qp, err = m.NewQP(rdma.QPOptions{SendCQ: e.cq, RecvCQ: e.cq, MaxSend: 4, MaxRecv: 4})
	require.NoError(t, err)
	e.mem, err = m.NewRegion(4096, rdma.RemoteWrite)
	require.NoError(t, err)
	return e
}

// completion takes one.
func (e *cmEnd) completion(t *testing.T, ctx context.Context) rdma.Completion {
	var got [1]rdma.Completion
	for {
		n, err := e.cq.Poll(got[:])
		require.NoError(t, err)
		if n == 1 {
			return got[0]
		}
		require.NoError(t, e.cq.Wait(ctx))
	}
}

// writes writes with an immediate and sees it arrive.
func (e *cmEnd) writes(t *testing.T, ctx context.Context, to *cmEnd, text string) {
	_, err := to.qp.PostRecv([]rdma.RecvWR{{ID: 7}})
	require.NoError(t, err)
	copy(e.mem.Bytes(), text)
	_, err = e.qp.PostSend([]rdma.SendWR{{
		ID: 8, Op: rdma.OpWriteImm, Flags: rdma.Signaled, Local: rdma.SegmentOf(e.mem, 0, len(text)),
		Remote: to.mem.Addr() + 64, RKey: to.mem.RKey(), Imm: 0xabcd,
	}})
	require.NoError(t, err)
	got := to.completion(t, ctx)
	require.NoError(t, got.Status.Err())
	require.EqualValues(t, 7, got.ID)
	require.True(t, got.HasImm)
	require.EqualValues(t, 0xabcd, got.Imm)
	require.Equal(t, text, string(to.mem.Bytes()[64:64+len(text)]))
	require.NoError(t, e.completion(t, ctx).Status.Err())
}

// cmDevice opens a device that has rdma_cm.
func cmDevice(t *testing.T, name string) (rdma.Device, rdma.CM) {
	guest(t)
	d := openDevice(t, name)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	return d, d.(rdma.CM)
}

func cmContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// dialed is what a DialCM in a goroutine of its own came to.
type dialed struct {
	conn rdma.CMConn
	err  error
}

func dial(ctx context.Context, cm rdma.CM, qp rdma.QP, to netip.AddrPort, private string, opt rdma.ConnectOptions) <-chan dialed {
	done := make(chan dialed, 1)
	go func() {
		c, err := cm.DialCM(ctx, qp, to, []byte(private), opt)
		done <- dialed{c, err}
	}()
	return done
}

// said requires private data, which the wire pads with zeros.
func said(t *testing.T, want string, got []byte) {
	require.Equal(t, want, strings.TrimRight(string(got), "\x00"))
}

// connectCM connects two ends.
func connectCM(t *testing.T, ctx context.Context, cm rdma.CM, l rdma.CMListener, a, b *cmEnd) (ac, bc rdma.CMConn) {
	full := strings.Repeat("x", rdma.CMData)
	done := dial(ctx, cm, a.qp, l.Addr(), full, rdma.ConnectOptions{})
	req, err := l.Next(ctx)
	require.NoError(t, err)
	said(t, full, req.PrivateData())
	bc, err = req.Accept(ctx, b.qp, []byte("welcome"), rdma.ConnectOptions{})
	require.NoError(t, err)
	d := <-done
	require.NoError(t, d.err)
	said(t, "welcome", d.conn.PrivateData())
	said(t, full, bc.PrivateData())
	require.Equal(t, rdma.RTS, a.qp.State())
	require.Equal(t, rdma.RTS, b.qp.State())
	_, err = req.Accept(ctx, newCMEnd(t, cm.(rdma.Device)).qp, nil, rdma.ConnectOptions{})
	require.ErrorIs(t, err, rdma.ErrState)
	return d.conn, bc
}

// Two queue pairs are connected by rdma_cm, in either direction of disconnecting.
func TestCM(t *testing.T) {
	d, cm := cmDevice(t, "rxe0")
	ctx := cmContext(t)
	l, err := cm.ListenCM(netip.AddrPort{})
	require.NoError(t, err)
	require.Equal(t, "10.99.0.1", l.Addr().Addr().String())
	require.NotZero(t, l.Addr().Port())
	for _, dialerEnds := range []bool{true, false} {
		a, b := newCMEnd(t, d), newCMEnd(t, d)
		ac, bc := connectCM(t, ctx, cm, l, a, b)
		a.writes(t, ctx, b, "from the one that dialed")
		b.writes(t, ctx, a, "from the one that accepted")
		soon, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
		require.ErrorIs(t, bc.Wait(soon), context.DeadlineExceeded)
		cancel()
		_, err = cm.DialCM(ctx, a.qp, l.Addr(), nil, rdma.ConnectOptions{})
		require.ErrorIs(t, err, rdma.ErrState)
		// The end takes the other side's queue pair to Error, and its receive with it.
		one, other, end := ac, bc, b
		if !dialerEnds {
			one, other, end = bc, ac, a
		}
		_, err = end.qp.PostRecv([]rdma.RecvWR{{ID: 9}})
		require.NoError(t, err)
		require.NoError(t, one.Close())
		require.ErrorIs(t, one.Wait(ctx), rdma.ErrClosed)
		require.ErrorIs(t, other.Wait(ctx), rdma.ErrDisconnected)
		require.Equal(t, rdma.Flushed, end.completion(t, ctx).Status)
		require.Equal(t, rdma.Error, a.qp.State())
		require.Equal(t, rdma.Error, b.qp.State())
		require.NoError(t, other.Close())
		require.NoError(t, other.Close())
	}
	require.NoError(t, l.Close())
	_, err = l.Next(ctx)
	require.ErrorIs(t, err, rdma.ErrClosed)
}

func TestCMErrors(t *testing.T) {
	d, cm := cmDevice(t, "rxe0")
	ctx := cmContext(t)
	a := newCMEnd(t, d)
	l, err := cm.ListenCM(netip.AddrPort{})
	require.NoError(t, err)

	_, err = cm.ListenCM(l.Addr())
	require.ErrorIs(t, err, rdma.ErrAddress)
	require.ErrorContains(t, err, "free port")
	_, err = cm.ListenCM(netip.MustParseAddrPort("10.99.1.1:0"))
	require.ErrorIs(t, err, rdma.ErrAddress, "another device's address")
	_, err = cm.DialCM(ctx, a.qp, l.Addr(), make([]byte, rdma.CMData+1), rdma.ConnectOptions{})
	require.ErrorIs(t, err, rdma.ErrOption)
	_, err = cm.DialCM(ctx, nil, l.Addr(), nil, rdma.ConnectOptions{})
	require.ErrorIs(t, err, rdma.ErrOption)

	nobody := netip.AddrPortFrom(l.Addr().Addr(), 9)
	_, err = cm.DialCM(ctx, a.qp, nobody, nil, rdma.ConnectOptions{})
	require.ErrorIs(t, err, rdma.ErrNoListener)
	_, err = cm.DialCM(ctx, a.qp, netip.MustParseAddrPort("192.0.2.1:9"), nil, rdma.ConnectOptions{})
	require.ErrorIs(t, err, rdma.ErrUnreachable)
	require.ErrorContains(t, err, "route")
	// In the network, and nobody there: the kernel would ask for a minute.
	soon, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	_, err = cm.DialCM(soon, a.qp, netip.MustParseAddrPort("10.99.0.77:9"), nil, rdma.ConnectOptions{})
	cancel()
	require.ErrorIs(t, err, context.DeadlineExceeded)

	done := dial(ctx, cm, a.qp, l.Addr(), "let me in", rdma.ConnectOptions{})
	req, err := l.Next(ctx)
	require.NoError(t, err)
	require.NoError(t, req.Reject([]byte("no")))
	require.ErrorIs(t, req.Reject(nil), rdma.ErrState)
	err = (<-done).err
	require.ErrorIs(t, err, rdma.ErrRefused)
	var refused *rdma.RefusedError
	require.ErrorAs(t, err, &refused)
	said(t, "no", refused.Private)

	// After all these the queue pair is as it was, and can be connected.
	require.Equal(t, rdma.Init, a.qp.State())
	b := newCMEnd(t, d)
	connectCM(t, ctx, cm, l, a, b)
	a.writes(t, ctx, b, "in the end")
}

// A path whose MTU is smaller than the one asked for is told to whoever asks.
func TestCMPathMTU(t *testing.T) {
	d, cm := cmDevice(t, "rxe1")
	ctx := cmContext(t)
	l, err := cm.ListenCM(netip.AddrPort{})
	require.NoError(t, err)
	a, b := newCMEnd(t, d), newCMEnd(t, d)
	done := dial(ctx, cm, a.qp, l.Addr(), "", rdma.ConnectOptions{})
	req, err := l.Next(ctx)
	require.NoError(t, err)
	_, err = req.Accept(ctx, b.qp, nil, rdma.ConnectOptions{MTU: 4096})
	require.ErrorIs(t, err, rdma.ErrMTU)
	require.ErrorIs(t, (<-done).err, rdma.ErrRefused)
}

// Closing the device ends what waits, with connections, requests and listeners.
func TestCMDeviceClose(t *testing.T) {
	d, cm := cmDevice(t, "rxe0")
	ctx := cmContext(t)
	l, err := cm.ListenCM(netip.AddrPort{})
	require.NoError(t, err)
	ac, _ := connectCM(t, ctx, cm, l, newCMEnd(t, d), newCMEnd(t, d))
	pending := dial(ctx, cm, newCMEnd(t, d).qp, l.Addr(), "", rdma.ConnectOptions{})
	_, err = l.Next(ctx)
	require.NoError(t, err)
	ended := make(chan error, 2)
	go func() { _, err := l.Next(ctx); ended <- err }()
	go func() { ended <- ac.Wait(ctx) }()
	require.NoError(t, d.Close())
	require.Error(t, (<-pending).err)
	for range 2 { // the connection's other side may have been closed before it
		if err := <-ended; !errors.Is(err, rdma.ErrDisconnected) {
			require.ErrorIs(t, err, rdma.ErrClosed)
		}
	}
	_, err = cm.ListenCM(netip.AddrPort{})
	require.ErrorIs(t, err, rdma.ErrClosed)
	require.NoError(t, ctx.Err())
}

// resources counts what the kernel and this process hold.
func resources(t *testing.T) (ids, fds int) {
	out, err := exec.Command("/usr/bin/env", "rdma", "resource", "show", "cm_id").CombinedOutput()
	require.NoError(t, err, "%s", out)
	files, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return strings.Count(string(out), "\n"), len(files)
}

// Connections made, refused and closed many times leave no identifier of the
// kernel, no descriptor and no goroutine.
func TestCMNothingLeft(t *testing.T) {
	d, cm := cmDevice(t, "rxe0")
	ctx := cmContext(t)
	l, err := cm.ListenCM(netip.AddrPort{})
	require.NoError(t, err)
	var ids, fds, routines int
	for round := range 20 {
		a, b := newCMEnd(t, d), newCMEnd(t, d)
		_, err := cm.DialCM(ctx, a.qp, netip.AddrPortFrom(l.Addr().Addr(), 9), nil, rdma.ConnectOptions{})
		require.ErrorIs(t, err, rdma.ErrNoListener)
		done := dial(ctx, cm, a.qp, l.Addr(), "", rdma.ConnectOptions{})
		req, err := l.Next(ctx)
		require.NoError(t, err)
		bc, err := req.Accept(ctx, b.qp, nil, rdma.ConnectOptions{})
		require.NoError(t, err)
		ac := (<-done).conn
		require.NoError(t, ac.Close())
		require.ErrorIs(t, bc.Wait(ctx), rdma.ErrDisconnected)
		require.NoError(t, bc.Close())
		require.NoError(t, a.dom.Close())
		require.NoError(t, b.dom.Close())
		if round == 2 {
			ids, fds = resources(t)
			routines = runtime.NumGoroutine()
			require.Positive(t, ids, "the listener is counted")
		}
	}
	require.Eventually(t, func() bool {
		i, f := resources(t)
		return i <= ids && f <= fds && runtime.NumGoroutine() <= routines+2
	}, 20*time.Second, 50*time.Millisecond)
}

// Without the character device of rdma_ucm the error says what to load. librdmacm
// looks once, so a process of its own does.
func TestCMMissing(t *testing.T) {
	guest(t)
	const without = "NOVA_TEST_NO_CM"
	if os.Getenv(without) != "" {
		d, err := verbs.Provider().Open("rxe0")
		require.NoError(t, err)
		defer d.Close()
		_, err = d.(rdma.CM).ListenCM(netip.AddrPort{})
		require.ErrorIs(t, err, rdma.ErrNoCM)
		require.ErrorContains(t, err, "modprobe rdma_ucm")
		return
	}
	const node, away = "/dev/infiniband/rdma_cm", "/dev/infiniband/away"
	require.NoError(t, os.Rename(node, away))
	defer func() { require.NoError(t, os.Rename(away, node)) }()
	cmd := exec.Command(os.Args[0], "-test.run", "^TestCMMissing$")
	cmd.Env = append(os.Environ(), without+"=1")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}
