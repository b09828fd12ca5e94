package control

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// The end of a connection is not the death of the process at its other end: that
// is told when it comes, and once.
func TestDeathIsNotTheEndOfAConnection(t *testing.T) {
	n := node(t, tempDir(t), Unix)
	id, cmd := process(t, n.cfg.dir, Unix)
	p, err := n.Peer(ctx, id)
	require.NoError(t, err)
	closed, died := make(chan struct{}), make(chan struct{}, 2)
	p.OnClose(func(error) { close(closed) })
	p.OnDeath(func() { died <- struct{}{} })
	unheard := p.OnDeath(func() { t.Error("who has stopped to listen was told") })
	require.NoError(t, p.Close())
	<-closed
	require.True(t, unheard())
	select {
	case <-died:
		require.Fail(t, "a living process was taken for dead")
	case <-time.After(50 * time.Millisecond):
	}
	p.OnDeath(func() { died <- struct{}{} }) // also behind the end of the connection
	require.NoError(t, cmd.Process.Kill())
	<-died
	<-died
	told := false
	require.False(t, p.OnDeath(func() { told = true })(), "it is told at once")
	require.True(t, told)
}

// A living process whose connections come and go leaves nothing with a node that
// does not wait for its death, nor does one that is waited for when the node ends.
func TestNoHoldOnAProcessIsLeft(t *testing.T) {
	dir := tempDir(t)
	n := node(t, dir, Unix)
	id, _ := process(t, dir, Unix)
	held := func() int {
		fds, err := os.ReadDir("/proc/self/fd")
		require.NoError(t, err)
		return len(fds)
	}
	before := held()
	for range 20 {
		p, err := n.Peer(ctx, id)
		require.NoError(t, err)
		stop := p.OnDeath(func() {})
		require.NoError(t, p.Close())
		require.True(t, stop())
	}
	settles(t, func() bool { return held() <= before })
	other := node(t, dir, Unix)
	settled := held()
	p, err := other.Peer(ctx, id)
	require.NoError(t, err)
	p.OnDeath(func() { t.Error("a living process was taken for dead") })
	require.NoError(t, p.Close())
	require.NoError(t, other.Close())
	settles(t, func() bool { return held() <= settled })
}

// Where the kernel does not give a hold by the socket, the process is found by its
// number, and only while its socket stands.
func TestAHoldByNumber(t *testing.T) {
	n := node(t, tempDir(t), Unix)
	id, cmd := process(t, n.cfg.dir, Unix)
	p, err := n.Peer(ctx, id)
	require.NoError(t, err)
	raw, err := p.conn.(*unixConn).c.SyscallConn()
	require.NoError(t, err)
	fd := pidfdByNumber(raw, p.PID())
	require.GreaterOrEqual(t, fd, 0)
	defer unix.Close(fd)
	require.False(t, ready(fd, unix.POLLIN, 0))
	require.Equal(t, -1, pidfdByNumber(raw, 0), "it is in another pid namespace")
	require.NoError(t, cmd.Process.Kill())
	<-p.Done()
	require.True(t, ready(fd, unix.POLLIN, time.Second))
	require.Equal(t, -1, pidfdByNumber(raw, os.Getpid()), "another process has the number now")
}
