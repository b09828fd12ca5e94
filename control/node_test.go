//go:build unix

package control

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/novastream/novastream/control/internal/controlpb"
)

const childEnv = "NOVA_CONTROL_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		child(dir)
		return
	}
	os.Exit(m.Run())
}

// child is a node that says its worker id and serves until it is killed.
func child(dir string) {
	opts := []Option{WithDir(dir)}
	if os.Getenv("NOVA_CONTROL_TCP") != "" {
		opts = append(opts, WithoutUnix(), WithTCP("127.0.0.1:0"))
	}
	if p := os.Getenv("NOVA_CONTROL_DIAL"); p != "" {
		if os.Getenv("NOVA_CONTROL_ALLOW") != "" {
			opts = append(opts, AllowUID(0))
		}
		n, err := Listen(context.Background(), append(opts, WithDir(os.Getenv("NOVA_CONTROL_OWN")))...)
		if err == nil {
			var peer *Peer
			if peer, err = n.Dial(context.Background(), "unix:"+p); err == nil {
				_, err = peer.Call(context.Background(), "echo", Message{Payload: []byte("hi")})
			}
		}
		fmt.Println("result:", err)
		return
	}
	n, err := Listen(context.Background(), opts...)
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	_ = n.Handle("echo", echo)
	fmt.Println(n.WorkerID())
	select {}
}

func echo(_ context.Context, _ *Peer, req Message) (Message, error) {
	return Message{Payload: req.Payload}, nil
}

func tempDir(t testing.TB) string {
	dir, err := os.MkdirTemp("", "nc")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

var ctx = context.Background()

func node(t testing.TB, dir string, tr Transport, opts ...Option) *Node {
	opts = append([]Option{WithDir(dir)}, opts...)
	if tr == TCP {
		opts = append(opts, WithoutUnix(), WithTCP("127.0.0.1:0"))
	}
	n, err := Listen(ctx, opts...)
	require.NoError(t, err)
	t.Cleanup(func() { n.Close() })
	return n
}

// transports runs a test over both.
func transports(t *testing.T, test func(t *testing.T, tr Transport)) {
	for _, tr := range []Transport{Unix, TCP} {
		t.Run(tr.String(), func(t *testing.T) { test(t, tr) })
	}
}

// connect makes two nodes and the connection from the first to the second.
func connect(t *testing.T, tr Transport, opts ...Option) (a, b *Node, p *Peer) {
	dir := tempDir(t)
	a, b = node(t, dir, tr, opts...), node(t, dir, tr, opts...)
	p, err := a.Peer(ctx, b.WorkerID())
	require.NoError(t, err)
	require.Equal(t, tr, p.Transport())
	require.Equal(t, b.WorkerID(), p.WorkerID())
	return a, b, p
}

// process starts a child node and waits until it is there.
func process(t *testing.T, dir string, tr Transport) (WorkerID, *exec.Cmd) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	if tr == TCP {
		cmd.Env = append(cmd.Env, "NOVA_CONTROL_TCP=1")
	}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGCONT)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	s := bufio.NewScanner(out)
	require.True(t, s.Scan())
	var id WorkerID
	_, err = fmt.Sscanf(s.Text(), "%x", (*uint64)(&id))
	require.NoError(t, err, s.Text())
	return id, cmd
}

