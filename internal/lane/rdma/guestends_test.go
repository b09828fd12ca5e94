//go:build verbs && cgo && linux

package rdma_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/novastream/novastream"
	"github.com/novastream/novastream/control"
)

// The two programs of TestGuestFaults: each is a node that serves one session after
// the other, as lines of its input say, and prints what became of it. What must
// never be is printed as FAIL.
//
//	receiver ADDRESS DEVICE   create SLOTS SILENCE: prints the handle, and the end
//	sender ADDRESS DEVICE     send HANDLE AT PACE: says when AT values are sent, and when
//	                          N more are, after "more N"; goes on until it fails or
//	                          "finish" comes, and prints the end
func init() {
	guestProgram = func() {
		programs := map[string]func(*guestEnd) error{"receiver": (*guestEnd).receive, "sender": (*guestEnd).send}
		p := programs[os.Getenv("NOVA_TEST_ROLE")]
		if p == nil {
			return
		}
		e := &guestEnd{address: os.Args[1], lines: make(chan string)}
		err := e.open(os.Args[2])
		if err == nil {
			go e.read()
			err = p(e)
		}
		if err != nil {
			fmt.Println("FAIL:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

type guestEnd struct {
	address string // of the receiver's node
	n       *control.Node
	s       *novastream.Streaming
	lines   chan string
}

func (e *guestEnd) open(device string) (err error) {
	dir, err := os.MkdirTemp("", "nv")
	if err != nil {
		return err
	}
	at := e.address
	if os.Getenv("NOVA_TEST_ROLE") == "sender" {
		at = at[:strings.LastIndexByte(at, ':')] + ":0"
		at = strings.Replace(at, hostAddresses[0], hostAddresses[1], 1)
	}
	opts := []control.Option{control.WithDir(dir), control.WithoutUnix(), control.WithTCP(at)}
	if !strings.HasPrefix(at, "127.") {
		opts = append(opts, control.Insecure())
	}
	if e.n, err = control.Listen(context.Background(), opts...); err != nil {
		return err
	}
	if e.s, err = novastream.New(e.n, novastream.RDMA("verbs", device)); err == nil {
		fmt.Println("ready")
	}
	return err
}

func (e *guestEnd) read() {
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		e.lines <- in.Text()
	}
	close(e.lines)
}

func (e *guestEnd) receive() error {
	for line := range e.lines {
		var slots int
		var silence time.Duration
		if _, err := fmt.Sscanf(line, "create %d %d", &slots, &silence); err != nil {
			return err
		}
		rx, err := novastream.Create[rec](e.s, novastream.Capacity(slots), novastream.MessageTimeout(silence))
		if err != nil {
			return err
		}
		fmt.Println("handle", rx.Handle())
		got := uint64(0)
		for ended := false; !ended; {
			f, err := rx.Recv(context.Background())
			switch {
			case err != nil:
				return err
			case f.Kind == novastream.KindAttached:
			case f.Kind == novastream.KindData && f.Value == makeRec(got):
				got++
			case f.Kind == novastream.KindData:
				return fmt.Errorf("value %d in the place of %d, or torn: %x", f.Value.Seq, got, f.Value)
			default:
				if f, err := rx.Recv(context.Background()); !errors.Is(err, io.EOF) {
					return fmt.Errorf("%v behind the end: %w", f.Kind, err)
				}
				fmt.Printf("end %v %d %v\n", f.Kind, got, f.Err)
				ended = true
			}
		}
		rx.Close()
		if err := e.empty(func() bool { st := e.s.Stats(); return st.Inbound == 0 && st.Memory == 0 }); err != nil {
			return err
		}
	}
	return nil
}

// empty waits until a session is released. A device whose link is down may take long
// to give a queue pair up.
func (e *guestEnd) empty(is func() bool) error {
	for deadline := time.Now().Add(30 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("a session is left: %+v", e.s.Stats())
		}
	}
	return nil
}

func (e *guestEnd) send() error {
	for line := range e.lines {
		if line == "finish" || strings.HasPrefix(line, "more ") {
			continue // of a session that had failed
		}
		var handle string
		var at uint64
		var pace time.Duration
		if _, err := fmt.Sscanf(line, "send %s %d %d", &handle, &at, &pace); err != nil {
			return err
		}
		h, err := novastream.ParseHandle(handle)
		if err != nil {
			return err
		}
		tx, err := e.attach(h)
		if err != nil {
			return err
		}
		fmt.Println("attached")
		sent, err := e.stream(tx, at, pace)
		var lost novastream.LostError
		var le *novastream.LostError
		if errors.As(tx.Err(), &le) {
			lost = *le
		}
		fmt.Printf("ended %s %d %d %v\n", verdict(err), sent, lost.Slots, err)
		tx.Close()
		if err := e.empty(func() bool { return e.s.Stats().Outlets == 0 }); err != nil {
			return err
		}
	}
	return nil
}

// attach tries for as long as a fault before this session may have an effect.
func (e *guestEnd) attach(h novastream.Handle) (tx *novastream.Sender[rec], err error) {
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		if _, err = e.n.Dial(ctx, e.address); err == nil {
			tx, err = novastream.Attach[rec](ctx, e.s, h, novastream.Lanes(novastream.LaneRDMA))
		}
		cancel()
		if err == nil {
			return tx, nil
		}
		fmt.Println("not yet:", err)
	}
	return nil, err
}

func (e *guestEnd) stream(tx *novastream.Sender[rec], at uint64, pace time.Duration) (sent uint64, err error) {
	ctx, finish := context.WithCancel(context.Background())
	defer finish()
	more, heard := make(chan uint64, 1), make(chan error, 1)
	go func() { heard <- e.orders(tx.Done(), more, finish) }()
	for {
		if err := tx.Send(ctx, makeRec(sent)); ctx.Err() != nil && errors.Is(err, context.Canceled) {
			break
		} else if err != nil {
			return sent, errors.Join(err, <-heard)
		}
		if sent++; sent == at {
			fmt.Println("sent")
		}
		select {
		case n := <-more:
			at = sent + n
		default:
		}
		if ctx.Err() != nil {
			break
		}
		if pace > 0 && sent%8 == 0 {
			time.Sleep(pace)
		}
	}
	if err := <-heard; err != nil {
		return sent, err
	}
	return sent, tx.Finalize(context.Background())
}

// orders takes what the driver has to say until that is "finish", or the session has
// failed.
func (e *guestEnd) orders(failed <-chan struct{}, more chan<- uint64, finish func()) error {
	for {
		select {
		case line := <-e.lines:
			if line == "finish" {
				finish()
				return nil
			}
			var n uint64
			if _, err := fmt.Sscanf(line, "more %d", &n); err != nil {
				finish()
				return err
			}
			more <- n
		case <-failed:
			return nil
		}
	}
}

// verdict names what a sender is told.
func verdict(err error) string {
	for name, sentinel := range map[string]error{
		"TransportError": novastream.ErrTransport, "PeerDead": novastream.ErrPeerDead, "Cancelled": novastream.ErrCancelled,
	} {
		if errors.Is(err, sentinel) {
			return name
		}
	}
	if err != nil {
		return "other"
	}
	return "ok"
}
