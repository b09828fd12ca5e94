package bench

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/novastream/novastream"
	"github.com/novastream/novastream/control"
)

const childEnv = "NOVA_BENCH_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		if err := child(dir); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// job is what the sending process is asked to do.
type job struct {
	Mode   string // slots, reserve, batch, put, bytes, echo, attach, drop, flood, die, receive, idle, carry, across
	Handle string
	Value  int // bytes of a value or frame
	MS     int
	Wait   novastream.Strategy
	Lane   novastream.Lane // "": the best
	CPU    int             // of the echo
	// Of mode carry.
	Payload    string
	Compressor novastream.Compressor
}

type answer struct {
	Handle string
	Times  []time.Duration
	Error  string
	Stats  novastream.SenderStats
	At     netip.AddrPort
}

func streaming(dir string) (*novastream.Streaming, error) {
	n, err := control.Listen(context.Background(), control.WithDir(dir), control.WithTCP("127.0.0.1:0"))
	if err != nil {
		return nil, err
	}
	return novastream.New(n, novastream.RDMA(rdmaProvider(), os.Getenv(deviceEnv)))
}

// rdmaProvider is by whose devices the lane rdma is measured: $NOVA_RDMA_PROVIDER,
// or soft.
func rdmaProvider() string { return cmp.Or(os.Getenv("NOVA_RDMA_PROVIDER"), "soft") }

// lanes are the lanes of a job.
func (j job) lanes() novastream.EndOption { return onLane(j.Lane) }

func onLane(l novastream.Lane) novastream.EndOption {
	if l == "" {
		return novastream.Lanes(novastream.LaneShm)
	}
	return novastream.Lanes(l)
}

// child is the sending process: it does the jobs that come on its input.
func child(dir string) error {
	s, err := streaming(dir)
	if err != nil {
		return err
	}
	if sent, err = counter(dir); err != nil {
		return err
	}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var j job
		if err := json.Unmarshal(in.Bytes(), &j); err != nil {
			return err
		}
		var a answer
		if err := j.do(s, &a); err != nil {
			a.Error = err.Error()
		}
		b, _ := json.Marshal(a)
		fmt.Println(string(b))
	}
	return in.Err()
}

// more is what further modes do, of files that not every system has.
var more = map[string]func(*novastream.Streaming, job, *answer) error{}

func (j job) do(s *novastream.Streaming, a *answer) error {
	if f := more[j.Mode]; f != nil {
		return f(s, j, a)
	}
	if j.Mode == "socket" {
		var err error
		a.Times, err = socketTrips(os.Getenv(childEnv), j.Value)
		return err
	}
	h, err := novastream.ParseHandle(j.Handle)
	if err != nil {
		return err
	}
	switch {
	case j.Mode == "bytes":
		return sendBytes(s, h, j)
	case j.Mode == "carry":
		return carry(s, h, j, a)
	case j.Mode == "across":
		return across(s, h, j, a)
	case j.Mode == "echo":
		return echo(s, h, j, a)
	case j.Mode == "attach" || j.Mode == "drop":
		return attach(s, h, j, a)
	case j.Mode == "flood":
		tx, err := novastream.Attach[v56](context.Background(), s, h)
		if err != nil {
			return err
		}
		go func() {
			for tx.Send(context.Background(), v56{}) == nil {
			}
		}()
		return nil
	case j.Mode == "idle":
		tx, err := novastream.Attach[v56](context.Background(), s, h, j.lanes())
		idle = append(idle, tx)
		return err
	case j.Value == 8:
		return sendValues[v8](s, h, j)
	case j.Value == 24:
		return sendValues[v24](s, h, j)
	case j.Value == 56:
		return sendValues[v56](s, h, j)
	}
	return errors.New("unknown job")
}

// sendValues dispatches to loops over concrete types: a method called through a
// type parameter is a call through a dictionary, which would be measured too.
func sendValues[T any](s *novastream.Streaming, h novastream.Handle, j job) error {
	ctx := context.Background()
	tx, err := novastream.Attach[T](ctx, s, h, novastream.Wait(novastream.Spin))
	if err != nil {
		return err
	}
	defer tx.Close()
	defer pin(1)()
	end := time.Now().Add(time.Duration(j.MS) * time.Millisecond)
	switch x := any(tx).(type) {
	case *novastream.Sender[v8]:
		slots8(x, end)
	case *novastream.Sender[v24]:
		slots24(x, end)
	case *novastream.Sender[v56]:
		switch j.Mode {
		case "slots":
			slots56(x, end)
		case "lag":
			lag56(x, end)
		case "reserve":
			reserve56(x, end)
		case "batch":
			batch56(x, end)
		case "put":
			put56(x, end)
		}
	}
	return tx.Finalize(ctx)
}