func TestCallsAndMessages(t *testing.T) {
	transports(t, func(t *testing.T, tr Transport) {
		a, b, p := connect(t, tr)
		require.NoError(t, b.Handle("echo", echo))
		require.NoError(t, b.HandleInline("inline", echo))
		require.ErrorIs(t, b.Handle("echo", echo), ErrDuplicateHandler)
		require.ErrorIs(t, b.Handle("", echo), ErrConfig)
		for _, name := range []string{"echo", "inline"} {
			for _, size := range []int{0, 1, 5000, 1 << 20} {
				want := strings.Repeat("x", size)
				got, err := p.Call(ctx, name, Message{Payload: []byte(want)})
				require.NoError(t, err)
				require.Equal(t, want, string(got.Payload))
			}
		}
		// Active messages in order, and the way back over the same connection.
		got := make(chan uint64, 4000)
		take := func(_ context.Context, from *Peer, m Message) { got <- binary.LittleEndian.Uint64(m.Payload) }
		require.NoError(t, b.HandleAMInline("n", take))
		require.NoError(t, a.HandleAMInline("n", take))
		back, err := b.Peer(ctx, a.WorkerID())
		require.NoError(t, err)
		for _, peer := range []*Peer{p, back} {
			for i := range uint64(1000) {
				require.NoError(t, peer.Send(ctx, "n", Message{Payload: binary.LittleEndian.AppendUint64(nil, i)}))
			}
			for i := range uint64(1000) {
				require.Equal(t, i, <-got)
			}
			for i := range uint64(1000) {
				require.NoError(t, peer.SendBulk(ctx, "n", binary.LittleEndian.AppendUint64(nil, i)))
			}
			for i := range uint64(1000) {
				require.Equal(t, i, <-got)
			}
		}
		_, err = a.Peer(ctx, a.WorkerID())
		require.ErrorIs(t, err, ErrSelf)
		_, err = a.Peer(ctx, 42)
		require.ErrorIs(t, err, ErrUnknownPeer)
	})
}

func TestTypedHelpers(t *testing.T) {
	transports(t, func(t *testing.T, tr Transport) {
		_, b, p := connect(t, tr)
		require.NoError(t, HandleUnary(b, "len", func(_ context.Context, _ *Peer, s *wrapperspb.StringValue) (*wrapperspb.Int64Value, error) {
			return wrapperspb.Int64(int64(len(s.Value))), nil
		}))
		n, err := CallUnary[*wrapperspb.StringValue, *wrapperspb.Int64Value](ctx, p, "len", wrapperspb.String("four"))
		require.NoError(t, err)
		require.Equal(t, int64(4), n.Value)
		_, err = p.Call(ctx, "len", Message{Payload: []byte{0xff}})
		require.ErrorIs(t, err, ErrMalformed)
	})
}

func TestDescriptors(t *testing.T) {
	transports(t, func(t *testing.T, tr Transport) {
		_, b, p := connect(t, tr)
		r, w, err := os.Pipe()
		require.NoError(t, err)
		defer r.Close()
		defer w.Close()
		wfd := int(w.Fd()) // Fd changes the file: the handler's goroutine must not call it too
		require.NoError(t, b.HandleInline("write", func(_ context.Context, _ *Peer, m Message) (Message, error) {
			defer closeFDs(m.FDs)
			for _, fd := range m.FDs {
				if _, err := syscall.Write(fd, []byte("x")); err != nil {
					return Message{}, err
				}
			}
			d, err := syscall.Dup(wfd)
			return Message{FDs: []int{d}}, err
		}))
		got, err := p.Call(ctx, "write", Message{FDs: []int{wfd, wfd}})
		if tr == TCP {
			require.ErrorIs(t, err, ErrNoDescriptors)
			_, err = p.Call(ctx, "write", Message{})
			require.ErrorIs(t, err, ErrNoDescriptors)
			return
		}
		require.NoError(t, err)
		require.Len(t, got.FDs, 1)
		_, err = syscall.Write(got.FDs[0], []byte("y"))
		require.NoError(t, err)
		closeFDs(got.FDs)
		buf := make([]byte, 8)
		n, err := r.Read(buf)
		require.NoError(t, err)
		require.Equal(t, "xxy", string(buf[:n]))
		_, err = p.Call(ctx, "write", Message{FDs: make([]int, MaxFDs+1)})
		require.ErrorIs(t, err, ErrMessageTooLarge)
		// Descriptors that nobody takes are closed.
		before := descriptors(t)
		for range 50 {
			_, err = p.Call(ctx, "nobody", Message{FDs: []int{wfd}})
			require.ErrorIs(t, err, ErrUnknownHandler)
		}
		require.Eventually(t, func() bool { return descriptors(t) <= before }, 5*time.Second, time.Millisecond)
	})
}

