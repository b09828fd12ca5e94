package soft_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream/rdma"
	"github.com/novastream/novastream/rdma/rdmatest"
	"github.com/novastream/novastream/rdma/soft"
)

func TestOpen(t *testing.T) {
	p := soft.New(soft.WithDevices(
		rdma.DeviceInfo{Name: "down", Port: rdma.PortDown}, rdma.DeviceInfo{Name: "up", MTU: 1024},
	))
	d, err := p.Open("")
	require.NoError(t, err)
	require.Equal(t, "up", d.Info().Name)
	require.Equal(t, 1024, d.Info().MTU)
	require.NoError(t, d.Close())
	_, err = p.Open("none")
	require.ErrorIs(t, err, rdma.ErrNoDevice)
	require.ErrorContains(t, err, "down up")
	_, err = soft.New(soft.WithDevices()).Open("")
	require.ErrorIs(t, err, rdma.ErrNoDevice)
	_, err = soft.New(soft.WithDevices(rdma.DeviceInfo{Name: "x", Port: rdma.PortDown})).Open("")
	require.ErrorIs(t, err, rdma.ErrPort)
	_, err = soft.New(soft.WithTLS(&tls.Config{}, nil)).Open("")
	require.ErrorIs(t, err, rdma.ErrOption)
}

// Memory does not cross hosts in the clear unless that is asked for.
func TestInsecure(t *testing.T) {
	for addr, want := range map[string]error{
		"192.0.2.1:0": soft.ErrInsecureTCP, "example.org:0": soft.ErrInsecureTCP,
		"0.0.0.0:0": rdma.ErrOption, ":0": rdma.ErrOption, "nonsense": rdma.ErrOption,
	} {
		_, err := soft.New(soft.WithListen(addr)).Open("")
		require.ErrorIs(t, err, want, addr)
	}
	_, err := soft.New(soft.WithListen("192.0.2.1:0"), soft.Insecure()).Open("")
	require.NotErrorIs(t, err, soft.ErrInsecureTCP) // there is no such address here
	require.ErrorIs(t, err, rdma.ErrNoDevice)

	// The other side's address is looked at too.
	s := open(t, 4096)
	far := s.qp.Address()
	host := "192.0.2.1:4444"
	far = append(far[:40], host...)
	far[1] = byte(len(host))
	far[8]++ // a device that is not of this process
	require.ErrorIs(t, s.qp.Connect(context.Background(), far, rdma.ConnectOptions{}), soft.ErrInsecureTCP)
}

// Ports of different MTUs connect with one that both have.
func TestMixedMTU(t *testing.T) {
	a := open(t, 4096)
	b, err := newSide(soft.New(soft.WithDevices(rdma.DeviceInfo{Name: "small", MTU: 1024})), 4096)
	require.NoError(t, err)
	defer b.dev.Close()
	ctx := context.Background()
	for _, opt := range []rdma.ConnectOptions{{}, {MTU: 2048}, {MTU: 4096}} {
		require.ErrorIs(t, a.qp.Connect(ctx, b.qp.Address(), opt), rdma.ErrMTU)
		require.ErrorIs(t, b.qp.Connect(ctx, a.qp.Address(), opt), rdma.ErrMTU)
	}
	opt := rdma.ConnectOptions{MTU: 1024}
	require.NoError(t, a.qp.Connect(ctx, b.qp.Address(), opt))
	require.NoError(t, b.qp.Connect(ctx, a.qp.Address(), opt))
}

// The suite also runs over TLS, each side showing its certificate.
func TestSuiteOverTLS(t *testing.T) {
	if testing.Short() {
		t.Skip("the suite over TCP is run")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	leaf, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	own := []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}
	rdmatest.Run(t, opener(soft.OverTCP(), soft.WithTLS(
		&tls.Config{Certificates: own, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert},
		&tls.Config{Certificates: own, RootCAs: pool},
	)))
}
