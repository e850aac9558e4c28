/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What user space hears of a connection that was let through: that it began, goes on, ended. */
#pragma once

#include "conntrack.h"
#include "events.h"

/* New, end or periodic: what is known of a connection. */
/* Sends the event that tracking the packet made due. */
SUBPROGRAM int event_connection(const struct place *place, const struct endpoint *endpoint, const struct track *track)
{
	struct ct_entry *entry;
	struct event *event;
	struct ct_key key;
	__u32 unsaid = 0;
	bool egress, logged;

	if (!place || !endpoint || !track)
		return -1;
	key = track->key;
	entry = bpf_map_lookup_elem(&ct, &key);
	if (!entry)
		return -1;
	logged = track->event == EVENT_NEW && (place->flags & POLICY_LOG) && log_due(place->rule, &unsaid);
	event = event_reserve();
	if (!event)
		return -1;
	egress = entry->direction == DIRECTION_EGRESS;
	event->time_ns = bpf_ktime_get_ns();
	event->kind = track->event;
	event->direction = entry->direction;
	event->verdict = VERDICT_ALLOW;
	event->protocol = key.protocol;
	event->flags = logged ? EVENT_LOGGED : 0;
	event->unsaid = unsaid;
	event->tcp_flags = entry->tcp_flags[0] | entry->tcp_flags[1];
	event->endpoint = key.endpoint;
	event->ifindex = place->ifindex;
	event->rule = entry->rule;
	event->service = entry->service;
	event->source = addr_is_ipv4(&key.remote) ? endpoint->addr4 : endpoint->addr6;
	event->destination = event->source;
	if (egress)
		event->destination = key.remote;
	else
		event->source = key.remote;
	event->source_port = egress ? key.local_port : key.remote_port;
	event->destination_port = egress ? key.remote_port : key.local_port;
	event->source_identity = track->reply ? place->destination_identity : place->source_identity;
	event->destination_identity = track->reply ? place->source_identity : place->destination_identity;
	event->packets = entry->packets[0] + entry->packets[1];
	event->bytes = entry->bytes[0] + entry->bytes[1];
	if (track->event != EVENT_NEW && event->time_ns > entry->created_ns)
		event->duration_ns = event->time_ns - entry->created_ns;
	event_submit(event);
	return 0;
}
