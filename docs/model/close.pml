/*
 * Closing an end from another goroutine: seal, barrier, marks of the cursor. The
 * owner of the end is in a call, or holds slots, or neither. The ring's memory is
 * touched only while it is mapped; it is released once the owner is out of it,
 * and always then; and the end that is left in the ring stands behind the last
 * frame that was committed, however the close and the commits fall.
 *
 * Broken variants: NO_BARRIER, NO_SECOND (barrier), MARK_LATE, SLOW_UNMARKED,
 * ABORT_ONCE, NO_SCAN, NO_MOVE.
 */
#ifndef CALLS
#define CALLS 2
#endif
#define T 2
#define K 4
#define O 0	/* the owner */
#define X 1	/* who closes */
#define POS     0	/* position << 2 | marks */
#define LIMIT   1	/* 0: sealed; atomic */
#define SEALED  2
#define ABORTED 3
#define FAILED  4
#define GUARD   5	/* closed for slow calls */
#define END     6	/* in the segment */
#define COMMIT(p) (7 + (p))
#define W       14
#include "memory.pml"

#define BUSY 1
#define LENT 2

bool mapped = true;
byte frames;		/* committed */
byte before;		/* of them when the close began */
bool holder;		/* slots are lent for good: their body has panicked */
bool ownerdone, closerdone;

#define touch assert(mapped)

/* sync/atomic: a store that drains. */
inline atomicstore(t, w, x) { skip; d_step { drained(t); mem[w] = x }; skip }
inline barrier()            { skip; d_step { drained(O); drained(X) }; skip }

/* Outlet.release: once, unless slots are lent. */
inline free() {
	do
	:: q = mem[POS];
		if
		:: q & LENT -> break
		:: !(q & LENT) && (q & BUSY)
		:: !(q & (LENT | BUSY)) -> mapped = false; break
		fi
	od
}

inline putcommit() {
	touch;
	d_step { buf[O].n < K -> push(O, COMMIT(pos), 1, true); frames++ };
	pos++
}

/* Producer.give, and Outlet.After when the session has failed. */
inline give(start) {
#ifdef MARK_LATE
	release(O, POS, pos << 2);
	touch;	/* the attention word */
#else
	touch;
#endif
#ifndef NO_MOVE
	q = mem[SEALED];
	if
	:: q -> q = mem[ABORTED]; if :: q -> touch; release(O, END, pos + 1) :: else fi
	:: else
	fi;
#endif
#ifndef MARK_LATE
	release(O, POS, pos << 2);
#endif
	q = mem[FAILED];
	if
	:: q ->
		q = mem[GUARD];
		if :: q -> mapped = false :: else fi	/* it sees its own cursor */
	:: else
	fi
}

proctype Owner() {
	byte pos, q, n, calls;
	do
	:: calls == CALLS -> break
	:: calls < CALLS ->
		calls++;
		release(O, POS, pos << 2 | BUSY);
		q = mem[LIMIT];
		if
		:: true ->	/* sealed or full: the slow half looks at head, if it may */
			release(O, POS, pos << 2);
#ifdef SLOW_UNMARKED
			q = mem[SEALED];
			if :: q -> break :: else fi;
			touch
#else
			release(O, POS, pos << 2 | BUSY);
			q = mem[SEALED];
			if
			:: q -> release(O, POS, pos << 2); break
			:: else -> touch; release(O, POS, pos << 2)
			fi
#endif
		:: q != 0 ->	/* Put */
			putcommit();
			touch;
			release(O, POS, pos << 2)
		:: q != 0 ->	/* Slots, Reserve and Commit: up to two frames, or a panic */
			release(O, POS, pos << 2 | LENT);
			n = 0;
			do
			:: n < 2 -> n++; putcommit()
			:: holder = true; goto over
			:: give(pos); break
			od
		fi
	od;
over:	ownerdone = true
}

proctype Closer() {
	byte q, at, from, written;
	before = frames;
	atomicstore(X, FAILED, 1);
	/* Outlet.drop */
	atomicstore(X, SEALED, 1);
	atomicstore(X, LIMIT, 0);
#ifndef NO_BARRIER
	barrier();
#endif
	do
	:: q = mem[POS];
		if
		:: q & LENT ->	/* Producer.Abort */
			atomicstore(X, ABORTED, 1);
			at = mem[POS] >> 2;
			written = 0;
			do
			:: true ->
				barrier();
				from = at;
#ifndef NO_SCAN
				do
				:: at < W - 7 && mem[COMMIT(at)] -> at++
				:: else -> break
				od;
#endif
#ifdef ABORT_ONCE
				if :: written || at == from -> release(X, END, at + 1); break :: else fi;
#else
				if :: written && at == from -> break :: else fi;
#endif
				touch;
				release(X, END, at + 1);
				written = 1
			od;
			break
		:: !(q & LENT) && (q & BUSY)
		:: !(q & (LENT | BUSY)) -> touch; release(X, END, (q >> 2) + 1); break
		fi
	od;
	/* Outlet.retire */
	atomicstore(X, GUARD, 1);
#ifndef NO_SECOND
#ifndef NO_BARRIER
	barrier();
#endif
#endif
	free();
	closerdone = true
}

proctype Check() {
	atomic {
		ownerdone && closerdone && buf[O].n == 0 && buf[X].n == 0;
		assert(mapped == holder);
		if	/* a consumer takes an end that it stands at, or has passed */
		:: holder -> assert(mem[END] > before && mem[END] <= frames + 1)
		:: else -> assert(mem[END] == frames + 1)
		fi
	}
}

init {
	atomic {
		mem[LIMIT] = 1;
		run Drain(O); run Drain(X); run Owner(); run Closer(); run Check()
	}
}
