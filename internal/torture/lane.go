package torture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/novastream/novastream"
	"github.com/novastream/novastream/control"
)

// Lane is a way for frames to go, with what a torture must know of it.
type Lane struct {
	Name string
	lane novastream.Lane
	// oneRing says that the senders of a stream share a ring.
	oneRing bool
	// local says that both ends are in one process, of which no part can be killed.
	local bool
	// carried says that frames are carried from a memory that dies with the sender:
	// the last ones may die with it.
	carried bool
	// share is the lane's part of the kills and of the time.
	share int
}

// Lanes are all of them.
var Lanes = []*Lane{
	{Name: "local", lane: novastream.LaneLocal, local: true, share: 1},
	{Name: "local-onering", lane: novastream.LaneLocal, local: true, oneRing: true, share: 1},
	{Name: "shm", lane: novastream.LaneShm, share: 6},
	{Name: "shm-onering", lane: novastream.LaneShm, oneRing: true, share: 6},
	{Name: "tcp", lane: novastream.LaneTCP, carried: true, share: 4},
	{Name: "rdma-soft", lane: novastream.LaneRDMA, carried: true, share: 4},
}

// Named finds a lane.
func Named(name string) (*Lane, error) {
	for _, l := range Lanes {
		if l.Name == name {
			return l, nil
		}
	}
	return nil, fmt.Errorf("no lane %q", name)
}

// node is a node that streams over one lane.
type node struct {
	*control.Node
	*novastream.Streaming
}

func (l *Lane) open(ctx context.Context, dir string) (*node, error) {
	opts := []control.Option{control.WithDir(dir), control.WithLogger(slog.New(slog.NewTextHandler(io.Discard, nil)))}
	var more []novastream.Option
	if l.carried { // as if on different hosts
		opts = append(opts, control.WithoutUnix(), control.WithTCP("127.0.0.1:0"))
	}
	if l.lane == novastream.LaneRDMA {
		more = append(more, novastream.RDMA("soft", ""))
	}
	n, err := control.Listen(ctx, opts...)
	if err != nil {
		return nil, err
	}
	s, err := novastream.New(n, more...)
	if err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return &node{n, s}, nil
}

func (n *node) close() {
	n.Streaming.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = n.Node.Shutdown(ctx)
}
