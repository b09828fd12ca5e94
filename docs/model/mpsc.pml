/*
 * Several producers: intent record, compare-and-swap of the tail, commit; and
 * the collector's recovery after deaths at any step. The collector never skips
 * slots of a claimer that may live, skips a dead one's claim whole, and when all
 * the living have done what they can, it has passed everything that was claimed.
 *
 * A claimer that is refused for want of room leaves its intent behind, and goes
 * away alive or waits for room. One is expelled (EXPEL): it may live, or die later.
 * A dead one's record may be another's (HEIR), which then claims too.
 *
 * Broken variants: INTENT_LATE, GUESS, FALLBACK, PAD_PREV, NO_PREV, NO_TAIL,
 * CLAIM_FULL, DEATH_UNTOLD (with EXPEL), MEMBERS_ONLY (with EXPEL), FORGET and
 * PROVE_LATE (with HEIR).
 */
#ifndef R
#define R 3	/* producers, records 1 to R */
#endif
#ifndef CLAIMS
#define CLAIMS 1	/* each; record 1 makes MORE */
#endif
#ifndef MORE
#define MORE CLAIMS
#endif
#ifndef MORTAL
#define MORTAL R	/* records 1 to MORTAL may die, */
#endif
#ifndef DEATHS
#define DEATHS 2	/* so many at most */
#endif
#ifndef SIZES
#define SIZES 2	/* a claim is for one slot, or for up to two */
#endif
#ifndef EXPEL
#define EXPEL 0
#endif
#ifndef HEIR
#define HEIR 0	/* record 1 is another's, holder R + 1, when its holder is dead */
#endif
#define N 4	/* slots */
#define T (R + 1)
#ifndef K
#define K 2
#endif
#define C R	/* the collector's buffer; record r has r-1 */
#define COMMIT(p) ((p) % N)
#define HEADER(p) (N + (p) % N)	/* second word: slots << 2 | prev */
#define TAIL      (2 * N)	/* position << 2 | record */
#define HEAD      (2 * N + 1)
#define POS(r)    (2 * N + 1 + (r))	/* intent: position + 1 */
#define INFO(r)   (2 * N + 1 + R + (r))	/* intent: slots << 2 | prev */
#define W         (2 * N + 2 + 2 * R)
#include "memory.pml"

#ifdef PAD_PREV
#define PADPREV prev
#else
#define PADPREV 0	/* nobody's claim ends there */
#endif

#define PLACES 16
byte owner[PLACES];	/* by position: who has claimed it, */
byte slots[PLACES];	/* and how many, at a claim's first */
byte cpos;		/* the collector's position */
byte deaths, dead;	/* dead, as the collector is told: a bit a record */
byte expelled, out;	/* expelled; out: its end has been told */
byte idle;		/* alive and away, or waiting for room: a bit a record */
byte last[R + 2];	/* head as last seen */
bool heir;		/* record 1 is holder R + 1's */

#define all ((1 << (R + heir)) - 1)
#define bit(r) (1 << ((r) - 1))
byte waits;		/* for room: a bit a record */
#define emptyof(r) (buf[(r) - 1].n == 0)
#define stuck(r) (emptyof(r) && (mem[HEAD] == last[r] || !(waits & bit(r))))
#if HEIR
#define stuckh (!heir || emptyof(1) && (mem[HEAD] == last[R + 1] || !(waits & bit(R + 1))))
#define quiet ((idle | dead) == all && buf[C].n == 0 && stuck(1) && stuck(2) && stuckh)
#elif R == 3
#define quiet ((idle | dead) == all && buf[C].n == 0 && stuck(1) && stuck(2) && stuck(3))
#else
#define quiet ((idle | dead) == all && buf[C].n == 0 && stuck(1) && stuck(2))
#endif

#define maydie if :: true :: me <= MORTAL && deaths < DEATHS -> deaths++; goto died fi

inline intent() {
	release(r - 1, INFO(r), k << 2 | prev);
	maydie;
	release(r - 1, POS(r), pos + 1)
}

