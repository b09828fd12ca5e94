//go:build linux

package shm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

const childEnv = "NOVA_SHM_CHILD"

func TestMain(m *testing.M) {
	switch os.Getenv(childEnv) {
	case "":
		os.Exit(m.Run())
	case "fault":
		seg, err := OpenMemfd(3, 2*os.Getpagesize(), os.Getpagesize())
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		seg.Bytes()[os.Getpagesize()] = 1
		fmt.Println("written")
		seg.Bytes()[0] = 1
		fmt.Println("written to what is read-only")
	case "nofile":
		lim := unix.Rlimit{Cur: 20, Max: 20}
		_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &lim)
		var err error
		for err == nil {
			_, err = NewMemfd(os.Getpagesize())
		}
		fmt.Println(errors.Is(err, ErrLimit), err)
	case "no membarrier":
		withoutMembarrier()
	case "memory", "mappings":
		run := inGroup
		if os.Getenv(childEnv) == "mappings" {
			run = withoutMappings
		}
		if err := run(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	case "pong":
		pong()
	}
	os.Exit(0)
}

func child(t testing.TB, name string, files ...*os.File) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+name)
	cmd.ExtraFiles = files
	return cmd
}

// file is a descriptor of the segment's, or bell's, to pass to a child.
func asFile(t testing.TB, fd int) *os.File {
	d, err := unix.Dup(fd)
	require.NoError(t, err)
	f := os.NewFile(uintptr(d), "")
	t.Cleanup(func() { f.Close() })
	return f
}

// asBell is a bell as a child is given it.
func asBell(t testing.TB, b Bell) *os.File {
	fd, err := b.Pass()
	require.NoError(t, err)
	f := os.NewFile(uintptr(fd), "")
	t.Cleanup(func() { f.Close() })
	return f
}

var page = os.Getpagesize()

func TestSegments(t *testing.T) {
	path := filepath.Join(t.TempDir(), "segment")
	for kind, make := range map[string]func(int) (Segment, error){
		"heap":  NewHeap,
		"memfd": NewMemfd,
		"file": func(n int) (Segment, error) {
			os.Remove(path)
			return CreateFile(path, n)
		},
	} {
		s, err := make(4 * page)
		require.NoError(t, err, kind)
		require.Equal(t, kind, s.Kind())
		require.Len(t, s.Bytes(), 4*page)
		require.Zero(t, uintptr(unsafe.Pointer(&s.Bytes()[0]))%uintptr(page))
		for i := range s.Bytes() {
			require.Zero(t, s.Bytes()[i])
			s.Bytes()[i] = byte(i)
		}
		require.NoError(t, s.Close())
		require.NoError(t, s.Close())
		for _, n := range []int{0, -1, 100, page + 1, 1 << 50} {
			_, err := make(n)
			require.ErrorIs(t, err, ErrSize, "%s %d", kind, n)
		}
	}
}

func TestMemfdIsSharedAndSealed(t *testing.T) {
	s, err := NewMemfd(2 * page)
	require.NoError(t, err)
	defer s.Close()
	fd, err := unix.Dup(s.FD())
	require.NoError(t, err)
	o, err := OpenMemfd(fd, 2*page, page)
	require.NoError(t, err)
	defer o.Close()
	s.Bytes()[5] = 7
	o.Bytes()[page] = 9
	require.Equal(t, byte(7), o.Bytes()[5])
	require.Equal(t, byte(9), s.Bytes()[page])
	require.Error(t, unix.Ftruncate(s.FD(), 0))
	require.Error(t, unix.Ftruncate(s.FD(), 1<<20))
	_, err = unix.FcntlInt(uintptr(s.FD()), unix.F_ADD_SEALS, unix.F_SEAL_WRITE)
	require.Error(t, err)
}

