/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * A pod that reaches itself through its service. With its own address at both ends the answer would never leave it, so
 * the packet comes from the service's address instead:
 *
 *   pod:client → service:port    becomes   service:client → pod:target
 *   pod:target → service:client  becomes   service:port → pod:client
 *
 * So the pod has two connections with the service's address, one for each half, both exempt from policy (a pod reaches
 * itself always). Where all three ports are one, the halves cannot be told apart: SERVICE_CONFLICT.
 */
#pragma once

#include "conntrack.h"
#include "route.h"
#include "service.h"
#include "translate.h"

/* Makes the half that to_pod will find when the packet comes in: a connection from the service's address. */
static __always_inline bool hairpin_expect(const struct ct_key *key, const struct track *client)
{
	struct config *settings = config_get();
	struct ct_entry entry = {
		.expires_ns = client->expires_ns,
		.created_ns = bpf_ktime_get_coarse_ns(),
		.rule = RULE_SELF,
		.remote_identity = client->identity,
		.direction = DIRECTION_INGRESS,
		.state = CT_OPENING,
		.flags = CT_EXEMPT | CT_REMOTE_POD,
	};

	if (client->event != EVENT_NEW && bpf_map_lookup_elem(&ct, key))
		return true;
	entry.last_report_ns = entry.created_ns;
	if (settings)
		entry.revision = settings->revision;
	return bpf_map_update_elem(&ct, key, &entry, BPF_ANY) == 0;
}

/* Notes both halves of a hairpin whose client's packet was let through. */
SUBPROGRAM enum drop_reason hairpin_prepare(const struct packet *packet, const struct route *route)
{
	struct service_choice other = {};
	struct ct_key client, server;

	if (!packet || !route)
		return CT_INVALID;
	client = route->track.key;
	server = client;
	server.local_port = route->choice.end.port;
	server.remote_port = packet->source_port;
	if (server.local_port == client.local_port && server.remote_port == client.remote_port)
		return SERVICE_CONFLICT;
	if (!hairpin_expect(&server, &route->track))
		return CT_FULL;
	other.end.address = packet->destination;
	other.end.port = packet->destination_port;
	other.flags = SERVICE_FLOW_HAIRPIN_REPLY;
	other.service = route->choice.service;
	other.expires_ns = route->choice.expires_ns;
	if (!service_remember(&server, &other, route->track.expires_ns) ||
	    !service_remember(&client, &route->choice, route->track.expires_ns))
		return CT_FULL;
	return FORWARDED;
}

/*
 * Turns either half around. The choice is the pod itself for a request, the service for a reply; in both the packet
 * comes from the service's address and goes to the pod's, and the port that is not the choice's stays.
 */
static __always_inline enum drop_reason hairpin_turn(struct __sk_buff *skb, struct packet *packet, struct route *route)
{
	bool request = route->mode == ROUTE_HAIRPIN_REQUEST;
	struct addr pod = packet->source;
	struct addr service = packet->destination;
	__be16 source_port = request ? packet->source_port : route->choice.end.port;
	__be16 destination_port = request ? route->choice.end.port : packet->destination_port;
	enum drop_reason reason = translate(skb, packet, &service, source_port, TRANSLATE_SOURCE);

	if (reason)
		return reason;
	return translate(skb, packet, &pod, destination_port, TRANSLATE_DESTINATION);
}
