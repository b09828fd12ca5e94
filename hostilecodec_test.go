package novastream

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

// meddling is the codec of a sender that goes on writing to a frame that the receiver
// is decoding.
type meddling struct{ frame []byte }

func (*meddling) Name() string { return "meddling" }

func (m *meddling) Append(dst []byte, v int) ([]byte, error) {
	dst = append(dst, byte(v))
	m.frame = dst
	return dst, nil
}

func (m *meddling) Decode(b []byte, v *int) error {
	was := b[0]
	m.frame[len(m.frame)-1] ^= 0xff
	if b[0] != was {
		return errors.New("the frame has changed")
	}
	*v = int(was)
	return nil
}

func TestFrameStaysWhileDecoded(t *testing.T) {
	here, there := twoNodes(t)
	codec := &meddling{}
	rx, err := Create[int](here, WithCodec[int](codec))
	require.NoError(t, err)
	defer rx.Close()
	tx, err := Attach[int](t.Context(), there, rx.Handle(), WithCodec[int](codec))
	require.NoError(t, err)
	defer tx.Close()
	require.Equal(t, LaneShm, tx.Lane())
	f, err := rx.Recv(t.Context())
	require.NoError(t, err)
	require.Equal(t, KindAttached, f.Kind)
	for i := range 3 {
		require.NoError(t, tx.Send(t.Context(), i))
		f, err := rx.Recv(t.Context())
		require.NoError(t, err)
		require.Equal(t, i, f.Value)
	}
}
