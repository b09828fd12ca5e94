package conformance

import (
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

// RawNode is a node that speaks the protocol of the lane rdma by hand, so that it
// can break it. What it makes is in one protection domain.
type RawNode struct {
	e      *Env
	peer   *control.Peer
	name   string
	dom    rdma.Domain
	cq     rdma.CQ
	page   rdma.Region
	outlet uint64
}

// Raw is one session of a RawNode.
type Raw struct {
	n      *RawNode
	qp     rdma.QP
	geo    ring.Geometry
	start  uint64
	tag    uint8
	Remote uint64
	Key    uint32
	place  []byte // of this side
	outlet uint64
}

// RawNode makes one that is connected to the receiving side.
func (e *Env) RawNode() *RawNode {
	n := &RawNode{e: e, name: strings.Split(e.Lane.Name, "-")[1]}
	node, err := control.Listen(e.Ctx, append([]control.Option{control.WithDir(e.Dir)}, e.Lane.Node...)...)
	require.NoError(e, err)
	n.peer, err = node.Peer(e.Ctx, e.RX.Node().WorkerID())
	require.NoError(e, err)
	p, err := rdma.Lookup(n.name)
	require.NoError(e, err)
	dev, err := p.Open("")
	require.NoError(e, err)
	e.Cleanup(func() { dev.Close(); node.Close() })
	n.dom, err = dev.NewDomain()
	require.NoError(e, err)
	n.cq, err = n.dom.NewCQ(256)
	require.NoError(e, err)
	n.page, err = n.dom.NewRegion(1<<16, rdma.RemoteWrite)
	require.NoError(e, err)
	return n
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

// Attach attaches to a stream of Rec and connects the queue pair on this side only;
// Connect does the rest.
func (n *RawNode) Attach(h novastream.Handle) *Raw {
	e := n.e
	print, err := layout.Fingerprint(reflect.TypeFor[Rec]())
	require.NoError(e, err)
	n.outlet++
	b, err := proto.Marshal(&wire.AttachRequest{
		Handle: h[:], Outlet: n.outlet, Codec: "fixed", Payload: uint32(unsafe.Sizeof(Rec{})), Fingerprint: print,
		Offers: []*wire.Offer{{Lane: "rdma", Data: message([]byte(n.name), uint64(compress.All))}},
	})
	require.NoError(e, err)
	msg, err := n.peer.Call(e.Ctx, "stream_attach", control.Message{Payload: b})
	require.NoError(e, err)
	var reply wire.AttachReply
	require.NoError(e, proto.Unmarshal(msg.Payload, &reply))
	r := &Raw{n: n, start: reply.Start, tag: uint8(reply.Tag), outlet: n.outlet, geo: ring.Geometry{
		SlotSize: int(reply.SlotSize), Slots: int(reply.Slots), Payload: int(unsafe.Sizeof(Rec{})),
	}}
	data := reply.Data[1:]
	size, k := binary.Uvarint(data)
	address := data[k : k+int(size)]
	data = data[k+int(size):]
	r.Remote, k = binary.Uvarint(data)
	key, _ := binary.Uvarint(data[k:])
	r.Key = uint32(key)
	r.qp, err = n.dom.NewQP(rdma.QPOptions{SendCQ: n.cq, RecvCQ: n.cq, MaxSend: 16, MaxRecv: 16})
	require.NoError(e, err)
	_, err = r.qp.PostRecv(make([]rdma.RecvWR, 16))
	require.NoError(e, err)
	require.NoError(e, r.qp.Connect(e.Ctx, address, rdma.ConnectOptions{}))
	r.place = message(r.outlet, r.qp.Address(), n.page.Addr(), uint64(n.page.RKey()))
	return r
}

// Connect has the receiver connect its queue pair.
func (r *Raw) Connect() *Raw {
	_, err := r.n.peer.Call(r.n.e.Ctx, "rdma_connect", control.Message{Payload: r.place})
	require.NoError(r.n.e, err)
	return r
}

// Post posts a request whose bytes are b, and waits until it is done.
func (r *Raw) Post(wr rdma.SendWR, b []byte) rdma.Status {
	e := r.n.e
	copy(r.n.page.Bytes()[4096:], b)
	wr.ID, wr.Flags, wr.Local = 1<<40|uint64(r.qp.Num()), rdma.Signaled, rdma.SegmentOf(r.n.page, 4096, len(b))
	_, err := r.qp.PostSend([]rdma.SendWR{wr})
	require.NoError(e, err)
	done := make([]rdma.Completion, 1)
	for {
		k, err := r.n.cq.Poll(done)
		require.NoError(e, err)
		switch {
		case k == 0:
			require.NoError(e, r.n.cq.Wait(e.Ctx))
		case done[0].ID == wr.ID:
			return done[0].Status
		}
	}
}

// Word is a word of the protocol: a commit word, or an announcement with kind 0.
func (r *Raw) Word(pos uint64, kind ring.Kind) uint64 {
	return (r.start+pos+1)&(1<<48-1) | uint64(kind)<<48 | uint64(r.tag)<<56
}

// Frame writes the value with a number at its position, and Announce announces.
func (r *Raw) Frame(i uint64) rdma.Status {
	v := MakeRec(i)
	b := binary.LittleEndian.AppendUint64(nil, r.Word(i, ring.Data))
	b = append(b, unsafe.Slice((*byte)(unsafe.Pointer(&v)), unsafe.Sizeof(v))...)
	slot := (r.start + i) % uint64(r.geo.Slots) * uint64(r.geo.SlotSize)
	return r.Post(rdma.SendWR{Op: rdma.OpWrite, Remote: r.Remote + uint64(r.geo.SlotsAt()) + slot, RKey: r.Key}, b)
}

// Encoded writes an encoded range of four slots where the first frame would be, as the
// ring has it (ring.EncodedHeader), and announces it.
func (r *Raw) Encoded(body ...byte) rdma.Status {
	b := binary.LittleEndian.AppendUint64(nil, r.Word(0, 11))
	b = append(binary.LittleEndian.AppendUint64(b, 4<<32|uint64(len(body))), body...)
	slot := r.start % uint64(r.geo.Slots) * uint64(r.geo.SlotSize)
	if s := r.Post(rdma.SendWR{Op: rdma.OpWrite, Remote: r.Remote + uint64(r.geo.SlotsAt()) + slot, RKey: r.Key}, b); s != rdma.Success {
		return s
	}
	return r.Announce(r.Word(3, 0))
}

// Announce writes a word where announcements are, with an immediate that wakes.
func (r *Raw) Announce(w uint64) rdma.Status {
	wr := rdma.SendWR{Op: rdma.OpWriteImm, Imm: 1 << 29, Remote: r.Remote + uint64(r.geo.SegmentSize()), RKey: r.Key}
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