// settles waits for a condition without a goroutine of its own, which would be
// counted.
func settles(t testing.TB, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !cond(); runtime.Gosched() {
		require.True(t, time.Now().Before(end), "it does not settle")
	}
}

func descriptors(t testing.TB) int {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc/self/fd to count descriptors in")
	}
	return len(fds)
}

// A peer that restarts: its old connection ends, a new one is made.
func TestConf_35_PeerRestarts(t *testing.T) {
	transports(t, func(t *testing.T, tr Transport) {
		dir := tempDir(t)
		n := node(t, dir, tr)
		for range 3 {
			id, cmd := process(t, dir, tr)
			p, err := n.Peer(ctx, id)
			require.NoError(t, err)
			told := make(chan error, 1)
			p.OnClose(func(err error) { told <- err })
			_, err = p.Call(ctx, "echo", Message{})
			require.NoError(t, err)
			require.NoError(t, cmd.Process.Kill())
			require.ErrorIs(t, <-told, ErrConnLost)
			<-p.Done()
			_, err = p.Call(ctx, "echo", Message{})
			require.ErrorIs(t, err, ErrConnLost)
			_ = cmd.Wait()
			_, err = n.Peer(ctx, id)
			require.ErrorIs(t, err, ErrUnknownPeer, "its entry is stale")
		}
		require.Empty(t, n.Peers())
	})
}

// Every decoder survives truncation, garbage and oversize lengths.
func TestConf_37_DecodersSurviveGarbage(t *testing.T) {
	transports(t, func(t *testing.T, tr Transport) {
		dir := tempDir(t)
		n := node(t, dir, tr, WithMaxMessage(1<<16))
		require.NoError(t, n.Handle("echo", echo))
		good := node(t, dir, tr)
		p, err := good.Peer(ctx, n.WorkerID())
		require.NoError(t, err)
		hello, err := proto.Marshal(good.hello())
		require.NoError(t, err)
		framed := append(binary.LittleEndian.AppendUint32(nil, uint32(len(hello))), hello...)
		for _, junk := range [][]byte{
			{}, {1}, {0xff, 0xff, 0xff, 0xff}, {4, 0, 0, 0, 0xff, 0xff, 0xff, 0xff},
			framed[:len(framed)-1], append(append([]byte{}, framed...), 0xff, 0xff, 0xff, 0x7f),
			append(append([]byte{}, framed...), 3, 0, 0, 0, 0xff, 0xff, 0xff),
			append(append([]byte{}, framed...), 2, 0, 0, 0, 0x38, 5), // descriptors that did not come
			[]byte("GET / HTTP/1.1\r\n\r\n"),
		} {
			network, addr := "unix", n.SocketPath()
			if tr == TCP {
				network, addr = "tcp", n.TCPAddr()
			}
			c, err := net.Dial(network, addr)
			require.NoError(t, err)
			_, _ = c.Write(junk)
			if tr == Unix && len(junk) > len(framed) {
				_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
				for err == nil { // the greeting, and then the end
					_, err = c.Read(make([]byte, 4096))
				}
				require.False(t, errors.Is(err, os.ErrDeadlineExceeded), "%x was not refused", junk)
			}
			c.Close()
		}
		// More than the node takes, from one that may send more: its connection ends.
		_, err = p.Call(ctx, "echo", Message{Payload: make([]byte, 1<<17)})
		require.ErrorIs(t, err, ErrConnLost)
		<-p.Done()
		p, err = good.Peer(ctx, n.WorkerID())
		require.NoError(t, err)
		_, err = p.Call(ctx, "echo", Message{})
		require.NoError(t, err)
	})
}

