package rdma_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream"
	"github.com/novastream/novastream/control"
	lrdma "github.com/novastream/novastream/internal/lane/rdma"
	"github.com/novastream/novastream/internal/rdmaguest"
	"github.com/novastream/novastream/rdma"
	"github.com/novastream/novastream/rdma/soft"
)

// faulty is soft with a handle on each device and region that is made, and a look at
// its probes.
type faulty struct {
	*soft.Provider
	mu      sync.Mutex
	last    *soft.Device
	regions map[*soft.Device][]rdma.Region
	probes  map[*soft.Device]*probes
}

func (f *faulty) Name() string { return "faulty" }

func (f *faulty) Open(name string) (rdma.Device, error) {
	d, err := f.Provider.Open(name)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = d.(*soft.Device)
	f.probes[f.last] = &probes{}
	return &faultyDevice{f.last, f, f.probes[f.last]}, nil
}

type faultyDevice struct {
	*soft.Device
	f      *faulty
	probes *probes
}

func (d *faultyDevice) NewDomain() (rdma.Domain, error) {
	m, err := d.Device.NewDomain()
	return &faultyDomain{m, d}, err
}

type faultyDomain struct {
	rdma.Domain
	dev *faultyDevice
}

func (m *faultyDomain) NewRegion(size int, a rdma.Access) (rdma.Region, error) {
	r, err := m.Domain.NewRegion(size, a)
	if err == nil && a&rdma.RemoteWrite != 0 {
		m.dev.f.mu.Lock()
		m.dev.f.regions[m.dev.Device] = append(m.dev.f.regions[m.dev.Device], r)
		m.dev.f.mu.Unlock()
	}
	return r, err
}

func (m *faultyDomain) NewQP(o rdma.QPOptions) (rdma.QP, error) {
	q, err := m.Domain.NewQP(o)
	if err != nil {
		return nil, err
	}
	return &probedQP{q, m.dev.probes}, nil
}

// revoke takes the key of the region made last back.
func (f *faulty) revoke(d *soft.Device) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if rs := f.regions[d]; len(rs) > 0 {
		d.Revoke(rs[len(rs)-1])
	}
}

var provider = &faulty{Provider: soft.New(), regions: map[*soft.Device][]rdma.Region{}, probes: map[*soft.Device]*probes{}}

// guestProgram is what the test binary is in a guest, if it is one of the programs
// there; it does not return then.
var guestProgram = func() {}

func TestMain(m *testing.M) {
	rdmaguest.Main()
	guestProgram()
	lrdma.Hurry(hurry)
	rdma.Register(provider)
	flag.Parse()
	_ = flag.Set("test.parallel", "4") // the worlds wait more than they work
	os.Exit(m.Run())
}

// hurry is how lanes are made but where a test says otherwise.
var hurry = rdma.ConnectOptions{Timeout: 16 * time.Millisecond, RetryCount: 6}

// side is a node with its device.
type side struct {
	node   *control.Node
	s      *novastream.Streaming
	dev    *soft.Device
	probes *probes
}

func newSide(t *testing.T, dir string) *side {
	opening.Lock()
	defer opening.Unlock()
	n, s := listen(t, dir, "faulty")
	provider.mu.Lock()
	defer provider.mu.Unlock()
	d := &side{n, s, provider.last, provider.probes[provider.last]}
	t.Cleanup(d.close)
	return d
}

var opening sync.Mutex

func (s *side) close() {
	s.s.Close()
	s.node.Close()
}

func (s *side) heal() {
	s.dev.Stall(false)
	s.dev.Lose(0)
	s.dev.Delay(0)
	s.dev.Mend()
	s.dev.PortUp()
}

// rec shows whether it is whole.
type rec struct {
	Seq uint64
	Pad [6]uint64
}

func makeRec(i uint64) (r rec) {
	r.Seq = i
	for j := range r.Pad {
		r.Pad[j] = i*0x9e3779b97f4a7c15 + uint64(j)
	}
	return r
}

// fault is something that happens to a session; mild ones may not end it.
type fault struct {
	name string
	mild bool
	dead bool // the receiver may also be told that the sender is gone
	do   func(w *world, rnd *rand.Rand)
}

