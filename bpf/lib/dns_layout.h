/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What DNS names are looked up in and what was learnt of them, as layout.h has the other maps; and what reads a message. */
#pragma once

#include "layout.h"

/*
 * Names (dns.h). A matcher is a DFA over the names that an endpoint's egress policy is about, in lower case, with dots
 * between labels and none at the end; the root is ".". State 0 is dead, state 1 the first.
 */
#define MATCHER_LEARNS (1U << 0) /* policy has rules about what is at a name's addresses */
#define MATCHER_ASKS (1U << 1)   /* policy has rules about which names may be asked */

struct name_matcher {
	__u32 flags;
	/* The rule sets for what may become a question that policy allows: a stream that is opened. */
	__u32 admin_set;
	__u32 network_set;
	__u32 mesh_set;
};

#define NAME_CLASSES 39 /* '.', '-', '_', digits, letters: no other character is in any pattern's names */

struct name_state_key {
	__u32 matcher;
	__u32 state;
};

struct name_state {
	__u16 next[40]; /* by class; the last is not used */
	__u32 accept;	/* of a name that ends here */
};

struct name_accept_key {
	__u32 matcher;
	__u32 accept;
};

#define NAME_PATTERNS 8 /* an address has at most so many */

/* What is asked about a question for a name, and which patterns the name is one of; more than fit: NAME_PATTERNS + 1. */
struct name_accept {
	__u32 admin_set;
	__u32 network_set;
	__u32 mesh_set;
	__u32 count;
	__u32 patterns[NAME_PATTERNS];
};

struct name_key {
	__u32 endpoint;
	struct addr address;
};

#define NAME_TEXT 256

/* An address that an endpoint was told; what it stands for until when, by pattern. */
struct name_value {
	__u64 learnt_ns; /* last */
	__u64 expires_ns[NAME_PATTERNS];
	__u32 patterns[NAME_PATTERNS];
	__u8 name[NAME_TEXT]; /* that was asked for last */
};

/* What a pattern's number stands for: it outlives the agent. */
struct name_pattern {
	__u8 text[NAME_TEXT];
};

/* Patterns that policy is asked about beside the identity: those alive, and the one that a connection was opened under. */
struct name_probe {
	__u32 patterns[NAME_PATTERNS + 1];
};

/* A resource record that was read. Names are 64-bit hashes over their labels in lower case. */
struct dns_record {
	__u64 owner;
	__u64 target;  /* of a CNAME */
	__u32 offset;  /* of the data, in the message */
	__u32 seconds; /* its TTL */
	__u16 type;
	__u16 class;
	__u16 length;
	__u16 pad;
};

#define DNS_MESSAGE 4096 /* bytes of a message, at most */
#define DNS_RECORDS 64
#define DNS_LINKS 16	 /* CNAMEs of a chain */

#define DNS_HISTORY 512	 /* bytes of a stream of questions that are kept: a question over TCP is no longer */
#define DNS_AT_ONCE 4	 /* questions that end in one segment */

/* A question that was read and is noted once it is let through. */
struct dns_asked {
	__u64 question;
	__be16 id;
	__u8 pad[6];
};

/* Where a DNS message is read. */
struct dns_scratch {
	__u64 hash; /* of the name that is being read */
	__u64 question;
	__u64 chain[DNS_LINKS + 1];
	__u64 now;
	struct dns_record records[DNS_RECORDS];
	struct name_value fresh;
	struct name_accept accept;
	__u32 length; /* of the message */
	__u32 at;
	__u32 end;    /* behind the name, 0: not known yet */
	__u32 limit;  /* a pointer must lead before it */
	__u32 left;   /* of the label */
	__u32 total;  /* bytes of the name */
	__u32 status; /* enum dns_status */
	__u32 matcher; /* 0: the name is not matched */
	__u32 state;
	__u32 text; /* bytes in `name` */
	__u32 cursor;
	__u32 count; /* of records */
	__u32 links; /* in `chain` */
	__u32 aliases;
	__u32 endpoint;
	__u32 full;
	__be16 id;
	__u16 pad;
	__u32 asked_count;
	struct dns_asked asked[DNS_AT_ONCE];
	/* Of a pod's stream of questions (struct dns_asking): what is known of it, and the segment at hand behind that. */
	__u32 base;    /* the sequence number of the first byte */
	__u32 before;  /* of the first byte that is new */
	__u32 bytes;   /* in `stream` */
	__u32 begin;   /* of the message at hand */
	__u32 broken;
	__u32 matching; /* the matcher of the names in it */
	/* Of a stream of answers (struct dns_telling), and its segment. */
	__u32 offset;  /* of what has not been looked at, in the frame */
	__u32 rest;    /* how much that is */
	__u32 added;   /* how much it was */
	__u32 have;    /* bytes of the message at hand, its length among them */
	__u32 reason;  /* enum drop_reason */
	__u8 prefix[2];
	__u8 pad2[2];
	__u8 name[NAME_TEXT];
	/* Twice as long: of two pieces the verifier sees no more than that neither is longer. */
	__u8 message[2 * DNS_MESSAGE];
	__u8 stream[3 * DNS_HISTORY];
};

/*
 * What a pod has sent on a connection to port 53, from the handshake on: whoever sends it knows what the server has, and
 * that may be other than what came by here, so what comes again must be the same.
 */
struct dns_asking {
	__u32 next;    /* the sequence number of the next byte; between two, one that none has */
	__u32 base;    /* of the first one in `bytes`, which go up to the next */
	__u32 message; /* where in them the message at hand begins */
	__u32 pad;
	__u8 bytes[DNS_HISTORY];
};

/* What a pod was told on a connection from port 53. The beginning of a message, but its length, is in dns_pieces. */
struct dns_telling {
	__u32 next;
	__u32 have; /* bytes of the message at hand, its length among them */
	__u8 prefix[2];
	__u8 pad[2];
};

struct dns_piece {
	__u8 bytes[DNS_MESSAGE];
};

struct dns_query_key {
	struct ct_key connection;
	__be16 id;
	__u16 pad;
};

/* A question that was let through and has no answer yet, or whose answer may come again. */
struct dns_query {
	__u64 expires_ns;
	__u64 question; /* a hash over name, type and class */
};