func FuzzEnvelope(f *testing.F) {
	b, _ := proto.Marshal(&controlpb.Envelope{Type: controlpb.Envelope_REQUEST, Id: 1, Name: "x", Payload: []byte("y"), Descriptors: 1})
	f.Add(append(binary.LittleEndian.AppendUint32(nil, uint32(len(b))), b...))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
		require.NoError(t, err)
		defer syscall.Close(fds[1])
		file := os.NewFile(uintptr(fds[0]), "")
		c, err := net.FileConn(file)
		file.Close()
		require.NoError(t, err)
		defer c.Close()
		go func() {
			_, _ = syscall.Write(fds[1], b)
			_ = syscall.Shutdown(fds[1], syscall.SHUT_WR)
		}()
		u := newUnixConn(c.(*net.UnixConn), 1<<12)
		for range len(b) + 1 {
			if _, fds, err := u.next(); err != nil {
				u.drop()
				return
			} else {
				closeFDs(fds)
			}
		}
	})
}

// Losing the connection fails every queued send with a typed error.
func TestConf_39_LostConnectionFailsSends(t *testing.T) {
	transports(t, func(t *testing.T, tr Transport) {
		dir := tempDir(t)
		n := node(t, dir, tr)
		id, cmd := process(t, dir, tr)
		p, err := n.Peer(ctx, id)
		require.NoError(t, err)
		require.NoError(t, cmd.Process.Signal(syscall.SIGSTOP))
		var wg sync.WaitGroup
		errs := make(chan error, 40)
		for range 20 { // more than any buffer on the way holds
			wg.Go(func() {
				for {
					if err := p.SendBulk(ctx, "x", make([]byte, 1<<20)); err != nil {
						errs <- err
						return
					}
				}
			})
			wg.Go(func() {
				_, err := p.Call(ctx, "echo", Message{})
				errs <- err
			})
		}
		require.NoError(t, cmd.Process.Kill())
		wg.Wait()
		for range 40 {
			require.ErrorIs(t, <-errs, ErrConnLost)
		}
		require.ErrorIs(t, p.Send(ctx, "x", Message{}), ErrConnLost)
	})
}

// A handler that panics answers an error and the node lives on.
func TestConf_40_HandlerPanic(t *testing.T) {
	transports(t, func(t *testing.T, tr Transport) {
		_, b, p := connect(t, tr)
		bad := func(context.Context, *Peer, Message) (Message, error) { panic("oh") }
		require.NoError(t, b.Handle("bad", bad))
		require.NoError(t, b.HandleInline("bad-inline", bad))
		require.NoError(t, b.HandleAM("bad-am", func(context.Context, *Peer, Message) { panic("oh") }))
		require.NoError(t, b.Handle("echo", echo))
		for _, name := range []string{"bad", "bad-inline"} {
			_, err := p.Call(ctx, name, Message{})
			require.ErrorIs(t, err, ErrHandlerPanic)
			require.ErrorContains(t, err, "oh")
		}
		require.NoError(t, p.Send(ctx, "bad-am", Message{}))
		_, err := p.Call(ctx, "echo", Message{})
		require.NoError(t, err)
	})
}

var errTest = errors.New("test: a registered error")

