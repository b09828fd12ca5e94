package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream"
	"github.com/novastream/novastream/control"
	"github.com/novastream/novastream/rdma"
)

// connector makes queue pairs of a device's own, beside the lane.
type connector struct {
	dev   rdma.Device
	dom   rdma.Domain
	cq    rdma.CQ
	mem   rdma.Region
	qps   []rdma.QP
	conns []rdma.CMConn
}

func newConnector() (*connector, error) {
	p, err := rdma.Lookup(rdmaProvider())
	if err != nil {
		return nil, err
	}
	c := &connector{}
	if c.dev, err = p.Open(os.Getenv(deviceEnv)); err != nil {
		return nil, err
	}
	if c.dom, err = c.dev.NewDomain(); err != nil {
		return nil, err
	}
	if c.cq, err = c.dom.NewCQ(1 << 10); err != nil {
		return nil, err
	}
	c.mem, err = c.dom.NewRegion(4096, rdma.RemoteWrite)
	return c, err
}

func (c *connector) qp() (rdma.QP, error) {
	qp, err := c.dom.NewQP(rdma.QPOptions{SendCQ: c.cq, RecvCQ: c.cq, MaxSend: 64, MaxRecv: pingRecvs, MaxInline: 256})
	if err == nil {
		c.qps = append(c.qps, qp)
	}
	return qp, err
}

// drop closes the queue pairs that there are.
func (c *connector) drop() error {
	var errs []error
	for _, x := range c.conns {
		errs = append(errs, x.Close())
	}
	for _, q := range c.qps {
		errs = append(errs, q.Close())
	}
	c.conns, c.qps = nil, nil
	return errors.Join(errs...)
}

func (c *connector) options() rdma.ConnectOptions {
	return rdma.ConnectOptions{MTU: c.dev.Info().MTU}
}

// place is what either side tells the other of a queue pair.
type place struct {
	Address []byte
	Addr    uint64
	RKey    uint32
	Writes  int // what the other side is to answer with, as a pinger has it; 0: nothing
}

func (c *connector) place(qp rdma.QP) place {
	return place{Address: qp.Address(), Addr: c.mem.Addr(), RKey: c.mem.RKey()}
}

// Where a ping has its words: what is polled is the last of 64 bytes, or the word that is
// written behind them.
const (
	pingAt  = 0
	wordAt  = 64
	pingOut = 2048
	over    = ^uint64(0)

	// withImmediate is one request whose immediate announces it: the other side polls its
	// completion queue. Receives are posted again by half of pingRecvs.
	withImmediate = 3
	pingRecvs     = 64
)

// pinger exchanges writes of 64 bytes with the other side, each of which the other polls
// for: of one request, or of two as the lane does, the second with a word behind it; or
// withImmediate.
type pinger struct {
	*connector
	qp     rdma.QP
	to     place
	writes int
	posted int
	done   [16]rdma.Completion
	taken  int    // receives, since some were posted
	got    uint32 // the last immediate
}

// start posts receives, where they are needed.
func (p *pinger) start() error {
	if p.writes != withImmediate {
		return nil
	}
	_, err := p.qp.PostRecv(make([]rdma.RecvWR, pingRecvs))
	return err
}

// look takes the completions that there are, those of its own requests too.
func (p *pinger) look() error {
	for {
		n, err := p.cq.Poll(p.done[:])
		if err != nil {
			return err
		}
		for i := range p.done[:n] {
			if err := p.take(&p.done[i]); err != nil {
				return err
			}
		}
		if n < len(p.done) {
			return nil
		}
	}
}

func (p *pinger) take(d *rdma.Completion) error {
	switch {
	case d.QP != p.qp.Num(): // one that was closed
		return nil
	case d.Status != rdma.Success:
		return d.Status.Err()
	case d.Op != rdma.OpRecvWrite:
		return nil
	}
	p.got = d.Imm
	if p.taken++; p.taken < pingRecvs/2 {
		return nil
	}
	p.taken = 0
	_, err := p.qp.PostRecv(make([]rdma.RecvWR, pingRecvs/2))
	return err
}

func (p *pinger) word(off int) *uint64 { return (*uint64)(unsafe.Pointer(&p.mem.Bytes()[off])) }

// polled is where the other side's writes are looked for.
func (p *pinger) polled() *uint64 {
	if p.writes == 1 {
		return p.word(pingAt + 56)
	}
	return p.word(wordAt)
}

func (p *pinger) write(v uint64) error {
	*p.word(pingOut + 56), *p.word(pingOut + wordAt) = v, v
	wrs := [2]rdma.SendWR{
		{Op: rdma.OpWrite, Local: rdma.SegmentOf(p.mem, pingOut, 64), Remote: p.to.Addr + pingAt, RKey: p.to.RKey, Flags: rdma.Inline},
		{Op: rdma.OpWrite, Local: rdma.SegmentOf(p.mem, pingOut+wordAt, 8), Remote: p.to.Addr + wordAt, RKey: p.to.RKey, Flags: rdma.Inline},
	}
	n := p.writes
	if n == withImmediate {
		n = 1
		wrs[0].Op, wrs[0].Imm = rdma.OpWriteImm, uint32(v)
	}
	if p.posted++; p.posted%16 == 0 {
		wrs[n-1].Flags |= rdma.Signaled
		if err := p.look(); err != nil {
			return err
		}
	}
	_, err := p.qp.PostSend(wrs[:n])
	return err
}

