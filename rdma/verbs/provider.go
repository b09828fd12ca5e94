//go:build verbs && cgo && linux

package verbs

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"

	"github.com/novastream/novastream/cgo/verbs"
	"github.com/novastream/novastream/rdma"
)

func init() { rdma.Register(Provider()) }

// Provider is the provider, which importing this package has registered.
func Provider() rdma.Provider { return provider{} }

type provider struct{}

func (provider) Name() string { return "verbs" }

var forkInit = sync.OnceValue(ibv.ForkInit)

// names lists the devices; none is an error.
func names() ([]string, error) {
	if err := forkInit(); err != nil {
		return nil, fmt.Errorf("verbs: ibv_fork_init: %w", err)
	}
	list, err := ibv.Names()
	if err == nil && len(list) == 0 {
		err = errors.New("libibverbs finds none")
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w: load the driver of the card, or for soft-RoCE rdma_rxe and `rdma link add rxe0 type rxe netdev eth0`; install ibverbs-providers; in a container /dev/infiniband must be there", rdma.ErrNoDevice, err)
	}
	return list, nil
}

// Devices lists every port: the first by the device's name alone. Devices that
// cannot be opened are left out while there are others.
func (provider) Devices() ([]rdma.DeviceInfo, error) {
	list, err := names()
	if err != nil {
		return nil, err
	}
	var infos []rdma.DeviceInfo
	var failed error
	for _, name := range list {
		ctx, err := ibv.Open(name)
		if err != nil {
			failed = openError(name, err)
			continue
		}
		attr, err := ctx.Attr()
		if err != nil {
			failed = openError(name, err)
		}
		inline := maxInline(ctx)
		for n := 1; n <= attr.Ports; n++ {
			p := port{name: name, ctx: ctx, attr: attr, number: n, gid: -1, inline: inline}
			if n > 1 {
				p.name = fmt.Sprintf("%s/%d", name, n)
			}
			infos = append(infos, p.info())
		}
		if err := ctx.Close(); err != nil {
			failed = openError(name, err)
		}
	}
	if len(infos) == 0 {
		return nil, failed
	}
	return infos, nil
}

// Open opens a device by a name as the package's comment describes; "" is the
// first whose port is active.
func (p provider) Open(name string) (rdma.Device, error) {
	if name != "" {
		return open(name)
	}
	infos, err := p.Devices()
	if err != nil {
		return nil, err
	}
	var seen []string
	for _, info := range infos {
		if info.Port == rdma.PortActive && info.GID >= 0 {
			return open(info.Name)
		}
		seen = append(seen, info.Name+" "+info.Port.String())
	}
	return nil, fmt.Errorf("%w: %s: plug in the cable, or set the interface up and give it an address", rdma.ErrPort, strings.Join(seen, ", "))
}

// openError says why a device cannot be opened.
func openError(name string, err error) error {
	switch {
	case errors.Is(err, syscall.ENODEV), errors.Is(err, syscall.ENOENT):
		list, lerr := names()
		if lerr != nil {
			return lerr
		}
		return fmt.Errorf("%w: %q; there are: %s", rdma.ErrNoDevice, name, strings.Join(list, ", "))
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return fmt.Errorf("%w: %q: %w: this user must be able to open /dev/infiniband/uverbs*", rdma.ErrNoDevice, name, err)
	case errors.Is(err, syscall.ENOMEM), errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return fmt.Errorf("%w: %q cannot be opened: %w: see ulimit -n and -l", rdma.ErrLimit, name, err)
	}
	return fmt.Errorf("%w: %q cannot be opened: %w", rdma.ErrNoDevice, name, err)
}