// Unknown handler, registered errors and a missed deadline are typed errors.
func TestConf_41_TypedErrors(t *testing.T) {
	RegisterError("test.error", errTest)
	transports(t, func(t *testing.T, tr Transport) {
		_, b, p := connect(t, tr)
		require.NoError(t, b.Handle("fail", func(context.Context, *Peer, Message) (Message, error) {
			return Message{}, fmt.Errorf("while testing: %w", errTest)
		}))
		ended := make(chan error, 1)
		require.NoError(t, b.Handle("slow", func(ctx context.Context, _ *Peer, _ Message) (Message, error) {
			<-ctx.Done()
			ended <- ctx.Err()
			return Message{}, ctx.Err()
		}))
		_, err := p.Call(ctx, "nobody", Message{})
		require.ErrorIs(t, err, ErrUnknownHandler)
		_, err = p.Call(ctx, "fail", Message{})
		require.ErrorIs(t, err, errTest)
		require.ErrorContains(t, err, "while testing")
		var remote *RemoteError
		require.ErrorAs(t, err, &remote)
		short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		defer cancel()
		_, err = p.Call(short, "slow", Message{})
		require.ErrorIs(t, err, ErrDeadline)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Error(t, <-ended)
		given, give := context.WithCancel(ctx)
		go give()
		_, err = p.Call(given, "slow", Message{})
		require.ErrorIs(t, err, context.Canceled)
		select {
		case err := <-ended: // the handler may never have begun
			require.ErrorIs(t, err, context.Canceled)
		case <-time.After(100 * time.Millisecond):
		}
	})
}

// Shutdown: what is in flight finishes, new requests fail fast.
func TestConf_42_Shutdown(t *testing.T) {
	transports(t, func(t *testing.T, tr Transport) {
		_, b, p := connect(t, tr)
		begun, finish := make(chan struct{}), make(chan struct{})
		require.NoError(t, b.Handle("slow", func(context.Context, *Peer, Message) (Message, error) {
			close(begun)
			<-finish
			return Message{Payload: []byte("done")}, nil
		}))
		answer := make(chan error, 1)
		go func() {
			m, err := p.Call(ctx, "slow", Message{})
			if err == nil && string(m.Payload) != "done" {
				err = errors.New("another answer")
			}
			answer <- err
		}()
		<-begun
		down := make(chan error, 1)
		go func() { down <- b.Shutdown(ctx) }()
		require.Eventually(t, func() bool {
			_, err := p.Call(ctx, "slow", Message{})
			return errors.Is(err, ErrShutdown)
		}, 5*time.Second, time.Millisecond)
		close(finish)
		require.NoError(t, <-answer)
		require.NoError(t, <-down)
		<-p.Done()
	})
}

// Two independent nodes in one process, each serving and calling, under load: no
// growth, no hang.
func TestConf_53_TwoNodesInOneProcess(t *testing.T) {
	transports(t, func(t *testing.T, tr Transport) {
		a, b, p := connect(t, tr)
		require.NoError(t, a.Handle("echo", echo))
		require.NoError(t, b.Handle("echo", echo))
		q, err := b.Peer(ctx, a.WorkerID())
		require.NoError(t, err)
		load := func() {
			var wg sync.WaitGroup
			for _, peer := range []*Peer{p, q} {
				for range 8 {
					wg.Go(func() {
						for range 100 {
							if _, err := peer.Call(ctx, "echo", Message{Payload: make([]byte, 1000)}); err != nil {
								t.Error(err)
								return
							}
						}
					})
				}
			}
			wg.Wait()
		}
		load()
		before := runtime.NumGoroutine()
		load()
		settles(t, func() bool { return runtime.NumGoroutine() <= before })
	})
}

func TestWatchNoticesAStoppedPeer(t *testing.T) {
	transports(t, func(t *testing.T, tr Transport) {
		dir := tempDir(t)
		n := node(t, dir, tr)
		id, cmd := process(t, dir, tr)
		p, err := n.Peer(ctx, id)
		require.NoError(t, err)
		var early atomic.Bool
		told := make(chan time.Duration, 1)
		stop := p.Watch(time.Minute, func(time.Duration) { early.Store(true) })
		defer stop()
		const silence = 500 * time.Millisecond // more than a busy machine keeps a living peer waiting
		p.Watch(silence, func(d time.Duration) { told <- d })
		// It is heard although it has nothing to say.
		select {
		case d := <-told:
			require.Fail(t, "a living peer was silent", "%v", d)
		case <-time.After(2 * silence):
		}
		require.NoError(t, cmd.Process.Signal(syscall.SIGSTOP))
		require.GreaterOrEqual(t, <-told, silence)
		require.False(t, early.Load())
	})
}

