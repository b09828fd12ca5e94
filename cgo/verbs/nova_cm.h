// The C between package rdma/verbs and librdmacm. Identifiers of it carry no queue
// pair: those are the provider's own, in its own protection domain, which
// librdmacm, having opened the device for itself, could not use.
//
// Functions return 0 or more, or an errno negated, and keep no pointer.
#ifndef NOVA_CM_H
#define NOVA_CM_H

#include <rdma/rdma_cma.h>
#include <stdint.h>

enum { NOVA_CM_DATA = 56 }; // private data that every message has room for

// An IPv4 address is the first 4 bytes of ip. A family of 0 is no address.
struct nova_cm_addr {
	uint8_t family, ip[16]; // 4 or 6
	uint16_t port;
	uint32_t scope;
};

// What a connection asks of the queue pair, in the encodings of verbs. An mtu of 0
// is the path's.
struct nova_cm_param {
	uint32_t qpn;
	uint8_t reads, timeout, retry, rnr_retry, rnr_timer, mtu;
};

struct nova_cm_event {
	struct rdma_cm_id *id;
	int type, status;
	uint8_t reads, size, data[NOVA_CM_DATA];
};

int nova_cm_channel(struct rdma_event_channel **channel);
int nova_cm_id(struct rdma_event_channel *channel, struct rdma_cm_id **id);
int nova_cm_listen(struct rdma_cm_id *id, const struct nova_cm_addr *addr);
int nova_cm_resolve(struct rdma_cm_id *id, const struct nova_cm_addr *from, const struct nova_cm_addr *to, int ms);
int nova_cm_route(struct rdma_cm_id *id, int ms);
int nova_cm_connect(struct rdma_cm_id *id, const struct nova_cm_param *p, const void *data, int n);
int nova_cm_accept(struct rdma_cm_id *id, const struct nova_cm_param *p, const void *data, int n);
int nova_cm_reject(struct rdma_cm_id *id, const void *data, int n);
// Takes a queue pair from Init to RTS; -EMSGSIZE when the path's MTU is smaller than
// the one asked for.
int nova_cm_ready(struct rdma_cm_id *id, struct ibv_qp *qp, const struct nova_cm_param *p);
int nova_cm_establish(struct rdma_cm_id *id);
int nova_cm_disconnect(struct rdma_cm_id *id);
int nova_cm_migrate(struct rdma_cm_id *id, struct rdma_event_channel *channel);
int nova_cm_destroy(struct rdma_cm_id *id);
// Takes one event and acknowledges it.
int nova_cm_event(struct rdma_event_channel *channel, struct nova_cm_event *event);

#endif
