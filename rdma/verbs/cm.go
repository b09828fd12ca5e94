//go:build verbs && cgo && linux

package verbs

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"syscall"

	"github.com/novastream/novastream/cgo/verbs"
	"github.com/novastream/novastream/rdma"
)

var _ rdma.CM = (*device)(nil)

// ip is the address of the device's interface, and its scope; not valid where the
// GID tells of none, as on InfiniBand.
func (p port) ip() (netip.Addr, uint32) {
	a, index, err := p.address()
	if err != nil || index < 0 || !a.ethernet {
		return netip.Addr{}, 0
	}
	ip := netip.AddrFrom16(a.gid).Unmap()
	if !ip.IsLinkLocalUnicast() {
		return ip, 0
	}
	gids, err := p.ctx.GIDs()
	if err != nil {
		return netip.Addr{}, 0
	}
	for _, g := range gids {
		if g.Port == p.number && g.Index == index {
			return ip, uint32(g.Interface)
		}
	}
	return netip.Addr{}, 0
}

// ip is that of the port, as long as the device is open.
func (d *device) ip() (netip.Addr, uint32, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return netip.Addr{}, 0, fmt.Errorf("%w: device %s", rdma.ErrClosed, d.port.name)
	}
	ip, scope := d.port.ip()
	return ip, scope, nil
}

// on says ErrAddress when an identifier is bound to another device, or port.
func (p port) on(id ibv.CMID, at netip.AddrPort) error {
	base, _, _, err := parseName(p.name)
	if err != nil {
		return err
	}
	if name, number := id.Device(); name != base || number != p.number {
		return fmt.Errorf("%w: %v belongs to port %d of %q, not to %s", rdma.ErrAddress, at, number, name, p.name)
	}
	return nil
}

func (d *device) ListenCM(at netip.AddrPort) (rdma.CMListener, error) {
	ip, scope, err := d.ip()
	if err != nil {
		return nil, err
	}
	if !at.Addr().IsValid() || at.Addr().IsUnspecified() {
		if !ip.IsValid() {
			return nil, fmt.Errorf("%w: %s has no IP address that its GID tells: name one", rdma.ErrAddress, d.port.name)
		}
		at = netip.AddrPortFrom(ip, at.Port())
	}
	c, err := d.newCMID(ibv.CMChannel.NewID)
	if err != nil {
		return nil, err
	}
	l := &cmListener{cmid: c}
	err = c.do(func(id ibv.CMID) error {
		if err := id.Listen(at, scope); err != nil {
			return fmt.Errorf("%w: listen at %v: %w: choose a free port, and an address of the device's interface", rdma.ErrAddress, at, err)
		}
		l.addr = netip.AddrPortFrom(at.Addr(), id.Port())
		return d.port.on(id, at)
	})
	if err != nil {
		return nil, errors.Join(err, c.close(nil))
	}
	return l, nil
}

func (d *device) DialCM(ctx context.Context, qp rdma.QP, to netip.AddrPort, private []byte, opt rdma.ConnectOptions) (rdma.CMConn, error) {
	q, param, err := d.cmParam(qp, private, opt)
	if err != nil {
		return nil, err
	}
	c, err := d.newCMID(ibv.CMChannel.NewID)
	if err != nil {
		return nil, err
	}
	conn := &cmConn{cmid: c, qp: q}
	if err := conn.dial(ctx, to, private, param); err != nil {
		return nil, errors.Join(err, c.close(nil))
	}
	return conn, nil
}

// cmParam looks at what a connection is asked to be like.
func (d *device) cmParam(given rdma.QP, private []byte, opt rdma.ConnectOptions) (*qp, ibv.CMParam, error) {
	q, _ := given.(*qp)
	if q == nil || q.dom.dev != d {
		return nil, ibv.CMParam{}, fmt.Errorf("%w: the queue pair must be one of the device %s", rdma.ErrOption, d.port.name)
	}
	if err := cmData(private); err != nil {
		return nil, ibv.CMParam{}, err
	}
	opt, err := opt.Normalize()
	if err != nil {
		return nil, ibv.CMParam{}, err
	}
	param := ibv.CMParam{
		QPN: q.num, Reads: uint8(min(d.port.attr.MaxReads, maxReads)), Timeout: timeoutCode(opt.Timeout),
		Retry: uint8(opt.RetryCount), RNRRetry: uint8(opt.RNRRetry), RNR: rnrCode(opt.RNRTimer),
	}
	if opt.MTU != 0 {
		param.MTU = mtuCode(opt.MTU)
	}
	return q, param, q.fresh()
}

func cmData(private []byte) error {
	if len(private) > rdma.CMData {
		return fmt.Errorf("%w: %d bytes of private data: rdma_cm carries %d", rdma.ErrOption, len(private), rdma.CMData)
	}
	return nil
}

// cmListener is a listener.
type cmListener struct {
	*cmid
	addr netip.AddrPort
}

func (l *cmListener) Addr() netip.AddrPort { return l.addr }
func (l *cmListener) Close() error         { return l.close(nil) }

func (l *cmListener) Next(ctx context.Context) (rdma.CMRequest, error) {
	for {
		e, err := l.next(ctx)
		if err != nil {
			return nil, err
		}
		switch e.Type {
		case ibv.CMRequest:
			c, err := l.dev.newCMID(func(to ibv.CMChannel) (ibv.CMID, error) { return e.ID, e.ID.Migrate(to) })
			if err != nil {
				return nil, errors.Join(err, e.ID.Close())
			}
			return &cmRequest{cmid: c, data: e.Data, reads: e.Reads}, nil
		case ibv.CMRemoval:
			return nil, eventError(e)
		}
	}
}

// cmRequest is a request.
type cmRequest struct {
	*cmid
	data     []byte
	reads    int
	answered atomic.Bool
}

func (r *cmRequest) PrivateData() []byte { return r.data }

func (r *cmRequest) answer() error {
	if r.answered.Swap(true) {
		return fmt.Errorf("%w: a request is answered once", rdma.ErrState)
	}
	return nil
}

func (r *cmRequest) Reject(private []byte) error {
	if err := cmData(private); err != nil {
		return err
	}
	if err := r.answer(); err != nil {
		return err
	}
	err := r.do(func(id ibv.CMID) error { return id.Reject(private) })
	if err != nil {
		err = cmError(err)
	}
	return errors.Join(err, r.close(nil))
}

func (r *cmRequest) Accept(ctx context.Context, qp rdma.QP, private []byte, opt rdma.ConnectOptions) (rdma.CMConn, error) {
	q, param, err := r.dev.cmParam(qp, private, opt)
	if err != nil {
		return nil, err
	}
	if err := r.answer(); err != nil {
		return nil, err
	}
	param.Reads = uint8(min(int(param.Reads), r.reads))
	conn := &cmConn{cmid: r.cmid, qp: q, data: r.data}
	if err := conn.accept(ctx, private, param); err != nil {
		return nil, errors.Join(err, r.close(nil))
	}
	return conn, nil
}

// isUnreachable tells the errnos of an address without a way to it.
func isUnreachable(err error) bool {
	return errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENODEV) ||
		errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.ETIMEDOUT) || errors.Is(err, syscall.EINVAL)
}
