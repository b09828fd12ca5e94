//go:build race

package soft

import "net"

// writeAll writes one buffer after the other: the race detector knows that what
// was before a write is before the read that gets its bytes, but not of writev.
func writeAll(c net.Conn, b *net.Buffers) error {
	for _, p := range *b {
		if _, err := c.Write(p); err != nil {
			return err
		}
	}
	return nil
}
