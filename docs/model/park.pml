/*
 * Sleeping and waking: attention words, wake words, bells and membarrier, both
 * sides of a ring with one producer, and control (cancel, death) of the consumer's
 * own process. No wake-up is lost: whoever sleeps while there is something to do
 * would be found as a process that cannot go on.
 *
 * Sleeps are never cut short here, so the time limits of the code's sleeps play
 * no part in the proof.
 *
 * Broken variants: NO_BARRIER, NO_LOOK, NO_SETTLE, NO_SEQUENCE, LATE_WORD,
 * NO_NUDGE, LATE_MODE, SIGNAL_LATE.
 */
#ifndef N
#define N 1	/* slots */
#endif
#ifndef M
#define M 2	/* frames */
#endif
#ifndef CONTROL
#define CONTROL 0
#endif
#define T 2
#define K 3
#define P 0
#define C 1
#define COMMIT(p) ((p) % N)
#define END   (N)
#define HEAD  (N + 1)
#define ATTN(t) (N + 2 + (t))	/* how t sleeps: sequence << 2 | mode */
#define WAKE(t) (N + 4 + (t))	/* word that t sleeps on */
#define BELL(t) (N + 6 + (t))	/* bell that t sleeps on */
#define W     (N + 8)
#include "memory.pml"

#define FUTEX 1
#define RING  2
#define CLOSED 4
byte mode[T];	/* of the parker, for control of the same process */
bool signal;

#ifdef NO_SEQUENCE
#define next(a, m) (m)
#else
#define next(a, m) ((((a) >> 2) + 1) << 2 | (m))
#endif

/* A read-modify-write of t's attention word. */
inline attention(t, m) { d_step { drained(t); mem[ATTN(t)] = next(mem[ATTN(t)], m) } }

/* Waker.Wake and Parker.Interrupt. */
inline wake(by, t, m) {
	if
	:: (m) & FUTEX -> d_step { drained(by); mem[WAKE(t)]++ }
	:: (m) & RING  -> d_step { drained(by); mem[BELL(t)] = 1 }
	:: else
	fi
}

/* Look at the other side's attention word after having published. */
inline look(t, o) {
	a = mem[ATTN(o)];	/* SYNC: sleep */
	if
	:: a != seen -> seen = a; wake(t, o, a & 3)
	:: else
	fi
}

#define ready_p (mem[HEAD] + N > pos)
#define ready_c (mem[COMMIT(pos)] == pos + 1 || mem[END] == pos + 1 || signal)

/* Parker.sleep. */
inline sleep(t, o, ready) {
	if :: m = FUTEX :: m = RING fi;
#ifndef LATE_WORD
	v = mem[WAKE(t)];
#endif
#ifndef LATE_MODE
	mode[t] = m;
#endif
	attention(t, m);	/* SYNC: sleep */
#ifndef NO_BARRIER
	d_step { drained(t); drained(o) };	/* membarrier */
#endif
	if
#ifdef NO_LOOK
	:: true ->
#else
	:: ready
	:: !(ready) ->
#endif
#ifdef LATE_MODE
		mode[t] = m;
#endif
#ifdef LATE_WORD
		v = mem[WAKE(t)];
#endif
		if
		:: m == FUTEX -> (mem[WAKE(t)] != v)
		:: m == RING  -> d_step { mem[BELL(t)] == 1 -> mem[BELL(t)] = 0 }
		fi
	fi;
	attention(t, 0);
	mode[t] = 0
}

proctype Producer() {
	byte pos, seen, a, v, m;
	do
	:: pos < M ->
		do
		:: ready_p -> break
		:: else -> sleep(P, C, ready_p)
		od;
		release(P, COMMIT(pos), pos + 1);	/* SYNC: commit */
		pos++;
		look(P, C)
	:: else -> break
	od;
	release(P, END, pos + 1);	/* SYNC: end */
#ifndef NO_NUDGE
	a = mem[ATTN(C)];
	wake(P, C, a & 3)
#endif
}

proctype Consumer() {
	byte pos, given, seen, a, v, m;
	do
	:: signal -> break
	:: else ->
		if
		:: mem[COMMIT(pos)] == pos + 1 ->
			pos++;
			if	/* head is published in batches */
			:: true -> given = pos; release(C, HEAD, pos); look(C, P)
			:: true
			fi
		:: else ->
			if
			:: mem[END] == pos + 1 -> break
			:: else ->
#ifndef NO_SETTLE
				if
				:: given != pos -> given = pos; release(C, HEAD, pos)
				:: else
				fi;
				look(C, P);
#endif
				sleep(C, P, ready_c)
			fi
		fi
	od;
	/* Consumer.Close: a producer that waits for room is woken for good. */
	atomic { drained(C); mem[ATTN(C)] = next(mem[ATTN(C)], CLOSED) };
	a = mem[ATTN(P)];
	wake(C, P, a & 3)
}

/* Control of the consumer's process: a cancel, or the news of a death. */
proctype Control() {
	byte m;
#ifdef SIGNAL_LATE
	m = mode[C];
	signal = true;
#else
	signal = true;
	m = mode[C];
#endif
	wake(C, C, m)
}

init {
	atomic {
		run Drain(P); run Drain(C); run Consumer();
		if
		:: CONTROL -> run Control()
		:: else
		fi;
		if
		:: M > 0 -> run Producer()
		:: else
		fi
	}
}
