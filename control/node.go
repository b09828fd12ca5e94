package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/novastream/novastream/control/internal/controlpb"
)

// Node is this process's, or one of its, place among the others. Its methods may
// be called concurrently.
type Node struct {
	instance   InstanceID
	worker     WorkerID
	log        *slog.Logger
	maxMessage int
	uids       []int
	cfg        config
	discovery  Discovery
	started    time.Time
	ctx        context.Context // ends with Close
	cancel     context.CancelFunc
	wg         sync.WaitGroup
	table      atomic.Pointer[map[string]handler]
	grants     Grants

	unix   net.Listener
	socket string
	tcp    *tcpServer
	entry  io.Closer

	mu       sync.Mutex
	handlers map[string]handler
	peers    map[*Peer]struct{}
	best     map[peerKey]*Peer
	conns    map[caller]int // accepted over the Unix socket
	dialling map[peerKey]*dialling
	closed   bool
	stopping bool
	inFlight int
	drained  chan struct{}
}

type peerKey struct {
	worker    WorkerID
	transport Transport
}

// dialling is a dial that others wait for too.
type dialling struct {
	done chan struct{}
	peer *Peer
	err  error
}

// protocolVersion is what nodes must have in common.
const protocolVersion = 1

// Listen starts a node: its Unix socket in the runtime directory, its TCP server
// if asked for, and its entry in the discovery. The context bounds the start
// alone.
//
// Errors: ErrInsecureDir, ErrSocketPath, ErrInsecureTCP, ErrConfig, and those of
// the network.
func Listen(ctx context.Context, opts ...Option) (*Node, error) {
	c := config{maxMessage: DefaultMaxMessage, log: slog.Default(), dir: DefaultDir()}
	for _, o := range opts {
		o(&c)
	}
	if c.maxMessage < 1024 || c.maxMessage > 1<<30 {
		return nil, fmt.Errorf("%w: WithMaxMessage(%d): use 1024 to %d", ErrConfig, c.maxMessage, 1<<30)
	}
	if c.instance == (InstanceID{}) {
		c.instance = uuid.New()
	}
	n := &Node{
		instance: c.instance, worker: WorkerOf(c.instance), log: c.log, maxMessage: c.maxMessage, uids: c.uids, cfg: c,
		started: time.Now(), handlers: map[string]handler{}, peers: map[*Peer]struct{}{},
		best: map[peerKey]*Peer{}, conns: map[caller]int{}, dialling: map[peerKey]*dialling{},
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.table.Store(&n.handlers)
	if err := n.start(ctx); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

func (n *Node) start(ctx context.Context) error {
	c := &n.cfg
	if !c.noUnix || c.discovery == nil {
		if err := secureDir(c.dir, c.uids); err != nil {
			return err
		}
	}
	if n.discovery = c.discovery; n.discovery == nil {
		n.discovery = Directory(c.dir)
		_, _ = n.discovery.List(ctx) // removes what is stale
	}
	if !c.noUnix {
		if err := n.listenUnix(filepath.Join(c.dir, n.worker.String()+".sock")); err != nil {
			return err
		}
	}
	if c.tcp != "" {
		if err := n.listenTCP(c.tcp); err != nil {
			return err
		}
	}
	entry, err := n.discovery.Publish(ctx, n.Entry())
	n.entry = entry
	return err
}

// Entry is how the node is reached, for a static list or a message.
func (n *Node) Entry() Entry {
	return Entry{Instance: n.instance, Worker: n.worker, Socket: n.socket, TCP: n.TCPAddr(), Host: hostIdentity(), PID: os.Getpid()}
}

// WorkerID is the node's short name.
func (n *Node) WorkerID() WorkerID { return n.worker }

// InstanceID is the node's full name.
func (n *Node) InstanceID() InstanceID { return n.instance }

// SocketPath is the path of its Unix socket, empty without one.
func (n *Node) SocketPath() string { return n.socket }

// TCPAddr is the address of its TCP server, empty without one.
func (n *Node) TCPAddr() string {
	if n.tcp == nil {
		return ""
	}
	return n.tcp.addr
}

// Logger is where the node logs.
func (n *Node) Logger() *slog.Logger { return n.log }

// Peers lists the connections.
func (n *Node) Peers() []*Peer {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := make([]*Peer, 0, len(n.peers))
	for p := range n.peers {
		out = append(out, p)
	}
	return out
}

// Peer is the connection to a worker, made if there is none. Without a transport
// it is the Unix socket when the worker is on this host and has one, else TCP.
// Errors: ErrUnknownPeer, ErrUnreachable, ErrPeerRefused, ErrSelf, ErrClosed.
func (n *Node) Peer(ctx context.Context, id WorkerID, over ...Transport) (*Peer, error) {
	if id == n.worker {
		return nil, fmt.Errorf("%w: %v", ErrSelf, id)
	}
	if len(over) > 0 {
		return n.peerOver(ctx, id, over[0])
	}
	if !n.cfg.noUnix {
		n.mu.Lock()
		p := n.best[peerKey{id, Unix}]
		n.mu.Unlock()
		if p != nil {
			return p, nil
		}
		e, err := n.discovery.Lookup(ctx, id)
		if err == nil && e.Socket != "" && (e.Host == "" || e.Host == hostIdentity()) {
			if p, err := n.peerOver(ctx, id, Unix); err == nil || e.TCP == "" {
				return p, err
			}
		}
	}
	return n.peerOver(ctx, id, TCP)
}

func (n *Node) peerOver(ctx context.Context, id WorkerID, t Transport) (*Peer, error) {
	key := peerKey{id, t}
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return nil, ErrClosed
	}
	if p := n.best[key]; p != nil {
		n.mu.Unlock()
		return p, nil
	}
	d := n.dialling[key]
	if d == nil {
		d = &dialling{done: make(chan struct{})}
		n.dialling[key] = d
		n.wg.Add(1)
		go func() {
			defer n.wg.Done()
			ctx, cancel := context.WithTimeout(n.ctx, dialTimeout)
			defer cancel()
			d.peer, d.err = n.dialWorker(ctx, id, t)
			n.mu.Lock()
			delete(n.dialling, key)
			n.mu.Unlock()
			close(d.done)
		}()
	}
	n.mu.Unlock()
	select {
	case <-d.done:
		return d.peer, d.err
	case <-ctx.Done():
		return nil, deadline(ctx, fmt.Sprintf("connect to worker %v", id))
	}
}

// dialTimeout bounds a dial that several may wait for.
const dialTimeout = 10 * time.Second

func (n *Node) dialWorker(ctx context.Context, id WorkerID, t Transport) (p *Peer, err error) {
	e, err := n.discovery.Lookup(ctx, id)
	if err != nil {
		return nil, err
	}
	switch {
	case t == Unix && e.Socket != "":
		p, err = n.dialUnix(ctx, e.Socket)
	case t == TCP && e.TCP != "":
		p, err = n.dialTCP(ctx, e.TCP)
	default:
		return nil, fmt.Errorf("%w: worker %v does not listen on %v (WithTCP, WithoutUnix)", ErrUnreachable, id, t)
	}
	if err != nil {
		return nil, fmt.Errorf("worker %v: %w", id, err)
	}
	if p.worker != id {
		p.Close()
		return nil, fmt.Errorf("%w: asked for worker %v, %v answered", ErrPeerRefused, id, p.worker)
	}
	return p, nil
}

// Dial connects to an address that discovery does not know: "unix:/path" or
// "host:port".
func (n *Node) Dial(ctx context.Context, addr string) (*Peer, error) {
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		return n.dialUnix(ctx, path)
	}
	return n.dialTCP(ctx, addr)
}

