package demo

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/novastream/novastream"
	"github.com/novastream/novastream/control"
)

// lanes are what the demo shows, with the options that make a stream of each.
var lanes = []struct {
	name, lane string
	oneRing    bool
}{
	{"local", "local", false},
	{"shm", "shm", false},
	{"shm, one ring", "shm", true},
	{"rdma", "rdma", false},
	{"tcp", "tcp", false},
}

// receiver is the receiving process's state.
type receiver struct {
	s       *novastream.Streaming
	path    string
	senders []control.WorkerID
}

// Receive is the receiver process: it asks the senders, given by their worker
// ids, for each job over each of the lanes, and reports a Line each.
func Receive(ctx context.Context, s *novastream.Streaming, path string, only, senders []string, out io.Writer) error {
	r := &receiver{s: s, path: path}
	for _, id := range senders {
		n, err := strconv.ParseUint(id, 16, 64)
		if err != nil {
			return fmt.Errorf("worker id %q: %w", id, err)
		}
		r.senders = append(r.senders, control.WorkerID(n))
	}
	enc := json.NewEncoder(out)
	fail := func(err error) error {
		_ = enc.Encode(Line{Error: err.Error()})
		return err
	}
	if err := warm(path); err != nil {
		return fail(err)
	}
	for _, l := range lanes {
		if !slices.Contains(only, l.lane) {
			continue
		}
		res, err := r.lane(ctx, l.name, l.lane, l.oneRing)
		if err != nil {
			return fail(fmt.Errorf("lane %s: %w", l.name, err))
		}
		if err := enc.Encode(Line{Lane: &res}); err != nil {
			return err
		}
	}
	k, err := r.kill(ctx)
	if err != nil {
		return fail(err)
	}
	return enc.Encode(Line{Kill: &k})
}

// warm reads the files once, so that no lane pays for the disk.
func warm(path string) error {
	n := 0
	err := filepath.WalkDir(path, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		n++
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(io.Discard, f)
		return err
	})
	if err == nil && n == 0 {
		err = fmt.Errorf("%s has no file to stream: name a folder with files, or a file", path)
	}
	return err
}

// ask gives a sender a job; over the lane local this process does it itself.
func (r *receiver) ask(ctx context.Context, sender int, job Job) (a Answer, err error) {
	if job.Lane == "local" {
		return run(ctx, r.s, job)
	}
	b, err := json.Marshal(job)
	if err != nil {
		return a, err
	}
	msg, err := r.s.Node().Call(ctx, r.senders[sender], "demo.run", control.Message{Payload: b})
	if err != nil {
		return a, err
	}
	return a, json.Unmarshal(msg.Payload, &a)
}

// lane measures one lane.
func (r *receiver) lane(ctx context.Context, name, lane string, oneRing bool) (res Lane, err error) {
	res.Name = name
	var opts []novastream.CreateOption
	if oneRing {
		opts = append(opts, novastream.Shared(len(r.senders)), novastream.OneRing())
	}
	if err := r.files(ctx, &res, lane, oneRing); err != nil {
		return res, fmt.Errorf("files: %w", err)
	}
	if err := r.records(ctx, &res, lane, opts); err != nil {
		return res, fmt.Errorf("records: %w", err)
	}
	if err := r.trips(ctx, &res, lane, opts); err != nil {
		return res, fmt.Errorf("round trips: %w", err)
	}
	if err := r.attaches(ctx, &res, lane, opts); err != nil {
		return res, fmt.Errorf("attaches: %w", err)
	}
	return res, nil
}

// incoming is a file that is being received.
type incoming struct {
	sum  hash.Hash
	name string
}

func (r *receiver) files(ctx context.Context, res *Lane, lane string, oneRing bool) error {
	opts := []novastream.CreateOption{novastream.Shared(len(r.senders)), novastream.Capacity(1 << 15)}
	if oneRing {
		opts = append(opts, novastream.OneRing(), novastream.Capacity(1<<16))
	}
	rx, err := novastream.CreateBytes(r.s, opts...)
	if err != nil {
		return err
	}
	defer rx.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	start := time.Now()
	for i := range r.senders {
		go func() {
			job := Job{Kind: "files", Handle: rx.Handle().String(), Lane: lane, Path: r.path, Share: i, Of: len(r.senders)}
			if _, err := r.ask(ctx, i, job); err != nil {
				cancel(err)
			}
		}()
	}
	files := map[novastream.SenderID]*incoming{}
	for ended := 0; ended < len(r.senders); {
		loan, err := rx.Borrow(64)
		if err == nil {
			for _, f := range loan.Frames {
				res.file(files, f)
			}
			loan.Release()
			continue
		}
		f, err := rx.TryRecv(nil)
		switch {
		case errors.Is(err, novastream.ErrEmpty):
			if err := rx.Wait(ctx); err != nil {
				return err
			}
		case err != nil:
			return err
		case f.Kind == novastream.KindData:
			res.file(files, f)
		case f.Kind == novastream.KindFinalized:
			ended++
		case f.Err != nil:
			return fmt.Errorf("%v: %w", f.Kind, f.Err)
		}
	}
	res.GBs = float64(res.Bytes) / time.Since(start).Seconds() / 1e9
	return nil
}

// file takes one frame of a file.
func (l *Lane) file(files map[novastream.SenderID]*incoming, f novastream.Frame[[]byte]) {
	if len(f.Value) == 0 {
		l.Wrong++
		return
	}
	in := files[f.Sender]
	body := f.Value[1:]
	switch f.Value[0] {
	case fileName:
		files[f.Sender] = &incoming{sha256.New(), string(body)}
	case fileData:
		l.Bytes += int64(len(body))
		if in != nil {
			in.sum.Write(body)
		}
	case fileSum:
		l.Files++
		if in == nil || !bytes.Equal(in.sum.Sum(nil), body) {
			l.Wrong++
		}
	}
}

