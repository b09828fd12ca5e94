//go:build unix && !linux

package control

import (
	"net"
	"time"
)

// peerProcess is a hold on a peer's process, which cannot be had here.
type peerProcess struct{}

func processOf(*net.UnixConn, int) *peerProcess { return nil }

func (*peerProcess) ended(time.Duration) bool { return true }
func (*peerProcess) wait() bool               { return false }
func (*peerProcess) close()                   {}
