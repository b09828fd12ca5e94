//go:build verbs && cgo && linux

#include "nova_verbs.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

// As in rdma/work.go.
enum { OP_WRITE = 1, OP_WRITE_IMM, OP_SEND, OP_READ, OP_RECV, OP_RECV_WRITE };
enum { FLAG_SIGNALED = 1, FLAG_INLINE = 2, FLAG_FENCE = 4 };

_Static_assert(sizeof(struct nova_send_wr) == 48 && offsetof(struct nova_send_wr, op) == 40, "rdma.SendWR");
_Static_assert(sizeof(struct nova_recv_wr) == 24, "rdma.RecvWR");
_Static_assert(sizeof(struct nova_completion) == 24 && offsetof(struct nova_completion, op) == 20, "rdma.Completion");

// Work requests that are handed to the library together, and completions that are
// taken from it together.
enum { CHUNK = 64 };

static int negated(int otherwise) { return errno ? -errno : -otherwise; }

int nova_open(const char *name, struct ibv_context **context) {
	int n, rc = -ENODEV;
	errno = 0;
	struct ibv_device **list = ibv_get_device_list(&n);
	if (!list)
		return negated(ENOSYS);
	for (int i = 0; i < n; i++) {
		if (strcmp(ibv_get_device_name(list[i]), name))
			continue;
		errno = 0;
		*context = ibv_open_device(list[i]);
		rc = *context ? 0 : negated(EIO);
		break;
	}
	ibv_free_device_list(list);
	return rc;
}

// A macro of the library, which Go cannot call.
int nova_query_port(struct ibv_context *context, int port, struct ibv_port_attr *attr) {
	return ibv_query_port(context, port, attr);
}

int nova_gids(struct ibv_context *context, struct ibv_gid_entry *entries, int n) {
	return ibv_query_gid_table(context, entries, n, 0);
}

int nova_reg(struct ibv_pd *pd, void *addr, size_t size, int write, int read, struct ibv_mr **mr) {
	int access = IBV_ACCESS_LOCAL_WRITE;
	if (write)
		access |= IBV_ACCESS_REMOTE_WRITE;
	if (read)
		access |= IBV_ACCESS_REMOTE_READ;
	errno = 0;
	*mr = ibv_reg_mr(pd, addr, size, access);
	return *mr ? 0 : negated(ENOMEM);
}

int nova_create_cq(struct ibv_context *context, int depth, struct ibv_comp_channel **channel, struct ibv_cq **cq) {
	errno = 0;
	*channel = ibv_create_comp_channel(context);
	if (!*channel)
		return negated(ENOMEM);
	*cq = ibv_create_cq(context, depth, NULL, *channel, 0);
	if (*cq)
		return 0;
	int rc = negated(ENOMEM);
	ibv_destroy_comp_channel(*channel);
	return rc;
}

int nova_create_qp(struct ibv_pd *pd, struct ibv_cq *send, struct ibv_cq *recv, uint32_t max_send,
		   uint32_t max_recv, uint32_t max_inline, struct ibv_qp **qp) {
	struct ibv_qp_init_attr attr = {
		.send_cq = send,
		.recv_cq = recv,
		.qp_type = IBV_QPT_RC,
		.cap = { max_send, max_recv, 1, 1, max_inline },
	};
	errno = 0;
	*qp = ibv_create_qp(pd, &attr);
	return *qp ? 0 : negated(ENOMEM);
}

int nova_init(struct ibv_qp *qp, int port) {
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_INIT,
		.port_num = port,
		.qp_access_flags = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ,
	};
	return -ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);
}

int nova_connect(struct ibv_qp *qp, const struct nova_path *p) {
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_RTR,
		.path_mtu = p->mtu,
		.dest_qp_num = p->qpn,
		.rq_psn = p->psn,
		.max_dest_rd_atomic = p->reads,
		.min_rnr_timer = p->rnr_timer,
		.ah_attr = { .dlid = p->lid, .port_num = p->port, .is_global = p->global },
	};
	if (p->global) {
		memcpy(attr.ah_attr.grh.dgid.raw, p->gid, 16);
		attr.ah_attr.grh.sgid_index = p->gid_index;
		attr.ah_attr.grh.hop_limit = 64;
	}
	int rc = ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN |
		IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);
	if (rc)
		return -rc;
	attr = (struct ibv_qp_attr){
		.qp_state = IBV_QPS_RTS,
		.timeout = p->timeout,
		.retry_cnt = p->retry,
		.rnr_retry = p->rnr_retry,
		.sq_psn = p->local_psn,
		.max_rd_atomic = p->reads,
	};
	return -ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
		IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC);
}

int nova_abort(struct ibv_qp *qp) {
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_ERR };
	return -ibv_modify_qp(qp, &attr, IBV_QP_STATE);
}

int nova_state(struct ibv_qp *qp) {
	struct ibv_qp_attr attr;
	struct ibv_qp_init_attr init;
	int rc = ibv_query_qp(qp, &attr, IBV_QP_STATE, &init);
	return rc ? -rc : (int)attr.qp_state;
}

