package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream"
)

// pairs is how many pairs a benchmark measures, each part for slice.
const (
	pairs = 15
	slice = 50 * time.Millisecond
)

// pairing is two processes and the C programs.
type pairing struct {
	*process
	s *novastream.Streaming
	c *program
	// sent is what a lagging run's sender says of its count; all ones at its end.
	sent *atomic.Uint64
}

func (p *pairing) over() bool { return p.sent.Load() == ^uint64(0) }

func newPairing(b testing.TB) *pairing {
	c, err := build()
	if errors.Is(err, errNoCC) {
		b.Skip(err)
	}
	require.NoError(b, err)
	b.Cleanup(func() { c.close() })
	p := newProcesses(b)
	p.c = c
	return p
}

// newProcesses is a pairing without the C programs.
func newProcesses(b testing.TB) *pairing {
	dir, err := os.MkdirTemp("", "nb")
	require.NoError(b, err)
	s, err := streaming(dir)
	require.NoError(b, err)
	child := startProcess(b, dir)
	b.Cleanup(func() {
		child.end()
		s.Close()
		s.Node().Close()
		os.RemoveAll(dir)
	})
	require.NoError(b, serveSocket(b, dir))
	sent, err := counter(dir)
	require.NoError(b, err)
	return &pairing{child, s, nil, sent}
}

