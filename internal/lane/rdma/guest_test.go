//go:build verbs && cgo && linux

package rdma_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream/internal/rdmaguest"
)

// hostAddresses are the receiver's and the sender's in TestGuestFaults across two
// hosts.
var hostAddresses = [2]string{rdmaguest.AddrA, rdmaguest.AddrB}

// silence is the message timeout of sessions whose sender is to be stopped; the
// others have one that no fault here outlasts.
const silence = 3 * time.Second

// place is where one end runs, and its way to the other.
type place struct {
	host   *rdmaguest.Host
	netdev string
	device string // of verbs
	other  string // the other end's address
	table  int    // of the route to it, 0 when the interface has it
	*rdmaguest.Program
}

// guestWorld is the two ends, receiver first, of sessions on rdma_rxe.
type guestWorld struct {
	t       *testing.T
	address string // of the receiver's node
	ends    [2]*place
	rnd     *rand.Rand
	// overlong says that a short fault was not so short that nothing may fail.
	overlong bool
	table    *faultTable
}

// guestFault is something that happens to a session on rdma_rxe, and its ends: what
// the receiver and the sender may be told.
type guestFault struct {
	name       string
	rx, tx     string // several are separated by commas, "" when it is dead
	do, undo   func(w *guestWorld, at int)
	side       int  // -1: any
	cable      bool // needs two hosts
	restarts   bool // the end at which it happens is started anew
	silence    time.Duration
	mild       bool // it is undone before the session ends
	last, rare bool // it ends a machine; it takes long
}

const none, anySide = -2, -1

func netem(how string) func(w *guestWorld, at int) {
	return func(w *guestWorld, at int) {
		w.netem(at, strings.ReplaceAll(how, "RND", strconv.Itoa(1+w.rnd.IntN(10))))
	}
}

func (w *guestWorld) netem(at int, how string) {
	e := w.ends[at]
	e.host.Run(fmt.Sprintf("/usr/sbin/tc qdisc replace dev %s root netem %s", e.netdev, how))
}

func (w *guestWorld) link(at int, state string) {
	e := w.ends[at]
	line := fmt.Sprintf("/usr/sbin/ip link set %s %s", e.netdev, state)
	if state == "up" && e.table != 0 {
		line += fmt.Sprintf("; /usr/sbin/ip route replace %s dev %s table %d", e.other, e.netdev, e.table)
	}
	e.host.Run(line)
}

func signal(s syscall.Signal) func(w *guestWorld, at int) {
	return func(w *guestWorld, at int) { w.ends[at].Signal(s) }
}

// shortCut loses all for 150 ms, or for as long as the machine takes for that.
func shortCut(w *guestWorld, at int) {
	e := w.ends[at]
	p := e.host.Start("sh", nil, "/bin/sh", "-c", fmt.Sprintf(`
		cut() { /usr/sbin/tc qdisc replace dev %s root netem $1 $2 && read now _ </proc/uptime && echo uptime $now; }
		cut loss 100%% && usleep 110000 && cut delay 0ms`, e.netdev))
	var from, to float64
	_, err := fmt.Sscanf(p.Expect("uptime"), "uptime %g", &from)
	require.NoError(w.t, err)
	_, err = fmt.Sscanf(p.Expect("uptime"), "uptime %g", &to)
	require.NoError(w.t, err)
	w.overlong = to-from > 0.2
}

func unplug(w *guestWorld, at int) { w.ends[at].host.Cable(false) }
func plug(w *guestWorld, at int)   { w.ends[at].host.Cable(true) }

func up(w *guestWorld, at int)    { w.link(at, "up") }
func clean(w *guestWorld, at int) { w.netem(at, "delay 0ms") }

var guestFaults = []guestFault{
	{name: "none", rx: "Finalized", tx: "ok", side: none, mild: true},
	{name: "loss of 1% to 10%", rx: "Finalized", tx: "ok", side: anySide, mild: true, do: netem("loss RND%"), undo: clean},
	{name: "delay and reordering", rx: "Finalized", tx: "ok", side: anySide, mild: true, do: netem("delay RNDms RNDms"), undo: clean},
	{name: "cut of 150 ms", rx: "Finalized", tx: "ok", side: anySide, mild: true, do: shortCut},
	{name: "receiver stopped for 1 s", rx: "Finalized", tx: "ok", side: 0, mild: true, do: func(w *guestWorld, at int) {
		w.ends[at].Signal(syscall.SIGSTOP)
		time.Sleep(time.Second)
	}, undo: signal(syscall.SIGCONT)},
	{name: "all lost", rx: "TransportError", tx: "TransportError", side: anySide, do: netem("loss 100%"), undo: clean},
	{name: "link down", rx: "TransportError", tx: "TransportError", side: anySide, do: func(w *guestWorld, at int) { w.link(at, "down") }, undo: up},
	{name: "cable cut", rx: "TransportError", tx: "TransportError", side: anySide, cable: true, do: unplug, undo: plug},
	{name: "sender killed", rx: "Dropped", side: 1, restarts: true, do: signal(syscall.SIGKILL)},
	{name: "receiver killed", tx: "PeerDead", side: 0, restarts: true, do: signal(syscall.SIGKILL)},
	{name: "sender stopped", rx: "Timeout", tx: "Cancelled", side: 1, silence: silence, rare: true, do: signal(syscall.SIGSTOP), undo: signal(syscall.SIGCONT)},
	{name: "receiver's machine killed", tx: "TransportError", side: 0, cable: true, last: true, do: func(w *guestWorld, at int) { w.ends[at].host.Kill() }},
}

