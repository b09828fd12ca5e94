package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/novastream/novastream/control/internal/controlpb"
)

// The service: Connect carries envelopes both ways, Bulk the active messages
// that must delay none of them.
const (
	serviceName   = "nova.control.v1.Nova"
	connectMethod = "/" + serviceName + "/Connect"
	bulkMethod    = "/" + serviceName + "/Bulk"
)

var serviceDesc = grpc.ServiceDesc{
	ServiceName: serviceName,
	HandlerType: (*any)(nil),
	Streams: []grpc.StreamDesc{
		{StreamName: "Connect", Handler: serveConnect, ServerStreams: true, ClientStreams: true},
		{StreamName: "Bulk", Handler: serveBulk, ServerStreams: true, ClientStreams: true},
	},
	Metadata: "control.proto",
}

// Register lets nodes reach this one through the user's own gRPC server, next to
// the user's services; what Discovery says of the node is then the user's
// business (see Static). Its limit on the size of a message must allow for
// WithMaxMessage.
func (n *Node) Register(s grpc.ServiceRegistrar) { s.RegisterService(&serviceDesc, n) }

// stream is what client and server streams have in common.
type stream interface {
	SendMsg(any) error
	RecvMsg(any) error
	Context() context.Context
}

// sender lets one at a time send on a stream, and the others wait no longer
// than they want to.
type sender struct {
	s    stream
	turn chan struct{}
}

func newSender(s stream) *sender { return &sender{s, make(chan struct{}, 1)} }

func (s *sender) send(ctx context.Context, m any) error {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-s.s.Context().Done():
		return context.Cause(s.s.Context())
	}
	defer func() { <-s.turn }()
	return s.s.SendMsg(m)
}

// grpcConn carries envelopes over the two streams.
type grpcConn struct {
	control *sender
	finish  func() // ends the stream behind what was sent
	stop    func()

	mu    sync.Mutex
	data  *sender
	ready chan struct{} // closed when data is set
	ended chan struct{}
	once  sync.Once
}

func newGRPCConn(s stream, finish, stop func()) *grpcConn {
	return &grpcConn{control: newSender(s), finish: finish, stop: stop, ready: make(chan struct{}), ended: make(chan struct{})}
}

func (g *grpcConn) send(ctx context.Context, e *controlpb.Envelope, _ []int) error {
	return g.control.send(ctx, e)
}

func (g *grpcConn) setBulk(s stream) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.data != nil {
		return false
	}
	g.data = newSender(s)
	close(g.ready)
	return true
}

func (g *grpcConn) bulk(ctx context.Context, e *controlpb.Envelope) error {
	select {
	case <-g.ready:
	case <-g.ended:
		return ErrConnLost
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return g.data.send(ctx, &bulkFrame{name: e.Name, payload: e.Payload})
}

func (g *grpcConn) drain() { g.finish() }

func (g *grpcConn) close() {
	g.once.Do(func() {
		close(g.ended)
		g.stop()
	})
}

// grantTime is how long a peer has to open its bulk stream.
const grantTime = 10 * time.Second

func serveConnect(srv any, s grpc.ServerStream) error {
	n := srv.(*Node)
	var e controlpb.Envelope
	if err := s.RecvMsg(&e); err != nil {
		return err
	}
	id, err := checkHello(e.Hello)
	if err != nil {
		n.log.Warn("connection refused", "transport", "tcp", "error", err)
		return err
	}
	p := newPeer(n, TCP, id)
	ended := make(chan struct{})
	var once sync.Once
	stop := func() { once.Do(func() { close(ended) }) }
	conn := newGRPCConn(s, stop, stop)
	p.conn = conn
	grant, err := n.grants.Issue(grantTime, p)
	if err != nil {
		return err
	}
	if err := n.add(p, false); err != nil {
		return err
	}
	hello := n.hello()
	hello.Hello.Grant = grant[:]
	if err := conn.send(s.Context(), hello, nil); err != nil {
		p.fail(err)
		return err
	}
	go n.readGRPC(p, s)
	// The stream is over when this returns, and its reader with it.
	<-ended
	return nil
}

func (n *Node) readGRPC(p *Peer, s stream) {
	var e controlpb.Envelope
	for {
		if err := s.RecvMsg(&e); err != nil {
			p.fail(err)
			return
		}
		p.serve(&e, nil)
	}
}

func serveBulk(srv any, s grpc.ServerStream) error {
	n := srv.(*Node)
	var f bulkFrame
	if err := s.RecvMsg(&f); err != nil {
		return err
	}
	var token Token
	if len(f.payload) != len(token) {
		return fmt.Errorf("%w: bulk stream without a grant", ErrMalformed)
	}
	copy(token[:], f.payload)
	f.buf.Free()
	v, err := n.grants.Redeem(token)
	if err != nil {
		n.log.Warn("bulk stream refused", "error", err)
		return err
	}
	p := v.(*Peer)
	conn := p.conn.(*grpcConn)
	if !conn.setBulk(s) {
		return ErrGrant
	}
	go readBulk(p, s)
	<-conn.ended
	return nil
}

// readBulk serves the active messages of the bulk stream.
func readBulk(p *Peer, s stream) {
	for {
		var f bulkFrame
		if err := s.RecvMsg(&f); err != nil {
			// An end in order is told by the other stream, behind its last answer.
			if !errors.Is(err, io.EOF) {
				p.fail(err)
			}
			return
		}
		p.serve(&controlpb.Envelope{Type: controlpb.Envelope_MESSAGE, Name: f.name, Payload: f.payload}, nil)
		f.buf.Free()
	}
}

// tcpServer is the node's own gRPC server.
type tcpServer struct {
	addr string
	srv  *grpc.Server
}

// window lets a bulk stream fill a fast link.
const window = 4 << 20

func (n *Node) listenTCP(addr string) error {
	if err := n.cfg.checkTCP(addr, n.cfg.server); err != nil {
		return err
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("control: listen on TCP: %w", err)
	}
	opts := []grpc.ServerOption{
		grpc.MaxRecvMsgSize(n.maxMessage + envelopeRoom), grpc.MaxSendMsgSize(n.maxMessage + envelopeRoom),
		grpc.InitialWindowSize(window), grpc.InitialConnWindowSize(window),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveTime / 2, PermitWithoutStream: true}),
		grpc.WriteBufferSize(256 << 10), grpc.ReadBufferSize(256 << 10),
	}
	if n.cfg.server != nil {
		opts = append(opts, grpc.Creds(credentials.NewTLS(n.cfg.server)))
	}
	srv := grpc.NewServer(append(opts, n.cfg.serverOpts...)...)
	n.Register(srv)
	hs := health.NewServer()
	hs.SetServingStatus(serviceName, healthpb.HealthCheckResponse_SERVING)
	healthpb.RegisterHealthServer(srv, hs)
	reflection.Register(srv)
	n.tcp = &tcpServer{addr: l.Addr().String(), srv: srv}
	n.wg.Add(1)
	go func() {
		defer n.wg.Done()
		if err := srv.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			n.log.Error("TCP server failed", "address", n.tcp.addr, "error", err)
		}
	}()
	return nil
}

