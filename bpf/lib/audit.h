/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What audited policies would have denied of what passes: said in an event, and nothing else comes of it. They are asked
 * in sets of their own, after the decision, when a connection is judged; only endpoints that have such sets pay for it.
 */
#pragma once

#include "conntrack.h"
#include "events.h"

/* The event that the connection passed, by the direction in which it is opened, and what would have denied it. */
SUBPROGRAM int audit_say(const struct endpoint *endpoint, const struct packet *packet, const struct track *track,
			 const struct place *place, __u32 reason)
{
	bool egress;
	struct denial_key key = {};
	struct metric total = {};
	struct event *event;

	if (!endpoint || !packet || !track || !place)
		return 0;
	egress = track->judged == DIRECTION_EGRESS;
	metrics_count(AUDITED, track->judged, packet->length);
	key.endpoint = place->endpoint;
	key.remote = track->key.remote;
	key.port = egress ? track->key.remote_port : track->key.local_port;
	key.reason = AUDITED;
	key.direction = track->judged;
	if (!denial_due(&key, packet->length, &total))
		return 0;
	event = event_reserve();
	if (!event)
		return 0;
	event->time_ns = bpf_ktime_get_ns();
	event->kind = EVENT_AUDIT;
	event->direction = track->judged;
	event->verdict = VERDICT_ALLOW;
	event->reason = reason;
	event->protocol = track->key.protocol;
	event->tcp_flags = packet->tcp_flags;
	event->endpoint = place->endpoint;
	event->ifindex = place->ifindex;
	event->rule = track->query.rule;
	event->service = track->service;
	event->source = addr_is_ipv4(&track->key.remote) ? endpoint->addr4 : endpoint->addr6;
	event->destination = event->source;
	if (egress)
		event->destination = track->key.remote;
	else
		event->source = track->key.remote;
	event->source_port = egress ? track->key.local_port : track->key.remote_port;
	event->destination_port = egress ? track->key.remote_port : track->key.local_port;
	event->source_identity = track->reply ? place->destination_identity : place->source_identity;
	event->destination_identity = track->reply ? place->source_identity : place->destination_identity;
	event->packets = total.packets;
	event->bytes = total.bytes;
	event_submit(event);
	return 0;
}

/* Asks about a connection that was judged with this packet, and passes. */
SUBPROGRAM int audit(const struct endpoint *endpoint, const struct packet *packet, struct track *track,
		     const struct place *place)
{
	struct policy_query *query;
	struct endpoint_audit *sets;
	enum drop_reason reason;
	__u32 id;
	bool egress;

	if (!endpoint || !packet || !track || !place)
		return 0;
	id = endpoint->id;
	sets = bpf_map_lookup_elem(&audits, &id);
	if (!sets)
		return 0;
	egress = track->judged == DIRECTION_EGRESS;
	query = &track->query;
	__builtin_memset(query, 0, sizeof(*query));
	query->admin_set = egress ? sets->egress_admin_set : sets->ingress_admin_set;
	query->network_set = egress ? sets->egress_set : sets->ingress_set;
	query->mesh_set = egress ? sets->egress_mesh_set : sets->ingress_mesh_set;
	query->identity = track->identity;
	query->port = ct_policy_port(&track->key, egress);
	query->protocol = track->key.protocol;
	/* Where requests are read, a connection would be denied only if none of them would be allowed. */
	if (!egress && track->key.protocol == IPPROTO_TCP)
		query->request = REQUEST_LENIENT;
	if (egress && endpoint->names != 0)
		query->names = name_recall(endpoint->id, &track->key.remote, track->name);
	reason = policy_decide(query);
	if (reason == POLICY_DENIED || reason == POLICY_DENIED_EXPLICIT)
		audit_say(endpoint, packet, track, place, reason);
	return 0;
}

/* Asks where there is something to ask: after ct_track and ct_open have let the packet pass. */
static __always_inline void audit_if_judged(const struct endpoint *endpoint, const struct packet *packet,
					    struct track *track, const struct place *place)
{
	if (track->judged != 0 && (endpoint->flags & ENDPOINT_AUDITED))
		audit(endpoint, packet, track, place);
}