func TestOpenMemfdRefuses(t *testing.T) {
	before := open(t)
	for name, make := range map[string]func() (int, error){
		"not sealed": func() (int, error) {
			fd, err := unix.MemfdCreate("x", unix.MFD_ALLOW_SEALING)
			return fd, errors.Join(err, unix.Ftruncate(fd, int64(page)))
		},
		"no seals": func() (int, error) { return unix.Open("/dev/null", unix.O_RDWR, 0) },
		"another size": func() (int, error) {
			s, err := NewMemfd(2 * page)
			if err != nil {
				return -1, err
			}
			defer s.Close()
			return unix.Dup(s.FD())
		},
		"holes": func() (int, error) {
			fd, err := unix.MemfdCreate("x", unix.MFD_ALLOW_SEALING)
			err = errors.Join(err, unix.Ftruncate(fd, int64(page)))
			_, e := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals)
			return fd, errors.Join(err, e)
		},
		"a pipe": func() (int, error) {
			var p [2]int
			err := unix.Pipe(p[:])
			unix.Close(p[1])
			return p[0], err
		},
	} {
		fd, err := make()
		require.NoError(t, err, name)
		_, err = OpenMemfd(fd, page, 0)
		require.Error(t, err, name)
		require.True(t, errors.Is(err, ErrNotSealed) || errors.Is(err, ErrWrongSize), "%s: %v", name, err)
	}
	require.Equal(t, before, open(t), "a refused descriptor is closed")
	_, err := OpenBell(-1)
	require.ErrorIs(t, err, ErrNotBell)
	fd, err := unix.Open("/dev/null", unix.O_RDWR, 0)
	require.NoError(t, err)
	_, err = OpenBell(fd)
	require.ErrorIs(t, err, ErrNotBell)
	require.Equal(t, before, open(t))
}

func open(t testing.TB) int {
	fds, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(fds)
}

func TestReadOnlyPartFaults(t *testing.T) {
	s, err := NewMemfd(2 * page)
	require.NoError(t, err)
	defer s.Close()
	out, err := child(t, "fault", asFile(t, s.FD())).CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "written\n")
	require.Contains(t, string(out), "fault")
	require.NotContains(t, string(out), "written to what")
	require.Equal(t, byte(1), s.Bytes()[page])
	require.Zero(t, s.Bytes()[0])
}

func TestLimitOfDescriptors(t *testing.T) {
	out, err := child(t, "nofile").CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "true")
	require.Contains(t, string(out), "RLIMIT_NOFILE")
}

func TestFilesThatAreRefused(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "segment")
	s, err := CreateFile(path, page)
	require.NoError(t, err)
	defer s.Close()
	_, err = CreateFile(path, page)
	require.ErrorIs(t, err, os.ErrExist)
	_, err = OpenFile(path, 2*page)
	require.ErrorIs(t, err, ErrWrongSize)
	require.NoError(t, os.Chmod(path, 0o666))
	_, err = OpenFile(path, page)
	require.ErrorIs(t, err, ErrRefused)
	require.NoError(t, os.Chmod(path, 0o600))
	link := filepath.Join(dir, "link")
	require.NoError(t, os.Symlink(path, link))
	_, err = OpenFile(link, page)
	require.Error(t, err)
	o, err := OpenFile(path, page)
	require.NoError(t, err)
	o.Bytes()[3] = 4
	require.Equal(t, byte(4), s.Bytes()[3])
	require.NoError(t, o.Close())
	if os.Getuid() == 0 {
		require.NoError(t, os.Chown(path, 65534, 65534))
		_, err = OpenFile(path, page)
		require.ErrorIs(t, err, ErrRefused)
	}
}

func TestPoolPreparesAhead(t *testing.T) {
	before := open(t)
	p := NewPool(2, 1<<20)
	s, prepared, err := p.Get(page)
	require.NoError(t, err)
	require.False(t, prepared)
	s.Close()
	p.Settle()
	for range 2 {
		s, prepared, err = p.Get(page)
		require.NoError(t, err)
		require.True(t, prepared)
		s.Bytes()[0] = 1
		s.Close()
		p.Settle()
	}
	_, prepared, err = p.Get(2 << 20) // more than may be kept
	require.NoError(t, err)
	require.False(t, prepared)
	p.Settle()
	_, prepared, err = p.Get(2 << 20)
	require.NoError(t, err)
	require.False(t, prepared)
	require.NoError(t, p.Close())
	runtime.GC()
	require.Equal(t, before+2, open(t), "the two that were taken and not closed")
}

// flag is a sleeper that is ready when its word is not 0.
type flag struct {
	word atomic.Uint64
	mode atomic.Uint32
}

func (f *flag) Ready() bool { return f.word.Load() != 0 }
func (f *flag) Arm(m Mode)  { f.mode.Store(m) }
func (f *flag) Disarm()     { f.mode.Store(Awake) }

