package conformance

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/novastream/novastream"
	"github.com/novastream/novastream/control"
	"github.com/novastream/novastream/internal/handle"
	"github.com/novastream/novastream/internal/wire"
	"github.com/novastream/novastream/ring"
)

// badInput is one thing that a caller or a peer may get wrong.
type badInput struct {
	name string
	// do does it, and answers what came of it. It is called many times.
	do   func() error
	want error
	// says is the value and the remedy in the error's text.
	says []string
}

// repeats is how often each is done: a leak of each shows.
const repeats = 15

// checkAll does each bad input beside a stream that goes on, and sees that
// nothing is left of it.
func checkAll(e *Env, inputs []badInput) {
	moved, stop := sibling(e)
	defer stop()
	for _, in := range inputs {
		_ = in.do() // connects, and fills what is kept
	}
	before := e.Held()
	before.Goroutines++ // each runs in a goroutine of its own
	for _, in := range inputs {
		e.T.Run(in.name, func(t *testing.T) {
			at := &Env{T: t, Lane: e.Lane, TX: e.TX}
			for range repeats {
				in.check(t)
			}
			at.Back(before)
			seen := moved()
			at.Until(func() bool { return moved() > seen }, "a sibling stream stands still")
		})
	}
}

func (in *badInput) check(t *testing.T) {
	err := in.do()
	require.ErrorIs(t, err, in.want)
	for _, s := range in.says {
		require.ErrorContains(t, err, s)
	}
}

// sibling keeps a stream going, and answers how far it is.
func sibling(e *Env) (moved func() uint64, stop func()) {
	rx := e.Create(novastream.AttachTimeout(0))
	tx := e.Attach(rx.Handle())
	ctx, cancel := context.WithCancel(context.Background())
	var n atomic.Uint64
	done := make(chan error, 2)
	go func() {
		for i := uint64(0); ; i++ {
			if err := tx.Send(ctx, MakeRec(i)); err != nil {
				done <- err
				return
			}
			quiet(20 * time.Microsecond) // the test has two processors
		}
	}()
	go func() {
		for f, err := range rx.Frames(ctx) {
			switch {
			case err != nil:
				done <- err
				return
			case f.Kind == novastream.KindData && f.Value == MakeRec(n.Load()):
				n.Add(1)
			case f.Kind != novastream.KindAttached:
				done <- fmt.Errorf("%v after %d values: %w", f.Kind, n.Load(), f.Err)
				return
			}
		}
	}()
	return n.Load, func() {
		cancel()
		for range 2 {
			require.ErrorIs(e, <-done, context.Canceled, "a sibling stream has ended")
		}
	}
}

// attaches makes an input of an attach.
func attaches(name string, e *Env, h novastream.Handle, want error, says ...string) badInput {
	return badInput{name, func() error {
		tx, err := e.TX.Attach(e.Ctx, h)
		if err == nil {
			tx.Close()
		}
		return err
	}, want, says}
}

// TestBadInput: each bad input gets its own error that names the value and the
// remedy, nothing leaks, and no other stream notices.
func TestBadInput(t *testing.T) { each(t, badInputs) }

