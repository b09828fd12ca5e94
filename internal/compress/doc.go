// Package compress makes the batches of a lane that crosses a network smaller:
// one at a time, each on its own, so that nothing is remembered from one to the
// next. The algorithms are those of klauspost/compress.
//
// A batch is one byte, which says how the rest is to be read (Algorithm), and
// the rest. What an algorithm does not make smaller travels as it is, so a batch
// grows by that byte at most.
//
// It knows nothing of frames, rings or connections, and does not negotiate:
// what both sides agreed to is given to it as a Set.
package compress
