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
	cut     time.Duration // how long shortCut lasted
	table   *faultTable
}

// deaf is for how long nothing may come back so that nothing fails: a probe that is
// not answered is sent again every 67 ms, three times.
const deaf = 200 * time.Millisecond

// guestFault is something that happens to a session on rdma_rxe, and its ends: what
// the receiver and the sender are told.
type guestFault struct {
	name       string
	rx, tx     string // "" when it is dead
	do, undo   func(w *guestWorld, at int)
	side       int  // -1: any
	cable      bool // needs two hosts
	restarts   bool // the end at which it happens is started anew
	silence    time.Duration
	mild       bool // it is over, or undone, before the session ends
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

// shortCut loses all for 150 ms, or for as long as the machine takes for that: the
// sleep is the fault.
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
	w.cut = time.Duration((to - from) * float64(time.Second))
}

// pause stops a process for a second: the sleep is the fault.
func pause(w *guestWorld, at int) {
	w.ends[at].Signal(syscall.SIGSTOP)
	time.Sleep(time.Second)
	w.ends[at].Signal(syscall.SIGCONT)
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
	{name: "receiver stopped for 1 s", rx: "Finalized", tx: "ok", side: 0, mild: true, do: pause},
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
	rows  map[string]map[string]int
	after map[string][2][]time.Duration
}

func (f *faultTable) add(name, how string, after [2]time.Duration) {
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

// spoilt follows the name of a fault in whose session a machine stood still.
const spoilt = ", stood still"

func (f *faultTable) print(title string) {
	fmt.Println(title)
	fmt.Printf("%-38s %-44s %16s %16s\n", "fault", "receiver/sender told: sessions", "receiver, ms", "sender, ms")
	var names []string
	for _, g := range guestFaults {
		names = append(names, g.name, g.name+spoilt)
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
		fmt.Printf("%-38s %-44s %16s %16s\n", name, strings.Join(hows, ", "), spans[0], spans[1])
	}
}

// TestGuestFaults is TestRandomFaults on rdma_rxe, with the ends in processes of
// their own, and what happens to processes, links and machines: in one guest, and
// across two, as NOVA_TEST_HOSTS says. NOVA_FAULTS faults (60 and 40) follow from
// NOVA_SEED (1); NOVA_FAULT is how the name of those begins that are wanted.
//
// A session that fails although its fault permits that only to one whose machine
// stood still, does not count and is followed by another one.
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
	w := &guestWorld{t: t, rnd: rand.New(rand.NewPCG(uint64(seed), 0)), table: &faultTable{rows: map[string]map[string]int{}, after: map[string][2][]time.Duration{}}}
	machines := rdmaguest.Hosts(t, hosts)
	start, done, again := time.Now(), 0, 0
	defer func() {
		w.table.print(fmt.Sprintf("%d faults on rdma_rxe, hosts %d, seed %d, %.0f s; until it was told, median (most):", done, hosts, seed, time.Since(start).Seconds()))
	}()
	if hosts == 1 {
		w.within(machines[0])
	} else {
		w.across(machines[0], machines[1])
	}
	w.start(0)
	w.start(1)
	for done < total {
		if w.session(w.draw(hosts == 2 && done == total-1)) {
			done++
			continue
		}
		again++
		require.LessOrEqual(t, again, total/2, "these machines stand still too often for faults to be told from that")
	}
}

func (w *guestWorld) across(rx, tx *rdmaguest.Host) {
	w.address = hostAddresses[0] + ":9100"
	w.ends = [2]*place{{host: rx, netdev: "eth0", device: "rxe0"}, {host: tx, netdev: "eth0", device: "rxe0"}}
}

// within makes a cable within one guest: two interfaces whose traffic to each other
// leaves the kernel's own routes aside, each with rxe on it.
func (w *guestWorld) within(h *rdmaguest.Host) {
	w.address = "127.0.0.1:9100"
	script := "ip() { /usr/sbin/ip \"$@\"; }; ip link add v0 mtu 4200 type veth peer name v1 mtu 4200"
	for i := range w.ends {
		e := &place{host: h, netdev: fmt.Sprintf("v%d", i), device: fmt.Sprintf("rxe_v%d", i), other: fmt.Sprintf("10.88.0.%d", 2-i), table: 100 + i}
		w.ends[i] = e
		script += fmt.Sprintf(" && ip addr add 10.88.0.%d/32 dev %s && ip link set %s up && echo 1 >/proc/sys/net/ipv4/conf/%s/accept_local",
			i+1, e.netdev, e.netdev, e.netdev)
	}
	for _, e := range w.ends {
		script += fmt.Sprintf(" && ip route add %s dev %s table %d && ip rule add pref 10 to %s oif %s lookup %d && rdma link add %s type rxe netdev %s",
			e.other, e.netdev, e.table, e.other, e.netdev, e.table, e.device, e.netdev)
	}
	// The table of this host's own addresses comes behind those rules.
	h.Run(script + " && ip rule add pref 20 lookup local && ip rule del pref 0")
}

