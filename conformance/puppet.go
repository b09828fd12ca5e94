package conformance

import (
	"context"
	"fmt"
	"io"
	"net/rpc"
	"net/rpc/jsonrpc"
	"os"
	"sync"
	"time"

	"github.com/novastream/novastream"
	"github.com/novastream/novastream/control"
	"github.com/novastream/novastream/internal/holding"
	"github.com/novastream/novastream/rdma"
)

// A puppet is a program that has the sending side of a case and does what it is told,
// by JSON-RPC over its standard input and output.

// Order is what a puppet is to do; each of its methods reads what it needs.
type Order struct {
	N         uint64        // of the call, to cancel it
	Timeout   time.Duration `json:",omitempty"`
	Cancelled bool          `json:",omitempty"` // before it began

	ID      uint64           `json:",omitempty"` // of a sender
	Node    *control.Entry   `json:",omitempty"` // of the other node
	Worker  control.WorkerID `json:",omitempty"` // likewise
	Handle  []byte           `json:",omitempty"`
	How     []How            `json:",omitempty"`
	Payload string           `json:",omitempty"`
	Way     Way              `json:",omitempty"`
	Text    string           `json:",omitempty"`
	Data    []byte           `json:",omitempty"`
	Zeros   int              `json:",omitempty"` // bytes behind Data
	Rec     *Rec             `json:",omitempty"`
	From    uint64           `json:",omitempty"`
	To      uint64           `json:",omitempty"`
	InLoop  bool             `json:",omitempty"`
	Span    time.Duration    `json:",omitempty"`
	Post    *RawPost         `json:",omitempty"`
}

// Answer is what came of an Order.
type Answer struct {
	Failure *Failure `json:",omitempty"`

	N       uint64              `json:",omitempty"`
	Sender  novastream.SenderID `json:",omitempty"`
	Lane    novastream.Lane     `json:",omitempty"`
	Stats   novastream.Stats
	Entry   control.Entry
	Least   Holdings
	Most    Holdings
	Session *RawSession `json:",omitempty"`
	Status  rdma.Status `json:",omitempty"`
}

// puppet is the program's side. It calls net/rpc's methods of it in a goroutine each.
type puppet struct {
	t    *here
	ctx  context.Context
	book *book

	mu      sync.Mutex
	last    uint64
	senders map[uint64]Sender
	cancels map[uint64]context.CancelFunc
	raw     RawSide
}

// runPuppet is the program puppet.
func runPuppet(p *program) error {
	b := &book{nodes: map[control.WorkerID]control.Entry{}}
	p.node = append(p.node, control.WithDiscovery(b))
	s, err := p.streaming()
	if err != nil {
		return err
	}
	x := &puppet{t: &here{s, p.lane, p.node}, ctx: p.ctx, book: b, senders: map[uint64]Sender{}, cancels: map[uint64]context.CancelFunc{}}
	server := rpc.NewServer()
	if err := server.RegisterName("puppet", x); err != nil {
		return err
	}
	server.ServeCodec(jsonrpc.NewServerCodec(stdio{os.Stdin, os.Stdout}))
	return nil
}

type stdio struct {
	io.Reader
	io.Writer
}

func (stdio) Close() error { return nil }

// book finds the nodes that it was told of.
type book struct {
	mu    sync.Mutex
	nodes map[control.WorkerID]control.Entry
}

func (b *book) Publish(context.Context, control.Entry) (io.Closer, error) {
	return io.NopCloser(nil), nil
}

func (b *book) Lookup(_ context.Context, id control.WorkerID) (control.Entry, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e, ok := b.nodes[id]
	if !ok {
		return e, fmt.Errorf("%w: %v: the test knows no such node", control.ErrUnknownPeer, id)
	}
	return e, nil
}

func (b *book) List(context.Context) (all []control.Entry, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.nodes {
		all = append(all, e)
	}
	return all, nil
}

func (b *book) tell(id control.WorkerID, e *control.Entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if delete(b.nodes, id); e != nil {
		b.nodes[id] = *e
	}
}

// do does an order in its context, which the caller can cancel.
func (x *puppet) do(o Order, a *Answer, f func(ctx context.Context) error) error {
	ctx, cancel := context.WithCancel(x.ctx)
	defer cancel()
	if o.Timeout != 0 {
		ctx, cancel = context.WithTimeout(ctx, o.Timeout)
		defer cancel()
	}
	x.mu.Lock()
	x.cancels[o.N] = cancel
	x.mu.Unlock()
	if o.Cancelled {
		cancel()
	}
	if o.Worker != 0 {
		x.book.tell(o.Worker, o.Node)
	}
	a.Failure = failureOf(f(ctx))
	x.mu.Lock()
	delete(x.cancels, o.N)
	x.mu.Unlock()
	return nil
}

// with does an order to one of the senders.
func (x *puppet) with(o Order, a *Answer, f func(ctx context.Context, tx Sender) error) error {
	x.mu.Lock()
	tx := x.senders[o.ID]
	x.mu.Unlock()
	if tx == nil {
		return fmt.Errorf("no sender %d", o.ID)
	}
	return x.do(o, a, func(ctx context.Context) error { return f(ctx, tx) })
}

