package rdma

import (
	"context"
	"fmt"
	"time"

	"github.com/novastream/novastream/rdma"
)

// device is the lane's, opened by the first call.
func (l *Lane) device() (rdma.Device, error) {
	l.opening.Lock()
	defer l.opening.Unlock()
	if l.dev != nil {
		return l.dev, nil
	}
	switch {
	case l.shut:
		return nil, errClosing
	case l.provider == nil:
		return nil, l.absent
	}
	dev, err := l.provider.Open(l.name)
	if err != nil {
		return nil, err
	}
	info := dev.Info()
	if m := info.Limits; m.MaxSend < sendDepth || m.MaxRecv < recvDepth || m.MaxInline < 0 {
		_ = dev.Close()
		return nil, fmt.Errorf("%w: device %s has queues of %d sends and %d receives, the lane needs %d and %d",
			rdma.ErrLimit, info.Name, m.MaxSend, m.MaxRecv, sendDepth, recvDepth)
	}
	l.dev, l.limits = dev, info.Limits
	var ctx context.Context
	ctx, l.stop = context.WithCancel(context.Background())
	go l.watch(ctx, dev)
	l.log.Debug("rdma device opened", "provider", info.Provider, "device", info.Name, "mtu", info.MTU)
	return dev, nil
}

// watch takes the device's events.
func (l *Lane) watch(ctx context.Context, dev rdma.Device) {
	for {
		e, err := dev.Event(ctx)
		if err != nil {
			return
		}
		l.log.Debug("rdma device event", "device", l.name, "event", e.Kind.String())
		switch e.Kind {
		case rdma.EventDeviceGone:
			l.eachConn(func(c *conn) { c.breaks(rdma.ErrDeviceGone, false) })
		case rdma.EventQPFatal:
			// Its completions tell why, if they come; this is for when they do not.
			time.AfterFunc(fatalGrace, func() {
				l.eachConn(func(c *conn) {
					if c.qp.Num() == e.QP && c.qp.State() == rdma.Error {
						c.breaks(rdma.ErrLocalOperation, false)
					}
				})
			})
		}
	}
}

const fatalGrace = 50 * time.Millisecond

func (l *Lane) eachConn(fn func(*conn)) {
	l.mu.Lock()
	links := make([]*link, 0, len(l.links))
	for _, k := range l.links {
		links = append(links, k)
	}
	l.mu.Unlock()
	for _, k := range links {
		k.mu.Lock()
		shards := k.shards
		k.mu.Unlock()
		for _, s := range shards {
			for _, c := range s.all() {
				fn(c)
			}
		}
	}
}

func (l *Lane) closeDevice() {
	l.opening.Lock()
	defer l.opening.Unlock()
	if l.dev == nil {
		l.shut = true
		return
	}
	l.stop()
	_ = l.dev.Close()
	l.dev, l.shut = nil, true
}
