//go:build failpoint && linux

package failpoint

import (
	"sync/atomic"
	"syscall"
)

// On tells whether this build has points.
const On = true

// armed is the point at which this process is to stop. It is replaced, never
// changed but for left.
var armed atomic.Pointer[point]

type point struct {
	name string
	left atomic.Int64
}

// Arm has this process stop the nth time, from 1, that it comes to the point: the
// thread that does so tells the parent and waits for its word; the others go on.
// Only one point is armed at a time, and it stops one thread. The process must have
// been started by Start.
func Arm(name string, nth int) {
	p := &point{name: name}
	p.left.Store(int64(nth))
	armed.Store(p)
}

// Hit is a point.
func Hit(name string) {
	p := armed.Load()
	if p == nil || p.name != name || p.left.Add(-1) != 0 {
		return
	}
	stop(name)
}

// stop tells the parent where this thread stands and waits for its word. It uses
// the descriptor by plain system calls: the thread may hold locks of the runtime's
// users, and nothing of them is to run meanwhile.
func stop(name string) {
	write(stopFD, name+"\n")
	var b [1]byte
	for {
		n, err := syscall.Read(stopFD, b[:])
		if err == syscall.EINTR {
			continue
		}
		if n <= 0 || err != nil {
			syscall.Exit(3) // the parent is gone
		}
		return
	}
}

func write(fd int, s string) {
	for b := []byte(s); len(b) > 0; {
		n, err := syscall.Write(fd, b)
		if err != nil && err != syscall.EINTR {
			syscall.Exit(3)
		}
		b = b[max(n, 0):]
	}
}
