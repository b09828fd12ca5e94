package conformance

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/novastream/novastream"
)

// limited is a program: HANDLE. It lowers what it may hold, and meets each limit
// as a sender and as a receiver, while a stream that it has opened before goes
// on. It prints one line for each limit.
func limited(p *program) error {
	s, err := p.streaming()
	if err != nil {
		return err
	}
	h, err := novastream.ParseHandle(os.Args[1])
	if err != nil {
		return err
	}
	tx, err := novastream.Attach[Rec](p.ctx, s, h)
	if err != nil {
		return err
	}
	sent := uint64(0)
	flows := func() error { sent++; return tx.Send(p.ctx, MakeRec(sent-1)) }
	for _, meet := range []func(*program, *novastream.Streaming, novastream.Handle) error{descriptorLimit, memoryLimit} {
		err := meet(p, s, h)
		fmt.Println(errors.Is(err, novastream.ErrLimit), strings.ReplaceAll(fmt.Sprint(err), "\n", " "))
		for range 10 {
			if err := flows(); err != nil {
				return err
			}
		}
	}
	return tx.Finalize(p.ctx)
}

// descriptorLimit attaches until this process has no descriptor left.
func descriptorLimit(p *program, s *novastream.Streaming, h novastream.Handle) error {
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	defer lower(unix.RLIMIT_NOFILE, uint64(len(open)+7))()
	var all []*novastream.Sender[Rec]
	defer func() {
		for _, tx := range all {
			tx.Close()
		}
	}()
	for range 50 {
		tx, err := novastream.Attach[Rec](p.ctx, s, h)
		if err != nil {
			return err
		}
		all = append(all, tx)
	}
	return errors.New("there was no limit")
}

// memoryLimit makes streams until this process may map no more.
func memoryLimit(p *program, s *novastream.Streaming, _ novastream.Handle) error {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return err
	}
	pages, err := strconv.ParseUint(strings.Fields(string(b))[0], 10, 64)
	if err != nil {
		return err
	}
	defer lower(unix.RLIMIT_AS, pages*uint64(os.Getpagesize())+256<<20)()
	rx, err := novastream.Create[Rec](s, novastream.Capacity(1<<23))
	if err != nil {
		return err
	}
	defer rx.Close()
	tx, err := novastream.Attach[Rec](p.ctx, s, rx.Handle())
	if err != nil {
		return err
	}
	tx.Close()
	runtime.KeepAlive(rx)
	return errors.New("there was no limit")
}

// lower sets a limit, and answers what takes it back.
func lower(resource int, to uint64) func() {
	var old unix.Rlimit
	_ = unix.Getrlimit(resource, &old)
	_ = unix.Setrlimit(resource, &unix.Rlimit{Cur: to, Max: old.Max})
	return func() { _ = unix.Setrlimit(resource, &old) }
}