func TestParkerLosesNoWake(t *testing.T) {
	const rounds = 20_000
	for _, s := range []Strategy{Hybrid, Park, Spin} {
		for _, futex := range []bool{true, false} {
			t.Run(fmt.Sprint(s, futex), func(t *testing.T) {
				bell, err := NewBell()
				require.NoError(t, err)
				defer bell.Close()
				var word *uint32
				if futex {
					word = new(uint32)
				}
				f, p, w := new(flag), NewParker(s, word, bell), NewWaker(word, bell)
				var back atomic.Uint64
				go func() {
					for i := uint64(1); i <= rounds; i++ {
						f.word.Store(i)
						if m := f.mode.Load(); m != Awake {
							w.Wake(m)
						}
						for back.Load() != i {
							runtime.Gosched()
						}
					}
				}()
				ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
				defer cancel()
				for i := uint64(1); i <= rounds; i++ {
					require.NoError(t, p.Wait(ctx, f))
					require.Equal(t, i, f.word.Load())
					f.word.Store(0)
					back.Store(i)
				}
				p.Close()
			})
		}
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	for _, s := range []Strategy{Hybrid, Park, Spin} {
		bell, err := NewBell()
		require.NoError(t, err)
		p := NewParker(s, new(uint32), bell)
		cause := errors.New("the cause")
		ctx, cancel := context.WithCancelCause(context.Background())
		f := new(flag)
		done := make(chan error, 1)
		go func() { done <- p.Wait(ctx, f) }()
		cancel(cause)
		require.ErrorIs(t, <-done, cause)
		require.ErrorIs(t, p.Wait(ctx, f), cause)
		f.word.Store(1)
		require.NoError(t, p.Wait(ctx, f))
		for err = nil; err == nil; {
			err = p.Wait(ctx, f) // ready each time, and never let go otherwise
		}
		require.ErrorIs(t, err, cause)
		p.Close()
		bell.Close()
		f.word.Store(0)
		if s != Spin {
			require.ErrorIs(t, NewParker(s, nil, bell).Wait(context.Background(), f), ErrClosed)
		}
	}
}

func TestInterrupt(t *testing.T) {
	for _, bell := range []Bell{NewLocalBell(), newTestBell(t)} {
		p, f := NewParker(Park, new(uint32), bell), new(flag)
		done := make(chan error, 1)
		go func() { done <- p.Wait(context.Background(), f) }()
		f.word.Store(1)
		p.Interrupt()
		require.NoError(t, <-done)
	}
}

func newTestBell(t testing.TB) Bell {
	b, err := NewBell()
	require.NoError(t, err)
	t.Cleanup(func() { b.Close() })
	return b
}

func TestSetHearsEveryBell(t *testing.T) {
	s, err := NewSet()
	require.NoError(t, err)
	defer s.Close()
	bells := []Bell{newTestBell(t), NewLocalBell(), newTestBell(t)}
	for _, b := range bells {
		require.NoError(t, s.Add(b))
	}
	require.NoError(t, s.Wait(0)) // what was added may have been rung
	for range 3 {
		for _, b := range bells {
			b.Ring()
			require.NoError(t, s.Wait(0))
		}
	}
	s.Ring()
	require.NoError(t, s.Wait(0))
	for _, b := range bells {
		s.Remove(b)
		b.Ring()
	}
	start := time.Now()
	require.NoError(t, s.Wait(20*time.Millisecond))
	require.GreaterOrEqual(t, time.Since(start), 20*time.Millisecond, "a removed bell is heard")
}

// A thousand sleepers need no thread.
func TestIdleSleepersNeedNoThread(t *testing.T) {
	const n = 1000
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	f := new(flag)
	bells := make([]Bell, n)
	for i := range bells {
		bells[i] = newTestBell(t)
	}
	before := threads(t)
	for _, b := range bells {
		wg.Go(func() { _ = NewParker(Hybrid, new(uint32), b).Wait(ctx, f) })
	}
	// Each has tried the futex for a moment, and gone on to its bell.
	require.Eventually(t, func() bool { return inFutex.Load() == 0 && f.mode.Load() == Doorbell }, 20*time.Second, 10*time.Millisecond)
	require.LessOrEqual(t, threads(t), before+runtime.GOMAXPROCS(0)+4)
	cancel()
	wg.Wait()
}

func threads(t testing.TB) int {
	tasks, err := os.ReadDir("/proc/self/task")
	require.NoError(t, err)
	return len(tasks)
}

func TestWaitAllocatesNothing(t *testing.T) {
	bell := newTestBell(t)
	p, f := NewParker(Park, nil, bell), new(flag)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	bell.Ring()
	w := &wakeOnce{flag: f, bell: bell}
	require.Zero(t, testing.AllocsPerRun(200, func() {
		f.word.Store(0)
		if p.Wait(ctx, w) != nil {
			panic("wait")
		}
	}))
}

// wakeOnce wakes itself as soon as it sleeps.
type wakeOnce struct {
	*flag
	bell Bell
}

func (w *wakeOnce) Arm(Mode) {
	w.bell.Ring()
}

func (w *wakeOnce) Disarm() { w.word.Store(1) }

func TestProbe(t *testing.T) {
	m := Probe()
	require.NotEmpty(t, m.Kernel)
	require.Positive(t, m.CPUs)
	require.True(t, m.Memfd)
	require.Positive(t, m.MemTotal)
	require.NotZero(t, m.Descriptors.Now)
}

// pong is the other process of BenchmarkParked: it has a segment and two bells.
func pong() {
	seg, err := OpenMemfd(3, page, 0)
	if err == nil {
		var mine, theirs Bell
		if mine, err = OpenBell(4); err == nil {
			if theirs, err = OpenBell(5); err == nil {
				a, b := halves(seg, mine, theirs)
				fmt.Println("ready")
				for i := uint64(1); ; i++ {
					b.want = i
					if err = b.p.Wait(context.Background(), b); err != nil {
						break
					}
					a.send(i)
				}
			}
		}
	}
	fmt.Println(err)
}

// half is one direction of a ping-pong over a segment.
type half struct {
	value, attn *atomic.Uint64
	want        uint64
	p           *Parker
	w           *Waker
}

func (h *half) Ready() bool { return h.value.Load() >= h.want }
func (h *half) Arm(m Mode)  { h.attn.Store(uint64(m)) }
func (h *half) Disarm()     { h.attn.Store(0) }

func (h *half) send(i uint64) {
	h.value.Store(i)
	if m := h.attn.Load(); m != 0 {
		h.w.Wake(Mode(m))
	}
}

// halves lays two directions out in a segment: what is sent, and what is
// received, whose bell is mine.
func halves(seg Segment, mine, theirs Bell) (out, in *half) {
	at := func(off int) *atomic.Uint64 { return (*atomic.Uint64)(unsafe.Pointer(&seg.Bytes()[off])) }
	word := func(off int) *uint32 { return (*uint32)(unsafe.Pointer(&seg.Bytes()[off])) }
	ping := &half{value: at(0), attn: at(128), p: NewParker(Park, word(256), mine), w: NewWaker(word(256), theirs)}
	pong := &half{value: at(512), attn: at(640), p: NewParker(Park, word(768), mine), w: NewWaker(word(768), theirs)}
	if os.Getenv(childEnv) != "" {
		return pong, ping
	}
	return ping, pong
}

func BenchmarkParked(b *testing.B) {
	seg, err := NewMemfd(page)
	require.NoError(b, err)
	defer seg.Close()
	mine, theirs := newTestBell(b), newTestBell(b)
	cmd := child(b, "pong", asFile(b, seg.FD()), asBell(b, theirs), asBell(b, mine))
	out, err := cmd.StdoutPipe()
	require.NoError(b, err)
	require.NoError(b, cmd.Start())
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGKILL)
		_ = cmd.Wait()
	}()
	s := bufio.NewScanner(out)
	require.True(b, s.Scan())
	require.True(b, strings.Contains(s.Text(), "ready"), s.Text())
	send, recv := halves(seg, mine, theirs)
	b.ResetTimer()
	for i := uint64(1); i <= uint64(b.N); i++ {
		recv.want = i
		send.send(i)
		require.NoError(b, recv.p.Wait(context.Background(), recv))
	}
}

func ExampleNewParker() {
	bell := NewLocalBell()
	p, f := NewParker(Hybrid, nil, bell), new(flag)
	go func() { // the other side: publish, look whether it sleeps, wake it
		f.word.Store(42)
		if m := f.mode.Load(); m != Awake {
			NewWaker(nil, bell).Wake(m)
		}
	}()
	fmt.Println(p.Wait(context.Background(), f), f.word.Load())
	// Output: <nil> 42
}

func ExampleNewMemfd() {
	seg, err := NewMemfd(os.Getpagesize())
	if err != nil {
		panic(err)
	}
	defer seg.Close()
	fmt.Println(seg.Kind(), len(seg.Bytes()) == os.Getpagesize())
	// Output: memfd true
}

func ExampleNewPool() {
	p := NewPool(2, 1<<20)
	defer p.Close()
	seg, _, err := p.Get(os.Getpagesize())
	if err != nil {
		panic(err)
	}
	defer seg.Close()
	p.Settle()
	again, prepared, _ := p.Get(os.Getpagesize())
	fmt.Println(prepared)
	again.Close()
	// Output: true
}
