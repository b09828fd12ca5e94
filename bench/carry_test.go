package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream"
)

// payload makes frames to send again and again, some megabytes of them:
//
//	text     the sources and pages of this repository, 4 KiB a frame
//	tokens   an answer of a model as JSON, a token a frame
//	random   random bytes, 4 KiB a frame
//	64KiB    the same, 64 KiB a frame
//	48B      the same, 48 bytes a frame: a slot of 64
func payload(name string) (frames [][]byte, err error) {
	const total = 4 << 20
	r := rand.New(rand.NewPCG(1, 2))
	size := 4 << 10
	var b []byte
	switch name {
	case "text":
		err = filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
			if ext := filepath.Ext(path); err != nil || ext != ".go" && ext != ".md" || len(b) >= total {
				return err
			}
			f, err := os.ReadFile(path)
			b = append(b, f...)
			return err
		})
	case "tokens":
		words := []string{" the", " of", "ing", " stream", ",", " and", " a", "tion", " data", "."}
		for i := 0; i < total/100; i++ {
			t, _ := json.Marshal(map[string]any{"id": "cmpl-7f3a", "index": i, "text": words[r.IntN(len(words))], "token": r.IntN(50_000), "logprob": -r.Float32()})
			frames = append(frames, t)
		}
		return frames, nil
	case "64KiB":
		size = 64 << 10
	case "48B":
		size = 48
	}
	if b == nil {
		b = make([]byte, total)
		_, _ = rand.NewChaCha8([32]byte{}).Read(b)
	}
	for len(b) >= size {
		frames, b = append(frames, b[:size:size]), b[size:]
	}
	return frames, err
}

// carry sends a payload over a lane for a time.
func carry(s *novastream.Streaming, h novastream.Handle, j job, a *answer) error {
	ctx := context.Background()
	frames, err := payload(j.Payload)
	if err != nil {
		return err
	}
	tx, err := novastream.AttachBytes(ctx, s, h, j.lanes(), novastream.Compression(j.Compressor))
	if err != nil {
		return err
	}
	defer tx.Close()
	for i, end := 0, time.Now().Add(time.Duration(j.MS)*time.Millisecond); i%64 != 0 || time.Now().Before(end); i++ {
		if err := tx.Send(ctx, frames[i%len(frames)]); err != nil {
			return err
		}
	}
	if err := tx.Finalize(ctx); err != nil {
		return err
	}
	a.Stats = tx.Stats()
	return nil
}

// carried receives one run: bytes of frames and frames a second, and what was on
// the wire.
func (p *pairing) carried(lane novastream.Lane, name string, c novastream.Compressor) (bytes, frames float64, s novastream.SenderStats) {
	rx, err := novastream.CreateBytes(p.s, novastream.Capacity(1<<16), onLane(lane), novastream.Compression(c))
	require.NoError(p, err)
	defer rx.Close()
	p.ask(job{Mode: "carry", Handle: rx.Handle().String(), Lane: lane, Payload: name, Compressor: c, MS: 300})
	d := p.drained(rx, 64, func(b []byte) {
		sink += sumWords(b)
		bytes += float64(len(b))
		frames++
	})
	return bytes / d, frames / d, p.answer().Stats
}

// drained hands take each frame of a stream up to its end, those that are there lent and
// up to batch at a time, and answers how many seconds passed since the sender attached.
func (p *pairing) drained(rx *novastream.BytesReceiver, batch int, take func([]byte)) float64 {
	ctx := context.Background()
	_, err := rx.Recv(ctx, nil)
	require.NoError(p, err)
	start := time.Now()
	var buf []byte
	for {
		loan, err := rx.Borrow(batch)
		if err == nil {
			for _, f := range loan.Frames {
				take(f.Value)
			}
			loan.Release()
			continue
		}
		if !errors.Is(err, novastream.ErrEmpty) {
			require.NoError(p, err)
		}
		f, err := rx.Recv(ctx, buf)
		require.NoError(p, err)
		if f.Kind == novastream.KindFinalized {
			return time.Since(start).Seconds()
		}
		buf = f.Value
		take(buf)
	}
}

// BenchmarkCompression is the lane tcp over the loopback between two processes,
// in gigabytes of frames a second by payload and compressor, the bytes on the
// wire for each byte of frames with their headers, and the rate against none,
// measured next to it.
func BenchmarkCompression(b *testing.B) {
	p := newPairing(b)
	all := []novastream.Compressor{novastream.CompressionNone, novastream.CompressionS2, novastream.CompressionZstd}
	for _, name := range []string{"text", "tokens", "random"} {
		rate, ratio := map[novastream.Compressor][]float64{}, map[novastream.Compressor][]float64{}
		wire := map[novastream.Compressor]float64{}
		for range pairs {
			var none float64
			for _, c := range all {
				r, _, s := p.carried(novastream.LaneTCP, name, c)
				if c == novastream.CompressionNone {
					none = r
				}
				rate[c], ratio[c] = append(rate[c], r/1e9), append(ratio[c], r/none)
				wire[c] = float64(s.Wire) / float64(s.Payload)
			}
		}
		for _, c := range all {
			b.Run(fmt.Sprintf("%s/%s", name, c), func(b *testing.B) {
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(median(rate[c]), "GB/s")
				b.ReportMetric(median(ratio[c]), "ratio")
				b.ReportMetric(wire[c], "wire")
			})
		}
	}
}

// BenchmarkTCP is the lane tcp over the loopback between two processes, in
// million frames and gigabytes a second.
func BenchmarkTCP(b *testing.B) {
	p := newPairing(b)
	for _, name := range []string{"48B", "random", "64KiB"} {
		b.Run(name, func(b *testing.B) {
			var rate, frames []float64
			for range pairs {
				r, f, _ := p.carried(novastream.LaneTCP, name, novastream.CompressionNone)
				rate, frames = append(rate, r/1e9), append(frames, f/1e6)
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(median(rate), "GB/s")
			b.ReportMetric(median(frames), "M/s")
		})
	}
}
