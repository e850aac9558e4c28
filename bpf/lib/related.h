/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * ICMP errors: about a packet that they quote. One passes if the quoted packet belongs to a live connection of the pod,
 * and what it quotes is translated back as the connection's packets are, so that the pod recognises its own. The quoted
 * transport checksum is left as it was: no receiver can verify it over the part that is quoted.
 */
#pragma once

#include "packet.h"
#include "parse.h"
#include "reasons.h"
#include "translate.h"
#include "transport.h"

static __always_inline enum drop_reason related_quoted_ipv4(struct __sk_buff *skb, __u32 offset, struct packet *quoted)
{
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, offset, &ip, sizeof(ip)) < 0 || ip.version != 4 || ip.ihl < 5)
		return CT_INVALID;
	if (bpf_ntohs(ip.frag_off) & IPV4_FRAGMENT_OFFSET)
		return CT_INVALID;
	addr_set_ipv4(&quoted->source, ip.saddr);
	addr_set_ipv4(&quoted->destination, ip.daddr);
	quoted->family = 4;
	quoted->protocol = ip.protocol;
	quoted->l4 = offset + ip.ihl * 4;
	return FORWARDED;
}

static __always_inline enum drop_reason related_quoted_ipv6(struct __sk_buff *skb, __u32 offset, struct packet *quoted)
{
	struct ipv6hdr ip;
	__u8 fragment[8];

	if (bpf_skb_load_bytes(skb, offset, &ip, sizeof(ip)) < 0 || ip.version != 6)
		return CT_INVALID;
	__builtin_memcpy(&quoted->source, &ip.saddr, sizeof(quoted->source));
	__builtin_memcpy(&quoted->destination, &ip.daddr, sizeof(quoted->destination));
	quoted->family = 6;
	quoted->protocol = ip.nexthdr;
	quoted->l4 = offset + sizeof(ip);
	if (ip.nexthdr != IPV6_FRAGMENT)
		return FORWARDED;
	if (bpf_skb_load_bytes(skb, quoted->l4, fragment, sizeof(fragment)) < 0)
		return CT_INVALID;
	if (fragment[2] != 0 || (fragment[3] & 0xf8) != 0)
		return CT_INVALID;
	quoted->protocol = fragment[0];
	quoted->l4 += sizeof(fragment);
	return FORWARDED;
}

/* Reads the packet that `packet`, an ICMP error, quotes. Whatever cannot be read belongs to no connection. */
SUBPROGRAM enum drop_reason related_quoted(struct __sk_buff *skb, const struct packet *packet, struct packet *quoted)
{
	enum drop_reason reason;
	__u8 header[8];
	__u32 offset;
	__be16 id;

	if (!packet || !quoted)
		return CT_INVALID;
	offset = packet->l4 + 8;
	reason = packet->family == 4 ? related_quoted_ipv4(skb, offset, quoted)
				     : related_quoted_ipv6(skb, offset, quoted);
	if (reason)
		return reason;
	quoted->l3 = offset;
	if (bpf_skb_load_bytes(skb, quoted->l4, header, sizeof(header)) < 0)
		return CT_INVALID;
	switch (quoted->protocol) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_SCTP_NUMBER:
		__builtin_memcpy(&quoted->source_port, header, 2);
		__builtin_memcpy(&quoted->destination_port, header + 2, 2);
		return FORWARDED;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6_NUMBER:
		__builtin_memcpy(&id, header + 4, 2);
		if (header[0] == ICMP_ECHO_REQUEST || header[0] == ICMPV6_ECHO_REQUEST)
			quoted->source_port = id;
		else if (header[0] == ICMP_ECHO_REPLY || header[0] == ICMPV6_ECHO_REPLY)
			quoted->destination_port = id;
		else
			return CT_INVALID;
		return FORWARDED;
	default:
		return CT_INVALID;
	}
}

/*
 * Puts `address` and `port` in the place of one side of the quoted packet. In IPv4 the quoted header's own checksum
 * balances the address within the ICMP checksum; in IPv6 there is none to do so.
 */
SUBPROGRAM enum drop_reason related_translate(struct __sk_buff *skb, const struct packet *packet,
					      const struct packet *quoted, const struct service_end *to, __u32 side)
{
	struct addr from, address;
	__be16 from_port, port;
	__u32 checksum;

	if (!packet || !quoted || !to || side > TRANSLATE_DESTINATION)
		return MALFORMED;
	from = side == TRANSLATE_SOURCE ? quoted->source : quoted->destination;
	from_port = side == TRANSLATE_SOURCE ? quoted->source_port : quoted->destination_port;
	address = to->address;
	port = to->port;
	checksum = packet->l4 + ICMP_CHECKSUM_OFFSET;
	if (packet->family == 4) {
		if (bpf_skb_store_bytes(skb, quoted->l3 + IPV4_SOURCE_OFFSET + side * 4, &address.words[3], 4, 0) < 0 ||
		    bpf_l3_csum_replace(skb, quoted->l3 + IPV4_CHECKSUM_OFFSET, from.words[3], address.words[3], 4) < 0)
			return MALFORMED;
	} else {
		__s64 difference = bpf_csum_diff(from.words, 16, address.words, 16, 0);

		if (bpf_skb_store_bytes(skb, quoted->l3 + IPV6_SOURCE_OFFSET + side * 16, &address, 16, 0) < 0 ||
		    bpf_l4_csum_replace(skb, checksum, 0, difference, 0) < 0)
			return MALFORMED;
	}
	if (bpf_l4_csum_replace(skb, checksum, from_port, port, 2) < 0 ||
	    bpf_skb_store_bytes(skb, quoted->l4 + side * 2, &port, 2, 0) < 0)
		return MALFORMED;
	return FORWARDED;
}
