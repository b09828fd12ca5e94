package novastream_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream"
	"github.com/novastream/novastream/control"
)

// overNetwork is two nodes that share nothing but what crosses a network: a
// connection, and for the lane rdma devices of the provider soft.
func overNetwork(t testing.TB, l novastream.Lane) (ctx context.Context, rx, tx *novastream.Streaming) {
	dir, err := os.MkdirTemp("", "nv")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	node := func() *novastream.Streaming {
		n, err := control.Listen(ctx, control.WithDir(dir), control.WithoutUnix(), control.WithTCP("127.0.0.1:0"))
		require.NoError(t, err)
		var opts []novastream.Option
		if l == novastream.LaneRDMA {
			opts = append(opts, novastream.RDMA("soft", ""))
		}
		s, err := novastream.New(n, opts...)
		require.NoError(t, err)
		t.Cleanup(func() { s.Close(); n.Close() })
		return s
	}
	return ctx, node(), node()
}

func prose(n int) []byte {
	words := []string{"stream ", "of ", "frames ", "the ", "receiver ", "takes ", "what ", "a ", "sender ", "has ", "committed, "}
	r := rand.New(rand.NewPCG(1, 2))
	var b []byte
	for len(b) < n {
		b = append(b, words[r.IntN(len(words))]...)
	}
	return b[:n]
}

func tokens(n int) (b []byte) {
	r := rand.New(rand.NewPCG(3, 4))
	for i := 0; len(b) < n; i++ {
		t, _ := json.Marshal(map[string]any{"id": "cmpl-7", "index": i, "token": r.IntN(50_000), "logprob": -r.Float64()})
		b = append(b, t...)
	}
	return b[:n]
}

func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(b)
	return b
}

// mix is runs of n bytes of each in turn.
func mix(a, b []byte, n int) (out []byte) {
	for i := 0; i < len(a); i += 2 * n {
		out = append(append(out, a[i:i+n]...), b[i:i+n]...)
	}
	return out
}

// carry sends the frames and compares what arrives.
func carry(t *testing.T, l novastream.Lane, frames [][]byte, recv []novastream.CreateOption, send []novastream.AttachOption) (novastream.Compressor, novastream.SenderStats) {
	ctx, a, b := overNetwork(t, l)
	rx, err := novastream.CreateBytes(a, recv...)
	require.NoError(t, err)
	defer rx.Close()
	tx, err := novastream.AttachBytes(ctx, b, rx.Handle(), send...)
	require.NoError(t, err)
	defer tx.Close()
	require.Equal(t, l, tx.Lane())
	sent := make(chan error, 1)
	go func() {
		for _, f := range frames {
			if err := tx.Send(ctx, f); err != nil {
				sent <- err
				return
			}
		}
		sent <- tx.Finalize(ctx)
	}()
	var got []byte
	i := 0
	for {
		f, err := rx.Recv(ctx, got)
		require.NoError(t, err)
		if f.Kind == novastream.KindFinalized {
			require.EqualValues(t, len(frames), f.Seq)
			break
		}
		if f.Kind == novastream.KindData {
			require.True(t, bytes.Equal(frames[i], f.Value), "frame %d", i)
			i++
		}
		got = f.Value
	}
	require.Equal(t, len(frames), i)
	require.NoError(t, <-sent)
	require.EqualValues(t, len(frames), tx.Stats().Frames)
	return tx.Compression(), tx.Stats()
}

// What is on the wire, by payload and compressor, and what each batch has beside its
// frames: over tcp its session and a byte that says how it is encoded, over rdma the
// announcement, and the header of a range that is encoded.
func TestCompression_Wire(t *testing.T) {
	t.Run("tcp", func(t *testing.T) { compressionOnWire(t, novastream.LaneTCP, 9) })
	t.Run("rdma", func(t *testing.T) { compressionOnWire(t, novastream.LaneRDMA, 8) })
}

