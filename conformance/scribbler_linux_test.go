package conformance

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"runtime"
	"strconv"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/novastream/novastream"
	"github.com/novastream/novastream/control"
	"github.com/novastream/novastream/internal/handle"
	"github.com/novastream/novastream/internal/layout"
	"github.com/novastream/novastream/internal/wire"
	"github.com/novastream/novastream/ring"
)

func init() {
	programs["hostile-sender"] = hostileSender
	programs["hostile-receiver"] = hostileReceiver
}

// ringKind is a kind of ring to be scribbled on.
type ringKind struct {
	name      string
	producers int
	bytes     bool
}

var ringKinds = []ringKind{{"values", 1, false}, {"bytes", 1, true}, {"values onering", 4, false}, {"bytes onering", 4, true}}

func (k ringKind) payload() (codec string, size int, print uint64) {
	if k.bytes {
		return "bytes", 0, 0
	}
	print, err := layout.Fingerprint(reflect.TypeFor[Rec]())
	if err != nil {
		panic(err)
	}
	return "fixed", int(unsafe.Sizeof(Rec{})), print
}

func kindNamed(name string) ringKind {
	for _, k := range ringKinds {
		if k.name == name {
			return k
		}
	}
	panic(name)
}

// scribbler writes what it likes to all of a segment: it has mapped it by itself, and
// keeps to no side of it. It takes what it knows from docs/layout.md.
type scribbler struct {
	words   []uint64
	geo     ring.Geometry
	slotsAt int
	session ring.Session
	fd      int
	bells   []int
	rnd     *rand.Rand
	at      uint64 // the head as last believed
}

func newScribbler(fd int, bells []int, g ring.Geometry, s ring.Session) (*scribbler, error) {
	mem, err := unix.Mmap(fd, 0, g.SegmentSize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	return &scribbler{
		words: unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(mem))), len(mem)/8), geo: g, slotsAt: g.SlotsAt(),
		session: s, fd: fd, bells: bells, rnd: rand.New(rand.NewPCG(rand.Uint64(), 1)), at: s.Start,
	}, nil
}

func (s *scribbler) close() {
	_ = unix.Munmap(unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s.words))), len(s.words)*8))
	for _, fd := range append(s.bells, s.fd) {
		unix.Close(fd)
	}
}

// Where the words are that have a meaning.
var meaning = []int{
	0x0080, 0x0100, 0x0180, // head, receiver's attention, reason
	0x1000, 0x1080, 0x1100, 0x1180, 0x1200, 0x1280, // tail, end, senders' attention, wakes, ends
}

// near is a position that the receiver may soon come to. The head is believed where it
// can be: this process writes to it too.
func (s *scribbler) near() uint64 {
	if h := atomic.LoadUint64(&s.words[0x0080/8]); h-s.at <= uint64(s.geo.Slots) {
		s.at = h
	}
	return s.at + s.rnd.Uint64N(uint64(2*s.geo.Slots))>>s.rnd.IntN(7)
}

// commit is a commit word, of any kind.
func (s *scribbler) commit(pos uint64) uint64 {
	kind := s.rnd.Uint64N(16)
	if s.rnd.IntN(4) > 0 {
		kind = uint64([]ring.Kind{ring.Data, ring.Data, ring.SoftError, ring.Heartbeat, ring.Pad, ring.Raw}[s.rnd.IntN(6)])
	}
	return (pos+1)&(1<<48-1) | kind<<48 | s.rnd.Uint64N(2)<<52 | uint64(s.session.Tag)<<56
}

// header is a second word: a length, and the claim of some producer.
func (s *scribbler) header() uint64 {
	n := []uint64{0, uint64(s.geo.Payload), s.rnd.Uint64N(400), s.rnd.Uint64N(1 << 28)}[s.rnd.IntN(4)]
	return n | s.rnd.Uint64N(8)<<28 | s.rnd.Uint64N(8)<<38 | s.rnd.Uint64N(4)<<48
}