// process is a sending process.
type process struct {
	testing.TB
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func startProcess(b testing.TB, dir string, files ...*os.File) *process {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = files
	in, err := cmd.StdinPipe()
	require.NoError(b, err)
	out, err := cmd.StdoutPipe()
	require.NoError(b, err)
	require.NoError(b, cmd.Start())
	p := &process{b, cmd, in, bufio.NewScanner(out)}
	p.out.Buffer(nil, 1<<20)
	return p
}

// end has the process end by itself and waits for that.
func (p *process) end() {
	p.in.Close()
	_ = p.cmd.Wait()
}

// ask gives the sending process a job.
func (p *process) ask(j job) {
	b, err := json.Marshal(j)
	require.NoError(p, err)
	_, err = fmt.Fprintln(p.in, string(b))
	require.NoError(p, err)
}

// answer waits for the job's end.
func (p *process) answer() (a answer) {
	require.True(p, p.out.Scan(), "the sending process has ended: %v", p.out.Err())
	require.NoError(p, json.Unmarshal(p.out.Bytes(), &a))
	require.Empty(p, a.Error)
	return a
}

// compare measures pairs and reports the medians. Higher says that a larger
// figure is better; the ratio is ours to C's.
func (p *pairing) compare(b *testing.B, unit string, c, ours func() float64) {
	type pair struct{ line, c, ours float64 }
	var kept []pair
	dropped := 0
	for range pairs {
		before := p.must(p.c.line(slice / 4))
		c1 := c()
		mine := ours()
		c2 := c()
		after := p.must(p.c.line(slice / 4))
		if math.Abs(before-after) > 0.3*min(before, after) {
			dropped++
			continue
		}
		kept = append(kept, pair{(before + after) / 2, (c1 + c2) / 2, mine})
	}
	// By placement; the metrics are of the one that most pairs had.
	groups := map[string][]pair{}
	most := "none"
	for _, x := range kept {
		name := placement(x.line)
		if groups[name] = append(groups[name], x); len(groups[name]) > len(groups[most]) {
			most = name
		}
	}
	if len(kept) == 0 {
		b.Skipf("the placement changed during each of %d pairs", pairs)
	}
	column := func(of []pair, f func(pair) float64) float64 {
		v := make([]float64, len(of))
		for i, x := range of {
			v[i] = f(x)
		}
		return median(v)
	}
	line := func(x pair) float64 { return x.line }
	theirs := func(x pair) float64 { return x.c }
	mine := func(x pair) float64 { return x.ours }
	ratio := func(x pair) float64 { return x.ours / x.c }
	for name, g := range groups {
		b.Logf("%s: %d pairs, line %.0f ns, C %.3g, ours %.3g %s, ratio %.2f", name, len(g), column(g, line), column(g, theirs), column(g, mine), unit, column(g, ratio))
	}
	b.Logf("%d pairs dropped: the placement changed", dropped)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(column(groups[most], line), "line-ns")
	b.ReportMetric(column(groups[most], theirs), "C-"+unit)
	b.ReportMetric(column(groups[most], mine), unit)
	b.ReportMetric(column(groups[most], ratio), "ratio")
}

func (p *pairing) must(v float64, err error) float64 {
	require.NoError(p, err)
	return v
}

func placement(line float64) string {
	switch {
	case line < 80:
		return "cores share L2"
	case line < 250:
		return "cores share L3"
	}
	return "cores share no cache"
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

var sink uint64

// BenchmarkValues is values in lockstep, 256 KiB rings: ours in million a second,
// and C's with its cursor kept as ours is. The receiver starts first and takes
// what is there.
func BenchmarkValues(b *testing.B) {
	p := newPairing(b)
	for _, c := range []struct {
		mode  string
		value int
		slot  int
		how   int
	}{
		{"slots", 56, 64, inRegister}, {"reserve", 56, 64, stored}, {"batch", 56, 64, inRegister},
		{"put", 56, 64, stored}, {"put", 56, 64, copied},
		{"slots", 8, 16, inRegister}, {"slots", 24, 32, inRegister},
	} {
		name := fmt.Sprintf("%s/%dB", c.mode, c.slot)
		if c.how == copied {
			name += "/C-copies-too"
		}
		b.Run(name, func(b *testing.B) {
			p.compare(b, "M/s",
				func() float64 { return p.must(p.c.rate(slice, c.slot, c.value, 256<<10, c.how, false)) },
				func() float64 { return p.rate(c.mode, c.value, 256<<10) })
		})
	}
}

// BenchmarkLag is values in place over a ring of 4 MiB whose receiver stays half a
// ring behind.
func BenchmarkLag(b *testing.B) {
	p := newPairing(b)
	b.Run("slots/64B", func(b *testing.B) {
		p.compare(b, "M/s",
			func() float64 { return p.must(p.c.rate(slice, 64, 56, 4<<20, inRegister, true)) },
			func() float64 { return p.rate("lag", 56, 4<<20) })
	})
}

// rate receives one run of values.
func (p *pairing) rate(mode string, value, ring int) float64 {
	switch value {
	case 8:
		return rate(p, mode, value, ring, drain8)
	case 24:
		return rate(p, mode, value, ring, drain24)
	}
	switch mode {
	case "put":
		return rate(p, mode, value, ring, recv56)
	case "lag":
		return rate(p, mode, value, ring, p.behind(ring/64))
	}
	return rate(p, mode, value, ring, drain56)
}

func rate[T any](p *pairing, mode string, value, ring int, drain func(*novastream.Receiver[T]) uint64) float64 {
	slot := 16
	for slot < value+8 {
		slot *= 2
	}
	rx, err := novastream.Create[T](p.s, novastream.Capacity(ring/slot), novastream.Wait(novastream.Spin))
	require.NoError(p, err)
	defer rx.Close()
	defer pin(0)()
	p.ask(job{Mode: mode, Handle: rx.Handle().String(), Value: value, MS: int(slice.Milliseconds())})
	f, err := rx.Recv(context.Background())
	require.NoError(p, err)
	require.Equal(p, novastream.KindAttached, f.Kind)
	start := time.Now()
	n := uint64(0)
	for {
		k := drain(rx)
		n += k
		if k > 0 || mode == "lag" && !p.over() {
			continue // TryRecv would take a value, too
		}
		f, err := rx.TryRecv()
		if err == novastream.ErrEmpty {
			continue
		}
		if err == io.EOF {
			break // the drain has seen the end
		}
		require.NoError(p, err)
		if f.Kind == novastream.KindFinalized {
			break
		}
		n++
	}
	d := time.Since(start)
	p.answer()
	return float64(n) / d.Seconds() / 1e6
}

func drain8(rx *novastream.Receiver[v8]) (n uint64) {
	var sum uint64
	for range 64 {
		for v := range rx.Slots(256) {
			sum += v.A
			n++
		}
	}
	sink += sum
	return n
}

func drain24(rx *novastream.Receiver[v24]) (n uint64) {
	var sum uint64
	for range 64 {
		for v := range rx.Slots(256) {
			sum += v.A + v.B + v.C
			n++
		}
	}
	sink += sum
	return n
}

func drain56(rx *novastream.Receiver[v56]) (n uint64) {
	var sum uint64
	for range 64 {
		for v := range rx.Slots(256) {
			sum += v.A + v.B + v.C + v.D + v.E + v.F + v.G
			n++
		}
	}
	sink += sum
	return n
}

// behind is a drain that stays half a ring behind, as far as the sender's count
// of what it has sent tells.
func (p *pairing) behind(slots int) func(*novastream.Receiver[v56]) uint64 {
	p.sent.Store(0)
	taken := uint64(0)
	return func(rx *novastream.Receiver[v56]) (n uint64) {
		if p.sent.Load()-taken < uint64(slots/2) {
			return 0
		}
		var sum uint64
		for v := range rx.Slots(slots / 8) {
			sum += v.A + v.B + v.C + v.D + v.E + v.F + v.G
			n++
		}
		sink += sum
		taken += n
		return n
	}
}

func recv56(rx *novastream.Receiver[v56]) (n uint64) {
	var sum uint64
	for range 16384 {
		f, err := rx.TryRecv()
		if err == novastream.ErrEmpty {
			continue
		}
		if err != nil || f.Kind != novastream.KindData {
			break // the end: it is told again as io.EOF
		}
		v := &f.Value
		sum += v.A + v.B + v.C + v.D + v.E + v.F + v.G
		n++
	}
	sink += sum
	return n
}

// BenchmarkTrip is the round trip of 56-byte values, spinning, in nanoseconds.
func BenchmarkTrip(b *testing.B) {
	p := newPairing(b)
	b.Run("spin/64B", func(b *testing.B) {
		p.compare(b, "trip-ns",
			func() float64 { return p.must(p.c.trip(slice, 64)) },
			func() float64 { return mean(p.trips("", novastream.Spin, 200_000, 1)) })
	})
	// Both a pipe's ends and ours on the same processors: left alone, the scheduler
	// runs a pipe's reader where its writer is about to sleep, and a futex's not.
	for name, cpu := range map[string]int{"two-processors": 1, "one-processor": 0} {
		b.Run("park/64B/"+name, func(b *testing.B) {
			p.compareTo(b, func() float64 { return pipeTrip(p, 3000, cpu) },
				func() float64 { return float64(p50(p.trips("", novastream.Park, 3000, cpu)).Nanoseconds()) })
		})
	}
}

// compareTo is compare against another program than C's.
func (p *pairing) compareTo(b *testing.B, other, ours func() float64) {
	var a, o, r []float64
	for range pairs {
		x, y := other(), ours()
		a, o, r = append(a, x), append(o, y), append(r, y/x)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(a), "pipe-ns")
	b.ReportMetric(median(o), "trip-ns")
	b.ReportMetric(median(r), "ratio")
}

// trips times round trips to a goroutine on the given processor; those of a
// spinning pair on this host all together.
func (p *pairing) trips(lane novastream.Lane, wait novastream.Strategy, n, cpu int) []time.Duration {
	ctx := context.Background()
	rx, err := novastream.Create[v56](p.s, novastream.Capacity(64), novastream.Wait(wait))
	require.NoError(p, err)
	defer rx.Close()
	p.ask(job{Mode: "echo", Handle: rx.Handle().String(), Wait: wait, Lane: lane, CPU: cpu})
	a := p.answer()
	h, err := novastream.ParseHandle(a.Handle)
	require.NoError(p, err)
	tx, err := novastream.Attach[v56](ctx, p.s, h, novastream.Wait(wait), onLane(lane))
	require.NoError(p, err)
	defer tx.Close()
	_, err = rx.Recv(ctx)
	require.NoError(p, err)
	if lane == "" {
		defer pin(0)()
	}
	times := make([]time.Duration, 0, n)
	trip := func(i uint64) error {
		v := v56{A: i}
		if err := tx.TrySend(&v); err != nil {
			return err
		}
		f, err := rx.Recv(ctx)
		if err == nil && f.Value.A != i {
			err = fmt.Errorf("%d came back, %d was sent", f.Value.A, i)
		}
		return err
	}
	together := wait == novastream.Spin && lane == ""
	start := time.Now()
	for i := range uint64(n) {
		if !together {
			start = time.Now()
		}
		if err := trip(i); err != nil {
			require.NoError(p, err)
		}
		if !together {
			times = append(times, time.Since(start))
		}
	}
	if together {
		times = append(times, time.Since(start)/time.Duration(n))
	}
	require.NoError(p, tx.Finalize(ctx))
	return times
}

func mean(t []time.Duration) float64 { return float64(t[0].Nanoseconds()) }

func p50(t []time.Duration) time.Duration {
	slices.Sort(t)
	return t[len(t)/2]
}

// pipeTrip is the round trip of 64 bytes over two pipes to a process on the given
// processor that sends them back, in nanoseconds.
func pipeTrip(p *pairing, n, cpu int) float64 {
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	require.NoError(p, err)
	out, err := cmd.StdoutPipe()
	require.NoError(p, err)
	require.NoError(p, cmd.Start())
	pinProcess(cmd.Process.Pid, cpu)
	defer pin(0)()
	times := make([]time.Duration, 0, n)
	b := make([]byte, 64)
	for range n {
		start := time.Now()
		_, err := in.Write(b)
		require.NoError(p, err)
		_, err = io.ReadFull(out, b)
		require.NoError(p, err)
		times = append(times, time.Since(start))
	}
	in.Close()
	require.NoError(p, cmd.Wait())
	return float64(p50(times).Nanoseconds())
}

// BenchmarkLarge is frames copied in and read whole, in gigabytes a second.
func BenchmarkLarge(b *testing.B) {
	p := newPairing(b)
	for _, c := range []struct {
		name       string
		size, ring int
	}{
		{"48B", 48, 256 << 10}, {"1KiB", 1 << 10, 4 << 20}, {"64KiB", 64 << 10, 4 << 20}, {"1024KiB", 1 << 20, 8 << 20},
	} {
		size, ring := c.size, c.ring
		b.Run(c.name, func(b *testing.B) {
			p.compare(b, "GB/s",
				func() float64 { return p.must(p.c.large(slice, size, ring)) },
				func() float64 { return p.large(size, ring) })
		})
	}
}

func (p *pairing) large(size, ring int) float64 {
	rx, err := novastream.CreateBytes(p.s, novastream.Capacity(ring/64), novastream.Wait(novastream.Spin))
	require.NoError(p, err)
	defer rx.Close()
	defer pin(0)()
	p.ask(job{Mode: "bytes", Handle: rx.Handle().String(), Value: size, MS: int(slice.Milliseconds())})
	_, err = rx.Recv(context.Background(), nil)
	require.NoError(p, err)
	start := time.Now()
	n := 0
	for {
		loan, err := rx.Borrow(max(ring/size/8, 1)) // the rest is the sender's meanwhile
		if err == nil {
			for _, f := range loan.Frames {
				sink += sumWords(f.Value)
				n += len(f.Value)
			}
			loan.Release()
			continue
		}
		f, err := rx.TryRecv(nil)
		if err == novastream.ErrEmpty {
			continue
		}
		require.NoError(p, err)
		if f.Kind == novastream.KindFinalized {
			break
		}
		n += len(f.Value)
	}
	d := time.Since(start)
	p.answer()
	return float64(n) / d.Seconds() / 1e9
}

// BenchmarkAttach is the attach to a stream of this host, p50, in microseconds, one
// after another: to a segment that is used again, and to one that was prepared;
// beside it what the machine takes for a byte over a plain Unix socket and back.
func BenchmarkAttach(b *testing.B) {
	p := newPairing(b)
	for name, mode := range map[string]string{"again": "attach", "prepared": "drop"} {
		b.Run(name, func(b *testing.B) {
			rx, err := novastream.Create[v56](p.s, novastream.Shared(8))
			require.NoError(b, err)
			defer rx.Close()
			go func() { // each session's end frees its segment
				for {
					if _, err := rx.Recv(context.Background()); err != nil {
						return
					}
				}
			}()
			var times, socket []time.Duration
			for range 5 {
				p.ask(job{Mode: "socket", Value: 100})
				socket = append(socket, p.answer().Times...)
				p.ask(job{Mode: mode, Handle: rx.Handle().String(), Value: 100})
				times = append(times, p.answer().Times...)
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(p50(socket).Nanoseconds())/1e3, "socket-µs")
			b.ReportMetric(float64(p50(times).Nanoseconds())/1e3, "p50-µs")
			b.ReportMetric(float64(p50(times))/float64(p50(socket)), "ratio")
		})
	}
}

// BenchmarkIdle is 1,000 attached streams that wait: what threads they have in
// the receiving process, and what share of a processor both processes use, in
// millionths; the share without them is what two idle processes use.
func BenchmarkIdle(b *testing.B) {
	for _, l := range []novastream.Lane{novastream.LaneShm, novastream.LaneRDMA} {
		b.Run(string(l), func(b *testing.B) { idleOn(b, l) })
	}
}

func idleOn(b *testing.B, l novastream.Lane) {
	p := newPairing(b)
	ctx, cancel := context.WithCancel(context.Background())
	before, idle := threads(), p.load()
	var wg sync.WaitGroup
	for range 1000 {
		rx, err := novastream.Create[v56](p.s, novastream.Capacity(64))
		require.NoError(b, err)
		p.ask(job{Mode: "idle", Handle: rx.Handle().String(), Lane: l})
		p.answer()
		_, err = rx.Recv(ctx)
		require.NoError(b, err)
		wg.Go(func() {
			defer rx.Close()
			_, _ = rx.Recv(ctx)
		})
	}
	<-time.After(500 * time.Millisecond) // each has gone over to its doorbell
	share := p.load()
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(threads()-before), "threads")
	b.ReportMetric(idle*1e6, "without-ppm")
	b.ReportMetric(share*1e6, "cpu-ppm")
	cancel()
	wg.Wait()
}

// load is the share of a processor that both processes use for some seconds.
func (p *pairing) load() float64 {
	start, used := time.Now(), cpu(os.Getpid())+cpu(p.cmd.Process.Pid)
	<-time.After(4 * time.Second)
	return float64(cpu(os.Getpid())+cpu(p.cmd.Process.Pid)-used) / float64(time.Since(start))
}
