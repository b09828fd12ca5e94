// Package controlpb is the messages between nodes, generated from
// control.proto. It holds no behaviour.
package controlpb

//go:generate protoc --go_out=. --go_opt=paths=source_relative control.proto
