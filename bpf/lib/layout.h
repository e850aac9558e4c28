/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The keys and values of the maps, and what is in events: the one place where they are laid out. src/datapath/layouts.ts
 * is checked against the BTF of this. Addresses are `struct addr`; ports are in network order but for the policy's,
 * which are numbers.
 */
#pragma once

#include "base.h"
#include "reasons.h"

/* config.flags */
#define CONFIG_XFRM (1U << 2) /* the kernel carries tunnels: packets out of them have its proof of the SA, tunnel_out leads in */
/* From one of engine and kernel to the other: with CONFIG_XFRM, what the engine opened is let in as well. */
#define CONFIG_CHANGING (1U << 4)
#define CONFIG_PROXY_LEARN (1U << 3) /* ports that HTTP/2 comes to are noted for the proxy, also while there is none */

/* All times in nanoseconds; a timeout of 0 means the default that ct_state.h names. */
struct config {
	__u32 revision;
	__u32 tunnel_ifindex;
	__u32 uplink_ifindex;
	__u32 flags;
	__u32 mtu; /* of the pods' devices, 0: not checked */
	__u32 proxy_ifindex; /* the node's side of the link to the proxy's namespace, 0: there is no proxy */
	__u64 report_interval_ns; /* between two periodic events of one connection, 0: none */
	__u64 deny_interval_ns;   /* between two deny events of one (endpoint, remote, port, reason), 0: all are reported */
	__u64 opening_ns;         /* any connection that had no reply yet */
	__u64 tcp_established_ns;
	__u64 tcp_half_closed_ns;
	__u64 closed_ns; /* after a reset, or after both sides' FIN */
	__u64 udp_ns;
	__u64 sctp_ns;
	__u64 icmp_ns;
	__u64 fragment_ns;
	__u64 name_floor_ns;   /* an address counts as a name's for at least so long, whatever the answer's TTL */
	__u64 name_ceiling_ns; /* and at most so long */
};

#define ENDPOINT_READY (1U << 0)
#define ENDPOINT_REVOKED (1U << 1) /* nobody believes that it is who it was: nothing of it passes, in either direction */

#define ENDPOINT_AUDITED (1U << 2) /* has sets in `audits` */

struct endpoint {
	__u32 id;
	/* What the pod's own packets stand for, by family: a policy's CIDRs may tell its two addresses apart. */
	__u32 identity4;
	__u32 identity6;
	/* What is asked one after the other; an admin or mesh set of 0: nothing to ask. */
	__u32 ingress_admin_set;
	__u32 ingress_set;
	__u32 ingress_mesh_set;
	__u32 egress_admin_set;
	__u32 egress_set;
	__u32 egress_mesh_set;
	__u32 flags;
	__u32 names; /* the matcher of the names that its egress policy is about, 0: it is about none */
	__u8 mac[MAC_LENGTH];
	__u8 host_mac[MAC_LENGTH];
	struct addr addr4; /* all zero: has none */
	struct addr addr6;
};

/* By the endpoint's id: what would be asked if audited policies were enforced beside the others. */
struct endpoint_audit {
	__u32 ingress_admin_set;
	__u32 ingress_set;
	__u32 ingress_mesh_set;
	__u32 egress_admin_set;
	__u32 egress_set;
	__u32 egress_mesh_set;
};

enum peer_kind {
	PEER_LOCAL_POD = 1,
	PEER_REMOTE_POD = 2,
	PEER_THIS_NODE = 3,
	PEER_OTHER_NODE = 4,
	PEER_POD_CIDR = 5,     /* of the cluster; who is there and not in `peers` is unknown */
	PEER_WORLD = 6,        /* a CIDR that a policy names */
	PEER_SERVICE_CIDR = 7, /* no service has this address and port */
};

struct peer {
	__u32 identity;
	__u32 kind; /* enum peer_kind */
};

struct prefix_key {
	__u32 length; /* bits of the 128: an IPv4 prefix has 96 more */
	struct addr address;
};

/* rule_set.probes: bit n = the set has entries of one protocol whose port prefix has n bits. */
#define PROBE_ANY_PROTOCOL (1U << 17)
#define RULE_SET_ISOLATED (1U << 0)

