/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What the programs know of a packet once it is parsed. */
#pragma once

#include "base.h"

#define PACKET_FIRST_FRAGMENT (1U << 0)
#define PACKET_LATER_FRAGMENT (1U << 1)
#define PACKET_FRAGMENT (PACKET_FIRST_FRAGMENT | PACKET_LATER_FRAGMENT)
#define PACKET_RELATED (1U << 2)   /* an ICMP error: about a packet that it quotes */
#define PACKET_NEIGHBOUR (1U << 3) /* ND or MLD: between the pod and its link only */
#define PACKET_REPLY_ONLY (1U << 4) /* its protocol says that it answers something: an echo reply */

/*
 * Ports are 0 where the protocol has none. ICMP echo counts as a connection from port = identifier to port 0, so that
 * requests and replies tell apart who asks: with the identifier at both ends, a pod that is being pinged could send
 * requests of its own as if they were replies.
 */
struct packet {
	struct addr source;
	struct addr destination;
	__be16 source_port;
	__be16 destination_port;
	__be32 fragment_id;
	__u32 length; /* of the IP packet, bytes */
	__u16 l3;     /* offset of the IP header */
	__u16 l4;     /* offset of what follows the IP headers */
	__u8 family;  /* 4 or 6 */
	__u8 protocol;
	__u8 tcp_flags;
	__u8 icmp_type; /* for SCTP, the type of the first chunk */
	__u8 ttl;
	__u8 flags;
	__u8 l4_header; /* bytes of the transport header, 0 where it is not there (a later fragment) */
	__u8 fragment_offset; /* in units of 8 bytes, 255 where larger */
};
