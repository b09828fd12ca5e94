package conformance

import (
	"context"
	"encoding/binary"
	"io"
	"reflect"
	"strings"
	"unsafe"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/novastream/novastream"
	"github.com/novastream/novastream/control"
	"github.com/novastream/novastream/internal/compress"
	"github.com/novastream/novastream/internal/layout"
	"github.com/novastream/novastream/internal/wire"
	"github.com/novastream/novastream/rdma"
	"github.com/novastream/novastream/ring"
)

// NotRDMA is the reason of cases about registered memory.
const NotRDMA = "the lane has no registered memory and no queue pairs"

// RawSide is a node that speaks the protocol of the lane rdma by hand, so that it can
// break it. What it makes is in one protection domain.
type RawSide interface {
	// Attach attaches to a stream of Rec, and connects the queue pair on this side
	// only.
	Attach(ctx context.Context, h novastream.Handle) (*RawSession, error)
	// Call calls a handler of the other side's node.
	Call(ctx context.Context, name string, payload []byte) error
	// Post posts a request, and waits until it is done.
	Post(ctx context.Context, p RawPost) (rdma.Status, error)
	Close()
}

// RawSession is what one side knows of a session of a RawSide.
type RawSession struct {
	Outlet   uint64
	Geometry ring.Geometry
	Start    uint64
	Tag      uint8
	Remote   uint64
	Key      uint32
	Place    []byte // of this side
}

// RawPost is a request.
type RawPost struct {
	Outlet uint64
	Op     rdma.Op
	Imm    uint32
	Remote uint64
	RKey   uint32
	Bytes  []byte
}

// rawHere is a RawSide in this process.
type rawHere struct {
	node   *control.Node
	dev    rdma.Device
	peer   *control.Peer
	name   string
	dom    rdma.Domain
	cq     rdma.CQ
	page   rdma.Region
	outlet uint64
	qps    map[uint64]rdma.QP
}

func (t *here) Raw(ctx context.Context, to control.WorkerID) (RawSide, error) {
	n := &rawHere{name: strings.Split(t.lane.Name, "-")[1], qps: map[uint64]rdma.QP{}}
	if err := n.open(ctx, t.node, to); err != nil {
		n.Close()
		return nil, err
	}
	return n, nil
}

func (n *rawHere) open(ctx context.Context, opts []control.Option, to control.WorkerID) (err error) {
	if n.node, err = control.Listen(ctx, opts...); err != nil {
		return err
	}
	if n.peer, err = n.node.Peer(ctx, to); err != nil {
		return err
	}
	p, err := rdma.Lookup(n.name)
	if err != nil {
		return err
	}
	if n.dev, err = p.Open(""); err != nil {
		return err
	}
	if n.dom, err = n.dev.NewDomain(); err != nil {
		return err
	}
	if n.cq, err = n.dom.NewCQ(256); err != nil {
		return err
	}
	n.page, err = n.dom.NewRegion(1<<16, rdma.RemoteWrite)
	return err
}

func (n *rawHere) Close() {
	if n.dev != nil {
		n.dev.Close()
	}
	if n.node != nil {
		n.node.Close()
	}
}

// RawNode is the sending side's RawSide, for a case.
type RawNode struct {
	e    *Env
	side RawSide
}

// Raw is one session of a RawNode.
type Raw struct {
	*RawSession
	n *RawNode
}

// RawNode makes one that is connected to the receiving side.
func (e *Env) RawNode() *RawNode {
	side, err := e.TX.Raw(e.Ctx, e.RX.Node().WorkerID())
	require.NoError(e, err)
	e.Cleanup(side.Close)
	return &RawNode{e, side}
}

// Attach attaches to a stream of Rec and connects the queue pair on this side only;
// Connect does the rest.
func (n *RawNode) Attach(h novastream.Handle) *Raw {
	s, err := n.side.Attach(n.e.Ctx, h)
	require.NoError(n.e, err)
	return &Raw{s, n}
}

// rawVersion is the version of the lane's messages that a RawNode speaks.
const rawVersion = 2