// faultTable is how sessions ended, and how long that took.
type faultTable struct {
	mu    sync.Mutex
	rows  map[string]map[string]int
	after map[string][2][]time.Duration
}

func (f *faultTable) add(name, how string, after [2]time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.rows[name] == nil {
		f.rows[name] = map[string]int{}
	}
	f.rows[name][how]++
	all := f.after[name]
	for i := range all {
		if after[i] > 0 {
			all[i] = append(all[i], after[i])
		}
	}
	f.after[name] = all
}

func (f *faultTable) print(title string) {
	fmt.Println(title)
	fmt.Printf("%-26s %-44s %16s %16s\n", "fault", "receiver/sender told: sessions", "receiver, ms", "sender, ms")
	var names []string
	for _, g := range guestFaults {
		names = append(names, g.name, g.name+", overlong")
	}
	for _, name := range names {
		if f.rows[name] == nil {
			continue
		}
		var hows []string
		for how, n := range f.rows[name] {
			hows = append(hows, fmt.Sprintf("%s: %d", how, n))
		}
		slices.Sort(hows)
		var spans [2]string
		for i, d := range f.after[name] {
			if slices.Sort(d); len(d) > 0 {
				spans[i] = fmt.Sprintf("%d (%d)", d[len(d)/2].Milliseconds(), d[len(d)-1].Milliseconds())
			}
		}
		fmt.Printf("%-26s %-44s %16s %16s\n", name, strings.Join(hows, ", "), spans[0], spans[1])
	}
}

// TestGuestFaults is TestRandomFaults on rdma_rxe, with the ends in processes of
// their own, and what happens to processes, links and machines: in one guest, and
// across two, as NOVA_TEST_HOSTS says. NOVA_FAULTS faults (60 and 40) follow from NOVA_SEED
// (1), as far as time permits; NOVA_FAULT is how the name of those begins that are
// wanted.
func TestGuestFaults(t *testing.T) {
	hosts, _ := strconv.Atoi(os.Getenv("NOVA_TEST_HOSTS"))
	if hosts == 0 {
		t.Skip("boots machines: make test-rdma")
	}
	number := func(name string, or int) int {
		if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
			return n
		}
		return or
	}
	total, seed := number("NOVA_FAULTS", 80-20*hosts), number("NOVA_SEED", 1)
	table := &faultTable{rows: map[string]map[string]int{}, after: map[string][2][]time.Duration{}}
	machines := rdmaguest.Hosts(t, hosts)
	worlds := 4
	if hosts == 2 {
		worlds = 1 // there is one cable
	}
	start := time.Now()
	t.Run("worlds", func(t *testing.T) {
		for i := range worlds {
			t.Run(strconv.Itoa(i), func(t *testing.T) {
				t.Parallel()
				w := &guestWorld{t: t, rnd: rand.New(rand.NewPCG(uint64(seed), uint64(i))), table: table}
				if hosts == 1 {
					w.within(machines[0].With(t), i)
				} else {
					w.across(machines[0].With(t), machines[1].With(t))
				}
				w.start(0)
				w.start(1)
				for range total / worlds {
					w.session(w.draw())
				}
				for f := range guestFaults {
					if f := &guestFaults[f]; f.last && hosts == 2 {
						w.session(f)
					}
				}
			})
		}
	})
	table.print(fmt.Sprintf("%d faults on rdma_rxe, hosts %d, seed %d, %.0f s; until it was told, median (most):", total, hosts, seed, time.Since(start).Seconds()))
}

func (w *guestWorld) across(rx, tx *rdmaguest.Host) {
	w.address = hostAddresses[0] + ":9100"
	w.ends = [2]*place{{host: rx, netdev: "eth0", device: "rxe0"}, {host: tx, netdev: "eth0", device: "rxe0"}}
}

