package shm

import "golang.org/x/sys/unix"

// heapRoom is what the Go heap may map beside what it was asked for.
const heapRoom = 64 << 20

// canMap tells whether so much more memory can be had now.
func canMap(size int) error {
	taken, err := takeMemory(size)
	if err != nil {
		return err
	}
	defer taken()
	mem, err := unix.Mmap(-1, 0, size+heapRoom, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return explain("map", size, err)
	}
	return unix.Munmap(mem)
}
