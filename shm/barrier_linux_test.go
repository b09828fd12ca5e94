package shm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/novastream/novastream/internal/order"
)

// line is a word alone on its pair of cache lines.
type line struct {
	v uint64
	_ [120]byte
}

// storeBuffering plays the two halves of Dekker's game: one side stores its word and
// loads the other's without a fence, the other has the barrier between. It tells how
// often both missed each other's store, which a barrier makes impossible.
func storeBuffering(rounds int, barrier func()) (missed int) {
	var x, y line
	var round, done atomic.Uint64
	var saw uint64
	go func() {
		for i := uint64(1); i <= uint64(rounds); i++ {
			for round.Load() != i {
				if runtime.NumCPU() == 1 {
					runtime.Gosched()
				}
			}
			order.Publish(&x.v, i)
			saw = order.Load(&y.v)
			done.Store(i)
		}
	}()
	for i := uint64(1); i <= uint64(rounds); i++ {
		round.Store(i)
		for n := i * 0x9e3779b97f4a7c15 >> 56; n > 0; n-- {
			_ = round.Load() // meet at different moments
		}
		order.Publish(&y.v, i)
		barrier()
		sawX := order.Load(&x.v)
		for done.Load() != i {
			runtime.Gosched()
		}
		if saw != i && sawX != i {
			missed++
		}
	}
	return missed
}

func TestBarrier(t *testing.T) {
	const rounds = 2_000
	t.Logf("without a barrier %d of %d rounds miss", storeBuffering(rounds, func() {}), rounds)
	if Register() {
		require.Zero(t, storeBuffering(rounds, Barrier), "membarrier")
	}
	require.Zero(t, storeBuffering(100, visit), "one processor after the other")
}

// Where a sandbox forbids membarrier, rings go on, and sleepers are woken.
func TestWithoutMembarrier(t *testing.T) {
	out, err := child(t, "no membarrier").CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Equal(t, "registered: false, missed: 0, woken: <nil>\n", string(out))
}

// withoutMembarrier is the child's part.
func withoutMembarrier() {
	if err := forbid(unix.SYS_MEMBARRIER); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	missed := storeBuffering(200, Barrier)
	bell, err := NewBell()
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	f := new(flag)
	p := NewParker(Park, new(uint32), bell)
	go func() {
		for f.mode.Load() == Awake {
			runtime.Gosched()
		}
		f.word.Store(1) // and wakes nobody, as one does that looked too early
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	fmt.Printf("registered: %v, missed: %d, woken: %v\n", Register(), missed, p.Wait(ctx, f))
}

// forbid has every later system call of this number fail, on all threads.
func forbid(nr uint32) error {
	const allow, deny = 0x7fff0000, 0x00050000 | uint32(unix.EPERM)
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the number
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: nr, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: deny},
		{Code: unix.BPF_RET | unix.BPF_K, K: allow},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, 1 /* SECCOMP_SET_MODE_FILTER */, 1 /* TSYNC */, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return errors.Join(errors.New("seccomp"), errno)
	}
	return nil
}
