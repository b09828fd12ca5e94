package conformance

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream"
	"github.com/novastream/novastream/control"
)

// kills is how many processes are killed in the course of their start, each a
// little later than the one before: over all of its steps.
const kills = 30

// StartUpKilled is case 51: processes killed with SIGKILL during each step of
// start-up: the next start works, with the same names and another payload type,
// as another user too, and nothing is left to remove by hand.
func StartUpKilled(e *Env) {
	e.SkipFor(e.Lane.OneProcess, NoChild)
	instance := uuid.NewString()
	killStarts(e, nil, instance)
	useStart(e, instance, "rec")
	useStart(e, instance, "other")
	entries, err := control.Directory(e.Dir).List(e.Ctx)
	require.NoError(e, err)
	nodes := 2
	if e.Lane.Apart {
		nodes = 1 // the sending side's is elsewhere
	}
	require.Len(e, entries, nodes, "stale entries are left: %+v", entries)
	left, err := os.ReadDir(e.Dir)
	require.NoError(e, err)
	for _, f := range left {
		require.NotContains(e, f.Name(), ".new", "half an entry is left")
	}
	if os.Getuid() == 0 { // nobody else can start a child as another user
		otherUsers(e, instance)
	}
}

// killStarts kills processes in the course of their start.
func killStarts(e *Env, edit func(*exec.Cmd), instance string) {
	for i := range kills {
		c := e.child(edit, "start", instance, "rec")
		quiet(time.Duration(i) * time.Millisecond / 2)
		c.Kill()
	}
	c := e.child(edit, "start", instance, "rec")
	c.Line()
	c.Kill()
}

// useStart starts a process under the same name once more, and streams to it.
func useStart(e *Env, instance, typ string) {
	c := e.Near("start", instance, typ)
	h, err := novastream.ParseHandle(c.Line())
	require.NoError(e, err)
	if typ == "other" {
		require.NoError(e, e.TX.AttachOther(e.Ctx, h, "small"))
	} else {
		tx, err := e.TX.Attach(e.Ctx, h)
		require.NoError(e, err)
		require.NoError(e, tx.Send(e.Ctx, MakeRec(0)))
	}
	require.Equal(e, "Data", c.Line())
	c.Kill()
}

// otherUsers lets two users start in turn in their default directories, which
// are beside each other.
func otherUsers(e *Env, instance string) {
	shared, err := os.MkdirTemp("", "nu")
	require.NoError(e, err)
	e.Cleanup(func() { os.RemoveAll(shared) })
	require.NoError(e, os.Chmod(shared, 0o777|os.ModeSticky))
	bin := filepath.Join(shared, "test") // where another user may read it
	self, err := os.ReadFile(os.Args[0])
	require.NoError(e, err)
	require.NoError(e, os.WriteFile(bin, self, 0o755))
	as := func(uid uint32) func(*exec.Cmd) {
		return func(cmd *exec.Cmd) {
			cmd.Path, cmd.Dir = bin, "/"
			var env []string
			for _, v := range cmd.Env {
				name, _, _ := strings.Cut(v, "=")
				if name != "NOVA_RUNTIME_DIR" && name != "XDG_RUNTIME_DIR" && name != dirEnv {
					env = append(env, v)
				}
			}
			cmd.Env = append(env, "TMPDIR="+shared)
			asUser(cmd, uid)
		}
	}
	for _, uid := range []uint32{0, 65534, 0} {
		killStarts(e, as(uid), instance)
		c := e.child(as(uid), "start", instance, "other")
		require.Contains(e, c.Line(), "nova:")
		c.Kill()
	}
}

// TwoNodes is case 53, of streams: two independent nodes in one process, each
// receiving and sending, under load: no growth, no hang.
func TwoNodes(e *Env) {
	e.SkipFor(e.Lane.OneProcess, "two nodes are never joined by a lane within one of them")
	there := e.TXHere()
	pair := func(rxs, txs *novastream.Streaming) {
		for range 10 {
			rx, err := novastream.Create[Rec](rxs, e.Options(novastream.Capacity(64))...)
			if err != nil {
				e.Error(err)
				return
			}
			done := make(chan error, 1)
			go func() {
				tx, err := novastream.Attach[Rec](e.Ctx, txs, rx.Handle())
				for i := uint64(0); err == nil && i < 2000; i++ {
					err = tx.Send(e.Ctx, MakeRec(i))
				}
				if err == nil {
					err = tx.Finalize(e.Ctx)
				}
				done <- err
			}()
			next := uint64(0)
			for f, err := range rx.Frames(e.Ctx) {
				if err != nil || f.Kind == novastream.KindData && (f.Value.Seq != next || !f.Value.Whole()) {
					e.Errorf("after %d values: %v %v", next, f.Kind, err)
					break
				}
				if f.Kind == novastream.KindData {
					next++
				}
				if f.Kind == novastream.KindFinalized {
					break
				}
			}
			if err := <-done; err != nil || next != 2000 {
				e.Errorf("%d values, %v", next, err)
			}
			rx.Close()
		}
	}
	load := func() {
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() { pair(e.RX, there) })
			wg.Go(func() { pair(there, e.RX) })
		}
		wg.Wait()
	}
	load()
	before := e.Held()
	load()
	e.Back(before)
	for _, s := range []*novastream.Streaming{e.RX, there} {
		e.Until(func() bool {
			st := s.Stats()
			return st.Anchors == 0 && st.Inbound == 0 && st.Outlets == 0 && st.Memory == 0
		}, "sessions are left")
	}
}
