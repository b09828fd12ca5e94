package verbs

import (
	"fmt"
	"math/bits"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/novastream/novastream/rdma"
)

// mtuBytes is an ibv_mtu in bytes, 0 for what is none.
func mtuBytes(code uint8) int {
	if code < 1 || code > 5 {
		return 0
	}
	return 128 << code
}

// mtuCode is the ibv_mtu of 256, 512, 1024, 2048 or 4096 bytes.
func mtuCode(bytes int) uint8 { return uint8(bits.Len(uint(bytes)) - 8) }

// pathMTU chooses the MTU of a path between ports that have the given ones.
func pathMTU(want int, local, remote uint8) (uint8, error) {
	l, r := mtuBytes(local), mtuBytes(remote)
	if want == 0 {
		if l != r {
			return 0, fmt.Errorf("%w: this port has %d, the other %d bytes: give both interfaces the same MTU, or set ConnectOptions.MTU to %d on both sides", rdma.ErrMTU, l, r, min(l, r))
		}
		return local, nil
	}
	if want > l || want > r {
		return 0, fmt.Errorf("%w: %d bytes are asked for, this port has %d, the other %d: ask for %d, or raise the interfaces' MTU", rdma.ErrMTU, want, l, r, min(l, r))
	}
	return mtuCode(want), nil
}

// timeoutCode is the smallest n for which 4.096 µs times 2^n is at least d.
func timeoutCode(d time.Duration) uint8 {
	n := uint8(1)
	for n < 31 && time.Duration(4096)<<n < d {
		n++
	}
	return n
}

// rnrTimes are the waits that min_rnr_timer encodes, in units of 10 µs; 0 is the
// longest.
var rnrTimes = [32]int{65536, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384, 24576, 32768, 49152}

// rnrCode is the shortest encodable wait of at least d.
func rnrCode(d time.Duration) uint8 {
	for n := 1; n < len(rnrTimes); n++ {
		if time.Duration(rnrTimes[n])*10*time.Microsecond >= d {
			return uint8(n)
		}
	}
	return 0
}

// parseName splits "device/port/gid". The port is 0 and the GID -1 when they are
// not given.
func parseName(s string) (device string, port, gid int, err error) {
	parts := strings.Split(s, "/")
	gid = -1
	for i, p := range parts[1:] {
		n, err := strconv.Atoi(p)
		if err != nil || i > 1 || n < 1-i || n > 255 {
			return "", 0, 0, fmt.Errorf("%w: %q: a device is named NAME, NAME/PORT or NAME/PORT/GID, as in mlx5_0/1/3", rdma.ErrNoDevice, s)
		}
		if i == 0 {
			port = n
		} else {
			gid = n
		}
	}
	return parts[0], port, gid, nil
}

// gidRank says how much a GID is to be preferred; 0 is one that cannot be used.
func gidRank(raw [16]byte, ethernet, roce2 bool) int {
	ip := netip.AddrFrom16(raw)
	switch {
	case ip.IsUnspecified(), ethernet && !roce2:
		return 0
	case ip.Is4In6():
		return 4
	case !ethernet:
		return 2
	case !ip.IsLinkLocalUnicast():
		return 3
	}
	return 1
}
