package rdma_test

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream"
	"github.com/novastream/novastream/rdma"
	"github.com/novastream/novastream/rdma/soft"
)

// probing is soft, whose probes can fail at one device and be left out at another.
type probing struct {
	*soft.Provider
	last *probeFaults
}

// probeFaults are those of one device.
type probeFaults struct{ fails, omits atomic.Bool }

func (p *probing) Name() string { return "probing" }

func (p *probing) Open(name string) (rdma.Device, error) {
	d, err := p.Provider.Open(name)
	f := new(probeFaults)
	p.last = f
	return wrapQPs(d, func(q rdma.QP) rdma.QP { return &probingQP{q, f} }), err
}

type probingQP struct {
	rdma.QP
	dev *probeFaults
}

var errProbe = errors.New("the probe fails")

// PostSend knows probes by what they write, which is nothing.
func (q *probingQP) PostSend(wrs []rdma.SendWR) (int, error) {
	if len(wrs) == 1 && wrs[0].Op == rdma.OpWrite && wrs[0].Local.Length == 0 {
		switch {
		case q.dev.fails.Load():
			return 0, errProbe
		case q.dev.omits.Load():
			return 1, nil
		}
	}
	return q.QP.PostSend(wrs)
}

// relay passes connections on to a node, and holds up what they carry while it is held.
type relay struct {
	net.Listener
	held sync.RWMutex
}

func newRelay(t *testing.T, to string) *relay {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r := &relay{Listener: ln}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			go r.carry(in, out)
			go r.carry(out, in)
		}
	}()
	return r
}

func (r *relay) carry(from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	for b := make([]byte, 1<<16); ; {
		n, err := from.Read(b)
		if n > 0 {
			r.held.RLock()
			_, e := to.Write(b[:n])
			r.held.RUnlock()
			err = errors.Join(err, e)
		}
		if err != nil {
			return
		}
	}
}

// One side's probe fails while the connection does not come through either; then both
// paths are as good as before. The other side, where nothing has failed and nothing is
// under way, hears that the session has ended.
func TestFailureReportedLate(t *testing.T) {
	p := &probing{Provider: soft.New()}
	rdma.Register(p)
	dir := t.TempDir()
	node, here := open(t, dir, "probing")
	receivers := p.last
	other, there := open(t, dir, "probing")
	senders := p.last
	rx, err := novastream.CreateBytes(here)
	require.NoError(t, err)
	between := newRelay(t, node.TCPAddr())
	_, err = other.Dial(t.Context(), between.Addr().String())
	require.NoError(t, err)
	tx, err := novastream.AttachBytes(t.Context(), there, rx.Handle(), novastream.Lanes(novastream.LaneRDMA))
	require.NoError(t, err)
	require.NoError(t, tx.Send(t.Context(), []byte("one")))
	for _, kind := range []novastream.Kind{novastream.KindAttached, novastream.KindData} {
		fr, err := rx.Recv(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, kind, fr.Kind)
	}

	senders.omits.Store(true)
	between.held.Lock()
	release := sync.OnceFunc(between.held.Unlock)
	defer release()
	receivers.fails.Store(true)
	fr, err := rx.Recv(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, novastream.KindTransportError, fr.Kind)
	_, err = rx.Recv(t.Context(), nil)
	require.ErrorIs(t, err, io.EOF)
	require.NoError(t, tx.Err(), "the sender has not heard of it yet")

	receivers.fails.Store(false)
	senders.omits.Store(false)
	release()
	select {
	case <-tx.Done():
		require.ErrorIs(t, tx.Err(), novastream.ErrTransport)
	case <-time.After(20 * time.Second):
		require.Fail(t, "the sender was not told")
	}
}
