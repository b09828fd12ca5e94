package control

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"
)

// HandleUnary registers a handler of protobuf messages; Req and Resp are
// pointers to generated messages.
func HandleUnary[Req, Resp proto.Message](n *Node, name string, h func(ctx context.Context, from *Peer, req Req) (Resp, error)) error {
	return n.Handle(name, func(ctx context.Context, from *Peer, msg Message) (Message, error) {
		closeFDs(msg.FDs)
		var zero Req
		req := zero.ProtoReflect().New().Interface().(Req)
		if err := proto.Unmarshal(msg.Payload, req); err != nil {
			return Message{}, fmt.Errorf("%w: request of %q: %w", ErrMalformed, name, err)
		}
		resp, err := h(ctx, from, req)
		if err != nil {
			return Message{}, err
		}
		b, err := proto.Marshal(resp)
		return Message{Payload: b}, err
	})
}

// CallUnary calls a handler of protobuf messages.
func CallUnary[Req, Resp proto.Message](ctx context.Context, p *Peer, name string, req Req) (Resp, error) {
	var zero Resp
	b, err := proto.Marshal(req)
	if err != nil {
		return zero, fmt.Errorf("control: request of %q: %w", name, err)
	}
	msg, err := p.Call(ctx, name, Message{Payload: b})
	if err != nil {
		return zero, err
	}
	closeFDs(msg.FDs)
	resp := zero.ProtoReflect().New().Interface().(Resp)
	if err := proto.Unmarshal(msg.Payload, resp); err != nil {
		return zero, fmt.Errorf("%w: answer of %q: %w", ErrMalformed, name, err)
	}
	return resp, nil
}
