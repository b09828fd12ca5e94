//go:build !failpoint || !linux

package failpoint

// On tells whether this build has points.
const On = false

// Hit is a point; it does nothing in this build.
func Hit(string) {}
