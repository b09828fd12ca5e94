package rdma

import "context"

// CQ is a completion queue, which many queue pairs may share. One goroutine calls
// Wait; another may call Poll meanwhile, one at a time.
type CQ interface {
	// Poll moves completions into dst, as many as there are and fit, and returns
	// how many; it never blocks, and crosses to C at most once. ErrOverflow, when
	// all that was in the queue has been taken; ErrClosed.
	Poll(dst []Completion) (int, error)
	// Wait returns nil as soon as Poll may have something to give, at once when that
	// is so already: a completion that came between the last Poll and Wait is never
	// slept over. It may return without reason. It sleeps in Go's netpoller, with
	// no thread of its own. The context's cause when that ends; ErrClosed.
	Wait(ctx context.Context) error
	// Close closes the queue pairs that use the queue, and then the queue.
	Close() error
}

// Completion tells that a work request is done, and with it all before it in its
// queue. It holds no pointer and its layout is fixed, so that a batch of them can
// be filled by C.
type Completion struct {
	ID     uint64 // of the work request
	QP     uint32 // its queue pair's Num
	Bytes  uint32 // received: OpRecv, OpRecvWrite
	Imm    uint32 // when HasImm
	Op     Op     // unspecified unless Status is Success; of an OpWriteImm it may be OpWrite
	Status Status
	HasImm bool
	_      byte
}
