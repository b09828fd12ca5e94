package novastream

import "github.com/novastream/novastream/internal/handle"

// Handle names a stream: 16 bytes that travel in any message, file or line of
// text. It is comparable, marshals itself as text and as binary, and shows its
// parts in a slog record. The zero Handle names nothing.
//
// Whoever has the handle and can reach the worker's node can attach: hand it to
// those who may.
type Handle = handle.Handle

// ParseHandle reads what Handle.String gives. It answers ErrBadHandle with what
// is wrong.
func ParseHandle(s string) (Handle, error) { return handle.Parse(s) }
