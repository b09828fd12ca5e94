//go:build !linux

package shm

// Register tells that there is no membarrier here.
func Register() bool { return false }

// Barrier does nothing here: within one process the sleeping side's waits are
// bounded instead.
func Barrier() {}
