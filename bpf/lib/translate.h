/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Rewrites an address and port of a packet and keeps its checksums true, also where the device is yet to fill them in
 * (CHECKSUM_PARTIAL): the kernel's helpers know. A UDP checksum of zero (none) stays zero.
 *
 * SCTP's CRC covers the ports and no address. It is corrected for new ports, but a fragment does not tell the length
 * that takes: UNTRANSLATABLE. A field of zero is left for the device that will fill it.
 */
#pragma once

#include "checksum.h"
#include "packet.h"
#include "reasons.h"

#define IPV4_CHECKSUM_OFFSET 10
#define IPV4_SOURCE_OFFSET 12
#define IPV6_SOURCE_OFFSET 8
#define TCP_CHECKSUM_OFFSET 16
#define UDP_CHECKSUM_OFFSET 6
#define ICMP_CHECKSUM_OFFSET 2
#define SCTP_CHECKSUM_OFFSET 8

enum translate_side {
	TRANSLATE_SOURCE = 0,
	TRANSLATE_DESTINATION = 1,
};

/* @returns The offset of the checksum that covers the addresses, from the transport header, or 0 where there is none. */
static __always_inline __u32 translate_checksum(const struct packet *packet)
{
	switch (packet->protocol) {
	case IPPROTO_TCP:
		return TCP_CHECKSUM_OFFSET;
	case IPPROTO_UDP:
		return UDP_CHECKSUM_OFFSET;
	case IPPROTO_ICMPV6_NUMBER:
		return ICMP_CHECKSUM_OFFSET;
	default:
		return 0;
	}
}

static __always_inline long translate_ipv4(struct __sk_buff *skb, const struct packet *packet, __be32 from, __be32 to,
					   __u32 side, __u32 checksum, __u64 flags)
{
	if (bpf_skb_store_bytes(skb, packet->l3 + IPV4_SOURCE_OFFSET + side * 4, &to, 4, 0) < 0)
		return -1;
	if (bpf_l3_csum_replace(skb, packet->l3 + IPV4_CHECKSUM_OFFSET, from, to, 4) < 0)
		return -1;
	if (checksum == 0)
		return 0;
	return bpf_l4_csum_replace(skb, packet->l4 + checksum, from, to, BPF_F_PSEUDO_HDR | flags | 4);
}

static __always_inline long translate_ipv6(struct __sk_buff *skb, const struct packet *packet, struct addr *from,
					   struct addr *to, __u32 side, __u32 checksum, __u64 flags)
{
	__s64 difference;

	/* The address and the checksum that covers it cancel out in a sum over the whole packet (CHECKSUM_COMPLETE). */
	if (bpf_skb_store_bytes(skb, packet->l3 + IPV6_SOURCE_OFFSET + side * 16, to, 16,
				checksum ? BPF_F_RECOMPUTE_CSUM : 0) < 0)
		return -1;
	if (checksum == 0)
		return 0;
	difference = bpf_csum_diff(from->words, 16, to->words, 16, 0);
	return bpf_l4_csum_replace(skb, packet->l4 + checksum, 0, difference, BPF_F_PSEUDO_HDR | flags);
}

static __always_inline enum drop_reason translate_sctp_port(struct __sk_buff *skb, const struct packet *packet,
							    __be16 from, __be16 to, __u32 side)
{
	__u32 difference = (__u32)(from ^ to) << (side * 16); /* little-endian hosts, as all that Myelin runs on */
	__u32 checksum;

	if (packet->flags & PACKET_FIRST_FRAGMENT)
		return UNTRANSLATABLE;
	if (bpf_skb_load_bytes(skb, packet->l4 + SCTP_CHECKSUM_OFFSET, &checksum, 4) < 0)
		return MALFORMED;
	if (checksum == 0)
		return FORWARDED;
	checksum ^= crc32c_difference(difference, packet->l3 + packet->length - packet->l4);
	if (bpf_skb_store_bytes(skb, packet->l4 + SCTP_CHECKSUM_OFFSET, &checksum, 4, 0) < 0)
		return MALFORMED;
	return FORWARDED;
}

/* Puts `address` and `port` in the place of the packet's source or destination, in the bytes and in `packet`. */
SUBPROGRAM enum drop_reason translate(struct __sk_buff *skb, struct packet *packet, struct addr *address, __u16 port,
				      __u32 side)
{
	struct addr *old;
	__be16 *old_port;
	__u32 checksum;
	__u64 flags;
	bool later;

	if (!packet || !address || side > TRANSLATE_DESTINATION)
		return MALFORMED;
	old = side == TRANSLATE_SOURCE ? &packet->source : &packet->destination;
	old_port = side == TRANSLATE_SOURCE ? &packet->source_port : &packet->destination_port;
	later = packet->flags & PACKET_LATER_FRAGMENT;
	checksum = later ? 0 : translate_checksum(packet);
	flags = packet->protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
	if (!addr_equal(old, address)) {
		long failed = packet->family == 4
				      ? translate_ipv4(skb, packet, old->words[3], address->words[3], side, checksum, flags)
				      : translate_ipv6(skb, packet, old, address, side, checksum, flags);
		if (failed)
			return MALFORMED;
		*old = *address;
	}
	/* An ICMP error has no ports; those of the packet it quotes are its own affair. */
	if (packet->flags & PACKET_RELATED)
		return FORWARDED;
	if (*old_port != port && !later) {
		if (packet->protocol == IPPROTO_SCTP_NUMBER) {
			enum drop_reason reason = translate_sctp_port(skb, packet, *old_port, port, side);

			if (reason)
				return reason;
		} else if (bpf_l4_csum_replace(skb, packet->l4 + checksum, *old_port, port, flags | 2) < 0) {
			return MALFORMED;
		}
		if (bpf_skb_store_bytes(skb, packet->l4 + side * 2, &port, 2, 0) < 0)
			return MALFORMED;
	}
	*old_port = port;
	return FORWARDED;
}
