/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What a pod receives: tc egress of the host side of its veth.
 * proof of arrival → connection tracking → ingress policy → reverse translation → deliver, or to the proxy.
 */
#include "lib/audit.h"
#include "lib/connection_event.h"
#include "lib/conntrack.h"
#include "lib/dns.h"
#include "lib/fragment.h"
#include "lib/maps.h"
#include "lib/mark.h"
#include "lib/parse.h"
#include "lib/peer.h"
#include "lib/proxy.h"
#include "lib/refuse.h"
#include "lib/related.h"
#include "lib/translate.h"
#include "lib/transport.h"

char _license[] SEC("license") = "Dual BSD/GPL";

/* What the node itself says on the pod's link: ARP, and neighbour discovery, whose hop limit shows that no router passed it. */
static __always_inline bool from_node_link(const struct packet *packet)
{
	return packet->ttl == 255 && (packet->icmp_type == ICMPV6_NEIGHBOUR_SOLICITATION ||
				      packet->icmp_type == ICMPV6_NEIGHBOUR_ADVERTISEMENT);
}

static __always_inline enum drop_reason incoming(struct __sk_buff *skb, const struct endpoint *endpoint,
						 struct packet *packet, __u32 mark, bool *link)
{
	struct ethhdr *ethernet = header_at(skb, 0, ETH_HLEN);
	bool own_node = mark_identity(mark) == IDENTITY_ANY || mark_identity(mark) == IDENTITY_HOST;
	enum drop_reason reason;
	__be16 ethertype;

	if (!ethernet)
		return MALFORMED;
	ethertype = ethernet->h_proto;
	if (skb->vlan_present || ethertype == bpf_htons(ETH_P_8021Q) || ethertype == bpf_htons(ETH_P_8021AD))
		return VLAN;
	own_node = own_node && mac_equal(ethernet->h_source, endpoint->host_mac);
	if (ethertype == bpf_htons(ETH_P_ARP)) {
		*link = true;
		return own_node ? FORWARDED : NO_PROOF;
	}
	reason = parse_network(skb, packet, ETH_HLEN, ethertype);
	if (reason)
		return reason;
	if (packet->protocol != IPPROTO_ICMPV6_NUMBER && addr_is_multicast(&packet->destination))
		return MULTICAST;
	reason = parse_transport(skb, packet);
	if (reason)
		return reason;
	if (packet->flags & PACKET_NEIGHBOUR) {
		*link = true;
		return own_node && from_node_link(packet) ? FORWARDED : NO_PROOF;
	}
	if (addr_is_multicast(&packet->destination))
		return MULTICAST;
	if (!addr_equal(&packet->destination, packet->family == 4 ? &endpoint->addr4 : &endpoint->addr6) ||
	    addr_is_unspecified(&packet->destination))
		return UNKNOWN_PEER;
	return FORWARDED;
}

/*
 * Says in `track` who sent the packet. Without proof it is the world or another node, answering; never a pod. The node
 * itself is believed about its addresses, which a policy's CIDRs may tell apart.
 */
static __always_inline enum drop_reason sender(const struct endpoint *endpoint, const struct packet *packet,
					       __u32 mark, struct track *track, struct place *place)
{
	__u32 identity = mark_identity(mark);
	struct peer peer = {};

	track->flags = endpoint->flags & ENDPOINT_READY ? 0 : TRACK_NOT_READY;
	if (identity == IDENTITY_HOST && !mark_is_proxied(mark)) {
		peer_find(&packet->source, &peer);
		track->flags |= TRACK_EXEMPT;
		if (peer.identity != IDENTITY_ANY)
			identity = peer.identity;
	} else if (identity == IDENTITY_ANY) {
		peer_find(&packet->source, &peer);
		identity = peer.identity;
		place->source_identity = identity;
		if (peer_is_pod(&peer) || peer.kind == PEER_SERVICE_CIDR)
			return NO_PROOF;
		track->flags |= TRACK_UNPROVEN;
	} else if (mark_is_world(mark)) {
		/* Also a pod's answer to the world, should the node's stack bring it here, is not the world's. */
		peer_find(&packet->source, &peer);
		if (peer_is_cluster(&peer))
			return NO_PROOF;
	} else {
		track->flags |= TRACK_REMOTE_POD | (mark_is_proxied(mark) ? TRACK_FROM_PROXY : 0);
		if (addr_equal(&packet->source, &packet->destination))
			track->flags |= TRACK_EXEMPT | TRACK_SELF;
	}
	track->identity = identity;
	place->source_identity = identity;
	return FORWARDED;
}

/* Tracks the packet's connection, opens it if need be. */
static __always_inline enum drop_reason accept(const struct endpoint *endpoint, const struct packet *packet,
					       struct track *track, struct place *place)
{
	enum drop_reason reason;

