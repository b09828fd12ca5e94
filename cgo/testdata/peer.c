/* A program on nova_ring.h alone, for the tests: peer MODE FD SIZE COUNT.
 *
 *   produce  sends COUNT frames into the ring in FD and finalizes
 *   consume  reads COUNT frames and the end, and checks them
 *   list     prints what is in the ring, one frame a line
 */
#include "../include/nova_ring.h"
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

static unsigned char byte_at(uint64_t frame, uint64_t i) { return (unsigned char)(frame * 31 + i * 7 + 1); }
static uint64_t length_of(const struct nova_ring *r, uint64_t frame) {
	if (!r->wide) return r->payload;
	return frame * 37 % (4 * r->slot_size + 3);
}

static int produce(struct nova_ring *r, uint64_t count) {
	struct nova_producer p;
	nova_producer_init(&p, r, 0, 1);
	for (uint64_t i = 0; i < count; i++) {
		uint64_t n = length_of(r, i);
		unsigned char *b;
		while (!(b = r->wide ? nova_reserve_frame(&p, n) : nova_reserve(&p))) sched_yield();
		for (uint64_t j = 0; j < n; j++) b[j] = byte_at(i, j);
		if (r->wide) nova_commit_frame(&p, n); else nova_publish(&p);
	}
	nova_end(&p, NOVA_FINALIZED);
	return 0;
}

static int consume(struct nova_ring *r, uint64_t count) {
	struct nova_consumer c;
	struct nova_frame f;
	nova_consumer_init(&c, r, 0, 1);
	for (uint64_t i = 0;; ) {
		int k = nova_next(&c, &f);
		if (k < 0) { printf("corrupt at frame %llu\n", (unsigned long long)i); return 1; }
		if (k == 0) { nova_settle(&c); sched_yield(); continue; }
		if (f.kind == NOVA_FINALIZED) {
			if (i != count) { printf("%llu frames\n", (unsigned long long)i); return 1; }
			return 0;
		}
		uint64_t n = length_of(r, i);
		if (f.kind != NOVA_DATA || f.length != n) { printf("frame %llu: kind %u, %llu bytes\n", (unsigned long long)i, f.kind, (unsigned long long)f.length); return 1; }
		for (uint64_t j = 0; j < n; j++)
			if (((const unsigned char *)f.data)[j] != byte_at(i, j)) { printf("frame %llu, byte %llu\n", (unsigned long long)i, (unsigned long long)j); return 1; }
		nova_pass(&c, &f);
		i++;
	}
}

static int list(struct nova_ring *r) {
	struct nova_consumer c;
	struct nova_frame f;
	int k;
	nova_consumer_init(&c, r, 0, 1);
	while ((k = nova_next(&c, &f)) > 0) {
		uint64_t sum = 0;
		for (uint64_t j = 0; j < f.length; j++) sum = sum * 131 + ((const unsigned char *)f.data)[j];
		printf("%u %d %llu %llu\n", f.kind, f.more, (unsigned long long)f.length, (unsigned long long)sum);
		if (f.slots == 0) return 0;
		nova_pass(&c, &f);
	}
	printf("%s\n", k < 0 ? "corrupt" : "empty");
	return 0;
}

int main(int argc, char **argv) {
	if (argc != 5) return 2;
	size_t size = strtoull(argv[3], 0, 0);
	void *mem = mmap(0, size, PROT_READ | PROT_WRITE, MAP_SHARED, atoi(argv[2]), 0);
	struct nova_ring r;
	const char *wrong;
	if (mem == MAP_FAILED) { perror("mmap"); return 2; }
	if ((wrong = nova_open(&r, mem, size))) { printf("refused: %s\n", wrong); return 0; }
	if (!strcmp(argv[1], "produce")) return produce(&r, strtoull(argv[4], 0, 0));
	if (!strcmp(argv[1], "consume")) return consume(&r, strtoull(argv[4], 0, 0));
	return list(&r);
}
