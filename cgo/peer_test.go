//go:build linux

package cgo

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream/ring"
	"github.com/novastream/novastream/shm"
)

// build compiles the C program that is on nova_ring.h alone.
func build(t *testing.T) string {
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("no C compiler: install gcc or clang to check the header")
	}
	bin := filepath.Join(t.TempDir(), "peer")
	out, err := exec.Command(cc, "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-o", bin, "testdata/peer.c").CombinedOutput()
	require.NoError(t, err, "%s", out)
	return bin
}

var geometries = []ring.Geometry{
	{SlotSize: 16, Slots: 64, Payload: 8},
	{SlotSize: 32, Slots: 128, Payload: 24},
	{SlotSize: 64, Slots: 256, Payload: 56},
	{SlotSize: 64, Slots: 256, Payload: 33},
	{SlotSize: 64, Slots: 64},
	{SlotSize: 256, Slots: 32},
}

// count is how many frames are exchanged: many laps of each ring.
const count = 20_000

func lengthOf(g ring.Geometry, frame uint64) int {
	if g.Payload != 0 {
		return g.Payload
	}
	return int(frame * 37 % uint64(4*g.SlotSize+3))
}

func byteAt(frame, i uint64) byte { return byte(frame*31 + i*7 + 1) }

// segment makes a ring in a memfd, and a command that has it as descriptor 3.
func segment(t *testing.T, g ring.Geometry, bin, mode string) (*ring.Ring, *exec.Cmd) {
	seg, err := shm.NewMemfd(g.SegmentSize())
	require.NoError(t, err)
	t.Cleanup(func() { seg.Close() })
	r, err := ring.Format(seg.Bytes(), g)
	require.NoError(t, err)
	rw, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", seg.FD()), os.O_RDWR, 0)
	require.NoError(t, err)
	t.Cleanup(func() { rw.Close() })
	cmd := exec.Command(bin, mode, "3", fmt.Sprint(g.SegmentSize()), fmt.Sprint(count))
	cmd.ExtraFiles = []*os.File{rw}
	cmd.Stderr = os.Stderr
	return r, cmd
}

func TestGoProducesCConsumes(t *testing.T) {
	bin := build(t)
	for _, g := range geometries {
		t.Run(fmt.Sprintf("%+v", g), func(t *testing.T) {
			r, cmd := segment(t, g, bin, "consume")
			p := r.Producer(ring.Session{Tag: 1}, nil)
			var out strings.Builder
			cmd.Stdout = &out
			require.NoError(t, cmd.Start())
			done := make(chan error, 1)
			go func() { done <- cmd.Wait() }()
			for i := uint64(0); i < count; i++ {
				n := lengthOf(g, i)
				var b []byte
				for b == nil {
					select {
					case err := <-done:
						require.NoError(t, err, "the C program has ended at frame %d: %s", i, out.String())
					default:
					}
					b = reserve(t, p, g, n)
				}
				for j := range b {
					b[j] = byteAt(i, uint64(j))
				}
				if g.Payload != 0 {
					require.True(t, ring.Commit1[byte](p, nil) || p.Settle1())
				} else {
					require.NoError(t, p.Commit(n, ring.Data))
				}
			}
			require.True(t, p.End(ring.Finalized))
			require.NoError(t, <-done, "%s", out.String())
		})
	}
}

// reserve answers a slot's or a frame's bytes, nil when the ring is full.
func reserve(t *testing.T, p *ring.Producer, g ring.Geometry, n int) []byte {
	if g.Payload == 0 {
		b, err := p.Reserve(n)
		if err != nil {
			require.ErrorIs(t, err, ring.ErrFull)
			runtime.Gosched()
			return nil
		}
		if b == nil {
			b = []byte{}
		}
		return b
	}
	var b []byte
	switch g.Payload {
	case 8:
		b = bytesOf(ring.Reserve1[[8]byte](p))
	case 24:
		b = bytesOf(ring.Reserve1[[24]byte](p))
	case 33:
		b = bytesOf(ring.Reserve1[[33]byte](p))
	case 56:
		b = bytesOf(ring.Reserve1[[56]byte](p))
	}
	if b == nil {
		runtime.Gosched()
	}
	return b
}

// bytesOf is a slot's payload as bytes.
func bytesOf[T [8]byte | [24]byte | [33]byte | [56]byte](v *T) []byte {
	if v == nil {
		return nil
	}
	switch v := any(v).(type) {
	case *[8]byte:
		return v[:]
	case *[24]byte:
		return v[:]
	case *[33]byte:
		return v[:]
	case *[56]byte:
		return v[:]
	}
	return nil
}

func TestCProducesGoConsumes(t *testing.T) {
	bin := build(t)
	for _, g := range geometries {
		t.Run(fmt.Sprintf("%+v", g), func(t *testing.T) {
			r, cmd := segment(t, g, bin, "produce")
			c := r.Consumer(ring.Session{Tag: 1}, nil)
			require.NoError(t, cmd.Start())
			for i := uint64(0); ; {
				f, ok := c.Next()
				if !ok {
					require.NoError(t, c.Err())
					c.Settle()
					runtime.Gosched()
					continue
				}
				if f.Kind == ring.Finalized {
					require.Equal(t, uint64(count), i)
					break
				}
				require.Equal(t, ring.Data, f.Kind)
				require.Len(t, f.Data, lengthOf(g, i))
				for j, b := range f.Data {
					if b != byteAt(i, uint64(j)) {
						require.Fail(t, "content", "frame %d byte %d", i, j)
					}
				}
				c.Release()
				i++
			}
			require.NoError(t, cmd.Wait())
		})
	}
}

// golden are the segments in testdata, which Go and C must read to the same
// listing.
func TestGoldenSegments(t *testing.T) {
	bin := build(t)
	files, err := filepath.Glob("../testdata/segments/*.bin")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, path := range files {
		t.Run(filepath.Base(path), func(t *testing.T) {
			want, err := os.ReadFile(strings.TrimSuffix(path, ".bin") + ".txt")
			require.NoError(t, err)
			mem, err := os.ReadFile(path)
			require.NoError(t, err)
			f, err := os.CreateTemp(t.TempDir(), "segment")
			require.NoError(t, err)
			defer f.Close()
			_, err = f.Write(mem)
			require.NoError(t, err)
			cmd := exec.Command(bin, "list", "3", fmt.Sprint(len(mem)), "0")
			cmd.ExtraFiles = []*os.File{f}
			out, err := cmd.Output()
			require.NoError(t, err)
			require.Equal(t, string(want), string(out))
		})
	}
}
