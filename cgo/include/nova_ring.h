/*
 * nova_ring.h: the ring of docs/layout.md in C11, header only.
 *
 * One producer, one consumer; payloads of one fixed size in place (one-word
 * headers) or frames that vary (two-word headers). A program that maps a
 * segment, by whatever way it got it, can produce or consume with this header
 * alone. Sleeping is left to the caller: nova_arm, a process-wide barrier
 * (membarrier), nova_*_ready, then futex on the wake word.
 *
 * Each atomic carries the label that its partner carries, here and in ring/.
 */
#ifndef NOVA_RING_H
#define NOVA_RING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* The segment; ring/layout.go has the same numbers, and a test compares. */
#define NOVA_MAGIC 0x474e495241564f4eull
#define NOVA_VERSION 2
#define NOVA_BYTE_ORDER 0x01020304
#define NOVA_PAGE 4096
#define NOVA_LINE_PAIR 128

#define NOVA_OFF_MAGIC 0x00
#define NOVA_OFF_VERSION 0x08
#define NOVA_OFF_BYTE_ORDER 0x0c
#define NOVA_OFF_SLOT_SIZE 0x10
#define NOVA_OFF_SLOTS 0x14
#define NOVA_OFF_FLAGS 0x18
#define NOVA_OFF_PRODUCERS 0x1c
#define NOVA_OFF_FINGERPRINT 0x20
#define NOVA_OFF_PAYLOAD 0x28
#define NOVA_OFF_SLOTS_AT 0x2c
#define NOVA_OFF_HEAD 0x0080
#define NOVA_OFF_CONSUMER_ATTN 0x0100
#define NOVA_OFF_REASON 0x0180
#define NOVA_OFF_TAIL 0x1000
#define NOVA_OFF_END 0x1080
#define NOVA_OFF_PRODUCER_ATTN 0x1100
#define NOVA_OFF_CONSUMER_WAKE 0x1180
#define NOVA_OFF_PRODUCER_WAKE 0x1200
#define NOVA_OFF_ENDS 0x1280
#define NOVA_OFF_RECORDS 0x2000

#define NOVA_FLAG_WIDE 1u
#define NOVA_FLAG_MANY 2u

#define NOVA_REC_INTENT_POS 0x00
#define NOVA_REC_INTENT_INFO 0x08
#define NOVA_REC_END 0x10
#define NOVA_REC_JOIN 0x18
#define NOVA_RECORD_SIZE 128

/* The commit word. */
#define NOVA_POS_BITS 48
#define NOVA_POS_MASK ((1ull << NOVA_POS_BITS) - 1)
#define NOVA_KIND_SHIFT 48
#define NOVA_KIND_MASK (0xfull << NOVA_KIND_SHIFT)
#define NOVA_FLAG_SHIFT 52
#define NOVA_FLAG_MASK (0xfull << NOVA_FLAG_SHIFT)
#define NOVA_FLAG_MORE (1ull << NOVA_FLAG_SHIFT)
#define NOVA_TAG_SHIFT 56

/* The second word of a wide header. */
#define NOVA_LENGTH_BITS 28
#define NOVA_LENGTH_MASK ((1ull << NOVA_LENGTH_BITS) - 1)
#define NOVA_RECORD_SHIFT 28
#define NOVA_PREV_SHIFT 38
#define NOVA_GEN_SHIFT 48

#define NOVA_NARROW_HEADER 8
#define NOVA_WIDE_HEADER 16

/* The attention words. */
#define NOVA_ATTN_MODE 3ull
#define NOVA_ATTN_CLOSED (1ull << 2)
#define NOVA_ATTN_CANCEL (1ull << 3)
#define NOVA_ATTN_SEQ_SHIFT 8

enum nova_kind {
	NOVA_DATA = 1, NOVA_RAW = 2, NOVA_HEARTBEAT = 3, NOVA_SOFT_ERROR = 4, NOVA_DETACHED = 5,
	NOVA_FINALIZED = 6, NOVA_CANCELLED = 7, NOVA_TRANSPORT_ERROR = 8, NOVA_DROPPED = 9, NOVA_PAD = 10
};

