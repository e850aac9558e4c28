/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What a hook says of a packet's connection, and what it learns of it: conntrack.h. */
#pragma once

#include "policy.h"

/* What the hook knows of the packet's connection, and what came out of tracking it. */
#define TRACK_EXEMPT (1U << 0)     /* in: may open a connection without policy: its own node, or itself (TRACK_SELF) */
#define TRACK_SELF (1U << 1)
#define TRACK_REMOTE_POD (1U << 2) /* in: the other end is a pod, so replies need proof */
#define TRACK_UNPROVEN (1U << 3)   /* in: arrived without proof, so it can only be a reply */
#define TRACK_NOT_READY (1U << 4)  /* in: the endpoint's policy is not loaded; only its own node reaches it */
#define TRACK_BY_NAME (1U << 5)    /* in: judge this packet, and by `sets`. out: a reply on a connection that is judged so */
#define TRACK_READ (1U << 6)       /* out: its requests are read */
#define TRACK_FROM_PROXY (1U << 7) /* in: the packet comes from the proxy, in the name of its source */
#define TRACK_PROXIED (1U << 8)    /* out: the packet is to go to the proxy */
#define TRACK_KEEPS (1U << 9)      /* out: what does not let it in unread keeps connections that were */

/* Who reads the requests of a connection. */
enum ct_reader {
	READER_NONE = 0,
	READER_KERNEL = 1, /* or nobody, and then no data passes: http.bpf.c */
	READER_PROXY = 2,
};

struct track {
	struct ct_key key;
	__u32 flags;
	__u32 service;    /* in: through which service it goes, 0: none. out: whose address a reply must bear */
	__u32 identity;   /* in: of the other end */
	__u32 reader;     /* out: enum ct_reader; with one, policy allows it for the requests that are made on it */
	__u32 found;      /* out: it belongs to a live connection */
	__u32 reply;      /* out: it answers the connection's originator */
	__u32 event;      /* out: enum event_kind that is due, 0: none */
	__u32 judged;     /* out: enum direction in which policy was asked about it and let it pass, 0: it was not asked */
	__u32 name;       /* in and out: the pattern by which it was admitted, 0: none */
	__u32 dns;        /* of the hook's own: enum dns_read */
	__u32 sets[3];    /* in: admin, network and mesh set, with TRACK_BY_NAME */
	struct policy_query query; /* of the connection's own; here because it is not for the stack */
	__u64 expires_ns;	   /* out */
};
