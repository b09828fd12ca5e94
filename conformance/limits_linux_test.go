package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/novastream/novastream"
	"github.com/novastream/novastream/control"
)

func init() {
	programs["poor"] = poor
	programs["threadless"] = threadless
}

// shortage is something that a process has no more of.
type shortage struct {
	slots int // of the streams that it receives
	// use uses it up, and answers what gives it back.
	use func() (func(), error)
	// sends says that it keeps the process from attaching too, and not only others
	// from attaching to it.
	sends bool
	says  []string
}

var shortages = map[string]shortage{
	"mappings":      {64, withoutMappings, true, []string{"vm.max_map_count"}},
	"control group": {1 << 17, nothing, false, []string{"memory.", "raise"}},
}

// TestLimits: attaching from or to a process that has used something up is refused by
// the name of that, and works when there is room; established streams go on meanwhile,
// and what is refused leaves nothing. Descriptors and RLIMIT_AS: TestBadInput_Limits.
func TestLimits(t *testing.T) {
	for name, short := range shortages {
		t.Run(name, func(t *testing.T) {
			group := ""
			if name == "control group" {
				group = newGroup(t, "memory", "memory.limit_in_bytes", "memory.max", 96<<20)
			}
			overShm(t, func(e *Env) { meetLimit(e, name, short, group) })
		})
	}
}

func meetLimit(e *Env, name string, short shortage, group string) {
	refused := func(said string) {
		require.Contains(e, said, "true ")
		for _, s := range append(short.says, group) {
			require.Contains(e, said, s)
		}
	}
	rx := e.Create(novastream.Shared(64), novastream.AttachTimeout(0))
	c := e.Child("poor", rx.Handle().String(), name, group)
	to, err := novastream.ParseHandle(c.Line())
	require.NoError(e, err)
	tx := e.Attach(to)
	next := func() { e.Send(tx, 0, 10); c.Go() }
	next()
	for range tries {
		said := c.Line()
		if short.sends {
			refused(said)
		} else {
			require.Equal(e, "false <nil>", said)
		}
	}
	require.Equal(e, "nothing is left", c.Line())
	before := e.Held()
	before.Goroutines++ // any may be preparing something
	for range tries {
		refused(said(attachMany(e.Ctx, e.TXHere(), to)))
	}
	e.Back(before)
	next()
	require.Equal(e, "false <nil>", c.Line(), "there is room again")
	var again Sender
	e.Until(func() bool { // the child has been told of the last ends
		again, err = e.TX.Attach(e.Ctx, to)
		return err == nil
	}, "there is room, and no attach")
	require.NoError(e, again.Finalize(e.Ctx))
	next()
	require.NoError(e, tx.Finalize(e.Ctx))
	require.Equal(e, "30 came", c.Line())
	require.Equal(e, "no session is left", c.Line())
	c.Wait()
	sent := 0
	for { // of all that attached the first one alone has sent
		switch f := e.Next(rx); f.Kind {
		case novastream.KindData:
			sent++
		case novastream.KindFinalized:
			require.Equal(e, 20, sent)
			return
		}
	}
}

// tries is how often what is used up is asked for.
const tries = 3

func said(err error) string {
	return fmt.Sprint(errors.Is(err, novastream.ErrLimit), " ", strings.ReplaceAll(fmt.Sprint(err), "\n", " "))
}

// attachMany attaches until it is refused, or often enough, and closes all.
func attachMany(ctx context.Context, s *novastream.Streaming, h novastream.Handle) error {
	for range 40 {
		tx, err := novastream.Attach[Rec](ctx, s, h)
		if err != nil {
			return err
		}
		defer tx.Close()
	}
	return nil
}

