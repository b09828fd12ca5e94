package soft

import (
	"crypto/tls"
	"fmt"
	"net"

	"github.com/novastream/novastream/rdma"
)

func init() { rdma.Register(New()) }

// Provider implements rdma.Provider.
type Provider struct{ config }

type config struct {
	listen   string
	server   *tls.Config
	client   *tls.Config
	insecure bool
	overTCP  bool
	seed     uint64
	devices  []rdma.DeviceInfo
}

// Option is an option of New.
type Option func(*config)

// WithListen sets the address on which devices listen for queue pairs of other
// processes, and which they tell them: a host as others reach it, and a port, 0
// for any. The default is "127.0.0.1:0". Off loopback it needs WithTLS or Insecure.
func WithListen(addr string) Option { return func(c *config) { c.listen = addr } }

// WithTLS sets the TLS of connections to and from other processes. Both are
// needed. For mutual TLS the server's config asks for client certificates and the
// client's has one.
func WithTLS(server, client *tls.Config) Option {
	return func(c *config) { c.server, c.client = server, client }
}

// Insecure permits connections to and from other hosts without TLS: for networks
// that are safe by other means.
func Insecure() Option { return func(c *config) { c.insecure = true } }

// OverTCP makes queue pairs of one process talk over TCP too, as those of two do.
func OverTCP() Option { return func(c *config) { c.overTCP = true } }

// WithSeed sets what the faults of devices are drawn from; the default is 1. A
// queue pair's faults follow from the seed, its number and what it sends.
func WithSeed(seed uint64) Option { return func(c *config) { c.seed = seed } }

// WithDevices sets which devices there are to be opened. Fields that are zero have
// defaults; so a name, and the MTU or port that a test is about, suffice. The
// default is one device, soft0.
func WithDevices(devices ...rdma.DeviceInfo) Option {
	return func(c *config) { c.devices = devices }
}

// New makes a provider. The one that is registered is New().
func New(opts ...Option) *Provider {
	p := &Provider{config{listen: "127.0.0.1:0", seed: 1, devices: []rdma.DeviceInfo{{Name: "soft0"}}}}
	for _, o := range opts {
		o(&p.config)
	}
	for i := range p.devices {
		p.devices[i] = describe(p.devices[i])
	}
	return p
}

// describe fills in the defaults.
func describe(i rdma.DeviceInfo) rdma.DeviceInfo {
	i.Provider, i.GID = "soft", -1
	if i.Port == rdma.PortUnknown {
		i.Port = rdma.PortActive
	}
	for _, d := range []struct {
		v   *int
		def int
	}{
		{&i.MTU, 4096}, {&i.Limits.MaxSend, 1 << 14}, {&i.Limits.MaxRecv, 1 << 14}, {&i.Limits.MaxCQ, 1 << 20},
		{&i.Limits.MaxInline, 512}, {&i.Limits.MaxMessage, maxMessage}, {&i.Limits.MaxRegion, maxRegion}, {&i.Limits.MaxQPs, 1 << 16},
	} {
		if *d.v == 0 {
			*d.v = d.def
		}
	}
	return i
}

// Name is "soft".
func (*Provider) Name() string { return "soft" }

// Devices lists the devices.
func (p *Provider) Devices() ([]rdma.DeviceInfo, error) {
	if len(p.devices) == 0 {
		return nil, fmt.Errorf("%w: soft was made without any", rdma.ErrNoDevice)
	}
	return append([]rdma.DeviceInfo(nil), p.devices...), nil
}

// Open opens a device. Each Open makes one of its own, with a listener of its own.
func (p *Provider) Open(name string) (rdma.Device, error) {
	info, err := p.choose(name)
	if err != nil {
		return nil, err
	}
	if (p.server == nil) != (p.client == nil) {
		return nil, fmt.Errorf("%w: WithTLS needs the server's and the client's", rdma.ErrOption)
	}
	if err := p.checkTCP(p.listen, p.server != nil && p.client != nil); err != nil {
		return nil, err
	}
	return open(p.config, info)
}

func (p *Provider) choose(name string) (rdma.DeviceInfo, error) {
	all, err := p.Devices()
	if err != nil {
		return rdma.DeviceInfo{}, err
	}
	var names []string
	for _, i := range all {
		switch {
		case name == "" && i.Port == rdma.PortActive, name != "" && name == i.Name:
			return i, nil
		}
		names = append(names, i.Name)
	}
	if name == "" {
		return rdma.DeviceInfo{}, fmt.Errorf("%w: none of %v is up", rdma.ErrPort, names)
	}
	return rdma.DeviceInfo{}, fmt.Errorf("%w: %q; there are %v", rdma.ErrNoDevice, name, names)
}

// checkTCP refuses an address that would carry memory in the clear between hosts.
func (c *config) checkTCP(addr string, tls bool) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("%w: address %q: %w", rdma.ErrOption, addr, err)
	}
	ip := net.ParseIP(host)
	if host == "" || ip != nil && ip.IsUnspecified() {
		return fmt.Errorf("%w: address %q: give the one at which others reach this host", rdma.ErrOption, addr)
	}
	if tls || c.insecure || host == "localhost" || ip != nil && ip.IsLoopback() {
		return nil
	}
	return fmt.Errorf("%w: %s is not loopback: give WithTLS, or Insecure if the network is safe by other means", ErrInsecureTCP, addr)
}
