package demo

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/novastream/novastream"
	"github.com/novastream/novastream/control"
)

// A file's frames begin with one byte that tells what follows.
const (
	fileName = 'f' // its name: the first
	fileData = 'd'
	fileSum  = 's' // SHA-256 of what the sender has read: the last
)

// chunk is how many bytes of a file go into a frame.
const chunk = 64 << 10

// Serve makes a node one of the demo's senders.
func Serve(s *novastream.Streaming) error {
	return s.Node().Handle("demo.run", func(ctx context.Context, _ *control.Peer, req control.Message) (control.Message, error) {
		var job Job
		if err := json.Unmarshal(req.Payload, &job); err != nil {
			return control.Message{}, err
		}
		answer, err := run(ctx, s, job)
		if err != nil {
			return control.Message{}, err
		}
		b, err := json.Marshal(answer)
		return control.Message{Payload: b}, err
	})
}

// run does one job.
func run(ctx context.Context, s *novastream.Streaming, job Job) (a Answer, err error) {
	a.PID = os.Getpid()
	h, err := novastream.ParseHandle(job.Handle)
	if err != nil {
		return a, err
	}
	lane := novastream.Lanes(novastream.Lane(job.Lane))
	switch job.Kind {
	case "files":
		err = sendFiles(ctx, s, h, job, lane)
	case "records":
		err = sendRecords(ctx, s, h, job.Count, lane)
	case "echo":
		wait := novastream.Wait(novastream.Spin)
		if !spins(job.Lane) {
			wait = novastream.Wait(novastream.Hybrid)
		}
		a.Handle, err = echo(ctx, s, h, lane, wait)
	case "attach":
		a.Times, err = attachTimes(ctx, s, h, job.Count, lane)
	case "flood":
		// It has no end but the process's; the answer is that it has begun.
		tx, e := novastream.Attach[Record](ctx, s, h, lane)
		if err = e; err == nil {
			go flood(tx)
		}
	default:
		err = fmt.Errorf("no job %q", job.Kind)
	}
	return a, err
}

// sendFiles streams every Of-th file of the path.
func sendFiles(ctx context.Context, s *novastream.Streaming, h novastream.Handle, job Job, opt novastream.AttachOption) error {
	tx, err := novastream.AttachBytes(ctx, s, h, opt)
	if err != nil {
		return err
	}
	defer tx.Close()
	n := 0
	err = filepath.WalkDir(job.Path, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		if n++; n%job.Of != job.Share {
			return nil
		}
		return sendFile(ctx, tx, path)
	})
	if err != nil {
		return err
	}
	return tx.Finalize(ctx)
}

func sendFile(ctx context.Context, tx *novastream.BytesSender, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := tx.Send(ctx, append([]byte{fileName}, path...)); err != nil {
		return err
	}
	sum := sha256.New()
	for {
		b, err := tx.ReserveWait(ctx, chunk+1)
		if err != nil {
			return err
		}
		b[0] = fileData
		n, rerr := io.ReadFull(f, b[1:])
		sum.Write(b[1 : 1+n])
		keep := 1 + n
		if n == 0 {
			keep = 0
		}
		if err := tx.Commit(keep); err != nil {
			return err
		}
		if rerr == io.EOF || rerr == io.ErrUnexpectedEOF {
			break
		}
		if rerr != nil {
			return rerr
		}
	}
	return tx.Send(ctx, append([]byte{fileSum}, sum.Sum(nil)...))
}

// sendRecords sends count records, in place where the lane permits.
func sendRecords(ctx context.Context, s *novastream.Streaming, h novastream.Handle, count int, opt novastream.AttachOption) error {
	tx, err := novastream.Attach[Record](ctx, s, h, opt)
	if err != nil {
		return err
	}
	defer tx.Close()
	var r Record
	for seq := uint64(0); seq < uint64(count); {
		sent := seq
		for p := range tx.Slots(min(256, count-int(seq))) {
			p.fill(seq)
			seq++
		}
		if seq > sent {
			continue
		}
		r.fill(seq)
		if err := tx.Send(ctx, r); err != nil {
			return err
		}
		seq++
	}
	return tx.Finalize(ctx)
}

func flood(tx *novastream.Sender[Record]) {
	var r Record
	for seq := uint64(0); ; seq++ {
		r.fill(seq)
		if tx.Send(context.Background(), r) != nil {
			return
		}
	}
}

// echo makes a stream, answers its handle, and sends back to h what comes.
func echo(ctx context.Context, s *novastream.Streaming, h novastream.Handle, opt, wait novastream.EndOption) (string, error) {
	rx, err := novastream.Create[Record](s, novastream.Capacity(64), wait)
	if err != nil {
		return "", err
	}
	tx, err := novastream.Attach[Record](ctx, s, h, opt, wait)
	if err != nil {
		rx.Close()
		return "", err
	}
	go func() {
		defer rx.Close()
		defer tx.Close()
		for r, err := range rx.Values(context.Background()) {
			if err != nil || tx.Send(context.Background(), r) != nil {
				return
			}
		}
		_ = tx.Finalize(context.Background())
	}()
	return rx.Handle().String(), nil
}

// attachTimes attaches and detaches, and answers how long each attach took.
func attachTimes(ctx context.Context, s *novastream.Streaming, h novastream.Handle, count int, opt novastream.AttachOption) ([]time.Duration, error) {
	times := make([]time.Duration, 0, count)
	for range count {
		start := time.Now()
		tx, err := novastream.Attach[Record](ctx, s, h, opt)
		if err != nil {
			return nil, err
		}
		times = append(times, time.Since(start))
		if err := tx.Detach(ctx); err != nil {
			return nil, err
		}
	}
	return times, nil
}

// spins tells whether a side that spins serves a lane: over those that need
// goroutines of the connection it would take the processor from them.
func spins(lane string) bool { return lane == "local" || lane == "shm" }
