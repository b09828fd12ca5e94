package bench

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/novastream/novastream"
)

// mono is the system's monotonic clock, which all processes share.
func mono() uint64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	return uint64(t.Nano())
}

func init() { more["die"], more["receive"] = dieClaiming, receiveOne }

// dieClaiming attaches to a shared ring; some milliseconds after the answer it says
// when it claims a slot, claims it and kills its own process.
func dieClaiming(s *novastream.Streaming, j job, _ *answer) error {
	h, err := novastream.ParseHandle(j.Handle)
	if err != nil {
		return err
	}
	tx, err := novastream.Attach[v56](context.Background(), s, h)
	if err != nil {
		return err
	}
	if err := tx.Send(context.Background(), v56{}); err != nil {
		return err
	}
	go func() {
		<-time.After(time.Duration(j.MS) * time.Millisecond)
		for {
			sent.Store(mono())
			if _, err := tx.Reserve(); err == nil {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			}
		}
	}()
	return nil
}

// receiveOne makes a stream, and says later on its own that a value has come.
func receiveOne(s *novastream.Streaming, _ job, a *answer) error {
	rx, err := novastream.Create[v56](s)
	if err != nil {
		return err
	}
	a.Handle = rx.Handle().String()
	go func() {
		for {
			f, err := rx.Recv(context.Background())
			if err == nil && f.Kind == novastream.KindAttached {
				continue
			}
			fmt.Println("{}")
			runtime.KeepAlive(rx)
			return
		}
	}()
	return nil
}

// BenchmarkRecovery is of a ring that two living senders flood while a third dies
// holding a claim: from the claim, at which its process kills itself, until the
// collector has told its end, in milliseconds, and until a plain socket of that
// process has ended, which is the kernel's part; and what the living have through in the
// 10 milliseconds from the claim, as a share of what they have in other such times.
func BenchmarkRecovery(b *testing.B) {
	const (
		rounds = 100
		window = 10 * time.Millisecond
		bin    = 250 * time.Microsecond
		before = 40 // bins until the claim may come
	)
	d := newDeathbed(b)
	word, err := counter(d.dir)
	require.NoError(b, err)
	rx, err := novastream.Create[v56](d.s, novastream.Shared(8), novastream.OneRing())
	require.NoError(b, err)
	defer rx.Close()
	living := startProcess(b, d.dir)
	defer living.end()
	for range 2 {
		living.ask(job{Mode: "flood", Handle: rx.Handle().String()})
		living.answer()
	}
	recv := func() novastream.Frame[v56] {
		f, err := rx.Recv(context.Background())
		require.NoError(b, err)
		return f
	}
	var all deaths
	var shares []float64
	for range rounds {
		v := d.victim()
		socket := v.watch()
		ready := make(chan struct{})
		word.Store(0)
		v.ask(job{Mode: "die", Handle: rx.Handle().String(), MS: int(before * bin / time.Millisecond * 2)})
		go func() { v.answer(); close(ready) }()
		for waits := true; waits; { // the living go on meanwhile
			recv()
			select {
			case <-ready:
				waits = false
			default:
			}
		}
		start, clock := time.Now(), mono()
		var bins [4096]int
		at := func() int { return min(int(time.Since(start)/bin), len(bins)-1) }
		var told time.Duration
		for {
			f := recv()
			i := at()
			switch f.Kind {
			case novastream.KindData:
				bins[i]++
			case novastream.KindDropped:
				told = time.Since(start)
			}
			if told > 0 && time.Since(start) > time.Duration(word.Load()-clock)+2*window {
				break
			}
		}
		claimed := time.Duration(word.Load() - clock)
		all.dropped = append(all.dropped, told-claimed)
		all.socket = append(all.socket, (<-socket).Sub(start)-claimed)
		_ = v.cmd.Wait()
		sum := func(bins []int) (n float64) {
			for _, k := range bins {
				n += float64(k)
			}
			return n
		}
		first := int(claimed / bin)
		if first < before || sum(bins[first-before:first]) == 0 {
			continue // the machine was slow: there is nothing to compare with
		}
		shares = append(shares, sum(bins[first:first+before])/sum(bins[first-before:first]))
	}
	all.report(b)
	b.ReportMetric(median(shares), "share")
	b.ReportMetric(shares[0], "worst-share") // median has sorted them
}

// BenchmarkRestart is from the SIGKILL of a receiver's process to the first value of a
// new stream of the next one, in milliseconds: the sender notices, the process starts,
// makes a stream and is attached to.
func BenchmarkRestart(b *testing.B) {
	d := newDeathbed(b)
	var times []time.Duration
	attach := func(p *process) *novastream.Sender[v56] {
		p.ask(job{Mode: "receive"})
		h, err := novastream.ParseHandle(p.answer().Handle)
		require.NoError(b, err)
		tx, err := novastream.Attach[v56](context.Background(), d.s, h)
		require.NoError(b, err)
		require.NoError(b, tx.Send(context.Background(), v56{}))
		p.answer()
		return tx
	}
	p := startProcess(b, d.dir)
	tx := attach(p)
	for range 50 {
		start := time.Now()
		require.NoError(b, p.cmd.Process.Kill())
		<-tx.Done()
		next := startProcess(b, d.dir)
		again := attach(next)
		times = append(times, time.Since(start))
		tx.Close()
		_ = p.cmd.Wait()
		p, tx = next, again
	}
	tx.Close()
	p.end()
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ms(percentile(times, 50)), "p50-ms")
	b.ReportMetric(ms(percentile(times, 99)), "p99-ms")
}
