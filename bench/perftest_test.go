package bench

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/novastream/novastream"
)

// deviceEnv names the device of the lane rdma, as novastream.RDMA does.
const deviceEnv = "NOVA_RDMA_DEVICE"

// rounds is how often a row is measured: perftest, ours, perftest, ours, and so on to
// perftest.
const rounds = 5

// BenchmarkPerftest is the lane rdma over verbs between two processes, each run between
// two of the program of perftest that does as much, at the same device and GID: $NOVA_RDMA_DEVICE
// as DEVICE/PORT/GID. It prints a table of the medians, and of the ratios of neighbours.
func BenchmarkPerftest(b *testing.B) {
	name, port, gid := "", "", ""
	if at := strings.Split(os.Getenv(deviceEnv), "/"); len(at) == 3 {
		name, port, gid = at[0], at[1], at[2]
	}
	if _, err := exec.LookPath("ib_write_bw"); err != nil || name == "" || rdmaProvider() != "verbs" {
		b.Skip("needs perftest, verbs and a device: make bench-rdma")
	}
	perftest := func(program string, args ...string) []float64 {
		args = append([]string{"-F", "-d", name, "-i", port, "-x", gid}, args...)
		return perftest(b, program, args...)
	}
	p := newProcesses(b)
	c := p.connections()
	latency := func() float64 { return 2 * perftest("ib_write_lat", "-s", "64", "-n", "5000")[4] } // it tells half of it
	note := ""
	batch := func(s novastream.SenderStats) {
		note = fmt.Sprintf("%.0f KiB a batch", float64(s.Payload)/float64(s.Batches)/1024)
	}
	rows := []struct {
		name, other, goal string
		ours, theirs      func() float64
	}{
		{"64 KiB frames, MB/s", "ib_write_bw -s 65536", "≥ 0.9",
			func() float64 {
				v, s := p.framed(64<<10, 1000)
				batch(s)
				return v / (1 << 20)
			},
			func() float64 { return perftest("ib_write_bw", "-s", "65536", "-n", "3000")[3] }},
		{"64-byte frames in batches, 1000/s", "ib_write_bw -s 64", "≥ 20",
			func() float64 {
				v, s := p.crossed(novastream.LaneRDMA, 1000)
				batch(s)
				return v * 1e3
			},
			func() float64 { return perftest("ib_write_bw", "-s", "64", "-n", "30000")[4] * 1e3 }},
		{"round trip of 64 bytes, polling, µs", "2 × ib_write_lat -s 64", "≤ 1.25",
			func() float64 {
				return float64(p50(p.trips(novastream.LaneRDMA, novastream.Spin, 5000, 1)).Nanoseconds()) / 1e3
			},
			latency},
		{"  one WRITE, without the lane, µs", "the same", "",
			func() float64 { return c.pings(5000, 1) },
			latency},
		{"  one WRITE with an immediate, polling for its completion, without the lane, µs", "the same", "",
			func() float64 { return c.pings(5000, withImmediate) },
			latency},
		{"  two WRITEs, without the lane, µs", "the same", "",
			func() float64 { return c.pings(5000, 2) },
			latency},
		{"connecting a queue pair by RPC, ms", "by rdma_cm", "",
			func() float64 { return c.times(10, func() { c.exchange(0) }) },
			func() float64 { return c.times(10, c.dial) }},
	}
	var table bytes.Buffer
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "what\tours\tother\t\tratio\tgoal\tratios\t")
	for _, r := range rows {
		note = ""
		var ours, theirs, ratio []float64
		before := r.theirs()
		for range rounds {
			x := r.ours()
			after := r.theirs()
			ours, theirs, ratio = append(ours, x), append(theirs, after), append(ratio, x/((before+after)/2))
			before = after
		}
		all := fmt.Sprintf("%.2f", ratio)
		fmt.Fprintf(w, "%s\t%.4g\t%.4g\t%s\t%.2f\t%s\t%s\t%s\n", r.name, median(ours), median(theirs), r.other, median(ratio), r.goal, all, note)
	}
	w.Flush()
	fmt.Printf("\n%s\n", table.String())
	b.ReportMetric(0, "ns/op")
}

