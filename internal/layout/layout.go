// Package layout tells whether values of a type can lie in shared memory as
// they are, and gives the layout of such a type a fingerprint by which two
// processes find out, before the first frame, whether they mean the same.
package layout

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/zeebo/xxh3"
)

// ErrPointers is a type that holds pointers, or a size that a frame cannot have.
var ErrPointers = errors.New("layout: not a fixed-size type without pointers")

// Of describes a type without pointers: its fields in order, by name, kind,
// offset and size, down to the elements; names of types do not count.
func Of(t reflect.Type) (string, error) {
	var b strings.Builder
	if err := describe(&b, t, t.String()); err != nil {
		return "", err
	}
	if t.Size() == 0 {
		return "", fmt.Errorf("%w: %v has no bytes", ErrPointers, t)
	}
	return b.String(), nil
}

// Fingerprint is a hash of what Of says.
func Fingerprint(t reflect.Type) (uint64, error) {
	s, err := Of(t)
	if err != nil {
		return 0, err
	}
	return xxh3.HashString(s), nil
}

func describe(b *strings.Builder, t reflect.Type, path string) error {
	switch k := t.Kind(); k {
	case reflect.Bool, reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64,
		reflect.Float32, reflect.Float64, reflect.Complex64, reflect.Complex128:
		fmt.Fprintf(b, "%v:%d", k, t.Size())
		return nil
	case reflect.Array:
		fmt.Fprintf(b, "[%d]", t.Len())
		return describe(b, t.Elem(), path+"[]")
	case reflect.Struct:
		fmt.Fprintf(b, "{")
		for i := range t.NumField() {
			f := t.Field(i)
			fmt.Fprintf(b, "%s@%d ", f.Name, f.Offset)
			if err := describe(b, f.Type, path+"."+f.Name); err != nil {
				return err
			}
			b.WriteByte(';')
		}
		fmt.Fprintf(b, "}:%d", t.Size())
		return nil
	default:
		return fmt.Errorf("%w: %s is a %v", ErrPointers, path, k)
	}
}