// recordCount is how many records are sent over a lane.
const recordCount = 2_000_000

func (r *receiver) records(ctx context.Context, res *Lane, lane string, opts []novastream.CreateOption) error {
	rx, err := novastream.Create[Record](r.s, opts...)
	if err != nil {
		return err
	}
	defer rx.Close()
	failed := make(chan error, 1)
	go func() {
		_, err := r.ask(ctx, 0, Job{Kind: "records", Handle: rx.Handle().String(), Lane: lane, Count: recordCount})
		failed <- err
	}()
	if _, err := rx.Recv(ctx); err != nil { // attached
		return err
	}
	next := uint64(0)
	take := func(v *Record) {
		if v.Seq != next || !v.whole() {
			res.Wrong++
		}
		next++
	}
	start := time.Now()
	for {
		for v := range rx.Slots(1024) {
			take(v)
		}
		f, err := rx.Recv(ctx)
		if err != nil {
			return err
		}
		if f.Kind == novastream.KindData {
			take(&f.Value)
			continue
		}
		if f.Kind != novastream.KindFinalized {
			return fmt.Errorf("%v: %w", f.Kind, f.Err)
		}
		break
	}
	res.FramesPerSecond = float64(next) / time.Since(start).Seconds()
	if next != recordCount {
		res.Wrong++
	}
	return <-failed
}

// tripCount is how many round trips are timed.
const tripCount = 20_000

func (r *receiver) trips(ctx context.Context, res *Lane, lane string, opts []novastream.CreateOption) error {
	// A spinning waiter would take the processor from the connection's goroutines.
	wait := novastream.Spin
	if !spins(lane) {
		wait = novastream.Hybrid
	}
	opts = append(slices.Clone(opts), novastream.Capacity(64), novastream.Wait(wait))
	rx, err := novastream.Create[Record](r.s, opts...)
	if err != nil {
		return err
	}
	defer rx.Close()
	a, err := r.ask(ctx, 0, Job{Kind: "echo", Handle: rx.Handle().String(), Lane: lane})
	if err != nil {
		return err
	}
	h, err := novastream.ParseHandle(a.Handle)
	if err != nil {
		return err
	}
	tx, err := novastream.Attach[Record](ctx, r.s, h, novastream.Lanes(novastream.Lane(lane)), novastream.Wait(wait))
	if err != nil {
		return err
	}
	defer tx.Close()
	if _, err := rx.Recv(ctx); err != nil { // attached
		return err
	}
	times := make([]time.Duration, 0, tripCount)
	var v Record
	for i := range uint64(tripCount) {
		v.fill(i)
		start := time.Now()
		if err := tx.Send(ctx, v); err != nil {
			return err
		}
		f, err := rx.Recv(ctx)
		times = append(times, time.Since(start))
		if err != nil {
			return err
		}
		if f.Value != v {
			res.Wrong++
		}
		if len(times) == 1000 && times[500] > time.Millisecond/2 {
			break // a lane that is this slow needs no more
		}
	}
	res.TripP50, res.TripP99 = percentile(times, 50), percentile(times, 99)
	return tx.Finalize(ctx)
}

// attachCount is how many attaches are timed.
const attachCount = 200

func (r *receiver) attaches(ctx context.Context, res *Lane, lane string, opts []novastream.CreateOption) error {
	rx, err := novastream.Create[Record](r.s, opts...)
	if err != nil {
		return err
	}
	defer rx.Close()
	go func() {
		for _, err := range rx.Values(ctx) {
			if err != nil {
				return
			}
		}
	}()
	a, err := r.ask(ctx, 0, Job{Kind: "attach", Handle: rx.Handle().String(), Lane: lane, Count: attachCount})
	if err != nil {
		return err
	}
	res.AttachP50 = percentile(a.Times, 50)
	return rx.Cancel("measured")
}

func percentile(times []time.Duration, p int) time.Duration {
	if len(times) == 0 {
		return 0
	}
	slices.Sort(times)
	t := times[min(len(times)*p/100, len(times)-1)]
	if t > 10*time.Microsecond {
		return t.Round(100 * time.Nanosecond)
	}
	return t
}

// killAfter is how many values the doomed sender sends first.
const killAfter = 100_000

// kill kills a sender in mid-stream and takes what the receiver is told.
func (r *receiver) kill(ctx context.Context) (k Kill, err error) {
	rx, err := novastream.Create[Record](r.s)
	if err != nil {
		return k, err
	}
	defer rx.Close()
	last := len(r.senders) - 1
	a, err := r.ask(ctx, last, Job{Kind: "flood", Handle: rx.Handle().String(), Lane: "shm"})
	if err != nil {
		return k, err
	}
	k.PID, k.Whole = a.PID, true
	p, err := os.FindProcess(a.PID)
	if err != nil {
		return k, err
	}
	var killed time.Time
	for {
		f, err := rx.Recv(ctx)
		if err != nil {
			return k, err
		}
		switch f.Kind {
		case novastream.KindData:
			if f.Value.Seq != k.Frames || !f.Value.whole() {
				k.Whole = false
			}
			if k.Frames++; k.Frames == killAfter {
				killed = time.Now()
				if err := p.Kill(); err != nil {
					return k, err
				}
			}
		case novastream.KindAttached:
		default:
			k.Kind = f.Kind.String()
			k.After = time.Since(killed).Round(time.Microsecond)
			return k, nil
		}
	}
}