func TestListenRefuses(t *testing.T) {
	dir := tempDir(t)
	long := filepath.Join(dir, strings.Repeat("x", 100))
	_, err := Listen(ctx, WithDir(long))
	require.ErrorIs(t, err, ErrSocketPath)
	require.ErrorContains(t, err, "107")
	open := filepath.Join(dir, "open")
	require.NoError(t, os.Mkdir(open, 0o700))
	require.NoError(t, os.Chmod(open, 0o777))
	_, err = Listen(ctx, WithDir(open))
	require.ErrorIs(t, err, ErrInsecureDir)
	require.ErrorContains(t, err, "0777")
	link := filepath.Join(dir, "link")
	require.NoError(t, os.Symlink(dir, link))
	_, err = Listen(ctx, WithDir(link))
	require.ErrorIs(t, err, ErrInsecureDir)
	_, err = Listen(ctx, WithDir(dir), WithTCP("0.0.0.0:0"))
	require.ErrorIs(t, err, ErrInsecureTCP)
	require.ErrorContains(t, err, "Insecure")
	_, err = Listen(ctx, WithDir(dir), WithMaxMessage(1))
	require.ErrorIs(t, err, ErrConfig)
	n := node(t, dir, Unix)
	_, err = n.Dial(ctx, "192.0.2.1:1")
	require.ErrorIs(t, err, ErrInsecureTCP)
	_, err = n.Dial(ctx, "unix:"+filepath.Join(dir, "nobody.sock"))
	require.ErrorIs(t, err, ErrUnreachable)
	_, err = Listen(ctx, WithDir(dir), WithInstanceID(n.InstanceID()))
	require.ErrorContains(t, err, "living node")
}

// A peer of another uid is refused by either side, and let in where both are
// configured to.
func TestAnotherUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can start a child as another user")
	}
	const uid = 65534
	bin := filepath.Join(tempDir(t), "test")
	require.NoError(t, os.Chmod(filepath.Dir(bin), 0o755))
	self, err := os.ReadFile(os.Args[0])
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(bin, self, 0o755))
	for _, c := range []struct {
		node, child bool // allows the other
		says        string
	}{
		{false, false, "runs as user 0, this node as user 65534: AllowUID(0)"},
		{true, false, "runs as user 0, this node as user 65534: AllowUID(0)"},
		{false, true, "does it allow user 65534 (AllowUID)"},
		{true, true, "result: <nil>"},
	} {
		dir, own := tempDir(t), tempDir(t)
		var opts []Option
		if c.node {
			opts = append(opts, AllowUID(uid))
		}
		n := node(t, dir, Unix, opts...)
		require.NoError(t, n.Handle("echo", func(_ context.Context, from *Peer, m Message) (Message, error) {
			if from.UID() != uid {
				return m, fmt.Errorf("the kernel says user %d", from.UID())
			}
			return Message{Payload: m.Payload}, nil
		}))
		require.NoError(t, os.Chmod(dir, 0o755))
		if !c.node {
			require.NoError(t, os.Chmod(n.SocketPath(), 0o666)) // not the mode is to refuse it
		}
		require.NoError(t, os.Chown(own, uid, uid))
		cmd := exec.Command(bin)
		cmd.Dir = "/"
		cmd.Env = append(os.Environ(), childEnv+"="+own, "NOVA_CONTROL_OWN="+own, "NOVA_CONTROL_DIAL="+n.SocketPath())
		if c.child {
			cmd.Env = append(cmd.Env, "NOVA_CONTROL_ALLOW=1")
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Contains(t, string(out), c.says, "%+v", c)
		if c.says != "result: <nil>" {
			require.Contains(t, string(out), "refused")
		}
	}
}

