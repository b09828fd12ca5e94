//go:build verbs && cgo && linux

package verbs

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"github.com/novastream/novastream/cgo/verbs"
	"github.com/novastream/novastream/rdma"
)

// cmConn is a connection. The identifier knows of the queue pair by its number
// only, so its states are taken care of here.
type cmConn struct {
	*cmid
	qp   *qp
	data []byte
}

func (c *cmConn) PrivateData() []byte { return c.data }

// dial takes the steps of the side that asks.
func (c *cmConn) dial(ctx context.Context, to netip.AddrPort, private []byte, p ibv.CMParam) error {
	ms := int(resolveTime.Milliseconds())
	ip, scope, err := c.dev.ip()
	if err != nil {
		return err
	}
	if ip.Is4() != to.Addr().Unmap().Is4() {
		ip = netip.Addr{}
	}
	if err := routed(ip, to); err != nil {
		return fmt.Errorf("dial %v: %w", to, unreachable(err))
	}
	err = c.do(func(id ibv.CMID) error { return id.ResolveAddr(netip.AddrPortFrom(ip, 0), to, scope, ms) })
	if err == nil {
		_, err = c.expect(ctx, ibv.CMAddress)
	} else if isUnreachable(err) {
		err = unreachable(err)
	}
	if err != nil {
		return fmt.Errorf("dial %v: %w", to, err)
	}
	err = c.do(func(id ibv.CMID) error {
		if err := c.dev.port.on(id, to); err != nil {
			return err
		}
		return id.ResolveRoute(ms)
	})
	if err == nil {
		_, err = c.expect(ctx, ibv.CMRoute)
	}
	if err == nil {
		err = c.do(func(id ibv.CMID) error { return id.Connect(p, private) })
	}
	if err != nil {
		return fmt.Errorf("dial %v: %w", to, err)
	}
	e, err := c.expect(ctx, ibv.CMResponse)
	if err != nil {
		return fmt.Errorf("dial %v: %w", to, err)
	}
	c.data = e.Data
	if err := c.ready(p); err != nil {
		return errors.Join(err, c.qp.end())
	}
	if err := c.do(ibv.CMID.Establish); err != nil {
		return errors.Join(fmt.Errorf("dial %v: %w", to, err), c.qp.end())
	}
	return nil
}

// routed asks for the route, by a socket that sends nothing: with the device's
// address given, rdma_cm takes what has no route to be on the device's own network.
func routed(from netip.Addr, to netip.AddrPort) error {
	if to.Addr().IsLinkLocalUnicast() || from.IsLinkLocalUnicast() {
		return nil
	}
	s, err := net.DialUDP("udp", &net.UDPAddr{IP: from.AsSlice()}, net.UDPAddrFromAddrPort(to))
	if err != nil {
		return err
	}
	return s.Close()
}

// accept takes the steps of the side that was asked. Its queue pair can receive
// before the other side learns of it.
func (c *cmConn) accept(ctx context.Context, private []byte, p ibv.CMParam) error {
	err := c.do(func(id ibv.CMID) error { return c.dev.port.on(id, netip.AddrPort{}) })
	if err != nil {
		return err
	}
	if err = c.ready(p); err == nil {
		if err = c.do(func(id ibv.CMID) error { return id.Accept(p, private) }); err == nil {
			_, err = c.expect(ctx, ibv.CMEstablished)
		}
	}
	if err != nil {
		return errors.Join(fmt.Errorf("accept: %w", err), c.qp.end())
	}
	return nil
}

// ready takes the queue pair to RTS.
func (c *cmConn) ready(p ibv.CMParam) error {
	q := c.qp
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.unconnected(); err != nil {
		return err
	}
	err := c.do(func(id ibv.CMID) error { return id.Ready(q.q, p) })
	switch {
	case errors.Is(err, syscall.EMSGSIZE):
		return fmt.Errorf("%w: %d bytes are asked for, and the path has less: ask for less on both sides, or raise the interfaces' MTU", rdma.ErrMTU, mtuBytes(p.MTU))
	case err != nil:
		return fmt.Errorf("verbs: queue pair %#x by rdma_cm: %w", q.num, err)
	}
	q.state = rdma.RTS
	return nil
}

func (c *cmConn) Wait(ctx context.Context) error {
	for {
		e, err := c.next(ctx)
		if err != nil {
			return err
		}
		switch e.Type {
		case ibv.CMDisconnected:
			// Confirmed, so that the other side need not ask again.
			_ = c.do(ibv.CMID.Disconnect)
			return errors.Join(rdma.ErrDisconnected, c.qp.end())
		case ibv.CMRemoval:
			return eventError(e)
		}
	}
}

func (c *cmConn) Close() error {
	return errors.Join(c.qp.end(), c.cmid.Close())
}

// fresh says ErrState or ErrClosed unless the queue pair waits to be connected.
func (q *qp) fresh() error {
	q.mu.RLock()
	defer q.mu.RUnlock()
	return q.unconnected()
}

// unconnected is the same. The caller holds mu.
func (q *qp) unconnected() error {
	switch {
	case q.closed:
		return fmt.Errorf("%w: queue pair", rdma.ErrClosed)
	case q.state != rdma.Init:
		return fmt.Errorf("%w: connect in %v", rdma.ErrState, q.state)
	}
	return nil
}

// end takes the queue pair to Error, if it is still there.
func (q *qp) end() error {
	if err := q.Abort(); err != nil && !errors.Is(err, rdma.ErrClosed) {
		return err
	}
	return nil
}
