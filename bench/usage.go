package bench

import (
	"os"
	"strconv"
	"strings"
	"time"
)

// threads is how many this process has, 0 where the system does not tell.
func threads() int {
	tasks, _ := os.ReadDir("/proc/self/task")
	return len(tasks)
}

// cpu is the processor time that a process has used, 0 where the system does not
// tell: of all its threads, as the scheduler counts it.
func cpu(pid int) (used time.Duration) {
	dir := "/proc/" + strconv.Itoa(pid) + "/task/"
	tasks, _ := os.ReadDir(dir)
	for _, t := range tasks {
		b, _ := os.ReadFile(dir + t.Name() + "/schedstat")
		if f := strings.Fields(string(b)); len(f) > 0 {
			n, _ := strconv.ParseInt(f[0], 10, 64)
			used += time.Duration(n)
		}
	}
	return used
}
