package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/novastream/novastream"
)

// A transfer's frames begin with one byte that tells what follows. When the
// receiver has compared the checksum and written everything, it cancels the
// stream with a confirmation as the reason; any other end is a failure.
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

// confirmation is what the receiver ends a transfer with that is whole.
func confirmation(sum string) string { return "received " + sum }

// print tells the result: text on text, JSON on data.
func (r transferResult) print(asJSON bool, verb string, text, data io.Writer) error {
	if asJSON {
		return json.NewEncoder(data).Encode(r)
	}
	rate := float64(r.Bytes) / max(r.Seconds, 1e-9) / 1e6
	_, err := fmt.Fprintf(text, "%s %d bytes in %.2f s (%.0f MB/s), SHA-256 %s, the same on both sides\n", verb, r.Bytes, r.Seconds, rate, r.SHA256)
	return err
}

// interruptible runs fn, and does not wait for it any more when ctx ends: it may
// hang in a read or a write that nothing else ends.
func interruptible(ctx context.Context, fn func() (transferResult, error)) (res transferResult, err error) {
	done := make(chan struct{})
	var got transferResult
	var failed error
	go func() {
		defer close(done)
		got, failed = fn()
	}()
	select {
	case <-done:
		return got, failed
	case <-ctx.Done():
		return res, context.Cause(ctx)
	}
}

// lanes makes the option that a --lane flag asks for.
func lanes(flag string) []novastream.EndOption {
	if flag == "" {
		return nil
	}
	return []novastream.EndOption{novastream.Lanes(novastream.Lane(flag))}
}

// within bounds a context, for a positive d.
func within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if d <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, d)
}