// poor is a program: HANDLE SHORTAGE GROUP. It has a stream to HANDLE and one of its
// own, uses something up, and says what comes of attaching, then and later.
func poor(p *program) error {
	if err := enter(os.Args[3]); err != nil {
		return err
	}
	s, err := p.streaming()
	if err != nil {
		return err
	}
	h, err := novastream.ParseHandle(os.Args[1])
	if err != nil {
		return err
	}
	short := shortages[os.Args[2]]
	rx, err := novastream.Create[Rec](s, novastream.Shared(64), novastream.AttachTimeout(0), novastream.Capacity(short.slots))
	if err != nil {
		return err
	}
	var came atomic.Uint64
	over := make(chan error, 1)
	go func() { over <- readCounting(p.ctx, rx, &came) }()
	tx, err := novastream.Attach[Rec](p.ctx, s, h)
	if err != nil {
		return err
	}
	fmt.Println(rx.Handle())
	p.wait()
	warm()
	back, err := short.use()
	if err != nil {
		return err
	}
	fmt.Println(said(attachMany(p.ctx, s, h)))
	first := Held()
	for range tries - 1 {
		fmt.Println(said(attachMany(p.ctx, s, h)))
	}
	for now := Held(); now.Mappings > first.Mappings || now.Descriptors > first.Descriptors; now = Held() {
		runtime.Gosched() // to the end of the test's patience, if something is left
	}
	fmt.Println("nothing is left")
	if err := sendTen(p.ctx, tx, 0); err != nil {
		return err
	}
	p.wait()
	back()
	few, err := novastream.Attach[Rec](p.ctx, s, h)
	fmt.Println(said(err))
	if err != nil {
		return err
	}
	few.Close()
	p.wait()
	for came.Load() < 30 {
		runtime.Gosched()
	}
	fmt.Println(came.Load(), "came")
	for s.Stats().Inbound > 0 || s.Stats().Memory > 0 {
		runtime.Gosched()
	}
	fmt.Println("no session is left")
	if err := sendTen(p.ctx, tx, 10); err != nil {
		return err
	}
	return tx.Finalize(p.ctx)
}

func sendTen(ctx context.Context, tx *novastream.Sender[Rec], from uint64) error {
	for i := range uint64(10) {
		if err := tx.Send(ctx, MakeRec(from+i)); err != nil {
			return err
		}
	}
	return nil
}

func readCounting(ctx context.Context, rx *novastream.Receiver[Rec], came *atomic.Uint64) error {
	for f, err := range rx.Frames(ctx) {
		if err != nil {
			return err
		}
		if f.Kind == novastream.KindData {
			came.Add(1)
		}
	}
	return nil
}

// warm has the runtime take what it would otherwise take in the middle of a shortage,
// and die of: threads, which it keeps, and some heap.
func warm() {
	const threads = 16
	var all, wg sync.WaitGroup
	all.Add(threads)
	for range threads {
		wg.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			all.Done()
			all.Wait()
		})
	}
	wg.Wait()
	runtime.KeepAlive(make([]byte, 32<<20))
	runtime.GC()
}

// withoutMappings uses up all mappings but a few.
func withoutMappings() (func(), error) {
	fd, err := unix.MemfdCreate("many", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, int64(os.Getpagesize())); err != nil {
		return nil, err
	}
	var all [][]byte
	for {
		m, err := unix.Mmap(fd, 0, os.Getpagesize(), unix.PROT_READ, unix.MAP_SHARED) // of one page each: they do not merge
		if err != nil {
			break
		}
		all = append(all, m)
	}
	free := func(n int) {
		for range n {
			_ = unix.Munmap(all[len(all)-1])
			all = all[:len(all)-1]
		}
	}
	free(20)
	return func() { free(len(all)) }, nil
}

// nothing is what others use up.
func nothing() (func(), error) { return func() {}, nil }

// enter goes into a control group, before the process asks which it is in.
func enter(group string) error {
	if group == "" {
		return nil
	}
	return os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0o644)
}

// newGroup makes a control group with a limit, of either version.
func newGroup(t *testing.T, controller, first, second string, limit int) string {
	for _, g := range []struct{ dir, file string }{{"/sys/fs/cgroup/" + controller, first}, {"/sys/fs/cgroup", second}} {
		dir := filepath.Join(g.dir, "nova-conf-"+strconv.Itoa(os.Getpid()))
		if os.Mkdir(dir, 0o755) != nil {
			continue
		}
		t.Cleanup(func() { os.Remove(dir) })
		if os.WriteFile(filepath.Join(dir, g.file), []byte(strconv.Itoa(limit)), 0o644) == nil {
			return dir
		}
	}
	t.Skip("no control group with a limit of " + controller + " can be made")
	return ""
}

