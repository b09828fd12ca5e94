/* What the machine permits: the ring of nova_ring.h and a bare cache line,
 * between two processes pinned to two processors.
 *
 *   limit line  MS                               round trip of a line, ns
 *   limit trip  MS SLOT                          round trip over two rings, ns
 *   limit rate  MS SLOT PAYLOAD RING STORED LAG  million frames a second
 *   limit large MS FRAME RING                    GB/s, copied in and read whole
 *
 * The consumer starts first. STORED 1 stores the producer's cursor in memory
 * after each frame, 0 keeps it in a register, 2 stores it and copies each frame
 * from a struct that the caller has just filled. LAG 1 has the consumer stay half a
 * ring behind.
 */
#define _GNU_SOURCE
#include "../../cgo/include/nova_ring.h"
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

static void pin(int cpu) {
	cpu_set_t s;
	CPU_ZERO(&s);
	CPU_SET(cpu, &s);
	sched_setaffinity(0, sizeof s, &s);
}

static void *shared(size_t n) {
	void *p = mmap(0, n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (p == MAP_FAILED) { perror("mmap"); exit(2); }
	return p;
}

/* run starts a child on the second processor. */
static pid_t child(void) {
	pid_t parent = getpid(), pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent) exit(0);
		pin(1);
	} else {
		pin(0);
	}
	return pid;
}

static volatile uint64_t sink;
static _Atomic uint64_t *stop_word, *produced;

static int line(double ms) {
	_Atomic uint64_t *a = shared(4096), *b = a + 128;
	if (child() == 0) {
		for (uint64_t i = 1;; i++) {
			while (atomic_load_explicit(a, memory_order_acquire) != i);
			atomic_store_explicit(b, i, memory_order_release);
		}
	}
	uint64_t i = 0;
	double start = now(), end;
	do {
		for (int k = 0; k < 1000; k++) {
			atomic_store_explicit(a, ++i, memory_order_release);
			while (atomic_load_explicit(b, memory_order_acquire) != i);
		}
	} while ((end = now()) - start < ms / 1e3);
	printf("%.2f\n", (end - start) / i * 1e9);
	return 0;
}

static void ring_of(struct nova_ring *r, uint32_t slot, uint32_t slots, uint32_t payload) {
	nova_format(r, shared(nova_segment_size(slot, slots)), slot, slots, payload, 0);
}

static int trip(double ms, uint32_t slot) {
	struct nova_ring there, back;
	struct nova_producer p;
	struct nova_consumer c;
	uint32_t payload = slot - 8;
	uint64_t words = payload / 8, i = 0;
	ring_of(&there, slot, 64, payload);
	ring_of(&back, slot, 64, payload);
	if (child() == 0) {
		nova_consumer_init(&c, &there, 0, 1);
		nova_producer_init(&p, &back, 0, 1);
		for (;;) {
			const uint64_t *v;
			while (!(v = nova_peek(&c)));
			uint64_t *w = nova_reserve(&p);
			for (uint64_t k = 0; k < words; k++) w[k] = v[k];
			nova_release(&c);
			nova_publish(&p);
		}
	}
	nova_producer_init(&p, &there, 0, 1);
	nova_consumer_init(&c, &back, 0, 1);
	double start = now(), end;
	do {
		for (int k = 0; k < 1000; k++, i++) {
			uint64_t *w = nova_reserve(&p);
			const uint64_t *v;
			for (uint64_t j = 0; j < words; j++) w[j] = i;
			nova_publish(&p);
			while (!(v = nova_peek(&c)));
			if (v[0] != i) exit(3);
			nova_release(&c);
		}
	} while ((end = now()) - start < ms / 1e3);
	printf("%.2f\n", (end - start) / i * 1e9);
	return 0;
}

/* The cursor in memory: as an object whose methods are called once a frame. */
__attribute__((noinline)) static int put(struct nova_producer *p, uint64_t words, uint64_t i) {
	uint64_t *w = nova_reserve(p);
	if (!w) return 0;
	for (uint64_t k = 0; k < words; k++) w[k] = i;
	nova_publish(p);
	return 1;
}

/* The same with a value that the caller has filled, word by word. */
struct value { uint64_t w[7]; };
__attribute__((noinline, optimize("no-tree-vectorize,no-tree-slp-vectorize,no-tree-loop-distribute-patterns")))
static int put_copy(struct nova_producer *p, const struct value *v) {
	uint64_t *w = nova_reserve(p);
	if (!w) return 0;
	for (int k = 0; k < 7; k++) w[k] = v->w[k];
	nova_publish(p);
	return 1;
}

__attribute__((optimize("no-tree-vectorize,no-tree-slp-vectorize")))
static uint64_t copies(struct nova_producer *p, uint64_t i) {
	struct value v;
	for (int k = 0; k < 7; k++) v.w[k] = i;
	return i + put_copy(p, &v);
}

static inline __attribute__((always_inline)) uint64_t burst(struct nova_producer *p, uint64_t words, uint64_t i, uint64_t shift) {
	if (p->pos == p->limit && nova_free(p) <= 0) return i;
	uint64_t pos = p->pos, end = p->limit - pos < 64 ? p->limit : pos + 64, mask = p->r.mask, high = p->high, seen = p->seen;
	unsigned char *slots = p->r.slots;
	_Atomic uint64_t *attn = p->attn;
	for (; pos != end; pos++, i++) {
		uint64_t *s = (uint64_t *)(slots + ((pos & mask) << shift));
		for (uint64_t k = 0; k < words; k++) s[1 + k] = i;
		atomic_store_explicit((_Atomic uint64_t *)s, nova_commit(pos, high), memory_order_release); /* SYNC: commit */
		if (atomic_load_explicit(attn, memory_order_acquire) != seen) nova_look(p);
	}
	p->pos = pos;
	return i;
}