// start starts one end's program.
func (w *guestWorld) start(at int) {
	e, role := w.ends[at], [2]string{"receiver", "sender"}[at]
	e.Program = e.host.Start(fmt.Sprintf("%s %s", role, e.device), []string{"NOVA_TEST_ROLE=" + role}, "self", w.address, e.device)
	e.Expect("ready")
}

// draw draws a fault, or takes the one that is last.
func (w *guestWorld) draw(last bool) *guestFault {
	for {
		f := &guestFaults[w.rnd.IntN(len(guestFaults))]
		switch {
		case f.last != last, f.cable && w.ends[0].table != 0, !last && !strings.HasPrefix(f.name, os.Getenv("NOVA_FAULT")):
		case f.rare && w.rnd.IntN(4) != 0:
		default:
			return f
		}
	}
}

// session runs one session through one fault. It tells whether the fault counts.
func (w *guestWorld) session(f *guestFault) bool {
	t, rx, tx := w.t, w.ends[0], w.ends[1]
	w.still()
	w.cut = 0
	// Small rings are waited for often: so none takes much longer than the others.
	slots := 1 << (2 + w.rnd.IntN(8))
	most := min(2000, 64*slots)
	at, more := 1+w.rnd.IntN(most), 1+w.rnd.IntN(most)
	pace, side := time.Duration(w.rnd.IntN(2)*w.rnd.IntN(300))*time.Microsecond, f.side
	if side == anySide {
		side = w.rnd.IntN(2)
	}
	t.Logf("%s: side %d, %d slots, after %d and %d values, pace %v", f.name, side, slots, at, more, pace)
	rx.Write(fmt.Sprintf("create %d %d", slots, cmp.Or(f.silence, time.Minute)))
	handle := strings.TrimPrefix(rx.Expect("handle "), "handle ")
	tx.Write(fmt.Sprintf("send %s %d %d", handle, at, pace))
	tx.Expect("attached")
	early := "" // how the sender ended before it was meant to
	sent := func() bool {
		if line := tx.Expect("sent", "ended "); line != "sent" {
			early = line
		}
		return early == ""
	}
	if !sent() {
		f = &guestFaults[0]
	} else if f.do != nil {
		f.do(w, side)
	}
	injected := time.Now()
	if f.mild && early == "" {
		tx.Write(fmt.Sprintf("more %d", more))
		sent()
		if f.undo != nil {
			f.undo(w, side)
		}
		if early == "" {
			tx.Write("finish")
		}
	}

	var o ending
	if f.rx != "" {
		o.ended(0, rx.Expect("end "), rx.Printed().Sub(injected))
	}
	if f.silence != 0 { // the sender hears of it when it goes on
		f.undo(w, side)
	}
	if f.tx != "" {
		if early == "" {
			early = tx.Expect("ended ")
		}
		o.ended(1, early, tx.Printed().Sub(injected))
	}
	counts := w.judge(f, &o)
	if f.undo != nil && !f.mild && f.silence == 0 {
		f.undo(w, side)
	}
	if f.restarts {
		w.ends[side].Wait()
		w.start(side)
	}
	return counts
}

// ending is what the two ends of a session were told, the receiver first, and how long
// after the fault.
type ending struct {
	told            [2]string
	after           [2]time.Duration
	got, sent, lost uint64
}

// ended takes the line in which an end says so.
func (o *ending) ended(at int, line string, after time.Duration) {
	counts := []any{&o.told[at], &o.got}
	if at == 1 {
		counts = []any{&o.told[at], &o.sent, &o.lost}
	}
	_, _ = fmt.Sscan(line[strings.IndexByte(line, ' '):], counts...)
	o.after[at] = after
}

// judge compares what the ends were told with what the fault permits. It tells
// whether the fault counts.
func (w *guestWorld) judge(f *guestFault, o *ending) bool {
	t, name, counts := w.t, f.name, true
	for i, may := range []string{f.rx, f.tx} {
		if may == "" {
			o.told[i] = "-"
		}
		counts = counts && (may == "" || may == o.told[i])
	}
	both := f.rx != "" && f.tx != ""
	if !counts {
		name += spoilt
		require.Greater(t, w.still()+w.cut, deaf, "%s: told were %q", f.name, o.told)
		for i, may := range []string{f.rx, f.tx} {
			require.Contains(t, []string{cmp.Or(may, "-"), "TransportError"}, o.told[i], "%s: end %d (0 the receiver)", name, i)
		}
	}
	switch {
	case f.mild && counts:
		require.Equal(t, o.sent, o.got, name)
	case both:
		require.LessOrEqual(t, o.got, o.sent+1, name) // the last may have been committed and refused
		require.GreaterOrEqual(t, o.got+o.lost, o.sent, "%s: lost unsaid", name)
	}
	if f.mild {
		o.after = [2]time.Duration{}
	}
	w.table.add(name, o.told[0]+"/"+o.told[1], o.after)
	return counts
}

// still is for how long the machines stood still in any half second since the last
// call, at most.
func (w *guestWorld) still() (sum time.Duration) {
	for i, e := range w.ends {
		if i == 0 || e.host != w.ends[0].host {
			sum += e.host.Still()
		}
	}
	return sum
}
