/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * From bytes to struct packet: the IP headers. They are read in place where they lie in the linear part of the packet,
 * and pulled there where they do not; the payload is never touched, so large segments pass whole.
 */
#pragma once

#include "packet.h"
#include "reasons.h"

#define IPV6_EXTENSIONS_MAX 6
#define IPV4_OPTIONS_MAX 40

#define IPV6_HOP_BY_HOP 0
#define IPV6_ROUTING 43
#define IPV6_FRAGMENT 44
#define IPV6_DESTINATION 60
#define IPV6_AUTHENTICATION 51

#define IPV4_FRAGMENT_OFFSET 0x1fff
#define IPV4_MORE_FRAGMENTS 0x2000

/* Read by hand: left to itself the compiler keeps the pointers as the 32-bit numbers that struct __sk_buff says they are. */
#define SKB_POINTER(skb, member)                                                                                      \
	({                                                                                                            \
		void *pointer;                                                                                        \
		asm volatile("%0 = *(u32 *)(%1 + %2)"                                                                 \
			     : "=r"(pointer)                                                                          \
			     : "r"(skb), "i"(offsetof(struct __sk_buff, member)));                                    \
		pointer;                                                                                              \
	})

/*
 * The `length` bytes at `offset`, both known at compile time, in the linear part of the packet; NULL where the packet
 * is shorter. Pointers from before are void afterwards.
 */
static __always_inline void *header_at(struct __sk_buff *skb, const __u32 offset, const __u32 length)
{
	void *data = SKB_POINTER(skb, data);

	if (data + offset + length <= SKB_POINTER(skb, data_end))
		return data + offset;
	bpf_skb_pull_data(skb, offset + length);
	data = SKB_POINTER(skb, data);
	return data + offset + length <= SKB_POINTER(skb, data_end) ? data + offset : NULL;
}

/* Whether none of the IPv4 options steers the route (RFC 791 LSRR 131, SSRR 137; refused as RFC 7126 advises). */
SUBPROGRAM enum drop_reason parse_ipv4_options(struct __sk_buff *skb, __u32 offset, __u32 length)
{
	__u32 end = offset + length;

	for (int i = 0; i < IPV4_OPTIONS_MAX; i++) {
		__u8 option[2] = {};

		if (offset >= end)
			return FORWARDED;
		if (bpf_skb_load_bytes(skb, offset, option, 1) < 0)
			return MALFORMED;
		if (option[0] == 0)
			return FORWARDED;
		if (option[0] == 1) {
			offset++;
			continue;
		}
		if (option[0] == 131 || option[0] == 137)
			return SOURCE_ROUTED;
		if (bpf_skb_load_bytes(skb, offset, option, 2) < 0 || option[1] < 2 || offset + option[1] > end)
			return MALFORMED;
		offset += option[1];
	}
	return FORWARDED;
}

static __always_inline void parse_fragment_offset(struct packet *packet, __u32 units, bool more)
{
	if (units != 0) {
		packet->flags |= PACKET_LATER_FRAGMENT;
		packet->fragment_offset = units > 255 ? 255 : units;
	} else if (more) {
		packet->flags |= PACKET_FIRST_FRAGMENT;
	}
}

static __always_inline enum drop_reason parse_ipv4(struct __sk_buff *skb, struct packet *packet, const __u32 l3)
{
	struct iphdr *ip = header_at(skb, l3, sizeof(struct iphdr));
	__u32 header, total, fragment;

	if (!ip)
		return MALFORMED;
	header = ip->ihl * 4;
	total = bpf_ntohs(ip->tot_len);
	if (total == 0 && skb->gso_size != 0) /* too large for the field (BIG TCP) */
		total = skb->len - l3;
	if (ip->version != 4 || header < sizeof(*ip) || total < header || l3 + total > skb->len)
		return MALFORMED;
	addr_set_ipv4(&packet->source, ip->saddr);
	addr_set_ipv4(&packet->destination, ip->daddr);
	packet->family = 4;
	packet->protocol = ip->protocol;
	packet->ttl = ip->ttl;
	packet->length = total;
	packet->l3 = l3;
	packet->l4 = l3 + header;
	packet->fragment_id = (__be32)ip->id;
	fragment = bpf_ntohs(ip->frag_off);
	parse_fragment_offset(packet, fragment & IPV4_FRAGMENT_OFFSET, fragment & IPV4_MORE_FRAGMENTS);
	if (header > sizeof(*ip))
		return parse_ipv4_options(skb, l3 + sizeof(*ip), header - sizeof(*ip));
	return FORWARDED;
}

