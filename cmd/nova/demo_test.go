//go:build unix

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream"
	"github.com/novastream/novastream/control"
	"github.com/novastream/novastream/internal/demo"
)

// corruptSender is a sender process of the demo that gives one file over the
// lane shm another checksum than its bytes have, and leaves the rest to an
// honest node beside it.
func corruptSender() {
	ctx := context.Background()
	dir := os.Args[3]
	honest, err := open(ctx, dir, "127.0.0.1:0", false, novastream.RDMA("soft", ""))
	check(err)
	check(demo.Serve(honest.Streaming))
	s, err := open(ctx, dir, "127.0.0.1:0", false)
	check(err)
	check(s.node.Handle("demo.run", func(ctx context.Context, _ *control.Peer, req control.Message) (control.Message, error) {
		var job demo.Job
		if err := json.Unmarshal(req.Payload, &job); err != nil {
			return control.Message{}, err
		}
		if job.Kind == "files" && job.Lane == "shm" && job.Share == 0 {
			return control.Message{Payload: []byte("{}")}, sendWrong(ctx, s, job)
		}
		return s.node.Call(ctx, honest.node.WorkerID(), "demo.run", req)
	}))
	fmt.Println(s.node.WorkerID())
	ctx, _ = untilEOF(ctx)
	<-ctx.Done()
	os.Exit(0)
}

func sendWrong(ctx context.Context, s *session, job demo.Job) error {
	h, err := novastream.ParseHandle(job.Handle)
	if err != nil {
		return err
	}
	tx, err := novastream.AttachBytes(ctx, s.Streaming, h)
	if err != nil {
		return err
	}
	for _, frame := range []string{"fname", "dbytes", "sanother checksum"} {
		if err := tx.Send(ctx, []byte(frame)); err != nil {
			return err
		}
	}
	return tx.Finalize(ctx)
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// someFiles makes a folder with files of many sizes.
func someFiles(t *testing.T, dir string) (path string, n int) {
	path = filepath.Join(dir, "files")
	require.NoError(t, os.MkdirAll(filepath.Join(path, "sub", "sub"), 0o700))
	for _, size := range []int{0, 1, 100, 64 << 10, 64<<10 + 1, 300_000} {
		for _, sub := range []string{"", "sub", "sub/sub"} {
			name := filepath.Join(path, sub, fmt.Sprint(size))
			require.NoError(t, os.WriteFile(name, make([]byte, size), 0o600))
			n++
		}
	}
	return path, n
}

func TestDemo(t *testing.T) {
	if testing.Short() {
		t.Skip("the demo streams millions of values")
	}
	c := newTool(t)
	path, n := someFiles(t, c.dir)
	said, told, status := c.run("demo", "--json", path)
	require.Zero(t, status, told)
	var r demo.Report
	require.NoError(t, json.Unmarshal([]byte(said), &r))
	require.True(t, r.OK(), said)
	require.Len(t, r.Lanes, 5)
	for _, l := range r.Lanes {
		require.Equal(t, n, l.Files, l.Name)
		require.Positive(t, l.FramesPerSecond, l.Name)
		require.Positive(t, l.TripP50, l.Name)
		require.GreaterOrEqual(t, l.TripP99, l.TripP50, l.Name)
		require.Positive(t, l.AttachP50, l.Name)
	}
	require.Equal(t, "Dropped", r.Kill.Kind)
	require.Positive(t, r.Kill.After)

}

// When something differs the table says where, and the exit status is 1.
func TestDemoThatDiffers(t *testing.T) {
	if testing.Short() {
		t.Skip("the demo streams millions of values")
	}
	c := newTool(t)
	c.env = append(c.env, cliEnv+"=corrupt")
	path, _ := someFiles(t, c.dir)
	said, told, status := c.run("demo", path)
	require.Equal(t, exitFailed, status, said)
	require.Contains(t, told, "differs")
	require.Regexp(t, `(?m)^ *lane +files +GB/s +frames/s +round trip p50 +p99 +attach p50 +verified *$`, said)
	require.Regexp(t, `(?m)^ *local .*SHA-256 of all *$`, said)
	require.Regexp(t, `(?m)^ *shm .* 1 DIFFER *$`, said)
	require.Regexp(t, `(?m)^ *tcp .*SHA-256 of all *$`, said)
	require.Contains(t, said, "got SIGKILL in mid-stream")
}

// An interrupted demo leaves no process and no directory.
func TestDemoInterrupted(t *testing.T) {
	c := newTool(t)
	c.env = append(c.env, "TMPDIR="+c.dir)
	path, _ := someFiles(t, c.dir)
	cmd := c.cmd("demo", path)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	cmd.Stderr = cmd.Stdout
	require.NoError(t, cmd.Start())
	line := make([]byte, 1)
	_, err = out.Read(line) // it has begun
	require.NoError(t, err)
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	require.Equal(t, exitFailed, exitStatus(t, cmd.Wait()))
	left, err := filepath.Glob(filepath.Join(c.dir, "nova*"))
	require.NoError(t, err)
	require.Empty(t, left)
	require.Empty(t, processesWith(t, c.dir), "processes are left")
}

// processesWith lists the processes that have a word in their arguments.
func processesWith(t *testing.T, word string) (out []string) {
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	for _, p := range all {
		b, _ := os.ReadFile(p)
		if strings.Contains(string(b), word) {
			out = append(out, p)
		}
	}
	return out
}
