//go:build unix

package control

import (
	"fmt"
	"io/fs"
	"syscall"
)

func owner(st fs.FileInfo) int {
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		return int(sys.Uid)
	}
	return -1
}

// descriptorLimit tells which limit a missing descriptor has met.
func descriptorLimit() string {
	var l syscall.Rlimit
	_ = syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l)
	return fmt.Sprintf("at most %d are open at once: raise RLIMIT_NOFILE (ulimit -n)", l.Cur)
}
