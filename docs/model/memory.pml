/*
 * Memory with store buffers. A thread's store goes to its buffer and reaches
 * memory later, when Drain takes it there; its loads read memory at once. So a
 * load passes every earlier store of its own thread, as on x86 (TSO) and arm64.
 *
 * Without WEAK stores drain in order: TSO. With WEAK a plain store drains before
 * or after any other of its thread but those to the same word, a release store
 * only after all before it: what arm64 may do with STR and STLR. Loads stay in
 * order: each that matters is an acquire load.
 *
 * There is no forwarding from buffer to load. Each word has one writer, which
 * keeps a copy of its own, or is changed by read-modify-writes alone, which drain.
 *
 * A file defines T threads, W words, and K places a buffer before it includes this.
 */
typedef Buffer { byte n; byte at[K]; byte val[K]; bool rel[K] }
Buffer buf[T];
byte mem[W];
hidden byte ap;

inline apply(t, k) {
	mem[buf[t].at[k]] = buf[t].val[k];
	buf[t].n--;
	ap = k;
	do
	:: ap < buf[t].n ->
		buf[t].at[ap] = buf[t].at[ap + 1];
		buf[t].val[ap] = buf[t].val[ap + 1];
		buf[t].rel[ap] = buf[t].rel[ap + 1];
		ap++
	:: else -> break
	od;
	buf[t].at[buf[t].n] = 0;
	buf[t].val[buf[t].n] = 0;
	buf[t].rel[buf[t].n] = 0;
	ap = 0
}

inline push(t, w, x, r) {
	buf[t].at[buf[t].n] = w;
	buf[t].val[buf[t].n] = x;
	buf[t].rel[buf[t].n] = r;
	buf[t].n++
}

/* A full buffer makes a store wait. */
inline store(t, w, x)   { d_step { buf[t].n < K -> push(t, w, x, false) } }
inline release(t, w, x) { d_step { buf[t].n < K -> push(t, w, x, true) } }

/* Within a d_step: what a fence, a locked instruction or membarrier does to t. */
inline drained(t) {
	do
	:: buf[t].n > 0 -> apply(t, 0)
	:: else -> break
	od
}

proctype Drain(byte t) {
end:	do
	:: d_step { buf[t].n > 0 -> apply(t, 0) }
#ifdef WEAK
	:: d_step { buf[t].n > 1 && !buf[t].rel[1] && buf[t].at[1] != buf[t].at[0] -> apply(t, 1) }
	:: d_step { buf[t].n > 2 && !buf[t].rel[2] && buf[t].at[2] != buf[t].at[0] && buf[t].at[2] != buf[t].at[1] -> apply(t, 2) }
#endif
	od
}
