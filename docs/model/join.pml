/*
 * A record of a ring with several producers changes hands: offered by the
 * collector, joined by its producer or revoked, and freed by the end word of a
 * producer that was cut off and lives. The connection may be cut at any step;
 * nobody dies. One record, which H holders are offered in turn, each when the one
 * before has been cut off.
 *
 * At most one holder writes to the record, and none writes what the collector clears
 * when it offers it anew; a holder that has the collector's offer and its connection
 * joins; and the last one is offered the record whatever the others do.
 *
 * Broken variants: NO_GENERATION, LOOK_THEN_JOIN, LOOK_THEN_REVOKE, FREE_ON_CUT,
 * END_EARLY; NO_REVOKE and NO_END (the record is never free).
 */
#ifndef H
#define H 3	/* holders */
#endif
#define T (H + 1)
#ifndef K
#define K 3
#endif
#define C H	/* the collector's buffer; holder h has h-1 */
#define JOIN   0	/* generation << 2 | state */
#define INTENT 1
#define ENDW   2	/* generation of the holder that has ended */
#define W      3
#include "memory.pml"

#define offered 1
#define joined  2
#define revoked 3
#ifdef NO_GENERATION
#define JW(h, s) (s)
#else
#define JW(h, s) ((h) << 2 | (s))
#endif

byte answered;	/* who has the answer: a bit a holder */
byte cut;	/* whose connection is cut */
byte over;	/* whose attach or session is over, on its own side */
byte writer;	/* who has joined and not ended, 0 for nobody */
#define bit(h) (1 << ((h) - 1))

proctype Holder(byte me) {
	byte w;
	bool won;
end1:	if
	:: answered & bit(me)
	:: cut & bit(me) -> goto done	/* the answer never comes, or nobody waits for it any more */
	fi;
	/* It may be cut off from here on, and not know. */
#ifdef LOOK_THEN_JOIN
	w = mem[JOIN];
	won = w == JW(me, offered);
	if
	:: won -> d_step { drained(me - 1); mem[JOIN] = JW(me, joined) }
	:: else
	fi;
#else
	d_step {	/* SYNC: join */
		drained(me - 1);
		won = mem[JOIN] == JW(me, offered);
		if
		:: won -> mem[JOIN] = JW(me, joined)
		:: else
		fi
	};
#endif
	if
	:: won ->
		atomic { assert(writer == 0); writer = me };
		release(me - 1, INTENT, me);	/* and so on: it sends */
		buf[me - 1].n == 0 -> assert(writer == me && mem[INTENT] == me);
end2:		(cut & bit(me));	/* it notices */
#ifdef END_EARLY
		release(me - 1, ENDW, me);
		atomic { assert(writer == me); writer = 0 };
		release(me - 1, INTENT, me)	/* a call that was under way */
#else
		/* Its call is over, and it holds no claim. */
		atomic { assert(writer == me); writer = 0 };
#ifndef NO_END
		release(me - 1, ENDW, me)	/* SYNC: end */
#endif
#endif
	:: else -> assert(cut & bit(me))	/* who was not cut off joins */
	fi;
done:	over = over | bit(me)
}

proctype Collector() {
	byte h = 1;
	bool free;
	do
	:: h > H -> break
	:: else ->
		/* Collector.Admit */
		assert(writer == 0);
		release(C, INTENT, 0);
		release(C, ENDW, 0);
		release(C, JOIN, JW(h, offered));
		/* The message passes through the kernel, which is a barrier; or the connection
		   is cut before. */
		if
		:: d_step { drained(C); answered = answered | bit(h) }
		:: skip
		fi;
		if
		:: h == H -> break	/* the last one stays, or never gets its answer */
		:: else
		fi;
		cut = cut | bit(h);
		/* Collector.Expel */
#ifdef NO_REVOKE
		free = false;
#else
#ifdef FREE_ON_CUT
		free = true;
#else
#ifdef LOOK_THEN_REVOKE
		free = mem[JOIN] == JW(h, offered);
		if
		:: free -> release(C, JOIN, JW(h, revoked))
		:: else
		fi;
#else
		d_step {	/* SYNC: join */
			drained(C);
			free = mem[JOIN] == JW(h, offered);
			if
			:: free -> mem[JOIN] = JW(h, revoked)
			:: else
			fi
		};
#endif
#endif
#endif
		if
		:: free
		:: else -> (mem[ENDW] == h)	/* SYNC: end; it lives, and says so */
		fi;
		h++
	od
}

init {
	byte i;
	atomic {
		i = 0;
		do
		:: i < T -> run Drain(i); i++
		:: else -> break
		od;
		i = 1;
		do
		:: i <= H -> run Holder(i); i++
		:: else -> break
		od;
		run Collector()
	}
}
