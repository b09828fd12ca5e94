package soft

// served is the peer's connection, as the responder knows it.
type served struct{}

func (*served) interrupt() {}

func (d *Device) accept() {}

// dial connects to a responder of another process.
func (q *qp) dial() (link, reply, error) { return nil, reply{}, errUnreachable }