func slots8(tx *novastream.Sender[v8], end time.Time) {
	for i := uint64(0); time.Now().Before(end); {
		for range 256 {
			for p := range tx.Slots(64) {
				p.A = i
				i++
			}
		}
	}
}

func slots24(tx *novastream.Sender[v24], end time.Time) {
	for i := uint64(0); time.Now().Before(end); {
		for range 256 {
			for p := range tx.Slots(64) {
				p.A, p.B, p.C = i, i, i
				i++
			}
		}
	}
}

func slots56(tx *novastream.Sender[v56], end time.Time) {
	for i := uint64(0); time.Now().Before(end); {
		for range 256 {
			for p := range tx.Slots(64) {
				p.A, p.B, p.C, p.D, p.E, p.F, p.G = i, i, i, i, i, i, i
				i++
			}
		}
	}
}

func lag56(tx *novastream.Sender[v56], end time.Time) {
	for i := uint64(0); time.Now().Before(end); {
		for range 256 {
			for p := range tx.Slots(64) {
				p.A, p.B, p.C, p.D, p.E, p.F, p.G = i, i, i, i, i, i, i
				i++
			}
			sent.Store(i)
		}
	}
	sent.Store(^uint64(0))
}

func reserve56(tx *novastream.Sender[v56], end time.Time) {
	for i := uint64(0); time.Now().Before(end); {
		for range 4096 {
			p, err := tx.Reserve()
			if err != nil {
				continue
			}
			p.A, p.B, p.C, p.D, p.E, p.F, p.G = i, i, i, i, i, i, i
			i++
			_ = tx.Commit()
		}
	}
}

func batch56(tx *novastream.Sender[v56], end time.Time) {
	for i := uint64(0); time.Now().Before(end); {
		for range 256 {
			b, err := tx.ReserveBatch(32)
			if err != nil {
				continue
			}
			for k := range b.Len() {
				p := b.At(k)
				p.A, p.B, p.C, p.D, p.E, p.F, p.G = i, i, i, i, i, i, i
				i++
			}
			_ = b.Commit(b.Len())
		}
	}
}

func put56(tx *novastream.Sender[v56], end time.Time) {
	var v v56
	for i := uint64(0); time.Now().Before(end); {
		for range 4096 {
			v.A, v.B, v.C, v.D, v.E, v.F, v.G = i, i, i, i, i, i, i
			if tx.TrySend(&v) == nil {
				i++
			}
		}
	}
}

func sendBytes(s *novastream.Streaming, h novastream.Handle, j job) error {
	ctx := context.Background()
	tx, err := novastream.AttachBytes(ctx, s, h, novastream.Wait(novastream.Spin))
	if err != nil {
		return err
	}
	defer tx.Close()
	defer pin(1)()
	src, batch := make([]byte, j.Value), max(4, 64<<10/j.Value/16) // a look at the clock costs as much as a frame
	for end := time.Now().Add(time.Duration(j.MS) * time.Millisecond); time.Now().Before(end); {
		for range batch {
			if err := tx.TrySend(src); err != nil && !errors.Is(err, novastream.ErrFull) {
				return err
			}
		}
	}
	return tx.Finalize(ctx)
}

// echo sends back what comes, in a goroutine of its own.
func echo(s *novastream.Streaming, h novastream.Handle, j job, a *answer) error {
	ctx := context.Background()
	rx, err := novastream.Create[v56](s, novastream.Capacity(64), novastream.Wait(j.Wait))
	if err != nil {
		return err
	}
	tx, err := novastream.Attach[v56](ctx, s, h, novastream.Wait(j.Wait), j.lanes())
	if err != nil {
		return err
	}
	a.Handle = rx.Handle().String()
	go func() {
		if j.Lane == "" {
			defer pin(j.CPU)()
		}
		defer rx.Close()
		defer tx.Close()
		for {
			f, err := rx.Recv(ctx)
			if err != nil || f.Kind > novastream.KindAttached {
				return
			}
			if f.Kind == novastream.KindData && tx.Send(ctx, f.Value) != nil {
				return
			}
		}
	}()
	return nil
}

// attach times attaches, one after another. A session that is detached leaves its
// segment to the next; one that is dropped does not.
func attach(s *novastream.Streaming, h novastream.Handle, j job, a *answer) error {
	ctx := context.Background()
	for range j.Value {
		start := time.Now()
		tx, err := novastream.Attach[v56](ctx, s, h)
		if err != nil {
			return err
		}
		a.Times = append(a.Times, time.Since(start))
		if j.Mode == "drop" {
			err = tx.Close()
		} else {
			err = tx.Detach(ctx)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// sent is what lag56 has sent.
var sent *atomic.Uint64

// idle keeps the senders of idle streams.
var idle []*novastream.Sender[v56]
