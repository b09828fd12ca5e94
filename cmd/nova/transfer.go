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
	"os"
	"time"

	"github.com/novastream/novastream"
)

// A transfer's frames begin with one byte that tells what follows.
const (
	frameData = 'd' // bytes of the transfer
	frameSum  = 's' // SHA-256 of all of them: the last frame
	frameSize = 'n' // how many there will be, as text, if the sender knows
)

// chunk is how many bytes go into a frame.
const chunk = 64 << 10

type transferResult struct {
	Bytes   int64   `json:"bytes"`
	Seconds float64 `json:"seconds"`
	SHA256  string  `json:"sha256"`
	Lane    string  `json:"lane,omitempty"`
}

func (r transferResult) print(asJSON bool, verb string) error {
	if asJSON {
		return json.NewEncoder(os.Stderr).Encode(r)
	}
	rate := float64(r.Bytes) / max(r.Seconds, 1e-9) / 1e6
	fmt.Fprintf(os.Stderr, "%s %d bytes in %.2f s (%.0f MB/s), SHA-256 %s, the same on both sides\n", verb, r.Bytes, r.Seconds, rate, r.SHA256)
	return nil
}

type recvCmd struct {
	Output   string `short:"o" help:"Write to this file, which must not exist, instead of the standard output." placeholder:"FILE"`
	Listen   string `help:"Also listen on this TCP address, for senders on other hosts." placeholder:"ADDR"`
	Insecure bool   `help:"Allow TCP without TLS off loopback."`
}

// Run receives one transfer.
func (r recvCmd) Run(ctx context.Context, c *cli) (err error) {
	s, err := open(ctx, c.Dir, r.Listen, r.Insecure)
	if err != nil {
		return err
	}
	defer s.close()
	rx, err := novastream.CreateBytes(s.Streaming, novastream.AttachTimeout(0), novastream.Capacity(1<<16))
	if err != nil {
		return err
	}
	defer rx.Close()
	out := os.Stdout
	if r.Output != "" {
		if out, err = os.OpenFile(r.Output, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644); err != nil {
			return err
		}
		defer func() {
			if e := out.Close(); err == nil {
				err = e
			}
			if err != nil { // half a file would be taken for the whole
				os.Remove(r.Output)
			}
		}()
	}
	if c.JSON {
		_ = json.NewEncoder(os.Stderr).Encode(map[string]string{"handle": rx.Handle().String()})
	} else {
		fmt.Fprintf(os.Stderr, "waiting; on this machine:  nova send %v FILE\n", rx.Handle())
	}
	res, err := receive(ctx, rx, out, newProgress(c.JSON))
	if err != nil {
		return err
	}
	return res.print(c.JSON, "received")
}

// receive writes one transfer to out.
func receive(ctx context.Context, rx *novastream.BytesReceiver, out io.Writer, p *progress) (res transferResult, err error) {
	defer p.done()
	sum := sha256.New()
	start := time.Now()
	var compared bool
	for {
		loan, err := rx.Borrow(16)
		if err == nil {
			err = writeFrames(loan.Frames, out, sum, &res, &compared, p)
			loan.Release()
			if err != nil {
				return res, err
			}
			continue
		}
		if !errors.Is(err, novastream.ErrEmpty) {
			return res, err
		}
		f, err := rx.TryRecv(nil)
		switch {
		case errors.Is(err, novastream.ErrEmpty):
			if err := rx.Wait(ctx); err != nil {
				return res, err
			}
		case err != nil:
			return res, err
		case f.Kind == novastream.KindAttached:
			start = time.Now()
		case f.Kind == novastream.KindData:
			if err := writeFrames([]novastream.Frame[[]byte]{f}, out, sum, &res, &compared, p); err != nil {
				return res, err
			}
		case f.Kind == novastream.KindFinalized:
			if !compared {
				return res, errors.New("the sender ended without its checksum")
			}
			res.Seconds = time.Since(start).Seconds()
			return res, nil
		case f.Err != nil:
			return res, fmt.Errorf("after %d bytes: %v: %w", res.Bytes, f.Kind, f.Err)
		default:
			return res, fmt.Errorf("after %d bytes: the sender has left (%v)", res.Bytes, f.Kind)
		}
	}
}

func writeFrames(frames []novastream.Frame[[]byte], out io.Writer, sum hash.Hash, res *transferResult, compared *bool, p *progress) error {
	for _, f := range frames {
		if len(f.Value) == 0 {
			return errors.New("a frame without a kind: the sender is no nova send")
		}
		body := f.Value[1:]
		switch f.Value[0] {
		case frameSize:
			p.expect(string(body))
		case frameData:
			sum.Write(body)
			if _, err := out.Write(body); err != nil {
				return err
			}
			res.Bytes += int64(len(body))
			p.add(len(body))
		case frameSum:
			got := sum.Sum(nil)
			if !bytes.Equal(got, body) {
				return fmt.Errorf("SHA-256 differs: received %x, sent %x", got, body)
			}
			*compared = true
			res.SHA256 = hex.EncodeToString(got)
		default:
			return fmt.Errorf("a frame of kind %q: the sender is no nova send", f.Value[0])
		}
	}
	return nil
}

type sendCmd struct {
	Handle string `arg:"" help:"What nova recv has printed."`
	File   string `arg:"" help:"The file to send, - for the standard input."`
	Lane   string `help:"Use this lane: shm or tcp." placeholder:"LANE"`
}

// Run sends one transfer.
func (x sendCmd) Run(ctx context.Context, c *cli) error {
	h, err := novastream.ParseHandle(x.Handle)
	if err != nil {
		return err
	}
	in, size := os.Stdin, int64(-1)
	if x.File != "-" {
		if in, err = os.Open(x.File); err != nil {
			return err
		}
		defer in.Close()
		st, err := in.Stat()
		if err != nil {
			return err
		}
		if st.IsDir() {
			return fmt.Errorf("%s is a folder: send an archive of it: tar c %s | nova send %s -", x.File, x.File, x.Handle)
		}
		if st.Mode().IsRegular() {
			size = st.Size()
		}
	}
	s, err := open(ctx, c.Dir, "", false)
	if err != nil {
		return err
	}
	defer s.close()
	var opts []novastream.AttachOption
	if x.Lane != "" {
		opts = append(opts, novastream.Lanes(novastream.Lane(x.Lane)))
	}
	tx, err := novastream.AttachBytes(ctx, s.Streaming, h, opts...)
	if err != nil {
		return err
	}
	defer tx.Close()
	res, err := send(ctx, tx, in, size, newProgress(c.JSON))
	if err != nil {
		return err
	}
	return res.print(c.JSON, "sent")
}

// send reads in to its end, straight into the ring.
func send(ctx context.Context, tx *novastream.BytesSender, in io.Reader, size int64, p *progress) (res transferResult, err error) {
	defer p.done()
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
		b, err := reserve(ctx, tx, most+1)
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
	if err := tx.Send(ctx, append([]byte{frameSum}, digest...)); err != nil {
		return res, err
	}
	err = tx.Finalize(ctx)
	res.Seconds = time.Since(start).Seconds()
	return res, err
}

// reserve is Reserve that waits.
func reserve(ctx context.Context, tx *novastream.BytesSender, n int) ([]byte, error) {
	for {
		b, err := tx.Reserve(n)
		if !errors.Is(err, novastream.ErrFull) {
			return b, err
		}
		if err := tx.Wait(ctx, n); err != nil {
			return nil, err
		}
	}
}