func badInputs(e *Env) {
	rx := e.Create(novastream.AttachTimeout(0))
	h := rx.Handle()
	stale := e.Create()
	require.NoError(e, stale.Close())
	unknown := handle.Make(h.Worker(), 999, 1)
	nobody := handle.Make(4711, 0, 1)
	elsewhere := []string{nobody.String(), "0000000000001267"}
	if !e.Lane.Apart {
		elsewhere = append(elsewhere, e.Dir)
	}
	create := func(name string, want error, says []string, opts ...novastream.CreateOption) badInput {
		return badInput{name, func() error {
			rx, err := novastream.Create[Rec](e.RX, e.Options(opts...)...)
			if err == nil {
				rx.Close()
			}
			return err
		}, want, says}
	}
	inputs := []badInput{
		{"garbled handle", func() error {
			_, err := novastream.ParseHandle("nova:12zz")
			return err
		}, novastream.ErrBadHandle, []string{"nova:12zz", "32 hexadecimal digits"}},
		{"zero handle", func() error {
			_, err := e.TX.Attach(e.Ctx, novastream.Handle{})
			return err
		}, novastream.ErrBadHandle, []string{"all zero"}},
		attaches("unknown handle", e, unknown, novastream.ErrNoSuchStream, unknown.String(), "slot 999"),
		attaches("unknown worker", e, nobody, novastream.ErrNoSuchStream, elsewhere...),
		attaches("stale handle", e, stale.Handle(), novastream.ErrStaleHandle, stale.Handle().String(), "over"),
		{"another payload", func() error {
			return e.TX.AttachOther(e.Ctx, h, "string")
		}, novastream.ErrTypeMismatch, []string{h.String(), "fixed", "bytes", "conformance.Rec"}},
		{"another size", func() error {
			return e.TX.AttachOther(e.Ctx, h, "small")
		}, novastream.ErrTypeMismatch, []string{"56 bytes", "6"}},
		{"another layout", func() error {
			return e.TX.AttachOther(e.Ctx, h, "mixed")
		}, novastream.ErrTypeMismatch, []string{"name, order"}},
		{"type with pointers", func() error {
			_, err := novastream.Create[map[string]int](e.RX)
			return err
		}, novastream.ErrConfig, []string{"map[string]int", "WithCodec"}},
		create("capacity 0", novastream.ErrConfig, []string{"0", "power of two"}, novastream.Capacity(0)),
		create("capacity no power of two", novastream.ErrConfig, []string{"100", "power of two"}, novastream.Capacity(100)),
		create("capacity beyond the format", novastream.ErrConfig, []string{"1099511627776"}, novastream.Capacity(1<<40)),
		create("capacity beyond the budget", novastream.ErrLimit, []string{"268435456", "MaxMemory", "Capacity"}, novastream.Capacity(1<<28)),
		create("slot size", novastream.ErrConfig, []string{"48", "power of two"}, novastream.SlotSize(48)),
		create("negative timeout", novastream.ErrConfig, []string{"timeout"}, novastream.AttachTimeout(-1)),
		create("no such lane", novastream.ErrLaneUnavailable, []string{"pigeon", "shm"}, novastream.Lanes("pigeon")),
	}
	inputs = append(inputs, badNodes(e)...)
	if tx, ok := e.TX.(*here); ok { // refused before any lane has to do with it
		inputs = append(inputs, badFrame(e, tx.s))
	}
	if !e.Lane.OneProcess {
		inputs = append(inputs, badRequests(e)...)
	}
	if e.Lane.Lane == novastream.LaneShm && !e.Lane.OneRing {
		inputs = append(inputs, badFrames(e)...)
	}
	checkAll(e, inputs)
}

// badFrame is a frame that no ring of the stream's can hold.
func badFrame(e *Env, s *novastream.Streaming) badInput {
	small, err := novastream.CreateBytes(e.RX, novastream.Capacity(4), novastream.SlotSize(64), novastream.AttachTimeout(0))
	require.NoError(e, err)
	e.Cleanup(func() { small.Close() })
	large, err := novastream.AttachBytes(e.Ctx, s, small.Handle())
	require.NoError(e, err)
	e.Cleanup(func() { large.Close() })
	return badInput{"frame too large", func() error { return large.TrySend(make([]byte, 5000)) },
		novastream.ErrFrameTooLarge, []string{"5000", fmt.Sprint(large.MaxFrame()), "Capacity"}}
}

// badNodes are nodes that cannot be.
func badNodes(e *Env) []badInput {
	long := filepath.Join(e.Dir, strings.Repeat("x", 100))
	open := filepath.Join(e.Dir, "open")
	require.NoError(e, os.Mkdir(open, 0o700))
	require.NoError(e, os.Chmod(open, 0o777))
	listen := func(name, dir string, want error, says ...string) badInput {
		return badInput{name, func() error {
			n, err := control.Listen(e.Ctx, control.WithDir(dir))
			if err == nil {
				n.Close()
			}
			return err
		}, want, says}
	}
	return []badInput{
		listen("socket path too long", long, control.ErrSocketPath, long, "107", "WithDir"),
		listen("directory writable by others", open, control.ErrInsecureDir, open, "0777", "chmod 700"),
	}
}

