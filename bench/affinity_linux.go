package bench

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// pin keeps the calling goroutine on one processor, as the C programs are, until
// unpin is called. A process that is started meanwhile would inherit it.
func pin(cpu int) (unpin func()) {
	runtime.LockOSThread()
	var old, set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &old); err != nil {
		return runtime.UnlockOSThread
	}
	set.Set(cpu)
	_ = unix.SchedSetaffinity(0, &set)
	return func() {
		_ = unix.SchedSetaffinity(0, &old)
		runtime.UnlockOSThread()
	}
}

// pinProcess keeps a process of one thread on one processor.
func pinProcess(pid, cpu int) {
	var set unix.CPUSet
	set.Set(cpu)
	_ = unix.SchedSetaffinity(pid, &set)
}
