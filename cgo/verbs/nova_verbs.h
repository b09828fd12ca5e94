// The C between package rdma/verbs and libibverbs: one call for each batch of
// posts and of completions, in the layouts of package rdma (SendWR, RecvWR,
// Completion). No function keeps a pointer that it was given.
//
// Functions return 0 or more, or an errno negated.
#ifndef NOVA_VERBS_H
#define NOVA_VERBS_H

#include <infiniband/verbs.h>
#include <stdint.h>

struct nova_send_wr {
	uint64_t id, remote, addr;
	uint32_t length, lkey, rkey, imm;
	uint8_t op, flags, pad[6];
};

struct nova_recv_wr {
	uint64_t id, addr;
	uint32_t length, lkey;
};

struct nova_completion {
	uint64_t id;
	uint32_t qp, bytes, imm;
	uint8_t op, status, has_imm, pad;
};

// What takes a queue pair from Init to RTS.
struct nova_path {
	uint32_t qpn, psn, local_psn;
	uint16_t lid;
	uint8_t port, gid_index, global, mtu, timeout, retry, rnr_retry, rnr_timer, reads;
	uint8_t gid[16];
};

struct nova_event {
	int type, port;    // the port of events of ports
	uint32_t qp;       // of events of queue pairs
	struct ibv_cq *cq; // of events of completion queues
};

int nova_open(const char *name, struct ibv_context **context);
int nova_query_port(struct ibv_context *context, int port, struct ibv_port_attr *attr);
int nova_gids(struct ibv_context *context, struct ibv_gid_entry *entries, int n);
int nova_reg(struct ibv_pd *pd, void *addr, size_t size, int write, int read, struct ibv_mr **mr);
int nova_create_cq(struct ibv_context *context, int depth, struct ibv_comp_channel **channel, struct ibv_cq **cq);
int nova_create_qp(struct ibv_pd *pd, struct ibv_cq *send, struct ibv_cq *recv, uint32_t max_send,
		   uint32_t max_recv, uint32_t max_inline, struct ibv_qp **qp);
int nova_init(struct ibv_qp *qp, int port);
int nova_connect(struct ibv_qp *qp, const struct nova_path *path);
int nova_abort(struct ibv_qp *qp);
int nova_state(struct ibv_qp *qp);

// How many of n are posted; with an error, in the upper 32 bits its errno.
uint64_t nova_post_send(struct ibv_qp *qp, const struct nova_send_wr *wrs, int n);
uint64_t nova_post_recv(struct ibv_qp *qp, const struct nova_recv_wr *wrs, int n);
int nova_poll(struct ibv_cq *cq, struct nova_completion *to, int n);

int nova_arm(struct ibv_cq *cq);
// Takes one event of a channel or a context, and acknowledges it.
int nova_cq_event(struct ibv_comp_channel *channel);
int nova_async_event(struct ibv_context *context, struct nova_event *event);

#endif
