package main

import (
	"context"
	"errors"
	"log/slog"
	"os"

	"github.com/novastream/novastream"
	"github.com/novastream/novastream/control"
)

// session is a node that streams.
type session struct {
	node *control.Node
	*novastream.Streaming
}

// open starts a node with a Unix socket, and with a TCP server if addr is set.
func open(ctx context.Context, dir, addr string, insecure bool) (*session, error) {
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
	s, err := novastream.New(n)
	if err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return &session{n, s}, nil
}

func (s *session) close() {
	s.Streaming.Close()
	s.node.Close()
}
