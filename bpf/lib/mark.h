/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Proof of arrival: how one program of this node tells the next whom a packet is from. It rides in skb->mark, which a
 * pod cannot set: a veth clears it between network namespaces, and from_pod clears it again before anything else.
 *
 * The high byte says what the low 24 bits, an identity number, stand for:
 *   'M'  a pod of this node, a pod at the other end of a tunnel, or the node itself (IDENTITY_HOST, set by the node's
 *        nftables on output);
 *   'P'  whom the proxy speaks for, of a connection that goes by way of it (proxy.h);
 *   'W'  the world beyond the uplink; from a pod, an answer to that world, which keeps the pod's address.
 */
#pragma once

#include "base.h"

#define MARK_PROVEN 0x4d000000U
#define MARK_PROXIED 0x50000000U
#define MARK_WORLD 0x57000000U
#define MARK_IDENTITY 0x00ffffffU

/* @returns The identity that the mark stands for, or IDENTITY_ANY where it says nothing. */
static __always_inline __u32 mark_identity(__u32 mark)
{
	__u32 kind = mark & ~MARK_IDENTITY;

	return kind == MARK_PROVEN || kind == MARK_WORLD || kind == MARK_PROXIED ? mark & MARK_IDENTITY : IDENTITY_ANY;
}

static __always_inline bool mark_is_world(__u32 mark)
{
	return (mark & ~MARK_IDENTITY) == MARK_WORLD;
}

static __always_inline bool mark_is_proxied(__u32 mark)
{
	return (mark & ~MARK_IDENTITY) == MARK_PROXIED;
}
