//go:build verbs && cgo && linux

package verbs

import (
	"fmt"
	"math"
	"net"
	"net/netip"

	"github.com/novastream/novastream/cgo/verbs"
	"github.com/novastream/novastream/rdma"
)

// port is one port of an open device. It does not change.
type port struct {
	name   string // as the user has given it, or Devices gives it
	ctx    ibv.Context
	attr   ibv.Attr
	number int
	gid    int // the index that the user has chosen, -1: none
	inline int
}

// address is what the port has of a queue pair's address, and the index of the GID
// in it, -1 when there is none.
func (p port) address() (address, int, error) {
	attr, err := p.ctx.Port(p.number)
	if err != nil {
		return address{}, -1, fmt.Errorf("%w: port %d of %s: %w", rdma.ErrPort, p.number, p.name, err)
	}
	a := address{lid: attr.LID, mtu: attr.MTU, ethernet: attr.Ethernet}
	gids, err := p.ctx.GIDs()
	if err != nil {
		return address{}, -1, fmt.Errorf("verbs: the GIDs of %s: %w", p.name, err)
	}
	index, best := -1, 0
	for _, g := range gids {
		if g.Port != p.number {
			continue
		}
		rank := gidRank(g.Raw, attr.Ethernet, g.RoCE2)
		if p.gid >= 0 {
			rank = 0
			if g.Index == p.gid {
				rank = 1
			}
		}
		if rank > best {
			best, index, a.gid = rank, g.Index, g.Raw
		}
	}
	return a, index, nil
}

// usable says why a port cannot be used, or nil.
func (p port) usable() error {
	if p.number > p.attr.Ports {
		return fmt.Errorf("%w: %s has %d ports", rdma.ErrPort, p.name, p.attr.Ports)
	}
	attr, err := p.ctx.Port(p.number)
	if err != nil {
		return fmt.Errorf("%w: port %d of %s: %w", rdma.ErrPort, p.number, p.name, err)
	}
	if !attr.Active {
		return fmt.Errorf("%w: the link of %s is down: plug in the cable, or set its interface up (ip link set DEV up)", rdma.ErrPort, p.name)
	}
	_, gid, err := p.address()
	if err != nil {
		return err
	}
	if gid < 0 && p.gid >= 0 {
		return fmt.Errorf("%w: %s has no GID %d: `nova doctor rdma` lists them", rdma.ErrPort, p.name, p.gid)
	}
	if gid < 0 && attr.Ethernet {
		return fmt.Errorf("%w: %s has no RoCE v2 GID: give its interface an IP address", rdma.ErrPort, p.name)
	}
	return nil
}

// info describes the port as it is now.
func (p port) info() rdma.DeviceInfo {
	info := rdma.DeviceInfo{
		Name: p.name, Provider: "verbs", Port: rdma.PortUnknown, GID: -1,
		Limits: rdma.Limits{
			MaxSend: p.attr.MaxQPWR, MaxRecv: p.attr.MaxQPWR, MaxCQ: p.attr.MaxCQE, MaxInline: p.inline,
			MaxRegion: int(min(p.attr.MaxMR, math.MaxInt)), MaxQPs: p.attr.MaxQP,
		},
	}
	attr, err := p.ctx.Port(p.number)
	if err != nil {
		return info
	}
	info.Port, info.MTU, info.Limits.MaxMessage = rdma.PortDown, mtuBytes(attr.MTU), int(attr.MaxMessage)
	if attr.Active {
		info.Port = rdma.PortActive
	}
	gids, err := p.ctx.GIDs()
	if err != nil {
		return info
	}
	for _, g := range gids {
		if g.Port != p.number {
			continue
		}
		for len(info.GIDs) <= g.Index {
			info.GIDs = append(info.GIDs, rdma.GID{})
		}
		info.GIDs[g.Index] = describe(g, attr.Ethernet)
	}
	if _, gid, err := p.address(); err == nil {
		info.GID = gid
	}
	return info
}

func describe(g ibv.GID, ethernet bool) rdma.GID {
	out := rdma.GID{Address: netip.AddrFrom16(g.Raw).String(), Type: "InfiniBand"}
	switch {
	case g.RoCE2:
		out.Type = "RoCE v2"
	case ethernet:
		out.Type = "RoCE v1"
	}
	if i, err := net.InterfaceByIndex(g.Interface); err == nil {
		out.Interface = i.Name
	}
	return out
}

// maxInline finds out by trying how long an inline request may be: no device says.
func maxInline(ctx ibv.Context) int {
	pd, err := ctx.AllocPD()
	if err != nil {
		return 0
	}
	defer pd.Close()
	cq, err := ctx.CreateCQ(1)
	if err != nil {
		return 0
	}
	defer cq.Close()
	for _, n := range []int{1024, 512, 256, 220, 128, 64, 32} {
		if qp, err := pd.CreateQP(cq, cq, 1, 1, n); err == nil {
			_ = qp.Close()
			return n
		}
	}
	return 0
}
