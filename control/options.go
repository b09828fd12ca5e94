package control

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"

	"google.golang.org/grpc"
)

// Option is an option of Listen.
type Option func(*config)

type config struct {
	dir        string
	tcp        string
	noUnix     bool
	server     *tls.Config
	client     *tls.Config
	insecure   bool
	discovery  Discovery
	instance   InstanceID
	uids       []int
	log        *slog.Logger
	maxMessage int
	serverOpts []grpc.ServerOption
	dialOpts   []grpc.DialOption
}

// DefaultMaxMessage is how large a message may be.
const DefaultMaxMessage = 4 << 20

// WithDir sets the directory of the node's socket and of the nodes it finds. The
// default is $NOVA_RUNTIME_DIR, else $XDG_RUNTIME_DIR/nova, else nova-<uid> in
// the directory for temporary files. It is made with mode 0700, and refused with
// ErrInsecureDir when others own it or may write to it.
func WithDir(dir string) Option { return func(c *config) { c.dir = dir } }

// WithTCP also listens on addr, such as "127.0.0.1:0", for nodes on other hosts.
// Without TLS it is refused off loopback, unless Insecure is given too.
func WithTCP(addr string) Option { return func(c *config) { c.tcp = addr } }

// WithTLS sets the TLS of the node's own TCP server and of its dials. For mutual
// TLS the server's config asks for client certificates and the client's has
// one.
func WithTLS(server, client *tls.Config) Option {
	return func(c *config) { c.server, c.client = server, client }
}

// Insecure permits TCP without TLS to and from other hosts: for networks that
// are safe by other means.
func Insecure() Option { return func(c *config) { c.insecure = true } }

// WithoutUnix makes a node without a Unix socket, which neither dials any: all
// its peers are reached as if on other hosts.
func WithoutUnix() Option { return func(c *config) { c.noUnix = true } }

// WithDiscovery sets how nodes are found; the default is Directory over the
// directory of WithDir.
func WithDiscovery(d Discovery) Option { return func(c *config) { c.discovery = d } }

// WithInstanceID sets the node's instance id; the default is a random one. No
// two nodes may have the same at the same time.
func WithInstanceID(id InstanceID) Option { return func(c *config) { c.instance = id } }

// AllowUID lets processes of other users connect to the Unix socket. They also
// need access to its directory.
func AllowUID(uids ...int) Option { return func(c *config) { c.uids = append(c.uids, uids...) } }

// WithLogger sets where the node logs; the default is slog.Default.
func WithLogger(l *slog.Logger) Option { return func(c *config) { c.log = l } }

// WithMaxMessage bounds the bytes of a message, either way.
func WithMaxMessage(bytes int) Option { return func(c *config) { c.maxMessage = bytes } }

// WithServerOptions adds options to the node's own gRPC server.
func WithServerOptions(opts ...grpc.ServerOption) Option {
	return func(c *config) { c.serverOpts = append(c.serverOpts, opts...) }
}

// WithDialOptions adds options to the node's gRPC dials.
func WithDialOptions(opts ...grpc.DialOption) Option {
	return func(c *config) { c.dialOpts = append(c.dialOpts, opts...) }
}

// dialled tells how a server is dialled that has refused for reasons of TLS, which
// it may not have been able to tell.
func (c *config) dialled() string {
	switch {
	case c.client == nil:
		return "without TLS (if it speaks TLS, give WithTLS)"
	case len(c.client.Certificates) == 0 && c.client.GetClientCertificate == nil:
		return "with TLS and no certificate (if it asks for one, give that with WithTLS)"
	}
	return "with TLS and a certificate (which it must trust)"
}

// checkTCP refuses an address that would carry messages in the clear between
// hosts.
func (c *config) checkTCP(addr string, tls *tls.Config) error {
	if tls != nil || c.insecure {
		return nil
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("%w: address %q: %w", ErrConfig, addr, err)
	}
	if host == "localhost" {
		return nil
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return fmt.Errorf("%w: %s is not loopback: give WithTLS, or Insecure if the network is safe by other means", ErrInsecureTCP, addr)
	}
	return nil
}