func TestStaleEntriesAreRemoved(t *testing.T) {
	dir := tempDir(t)
	d := Directory(dir)
	id, cmd := process(t, dir, Unix)
	e, err := d.Lookup(ctx, id)
	require.NoError(t, err)
	require.FileExists(t, e.Socket)
	list, err := d.List(ctx)
	require.NoError(t, err)
	require.Len(t, list, 1)
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
	list, err = d.List(ctx)
	require.NoError(t, err)
	require.Empty(t, list)
	require.NoFileExists(t, e.Socket)
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "0000000000000001.node"), []byte("garbage"), 0o600))
	_, err = d.Lookup(ctx, 1)
	require.ErrorIs(t, err, ErrUnknownPeer)
	_, err = Static().Lookup(ctx, 1)
	require.ErrorIs(t, err, ErrUnknownPeer)
}

func TestUsersOwnGRPCServer(t *testing.T) {
	dir := tempDir(t)
	n := node(t, dir, Unix)
	require.NoError(t, n.Handle("echo", echo))
	srv := grpc.NewServer()
	n.Register(srv)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() { _ = srv.Serve(l) }()
	defer srv.Stop()
	other := node(t, tempDir(t), TCP, WithDiscovery(Static(Entry{Instance: n.InstanceID(), TCP: l.Addr().String()})))
	m, err := other.Call(ctx, n.WorkerID(), "echo", Message{Payload: []byte("over the user's server")})
	require.NoError(t, err)
	require.Equal(t, "over the user's server", string(m.Payload))
}

func TestGrants(t *testing.T) {
	var g Grants
	tok, err := g.Issue(time.Minute, 7)
	require.NoError(t, err)
	v, err := g.Redeem(tok)
	require.NoError(t, err)
	require.Equal(t, 7, v)
	_, err = g.Redeem(tok)
	require.ErrorIs(t, err, ErrGrant)
	tok, err = g.Issue(-time.Second, 7)
	require.NoError(t, err)
	_, err = g.Redeem(tok)
	require.ErrorIs(t, err, ErrGrant)
	_, err = g.Redeem(Token{})
	require.ErrorIs(t, err, ErrGrant)
}

func TestNothingIsLeft(t *testing.T) {
	transports(t, func(t *testing.T, tr Transport) {
		run := func() {
			dir := tempDir(t)
			opts := []Option{WithDir(dir)}
			if tr == TCP {
				opts = append(opts, WithoutUnix(), WithTCP("127.0.0.1:0"))
			}
			a, err := Listen(ctx, opts...)
			require.NoError(t, err)
			b, err := Listen(ctx, opts...)
			require.NoError(t, err)
			require.NoError(t, b.Handle("echo", echo))
			_, err = a.Call(ctx, b.WorkerID(), "echo", Message{})
			require.NoError(t, err)
			require.NoError(t, a.Close())
			require.NoError(t, b.Close())
			left, err := os.ReadDir(dir)
			require.NoError(t, err)
			require.Empty(t, left)
		}
		run()
		goroutines, fds := runtime.NumGoroutine(), descriptors(t)
		for range 20 {
			run()
		}
		settles(t, func() bool { return runtime.NumGoroutine() <= goroutines && descriptors(t) <= fds })
	})
}

func ExampleListen() {
	dir, _ := os.MkdirTemp("", "nc")
	defer os.RemoveAll(dir)
	server, err := Listen(ctx, WithDir(dir))
	if err != nil {
		panic(err)
	}
	defer server.Close()
	_ = server.Handle("greet", func(_ context.Context, _ *Peer, req Message) (Message, error) {
		return Message{Payload: append([]byte("hello, "), req.Payload...)}, nil
	})
	client, err := Listen(ctx, WithDir(dir))
	if err != nil {
		panic(err)
	}
	defer client.Close()
	m, err := client.Call(ctx, server.WorkerID(), "greet", Message{Payload: []byte("nova")})
	fmt.Println(string(m.Payload), err)
	// Output: hello, nova <nil>
}