inline commit(p, n, before) {
	/* Its own slots still: not skipped, and given back by the collector. */
	assert(cpos <= p && p < cpos + N);
	store(r - 1, HEADER(p), (n) << 2 | (before));
	maydie;
	release(r - 1, COMMIT(p), (p) + 1)	/* SYNC: commit */
}

/* The holder me of record r. */
proctype Claimer(byte me; byte r) {
	byte n, k, pos, prev, t, i;
	bool won;
	do
	:: i == (me == 1 -> MORE : CLAIMS) -> break
	:: else ->
		i++;
		if :: n = 1 :: SIZES == 2 -> n = 2 fi;
again:		atomic {
			t = mem[TAIL];	/* SYNC: claim */
			pos = t >> 2;
			prev = t & 3;
			k = (n <= N - pos % N -> n : N - pos % N)
		};
#ifndef CLAIM_FULL
		if
		:: pos + k - last[me] > N ->
			last[me] = mem[HEAD];	/* SYNC: head */
			if
			:: last[me] > pos -> goto again	/* the tail just read is old */
			:: last[me] <= pos && pos + k - last[me] > N ->
				if
				:: break	/* ErrFull, and it never comes again */
				:: d_step { waits = waits | bit(me); idle = idle | bit(me) };
					d_step { mem[HEAD] != last[me] -> waits = waits & ~bit(me); idle = idle & ~bit(me) };
					goto again
				fi
			:: else
			fi
		:: else
		fi;
#endif
		maydie;
#ifndef INTENT_LATE
		intent();	/* SYNC: intent */
		maydie;
#endif
		d_step {	/* a locked instruction */
			drained(r - 1);
			won = mem[TAIL] == t;
			if
			:: won ->
				mem[TAIL] = (pos + k) << 2 | r;
				slots[pos] = k;
				owner[pos] = me;
				owner[pos + k - 1] = me
			:: else
			fi
		};
		if
		:: !won -> goto again
		:: else
		fi;
		maydie;
#ifdef INTENT_LATE
		intent();
		maydie;
#endif
		if
		:: k == 2 -> commit(pos + 1, 1, PADPREV); maydie; commit(pos, 1, prev)	/* less than reserved: Pad */
		:: commit(pos, k, prev)
		fi;
		if :: k < n -> n = n - k; goto again :: else fi	/* that was the Pad to the ring's end */
	od;
	emptyof(r) -> idle = idle | bit(me);
	goto over;
died:	emptyof(r);
	d_step {
#ifdef DEATH_UNTOLD
		if :: expelled & bit(me) -> idle = idle | bit(me) :: else -> dead = dead | bit(me) fi;
#else
		dead = dead | bit(me);
#endif
	};
over:	skip
}

/* Whether somebody saw record i's claim end at e. */
inline proof(i, e) {
	sure = false;
	if
	:: tail >> 2 == e ->
#ifndef NO_TAIL
		sure = (tail & 3) == i
#endif
		skip
	:: else ->
#ifndef NO_PREV
		j = 1;
		do
		:: j <= R && !sure ->
			at = mem[POS(j)];	/* SYNC: intent */
			k = mem[INFO(j)];
			sure = at == e + 1 && k >> 2 > 0 && (k & 3) == i;
			j++
		:: else -> break
		od;
		if
		:: !sure && mem[COMMIT(e)] == e + 1 -> sure = (mem[HEADER(e)] & 3) == i
		:: else
		fi
#endif
		skip
	fi
}

#ifdef GUESS
#define gone(i) true
#else
#define gone(i) (told & bit(i) && !(heir && (i) == 1))
#endif

#if HEIR
/* Collector.Admit of record 1, and keepClaim: the claim that its dead holder left. */
inline admit() {
	tail = mem[TAIL];
	at = mem[POS(1)];
	own = mem[INFO(1)] >> 2;
	if
	:: at > cpos && own > 0 && at - 1 < tail >> 2 && mem[COMMIT(at - 1)] != at ->
		leftp = at - 1;
		leftn = own;
#ifndef PROVE_LATE
		proof(1, leftp + leftn);
		leftn = (sure -> leftn : 0);
#endif
#ifdef FORGET
		leftn = 0
#endif
	:: else
	fi;
	atomic {
		mem[POS(1)] = 0;
		heir = true;
		run Claimer(R + 1, 1);
		i = 0; at = 0; tail = 0; own = 0; sure = false
	}
}
#endif

