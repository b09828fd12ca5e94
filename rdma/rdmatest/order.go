package rdmatest

import (
	"context"
	"encoding/binary"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream/rdma"
)

// order: blocks written into a ring and announced by a word are never seen torn,
// early or out of order by who looks at announced blocks only.
func order(e *env) {
	a, b := e.pair(usual)
	require.NoError(e, flow(a, b, 3000))
	require.NoError(e, flow(b, a, 3000))
}

// The layout of flow, in both regions: a ring of blocks, the word that announces
// them, and where they are sent from; the credit word comes back beside it.
const (
	blocks    = 8
	blockSize = 1024
	wordAt    = blocks * blockSize
	creditAt  = wordAt + 128
	stageAt   = wordAt + 256
)

// flow streams numbered blocks from one side to the other, with credits back, and
// checks each. One goroutine posts on each side.
func flow(from, to *end, rounds uint64) error {
	word(from.mem, creditAt).Store(0)
	word(to.mem, wordAt).Store(0)
	ctx, cancel := context.WithCancelCause(from.e.ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for _, f := range []func() error{
		func() error { return produce(ctx, from, to, rounds) },
		func() error { return consume(ctx, to, from, rounds) },
	} {
		wg.Go(func() {
			if err := f(); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// idler is how to poll memory beside goroutines that sleep in the netpoller: one
// that only yields would keep them from being looked at.
type idler int

func (i *idler) idle() {
	if *i++; *i%64 == 0 {
		time.Sleep(20 * time.Microsecond)
		return
	}
	runtime.Gosched()
}

func produce(ctx context.Context, s, peer *end, rounds uint64) error {
	p := poster{s: s, every: 4}
	var idler idler
	for n := uint64(1); n <= rounds; n++ {
		for n-word(s.mem, creditAt).Load() > blocks {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			idler.idle()
		}
		// Credits say that the block's last WRITE is done, so it may be changed.
		off := int(n%blocks) * blockSize
		for i := 0; i < blockSize; i += 8 {
			binary.NativeEndian.PutUint64(s.mem.Bytes()[stageAt+off+i:], n)
		}
		if err := p.post(ctx, rdma.SendWR{
			Op: rdma.OpWrite, Local: rdma.SegmentOf(s.mem, stageAt+off, blockSize),
			Remote: peer.mem.Addr() + uint64(off), RKey: peer.mem.RKey(),
		}); err != nil {
			return err
		}
		if err := p.word(ctx, peer, wordAt, n); err != nil {
			return err
		}
	}
	return p.drain(ctx)
}

func consume(ctx context.Context, s, peer *end, rounds uint64) error {
	p := poster{s: s, every: 4}
	var idler idler
	for seen := uint64(0); seen < rounds; {
		n := word(s.mem, wordAt).Load()
		if n == seen {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			idler.idle()
			continue
		}
		if n < seen || n > rounds || n-seen > blocks {
			return fmt.Errorf("the word went from %d to %d", seen, n)
		}
		for r := seen + 1; r <= n; r++ {
			off := int(r%blocks) * blockSize
			for i := 0; i < blockSize; i += 8 {
				if got := binary.NativeEndian.Uint64(s.mem.Bytes()[off+i:]); got != r {
					return fmt.Errorf("block %d has %d at %d, with %d announced", r, got, i, n)
				}
			}
		}
		seen = n
		if err := p.word(ctx, peer, creditAt, seen); err != nil {
			return err
		}
	}
	return p.drain(ctx)
}

// poster posts one request after the other, of which every few are signalled, and
// takes the completions.
type poster struct {
	s     *end
	every int
	n     int // since the last that was signalled
}

// word writes a word to the peer's region, inline.
func (p *poster) word(ctx context.Context, peer *end, off int, v uint64) error {
	from := stageAt + wordAt
	word(p.s.mem, from).Store(v)
	return p.post(ctx, rdma.SendWR{
		Op: rdma.OpWrite, Flags: rdma.Inline, Local: rdma.SegmentOf(p.s.mem, from, 8),
		Remote: peer.mem.Addr() + uint64(off), RKey: peer.mem.RKey(),
	})
}

func (p *poster) post(ctx context.Context, wr rdma.SendWR) error {
	p.n++
	if p.n >= p.every {
		wr.Flags |= rdma.Signaled
	}
	if _, err := p.s.qp.PostSend([]rdma.SendWR{wr}); err != nil {
		return err
	}
	if p.n < p.every {
		return nil
	}
	p.n = 0
	c, err := take(ctx, p.s.scq, 1)
	if err != nil {
		return err
	}
	return c[0].Status.Err()
}

// drain waits until all is done.
func (p *poster) drain(ctx context.Context) error {
	p.every = 1
	return p.post(ctx, rdma.SendWR{Op: rdma.OpWrite})
}

// orderAcrossKinds: completions come in the order of the posts, whatever is
// posted, and receives in theirs.
func orderAcrossKinds(e *env) { orderAcrossKindsWith(e, usual) }

func orderAcrossKindsWith(e *env, opt rdma.ConnectOptions) {
	a, b := e.pair(opt)
	const n = 48
	ids := make([]uint64, n)
	for i := range ids {
		ids[i] = uint64(1000 + i)
	}
	b.recv(256, ids...)
	var ops []rdma.Op
	receives := 0
	for i := range n {
		wr := a.writeTo(b.mem, 1024, 64)
		wr.ID = uint64(i)
		wr.Op = []rdma.Op{rdma.OpWrite, rdma.OpSend, rdma.OpRead, rdma.OpWriteImm}[i%4]
		wr.Imm = uint32(i)
		if wr.Op == rdma.OpSend || wr.Op == rdma.OpWriteImm {
			receives++
		}
		ops = append(ops, wr.Op)
		a.post(wr)
	}
	for i, c := range e.await(a.scq, n) {
		require.NoError(e, c.Status.Err())
		require.EqualValues(e, i, c.ID)
		if ops[i] != rdma.OpWriteImm || c.Op != rdma.OpWrite {
			require.Equal(e, ops[i], c.Op)
		}
	}
	last := -1
	for i, c := range e.await(b.rcq, receives) {
		require.NoError(e, c.Status.Err())
		require.EqualValues(e, 1000+i, c.ID)
		require.Equal(e, i%2 == 1, c.HasImm)
		if c.HasImm {
			require.Greater(e, int(c.Imm), last)
			last = int(c.Imm)
		}
	}
}
