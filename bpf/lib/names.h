/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What an endpoint was told by DNS: under which patterns of its policy it knows an address, and until when. Only the
 * world's addresses count: who can answer for a name can not so make a pod or a node of the cluster its own.
 */
#pragma once

#include "maps.h"
#include "peer.h"

#define NAME_DEFAULT_FLOOR_NS (60 * 1000000000ULL)
#define NAME_DEFAULT_CEILING_NS (86400 * 1000000000ULL)

static __always_inline bool name_is_world(const struct addr *address)
{
	struct peer peer = {};

	peer_find(address, &peer);
	return peer.kind == PEER_WORLD;
}

/*
 * Fills name_probes with the patterns under which the endpoint knows the address now, and with the one that its
 * connection was opened under (0: none), which holds for as long as the connection.
 * @returns How many.
 */
SUBPROGRAM int name_recall(__u32 endpoint, const struct addr *address, __u32 held)
{
	__u64 now = bpf_ktime_get_coarse_ns();
	struct name_key key = {};
	struct name_value *value;
	struct name_probe *probe;
	__u32 zero = 0;
	__u32 count = 0;

	if (!address)
		return 0;
	key.endpoint = endpoint;
	key.address = *address;
	value = bpf_map_lookup_elem(&names, &key);
	if (!value && held == 0)
		return 0;
	probe = bpf_map_lookup_elem(&name_probes, &zero);
	if (!probe || !name_is_world(address))
		return 0;
	if (held != 0)
		probe->patterns[count++] = held;
	if (!value)
		return count;
	for (__u32 i = 0; i < NAME_PATTERNS; i++) {
		if (value->patterns[i] == 0 || value->expires_ns[i] < now)
			continue;
		if (count <= NAME_PATTERNS)
			probe->patterns[count] = value->patterns[i];
		count++;
	}
	return count;
}

/* Adds a pattern to what is known of an address, or keeps it for longer. @returns Whether there was room. */
static __always_inline bool name_add(struct name_value *value, __u32 pattern, __u64 now, __u64 expires)
{
	for (__u32 i = 0; i < NAME_PATTERNS; i++) {
		if (value->patterns[i] != pattern)
			continue;
		if (value->expires_ns[i] < expires)
			value->expires_ns[i] = expires;
		return true;
	}
	for (__u32 i = 0; i < NAME_PATTERNS; i++) {
		__u32 old = value->patterns[i];

		if (old != 0 && value->expires_ns[i] >= now)
			continue;
		/* Another CPU may learn the same address from another answer. */
		if (__sync_val_compare_and_swap(&value->patterns[i], old, pattern) != old)
			continue;
		value->expires_ns[i] = expires;
		return true;
	}
	return false;
}
