//go:build unix && !linux

package shm

import "os"

// allocate writes zeros, which allocates on every filesystem.
func allocate(f *os.File, size int64) error {
	zero := make([]byte, 1<<16)
	for off := int64(0); off < size; off += int64(len(zero)) {
		if _, err := f.WriteAt(zero[:min(int64(len(zero)), size-off)], off); err != nil {
			return err
		}
	}
	return nil
}
