//go:build !linux

package soft

import (
	"net"
	"time"
)

// giveUpAfter does nothing here: the kernel's own patience holds.
func giveUpAfter(net.Conn, time.Duration) {}
