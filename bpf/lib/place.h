/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What an event says of a packet beside the packet. */
#pragma once

#include "base.h"

struct place {
	__u32 endpoint; /* id, 0: none */
	__u32 ifindex;
	__u32 direction;
	__u32 rule;
	__u32 source_identity;
	__u32 destination_identity;
	__u32 service;
	__u32 flags; /* POLICY_… of the rule, or of the isolation that denied */
};
