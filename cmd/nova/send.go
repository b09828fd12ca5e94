package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/novastream/novastream"
)

type sendCmd struct {
	Handle   string        `arg:"" help:"What nova recv has printed."`
	File     string        `arg:"" help:"The file to send, - for the standard input."`
	Addr     string        `help:"Where the receiver listens, when it runs on another host (nova recv --listen)." placeholder:"HOST:PORT"`
	Insecure bool          `help:"Allow TCP without TLS off loopback."`
	Lane     string        `help:"Use this lane: shm or tcp." placeholder:"LANE"`
	Timeout  time.Duration `help:"Give up when the receiver cannot be reached for so long." default:"10s"`
}

// Run sends one transfer.
func (x sendCmd) Run(ctx context.Context, c *cli) error {
	h, err := novastream.ParseHandle(x.Handle)
	if err != nil {
		return err
	}
	in, size, err := x.input()
	if err != nil {
		return err
	}
	defer in.Close()
	s, err := open(ctx, c.Dir, "", x.Insecure)
	if err != nil {
		return err
	}
	defer s.close()
	tx, err := x.attach(ctx, s, h)
	if err != nil {
		return err
	}
	defer tx.Close()
	// The input may give nothing for ever: a receiver that goes is noticed all the same.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		<-tx.Done()
		select {
		case <-ctx.Done():
		case <-time.After(closeTime): // it hangs
			cancel(fmt.Errorf("the receiver has gone: %w", tx.Err()))
		}
	}()
	p := newProgress(c.JSON)
	defer p.done()
	res, err := interruptible(ctx, func() (transferResult, error) { return send(ctx, tx, in, size, p) })
	if err != nil {
		return err
	}
	p.done()
	return res.print(c.JSON, "sent", os.Stderr, os.Stdout)
}

// input opens what is to be sent; its size is -1 where that is not known.
func (x sendCmd) input() (*os.File, int64, error) {
	if x.File == "-" {
		return os.Stdin, -1, nil
	}
	in, err := os.Open(x.File)
	if err != nil {
		return nil, -1, err
	}
	st, err := in.Stat()
	switch {
	case err != nil:
	case st.IsDir():
		err = fmt.Errorf("%s is a folder: send an archive of it: tar c %s | nova send %s -", x.File, x.File, x.Handle)
	case st.Mode().IsRegular():
		return in, st.Size(), nil
	default:
		return in, -1, nil
	}
	in.Close()
	return nil, -1, err
}

func (x sendCmd) attach(ctx context.Context, s *session, h novastream.Handle) (*novastream.BytesSender, error) {
	ctx, cancel := within(ctx, x.Timeout)
	defer cancel()
	if x.Addr != "" {
		if _, err := s.node.Dial(ctx, x.Addr); err != nil {
			return nil, fmt.Errorf("--addr %s: %w", x.Addr, err)
		}
	}
	var opts []novastream.AttachOption
	for _, o := range lanes(x.Lane) {
		opts = append(opts, o)
	}
	tx, err := novastream.AttachBytes(ctx, s.Streaming, h, opts...)
	switch {
	case errors.Is(err, novastream.ErrLaneUnavailable) && x.Lane == string(novastream.LaneTCP):
		err = fmt.Errorf("%w: start the receiver with nova recv --lane tcp, or with --listen ADDR", err)
	case errors.Is(err, novastream.ErrNoSuchStream):
		err = fmt.Errorf("%w: does nova recv still run, as this user, with the same --dir? On another host give --addr", err)
	case errors.Is(err, novastream.ErrStaleHandle), errors.Is(err, novastream.ErrFinalized):
		err = fmt.Errorf("%w: a handle is good for one transfer: start nova recv again", err)
	}
	return tx, err
}

// send reads in to its end, straight into the ring.
func send(ctx context.Context, tx *novastream.BytesSender, in io.Reader, size int64, p *progress) (res transferResult, err error) {
	start := time.Now()
	res.Lane = string(tx.Lane())
	sum := sha256.New()
	if size >= 0 {
		n := fmt.Sprint(size)
		p.expect(n)
		if err := tx.Send(ctx, append([]byte{frameSize}, n...)); err != nil {
			return res, err
		}
	}
	most := min(chunk, tx.MaxFrame()/4)
	for {
		b, err := tx.ReserveWait(ctx, most+1)
		if err != nil {
			return res, err
		}
		b[0] = frameData
		n, err := io.ReadAtLeast(in, b[1:], 1)
		sum.Write(b[1 : 1+n])
		res.Bytes += int64(n)
		p.add(n)
		keep := 1 + n
		if n == 0 {
			keep = 0
		}
		if e := tx.Commit(keep); e != nil {
			return res, e
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return res, err
		}
	}
	digest := sum.Sum(nil)
	res.SHA256 = hex.EncodeToString(digest)
	err = tx.Send(ctx, append([]byte{frameSum}, digest...))
	if err == nil || errors.Is(err, novastream.ErrCancelled) { // it may be answered before Send is back
		err = confirmed(ctx, tx, res.SHA256)
	}
	res.Seconds = time.Since(start).Seconds()
	return res, err
}

// confirmed waits until the receiver says that it has everything.
func confirmed(ctx context.Context, tx *novastream.BytesSender, sum string) error {
	select {
	case <-tx.Done():
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	var said *novastream.CancelError
	if errors.As(tx.Err(), &said) && said.Reason == confirmation(sum) {
		return nil
	}
	return fmt.Errorf("the receiver does not confirm that it has everything: %w", tx.Err())
}
