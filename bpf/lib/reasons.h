/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Why a packet was dropped: the numbers of `dropReasons` in src/model/verdict.ts, which says what each means.
 * test/datapath/drops.program.test.ts compares the two through the object's BTF.
 */
#pragma once

enum drop_reason {
	FORWARDED = 0,
	POLICY_DENIED = 1,
	POLICY_DENIED_EXPLICIT = 2,
	ENDPOINT_NOT_READY = 3,
	SPOOFED_SOURCE_IP = 4,
	SPOOFED_SOURCE_MAC = 5,
	SPOOFED_NEIGHBOUR = 6,
	UNKNOWN_L3 = 7,
	UNKNOWN_L4 = 8,
	MALFORMED = 9,
	FRAGMENT_WITHOUT_FIRST = 10,
	UNKNOWN_PEER = 11,
	NO_PROOF = 12,
	PLAINTEXT = 13,
	TUNNEL_SELECTOR = 14,
	TUNNEL_TO_NODE = 15,
	NO_SERVICE_BACKEND = 16,
	CT_INVALID = 17,
	CT_FULL = 18,
	SERVICE_CONFLICT = 19,
	MULTICAST = 20,
	SOURCE_ROUTED = 21,
	LEAK_PREVENTED = 22,
	TTL_EXCEEDED = 23,
	VLAN = 24,
	TOO_BIG = 25,
	UNKNOWN_RULE_SET = 26,
	UNTRANSLATABLE = 27,
	REVOKED = 28,
	HTTP_DENIED = 29,
	HTTP_MALFORMED = 30,
	HTTP_HEAD_TOO_BIG = 31,
	HTTP_BODY_MALFORMED = 32,
	HTTP_UNREAD = 33,
	DNS_DENIED = 40,
	DNS_MALFORMED = 41,
	DNS_UNASKED = 42,
	NAMES_FULL = 43,
	PROXY_ABSENT = 44,
	PROXY_CONNECTION = 45,
	TLS_DENIED = 46,
	TLS_MALFORMED = 47,
	PROXY_MALFORMED = 48,
	TLS_SECRET = 49,
	TLS_UNVERIFIED = 50,
	TLS_MISDIRECTED = 51,
};

/* Slots of the metrics map per direction; new reasons stay below it. */
#define DROP_REASON_SLOTS 64
/* No reason to drop: the slot of what passed and audited policies would have denied. */
#define AUDITED 63
