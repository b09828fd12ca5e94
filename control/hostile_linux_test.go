package control

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/novastream/novastream/control/internal/controlpb"
)

// wire is an envelope as it goes over a Unix socket.
func wire(e *controlpb.Envelope) []byte {
	b, err := proto.Marshal(e)
	if err != nil {
		panic(err)
	}
	return append(binary.LittleEndian.AppendUint32(nil, uint32(len(b))), b...)
}

func helloOf(id InstanceID) *controlpb.Envelope {
	return &controlpb.Envelope{Type: controlpb.Envelope_HELLO, Hello: &controlpb.Hello{Version: protocolVersion, Instance: id[:]}}
}

// raw is a connection to a node that keeps to nothing.
func raw(t testing.TB, n *Node, id InstanceID) *net.UnixConn {
	c, err := net.Dial("unix", n.SocketPath())
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	_, err = c.Write(wire(helloOf(id)))
	require.NoError(t, err)
	return c.(*net.UnixConn)
}

// ended waits for the node to end a connection.
func ended(t testing.TB, c net.Conn) {
	t.Helper()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(20*time.Second)))
	for {
		if _, err := c.Read(make([]byte, 4096)); err != nil {
			require.False(t, errors.Is(err, os.ErrDeadlineExceeded), "the connection stands")
			return
		}
	}
}

// victim is a node with an honest peer.
func victim(t *testing.T) (n *Node, calls func() error) {
	quiet := WithLogger(slog.New(slog.DiscardHandler)) // it has much to say
	n, _, other := connect(t, Unix, quiet)
	a := node(t, n.cfg.dir, Unix, quiet)
	require.NoError(t, n.HandleInline("pass", func(_ context.Context, _ *Peer, m Message) (Message, error) {
		closeFDs(m.FDs)
		return Message{Payload: m.Payload}, nil
	}))
	p, err := a.Peer(ctx, n.WorkerID())
	require.NoError(t, err)
	calls = func() error {
		_, err := p.Call(ctx, "pass", Message{})
		return err
	}
	// Both connections are made whole, at either end, before anybody counts.
	require.NoError(t, calls())
	_, err = other.Call(ctx, "nobody's", Message{})
	require.ErrorIs(t, err, ErrUnknownHandler)
	return n, calls
}

// What a peer may do with descriptors costs it its own connection at most: nothing
// of it stays open, and others are served meanwhile.
func TestHostileDescriptors(t *testing.T) {
	n, calls := victim(t)
	request := func(descriptors uint32) []byte {
		return wire(&controlpb.Envelope{Type: controlpb.Envelope_REQUEST, Id: 1, Name: "pass", Descriptors: descriptors})
	}
	message := wire(&controlpb.Envelope{Type: controlpb.Envelope_MESSAGE, Name: "nobody's"})
	for _, c := range []struct {
		name string
		send func(c *net.UnixConn, rights func(n int) []byte) error
		ends bool // the node ends the connection
	}{
		{"fewer than announced", func(c *net.UnixConn, rights func(int) []byte) error {
			_, _, err := c.WriteMsgUnix(request(3), rights(2), nil)
			return err
		}, true},
		{"more than announced", func(c *net.UnixConn, rights func(int) []byte) error {
			_, _, err := c.WriteMsgUnix(request(1), rights(2), nil)
			return err
		}, true},
		{"announced and none", func(c *net.UnixConn, _ func(int) []byte) error {
			_, err := c.Write(request(3))
			return err
		}, true},
		{"more than a message may carry", func(c *net.UnixConn, rights func(int) []byte) error {
			_, _, err := c.WriteMsgUnix(request(200), rights(200), nil)
			return err
		}, false}, // the kernel cuts them off, as it does for want of room
		{"not announced, with each message", func(c *net.UnixConn, rights func(int) []byte) error {
			for range 1000 {
				if _, _, err := c.WriteMsgUnix(message, rights(8), nil); err != nil {
					return nil // it has ended
				}
			}
			return nil
		}, true},
		{"with each byte of a message", func(c *net.UnixConn, rights func(int) []byte) error {
			_, err := c.Write(binary.LittleEndian.AppendUint32(nil, 1<<20))
			for range 1000 {
				if _, _, err := c.WriteMsgUnix([]byte{0}, rights(8), nil); err != nil {
					return nil
				}
			}
			return err
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := descriptors(t)
			conn := raw(t, n, uuid.New())
			require.NoError(t, c.send(conn, func(n int) []byte {
				fds := make([]int, n)
				for i := range fds {
					fds[i] = int(os.Stdin.Fd())
				}
				return syscall.UnixRights(fds...)
			}))
			if c.ends {
				ended(t, conn)
			}
			require.NoError(t, calls())
			conn.Close()
			settles(t, func() bool { return descriptors(t) <= before })
		})
	}
}

// A node holds two sets of descriptors of a connection at most.
func TestDescriptorsThatAreNobodysAreNotHeld(t *testing.T) {
	n, calls := victim(t)
	before := descriptors(t)
	conn := raw(t, n, uuid.New())
	fds := make([]int, MaxFDs)
	for i := range fds {
		fds[i] = int(os.Stdin.Fd())
	}
	// Those of a message that is never whole.
	_, err := conn.Write(binary.LittleEndian.AppendUint32(nil, 1<<20))
	require.NoError(t, err)
	for range 40 {
		_, _, _ = conn.WriteMsgUnix([]byte{0}, syscall.UnixRights(fds...), nil)
	}
	require.NoError(t, calls())
	require.LessOrEqual(t, descriptors(t), before+3+2*MaxFDs)
	conn.Close()
	settles(t, func() bool { return descriptors(t) <= before })
}

