package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// isTerminal tells whether somebody looks at f. /dev/null is a character device
// too, but no terminal.
func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