// value is what may stand in any word.
func (s *scribbler) value() uint64 {
	switch s.rnd.IntN(4) {
	case 0:
		return s.near()
	case 1:
		return s.commit(s.near())
	case 2:
		return s.rnd.Uint64() >> s.rnd.IntN(64)
	}
	return s.near()&(1<<48-1) | s.rnd.Uint64N(8)<<48
}

// scribble writes n words.
func (s *scribbler) scribble(n int) {
	for range n {
		switch s.rnd.IntN(8) {
		case 0, 1, 2:
			s.words[s.rnd.IntN(len(s.words))] = s.rnd.Uint64() >> s.rnd.IntN(64)
		case 3:
			s.words[meaning[s.rnd.IntN(len(meaning))]/8] = s.value()
		case 4, 5, 6:
			pos := s.near()
			at := (s.slotsAt + int(pos&uint64(s.geo.Slots-1))*s.geo.SlotSize) / 8
			s.words[at+1] = s.header()
			s.words[at] = s.commit(pos)
		case 7:
			s.words[(0x2000+s.rnd.IntN(6)*128)/8+s.rnd.IntN(4)] = s.value()
		}
		if s.rnd.IntN(1<<14) == 0 {
			s.disturb()
		}
	}
}

// bellFD makes a bell without the library: a pipe, open for reading and writing.
func bellFD() (int, error) {
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		return -1, err
	}
	defer unix.Close(ends[0])
	defer unix.Close(ends[1])
	return unix.Open(fmt.Sprintf("/proc/self/fd/%d", ends[0]), unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
}

// disturb does what is no writing of words: it rings, fills a bell and makes it block,
// and takes pages out of the segment.
func (s *scribbler) disturb() {
	bell := s.bells[s.rnd.IntN(len(s.bells))]
	// Not to block itself, and as the last thing to make others block.
	_, _ = unix.FcntlInt(uintptr(bell), unix.F_SETFL, unix.O_RDWR|unix.O_NONBLOCK)
	defer unix.FcntlInt(uintptr(bell), unix.F_SETFL, unix.O_RDWR)
	switch s.rnd.IntN(4) {
	case 0:
		for range 100 {
			_, _ = unix.Write(bell, []byte{1, 0, 0, 0, 0, 0, 0, 0})
		}
	case 1:
		_, _ = unix.Write(bell, make([]byte, 1<<20))
	case 2:
		_, _ = unix.Read(bell, make([]byte, 1<<20))
	case 3:
		page := int64(s.rnd.IntN(len(s.words)/512)) * 4096
		_ = unix.Fallocate(s.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, page, 4096)
	}
}

// some is how many words are written in one go: mostly few, so that a stream lives a
// while beside them and many streams are met, and now and then many.
func some() int {
	if rand.IntN(20) == 0 {
		return 1 << 20
	}
	return 1 << (2 + rand.IntN(12))
}

// hostileSender is a program: KIND. It attaches to each stream whose handle it reads,
// scribbles on its segment and says how many words it has written.
func hostileSender(p *program) error {
	kind := kindNamed(os.Args[1])
	n, err := control.Listen(p.ctx, p.node...)
	if err == nil {
		err = n.HandleAMInline("stream_cancel", func(context.Context, *control.Peer, control.Message) {}) // it is told so all the time
	}
	if err != nil {
		return err
	}
	for outlet := uint64(1); p.in.Scan(); outlet++ {
		h, err := novastream.ParseHandle(p.in.Text())
		if err != nil {
			return err
		}
		s, err := rawAttach(p.ctx, n, h, kind, outlet)
		if err != nil {
			return err
		}
		words := some()
		s.scribble(words)
		s.close()
		fmt.Println(words)
	}
	return nil
}