// TestLimits_Mount: streams over shm take no room of any mount; a node that finds no
// room for its entry says so and leaves nothing.
func TestLimits_Mount(t *testing.T) {
	dir, err := os.MkdirTemp("", "nv")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k,mode=700"); err != nil {
		t.Skipf("no filesystem can be mounted: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	overShm(t, func(e *Env) {
		e.Dir = dir
		a, b := e.Node(), e.Node()
		full := filepath.Join(dir, "full")
		require.Error(e, os.WriteFile(full, make([]byte, 1<<20), 0o600))
		rx := CreateOn(e, a)
		tx, err := novastream.Attach[Rec](e.Ctx, b, rx.Handle(), novastream.Lanes(novastream.LaneShm))
		require.NoError(e, err)
		e.Send(sender{tx}, 0, 100)
		require.NoError(e, tx.Finalize(e.Ctx))
		e.Expect(rx, novastream.KindAttached)
		e.ExpectData(rx, 0, 100)

		files := func() int { all, _ := os.ReadDir(dir); return len(all) }
		before := files()
		_, err = control.Listen(e.Ctx, control.WithDir(dir))
		require.ErrorIs(e, err, unix.ENOSPC)
		require.ErrorContains(e, err, dir)
		require.Equal(e, before, files())
		require.NoError(e, os.Remove(full))
		e.Node()
	})
}

// TestLimits_Threads: the number of threads does not grow with the streams, so that a
// limit with some room is not met. Nothing else would do: Go ends a process that is
// refused a thread, and its peers are told that it is dead.
func TestLimits_Threads(t *testing.T) {
	overShm(t, func(e *Env) {
		group := newGroup(e.T, "pids", "pids.max", "pids.max", 1000)
		rx := e.Create(novastream.Shared(64), novastream.AttachTimeout(0))
		var told bytes.Buffer
		c := e.child(func(cmd *exec.Cmd) { cmd.Stderr = &told }, "threadless", rx.Handle().String(), group)
		for _, want := range []string{"attached", "slept"} {
			require.Equal(e, want, c.Line())
		}
		e.Expect(rx, novastream.KindAttached)
		c.Go() // to need a thread for each of what it does
		for f := e.Next(rx); ; f = e.Next(rx) {
			if f.Sender == 1 && f.Kind != novastream.KindData {
				require.Equal(e, novastream.KindDropped, f.Kind)
				require.Error(e, c.cmd.Wait())
				require.Regexp(e, "pthread_create failed|failed to create new OS thread", told.String())
				return
			}
		}
	})
}

// threadless is a program: HANDLE GROUP. It goes without more threads than it has, but
// for a few; attaches and detaches, has many streams that sleep, and in the end asks
// for threads.
func threadless(p *program) error {
	s, err := p.streaming()
	if err != nil {
		return err
	}
	h, err := novastream.ParseHandle(os.Args[1])
	if err != nil {
		return err
	}
	tx, err := novastream.Attach[Rec](p.ctx, s, h)
	if err != nil {
		return err
	}
	defer tx.Close()
	room := runtime.GOMAXPROCS(0) + 4
	if err := os.WriteFile(filepath.Join(os.Args[2], "pids.max"), []byte(strconv.Itoa(Held().Threads+room)), 0o644); err != nil {
		return err
	}
	if err := enter(os.Args[2]); err != nil {
		return err
	}
	for range 300 {
		tx, err := novastream.Attach[Rec](p.ctx, s, h)
		if err != nil {
			return err
		}
		if err := sendTen(p.ctx, tx, 0); err != nil {
			return err
		}
		if err := tx.Detach(p.ctx); err != nil {
			return err
		}
	}
	fmt.Println("attached")
	if err := sleepers(p.ctx, s, 100); err != nil {
		return err
	}
	fmt.Println("slept")
	p.wait()
	var all sync.WaitGroup
	for range 4 * room {
		all.Go(func() {
			runtime.LockOSThread()
			select {}
		})
	}
	all.Wait()
	return nil
}

// sleepers has so many receivers wait for a value at the same time, and then for the
// next one, each from a sender of this process.
func sleepers(ctx context.Context, s *novastream.Streaming, n int) error {
	var wg sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		rx, err := novastream.Create[Rec](s)
		if err != nil {
			return err
		}
		defer rx.Close()
		wg.Go(func() {
			for err == nil {
				var f novastream.Frame[Rec]
				if f, err = rx.Recv(ctx); f.Kind == novastream.KindFinalized {
					return
				}
			}
			errs[i] = err
		})
		tx, err := novastream.Attach[Rec](ctx, s, rx.Handle())
		if err != nil {
			return err
		}
		wg.Go(func() { errs[i] = errors.Join(errs[i], sendTen(ctx, tx, 0), tx.Finalize(ctx)) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
