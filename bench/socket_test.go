package bench

import (
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"
)

// serveSocket sends back each byte that comes over a Unix socket.
func serveSocket(b testing.TB, dir string) error {
	l, err := net.Listen("unix", filepath.Join(dir, "plain"))
	if err != nil {
		return err
	}
	b.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(c, c)
			c.Close()
		}
	}()
	return nil
}

// socketTrips times n bytes there and back.
func socketTrips(dir string, n int) (times []time.Duration, err error) {
	c, err := net.Dial("unix", filepath.Join(dir, "plain"))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	buf := make([]byte, 1)
	for range n {
		start := time.Now()
		if _, err := c.Write(buf); err != nil {
			return nil, err
		}
		if _, err := c.Read(buf); err != nil {
			return nil, err
		}
		times = append(times, time.Since(start))
	}
	return times, nil
}