/* The header as a struct, for the offsets alone. */
struct nova_header {
	uint64_t magic;
	uint32_t version, byte_order, slot_size, slots, flags, producers;
	uint64_t fingerprint;
	uint32_t payload, slots_at;
};
_Static_assert(offsetof(struct nova_header, magic) == NOVA_OFF_MAGIC, "magic");
_Static_assert(offsetof(struct nova_header, version) == NOVA_OFF_VERSION, "version");
_Static_assert(offsetof(struct nova_header, byte_order) == NOVA_OFF_BYTE_ORDER, "byte order");
_Static_assert(offsetof(struct nova_header, slot_size) == NOVA_OFF_SLOT_SIZE, "slot size");
_Static_assert(offsetof(struct nova_header, slots) == NOVA_OFF_SLOTS, "slots");
_Static_assert(offsetof(struct nova_header, flags) == NOVA_OFF_FLAGS, "flags");
_Static_assert(offsetof(struct nova_header, producers) == NOVA_OFF_PRODUCERS, "producers");
_Static_assert(offsetof(struct nova_header, fingerprint) == NOVA_OFF_FINGERPRINT, "fingerprint");
_Static_assert(offsetof(struct nova_header, payload) == NOVA_OFF_PAYLOAD, "payload");
_Static_assert(offsetof(struct nova_header, slots_at) == NOVA_OFF_SLOTS_AT, "slots at");
_Static_assert(sizeof(struct nova_header) <= NOVA_OFF_HEAD, "header and head");

/* A view of a segment whose header was checked. */
struct nova_ring {
	unsigned char *base, *slots;
	uint64_t mask, slot_size, payload, usable;
	unsigned shift;
	bool wide;
};

static inline _Atomic uint64_t *nova_word(void *base, uint64_t off) { return (_Atomic uint64_t *)((unsigned char *)base + off); }
static inline uint64_t nova_commit(uint64_t pos, uint64_t high) { return ((pos + 1) & NOVA_POS_MASK) | high; }
static inline uint64_t nova_high(uint8_t tag, unsigned kind) { return (uint64_t)tag << NOVA_TAG_SHIFT | (uint64_t)kind << NOVA_KIND_SHIFT; }
static inline unsigned char *nova_slot(const struct nova_ring *r, uint64_t pos) { return r->slots + ((pos & r->mask) << r->shift); }

static inline uint64_t nova_slots_at(void) { return NOVA_OFF_RECORDS; }
static inline uint64_t nova_segment_size(uint64_t slot_size, uint64_t slots) {
	return (nova_slots_at() + slots * slot_size + NOVA_PAGE - 1) & ~(uint64_t)(NOVA_PAGE - 1);
}

static inline void nova_view(struct nova_ring *r, void *mem, uint64_t slot_size, uint64_t slots, uint64_t payload) {
	r->base = (unsigned char *)mem;
	r->slots = r->base + nova_slots_at();
	r->mask = slots - 1;
	r->slot_size = slot_size;
	r->payload = payload;
	r->wide = payload == 0;
	r->usable = r->wide ? slots - 1 : slots;
	r->shift = (unsigned)__builtin_ctzll(slot_size);
}

/* nova_format writes the header of a ring with one producer into zeroed memory;
 * payload 0 is for frames that vary. */
static inline void nova_format(struct nova_ring *r, void *mem, uint32_t slot_size, uint32_t slots, uint32_t payload, uint64_t fingerprint) {
	struct nova_header *h = (struct nova_header *)mem;
	h->version = NOVA_VERSION;
	h->byte_order = NOVA_BYTE_ORDER;
	h->slot_size = slot_size;
	h->slots = slots;
	h->flags = payload == 0 ? NOVA_FLAG_WIDE : 0;
	h->producers = 1;
	h->fingerprint = fingerprint;
	h->payload = payload;
	h->slots_at = (uint32_t)nova_slots_at();
	atomic_store_explicit(nova_word(mem, NOVA_OFF_MAGIC), NOVA_MAGIC, memory_order_release);
	nova_view(r, mem, slot_size, slots, payload);
}

/* nova_open checks a header; it answers 0, or what is wrong. */
static inline const char *nova_open(struct nova_ring *r, void *mem, uint64_t size) {
	const struct nova_header *h = (const struct nova_header *)mem;
	if (size < NOVA_OFF_RECORDS) return "truncated";
	if (atomic_load_explicit(nova_word(mem, NOVA_OFF_MAGIC), memory_order_acquire) != NOVA_MAGIC) return "magic";
	uint32_t version = h->version, order = h->byte_order, slot_size = h->slot_size, slots = h->slots, flags = h->flags;
	uint32_t producers = h->producers, payload = h->payload, at = h->slots_at;
	if (version != NOVA_VERSION) return "version";
	if (order != NOVA_BYTE_ORDER) return "byte order";
	if (slot_size < 16 || slot_size > 1u << 24 || (slot_size & (slot_size - 1))) return "slot size";
	if (slots < 4 || slots > 1u << 28 || (slots & (slots - 1))) return "slots";
	if (producers != 1 || (flags & NOVA_FLAG_MANY)) return "several producers";
	if (flags != (payload == 0 ? NOVA_FLAG_WIDE : 0)) return "flags";
	if (payload && payload + NOVA_NARROW_HEADER > slot_size) return "payload";
	if (at != nova_slots_at()) return "slots at";
	if (size < nova_segment_size(slot_size, slots)) return "truncated";
	nova_view(r, mem, slot_size, slots, payload);
	return 0;
}