	track->key.endpoint = endpoint->id;
	track->key.local_port = packet->destination_port;
	track->key.remote_port = packet->source_port;
	track->key.remote = packet->source;
	track->key.protocol = packet->protocol;
	reason = ct_track(endpoint, packet, track, place);
	if (reason)
		return reason;
	if (!track->found) {
		reason = ct_open(endpoint, packet, track, place);
		if (reason)
			return reason;
	}
	if (track->event != 0)
		event_connection(place, endpoint, track);
	audit_if_judged(endpoint, packet, track, place);
	return FORWARDED;
}

/* An ICMP error about a packet that the pod sent. What it quotes is put as the pod sent it, before a service's translation. */
SUBPROGRAM enum drop_reason accept_related(struct __sk_buff *skb, const struct endpoint *endpoint,
					   const struct packet *packet, struct track *track, struct place *place)
{
	struct packet quoted = {};
	struct service_end *front;
	enum drop_reason reason;
	__u32 service;
	bool by_peer;

	if (!endpoint || !packet || !track || !place)
		return CT_INVALID;
	reason = related_quoted(skb, packet, &quoted);
	if (reason)
		return reason;
	if (!addr_equal(&quoted.source, &packet->destination))
		return CT_INVALID;
	by_peer = addr_equal(&quoted.destination, &packet->source);
	/* A pod complains of what it got itself, and is no router of others'. */
	if ((track->flags & TRACK_REMOTE_POD) && !by_peer)
		return CT_INVALID;
	track->key.endpoint = endpoint->id;
	track->key.local_port = quoted.source_port;
	track->key.remote_port = quoted.destination_port;
	track->key.remote = quoted.destination;
	track->key.protocol = quoted.protocol;
	reason = ct_related(track, place);
	if (reason || track->service == 0 || (track->flags & TRACK_PROXIED))
		return reason;
	/* A router's error stays from the router; the peer is known to the pod by the service's address only. */
	track->reply = by_peer;
	service = track->service;
	front = bpf_map_lookup_elem(&service_fronts, &service);
	if (!front)
		return NO_SERVICE_BACKEND;
	return related_translate(skb, packet, &quoted, front, TRANSLATE_DESTINATION);
}

/* A service's reply comes from where the pod sent its request: the service's own address and port. */
static __always_inline enum drop_reason translate_back(struct __sk_buff *skb, struct packet *packet,
						       const struct track *track)
{
	__u32 service = track->service;
	struct service_end *front;

	if (!track->reply || service == 0)
		return FORWARDED;
	front = bpf_map_lookup_elem(&service_fronts, &service);
	if (!front)
		return NO_SERVICE_BACKEND;
	return translate(skb, packet, &front->address, front->port, TRANSLATE_SOURCE);
}

/* What is known of a packet, and not on the stack. */
struct hop {
	struct packet packet;
	struct place place;
	struct track track;
};

SEC("tc")
int to_pod(struct __sk_buff *skb)
{
	struct hop *hop = SCRATCH(struct hop);
	struct packet *packet;
	struct place *place;
	struct track *track;
	struct endpoint *endpoint;
	enum drop_reason reason;
	__u32 mark = skb->mark;
	__u32 ifindex = skb->ifindex;
	__u32 length = skb->len;
	bool link = false;

	if (!hop)
		return TC_ACT_SHOT;
	packet = &hop->packet;
	place = &hop->place;
	place->ifindex = ifindex;
	place->direction = DIRECTION_INGRESS;
	track = &hop->track;
	endpoint = bpf_map_lookup_elem(&endpoints, &ifindex);
	if (!endpoint) {
		reason = ENDPOINT_NOT_READY;
		goto drop;
	}
	place->endpoint = endpoint->id;
	place->source_identity = mark_identity(mark);
	reason = incoming(skb, endpoint, packet, mark, &link);
	place->destination_identity = packet->family == 6 ? endpoint->identity6 : endpoint->identity4;
	if (reason)
		goto drop;
	if (link)
		goto pass;
	if (endpoint->flags & ENDPOINT_REVOKED) {
		reason = REVOKED;
		goto drop;
	}
	reason = sender(endpoint, packet, mark, track, place);
	if (reason)
		goto drop;
	if (packet->flags & PACKET_FRAGMENT) {
		reason = fragment_track(packet, endpoint->id, DIRECTION_INGRESS);
		if (reason)
			goto drop;
	}
	reason = packet->flags & PACKET_RELATED ? accept_related(skb, endpoint, packet, track, place)
					       : accept(endpoint, packet, track, place);
	if (!reason && (track->flags & TRACK_PROXIED)) {
		int action = proxy_divert(skb, track, DIRECTION_INGRESS);

		if (action != TC_ACT_SHOT)
			return action;
		reason = PROXY_ABSENT;
	}
	if (!reason && endpoint->names != 0 && track->reply)
		reason = dns_receive(skb, endpoint, packet, track);
	if (!reason)
		reason = translate_back(skb, packet, track);
	if (reason)
		goto drop;
pass:
	/* The proof ends here. */
	skb->mark = 0;
	metrics_count(FORWARDED, DIRECTION_INGRESS, length);
	return TC_ACT_OK;
drop:
	event_deny(place, packet, reason, length);
	return refuse_receiver(skb, packet, place, track, reason);
}
