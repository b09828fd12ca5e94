package compress

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
)

const limit = 1 << 20

func text(n int) []byte {
	return []byte(strings.Repeat("The quick brown fox jumps over the lazy dog, again. ", n/52+1)[:n])
}

func random(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(b)
	return b
}

func TestRoundTrip(t *testing.T) {
	for _, a := range []Algorithm{None, S2, Zstd} {
		for _, n := range []int{0, 1, 8, 31, 64, 255, 256, 70_000, 128 << 10, limit} {
			for what, src := range map[string][]byte{"text": text(n), "random": random(n)} {
				t.Run(fmt.Sprintf("%v/%s/%d", a, what, n), func(t *testing.T) {
					// Both answer behind what is there already.
					b, used := Append([]byte("head"), a, src)
					require.Equal(t, "head", string(b[:4]))
					require.Equal(t, byte(used), b[4])
					require.LessOrEqual(t, len(b), 4+1+n)
					if what == "text" && n > 255 {
						require.Equal(t, a, used)
					}
					if what == "random" {
						require.Equal(t, None, used)
					}
					got, err := Decode([]byte("head"), b[4:], All, n)
					require.NoError(t, err)
					if used != None {
						require.Equal(t, "head", string(got[:4]))
						got = got[4:]
					}
					require.True(t, bytes.Equal(src, got))
				})
			}
		}
	}
}

// A batch that lies is ErrCorrupt, and takes no more memory than the limit.
func TestHostile(t *testing.T) {
	s2Text, _ := Append(nil, S2, text(4096))
	zText, _ := Append(nil, Zstd, text(4096))
	window, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithSingleSegment(false))
	require.NoError(t, err)
	huge := binary.LittleEndian.AppendUint64([]byte{byte(Zstd), 0x28, 0xb5, 0x2f, 0xfd, 0xe0}, 1<<62)
	lies := append([]byte{byte(Zstd)}, zText[1:]...)
	lies[6]++ // the length that the frame's header gives
	for name, c := range map[string]struct {
		b       []byte
		allowed Set
	}{
		"nothing":                   {nil, All},
		"unknown algorithm":         {[]byte{200, 1, 2, 3}, All},
		"next algorithm":            {[]byte{byte(algorithms), 1, 2, 3}, All},
		"s2, not agreed":            {s2Text, 1 << Zstd},
		"zstd, not agreed":          {zText, 1 << S2},
		"raw, too long":             {make([]byte, limit+2), All},
		"s2, says 4 GiB":            {append([]byte{byte(S2)}, binary.AppendUvarint(nil, 1<<32-1)...), All},
		"s2, says more than uint64": {append([]byte{byte(S2)}, bytes.Repeat([]byte{0xff}, 11)...), All},
		"s2, empty":                 {[]byte{byte(S2)}, All},
		"s2, truncated":             {s2Text[:len(s2Text)-1], All},
		"s2, trailing":              {append(bytes.Clone(s2Text), 0), All},
		"s2, one over the limit":    {append([]byte{byte(S2)}, s2.Encode(nil, text(limit+1))...), All},
		"zstd, says 4 EiB":          {huge, All},
		"zstd, empty":               {[]byte{byte(Zstd)}, All},
		"zstd, truncated":           {zText[:len(zText)-1], All},
		"zstd, trailing":            {append(bytes.Clone(zText), 0), All},
		"zstd, twice":               {append(bytes.Clone(zText), zText[1:]...), All},
		"zstd, says one more":       {lies, All},
		"zstd, with a window":       {window.EncodeAll(text(4096), []byte{byte(Zstd)}), All},
		"zstd, skippable":           {[]byte{byte(Zstd), 0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 0}, All},
		"s2 called zstd":            {append([]byte{byte(Zstd)}, s2Text[1:]...), All},
		"zstd called s2":            {append([]byte{byte(S2)}, zText[1:]...), All},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Decode(nil, c.b, c.allowed, limit)
			require.ErrorIs(t, err, ErrCorrupt)
			require.Nil(t, got)
		})
	}
}

func TestSets(t *testing.T) {
	s := SetOf([]Algorithm{Zstd, None})
	require.True(t, s.Has(None))
	require.True(t, s.Has(Zstd))
	require.False(t, s.Has(S2))
	require.False(t, Set(0xff).Has(algorithms))
	require.Equal(t, Zstd, s.First([]Algorithm{S2, Zstd}))
	require.Equal(t, None, s.First([]Algorithm{None, Zstd}))
	require.Equal(t, None, s.First([]Algorithm{S2}))
}

func TestNoAllocation(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector has pools forget what they hold, at random")
	}
	src := text(128 << 10)
	for _, a := range []Algorithm{None, S2, Zstd} {
		b, out := make([]byte, 0, MaxLen(len(src))), make([]byte, 0, len(src))
		require.Zero(t, testing.AllocsPerRun(200, func() {
			b, _ = Append(b[:0], a, src)
			if _, err := Decode(out, b, All, len(src)); err != nil {
				t.Error(err)
			}
		}), "%v", a)
	}
}

func FuzzDecode(f *testing.F) {
	for _, a := range []Algorithm{None, S2, Zstd} {
		for _, src := range [][]byte{nil, []byte("x"), text(300), random(100)} {
			b, _ := Append(nil, a, src)
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		const limit = 64 << 10
		dst := make([]byte, 8, 128)
		out, err := Decode(dst, b, All, limit)
		if err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
			return
		}
		if b[0] != byte(None) {
			out = out[8:]
		}
		require.LessOrEqual(t, len(out), limit)
	})
}

func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte("abcabcabcabc"), uint8(1))
	f.Add(text(5000), uint8(2))
	f.Fuzz(func(t *testing.T, src []byte, which uint8) {
		b, used := Append(nil, Algorithm(which%uint8(algorithms)), src)
		require.LessOrEqual(t, len(b), len(src)+1)
		out, err := Decode(nil, b, SetOf([]Algorithm{used}), len(src))
		require.NoError(t, err)
		require.True(t, bytes.Equal(src, out))
	})
}
