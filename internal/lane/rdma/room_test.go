package rdma_test

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream"
	lrdma "github.com/novastream/novastream/internal/lane/rdma"
	"github.com/novastream/novastream/rdma"
	"github.com/novastream/novastream/rdma/soft"
)

// gated is soft with a gate before the completions of each device, and its regions in
// the order in which they were made.
type gated struct {
	*soft.Provider
	last *gatedDevice
}

func (g *gated) Name() string { return "gated" }

func (g *gated) Open(name string) (rdma.Device, error) {
	d, err := g.Provider.Open(name)
	g.last = &gatedDevice{Device: d}
	return g.last, err
}

type gatedDevice struct {
	rdma.Device
	gate    sync.RWMutex // held: completions are not polled
	mu      sync.Mutex
	regions []rdma.Region
}

func (d *gatedDevice) NewDomain() (rdma.Domain, error) {
	m, err := d.Device.NewDomain()
	return &gatedDomain{m, d}, err
}

// word is the one at an offset of the i-th region.
func (d *gatedDevice) word(i, off int) uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return atomic.LoadUint64((*uint64)(unsafe.Pointer(&d.regions[i].Bytes()[off])))
}

type gatedDomain struct {
	rdma.Domain
	dev *gatedDevice
}

func (m *gatedDomain) NewRegion(size int, a rdma.Access) (rdma.Region, error) {
	r, err := m.Domain.NewRegion(size, a)
	m.dev.mu.Lock()
	defer m.dev.mu.Unlock()
	m.dev.regions = append(m.dev.regions, r)
	return r, err
}

func (m *gatedDomain) NewCQ(depth int) (rdma.CQ, error) {
	c, err := m.Domain.NewCQ(depth)
	return &gatedCQ{c, m.dev}, err
}

func (m *gatedDomain) NewQP(opt rdma.QPOptions) (rdma.QP, error) {
	opt.SendCQ, opt.RecvCQ = opt.SendCQ.(*gatedCQ).CQ, opt.RecvCQ.(*gatedCQ).CQ
	return m.Domain.NewQP(opt)
}

type gatedCQ struct {
	rdma.CQ
	dev *gatedDevice
}

func (c *gatedCQ) Poll(dst []rdma.Completion) (int, error) {
	if !c.dev.gate.TryRLock() { // a sender that looks itself must not stop
		runtime.Gosched()
		return 0, nil
	}
	defer c.dev.gate.RUnlock()
	return c.CQ.Poll(dst)
}

// A producer goes to sleep for room while the send queue is full and nothing is left
// to write. The room comes before the queue has room again: what is then said of the
// head must be what the producer has seen, or nobody wakes it.
func TestRoomWhileQueueFull(t *testing.T) {
	p := &gated{Provider: soft.New()}
	rdma.Register(p)
	dir := t.TempDir()
	_, here := open(t, dir, "gated")
	_, there := open(t, dir, "gated")
	dev := p.last
	const slots = 256
	rx, err := novastream.CreateBytes(here, novastream.Capacity(slots), novastream.Wait(novastream.Park))
	require.NoError(t, err)
	tx, err := novastream.AttachBytes(t.Context(), there, rx.Handle(), novastream.Lanes(novastream.LaneRDMA), novastream.Wait(novastream.Park))
	require.NoError(t, err)
	fr, err := rx.Recv(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, novastream.KindAttached, fr.Kind)
	const ring, credits = 0, 1 // regions of the sender, in the order in which they are made
	const attention = 0x1100   // of the producers: docs/layout.md
	start := dev.word(credits, 0)

	dev.gate.Lock()
	release := sync.OnceFunc(dev.gate.Unlock)
	defer release()
	for i := range lrdma.QueueBatches {
		require.NoError(t, tx.TrySend([]byte{byte(i)}))
		require.Eventually(t, func() bool { return tx.Stats().Batches == uint64(i+1) }, 10*time.Second, time.Millisecond)
	}
	large := make([]byte, 64*(slots-10))
	sent := make(chan error, 1)
	go func() { sent <- tx.Send(t.Context(), large) }()
	require.Eventually(t, func() bool { return dev.word(ring, attention)&3 != 0 }, 10*time.Second, time.Millisecond, "the sender sleeps")

	got := make(chan int)
	go func() {
		defer close(got)
		for range lrdma.QueueBatches + 1 {
			if fr, err := rx.Recv(t.Context(), nil); assert.NoError(t, err) {
				got <- len(fr.Value)
			}
		}
	}()
	for range lrdma.QueueBatches {
		require.Equal(t, 1, <-got)
	}
	require.Eventually(t, func() bool { return dev.word(credits, 0) == start+lrdma.QueueBatches }, 10*time.Second, time.Millisecond, "the room has come")
	release()
	select {
	case err := <-sent:
		require.NoError(t, err)
	case <-time.After(10 * time.Second):
		require.Fail(t, "the sender sleeps, and has room")
	}
	require.Equal(t, len(large), <-got)
}
