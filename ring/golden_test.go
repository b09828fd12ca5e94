package ring

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the golden segments anew")

// goldens are segments as this version of the layout has them.
var goldens = map[string]func(t *testing.T) []byte{
	"narrow": func(t *testing.T) []byte {
		mem, r := newRing(t, Geometry{SlotSize: 32, Slots: 16, Payload: 24, Fingerprint: 0xfeed})
		r.Consumer(Session{Tag: 1}, nil)
		p := r.Producer(Session{Tag: 1}, nil)
		for i := range uint64(5) {
			require.NoError(t, Put(p, &[3]uint64{i, i * i, ^i}))
		}
		require.NoError(t, p.SoftError("the thermometer has fallen behind the oven"))
		require.NoError(t, Put(p, &[3]uint64{5, 25, 0}))
		require.True(t, p.End(Finalized))
		return mem
	},
	"wide": func(t *testing.T) []byte {
		mem, r := newRing(t, Geometry{SlotSize: 64, Slots: 16})
		c := r.Consumer(Session{Tag: 1}, nil)
		p := r.Producer(Session{Tag: 1}, nil)
		for i := range 6 { // an empty frame, one slot, several, and a wrap with a pad
			b, err := p.Reserve(i * 40)
			require.NoError(t, err)
			for j := range b {
				b[j] = byte(i + j)
			}
			require.NoError(t, p.Commit(i*40, Data))
		}
		_ = c
		require.NoError(t, p.SoftError("so it goes"))
		require.True(t, p.End(Detached))
		return mem
	},
	"open": func(t *testing.T) []byte {
		mem, r := newRing(t, Geometry{SlotSize: 16, Slots: 8, Payload: 8})
		r.Consumer(Session{Tag: 1}, nil)
		p := r.Producer(Session{Tag: 1}, nil)
		require.NoError(t, Put(p, &[1]uint64{0x1234}))
		return mem
	},
	"version": func(t *testing.T) []byte {
		mem, _ := newRing(t, Geometry{SlotSize: 16, Slots: 8, Payload: 8})
		mem[offVersion] = 9
		return mem
	},
	"truncated": func(t *testing.T) []byte {
		mem, _ := newRing(t, Geometry{SlotSize: 64, Slots: 64, Payload: 8})
		return mem[:len(mem)-pageSize]
	},
	"lying-length": func(t *testing.T) []byte {
		mem, r := newRing(t, Geometry{SlotSize: 64, Slots: 16})
		r.Consumer(Session{Tag: 1}, nil)
		p := r.Producer(Session{Tag: 1}, nil)
		b, err := p.Reserve(3)
		require.NoError(t, err)
		copy(b, "abc")
		require.NoError(t, p.Commit(3, Data))
		*(*uint64)(unsafe.Add(r.slot(0), 8)) = 1 << 20
		return mem
	},
}

// refusals name, as the C header does, what Open refuses.
var refusals = map[string]string{"version": "refused: version\n", "truncated": "refused: truncated\n"}

// listing reads a segment to text, as the C program of cgo/testdata does.
func describe(t *testing.T, name string, mem []byte) string {
	r, err := Open(aligned(mem))
	if err != nil {
		require.ErrorIs(t, err, ErrLayout)
		require.Contains(t, refusals, name, "%v", err)
		return refusals[name]
	}
	c := r.Consumer(Session{Tag: 1}, nil)
	var b strings.Builder
	for {
		f, ok := c.Next()
		if !ok {
			if c.Err() != nil {
				require.ErrorIs(t, c.Err(), ErrCorrupt)
				return b.String() + "corrupt\n"
			}
			return b.String() + "empty\n"
		}
		sum, more := uint64(0), 0
		for _, x := range f.Data {
			sum = sum*131 + uint64(x)
		}
		if f.More {
			more = 1
		}
		fmt.Fprintf(&b, "%d %d %d %d\n", f.Kind, more, len(f.Data), sum)
		if f.Kind.Terminal() {
			return b.String()
		}
		c.Release()
	}
}

func TestGoldenSegments(t *testing.T) {
	dir := "../testdata/segments"
	for name, make := range goldens {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, name)
			mem := make(t)
			if *update {
				require.NoError(t, os.MkdirAll(dir, 0o755))
				require.NoError(t, os.WriteFile(path+".bin", mem, 0o644))
				require.NoError(t, os.WriteFile(path+".txt", []byte(describe(t, name, mem)), 0o644))
			}
			golden, err := os.ReadFile(path + ".bin")
			require.NoError(t, err)
			require.Equal(t, golden, mem, "the layout has changed: it needs another Version")
			want, err := os.ReadFile(path + ".txt")
			require.NoError(t, err)
			require.Equal(t, string(want), describe(t, name, golden))
		})
	}
}