// badRequests are requests that no library of ours makes.
func badRequests(e *Env) []badInput {
	say := func(name string, payload []byte) error {
		return e.TX.Say(e.Ctx, e.RX.Node().WorkerID(), ByCall, name, payload)
	}
	call := func(payload []byte) error { return say("stream_attach", payload) }
	elsewhere := handle.Make(4711, 0, 1)
	return []badInput{
		{"handle of another worker", func() error {
			b, _ := proto.Marshal(&wire.AttachRequest{Handle: elsewhere[:], Outlet: 77})
			return call(b)
		}, novastream.ErrOtherWorker, []string{elsewhere.String(), e.RX.Node().WorkerID().String()}},
		{"handle cut short", func() error {
			b, _ := proto.Marshal(&wire.AttachRequest{Handle: elsewhere[:7], Outlet: 77})
			return call(b)
		}, novastream.ErrBadHandle, []string{"7 bytes", "16"}},
		{"malformed request", func() error { return call([]byte{0xff, 0xff}) }, novastream.ErrCorrupt, []string{"stream_attach"}},
		{"oversized request", func() error { return call(make([]byte, control.DefaultMaxMessage+1)) }, control.ErrMessageTooLarge, []string{"4194305", "4194304", "WithMaxMessage"}},
		{"unknown handler", func() error { return say("stream_atach", nil) }, control.ErrUnknownHandler, []string{"stream_atach"}},
	}
}

// badFrames are bytes on the node's socket that are no frames; whoever sends
// them loses the connection, and nobody else does.
func badFrames(e *Env) (out []badInput) {
	for name, b := range map[string][]byte{
		"RPC frame oversized": {0xff, 0xff, 0xff, 0x7f},
		"RPC frame malformed": {3, 0, 0, 0, 0xff, 0xff, 0xff},
		"RPC frame cut":       {200, 0, 0, 0, 1, 2},
		"no RPC at all":       []byte("GET / HTTP/1.1\r\n\r\n"),
	} {
		out = append(out, badInput{name, func() error {
			c, err := net.Dial("unix", e.RX.Node().SocketPath())
			if err != nil {
				return err
			}
			defer c.Close()
			if _, err := c.Write(b); err != nil {
				return err
			}
			if err := c.(*net.UnixConn).CloseWrite(); err != nil {
				return err
			}
			for { // the node's greeting, and then the end
				if _, err = c.Read(make([]byte, 4096)); err != nil {
					if errors.Is(err, syscall.ECONNRESET) {
						err = io.EOF // it did not read all
					}
					return err
				}
			}
		}, io.EOF, nil})
	}
	return out
}

// answer is what a receiver says to an attach.
type answer struct {
	name string
	// edit changes what an honest receiver would answer and pass.
	edit func(r *wire.AttachReply, k *kitFDs)
	says []string
}

// kitFDs are the descriptors of an answer.
type kitFDs struct {
	size int // of the segment
	mem  func(b []byte)
	seal int
	hole bool
	fds  func(all []int) []int // which are passed; the others are closed
}

// overShm runs a test over the lane shm, which is the only one it is about.
func overShm(t *testing.T, c Case) {
	for _, l := range Lanes() {
		if l.Name == "shm" {
			Run(t, l, c)
			return
		}
	}
	t.Skip("the lane shm is not to be tested")
}