func compressionOnWire(t *testing.T, l novastream.Lane, header uint64) {
	const size, count = 4 << 10, 512
	most := map[string]map[novastream.Compressor]float64{ // of the payload
		"text":   {novastream.CompressionS2: 0.5, novastream.CompressionZstd: 0.35},
		"tokens": {novastream.CompressionS2: 0.6, novastream.CompressionZstd: 0.45},
		"random": {novastream.CompressionS2: 1, novastream.CompressionZstd: 1},
		"mixed":  {novastream.CompressionS2: 0.8, novastream.CompressionZstd: 0.8},
	}
	sources := map[string][]byte{"text": prose(size * count), "tokens": tokens(size * count), "random": noise(size * count)}
	sources["mixed"] = mix(sources["text"], sources["random"], 64*size) // runs longer than a batch
	for what, src := range sources {
		frames := slices.Collect(slices.Chunk(src, size))
		payload := uint64(count * size)
		for c, ratio := range most[what] {
			t.Run(fmt.Sprintf("%s/%s", what, c), func(t *testing.T) {
				used, s := carry(t, l, frames, []novastream.CreateOption{novastream.Compression(c)}, []novastream.AttachOption{novastream.Compression(c)})
				t.Logf("%d batches, %d compressed: %.3f of the payload on the wire", s.Batches, s.Compressed, float64(s.Wire)/float64(s.Payload))
				require.Equal(t, c, used)
				require.GreaterOrEqual(t, s.Payload, payload+16*count)
				require.LessOrEqual(t, float64(s.Wire), ratio*float64(s.Payload)+24*float64(s.Batches))
				if what == "mixed" {
					require.Positive(t, s.Compressed)
				}
				if what == "random" {
					require.Zero(t, s.Compressed)
					require.Equal(t, s.Payload+header*s.Batches, s.Wire)
				}
			})
		}
	}
}

// Both ends must agree; without, nothing is added to a message but, where the
// receiver would take compression, the byte that says that it is not used.
func TestCompression_Agreement(t *testing.T) {
	t.Run("tcp", func(t *testing.T) { compressionAgreed(t, novastream.LaneTCP) })
	t.Run("rdma", func(t *testing.T) { compressionAgreed(t, novastream.LaneRDMA) })
}

func compressionAgreed(t *testing.T, l novastream.Lane) {
	none, s2, zstd := novastream.CompressionNone, novastream.CompressionS2, novastream.CompressionZstd
	frames := [][]byte{prose(10_000), {}, prose(60_000), noise(500)}
	for _, c := range []struct {
		takes, wants []novastream.Compressor
		used         novastream.Compressor
		header       uint64
	}{
		{nil, nil, none, 8},
		{nil, []novastream.Compressor{s2, zstd}, none, 8},
		{[]novastream.Compressor{none}, []novastream.Compressor{s2}, none, 8},
		{[]novastream.Compressor{s2, zstd}, nil, none, 9},
		{[]novastream.Compressor{s2}, []novastream.Compressor{zstd}, none, 9},
		{[]novastream.Compressor{s2, zstd}, []novastream.Compressor{none, s2}, none, 9},
		{[]novastream.Compressor{s2, zstd}, []novastream.Compressor{zstd, s2}, zstd, 9},
		{[]novastream.Compressor{zstd, s2}, []novastream.Compressor{s2, zstd}, s2, 9},
		{[]novastream.Compressor{zstd}, []novastream.Compressor{s2, zstd}, zstd, 9},
	} {
		t.Run(fmt.Sprintf("takes %v wants %v", c.takes, c.wants), func(t *testing.T) {
			if l == novastream.LaneRDMA {
				c.header = 8
			}
			used, s := carry(t, l, frames,
				[]novastream.CreateOption{novastream.Compression(c.takes...)}, []novastream.AttachOption{novastream.Compression(c.wants...)})
			require.Equal(t, c.used, used)
			if used == none {
				require.Zero(t, s.Compressed)
				require.Equal(t, s.Payload+c.header*s.Batches, s.Wire)
			} else {
				require.Positive(t, s.Compressed)
				require.Less(t, s.Wire, s.Payload)
			}
		})
	}
}

// A lane that crosses no network does not compress.
func TestCompression_NoNetwork(t *testing.T) {
	s, stop := start()
	defer stop()
	ctx := context.Background()
	rx, err := novastream.Create[Tick](s, novastream.Compression(novastream.CompressionS2))
	require.NoError(t, err)
	defer rx.Close()
	tx, err := novastream.Attach[Tick](ctx, s, rx.Handle(), novastream.Compression(novastream.CompressionS2))
	require.NoError(t, err)
	require.NoError(t, tx.Send(ctx, Tick{}))
	require.Equal(t, novastream.CompressionNone, tx.Compression())
	require.Zero(t, tx.Stats())
	require.NoError(t, tx.Finalize(ctx))
}

