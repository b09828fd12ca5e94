package shm

import (
	"sync"

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
func Barrier() {
	if registered() {
		unix.Syscall(unix.SYS_MEMBARRIER, membarrierGlobalExpedited, 0, 0)
	}
}
