package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/novastream/novastream"
)

type recvCmd struct {
	Output   string        `short:"o" help:"Write to this file, which must not exist, instead of the standard output." placeholder:"FILE"`
	Listen   string        `help:"Also listen on this TCP address, for senders on other hosts." placeholder:"ADDR"`
	Insecure bool          `help:"Allow TCP without TLS off loopback."`
	Lane     string        `help:"Take this lane only: shm or tcp." placeholder:"LANE"`
	Timeout  time.Duration `help:"Give up when no sender has come for so long; the default is never." placeholder:"30s"`
}

// Help is what `nova recv --help` adds.
func (recvCmd) Help() string {
	return "The handle and the result go to the standard error. With --json and -o they go to the standard output."
}

// Run receives one transfer.
func (r recvCmd) Run(ctx context.Context, c *cli) (err error) {
	if r.Timeout < 0 {
		return fmt.Errorf("--timeout %v: give a positive time, or none to wait for ever", r.Timeout)
	}
	if r.Lane == string(novastream.LaneTCP) && r.Listen == "" {
		r.Listen = "127.0.0.1:0"
	}
	s, err := open(ctx, c.Dir, r.Listen, r.Insecure)
	if err != nil {
		return err
	}
	defer s.close()
	opts := []novastream.CreateOption{novastream.AttachTimeout(r.Timeout), novastream.Capacity(1 << 16)}
	for _, o := range lanes(r.Lane) {
		opts = append(opts, o)
	}
	rx, err := novastream.CreateBytes(s.Streaming, opts...)
	if err != nil {
		return err
	}
	defer rx.Close()
	defer func() { // the sender learns what became of it
		if err != nil {
			_ = rx.Cancel(err.Error())
		}
	}()
	out, data := os.Stdout, os.Stderr
	if r.Output != "" {
		out, err = os.OpenFile(r.Output, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("%s exists: remove it, or give another name with -o", r.Output)
		}
		if err != nil {
			return err
		}
		data = os.Stdout
		defer func() {
			out.Close()
			if err != nil { // half a file would be taken for the whole
				os.Remove(r.Output)
			}
		}()
	}
	if err := r.announce(c, rx.Handle(), s.node.TCPAddr(), data); err != nil {
		return err
	}
	p := newProgress(c.JSON)
	defer p.done()
	res, err := interruptible(ctx, func() (transferResult, error) { return receive(ctx, rx, out, p) })
	if err != nil {
		return err
	}
	if r.Output != "" {
		if err := out.Close(); err != nil {
			return err
		}
	}
	if err := rx.Cancel(confirmation(res.SHA256)); err != nil {
		return err
	}
	p.done()
	return res.print(c.JSON, "received", os.Stderr, data)
}

// announce tells how to send.
func (r recvCmd) announce(c *cli, h novastream.Handle, addr string, data io.Writer) error {
	if c.JSON {
		return json.NewEncoder(data).Encode(struct {
			Handle novastream.Handle `json:"handle"`
			Addr   string            `json:"addr,omitempty"`
		}{h, addr})
	}
	dir := ""
	if c.Dir != os.Getenv("NOVA_RUNTIME_DIR") {
		dir = " --dir " + c.Dir
	}
	fmt.Fprintf(os.Stderr, "waiting; on this machine:  nova send%s %v FILE\n", dir, h)
	if addr != "" {
		insecure := ""
		if r.Insecure {
			insecure = " --insecure"
		}
		fmt.Fprintf(os.Stderr, "         on another host:  nova send --addr %s%s %v FILE\n", addr, insecure, h)
	}
	return nil
}

// incoming is a transfer that is being received.
type incoming struct {
	res   transferResult
	out   io.Writer
	sum   hash.Hash
	whole bool // and compared
	p     *progress
}

// receive writes one transfer to out.
func receive(ctx context.Context, rx *novastream.BytesReceiver, out io.Writer, p *progress) (transferResult, error) {
	in := &incoming{out: out, sum: sha256.New(), p: p}
	start := time.Now()
	for !in.whole {
		loan, err := rx.Borrow(16)
		if err == nil {
			err = in.frames(loan.Frames)
			loan.Release()
			if err != nil {
				return in.res, err
			}
			continue
		}
		if !errors.Is(err, novastream.ErrEmpty) {
			return in.res, err
		}
		f, err := rx.TryRecv(nil)
		switch {
		case errors.Is(err, novastream.ErrEmpty):
			if err := rx.Wait(ctx); err != nil {
				return in.res, err
			}
		case err != nil:
			return in.res, err
		case f.Kind == novastream.KindAttached:
			start = time.Now()
		case f.Kind == novastream.KindData:
			if err := in.frames([]novastream.Frame[[]byte]{f}); err != nil {
				return in.res, err
			}
		case f.Kind == novastream.KindFinalized:
			return in.res, errors.New("the sender ended without its checksum: it is no nova send")
		default:
			return in.res, in.broken(f)
		}
	}
	in.res.Seconds = time.Since(start).Seconds()
	return in.res, nil
}

// broken tells of an end that leaves the transfer in parts.
func (in *incoming) broken(f novastream.Frame[[]byte]) error {
	switch {
	case f.Kind == novastream.KindTimeout && f.Sender == 0:
		return fmt.Errorf("no sender has come: %w", f.Err)
	case f.Kind == novastream.KindDropped:
		return fmt.Errorf("the sender was killed or has failed, after %d bytes, which are not all: %v: %w", in.res.Bytes, f.Kind, f.Err)
	case f.Err != nil:
		return fmt.Errorf("after %d bytes, which are not all: %v: %w", in.res.Bytes, f.Kind, f.Err)
	}
	return fmt.Errorf("after %d bytes, which are not all: the sender has left (%v)", in.res.Bytes, f.Kind)
}

func (in *incoming) frames(frames []novastream.Frame[[]byte]) error {
	for _, f := range frames {
		if len(f.Value) == 0 {
			return errors.New("a frame without a kind: the sender is no nova send")
		}
		body := f.Value[1:]
		switch f.Value[0] {
		case frameSize:
			in.p.expect(string(body))
		case frameData:
			in.sum.Write(body)
			if _, err := in.out.Write(body); err != nil {
				return err
			}
			in.res.Bytes += int64(len(body))
			in.p.add(len(body))
		case frameSum:
			got := in.sum.Sum(nil)
			if !bytes.Equal(got, body) {
				return fmt.Errorf("SHA-256 differs: received %x, sent %x", got, body)
			}
			in.whole = true
			in.res.SHA256 = hex.EncodeToString(got)
		default:
			return fmt.Errorf("a frame of kind %q: the sender is no nova send", f.Value[0])
		}
	}
	return nil
}