func (t *tcpServer) stop() { t.srv.Stop() }

// drain waits until everything that was sent on streams that have ended is on
// its way.
func (t *tcpServer) drain(ctx context.Context) {
	stop := context.AfterFunc(ctx, t.srv.Stop)
	defer stop()
	t.srv.GracefulStop()
}

// How a dead host is noticed that closes nothing.
const (
	keepaliveTime    = 10 * time.Second
	keepaliveTimeout = 5 * time.Second
)

func (n *Node) dialTCP(ctx context.Context, addr string) (*Peer, error) {
	if err := n.cfg.checkTCP(addr, n.cfg.client); err != nil {
		return nil, err
	}
	creds := insecure.NewCredentials()
	if n.cfg.client != nil {
		creds = credentials.NewTLS(n.cfg.client)
	}
	opts := append([]grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithDefaultCallOptions(
			grpc.CallContentSubtype(codecName),
			grpc.MaxCallRecvMsgSize(n.maxMessage+envelopeRoom), grpc.MaxCallSendMsgSize(n.maxMessage+envelopeRoom)),
		grpc.WithInitialWindowSize(window), grpc.WithInitialConnWindowSize(window),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout, PermitWithoutStream: true}),
		grpc.WithWriteBufferSize(256 << 10), grpc.WithReadBufferSize(256 << 10),
	}, n.cfg.dialOpts...)
	cc, err := grpc.NewClient("passthrough:///"+addr, opts...)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrUnreachable, addr, err)
	}
	life, cancel := context.WithCancel(n.ctx)
	stop := func() {
		cancel()
		cc.Close()
	}
	p, err := n.greetGRPC(ctx, life, cc, stop)
	if err != nil {
		stop()
		return nil, fmt.Errorf("%w: %s, dialled %s: %w", ErrUnreachable, addr, n.cfg.dialled(), err)
	}
	return p, nil
}

// greetGRPC opens the two streams, which live as long as life; ctx bounds the
// greeting.
func (n *Node) greetGRPC(ctx, life context.Context, cc *grpc.ClientConn, stop func()) (*Peer, error) {
	abort := context.AfterFunc(ctx, stop)
	defer abort()
	s, err := cc.NewStream(life, &serviceDesc.Streams[0], connectMethod)
	if err != nil {
		return nil, err
	}
	if err := s.SendMsg(n.hello()); err != nil {
		return nil, err
	}
	var e controlpb.Envelope
	if err := s.RecvMsg(&e); err != nil {
		return nil, err
	}
	id, err := checkHello(e.Hello)
	if err != nil {
		return nil, err
	}
	b, err := cc.NewStream(life, &serviceDesc.Streams[1], bulkMethod)
	if err != nil {
		return nil, err
	}
	if err := b.SendMsg(&bulkFrame{payload: e.Hello.Grant}); err != nil {
		return nil, err
	}
	if !abort() {
		return nil, context.Cause(ctx)
	}
	p := newPeer(n, TCP, id)
	conn := newGRPCConn(s, func() { _ = s.CloseSend() }, stop)
	conn.setBulk(b)
	p.conn = conn
	if err := n.add(p, true); err != nil {
		return nil, err
	}
	go n.readGRPC(p, s)
	go readBulk(p, b)
	return p, nil
}
