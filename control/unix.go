//go:build unix

package control

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/novastream/novastream/control/internal/controlpb"
)

// unixConn carries envelopes over a Unix socket: each is preceded by its length
// in four bytes, and its descriptors come with its first byte. A read brings the
// descriptors of one envelope at most, so they are kept in sets, one for each
// envelope that announces any.
type unixConn struct {
	c   *net.UnixConn
	max int

	mu  sync.Mutex
	buf []byte

	// The reader's own.
	in  []byte
	r   int
	oob []byte
	fds []fdSet
	env controlpb.Envelope
}

// fdSet is the descriptors of one envelope.
type fdSet struct {
	fds []int
	cut bool // this process had no room for all of them
}

// envelopeRoom is how much larger than its payload an envelope may be.
const envelopeRoom = 4096

func newUnixConn(c *net.UnixConn, maxMessage int) *unixConn {
	return &unixConn{c: c, max: maxMessage + envelopeRoom, oob: make([]byte, syscall.CmsgSpace(4*MaxFDs))}
}

func (u *unixConn) close() { u.c.Close() }

// drain shuts the writing half: the kernel has everything that was sent.
func (u *unixConn) drain() { _ = u.c.CloseWrite() }

// writeTimeout bounds a write that nothing else bounds.
const writeTimeout = 30 * time.Second

func (u *unixConn) send(ctx context.Context, e *controlpb.Envelope, fds []int) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	b, err := proto.MarshalOptions{}.MarshalAppend(append(u.buf[:0], 0, 0, 0, 0), e)
	if err != nil {
		return err
	}
	u.buf = b[:0]
	if cap(b) > 1<<20 {
		u.buf = nil
	}
	if len(b)-4 > u.max {
		return fmt.Errorf("%w: envelope of %d bytes, at most %d", ErrMessageTooLarge, len(b)-4, u.max)
	}
	binary.LittleEndian.PutUint32(b, uint32(len(b)-4))
	var oob []byte
	if len(fds) > 0 {
		oob = syscall.UnixRights(fds...)
	}
	limit, ok := ctx.Deadline()
	if !ok {
		limit = time.Now().Add(writeTimeout)
	}
	if err := u.c.SetWriteDeadline(limit); err != nil {
		return err
	}
	n, _, err := u.c.WriteMsgUnix(b, oob, nil)
	for err == nil && n < len(b) {
		var k int
		k, err = u.c.Write(b[n:])
		n += k
	}
	if err != nil && n > 0 {
		// Half a message cannot be taken back.
		u.c.Close()
	}
	return err
}

// bulk needs no way of its own here: whoever has a Unix socket has shared memory
// for data.
func (u *unixConn) bulk(ctx context.Context, e *controlpb.Envelope) error { return u.send(ctx, e, nil) }

// next reads one envelope, valid until the next call. Its descriptors are the
// caller's.
func (u *unixConn) next() (*controlpb.Envelope, []int, error) {
	if err := u.fill(4); err != nil {
		return nil, nil, err
	}
	n := int(binary.LittleEndian.Uint32(u.in[u.r:]))
	if n > u.max {
		return nil, nil, fmt.Errorf("%w: envelope of %d bytes, at most %d", ErrMessageTooLarge, n, u.max)
	}
	if err := u.fill(4 + n); err != nil {
		return nil, nil, err
	}
	u.env.Reset()
	if err := proto.Unmarshal(u.in[u.r+4:u.r+4+n], &u.env); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	u.r += 4 + n
	want := int(u.env.Descriptors)
	if want == 0 {
		return &u.env, nil, nil
	}
	if len(u.fds) == 0 {
		return nil, nil, fmt.Errorf("%w: %d descriptors announced, none have come", ErrMalformed, want)
	}
	set := u.fds[0]
	u.fds = u.fds[1:]
	switch {
	case set.cut: // the envelope is served without them, as a failure
		closeFDs(set.fds)
		return &u.env, nil, nil
	case want != len(set.fds):
		closeFDs(set.fds)
		return nil, nil, fmt.Errorf("%w: %d descriptors announced, %d have come", ErrMalformed, want, len(set.fds))
	}
	return &u.env, set.fds, nil
}

// fill reads until n bytes are there.
func (u *unixConn) fill(n int) error {
	for len(u.in)-u.r < n {
		if u.r > 0 && (u.r == len(u.in) || cap(u.in)-u.r < n) {
			u.in = u.in[:copy(u.in, u.in[u.r:])]
			u.r = 0
		}
		if cap(u.in)-len(u.in) < 4096 {
			u.in = append(make([]byte, 0, max(2*cap(u.in), n+4096, 16<<10)), u.in...)
		}
		k, oobn, flags, _, err := u.c.ReadMsgUnix(u.in[len(u.in):cap(u.in)], u.oob)
		cut := flags&syscall.MSG_CTRUNC != 0
		if oobn > 0 || cut {
			fds, e := parseRights(u.oob[:oobn])
			u.fds = append(u.fds, fdSet{fds, cut})
			if e != nil {
				return e
			}
			if len(fds) > MaxFDs || len(u.fds) > maxSets {
				return fmt.Errorf("%w: more descriptors than a message may carry", ErrMalformed)
			}
		}
		if k == 0 && err == nil {
			err = io.EOF
		}
		if err != nil {
			if errors.Is(err, io.EOF) && len(u.in) > u.r {
				return fmt.Errorf("%w: the connection ended within a message", io.ErrUnexpectedEOF)
			}
			return err
		}
		u.in = u.in[:len(u.in)+k]
	}
	return nil
}

