//go:build unix

package bench

import (
	"context"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream"
)

// deathbed is a receiving process whose senders are killed.
type deathbed struct {
	testing.TB
	dir string
	s   *novastream.Streaming
}

func newDeathbed(b testing.TB) *deathbed {
	dir, err := os.MkdirTemp("", "nb")
	require.NoError(b, err)
	s, err := streaming(dir)
	require.NoError(b, err)
	b.Cleanup(func() {
		s.Close()
		s.Node().Close()
		os.RemoveAll(dir)
	})
	return &deathbed{b, dir, s}
}

// victim is a sending process with a plain socket to this one, whose end is what the
// kernel alone takes to tell of a death.
type victim struct {
	*process
	socket int
}

func (d *deathbed) victim() *victim {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	require.NoError(d, err)
	for _, fd := range fds {
		syscall.CloseOnExec(fd)
	}
	theirs := os.NewFile(uintptr(fds[1]), "socket")
	defer theirs.Close()
	return &victim{startProcess(d, d.dir, theirs), fds[0]}
}

// watch answers when the process's plain socket has ended, which a thread waits for.
func (v *victim) watch() <-chan time.Time {
	ended, waits := make(chan time.Time, 1), make(chan struct{})
	go func() {
		close(waits)
		for b := make([]byte, 1); ; {
			if _, err := syscall.Read(v.socket, b); err != syscall.EINTR {
				break
			}
		}
		ended <- time.Now()
		syscall.Close(v.socket)
	}()
	<-waits
	<-time.After(time.Millisecond) // it is in the call
	return ended
}

// kill kills the process and answers when, and when its plain socket has ended.
func (v *victim) kill() (start time.Time, socket <-chan time.Time) {
	socket = v.watch()
	start = time.Now()
	require.NoError(v, v.cmd.Process.Kill())
	return start, socket
}

// deaths is what was measured of each death.
type deaths struct{ dropped, socket []time.Duration }

func (d *deaths) report(b *testing.B) {
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ms(percentile(d.dropped, 50)), "p50-ms")
	b.ReportMetric(ms(percentile(d.dropped, 99)), "p99-ms")
	b.ReportMetric(ms(percentile(d.socket, 50)), "socket-p50-ms")
	b.ReportMetric(ms(percentile(d.socket, 99)), "socket-p99-ms")
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }

func percentile(d []time.Duration, p int) time.Duration {
	slices.Sort(d)
	return d[min(len(d)*p/100, len(d)-1)]
}

// BenchmarkKilled is from the SIGKILL of a sender to its Dropped, after all that it
// had committed, in milliseconds; beside it the end of a plain socket of the same
// process, which is what of it is the kernel's.
func BenchmarkKilled(b *testing.B) {
	b.Run("idle", func(b *testing.B) { newDeathbed(b).killed(b, "idle", 100) })
	b.Run("floods", func(b *testing.B) { newDeathbed(b).killed(b, "flood", 100) })
	b.Run("beside-1000", func(b *testing.B) {
		d := newDeathbed(b)
		p := startProcess(b, d.dir)
		rxs := d.streams(p, 1000)
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		for _, rx := range rxs {
			wg.Go(func() {
				defer rx.Close()
				_, _ = rx.Recv(ctx)
			})
		}
		d.killed(b, "idle", 100)
		cancel()
		wg.Wait()
		p.end()
	})
	b.Run("with-1000", func(b *testing.B) {
		d := newDeathbed(b)
		var all deaths
		for range 20 {
			v := d.victim()
			rxs := d.streams(v.process, 1000)
			var wg sync.WaitGroup
			times := make([]time.Time, len(rxs))
			for i, rx := range rxs {
				wg.Go(func() {
					f, err := rx.Recv(context.Background())
					if err == nil && f.Kind == novastream.KindDropped {
						times[i] = time.Now()
					}
				})
			}
			<-time.After(20 * time.Millisecond) // they sleep
			start, socket := v.kill()
			wg.Wait()
			for _, rx := range rxs {
				rx.Close()
			}
			for _, t := range times {
				all.dropped = append(all.dropped, t.Sub(start))
			}
			all.socket = append(all.socket, (<-socket).Sub(start))
			_ = v.cmd.Wait()
		}
		all.report(b)
	})
}

// streams makes streams to which the process attaches, and reads that it has.
func (d *deathbed) streams(p *process, n int) (rxs []*novastream.Receiver[v56]) {
	for range n {
		rx, err := novastream.Create[v56](d.s, novastream.Capacity(64))
		require.NoError(d, err)
		p.ask(job{Mode: "idle", Handle: rx.Handle().String(), Lane: novastream.LaneShm})
		p.answer()
		_, err = rx.Recv(context.Background())
		require.NoError(d, err)
		rxs = append(rxs, rx)
	}
	return rxs
}

// killed measures deaths of senders of one stream each.
func (d *deathbed) killed(b *testing.B, mode string, n int) {
	var all deaths
	for range n {
		v := d.victim()
		rx, err := novastream.Create[v56](d.s)
		require.NoError(b, err)
		v.ask(job{Mode: mode, Handle: rx.Handle().String(), Lane: novastream.LaneShm})
		v.answer()
		recv := func() novastream.Kind {
			f, err := rx.Recv(context.Background())
			require.NoError(b, err)
			return f.Kind
		}
		recv()
		if mode == "flood" {
			for range 10_000 {
				recv()
			}
		}
		start, socket := v.kill()
		for recv() != novastream.KindDropped {
		}
		all.dropped = append(all.dropped, time.Since(start))
		all.socket = append(all.socket, (<-socket).Sub(start))
		rx.Close()
		_ = v.cmd.Wait()
	}
	all.report(b)
}