uint64_t nova_post_send(struct ibv_qp *qp, const struct nova_send_wr *in, int n) {
	static const enum ibv_wr_opcode codes[] = {
		[OP_WRITE] = IBV_WR_RDMA_WRITE,
		[OP_WRITE_IMM] = IBV_WR_RDMA_WRITE_WITH_IMM,
		[OP_SEND] = IBV_WR_SEND,
		[OP_READ] = IBV_WR_RDMA_READ,
	};
	struct ibv_send_wr wrs[CHUNK], *bad = wrs;
	struct ibv_sge sges[CHUNK];
	int done = 0;
	while (done < n) {
		int k = n - done < CHUNK ? n - done : CHUNK;
		for (int i = 0; i < k; i++) {
			const struct nova_send_wr *w = &in[done + i];
			sges[i] = (struct ibv_sge){ w->addr, w->length, w->lkey };
			wrs[i] = (struct ibv_send_wr){
				.wr_id = w->id,
				.next = i + 1 < k ? &wrs[i + 1] : NULL,
				.sg_list = &sges[i],
				.num_sge = w->length != 0,
				.opcode = codes[w->op],
				.send_flags = (w->flags & FLAG_SIGNALED ? IBV_SEND_SIGNALED : 0) |
					(w->flags & FLAG_INLINE ? IBV_SEND_INLINE : 0) |
					(w->flags & FLAG_FENCE ? IBV_SEND_FENCE : 0),
				.imm_data = htonl(w->imm),
				.wr.rdma = { w->remote, w->rkey },
			};
		}
		int rc = ibv_post_send(qp, wrs, &bad);
		if (rc)
			return (uint64_t)rc << 32 | (uint32_t)(done + (bad - wrs));
		done += k;
	}
	return done;
}

uint64_t nova_post_recv(struct ibv_qp *qp, const struct nova_recv_wr *in, int n) {
	struct ibv_recv_wr wrs[CHUNK], *bad = wrs;
	struct ibv_sge sges[CHUNK];
	int done = 0;
	while (done < n) {
		int k = n - done < CHUNK ? n - done : CHUNK;
		for (int i = 0; i < k; i++) {
			const struct nova_recv_wr *w = &in[done + i];
			sges[i] = (struct ibv_sge){ w->addr, w->length, w->lkey };
			wrs[i] = (struct ibv_recv_wr){ w->id, i + 1 < k ? &wrs[i + 1] : NULL, &sges[i], w->length != 0 };
		}
		int rc = ibv_post_recv(qp, wrs, &bad);
		if (rc)
			return (uint64_t)rc << 32 | (uint32_t)(done + (bad - wrs));
		done += k;
	}
	return done;
}

int nova_poll(struct ibv_cq *cq, struct nova_completion *to, int n) {
	struct ibv_wc wcs[CHUNK];
	int done = 0;
	while (done < n) {
		int want = n - done < CHUNK ? n - done : CHUNK;
		int k = ibv_poll_cq(cq, want, wcs);
		if (k < 0)
			return done ? done : -EIO;
		for (int i = 0; i < k; i++) {
			const struct ibv_wc *wc = &wcs[i];
			struct nova_completion *c = &to[done + i];
			*c = (struct nova_completion){ .id = wc->wr_id, .qp = wc->qp_num, .status = wc->status };
			if (wc->status != IBV_WC_SUCCESS)
				continue;
			switch (wc->opcode) {
			case IBV_WC_RDMA_WRITE: c->op = OP_WRITE; break;
			case IBV_WC_SEND: c->op = OP_SEND; break;
			case IBV_WC_RDMA_READ: c->op = OP_READ; c->bytes = wc->byte_len; break;
			case IBV_WC_RECV: c->op = OP_RECV; c->bytes = wc->byte_len; break;
			case IBV_WC_RECV_RDMA_WITH_IMM: c->op = OP_RECV_WRITE; c->bytes = wc->byte_len; break;
			default: break;
			}
			if (wc->wc_flags & IBV_WC_WITH_IMM) {
				c->has_imm = 1;
				c->imm = ntohl(wc->imm_data);
			}
		}
		done += k;
		if (k < want)
			break;
	}
	return done;
}

int nova_arm(struct ibv_cq *cq) { return -ibv_req_notify_cq(cq, 0); }

int nova_cq_event(struct ibv_comp_channel *channel) {
	struct ibv_cq *cq;
	void *context;
	errno = 0;
	if (ibv_get_cq_event(channel, &cq, &context))
		return negated(EIO);
	ibv_ack_cq_events(cq, 1);
	return 0;
}

int nova_async_event(struct ibv_context *context, struct nova_event *to) {
	struct ibv_async_event event;
	errno = 0;
	if (ibv_get_async_event(context, &event))
		return negated(EIO);
	*to = (struct nova_event){ .type = event.event_type };
	switch (event.event_type) {
	case IBV_EVENT_QP_FATAL:
	case IBV_EVENT_QP_REQ_ERR:
	case IBV_EVENT_QP_ACCESS_ERR:
	case IBV_EVENT_COMM_EST:
	case IBV_EVENT_SQ_DRAINED:
	case IBV_EVENT_PATH_MIG:
	case IBV_EVENT_PATH_MIG_ERR:
	case IBV_EVENT_QP_LAST_WQE_REACHED:
		to->qp = event.element.qp->qp_num;
		break;
	case IBV_EVENT_PORT_ACTIVE:
	case IBV_EVENT_PORT_ERR:
		to->port = event.element.port_num;
		break;
	case IBV_EVENT_CQ_ERR:
		to->cq = event.element.cq;
		break;
	default:
		break;
	}
	ibv_ack_async_event(&event);
	return 0;
}
