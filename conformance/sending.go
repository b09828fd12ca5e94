package conformance

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/novastream/novastream"
	"github.com/novastream/novastream/control"
	"github.com/novastream/novastream/internal/holding"
)

// Sending is the sending side: a node and the senders that it attaches, in this process
// or, over a lane whose ends are apart, in another one. Its methods may be called
// concurrently.
type Sending interface {
	// Attach attaches, as the lane wants its ends to be.
	Attach(ctx context.Context, h novastream.Handle, how ...How) (Sender, error)
	// AttachOther attaches as a sender of another payload, one of others, and sends
	// one value if it was let in.
	AttachOther(ctx context.Context, h novastream.Handle, payload string) error
	// Say sends another node a message that no library of ours makes.
	Say(ctx context.Context, to control.WorkerID, way Way, name string, payload []byte) error
	// Raw makes a node that speaks the protocol of the lane rdma by hand.
	Raw(ctx context.Context, to control.WorkerID) (RawSide, error)

	Stats() novastream.Stats
	// Entry is its node's.
	Entry() control.Entry
	// Peers is how many nodes it is connected to; Disconnect closes the connections.
	Peers() int
	Disconnect()
	// Resident is the resident memory of its process, as Held and HeldOver are what
	// that holds.
	Resident() int64
	Held() Holdings
	HeldOver(d time.Duration) (least, most Holdings)
}

// Sender is one sender of a Sending. Those of novastream.Sender do as they do there;
// what sends many values does so where the sender is.
type Sender interface {
	Send(ctx context.Context, v Rec) error
	TrySend(v *Rec) error
	SoftError(ctx context.Context, err error) error
	Progress() error
	Done() <-chan struct{}
	Err() error
	Lane() novastream.Lane
	ID() novastream.SenderID
	Finalize(ctx context.Context) error
	Detach(ctx context.Context) error
	Close() error

	// SendAll sends the values numbered from..to-1.
	SendAll(ctx context.Context, from, to uint64) error
	// Fill sends values from 0 on until there is no room, and answers how many.
	Fill() (uint64, error)
	// Retry sends the values numbered 0..n-1, each tried again until it is taken, and
	// fails if one that was refused is another then.
	Retry(ctx context.Context, n uint64) error
	// Panic has a goroutine panic that sends the values 0, 1 and 2, within Slots if
	// inLoop, and that closes the sender whatever comes.
	Panic(ctx context.Context, inLoop bool)
}

// How are options of an attach.
type How struct {
	Lanes []novastream.Lane   `json:",omitempty"`
	Wait  novastream.Strategy `json:",omitempty"`
	// BadCodec is to encode with badCodec.
	BadCodec bool `json:",omitempty"`
}

// Way is how a message is sent.
type Way int

const (
	ByCall Way = iota
	BySend
	ByBulk
)

// others are payloads that are not Rec.
var others = map[string]func(context.Context, *novastream.Streaming, novastream.Handle) error{
	"small":  attachOther([3]uint16{1, 2, 3}),
	"string": attachOther("a string"),
	"mixed":  attachOther(mixed{}),
}

// mixed is Rec with two fields changed over: as large, and another layout.
type mixed struct {
	Sum, Seq uint64
	Pad      [5]uint64
}

func attachOther[T any](v T) func(context.Context, *novastream.Streaming, novastream.Handle) error {
	return func(ctx context.Context, s *novastream.Streaming, h novastream.Handle) error {
		tx, err := novastream.Attach[T](ctx, s, h)
		if err != nil {
			return err
		}
		return tx.Send(ctx, v)
	}
}

// here is a Sending in this process.
type here struct {
	s    *novastream.Streaming
	lane Lane
	node []control.Option // of a further node of this side
}

// Here makes a node of this process a Sending.
func (e *Env) Here(s *novastream.Streaming) Sending { return &here{s, e.Lane, e.node()} }

// TXHere is the sending side, for a case that needs it in this process: over a lane whose
// ends are apart it is skipped.
func (e *Env) TXHere() *novastream.Streaming {
	t, ok := e.TX.(*here)
	e.SkipFor(!ok, "both ends are in one process by design: nothing of it is between two")
	return t.s
}

func (t *here) Attach(ctx context.Context, h novastream.Handle, how ...How) (Sender, error) {
	var opts []novastream.AttachOption
	for _, o := range t.lane.End {
		opts = append(opts, o)
	}
	for _, how := range how {
		opts = append(opts, novastream.Wait(how.Wait))
		if how.Lanes != nil {
			opts = append(opts, novastream.Lanes(how.Lanes...))
		}
		if how.BadCodec {
			opts = append(opts, novastream.WithCodec[Rec](badCodec{}))
		}
	}
	tx, err := novastream.Attach[Rec](ctx, t.s, h, opts...)
	if err != nil {
		return nil, err
	}
	return sender{tx}, nil
}

func (t *here) AttachOther(ctx context.Context, h novastream.Handle, payload string) error {
	return others[payload](ctx, t.s, h)
}

func (t *here) Say(ctx context.Context, to control.WorkerID, way Way, name string, payload []byte) error {
	peer, err := t.s.Node().Peer(ctx, to)
	if err != nil {
		return err
	}
	switch way {
	case BySend:
		return peer.Send(ctx, name, control.Message{Payload: payload})
	case ByBulk:
		return peer.SendBulk(ctx, name, payload)
	}
	_, err = peer.Call(ctx, name, control.Message{Payload: payload})
	return err
}

func (t *here) Stats() novastream.Stats { return t.s.Stats() }
func (t *here) Entry() control.Entry    { return t.s.Node().Entry() }
func (t *here) Peers() int              { return len(t.s.Node().Peers()) }
func (t *here) Resident() int64         { return resident(os.Getpid()) }
func (t *here) Held() Holdings          { return Held() }

func (t *here) HeldOver(d time.Duration) (least, most Holdings) { return holding.Over(d) }

func (t *here) Disconnect() {
	for _, p := range t.s.Node().Peers() {
		p.Close()
	}
}

// sender is a Sender of this process.
type sender struct{ *novastream.Sender[Rec] }

func (x sender) SendAll(ctx context.Context, from, to uint64) error {
	for i := from; i < to; i++ {
		if err := x.Send(ctx, MakeRec(i)); err != nil {
			return err
		}
	}
	return nil
}

func (x sender) Fill() (uint64, error) {
	for i := uint64(0); ; i++ {
		v := MakeRec(i)
		if err := x.TrySend(&v); errors.Is(err, novastream.ErrFull) {
			return i, nil
		} else if err != nil {
			return i, err
		}
	}
}

func (x sender) Retry(ctx context.Context, n uint64) error {
	for i := uint64(0); i < n; {
		v := MakeRec(i)
		err := x.TrySend(&v)
		switch {
		case err == nil:
			i++
		case !errors.Is(err, novastream.ErrFull):
			return err
		case v != MakeRec(i):
			return errors.New("a value that was refused has changed")
		case ctx.Err() != nil:
			return ctx.Err()
		}
	}
	return nil
}

func (x sender) Panic(ctx context.Context, inLoop bool) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { _ = recover() }()
		defer x.Close()
		if err := x.SendAll(ctx, 0, 3); err != nil {
			return
		}
		if inLoop {
			for range x.Slots(4) {
				panic("in the loop")
			}
		}
		panic("after sending")
	}()
	<-done
}