// A process that opens one connection after another, ten thousand of them, or as many
// at once as it can, greeted or silent, takes nothing from the others.
func TestTenThousandConnections(t *testing.T) {
	n, calls := victim(t)
	before := descriptors(t)
	start := time.Now()
	const total = 10_000
	for i := range total {
		c, err := net.Dial("unix", n.SocketPath())
		require.NoError(t, err)
		if i%2 == 0 {
			_, _ = c.Write(wire(helloOf(uuid.New()))) // refused, if a thousand ends have not been noticed yet
		}
		c.Close()
		if i%1000 == 0 {
			require.NoError(t, calls())
		}
	}
	fmt.Printf("%d connections one after another: %v\n", total, time.Since(start))
	settles(t, func() bool { return descriptors(t) <= before && len(n.Peers()) <= 2 })

	var open []net.Conn
	refused := 0
	for i := range maxConns + 200 {
		c, err := net.Dial("unix", n.SocketPath())
		require.NoError(t, err)
		if i%2 == 0 {
			_, _ = c.Write(wire(helloOf(uuid.New())))
		}
		open = append(open, c)
	}
	require.NoError(t, calls())
	n.mu.Lock()
	for who, count := range n.conns {
		require.LessOrEqual(t, count, maxConns, "%+v", who)
	}
	n.mu.Unlock()
	for _, c := range open {
		_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
		for {
			if _, err := c.Read(make([]byte, 4096)); err != nil {
				if !errors.Is(err, os.ErrDeadlineExceeded) {
					refused++
				}
				break
			}
		}
	}
	require.GreaterOrEqual(t, refused, 200)
	for _, c := range open {
		c.Close()
	}
	settles(t, func() bool { return descriptors(t) <= before && len(n.Peers()) <= 2 })
	require.NoError(t, calls())
}

// A grant opens one bulk stream; a second one with it is refused, and so is one that
// nobody was given.
func TestGrantIsNotReplayed(t *testing.T) {
	n := node(t, tempDir(t), TCP)
	cc, err := grpc.NewClient(n.TCPAddr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer cc.Close()
	hub, err := cc.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, connectMethod, grpc.CallContentSubtype(codecName))
	require.NoError(t, err)
	require.NoError(t, hub.SendMsg(helloOf(uuid.New())))
	var hello controlpb.Envelope
	require.NoError(t, hub.RecvMsg(&hello))
	require.Len(t, hello.Hello.Grant, 16)
	bulk := func(token []byte) error {
		s, err := cc.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, bulkMethod, grpc.CallContentSubtype(codecName))
		require.NoError(t, err)
		require.NoError(t, s.SendMsg(&bulkFrame{payload: token}))
		done := make(chan error, 1)
		go func() { done <- s.RecvMsg(new(bulkFrame)) }()
		select {
		case err := <-done:
			return err
		case <-time.After(100 * time.Millisecond):
			return nil // it stands
		}
	}
	require.NoError(t, bulk(hello.Hello.Grant))
	for _, token := range [][]byte{hello.Hello.Grant, make([]byte, 16), hello.Hello.Grant[:7], nil} {
		require.Error(t, bulk(token))
	}
	require.Len(t, n.Peers(), 1)
}

// A connection that another user has made is answered, and is not used to reach the
// worker that it claims to be.
func TestAnotherUsersConnectionIsNotTakenForAWorker(t *testing.T) {
	n := node(t, tempDir(t), Unix)
	id := uuid.New()
	for uid, want := range map[int]bool{os.Geteuid(): true, os.Geteuid() + 1: false} {
		p := newPeer(n, Unix, id)
		p.uid, p.conn = uid, nowhere{}
		require.NoError(t, n.add(p, false))
		n.mu.Lock()
		best := n.best[peerKey{WorkerOf(id), Unix}]
		n.mu.Unlock()
		require.Equal(t, want, best == p)
		p.Close()
	}
}

// A peer that asks and asks and reads no answer is given up, and holds up nobody
// meanwhile.
func TestDeafPeerIsGivenUp(t *testing.T) {
	before := answerTimeout
	t.Cleanup(func() { answerTimeout = before }) // when the nodes are closed
	answerTimeout = 200 * time.Millisecond
	n, calls := victim(t)
	settles(t, func() bool { return len(n.Peers()) == 2 })
	c := raw(t, n, uuid.New())
	request := wire(&controlpb.Envelope{Type: controlpb.Envelope_REQUEST, Id: 1, Name: "nobody's"})
	var err error
	for err == nil { // until it is given up
		require.NoError(t, c.SetWriteDeadline(time.Now().Add(20*time.Second)))
		_, err = c.Write(request)
	}
	require.False(t, errors.Is(err, os.ErrDeadlineExceeded), "it is not given up")
	require.NoError(t, calls())
	settles(t, func() bool { return len(n.Peers()) == 2 })
}
