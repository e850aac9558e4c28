/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What a pod sends: tc ingress of the host side of its veth.
 * parse → anti-spoofing → service translation → connection tracking → egress policy → next hop.
 */
#include "lib/audit.h"
#include "lib/connection_event.h"
#include "lib/conntrack.h"
#include "lib/deliver.h"
#include "lib/dns.h"
#include "lib/fragment.h"
#include "lib/hairpin.h"
#include "lib/http_response.h"
#include "lib/maps.h"
#include "lib/mark.h"
#include "lib/parse.h"
#include "lib/peer.h"
#include "lib/proxy.h"
#include "lib/refuse.h"
#include "lib/related.h"
#include "lib/route.h"
#include "lib/spoof.h"
#include "lib/translate.h"
#include "lib/transport.h"

char _license[] SEC("license") = "Dual BSD/GPL";

/*
 * Reads the packet and refuses what its pod may not send at all. `*link` becomes true for what is between the pod and
 * its link only (ARP, neighbour discovery): that goes to the node and no further.
 */
static __always_inline enum drop_reason outgoing(struct __sk_buff *skb, const struct endpoint *endpoint,
						 struct packet *packet, bool *link)
{
	struct ethhdr *ethernet = header_at(skb, 0, ETH_HLEN);
	enum drop_reason reason;
	__be16 ethertype;
	bool own;

	if (!ethernet)
		return MALFORMED;
	ethertype = ethernet->h_proto;
	if (skb->vlan_present || ethertype == bpf_htons(ETH_P_8021Q) || ethertype == bpf_htons(ETH_P_8021AD))
		return VLAN;
	if (!mac_equal(ethernet->h_source, endpoint->mac))
		return SPOOFED_SOURCE_MAC;
	if (ethertype == bpf_htons(ETH_P_ARP)) {
		*link = true;
		return spoof_check_arp(skb, endpoint);
	}
	reason = parse_network(skb, packet, ETH_HLEN, ethertype);
	if (reason)
		return reason;
	own = spoof_own_address(endpoint, packet);
	if (packet->protocol != IPPROTO_ICMPV6_NUMBER) {
		if (!own)
			return SPOOFED_SOURCE_IP;
		if (addr_is_multicast(&packet->destination))
			return MULTICAST;
	}
	reason = parse_transport(skb, packet);
	if (reason)
		return reason;
	if (packet->flags & PACKET_NEIGHBOUR) {
		*link = true;
		return spoof_check_neighbour(skb, endpoint, packet);
	}
	if (!own)
		return SPOOFED_SOURCE_IP;
	if (addr_is_multicast(&packet->destination))
		return MULTICAST;
	if (packet->ttl == 0)
		return TTL_EXCEEDED;
	return FORWARDED;
}

/* Tracks the packet's connection, opens it if need be, and translates the packet to where it goes. */
static __always_inline enum drop_reason connect(struct __sk_buff *skb, const struct endpoint *endpoint,
						struct packet *packet, struct place *place, struct route *route)
{
	enum drop_reason reason = route_find(endpoint, packet, route);

	place->service = route->choice.service;
	place->destination_identity = route->peer.identity;
	if (reason)
		return reason;
	if (peer_is_pod(&route->peer) && !deliver_fits(skb, packet))
		return TOO_BIG;
	if (endpoint->names != 0 && dns_is_asked(packet, &route->track)) {
		reason = dns_ask(skb, endpoint, packet, &route->track);
		if (reason)
			return reason;
	}
	reason = ct_track(endpoint, packet, &route->track, place);
	if (reason)
		return dns_denied(&route->track, reason);
	if (route->mode == ROUTE_HAIRPIN_REPLY && !route->track.reply)
		return CT_INVALID;
	if (!route->track.found) {
		reason = ct_open(endpoint, packet, &route->track, place);
		if (reason)
			return dns_denied(&route->track, reason);
	}
	if (route->track.dns == DNS_QUESTION && !dns_note(packet, &route->track))
		return DNS_MALFORMED;
	if (route->track.event != 0)
		event_connection(place, endpoint, &route->track);
	audit_if_judged(endpoint, packet, &route->track, place);
	if (route->track.reply && (route->track.flags & TRACK_READ))
		http_response(skb, packet, &route->track.key);
	switch (route->mode) {
	case ROUTE_PLAIN:
		return FORWARDED;
	case ROUTE_SERVICE:
		if (!route_remember(packet, route))
			return CT_FULL;
		return translate(skb, packet, &route->choice.end.address, route->choice.end.port, TRANSLATE_DESTINATION);
	case ROUTE_HAIRPIN_REQUEST:
		reason = hairpin_prepare(packet, route);
		if (reason)
			return reason;
		return hairpin_turn(skb, packet, route);
	default:
		return hairpin_turn(skb, packet, route);
	}
}

/*
 * An ICMP error of the pod's, about a packet that it got. It goes to who sent that packet; what it quotes is put as it
 * was before the pod's interface translated it.
 */
