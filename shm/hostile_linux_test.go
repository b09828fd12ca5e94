package shm

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Each kind of descriptor that a peer may pass in place of a segment is refused by
// a name of its own, and closed.
func TestOpenMemfdRefusesAnotherKind(t *testing.T) {
	sealed := func(flags, seal int) (int, error) {
		fd, err := unix.MemfdCreate("x", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|flags)
		if err != nil {
			return -1, err
		}
		size := int64(page)
		if flags&unix.MFD_HUGETLB != 0 {
			size = 2 << 20 // of holes: no huge page is needed
		} else if err = unix.Fallocate(fd, 0, 0, size); err != nil {
			return fd, err
		}
		err = unix.Ftruncate(fd, size)
		_, e := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seal)
		return fd, errors.Join(err, e)
	}
	reopened := func(mode int) (int, error) {
		fd, err := sealed(0, seals)
		if err != nil {
			return -1, err
		}
		defer unix.Close(fd)
		return unix.Open(filepath.Join("/proc/self/fd", strconv.Itoa(fd)), mode|unix.O_CLOEXEC, 0)
	}
	for _, c := range []struct {
		name string
		make func() (int, error)
		says string
	}{
		{"can be shrunk", func() (int, error) { return sealed(0, unix.F_SEAL_GROW|unix.F_SEAL_SEAL) }, "shrink"},
		{"can be unsealed further", func() (int, error) { return sealed(0, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW) }, "seals 0x6"},
		{"cannot be written any more", func() (int, error) { return sealed(0, seals|unix.F_SEAL_FUTURE_WRITE) }, "forbid writing"},
		{"open for reading", func() (int, error) { return reopened(unix.O_RDONLY) }, "reading and writing"},
		{"open for nothing", func() (int, error) { return reopened(unix.O_PATH) }, "no seals"},
		{"huge pages", func() (int, error) { return sealed(unix.MFD_HUGETLB, seals) }, "plain pages"},
		{"a file", func() (int, error) { return unix.Open(os.Args[0], unix.O_RDONLY, 0) }, "seals"},
		{"a directory", func() (int, error) { return unix.Open("/", unix.O_RDONLY, 0) }, "seals"},
		{"a device that is endless", func() (int, error) { return unix.Open("/dev/zero", unix.O_RDWR, 0) }, "no seals"},
		{"a bell", func() (int, error) { return unix.Eventfd(0, 0) }, "no seals"},
		{"a socket", func() (int, error) { return unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0) }, "no seals"},
		{"nothing", func() (int, error) { return -1, nil }, "no seals"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := open(t)
			fd, err := c.make()
			if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) {
				t.Skipf("this kernel has none: %v", err)
			}
			require.NoError(t, err)
			_, err = OpenMemfd(fd, page, 0)
			require.ErrorIs(t, err, ErrNotSealed)
			require.ErrorContains(t, err, c.says)
			require.Equal(t, before, open(t), "a refused descriptor is closed")
		})
	}
}

func TestOpenBellRefusesAnotherKind(t *testing.T) {
	a, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	require.NoError(t, err)
	defer a.Close()
	before := open(t)
	for name, make := range map[string]func() (int, error){
		"a file":   func() (int, error) { return unix.Open(os.Args[0], unix.O_RDONLY, 0) },
		"a timer":  func() (int, error) { return unix.TimerfdCreate(unix.CLOCK_MONOTONIC, 0) },
		"an epoll": func() (int, error) { return unix.EpollCreate1(0) },
		"a socket": func() (int, error) { return unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0) },
		"an event": func() (int, error) { return unix.Eventfd(0, unix.EFD_NONBLOCK) },
		"a memfd":  func() (int, error) { return unix.MemfdCreate("pipe:[1]", 0) },
		"a pipe with a name": func() (int, error) {
			path := filepath.Join(t.TempDir(), "pipe:[1]")
			if err := unix.Mkfifo(path, 0o600); err != nil {
				return -1, err
			}
			return unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
		},
	} {
		fd, err := make()
		require.NoError(t, err, name)
		_, err = OpenBell(fd)
		require.ErrorIs(t, err, ErrNotBell, name)
	}
	require.Equal(t, before, open(t))
}