// Call calls a unary handler of a worker; see Peer.Call.
func (n *Node) Call(ctx context.Context, id WorkerID, name string, req Message) (Message, error) {
	p, err := n.Peer(ctx, id)
	if err != nil {
		return Message{}, err
	}
	return p.Call(ctx, name, req)
}

// Send sends an active message to a worker; see Peer.Send.
func (n *Node) Send(ctx context.Context, id WorkerID, name string, msg Message) error {
	p, err := n.Peer(ctx, id)
	if err != nil {
		return err
	}
	return p.Send(ctx, name, msg)
}

func (n *Node) hello() *controlpb.Envelope {
	return &controlpb.Envelope{Type: controlpb.Envelope_HELLO, Hello: &controlpb.Hello{Version: protocolVersion, Instance: n.instance[:], Pid: int64(os.Getpid())}}
}

func checkHello(h *controlpb.Hello) (InstanceID, error) {
	if h == nil {
		return InstanceID{}, fmt.Errorf("%w: the first message is no greeting", ErrMalformed)
	}
	if h.Version != protocolVersion {
		return InstanceID{}, fmt.Errorf("%w: it speaks version %d, this node %d: update the older one", ErrPeerRefused, h.Version, protocolVersion)
	}
	id, err := uuid.FromBytes(h.Instance)
	if err != nil {
		return id, fmt.Errorf("%w: instance id: %w", ErrMalformed, err)
	}
	return id, nil
}

