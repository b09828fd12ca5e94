package control_test

import (
	"context"
	"fmt"
	"log"
	"net"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/novastream/novastream/control"
)

// two makes two nodes that find each other by a directory.
func two() (a, b *control.Node, stop func()) {
	dir, err := os.MkdirTemp("", "nova")
	if err != nil {
		log.Fatal(err)
	}
	nodes := [2]*control.Node{}
	for i := range nodes {
		if nodes[i], err = control.Listen(context.Background(), control.WithDir(dir)); err != nil {
			log.Fatal(err)
		}
	}
	return nodes[0], nodes[1], func() {
		nodes[0].Close()
		nodes[1].Close()
		os.RemoveAll(dir)
	}
}

func ExampleHandleUnary() {
	ctx := context.Background()
	server, client, stop := two()
	defer stop()
	err := control.HandleUnary(server, "length", func(_ context.Context, _ *control.Peer, s *wrapperspb.StringValue) (*wrapperspb.Int64Value, error) {
		return wrapperspb.Int64(int64(len(s.Value))), nil
	})
	if err != nil {
		log.Fatal(err)
	}
	peer, err := client.Peer(ctx, server.WorkerID())
	if err != nil {
		log.Fatal(err)
	}
	n, err := control.CallUnary[*wrapperspb.StringValue, *wrapperspb.Int64Value](ctx, peer, "length", wrapperspb.String("nova"))
	fmt.Println(n.GetValue(), err)
	// Output: 4 <nil>
}

func ExampleNode_HandleAM() {
	ctx := context.Background()
	server, client, stop := two()
	defer stop()
	said := make(chan string)
	err := server.HandleAM("say", func(_ context.Context, _ *control.Peer, m control.Message) {
		said <- string(m.Payload)
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := client.Send(ctx, server.WorkerID(), "say", control.Message{Payload: []byte("fire and forget")}); err != nil {
		log.Fatal(err)
	}
	fmt.Println(<-said)
	// Output: fire and forget
}

// A service that has a gRPC server lets nodes of other hosts reach it there.
func ExampleNode_Register() {
	ctx := context.Background()
	server, err := control.Listen(ctx, control.WithoutUnix())
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()
	own := grpc.NewServer()
	server.Register(own)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go own.Serve(l)
	defer own.Stop()
	_ = server.Handle("ping", func(context.Context, *control.Peer, control.Message) (control.Message, error) {
		return control.Message{Payload: []byte("pong")}, nil
	})

	entry := server.Entry()
	entry.TCP = l.Addr().String()
	client, err := control.Listen(ctx, control.WithoutUnix(), control.WithDiscovery(control.Static(entry)))
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	m, err := client.Call(ctx, server.WorkerID(), "ping", control.Message{})
	fmt.Println(string(m.Payload), err)
	// Output: pong <nil>
}
