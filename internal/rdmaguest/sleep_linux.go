package rdmaguest

import (
	"syscall"
	"time"
)

// sleep sleeps in the kernel and not in a timer of the runtime, which would need
// another thread to wake this one.
func sleep(d time.Duration) {
	t := syscall.NsecToTimespec(int64(d))
	_ = syscall.Nanosleep(&t, nil)
}
