package shm

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// memoryGroup is a control group that limits this process's memory, its own or one
// above it. A process that takes more than such a limit is not refused the memory: it
// is killed. So whoever takes much looks first.
type memoryGroup struct {
	limit, usage, stat string // files
	cache, shared      string // words of stat: the page cache, and what of it is no cache
}

// memoryGroups are those that this process was in when it was first asked for.
var memoryGroups = sync.OnceValue(func() []memoryGroup { return groupsOf("/proc/self/cgroup", "/sys/fs/cgroup") })

// groupsOf reads which groups those are. In a container the path may be another
// namespace's; then the mount's root is the container's own group.
func groupsOf(proc, mount string) (all []memoryGroup) {
	b, err := os.ReadFile(proc)
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		root, g := mount, memoryGroup{"memory.max", "memory.current", "memory.stat", "file", "shmem"}
		switch {
		case f[1] == "memory":
			root, g = filepath.Join(mount, "memory"), memoryGroup{"memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat", "total_cache", "total_shmem"}
		case f[1] != "":
			continue
		}
		for dir := filepath.Join(root, f[2]); ; dir = filepath.Dir(dir) {
			if _, err := os.Stat(filepath.Join(dir, g.limit)); err == nil {
				all = append(all, memoryGroup{filepath.Join(dir, g.limit), filepath.Join(dir, g.usage), filepath.Join(dir, g.stat), g.cache, g.shared})
			}
			if len(dir) <= len(root) {
				break
			}
		}
	}
	return all
}

// word reads a word of the group's statistics.
func word(text, name string) int64 {
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(line, name+" "); ok {
			n, _ := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
			return n
		}
	}
	return 0
}

// unlooked is how many bytes were taken since the last look at the groups.
var unlooked atomic.Int64

// lookEvery is for how many bytes a look is worth its 0.1 ms, of what is taken in small
// pieces.
const lookEvery = 1 << 20

// looking is held from a look until what was looked for is taken: two that had looked
// before either took would both find the same room.
var looking sync.Mutex

// takeMemory tells whether the process's control groups have room for so many bytes.
// The caller takes them at once, and calls taken then.
func takeMemory(size int) (taken func(), err error) {
	if unlooked.Add(int64(size)) < lookEvery {
		return func() {}, nil
	}
	looking.Lock()
	if err := fits(max(size, lookEvery), memoryGroups()); err != nil {
		looking.Unlock()
		return nil, err // and whoever is next looks again
	}
	unlooked.Store(0)
	return looking.Unlock, nil
}

// spare is how much of a limit is left to what the process takes without a look, such
// as its heap.
func spare(limit int64) int64 { return min(limit/32, 16<<20) }

// fits tells whether so many bytes more can be had without the process being killed.
func fits(size int, groups []memoryGroup) error {
	for _, g := range groups {
		limit := number(g.limit)
		if limit <= 0 || limit >= maxSize { // none
			continue
		}
		used := number(g.usage)
		if int64(size) <= limit-spare(limit)-used {
			continue
		}
		// What is cached of files would make room. The look is dear, and rare.
		if b, err := os.ReadFile(g.stat); err == nil {
			used -= max(word(string(b), g.cache)-word(string(b), g.shared), 0)
		}
		if int64(size) > limit-spare(limit)-used {
			return fmt.Errorf("%w: allocate %d bytes: the process's cgroup has %d of %d bytes in use, and %d are spared: raise %s, or lower the ring's capacity",
				ErrLimit, size, used, limit, spare(limit), g.limit)
		}
	}
	return nil
}
