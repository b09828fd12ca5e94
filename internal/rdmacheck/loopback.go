package rdmacheck

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/novastream/novastream/rdma"
)

// Loopback is what two queue pairs of one device did to each other.
type Loopback struct {
	Bytes     int           `json:"bytes"`       // of each large write
	PerSecond float64       `json:"per_second"`  // bytes, by large writes one after the other
	Write     time.Duration `json:"write_nanos"` // a write of 8 bytes and its completion, the median
}

const (
	largeWrite  = 64 << 10
	largeWrites = 64
	smallWrites = 200
	places      = 16
)

// Try opens a device of a provider, connects two queue pairs of it with each other,
// writes through them, and compares what has arrived. Its errors are those of package
// rdma, and what ctx ended for.
func Try(ctx context.Context, p rdma.Provider, device string) (Loopback, error) {
	dev, err := p.Open(device)
	if err != nil {
		return Loopback{}, err
	}
	defer dev.Close()
	dom, err := dev.NewDomain()
	if err != nil {
		return Loopback{}, err
	}
	l := loop{ctx: ctx}
	if l.cq, err = dom.NewCQ(4 * places); err != nil {
		return Loopback{}, err
	}
	var peer rdma.QP
	for _, qp := range []*rdma.QP{&l.qp, &peer} {
		if *qp, err = dom.NewQP(rdma.QPOptions{SendCQ: l.cq, RecvCQ: l.cq, MaxSend: places, MaxRecv: places}); err != nil {
			return Loopback{}, err
		}
	}
	if l.from, err = dom.NewRegion(largeWrite, 0); err != nil {
		return Loopback{}, err
	}
	if l.to, err = dom.NewRegion(largeWrite, rdma.RemoteWrite); err != nil {
		return Loopback{}, err
	}
	if err := peer.Connect(ctx, l.qp.Address(), rdma.ConnectOptions{}); err != nil {
		return Loopback{}, err
	}
	if err := l.qp.Connect(ctx, peer.Address(), rdma.ConnectOptions{}); err != nil {
		return Loopback{}, err
	}
	return l.run()
}

// loop is a queue pair that writes to another of the same device.
type loop struct {
	ctx      context.Context
	cq       rdma.CQ
	qp       rdma.QP
	from, to rdma.Region
}

func (l *loop) run() (Loopback, error) {
	for i := range l.from.Bytes() {
		l.from.Bytes()[i] = byte(i*7 + i>>8)
	}
	start := time.Now()
	for range largeWrites {
		if err := l.write(largeWrite); err != nil {
			return Loopback{}, err
		}
	}
	out := Loopback{Bytes: largeWrite, PerSecond: largeWrite * largeWrites / time.Since(start).Seconds()}
	if !bytes.Equal(l.from.Bytes(), l.to.Bytes()) {
		return Loopback{}, fmt.Errorf("%w: what was written is not what has arrived", rdma.ErrStatus)
	}
	took := make([]time.Duration, smallWrites)
	for i := range took {
		start := time.Now()
		if err := l.write(8); err != nil {
			return Loopback{}, err
		}
		took[i] = time.Since(start)
	}
	slices.Sort(took)
	out.Write = took[len(took)/2]
	return out, nil
}

// write writes n bytes and waits until it is known that they have arrived.
func (l *loop) write(n int) error {
	_, err := l.qp.PostSend([]rdma.SendWR{{
		Op: rdma.OpWrite, Flags: rdma.Signaled, Local: rdma.SegmentOf(l.from, 0, n), Remote: l.to.Addr(), RKey: l.to.RKey(),
	}})
	if err != nil {
		return err
	}
	var done [1]rdma.Completion
	for {
		k, err := l.cq.Poll(done[:])
		if err != nil {
			return err
		}
		if k > 0 {
			return done[0].Status.Err()
		}
		if err := l.cq.Wait(l.ctx); err != nil {
			return err
		}
	}
}
