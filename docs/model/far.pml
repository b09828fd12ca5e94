/*
 * Sleeping and waking between hosts, as the lane rdma does it: what one side says
 * travels as writes into the other's memory, of which some carry an immediate. Writes
 * land in order; an immediate is looked at some time after its write has landed, and
 * so is the completion that gives a place of the send queue back. No barrier reaches
 * the other host: what a sleeper sends says what it has seen. No wake-up is lost:
 * whoever sleeps while there is something to do would be found as a process that
 * cannot go on.
 *
 * Each protocol step of a side is one atomic step: the code holds the session's lock.
 *
 * Broken variants: ROOM_LATE, IDLE_LATE, NO_LAST_LOOK, NO_AGAIN, NO_ANSWER, NO_ASK.
 */
#ifndef N
#define N 2	/* slots */
#endif
#ifndef M
#define M 3	/* frames */
#endif
#ifndef Q
#define Q 3	/* places of a send queue */
#endif
#define S 0	/* the sender's side */
#define R 1	/* the receiver's */
#define BATCH 2	/* requests of one batch at most: what flush wants to be free */

mtype = { announce, head, roomless, idle, done };
chan wire[2] = [6] of { mtype, byte, bool };	/* from each side to the other */
chan cq[2] = [12] of { mtype, byte };		/* of each side: immediates and completions */
byte out[2];	/* requests without a completion that was looked at */
bool bell[2];

/* What each side's device writes, and what the sides keep under their locks. */
byte announced;	/* at the receiver: position up to which frames are whole */
byte credit;	/* at the sender: position up to which slots are free again */
byte committed, exported, roomSeen, idleOf;
bool stalled, running, watched, roomOut, roomDue, asleepC;
byte passed, given, idleSeen, roomOf;
bool idleOut, idleDue, asleepP;

#define room(t) (Q - out[t])

inline post(t, k, x, i) { wire[t]!k(x, i); out[t]++ }

/* pump.send; within an atomic. */
inline flushS() {
	stalled = false;
	do
	:: room(S) < BATCH -> stalled = true; break
	:: else ->
		if
		:: roomDue ->
			roomDue = false;
#ifdef ROOM_LATE
			roomSeen = credit;
#endif
			post(S, roomless, roomSeen, true)
		:: else
		fi;
		if
		:: exported < committed ->
			exported = committed;
			post(S, announce, exported, asleepC);
			asleepC = false
#ifndef NO_AGAIN
		:: exported == committed && asleepC && exported != idleOf ->
			post(S, announce, exported, true);
			asleepC = false
#endif
		:: else -> break
		fi
	od
}

/* pump.askRoom; within an atomic. */
inline ask() {
	if
	:: watched ->
		watched = false; roomOut = true; roomDue = true;
		if
		:: !stalled -> flushS()
		:: else
		fi
	:: else
	fi
}

/* The worker may be started whenever the pump has posted all. */
inline start() {
	if
	:: !stalled -> running = true
	:: true
	fi
}

/* sink.flush; within an atomic. A credit is due by and by: that of half a ring. */
inline flushR() {
	if
	:: room(R) >= BATCH ->
		if
#ifndef NO_ANSWER
		:: asleepP && given != roomOf ->
			asleepP = false;
			post(R, head, given, true);
			passed = given
#endif
		:: !(asleepP && given != roomOf) && given != passed && announced - passed >= (N + 1) / 2 ->
			post(R, head, given, false);
			passed = given
		:: else
		fi;
		if
		:: idleDue ->
			idleDue = false;
#ifdef IDLE_LATE
			idleSeen = announced;
#endif
			post(R, idle, idleSeen, true)
		:: else
		fi
	:: else
	fi
}

proctype Producer() {
	byte pos;
	do
	:: pos == M -> break
	:: pos < M && credit + N > pos ->
		atomic {
			pos++;
			committed = pos;
			if
			:: !stalled && !running -> flushS(); start()
			:: else
			fi
		}
	:: pos < M && credit + N <= pos ->
		atomic {	/* pump.armed */
			if
			:: !roomOut ->
				roomSeen = credit; watched = true;
				if
				:: !running -> ask()
				:: else
				fi
			:: else
			fi
		}
		if
#ifndef NO_LAST_LOOK
		:: credit + N > pos
		:: else ->
#else
		:: true ->
#endif
			atomic { bell[S] -> bell[S] = false }
		fi
	od
}

proctype Consumer() {
	byte pos;
	do
	:: pos == M -> break
	:: pos < M && announced > pos ->
		atomic { pos++; given = pos; flushR() }
	:: pos < M && announced <= pos ->
		atomic {	/* sink.armed */
			if
			:: !idleOut -> idleOut = true; idleDue = true; idleSeen = announced; flushR()
			:: else
			fi
		}
		if
#ifndef NO_LAST_LOOK
		:: announced > pos
		:: else ->
#else
		:: true ->
#endif
			atomic { bell[R] -> bell[R] = false }
		fi
	od
}

/* The device of the side that is written to. */
proctype Device(byte from) {
	mtype k;
	byte v;
	bool i;
end:	do
	:: atomic {
		wire[from]?k(v, i);
		if
		:: k == announce -> announced = v
		:: k == head -> credit = v
		:: else
		fi;
		if
		:: i -> cq[1 - from]!k(v)
		:: else
		fi;
		cq[from]!done(0);
		k = 0; v = 0; i = false
	}
	od
}

/* The goroutine of the sender's completions. */
proctype ShardS() {
	mtype k;
	byte v;
end:	do
	:: atomic {
		cq[S]?k(v);
		if
		:: k == done -> out[S]--
		:: k == head -> roomOut = false; bell[S] = true
		:: k == idle -> asleepC = true; idleOf = v
		fi;
		if
		:: stalled && !running -> flushS(); start()
		:: else -> flushS()
		fi;
		k = 0; v = 0
	}
	od
}

/* The worker, which looks at the head itself while it runs, and may wake the producer for
   it at any time after. It rests when nothing is left, or the send queue is full. */
proctype Worker() {
end:	do
	:: atomic { running && !stalled && exported < committed -> flushS() }
	:: atomic { running && watched && credit != roomSeen -> watched = false; bell[S] = true }
	:: atomic {
		running && (stalled || exported == committed) ->
		running = false;
#ifndef NO_ASK
		ask()
#endif
	}
	od
}

proctype ShardR() {
	mtype k;
	byte v;
end:	do
	:: atomic {
		cq[R]?k(v);
		if
		:: k == done -> out[R]--
		:: k == announce -> idleOut = false; bell[R] = true
		:: k == roomless -> asleepP = true; roomOf = v
		fi;
		flushR();
		k = 0; v = 0
	}
	od
}

init {
	atomic {
		run Device(S); run Device(R); run ShardS(); run ShardR(); run Worker();
		run Producer(); run Consumer()
	}
}
