// Package cgo is the C of the library: include/nova_ring.h, by which other
// languages join a ring. It has no Go code of its own but the tests that
// compare the header with package ring and exchange frames with a C program.
package cgo
