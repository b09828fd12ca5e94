package soft

import (
	"bytes"
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream/rdma"
)

// victim is a queue pair that is connected to one that only a test plays.
type victim struct {
	dev    *Device
	dom    rdma.Domain
	cq     *cq
	qp     *qp
	mem    rdma.Region // the peer may do all here
	safe   rdma.Region // and nothing here
	remote address
}

func newVictim(t testing.TB) *victim {
	d, err := New().Open("")
	require.NoError(t, err)
	t.Cleanup(func() { d.Close() })
	v := &victim{dev: d.(*Device)}
	v.dom, err = d.NewDomain()
	require.NoError(t, err)
	c, err := v.dom.NewCQ(64)
	require.NoError(t, err)
	v.cq = c.(*cq)
	v.mem, err = v.dom.NewRegion(4096, rdma.RemoteWrite|rdma.RemoteRead)
	require.NoError(t, err)
	v.safe, err = v.dom.NewRegion(4096, 0)
	require.NoError(t, err)
	v.renew(t, "127.0.0.1:1")
	return v
}

// renew gives the victim a queue pair that is connected to an address.
func (v *victim) renew(t testing.TB, hostPort string) {
	q, err := v.dom.NewQP(rdma.QPOptions{SendCQ: v.cq, RecvCQ: v.cq, MaxSend: 8, MaxRecv: 8, MaxInline: 8})
	require.NoError(t, err)
	v.qp = q.(*qp)
	v.remote = address{mtu: 4096, num: 9, dev: newID(), qp: newID(), hostPort: hostPort}
	opt := rdma.ConnectOptions{Timeout: 5 * time.Millisecond, RetryCount: 1}
	require.NoError(t, q.Connect(context.Background(), v.remote.append(nil), opt))
	_, err = q.PostRecv([]rdma.RecvWR{{Local: rdma.SegmentOf(v.mem, 0, 64)}, {}})
	require.NoError(t, err)
}

// drained counts the completions that there are.
func (v *victim) drained(t testing.TB) int {
	n, err := v.cq.Poll(make([]rdma.Completion, 64))
	require.NoError(t, err)
	return n
}

func FuzzAddress(f *testing.F) {
	f.Add(address{mtu: 4096, num: 7, hostPort: "127.0.0.1:80"}.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := parseAddress(b)
		if err != nil {
			require.ErrorIs(t, err, rdma.ErrAddress)
			return
		}
		require.Equal(t, b, a.append(nil))
	})
}

func FuzzHeaders(f *testing.F) {
	h := hello{to: 1, from: 2}
	q := request{op: rdma.OpWriteImm, length: 5, remote: 6, key: 7, imm: 8, psn: 9}
	r := reply{kind: nakFatal, status: rdma.RemoteAccess, psn: 3}
	f.Add(h.append(nil))
	f.Add(q.append(nil))
	f.Add(r.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := parseHello(b); err == nil {
			require.Equal(t, b, h.append(nil))
		} else {
			require.ErrorIs(t, err, errProtocol)
		}
		if q, err := parseRequest(b); err == nil {
			require.Equal(t, b, q.append(nil))
		} else {
			require.ErrorIs(t, err, errProtocol)
		}
		if r, err := parseReply(b); err == nil {
			require.Equal(t, b, r.append(nil))
		} else {
			require.ErrorIs(t, err, errProtocol)
		}
	})
}

// FuzzServe is a peer that is let in and then sends anything: it writes nowhere but
// where it may, and completes no more than the receives that there are.
func FuzzServe(f *testing.F) {
	v := newVictim(f)
	for _, q := range []request{
		{op: rdma.OpWrite, length: 3, remote: v.mem.Addr(), key: v.mem.RKey()},
		{op: rdma.OpWriteImm, length: 0, imm: 1}, {op: rdma.OpSend, length: 65},
		{op: rdma.OpRead, length: 4000, remote: v.mem.Addr(), key: v.mem.RKey()},
		{op: rdma.OpWrite, length: 64, remote: v.safe.Addr(), key: v.safe.RKey()}, {op: rdma.OpWrite, length: 1 << 30, psn: 1 << 63},
	} {
		b := append(q.append(nil), "the payload"...)
		q.psn++
		f.Add(q.append(b))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v.renew(t, "127.0.0.1:1")
		near, far := net.Pipe()
		s := &served{conn: newConn(near, nil), q: v.qp}
		v.qp.mu.Lock()
		v.qp.serving = s
		v.qp.mu.Unlock()
		done := make(chan bool)
		go func() {
			s.loop()
			near.Close()
			close(done)
		}()
		go io.Copy(io.Discard, far)
		far.Write(b)
		far.Close()
		<-done
		require.NoError(t, v.qp.Close())
		require.Equal(t, 2, v.drained(t))
		require.Equal(t, make([]byte, 4096), v.safe.Bytes())
	})
}

// FuzzReplies is a peer that answers anything: each request completes once, and
// what it sends lands where a READ wants it.
func FuzzReplies(f *testing.F) {
	v := newVictim(f)
	for _, r := range []reply{
		{kind: ack, psn: 0}, {kind: readDone, psn: 1, value: 16}, {kind: readDone, psn: 0, value: 16}, {kind: ack, psn: 2},
		{kind: nakSeq, psn: 1}, {kind: nakRNR, psn: 0, value: 1}, {kind: nakFatal, psn: 1, status: rdma.RemoteAccess}, {kind: ack, psn: 1 << 63},
	} {
		b := (&reply{kind: ack}).append(nil)
		f.Add(append(r.append(b), "sixteen bytes..., and more"...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v.renew(t, "127.0.0.1:1")
		clear(v.mem.Bytes())
		near, far := net.Pipe()
		q := v.qp
		l := &tcpLink{conn: newConn(near, nil), q: q, done: make(chan struct{})}
		q.mu.Lock()
		for _, wr := range []rdma.SendWR{
			{Op: rdma.OpWrite, Flags: rdma.Signaled}, {Op: rdma.OpRead, Flags: rdma.Signaled, Local: rdma.SegmentOf(v.mem, 64, 16)},
			{Op: rdma.OpSend, Flags: rdma.Signaled},
		} {
			require.NoError(t, q.enqueue(&wr))
		}
		q.sent, q.high, q.reads, q.link = 3, 3, 1, l
		q.mu.Unlock()
		go l.receive()
		go io.Copy(io.Discard, far)
		far.Write(b)
		far.Close()
		<-l.done
		require.NoError(t, q.Close())
		near.Close()
		require.Equal(t, 3+2, v.drained(t))
		m := v.mem.Bytes()
		require.True(t, bytes.Equal(m[:64], make([]byte, 64)) && bytes.Equal(m[80:], make([]byte, 4096-80)))
	})
}
