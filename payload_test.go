package novastream

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/novastream/novastream/control"
)

type tick struct {
	Seq  uint64
	A, B float64
}

func testStreaming(t testing.TB) *Streaming {
	dir, err := os.MkdirTemp("", "nv")
	require.NoError(t, err)
	n, err := control.Listen(context.Background(), control.WithDir(dir))
	require.NoError(t, err)
	s, err := New(n)
	require.NoError(t, err)
	t.Cleanup(func() {
		s.Close()
		n.Close()
		os.RemoveAll(dir)
	})
	return s
}

// reading implements encoding.BinaryAppender and BinaryUnmarshaler.
type reading struct {
	name  string
	value uint32
}

func (r reading) AppendBinary(b []byte) ([]byte, error) {
	return append(binary.LittleEndian.AppendUint32(b, r.value), r.name...), nil
}

func (r *reading) UnmarshalBinary(b []byte) error {
	if len(b) < 4 {
		return errors.New("too short")
	}
	r.value, r.name = binary.LittleEndian.Uint32(b), string(b[4:])
	return nil
}

// carry sends values and compares what arrives.
func carry[T any](t *testing.T, equal func(a, b T) bool, values ...T) {
	t.Helper()
	s := testStreaming(t)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	rx, err := Create[T](s)
	require.NoError(t, err)
	tx, err := Attach[T](ctx, s, rx.Handle())
	require.NoError(t, err)
	for range 3 { // the second time a codec knows how much room it needs
		for _, v := range values {
			require.NoError(t, tx.Send(ctx, v))
		}
	}
	require.NoError(t, tx.Finalize(ctx))
	n := 0
	for v, err := range rx.Values(ctx) {
		require.NoError(t, err)
		require.True(t, equal(values[n%len(values)], v), "%v", v)
		n++
	}
	require.Equal(t, 3*len(values), n)
}

func same[T comparable](a, b T) bool { return a == b }

func TestPayloads(t *testing.T) {
	long := strings.Repeat("x", 100_000)
	t.Run("fixed", func(t *testing.T) { carry(t, same[tick], tick{1, 2, 3}, tick{}) })
	t.Run("odd size", func(t *testing.T) { carry(t, same[[7]byte], [7]byte{1, 2, 3, 4, 5, 6, 7}) })
	t.Run("large", func(t *testing.T) { carry(t, same[[4096]uint64], [4096]uint64{0: 1, 4095: 2}) })
	t.Run("string", func(t *testing.T) { carry(t, same[string], "a", "", long) })
	t.Run("bytes", func(t *testing.T) {
		carry(t, func(a, b []byte) bool { return string(a) == string(b) }, []byte("a"), []byte(long), []byte{})
	})
	t.Run("binary", func(t *testing.T) { carry(t, same[reading], reading{"temperature", 7}, reading{long, 8}) })
	t.Run("binary pointer", func(t *testing.T) {
		carry(t, func(a, b *reading) bool { return *a == *b }, &reading{"pressure", 9})
	})
	t.Run("protobuf", func(t *testing.T) {
		carry(t, func(a, b *wrapperspb.StringValue) bool { return a.Value == b.Value }, wrapperspb.String("a"), wrapperspb.String(long))
	})
}

func TestPayloadsThatDiffer(t *testing.T) {
	s := testStreaming(t)
	ctx := context.Background()
	rx, err := Create[tick](s)
	require.NoError(t, err)
	type renamed struct {
		Seq  uint64
		A, C float64
	}
	type shorter struct{ Seq uint64 }
	_, err = Attach[renamed](ctx, s, rx.Handle())
	require.ErrorIs(t, err, ErrTypeMismatch)
	require.ErrorContains(t, err, "layout")
	_, err = Attach[shorter](ctx, s, rx.Handle())
	require.ErrorIs(t, err, ErrTypeMismatch)
	require.ErrorContains(t, err, "24 bytes")
	_, err = AttachBytes(ctx, s, rx.Handle())
	require.ErrorIs(t, err, ErrTypeMismatch)
	type alias struct {
		Seq  uint64
		A, B float64
	}
	tx, err := Attach[alias](ctx, s, rx.Handle())
	require.NoError(t, err, "names of types do not count")
	tx.Close()
}

func TestBadOptions(t *testing.T) {
	s := testStreaming(t)
	for name, create := range map[string]func() error{
		"no codec":     func() error { _, err := Create[map[string]int](s); return err },
		"pointers":     func() error { _, err := Create[struct{ P *int }](s); return err },
		"no bytes":     func() error { _, err := Create[struct{}](s); return err },
		"capacity":     func() error { _, err := Create[tick](s, Capacity(0)); return err },
		"slot size":    func() error { _, err := Create[tick](s, SlotSize(48)); return err },
		"small slot":   func() error { _, err := Create[tick](s, SlotSize(16)); return err },
		"one ring":     func() error { _, err := Create[tick](s, OneRing()); return err },
		"senders":      func() error { _, err := Create[tick](s, Shared(0)); return err },
		"many senders": func() error { _, err := Create[tick](s, Shared(1<<20)); return err },
		"timeout":      func() error { _, err := Create[tick](s, MessageTimeout(-1)); return err },
		"other codec":  func() error { _, err := Create[tick](s, WithCodec[string](stringCodec{})); return err },
		"bytes codec":  func() error { _, err := CreateBytes(s, WithCodec[string](stringCodec{})); return err },
		"nil":          func() error { _, err := Create[tick](nil); return err },
		"nil node":     func() error { _, err := New(nil); return err },
		"max streams":  func() error { _, err := New(s.Node(), MaxStreams(1<<20)); return err },
	} {
		require.ErrorIs(t, create(), ErrConfig, name)
	}
	require.Zero(t, s.Stats().Anchors)
}