// add makes a connection known. One that this node has dialled is used before
// one that it has accepted, so that both sides may dial at once. One that another
// user has made is only answered: it may claim to be any worker.
func (n *Node) add(p *Peer, dialled bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return ErrClosed
	}
	n.peers[p] = struct{}{}
	key := peerKey{p.worker, p.transport}
	p.found = dialled || p.uid < 0 || p.uid == os.Geteuid()
	if n.best[key] == nil && p.found || dialled {
		n.best[key] = p
	}
	return nil
}

// gone forgets a connection that has ended.
func (n *Node) gone(p *Peer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.peers, p)
	key := peerKey{p.worker, p.transport}
	if n.best[key] != p {
		return
	}
	delete(n.best, key)
	for other := range n.peers {
		if other.worker == p.worker && other.transport == p.transport && other.found {
			n.best[key] = other
			return
		}
	}
}

// background runs fn among the goroutines that Close waits for; it answers false
// when the node is closed.
func (n *Node) background(fn func()) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return false
	}
	n.wg.Add(1)
	go func() {
		defer n.wg.Done()
		fn()
	}()
	return true
}

// begin and end go around each request that is served.
func (n *Node) begin() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stopping || n.closed {
		return false
	}
	n.inFlight++
	return true
}

func (n *Node) end() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.inFlight--
	if n.inFlight == 0 && n.drained != nil {
		close(n.drained)
		n.drained = nil
	}
}

// Shutdown refuses new requests with ErrShutdown, waits for those that are being
// served as long as ctx allows, and closes.
func (n *Node) Shutdown(ctx context.Context) error {
	n.mu.Lock()
	n.stopping = true
	var drained chan struct{}
	if n.inFlight > 0 {
		if n.drained == nil {
			n.drained = make(chan struct{})
		}
		drained = n.drained
	}
	n.mu.Unlock()
	var err error
	if drained != nil {
		select {
		case <-drained:
		case <-ctx.Done():
			err = deadline(ctx, "shutdown")
		}
	}
	n.drain(ctx)
	return errors.Join(err, n.Close())
}

// drainTime bounds how long Shutdown waits for the last answers to leave.
const drainTime = 2 * time.Second

// drain lets the answers that were given reach the peers, which a connection
// that is cut at once could lose.
func (n *Node) drain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, drainTime)
	defer cancel()
	peers := n.Peers()
	for _, p := range peers {
		p.conn.drain()
	}
	for _, p := range peers {
		select {
		case <-p.done:
		case <-ctx.Done():
			return
		}
	}
	if n.tcp != nil {
		n.tcp.drain(ctx)
	}
}

// Close ends all connections, and with them everything that uses the node.
func (n *Node) Close() error {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return nil
	}
	n.closed = true
	peers := make([]*Peer, 0, len(n.peers))
	for p := range n.peers {
		peers = append(peers, p)
	}
	n.mu.Unlock()
	n.cancel()
	var errs []error
	if n.entry != nil {
		errs = append(errs, n.entry.Close())
	}
	if n.unix != nil {
		errs = append(errs, n.unix.Close())
	}
	for _, p := range peers {
		p.Close()
	}
	if n.tcp != nil {
		n.tcp.stop()
	}
	n.wg.Wait()
	return errors.Join(errs...)
}

func readTrimmed(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