/* Collector.recoverable: n slots of a dead claimer lie at cpos. */
inline recoverable() {
	n = 0; i = 1;
#if HEIR
	if
	:: leftn > 0 && leftp == cpos ->
#ifdef PROVE_LATE
		tail = mem[TAIL];
		proof(1, cpos + leftn);
		n = (sure -> leftn : 0)
#else
		n = leftn
#endif
	:: else
	fi;
#endif
#ifdef FALLBACK
	claim = 0; alive = false;
#endif
	tail = mem[TAIL];
	do
	:: i <= R && n == 0 && tail >> 2 != cpos ->
		atomic {	/* a dead one's record does not change */
			at = mem[POS(i)];	/* SYNC: intent */
			k = mem[INFO(i)];
			own = k >> 2
		};
		if
		:: at == cpos + 1 && own > 0 && own <= N - cpos % N && gone(i) ->
#ifdef FALLBACK
			claim = own;
#endif
			proof(i, cpos + own);
			n = (sure -> own : 0)
		:: else
#ifdef FALLBACK
			-> alive = alive || at == cpos + 1 && !gone(i)
#endif
		fi;
		i++
	:: else -> break
	od;
	i = 0; at = 0; tail = 0; sure = false;
#ifdef FALLBACK
	n = (n == 0 && !alive -> claim : n)	/* nobody else has it now, so it was the dead one's */
#endif
}

proctype Collector() {
	byte n, i, j, k, at, tail, own, early, told;
	bool sure, still;
#if HEIR
	byte leftp, leftn;
#endif
#ifdef FALLBACK
	byte claim;
	bool alive;
#endif
	do
	:: true ->
		if
		:: mem[COMMIT(cpos)] == cpos + 1	/* SYNC: commit */
		:: dead && early < 1 -> early++	/* looks although nobody asks it to */
		:: EXPEL && !expelled -> if :: expelled = 1 :: expelled = 2 fi;
			out = expelled	/* what it had committed is passed, say */
#if HEIR
		:: (told & bit(1)) && !heir -> admit()
#endif
		:: quiet
		fi;
		atomic { still = quiet; told = dead };	/* before the slot: what the dead has stored is there */
		if
		:: mem[COMMIT(cpos)] == cpos + 1 ->
			n = mem[HEADER(cpos)] >> 2;
			assert(owner[cpos] && n > 0);
			atomic { i = 1;
			do	/* payload behind the first slot is no commit word later */
			:: i < n -> release(C, COMMIT(cpos + i), 0); i++
			:: else -> break
			od;
			cpos = cpos + n;
			n = 0; i = 0 };
			release(C, HEAD, cpos)	/* SYNC: head */
		:: else ->
			recoverable();
#ifdef MEMBERS_ONLY
			/* Only members whose end is not told are looked at. */
			n = (n > 0 && (out & bit(owner[cpos])) -> 0 : n);
#endif
			if
			:: n > 0 ->
				assert(dead & bit(owner[cpos]));	/* never a living one's */
				assert(n == slots[cpos]);		/* and all of it */
				i = 0;
				do
				:: i < n -> release(C, COMMIT(cpos + i), 0); i++
				:: else -> break
				od;
				cpos = cpos + n;
				release(C, HEAD, cpos)
			:: n == 0 && still ->
				if
				:: mem[COMMIT(cpos)] == cpos + 1
				:: mem[COMMIT(cpos)] != cpos + 1 -> assert(mem[TAIL] >> 2 == cpos); break
				fi
			:: n == 0 && !still
			fi
		fi
	od
}

init {
	atomic {
		run Drain(C);
		run Drain(0); run Drain(1); run Claimer(1, 1); run Claimer(2, 2);
#if R == 3
		run Drain(2); run Claimer(3, 3);
#endif
		run Collector()
	}
}
