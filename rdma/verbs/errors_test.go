//go:build verbs && cgo && linux

package verbs_test

import (
	"context"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/novastream/novastream/rdma"
	"github.com/novastream/novastream/rdma/verbs"
)

// guest says that this is the guest that scripts/rdma boots: rxe0 is to be used,
// rxe1 has a smaller MTU, rxe2 is down.
func guest(t *testing.T) {
	if os.Getenv(required) == "" {
		t.Skip("needs the devices of the guest: make test-rdma")
	}
}

func TestDevices(t *testing.T) {
	guest(t)
	infos, err := verbs.Provider().Devices()
	require.NoError(t, err)
	require.Len(t, infos, 3)
	for i, want := range []rdma.DeviceInfo{
		{Name: "rxe0", Port: rdma.PortActive, MTU: 4096},
		{Name: "rxe1", Port: rdma.PortActive, MTU: 1024},
		{Name: "rxe2", Port: rdma.PortDown, MTU: 4096},
	} {
		got := infos[i]
		require.Equal(t, want.Name, got.Name)
		require.Equal(t, "verbs", got.Provider)
		require.Equal(t, want.Port, got.Port)
		require.Equal(t, want.MTU, got.MTU)
		require.Positive(t, got.Limits.MaxSend)
		require.Positive(t, got.Limits.MaxCQ)
		require.Positive(t, got.Limits.MaxRegion)
		require.Positive(t, got.Limits.MaxMessage)
		require.Positive(t, got.Limits.MaxQPs)
	}
	require.Equal(t, rdma.GID{Address: "::ffff:10.99.0.1", Type: "RoCE v2", Interface: "d0"}, infos[0].GIDs[infos[0].GID])
	require.Equal(t, 512, infos[0].Limits.MaxInline)
}

func TestOpenErrors(t *testing.T) {
	guest(t)
	for name, want := range map[string]struct {
		err  error
		says string
	}{
		"nope":      {rdma.ErrNoDevice, "rxe0, rxe1, rxe2"},
		"rxe0/x":    {rdma.ErrNoDevice, "NAME/PORT/GID"},
		"rxe2":      {rdma.ErrPort, "ip link set"},
		"rxe0/2":    {rdma.ErrPort, "1 ports"},
		"rxe0/1/77": {rdma.ErrPort, "no GID 77"},
	} {
		_, err := verbs.Provider().Open(name)
		require.ErrorIs(t, err, want.err, name)
		require.ErrorContains(t, err, want.says, name)
	}
	d, err := verbs.Provider().Open("rxe0/1/1")
	require.NoError(t, err)
	require.Equal(t, 1, d.Info().GID)
	require.NoError(t, d.Close())
}

// queuePair makes a queue pair on a device.
func queuePair(t *testing.T, d rdma.Device) rdma.QP {
	m, err := d.NewDomain()
	require.NoError(t, err)
	c, err := m.NewCQ(16)
	require.NoError(t, err)
	q, err := m.NewQP(rdma.QPOptions{SendCQ: c, RecvCQ: c, MaxSend: 4, MaxRecv: 4})
	require.NoError(t, err)
	return q
}

func TestConnectErrors(t *testing.T) {
	guest(t)
	d0, d1 := openDevice(t, "rxe0"), openDevice(t, "rxe1")
	defer d0.Close()
	defer d1.Close()
	a, b := queuePair(t, d0), queuePair(t, d1)
	ctx := context.Background()
	err := a.Connect(ctx, b.Address(), rdma.ConnectOptions{})
	require.ErrorIs(t, err, rdma.ErrMTU)
	require.ErrorContains(t, err, "1024")
	require.ErrorIs(t, a.Connect(ctx, b.Address(), rdma.ConnectOptions{MTU: 4096}), rdma.ErrMTU)
	require.ErrorIs(t, a.Connect(ctx, b.Address(), rdma.ConnectOptions{RetryCount: 7}), rdma.ErrOption)
	require.ErrorIs(t, a.Connect(ctx, b.Address()[1:], rdma.ConnectOptions{}), rdma.ErrAddress)
	require.Equal(t, rdma.Init, a.State())
	require.NoError(t, a.Connect(ctx, b.Address(), rdma.ConnectOptions{MTU: 1024}))
	require.ErrorIs(t, a.Connect(ctx, b.Address(), rdma.ConnectOptions{MTU: 1024}), rdma.ErrState)
}

