package shm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A filesystem that is full refuses a segment by name, leaves no file behind, takes
// one when there is room again, and never takes away what was given.
func TestLimitOfAMount(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", 8*page)); err != nil {
		t.Skipf("no filesystem can be mounted: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	a, err := CreateFile(filepath.Join(dir, "a"), 6*page)
	require.NoError(t, err)
	for range 3 {
		_, err = CreateFile(filepath.Join(dir, "b"), 6*page)
		require.ErrorIs(t, err, ErrLimit)
		require.ErrorContains(t, err, "make room")
		require.ErrorContains(t, err, dir)
	}
	for i := range a.Bytes() {
		a.Bytes()[i] = 1 // all of it is there
	}
	names, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, names, 1)
	require.NoError(t, a.Close())
	require.NoError(t, os.Remove(filepath.Join(dir, "a")))
	b, err := CreateFile(filepath.Join(dir, "b"), 6*page)
	require.NoError(t, err)
	require.NoError(t, b.Close())
}

// A process whose control group has no memory left is refused a segment by the name
// of the limit, and not killed; with a smaller one it goes on.
func TestLimitOfTheControlGroup(t *testing.T) {
	const limit = 96 << 20
	var group string
	for _, g := range []struct{ dir, file string }{
		{"/sys/fs/cgroup/memory", "memory.limit_in_bytes"}, {"/sys/fs/cgroup", "memory.max"},
	} {
		dir := filepath.Join(g.dir, "nova-test-"+strconv.Itoa(os.Getpid()))
		if os.Mkdir(dir, 0o755) != nil {
			continue
		}
		defer os.Remove(dir)
		if os.WriteFile(filepath.Join(dir, g.file), []byte(strconv.Itoa(limit)), 0o644) == nil {
			group = dir
			break
		}
	}
	if group == "" {
		t.Skip("no control group with a memory limit can be made")
	}
	cmd := child(t, "memory")
	cmd.Env = append(cmd.Env, "NOVA_SHM_GROUP="+group)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	require.Len(t, lines, 6, "%s", out)
	for i, want := range []string{"true true shm: limit", "true true shm: limit", "true true shm: limit", "small false <nil>", "again false <nil>", "together"} {
		require.Contains(t, lines[i], want)
	}
	require.Contains(t, lines[0], group)
	require.Contains(t, lines[0], "raise")
}

// inGroup is a child that takes memory of its control group.
func inGroup() error {
	procs := filepath.Join(os.Getenv("NOVA_SHM_GROUP"), "cgroup.procs")
	if err := os.WriteFile(procs, []byte(strconv.Itoa(os.Getpid())), 0o644); err != nil {
		return err
	}
	say := func(what any, err error) { fmt.Println(what, errors.Is(err, ErrLimit), err) }
	_, err := NewMemfd(256 << 20)
	say(true, err)
	_, err = NewHuge(256 << 20)
	say(true, err)
	var all []Segment
	for err = nil; err == nil; {
		var s Segment
		if s, err = NewMemfd(8 << 20); err == nil {
			all = append(all, s)
		}
	}
	say(len(all) > 3, err)
	small, err := NewMemfd(64 << 10)
	say("small", err)
	all = append(all, small)
	for _, s := range all {
		s.Close()
	}
	s, err := NewMemfd(32 << 20)
	say("again", err)
	s.Close()
	var takers sync.WaitGroup
	for range 24 { // which have no room all together
		takers.Go(func() {
			for range 20 {
				if s, err := NewMemfd(8 << 20); err == nil {
					s.Close()
				}
			}
		})
	}
	takers.Wait()
	say("together", nil)
	return err
}

// The groups are found in either version of control groups, with all above them.
func TestGroupsAreFound(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
		return path
	}
	proc := write("proc", "5:cpu:/x\n4:memory:/a/b\n0::/c/d\n")
	write("memory/a/memory.limit_in_bytes", "9223372036854771712\n")
	write("memory/a/b/memory.limit_in_bytes", "1000\n")
	write("memory/a/b/memory.usage_in_bytes", "900\n")
	write("memory/a/b/memory.stat", "cache 1\ntotal_cache 500\ntotal_shmem 100\n")
	write("c/memory.max", "max\n")
	write("c/d/memory.max", "2000\n")
	write("c/d/memory.current", "100\n")
	groups := groupsOf(proc, dir)
	require.Len(t, groups, 4)
	require.NoError(t, fits(469, groups), "a 32nd is spared")
	err := fits(470, groups)
	require.ErrorIs(t, err, ErrLimit)
	require.ErrorContains(t, err, filepath.Join(dir, "memory/a/b/memory.limit_in_bytes"))
	require.ErrorContains(t, err, "500 of 1000")
	require.ErrorContains(t, fits(1901, groups[2:]), "memory.max")
	require.Empty(t, groupsOf(filepath.Join(dir, "none"), dir))
}

// A process that has used up its mappings is refused by the name of the limit, and
// goes on when there is room.
func TestLimitOfMappings(t *testing.T) {
	out, err := child(t, "mappings").CombinedOutput()
	require.NoError(t, err, "%s", out)
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	require.Len(t, lines, 2, "%s", out)
	require.Contains(t, lines[0], "true")
	require.Contains(t, lines[0], "vm.max_map_count")
	require.Equal(t, "<nil>", lines[1])
}

// withoutMappings is a child that uses up its mappings.
func withoutMappings() error {
	fd, err := unix.MemfdCreate("many", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	if err := unix.Ftruncate(fd, int64(page)); err != nil {
		return err
	}
	debug.SetGCPercent(-1) // a collection may map more for itself
	all := make([][]byte, 0, 1<<17)
	for {
		m, err := unix.Mmap(fd, 0, page, unix.PROT_READ, unix.MAP_SHARED) // of one page each: they do not merge
		if err != nil {
			break
		}
		all = append(all, m)
	}
	for range 8 { // for the runtime
		_ = unix.Munmap(all[len(all)-1])
		all = all[:len(all)-1]
	}
	var segs []Segment
	for err = nil; err == nil; {
		var s Segment
		if s, err = NewMemfd(page); err == nil {
			segs = append(segs, s)
		}
	}
	fmt.Println(errors.Is(err, ErrLimit), err)
	for _, s := range segs {
		s.Close()
	}
	for _, m := range all {
		_ = unix.Munmap(m)
	}
	s, err := NewMemfd(page)
	fmt.Println(err)
	return errors.Join(err, s.Close())
}
