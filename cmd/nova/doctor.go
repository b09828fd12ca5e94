package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"text/tabwriter"

	"github.com/novastream/novastream/control"
	"github.com/novastream/novastream/internal/rdmacheck"
	"github.com/novastream/novastream/shm"
)

type doctorCmd struct {
	Subject string `arg:"" optional:"" enum:"all,rdma" default:"all" help:"all of the machine, or rdma: devices, ports, addresses, and a loopback test."`
}

type finding = rdmacheck.Finding

// Run tells what this machine offers.
func (d doctorCmd) Run(ctx context.Context, c *cli) error {
	m := shm.Probe()
	if d.Subject == "rdma" {
		return doctorRDMA(ctx, c, m)
	}
	found := examine(m)
	found = append(found, examineNode(ctx, c.Dir))
	if c.JSON {
		return json.NewEncoder(os.Stdout).Encode(struct {
			Machine  shm.Machine `json:"machine"`
			Findings []finding   `json:"findings"`
		}{m, found})
	}
	return printFindings(found)
}

func printFindings(found []finding) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	for _, f := range found {
		fmt.Fprintf(w, "%s\t%s\t%s\n", f.State, f.What, f.Found)
		if f.Remedy != "" {
			fmt.Fprintf(w, "\t\t-> %s\n", f.Remedy)
		}
	}
	return w.Flush()
}

func yes(ok bool, what, found string, state rdmacheck.State, lack, remedy string) finding {
	if ok {
		return finding{What: what, State: rdmacheck.OK, Found: found}
	}
	return finding{What: what, State: state, Found: lack, Remedy: remedy}
}

// examine judges what the machine offers.
func examine(m shm.Machine) []finding {
	out := []finding{
		{What: "kernel", State: "ok", Found: fmt.Sprintf("%s, %d processors", m.Kernel, m.CPUs)},
		yes(m.CPUs > 1, "processors", "spinning can pay", "slow", "one: whoever spins keeps the other from working", "give the container a second processor, or use Wait(Park)"),
		yes(m.Memfd, "memfd", "sealed shared memory", "missing", "memfd_create fails", "the lane shm needs Linux 3.17 and a seccomp profile that allows memfd_create"),
		yes(m.NoexecSeal, "noexec seal", "memfds cannot be made executable", "slow", "before Linux 6.3: memfds are made without it", "nothing is lost but a safeguard"),
		yes(m.Membarrier, "membarrier", "sleeping needs no fence on the fast path", "slow", "not available: sleeps are cut to a millisecond instead, so idle streams cost some CPU", "allow membarrier(2) in the seccomp profile; Linux 4.16 has it"),
		yes(m.Descriptors.Now >= 4096 || m.Descriptors.Now < 0, "descriptors", fmt.Sprintf("%d", m.Descriptors.Now), "slow",
			fmt.Sprintf("%d: each stream over shm takes three on the receiver's side, two on the sender's", m.Descriptors.Now),
			fmt.Sprintf("ulimit -n %d, or LimitNOFILE= of the service", max(m.Descriptors.Most, 65536))),
		yes(m.Mappings == 0 || m.Mappings >= 65530, "mappings", fmt.Sprintf("vm.max_map_count %d", m.Mappings), "slow",
			fmt.Sprintf("vm.max_map_count %d: each stream over shm takes two", m.Mappings), "sysctl vm.max_map_count=262144"),
		memory(m),
		hugePages(m),
		memlock(m),
		yes(len(m.RDMA) > 0, "RDMA devices", fmt.Sprint(m.RDMA), "missing", "none", "streams to other hosts go over TCP; nova doctor rdma says more"),
	}
	return out
}

func memlock(m shm.Machine) finding {
	return yes(m.Memlock.Now < 0 || m.Memlock.Now >= 64<<20, "locked memory", size(m.Memlock.Now), "slow",
		size(m.Memlock.Now)+": RDMA pins its rings", "ulimit -l unlimited, or LimitMEMLOCK=infinity (only for RDMA)")
}

func memory(m shm.Machine) finding {
	f := finding{What: "memory", State: "ok", Found: size(m.MemAvailable) + " available of " + size(m.MemTotal)}
	if m.CgroupMemory > 0 {
		f.Found += ", the cgroup may use " + size(m.CgroupMemory)
	}
	if m.MemAvailable > 0 && m.MemAvailable < 256<<20 {
		f.State, f.Remedy = "slow", "lower Capacity, or MaxMemory of the node, so that attaches fail before the system does"
	}
	return f
}

func hugePages(m shm.Machine) finding {
	switch found := "transparent ones for shared memory: " + m.ShmemHuge; m.ShmemHuge {
	case "always", "advise", "within_size", "force":
		return finding{What: "huge pages", State: "ok", Found: found}
	default:
		return finding{What: "huge pages", State: "missing", Found: found, Remedy: "echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled: the option HugePages, for rings of many megabytes only"}
	}
}

func size(n int64) string {
	switch {
	case n < 0:
		return "unlimited"
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%d KiB", n>>10)
}

// examineNode starts a node, which checks the runtime directory.
func examineNode(ctx context.Context, dir string) finding {
	if dir == "" {
		dir = control.DefaultDir()
	}
	s, err := open(ctx, dir, "", false)
	if err != nil {
		return finding{What: "runtime directory", State: "missing", Found: err.Error(), Remedy: "set NOVA_RUNTIME_DIR to a short path of a directory that is yours alone"}
	}
	defer s.close()
	return finding{What: "runtime directory", State: "ok", Found: dir}
}
