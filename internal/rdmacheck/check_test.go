package rdmacheck_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream/internal/rdmacheck"
	"github.com/novastream/novastream/rdma"
	"github.com/novastream/novastream/rdma/soft"
)

// card is a provider whose devices are those of soft, and described otherwise.
type card struct {
	*soft.Provider
	infos []rdma.DeviceInfo
	err   error
	open  func(name string, d *soft.Device) error
}

func (*card) Name() string { return "card" }

func (c *card) Devices() ([]rdma.DeviceInfo, error) { return c.infos, c.err }

func (c *card) Open(name string) (rdma.Device, error) {
	d, err := c.Provider.Open("")
	if err == nil && c.open != nil {
		if err = c.open(name, d.(*soft.Device)); err != nil {
			d.Close()
		}
	}
	return d, err
}

// judgements are the findings without what was measured.
func judgements(all []rdmacheck.Finding) (out []string) {
	for _, f := range all {
		if f.State == rdmacheck.OK {
			out = append(out, fmt.Sprintf("%s: %s", f.What, f.State))
			continue
		}
		out = append(out, fmt.Sprintf("%s: %s: %s -> %s", f.What, f.State, f.Found, f.Remedy))
	}
	return out
}

func TestExamine(t *testing.T) {
	v2 := rdma.GID{Address: "::ffff:10.0.0.1", Type: "RoCE v2", Interface: "eth1"}
	c := &card{Provider: soft.New(), infos: []rdma.DeviceInfo{
		{Name: "c0", Provider: "card", Port: rdma.PortActive, MTU: 4096, GID: 1, GIDs: []rdma.GID{{Address: "fe80::1", Type: "RoCE v1", Interface: "eth0"}, v2}},
		{Name: "c1", Provider: "card", Port: rdma.PortActive, MTU: 1024, GID: 0, GIDs: []rdma.GID{v2}},
		{Name: "c2", Provider: "card", Port: rdma.PortDown, MTU: 4096, GID: -1, GIDs: []rdma.GID{{}, {Address: "fe80::2", Type: "RoCE v1", Interface: "eth2"}}},
		{Name: "c3", Provider: "card", Port: rdma.PortActive, MTU: 4096, GID: 0, GIDs: []rdma.GID{v2}},
	}, open: func(name string, d *soft.Device) error {
		if name == "c3" {
			return fmt.Errorf("%w: memlock is 64 KiB", rdma.ErrLimit)
		}
		return nil
	}}
	devices, found := rdmacheck.Examine(t.Context(), c)
	require.Equal(t, []string{
		"provider card: ok",
		"c0 port: ok", "c0 MTU: ok", "c0 GIDs: ok", "c0 loopback: ok",
		"c1 port: ok", "c1 MTU: slow: 1024 -> ip link set eth1 mtu 4200, or more, gives 4096 bytes a packet; on the whole way",
		"c1 GIDs: ok", "c1 loopback: ok",
		"c2 port: missing: link down -> plug in the cable, or set the interface up: ip link set eth2 up",
		"c2 MTU: ok",
		"c2 GIDs: missing: 1 RoCE v1 fe80::2 -> ip addr add ADDRESS/24 dev eth2: RoCE needs the IP address of an interface",
		"c3 port: ok", "c3 MTU: ok", "c3 GIDs: ok",
		"c3 loopback: missing: rdma: limit reached: memlock is 64 KiB -> ulimit -l unlimited, LimitMEMLOCK=infinity of the service, or the capability IPC_LOCK",
		"MTUs: slow: c0 4096, c1 1024, c3 4096 -> give all interfaces of one network the same MTU: ports whose MTUs differ do not connect (ErrMTU)",
	}, judgements(found))
	require.Equal(t, "0 RoCE v1 fe80::1, 1 RoCE v2 ::ffff:10.0.0.1 (chosen)", found[3].Found)
	require.Len(t, devices, 4)
	require.Equal(t, []rdmacheck.GID{
		{Index: 0, Address: "fe80::1", Type: "RoCE v1", Interface: "eth0"},
		{Index: 1, Address: "::ffff:10.0.0.1", Type: "RoCE v2", Interface: "eth1", Chosen: true},
	}, devices[0].GIDs)
	require.Positive(t, devices[0].Loopback.PerSecond)
	require.Positive(t, devices[0].Loopback.Write)
	require.Nil(t, devices[2].Loopback)
	require.Nil(t, devices[3].Loopback)
}

func TestExamineNoDevice(t *testing.T) {
	for says, err := range map[string]error{
		"modprobe rdma_rxe":    rdma.ErrNoDevice,
		"go build -tags verbs": fmt.Errorf("%w: built without -tags verbs", rdma.ErrNoDevice),
		"ip link set":          rdma.ErrPort,
		"ulimit -l":            rdma.ErrLimit,
		"ConnectOptions.MTU":   rdma.ErrMTU,
		"4791":                 rdma.ErrRetryExceeded,
		"dmesg":                rdma.ErrStatus,
	} {
		devices, found := rdmacheck.Examine(t.Context(), &card{err: err})
		require.Empty(t, devices)
		require.Len(t, found, 1)
		require.Equal(t, rdmacheck.Missing, found[0].State)
		require.Equal(t, "provider card", found[0].What)
		require.Contains(t, found[0].Found, err.Error())
		require.Contains(t, found[0].Remedy, says)
	}
}

// What a device that carries nothing comes to.
func TestTryFails(t *testing.T) {
	dead := &card{Provider: soft.New(), open: func(_ string, d *soft.Device) error { d.Cut(0); return nil }}
	_, err := rdmacheck.Try(t.Context(), dead, "")
	require.ErrorIs(t, err, rdma.ErrRetryExceeded)
	stuck := &card{Provider: soft.New(), open: func(_ string, d *soft.Device) error { d.Stall(true); return nil }}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err = rdmacheck.Try(ctx, stuck, "")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	_, err = rdmacheck.Try(t.Context(), soft.New(), "nope")
	require.ErrorIs(t, err, rdma.ErrNoDevice)
}
