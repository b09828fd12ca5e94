package rdmacheck

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/novastream/novastream/rdma"
)

// State judges a Finding.
type State string

// The states.
const (
	OK      State = "ok"
	Slow    State = "slow"    // works, and could do better
	Missing State = "missing" // does not work
)

// Finding is one thing that was looked at, and what to do about it unless it is OK.
type Finding struct {
	What   string `json:"what"`
	State  State  `json:"state"`
	Found  string `json:"found"`
	Remedy string `json:"remedy,omitempty"`
}

// Device is a port of a device, as its provider describes it.
type Device struct {
	Name     string      `json:"name"`
	Provider string      `json:"provider"`
	Port     string      `json:"port"`
	MTU      int         `json:"mtu"`
	GIDs     []GID       `json:"gids,omitempty"`
	Limits   rdma.Limits `json:"limits"`
	Loopback *Loopback   `json:"loopback,omitempty"` // nil: it failed, or was not tried
}

// GID is an address of a port.
type GID struct {
	Index     int    `json:"index"`
	Address   string `json:"address"`
	Type      string `json:"type"`
	Interface string `json:"interface,omitempty"`
	Chosen    bool   `json:"chosen"`
}

// goodMTU is the largest that RoCE has.
const goodMTU = 4096

// tryTimeout bounds a loopback test.
const tryTimeout = 10 * time.Second

// Examine looks at all devices of a provider and tries each that can be used.
func Examine(ctx context.Context, p rdma.Provider) ([]Device, []Finding) {
	infos, err := p.Devices()
	if err != nil {
		return nil, []Finding{lack("provider "+p.Name(), err)}
	}
	found := []Finding{{"provider " + p.Name(), OK, names(infos), ""}}
	var devices []Device
	for _, info := range infos {
		d := describe(info)
		found = append(found, port(info), mtu(info))
		if len(d.GIDs) > 0 || info.GID < 0 && p.Name() == "verbs" {
			found = append(found, gids(info))
		}
		if info.Port != rdma.PortDown {
			f := Finding{What: info.Name + " loopback", State: OK}
			ctx, cancel := context.WithTimeout(ctx, tryTimeout)
			l, err := Try(ctx, p, info.Name)
			cancel()
			if err != nil {
				f = lack(f.What, err)
			} else {
				d.Loopback = &l
				f.Found = fmt.Sprintf("%d KiB writes: %.0f MB/s, compared; 8 bytes: %v", l.Bytes>>10, l.PerSecond/1e6, l.Write.Round(100*time.Nanosecond))
			}
			found = append(found, f)
		}
		devices = append(devices, d)
	}
	return devices, append(found, mixed(infos)...)
}

func names(infos []rdma.DeviceInfo) string {
	list := make([]string, len(infos))
	for i, info := range infos {
		list[i] = info.Name
	}
	return strings.Join(list, ", ")
}

func describe(info rdma.DeviceInfo) Device {
	d := Device{Name: info.Name, Provider: info.Provider, Port: info.Port.String(), MTU: info.MTU, Limits: info.Limits}
	for i, g := range info.GIDs {
		if g.Address != "" {
			d.GIDs = append(d.GIDs, GID{i, g.Address, g.Type, g.Interface, i == info.GID})
		}
	}
	return d
}

// lack is a finding of what an error says, with what to do about it.
func lack(what string, err error) Finding {
	f := Finding{What: what, State: Missing, Found: err.Error()}
	switch {
	case errors.Is(err, rdma.ErrNoDevice) && strings.Contains(f.Found, "-tags verbs"):
		f.Remedy = "apt-get install gcc libibverbs-dev librdmacm-dev ibverbs-providers; go build -tags verbs ./cmd/nova"
	case errors.Is(err, rdma.ErrNoDevice):
		f.Remedy = "load the card's driver; soft-RoCE: modprobe rdma_rxe, rdma link add rxe0 type rxe netdev eth0; in a container, pass /dev/infiniband in"
	case errors.Is(err, rdma.ErrPort):
		f.Remedy = "plug in the cable, set the interface up (ip link set DEV up), give it an IP address"
	case errors.Is(err, rdma.ErrLimit):
		f.Remedy = "ulimit -l unlimited, LimitMEMLOCK=infinity of the service, or the capability IPC_LOCK"
	case errors.Is(err, rdma.ErrMTU):
		f.Remedy = "give both interfaces the same MTU, or set ConnectOptions.MTU"
	case errors.Is(err, rdma.ErrRetryExceeded), errors.Is(err, context.DeadlineExceeded):
		f.Remedy = "the device does not reach itself: another GID (NAME/PORT/GID), routes, a firewall on UDP port 4791"
	default:
		f.Remedy = "choose another device by its name; see dmesg for what the driver says"
	}
	return f
}

func port(info rdma.DeviceInfo) Finding {
	f := Finding{info.Name + " port", OK, "link " + info.Port.String(), ""}
	if info.Port == rdma.PortDown {
		f.State, f.Remedy = Missing, "plug in the cable, or set the interface up: ip link set "+netdev(info)+" up"
	}
	return f
}

// netdev is the interface that a device belongs to, if a GID tells.
func netdev(info rdma.DeviceInfo) string {
	for _, g := range info.GIDs {
		if g.Interface != "" {
			return g.Interface
		}
	}
	return "DEV"
}

func mtu(info rdma.DeviceInfo) Finding {
	f := Finding{info.Name + " MTU", OK, fmt.Sprint(info.MTU), ""}
	if info.MTU > 0 && info.MTU < goodMTU {
		f.State, f.Remedy = Slow, fmt.Sprintf("ip link set %s mtu 4200, or more, gives %d bytes a packet; on the whole way", netdev(info), goodMTU)
	}
	return f
}

// gids tells the address in use, and of what kind all are.
func gids(info rdma.DeviceInfo) Finding {
	f := Finding{What: info.Name + " GIDs", State: OK}
	var list []string
	for i, g := range info.GIDs {
		if g.Address == "" {
			continue
		}
		s := fmt.Sprintf("%d %s %s", i, g.Type, g.Address)
		if i == info.GID {
			s += " (chosen)"
		}
		list = append(list, s)
	}
	f.Found = strings.Join(list, ", ")
	if len(list) == 0 {
		f.Found = "none"
	}
	if info.GID < 0 {
		f.State, f.Remedy = Missing, fmt.Sprintf("ip addr add ADDRESS/24 dev %s: RoCE needs the IP address of an interface", netdev(info))
	}
	return f
}

// mixed tells of active ports with different MTUs: queue pairs between such do not
// connect by themselves.
func mixed(infos []rdma.DeviceInfo) []Finding {
	var seen []string
	first, differ := 0, false
	for _, info := range infos {
		if info.Port != rdma.PortActive {
			continue
		}
		if first == 0 {
			first = info.MTU
		}
		differ = differ || info.MTU != first
		seen = append(seen, fmt.Sprintf("%s %d", info.Name, info.MTU))
	}
	if !differ {
		return nil
	}
	return []Finding{{"MTUs", Slow, strings.Join(seen, ", "), "give all interfaces of one network the same MTU: ports whose MTUs differ do not connect (ErrMTU)"}}
}
