// Package torture is what `nova torture` does: it sends frames that check
// themselves over every lane, between processes that it kills, stops, disconnects
// and restarts at random, and judges by records of its own what arrived, how each
// stream ended, how soon that was noticed and what was left behind.
//
// The process that runs it is the survivor; the others are its children, this
// program again. An episode is a few streams between them and what happens to them,
// and follows from the seed, the lane and the episode's number alone (Plan). Senders
// and receivers keep their books in a Ledger, a file that all of them have mapped, so
// that a killed process's last word is known without the library. When an episode is
// over, judge compares the books.
//
// It is no benchmark, and it knows nothing of how a lane works: what it demands is
// what the documentation of package novastream promises.
package torture
