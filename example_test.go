package novastream_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"math"
	"os"
	"time"

	"github.com/novastream/novastream"
	"github.com/novastream/novastream/control"
)

// Tick is a value without pointers: it lies in the ring as it is.
type Tick struct {
	Price float64
	Size  uint64
}

// start makes a node and its streaming in a directory of their own.
func start() (*novastream.Streaming, func()) {
	dir, err := os.MkdirTemp("", "nova")
	if err != nil {
		log.Fatal(err)
	}
	node, err := control.Listen(context.Background(), control.WithDir(dir))
	if err != nil {
		log.Fatal(err)
	}
	s, err := novastream.New(node)
	if err != nil {
		log.Fatal(err)
	}
	return s, func() {
		s.Close()
		node.Close()
		os.RemoveAll(dir)
	}
}

// ticks makes a stream with a sender attached.
func ticks(s *novastream.Streaming) (*novastream.Receiver[Tick], *novastream.Sender[Tick]) {
	rx, err := novastream.Create[Tick](s)
	if err != nil {
		log.Fatal(err)
	}
	tx, err := novastream.Attach[Tick](context.Background(), s, rx.Handle())
	if err != nil {
		log.Fatal(err)
	}
	return rx, tx
}

func Example() {
	ctx := context.Background()
	s, stop := start()
	defer stop()

	rx, err := novastream.Create[Tick](s)
	if err != nil {
		log.Fatal(err)
	}
	defer rx.Close()

	go func(h novastream.Handle) { // in another process as well
		tx, err := novastream.Attach[Tick](ctx, s, h)
		if err != nil {
			log.Fatal(err)
		}
		defer tx.Close()
		for i := range 3 {
			if err := tx.Send(ctx, Tick{Price: 100 + float64(i), Size: 1}); err != nil {
				log.Fatal(err)
			}
		}
		if err := tx.Finalize(ctx); err != nil {
			log.Fatal(err)
		}
	}(rx.Handle())

	for tick, err := range rx.Values(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(tick.Price)
	}
	// Output:
	// 100
	// 101
	// 102
}

func ExampleNew() {
	dir, _ := os.MkdirTemp("", "nova")
	defer os.RemoveAll(dir)
	node, err := control.Listen(context.Background(), control.WithDir(dir))
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	s, err := novastream.New(node, novastream.MaxStreams(1000), novastream.MaxMemory(1<<30))
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close()
	fmt.Println(s.Stats().Anchors)
	// Output: 0
}

func ExampleCreate() {
	s, stop := start()
	defer stop()
	_, err := novastream.Create[Tick](s, novastream.Capacity(1000))
	fmt.Println(errors.Is(err, novastream.ErrConfig))
	rx, err := novastream.Create[Tick](s, novastream.Capacity(1024), novastream.AttachTimeout(time.Minute))
	fmt.Println(err)
	rx.Close()
	// Output:
	// true
	// <nil>
}

func ExampleAttach() {
	s, stop := start()
	defer stop()
	rx, tx := ticks(s)
	defer rx.Close()
	defer tx.Close()
	fmt.Println(tx.Lane())
	_, err := novastream.Attach[Tick](context.Background(), s, rx.Handle())
	fmt.Println(errors.Is(err, novastream.ErrAlreadyAttached))
	// Output:
	// local
	// true
}

func ExampleParseHandle() {
	_, err := novastream.ParseHandle("nova:12")
	fmt.Println(errors.Is(err, novastream.ErrBadHandle))
	// Output: true
}

func ExampleSender_TrySend() {
	s, stop := start()
	defer stop()
	rx, err := novastream.Create[Tick](s, novastream.Capacity(4))
	if err != nil {
		log.Fatal(err)
	}
	tx, err := novastream.Attach[Tick](context.Background(), s, rx.Handle())
	if err != nil {
		log.Fatal(err)
	}
	sent := 0
	for v := (Tick{Price: 1}); tx.TrySend(&v) == nil; {
		sent++
	}
	fmt.Println(sent, errors.Is(tx.TrySend(&Tick{}), novastream.ErrFull))
	// Output: 4 true
}

func ExampleSender_Slots() {
	s, stop := start()
	defer stop()
	rx, tx := ticks(s)
	n := uint64(0)
	for p := range tx.Slots(3) {
		p.Price, p.Size = 1.5, n
		n++
	}
	_, _ = rx.TryRecv() // attached
	_, _ = rx.TryRecv() // the first
	for p := range rx.Slots(10) {
		fmt.Println(p.Size)
	}
	// Output:
	// 1
	// 2
}

