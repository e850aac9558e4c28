/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Where a pod's packet is to go: the peer at its destination, or behind its service.
 *
 * A service's backend is drawn when a connection opens and kept for as long as the connection lives. It is drawn anew
 * for a new connection from the port of an old one, and where it is a pod that is no more.
 */
#pragma once

#include "conntrack.h"
#include "peer.h"
#include "service.h"

enum route_mode {
	ROUTE_PLAIN = 0,
	ROUTE_SERVICE = 1,         /* the destination becomes the choice */
	ROUTE_HAIRPIN_REQUEST = 2, /* the choice is the pod itself */
	ROUTE_HAIRPIN_REPLY = 3,   /* the choice is the service, whom the pod answers as its own client */
};

struct route {
	struct track track;
	struct service_choice choice;
	struct peer peer;
	__u32 mode;
	__u32 pad;
};

/* Whether a packet without a live connection may go to a newly drawn backend: TCP may not in the middle of a stream. */
static __always_inline bool route_may_redraw(const struct packet *packet)
{
	if (packet->flags & PACKET_LATER_FRAGMENT)
		return false;
	return packet->protocol != IPPROTO_TCP || ct_is_syn(packet);
}

static __always_inline bool route_is_connected(const struct ct_key *key, const struct packet *packet)
{
	struct ct_entry *entry = bpf_map_lookup_elem(&ct, key);

	return entry && ct_is_live(entry, packet, DIRECTION_EGRESS, bpf_ktime_get_coarse_ns());
}

/* Points the connection's key at the backend, but for a hairpin, whose connection is with the service's address. */
static __always_inline void route_choose(struct ct_key *key, const struct service_choice *choice,
					 const struct packet *packet, __u32 *mode)
{
	if (addr_equal(&choice->end.address, &packet->source)) {
		*mode = ROUTE_HAIRPIN_REQUEST;
		return;
	}
	*mode = ROUTE_SERVICE;
	key->remote = choice->end.address;
	key->remote_port = choice->end.port;
}

/* The packet is for a service, or for nobody that `peers` knows. */
static __always_inline enum drop_reason route_service(const struct packet *packet, const struct ct_key *front,
						      struct route *route)
{
	struct ct_key key = *front;
	enum drop_reason reason;

	if (!service_recall(front, &route->choice)) {
		reason = service_draw(packet, &route->choice);
		if (reason || route->choice.service == 0)
			return reason;
		route_choose(&route->track.key, &route->choice, packet, &route->mode);
		return FORWARDED;
	}
	if (route->choice.flags & SERVICE_FLOW_HAIRPIN_REPLY) {
		route->mode = ROUTE_HAIRPIN_REPLY;
		return FORWARDED;
	}
	route_choose(&key, &route->choice, packet, &route->mode);
	if (route_may_redraw(packet)) {
		struct peer *backend = bpf_map_lookup_elem(&peers, &key.remote);

		if (!route_is_connected(&key, packet) || (route->mode == ROUTE_SERVICE && !backend)) {
			reason = service_draw(packet, &route->choice);
			if (reason)
				return reason;
			if (route->choice.service == 0)
				return NO_SERVICE_BACKEND;
		}
	}
	route_choose(&route->track.key, &route->choice, packet, &route->mode);
	return FORWARDED;
}

static __always_inline enum drop_reason route_unreachable(const struct peer *peer)
{
	if (peer->kind == PEER_POD_CIDR)
		return UNKNOWN_PEER;
	if (peer->kind == PEER_SERVICE_CIDR)
		return NO_SERVICE_BACKEND;
	return FORWARDED;
}

/* Fills in `route` for a packet of the endpoint, up to the question to connection tracking. */
SUBPROGRAM enum drop_reason route_find(const struct endpoint *endpoint, const struct packet *packet,
				       struct route *route)
{
	struct ct_key front = {};
	enum drop_reason reason;
	struct peer *known;

	if (!endpoint || !packet || !route)
		return UNKNOWN_PEER;
	service_flow_key(&front, endpoint->id, packet);
	route->track.key = front;
	route->track.flags = endpoint->flags & ENDPOINT_READY ? 0 : TRACK_NOT_READY;
	known = bpf_map_lookup_elem(&peers, &front.remote);
	if (known) {
		route->peer = *known;
	} else {
		reason = route_service(packet, &front, route);
		if (reason)
			return reason;
	}
	if (route->mode == ROUTE_HAIRPIN_REQUEST || route->mode == ROUTE_HAIRPIN_REPLY) {
		route->peer.kind = PEER_LOCAL_POD;
		route->peer.identity = packet->family == 4 ? endpoint->identity4 : endpoint->identity6;
		route->track.flags |= TRACK_EXEMPT | TRACK_SELF;
	} else if (!known) {
		peer_find(&route->track.key.remote, &route->peer);
	}
	if (peer_is_pod(&route->peer))
		route->track.flags |= TRACK_REMOTE_POD;
	if (addr_equal(&packet->destination, &packet->source))
		route->track.flags |= TRACK_EXEMPT | TRACK_SELF;
	if (route->mode == ROUTE_SERVICE || route->mode == ROUTE_HAIRPIN_REQUEST)
		route->track.service = route->choice.service;
	route->track.identity = route->peer.identity;
	return route_unreachable(&route->peer);
}

/* Keeps the backend of a packet that was let through. Done before the packet is translated. */
SUBPROGRAM int route_remember(const struct packet *packet, const struct route *route)
{
	struct ct_key front = {};

	if (!packet || !route)
		return 0;
	service_flow_key(&front, route->track.key.endpoint, packet);
	return service_remember(&front, &route->choice, route->track.expires_ns);
}