// TestBadInput_Segments: a receiver that answers an attach with a segment that
// is truncated, of another version, corrupt, or not what it should be.
func TestBadInput_Segments(t *testing.T) {
	overShm(t, func(e *Env) {
		hostile, err := control.Listen(e.Ctx, control.WithDir(e.Dir))
		require.NoError(e, err)
		e.Cleanup(func() { hostile.Close() })
		var now atomic.Pointer[answer]
		require.NoError(e, hostile.HandleInline("stream_attach", func(_ context.Context, _ *control.Peer, m control.Message) (control.Message, error) {
			var req wire.AttachRequest
			if err := proto.Unmarshal(m.Payload, &req); err != nil {
				return control.Message{}, err
			}
			return hostileAnswer(&req, now.Load())
		}))
		h := handle.Make(uint64(hostile.WorkerID()), 0, 1)
		geo := ring.Geometry{SlotSize: 64, Slots: 64, Payload: 56, Producers: 1}
		var inputs []badInput
		for _, a := range []answer{
			{"honest in all but the payload", func(r *wire.AttachReply, k *kitFDs) { k.mem = func(b []byte) { b[24]++ } }, []string{"version"}},
			{"truncated", func(_ *wire.AttachReply, k *kitFDs) { k.size -= 4096 }, []string{fmt.Sprint(geo.SegmentSize() - 4096), fmt.Sprint(geo.SegmentSize())}},
			{"empty", func(_ *wire.AttachReply, k *kitFDs) { k.size = 0 }, []string{"0 bytes"}},
			{"not sealed", func(_ *wire.AttachReply, k *kitFDs) { k.seal = 0 }, []string{"seals", "shrink"}},
			{"holes", func(_ *wire.AttachReply, k *kitFDs) { k.hole = true }, []string{"allocated"}},
			{"another magic", func(_ *wire.AttachReply, k *kitFDs) { k.mem = func(b []byte) { b[0] ^= 1 } }, []string{"magic"}},
			{"another version", func(_ *wire.AttachReply, k *kitFDs) { k.mem = func(b []byte) { b[8] += 9 } }, []string{"version", "update"}},
			{"zeros", func(_ *wire.AttachReply, k *kitFDs) { k.mem = func(b []byte) { clear(b) } }, []string{"magic"}},
			{"all ones", func(_ *wire.AttachReply, k *kitFDs) {
				k.mem = func(b []byte) {
					for i := range b {
						b[i] = 0xff
					}
				}
			}, []string{"magic"}},
			{"another geometry than it says", func(r *wire.AttachReply, _ *kitFDs) { r.Slots = 32 }, []string{"32"}},
			{"impossible geometry", func(r *wire.AttachReply, _ *kitFDs) { r.Slots = 33 }, []string{"33"}},
			{"a lane that was not offered", func(r *wire.AttachReply, _ *kitFDs) { r.Lane = "pigeon" }, []string{"pigeon"}},
			{"no segment named", func(r *wire.AttachReply, _ *kitFDs) { r.Data = nil }, []string{"no segment"}},
			{"no descriptors", func(r *wire.AttachReply, k *kitFDs) { k.fds = func([]int) []int { return nil } }, []string{"not released"}},
			{"one descriptor", func(r *wire.AttachReply, k *kitFDs) { k.fds = func(all []int) []int { return all[:1] } }, []string{"1 descriptors", "3"}},
			{"seven descriptors", func(r *wire.AttachReply, k *kitFDs) {
				k.fds = func(all []int) []int { return []int{all[0], all[1], all[2], all[0], all[0], all[0], all[0]} }
			}, []string{"7 descriptors", "3"}},
			{"a bell that is none", func(r *wire.AttachReply, k *kitFDs) {
				k.fds = func(all []int) []int { return []int{all[0], all[0], all[1]} }
			}, []string{"pipe"}},
			{"a segment that is none", func(r *wire.AttachReply, k *kitFDs) {
				k.fds = func(all []int) []int { return []int{all[1], all[0], all[2]} }
			}, []string{"seals"}},
			{"a record of a ring that has none", func(r *wire.AttachReply, _ *kitFDs) { r.Record = 7 }, []string{"record"}},
		} {
			inputs = append(inputs, badInput{a.name, func() error {
				now.Store(&a)
				tx, err := e.TX.Attach(e.Ctx, h)
				if err == nil {
					tx.Close()
				}
				return err
			}, novastream.ErrCorrupt, a.says})
		}
		checkAll(e, inputs)
	})
}