func TestLimits(t *testing.T) {
	d := openDevice(t, "")
	defer d.Close()
	l := d.Info().Limits
	m, err := d.NewDomain()
	require.NoError(t, err)
	_, err = m.NewCQ(l.MaxCQ + 1)
	require.ErrorIs(t, err, rdma.ErrLimit)
	c, err := m.NewCQ(16)
	require.NoError(t, err)
	for _, o := range []rdma.QPOptions{{MaxSend: l.MaxSend + 1}, {MaxRecv: l.MaxRecv + 1}, {MaxInline: l.MaxInline + 1}} {
		o.SendCQ, o.RecvCQ, o.MaxSend, o.MaxRecv = c, c, max(o.MaxSend, 1), max(o.MaxRecv, 1)
		_, err := m.NewQP(o)
		require.ErrorIs(t, err, rdma.ErrLimit, "%+v", o)
	}
	_, err = m.NewRegion(1<<50, 0)
	require.ErrorIs(t, err, rdma.ErrLimit)
}

// limited is set in the process that TestMemlock starts.
const limited = "NOVA_TEST_LIMITED"

// A region larger than memlock permits: in a process that may not lock what it
// likes.
func TestMemlock(t *testing.T) {
	if os.Getenv(limited) != "" {
		d := openDevice(t, "")
		defer d.Close()
		m, err := d.NewDomain()
		require.NoError(t, err)
		_, err = m.NewRegion(1<<20, rdma.RemoteWrite)
		require.ErrorIs(t, err, rdma.ErrLimit)
		require.ErrorContains(t, err, "is 65536 bytes")
		r, err := m.NewRegion(4096, rdma.RemoteWrite)
		require.NoError(t, err, "what fits is given after what did not")
		require.NoError(t, r.Close())
		return
	}
	if os.Getuid() != 0 {
		t.Skip("needs root, to become somebody else")
	}
	openDevice(t, "").Close()
	var before unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_MEMLOCK, &before))
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: 65536, Max: before.Max}))
	defer func() { require.NoError(t, unix.Setrlimit(unix.RLIMIT_MEMLOCK, &before)) }()
	cmd := exec.Command(os.Args[0], "-test.run", "^TestMemlock$")
	cmd.Env = append(os.Environ(), limited+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// A port that goes down and comes up tells so.
func TestPortEvents(t *testing.T) {
	guest(t)
	d := openDevice(t, "rxe1")
	defer d.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for _, c := range []struct {
		to    string
		kind  rdma.EventKind
		state rdma.PortState
	}{{"down", rdma.EventPortDown, rdma.PortDown}, {"up", rdma.EventPortUp, rdma.PortActive}} {
		out, err := exec.Command("/usr/sbin/ip", "link", "set", "d1", c.to).CombinedOutput()
		require.NoError(t, err, "%s", out)
		for {
			e, err := d.Event(ctx)
			require.NoError(t, err)
			if e.Kind == c.kind {
				break
			}
		}
		require.Equal(t, c.state, d.Info().Port)
	}
	cancel()
	_, err := d.Event(ctx)
	require.ErrorIs(t, err, context.Canceled)
	waiting := make(chan error)
	go func() { _, err := d.Event(context.Background()); waiting <- err }()
	require.NoError(t, d.Close())
	require.ErrorIs(t, <-waiting, rdma.ErrClosed)
	require.NoError(t, d.Close())
}
