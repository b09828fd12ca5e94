package handle

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream/internal/fault"
)

func TestParts(t *testing.T) {
	for _, c := range []struct {
		worker uint64
		slot   uint16
		gen    uint64
	}{{1, 0, 1}, {1<<64 - 1, 1<<16 - 1, MaxGeneration}, {0x0123456789abcdef, 0x1234, 0x56789abcdef0}} {
		h := Make(c.worker, c.slot, c.gen)
		require.Equal(t, c.worker, h.Worker())
		require.Equal(t, c.slot, h.Slot())
		require.Equal(t, c.gen, h.Generation())
		require.NoError(t, h.Check())
		back, err := Parse(h.String())
		require.NoError(t, err)
		require.Equal(t, h, back)
	}
	// The bits of the design: worker 0–63, slot 64–79, generation 80–127.
	require.Equal(t, "nova:efcdab89674523013412f0debc9a7856", Make(0x0123456789abcdef, 0x1234, 0x56789abcdef0).String())
}

func TestTextAndBinary(t *testing.T) {
	h := Make(7, 8, 9)
	b, err := json.Marshal(map[Handle]Handle{h: h})
	require.NoError(t, err)
	var m map[Handle]Handle
	require.NoError(t, json.Unmarshal(b, &m))
	require.Equal(t, map[Handle]Handle{h: h}, m)
	for _, s := range []string{h.String(), " " + h.String() + "\n", strings.TrimPrefix(h.String(), "nova:"), strings.ToUpper(strings.TrimPrefix(h.String(), "nova:"))} {
		got, err := Parse(s)
		require.NoError(t, err, s)
		require.Equal(t, h, got)
	}
	var out bytes.Buffer
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "stream", h)
	require.Contains(t, out.String(), "stream.worker=0000000000000007 stream.slot=8 stream.generation=9")
}

func TestRefused(t *testing.T) {
	zeros := strings.Repeat("0", 32)
	for text, says := range map[string]string{
		"":                               "32 hexadecimal digits",
		"nova:":                          "have 0",
		"nova:" + zeros[:31]:             "have 31",
		"nova:" + zeros + "0":            "have 33",
		"nova:" + zeros[:31] + "g":       "'g'",
		"NOVA:" + zeros:                  "NOVA:",
		"nova:" + zeros:                  "all zero",
		zeros[:16] + "1111" + zeros[:12]: "no worker",
		"11" + zeros[:30]:                "generation 0",
		strings.Repeat("x", 1000):        "1000 characters",
	} {
		_, err := Parse(text)
		require.ErrorIs(t, err, fault.ErrBadHandle, text)
		require.ErrorContains(t, err, says, text)
		require.Less(t, len(err.Error()), 300, "the whole of a long text is repeated")
	}
	var h Handle
	for _, b := range [][]byte{nil, make([]byte, 15), make([]byte, 17), make([]byte, 16)} {
		require.ErrorIs(t, h.UnmarshalBinary(b), fault.ErrBadHandle, "%d", len(b))
	}
	require.True(t, Handle{}.IsZero())
}

func FuzzText(f *testing.F) {
	f.Add(Make(1, 2, 3).String())
	f.Add("nova:")
	f.Fuzz(func(t *testing.T, s string) {
		h, err := Parse(s)
		if err != nil {
			require.ErrorIs(t, err, fault.ErrBadHandle)
			return
		}
		require.NoError(t, h.Check())
		again, err := Parse(h.String())
		require.NoError(t, err)
		require.Equal(t, h, again)
	})
}

func FuzzBinary(f *testing.F) {
	h := Make(1, 2, 3)
	f.Add(h[:])
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		var h Handle
		if err := h.UnmarshalBinary(b); err != nil {
			require.ErrorIs(t, err, fault.ErrBadHandle)
			return
		}
		back, err := h.MarshalBinary()
		require.NoError(t, err)
		require.Equal(t, b, back)
	})
}
