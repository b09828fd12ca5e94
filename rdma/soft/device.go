package soft

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"

	"github.com/novastream/novastream/rdma"
)

// ErrInsecureTCP is an address that would carry memory in the clear between hosts.
var ErrInsecureTCP = errors.New("soft: TCP without TLS")

// id names a device or a queue pair; who has it may reach it.
type id [16]byte

func newID() (i id) {
	rand.Read(i[:]) // never fails
	return i
}

// here are the open devices of this process.
var here sync.Map // id -> *Device

// Device implements rdma.Device; its other methods are the faults that a test can
// set.
type Device struct {
	cfg    config
	id     id
	ln     net.Listener
	addr   string
	keys   keys
	faults faults
	events chan struct{} // a token when the queue below is not empty or changes for good
	served sync.WaitGroup

	mu      sync.Mutex
	info    rdma.DeviceInfo
	closed  bool
	gone    bool
	domains map[*domain]bool
	qps     map[uint32]*qp
	conns   map[*served]bool
	lastQP  uint32
	queue   []rdma.Event
}

func open(cfg config, info rdma.DeviceInfo) (*Device, error) {
	ln, err := net.Listen("tcp", cfg.listen)
	if err != nil {
		return nil, fmt.Errorf("%w: %s listens on %s: %w", rdma.ErrNoDevice, info.Name, cfg.listen, err)
	}
	// The host stays as it was given: it may be a name that a certificate has.
	host, _, _ := net.SplitHostPort(cfg.listen)
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	d := &Device{
		cfg: cfg, id: newID(), ln: ln, addr: net.JoinHostPort(host, port), info: info,
		events: make(chan struct{}, 1), domains: map[*domain]bool{}, qps: map[uint32]*qp{}, conns: map[*served]bool{},
	}
	secret := newID()
	d.keys = keys{
		byKey: map[uint32]*region{}, addr: 1 << 32,
		next: binary.LittleEndian.Uint32(secret[:]), stride: binary.LittleEndian.Uint32(secret[4:]) | 1,
	}
	here.Store(d.id, d)
	d.served.Go(d.accept)
	return d, nil
}

// Info describes the device as it is now.
func (d *Device) Info() rdma.DeviceInfo {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.info
}

func (d *Device) name() string        { return d.Info().Name }
func (d *Device) limits() rdma.Limits { return d.Info().Limits }

// usable tells why the device can make nothing. The lock is held.
func (d *Device) usable() error {
	switch {
	case d.gone:
		return fmt.Errorf("%w: %s", rdma.ErrDeviceGone, d.info.Name)
	case d.closed:
		return fmt.Errorf("device %s: %w", d.info.Name, rdma.ErrClosed)
	}
	return nil
}

// raise queues an event. It takes the device's lock only.
func (d *Device) raise(e rdma.Event) {
	d.mu.Lock()
	d.queue = append(d.queue, e)
	d.mu.Unlock()
	d.ring()
}

func (d *Device) ring() {
	select {
	case d.events <- struct{}{}:
	default:
	}
}

// Event waits for the next event.
func (d *Device) Event(ctx context.Context) (rdma.Event, error) {
	for {
		d.mu.Lock()
		if len(d.queue) > 0 {
			e := d.queue[0]
			d.queue = d.queue[1:]
			more := len(d.queue) > 0 || d.closed
			d.mu.Unlock()
			if more {
				d.ring() // for the next of those that wait
			}
			return e, nil
		}
		closed := d.closed
		d.mu.Unlock()
		if closed {
			d.ring()
			return rdma.Event{}, fmt.Errorf("device: %w", rdma.ErrClosed)
		}
		select {
		case <-d.events:
		case <-ctx.Done():
			return rdma.Event{}, context.Cause(ctx)
		}
	}
}

// find is the queue pair with the number, nil when there is none.
func (d *Device) find(num uint32) *qp {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.qps[num]
}

// all are the queue pairs that are open.
func (d *Device) all() []*qp {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Collect(maps.Values(d.qps))
}

// Close closes everything made from the device.
func (d *Device) Close() error {
	d.mu.Lock()
	d.closed = true
	domains := slices.Collect(maps.Keys(d.domains))
	d.mu.Unlock()
	here.Delete(d.id)
	d.ln.Close()
	for _, m := range domains {
		m.Close()
	}
	d.faults.heal()
	d.mu.Lock()
	for s := range d.conns {
		s.interrupt()
	}
	d.mu.Unlock()
	d.ring()
	d.served.Wait()
	return nil
}