// parseRights takes the descriptors out of a control message; what it finds is
// the caller's also when it answers an error.
func parseRights(oob []byte) (fds []int, err error) {
	msgs, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("%w: control message: %w", ErrMalformed, err)
	}
	for i := range msgs {
		if got, e := syscall.ParseUnixRights(&msgs[i]); e == nil {
			fds = append(fds, got...)
		}
	}
	return fds, nil
}

// maxSets bounds the sets that wait for their envelopes: it is read on only while an
// envelope is not whole, so there are its own and those of the next one, which came
// with its last bytes. More belong to none, and would only be held.
const maxSets = 2

// drop closes the descriptors that came and that nobody took.
func (u *unixConn) drop() {
	for _, set := range u.fds {
		closeFDs(set.fds)
	}
	u.fds = nil
}

func closeFDs(fds []int) {
	for _, fd := range fds {
		syscall.Close(fd)
	}
}

// listenUnix makes the node's socket. A stale one of the same name, which only a
// node of the same instance id can have left, is replaced.
func (n *Node) listenUnix(path string) error {
	if err := checkSocketPath(path); err != nil {
		return err
	}
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return fmt.Errorf("control: listen on %s: a living node has it", path)
	}
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("control: replace stale socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return fmt.Errorf("control: listen on %s: %w", path, err)
	}
	if err := os.Chmod(path, 0o600); err != nil && len(n.uids) == 0 {
		l.Close()
		return fmt.Errorf("control: listen on %s: %w", path, err)
	}
	if len(n.uids) > 0 {
		_ = os.Chmod(path, 0o666) // SO_PEERCRED decides
	}
	n.unix, n.socket = l, path
	n.wg.Add(1)
	go n.acceptUnix(l)
	return nil
}

func (n *Node) acceptUnix(l *net.UnixListener) {
	defer n.wg.Done()
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			n.log.Warn("accept failed", "socket", n.socket, "error", err)
			select { // out of descriptors, say: others are served meanwhile
			case <-n.ctx.Done():
				return
			case <-time.After(acceptPause):
			}
			continue
		}
		n.wg.Add(1)
		go func() {
			defer n.wg.Done()
			if _, err := n.greetUnix(c, false); err != nil {
				n.log.Warn("connection refused", "socket", n.socket, "error", err)
			}
		}()
	}
}

// acceptPause keeps a listener that cannot accept from spinning.
const acceptPause = 10 * time.Millisecond

// helloTimeout bounds the exchange of greetings.
const helloTimeout = 5 * time.Second

// greetUnix checks who the other side is, exchanges greetings and starts to
// read.
func (n *Node) greetUnix(c *net.UnixConn, dialled bool) (p *Peer, err error) {
	uid, pid, err := peerCred(c)
	if err != nil {
		c.Close()
		return nil, err
	}
	if uid >= 0 && uid != os.Geteuid() && !contains(n.uids, uid) {
		c.Close()
		return nil, fmt.Errorf("%w: it runs as user %d, this node as user %d: AllowUID(%d) would let it in", ErrPeerRefused, uid, os.Geteuid(), uid)
	}
	if !dialled {
		who := caller{uid, pid}
		if err := n.enter(who); err != nil {
			c.Close()
			return nil, err
		}
		defer func() {
			if p == nil {
				n.leave(who)
			} else {
				p.OnClose(func(error) { n.leave(who) })
			}
		}()
	}
	u := newUnixConn(c, n.maxMessage)
	ctx, cancel := context.WithTimeout(n.ctx, helloTimeout)
	defer cancel()
	stop := context.AfterFunc(n.ctx, func() { c.Close() })
	defer stop()
	_ = c.SetReadDeadline(time.Now().Add(helloTimeout))
	hello, err := func() (*controlpb.Hello, error) {
		if err := u.send(ctx, n.hello(), nil); err != nil {
			return nil, err
		}
		e, fds, err := u.next()
		closeFDs(fds)
		if err != nil {
			return nil, err
		}
		return e.Hello, nil
	}()
	if dialled && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)) {
		err = fmt.Errorf("%w: it hung up without a greeting: does it allow user %d (AllowUID)? Does it shut down?", ErrPeerRefused, os.Geteuid())
	}
	if err == nil {
		var id InstanceID
		if id, err = checkHello(hello); err == nil {
			_ = c.SetReadDeadline(time.Time{})
			q := newPeer(n, Unix, id)
			q.conn, q.uid, q.pid = u, uid, pid
			q.deaths.process = processOf(c, pid)
			if err = n.add(q, dialled); err == nil {
				n.wg.Add(1)
				go n.readUnix(q, u)
				return q, nil
			}
			q.deaths.letGo()
		}
	}
	u.drop()
	c.Close()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("%w: it has not greeted within %v: it may be stopped: %w", ErrUnreachable, helloTimeout, err)
	}
	return nil, fmt.Errorf("control: greeting: %w", err)
}

func (n *Node) readUnix(p *Peer, u *unixConn) {
	defer n.wg.Done()
	for {
		e, fds, err := u.next()
		if err != nil {
			u.drop()
			p.fail(err)
			return
		}
		p.serve(e, fds)
	}
}

func (n *Node) dialUnix(ctx context.Context, path string) (*Peer, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	return n.greetUnix(c.(*net.UnixConn), true)
}
