/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The way to the proxy. It lives in a network namespace of its own at the other end of a veth pair (config.proxy_ifindex),
 * takes every connection that comes there with the addresses that it has, and opens one with the same addresses towards
 * where it was going. Both ends of the connection have an entry that says so (CT_PROXIED), if they are of this node; so
 * there is one rule: what comes from anywhere else goes to the proxy, what comes from the proxy goes on (from_proxy.bpf.c).
 *
 * The frame tells the proxy whose connection it is, in the source MAC address, which it reads from the saved SYN
 * (TCP_SAVE_SYN): src/proxy/origin.ts.
 *
 *   byte 0     bits 7–3: bits 20–16 of the pattern; bit 2: seen from the client; bit 1: locally administered
 *   bytes 1–2  bits 15–0 of the pattern: the DNS name by which the destination was admitted, from 1; 0: none
 *   bytes 3–5  the identity of the other end, as seen from the pod whose entry it is
 */
#pragma once

#include "conntrack.h"
#include "deliver.h"

/* Both ends of the pair, in every namespace the same; src/datapath/proxy/wiring.ts. */
#define PROXY_MAC { 0x02, 0x4d, 0x59, 0x4c, 0x50, 0x02 }

#define PROXY_SEEN_FROM_CLIENT 0x04
#define PROXY_LOCAL_MAC 0x02

/* The frame's link header becomes that of the way to the proxy. */
static __always_inline long proxy_address(struct __sk_buff *skb, const struct track *track, __u32 direction)
{
	__u8 header[2 * MAC_LENGTH] = PROXY_MAC;
	__u32 pattern = track->name >= IDENTITY_FIRST_NAME ? track->name - IDENTITY_FIRST_NAME + 1 : 0;
	__u32 seen = direction == DIRECTION_EGRESS ? PROXY_SEEN_FROM_CLIENT : 0;

	header[6] = PROXY_LOCAL_MAC | seen | ((pattern >> 16) & 0x1f) << 3;
	header[7] = pattern >> 8;
	header[8] = pattern;
	header[9] = track->identity >> 16;
	header[10] = track->identity >> 8;
	header[11] = track->identity;
	return bpf_skb_store_bytes(skb, 0, header, sizeof(header), 0);
}

/* Sends the packet to the proxy. @returns What the program says of it; TC_ACT_SHOT where there is no proxy. */
SUBPROGRAM int proxy_divert(struct __sk_buff *skb, const struct track *track, __u32 direction)
{
	struct config *settings = config_get();

	if (!settings || !track || settings->proxy_ifindex == 0 || proxy_address(skb, track, direction) < 0)
		return TC_ACT_SHOT;
	skb->mark = 0;
	return bpf_redirect(settings->proxy_ifindex, 0);
}

/* Sends a copy of the frame to the proxy, and leaves the frame as it was. */
SUBPROGRAM int proxy_copy(struct __sk_buff *skb, const struct track *track, __u32 direction)
{
	struct config *settings = config_get();
	__u8 macs[2 * MAC_LENGTH];

	if (!settings || !track || settings->proxy_ifindex == 0 || bpf_skb_load_bytes(skb, 0, macs, sizeof(macs)) < 0 ||
	    proxy_address(skb, track, direction) < 0)
		return -1;
	bpf_clone_redirect(skb, settings->proxy_ifindex, 0);
	return bpf_skb_store_bytes(skb, 0, macs, sizeof(macs), 0);
}