SUBPROGRAM enum drop_reason complain(struct __sk_buff *skb, const struct endpoint *endpoint,
				     const struct packet *packet, struct place *place, struct route *route)
{
	struct packet quoted = {};
	struct track *track;
	enum drop_reason reason;
	struct ct_key key;

	if (!endpoint || !packet || !place || !route)
		return CT_INVALID;
	reason = related_quoted(skb, packet, &quoted);
	if (reason)
		return reason;
	if (!addr_equal(&quoted.destination, &packet->source) || !addr_equal(&quoted.source, &packet->destination))
		return CT_INVALID;
	track = &route->track;
	__builtin_memset(&key, 0, sizeof(key));
	key.endpoint = endpoint->id;
	key.local_port = quoted.destination_port;
	key.remote_port = quoted.source_port;
	key.remote = quoted.source;
	key.protocol = quoted.protocol;
	track->flags = endpoint->flags & ENDPOINT_READY ? 0 : TRACK_NOT_READY;
	if (service_recall(&key, &route->choice)) {
		/* A hairpin's error would need both of its sides translated: its own pod does without. */
		if ((route->choice.flags & SERVICE_FLOW_HAIRPIN_REPLY) ||
		    addr_equal(&route->choice.end.address, &packet->source))
			return UNTRANSLATABLE;
		route->mode = ROUTE_SERVICE;
		key.remote = route->choice.end.address;
		key.remote_port = route->choice.end.port;
	}
	track->key = key;
	reason = ct_related(track, place);
	if (reason)
		return reason;
	if (track->service != route->choice.service)
		return CT_INVALID;
	peer_find(&key.remote, &route->peer);
	place->destination_identity = route->peer.identity;
	track->reply = 1;
	reason = route_unreachable(&route->peer);
	if (reason || route->mode == ROUTE_PLAIN)
		return reason;
	return related_translate(skb, packet, &quoted, &route->choice.end, TRANSLATE_SOURCE);
}

static __always_inline enum drop_reason forward(struct __sk_buff *skb, const struct packet *packet,
						const struct place *place, const struct route *route, int *action)
{
	switch (route->peer.kind) {
	case PEER_LOCAL_POD:
		return deliver_local(skb, &packet->destination,
				     MARK_PROVEN | (place->source_identity & MARK_IDENTITY), action);
	case PEER_REMOTE_POD:
		return deliver_tunnel(packet, action);
	case PEER_WORLD:
		/* An answer to who reached the pod at its own address keeps that address: to_underlay lets this mark out. */
		if (route->track.reply)
			skb->mark = MARK_WORLD | IDENTITY_WORLD;
		return FORWARDED;
	default:
		return FORWARDED;
	}
}

/* What is known of a packet, and not on the stack. */
struct hop {
	struct packet packet;
	struct place place;
	struct route route;
};

SEC("tc")
int from_pod(struct __sk_buff *skb)
{
	struct hop *hop = SCRATCH(struct hop);
	struct packet *packet;
	struct place *place;
	struct route *route;
	struct endpoint *endpoint;
	enum drop_reason reason;
	__u32 ifindex = skb->ifindex;
	__u32 length = skb->len;
	int action = TC_ACT_OK;
	bool link = false;

	/* A pod proves nothing by a mark. */
	skb->mark = 0;
	if (!hop)
		return TC_ACT_SHOT;
	packet = &hop->packet;
	place = &hop->place;
	place->ifindex = ifindex;
	place->direction = DIRECTION_EGRESS;
	route = &hop->route;
	endpoint = bpf_map_lookup_elem(&endpoints, &ifindex);
	if (!endpoint) {
		reason = ENDPOINT_NOT_READY;
		goto drop;
	}
	place->endpoint = endpoint->id;
	reason = outgoing(skb, endpoint, packet, &link);
	place->source_identity = packet->family == 6 ? endpoint->identity6 : endpoint->identity4;
	if (reason)
		goto drop;
	if (link)
		goto pass;
	if (endpoint->flags & ENDPOINT_REVOKED) {
		reason = REVOKED;
		goto drop;
	}
	if (packet->flags & PACKET_FRAGMENT) {
		reason = fragment_track(packet, endpoint->id, DIRECTION_EGRESS);
		if (reason)
			goto drop;
	}
	if (packet->flags & PACKET_RELATED) {
		reason = complain(skb, endpoint, packet, place, route);
		if (!reason && route->mode == ROUTE_SERVICE)
			reason = translate(skb, packet, &route->choice.end.address, 0, TRANSLATE_DESTINATION);
	} else {
		reason = connect(skb, endpoint, packet, place, route);
	}
	if (reason)
		goto drop;
	if (route->track.flags & TRACK_PROXIED) {
		action = proxy_divert(skb, &route->track, DIRECTION_EGRESS);
		reason = action == TC_ACT_SHOT ? PROXY_ABSENT : FORWARDED;
	} else {
		reason = forward(skb, packet, place, route, &action);
	}
	if (reason)
		goto drop;
pass:
	metrics_count(FORWARDED, DIRECTION_EGRESS, length);
	return action;
drop:
	if (reason == DNS_DENIED && dns_refuse(skb, packet))
		action = bpf_redirect_peer(ifindex, 0);
	else
		action = refuse_sender(skb, packet, place, &route->track, reason);
	/* Policy was asked about the backend: that is who was denied, by way of the service that place->service names. */
	if (place->service != 0 && route->mode == ROUTE_SERVICE) {
		packet->destination = route->choice.end.address;
		packet->destination_port = route->choice.end.port;
	}
	event_deny(place, packet, reason, length);
	return action;
}