// world is two nodes.
type world struct {
	t      *testing.T
	dir    string
	rx, tx *side
}

func (w *world) open() {
	w.rx, w.tx = newSide(w.t, w.dir), newSide(w.t, w.dir)
}

func (w *world) any(rnd *rand.Rand) *side {
	if rnd.IntN(2) == 0 {
		return w.rx
	}
	return w.tx
}

var faults = []fault{
	{"none", true, false, func(*world, *rand.Rand) {}},
	{"loss", true, false, func(w *world, r *rand.Rand) { w.any(r).dev.Lose(r.Float64() / 10) }},
	{"delay", true, false, func(w *world, r *rand.Rand) { w.any(r).dev.Delay(time.Duration(r.IntN(300)+1) * time.Microsecond) }},
	{"short cut", true, false, func(w *world, r *rand.Rand) { w.any(r).dev.Cut(time.Duration(r.IntN(2)+1) * time.Millisecond) }},
	{"stall", true, false, func(w *world, r *rand.Rand) {
		d := w.any(r).dev
		d.Stall(true)
		time.AfterFunc(time.Duration(r.IntN(5))*time.Millisecond, func() { d.Stall(false) })
	}},
	{"cut", false, false, func(w *world, r *rand.Rand) { w.any(r).dev.Cut(0) }},
	{"port down", false, false, func(w *world, r *rand.Rand) { w.any(r).dev.PortDown() }},
	{"heavy loss", false, false, func(w *world, r *rand.Rand) { w.any(r).dev.Lose(0.9) }},
	{"stale key", false, false, func(w *world, r *rand.Rand) { provider.revoke(w.any(r).dev) }},
	{"device removed", false, false, func(w *world, r *rand.Rand) { w.any(r).dev.Remove() }},
	{"connection lost", false, true, func(w *world, r *rand.Rand) {
		for _, p := range w.any(r).node.Peers() {
			p.Close()
		}
	}},
	{"sender's node closed", false, true, func(w *world, r *rand.Rand) { w.tx.node.Close() }},
}

// renew tells whether a fault leaves nodes that cannot be used again.
func (f *fault) renew() bool { return f.name == "device removed" || f.dead }

// outcome counts how sessions ended.
type outcome map[string]map[string]int

// Faults of every kind at random moments of sessions: nothing of what was announced
// is lost, doubled or torn, the end is named rightly and told once, and a session
// that survives goes on with all of its credits.
func TestRandomFaults(t *testing.T) {
	total, seed := 2000, uint64(1)
	if testing.Short() {
		total = 200
	}
	if v := os.Getenv("NOVA_FAULTS"); v != "" {
		total, _ = strconv.Atoi(v)
	}
	if v := os.Getenv("NOVA_SEED"); v != "" {
		seed, _ = strconv.ParseUint(v, 10, 64)
	}
	before := runtime.NumGoroutine()
	var mu sync.Mutex
	table := outcome{}
	t.Run("worlds", func(t *testing.T) {
		const worlds = 8
		for i := range worlds {
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel()
				dir, err := os.MkdirTemp("", "nv")
				require.NoError(t, err)
				t.Cleanup(func() { os.RemoveAll(dir) })
				w := &world{t: t, dir: dir}
				w.open()
				rnd := rand.New(rand.NewPCG(seed, uint64(i)))
				for range total / worlds {
					f := &faults[rnd.IntN(len(faults))]
					if f.renew() && rnd.IntN(4) != 0 {
						f = &faults[rnd.IntN(9)]
					}
					kind := w.session(f, rnd)
					mu.Lock()
					if table[f.name] == nil {
						table[f.name] = map[string]int{}
					}
					table[f.name][kind]++
					mu.Unlock()
					if f.renew() {
						w.rx.close()
						w.tx.close()
						w.open()
						continue
					}
					w.rx.heal()
					w.tx.heal()
				}
				st := w.rx.s.Stats()
				require.Eventually(t, func() bool {
					st = w.rx.s.Stats()
					return st.Inbound == 0 && st.Memory == 0 && st.Anchors == 0 && w.tx.s.Stats().Outlets == 0
				}, 20*time.Second, time.Millisecond, "%+v", st)
			})
		}
	})
	for _, f := range faults {
		t.Logf("%-22s %v", f.name, table[f.name])
	}
	gone := func() bool { return runtime.NumGoroutine() <= before+1 } // that which asks
	if !assert.Eventually(t, gone, 20*time.Second, time.Millisecond) {
		buf := make([]byte, 1<<20)
		require.Fail(t, "goroutines are left", "%d before:\n%s", before, buf[:runtime.Stack(buf, true)])
	}
}

