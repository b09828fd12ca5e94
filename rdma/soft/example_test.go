package soft_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/novastream/novastream/rdma"
	"github.com/novastream/novastream/rdma/soft"
)

// pairOf makes two connected sides; the Addresses would travel by any message.
func pairOf(a, b rdma.Provider, opt rdma.ConnectOptions) (x, y side) {
	var err error
	if x, err = newSide(a, 4096); err != nil {
		log.Fatal(err)
	}
	if y, err = newSide(b, 4096); err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	if err := x.qp.Connect(ctx, y.qp.Address(), opt); err != nil {
		log.Fatal(err)
	}
	if err := y.qp.Connect(ctx, x.qp.Address(), opt); err != nil {
		log.Fatal(err)
	}
	return x, y
}

// complete takes one completion.
func complete(cq rdma.CQ) rdma.Completion {
	var c [1]rdma.Completion
	for {
		n, err := cq.Poll(c[:])
		if err != nil {
			log.Fatal(err)
		}
		if n == 1 {
			return c[0]
		}
		if err := cq.Wait(context.Background()); err != nil {
			log.Fatal(err)
		}
	}
}

func Example() {
	p, err := rdma.Lookup("soft")
	if err != nil {
		log.Fatal(err)
	}
	a, b := pairOf(p, p, rdma.ConnectOptions{})
	defer a.dev.Close()
	defer b.dev.Close()

	// b waits for an announcement; a writes into b's region and announces it.
	if _, err := b.qp.PostRecv([]rdma.RecvWR{{ID: 1}}); err != nil {
		log.Fatal(err)
	}
	n := copy(a.mem.Bytes(), "hello")
	if _, err := a.qp.PostSend([]rdma.SendWR{{
		Op: rdma.OpWriteImm, Flags: rdma.Signaled, Imm: 7,
		Local: rdma.SegmentOf(a.mem, 0, n), Remote: b.mem.Addr(), RKey: b.mem.RKey(),
	}}); err != nil {
		log.Fatal(err)
	}
	got := complete(b.cq)
	fmt.Println(got.Op, got.Imm, string(b.mem.Bytes()[:got.Bytes]))
	fmt.Println(complete(a.cq).Status)
	// Output:
	// RECV_RDMA_WITH_IMM 7 hello
	// success
}

func ExampleDevice_Cut() {
	a, b := pairOf(soft.New(), soft.New(), rdma.ConnectOptions{Timeout: 5 * time.Millisecond, RetryCount: 3})
	defer a.dev.Close()
	defer b.dev.Close()

	b.dev.(*soft.Device).Cut(0)
	if _, err := a.qp.PostSend([]rdma.SendWR{{Op: rdma.OpWrite, Flags: rdma.Signaled}}); err != nil {
		log.Fatal(err)
	}
	fmt.Println(complete(a.cq).Status.Err())
	fmt.Println(a.qp.State())
	// Output:
	// rdma: remote does not answer
	// Error
}
