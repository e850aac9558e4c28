/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Proof of arrival: how one program of this node tells the next whom a packet is from. It rides in skb->mark, which a
 * pod cannot set: a veth clears it between network namespaces, and from_pod clears it again before anything else.
 */
#pragma once

#include "base.h"

#define MARK_PROVEN 0x4d000000U /* 'M' */
#define MARK_IDENTITY 0x00ffffffU

static __always_inline __u32 mark_proven(__u32 identity)
{
	return MARK_PROVEN | (identity & MARK_IDENTITY);
}

/* The identity that the mark proves, or IDENTITY_ANY where it proves none. */
static __always_inline __u32 mark_identity(__u32 mark)
{
	return (mark & ~MARK_IDENTITY) == MARK_PROVEN ? mark & MARK_IDENTITY : IDENTITY_ANY;
}
