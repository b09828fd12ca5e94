package shm

import (
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const haveFutex = true

// The operations of futex(2), for words that processes share.
const (
	futexOpWait = 0
	futexOpWake = 1
)

// futexWait sleeps while *word is v, at most d. The goroutine's thread sleeps
// with it: no hand-over to another thread, and the runtime gives its processor
// to others.
func futexWait(word *uint32, v uint32, d time.Duration) {
	ts := unix.NsecToTimespec(int64(d))
	unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), futexOpWait, uintptr(v), uintptr(unsafe.Pointer(&ts)), 0, 0)
}

// futexWake changes the word and wakes everybody who sleeps on it, in any
// process.
func futexWake(word *uint32) {
	atomic.AddUint32(word, 1)
	unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), futexOpWake, 1<<30, 0, 0, 0)
}
