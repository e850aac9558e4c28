/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The tables that policy about HTTP requests is compiled to, as layout.h has the other maps. */
#pragma once

#include "base.h"

/*
 * What rules ask of HTTP requests. A rule that asks for one of several things is several alternatives; those of one rule
 * set are numbered in the order in which they decide, and are bits of an http_bits: the lowest bit that is set wins.
 *
 * A matcher says which alternatives a request is: for each part of a request that any of them asks about, a DFA runs over
 * the part's text, byte by byte through `classes` (the names of headers, and the host, in lower case). Its state behind
 * the last byte has an accept: the bits that this part leaves standing. What all parts leave standing is matched. Rows
 * are numbered from the matcher's first_row, accepts from its first_accept, so that tables do not depend on where they
 * are; row 0 is dead (it stays, and accepts nothing) and accept 0 has no bits. A number may be given to another matcher
 * once config.revision was raised twice, so nobody keeps one from packet to packet.
 *
 * - Each header line's name goes through the DFA at name_start, whose accepts are no bits but 1 + the index in `headers`,
 *   or 0. Each line that has one goes through that DFA; bits must be left by all lines. A header that no line has leaves
 *   absent_accept, a request without host absent_host.
 * - A start of 0: no alternative asks about that part.
 */
#define HTTP_ALTERNATIVES 1024
#define HTTP_WORDS (HTTP_ALTERNATIVES / 64)
#define HTTP_CLASSES 100 /* every byte that a text may have by itself, at most */
#define HTTP_NAMES 16 /* of headers that alternatives ask about */

struct http_bits {
	__u64 bits[HTTP_WORDS];
};

struct http_header {
	__u32 start;
	__u32 absent_accept;
};

struct http_matcher {
	__u32 alternatives; /* how many: with none of the parts looked at, their bits all stand */
	__u32 first_alternative; /* in http_alternatives */
	__u32 first_row;         /* in http_rows */
	__u32 rows;
	__u32 first_accept; /* in http_accepts */
	__u32 accepts;
	__u32 method_start;
	__u32 path_start;   /* of the canonical path */
	__u32 target_start; /* of the canonical path, and the query with its `?` */
	__u32 host_start;
	__u32 absent_host;
	__u32 name_start;
	__u32 header_count;
	__u32 pad;
	struct http_header headers[HTTP_NAMES];
	struct http_bits lenient; /* the alternatives that allow */
	struct http_bits strict;  /* the alternatives that deny */
	__u8 classes[256];
};

struct http_alternative {
	__u32 precedence; /* as of a policy_entry */
	__u32 rule;
	__u8 verdict;
	__u8 flags;
	__u8 pad[2];
};

struct http_row {
	__u16 next[HTTP_CLASSES];
	__u32 accept;
};
