//go:build !race

package soft

import "net"

// writeAll writes the buffers in one system call, where the connection can.
func writeAll(c net.Conn, b *net.Buffers) error {
	_, err := b.WriteTo(c)
	return err
}
