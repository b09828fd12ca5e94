package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/novastream/novastream"
	"github.com/novastream/novastream/internal/demo"
)

type demoCmd struct {
	Path string `arg:"" optional:"" help:"A folder or a file; the default is the src folder of the Go installation."`
	demoLanes
}

// demoLanes are the lanes that the demo shows.
type demoLanes struct {
	Lane     []string `enum:"local,shm,rdma,tcp" default:"local,shm,rdma,tcp" help:"A lane to show, again for each: ${enum}."`
	Provider string   `default:"soft" help:"By whose devices the lane rdma works: soft, or verbs in a build with the tag verbs."`
}

// args are the flags for the demo's processes.
func (l demoLanes) args() []string {
	return []string{"--lane", strings.Join(l.Lane, ","), "--provider", l.Provider}
}

// open opens a node of the demo.
func (l demoLanes) open(ctx context.Context, dir string) (*session, error) {
	var opts []novastream.Option
	if slices.Contains(l.Lane, "rdma") {
		opts = append(opts, novastream.RDMA(l.Provider, ""))
	}
	return open(ctx, dir, "127.0.0.1:0", false, opts...)
}

// senders is how many sender processes the demo starts.
const senders = 4

// Run starts one receiver process and the sender processes, and prints what the
// receiver says.
func (d demoCmd) Run(ctx context.Context, c *cli) error {
	path, err := d.path()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "nova")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	family := children{ctx: ctx}
	defer family.end()
	start := time.Now()
	if !c.JSON {
		fmt.Printf("streaming %s from %d sender processes to one receiver process\n", path, senders)
		if slices.Contains(d.Lane, "rdma") {
			fmt.Printf("lane rdma by the provider %s\n", d.Provider)
		}
	}
	rep, err := family.report(dir, path, d.args(), c.JSON)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	rep.Seconds = time.Since(start).Seconds()
	if c.JSON {
		err = json.NewEncoder(os.Stdout).Encode(rep)
	} else {
		err = printReport(rep)
	}
	if err == nil && !rep.OK() {
		err = errors.New("what arrived differs from what was sent")
	}
	return err
}

func (d demoCmd) path() (string, error) {
	if d.Path != "" {
		if _, err := os.Stat(d.Path); err != nil {
			return "", err
		}
		return filepath.Abs(d.Path)
	}
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("no Go installation to stream (%w): name a folder: nova demo PATH", err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "src"), nil
}

// children are the demo's processes. Each ends when its standard input does, so
// that none outlives the demo, whatever ends that.
type children struct {
	ctx context.Context
	all []*child
}

type child struct {
	cmd *exec.Cmd
	in  io.Closer
	out *bufio.Scanner
}

// start starts this program again.
func (f *children) start(args ...string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{cmd: exec.CommandContext(f.ctx, self, args...)}
	c.cmd.Stderr = os.Stderr
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.out = bufio.NewScanner(out)
	c.out.Buffer(nil, 1<<20)
	c.cmd.Cancel = c.in.Close
	c.cmd.WaitDelay = 5 * time.Second // then it is killed
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	f.all = append(f.all, c)
	return c, nil
}

// end ends all that have not ended, and waits for them.
func (f *children) end() {
	for _, c := range f.all {
		c.in.Close()
	}
	for _, c := range f.all {
		_ = c.cmd.Wait()
	}
}

// report starts the processes and reads what the receiver has to say.
func (f *children) report(dir, path string, flags []string, quiet bool) (rep demo.Report, err error) {
	args := append(append([]string{"receiver", "--dir", dir}, flags...), path)
	for range senders {
		c, err := f.start(append([]string{"sender", "--dir", dir}, flags...)...)
		if err != nil {
			return rep, err
		}
		if !c.out.Scan() {
			return rep, fmt.Errorf("a sender process has ended at its start: %w", errors.Join(c.out.Err(), c.cmd.Wait()))
		}
		args = append(args, c.out.Text())
	}
	c, err := f.start(args...)
	if err != nil {
		return rep, err
	}
	if rep, err = readReports(c.out, quiet); err != nil {
		return rep, err
	}
	if err := c.cmd.Wait(); err != nil {
		return rep, fmt.Errorf("the receiver process has failed: %w", err)
	}
	return rep, nil
}

func readReports(out *bufio.Scanner, quiet bool) (rep demo.Report, err error) {
	for out.Scan() {
		var r demo.Line
		if err := json.Unmarshal(out.Bytes(), &r); err != nil {
			return rep, fmt.Errorf("the receiver's report: %w", err)
		}
		switch {
		case r.Lane != nil:
			rep.Lanes = append(rep.Lanes, *r.Lane)
			if !quiet {
				fmt.Printf("  %-13s done\n", r.Lane.Name)
			}
		case r.Kill != nil:
			rep.Kill = r.Kill
		case r.Error != "":
			return rep, errors.New(r.Error)
		}
	}
	if err := out.Err(); err != nil && !errors.Is(err, io.EOF) {
		return rep, err
	}
	return rep, nil
}

func printReport(rep demo.Report) error {
	fmt.Println()
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "lane         \tfiles\tGB/s\tframes/s\tround trip p50\tp99\tattach p50\tverified\t")
	for _, l := range rep.Lanes {
		verified := "SHA-256 of all"
		if !l.Verified() {
			verified = fmt.Sprintf("%d DIFFER", l.Wrong)
		}
		fmt.Fprintf(w, "%-13s\t%d\t%.2f\t%.1f M\t%v\t%v\t%v\t%s\t\n", l.Name, l.Files, l.GBs, l.FramesPerSecond/1e6, l.TripP50, l.TripP99, l.AttachP50, verified)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if k := rep.Kill; k != nil {
		fmt.Printf("\nsender process %d got SIGKILL in mid-stream: the receiver got the %d values that it had committed, all whole: %v, then %s %v after the kill\n",
			k.PID, k.Frames, k.Whole, k.Kind, k.After)
	}
	fmt.Printf("\n%.1f s in all\n", rep.Seconds)
	return nil
}

type receiverCmd struct {
	Path    string   `arg:""`
	Senders []string `arg:""`
	demoLanes
}

// Run is the receiver process.
func (r receiverCmd) Run(ctx context.Context, c *cli) error {
	s, err := r.open(ctx, c.Dir)
	if err != nil {
		return err
	}
	defer s.close()
	ctx, cancel := untilEOF(ctx)
	defer cancel()
	if err := demo.Receive(ctx, s.Streaming, r.Path, r.Lane, r.Senders, os.Stdout); err != nil {
		return errReported
	}
	return nil
}

type senderCmd struct{ demoLanes }

// Run is a sender process.
func (x senderCmd) Run(ctx context.Context, c *cli) error {
	s, err := x.open(ctx, c.Dir)
	if err != nil {
		return err
	}
	defer s.close()
	if err := demo.Serve(s.Streaming); err != nil {
		return err
	}
	ctx, cancel := untilEOF(ctx)
	defer cancel()
	fmt.Println(s.node.WorkerID())
	<-ctx.Done()
	return nil
}

// untilEOF ends a context when the standard input ends: with the parent.
func untilEOF(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	return ctx, cancel
}
