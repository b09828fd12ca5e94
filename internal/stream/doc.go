// Package stream is the streams themselves, without their types: anchors, which
// receive, outlets, which send, the protocol by which they find each other, and
// what happens when either goes. The public package puts types on top and
// calls the rings directly on its fast paths.
//
// It knows lanes only by the interface in internal/lane, and nothing of how
// control messages travel.
package stream