func (x *puppet) Cancel(o Order, _ *Answer) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if cancel := x.cancels[o.ID]; cancel != nil {
		cancel()
	}
	return nil
}

func (x *puppet) Attach(o Order, a *Answer) error {
	return x.do(o, a, func(ctx context.Context) error {
		tx, err := x.t.Attach(ctx, novastream.Handle(o.Handle), o.How...)
		if err != nil {
			return err
		}
		x.mu.Lock()
		defer x.mu.Unlock()
		x.last++
		x.senders[x.last] = tx
		a.N, a.Sender, a.Lane = x.last, tx.ID(), tx.Lane()
		return nil
	})
}

func (x *puppet) AttachOther(o Order, a *Answer) error {
	return x.do(o, a, func(ctx context.Context) error {
		return x.t.AttachOther(ctx, novastream.Handle(o.Handle), o.Payload)
	})
}

func (x *puppet) Say(o Order, a *Answer) error {
	return x.do(o, a, func(ctx context.Context) error {
		return x.t.Say(ctx, o.Worker, o.Way, o.Text, append(o.Data, make([]byte, o.Zeros)...))
	})
}

// State answers all that is asked without an error.
func (x *puppet) State(_ Order, a *Answer) error {
	a.Stats, a.Entry, a.N, a.Most = x.t.Stats(), x.t.Entry(), uint64(x.t.Peers()), x.t.Held()
	return nil
}

func (x *puppet) HeldOver(o Order, a *Answer) error {
	a.Least, a.Most = holding.Over(o.Span)
	return nil
}

func (x *puppet) Resident(_ Order, a *Answer) error {
	a.N = uint64(x.t.Resident())
	return nil
}

func (x *puppet) Disconnect(Order, *Answer) error {
	x.t.Disconnect()
	return nil
}

func (x *puppet) Send(o Order, a *Answer) error {
	return x.with(o, a, func(ctx context.Context, tx Sender) error { return tx.Send(ctx, *o.Rec) })
}

func (x *puppet) TrySend(o Order, a *Answer) error {
	return x.with(o, a, func(_ context.Context, tx Sender) error { return tx.TrySend(o.Rec) })
}

func (x *puppet) SoftError(o Order, a *Answer) error {
	return x.with(o, a, func(ctx context.Context, tx Sender) error { return tx.SoftError(ctx, errorText(o.Text)) })
}

func (x *puppet) Progress(o Order, a *Answer) error {
	return x.with(o, a, func(_ context.Context, tx Sender) error { return tx.Progress() })
}

// Done answers when the sender is done.
func (x *puppet) Done(o Order, a *Answer) error {
	return x.with(o, a, func(_ context.Context, tx Sender) error { <-tx.Done(); return nil })
}

func (x *puppet) Err(o Order, a *Answer) error {
	return x.with(o, a, func(_ context.Context, tx Sender) error { return tx.Err() })
}

func (x *puppet) Finalize(o Order, a *Answer) error {
	return x.with(o, a, func(ctx context.Context, tx Sender) error { return tx.Finalize(ctx) })
}

func (x *puppet) Detach(o Order, a *Answer) error {
	return x.with(o, a, func(ctx context.Context, tx Sender) error { return tx.Detach(ctx) })
}

func (x *puppet) Close(o Order, a *Answer) error {
	return x.with(o, a, func(_ context.Context, tx Sender) error { return tx.Close() })
}

func (x *puppet) SendAll(o Order, a *Answer) error {
	return x.with(o, a, func(ctx context.Context, tx Sender) error { return tx.SendAll(ctx, o.From, o.To) })
}

func (x *puppet) Fill(o Order, a *Answer) error {
	return x.with(o, a, func(_ context.Context, tx Sender) (err error) { a.N, err = tx.Fill(); return err })
}

func (x *puppet) Retry(o Order, a *Answer) error {
	return x.with(o, a, func(ctx context.Context, tx Sender) error { return tx.Retry(ctx, o.To) })
}

func (x *puppet) Panic(o Order, a *Answer) error {
	return x.with(o, a, func(ctx context.Context, tx Sender) error { tx.Panic(ctx, o.InLoop); return nil })
}

// Raw makes the node that the other orders with Raw are for; a test has one.
func (x *puppet) Raw(o Order, a *Answer) error {
	return x.do(o, a, func(ctx context.Context) (err error) { x.raw, err = x.t.Raw(ctx, o.Worker); return err })
}

func (x *puppet) RawAttach(o Order, a *Answer) error {
	return x.do(o, a, func(ctx context.Context) (err error) {
		a.Session, err = x.raw.Attach(ctx, novastream.Handle(o.Handle))
		return err
	})
}

func (x *puppet) RawPost(o Order, a *Answer) error {
	return x.do(o, a, func(ctx context.Context) (err error) { a.Status, err = x.raw.Post(ctx, *o.Post); return err })
}

func (x *puppet) RawCall(o Order, a *Answer) error {
	return x.do(o, a, func(ctx context.Context) error { return x.raw.Call(ctx, o.Text, o.Data) })
}

// errorText is an error that is a text, which may be empty.
type errorText string

func (e errorText) Error() string { return string(e) }
