//go:build unix

package control

import (
	"io/fs"
	"syscall"
)

func owner(st fs.FileInfo) int {
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		return int(sys.Uid)
	}
	return -1
}
