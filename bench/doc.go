// Package bench measures the library between two processes, paired at a fine
// grain with C programs of the same ring (package limit): line round trip, C,
// ours, C, line round trip, each for a tenth of a second, several times. A pair
// whose two line round trips differ was measured on two placements of the
// machine's cores, and is dropped. Each benchmark prints the medians of both and
// of their ratio, by the placement that most pairs had.
//
//	go test -run '^$' -bench . -benchtime 1x ./bench
package bench
