/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The node's uplink. Nothing that is a pod's comes in or goes out here in clear: between nodes pods' packets are inside
 * the tunnel's, which are the node's own and pass untouched, as everything does that has no pod at either end.
 */
#include "lib/deliver.h"
#include "lib/events.h"
#include "lib/maps.h"
#include "lib/mark.h"
#include "lib/parse.h"
#include "lib/peer.h"
#include "lib/transport.h"

char _license[] SEC("license") = "Dual BSD/GPL";

/* As peer_find, but link-local addresses on the uplink are the nodes' own business. */
static __always_inline void peer_on_underlay(const struct addr *address, struct peer *peer)
{
	struct peer *found = bpf_map_lookup_elem(&peers, address);

	if (found)
		*peer = *found;
	else
		peer_by_prefix(address, peer);
}

/* Sources that the kernel's stack would refuse; what goes to a pod from here does not pass it. */
static __always_inline bool is_martian(const struct addr *address)
{
	if (addr_is_ipv4(address)) {
		__u32 top = bpf_ntohl(address->words[3]) >> 24;

		return top == 0 || top == 127 || top >= 224;
	}
	return addr_is_multicast(address) || addr_is_ipv6_link_local(address) ||
	       ((address->words[0] | address->words[1] | address->words[2]) == 0 &&
		(address->words[3] & bpf_htonl(~1U)) == 0); /* :: and ::1 */
}

static __always_inline enum drop_reason admit(struct __sk_buff *skb, struct packet *packet, struct place *place,
					      __u32 link, int *action)
{
	struct endpoint *target = bpf_map_lookup_elem(&endpoints, &link);
	struct peer peer = {};

	place->ifindex = link;
	if (!target)
		return ENDPOINT_NOT_READY;
	place->endpoint = target->id;
	place->destination_identity = packet->family == 4 ? target->identity4 : target->identity6;
	if (is_martian(&packet->source))
		return SPOOFED_SOURCE_IP;
	peer_on_underlay(&packet->source, &peer);
	place->source_identity = peer.identity;
	if (peer_is_cluster(&peer))
		return PLAINTEXT;
	return deliver_to_pod(skb, link, target, MARK_WORLD | (peer.identity & MARK_IDENTITY), true, action);
}

SEC("tc")
int from_underlay(struct __sk_buff *skb)
{
	struct ethhdr *ethernet = header_at(skb, 0, ETH_HLEN);
	struct packet packet = {};
	struct place place = { .ifindex = skb->ifindex, .direction = DIRECTION_INGRESS };
	enum drop_reason reason;
	__u32 length = skb->len;
	int action = TC_ACT_OK;
	__u32 *link;

	/* What this does not understand goes to the node's stack; if it is for a pod after all, to_pod wants proof. */
	if (!ethernet || parse_network(skb, &packet, ETH_HLEN, ethernet->h_proto) != FORWARDED)
		return TC_ACT_OK;
	link = bpf_map_lookup_elem(&local, &packet.destination);
	if (!link)
		return TC_ACT_OK;
	reason = admit(skb, &packet, &place, *link, &action);
	if (!reason)
		return action;
	parse_transport(skb, &packet); /* for the event's ports */
	event_deny(&place, &packet, reason, length);
	return TC_ACT_SHOT;
}

/* A pod's packet may leave in clear only as an answer to the world that reached the pod at its own address. */
static __always_inline enum drop_reason check_leak(struct __sk_buff *skb, const struct packet *packet,
						   struct place *place)
{
	struct peer source = {}, destination = {};

	peer_on_underlay(&packet->source, &source);
	peer_on_underlay(&packet->destination, &destination);
	place->source_identity = source.identity;
	place->destination_identity = destination.identity;
	if (peer_is_pod(&destination))
		return LEAK_PREVENTED;
	if (peer_is_pod(&source) &&
	    (peer_is_cluster(&destination) || !mark_is_world(skb->mark)))
		return LEAK_PREVENTED;
	return FORWARDED;
}

SEC("tc")
int to_underlay(struct __sk_buff *skb)
{
	struct ethhdr *ethernet = header_at(skb, 0, ETH_HLEN);
	struct packet packet = {};
	struct place place = { .ifindex = skb->ifindex, .direction = DIRECTION_EGRESS };
	enum drop_reason reason;
	__u32 length = skb->len;

	if (!ethernet)
		return TC_ACT_OK;
	reason = parse_network(skb, &packet, ETH_HLEN, ethernet->h_proto);
	if (reason == UNKNOWN_L3)
		return TC_ACT_OK;
	/* A packet of which only the addresses could be read is judged by them. */
	if (packet.family != 0)
		reason = check_leak(skb, &packet, &place);
	if (!reason)
		return TC_ACT_OK;
	if (packet.l4 != 0)
		parse_transport(skb, &packet); /* for the event's ports */
	event_deny(&place, &packet, reason, length);
	return TC_ACT_SHOT;
}
