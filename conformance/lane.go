package conformance

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream"
	"github.com/novastream/novastream/control"
)

// Lane is a way to run the cases.
type Lane struct {
	// Name is the subtest's.
	Name string
	// Lane is what Sender.Lane must answer.
	Lane novastream.Lane
	// OneProcess says that sender and receiver share a Streaming, so that no
	// child can take part.
	OneProcess bool
	// OneRing says that streams are shared ones whose senders share a ring.
	OneRing bool
	// Apart says that the sending side is in a process of its own, and on another host
	// if $NOVA_TEST_FAR says where: see puppet.go.
	Apart bool
	// Node are the options of each node, Streaming those of New.
	Node      []control.Option
	Streaming []novastream.Option
	// End are options of both ends of each stream.
	End []novastream.EndOption
}

// Lanes are the library's own, or those that $NOVA_TEST_LANES names. Those of verbs,
// which need a device, are only run when they are named, and rdma-soft-apart not in short.
func Lanes() []Lane {
	want := os.Getenv("NOVA_TEST_LANES")
	var some []Lane
	for _, l := range every() {
		if want == "" && !strings.HasPrefix(l.Name, "rdma-verbs") && !(testing.Short() && l.Name == "rdma-soft-apart") || slices.Contains(strings.Split(want, ","), l.Name) {
			some = append(some, l)
		}
	}
	return some
}

func every() []Lane {
	network := []control.Option{control.WithoutUnix(), control.WithTCP("127.0.0.1:0")}
	return []Lane{
		{Name: "local", Lane: novastream.LaneLocal, OneProcess: true},
		{Name: "local-onering", Lane: novastream.LaneLocal, OneProcess: true, OneRing: true},
		{Name: "shm", Lane: novastream.LaneShm},
		{Name: "shm-onering", Lane: novastream.LaneShm, OneRing: true},
		{Name: "tcp", Lane: novastream.LaneTCP, Node: network},
		{Name: "tcp-s2", Lane: novastream.LaneTCP, Node: network, End: []novastream.EndOption{novastream.Compression(novastream.CompressionS2)}},
		{Name: "rdma-soft", Lane: novastream.LaneRDMA, Node: network, Streaming: []novastream.Option{novastream.RDMA("soft", "")}},
		{Name: "rdma-soft-s2", Lane: novastream.LaneRDMA, Node: network, Streaming: []novastream.Option{novastream.RDMA("soft", "")}, End: []novastream.EndOption{novastream.Compression(novastream.CompressionS2)}},
		{Name: "tcp-apart", Lane: novastream.LaneTCP, Apart: true, Node: network},
		{Name: "rdma-soft-apart", Lane: novastream.LaneRDMA, Apart: true, Node: network, Streaming: []novastream.Option{novastream.RDMA("soft", "")}},
		{Name: "rdma-verbs", Lane: novastream.LaneRDMA, Node: network, Streaming: []novastream.Option{novastream.RDMA("verbs", "")}},
		{Name: hosts, Lane: novastream.LaneRDMA, Apart: true, Node: network, Streaming: []novastream.Option{novastream.RDMA("verbs", "")}},
	}
}

// hosts is the lane that needs two hosts.
const hosts = "rdma-verbs-hosts"

// Case is one numbered case.
type Case func(e *Env)

// Run runs a case over one lane.
func Run(t *testing.T, l Lane, c Case) {
	t.Run(l.Name, func(t *testing.T) { c(newEnv(t, l)) })
}

// Env is what a case works with: a receiving and a sending side, joined by the
// lane.
type Env struct {
	*testing.T
	Lane Lane
	Dir  string
	RX   *novastream.Streaming
	TX   Sending
	Ctx  context.Context

	far *far // nil unless the lane's ends are apart
}

// Patience is how long a case waits for what must happen. It is no measure of
// speed: only a failure takes so long. $NOVA_TEST_PATIENCE makes it longer where a
// machine is emulated.
var Patience = patience()

func patience() time.Duration {
	if d, err := time.ParseDuration(os.Getenv("NOVA_TEST_PATIENCE")); err == nil {
		return d
	}
	return 30 * time.Second
}

// pause is how long a case waits to see that something does not happen, and what
// an attach and a heartbeat have time for: a hundredth of Patience.
var pause = Patience / 100

func newEnv(t *testing.T, l Lane) *Env {
	// Not t.TempDir: a socket's path must be short.
	dir, err := os.MkdirTemp("", "nv")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	t.Cleanup(cancel)
	e := &Env{T: t, Lane: l, Dir: dir, Ctx: ctx}
	if l.Apart {
		e.far = e.connect()
	}
	e.RX = e.Node()
	switch {
	case l.Apart:
		e.TX = e.puppet()
	case l.OneProcess:
		e.TX = e.Here(e.RX)
	default:
		e.TX = e.Here(e.Node())
	}
	if l.Name == hosts {
		require.NotEqual(t, e.RX.Node().Entry().Host, e.TX.Entry().Host, "two hosts are wanted: $%s", farEnv)
	}
	return e
}

