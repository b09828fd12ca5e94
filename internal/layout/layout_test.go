package layout

import (
	"reflect"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

type (
	base struct {
		A uint64
		B uint32
		C uint32
	}
	renamed struct {
		A uint64
		X uint32
		C uint32
	}
	reordered struct {
		A uint64
		C uint32
		B uint32
	}
	signed struct {
		A uint64
		B int32
		C uint32
	}
	wider struct {
		A uint64
		B uint64
	}
	longer struct {
		A    uint64
		B, C uint32
		D    uint8
	}
	padded struct { // as large as base, with a hole
		A uint64
		B uint16
		C uint32
	}
	nested struct {
		A uint64
		B struct{ B, C uint32 }
	}
	array struct {
		A uint64
		B [2]uint32
	}
	unexported struct {
		A uint64
		b uint32
		C uint32
	}
	same  base
	deep  struct{ In [3]struct{ Deep nestedAgain } }
	named uint64

	nestedAgain struct {
		X [2][3]base
		Y bool
	}
)

// Types that differ in anything a reader could notice have other fingerprints;
// the names of the types alone do not count.
func TestFingerprintsTellLayoutsApart(t *testing.T) {
	seen := map[uint64]reflect.Type{}
	for _, x := range []any{
		base{}, renamed{}, reordered{}, signed{}, wider{}, longer{}, padded{}, nested{}, array{}, unexported{b: 1},
		deep{}, nestedAgain{}, uint64(0), int64(0), float64(0), uint32(0), uint8(0), int8(0), false, float32(0), complex64(0), complex128(0), uint(0), int(0),
		[2]uint32{}, [4]uint16{}, [2][3]uint8{}, [3][2]uint8{}, [6]uint8{}, struct{ A [1]uint64 }{}, struct{ A uint64 }{}, [1]struct{ A uint64 }{},
	} {
		typ := reflect.TypeOf(x)
		print, err := Fingerprint(typ)
		require.NoError(t, err, "%v", typ)
		require.Nil(t, seen[print], "%v and %v", typ, seen[print])
		seen[print] = typ
		again, err := Fingerprint(typ)
		require.NoError(t, err)
		require.Equal(t, print, again)
	}
	for _, pair := range [][2]any{{base{}, same{}}, {uint64(0), named(0)}, {uint8(0), byte(0)}, {int32(0), rune(0)}} {
		a, err := Fingerprint(reflect.TypeOf(pair[0]))
		require.NoError(t, err)
		b, err := Fingerprint(reflect.TypeOf(pair[1]))
		require.NoError(t, err)
		require.Equal(t, a, b)
	}
}

// The fingerprint goes over the wire: it must never change for a layout.
func TestFingerprintIsStable(t *testing.T) {
	text, err := Of(reflect.TypeFor[nested]())
	require.NoError(t, err)
	require.Equal(t, "{A@0 uint64:8;B@8 {B@0 uint32:4;C@4 uint32:4;}:8;}:16", text)
}

// What holds a pointer, at any depth, or has no bytes, is refused by its path.
func TestPointersAreRefused(t *testing.T) {
	type inner struct {
		OK  int
		Bad []byte
	}
	for _, c := range []struct {
		x    any
		says string
	}{
		{"", "string"}, {[]int{}, "slice"}, {map[int]int{}, "map"}, {new(int), "ptr"}, {func() {}, "func"}, {make(chan int), "chan"},
		{unsafe.Pointer(nil), "unsafe.Pointer"}, {uintptr(0), "uintptr"},
		{inner{}, "inner.Bad is a slice"},
		{struct{ In [2]struct{ Deep inner } }{}, ".In[].Deep.Bad is a slice"},
		{struct{ Any any }{}, ".Any is a interface"},
		{struct{}{}, "no bytes"}, {[0]int{}, "no bytes"},
	} {
		_, err := Fingerprint(reflect.TypeOf(c.x))
		require.ErrorIs(t, err, ErrPointers, "%T", c.x)
		require.ErrorContains(t, err, c.says)
	}
}