func TestFrameTooLarge(t *testing.T) {
	s := testStreaming(t)
	ctx := context.Background()
	rx, err := CreateBytes(s, Capacity(16))
	require.NoError(t, err)
	tx, err := AttachBytes(ctx, s, rx.Handle())
	require.NoError(t, err)
	require.Equal(t, 15*64-16, tx.MaxFrame())
	_, err = tx.Reserve(tx.MaxFrame() + 1)
	require.ErrorIs(t, err, ErrFrameTooLarge)
	require.ErrorContains(t, err, fmt.Sprint(tx.MaxFrame()))
	require.ErrorIs(t, tx.Commit(1), ErrMisuse)
	require.NoError(t, tx.Send(ctx, make([]byte, tx.MaxFrame())))
}

func TestReservationIsOne(t *testing.T) {
	for _, opts := range [][]CreateOption{nil, {Shared(2), OneRing()}} {
		s := testStreaming(t)
		rx, err := Create[tick](s, opts...)
		require.NoError(t, err)
		tx, err := Attach[tick](context.Background(), s, rx.Handle())
		require.NoError(t, err)
		require.ErrorIs(t, tx.Commit(), ErrMisuse)
		v, err := tx.Reserve()
		require.NoError(t, err)
		v.Seq = 5
		_, err = tx.Reserve()
		require.ErrorIs(t, err, ErrMisuse)
		require.ErrorIs(t, tx.Finalize(context.Background()), ErrMisuse)
		require.NoError(t, tx.Commit())
		_, err = rx.TryRecv()
		require.NoError(t, err)
		f, err := rx.TryRecv()
		require.NoError(t, err)
		require.Equal(t, uint64(5), f.Value.Seq)
	}
}

// No path that carries data allocates.
func TestNoAllocations(t *testing.T) {
	ctx := context.Background()
	s := testStreaming(t)
	rx, err := Create[tick](s)
	require.NoError(t, err)
	tx, err := Attach[tick](ctx, s, rx.Handle())
	require.NoError(t, err)
	_, err = rx.TryRecv()
	require.NoError(t, err)
	var v tick
	require.Zero(t, testing.AllocsPerRun(500, func() {
		if tx.TrySend(&v) != nil || tx.Send(ctx, v) != nil {
			panic("send")
		}
		for range 2 {
			if f, err := rx.TryRecv(); err != nil || f.Kind != KindData {
				panic("recv")
			}
		}
		if p, err := tx.Reserve(); err == nil {
			*p = v
			_ = tx.Commit()
		}
		for p := range tx.Slots(3) {
			*p = v
		}
		if f, err := rx.Recv(ctx); err != nil || f.Kind != KindData {
			panic("recv")
		}
		for p := range rx.Slots(3) {
			v = *p
		}
		_, _ = rx.TryRecv()
	}), "values in place")

	rb, err := CreateBytes(s)
	require.NoError(t, err)
	tb, err := AttachBytes(ctx, s, rb.Handle())
	require.NoError(t, err)
	_, err = rb.TryRecv(nil)
	require.NoError(t, err)
	buf, src := make([]byte, 0, 1024), make([]byte, 300)
	require.Zero(t, testing.AllocsPerRun(500, func() {
		for range 2 {
			if tb.TrySend(src) != nil {
				panic("send")
			}
		}
		if f, err := rb.TryRecv(buf); err != nil || len(f.Value) != 300 {
			panic("recv")
		}
		if l, err := rb.Borrow(8); err == nil {
			l.Release()
		}
	}), "bytes")

	rr, err := Create[reading](s)
	require.NoError(t, err)
	tr, err := Attach[reading](ctx, s, rr.Handle())
	require.NoError(t, err)
	one := reading{"", 3}
	_, err = rr.TryRecv()
	require.NoError(t, err)
	require.NoError(t, tr.TrySend(&one))
	require.Zero(t, testing.AllocsPerRun(200, func() {
		if tr.TrySend(&one) != nil || tr.Send(ctx, one) != nil {
			panic("send")
		}
		for range 2 {
			if f, err := rr.TryRecv(); err != nil || f.Kind != KindData {
				panic("recv")
			}
		}
	}), "a type that writes itself")

	rp, err := Create[*wrapperspb.UInt64Value](s)
	require.NoError(t, err)
	tp, err := Attach[*wrapperspb.UInt64Value](ctx, s, rp.Handle())
	require.NoError(t, err)
	_, err = rp.TryRecv()
	require.NoError(t, err)
	m := wrapperspb.UInt64(1 << 40)
	require.NoError(t, tp.TrySend(&m))
	require.Zero(t, testing.AllocsPerRun(20, func() {
		if tp.TrySend(&m) != nil {
			panic("send")
		}
	}), "sending protobuf; a message that is received is a new one")
}

func TestForgottenSenderIsClosed(t *testing.T) {
	s := testStreaming(t)
	rx, err := Create[tick](s)
	require.NoError(t, err)
	func() {
		tx, err := Attach[tick](context.Background(), s, rx.Handle())
		require.NoError(t, err)
		require.NoError(t, tx.Send(context.Background(), tick{Seq: 1}))
	}()
	require.Eventually(t, func() bool {
		gc()
		return s.Stats().Outlets == 0
	}, 10*time.Second, time.Millisecond)
	kinds := []Kind{}
	for f, err := range rx.Frames(context.Background()) {
		require.NoError(t, err)
		kinds = append(kinds, f.Kind)
	}
	require.Equal(t, []Kind{KindAttached, KindData, KindDropped}, kinds)
}
