//go:build verbs && cgo && linux

package verbs_test

import (
	"bufio"
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream/internal/rdmaguest"
	"github.com/novastream/novastream/rdma"
)

// What the two hosts run. The peer gives a region and waits; the sender writes
// blocks and a count into it until its time is up or a request fails, and says how
// it ended.
const (
	blockSize = 4096
	blocks    = 16
	countAt   = blockSize * blocks
	hostPort  = ":9000"
)

// hostEnd is one side's objects.
type hostEnd struct {
	cq  rdma.CQ
	qp  rdma.QP
	mem rdma.Region
}

func newHostEnd(t *testing.T) *hostEnd {
	d := openDevice(t, "")
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	m, err := d.NewDomain()
	require.NoError(t, err)
	e := &hostEnd{}
	e.cq, err = m.NewCQ(256)
	require.NoError(t, err)
	e.qp, err = m.NewQP(rdma.QPOptions{SendCQ: e.cq, RecvCQ: e.cq, MaxSend: 64, MaxRecv: 64, MaxInline: 8})
	require.NoError(t, err)
	e.mem, err = m.NewRegion(countAt+blockSize, rdma.RemoteWrite)
	require.NoError(t, err)
	return e
}

// meet exchanges addresses over the ordinary network.
func (e *hostEnd) meet(t *testing.T, conn net.Conn) (in *bufio.Reader, addr uint64, key uint32) {
	_, err := fmt.Fprintf(conn, "%s %d %d\n", hex.EncodeToString(e.qp.Address()), e.mem.Addr(), e.mem.RKey())
	require.NoError(t, err)
	in = bufio.NewReader(conn)
	line, err := in.ReadString('\n')
	require.NoError(t, err)
	var remote string
	_, err = fmt.Sscanf(line, "%s %d %d", &remote, &addr, &key)
	require.NoError(t, err)
	b, err := hex.DecodeString(remote)
	require.NoError(t, err)
	require.NoError(t, e.qp.Connect(context.Background(), b, rdma.ConnectOptions{}))
	return in, addr, key
}

func (e *hostEnd) count() *atomic.Uint64 {
	return (*atomic.Uint64)(unsafe.Pointer(&e.mem.Bytes()[countAt]))
}

// fillBlock writes what block number n, from 1 on, consists of.
func fillBlock(b []byte, n uint64) {
	for i := range b {
		b[i] = byte(n*131 + uint64(i)*7 + uint64(i>>8))
	}
}

// TestHostPeer is the peer's program.
func TestHostPeer(t *testing.T) {
	if os.Getenv("NOVA_TEST_ROLE") != "peer" {
		t.Skip("run by TestHosts, on a machine of its own")
	}
	l, err := net.Listen("tcp", hostPort)
	require.NoError(t, err)
	fmt.Println("peer: listening")
	conn, err := l.Accept()
	require.NoError(t, err)
	e := newHostEnd(t)
	in, _, _ := e.meet(t, conn)
	fmt.Fprintln(conn, "connected")
	line, err := in.ReadString('\n')
	require.NoError(t, err)
	var n uint64
	_, err = fmt.Sscanf(line, "written %d", &n)
	require.NoError(t, err)
	require.Equal(t, n, e.count().Load())
	want := make([]byte, blockSize)
	for i := max(n, blocks) - blocks + 1; i <= n; i++ {
		fillBlock(want, i)
		at := i % blocks * blockSize
		require.True(t, string(want) == string(e.mem.Bytes()[at:at+blockSize]), "block %d", i)
	}
	fmt.Println("peer: has all", n)
}

// TestHostSender is the sender's program.
func TestHostSender(t *testing.T) {
	if os.Getenv("NOVA_TEST_ROLE") != "sender" {
		t.Skip("run by TestHosts, on a machine of its own")
	}
	span, err := time.ParseDuration(os.Getenv("NOVA_TEST_SPAN"))
	require.NoError(t, err)
	var conn net.Conn
	require.Eventually(t, func() bool {
		conn, err = net.Dial("tcp", rdmaguest.AddrA+hostPort)
		return err == nil
	}, time.Minute, 10*time.Millisecond)
	e := newHostEnd(t)
	in, addr, key := e.meet(t, conn)
	_, err = in.ReadString('\n')
	require.NoError(t, err)

	got := make([]rdma.Completion, 64)
	var n, acked, flushed, latest uint64
	var longest time.Duration
	status := rdma.Success
	last := time.Now()
	var end time.Time // span after it has begun to stream
	going := func() bool { return end.IsZero() || time.Now().Before(end) }
	for status == rdma.Success && (going() || acked < n) {
		if n-acked < 8 && going() {
			n++
			at := n % blocks * blockSize
			fillBlock(e.mem.Bytes()[at:at+blockSize], n)
			e.count().Store(n)
			_, err := e.qp.PostSend([]rdma.SendWR{
				{Op: rdma.OpWrite, Local: rdma.SegmentOf(e.mem, int(at), blockSize), Remote: addr + at, RKey: key},
				{ID: n, Op: rdma.OpWrite, Flags: rdma.Signaled | rdma.Inline, Local: rdma.SegmentOf(e.mem, countAt, 8), Remote: addr + countAt, RKey: key},
			})
			require.NoError(t, err)
			continue
		}
		k, err := e.cq.Poll(got)
		require.NoError(t, err)
		if k == 0 {
			require.NoError(t, e.cq.Wait(context.Background()))
			continue
		}
		for _, c := range got[:k] {
			latest = max(latest, c.ID)
			switch {
			case c.Status == rdma.Success:
				acked++
				longest = max(longest, time.Since(last))
				last = time.Now()
			case status == rdma.Success:
				status = c.Status
				longest = time.Since(last)
			default:
				require.Equal(t, rdma.Flushed, c.Status)
				flushed++
			}
			if acked == 50 && c.Status == rdma.Success {
				fmt.Println("sender: streaming")
				end = time.Now().Add(span)
			}
		}
	}
	for status != rdma.Success && latest < n {
		// All that is behind the failed request completes, down to the last.
		require.NoError(t, e.cq.Wait(context.Background()))
		k, err := e.cq.Poll(got)
		require.NoError(t, err)
		for _, c := range got[:k] {
			require.Equal(t, rdma.Flushed, c.Status)
			latest = max(latest, c.ID)
		}
		flushed += uint64(k)
	}
	fmt.Printf("sender: end %q blocks %d flushed %d gap %d\n", status, acked, flushed, longest.Milliseconds())
	if status != rdma.Success {
		return
	}
	_, err = fmt.Fprintf(conn, "written %d\n", n)
	require.NoError(t, err)
	rest, err := in.ReadString('\n')
	require.Error(t, err, "the peer hangs up: %s", strings.TrimSpace(rest))
}
