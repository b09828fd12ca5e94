//go:build verbs && cgo && linux

package verbs

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/novastream/novastream/cgo/verbs"
	"github.com/novastream/novastream/rdma"
)

// resolveTime is how long the kernel looks for an address, and for a route.
const resolveTime = 2 * time.Second

// cmid is an identifier of rdma_cm with a channel of its own, so that whoever waits
// for its events gets no others. The device knows it until close.
type cmid struct {
	dev     *device
	channel ibv.CMChannel
	wait    *waiter

	mu     sync.Mutex // held for whatever touches id but the taking of events
	id     ibv.CMID
	closed bool
}

// newCMID makes one, with an identifier that make gives.
func (d *device) newCMID(make func(ibv.CMChannel) (ibv.CMID, error)) (*cmid, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, fmt.Errorf("%w: device %s", rdma.ErrClosed, d.port.name)
	}
	channel, err := ibv.NewCMChannel()
	if err != nil {
		return nil, cmError(err)
	}
	c := &cmid{dev: d, channel: channel}
	if c.wait, err = newWaiter(channel.FD(), "verbs: rdma_cm of "+d.port.name); err != nil {
		channel.Close()
		return nil, err
	}
	if c.id, err = make(channel); err != nil {
		err = errors.Join(cmError(err), c.wait.close())
		channel.Close()
		return nil, err
	}
	d.cms[c] = true
	return c, nil
}

// do calls f with the identifier unless that is closed.
func (c *cmid) do(f func(ibv.CMID) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return fmt.Errorf("%w: rdma_cm", rdma.ErrClosed)
	}
	return f(c.id)
}

// next takes an event.
func (c *cmid) next(ctx context.Context) (ibv.CMEvent, error) {
	for {
		var e ibv.CMEvent
		taken := false
		err := c.wait.wait(ctx, func() (err error) {
			e, err = c.channel.Event()
			taken = err == nil
			return err
		})
		if err != nil {
			if c.wait.gone.Load() {
				err = fmt.Errorf("%w: rdma_cm", rdma.ErrClosed)
			}
			return e, err
		}
		if taken {
			return e, nil
		}
	}
}

// expect takes an event, and says what went wrong when it is not the one.
func (c *cmid) expect(ctx context.Context, want ibv.CMEventType) (ibv.CMEvent, error) {
	e, err := c.next(ctx)
	if err != nil || e.Type == want {
		return e, err
	}
	return e, eventError(e)
}

// close ends it, after a last word that say may have.
func (c *cmid) close(say func(ibv.CMID)) error {
	c.dev.mu.Lock()
	delete(c.dev.cms, c)
	c.dev.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	err := c.wait.close()
	if say != nil {
		say(c.id)
	}
	if derr := c.id.Close(); derr != nil {
		return errors.Join(err, fmt.Errorf("verbs: destroy an identifier of rdma_cm: %w", derr))
	}
	c.channel.Close()
	return err
}

// Close is for the device.
func (c *cmid) Close() error { return c.close(func(id ibv.CMID) { _ = id.Disconnect() }) }

// rejected is what the kernel of the other side says when nobody listens, and
// consumer what its user says. They are statuses of REJ of the InfiniBand
// architecture.
const (
	rejectedNobody   = 8
	rejectedConsumer = 28
)

// eventError is the error of an event that ends a connection, or an attempt.
func eventError(e ibv.CMEvent) error {
	errno := syscall.Errno(max(-e.Status, 0))
	switch e.Type {
	case ibv.CMAddressError, ibv.CMRouteError:
		return unreachable(errno)
	case ibv.CMUnreachable:
		return fmt.Errorf("%w: nobody answers: %w: see to UDP port 4791, and that the other host is up", rdma.ErrUnreachable, errno)
	case ibv.CMRejected:
		switch e.Status {
		case rejectedNobody:
			return fmt.Errorf("%w: start the listener first, and see to its port", rdma.ErrNoListener)
		case rejectedConsumer:
			return &rdma.RefusedError{Private: e.Data}
		}
		return fmt.Errorf("%w: by the other host's rdma_cm, for reason %d", rdma.ErrRefused, e.Status)
	case ibv.CMDisconnected:
		return rdma.ErrDisconnected
	case ibv.CMRemoval:
		return rdma.ErrDeviceGone
	}
	return fmt.Errorf("%w: event %d of rdma_cm, status %d", rdma.ErrRefused, e.Type, e.Status)
}

func unreachable(err error) error {
	return fmt.Errorf("%w: %w: give an address in the network of the device's interface, or a route to it", rdma.ErrUnreachable, err)
}

// cmError is the error of a call of librdmacm.
func cmError(err error) error {
	switch {
	case errors.Is(err, syscall.ENODEV), errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ENOSYS), errors.Is(err, syscall.ENXIO):
		return fmt.Errorf("%w: %w: load its module (modprobe rdma_ucm), and give a container /dev/infiniband/rdma_cm", rdma.ErrNoCM, err)
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return fmt.Errorf("%w: %w: this user must be able to open /dev/infiniband/rdma_cm", rdma.ErrNoCM, err)
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ENOMEM):
		return fmt.Errorf("%w: %w: raise ulimit -n", rdma.ErrLimit, err)
	case errors.Is(err, rdma.ErrClosed), errors.Is(err, rdma.ErrNoCM):
		return err
	}
	return fmt.Errorf("verbs: rdma_cm: %w", err)
}