/* --- producer --- */

struct nova_producer {
	struct nova_ring r;
	uint64_t pos, limit, high, seen;
	uint8_t tag;
	_Atomic uint64_t *attn;
	/* called when the consumer's attention word has changed */
	void (*notify)(struct nova_producer *, uint64_t attention);
};

static inline void nova_producer_init(struct nova_producer *p, const struct nova_ring *r, uint64_t start, uint8_t tag) {
	memset(p, 0, sizeof *p);
	p->r = *r;
	p->pos = p->limit = start;
	p->tag = tag;
	p->high = nova_high(tag, NOVA_DATA);
	p->attn = nova_word(r->base, NOVA_OFF_CONSUMER_ATTN);
	p->seen = atomic_load_explicit(p->attn, memory_order_acquire); /* SYNC: sleep */
}

/* nova_free loads the consumer's position; it answers the free slots, or -1
 * when the position cannot be. */
static inline int64_t nova_free(struct nova_producer *p) {
	uint64_t head = atomic_load_explicit(nova_word(p->r.base, NOVA_OFF_HEAD), memory_order_acquire); /* SYNC: head */
	if (p->pos - head > p->r.usable) return -1;
	p->limit = head + p->r.usable;
	return (int64_t)(p->limit - p->pos);
}

static inline void nova_look(struct nova_producer *p) {
	uint64_t a = atomic_load_explicit(p->attn, memory_order_acquire); /* SYNC: sleep */
	if (a == p->seen) return;
	p->seen = a;
	if (p->notify) p->notify(p, a);
}

/* nova_reserve answers the payload of the next slot, or 0 when the ring is full;
 * nova_publish commits it. Fixed payloads. */
static inline void *nova_reserve(struct nova_producer *p) {
	if (p->pos == p->limit && nova_free(p) <= 0) return 0;
	return nova_slot(&p->r, p->pos) + NOVA_NARROW_HEADER;
}

static inline void nova_publish(struct nova_producer *p) {
	atomic_store_explicit(nova_word(nova_slot(&p->r, p->pos), 0), nova_commit(p->pos, p->high), memory_order_release); /* SYNC: commit */
	p->pos++;
	nova_look(p);
}

static inline uint64_t nova_frame_slots(const struct nova_ring *r, uint64_t n) { return (n + NOVA_WIDE_HEADER + r->slot_size - 1) >> r->shift; }

static inline void nova_put_frame(struct nova_producer *p, uint64_t n, unsigned kind) {
	uint64_t next = p->pos + nova_frame_slots(&p->r, n);
	/* What lies there may look like a commit word; one slot stays free for this. */
	atomic_store_explicit(nova_word(nova_slot(&p->r, next), 0), 0, memory_order_relaxed);
	unsigned char *s = nova_slot(&p->r, p->pos);
	*(uint64_t *)(s + 8) = n;
	atomic_store_explicit(nova_word(s, 0), nova_commit(p->pos, nova_high(p->tag, kind)), memory_order_release); /* SYNC: commit */
	p->pos = next;
	nova_look(p);
}

/* nova_reserve_frame answers room for n bytes, contiguous, or 0 when there is
 * none now; nova_commit_frame publishes at most so many. Frames that vary. */
static inline void *nova_reserve_frame(struct nova_producer *p, uint64_t n) {
	uint64_t slots = nova_frame_slots(&p->r, n);
	for (;;) {
		uint64_t left = p->r.mask + 1 - (p->pos & p->r.mask), need = slots < left ? slots : left;
		if (p->limit - p->pos < need && nova_free(p) < (int64_t)need) return 0;
		if (need == slots) return nova_slot(&p->r, p->pos) + NOVA_WIDE_HEADER;
		nova_put_frame(p, (left << p->r.shift) - NOVA_WIDE_HEADER, NOVA_PAD);
	}
}

static inline void nova_commit_frame(struct nova_producer *p, uint64_t n) { nova_put_frame(p, n, NOVA_DATA); }

/* nova_end publishes the session's end, which needs no slot. */
static inline void nova_end(struct nova_producer *p, unsigned kind) {
	atomic_store_explicit(nova_word(p->r.base, NOVA_OFF_END), nova_commit(p->pos, nova_high(p->tag, kind)), memory_order_release); /* SYNC: end */
	nova_look(p);
}

/* --- consumer --- */

struct nova_consumer {
	struct nova_ring r;
	uint64_t pos, published, batch, high;
	uint8_t tag;
};

struct nova_frame {
	unsigned kind;
	bool more;
	const void *data;
	uint64_t length, slots;
};

