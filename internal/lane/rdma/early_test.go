package rdma_test

import (
	"context"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream"
	"github.com/novastream/novastream/rdma"
	"github.com/novastream/novastream/rdma/soft"
)

// connecting is soft with something that is called when a queue pair has been connected.
type connecting struct {
	*soft.Provider
	mu    sync.Mutex
	after func(q rdma.QP)
}

func (*connecting) Name() string { return "connecting" }

func (p *connecting) Open(name string) (rdma.Device, error) {
	d, err := p.Provider.Open(name)
	return wrapQPs(d, func(q rdma.QP) rdma.QP { return &connectingQP{q, p} }), err
}

type connectingQP struct {
	rdma.QP
	p *connecting
}

func (q *connectingQP) Connect(ctx context.Context, remote []byte, opt rdma.ConnectOptions) error {
	err := q.QP.Connect(ctx, remote, opt)
	q.p.mu.Lock()
	after := q.p.after
	q.p.mu.Unlock()
	if err == nil && after != nil {
		after(q.QP)
	}
	return err
}

// The receiver's queue pair fails, and it tells the sender so, before it has answered that
// it is connected. A sender with nothing to send has no request that could fail: it
// hears of it by that message or never.
func TestFailureBeforeConnected(t *testing.T) {
	p := &connecting{Provider: soft.New()}
	rdma.Register(p)
	dir := t.TempDir()
	_, here := open(t, dir, "connecting")
	_, there := open(t, dir, "connecting")
	first, err := novastream.Create[rec](here)
	require.NoError(t, err)
	defer first.Close()
	tx, err := novastream.Attach[rec](t.Context(), there, first.Handle(), novastream.Lanes(novastream.LaneRDMA))
	require.NoError(t, err)
	defer tx.Close() // with its link's probes connected, only the next session's ends are

	connects := 0
	told := make(chan struct{})
	p.mu.Lock()
	p.after = func(q rdma.QP) {
		if connects++; connects == 2 { // the sender connects first
			assert.NoError(t, q.Abort())
			<-told
		}
	}
	p.mu.Unlock()
	rx, err := novastream.Create[rec](here)
	require.NoError(t, err)
	defer rx.Close()
	go func() {
		defer close(told)
		for {
			f, err := rx.Recv(t.Context())
			if !assert.NoError(t, err) || f.Kind == novastream.KindTransportError {
				return
			}
		}
	}()
	_, err = novastream.Attach[rec](t.Context(), there, rx.Handle(), novastream.Lanes(novastream.LaneRDMA))
	require.ErrorIs(t, err, novastream.ErrLaneUnavailable)
	require.ErrorContains(t, err, "the other side's queue pair has failed")
	require.Equal(t, 2, connects)
}
