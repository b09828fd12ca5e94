// Package wire is the messages of the stream protocol, generated from
// stream.proto. It holds no behaviour.
package wire

//go:generate protoc --go_out=. --go_opt=paths=source_relative stream.proto
