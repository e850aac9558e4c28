/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * ClusterIP services: which backend a packet to a service goes to. A connection keeps its backend for as long as its
 * connection-tracking entry lives; every new one draws a backend at random, without affinity, so the load is even.
 */
#pragma once

#include "maps.h"
#include "packet.h"

struct service_choice {
	struct service_end end;
	__u32 flags;	  /* SERVICE_FLOW_* */
	__u32 service;	  /* 0: the destination is not a service */
	__u32 pad;
	__u64 expires_ns; /* of the flow that remembered it, 0: just drawn */
};

/* Draws a backend for the packet's destination. FORWARDED with choice->service 0 where that is no service. */
SUBPROGRAM enum drop_reason service_draw(const struct packet *packet, struct service_choice *choice)
{
	struct service_key key = {};
	struct backend_key slot = {};
	struct service_end *backend;
	struct service *service;
	__u32 count;

	if (!packet || !choice)
		return NO_SERVICE_BACKEND;
	key.address = packet->destination;
	key.port = packet->destination_port;
	key.protocol = packet->protocol;
	service = bpf_map_lookup_elem(&services, &key);
	choice->service = 0;
	choice->flags = 0;
	choice->expires_ns = 0;
	if (!service)
		return FORWARDED;
	count = service->count;
	if (count == 0)
		return NO_SERVICE_BACKEND;
	slot.service = service->id;
	slot.slot = bpf_get_prandom_u32() % count;
	backend = bpf_map_lookup_elem(&backends, &slot);
	if (!backend)
		return NO_SERVICE_BACKEND;
	choice->end = *backend;
	choice->service = service->id;
	return FORWARDED;
}

/* The key of the service flow of a packet that leaves the pod for a service. */
static __always_inline void service_flow_key(struct ct_key *key, __u32 endpoint, const struct packet *packet)
{
	key->endpoint = endpoint;
	key->local_port = packet->source_port;
	key->remote_port = packet->destination_port;
	key->remote = packet->destination;
	key->protocol = packet->protocol;
}

/* @returns Whether the packet's flow has its backend already; then `choice` is it. */
static __always_inline bool service_recall(const struct ct_key *key, struct service_choice *choice)
{
	struct service_flow *flow = bpf_map_lookup_elem(&service_flows, key);

	if (!flow || flow->expires_ns < bpf_ktime_get_coarse_ns())
		return false;
	choice->end.address = flow->address;
	choice->end.port = flow->port;
	choice->flags = flow->flags;
	choice->service = flow->service;
	choice->expires_ns = flow->expires_ns;
	return true;
}

/* Keeps the choice for as long as the connection is kept, to a second. */
static __always_inline bool service_remember(const struct ct_key *key, const struct service_choice *choice,
					     __u64 expires_ns)
{
	__s64 longer = expires_ns - choice->expires_ns;

	if (choice->expires_ns != 0 && longer < 1000000000LL && longer > -1000000000LL)
		return true;

	struct service_flow flow = {
		.address = choice->end.address,
		.port = choice->end.port,
		.flags = choice->flags,
		.service = choice->service,
		.expires_ns = expires_ns,
	};
	return bpf_map_update_elem(&service_flows, key, &flow, BPF_ANY) == 0;
}