/* What goes with a verdict, in the flags of entries and (for what isolation denies) of rule sets. */
#define POLICY_LOG (1U << 1)    /* every one is said in an event */
#define POLICY_REJECT (1U << 2) /* the sender of what is denied is told */
#define POLICY_AUDIT (1U << 3)  /* said only */
#define POLICY_KEEP (1U << 4)   /* connections that are denied now, and were admitted, go on */
#define POLICY_RESET (1U << 5)  /* their both ends are told */
#define POLICY_OPTIONS (POLICY_LOG | POLICY_REJECT | POLICY_AUDIT | POLICY_KEEP | POLICY_RESET)

/* Rule numbers that are no policy's; src/policy/image.ts reservedRules. */
enum reserved_rule {
	RULE_NONE = 0,
	RULE_OWN_NODE = 1,
	RULE_SELF = 2,
	RULE_DEFAULT_DENY = 3,
};

struct rule_set {
	__u32 probes;
	__u32 flags;
	__u32 rule; /* reported when isolation denies */
	__u32 matcher; /* in http_matchers, 0: nothing in it is about requests */
};

#define VERDICT_ALLOW 1
#define VERDICT_DENY 2
#define VERDICT_PASS 3 /* as if no entry had matched */
#define VERDICT_PROXY 4 /* as the proxy finds, which reads what is said on the connection */

struct policy_key {
	__u32 set;
	__u32 identity; /* 0: any */
	__u16 port;     /* host order, bits behind the prefix are 0; of ICMP, type << 8 | code */
	__u8 protocol;  /* 0: any */
	__u8 port_length;
};

struct policy_entry {
	__u32 precedence;
	__u32 rule;
	__u8 verdict; /* 0: no rule that asks nothing of requests stands at this key */
	__u8 flags; /* POLICY_… */
	__u8 pad[2];
	__u32 cell; /* in http_cells: the rules that do. 0: none */
};

/* One key for both directions of a connection, seen from the pod; service flows are keyed alike. */
struct ct_key {
	__u32 endpoint;
	__be16 local_port;
	__be16 remote_port;
	struct addr remote;
	__u8 protocol;
	__u8 pad[3];
};

enum ct_state {
	CT_OPENING = 1,     /* no reply yet */
	CT_ESTABLISHED = 2,
	CT_HALF_CLOSED = 3, /* one FIN */
	CT_CLOSED = 4,      /* a reset, or both FINs */
};

#define CT_EXEMPT (1U << 0)     /* no policy applies: the pod's own node, the pod itself through its service */
#define CT_REMOTE_POD (1U << 1) /* replies must come with proof */
#define CT_BY_REQUEST (1U << 2) /* admitted for the HTTP requests that are made on it: each is judged (http.bpf.c) */
#define CT_READ (1U << 3)       /* its requests are read; else none of its data passes */
#define CT_PROXIED (1U << 6)    /* its packets go by way of the proxy (proxy.h) */
#define CT_BROKEN (1U << 5)     /* what comes on it cannot be read: both of its ends are told */
#define CT_KEPT (1U << 8)	/* denied since, and kept as it was admitted: POLICY_KEEP */
#define CT_BY_NAME (1U << 4)    /* admitted for the DNS names that are asked on it: each question is judged, and lets its answer in */

/* Index 0 of the pairs is the originator's direction. */
struct ct_entry {
	__u64 expires_ns;
	__u64 created_ns;
	__u64 packets[2];
	__u64 bytes[2];
	__u64 last_report_ns;
	__u32 rule;
	__u32 revision;
	__u32 remote_identity;
	__u32 service; /* the service whose address replies must come from, 0: none */
	__u8 direction;
	__u8 state;
	__u8 tcp_flags[2];
	__u32 flags;
	__u32 name; /* the pattern's number by which it was admitted, 0: not by a name */
	__u32 class; /* of the other end of a proxied connection, as in identity_classes; 0: not known */
};

/* Who reads the requests to an endpoint's port that the kernel could read as well. */
struct proxy_port_key {
	__u32 endpoint; /* id */
	__u16 port;	/* host order */
	__u16 pad;
};

/* Who should have been answered by the kernel in a way that it cannot: its next connections are the proxy's. */
struct proxy_client_key {
	__u32 endpoint; /* id, of whom it talks to */
	struct addr remote;
	__u16 port;	/* host order */
	__u16 pad;
};

enum proxy_mode {
	PROXY_ALWAYS = 1, /* the proxy: what is spoken there is not HTTP/1.1 */
	PROXY_NEVER = 2,  /* the kernel, whatever comes: the proxy is forbidden */
};