func ExampleSender_Reserve() {
	s, stop := start()
	defer stop()
	rx, tx := ticks(s)
	p, err := tx.Reserve()
	if err != nil {
		log.Fatal(err)
	}
	p.Price = 42
	if err := tx.Commit(); err != nil {
		log.Fatal(err)
	}
	_, _ = rx.TryRecv() // attached
	f, err := rx.TryRecv()
	fmt.Println(f.Kind, f.Value.Price, err)
	// Output: Data 42 <nil>
}

func ExampleSender_ReserveBatch() {
	s, stop := start()
	defer stop()
	rx, tx := ticks(s)
	b, err := tx.ReserveBatch(8)
	if err != nil {
		log.Fatal(err)
	}
	for i := range b.Len() {
		b.At(i).Size = uint64(i)
	}
	if err := b.Commit(b.Len()); err != nil {
		log.Fatal(err)
	}
	_, _ = rx.TryRecv() // attached
	f, _ := rx.TryRecv()
	loan, err := rx.Borrow(100)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(f.Value.Size, loan.Len(), loan.At(6).Size)
	loan.Release()
	// Output: 0 7 7
}

func ExampleReceiver_Cancel() {
	s, stop := start()
	defer stop()
	rx, tx := ticks(s)
	if err := rx.Cancel("enough"); err != nil {
		log.Fatal(err)
	}
	<-tx.Done()
	var why *novastream.CancelError
	fmt.Println(errors.As(tx.Err(), &why), why.Reason)
	// Output: true enough
}

func ExampleReceiver_Frames() {
	ctx := context.Background()
	s, stop := start()
	defer stop()
	rx, tx := ticks(s)
	_ = tx.Send(ctx, Tick{Price: 7})
	_ = tx.SoftError(ctx, errors.New("the market is closed"))
	_ = tx.Finalize(ctx)
	for f, err := range rx.Frames(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(f.Kind, f.Err)
	}
	// Output:
	// Attached <nil>
	// Data <nil>
	// SoftError the market is closed
	// Finalized <nil>
}

func ExampleShared() {
	ctx := context.Background()
	s, stop := start()
	defer stop()
	rx, err := novastream.Create[Tick](s, novastream.Shared(2), novastream.OneRing())
	if err != nil {
		log.Fatal(err)
	}
	for range 2 {
		tx, err := novastream.Attach[Tick](ctx, s, rx.Handle())
		if err != nil {
			log.Fatal(err)
		}
		_ = tx.Send(ctx, Tick{Size: uint64(tx.ID())})
		_ = tx.Finalize(ctx)
	}
	sum := uint64(0)
	for ended := 0; ended < 2; {
		f, err := rx.Recv(ctx)
		if err != nil {
			log.Fatal(err)
		}
		sum += f.Value.Size
		if f.Kind == novastream.KindFinalized {
			ended++
		}
	}
	fmt.Println(sum)
	// Output: 3
}

func ExampleReceiver_Slots() {
	ctx := context.Background()
	s, stop := start()
	defer stop()
	rx, tx := ticks(s)
	_, _ = rx.Recv(ctx) // attached
	for p := range tx.Slots(3) {
		*p = Tick{Price: 2, Size: 3}
	}
	var worth float64
	for p := range rx.Slots(64) { // in the ring, each the caller's during its body
		worth += p.Price * float64(p.Size)
	}
	fmt.Println(worth)
	// Output: 18
}

func ExampleReceiver_Borrow() {
	ctx := context.Background()
	s, stop := start()
	defer stop()
	rx, tx := ticks(s)
	_, _ = rx.Recv(ctx) // attached
	for i := range 3 {
		_ = tx.Send(ctx, Tick{Size: uint64(i)})
	}
	loan, err := rx.Borrow(8)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(loan.Len(), loan.At(2).Size) // all at once, until Release
	loan.Release()
	// Output: 3 2
}

func ExampleReceiver_Stop() {
	ctx := context.Background()
	s, stop := start()
	defer stop()
	rx, tx := ticks(s)
	_ = tx.Send(ctx, Tick{Size: 7})
	_ = rx.Stop(ctx) // no more, but what was sent is still delivered
	<-tx.Done()
	fmt.Println(errors.Is(tx.Err(), novastream.ErrCancelled))
	for f, err := range rx.Frames(ctx) {
		fmt.Println(f.Kind, f.Value.Size, err)
	}
	// Output:
	// true
	// Attached 0 <nil>
	// Data 7 <nil>
	// Cancelled 0 <nil>
}

