/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Who is at an address, as far as this node knows. For a packet's sender it is a hint only: proof is the mark's. */
#pragma once

#include "maps.h"

static __always_inline void peer_by_prefix(const struct addr *address, struct peer *peer)
{
	struct prefix_key key = { .length = 128, .address = *address };
	struct peer *found = bpf_map_lookup_elem(&prefixes, &key);

	if (found) {
		*peer = *found;
		return;
	}
	peer->identity = IDENTITY_WORLD;
	peer->kind = PEER_WORLD;
}

/* The node's end of the pod's link is the node; no other link-local IPv6 address is anybody's. */
static __always_inline bool peer_by_link(const struct addr *address, struct peer *peer)
{
	if (addr_is_gateway(address)) {
		peer->identity = IDENTITY_HOST;
		peer->kind = PEER_THIS_NODE;
		return true;
	}
	if (addr_is_ipv6_link_local(address)) {
		peer->identity = IDENTITY_ANY;
		peer->kind = PEER_POD_CIDR;
		return true;
	}
	return false;
}

/* Fills in `peer`; what no map knows is the world. */
SUBPROGRAM int peer_find(const struct addr *address, struct peer *peer)
{
	struct addr key;
	struct peer *found;

	if (!address || !peer)
		return -1;
	key = *address;
	found = bpf_map_lookup_elem(&peers, &key);
	if (found)
		*peer = *found;
	else if (!peer_by_link(&key, peer))
		peer_by_prefix(&key, peer);
	return 0;
}

static __always_inline bool peer_is_pod(const struct peer *peer)
{
	return peer->kind == PEER_LOCAL_POD || peer->kind == PEER_REMOTE_POD || peer->kind == PEER_POD_CIDR;
}

static __always_inline bool peer_is_cluster(const struct peer *peer)
{
	return peer->kind != PEER_WORLD;
}
