/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Whom to tell of what policy denied, and by which way. The options are those of the rule, or of the isolation, that
 * denied. Told is who sent the packet (POLICY_REJECT), or both ends of a connection that was admitted (POLICY_RESET).
 *
 * Only who has proved who it is is answered: the pod whose interface this is, or a pod whose packet came here; and the world,
 * by the way that its packet came. What is said to both ends goes to the farther one as if the pod at this interface had sent it, through from_pod, which finds
 * the connection and all that a packet of it needs on its way (translation, tunnel, the world).
 *
 * Of a connection that goes by way of the proxy, the farther end is the proxy: it ends its other connection then.
 */
#pragma once

#include "conntrack.h"
#include "deliver.h"
#include "proxy.h"
#include "reply.h"

/* Whether the connection of the packet was admitted and both of its ends are to be told that it is over. */
static __always_inline bool refuse_resets(const struct place *place, __u32 reason, bool found)
{
	return found && (reason == HTTP_UNREAD || (place->flags & POLICY_RESET));
}

static __always_inline bool refuse_tells(const struct place *place, __u32 reason, bool found)
{
	if (reason != POLICY_DENIED && reason != POLICY_DENIED_EXPLICIT && reason != HTTP_UNREAD)
		return false;
	return (place->flags & POLICY_REJECT) || refuse_resets(place, reason, found);
}

/* The frame, an answer in the pod's name: to where from_pod takes what the pod itself sends. */
static __always_inline void refuse_as_pod(struct __sk_buff *skb)
{
	bpf_clone_redirect(skb, skb->ifindex, BPF_F_INGRESS);
}

/* A reset for the proxy, in the place of a packet that the pod sent: to the backend, where that is behind a service. */
static __always_inline void refuse_to_proxy(struct __sk_buff *skb, const struct packet *packet, const struct track *track,
					    const struct reply_numbers *numbers)
{
	struct packet seen = *packet;

	seen.destination = track->key.remote;
	seen.destination_port = track->key.remote_port;
	if (reply_reset(skb, &seen, numbers, REPLY_ON) == 0)
		proxy_copy(skb, track, DIRECTION_EGRESS);
}

/* Answers a packet that the pod sent and may not send. @returns What the program says of the packet. */
SUBPROGRAM int refuse_sender(struct __sk_buff *skb, const struct packet *packet, const struct place *place,
			     const struct track *track, __u32 reason)
{
	struct reply_numbers numbers = {};
	__u32 found;

	if (!packet || !place || !track)
		return TC_ACT_SHOT;
	found = track->found;
	if (!refuse_tells(place, reason, found) || !reply_may(packet) ||
	    !reply_due(place->endpoint, &packet->destination))
		return TC_ACT_SHOT;
	if (packet->protocol != IPPROTO_TCP) {
		if (reply_prohibited(skb, packet) != 0)
			return TC_ACT_SHOT;
		return bpf_redirect_peer(place->ifindex, 0);
	}
	if (!reply_read(skb, packet, &numbers))
		return TC_ACT_SHOT;
	if (track->flags & TRACK_PROXIED) {
		if (refuse_resets(place, reason, found))
			refuse_to_proxy(skb, packet, track, &numbers);
	} else if (refuse_resets(place, reason, found) && reply_reset(skb, packet, &numbers, REPLY_ON) == 0) {
		refuse_as_pod(skb);
	}
	if (reply_reset(skb, packet, &numbers, REPLY_BACK) != 0)
		return TC_ACT_SHOT;
	return bpf_redirect_peer(place->ifindex, 0);
}

