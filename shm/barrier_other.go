//go:build !linux

package shm

// Register tells that there is no membarrier here.
func Register() bool { return false }

// Barrier does nothing here, where the awake side's stores are full barriers
// themselves (see the package order), and the sleeping side's waits are bounded.
func Barrier() {}
