//go:build verbs && cgo && linux

package verbs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/novastream/novastream/cgo/verbs"
	"github.com/novastream/novastream/rdma"
)

// device is an open device. A goroutine of it reads asynchronous events, so that
// none is left unacknowledged, which would block whoever closes what it is about.
type device struct {
	port port
	wait *waiter // for asynchronous events
	ran  sync.WaitGroup
	news *news

	mu      sync.Mutex
	closed  bool
	domains map[*domain]bool
	queues  map[uintptr]*cq // by their ID in events
	cms     map[*cmid]bool
}

func open(name string) (*device, error) {
	base, number, gid, err := parseName(name)
	if err != nil {
		return nil, err
	}
	if _, err := names(); err != nil {
		return nil, err
	}
	ctx, err := ibv.Open(base)
	if err != nil {
		return nil, openError(base, err)
	}
	d := &device{
		port:    port{name: name, ctx: ctx, number: max(number, 1), gid: gid},
		news:    newNews(),
		domains: map[*domain]bool{},
		queues:  map[uintptr]*cq{},
		cms:     map[*cmid]bool{},
	}
	if d.port.attr, err = ctx.Attr(); err != nil {
		err = openError(base, err)
	} else if err = d.port.usable(); err == nil {
		d.wait, err = newWaiter(ctx.AsyncFD(), "verbs: events of "+name)
	}
	if err != nil {
		return nil, errors.Join(err, ctx.Close())
	}
	d.port.inline = maxInline(ctx)
	d.ran.Go(d.listen)
	return d, nil
}

func (d *device) Info() rdma.DeviceInfo {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return rdma.DeviceInfo{Name: d.port.name, Provider: "verbs", GID: -1}
	}
	return d.port.info()
}

func (d *device) NewDomain() (rdma.Domain, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, fmt.Errorf("%w: device %s", rdma.ErrClosed, d.port.name)
	}
	pd, err := d.port.ctx.AllocPD()
	if err != nil {
		return nil, fmt.Errorf("%w: %s gives no more protection domains: %w", rdma.ErrLimit, d.port.name, err)
	}
	m := &domain{dev: d, pd: pd, qps: map[*qp]bool{}, cqs: map[*cq]bool{}, regions: map[*region]bool{}}
	d.domains[m] = true
	return m, nil
}

// listen reads asynchronous events until the device is closed.
func (d *device) listen() {
	for {
		var e ibv.Event
		err := d.wait.wait(context.Background(), func() (err error) {
			e, err = d.port.ctx.Event()
			return err
		})
		if errors.Is(err, rdma.ErrClosed) {
			return
		}
		if err != nil {
			d.news.add(rdma.Event{Kind: rdma.EventDeviceGone})
			return
		}
		d.tell(e)
	}
}

func (d *device) tell(e ibv.Event) {
	switch e.Type {
	case ibv.PortActive, ibv.PortError:
		if e.Port != d.port.number {
			return
		}
		kind := rdma.EventPortUp
		if e.Type == ibv.PortError {
			kind = rdma.EventPortDown
		}
		d.news.add(rdma.Event{Kind: kind})
	case ibv.QPFatal, ibv.QPRequest, ibv.QPAccess:
		d.news.add(rdma.Event{Kind: rdma.EventQPFatal, QP: e.QP})
	case ibv.CQError:
		d.mu.Lock()
		q := d.queues[e.CQ]
		d.mu.Unlock()
		if q != nil {
			q.overflown()
		}
		d.news.add(rdma.Event{Kind: rdma.EventCQError})
	case ibv.DeviceFatal:
		d.news.add(rdma.Event{Kind: rdma.EventDeviceGone})
	}
}

func (d *device) Event(ctx context.Context) (rdma.Event, error) { return d.news.next(ctx) }

func (d *device) Close() error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil
	}
	d.closed = true
	domains, cms := slices.Collect(maps.Keys(d.domains)), slices.Collect(maps.Keys(d.cms))
	d.mu.Unlock()
	d.news.close()
	var errs []error
	for _, c := range cms {
		errs = append(errs, c.Close())
	}
	for _, m := range domains {
		errs = append(errs, m.Close())
	}
	// The reader of events goes last: what is closed before may wait for it.
	errs = append(errs, d.wait.close())
	d.ran.Wait()
	return errors.Join(append(errs, d.port.ctx.Close())...)
}
