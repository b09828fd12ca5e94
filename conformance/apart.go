package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/rpc"
	"net/rpc/jsonrpc"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream"
	"github.com/novastream/novastream/control"
	"github.com/novastream/novastream/internal/rdmaguest"
	"github.com/novastream/novastream/rdma"
)

// farEnv is the address of the agent on another host on which the sending side of lanes
// whose ends are apart is to be, and $NOVA_TEST_AGENT there. Without it, this process
// serves as that agent.
const farEnv = "NOVA_TEST_FAR"

// far is where the sending side is, over a lane whose ends are apart: its host, and the
// addresses at which the two hosts reach each other.
type far struct {
	host        *rdmaguest.Host
	here, there string
}

// connect finds the agent.
func (e *Env) connect() *far {
	address := os.Getenv(farEnv)
	if address == "" {
		near, conn := net.Pipe()
		served := make(chan struct{})
		go func() { defer close(served); rdmaguest.Serve(conn) }()
		e.Cleanup(func() { <-served })
		return &far{rdmaguest.Connect(e.T, "apart", near), "127.0.0.1", "127.0.0.1"}
	}
	var conn net.Conn
	e.Until(func() (ok bool) { // the host may still be starting
		var err error
		conn, err = net.Dial("tcp", address)
		return err == nil
	}, "nobody listens at "+address)
	ip := func(a net.Addr) string { return a.(*net.TCPAddr).IP.String() }
	return &far{rdmaguest.Connect(e.T, "far", conn), ip(conn.LocalAddr()), ip(conn.RemoteAddr())}
}

// farChild is a Child on the sending side's host.
func (e *Env) farChild(name string, args ...string) *Child {
	nodes, err := control.Directory(e.Dir).List(e.Ctx)
	require.NoError(e, err)
	b, err := json.Marshal(nodes)
	require.NoError(e, err)
	env := append(e.childEnv(name), addrEnv+"="+e.far.there, nodesEnv+"="+string(b))
	return &Child{e: e, far: e.far.host.Start(name, env, append([]string{"self"}, args...)...)}
}

// puppeteer is a Sending that a puppet is.
type puppeteer struct {
	e     *Env
	c     *rpc.Client
	calls atomic.Uint64
}

// puppet starts a puppet, which ends with the test.
func (e *Env) puppet() *puppeteer {
	l := &lines{c: e.farChild("puppet"), over: make(chan struct{})}
	t := &puppeteer{e: e, c: rpc.NewClientWithCodec(jsonrpc.NewClientCodec(l))}
	e.Cleanup(func() {
		l.c.Signal(syscall.SIGKILL)
		<-l.over
	})
	return t
}

// lines is a puppet's input and output as a connection.
type lines struct {
	c    *Child
	rest []byte
	over chan struct{} // closed when the puppet has ended
}

func (l *lines) Read(b []byte) (int, error) {
	for len(l.rest) == 0 {
		line, err := l.c.far.Line()
		if err != nil {
			close(l.over) // the client reads no more
			return 0, err
		}
		if !strings.HasPrefix(line, "{") {
			os.Stderr.WriteString("puppet: " + line + "\n")
			continue
		}
		l.rest = append([]byte(line), '\n')
	}
	n := copy(b, l.rest)
	l.rest = l.rest[n:]
	return n, nil
}

func (l *lines) Write(b []byte) (int, error) {
	l.c.far.Write(strings.TrimSuffix(string(b), "\n"))
	return len(b), nil
}

func (l *lines) Close() error { return nil }

// ask has the puppet do something, and answers what came of it there.
func (t *puppeteer) ask(ctx context.Context, what string, o Order) (a Answer, err error) {
	o.N = t.calls.Add(1)
	if d, ok := ctx.Deadline(); ok {
		o.Timeout = max(time.Until(d), 1)
	}
	o.Cancelled = context.Cause(ctx) == context.Canceled
	call := t.c.Go("puppet."+what, o, &a, make(chan *rpc.Call, 1))
	select {
	case <-call.Done:
	case <-ctx.Done():
		if ctx.Err() == context.Canceled {
			t.c.Go("puppet.Cancel", Order{ID: o.N}, new(Answer), make(chan *rpc.Call, 1))
		}
		<-call.Done
	}
	if call.Error != nil {
		return a, call.Error
	}
	return a, a.Failure.err()
}

// must is ask for what cannot fail while the puppet lives.
func (t *puppeteer) must(what string, o Order) Answer {
	a, err := t.ask(context.Background(), what, o)
	if err != nil {
		t.e.Errorf("puppet: %s: %v", what, err)
	}
	return a
}

// to is an order about a node, with what is known of it.
func (t *puppeteer) to(ctx context.Context, id control.WorkerID) (o Order) {
	o.Worker = id
	if node, err := control.Directory(t.e.Dir).Lookup(ctx, id); err == nil {
		o.Node = &node
	}
	return o
}