// rawAttach attaches as the protocol has it, and keeps the descriptors.
func rawAttach(ctx context.Context, n *control.Node, h novastream.Handle, k ringKind, outlet uint64) (*scribbler, error) {
	codec, size, print := k.payload()
	b, err := proto.Marshal(&wire.AttachRequest{
		Handle: h[:], Outlet: outlet, Codec: codec, Payload: uint32(size), Fingerprint: print, Offers: []*wire.Offer{{Lane: "shm"}},
	})
	if err != nil {
		return nil, err
	}
	m, err := n.Call(ctx, control.WorkerID(h.Worker()), "stream_attach", control.Message{Payload: b})
	if err != nil {
		return nil, err
	}
	var r wire.AttachReply
	if err := proto.Unmarshal(m.Payload, &r); err != nil {
		return nil, err
	}
	if len(m.FDs) != 3 {
		return nil, fmt.Errorf("%d descriptors", len(m.FDs))
	}
	g := ring.Geometry{SlotSize: int(r.SlotSize), Slots: int(r.Slots), Payload: size, Fingerprint: print, Producers: int(r.Producers)}
	return newScribbler(m.FDs[0], m.FDs[1:], g, ring.Session{Start: r.Start, Tag: uint8(r.Tag)})
}

// hostileReceiver is a program: KIND. It says its handle, answers every attach with a
// segment that it scribbles on, and tells who asks how many words it has written.
func hostileReceiver(p *program) error {
	kind := kindNamed(os.Args[1])
	n, err := control.Listen(p.ctx, p.node...)
	if err != nil {
		return err
	}
	var words atomic.Uint64
	err = errors.Join(
		n.HandleInline("stream_attach", func(_ context.Context, _ *control.Peer, m control.Message) (control.Message, error) {
			s, reply, fds, err := hostileSegment(kind)
			if err != nil {
				return control.Message{}, err
			}
			go func() {
				runtime.LockOSThread()
				n := some()
				s.scribble(n)
				s.close()
				words.Add(uint64(n))
			}()
			b, err := proto.Marshal(reply)
			return control.Message{Payload: b, FDs: fds}, err
		}),
		n.HandleInline("stream_end", func(context.Context, *control.Peer, control.Message) (control.Message, error) {
			return control.Message{}, nil
		}),
		n.HandleAMInline("stream_ended", func(context.Context, *control.Peer, control.Message) {}),
		n.HandleInline("words", func(context.Context, *control.Peer, control.Message) (control.Message, error) {
			return control.Message{Payload: strconv.AppendUint(nil, words.Load(), 10)}, nil
		}),
	)
	if err != nil {
		return err
	}
	fmt.Println(novastream.Handle(handle.Make(uint64(n.WorkerID()), 0, 1)))
	p.wait()
	return nil
}

// hostileSegment makes a segment as an honest receiver would, and what goes with it.
func hostileSegment(k ringKind) (*scribbler, *wire.AttachReply, []int, error) {
	_, size, print := k.payload()
	g := ring.Geometry{SlotSize: 64, Slots: 64, Payload: size, Fingerprint: print, Producers: k.producers}
	if k.producers > 1 {
		g.SlotSize = 128
	}
	fd, err := unix.MemfdCreate("nova-ring", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err == nil {
		err = unix.Fallocate(fd, 0, 0, int64(g.SegmentSize()))
	}
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	}
	if err != nil {
		return nil, nil, nil, err
	}
	all := []int{fd}
	for range 2 {
		bell, err := bellFD()
		if err != nil {
			return nil, nil, nil, err
		}
		all = append(all, bell)
	}
	var pass []int
	for _, fd := range all {
		d, err := unix.Dup(fd)
		if err != nil {
			return nil, nil, nil, err
		}
		pass = append(pass, d)
	}
	s, err := newScribbler(fd, all[1:], g, ring.Session{Tag: 1})
	if err != nil {
		return nil, nil, nil, err
	}
	mem := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s.words))), len(s.words)*8)
	r, err := ring.Format(mem, g)
	if err != nil {
		return nil, nil, nil, err
	}
	reply := &wire.AttachReply{
		Sender: 1, Lane: "shm", Data: binary.AppendUvarint(nil, 1), SlotSize: uint32(g.SlotSize), Slots: uint32(g.Slots),
		Producers: uint32(g.Producers), Tag: 1,
	}
	if k.producers > 1 {
		reply.Record, reply.Generation = 1, 1
		r.Collector(ring.Session{Tag: 1}, nil).Admit(1, 1)
	}
	return s, reply, pass, nil
}
