// Command tokens shows a model's answers on their way to a browser: a worker
// process streams tokens to a front-end process, which serves them to HTTP
// clients as server-sent events. A client that goes away cancels its stream, and
// the worker stops at once.
//
//	tokens worker               # prints its worker id
//	tokens frontend WORKER      # prints the address that it serves
//	curl -N 'http://ADDRESS/generate?prompt=to+be+or+not+to+be'
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/novastream/novastream"
	"github.com/novastream/novastream/control"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "tokens:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 || args[0] == "frontend" && len(args) != 2 {
		return fmt.Errorf("usage: tokens worker, or tokens frontend WORKER")
	}
	node, err := control.Listen(ctx)
	if err != nil {
		return err
	}
	defer node.Close()
	s, err := novastream.New(node)
	if err != nil {
		return err
	}
	defer s.Close()
	switch args[0] {
	case "worker":
		return worker(ctx, s)
	case "frontend":
		return frontend(ctx, s, args[1])
	}
	return fmt.Errorf("no command %q: worker or frontend", args[0])
}
