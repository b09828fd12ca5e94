package bench

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream"
	"github.com/novastream/novastream/control"
	"github.com/novastream/novastream/rdma"
	"github.com/novastream/novastream/rdma/soft"
)

// across sends 56-byte values in batches of 32, and waits as one does over a
// network.
func across(s *novastream.Streaming, h novastream.Handle, j job, a *answer) error {
	ctx := context.Background()
	tx, err := novastream.Attach[v56](ctx, s, h, j.lanes())
	if err != nil {
		return err
	}
	defer tx.Close()
	for i, end := uint64(0), time.Now().Add(time.Duration(j.MS)*time.Millisecond); time.Now().Before(end); {
		for range 64 {
			b, err := tx.ReserveBatch(32)
			if err != nil {
				if err = tx.Send(ctx, v56{A: i}); err != nil {
					return err
				}
				i++
				continue
			}
			for k := range b.Len() {
				p := b.At(k)
				p.A, p.B, p.C, p.D, p.E, p.F, p.G = i, i, i, i, i, i, i
				i++
			}
			if err := b.Commit(b.Len()); err != nil {
				return err
			}
		}
	}
	if err := tx.Finalize(ctx); err != nil {
		return err
	}
	a.Stats = tx.Stats()
	return nil
}

// crossed receives one run of across, in million values a second.
func (p *pairing) crossed(lane novastream.Lane, ms int) (rate float64, s novastream.SenderStats) {
	ctx := context.Background()
	rx, err := novastream.Create[v56](p.s, novastream.Capacity(1<<14), onLane(lane))
	require.NoError(p, err)
	defer rx.Close()
	p.ask(job{Mode: "across", Handle: rx.Handle().String(), Lane: lane, MS: ms})
	_, err = rx.Recv(ctx)
	require.NoError(p, err)
	start := time.Now()
	n, sum := uint64(0), uint64(0)
	for {
		for v := range rx.Slots(1 << 12) {
			sum += v.A + v.G
			n++
		}
		f, err := rx.Recv(ctx)
		if errors.Is(err, io.EOF) || err == nil && f.Kind == novastream.KindFinalized {
			break
		}
		require.NoError(p, err)
		n++
	}
	sink += sum
	d := time.Since(start)
	return float64(n) / d.Seconds() / 1e6, p.answer().Stats
}

// BenchmarkRDMA is the lane rdma between two processes, each run next to one of
// the lane tcp over the loopback: values in batches, frames of 64 KiB, and the
// round trip of a value. $NOVA_RDMA_PROVIDER names the provider; the default is soft.
func BenchmarkRDMA(b *testing.B) {
	p := newPairing(b)
	for _, c := range []struct {
		name, unit string
		run        func(novastream.Lane) float64
	}{
		{"values/64B", "M/s", func(l novastream.Lane) float64 {
			r, _ := p.crossed(l, 300)
			return r
		}},
		{"frames/64KiB", "GB/s", func(l novastream.Lane) float64 {
			r, _, _ := p.carried(l, "64KiB", novastream.CompressionNone)
			return r / 1e9
		}},
		{"trip/64B", "trip-us", func(l novastream.Lane) float64 {
			return float64(p50(p.trips(l, novastream.Hybrid, 2000, 1)).Nanoseconds()) / 1e3
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			var ours, tcp, ratio []float64
			for range pairs {
				x, y := c.run(novastream.LaneRDMA), c.run(novastream.LaneTCP)
				ours, tcp, ratio = append(ours, x), append(tcp, y), append(ratio, x/y)
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(median(ours), c.unit)
			b.ReportMetric(median(tcp), "tcp-"+c.unit)
			b.ReportMetric(median(ratio), "ratio")
		})
	}
}

// cuttable is soft with its last device in hand.
type cuttable struct{ *soft.Provider }

var lastDevice *soft.Device

func (cuttable) Name() string { return "cuttable" }

func (c cuttable) Open(name string) (rdma.Device, error) {
	d, err := c.Provider.Open(name)
	if err == nil {
		lastDevice = d.(*soft.Device)
	}
	return d, err
}

// BenchmarkRDMACut is the time from a cut link to the receiver's TransportError and
// to the sender's ErrTransport, with the default settings: of a stream under load, and
// of one with nothing to send, at moments that are spread over the time between two
// probes. The nodes still reach each other.
func BenchmarkRDMACut(b *testing.B) {
	rdma.Register(cuttable{soft.New()})
	for _, busy := range []bool{true, false} {
		name := "idle"
		if busy {
			name = "busy"
		}
		b.Run(name, func(b *testing.B) {
			var receiver, sender []float64
			for i := range 2 * pairs {
				r, s := cut(b, busy, 1300*time.Millisecond+time.Duration(i)*97*time.Millisecond)
				receiver, sender = append(receiver, r.Seconds()*1e3), append(sender, s.Seconds()*1e3)
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(median(receiver), "receiver-ms")
			b.ReportMetric(slices.Max(receiver), "receiver-max-ms")
			b.ReportMetric(median(sender), "sender-ms")
			b.ReportMetric(slices.Max(sender), "sender-max-ms")
		})
	}
}

func cut(b *testing.B, busy bool, after time.Duration) (receiver, sender time.Duration) {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "nb")
	require.NoError(b, err)
	defer os.RemoveAll(dir)
	var s [2]*novastream.Streaming
	for i := range s {
		n, err := control.Listen(ctx, control.WithDir(dir), control.WithTCP("127.0.0.1:0"))
		require.NoError(b, err)
		defer n.Close()
		s[i], err = novastream.New(n, novastream.RDMA("cuttable", ""))
		require.NoError(b, err)
		defer s[i].Close()
	}
	rx, err := novastream.Create[v56](s[0])
	require.NoError(b, err)
	defer rx.Close()
	tx, err := novastream.Attach[v56](ctx, s[1], rx.Handle(), novastream.Lanes(novastream.LaneRDMA))
	require.NoError(b, err)
	defer tx.Close()
	if busy {
		go func() {
			for tx.Send(ctx, v56{}) == nil {
			}
		}()
	}
	var start atomic.Int64
	time.AfterFunc(after, func() {
		start.Store(time.Now().UnixNano())
		lastDevice.Cut(0)
	})
	told := make(chan time.Time, 1)
	go func() {
		<-tx.Done()
		told <- time.Now()
	}()
	for {
		f, err := rx.Recv(ctx)
		require.NoError(b, err)
		if f.Kind == novastream.KindTransportError {
			break
		}
	}
	receiver = time.Since(time.Unix(0, start.Load()))
	sender = (<-told).Sub(time.Unix(0, start.Load()))
	require.ErrorIs(b, tx.Err(), novastream.ErrTransport)
	return receiver, sender
}