// message is a message of the lane: the version, and fields.
func message(fields ...any) []byte {
	b := []byte{rawVersion}
	for _, f := range fields {
		switch v := f.(type) {
		case uint64:
			b = binary.AppendUvarint(b, v)
		case []byte:
			b = append(binary.AppendUvarint(b, uint64(len(v))), v...)
		}
	}
	return b
}

func (n *rawHere) Attach(ctx context.Context, h novastream.Handle) (*RawSession, error) {
	print, err := layout.Fingerprint(reflect.TypeFor[Rec]())
	if err != nil {
		return nil, err
	}
	n.outlet++
	b, err := proto.Marshal(&wire.AttachRequest{
		Handle: h[:], Outlet: n.outlet, Codec: "fixed", Payload: uint32(unsafe.Sizeof(Rec{})), Fingerprint: print,
		Offers: []*wire.Offer{{Lane: "rdma", Data: message([]byte(n.name), uint64(compress.All))}},
	})
	if err != nil {
		return nil, err
	}
	msg, err := n.peer.Call(ctx, "stream_attach", control.Message{Payload: b})
	if err != nil {
		return nil, err
	}
	var reply wire.AttachReply
	if err := proto.Unmarshal(msg.Payload, &reply); err != nil {
		return nil, err
	}
	s := &RawSession{Start: reply.Start, Tag: uint8(reply.Tag), Outlet: n.outlet, Geometry: ring.Geometry{
		SlotSize: int(reply.SlotSize), Slots: int(reply.Slots), Payload: int(unsafe.Sizeof(Rec{})),
	}}
	data := reply.Data[1:]
	size, k := binary.Uvarint(data)
	address := data[k : k+int(size)]
	data = data[k+int(size):]
	s.Remote, k = binary.Uvarint(data)
	key, _ := binary.Uvarint(data[k:])
	s.Key = uint32(key)
	qp, err := n.dom.NewQP(rdma.QPOptions{SendCQ: n.cq, RecvCQ: n.cq, MaxSend: 16, MaxRecv: 16})
	if err != nil {
		return nil, err
	}
	n.qps[s.Outlet] = qp
	if _, err = qp.PostRecv(make([]rdma.RecvWR, 16)); err != nil {
		return nil, err
	}
	s.Place = message(s.Outlet, qp.Address(), n.page.Addr(), uint64(n.page.RKey()))
	return s, qp.Connect(ctx, address, rdma.ConnectOptions{})
}

func (n *rawHere) Call(ctx context.Context, name string, payload []byte) error {
	_, err := n.peer.Call(ctx, name, control.Message{Payload: payload})
	return err
}

func (n *rawHere) Post(ctx context.Context, p RawPost) (rdma.Status, error) {
	qp := n.qps[p.Outlet]
	copy(n.page.Bytes()[4096:], p.Bytes)
	wr := rdma.SendWR{
		ID: 1<<40 | uint64(qp.Num()), Flags: rdma.Signaled, Local: rdma.SegmentOf(n.page, 4096, len(p.Bytes)),
		Op: p.Op, Imm: p.Imm, Remote: p.Remote, RKey: p.RKey,
	}
	if _, err := qp.PostSend([]rdma.SendWR{wr}); err != nil {
		return 0, err
	}
	done := make([]rdma.Completion, 1)
	for {
		k, err := n.cq.Poll(done)
		switch {
		case err != nil:
			return 0, err
		case k == 0:
			if err := n.cq.Wait(ctx); err != nil {
				return 0, err
			}
		case done[0].ID == wr.ID:
			return done[0].Status, nil
		}
	}
}

// Connect has the receiver connect its queue pair.
func (r *Raw) Connect() *Raw {
	require.NoError(r.n.e, r.n.side.Call(r.n.e.Ctx, "rdma_connect", r.Place))
	return r
}

// Post posts a request whose bytes are b, and waits until it is done.
func (r *Raw) Post(wr rdma.SendWR, b []byte) rdma.Status {
	s, err := r.n.side.Post(r.n.e.Ctx, RawPost{r.Outlet, wr.Op, wr.Imm, wr.Remote, wr.RKey, b})
	require.NoError(r.n.e, err)
	return s
}

