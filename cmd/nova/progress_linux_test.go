package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// terminal opens a pseudoterminal.
func terminal(t *testing.T) (master, tty *os.File) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { master.Close() })
	require.NoError(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetUint32(int(master.Fd()), unix.TIOCGPTN)
	require.NoError(t, err)
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	return master, tty
}

// On a terminal a bar is drawn, and ends full; with --json there is none.
func TestProgressOnATerminal(t *testing.T) {
	if _, err := os.Stat("/dev/ptmx"); err != nil {
		t.Skip("no pseudoterminals here")
	}
	for _, flags := range [][]string{nil, {"--json"}} {
		c := newTool(t)
		in, _ := randomFile(t, c.dir, 3<<20)
		rx := c.recv(nil, "-o", filepath.Join(c.dir, "out"))
		master, tty := terminal(t)
		tx := c.cmd(append(flags, "send", rx.handle, in)...)
		tx.Stderr, tx.Stdin = tty, tty
		require.NoError(t, tx.Start())
		tty.Close()
		var drawn bytes.Buffer
		_, _ = io.Copy(&drawn, master) // ends with EIO when the last has closed the other side
		require.NoError(t, tx.Wait())
		told, status := rx.wait()
		require.Zero(t, status, told)
		if flags != nil {
			require.NotContains(t, drawn.String(), "[#")
			continue
		}
		require.Contains(t, drawn.String(), "\r[########################################] 100%")
		require.Contains(t, drawn.String(), "3.1 MB")
		require.Contains(t, drawn.String(), "sent 3145728 bytes")
	}
}