static void produce(struct nova_ring *r, uint64_t words, int stored) {
	struct nova_producer p;
	nova_producer_init(&p, r, 0, 1);
	uint64_t i = 0;
	while (!atomic_load_explicit(stop_word, memory_order_relaxed)) {
		for (int k = 0; k < 256; k++) {
			if (stored == 2 && words == 7) i = copies(&p, i);
			else if (stored) i += put(&p, words, i);
			else if (words == 1) i = burst(&p, 1, i, r->shift);
			else if (words == 3) i = burst(&p, 3, i, r->shift);
			else if (words == 7) i = burst(&p, 7, i, r->shift);
			else i = burst(&p, words, i, r->shift);
		}
		atomic_store_explicit(produced, p.pos, memory_order_relaxed);
	}
	for (;;) pause();
}

static int rate(double ms, uint32_t slot, uint32_t payload, uint32_t bytes, int stored, int lag) {
	struct nova_ring r;
	uint32_t slots = bytes / slot;
	uint64_t words = payload / 8, n = 0, sum = 0, depth = 0, looks = 0;
	ring_of(&r, slot, slots, payload);
	stop_word = shared(4096);
	produced = stop_word + 128;
	pid_t pid = child();
	if (pid == 0) produce(&r, words, stored);
	struct nova_consumer c;
	nova_consumer_init(&c, &r, 0, 1);
	while (!nova_peek(&c));
	double start = now(), end;
	do {
		for (int k = 0; k < 16; k++) {
			uint64_t want = 256;
			if (lag) {
				while (atomic_load_explicit(produced, memory_order_relaxed) - c.pos < slots / 2);
				want = slots / 8;
			}
			uint64_t pos = c.pos, stop = pos + want, published = c.published;
			for (; pos != stop; pos++) {
				const uint64_t *s = (const uint64_t *)(r.slots + ((pos & r.mask) << r.shift));
				if (atomic_load_explicit((_Atomic uint64_t *)s, memory_order_acquire) != nova_commit(pos, c.high)) break; /* SYNC: commit */
				for (uint64_t j = 0; j < words; j++) sum += s[1 + j];
				if (pos + 1 - published >= c.batch) {
					published = pos + 1;
					atomic_store_explicit(nova_word(r.base, NOVA_OFF_HEAD), published, memory_order_release); /* SYNC: head */
				}
			}
			n += pos - c.pos;
			c.pos = pos;
			c.published = published;
		}
		int64_t ahead = (int64_t)(atomic_load_explicit(produced, memory_order_relaxed) - c.pos);
		depth += ahead > 0 ? (uint64_t)ahead : 0; /* the producer tells now and then */
		looks++;
	} while ((end = now()) - start < ms / 1e3);
	kill(pid, SIGKILL);
	sink = sum; /* or the compiler would leave the payload unread */
	if (getenv("LIMIT_DEPTH")) fprintf(stderr, "mean depth %.0f of %u slots\n", (double)depth / looks, slots);
	printf("%.3f\n", n / (end - start) / 1e6);
	return 0;
}

static int large(double ms, uint64_t frame, uint32_t bytes) {
	struct nova_ring r;
	ring_of(&r, 64, bytes / 64, 0);
	pid_t pid = child();
	if (pid == 0) {
		struct nova_producer p;
		unsigned char *src = malloc(frame);
		memset(src, 7, frame);
		nova_producer_init(&p, &r, 0, 1);
		for (;;) {
			void *b;
			while (!(b = nova_reserve_frame(&p, frame)));
			memcpy(b, src, frame);
			nova_commit_frame(&p, frame);
		}
	}
	struct nova_consumer c;
	struct nova_frame f;
	nova_consumer_init(&c, &r, 0, 1);
	uint64_t n = 0, sum = 0, batch = frame < 4096 ? 65536 / frame : 1; /* between looks at the clock */
	double start = now(), end = start;
	do {
		while (nova_next(&c, &f) != 1) nova_settle(&c);
		const uint64_t *v = f.data;
		uint64_t s[4] = {0};
		for (uint64_t i = 0; i + 4 <= frame / 8; i += 4)
			for (int k = 0; k < 4; k++) s[k] += v[i + k];
		sum += s[0] + s[1] + s[2] + s[3];
		nova_pass(&c, &f);
		nova_settle(&c);
		n++;
		if (n % batch == 0) end = now();
	} while (end - start < ms / 1e3);
	kill(pid, SIGKILL);
	sink = sum;
	printf("%.3f\n", n * frame / (end - start) / 1e9);
	return 0;
}

int main(int argc, char **argv) {
	double ms = argc > 2 ? atof(argv[2]) : 0;
	if (argc == 3 && !strcmp(argv[1], "line")) return line(ms);
	if (argc == 4 && !strcmp(argv[1], "trip")) return trip(ms, atoi(argv[3]));
	if (argc == 8 && !strcmp(argv[1], "rate")) return rate(ms, atoi(argv[3]), atoi(argv[4]), atoi(argv[5]), atoi(argv[6]), atoi(argv[7]));
	if (argc == 5 && !strcmp(argv[1], "large")) return large(ms, strtoull(argv[3], 0, 0), atoi(argv[4]));
	fprintf(stderr, "usage: see the head of limit.c\n");
	return 2;
}
