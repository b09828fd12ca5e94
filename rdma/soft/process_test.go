package soft_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream/rdma"
	"github.com/novastream/novastream/rdma/soft"
)

// passport is what two processes tell each other.
type passport struct {
	Address []byte
	Addr    uint64
	RKey    uint32
}

// TestMain is also the other process: a region and a queue pair that serves.
func TestMain(m *testing.M) {
	if os.Getenv("SOFT_TEST_CHILD") == "" {
		os.Exit(m.Run())
	}
	s, err := newSide(soft.New(), 64<<20)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(s.passport())
	}
	var peer passport
	if err == nil {
		err = json.NewDecoder(os.Stdin).Decode(&peer)
	}
	if err == nil {
		_, err = s.qp.PostRecv(make([]rdma.RecvWR, 16))
	}
	if err == nil {
		err = s.qp.Connect(context.Background(), peer.Address, rdma.ConnectOptions{})
	}
	if err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
	os.Stdout.WriteString("ready\n")
	io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// side is one process's objects.
type side struct {
	dev rdma.Device
	dom rdma.Domain
	cq  rdma.CQ
	qp  rdma.QP
	mem rdma.Region
}

func newSide(p rdma.Provider, size int) (s side, err error) {
	if s.dev, err = p.Open(""); err != nil {
		return
	}
	if s.dom, err = s.dev.NewDomain(); err != nil {
		return
	}
	if s.cq, err = s.dom.NewCQ(1024); err != nil {
		return
	}
	if s.qp, err = s.dom.NewQP(rdma.QPOptions{SendCQ: s.cq, RecvCQ: s.cq, MaxSend: 256, MaxRecv: 256, MaxInline: 64}); err != nil {
		return
	}
	s.mem, err = s.dom.NewRegion(size, rdma.RemoteWrite|rdma.RemoteRead)
	return
}

func (s *side) passport() passport {
	return passport{s.qp.Address(), s.mem.Addr(), s.mem.RKey()}
}

// other starts the other process, connected to s.
func (s *side) other(t testing.TB, opt rdma.ConnectOptions) (passport, *exec.Cmd) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "SOFT_TEST_CHILD=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		in.Close()
		cmd.Process.Kill()
		cmd.Wait()
	})
	var peer passport
	d := json.NewDecoder(out)
	require.NoError(t, d.Decode(&peer))
	require.NoError(t, json.NewEncoder(in).Encode(s.passport()))
	rest := io.MultiReader(d.Buffered(), out)
	for b := make([]byte, 1); b[0] != 'y'; { // the end of "ready"
		_, err := io.ReadFull(rest, b)
		require.NoError(t, err)
	}
	require.NoError(t, s.qp.Connect(context.Background(), peer.Address, opt))
	return peer, cmd
}

// poll takes n completions; what is printed when they do not come.
func (s *side) poll(t testing.TB, n int, what ...any) []rdma.Completion {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	got := make([]rdma.Completion, n)
	for i := 0; i < n; {
		k, err := s.cq.Poll(got[i:])
		require.NoError(t, err)
		if i += k; k == 0 {
			if err := s.cq.Wait(ctx); err != nil {
				require.NoError(t, err, "%s: %d of %d completions came; %s", fmt.Sprint(what...), i, n, soft.Describe(s.qp))
			}
		}
	}
	return got
}

func open(t testing.TB, size int) *side {
	s, err := newSide(soft.New(), size)
	require.NoError(t, err)
	t.Cleanup(func() { s.dev.Close() })
	return &s
}

// Between two processes the same happens as within one: a WRITE arrives, a READ
// brings it back, a bad key is refused.
func TestProcess(t *testing.T) {
	s := open(t, 1<<20)
	peer, _ := s.other(t, rdma.ConnectOptions{})
	b := s.mem.Bytes()
	for i := range b[:1<<19] {
		b[i] = byte(i * 13)
	}
	half := 1 << 19
	wr := rdma.SendWR{Op: rdma.OpWrite, Flags: rdma.Signaled, Local: rdma.SegmentOf(s.mem, 0, half), Remote: peer.Addr, RKey: peer.RKey}
	back := rdma.SendWR{Op: rdma.OpRead, Flags: rdma.Signaled, Local: rdma.SegmentOf(s.mem, half, half), Remote: peer.Addr, RKey: peer.RKey}
	_, err := s.qp.PostSend([]rdma.SendWR{wr, back})
	require.NoError(t, err)
	for _, c := range s.poll(t, 2) {
		require.NoError(t, c.Status.Err())
	}
	require.True(t, string(b[:half]) == string(b[half:]))
	back.RKey++
	_, err = s.qp.PostSend([]rdma.SendWR{back})
	require.NoError(t, err)
	require.Equal(t, rdma.RemoteAccess, s.poll(t, 1)[0].Status)
}

// A peer process that is killed is RetryExceeded, in half a second by default.
func TestProcessKilled(t *testing.T) {
	s := open(t, 4096)
	peer, cmd := s.other(t, rdma.ConnectOptions{})
	wr := rdma.SendWR{Op: rdma.OpWrite, Flags: rdma.Signaled, Local: rdma.SegmentOf(s.mem, 0, 64), Remote: peer.Addr, RKey: peer.RKey}
	_, err := s.qp.PostSend([]rdma.SendWR{wr})
	require.NoError(t, err)
	require.NoError(t, s.poll(t, 1)[0].Status.Err())
	require.NoError(t, cmd.Process.Kill())
	cmd.Wait()
	_, err = s.qp.PostSend([]rdma.SendWR{wr, wr})
	require.NoError(t, err)
	got := s.poll(t, 2)
	require.Equal(t, rdma.RetryExceeded, got[0].Status)
	require.Equal(t, rdma.Flushed, got[1].Status)
}

// A peer process that is stopped is not gone: nothing fails, and all arrives when
// it goes on.
func TestProcessStopped(t *testing.T) {
	s := open(t, 4096)
	peer, cmd := s.other(t, rdma.ConnectOptions{Timeout: time.Millisecond, RetryCount: 1})
	wr := rdma.SendWR{Op: rdma.OpWrite, Flags: rdma.Signaled, Local: rdma.SegmentOf(s.mem, 0, 64), Remote: peer.Addr, RKey: peer.RKey}
	_, err := s.qp.PostSend([]rdma.SendWR{wr})
	require.NoError(t, err)
	require.NoError(t, s.poll(t, 1)[0].Status.Err())
	require.NoError(t, cmd.Process.Signal(syscall.SIGSTOP))
	var status syscall.WaitStatus
	_, err = syscall.Wait4(cmd.Process.Pid, &status, syscall.WUNTRACED, nil)
	require.NoError(t, err)
	require.True(t, status.Stopped())
	_, err = s.qp.PostSend([]rdma.SendWR{wr})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	for s.cq.Wait(ctx) == nil {
		got := make([]rdma.Completion, 1)
		n, err := s.cq.Poll(got)
		require.NoError(t, err)
		require.Zero(t, n, "%+v", got)
	}
	require.Equal(t, rdma.RTS, s.qp.State())
	require.NoError(t, cmd.Process.Signal(syscall.SIGCONT))
	require.NoError(t, s.poll(t, 1)[0].Status.Err())
}