func TestCompression_Unknown(t *testing.T) {
	s, stop := start()
	defer stop()
	bad := novastream.Compression(novastream.CompressionS2, "middle-out")
	_, err := novastream.Create[Tick](s, bad)
	require.ErrorIs(t, err, novastream.ErrConfig)
	_, err = novastream.CreateBytes(s, bad)
	require.ErrorIs(t, err, novastream.ErrConfig)
	_, err = novastream.Attach[Tick](context.Background(), s, novastream.Handle{}, bad)
	require.ErrorIs(t, err, novastream.ErrConfig)
	_, err = novastream.AttachBytes(context.Background(), s, novastream.Handle{}, bad)
	require.ErrorIs(t, err, novastream.ErrConfig)
}

// A peer that sends what no compressor made ends its own stream by a typed
// error; the stream beside it, of the same node, goes on.
func TestCompression_Hostile(t *testing.T) {
	good := func(b byte, body ...byte) []byte { return append([]byte{b}, body...) }
	for name, msg := range map[string][]byte{
		"empty":           {},
		"unknown":         good(77, 1, 2, 3),
		"not agreed":      good(2, 0x28, 0xb5, 0x2f, 0xfd, 0x20, 1, 9, 0, 0, 'x'),
		"huge":            good(1, 0xff, 0xff, 0xff, 0xff, 0x0f, 0, 'x'),
		"truncated":       good(1, 100, 4<<2, 'a', 'b'),
		"trailing":        good(1, 1, 0, 'x', 'y'),
		"no frame within": good(1, 8, 7<<2, 1, 2, 3, 4, 5, 6, 7, 8),
		"raw, no frame":   good(0, 1, 2, 3, 4, 5, 6, 7, 8),
	} {
		t.Run(name, func(t *testing.T) {
			ctx, a, b := overNetwork(t, novastream.LaneTCP)
			opt := novastream.Compression(novastream.CompressionS2)
			rx, err := novastream.Create[Tick](a, opt)
			require.NoError(t, err)
			defer rx.Close()
			beside, err := novastream.Create[Tick](a, opt)
			require.NoError(t, err)
			defer beside.Close()
			bad, err := novastream.Attach[Tick](ctx, b, rx.Handle(), opt) // the node's session 1
			require.NoError(t, err)
			defer bad.Close()
			tx, err := novastream.Attach[Tick](ctx, b, beside.Handle(), opt)
			require.NoError(t, err)
			defer tx.Close()
			require.NoError(t, bad.Send(ctx, Tick{Size: 1}))
			require.NoError(t, tx.Send(ctx, Tick{Size: 1}))
			for _, want := range []novastream.Kind{novastream.KindAttached, novastream.KindData} {
				f, err := rx.Recv(ctx)
				require.NoError(t, err)
				require.Equal(t, want, f.Kind)
			}
			peer, err := b.Node().Peer(ctx, a.Node().WorkerID(), control.TCP)
			require.NoError(t, err)
			require.NoError(t, peer.SendBulk(ctx, "stream_data", append(binary.LittleEndian.AppendUint64(nil, 1), msg...)))
			f, err := rx.Recv(ctx)
			require.NoError(t, err)
			require.Equal(t, novastream.KindTransportError, f.Kind)
			require.ErrorIs(t, f.Err, novastream.ErrCorrupt)
			require.ErrorIs(t, f.Err, novastream.ErrTransport)
			if name == "not agreed" {
				require.ErrorContains(t, f.Err, "not agreed to")
			}

			require.NoError(t, tx.Send(ctx, Tick{Size: 2}))
			require.NoError(t, tx.Finalize(ctx))
			n := uint64(0)
			for v, err := range beside.Values(ctx) {
				require.NoError(t, err)
				n++
				require.Equal(t, n, v.Size)
			}
			require.Equal(t, uint64(2), n)
		})
	}
}

func ExampleCompression() {
	s, stop := start()
	defer stop()
	ctx := context.Background()

	// The receiver takes either, a sender chooses.
	rx, err := novastream.CreateBytes(s, novastream.Compression(novastream.CompressionS2, novastream.CompressionZstd))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer rx.Close()
	tx, err := novastream.AttachBytes(ctx, s, rx.Handle(), novastream.Compression(novastream.CompressionZstd))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer tx.Close()
	// Within one process nothing crosses a network.
	fmt.Println(tx.Lane(), tx.Compression(), tx.Stats().Wire)
	// Output: local none 0
}
