package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"time"

	"github.com/novastream/novastream"
	"github.com/novastream/novastream/control"
)

// session is a node that streams.
type session struct {
	node *control.Node
	*novastream.Streaming
}

// open starts a node with a Unix socket, and with a TCP server if addr is set.
func open(ctx context.Context, dir, addr string, insecure bool, more ...novastream.Option) (*session, error) {
	opts := []control.Option{control.WithLogger(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})))}
	if dir != "" {
		opts = append(opts, control.WithDir(dir))
	}
	if addr != "" {
		opts = append(opts, control.WithTCP(addr))
	}
	if insecure {
		opts = append(opts, control.Insecure())
	}
	n, err := control.Listen(ctx, opts...)
	if err != nil {
		return nil, err
	}
	s, err := novastream.New(n, more...)
	if err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return &session{n, s}, nil
}

// closeTime bounds how long the last messages may take to leave.
const closeTime = time.Second

// close ends the node behind what it has said: over TCP a sender may still be
// on its way to hear that everything has arrived.
func (s *session) close() {
	s.Streaming.Close()
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	_ = s.node.Shutdown(ctx)
}