struct service_key {
	struct addr address;
	__be16 port;
	__u8 protocol;
	__u8 pad;
};

struct service {
	__u32 id;
	__u32 count; /* of backends: slots 0 to count - 1 */
};

struct backend_key {
	__u32 service;
	__u32 slot;
};

/* An address and port behind a service, or (in service_fronts) the service's own. */
struct service_end {
	struct addr address;
	__be16 port;
	__u8 pad[2];
};

#define SERVICE_FLOW_HAIRPIN_REPLY (1U << 0)

/* Keyed {endpoint, local port, service port, service address, protocol}. */
struct service_flow {
	struct addr address; /* of the backend; for a hairpin's reply, of the service */
	__be16 port;
	__u16 flags;
	__u32 service;
	__u64 expires_ns;
};

struct fragment_key {
	struct addr source;
	struct addr destination;
	__be32 id;
	__u32 endpoint;
	__u8 protocol;
	__u8 direction; /* of the hook: from_pod and to_pod see different addresses of one translated packet */
	__u8 pad[2];
};

struct fragment_ports {
	__be16 source;
	__be16 destination;
	__u32 pad;
	__u64 expires_ns;
};

struct tunnel_key {
	struct addr local;
	struct addr remote;
};

struct tunnel {
	__u32 identity;
	__u32 spi;          /* host order; the two are compared only where the kernel decrypts (CONFIG_XFRM) */
	__u32 previous_spi; /* 0: none */
	__u32 pad;
};

struct metric {
	__u64 packets;
	__u64 bytes;
};

struct denial_key {
	__u32 endpoint;
	struct addr remote;
	__be16 port; /* the one being talked to */
	__u8 reason;
	__u8 direction;
};

struct denial {
	__u64 last_ns;
	__u64 packets; /* since the last event */
	__u64 bytes;
};

/* What a program knows of its packet and would take too much of its stack: 512 bytes are for all calls together. */
struct scratch {
	__u64 words[48];
};

/* How often a rule has something said (events.h). */
struct log_limit {
	__u64 next_ns;
	__u64 unsaid;
};

/* How often one endpoint's side answers one peer (reply.h). */
struct reply_limit_key {
	__u32 endpoint;
	struct addr remote;
};

/* Bytes of a packet that an ICMP error about it quotes. */
#define REPLY_QUOTE 128

struct reply_segment {
	__be16 source;
	__be16 destination;
	__be32 sequence;
	__be32 acknowledgment;
	__u8 offset;
	__u8 flags;
	__be16 window;
	__u16 checksum;
	__be16 urgent;
};

/* Where an answer is put together. */
struct reply_buffer {
	struct {
		struct addr source;
		struct addr destination;
		__be32 length;
		__be32 protocol;
	} covered;
	union {
		struct {
			__u8 unused[sizeof(struct ipv6hdr) - sizeof(struct iphdr)];
			struct iphdr header;
		} v4;
		struct ipv6hdr v6;
	} network;
	__u8 transport[8 + REPLY_QUOTE];
};

enum event_kind {
	EVENT_NEW = 1,
	EVENT_END = 2,
	EVENT_PERIODIC = 3,
	EVENT_DENY = 4,
	/* Passed, and `reason` and `rule` are what audited policies would have denied it by; of a request, a struct http_event. */
	EVENT_AUDIT = 5,
	EVENT_REQUEST = 6, /* an HTTP request: a struct http_event (http_layout.h) */
};

#define EVENT_LOGGED (1U << 0) /* the rule wants it said in the log */

/* `source` is who opened the connection; of a packet that was denied, who sent it. */
struct event {
	__u64 time_ns; /* CLOCK_MONOTONIC */
	__u8 kind;
	__u8 direction;
	__u8 verdict;
	__u8 reason;
	__u8 protocol;
	__u8 tcp_flags; /* seen so far, both directions */
	__u8 flags;
	__u8 pad;
	__u32 endpoint;
	__u32 ifindex;
	__u32 rule;
	__u32 source_identity;
	__u32 destination_identity;
	__u32 service;
	struct addr source;
	struct addr destination;
	__be16 source_port;
	__be16 destination_port;
	__u32 unsaid; /* with EVENT_LOGGED: how many the rule should have had said before, and were too many */
	__u64 packets; /* both directions; of a deny, since the last event of its kind */
	__u64 bytes;
	__u64 duration_ns;
};
