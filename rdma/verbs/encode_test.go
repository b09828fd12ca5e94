package verbs

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream/rdma"
)

func TestAddress(t *testing.T) {
	a := address{qpn: 0x123456, psn: 0xabcdef, lid: 77, mtu: 5, ethernet: true, gid: netip.MustParseAddr("::ffff:10.0.0.1").As16()}
	b := a.marshal()
	got, err := parseAddress(b)
	require.NoError(t, err)
	require.Equal(t, a, got)
	for n := range len(b) {
		_, err := parseAddress(b[:n])
		require.ErrorIs(t, err, rdma.ErrAddress, "%d bytes", n)
		for bit := range 8 {
			bad := []byte(string(b))
			bad[n] ^= 1 << bit
			_, err := parseAddress(bad)
			require.ErrorIs(t, err, rdma.ErrAddress, "byte %d bit %d", n, bit)
		}
	}
	for _, bad := range []address{{qpn: 1 << 24, mtu: 1}, {psn: 1 << 24, mtu: 1}, {mtu: 0}, {mtu: 6}} {
		_, err := parseAddress(bad.marshal())
		require.ErrorIs(t, err, rdma.ErrAddress, "%+v", bad)
	}
}

func FuzzAddress(f *testing.F) {
	f.Add(address{qpn: 17, mtu: 3}.marshal())
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, err := parseAddress(b); err == nil {
			require.Equal(t, b, a.marshal())
		}
	})
}

func TestPathMTU(t *testing.T) {
	for _, c := range []struct {
		want          int
		local, remote uint8
		code          uint8
	}{{0, 5, 5, 5}, {0, 3, 3, 3}, {1024, 5, 3, 3}, {256, 5, 3, 1}, {4096, 5, 5, 5}, {0, 5, 3, 0}, {4096, 3, 5, 0}, {4096, 5, 3, 0}} {
		code, err := pathMTU(c.want, c.local, c.remote)
		if c.code == 0 {
			require.ErrorIs(t, err, rdma.ErrMTU, "%+v", c)
			continue
		}
		require.NoError(t, err, "%+v", c)
		require.Equal(t, c.code, code, "%+v", c)
	}
	for code := uint8(1); code <= 5; code++ {
		require.Equal(t, code, mtuCode(mtuBytes(code)))
	}
}

func TestTimes(t *testing.T) {
	require.EqualValues(t, 14, timeoutCode(rdma.DefaultTimeout))
	require.EqualValues(t, 15, timeoutCode(rdma.DefaultTimeout+1))
	require.EqualValues(t, 1, timeoutCode(time.Nanosecond))
	require.EqualValues(t, 24, timeoutCode(time.Minute))
	require.EqualValues(t, 12, rnrCode(rdma.DefaultRNRTimer))
	require.EqualValues(t, 1, rnrCode(1))
	require.EqualValues(t, 2, rnrCode(10*time.Microsecond+1))
	require.EqualValues(t, 0, rnrCode(655360*time.Microsecond))
}

func TestName(t *testing.T) {
	for s, want := range map[string]struct {
		device    string
		port, gid int
	}{"mlx5_0": {"mlx5_0", 0, -1}, "mlx5_0/2": {"mlx5_0", 2, -1}, "mlx5_0/1/0": {"mlx5_0", 1, 0}, "": {"", 0, -1}} {
		device, port, gid, err := parseName(s)
		require.NoError(t, err, s)
		require.Equal(t, want.device, device)
		require.Equal(t, want.port, port)
		require.Equal(t, want.gid, gid)
	}
	for _, s := range []string{"a/", "a/0", "a/1/x", "a/1/2/3", "a/300", "a/1/-1"} {
		_, _, _, err := parseName(s)
		require.ErrorIs(t, err, rdma.ErrNoDevice, s)
	}
}

// The order in which GIDs are preferred.
func TestGIDRank(t *testing.T) {
	rank := func(ip string, ethernet, roce2 bool) int {
		return gidRank(netip.MustParseAddr(ip).As16(), ethernet, roce2)
	}
	require.Greater(t, rank("::ffff:10.0.0.1", true, true), rank("2001:db8::1", true, true))
	require.Greater(t, rank("2001:db8::1", true, true), rank("fe80::1", true, true))
	require.Positive(t, rank("fe80::1", true, true))
	require.Positive(t, rank("fe80::1", false, false), "InfiniBand has no other")
	require.Zero(t, rank("::ffff:10.0.0.1", true, false), "RoCE v1")
	require.Zero(t, rank("::", true, true))
}