// session runs one session through one fault, and answers how it ended.
func (w *world) session(f *fault, rnd *rand.Rand) string {
	t := w.t
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	slots := 1 << (2 + rnd.IntN(7))
	way := []novastream.Compressor{novastream.CompressionNone, novastream.CompressionS2, novastream.CompressionZstd}[max(rnd.IntN(4)-1, 0)]
	rx, err := novastream.Create[rec](w.rx.s, novastream.Capacity(slots), novastream.Wait(novastream.Park), novastream.Compression(way))
	require.NoError(t, err)
	defer rx.Close()
	tx, err := novastream.Attach[rec](ctx, w.tx.s, rx.Handle(), novastream.Lanes(novastream.LaneRDMA), novastream.Compression(way))
	require.NoError(t, err, f.name)
	require.Equal(t, way, tx.Compression())
	defer tx.Close()

	count, at := uint64(rnd.IntN(2000)), rnd.IntN(2000)
	pace := rnd.IntN(3)
	sent, ended := uint64(0), make(chan error, 1)
	go func() {
		ended <- func() error {
			for sent < count {
				v := makeRec(sent)
				if err := tx.Send(ctx, v); err != nil {
					return err
				}
				sent++
				if int(sent) == at {
					f.do(w, rnd)
				}
				if pace == 0 && sent%7 == 0 {
					runtime.Gosched()
				}
			}
			if at >= int(count) {
				f.do(w, rnd)
			}
			return tx.Finalize(ctx)
		}()
	}()

	got, kind := uint64(0), ""
	var told error
	for kind == "" {
		fr, err := rx.Recv(ctx)
		require.NoError(t, err, "%s: after %d", f.name, got)
		switch fr.Kind {
		case novastream.KindAttached:
		case novastream.KindData:
			require.Equal(t, got, fr.Value.Seq, f.name)
			require.Equal(t, makeRec(got), fr.Value, "%s: torn", f.name)
			got++
		default:
			kind, told = fr.Kind.String(), fr.Err
		}
	}
	_, err = rx.Recv(ctx)
	require.ErrorIs(t, err, io.EOF, "told twice")
	err = <-ended
	switch kind {
	case "Finalized":
		// The sender may have had a failure behind its end.
		require.Equal(t, count, got, f.name)
		if f.mild {
			require.NoError(t, err, f.name)
		}
	case "TransportError":
		require.False(t, f.mild, "%s: %v", f.name, told)
		require.ErrorIs(t, told, novastream.ErrTransport)
		require.Error(t, err)
		w.lost(f, tx, err, sent, got)
	case "Dropped":
		require.True(t, f.dead, "%s: %v", f.name, told)
		require.ErrorIs(t, told, novastream.ErrPeerDead)
		require.Error(t, err)
		w.lost(f, tx, err, sent, got)
	default:
		require.Fail(t, "another end", "%s: %s: %v", f.name, kind, told)
	}
	return kind
}

// lost checks what the sender is told of what may be lost.
func (w *world) lost(f *fault, tx *novastream.Sender[rec], err error, sent, got uint64) {
	require.True(w.t, errors.Is(err, novastream.ErrTransport) || errors.Is(err, novastream.ErrPeerDead), "%s: %v", f.name, err)
	<-tx.Done()
	var lost *novastream.LostError
	if !errors.As(tx.Err(), &lost) {
		lost = new(novastream.LostError)
	}
	require.GreaterOrEqual(w.t, got+lost.Slots, sent, "%s: %v", f.name, tx.Err())
}