// perftest runs a program of perftest in two processes, and answers the numbers of the
// last line that the client prints.
func perftest(b *testing.B, program string, args ...string) []float64 {
	const port = "18600"
	args = append(args, "-p", port)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var said bytes.Buffer
	server := exec.CommandContext(ctx, program, args...)
	server.Stdout, server.Stderr = &said, &said
	require.NoError(b, server.Start())
	ended := make(chan error, 1)
	go func() { ended <- server.Wait() }()
	for !listens(port) {
		select {
		case <-ended:
			require.FailNow(b, "the server has ended", "%s: %s", program, &said)
		case <-time.After(10 * time.Millisecond):
		}
	}
	out, err := exec.CommandContext(ctx, program, append(args, "127.0.0.1")...).CombinedOutput()
	require.NoError(b, err, "%s: %s", program, out)
	require.NoError(b, <-ended, "%s: %s", program, &said)
	var last []float64
	for line := range strings.Lines(string(out)) {
		var row []float64
		for _, f := range strings.Fields(line) {
			v, err := strconv.ParseFloat(strings.TrimPrefix(f, "-"), 64) // a deviation may be -nan
			if err != nil {
				row = nil
				break
			}
			row = append(row, v)
		}
		if len(row) >= 5 {
			last = row
		}
	}
	require.NotNil(b, last, "no figures of %s: %s", program, out)
	return last
}

// listens tells whether somebody listens at a TCP port of this host.
func listens(port string) bool {
	n, _ := strconv.Atoi(port)
	b, _ := os.ReadFile("/proc/net/tcp")
	b6, _ := os.ReadFile("/proc/net/tcp6")
	for line := range strings.Lines(string(b) + string(b6)) {
		f := strings.Fields(line)
		if len(f) > 3 && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", n)) && f[3] == "0A" {
			return true
		}
	}
	return false
}

// frames sends frames of j.Value bytes for a time, of which it writes the first and the
// last word, in place.
func frames(s *novastream.Streaming, j job, a *answer) error {
	ctx := context.Background()
	h, err := novastream.ParseHandle(j.Handle)
	if err != nil {
		return err
	}
	tx, err := novastream.AttachBytes(ctx, s, h, j.lanes())
	if err != nil {
		return err
	}
	defer tx.Close()
	for i, end := 0, time.Now().Add(time.Duration(j.MS)*time.Millisecond); i%16 != 0 || time.Now().Before(end); i++ {
		b, err := tx.ReserveWait(ctx, j.Value)
		if err != nil {
			return err
		}
		b[0], b[j.Value-1] = byte(i), byte(i)
		if err := tx.Commit(j.Value); err != nil {
			return err
		}
	}
	if err := tx.Finalize(ctx); err != nil {
		return err
	}
	a.Stats = tx.Stats()
	return nil
}

func init() { more["frames"] = frames }

// framed receives one run of frames over the lane rdma, in bytes a second. Like perftest
// it leaves what they hold alone, but for two bytes, and spins.
func (p *pairing) framed(size, ms int) (rate float64, s novastream.SenderStats) {
	rx, err := novastream.CreateBytes(p.s, novastream.Capacity(1<<18), novastream.Wait(novastream.Spin), novastream.Lanes(novastream.LaneRDMA))
	require.NoError(p, err)
	defer rx.Close()
	p.ask(job{Mode: "frames", Handle: rx.Handle().String(), Lane: novastream.LaneRDMA, Value: size, MS: ms})
	d := p.drained(rx, 16, func(b []byte) {
		require.Equal(p, b[0], b[len(b)-1])
		rate += float64(len(b))
	})
	return rate / d, p.answer().Stats
}
