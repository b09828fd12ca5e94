package shm

import (
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Probe looks at the machine.
func Probe() Machine {
	m := Machine{CPUs: runtime.NumCPU(), Membarrier: Register(), ShmemHuge: selected("/sys/kernel/mm/transparent_hugepage/shmem_enabled")}
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		m.Kernel = unix.ByteSliceToString(uts.Release[:])
	}
	if fd, err := unix.MemfdCreate("nova-probe", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING); err == nil {
		m.Memfd = true
		unix.Close(fd)
	}
	if fd, err := unix.MemfdCreate("nova-probe", unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL); err == nil {
		m.NoexecSeal = true
		unix.Close(fd)
	}
	m.Descriptors, m.Memlock = rlimit(unix.RLIMIT_NOFILE), rlimit(unix.RLIMIT_MEMLOCK)
	m.Mappings = number("/proc/sys/vm/max_map_count")
	m.MemTotal, m.MemAvailable = meminfo("MemTotal:"), meminfo("MemAvailable:")
	m.CgroupMemory = number("/sys/fs/cgroup/memory.max")
	devs, _ := os.ReadDir("/sys/class/infiniband")
	for _, d := range devs {
		m.RDMA = append(m.RDMA, d.Name())
	}
	return m
}

func rlimit(which int) Limit {
	var l unix.Rlimit
	if unix.Getrlimit(which, &l) != nil {
		return Limit{}
	}
	return Limit{Now: int64(l.Cur), Most: int64(l.Max)} // RLIM_INFINITY is -1
}

// number reads a file of one number; "max" is -1.
func number(path string) int64 {
	s := procValue(path)
	if s == "max" {
		return -1
	}
	n, _ := strconv.ParseInt(s, 10, 64)
	return n
}

func meminfo(key string) int64 {
	b, _ := os.ReadFile("/proc/meminfo")
	for _, line := range strings.Split(string(b), "\n") {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == key {
			kb, _ := strconv.ParseInt(f[1], 10, 64)
			return kb << 10
		}
	}
	return 0
}

// selected reads the chosen one of several words, which is in brackets.
func selected(path string) string {
	s := procValue(path)
	if _, rest, ok := strings.Cut(s, "["); ok {
		s, _, _ = strings.Cut(rest, "]")
	}
	return s
}