// await polls until the other side's write of v, or of the last one.
func (p *pinger) await(v uint64) (last bool) {
	if p.writes == withImmediate {
		for p.got != uint32(v) && p.got != math.MaxUint32 {
			if p.look() != nil {
				return true
			}
		}
		return p.got == math.MaxUint32
	}
	w := p.polled()
	for {
		if got := atomic.LoadUint64(w); got == v || got == over {
			return got == over
		}
	}
}

func (p *pinger) reset() { *p.word(pingAt + 56), *p.word(wordAt) = 0, 0 }

// answers sends back all that comes.
func (p *pinger) answers() {
	for v := uint64(1); ; v++ {
		if last := p.await(v); last || p.write(v) != nil {
			return
		}
	}
}

var connecting *connector // of the sending process

func init() {
	// Connects queue pairs as the other side asks, by rdma_cm at the address that is
	// answered, and by exchange over this node's RPC.
	more["connect"] = func(s *novastream.Streaming, _ job, a *answer) error {
		c, err := newConnector()
		if err != nil {
			return err
		}
		connecting = c
		if err := s.Node().Handle("bench_connect", c.exchanged); err != nil {
			return err
		}
		a.Handle = s.Node().TCPAddr()
		cm, ok := c.dev.(rdma.CM)
		if !ok {
			return nil
		}
		l, err := cm.ListenCM(netip.AddrPort{})
		if err != nil {
			return err
		}
		a.At = l.Addr()
		go func() {
			for {
				r, err := l.Next(context.Background())
				if err != nil {
					return
				}
				qp, err := c.qp()
				if err != nil {
					fmt.Fprintln(os.Stderr, "queue pair:", err)
					return
				}
				conn, err := r.Accept(context.Background(), qp, nil, c.options())
				if err != nil {
					fmt.Fprintln(os.Stderr, "accept:", err)
					return
				}
				c.conns = append(c.conns, conn)
			}
		}()
		return nil
	}
	more["connected"] = func(*novastream.Streaming, job, *answer) error { return connecting.drop() }
}

// exchanged is the other side of pairing.exchange.
func (c *connector) exchanged(ctx context.Context, _ *control.Peer, msg control.Message) (control.Message, error) {
	var to place
	if err := json.Unmarshal(msg.Payload, &to); err != nil {
		return control.Message{}, err
	}
	qp, err := c.qp()
	if err != nil {
		return control.Message{}, err
	}
	if err := qp.Connect(ctx, to.Address, c.options()); err != nil {
		return control.Message{}, err
	}
	if to.Writes > 0 {
		p := &pinger{connector: c, qp: qp, to: to, writes: to.Writes}
		p.reset()
		if err := p.start(); err != nil {
			return control.Message{}, err
		}
		go p.answers()
	}
	b, err := json.Marshal(c.place(qp))
	return control.Message{Payload: b}, err
}

// connections is this side of what the job connect serves.
type connections struct {
	*pairing
	*connector
	peer *control.Peer
	at   netip.AddrPort
}

func (p *pairing) connections() *connections {
	c, err := newConnector()
	require.NoError(p, err)
	p.Cleanup(func() {
		require.NoError(p, c.drop())
		require.NoError(p, c.dev.Close())
	})
	p.ask(job{Mode: "connect"})
	a := p.answer()
	peer, err := p.s.Node().Dial(context.Background(), a.Handle)
	require.NoError(p, err)
	return &connections{p, c, peer, a.At}
}

// drop closes what is connected, on both sides.
func (c *connections) drop() {
	require.NoError(c, c.connector.drop())
	c.ask(job{Mode: "connected"})
	c.answer()
}

// exchange connects a queue pair to a new one of the other process, as the lane does.
func (c *connections) exchange(writes int) (rdma.QP, place) {
	ctx := context.Background()
	qp, err := c.qp()
	require.NoError(c, err)
	mine := c.place(qp)
	mine.Writes = writes
	b, err := json.Marshal(mine)
	require.NoError(c, err)
	msg, err := c.peer.Call(ctx, "bench_connect", control.Message{Payload: b})
	require.NoError(c, err)
	var to place
	require.NoError(c, json.Unmarshal(msg.Payload, &to))
	require.NoError(c, qp.Connect(ctx, to.Address, c.options()))
	return qp, to
}

// dial is the same by rdma_cm.
func (c *connections) dial() {
	qp, err := c.qp()
	require.NoError(c, err)
	conn, err := c.dev.(rdma.CM).DialCM(context.Background(), qp, c.at, nil, c.options())
	require.NoError(c, err)
	c.conns = append(c.conns, conn)
}

// times is the median of n connections, in milliseconds.
func (c *connections) times(n int, connect func()) float64 {
	var all []time.Duration
	for range n {
		start := time.Now()
		connect()
		all = append(all, time.Since(start))
		c.drop()
	}
	return p50(all).Seconds() * 1e3
}

// pings is the median round trip of n pings of so many requests, or withImmediate, in
// microseconds.
func (c *connections) pings(n, writes int) float64 {
	p := &pinger{connector: c.connector, writes: writes}
	p.reset()
	p.qp, p.to = c.exchange(writes)
	require.NoError(c, p.start())
	times := make([]time.Duration, 0, n)
	for v := range uint64(n) {
		start := time.Now()
		require.NoError(c, p.write(v+1))
		require.False(c, p.await(v+1), "the queue pair has failed")
		times = append(times, time.Since(start))
	}
	require.NoError(c, p.write(over))
	c.drop()
	return float64(p50(times).Nanoseconds()) / 1e3
}