/*
 * Walks the extension headers to the transport header. Every routing header is refused, not only type 0 (RFC 5095):
 * each kind of it steers. More headers than the bound are refused with what is not understood.
 */
SUBPROGRAM enum drop_reason parse_ipv6_extensions(struct __sk_buff *skb, struct packet *packet)
{
	__u32 offset, next;

	if (!packet)
		return MALFORMED;
	offset = packet->l4;
	next = packet->protocol;
	for (int i = 0; i < IPV6_EXTENSIONS_MAX; i++) {
		__u8 header[8];

		if (next != IPV6_HOP_BY_HOP && next != IPV6_ROUTING && next != IPV6_FRAGMENT &&
		    next != IPV6_DESTINATION && next != IPV6_AUTHENTICATION)
			break;
		if (bpf_skb_load_bytes(skb, offset, header, sizeof(header)) < 0)
			return MALFORMED;
		if (next == IPV6_ROUTING)
			return SOURCE_ROUTED;
		if (next == IPV6_FRAGMENT) {
			__u32 units = (header[2] << 5) | (header[3] >> 3);

			if (packet->flags & (PACKET_FIRST_FRAGMENT | PACKET_LATER_FRAGMENT))
				return MALFORMED;
			__builtin_memcpy(&packet->fragment_id, header + 4, 4);
			parse_fragment_offset(packet, units, header[3] & 1);
			offset += 8;
		} else if (next == IPV6_AUTHENTICATION) {
			offset += (header[1] + 2) * 4;
		} else {
			offset += (header[1] + 1) * 8;
		}
		next = header[0];
		if (packet->flags & PACKET_LATER_FRAGMENT)
			break; /* what follows is the middle of something */
	}
	if (next == IPV6_HOP_BY_HOP || next == IPV6_ROUTING || next == IPV6_FRAGMENT || next == IPV6_DESTINATION ||
	    next == IPV6_AUTHENTICATION)
		return UNKNOWN_L4;
	if (offset > packet->l3 + packet->length)
		return MALFORMED;
	packet->protocol = next;
	packet->l4 = offset;
	return FORWARDED;
}

static __always_inline enum drop_reason parse_ipv6(struct __sk_buff *skb, struct packet *packet, const __u32 l3)
{
	struct ipv6hdr *ip = header_at(skb, l3, sizeof(struct ipv6hdr));
	__u32 total;

	if (!ip)
		return MALFORMED;
	total = bpf_ntohs(ip->payload_len) + sizeof(*ip);
	if (total == sizeof(*ip) && skb->gso_size != 0)
		total = skb->len - l3;
	if (ip->version != 6 || l3 + total > skb->len)
		return MALFORMED;
	__builtin_memcpy(&packet->source, &ip->saddr, sizeof(packet->source));
	__builtin_memcpy(&packet->destination, &ip->daddr, sizeof(packet->destination));
	/* On the wire of IPv6 such an address is somebody's attempt to pass for an IPv4 one. */
	if (addr_is_ipv4(&packet->source) || addr_is_ipv4(&packet->destination))
		return MALFORMED;
	packet->family = 6;
	packet->protocol = ip->nexthdr;
	packet->ttl = ip->hop_limit;
	packet->length = total;
	packet->l3 = l3;
	packet->l4 = l3 + sizeof(*ip);
	switch (packet->protocol) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
		return FORWARDED;
	default:
		return parse_ipv6_extensions(skb, packet);
	}
}

/* Addresses, transport protocol, fragmentation. `ethertype` in network order; `l3` is known at compile time. */
static __always_inline enum drop_reason parse_network(struct __sk_buff *skb, struct packet *packet, const __u32 l3,
						      __be16 ethertype)
{
	if (ethertype == bpf_htons(ETH_P_IP))
		return parse_ipv4(skb, packet, l3);
	if (ethertype == bpf_htons(ETH_P_IPV6))
		return parse_ipv6(skb, packet, l3);
	return UNKNOWN_L3;
}
