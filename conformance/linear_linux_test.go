package conformance

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/novastream/novastream"
)

func init() { programs["historian"] = historian }

// attempt is one TrySend as its caller has seen it: begun at a time, ended at one, with
// what outcome. It lies in a file that outlives the caller, who may be killed within.
type attempt struct {
	value, begun, ended, outcome uint64
}

const (
	sent = 1
	full = 2
)

// now is a clock that all processes share.
func now() uint64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return uint64(ts.Nano())
}

// try sends values, which carry the sender's number, until all of log is used or as
// many were sent as are wanted.
func try(tx interface{ TrySend(*Rec) error }, who, want uint64, log []attempt) error {
	for n, i := uint64(0), 0; i < len(log) && n < want; i++ {
		a := &log[i]
		a.value = who<<32 | n
		v := MakeRec(a.value)
		a.begun = now()
		err := tx.TrySend(&v)
		switch {
		case err == nil:
			a.outcome = sent
			n++
		case errors.Is(err, novastream.ErrFull):
			a.outcome = full
		default:
			return err
		}
		a.ended = now()
		if a.outcome == full {
			runtime.Gosched()
		}
	}
	return nil
}

// historian is a program: HANDLE FILE WHO WANT. It sends, and keeps its history in the
// file.
func historian(p *program) error {
	log, err := openLog(os.Args[2])
	if err != nil {
		return err
	}
	tx, err := p.attach()
	if err != nil {
		return err
	}
	fmt.Println("attached")
	p.wait()
	if err := try(tx, arg(3), arg(4), log); err != nil {
		return err
	}
	return tx.Finalize(p.ctx)
}

func openLog(path string) ([]attempt, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	return unsafe.Slice((*attempt)(unsafe.Pointer(unsafe.SliceData(mem))), len(mem)/int(unsafe.Sizeof(attempt{}))), nil
}

// act is one operation of a history: a send of a value, or the receipt of one.
type act struct {
	recv    bool
	value   uint64
	outcome uint64 // of a send; 0 for one whose caller was killed within
}

// queue is what a stream is: what was sent, in one order that every caller's own time
// agrees with, comes out in that order. The state is the values inside, first one first.
//
// That there is nothing to receive proves nothing, and is no operation: a commit may
// still be in its processor's store buffer when its call has returned. That there is no
// room proves that there was little: a receiver tells what it has read for each
// eighth of a ring.
func queue(capacity int) porcupine.Model {
	least := capacity - max(capacity/8, 1)
	model := porcupine.NondeterministicModel{
		Init: func() []any { return []any{""} },
		Step: func(state, input, _ any) []any {
			q, a := state.(string), input.(act)
			const width = 8
			switch {
			case a.recv && len(q) >= width && q[:width] == key(a.value):
				return []any{q[width:]}
			case a.recv:
				return nil
			case a.outcome == full && len(q)/width < least:
				return nil
			case a.outcome == full:
				return []any{q}
			case len(q)/width >= capacity:
				if a.outcome == 0 {
					return []any{q}
				}
				return nil
			case a.outcome == 0:
				return []any{q, q + key(a.value)}
			}
			return []any{q + key(a.value)}
		},
		Equal: func(a, b any) bool { return a == b },
	}
	return model.ToModel()
}

func key(v uint64) string {
	return string([]byte{byte(v >> 56), byte(v >> 48), byte(v >> 40), byte(v >> 32), byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
}

// TestLinearizable: what senders and receiver have seen of a stream, over rings of one
// sender and of several, in one process and in several, and with senders killed at any
// moment, has an order in which it is a queue.
func TestLinearizable(t *testing.T) {
	for _, l := range Lanes() {
		if l.Lane != novastream.LaneLocal && l.Lane != novastream.LaneShm {
			continue // what a network carries is checked by the same queue at its end
		}
		for _, kill := range []bool{false, true} {
			if kill && l.OneProcess {
				continue
			}
			name := l.Name
			if kill {
				name += " with kills"
			}
			t.Run(name, func(t *testing.T) {
				strict := !kill && !l.OneRing
				for round := range 12 {
					result := porcupine.Unknown // the search has found no end in its time
					var history []porcupine.Operation
					for try := 0; try < 5 && result == porcupine.Unknown; try++ {
						history = newEnv(t, l).record(round, kill, strict)
						result = porcupine.CheckOperationsTimeout(queue(linearSlots), history, 20*time.Second)
					}
					require.Equal(t, porcupine.Ok, result, "round %d: %v", round, history)
				}
			})
		}
	}
}

const linearSlots = 16

// record runs senders and a receiver, and answers what they have seen: of sends for which
// there was no room only if that proves something.
func (e *Env) record(round int, kill, strict bool) (history []porcupine.Operation) {
	senders, want := 1, uint64(60)
	if e.Lane.OneRing {
		senders, want = 3, 25
	}
	rx := e.Create(novastream.Capacity(linearSlots))
	logs := make([][]attempt, senders)
	done := make(chan error, senders)
	var children []*Child
	for i := range senders {
		if e.Lane.OneProcess {
			logs[i] = make([]attempt, 4000)
			tx := e.Attach(rx.Handle())
			go func() { done <- errors.Join(try(tx, uint64(i), want, logs[i]), tx.Finalize(e.Ctx)) }()
			continue
		}
		path := filepath.Join(e.Dir, fmt.Sprintf("history%d", i))
		require.NoError(e, os.WriteFile(path, make([]byte, 4000*unsafe.Sizeof(attempt{})), 0o600))
		var err error
		logs[i], err = openLog(path)
		require.NoError(e, err)
		c := e.Child("historian", rx.Handle().String(), path, fmt.Sprint(i), fmt.Sprint(want))
		require.Equal(e, "attached", c.Line())
		children = append(children, c)
	}
	for _, c := range children {
		c.Go()
	}
	after := -1 // how many values are received before one is killed
	if kill {
		after = round * 2
	}
	for ends, got := 0, 0; ends < senders; {
		begun := now()
		f, err := rx.TryRecv()
		ended := now()
		switch {
		case errors.Is(err, novastream.ErrEmpty):
			require.NoError(e, e.Ctx.Err())
			runtime.Gosched()
		case err != nil:
			require.NoError(e, err)
		case f.Kind == novastream.KindData:
			require.True(e, f.Value.Whole())
			history = append(history, porcupine.Operation{
				ClientId: senders, Input: act{recv: true, value: f.Value.Seq}, Call: int64(begun), Return: int64(ended)})
			got++
		case f.Kind != novastream.KindAttached:
			ends++
		}
		if got >= after && after >= 0 {
			after = -1
			children[0].Kill()
		}
	}
	for range senders - len(children) {
		require.NoError(e, <-done)
	}
	last := int64(now())
	for who, log := range logs {
		for _, a := range log {
			if a.begun == 0 {
				break
			}
			if a.outcome == full && !strict {
				continue // it fits everywhere, and would be tried everywhere
			}
			op := porcupine.Operation{ClientId: who, Input: act{value: a.value, outcome: a.outcome}, Call: int64(a.begun), Return: int64(a.ended)}
			if a.ended == 0 { // killed within: it may have happened at any time since
				op.Input, op.Return = act{value: a.value}, last
			}
			history = append(history, op)
		}
	}
	return history
}
