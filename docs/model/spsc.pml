/*
 * One producer: a slot is read only when it is written, is not written again
 * while it is lent, the end gets through a full ring, and after a death at any
 * step everything that was committed is delivered, then the death is told.
 *
 * Broken variants: COMMIT_FIRST, PLAIN_COMMIT (fails with WEAK alone), NO_LIMIT,
 * HEAD_EARLY, GONE_LATE, END_IN_SLOT (with HOLD).
 */
#ifndef N
#define N 2	/* slots */
#endif
#ifndef M
#define M 4	/* frames */
#endif
#define T 2
#define K 4
#define P 0	/* threads */
#define C 1
#define COMMIT(p) ((p) % N)
#define DATA(p)   (N + (p) % N)
#define HEAD      (2 * N)
#define END       (2 * N + 1)
#define W         (2 * N + 2)
#include "memory.pml"

byte sent;	/* frames whose commit the producer has stored */
bool dead;	/* the kernel has closed the producer's socket */

#define maydie if :: skip :: goto died fi

proctype Producer() {
	byte pos, limit = N, last;
	if :: last = M :: last = M - 1 fi;	/* ends at once, or with the ring not full */
	do
	:: pos < last ->
		maydie;
#ifdef NO_LIMIT
		limit = pos + 1;
#endif
		if
		:: pos < limit
		:: pos == limit && mem[HEAD] + N > limit -> limit = mem[HEAD] + N	/* SYNC: head */
		fi;
#ifdef COMMIT_FIRST
		d_step { buf[P].n < K -> push(P, COMMIT(pos), pos + 1, true); sent++ };
		maydie;
		store(P, DATA(pos), pos + 1);
#else
		store(P, DATA(pos), pos + 1);
		maydie;
		d_step { buf[P].n < K -> sent++;	/* SYNC: commit */
#ifdef PLAIN_COMMIT
			push(P, COMMIT(pos), pos + 1, false)
#else
			push(P, COMMIT(pos), pos + 1, true)
#endif
		};
#endif
		pos++
	:: else -> break
	od;
	maydie;
#ifdef END_IN_SLOT
	(mem[HEAD] + N > pos);
#endif
	release(P, END, pos + 1);	/* SYNC: end */
	maydie;
	goto over;
died:	(buf[P].n == 0);	/* what was stored reaches memory before the kernel tells */
	dead = true;
over:	skip
}

proctype Consumer() {
	byte pos, given;
	bool gone, early;
	do
	:: true ->
		/* Looks when there is something, and once when there may be nothing. */
		if
		:: mem[COMMIT(pos)] == pos + 1 || mem[END] == pos + 1 || dead
		:: !early -> early = true
		fi;
#ifndef GONE_LATE
		gone = dead;
#endif
		if
		:: mem[COMMIT(pos)] == pos + 1 ->
#ifdef HEAD_EARLY
			release(C, HEAD, pos + 1);
#endif
			assert(mem[DATA(pos)] == pos + 1);	/* written before it is read */
			assert(mem[DATA(pos)] == pos + 1);	/* and not written again while it is lent */
			pos++;
#ifndef HOLD
#ifndef HEAD_EARLY
			release(C, HEAD, pos);	/* SYNC: head */
#endif
#endif
		:: else ->
#ifdef GONE_LATE
			gone = dead;
#endif
			if
			:: mem[END] == pos + 1 -> assert(pos == sent); break
			:: mem[END] != pos + 1 && gone -> assert(pos == sent); break
			:: mem[END] != pos + 1 && !gone
			fi
		fi
	od
}

init { atomic { run Drain(P); run Drain(C); run Producer(); run Consumer() } }
