//go:build failpoint && linux

package crashtest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/novastream/novastream"
	"github.com/novastream/novastream/conformance"
	"github.com/novastream/novastream/control"
	"github.com/novastream/novastream/internal/failpoint"
)

// first is how many frames a child sends before it comes to its point.
const first = 3

var (
	ctx   = context.Background()
	words = bufio.NewScanner(os.Stdin)
)

// word says that the child has come so far and waits for the test's word.
func word(what any) {
	fmt.Println(what)
	words.Scan()
}

// arm has the child stop at its point; one without a point stops at once.
func (p program) arm() {
	if p.Point != "" {
		failpoint.Arm(p.Point, p.Nth)
		return
	}
	failpoint.Arm("here", 1)
}

func (p program) run() error {
	n, err := control.Listen(ctx, control.WithDir(p.Dir))
	if err != nil {
		return err
	}
	s, err := novastream.New(n)
	if err != nil {
		return err
	}
	if p.Handle == "" {
		return p.receive(s)
	}
	h, err := novastream.ParseHandle(p.Handle)
	if err != nil {
		return err
	}
	switch p.Op {
	case "attach":
		p.arm()
	case "attachcut":
		return p.attachCut(s, h)
	}
	if p.Bytes {
		return p.sendBytes(s, h)
	}
	return p.send(s, h)
}

func (p program) send(s *novastream.Streaming, h novastream.Handle) error {
	tx, err := novastream.Attach[conformance.Rec](ctx, s, h)
	if err != nil {
		return err
	}
	next := uint64(0)
	for ; next < first; next++ {
		if err := tx.Send(ctx, conformance.MakeRec(next)); err != nil {
			return err
		}
	}
	word(uint64(tx.ID()))
	if p.Op != "again" {
		p.arm()
	}
	switch p.Op {
	case "send":
		return tx.Send(ctx, conformance.MakeRec(next))
	case "slots":
		for v := range tx.Slots(4) {
			*v = conformance.MakeRec(next)
			next++
		}
	case "batch":
		b, err := tx.ReserveBatch(4)
		if err != nil {
			return err
		}
		for i := range b.Len() {
			*b.At(i) = conformance.MakeRec(next + uint64(i))
		}
		return b.Commit(b.Len())
	case "hold", "reserve", "close", "cut":
		v, err := tx.Reserve()
		if err != nil {
			return err
		}
		*v = conformance.MakeRec(next)
		switch p.Op {
		case "cut":
			cutSockets()
			<-tx.Done()
			word(cause(tx.Err()))
			fmt.Println(cause(tx.Commit()))
			word("committed")
		case "hold":
			failpoint.Hit("here")
			fmt.Println(cause(tx.Commit()))
			<-tx.Done()
			fmt.Println(cause(tx.Err()))
			words.Scan()
		case "close":
			return tx.Close()
		}
		return tx.Commit()
	case "softerror":
		return tx.SoftError(ctx, errors.New(strings.Repeat("x", 100)))
	case "fill":
		for ; ; next++ {
			v := conformance.MakeRec(next)
			if err := tx.TrySend(&v); errors.Is(err, novastream.ErrFull) {
				break
			} else if err != nil {
				return err
			}
		}
		return tx.Send(ctx, conformance.MakeRec(next))
	case "finalize":
		return tx.Finalize(ctx)
	case "detach":
		return tx.Detach(ctx)
	case "again":
		if err := tx.Detach(ctx); err != nil {
			return err
		}
		word("detached")
		p.arm()
		_, err := novastream.Attach[conformance.Rec](ctx, s, h)
		return err
	}
	return fmt.Errorf("no such program: %+v", p)
}

// attachCut attaches while its connection is cut, at a word from the test.
func (p program) attachCut(s *novastream.Streaming, h novastream.Handle) error {
	cut := make(chan struct{})
	go func() {
		defer close(cut)
		words.Scan()
		cutSockets()
	}()
	if p.Point != "" {
		p.arm()
	}
	tx, err := novastream.Attach[conformance.Rec](ctx, s, h)
	if err == nil {
		<-tx.Done()
		err = tx.Err()
	}
	<-cut
	word(cause(err))
	return nil
}

// cause names what has ended a sender.
func cause(err error) string {
	switch {
	case err == nil:
		return "nothing"
	case errors.Is(err, novastream.ErrCancelled):
		return "cancelled"
	case errors.Is(err, novastream.ErrPeerDead):
		return "peer is gone"
	}
	return err.Error()
}

// cutSockets shuts down every connected Unix socket of this process but the
// failpoint's, as a mistake could.
func cutSockets() {
	for fd := 4; fd < 256; fd++ {
		if sa, err := syscall.Getpeername(fd); err == nil {
			if _, ok := sa.(*syscall.SockaddrUnix); ok {
				_ = syscall.Shutdown(fd, syscall.SHUT_RDWR)
			}
		}
	}
}

// frame is the bytes of the frame with a number.
func frame(i, n int) []byte { return []byte(strings.Repeat(string(rune('0'+i%64)), n)) }

func (p program) sendBytes(s *novastream.Streaming, h novastream.Handle) error {
	tx, err := novastream.AttachBytes(ctx, s, h)
	if err != nil {
		return err
	}
	next := 0
	for ; next < first; next++ {
		if err := tx.Send(ctx, frame(next, p.Size)); err != nil {
			return err
		}
	}
	word(uint64(tx.ID()))
	p.arm()
	switch p.Op {
	case "send":
		for ; ; next++ {
			if err := tx.Send(ctx, frame(next, p.Size)); err != nil {
				return err
			}
		}
	case "less", "abandon":
		b, err := tx.Reserve(p.Size)
		if err != nil {
			return err
		}
		n := copy(b, frame(next, 8))
		if p.Op == "abandon" {
			n = 0
		}
		return tx.Commit(n)
	}
	return fmt.Errorf("no such program: %+v", p)
}

// receive is a child that receives.
func (p program) receive(s *novastream.Streaming) error {
	opts := []novastream.CreateOption{novastream.Capacity(p.Size), novastream.Wait(novastream.Park)}
	if p.Shared > 0 {
		opts = append(opts, novastream.Shared(p.Shared), novastream.OneRing())
	}
	if p.Bytes {
		return p.receiveBytes(s, opts)
	}
	rx, err := novastream.Create[conformance.Rec](s, opts...)
	if err != nil {
		return err
	}
	if p.Op == "attached" || p.Op == "unread" {
		p.arm()
	}
	fmt.Println(rx.Handle())
	if p.Op == "unread" {
		words.Scan()
	}
	for got := 0; ; {
		f, err := rx.Recv(ctx)
		if err != nil {
			return err
		}
		if f.Kind != novastream.KindData {
			continue
		}
		if got++; got != first || p.Op == "attached" || p.Op == "unread" {
			continue
		}
		word("read")
		p.arm()
		switch p.Op {
		case "cancel":
			return rx.Cancel("enough")
		case "close":
			return rx.Close()
		case "borrow":
			if _, err := rx.Borrow(8); err != nil {
				return err
			}
			failpoint.Hit("here")
		case "slots":
			for range rx.Slots(8) {
				failpoint.Hit("here")
			}
		}
	}
}

func (p program) receiveBytes(s *novastream.Streaming, opts []novastream.CreateOption) error {
	rx, err := novastream.CreateBytes(s, opts...)
	if err != nil {
		return err
	}
	p.arm()
	fmt.Println(rx.Handle())
	for {
		if _, err := rx.Recv(ctx, nil); err != nil {
			return err
		}
	}
}
