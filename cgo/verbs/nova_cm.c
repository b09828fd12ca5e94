//go:build verbs && cgo && linux

#include "nova_cm.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

static int result(int rc) { return rc ? (errno ? -errno : -EIO) : 0; }

static struct sockaddr *sockaddr(const struct nova_cm_addr *a, struct sockaddr_storage *to) {
	memset(to, 0, sizeof *to);
	if (a->family == 4) {
		struct sockaddr_in *in = (struct sockaddr_in *)to;
		in->sin_family = AF_INET;
		in->sin_port = htons(a->port);
		memcpy(&in->sin_addr, a->ip, 4);
	} else if (a->family == 6) {
		struct sockaddr_in6 *in = (struct sockaddr_in6 *)to;
		in->sin6_family = AF_INET6;
		in->sin6_port = htons(a->port);
		in->sin6_scope_id = a->scope;
		memcpy(&in->sin6_addr, a->ip, 16);
	} else {
		return NULL;
	}
	return (struct sockaddr *)to;
}

int nova_cm_channel(struct rdma_event_channel **channel) {
	errno = 0;
	*channel = rdma_create_event_channel();
	return result(!*channel);
}

int nova_cm_id(struct rdma_event_channel *channel, struct rdma_cm_id **id) {
	errno = 0;
	return result(rdma_create_id(channel, id, NULL, RDMA_PS_TCP));
}

int nova_cm_listen(struct rdma_cm_id *id, const struct nova_cm_addr *addr) {
	struct sockaddr_storage at;
	errno = 0;
	if (rdma_bind_addr(id, sockaddr(addr, &at)))
		return result(-1);
	return result(rdma_listen(id, 128));
}

int nova_cm_resolve(struct rdma_cm_id *id, const struct nova_cm_addr *from, const struct nova_cm_addr *to, int ms) {
	struct sockaddr_storage src, dst;
	errno = 0;
	return result(rdma_resolve_addr(id, sockaddr(from, &src), sockaddr(to, &dst), ms));
}

int nova_cm_route(struct rdma_cm_id *id, int ms) {
	errno = 0;
	return result(rdma_resolve_route(id, ms));
}

static struct rdma_conn_param param(const struct nova_cm_param *p, const void *data, int n) {
	return (struct rdma_conn_param){
		.private_data = data,
		.private_data_len = n,
		.responder_resources = p->reads,
		.initiator_depth = p->reads,
		.retry_count = p->retry,
		.rnr_retry_count = p->rnr_retry,
		.qp_num = p->qpn,
	};
}

int nova_cm_connect(struct rdma_cm_id *id, const struct nova_cm_param *p, const void *data, int n) {
	struct rdma_conn_param conn = param(p, data, n);
	errno = 0;
	return result(rdma_connect(id, &conn));
}

int nova_cm_accept(struct rdma_cm_id *id, const struct nova_cm_param *p, const void *data, int n) {
	struct rdma_conn_param conn = param(p, data, n);
	errno = 0;
	return result(rdma_accept(id, &conn));
}

int nova_cm_reject(struct rdma_cm_id *id, const void *data, int n) {
	errno = 0;
	return result(rdma_reject(id, data, n));
}

// Bits that rdma_ucm sets for its own use and that no user may pass on.
enum { PRIVATE_BITS = 0xe00000 };

int nova_cm_ready(struct rdma_cm_id *id, struct ibv_qp *qp, const struct nova_cm_param *p) {
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_RTR };
	int mask, rc;
	errno = 0;
	if (rdma_init_qp_attr(id, &attr, &mask))
		return result(-1);
	if (p->mtu > attr.path_mtu)
		return -EMSGSIZE;
	if (p->mtu)
		attr.path_mtu = p->mtu;
	attr.min_rnr_timer = p->rnr_timer;
	rc = ibv_modify_qp(qp, &attr, (mask & ~PRIVATE_BITS) | IBV_QP_MIN_RNR_TIMER);
	if (rc)
		return -rc;
	attr = (struct ibv_qp_attr){ .qp_state = IBV_QPS_RTS };
	if (rdma_init_qp_attr(id, &attr, &mask))
		return result(-1);
	attr.timeout = p->timeout;
	attr.retry_cnt = p->retry;
	attr.rnr_retry = p->rnr_retry;
	return -ibv_modify_qp(qp, &attr, mask & ~PRIVATE_BITS);
}

int nova_cm_establish(struct rdma_cm_id *id) {
	errno = 0;
	return result(rdma_establish(id));
}

int nova_cm_disconnect(struct rdma_cm_id *id) {
	errno = 0;
	return result(rdma_disconnect(id));
}

int nova_cm_migrate(struct rdma_cm_id *id, struct rdma_event_channel *channel) {
	errno = 0;
	return result(rdma_migrate_id(id, channel));
}

int nova_cm_destroy(struct rdma_cm_id *id) {
	errno = 0;
	return result(rdma_destroy_id(id));
}

int nova_cm_event(struct rdma_event_channel *channel, struct nova_cm_event *to) {
	struct rdma_cm_event *event;
	errno = 0;
	if (rdma_get_cm_event(channel, &event))
		return result(-1);
	*to = (struct nova_cm_event){ .id = event->id, .type = event->event, .status = event->status };
	const struct rdma_conn_param *conn = &event->param.conn;
	switch (event->event) {
	case RDMA_CM_EVENT_CONNECT_REQUEST:
	case RDMA_CM_EVENT_CONNECT_RESPONSE:
	case RDMA_CM_EVENT_REJECTED:
		to->reads = conn->responder_resources < conn->initiator_depth ? conn->responder_resources : conn->initiator_depth;
		if (!conn->private_data)
			break;
		to->size = conn->private_data_len < NOVA_CM_DATA ? conn->private_data_len : NOVA_CM_DATA;
		memcpy(to->data, conn->private_data, to->size);
		break;
	default:
		break;
	}
	rdma_ack_cm_event(event);
	return 0;
}
