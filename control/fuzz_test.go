//go:build unix

package control

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/mem"

	"github.com/novastream/novastream/control/internal/controlpb"
)

// FuzzEntry: a file of the directory that is no entry of a living node is
// refused, never believed, and never removed while its lock is held.
func FuzzEntry(f *testing.F) {
	b, err := json.Marshal(Entry{Worker: 1, Socket: "/x.sock", TCP: "127.0.0.1:1", PID: 7})
	require.NoError(f, err)
	f.Add(b, true)
	f.Add(b, false)
	f.Add([]byte("{}"), true)
	f.Add([]byte(`{"worker":-1}`), true)
	f.Fuzz(func(t *testing.T, b []byte, alive bool) {
		dir := t.TempDir()
		path := filepath.Join(dir, WorkerID(1).String()+entrySuffix)
		require.NoError(t, os.WriteFile(path, b, 0o600))
		if alive {
			file, err := os.Open(path)
			require.NoError(t, err)
			defer file.Close()
			require.NoError(t, syscall.Flock(int(file.Fd()), syscall.LOCK_EX))
		}
		e, err := Directory(dir).Lookup(ctx, 1)
		if err != nil {
			require.ErrorIs(t, err, ErrUnknownPeer)
		} else {
			require.True(t, alive)
			require.Equal(t, WorkerID(1), e.Worker)
		}
		_, err = os.Stat(path)
		require.Equal(t, alive, err == nil)
	})
}

// FuzzBulkFrame: what comes on a bulk stream is a frame or ErrMalformed, and a
// frame is what was written.
func FuzzBulkFrame(f *testing.F) {
	f.Add([]byte("\x04nameand what it carries"))
	f.Add([]byte{})
	f.Add([]byte{255})
	f.Add(append([]byte{255}, make([]byte, 300)...)) // the longest name
	f.Fuzz(func(t *testing.T, b []byte) {
		var frame bulkFrame
		if err := (codec{}).Unmarshal(mem.BufferSlice{mem.SliceBuffer(b)}, &frame); err != nil {
			require.ErrorIs(t, err, ErrMalformed)
			return
		}
		out, err := (codec{}).Marshal(&frame)
		require.NoError(t, err)
		require.Equal(t, b, out.Materialize())
		out.Free()
	})
}

// nowhere is a connection that takes everything.
type nowhere struct{}

func (nowhere) send(context.Context, *controlpb.Envelope, []int) error { return nil }
func (nowhere) bulk(context.Context, *controlpb.Envelope) error        { return nil }
func (nowhere) drain()                                                 {}
func (nowhere) close()                                                 {}

// FuzzServe: envelopes of every type and content are served or refused, and
// nothing that they began stays.
func FuzzServe(f *testing.F) {
	n := node(f, f.TempDir(), TCP, WithLogger(slog.New(slog.DiscardHandler)))
	require.NoError(f, n.HandleInline("echo", echo))
	require.NoError(f, n.HandleAMInline("am", func(context.Context, *Peer, Message) {}))
	for typ := range int32(9) {
		f.Add(typ, uint64(1), "echo", []byte("x"), int64(1), uint32(0), "nova.closed")
		f.Add(typ, uint64(1<<63), "am", []byte{}, int64(-1), uint32(9), "")
	}
	f.Fuzz(func(t *testing.T, typ int32, id uint64, name string, payload []byte, timeout int64, fds uint32, code string) {
		p := newPeer(n, TCP, n.instance)
		p.conn = nowhere{}
		c := &call{done: make(chan struct{})}
		p.pending[1] = c
		e := &controlpb.Envelope{Type: controlpb.Envelope_Type(typ), Id: id, Name: name, Payload: payload, Timeout: timeout, Descriptors: fds}
		if code != "" {
			e.Error = &controlpb.Error{Message: name, Codes: []string{code, code + "x"}}
		}
		p.serve(e, nil)
		p.Close()
		<-c.done
		require.Empty(t, p.serving)
	})
}
