/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Later fragments have no ports: the first one's are kept for them, so that they find the same connection, verdict and
 * translation. A later fragment never opens a connection, and one that overtakes its first is dropped.
 */
#pragma once

#include "maps.h"
#include "packet.h"

#define FRAGMENT_DEFAULT_NS (30ULL * 1000000000) /* how long Linux waits for the rest (ipfrag_time) */

/* Remembers a first fragment's ports, or fills in a later one's. */
SUBPROGRAM enum drop_reason fragment_track(struct packet *packet, __u32 endpoint, __u32 direction)
{
	struct fragment_key key = {};
	struct config *settings = config_get();
	struct fragment_ports *ports;
	__u64 now;

	if (!packet || !settings)
		return FRAGMENT_WITHOUT_FIRST;
	now = bpf_ktime_get_coarse_ns();
	key.source = packet->source;
	key.destination = packet->destination;
	key.id = packet->fragment_id;
	key.endpoint = endpoint;
	key.protocol = packet->protocol;
	key.direction = direction;
	if (packet->flags & PACKET_FIRST_FRAGMENT) {
		struct fragment_ports first = {
			.source = packet->source_port,
			.destination = packet->destination_port,
			.expires_ns = now + (settings->fragment_ns ?: FRAGMENT_DEFAULT_NS),
		};

		/* Should this fail, the later fragments are dropped. */
		bpf_map_update_elem(&fragments, &key, &first, BPF_ANY);
		return FORWARDED;
	}
	ports = bpf_map_lookup_elem(&fragments, &key);
	if (!ports || ports->expires_ns < now)
		return FRAGMENT_WITHOUT_FIRST;
	packet->source_port = ports->source;
	packet->destination_port = ports->destination;
	return FORWARDED;
}
