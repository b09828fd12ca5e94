//go:build unix

package control

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
)

// authority signs certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T, name string) *authority {
	a := &authority{t: t, pool: x509.NewCertPool()}
	a.cert, a.key = a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	a.pool.AddCert(a.cert)
	return a
}

// sign makes a certificate, which signs itself while there is no authority yet.
func (a *authority) sign(c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(a.t, err)
	c.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62))
	require.NoError(a.t, err)
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	require.NoError(a.t, err)
	out, err := x509.ParseCertificate(der)
	require.NoError(a.t, err)
	return out, key
}

// issue makes a certificate for a node at an address.
func (a *authority) issue(ip string) tls.Certificate {
	cert, key := a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "node"}, IPAddresses: []net.IP{net.ParseIP(ip)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
}

func TestTLS(t *testing.T) {
	ours, theirs := newAuthority(t, "ours"), newAuthority(t, "theirs")
	server := &tls.Config{Certificates: []tls.Certificate{ours.issue("127.0.0.1")}}
	mutual := &tls.Config{
		Certificates: server.Certificates, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ours.pool,
	}
	trust := &tls.Config{RootCAs: ours.pool}
	for _, c := range []struct {
		name           string
		server, client *tls.Config
		says           string // "" is success
	}{
		{"server known", server, trust, ""},
		{"both known", mutual, &tls.Config{RootCAs: ours.pool, Certificates: []tls.Certificate{ours.issue("127.0.0.1")}}, ""},
		{"wrong authority", server, &tls.Config{RootCAs: theirs.pool}, "certificate signed by unknown authority"},
		{"another address", &tls.Config{Certificates: []tls.Certificate{ours.issue("192.0.2.1")}}, trust, "192.0.2.1"},
		{"client without certificate", mutual, trust, "no certificate (if it asks for one, give that with WithTLS)"},
		{"client of another authority", mutual, &tls.Config{RootCAs: ours.pool, Certificates: []tls.Certificate{theirs.issue("127.0.0.1")}}, "a certificate (which it must trust)"},
		{"client in the clear", server, nil, "if it speaks TLS, give WithTLS"},
		{"server in the clear", nil, trust, "does not look like a TLS handshake"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := tempDir(t)
			n := node(t, dir, TCP, WithTLS(c.server, trust))
			require.NoError(t, n.Handle("echo", echo))
			other := node(t, dir, TCP, WithTLS(nil, c.client))
			m, err := other.Call(ctx, n.WorkerID(), "echo", Message{Payload: []byte("hi")})
			if c.says == "" {
				require.NoError(t, err)
				require.Equal(t, "hi", string(m.Payload))
				return
			}
			require.ErrorIs(t, err, ErrUnreachable)
			require.ErrorContains(t, err, n.TCPAddr())
			require.ErrorContains(t, err, c.says)
			require.Empty(t, n.Peers())
		})
	}
}

// With TLS, and only then or when told to, a node listens and dials off
// loopback.
func TestOffLoopback(t *testing.T) {
	ours := newAuthority(t, "ours")
	conf := &tls.Config{Certificates: []tls.Certificate{ours.issue("127.0.0.1")}}
	for _, c := range []struct {
		addr string
		opts []Option
		want error
	}{
		{"0.0.0.0:0", nil, ErrInsecureTCP},
		{"[::]:0", nil, ErrInsecureTCP},
		{":0", nil, ErrInsecureTCP},
		{"example.invalid:0", nil, ErrInsecureTCP},
		{"no-port", nil, ErrConfig},
		{"0.0.0.0:0", []Option{WithTLS(nil, conf)}, ErrInsecureTCP}, // that of the dials alone
		{"0.0.0.0:0", []Option{WithTLS(conf, nil)}, nil},
		{"0.0.0.0:0", []Option{Insecure()}, nil},
		{"localhost:0", nil, nil},
		{"127.0.0.2:0", nil, nil},
	} {
		n, err := Listen(ctx, append(c.opts, WithDir(tempDir(t)), WithoutUnix(), WithTCP(c.addr))...)
		if c.want == nil {
			require.NoError(t, err, c.addr)
			require.NoError(t, n.Close())
			continue
		}
		require.ErrorIs(t, err, c.want, c.addr)
		require.ErrorContains(t, err, c.addr)
	}
}

// The node's own server answers health checks and reflection, and runs the
// user's interceptors; so do its dials.
func TestOwnServer(t *testing.T) {
	var served, dialled atomic.Int32
	dir := tempDir(t)
	n := node(t, dir, TCP, WithServerOptions(grpc.ChainStreamInterceptor(
		func(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			if info.FullMethod == connectMethod {
				served.Add(1)
			}
			return next(srv, s)
		})))
	require.NoError(t, n.Handle("echo", echo))
	other := node(t, dir, TCP, WithDialOptions(grpc.WithChainStreamInterceptor(
		func(ctx context.Context, d *grpc.StreamDesc, cc *grpc.ClientConn, method string, next grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			dialled.Add(1)
			return next(ctx, d, cc, method, opts...)
		})))
	_, err := other.Call(ctx, n.WorkerID(), "echo", Message{})
	require.NoError(t, err)
	require.Equal(t, int32(1), served.Load())
	require.Equal(t, int32(2), dialled.Load(), "Connect and Bulk")

	cc, err := grpc.NewClient(n.TCPAddr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer cc.Close()
	for _, service := range []string{"", serviceName} {
		h, err := healthpb.NewHealthClient(cc).Check(ctx, &healthpb.HealthCheckRequest{Service: service})
		require.NoError(t, err)
		require.Equal(t, healthpb.HealthCheckResponse_SERVING, h.Status)
	}
	r, err := reflectionpb.NewServerReflectionClient(cc).ServerReflectionInfo(ctx)
	require.NoError(t, err)
	require.NoError(t, r.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}))
	list, err := r.Recv()
	require.NoError(t, err)
	var names []string
	for _, s := range list.GetListServicesResponse().Service {
		names = append(names, s.Name)
	}
	require.Contains(t, names, serviceName)
	require.Contains(t, names, "grpc.health.v1.Health")
	require.NoError(t, r.CloseSend())
}