// Node starts one more node, which ends with the test.
func (e *Env) Node(opts ...novastream.Option) *novastream.Streaming {
	n, err := control.Listen(e.Ctx, e.node()...)
	require.NoError(e, err)
	s, err := novastream.New(n, append(opts, e.Lane.Streaming...)...)
	require.NoError(e, err)
	e.Cleanup(func() { s.Close(); n.Close() })
	return s
}

// node are the options of each node of this process.
func (e *Env) node() []control.Option {
	opts := append([]control.Option{control.WithDir(e.Dir)}, e.Lane.Node...)
	if e.far != nil {
		opts = append(opts, listenOn(e.far.here)...)
	}
	return opts
}

// Rec is the value that most cases send.
type Rec struct {
	Seq uint64
	Sum uint64 // of Seq and Pad: shows a torn value
	Pad [5]uint64
}

// MakeRec makes the value with a number.
func MakeRec(seq uint64) (r Rec) {
	r.Seq = seq
	for i := range r.Pad {
		r.Pad[i] = seq*0x9e3779b97f4a7c15 + uint64(i)
		r.Sum += r.Pad[i]
	}
	r.Sum += seq
	return r
}

// Whole tells whether the value is as MakeRec has made it.
func (r Rec) Whole() bool { return r == MakeRec(r.Seq) }

// Skip skips a case for a lane, with a reason that a reader accepts.
func (e *Env) SkipFor(when bool, reason string) {
	if when {
		e.Skip(reason)
	}
}

// Carried tells whether the lane carries frames from a memory that dies with the
// sender, so that the last ones may die with it.
func (e *Env) Carried() bool {
	return e.Lane.Lane == novastream.LaneTCP || e.Lane.Lane == novastream.LaneRDMA
}

// NoChild is the reason of cases that need a child.
const NoChild = "both ends are in one process: nothing of it outlives its death"

// Exclusive is the reason of cases about exclusive streams.
const Exclusive = "the senders share a ring: the stream is a shared one"

// Create makes a stream of the lane's kind.
func (e *Env) Create(opts ...novastream.CreateOption) *novastream.Receiver[Rec] {
	return CreateOn(e, e.RX, opts...)
}

// CreateOn is Create on a node.
func CreateOn(e *Env, s *novastream.Streaming, opts ...novastream.CreateOption) *novastream.Receiver[Rec] {
	rx, err := novastream.Create[Rec](s, e.Options(opts...)...)
	require.NoError(e, err)
	e.Cleanup(func() { rx.Close() })
	return rx
}

// Options are a stream's of the lane's kind, with more.
func (e *Env) Options(opts ...novastream.CreateOption) []novastream.CreateOption {
	for _, o := range e.Lane.End {
		opts = append(opts, o)
	}
	if e.Lane.OneRing {
		opts = append([]novastream.CreateOption{novastream.Shared(8), novastream.OneRing()}, opts...)
	}
	return opts
}

// Attach attaches from the sending side.
func (e *Env) Attach(h novastream.Handle, how ...How) Sender {
	tx, err := e.TX.Attach(e.Ctx, h, how...)
	require.NoError(e, err)
	require.Equal(e, e.Lane.Lane, tx.Lane())
	e.Cleanup(func() { tx.Close() })
	return tx
}

// Send sends the values numbered from..to-1.
func (e *Env) Send(tx Sender, from, to uint64) { require.NoError(e, tx.SendAll(e.Ctx, from, to)) }

// Fill sends values from 0 on until there is no room, and answers how many.
func (e *Env) Fill(tx Sender) uint64 {
	n, err := tx.Fill()
	require.NoError(e, err)
	return n
}

// Next receives the next frame.
func (e *Env) Next(rx *novastream.Receiver[Rec]) novastream.Frame[Rec] {
	f, err := rx.Recv(e.Ctx)
	require.NoError(e, err)
	return f
}

// Expect receives a frame of a kind.
func (e *Env) Expect(rx *novastream.Receiver[Rec], kind novastream.Kind) novastream.Frame[Rec] {
	f := e.Next(rx)
	require.Equal(e, kind, f.Kind, "%+v", f)
	return f
}

// ExpectData receives the values numbered from..to-1, whole.
func (e *Env) ExpectData(rx *novastream.Receiver[Rec], from, to uint64) {
	for i := from; i < to; i++ {
		f := e.Expect(rx, novastream.KindData)
		require.Equal(e, i, f.Value.Seq)
		require.True(e, f.Value.Whole(), "torn value %d", i)
	}
}

// ExpectEnd receives what follows a sender's exit: on an exclusive stream
// nothing any more, for ever.
func (e *Env) ExpectEnd(rx *novastream.Receiver[Rec]) {
	if e.Lane.OneRing {
		return
	}
	for range 3 {
		_, err := rx.Recv(e.Ctx)
		require.ErrorIs(e, err, errEOF)
		_, err = rx.TryRecv()
		require.ErrorIs(e, err, errEOF)
	}
}

// Until waits for a condition.
func (e *Env) Until(cond func() bool, what string) {
	e.Helper()
	require.Eventually(e, cond, Patience, time.Millisecond, what)
}
