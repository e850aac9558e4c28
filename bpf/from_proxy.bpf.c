/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What the proxy sends in the name of one end of a connection to the other: tc ingress of the node's side of its link.
 * It speaks for nobody but the ends of connections that go by way of it, and opens them in their own direction only. What
 * it sends for a pod of this node is judged as that pod's; what it sends to one, to_pod judges.
 */
#include "lib/conntrack.h"
#include "lib/deliver.h"
#include "lib/events.h"
#include "lib/maps.h"
#include "lib/mark.h"
#include "lib/parse.h"
#include "lib/peer.h"
#include "lib/place.h"
#include "lib/transport.h"

char _license[] SEC("license") = "Dual BSD/GPL";

/* One end of the connection, if it is a pod of this node. */
struct end {
	__u32 ifindex; /* of its link, 0: none of ours */
	__u32 id;
	__u32 identity; /* its own */
	__u32 flags;	/* ENDPOINT_… */
	__u32 proxied;	/* it has a connection that goes by way of the proxy, and this is it: */
	__u32 remote_identity;
	__u32 service;
	__u32 pad;
	struct ct_key key;
};

struct hop {
	struct packet packet;
	struct place place;
	struct end source;
	struct end destination;
	struct track track;
};

/* Looks up one end: the source, or (`side` 1) the destination. */
SUBPROGRAM int find_end(const struct packet *packet, __u32 side, struct end *end)
{
	struct config *settings = config_get();
	__u64 now = bpf_ktime_get_coarse_ns();
	struct endpoint *endpoint;
	struct ct_entry *entry;
	struct addr address;
	struct ct_key key = {};
	__u32 *ifindex, link;
	__u32 direction;

	if (!settings || !packet || !end)
		return -1;
	address = side ? packet->destination : packet->source;
	ifindex = bpf_map_lookup_elem(&local, &address);
	if (!ifindex)
		return 0;
	link = *ifindex;
	endpoint = bpf_map_lookup_elem(&endpoints, &link);
	if (!endpoint)
		return 0;
	end->ifindex = link;
	end->id = endpoint->id;
	end->identity = packet->family == 6 ? endpoint->identity6 : endpoint->identity4;
	end->flags = endpoint->flags;
	key.endpoint = endpoint->id;
	key.local_port = side ? packet->destination_port : packet->source_port;
	key.remote_port = side ? packet->source_port : packet->destination_port;
	key.remote = side ? packet->source : packet->destination;
	key.protocol = packet->protocol;
	end->key = key;
	entry = bpf_map_lookup_elem(&ct, &key);
	direction = side ? DIRECTION_INGRESS : DIRECTION_EGRESS;
	if (!entry || !(entry->flags & CT_PROXIED) || !ct_is_live(entry, packet, direction, now))
		return 0;
	end->proxied = 1;
	end->remote_identity = entry->remote_identity;
	end->service = entry->service;
	/* Told so, who opened the connection says no more. */
	if ((packet->tcp_flags & TCP_RST) && entry->direction != direction) {
		entry->state = CT_CLOSED;
		entry->expires_ns = now + ct_timeout(settings, packet->protocol, CT_CLOSED);
	}
	return 0;
}

/* Whether the pod that the proxy speaks for may still say it: as its own packets are judged, without counting this one. */
static __always_inline enum drop_reason speak(struct hop *hop, struct endpoint *endpoint, struct peer *peer)
{
	struct track *track = &hop->track;
	enum drop_reason reason;

	if (hop->source.flags & ENDPOINT_REVOKED)
		return REVOKED;
	track->key = hop->source.key;
	track->flags = TRACK_FROM_PROXY | (hop->source.flags & ENDPOINT_READY ? 0 : TRACK_NOT_READY);
	track->service = hop->source.service;
	track->identity = peer->identity;
	reason = ct_track(endpoint, &hop->packet, track, &hop->place);
	if (reason)
		return reason;
	return track->found ? FORWARDED : PROXY_CONNECTION;
}

static __always_inline enum drop_reason forward(struct __sk_buff *skb, struct hop *hop, int *action)
{
	struct packet *packet = &hop->packet;
	struct end *source = &hop->source;
	struct end *destination = &hop->destination;
	struct endpoint *endpoint;
	enum drop_reason reason;
	struct peer peer = {};
	__u32 link, identity;

	find_end(packet, 0, source);
	find_end(packet, 1, destination);
	hop->place.endpoint = source->id ?: destination->id;
	hop->place.direction = source->id ? DIRECTION_EGRESS : DIRECTION_INGRESS;
	hop->place.source_identity = source->identity ?: destination->remote_identity;
	hop->place.destination_identity = destination->identity ?: source->remote_identity;
	if (!source->proxied && !destination->proxied)
		return PROXY_CONNECTION;
	peer_find(&packet->destination, &peer);
	if (source->proxied) {
		link = source->ifindex;
		endpoint = bpf_map_lookup_elem(&endpoints, &link);
		if (!endpoint)
			return ENDPOINT_NOT_READY;
		reason = speak(hop, endpoint, &peer);
		if (reason)
			return reason;
	}
	if (destination->ifindex != 0) {
		identity = source->proxied ? source->identity : destination->remote_identity;
		return deliver_local(skb, &packet->destination, MARK_PROXIED | (identity & MARK_IDENTITY), action);
	}
	switch (peer.kind) {
	case PEER_LOCAL_POD:
	case PEER_POD_CIDR:
		return UNKNOWN_PEER;
	case PEER_SERVICE_CIDR:
		return NO_SERVICE_BACKEND;
	case PEER_REMOTE_POD:
		return deliver_tunnel(packet, action);
	case PEER_WORLD:
		/* As in from_pod. */
		if (hop->track.reply)
			skb->mark = MARK_WORLD | IDENTITY_WORLD;
	}
	*action = TC_ACT_OK;
	return FORWARDED;
}

SEC("tc")
int from_proxy(struct __sk_buff *skb)
{
	struct hop *hop = SCRATCH(struct hop);
	struct ethhdr *ethernet = header_at(skb, 0, ETH_HLEN);
	__u32 length = skb->len;
	enum drop_reason reason;
	int action = TC_ACT_SHOT;
	__be16 ethertype;

	skb->mark = 0;
	if (!hop || !ethernet)
		return TC_ACT_SHOT;
	ethertype = ethernet->h_proto;
	/* What its stack says on the link by itself: nobody listens. */
	if (ethertype == bpf_htons(ETH_P_ARP))
		return TC_ACT_SHOT;
	hop->place.ifindex = skb->ifindex;
	hop->place.direction = DIRECTION_EGRESS;
	reason = parse_network(skb, &hop->packet, ETH_HLEN, ethertype);
	if (!reason && hop->packet.protocol == IPPROTO_ICMPV6_NUMBER)
		return TC_ACT_SHOT;
	if (!reason)
		reason = parse_transport(skb, &hop->packet);
	if (!reason)
		reason = hop->packet.protocol == IPPROTO_TCP && !(hop->packet.flags & PACKET_FRAGMENT) ?
				 forward(skb, hop, &action) :
				 PROXY_CONNECTION;
	if (!reason)
		return action;
	event_deny(&hop->place, &hop->packet, reason, length);
	return TC_ACT_SHOT;
}