static inline void nova_consumer_init(struct nova_consumer *c, const struct nova_ring *r, uint64_t start, uint8_t tag) {
	c->r = *r;
	c->pos = c->published = start;
	c->batch = (r->mask + 1) / 8 ? (r->mask + 1) / 8 : 1;
	c->tag = tag;
	c->high = nova_high(tag, NOVA_DATA);
	atomic_store_explicit(nova_word(r->base, NOVA_OFF_HEAD), start, memory_order_release); /* SYNC: head */
}

/* nova_settle gives the slots that were read back to the producer. */
static inline void nova_settle(struct nova_consumer *c) {
	if (c->published != c->pos) {
		c->published = c->pos;
		atomic_store_explicit(nova_word(c->r.base, NOVA_OFF_HEAD), c->pos, memory_order_release); /* SYNC: head */
	}
}

/* nova_peek answers the payload of the next Data slot, or 0; nova_release gives
 * it back. Fixed payloads. */
static inline const void *nova_peek(struct nova_consumer *c) {
	unsigned char *s = nova_slot(&c->r, c->pos);
	if (atomic_load_explicit(nova_word(s, 0), memory_order_acquire) != nova_commit(c->pos, c->high)) return 0; /* SYNC: commit */
	return s + NOVA_NARROW_HEADER;
}

static inline void nova_release(struct nova_consumer *c) {
	if (++c->pos - c->published >= c->batch) nova_settle(c);
}

/* nova_next reads the next frame of any kind, the end included: 1 when there is
 * one, 0 when there is none, -1 for what no honest producer writes. The frame is
 * valid until nova_pass. */
static inline int nova_next(struct nova_consumer *c, struct nova_frame *f) {
	for (;;) {
		unsigned char *s = nova_slot(&c->r, c->pos);
		uint64_t want = nova_commit(c->pos, nova_high(c->tag, 0));
		uint64_t w = atomic_load_explicit(nova_word(s, 0), memory_order_acquire); /* SYNC: commit */
		f->slots = 1;
		f->data = 0;
		f->length = 0;
		f->more = w & NOVA_FLAG_MORE;
		if ((w ^ want) & ~(NOVA_KIND_MASK | NOVA_FLAG_MASK)) {
			w = atomic_load_explicit(nova_word(c->r.base, NOVA_OFF_END), memory_order_acquire); /* SYNC: end */
			f->kind = (unsigned)((w & NOVA_KIND_MASK) >> NOVA_KIND_SHIFT);
			f->slots = 0;
			/* At the consumer's position, or before it. */
			return w >> NOVA_TAG_SHIFT == c->tag && ((c->pos + 1 - w) & NOVA_POS_MASK) < (NOVA_POS_MASK + 1) / 2 &&
			       f->kind >= NOVA_DETACHED && f->kind <= NOVA_DROPPED;
		}
		f->kind = (unsigned)((w & NOVA_KIND_MASK) >> NOVA_KIND_SHIFT);
		if (f->kind == 0 || f->kind > NOVA_PAD || (f->kind >= NOVA_DETACHED && f->kind <= NOVA_DROPPED)) return -1;
		if (c->r.wide) {
			f->length = *(volatile uint64_t *)(s + 8) & NOVA_LENGTH_MASK;
			f->slots = nova_frame_slots(&c->r, f->length);
			if (f->slots > c->r.mask + 1 - (c->pos & c->r.mask)) return -1;
			f->data = s + NOVA_WIDE_HEADER;
		} else if (f->kind == NOVA_SOFT_ERROR) {
			f->length = s[NOVA_NARROW_HEADER];
			f->data = s + NOVA_NARROW_HEADER + 1;
			if (f->length > c->r.slot_size - NOVA_NARROW_HEADER - 1) return -1;
		} else {
			f->length = c->r.payload;
			f->data = s + NOVA_NARROW_HEADER;
		}
		if (f->kind != NOVA_PAD && f->kind != NOVA_HEARTBEAT) return 1;
		c->pos += f->slots;
		nova_settle(c);
	}
}

static inline void nova_pass(struct nova_consumer *c, const struct nova_frame *f) {
	c->pos += f->slots;
	if (c->pos - c->published >= c->batch) nova_settle(c);
}

/* nova_arm tells the other side that this one is about to sleep as mode says (1:
 * on its wake word); mode 0 that it is awake. SYNC: sleep */
static inline void nova_arm(const struct nova_ring *r, uint64_t attn_offset, uint64_t mode) {
	_Atomic uint64_t *p = nova_word(r->base, attn_offset);
	uint64_t old = atomic_load(p), next;
	do {
		next = (((old >> NOVA_ATTN_SEQ_SHIFT) + 1) << NOVA_ATTN_SEQ_SHIFT) | (old & 0xff & ~NOVA_ATTN_MODE) | mode;
	} while (!atomic_compare_exchange_weak(p, &old, next));
}

#endif
