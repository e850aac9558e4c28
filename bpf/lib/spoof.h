/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What a pod may say of itself: its own MAC and addresses, in Ethernet, IP, ARP and neighbour discovery. */
#pragma once

#include "maps.h"
#include "transport.h"

#define ND_OPTIONS_MAX 6
#define ND_SOURCE_LINK_ADDRESS 1
#define ND_TARGET_LINK_ADDRESS 2

struct arp_ipv4 {
	__be16 hardware;
	__be16 protocol;
	__u8 hardware_length;
	__u8 protocol_length;
	__be16 operation;
	__u8 sender_mac[MAC_LENGTH];
	__u8 sender_ip[4];
	__u8 target_mac[MAC_LENGTH];
	__u8 target_ip[4];
};

/* Whether a pod's ARP message claims nothing but its own; a probe's sender address is 0.0.0.0 (RFC 5227). */
SUBPROGRAM enum drop_reason spoof_check_arp(struct __sk_buff *skb, const struct endpoint *endpoint)
{
	struct arp_ipv4 arp;
	struct addr sender;
	__be32 ip;

	if (!endpoint || bpf_skb_load_bytes(skb, ETH_HLEN, &arp, sizeof(arp)) < 0)
		return MALFORMED;
	if (arp.hardware != bpf_htons(1) || arp.protocol != bpf_htons(ETH_P_IP) || arp.hardware_length != MAC_LENGTH ||
	    arp.protocol_length != 4 || (arp.operation != bpf_htons(1) && arp.operation != bpf_htons(2)))
		return MALFORMED;
	if (!mac_equal(arp.sender_mac, endpoint->mac))
		return SPOOFED_NEIGHBOUR;
	__builtin_memcpy(&ip, arp.sender_ip, 4);
	addr_set_ipv4(&sender, ip);
	if (ip != 0 && !addr_equal(&sender, &endpoint->addr4))
		return SPOOFED_NEIGHBOUR;
	return FORWARDED;
}

static __always_inline bool spoof_own_address(const struct endpoint *endpoint, const struct packet *packet)
{
	if (packet->family == 4)
		return addr_equal(&packet->source, &endpoint->addr4);
	/* An endpoint without an IPv6 address has zeros there. */
	return addr_equal(&packet->source, &endpoint->addr6) && !addr_is_unspecified(&packet->source);
}

/* A pod makes its own link-local address; only the gateway's is not free to take. */
static __always_inline bool spoof_own_link_local(const struct addr *address)
{
	return addr_is_ipv6_link_local(address) && !addr_is_gateway(address);
}

/*
 * Lets pass what a pod needs to know its link: router and neighbour solicitations, advertisements of its own
 * addresses, multicast listener reports. They go no further than the node, which the destination (link-local) ensures:
 * the kernel routes none of them.
 */
SUBPROGRAM enum drop_reason spoof_check_neighbour(struct __sk_buff *skb, const struct endpoint *endpoint,
						  const struct packet *packet)
{
	bool own, unspecified, listener;
	struct addr target;
	__u32 offset, end;

	if (!endpoint || !packet)
		return MALFORMED;
	own = addr_equal(&packet->source, &endpoint->addr6);
	unspecified = addr_is_unspecified(&packet->source);
	listener = packet->icmp_type == ICMPV6_MLD_REPORT_V2 || packet->icmp_type <= ICMPV6_MLD_DONE;
	offset = packet->l4 + 8;
	end = packet->l3 + packet->length;
	if (!unspecified && !own && !spoof_own_link_local(&packet->source))
		return SPOOFED_SOURCE_IP;
	if (!addr_is_ipv6_link_local(&packet->destination) &&
	    (packet->destination.words[0] & bpf_htonl(0xff0f0000)) != bpf_htonl(0xff020000) &&
	    !(listener && addr_is_multicast(&packet->destination)))
		return SPOOFED_NEIGHBOUR;
	if (listener)
		return FORWARDED;
	if (packet->ttl != 255)
		return MALFORMED;
	switch (packet->icmp_type) {
	case ICMPV6_ROUTER_SOLICITATION:
		break;
	case ICMPV6_NEIGHBOUR_SOLICITATION:
		offset += 16;
		break;
	case ICMPV6_NEIGHBOUR_ADVERTISEMENT:
		if (bpf_skb_load_bytes(skb, offset, &target, sizeof(target)) < 0)
			return MALFORMED;
		if (addr_is_unspecified(&target) ||
		    (!addr_equal(&target, &endpoint->addr6) && !spoof_own_link_local(&target)))
			return SPOOFED_NEIGHBOUR;
		offset += 16;
		break;
	default: /* a pod is no router */
		return SPOOFED_NEIGHBOUR;
	}
	for (int i = 0; i < ND_OPTIONS_MAX; i++) {
		__u8 option[8];

		if (offset >= end)
			return FORWARDED;
		if (bpf_skb_load_bytes(skb, offset, option, sizeof(option)) < 0 || option[1] == 0)
			return MALFORMED;
		if ((option[0] == ND_SOURCE_LINK_ADDRESS || option[0] == ND_TARGET_LINK_ADDRESS) &&
		    !mac_equal(option + 2, endpoint->mac))
			return SPOOFED_NEIGHBOUR;
		offset += option[1] * 8;
	}
	return offset >= end ? FORWARDED : MALFORMED;
}
