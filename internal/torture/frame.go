package torture

import (
	"encoding/binary"
	"math/rand/v2"

	"github.com/zeebo/xxh3"
)

// A frame of bytes is an identity (the episode and the record of the sender's
// round), a number, a sum and a payload that follows from both; a value is the same
// with a payload of fixed size. So a frame that is torn, of another session, doubled
// or out of place shows by itself.
const frameHeader = 24

// Value is a frame of a stream of values. With its commit word it takes one line.
type Value struct {
	ID, Number, Sum uint64
	Pad             [4]uint64
}

// ident is what tells a sender's round from every other one.
func ident(episode uint64, record int) uint64 { return episode<<8 | uint64(record) }

func recordOf(id, episode uint64) (record int, ok bool) {
	return int(id & 0xff), id>>8 == episode
}

func mix(id, n uint64) uint64 {
	x := id*0x9e3779b97f4a7c15 ^ n
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// noise is what payloads are cut from, the same in every process.
var noise = func() []byte {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 64<<10)
	for i := 0; i < len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], r.Uint64())
	}
	return b
}()

// fill makes a frame of b's size, which is a header's at least.
func fill(b []byte, id, n uint64) {
	binary.LittleEndian.PutUint64(b, id)
	binary.LittleEndian.PutUint64(b[8:], n)
	body := b[frameHeader:]
	at := int(mix(id, n) % uint64(len(noise)-len(body)))
	copy(body, noise[at:])
	binary.LittleEndian.PutUint64(b[16:], xxh3.HashSeed(body, mix(n, id)))
}

// read reads a frame, and tells whether it is whole.
func read(b []byte) (id, n uint64, whole bool) {
	if len(b) < frameHeader {
		return 0, 0, false
	}
	id, n = binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
	return id, n, binary.LittleEndian.Uint64(b[16:]) == xxh3.HashSeed(b[frameHeader:], mix(n, id))
}

// fill makes the value with a number, field by field in place.
func (v *Value) fill(id, n uint64) {
	v.ID, v.Number = id, n
	x := mix(id, n)
	sum := x
	for i := range v.Pad {
		x = x*0x9e3779b97f4a7c15 + 1
		v.Pad[i] = x
		sum ^= x
	}
	v.Sum = sum
}

func (v *Value) whole() bool {
	var w Value
	w.fill(v.ID, v.Number)
	return *v == w
}