// A memfd cannot be shrunk, but its owner can take pages out of it. They come back
// empty when they are touched: no fault.
func TestHolesPunchedLaterAreFilled(t *testing.T) {
	const size = 64 << 12
	s, err := NewMemfd(size)
	require.NoError(t, err)
	defer s.Close()
	fd, err := unix.Dup(s.FD())
	require.NoError(t, err)
	o, err := OpenMemfd(fd, size, 0)
	require.NoError(t, err)
	defer o.Close()
	for i := range o.Bytes() {
		o.Bytes()[i] = 1
	}
	require.NoError(t, unix.Fallocate(s.FD(), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, size))
	for i := range o.Bytes() {
		require.Zero(t, o.Bytes()[i])
		o.Bytes()[i] = 2
	}
}

// peerOf is a bell as a peer has it: an open file of its own, with which it does what it
// likes.
func peerOf(t *testing.T, b Bell) int {
	fd, err := b.Pass()
	require.NoError(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// A bell that the peer has filled, has made block, or goes on filling, holds up neither
// who rings nor who waits.
func TestBellOfAHostilePeer(t *testing.T) {
	for name, spoil := range map[string]func(fd int) error{
		"full": fillBell,
		"made to block": func(fd int) error {
			_, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, unix.O_RDWR)
			return err
		},
		"full and made to block": func(fd int) error {
			err := fillBell(fd)
			_, e := unix.FcntlInt(uintptr(fd), unix.F_SETFL, unix.O_RDWR)
			return errors.Join(err, e)
		},
		"large, full and made to block": func(fd int) error {
			_, err := unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, 1<<20)
			err = errors.Join(err, fillBell(fd))
			_, e := unix.FcntlInt(uintptr(fd), unix.F_SETFL, unix.O_RDWR)
			return errors.Join(err, e)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bell := newTestBell(t)
			set, err := NewSet()
			require.NoError(t, err)
			defer set.Close()
			require.NoError(t, spoil(peerOf(t, bell)))
			done := make(chan error, 1)
			go func() {
				for range 3 {
					bell.Ring()
				}
				err := bell.Wait(0) // it has been rung
				for hear(uintptr(bell.FD())) {
				}
				for range 3 {
					err = errors.Join(err, bell.Wait(5*time.Millisecond)) // and has been heard
				}
				err = errors.Join(err, set.Add(bell))
				bell.Ring()
				err = errors.Join(err, set.Wait(0))
				set.Remove(bell)
				done <- errors.Join(err, bell.Close())
			}()
			select {
			case err := <-done:
				require.NoError(t, err)
			case <-time.After(20 * time.Second):
				t.Fatal("held up")
			}
		})
	}
}

// A peer that fills the bell and makes it block whenever it can, from several threads,
// does not hold who rings.
func TestRingingABellThatIsBeingFilled(t *testing.T) {
	bell := newTestBell(t)
	fd := peerOf(t, bell)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETFL, unix.O_RDWR|unix.O_NONBLOCK)
				_ = fillBell(fd)
				_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETFL, unix.O_RDWR)
			}
		})
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 3000 {
			bell.Ring()
			hear(uintptr(bell.FD()))
		}
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Error("held up")
	}
	close(stop)
	freed := make(chan struct{})
	go func() { defer close(freed); wg.Wait() }()
	for { // a filler may have made itself wait for room
		select {
		case <-freed:
			return
		default:
			_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETFL, unix.O_RDWR|unix.O_NONBLOCK)
			hear(uintptr(bell.FD()))
		}
	}
}

// fillBell writes until there is no room. The open file must not block yet.
func fillBell(fd int) error {
	for {
		if _, err := unix.Write(fd, make([]byte, 4096)); err != nil {
			if errors.Is(err, unix.EAGAIN) {
				return nil
			}
			return err
		}
	}
}

// A bell whose ring the peer takes away before it is heard is waited for again: the
// reader is not left in a call that blocks.
func TestBellWhoseRingIsTakenAway(t *testing.T) {
	bell := newTestBell(t)
	set, err := NewSet()
	require.NoError(t, err)
	defer set.Close()
	fd := peerOf(t, bell)
	require.NoError(t, set.Add(bell))
	stop, thief := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(thief)
		for {
			select {
			case <-stop:
				return
			default:
				bell.Ring()
				hear(uintptr(fd))
			}
		}
	}()
	for range 300 {
		require.NoError(t, set.Wait(time.Millisecond))
	}
	close(stop)
	<-thief
}
