//go:build failpoint && linux

package failpoint

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// stopFD is where a child has the socket to its parent: the first descriptor
// behind the standard ones.
const stopFD = 3

// Child is a process that stops at a point.
type Child struct {
	c  net.Conn
	in *bufio.Reader
}

// Start starts a command whose process may call Arm. ExtraFiles must be empty.
func Start(cmd *exec.Cmd) (*Child, error) {
	if len(cmd.ExtraFiles) > 0 {
		return nil, errors.New("failpoint: the first extra file is the point's")
	}
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("failpoint: socket pair: %w", err)
	}
	mine, theirs := os.NewFile(uintptr(fds[0]), "failpoint"), os.NewFile(uintptr(fds[1]), "failpoint")
	defer mine.Close()
	defer theirs.Close()
	cmd.ExtraFiles = append(cmd.ExtraFiles, theirs)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c, err := net.FileConn(mine)
	if err != nil {
		return nil, fmt.Errorf("failpoint: socket pair: %w", err)
	}
	return &Child{c: c, in: bufio.NewReader(c)}, nil
}

// Stopped waits until the child stands at its point, at most d, and answers the
// point's name.
func (c *Child) Stopped(d time.Duration) (string, error) {
	_ = c.c.SetReadDeadline(time.Now().Add(d))
	name, err := c.in.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("failpoint: the child has not come to its point: %w", err)
	}
	return strings.TrimSpace(name), nil
}

// Continue lets the child go on from its point.
func (c *Child) Continue() error {
	_, err := c.c.Write([]byte{1})
	return err
}

// Close gives up the socket; a child that stands at its point then exits.
func (c *Child) Close() error { return c.c.Close() }