// hostileAnswer makes an honest answer and edits it.
func hostileAnswer(req *wire.AttachRequest, a *answer) (control.Message, error) {
	geo := ring.Geometry{SlotSize: 64, Slots: 64, Payload: int(req.Payload), Fingerprint: req.Fingerprint, Producers: 1}
	reply := &wire.AttachReply{
		Sender: 1, Lane: "shm", Data: binary.AppendUvarint(nil, 1),
		SlotSize: 64, Slots: 64, Producers: 1, Tag: 1,
	}
	k := &kitFDs{size: geo.SegmentSize(), seal: unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL, fds: func(all []int) []int { return all }}
	a.edit(reply, k)
	mem := make([]byte, geo.SegmentSize()+4096)
	off := -int(uintptr(unsafe.Pointer(unsafe.SliceData(mem)))) & 4095
	mem = mem[off : off+geo.SegmentSize()]
	if _, err := ring.Format(mem, geo); err != nil {
		return control.Message{}, err
	}
	if k.mem != nil {
		k.mem(mem)
	}
	seg, err := unix.MemfdCreate("nova-ring", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return control.Message{}, err
	}
	if k.hole {
		err = unix.Ftruncate(seg, int64(k.size))
	} else {
		_, err = unix.Write(seg, mem[:k.size])
	}
	if err == nil && k.seal != 0 {
		_, err = unix.FcntlInt(uintptr(seg), unix.F_ADD_SEALS, k.seal)
	}
	if err != nil {
		return control.Message{}, err
	}
	all := []int{seg}
	for range 2 {
		bell, err := bellFD()
		if err != nil {
			return control.Message{}, err
		}
		all = append(all, bell)
	}
	var pass []int
	for _, fd := range k.fds(all) {
		d, err := unix.Dup(fd)
		if err != nil {
			return control.Message{}, err
		}
		pass = append(pass, d)
	}
	for _, fd := range all {
		unix.Close(fd)
	}
	b, err := proto.Marshal(reply)
	return control.Message{Payload: b, FDs: pass}, err
}

// TestBadInput_Limits: a process whose limits are reached, as a sender and as a
// receiver, learns which, and its other stream goes on.
func TestBadInput_Limits(t *testing.T) {
	each(t, func(e *Env) {
		rx, err := novastream.Create[Rec](e.RX, novastream.Shared(64), novastream.AttachTimeout(0))
		require.NoError(e, err)
		defer rx.Close()
		c := e.Child("limited", rx.Handle().String())
		descriptors, memory := c.Line(), c.Line()
		if e.Lane.Lane == novastream.LaneShm { // the others need none
			require.Contains(e, descriptors, "true ")
			require.Contains(e, descriptors, "RLIMIT_NOFILE")
			require.Contains(e, descriptors, rx.Handle().String())
		}
		require.Contains(e, memory, "true ")
		require.Contains(e, memory, "RLIMIT_AS")
		c.Wait()
		next := map[novastream.SenderID]uint64{}
		for {
			f := e.Next(rx)
			if f.Kind == novastream.KindFinalized {
				require.Equal(e, uint64(20), next[f.Sender])
				return
			}
			if f.Kind == novastream.KindData {
				require.Equal(e, next[f.Sender], f.Value.Seq)
				next[f.Sender]++
			}
		}
	})
}

// TestBadInput_AnotherUser: a process of another user is refused, and told why.
func TestBadInput_AnotherUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can start a child as another user")
	}
	overShm(t, func(e *Env) {
		const nobody = 65534
		rx := e.Create(novastream.AttachTimeout(0))
		bin := filepath.Join(e.Dir, "test")
		self, err := os.ReadFile(os.Args[0])
		require.NoError(e, err)
		require.NoError(e, os.WriteFile(bin, self, 0o755))
		own := filepath.Join(e.Dir, "own")
		require.NoError(e, os.Mkdir(own, 0o700))
		require.NoError(e, os.Chown(own, nobody, nobody))
		// No mode keeps it out: the kernel's word on who it is must do.
		require.NoError(e, os.Chmod(e.Dir, 0o755))
		require.NoError(e, os.Chmod(e.RX.Node().SocketPath(), 0o666))
		entry, err := json.Marshal(e.RX.Node().Entry())
		require.NoError(e, err)
		moved, stop := sibling(e)
		defer stop()
		cmd := exec.Command(bin, rx.Handle().String(), own, string(entry))
		cmd.Dir = "/"
		cmd.Env = append(os.Environ(), programEnv+"=stranger", dirEnv+"="+e.Dir, laneEnv+"="+e.Lane.Name)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		out, err := cmd.CombinedOutput()
		require.NoError(e, err, "%s", out)
		require.Contains(e, string(out), "refused")
		require.Contains(e, string(out), "AllowUID")
		require.Contains(e, string(out), "65534")
		seen := moved()
		e.Until(func() bool { return moved() > seen }, "a sibling stream stands still")
		require.Equal(e, 1, e.RX.Stats().Senders, "the sibling's alone")
	})
}
