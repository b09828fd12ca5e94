// Package handle is the 16-byte name of a stream: which worker has it, in which
// slot of its table, in which generation of that slot.
//
//	byte 0        8      10           16
//	     +--------+------+------------+
//	     | worker | slot | generation |  little-endian
//	     +--------+------+------------+
package handle

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"log/slog"
	"strings"

	"github.com/novastream/novastream/internal/fault"
)

// Handle names a stream anywhere. It is comparable, and the zero Handle names
// nothing.
type Handle [16]byte

const (
	// MaxSlots is how many streams a worker can have at once.
	MaxSlots = 1 << 16
	// MaxGeneration is the last generation of a slot.
	MaxGeneration = 1<<48 - 1

	prefix = "nova:"
)

// Make puts a handle together.
func Make(worker uint64, slot uint16, generation uint64) Handle {
	var h Handle
	binary.LittleEndian.PutUint64(h[:], worker)
	binary.LittleEndian.PutUint64(h[8:], generation<<16|uint64(slot))
	return h
}

// Worker is the worker that has the stream.
func (h Handle) Worker() uint64 { return binary.LittleEndian.Uint64(h[:]) }

// Slot is the stream's slot in its worker's table.
func (h Handle) Slot() uint16 { return binary.LittleEndian.Uint16(h[8:]) }

// Generation is the use of the slot, from 1.
func (h Handle) Generation() uint64 { return binary.LittleEndian.Uint64(h[8:]) >> 16 }

// IsZero tells whether the handle names nothing.
func (h Handle) IsZero() bool { return h == Handle{} }

// Check tells what is wrong with a handle that no worker can have made.
func (h Handle) Check() error {
	switch {
	case h.IsZero():
		return fmt.Errorf("%w: it is all zero: was it ever set?", fault.ErrBadHandle)
	case h.Worker() == 0:
		return fmt.Errorf("%w: %v names no worker", fault.ErrBadHandle, h)
	case h.Generation() == 0:
		return fmt.Errorf("%w: %v has generation 0", fault.ErrBadHandle, h)
	}
	return nil
}

// String gives the handle as text: "nova:" and 32 hexadecimal digits.
func (h Handle) String() string { return prefix + hex.EncodeToString(h[:]) }

// Parse reads what String gives; the prefix may be missing.
func Parse(s string) (Handle, error) {
	var h Handle
	digits := strings.TrimPrefix(strings.TrimSpace(s), prefix)
	if len(digits) != 2*len(h) {
		return h, fmt.Errorf("%w: %.60q: want %q and %d hexadecimal digits, have %d characters", fault.ErrBadHandle, s, prefix, 2*len(h), len(digits))
	}
	if _, err := hex.Decode(h[:], []byte(digits)); err != nil {
		return Handle{}, fmt.Errorf("%w: %q: %w", fault.ErrBadHandle, s, err)
	}
	return h, h.Check()
}

// MarshalText gives what String gives.
func (h Handle) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads what MarshalText gives.
func (h *Handle) UnmarshalText(b []byte) (err error) {
	*h, err = Parse(string(b))
	return err
}

// MarshalBinary gives the 16 bytes.
func (h Handle) MarshalBinary() ([]byte, error) { return h[:], nil }

// UnmarshalBinary reads the 16 bytes.
func (h *Handle) UnmarshalBinary(b []byte) error {
	if len(b) != len(h) {
		return fmt.Errorf("%w: %d bytes, want %d", fault.ErrBadHandle, len(b), len(h))
	}
	copy(h[:], b)
	return h.Check()
}

// LogValue shows the parts of the handle.
func (h Handle) LogValue() slog.Value {
	return slog.GroupValue(
		slog.String("worker", fmt.Sprintf("%016x", h.Worker())),
		slog.Int("slot", int(h.Slot())),
		slog.Uint64("generation", h.Generation()))
}
