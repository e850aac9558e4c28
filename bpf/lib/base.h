/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What every other header stands on: kernel and libbpf headers, the address form, byte order, small helpers. */
#pragma once

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <stdbool.h>
#include <stddef.h>

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#ifndef __noinline
#define __noinline __attribute__((noinline))
#endif

/*
 * A global function: the verifier walks it once, whatever its callers look like, and they know nothing of it but its
 * types. So its pointers are checked, and as Linux 6.1 takes map keys from a function's own stack only, copied.
 */
#define SUBPROGRAM __noinline

#define IPPROTO_SCTP_NUMBER 132
#define IPPROTO_ICMPV6_NUMBER 58

#define MAC_LENGTH 6

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

/* As src/model/identity.ts numbers them. */
enum reserved_identity {
	IDENTITY_ANY = 0,
	IDENTITY_HOST = 1,
	IDENTITY_WORLD = 2,
	IDENTITY_REMOTE_NODE = 3,
	IDENTITY_FIRST_NAME = 0xf00000, /* from here on numbers stand for patterns of DNS names */
};

/* Seen from the pod at whose interface the packet is; also what a connection-tracking entry says of its originator. */
enum direction {
	DIRECTION_EGRESS = 1,
	DIRECTION_INGRESS = 2,
};

/*
 * An IP address, network order, an IPv4 one as ::ffff:a.b.c.d. Aligned to four bytes only, so that no map key or
 * value grows a hidden hole.
 */
struct addr {
	__be32 words[4];
};

static __always_inline bool addr_equal(const struct addr *a, const struct addr *b)
{
	return a->words[0] == b->words[0] && a->words[1] == b->words[1] && a->words[2] == b->words[2] &&
	       a->words[3] == b->words[3];
}

static __always_inline void addr_set_ipv4(struct addr *a, __be32 ipv4)
{
	a->words[0] = 0;
	a->words[1] = 0;
	a->words[2] = bpf_htonl(0xffff);
	a->words[3] = ipv4;
}

/* Whether the 16 bytes stand for an IPv4 address; on the wire of an IPv6 packet no such address may appear. */
static __always_inline bool addr_is_ipv4(const struct addr *a)
{
	return a->words[0] == 0 && a->words[1] == 0 && a->words[2] == bpf_htonl(0xffff);
}

static __always_inline bool addr_is_unspecified(const struct addr *a)
{
	return (a->words[0] | a->words[1] | a->words[2] | a->words[3]) == 0;
}

static __always_inline bool addr_is_ipv6_link_local(const struct addr *a)
{
	return (a->words[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
}

/* The two addresses of the node's end of every pod's link: 169.254.1.1 and fe80::1. */
static __always_inline bool addr_is_gateway(const struct addr *a)
{
	if (a->words[0] == bpf_htonl(0xfe800000))
		return a->words[1] == 0 && a->words[2] == 0 && a->words[3] == bpf_htonl(1);
	return addr_is_ipv4(a) && a->words[3] == bpf_htonl(0xa9fe0101);
}

static __always_inline bool addr_is_multicast(const struct addr *a)
{
	if (addr_is_ipv4(a)) /* 224.0.0.0/4, and 240.0.0.0/4 with the limited broadcast in it */
		return (a->words[3] & bpf_htonl(0xe0000000)) == bpf_htonl(0xe0000000);
	return (a->words[0] & bpf_htonl(0xff000000)) == bpf_htonl(0xff000000);
}

static __always_inline bool mac_equal(const __u8 *a, const __u8 *b)
{
	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3] && a[4] == b[4] && a[5] == b[5];
}
