//go:build !linux

package main

import "os"

// isTerminal tells whether somebody looks at f.
func isTerminal(f *os.File) bool {
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}
