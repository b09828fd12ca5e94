package control

import (
	"fmt"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/novastream/novastream/control/internal/controlpb"
)

// codecName is the content subtype of Nova's streams. A server picks the codec
// by it, so that a user's own server needs no option for Nova.
const codecName = "nova-control"

func init() { encoding.RegisterCodecV2(codec{}) }

// bulkFrame is a message of the bulk stream: the handler's name after one byte
// of its length, and the payload, in one buffer.
type bulkFrame struct {
	name    string
	payload []byte
	buf     mem.Buffer // holds name and payload of a frame that was received
}

// codec writes envelopes as protobuf, and bulk frames with one copy out of the
// caller's memory.
type codec struct{}

func (codec) Name() string { return codecName }

func (codec) Marshal(v any) (mem.BufferSlice, error) {
	switch v := v.(type) {
	case *controlpb.Envelope:
		b, err := proto.Marshal(v)
		return mem.BufferSlice{mem.SliceBuffer(b)}, err
	case *bulkFrame:
		buf := bulkBuffers.Get(1 + len(v.name) + len(v.payload))
		(*buf)[0] = byte(len(v.name))
		copy((*buf)[1:], v.name)
		copy((*buf)[1+len(v.name):], v.payload)
		return mem.BufferSlice{mem.NewBuffer(buf, &bulkBuffers)}, nil
	}
	return nil, fmt.Errorf("control: codec of a %T", v)
}

func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	buf := data.MaterializeToBuffer(&bulkBuffers)
	switch v := v.(type) {
	case *controlpb.Envelope:
		defer buf.Free()
		if err := proto.Unmarshal(buf.ReadOnlyData(), v); err != nil {
			return fmt.Errorf("%w: %w", ErrMalformed, err)
		}
		return nil
	case *bulkFrame:
		b := buf.ReadOnlyData()
		if len(b) < 1 || len(b) < 1+int(b[0]) {
			buf.Free()
			return fmt.Errorf("%w: bulk frame of %d bytes", ErrMalformed, len(b))
		}
		at := 1 + int(b[0])
		v.name, v.payload, v.buf = string(b[1:at]), b[at:], buf
		return nil
	}
	buf.Free()
	return fmt.Errorf("control: codec of a %T", v)
}