// Word is a word of the protocol: a commit word, or an announcement with kind 0.
func (r *Raw) Word(pos uint64, kind ring.Kind) uint64 {
	return (r.Start+pos+1)&(1<<48-1) | uint64(kind)<<48 | uint64(r.Tag)<<56
}

// Frame writes the value with a number at its position, and Announce announces.
func (r *Raw) Frame(i uint64) rdma.Status {
	v := MakeRec(i)
	b := binary.LittleEndian.AppendUint64(nil, r.Word(i, ring.Data))
	b = append(b, unsafe.Slice((*byte)(unsafe.Pointer(&v)), unsafe.Sizeof(v))...)
	slot := (r.Start + i) % uint64(r.Geometry.Slots) * uint64(r.Geometry.SlotSize)
	return r.Post(rdma.SendWR{Op: rdma.OpWrite, Remote: r.Remote + uint64(r.Geometry.SlotsAt()) + slot, RKey: r.Key}, b)
}

// Encoded writes an encoded range of four slots where the first frame would be, as the
// ring has it (ring.EncodedHeader), and announces it.
func (r *Raw) Encoded(body ...byte) rdma.Status {
	b := binary.LittleEndian.AppendUint64(nil, r.Word(0, 11))
	b = append(binary.LittleEndian.AppendUint64(b, 4<<32|uint64(len(body))), body...)
	slot := r.Start % uint64(r.Geometry.Slots) * uint64(r.Geometry.SlotSize)
	if s := r.Post(rdma.SendWR{Op: rdma.OpWrite, Remote: r.Remote + uint64(r.Geometry.SlotsAt()) + slot, RKey: r.Key}, b); s != rdma.Success {
		return s
	}
	return r.Announce(r.Word(3, 0))
}

// Announce writes a word where announcements are, with an immediate that wakes.
func (r *Raw) Announce(w uint64) rdma.Status {
	wr := rdma.SendWR{Op: rdma.OpWriteImm, Imm: 1 << 29, Remote: r.Remote + uint64(r.Geometry.SegmentSize()), RKey: r.Key}
	return r.Post(wr, binary.LittleEndian.AppendUint64(nil, w))
}

// RDMAFailure is case 44: an RDMA failure surfaces once, after everything that was
// announced; a stale key never writes.
func RDMAFailure(e *Env) {
	e.SkipFor(e.Lane.Lane != novastream.LaneRDMA, NotRDMA)
	quiet := e.Create()
	honest := e.Attach(quiet.Handle())
	e.Expect(quiet, novastream.KindAttached)
	n := e.RawNode()

	// A key taken back: of a session that is over.
	old := e.Create(novastream.Capacity(16))
	stale := n.Attach(old.Handle()).Connect()
	require.Equal(e, rdma.Success, stale.Frame(0))
	require.NoError(e, old.Close())
	e.Until(func() bool { return e.RX.Stats().Inbound == 1 }, "the session is left")

	rx := e.Create(novastream.Capacity(16))
	tx := n.Attach(rx.Handle()).Connect()
	for i := range uint64(3) {
		require.Equal(e, rdma.Success, tx.Frame(i))
	}
	require.Equal(e, rdma.Success, tx.Announce(tx.Word(2, 0)))
	tx.Remote, tx.Key = stale.Remote, stale.Key
	require.Equal(e, rdma.RemoteAccess, tx.Frame(3), "a stale key was used")
	e.Expect(rx, novastream.KindAttached)
	e.ExpectData(rx, 0, 2) // the third was not announced
	f := e.Expect(rx, novastream.KindTransportError)
	require.ErrorIs(e, f.Err, novastream.ErrTransport)
	for range 3 {
		_, err := rx.Recv(e.Ctx)
		require.ErrorIs(e, err, io.EOF)
	}
	e.Send(honest, 0, 100)
	e.ExpectData(quiet, 0, 100)
}