func ExampleSender_SoftError() {
	ctx := context.Background()
	s, stop := start()
	defer stop()
	rx, tx := ticks(s)
	_ = tx.SoftError(ctx, errors.New("one price is late"))
	_ = tx.Send(ctx, Tick{Size: 7})
	_ = tx.Finalize(ctx)
	for v, err := range rx.Values(ctx) {
		fmt.Println(v.Size, err) // the stream goes on after a soft error
	}
	// Output:
	// 0 sender 1: one price is late
	// 7 <nil>
}

func ExampleSender_Detach() {
	ctx := context.Background()
	s, stop := start()
	defer stop()
	rx, tx := ticks(s)
	_ = tx.Send(ctx, Tick{Size: 1})
	_ = tx.Detach(ctx) // another may come
	next, err := novastream.Attach[Tick](ctx, s, rx.Handle())
	if err != nil {
		log.Fatal(err)
	}
	_ = next.Send(ctx, Tick{Size: 2})
	_ = next.Finalize(ctx)
	for f := range rx.Frames(ctx) {
		fmt.Println(f.Kind, f.Sender, f.Value.Size)
	}
	// Output:
	// Attached 1 0
	// Data 1 1
	// Detached 1 0
	// Attached 2 0
	// Data 2 2
	// Finalized 2 0
}

func ExampleCreateBytes() {
	ctx := context.Background()
	s, stop := start()
	defer stop()
	rx, err := novastream.CreateBytes(s)
	if err != nil {
		log.Fatal(err)
	}
	tx, err := novastream.AttachBytes(ctx, s, rx.Handle())
	if err != nil {
		log.Fatal(err)
	}
	b, err := tx.ReserveWait(ctx, 100) // in the ring itself
	if err != nil {
		log.Fatal(err)
	}
	if err := tx.Commit(copy(b, "written in place")); err != nil {
		log.Fatal(err)
	}
	_, _ = rx.TryRecv(nil) // attached
	loan, err := rx.Borrow(10)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(loan.Frames[0].Value)) // read in place
	loan.Release()
	// Output: written in place
}

func ExampleBytesSender_Writer() {
	ctx := context.Background()
	s, stop := start()
	defer stop()
	rx, err := novastream.CreateBytes(s)
	if err != nil {
		log.Fatal(err)
	}
	tx, err := novastream.AttachBytes(ctx, s, rx.Handle())
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		w := tx.Writer(ctx)
		fmt.Fprintln(w, "one line")
		fmt.Fprintln(w, "and another")
		w.Close()
	}()
	_, _ = io.Copy(os.Stdout, rx.Reader(ctx))
	// Output:
	// one line
	// and another
}

// celsius shows a codec of one's own.
type celsius struct{ degrees []float64 }

type celsiusCodec struct{}

func (celsiusCodec) Name() string { return "celsius" }

func (celsiusCodec) Append(dst []byte, v celsius) ([]byte, error) {
	for _, d := range v.degrees {
		dst = binary.BigEndian.AppendUint64(dst, math.Float64bits(d))
	}
	return dst, nil
}

func (celsiusCodec) Decode(b []byte, v *celsius) error {
	v.degrees = v.degrees[:0]
	for ; len(b) >= 8; b = b[8:] {
		v.degrees = append(v.degrees, math.Float64frombits(binary.BigEndian.Uint64(b)))
	}
	return nil
}

func ExampleWithCodec() {
	ctx := context.Background()
	s, stop := start()
	defer stop()
	rx, err := novastream.Create[celsius](s, novastream.WithCodec[celsius](celsiusCodec{}))
	if err != nil {
		log.Fatal(err)
	}
	tx, err := novastream.Attach[celsius](ctx, s, rx.Handle(), novastream.WithCodec[celsius](celsiusCodec{}))
	if err != nil {
		log.Fatal(err)
	}
	_ = tx.Send(ctx, celsius{[]float64{21.5, 22}})
	_ = tx.Finalize(ctx)
	for v, err := range rx.Values(ctx) {
		fmt.Println(v.degrees, err)
	}
	// Output: [21.5 22] <nil>
}
