package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/novastream/novastream"
	"github.com/novastream/novastream/control"
)

// request asks the worker to stream an answer.
type request struct {
	Prompt string            `json:"prompt"`
	Stream novastream.Handle `json:"stream"` // where the tokens are wanted
}

// stats is what the worker tells of itself.
type stats struct {
	Running int64 `json:"running"`
	Stopped int64 `json:"stopped"` // because the client went away
}

// between is how long the model thinks about a token.
const between = 2 * time.Millisecond

// worker serves requests until the context ends.
func worker(ctx context.Context, s *novastream.Streaming) error {
	var running, stopped atomic.Int64
	err := errors.Join(
		s.Node().Handle("generate", func(rctx context.Context, _ *control.Peer, msg control.Message) (control.Message, error) {
			var req request
			if err := json.Unmarshal(msg.Payload, &req); err != nil {
				return control.Message{}, err
			}
			tx, err := novastream.AttachBytes(rctx, s, req.Stream)
			if err != nil {
				return control.Message{}, err
			}
			running.Add(1)
			go func() { // the answer to the call is that it has begun
				defer running.Add(-1)
				defer tx.Close()
				if errors.Is(generate(ctx, tx, req.Prompt), novastream.ErrCancelled) {
					stopped.Add(1)
				}
			}()
			return control.Message{}, nil
		}),
		s.Node().Handle("stats", func(context.Context, *control.Peer, control.Message) (control.Message, error) {
			b, err := json.Marshal(stats{running.Load(), stopped.Load()})
			return control.Message{Payload: b}, err
		}),
	)
	if err != nil {
		return err
	}
	fmt.Println(s.Node().WorkerID())
	<-ctx.Done()
	return nil
}

// generate is the model: it says the prompt again and again, a word at a time.
func generate(ctx context.Context, tx *novastream.BytesSender, prompt string) error {
	words := strings.Fields(prompt)
	tick := time.NewTicker(between)
	defer tick.Stop()
	for i := range 20 * len(words) {
		select {
		case <-tick.C:
		case <-tx.Done(): // the client went away while the model was thinking
			return tx.Err()
		case <-ctx.Done():
			return tx.SoftError(context.Background(), errors.New("the worker shuts down"))
		}
		if err := tx.Send(ctx, []byte(words[i%len(words)])); err != nil {
			return err
		}
	}
	return tx.Finalize(ctx)
}
