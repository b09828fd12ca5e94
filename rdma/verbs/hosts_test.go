//go:build verbs && cgo && linux

package verbs_test

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream/internal/rdmaguest"
)

// TestHosts breaks what two hosts are connected by, while one writes into the
// other's region, and prints what the sender saw.
func TestHosts(t *testing.T) {
	if os.Getenv("NOVA_TEST_HOSTS") == "" {
		t.Skip("boots two machines: make test-rdma")
	}
	hosts := rdmaguest.Hosts(t, 2)
	peer, sender := hosts[0], hosts[1]
	run := func(h *rdmaguest.Host, role, test, span string) *rdmaguest.Program {
		env := []string{"NOVA_TEST_VERBS=1", "NOVA_TEST_ROLE=" + role, "NOVA_TEST_SPAN=" + span}
		return h.Start(role, env, "self", "-test.run", "^"+test+"$")
	}
	var there, here *rdmaguest.Program
	loss := func(percent int) {
		sender.Run(fmt.Sprintf("/usr/sbin/tc qdisc replace dev eth0 root netem loss %d%%", percent))
	}

	faults := []struct {
		name    string
		span    string // of streaming
		before  func()
		inject  func()
		resume  func() // when the sender has written all
		after   func() // when both programs have ended, or the peer cannot
		status  string // or another, behind a comma
		settled bool   // the peer has all
	}{
		{name: "none", span: "500ms", status: "success", settled: true},
		{
			name: "loss of 1%", span: "2s", status: "success", settled: true,
			before: func() { loss(1) }, after: func() { loss(0) },
		},
		{
			name: "loss of 10%", span: "4s", status: "success", settled: true,
			before: func() { loss(10) }, after: func() { loss(0) },
		},
		{
			name: "cable cut for 150 ms", span: "2s", status: "success", settled: true,
			inject: func() { peer.Cable(false); time.Sleep(150 * time.Millisecond); peer.Cable(true) },
		},
		{
			name: "peer process stopped", span: "4s", status: "success", settled: true,
			inject: func() { there.Signal(syscall.SIGSTOP) },
			resume: func() { there.Signal(syscall.SIGCONT) },
		},
		{
			// Its regions and its queue pair go in either order.
			name: "peer process killed", span: "30s", status: "retry exceeded,remote access",
			inject: func() { there.Signal(syscall.SIGKILL) },
		},
		{
			name: "cable cut at the peer", span: "30s", status: "retry exceeded",
			inject: func() { peer.Cable(false) },
			after:  func() { there.Signal(syscall.SIGKILL); peer.Cable(true) },
		},
		{
			name: "own cable cut", span: "60s", status: "retry exceeded",
			inject: func() { sender.Cable(false) },
			after:  func() { there.Signal(syscall.SIGKILL); sender.Cable(true) },
		},
		{
			name: "peer machine killed", span: "30s", status: "retry exceeded",
			inject: func() { peer.Kill() },
		},
	}
	table := fmt.Sprintf("%-22s %-16s %8s %8s %10s %10s\n", "fault", "sender sees", "blocks", "flushed", "after ms", "gap ms")
	for _, f := range faults {
		if f.before != nil {
			f.before()
		}
		there = run(peer, "peer", "TestHostPeer", "0s")
		there.Expect("peer: listening")
		here = run(sender, "sender", "TestHostSender", f.span)
		here.Expect("sender: streaming")
		if f.inject != nil {
			f.inject()
		}
		injected := time.Now()
		line := here.Expect("sender: end")
		noticed := time.Since(injected)
		if f.resume != nil {
			f.resume()
		}
		var status string
		var blocks, flushed, gap int
		_, err := fmt.Sscanf(line, "sender: end %q blocks %d flushed %d gap %d", &status, &blocks, &flushed, &gap)
		require.NoError(t, err, line)
		after := "-"
		if f.inject != nil && !f.settled {
			after = fmt.Sprint(noticed.Milliseconds())
		}
		table += fmt.Sprintf("%-22s %-16s %8d %8d %10s %10d\n", f.name, status, blocks, flushed, after, gap)
		require.Contains(t, strings.Split(f.status, ","), status, f.name)
		if f.settled {
			there.Expect(fmt.Sprintf("peer: has all %d", blocks))
			require.Empty(t, there.Wait())
		}
		require.Empty(t, here.Wait())
		if f.after != nil {
			f.after()
		}
	}
	fmt.Printf("Two hosts, timeout 14, retry 6:\n%s", table)
}
