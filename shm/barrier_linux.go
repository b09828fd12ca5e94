package shm

import (
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	membarrierQuery            = 0
	membarrierGlobalExpedited  = 1 << 1
	membarrierRegisterGlobalEx = 1 << 2
)

// registered tells whether the kernel has membarrier for this process. Both
// sides of a ring must have registered for a barrier of one to reach the other;
// each does so before its first ring.
var registered = sync.OnceValue(func() bool {
	n, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, membarrierQuery, 0, 0)
	if errno != 0 || n&(membarrierGlobalExpedited|membarrierRegisterGlobalEx) != membarrierGlobalExpedited|membarrierRegisterGlobalEx {
		return false
	}
	_, _, errno = unix.Syscall(unix.SYS_MEMBARRIER, membarrierRegisterGlobalEx, 0, 0)
	return errno == 0
})

// Register makes this process one that the barriers of others reach. It is
// called before a segment is shared, and tells whether that is possible.
func Register() bool { return registered() }

// Barrier is a full memory barrier on every running thread of every process
// that has registered: what the caller stored before it is seen by whatever
// those threads load after it, and the other way round. It lets a side that is
// about to sleep pay for the fence that the awake side would otherwise need
// between each store and load. See membarrier(2), and "asymmetric Dekker
// synchronisation" (Dice, Huang, Yang 2001).
//
// Where the kernel has no membarrier, or a sandbox forbids it, it takes milliseconds,
// and whoever sleeps does so for bounded times instead (see Parker).
func Barrier() {
	if registered() {
		unix.Syscall(unix.SYS_MEMBARRIER, membarrierGlobalExpedited, 0, 0)
		return
	}
	visit()
}

// visit runs on each processor in turn. Whatever ran there had to be switched out,
// which is a full barrier, and so is each move between processors meanwhile.
func visit() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var old unix.CPUSet
	if unix.SchedGetaffinity(0, &old) != nil {
		time.Sleep(drained)
		return
	}
	defer unix.SchedSetaffinity(0, &old)
	denied := true
	for cpu := range processors() {
		var one unix.CPUSet
		one.Set(cpu)
		if unix.SchedSetaffinity(0, &one) == nil {
			denied = false
		}
	}
	if denied {
		time.Sleep(drained)
	}
}

// drained is a time in which every store buffer empties itself, many times over.
const drained = time.Millisecond

// processors is one more than the highest number of a processor.
var processors = sync.OnceValue(func() int {
	s := procValue("/sys/devices/system/cpu/possible") // such as 0-3,8-11
	if n, err := strconv.Atoi(s[strings.LastIndexAny(s, "-,")+1:]); err == nil {
		return n + 1
	}
	return runtime.NumCPU()
})