/* The frame, an answer of the pod's, to a pod that sent it something: as from_pod forwards. */
static __always_inline int refuse_deliver(struct __sk_buff *skb, const struct packet *packet, const struct place *place)
{
	struct config *settings = config_get();
	struct tunnel_key pair = { .local = packet->destination, .remote = packet->source };
	__u32 *near = bpf_map_lookup_elem(&local, &pair.remote);
	__u32 ifindex, *carrier;
	struct endpoint *target;
	int action = TC_ACT_SHOT;

	if (near) {
		ifindex = *near;
		target = bpf_map_lookup_elem(&endpoints, &ifindex);
		if (target)
			deliver_to_pod(skb, ifindex, target,
				       MARK_PROVEN | (place->destination_identity & MARK_IDENTITY), true, &action);
		return action;
	}
	if (!settings || settings->tunnel_ifindex == 0)
		return TC_ACT_SHOT;
	ifindex = settings->tunnel_ifindex;
	carrier = settings->flags & CONFIG_XFRM ? bpf_map_lookup_elem(&tunnel_out, &pair) : NULL;
	if (carrier)
		ifindex = *carrier;
	skb->mark = 0;
	return bpf_redirect(ifindex, 0);
}

/* The frame, an answer of the pod's, to the world: out of the uplink, by the node's routes and neighbours. */
static __always_inline int refuse_outside(struct __sk_buff *skb)
{
	struct config *settings = config_get();

	if (!settings || settings->uplink_ifindex == 0)
		return TC_ACT_SHOT;
	/* Under the pod's own address, which is what the world has asked (to_underlay). */
	skb->mark = MARK_WORLD | IDENTITY_WORLD;
	return bpf_redirect_neigh(settings->uplink_ifindex, NULL, 0, 0);
}

/*
 * Answers a packet that the pod may not get. Its sender is told if it is a pod that has proved it, or the world; both ends of
 * a connection, whoever they are, because each was heard of when it was admitted. @returns What the program says of the
 * packet: that it goes on to the pod where it is what the pod is told.
 */
SUBPROGRAM int refuse_receiver(struct __sk_buff *skb, const struct packet *packet, const struct place *place,
			       const struct track *track, __u32 reason)
{
	struct reply_numbers numbers = {};
	struct service_end *front;
	struct packet seen;
	__u32 service;
	bool proven, world, resets;

	/* The proxy judges for itself what it may say. */
	if (!packet || !place || !track || (track->flags & TRACK_FROM_PROXY) || !refuse_tells(place, reason, track->found) || !reply_may(packet) ||
	    !reply_due(place->endpoint, &packet->source))
		return TC_ACT_SHOT;
	proven = track->flags & TRACK_REMOTE_POD;
	world = mark_is_world(skb->mark);
	resets = refuse_resets(place, reason, track->found);
	if (packet->protocol != IPPROTO_TCP) {
		if (!(proven || world) || reply_prohibited(skb, packet) != 0)
			return TC_ACT_SHOT;
		return world ? refuse_outside(skb) : refuse_deliver(skb, packet, place);
	}
	if (!reply_read(skb, packet, &numbers))
		return TC_ACT_SHOT;
	if (!resets) {
		if (!(proven || world) || reply_reset(skb, packet, &numbers, REPLY_BACK) != 0)
			return TC_ACT_SHOT;
		return world ? refuse_outside(skb) : refuse_deliver(skb, packet, place);
	}
	if (reply_reset(skb, packet, &numbers, REPLY_BACK) != 0)
		return TC_ACT_SHOT;
	refuse_as_pod(skb);
	if (track->flags & TRACK_PROXIED)
		return reply_reset(skb, packet, &numbers, REPLY_ON) == 0 ?
			       proxy_divert(skb, track, DIRECTION_INGRESS) :
			       TC_ACT_SHOT;
	seen = *packet;
	service = track->service;
	if (track->reply && service != 0) {
		front = bpf_map_lookup_elem(&service_fronts, &service);
		if (!front)
			return TC_ACT_SHOT;
		seen.source = front->address;
		seen.source_port = front->port;
	}
	if (reply_reset(skb, &seen, &numbers, REPLY_ON) != 0 || reply_turn(skb) != 0)
		return TC_ACT_SHOT;
	skb->mark = 0;
	return TC_ACT_OK;
}