// within makes a cable within one guest: two interfaces whose traffic to each other
// leaves the kernel's own routes aside, each with rxe on it.
func (w *guestWorld) within(h *rdmaguest.Host, i int) {
	w.address = fmt.Sprintf("127.0.0.1:%d", 9100+i)
	names := [2]string{fmt.Sprintf("v%d", i), fmt.Sprintf("w%d", i)}
	script := fmt.Sprintf("ip() { /usr/sbin/ip \"$@\"; }; ip link add %s mtu 4200 type veth peer name %s mtu 4200", names[0], names[1])
	for k, n := range names {
		w.ends[k] = &place{host: h, netdev: n, device: "rxe_" + n, other: fmt.Sprintf("10.88.%d.%d", i, 2-k), table: 100 + 2*i + k}
		script += fmt.Sprintf(" && ip addr add 10.88.%d.%d/32 dev %s && ip link set %s up && echo 1 >/proc/sys/net/ipv4/conf/%s/accept_local", i, k+1, n, n, n)
	}
	for _, e := range w.ends {
		script += fmt.Sprintf(" && ip route add %s dev %s table %d && ip rule add pref 10 to %s oif %s lookup %d && rdma link add %s type rxe netdev %s",
			e.other, e.netdev, e.table, e.other, e.netdev, e.table, e.device, e.netdev)
	}
	// The table of this host's own addresses comes behind those rules.
	script += " && { ip rule add pref 20 lookup local; ip rule del pref 0; true; }"
	h.Run(script)
}

// start starts one end's program.
func (w *guestWorld) start(at int) {
	e, role := w.ends[at], [2]string{"receiver", "sender"}[at]
	e.Program = e.host.Start(fmt.Sprintf("%s %s", role, e.device), []string{"NOVA_TEST_ROLE=" + role}, "self", w.address, e.device)
	e.Expect("ready")
}

func (w *guestWorld) draw() *guestFault {
	for {
		f := &guestFaults[w.rnd.IntN(len(guestFaults))]
		switch {
		case f.last, f.cable && w.ends[0].table != 0, !strings.HasPrefix(f.name, os.Getenv("NOVA_FAULT")):
		case f.rare && w.rnd.IntN(4) != 0:
		default:
			return f
		}
	}
}

// session runs one session through one fault.
func (w *guestWorld) session(f *guestFault) {
	t, rx, tx := w.t, w.ends[0], w.ends[1]
	w.overlong = false
	slots, at, pace := 1<<(2+w.rnd.IntN(8)), 1+w.rnd.IntN(3000), time.Duration(w.rnd.IntN(2)*w.rnd.IntN(300))*time.Microsecond
	side := f.side
	if side == anySide {
		side = w.rnd.IntN(2)
	}
	rx.Write(fmt.Sprintf("create %d %d", slots, cmp.Or(f.silence, time.Minute)))
	handle := strings.TrimPrefix(rx.Expect("handle "), "handle ")
	tx.Write(fmt.Sprintf("send %s %d %d", handle, at, pace))
	tx.Expect("attached")
	tx.Expect("at")
	time.Sleep(time.Duration(w.rnd.IntN(20)) * time.Millisecond)
	if f.do != nil {
		f.do(w, side)
	}
	injected := time.Now()
	if f.mild {
		time.Sleep(time.Duration(50+w.rnd.IntN(50)) * time.Millisecond)
		if f.undo != nil {
			f.undo(w, side)
		}
		tx.Write("finish")
	}

	var after [2]time.Duration
	told, got, sent, lost := [2]string{"-", "-"}, uint64(0), uint64(0), uint64(0)
	if f.rx != "" {
		_, err := fmt.Sscanf(rx.Expect("end "), "end %s %d", &told[0], &got)
		require.NoError(t, err)
		after[0] = rx.Printed().Sub(injected)
	}
	if f.tx != "" {
		if f.silence != 0 { // it hears of it when it goes on
			f.undo(w, side)
		}
		_, err := fmt.Sscanf(tx.Expect("ended "), "ended %s %d %d", &told[1], &sent, &lost)
		require.NoError(t, err)
		after[1] = tx.Printed().Sub(injected)
	}
	name := f.name
	if w.overlong && told[0] != f.rx {
		name = f.name + ", overlong"
		f = &guestFault{rx: "TransportError", tx: "TransportError"}
	}
	for i, may := range []string{f.rx, f.tx} {
		if may != "" {
			require.Contains(t, strings.Split(may, ","), told[i], "%s: the end that was told to %d (0 the receiver)", name, i)
		}
	}
	switch {
	case f.mild:
		require.Equal(t, sent, got, name)
	case f.rx != "" && f.tx != "":
		require.LessOrEqual(t, got, sent+1, name) // the last may have been committed and refused
		require.GreaterOrEqual(t, got+lost, sent, "%s: lost unsaid", name)
	}
	if f.mild {
		after = [2]time.Duration{}
	}
	w.table.add(name, told[0]+"/"+told[1], after)
	if f.undo != nil && !f.mild && f.silence == 0 {
		f.undo(w, side)
	}
	if f.restarts {
		w.ends[side].Wait()
		w.start(side)
	}
}