func (t *puppeteer) Attach(ctx context.Context, h novastream.Handle, how ...How) (Sender, error) {
	o := t.to(ctx, control.WorkerID(h.Worker()))
	o.Handle, o.How = h[:], how
	a, err := t.ask(ctx, "Attach", o)
	if err != nil {
		return nil, err
	}
	return &farSender{t: t, id: a.N, sender: a.Sender, lane: a.Lane}, nil
}

func (t *puppeteer) AttachOther(ctx context.Context, h novastream.Handle, payload string) error {
	o := t.to(ctx, control.WorkerID(h.Worker()))
	o.Handle, o.Payload = h[:], payload
	_, err := t.ask(ctx, "AttachOther", o)
	return err
}

func (t *puppeteer) Say(ctx context.Context, to control.WorkerID, way Way, name string, payload []byte) error {
	o := t.to(ctx, to)
	o.Data = bytes.TrimRight(payload, "\x00") // one that is too large is long on its way
	o.Way, o.Text, o.Zeros = way, name, len(payload)-len(o.Data)
	_, err := t.ask(ctx, "Say", o)
	return err
}

func (t *puppeteer) Stats() novastream.Stats { return t.must("State", Order{}).Stats }
func (t *puppeteer) Entry() control.Entry    { return t.must("State", Order{}).Entry }
func (t *puppeteer) Peers() int              { return int(t.must("State", Order{}).N) }
func (t *puppeteer) Held() Holdings          { return t.must("State", Order{}).Most }
func (t *puppeteer) Disconnect()             { t.must("Disconnect", Order{}) }
func (t *puppeteer) Resident() int64         { return int64(t.must("Resident", Order{}).N) }

func (t *puppeteer) HeldOver(d time.Duration) (least, most Holdings) {
	a := t.must("HeldOver", Order{Span: d})
	return a.Least, a.Most
}

func (t *puppeteer) Raw(ctx context.Context, to control.WorkerID) (RawSide, error) {
	_, err := t.ask(ctx, "Raw", t.to(ctx, to))
	return farRaw{t}, err
}

// farRaw is a RawSide that a puppet has.
type farRaw struct{ t *puppeteer }

func (r farRaw) Attach(ctx context.Context, h novastream.Handle) (*RawSession, error) {
	a, err := r.t.ask(ctx, "RawAttach", Order{Handle: h[:]})
	return a.Session, err
}

func (r farRaw) Post(ctx context.Context, p RawPost) (rdma.Status, error) {
	a, err := r.t.ask(ctx, "RawPost", Order{Post: &p})
	return a.Status, err
}

func (r farRaw) Call(ctx context.Context, name string, payload []byte) error {
	_, err := r.t.ask(ctx, "RawCall", Order{Text: name, Data: payload})
	return err
}

// Close does nothing: it ends with the puppet.
func (r farRaw) Close() {}

// farSender is a Sender that a puppet has.
type farSender struct {
	t      *puppeteer
	id     uint64
	sender novastream.SenderID
	lane   novastream.Lane

	once sync.Once
	done chan struct{}
}

func (x *farSender) ask(ctx context.Context, what string, o Order) (Answer, error) {
	o.ID = x.id
	return x.t.ask(ctx, what, o)
}

func (x *farSender) tell(ctx context.Context, what string, o Order) error {
	_, err := x.ask(ctx, what, o)
	return err
}

func (x *farSender) ID() novastream.SenderID { return x.sender }
func (x *farSender) Lane() novastream.Lane   { return x.lane }

func (x *farSender) Send(ctx context.Context, v Rec) error {
	return x.tell(ctx, "Send", Order{Rec: &v})
}

func (x *farSender) TrySend(v *Rec) error {
	return x.tell(context.Background(), "TrySend", Order{Rec: v})
}

func (x *farSender) SoftError(ctx context.Context, err error) error {
	return x.tell(ctx, "SoftError", Order{Text: err.Error()})
}

func (x *farSender) Progress() error { return x.tell(context.Background(), "Progress", Order{}) }
func (x *farSender) Err() error      { return x.tell(context.Background(), "Err", Order{}) }
func (x *farSender) Close() error    { return x.tell(context.Background(), "Close", Order{}) }

func (x *farSender) Finalize(ctx context.Context) error { return x.tell(ctx, "Finalize", Order{}) }
func (x *farSender) Detach(ctx context.Context) error   { return x.tell(ctx, "Detach", Order{}) }

func (x *farSender) Done() <-chan struct{} {
	x.once.Do(func() {
		x.done = make(chan struct{})
		go func() {
			defer close(x.done)
			_ = x.tell(context.Background(), "Done", Order{})
		}()
	})
	return x.done
}

func (x *farSender) SendAll(ctx context.Context, from, to uint64) error {
	return x.tell(ctx, "SendAll", Order{From: from, To: to})
}

func (x *farSender) Fill() (uint64, error) {
	a, err := x.ask(context.Background(), "Fill", Order{})
	return a.N, err
}

func (x *farSender) Retry(ctx context.Context, n uint64) error {
	return x.tell(ctx, "Retry", Order{To: n})
}

func (x *farSender) Panic(ctx context.Context, inLoop bool) {
	_ = x.tell(ctx, "Panic", Order{InLoop: inLoop})
}
