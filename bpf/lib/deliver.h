/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The next hop of a packet that may go. To a pod of this node it takes no part of the IP stack: its MAC addresses become
 * those of the pod's link and it is queued on that link, whose egress runs to_pod. Time to live is not decremented on
 * that way: between two pods of a node there is no router to see, and no loop to end.
 */
#pragma once

#include "maps.h"
#include "mark.h"
#include "packet.h"

struct link_header {
	__u8 destination[MAC_LENGTH];
	__u8 source[MAC_LENGTH];
	__be16 ethertype;
};

/*
 * Hands the packet to the pod at the other end of the link `ifindex`.
 * @param framed Whether it has an Ethernet header: what comes out of a TUN device has none and gets one.
 * @param mark Whose packet it is (mark.h).
 */
static __always_inline enum drop_reason deliver_to_pod(struct __sk_buff *skb, __u32 ifindex,
						       const struct endpoint *target, __u32 mark, const bool framed,
						       int *action)
{
	struct link_header header;

	__builtin_memcpy(header.destination, target->mac, MAC_LENGTH);
	__builtin_memcpy(header.source, target->host_mac, MAC_LENGTH);
	if (!framed) {
		header.ethertype = (__be16)skb->protocol;
		if (bpf_skb_change_head(skb, ETH_HLEN, 0) < 0)
			return MALFORMED;
	}
	if (bpf_skb_store_bytes(skb, 0, &header, framed ? 2 * MAC_LENGTH : ETH_HLEN, 0) < 0)
		return MALFORMED;
	skb->mark = mark;
	*action = bpf_redirect(ifindex, 0);
	return FORWARDED;
}

/* Hands the packet to the pod of this node that has its destination address. */
static __always_inline enum drop_reason deliver_local(struct __sk_buff *skb, const struct addr *destination,
						      __u32 mark, int *action)
{
	__u32 *ifindex = bpf_map_lookup_elem(&local, destination);
	struct endpoint *target;
	__u32 link;

	if (!ifindex)
		return UNKNOWN_PEER;
	link = *ifindex;
	target = bpf_map_lookup_elem(&endpoints, &link);
	if (!target)
		return ENDPOINT_NOT_READY;
	return deliver_to_pod(skb, link, target, mark, true, action);
}

/* @returns The device that leads to the kernel's security association for the packet's addresses, NULL if it has none. */
static __always_inline const __u32 *deliver_carrier(const struct packet *packet)
{
	struct tunnel_key key;

	key.local = packet->source;
	key.remote = packet->destination;
	return bpf_map_lookup_elem(&tunnel_out, &key);
}

/* Into a tunnel device. These take IP packets: the kernel strips the Ethernet header of what is redirected there. */
static __always_inline enum drop_reason deliver_tunnel(const struct packet *packet, int *action)
{
	struct config *settings = config_get();
	const __u32 *carrier;
	__u32 ifindex;

	if (!settings || settings->tunnel_ifindex == 0)
		return LEAK_PREVENTED;
	ifindex = settings->tunnel_ifindex;
	if (settings->flags & CONFIG_XFRM) {
		carrier = deliver_carrier(packet);
		if (carrier)
			ifindex = *carrier;
	}
	*action = bpf_redirect(ifindex, 0);
	return FORWARDED;
}

/* Whether a pod's link takes the packet, or each segment that it will be cut into. */
static __always_inline bool deliver_fits(const struct __sk_buff *skb, const struct packet *packet)
{
	struct config *settings = config_get();
	__u32 length = packet->length;

	if (!settings || settings->mtu == 0)
		return true;
	if (skb->gso_size != 0)
		length = skb->gso_size + packet->l4 + packet->l4_header - packet->l3;
	return length <= settings->mtu;
}
