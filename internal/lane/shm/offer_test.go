package shm

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzOffer: a sender's offer names segments or nothing.
func FuzzOffer(f *testing.F) {
	f.Add(binary.AppendUvarint(binary.AppendUvarint(nil, 1), 1<<40))
	f.Add([]byte{0x80})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		ids := offered(b)
		require.LessOrEqual(t, len(ids), len(b))
		var again []byte
		for _, id := range ids {
			again = binary.AppendUvarint(again, id)
		}
		require.Equal(t, ids, offered(again))
	})
}
