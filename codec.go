package novastream

import (
	"encoding"
	"fmt"
	"reflect"

	"google.golang.org/protobuf/proto"

	"github.com/novastream/novastream/internal/fault"
	"github.com/novastream/novastream/internal/layout"
	"github.com/novastream/novastream/internal/stream"
)

// Codec makes bytes of values and values of bytes. Its methods are called by
// one goroutine at a time for each end of a stream.
//
// Without WithCodec the payload type decides:
//   - a type without pointers lies in the ring as it is, and needs no codec; its
//     layout is compared at attach
//   - []byte and string are their bytes
//   - proto.Message is marshalled as protobuf
//   - encoding.BinaryAppender or BinaryMarshaler, with BinaryUnmarshaler, are
//     called
type Codec[T any] interface {
	// Name tells both ends that they mean the same.
	Name() string
	// Append appends the value's bytes to dst, which lies in the ring when they
	// fit in what it has room for.
	Append(dst []byte, v T) ([]byte, error)
	// Decode makes *v of the bytes. They are a copy, which nobody changes during
	// the call, whatever the sender does to the ring, and must not be kept.
	Decode(b []byte, v *T) error
}

// payloadOf tells how values of T travel: in place, with a nil codec, or by a
// codec.
func payloadOf[T any](set any) (stream.Payload, Codec[T], error) {
	t := reflect.TypeFor[T]()
	p := stream.Payload{Type: t.String()}
	if set != nil {
		c, ok := set.(Codec[T])
		if !ok {
			return p, nil, fmt.Errorf("%w: WithCodec was given a %T, which is no Codec[%v]", fault.ErrConfig, set, t)
		}
		p.Codec = c.Name()
		return p, c, nil
	}
	if c := codecOf[T](t); c != nil {
		p.Codec = c.Name()
		return p, c, nil
	}
	print, err := layout.Fingerprint(t)
	if err != nil {
		return p, nil, fmt.Errorf("%w: %v: %w; give it a codec with WithCodec, or let it implement encoding.BinaryAppender and encoding.BinaryUnmarshaler", fault.ErrConfig, t, err)
	}
	p.Codec, p.Size, p.Fingerprint = "fixed", int(t.Size()), print
	return p, nil, nil
}

var (
	protoMessage = reflect.TypeFor[proto.Message]()
	appender     = reflect.TypeFor[encoding.BinaryAppender]()
	marshaler    = reflect.TypeFor[encoding.BinaryMarshaler]()
	unmarshaler  = reflect.TypeFor[encoding.BinaryUnmarshaler]()
)

func codecOf[T any](t reflect.Type) Codec[T] {
	switch {
	case t == reflect.TypeFor[[]byte]():
		return any(bytesCodec{}).(Codec[T])
	case t == reflect.TypeFor[string]():
		return any(stringCodec{}).(Codec[T])
	case t.Implements(protoMessage) && t.Kind() == reflect.Pointer:
		return protoCodec[T]{elem: t.Elem(), name: "proto:" + string(reflect.New(t.Elem()).Interface().(proto.Message).ProtoReflect().Descriptor().FullName())}
	case t.Kind() == reflect.Pointer && writes(t) && t.Implements(unmarshaler):
		return &binaryCodec[T]{name: "binary:" + t.Elem().Name(), elem: t.Elem()}
	case writes(reflect.PointerTo(t)) && reflect.PointerTo(t).Implements(unmarshaler):
		return &binaryCodec[T]{name: "binary:" + t.Name()}
	}
	return nil
}

func writes(t reflect.Type) bool { return t.Implements(appender) || t.Implements(marshaler) }

type bytesCodec struct{}

func (bytesCodec) Name() string                                { return "bytes" }
func (bytesCodec) Append(dst []byte, v []byte) ([]byte, error) { return append(dst, v...), nil }
func (bytesCodec) Decode(b []byte, v *[]byte) error {
	*v = append(make([]byte, 0, len(b)), b...)
	return nil
}

type stringCodec struct{}

func (stringCodec) Name() string                                { return "bytes" }
func (stringCodec) Append(dst []byte, v string) ([]byte, error) { return append(dst, v...), nil }
func (stringCodec) Decode(b []byte, v *string) error            { *v = string(b); return nil }

// protoCodec marshals a T that is a pointer to a message.
type protoCodec[T any] struct {
	elem reflect.Type
	name string
}

func (c protoCodec[T]) Name() string { return c.name }

func (protoCodec[T]) Append(dst []byte, v T) ([]byte, error) {
	return proto.MarshalOptions{}.MarshalAppend(dst, any(v).(proto.Message))
}

// Decode reuses the message that *v points to, if it points to one.
func (c protoCodec[T]) Decode(b []byte, v *T) error {
	m, _ := any(*v).(proto.Message)
	if m == nil || !m.ProtoReflect().IsValid() {
		*v = reflect.New(c.elem).Interface().(T)
		m = any(*v).(proto.Message)
	}
	return proto.Unmarshal(b, m)
}

// binaryCodec calls the value's own methods, through a copy of its own: a value
// that were put into an interface would be allocated each time. Elem is set when
// T is a pointer.
type binaryCodec[T any] struct {
	name  string
	elem  reflect.Type
	value T
}

func (c *binaryCodec[T]) Name() string { return c.name }

func (c *binaryCodec[T]) Append(dst []byte, v T) ([]byte, error) {
	var methods any = &c.value
	if c.elem != nil {
		methods = v
	}
	c.value = v
	if a, ok := methods.(encoding.BinaryAppender); ok {
		return a.AppendBinary(dst)
	}
	b, err := methods.(encoding.BinaryMarshaler).MarshalBinary()
	return append(dst, b...), err
}

func (c *binaryCodec[T]) Decode(b []byte, v *T) error {
	if c.elem == nil {
		return any(v).(encoding.BinaryUnmarshaler).UnmarshalBinary(b)
	}
	if reflect.ValueOf(*v).IsNil() {
		*v = reflect.New(c.elem).Interface().(T)
	}
	return any(*v).(encoding.BinaryUnmarshaler).UnmarshalBinary(b)
}
