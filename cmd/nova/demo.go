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
	"strings"
	"text/tabwriter"
	"time"

	"github.com/novastream/novastream/internal/demo"
)

type demoCmd struct {
	Path string `arg:"" optional:"" help:"A folder or a file; the default is the src folder of the Go installation."`
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
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	start := time.Now()
	args := []string{"receiver", "--dir", dir, path}
	for range senders {
		id, err := startSender(ctx, dir)
		if err != nil {
			return err
		}
		args = append(args, id)
	}
	if !c.JSON {
		fmt.Printf("streaming %s from %d sender processes to one receiver process\n", path, senders)
	}
	rx, out, err := startChild(ctx, args...)
	if err != nil {
		return err
	}
	rep, err := readReports(out, c.JSON)
	if e := rx.Wait(); err == nil && e != nil {
		err = fmt.Errorf("the receiver has failed: %w", e)
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

// startChild starts this program again, and kills it with the context.
func startChild(ctx context.Context, args ...string) (*exec.Cmd, *bufio.Scanner, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	s := bufio.NewScanner(out)
	s.Buffer(nil, 1<<20)
	return cmd, s, cmd.Start()
}

// startSender starts a sender and answers its worker id. It ends with the demo.
func startSender(ctx context.Context, dir string) (string, error) {
	cmd, out, err := startChild(ctx, "sender", "--dir", dir)
	if err != nil {
		return "", err
	}
	if !out.Scan() {
		return "", fmt.Errorf("a sender process has ended at its start: %w", errors.Join(out.Err(), cmd.Wait()))
	}
	go func() {
		for out.Scan() {
		}
		_ = cmd.Wait()
	}()
	return out.Text(), nil
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
				fmt.Printf("  %-12s done\n", r.Lane.Name)
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
	fmt.Fprintln(w, "lane\tfiles\tGB/s\tframes/s\tround trip p50\tp99\tattach p50\tverified\t")
	for _, l := range rep.Lanes {
		verified := "SHA-256 of all"
		if !l.Verified() {
			verified = fmt.Sprintf("%d DIFFER", l.Wrong)
		}
		fmt.Fprintf(w, "%s\t%d\t%.2f\t%.1f M\t%v\t%v\t%v\t%s\t\n", l.Name, l.Files, l.GBs, l.FramesPerSecond/1e6, l.TripP50, l.TripP99, l.AttachP50, verified)
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
}

// Run is the receiver process.
func (r receiverCmd) Run(ctx context.Context, c *cli) error {
	s, err := open(ctx, c.Dir, "127.0.0.1:0", false)
	if err != nil {
		return err
	}
	defer s.close()
	return demo.Receive(ctx, s.Streaming, r.Path, r.Senders, os.Stdout)
}

type senderCmd struct{}

// Run is a sender process.
func (senderCmd) Run(ctx context.Context, c *cli) error {
	s, err := open(ctx, c.Dir, "127.0.0.1:0", false)
	if err != nil {
		return err
	}
	defer s.close()
	if err := demo.Serve(s.Streaming); err != nil {
		return err
	}
	fmt.Println(s.node.WorkerID())
	<-ctx.Done()
	return nil
}
